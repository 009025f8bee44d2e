/* What the files of libdrover share: the structs behind the handles, and the calls between them.
 *
 * connection.c (connection, descriptor, process) owns everything; bus-open.c opens the bus, also when it broke;
 * pool.c a channel and the jobs in it; submit.c hands jobs over; builder.c makes arguments; future.c keeps what became
 * of a job; wait.c waits for several; map.c feeds many. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "ipc/channel/channel.h"
#include "ipc/client/include/drover/drover.h"
#include "ipc/client/session/session.h"
#include "ipc/memory/own-fd.h"
#include "ipc/memory/process.h"
#include "ipc/values/args.h"

enum { DROVER_ERROR_TEXT = 512, FUTURE_INLINE = 96, FUTURE_SPARE = 512, BUS_NAME_BYTES = 256 };

/* Somebody who wants to know when a future ends. */
struct watch {
        drover_future *future;
        struct watch_group *group;
        bool is_watching; /* it has not ended yet */
        LIST_ENTRY(watch) of_future;
        TAILQ_ENTRY(watch) of_group; /* once it ended */
};

struct watch_group {
        TAILQ_HEAD(, watch) ended; /* as they were found */
        size_t n_ended, n_failed, n_sorted;
        void (*on_end)(struct watch_group *g, struct watch *w); /* NULL = none */
};

struct future_callback {
        drover_done_fn fn;
        void *user;
        struct future_callback *next;
};

/* A copy that was made for a getter, and lives as long as its future. */
struct future_copy {
        struct future_copy *next;
        max_align_t data[];
};

struct drover_future {
        drover *drover;
        drover_pool *pool; /* NULL once it ended */
        uint32_t references, slot, type;
        enum drover_state state;
        struct bus_job *bus_job; /* NULL: in a channel, or ended */
        struct after *after;     /* NULL: it comes after no other job of a channel */
        int code;                /* once it ended: what drover_future_result returns */
        uint64_t id;

        const void *data; /* result */
        size_t bytes;
        struct session_fds *fds; /* of the result; NULL: none */
        struct drover_run run;
        drover_future *next_spare;
        LIST_HEAD(, watch) watches;
        struct future_callback *callbacks, **last_callback;
        bool is_called_soon; /* in the drover's list of those with callbacks */
        TAILQ_ENTRY(drover_future) of_called;
        struct future_failure *failure; /* the words of `error`; NULL: none, or no memory for them */
        struct stream *stream;          /* of its items; NULL: none */
        struct future_copy *copies;
        uint8_t small[FUTURE_INLINE]; /* the result, if it fits */
        drover_error error;           /* once it ended without a result */
};

struct drover_pool {
        drover *drover;
        LIST_ENTRY(drover_pool) of_drover;
        char *name;
        uint32_t references;     /* handles, and one for each job without a verdict */
        struct session *session; /* NULL: closed */
        drover_future **by_slot; /* those without a verdict; NULL where nobody wants to know */
        bool *is_busy;           /* by slot */
        uint32_t n_slots, n_in_flight, n_bus_jobs;
        bool is_shut;           /* by drover_pool_drain: takes nothing more */
        bool is_gone;           /* the daemon went away */
        uint32_t session_epoch; /* as the epoll knows it */
        bool must_ring;         /* jobs were submitted quietly */
};

/* Lives as long as something refers to it; what it holds of the daemon ends with drover_close. */
struct drover {
        uint32_t references;
        uint64_t process;         /* that opened it: process_number */
        sd_bus *bus;              /* NULL: closed */
        char *address;            /* of the bus, as drover_open found it */
        uint64_t open_ns;         /* when it was last opened again, in vain or not; 0: never */
        int open_error;           /* of that */
        struct own_fd bus_socket; /* a number of our own for it: epoll_fd has it until it is lost */
        bool is_bus_watched;
        bool has_lost_fds; /* all descriptors were closed by the program */
        int epoll_fd;
        uint32_t bus_events; /* that epoll_fd watches the bus for */
        int bus_error;       /* of the last look at it: bus_process */
        LIST_HEAD(, drover_pool) pools;
        TAILQ_HEAD(future_list, drover_future) called; /* have a verdict and callbacks */
        bool is_processing, is_armed;
        LIST_HEAD(, bus_job) bus_jobs;    /* without a verdict */
        unsigned n_bus_jobs, n_bus_asked; /* of these, how many are asked about at the moment */
        unsigned n_bus_fds_asked;         /* of these, with answers that may come with descriptors */
        unsigned n_bus_calls;             /* Submits that wait for their answer */
        unsigned n_matches;               /* that the bus has not answered yet */
        int match_error;                  /* of one that it refused */
        uint64_t bus_ask_ns;              /* no bus job is asked about again before this */
        char broker[BUS_NAME_BYTES];      /* whose signals come: a unique name; "": nobody's */
        sd_bus_slot *removed_match, *owner_match;
        LIST_HEAD(, stream) streams; /* stream.c */
        drover_future *spare;        /* future.c: given back, at most FUTURE_SPARE of them */
        uint32_t n_spare;
        struct future_failure *reserve; /* for the words of the next failure that finds no memory; NULL: used up */
        uint64_t n_ended;               /* verdicts so far */
        struct after_past *past;        /* after.c: how jobs of channels ended */
        uint64_t wake_ns; /* when drover_process is due whatever the descriptor says; 0 = now: not all is armed */
        char error[DROVER_ERROR_TEXT];
};

/* ---- connection.c ---- */

static inline bool connection_is_ours(const drover *d) { return d->process == process_number(); }
/* -ECHILD, -ECONNABORTED. */
int connection_check(drover *d);
/* Has the descriptor that programs poll know this bus, and no other one. 0 or -errno. */
int connection_watch_bus(drover *d, sd_bus *bus);
/* The connection to the bus is over: nobody polls it, and its jobs are lost. */
void connection_lose_bus(drover *d);
/* Before something is closed by number: has the program closed all descriptors? Then nothing is closed any more. */
void connection_look_for_fds(drover *d);
drover *connection_ref(drover *d);
void connection_unref(drover *d);
/* Sets the text and returns `code`. */
int connection_fail(drover *d, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* -EAGAIN or -ETIMEDOUT of a wait, in words. */
int connection_late(drover *d, int code);
/* The number for a bus error's name; what it does not know is `otherwise`. */
int errors_code(const char *name, int otherwise);
int errors_report(drover *d, int code, const char *noun, const char *name, const sd_bus_error *e);
/* Adds a session's descriptors to the one that programs poll. */
int connection_watch_session(drover *d, struct session *s);
void connection_unwatch_session(drover *d, struct session *s);

/* ---- bus-open.c ---- */

/* As drover_open. */
int bus_open(sd_bus **ret, const char *bus);
/* Before a call that needs the bus: 0, there is a connection, perhaps another one than before. Or why not, in words;
 * nothing was sent then. Waits until the bus has accepted it, some seconds at most. */
int bus_open_for_call(drover *d);
/* For session_on_bus_lost: as that says. `user`: the drover. */
int bus_open_for_session(void *user);

/* ---- options.c ---- */

/* A struct `name` of options as the caller filled it in (NULL: not at all) into one of ours of `bytes`: what the caller
 * does not know is 0. -EINVAL: struct_size, the first field of each, is less than `least_bytes`, or what we do not know
 * is not 0. */
int options_read(drover *d, const char *name, const void *options, size_t least_bytes, void *ret, size_t bytes);

/* ---- engine.c: verdicts in, sleeping ---- */

/* Takes in what is there. How many verdicts. */
unsigned engine_collect(drover *d);
/* Until is_done(user), which is asked again after every verdict. 0, -EAGAIN, -ETIMEDOUT; -EDEADLK: nothing is under way
 * that could end it; -EMFILE, -ENFILE, -ENOMEM: nothing but what cannot be taken in now. */
int engine_wait(drover *d, bool (*is_done)(void *user), void *user, uint64_t deadline_ns);
/* Until there may be room for a job that had none, or the deadline. `is_others`: in the broker's channel, where others
 * make room, too. */
void engine_wait_room(drover *d, bool is_others, uint64_t deadline_ns);
/* 0; -EMFILE, -ENFILE, -ENOMEM: something that has come cannot be taken in now, and that is said in words. */
int engine_is_short(drover *d);
/* Prepares a sleep in poll(). true: there is something to do first. */
bool engine_arm(drover *d);
/* Until something came, also at `fd` (-1: none), or the deadline. 0, or -errno: it cannot wait. */
int engine_sleep(drover *d, uint64_t deadline_ns, int fd);
void engine_woken(drover *d);

/* ---- pool.c ---- */

/* A verdict of the session's, to its future. */
void pool_deliver(drover_pool *p, const struct session_result *r);
/* The daemon is gone, or drover_close: every job without a verdict is lost. */
void pool_lose(drover_pool *p, int code, const char *why);
/* QUEUED or RUNNING. */
enum drover_state pool_look_at(const drover_pool *p, uint32_t slot);
void pool_ring(drover_pool *p);
/* May the broker be asked about it by its number? -ESTALE */
int pool_check_number(drover_pool *p, const drover_future *f);
int pool_cancel_job(drover_pool *p, drover_future *f, enum drover_cancel_mode mode);
/* Closes it, whatever references there are. */
void pool_end(drover_pool *p, const char *why);

/* ---- submit.c ---- */

struct submission {
        const char *job;
        uint32_t type;
        const void *payload;
        size_t bytes;
        const drover_args *args;              /* for its descriptors; NULL: none */
        const struct drover_options *options; /* whole, as submit_read_options left it */
        bool is_quiet;
};

/* The caller's options, as far as they go. -EINVAL. */
int submit_read_options(drover *d, const struct drover_options *options, struct drover_options *ret);
int submit_find_type(drover_pool *p, const char *job, uint32_t *ret_type);
/* Checks the arguments (NULL: none) against the signature of s->type; the payload is theirs. */
int submit_read_args(drover_pool *p, drover_args *args, struct submission *s);
/* Does it go over the bus? */
bool submit_is_for_bus(drover_pool *p, const struct submission *s);
/* One try, no waiting: as drover_submit. */
int submit_try(drover_pool *p, const struct submission *s, drover_future **ret);

/* ---- after.c: jobs of a channel that come after others ---- */

enum { AFTER_MOST = 1024, AFTER_PAST = 4096 };

/* Do these ids name jobs of this drover's channels? 1, or 0: none of them does, the broker may know. -EINVAL: some do.
 */
int after_are_ours(drover *d, const struct drover_options *o);
struct after *after_new(const struct drover_options *o); /* NULL: no memory */
/* The job of `f` was submitted and is held back: lets it go when all it comes after are done, or cancels it. */
void after_start(drover_future *f, struct after *a, const struct drover_options *o);
struct after *after_free(struct after *a);
/* Why it was cancelled, in words; false: not because of another one. */
bool after_explain(const drover_future *f, char *text, size_t bytes);
/* Before the first of them: memory for how they end. */
int after_prepare(drover *d);
/* A job of a channel has this verdict. */
void after_note(drover *d, uint64_t id, enum drover_state state);

/* ---- builder.c ---- */

struct drover_args {
        struct args_writer writer;
        uint8_t *buffer;
        size_t capacity, bytes;
        bool is_raw, is_complete;
        bool is_lent;        /* part of something else: not the program's to free */
        bool has_payload_fd; /* raw: the payload is payload_fd */
        int payload_fd;
        int fds[SCHEMA_MAX_FDS];               /* ours */
        struct own_fd own[SCHEMA_MAX_FDS + 1]; /* the same, and payload_fd */
        unsigned n_fds;
        int error;
        char *why; /* NULL: none, or no memory for it */
};

void builder_init(drover_args *args);
void builder_deinit(drover_args *args);
/* Why building it failed: the field and what is wrong with it. */
const char *builder_why(const drover_args *args);
/* The payload: -errno if building it failed. Completes the map, which stays complete until a reset. */
int builder_complete(drover_args *args, const void **ret_payload, size_t *ret_bytes);
/* Values as a signature says. */
int builder_put_all(drover_args *args, const char *signature, va_list ap, char *error, size_t error_bytes);

/* ---- future.c ---- */

int future_new(drover_future **ret, drover *d, drover_pool *p, uint32_t references);
void future_drop(drover_future *f); /* frees it whatever references there are; NULL is fine */
/* So that a verdict that comes without memory keeps its words. 0 or -ENOMEM. */
int future_reserve(drover *d);
void future_free_spare(drover *d);
/* The verdict: for DONE `data` is the result; else `error` is its number and `data` the message. */
struct future_verdict {
        enum drover_state state;
        int code; /* negative */
        const void *data;
        size_t bytes;
        struct session_fds *fds; /* the future's from now on; `data` may point into it */
        void **block; /* for DONE: what malloc gave for `data`, taken (and NULL) if there is no memory for a copy */
        uint32_t attempt;
        int32_t worker_pid, signal, status;
        const char *reason; /* static */
        const char *job, *pool;
        uint64_t submitted_ns, started_ns, finished_ns;
};
/* Tells everybody who waits, and drops the reference that was held for the verdict. */
void future_end(drover_future *f, const struct future_verdict *v);
void future_call_soon(drover_future *f);
/* Calls what is to be called now. How many were. */
unsigned future_call_all(drover *d);
void future_forget_calls(drover *d);
/* When, as far as that is known: those that never ran ended when nobody looked, and come last. */
static inline uint64_t future_ended_ns(const drover_future *f) {
        return f->run.finished_ns ? f->run.finished_ns : DROVER_FOREVER;
}
static inline bool future_has_ended(const drover_future *f) { return f->state >= DROVER_DONE; }
int future_code(enum drover_state state, int error);

/* ---- wait.c ---- */

void watch_group_init(struct watch_group *g);
void watch_start(struct watch *w, struct watch_group *g, drover_future *f); /* takes a reference */
void watch_stop(struct watch *w);
/* Of those that ended and were not taken yet (there is one), the one that ended first. `room` holds all of the group.
 */
struct watch *watch_take_first(struct watch_group *g, struct watch **room);
/* future_end: everybody who watches it. */
void watch_tell(drover_future *f);

/* ---- iterators: what wait.c and map.c have in common ---- */

struct drover_iterator {
        drover *drover;
        int (*next)(drover_iterator *it, drover_future **ret, uint64_t deadline_ns);
        void (*free)(drover_iterator *it);
        uint64_t n_pulled;
};
