/* A client's side of one channel: submit, wait, collect. Internal; libdrover stands on it.
 * One thread at a time. Deadlines are absolute CLOCK_MONOTONIC ns, EVENT_FOREVER = none, 0 = try. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/layout.h"
#include "ipc/values/args.h"
#include "ipc/values/schema.h"

typedef struct sd_bus sd_bus;

struct session;

/* Calls Manager.OpenChannel(pool, {}) on `bus` (blocking, 25 s at most) and maps what comes back. On failure `error`
 * holds the bus error's "name: message". The session keeps a reference to the bus and ends with the connection.
 *
 * A daemon that dies is not an error: whoever waits in session_next or session_wait then hands the channel to the next
 * one (which may block past the deadline while that one starts its workers), and all jobs keep their one verdict. They
 * keep their numbers, too, but a daemon may give the channel others: session_has_number. */
int session_open(struct session **ret, sd_bus *bus, const char *pool, char *error, size_t error_bytes);
/* The same, -ETIMEDOUT at the deadline. */
int session_open_until(struct session **ret, sd_bus *bus, const char *pool, uint64_t deadline_ns, char *error,
                       size_t error_bytes);
#define SESSION_OPEN_NS UINT64_C(25000000000)
struct session *session_free(struct session *s); /* drops queued jobs, asks running ones to stop */
/* Its descriptors were closed by somebody else: their numbers are not ours any more. */
void session_lose_fds(struct session *s);
/* For the child of a fork, where the memories are not mapped: gives back what it inherited and tells nobody. */
struct session *session_forget(struct session *s);

/* Without this a session whose bus broke is over when its daemon is away. With it `renew` is asked while the daemon is
 * away, and never waits: 0, the session's bus can be used, which may be another one by now (session_set_bus); -errno:
 * there is none at the moment. */
void session_on_bus_lost(struct session *s, int (*renew)(void *user), void *user);
void session_set_bus(struct session *s, sd_bus *bus);

const struct schema *session_schema(const struct session *s);
uint32_t session_slots(const struct session *s);
uint32_t session_slot_bytes(const struct session *s);
int session_fd(const struct session *s); /* the session socket: readable = session_process has something to do */
/* Looks at the session socket without waiting, and if the daemon is gone, for the next one. 0, or -EPIPE: it is gone
 * for good. */
int session_process(struct session *s);
/* 1; 0: its pool is stopped or being removed, or no daemon serves this channel any more. Looks first; while the channel
 * is being handed to the next daemon, its answer is waited for: -ETIMEDOUT if there is none until the deadline. */
int session_takes_jobs(struct session *s, uint64_t deadline_ns);
/* Is the daemon away? Then the socket is no good to wait for. The epoch changes whenever this does: the descriptors
 * have the same numbers afterwards, but an epoll must be told of them again. */
bool session_is_away(const struct session *s);
/* The daemon said that it ends: it takes no job, the next one will. */
bool session_is_ending(const struct session *s);
/* -EPIPE because its memory was written over, not because the daemon went away. */
bool session_is_foul(const struct session *s);
uint32_t session_epoch(const struct session *s);

struct session_job {
        uint32_t type;                                /* index in the schema */
        uint32_t priority;                            /* a ring of the channel; LAYOUT_PRIORITY_DEFAULT */
        uint32_t max_attempts;                        /* 0 = the pool's */
        uint64_t queue_deadline_ns, soft_ns, hard_ns; /* 0 = the pool's, which holds also if it is the smaller one */
        uint64_t not_before_ns;                       /* absolute; the broker keeps it until then; 0 = none */
        const void *payload;
        size_t bytes;
        const int *fds; /* what its fd arguments mean: sent, not kept; at most SCHEMA_MAX_FDS */
        unsigned n_fds;
        bool has_payload_fd; /* the payload is this sealed memory file instead */
        int payload_fd;
        uint64_t user; /* comes back with the result */
        bool is_quiet; /* wakes no worker: session_ring does, once for several */
        bool is_held;  /* does not start before session_let_go, whatever not_before_ns says */
};

/* 0 and *ret_slot; -EAGAIN no free slot, or too many descriptors under way, -EMSGSIZE payload over SEALED_MAX_BYTES,
 * -EPROTO payload_fd is not sealed, -EBADF, -ESHUTDOWN pool stopped or draining, -EPIPE the daemon is gone. Never
 * blocks. A payload that does not fit a slot is copied into a sealed memory file. */
int session_submit(struct session *s, const struct session_job *job, uint32_t *ret_slot);
void session_ring(struct session *s);
/* A job that was held may start: now, or at `not_before_ns` (0 = now). One that has its verdict already has it. */
void session_let_go(struct session *s, uint32_t slot, uint64_t not_before_ns);

/* Descriptors of a result, and a result that does not fit a slot, which `data` points to then. */
struct session_fds {
        int error; /* positive errno: they are not to be had */
        unsigned n_fds;
        int fds[SCHEMA_MAX_FDS];
        const void *mapped;
        size_t mapped_bytes;
};

struct session_fds *session_fds_free(struct session_fds *f);

struct session_result {
        uint32_t slot;
        uint64_t user, id;
        enum slot_state state;
        uint32_t attempt; /* how many were made */
        uint32_t worker_pid;
        /* DONE: the result; FAILED: the message. Points into shared memory that the pool can still write:
         * session_next copies it into the session's own buffer first, valid until the next session_next. */
        const void *data;
        size_t bytes;
        const struct session_fds *fds; /* DONE; NULL: none. Valid as long, unless session_take_fds */
        int error;                     /* FAILED: positive errno */
        struct layout_verdict verdict; /* the others: why */
        uint64_t queued_ns, started_ns, finished_ns;
};

/* The next job with a verdict, in order of discovery; its slot is freed. 1, or 0 at the deadline or with nothing in
 * flight, -EPIPE, -EINTR, -ENOMEM. A result that does not fit the schema comes as FAILED with EBADMSG. */
int session_next(struct session *s, struct session_result *ret, uint64_t deadline_ns);
/* Those of the newest result, now the caller's; with them its data, if it is mapped. */
struct session_fds *session_take_fds(struct session *s);
/* Where the data of the newest result lies if it is neither mapped nor NULL, as malloc gave it: whoever sets this to
 * NULL has taken it, and the next result needs another one (session_next: -ENOMEM, and it is there still). */
void **session_block(struct session *s);
/* Waits for one particular job, whatever else is done meanwhile (that stays for session_next). 1, 0 at the deadline,
 * -EPIPE, -EINTR, -EINVAL if nothing is in flight there. */
int session_wait(struct session *s, uint32_t slot, struct session_result *ret, uint64_t deadline_ns);
/* For a poll() of the caller's own on session_done_fd and session_fd: from now on a verdict makes the first readable,
 * once. true: there is one already, fetch it. *ret_deadline_ns: when session_woken is due whatever poll() says. */
int session_done_fd(const struct session *s);
bool session_arm(struct session *s, uint64_t *ret_deadline_ns);
/* After that poll(): takes note of what made them readable, and judges what is overdue. */
void session_woken(struct session *s);

/* false: every wait sleeps at once. Default: true, spinning first where ipc/memory/spin.c says that it pays. */
void session_set_spin(struct session *s, bool spins);

/* The number of a job that was submitted and not fetched yet. */
uint64_t session_job_id(const struct session *s, uint32_t slot);
/* false: the channel has other numbers by now, and this one may not be said to the daemon. */
bool session_has_number(const struct session *s, uint64_t id);
/* The slot's word as it stands; 0 for a slot that holds no job of ours. */
uint64_t session_look_at(const struct session *s, uint32_t slot);
/* How long a daemon may be away until the waits return -EPIPE; 10 s at first, 0 = not at all. */
void session_set_patience(struct session *s, uint64_t patience_ns);

/* No queue deadline passes before this; EVENT_FOREVER = there is none. */
uint64_t session_next_deadline(const struct session *s);

/* As channel_cancel. */
int session_cancel(struct session *s, uint32_t slot);
/* Only if it has not started. */
bool session_cancel_queued(struct session *s, uint32_t slot);
/* 0; -EMFILE, -ENFILE, -ENOMEM: all that is in flight has its verdict, and there are no descriptors or memory for what
 * belongs to the results. Looked for again in every wait, which ends early then, as at its deadline. */
int session_is_short(const struct session *s);
uint32_t session_in_flight(const struct session *s);

/* "poisoned after 3 attempts: signal SIGSEGV" and the like, for people. */
void session_describe(const struct session_result *r, char *text, size_t text_bytes);
