/* Jobs that go over the bus. */
#pragma once

#include "ipc/client/library.h"

enum { BUS_JOB_PATH = 64 };

#define BUS_JOB_NAME "org.drover1"
#define BUS_JOB_ROOT "/org/drover1"
#define BUS_JOB_MANAGER "org.drover1.Manager"
#define BUS_JOB_INTERFACE "org.drover1.Job"

struct bus_job {
        LIST_ENTRY(bus_job) of_drover;
        drover_future *future; /* NULL: nobody wants to know */
        drover_pool *pool;     /* a reference */
        uint64_t id, submitted_ns;
        const char *name; /* the pool's */
        char path[BUS_JOB_PATH];
        char broker[BUS_NAME_BYTES]; /* who accepted it: a unique name */
        bool is_raw;
        bool has_fds;           /* its result may come with descriptors */
        int error;              /* why it was not asked for: no descriptor is free for them */
        bool is_removed;        /* the broker said that it is over, after it was asked */
        enum drover_state told; /* and how; DROVER_QUEUED: it did not */
        sd_bus_slot *call;      /* GetResult, on its way */
        uint64_t ask_ns;        /* when to ask again if nobody tells; EVENT_FOREVER: asked */
        uint64_t pause_ns;      /* before that; 0: it was not asked again yet */
        bool is_short;          /* because there was no memory for the answer */
};

/* As submit_try. Waits for the broker's answer. */
int bus_job_submit(drover_pool *p, const struct submission *s, drover_future **ret);

/* Of either kind, by asking the broker. As drover_future_cancel. */
int bus_job_cancel(drover *d, uint64_t id, enum drover_cancel_mode mode);
void bus_job_cancel_queued(drover_pool *p);
bool bus_job_is_running(drover *d, uint64_t id);
/* Calls a member of it that takes nothing. */
int bus_job_call_member(drover *d, uint64_t id, const char *member, sd_bus_message **ret_reply);

/* ---- bus-verdict.c: how they end ---- */

/* Before Submit: has the broker tell of verdicts. */
int bus_verdict_prepare(drover *d);
/* After it: `broker` has a job of ours. */
void bus_verdict_accepted_by(drover *d, const char *broker);
/* Before Submit, whose answer must not come behind one that cannot be taken in: until no answer with descriptors is
 * under way. -EMFILE, -ENFILE, -ENOMEM: one cannot be taken in. */
int bus_verdict_await_fds(drover *d);
/* Have all an end that cannot be taken in now? 0; -EMFILE, -ENFILE: as bus_has_room. */
int bus_verdict_are_short(drover *d);
/* No more of it, if there are no jobs. */
void bus_verdict_rest(drover *d);
/* Asks how it ended. */
void bus_verdict_ask(struct bus_job *j);
/* Asks about those of which there was no word for long. */
void bus_verdict_ask_late(drover *d);
/* When that is due. */
uint64_t bus_verdict_due_ns(const drover *d);
void bus_verdict_lose_all(drover *d, int code, const char *why);
void bus_verdict_unsubscribe(drover *d);

/* The state of a word of the broker's for a verdict. */
enum drover_state bus_result_state(const char *word);
/* bus-result.c: the answer to GetResult. The result's bytes go into `result`, texts point into the message. */
int bus_result_read(sd_bus_message *m, bool is_raw, drover_args *result, struct future_verdict *v);
