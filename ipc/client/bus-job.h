/* Jobs that go over the bus. */
#pragma once

#include "ipc/client/library.h"

enum { BUS_JOB_PATH = 64 };

struct bus_job {
        LIST_ENTRY(bus_job) of_drover;
        drover_future *future; /* NULL: nobody wants to know */
        drover_pool *pool;     /* a reference */
        uint64_t id, submitted_ns;
        const char *name; /* the pool's */
        char path[BUS_JOB_PATH];
        bool is_raw;
        bool is_removed;   /* the broker said that it is over */
        sd_bus_slot *call; /* GetResult, on its way */
};

/* As submit_try. Waits for the broker's answer. */
int bus_job_submit(drover_pool *p, const struct submission *s, drover_future **ret);
void bus_job_lose_all(drover *d, int code, const char *why);
void bus_job_unsubscribe(drover *d);

/* Of either kind, by asking the broker. As drover_future_cancel. */
int bus_job_cancel(drover *d, uint64_t id, enum drover_cancel_mode mode);
void bus_job_cancel_queued(drover_pool *p);
bool bus_job_is_running(drover *d, uint64_t id);
/* Calls a member of it that takes nothing. */
int bus_job_call_member(drover *d, uint64_t id, const char *member, sd_bus_message **ret_reply);

/* bus-result.c: the answer to GetResult. The result's bytes go into `result`, texts point into the message. */
int bus_result_read(sd_bus_message *m, bool is_raw, drover_args *result, struct future_verdict *v);
