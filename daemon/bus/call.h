/* Method calls whose answer comes later: for a pool's first schema, or for a job's verdict. */
#pragma once

#include "daemon/bus/peers/peer.h"

/* Answers `m` for a job: with a verdict, or (only after a timeout) without one yet. */
typedef int (*bus_answer_fn)(struct bus *b, sd_bus_message *m, struct job *j, sd_bus_error *e);

enum bus_call_kind {
        CALL_POOL, /* runs `fn` again when the pool changes */
        CALL_ROOM, /* runs `fn` again when its pool has room, or takes no more jobs */
        CALL_RUN,  /* owns its job: cancelled with its caller, released when answered */
        CALL_WAIT, /* somebody's job, perhaps with a timeout */
};

struct bus_call {
        struct bus_peer *peer;
        TAILQ_ENTRY(bus_call) link;      /* peer->calls */
        TAILQ_ENTRY(bus_call) pool_link; /* bus->waiting_for_pool, waiting_for_room */
        enum bus_call_kind kind;
        sd_bus_message *message;
        struct bus_weight weight;
        bus_method_fn fn;
        bus_answer_fn answer;
        struct job *job;
        struct job_waiter waiter;
        unsigned round;               /* CALL_POOL, CALL_ROOM */
        char pool[POOL_NAME_MAX + 1]; /* CALL_ROOM */
        struct loop_timer timer;
};

/* LimitsExceeded if this caller has too many calls waiting for something. */
int call_check_room(struct bus_peer *p, sd_bus_error *e);
/* Too many descriptors are open for others to be kept: LimitsExceeded. */
int call_check_numbers(const struct bus *b, sd_bus_error *e);
/* The same, if the call that runs, or is to wait, brings any. */
int call_check_descriptors(const struct bus *b, sd_bus_error *e);
/* The LimitsExceeded of bytes and descriptors. */
int call_too_much(const struct bus_peer *p, sd_bus_error *e);
int call_wait_pool(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn);
int call_wait_room(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn, const char *pool);
/* CALL_RUN takes the job over, also when it fails. timeout_ns UINT64_MAX = none. May answer at once. */
int call_wait_verdict(struct bus_peer *p, sd_bus_message *m, enum bus_call_kind kind, struct job *j,
                      uint64_t timeout_ns, bus_answer_fn answer);
/* Some of those that wait since an earlier round, in the order in which they came. True: there are more. */
bool call_retry_pool(struct bus *b);
bool call_retry_room(struct bus *b);
void call_cancel_all(struct bus_peer *p);
/* Answers all of them with ShuttingDown. */
void call_end_all(struct bus *b);
