/* Drover's client library: jobs for the plugins of a running droverd, as a Python program uses an Executor.
 *
 *     drover *d;
 *     drover_pool *pool;
 *     drover_future *future;
 *     uint64_t square;
 *
 *     drover_open(NULL, &d);
 *     drover_pool_open(d, "squares", &pool);
 *     drover_submitf(pool, &future, "square", "x:u64", (uint64_t)12);
 *     drover_future_wait(future, DROVER_FOREVER);
 *     int r = drover_future_get_u64(future, "square", &square);
 *     drover_future_unref(future);
 *     drover_pool_unref(pool);
 *     drover_close(d);
 *
 * A job goes straight into memory that this process shares with the pool's workers: submitting makes no system call
 * while a worker is awake, and no daemon is on the way. What only the broker can do (an idempotency key, jobs that
 * outlive their client) goes over the bus by the same calls and gives the same futures.
 *
 * Threads. A drover object, with its pools, futures, arguments and iterators, belongs to one thread at a time: threads
 * that share one take turns under a lock of their own. Different drover objects have nothing in common and may be used
 * by different threads at once; opening one costs a connection to the bus. drover_args may be filled by any one thread.
 * No call may be made from a signal handler.
 *
 * The library starts no thread, installs no signal handler, prints nothing, and every descriptor it opens is CLOEXEC.
 *
 * A fork: in the child every call with an object of the parent that needs the daemon or a worker returns -ECHILD and
 * changes nothing. The verdict of a future that had one at the fork can be read there as in the parent: its wait
 * returns 0, its result is the child's to look at. drover_close and the _unref and _free calls give back the child's
 * memory and descriptors without a word to the daemon; so do drover_arena_free and the _free calls of <drover/sync.h>.
 * The child opens its own.
 *
 * Giving back. drover_close and the _unref and _free calls may be called at any time: in callbacks, in handlers of
 * atexit, in destructors. A program may have closed all descriptors before (closefrom): then they give back memory,
 * close nothing whose number may be another file's by now, and what libsystemd holds stays allocated. A callback or an
 * input function that is left by longjmp or an exception is never over: drover_process, or that map's
 * drover_iterator_next, says -EBUSY from then on, and what it had in hand stays allocated; all else works, but that a
 * bus that breaks is not opened again.
 *
 * Deadlines are absolute CLOCK_MONOTONIC nanoseconds; drover_deadline_in() makes one. 0 = try: never sleeps, -EAGAIN.
 * DROVER_FOREVER = none. One that has passed makes a waiting call look once, then return -ETIMEDOUT. Limits and
 * timeouts are relative nanoseconds. No call returns -EINTR: waiting calls, marked [waits], and those that wait for an
 * answer of the bus go on after a signal. Who needs to be interrupted polls drover_get_fd(). A wait that times out
 * changes nothing: the job goes on.
 *
 * Descriptors. A result with descriptors, and what droverd answers to drover_pool_open, drover_arena_open and for a
 * stream, need room for up to 16 in the table of this process (RLIMIT_NOFILE). Without it these calls say -EMFILE
 * (-ENFILE: the system's table), and so does a wait, or drover_process, when nothing but such results could end it; it
 * is all there again when there is room. drover_process does not spin meanwhile: drover_get_timeout says when it looks
 * again.
 *
 * Memory. A call that says -ENOMEM can be made again: a verdict that there was no memory for is still to be had, and so
 * are a map's next input and a stream.
 *
 * Errors are negative errno values; 0 or a count is success; outputs are named ret_ and set on success only. What went
 * wrong in the last call that failed stands in words in drover_error_text(). Any call may return -ENOMEM or -ECHILD.
 * Text is UTF-8. Since 0.1, all of it. */
#ifndef DROVER_DROVER_H
#define DROVER_DROVER_H

#if __SIZEOF_POINTER__ != 8
#error "Drover needs a 64-bit machine: words that processes share are 64 bits wide"
#endif

#include <drover/sync.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct drover drover;                   /* one connection to a droverd */
typedef struct drover_pool drover_pool;         /* a pool of workers there, and this process's channel to it */
typedef struct drover_future drover_future;     /* a job that was submitted, and what became of it */
typedef struct drover_args drover_args;         /* arguments of a job in the making */
typedef struct drover_iterator drover_iterator; /* futures one after another */

/* ---- connections ---- */

/* Connects to the bus `bus`: "user" or NULL, "system", or an address as in DBUS_SESSION_BUS_ADDRESS. Whether a droverd
 * is there is seen when a pool is opened. -ENOENT, -ECONNREFUSED, …: there is no such bus. Blocks as long as the bus
 * takes to accept.
 *
 * A connection to the bus that breaks (the bus was started again, or it threw this program out) is opened again, at the
 * address that was found here. Every job over the bus that has no verdict is DROVER_LOST with -EPIPE as soon as that is
 * seen, a call that waits for an answer returns -ETIMEDOUT, and nothing is sent twice. The next call that needs the bus
 * (drover_pool_open of a pool that is not open, drover_submit over the bus, DROVER_CANCEL_KILL,
 * drover_future_get_progress, drover_arena_open, …) opens it, or says why not, and has done nothing then: -ECONNREFUSED
 * nobody listens there -ENOTCONN      it was not accepted within 5 s; or this is a callback of drover_process(), where
 * nothing is opened -ECONNRESET, -EPERM, -EACCES, -EMFILE, …  what else went wrong It is tried every 200 ms at most,
 * and in between the calls have the last error at once. A droverd ends with its bus. Channels, with the jobs in them,
 * are handed to the next one as after any other end, if bus and droverd are back within 10 s; waiting calls and
 * drover_process() see to that, and do not block for it. If only this program was thrown out, its droverd ends its
 * channels: their jobs are lost, and the pools are opened again by drover_pool_open. The number of drover_get_fd()
 * stays, and so does what it stands for: it need not be added to an epoll anew. */
int drover_open(const char *bus, drover **ret_drover);

/* Ends it, and everything of it that still stands open. Jobs of its pools that have no verdict yet: queued ones are
 * cancelled, running ones are asked to stop, and their futures end as DROVER_LOST with -ECONNABORTED; drover_drain
 * before this lets them finish. Jobs that went over the bus go on. What is still
 * referenced stays valid and is given back as ever; calls that need the daemon return -ECONNABORTED. NULL is fine.
 * Returns NULL. Does not block. */
drover *drover_close(drover *d);

/* The same; *ret_n_dropped: jobs of its pools that had no verdict, whose results nobody gets. The message of their
 * futures' errors says how many, too. */
drover *drover_close_counted(drover *d, uint32_t *ret_n_dropped);

/* As Executor.shutdown(wait=True) in Python: from now on nothing is submitted through the handles of pools that are
 * open
 * (-ESHUTDOWN); waits until every job of this drover has its verdict, also those over the bus and those that come after
 * others. -EAGAIN, -ETIMEDOUT: some are still without; call it again. Callbacks run in drover_process(), as ever.
 * [waits] */
int drover_drain(drover *d, uint64_t deadline_ns);

/* One line about the last call with this object, or with something of it, that failed, of at most 511 bytes; "" if none
 * did. Until the next call. */
const char *drover_error_text(const drover *d);

/* ---- an event loop of the program's own ----
 *
 *     for (;;) {
 *             while ((r = drover_process(d)) > 0)
 *                     ;
 *             drover_get_timeout(d, &deadline_ns);
 *             poll({drover_get_fd(d), POLLIN} and whatever else, until deadline_ns);
 *     }
 *
 * A program that only waits with the calls below needs none of these three. */

/* To be polled for POLLIN only, with poll, epoll, io_uring, GLib, …; stays the same for the life of `d`, also when the
 * bus is opened again; belongs to the library. It becomes readable when there is something to do for drover_process, if
 * that returned 0 since the last other call. */
int drover_get_fd(const drover *d);

/* Until when poll may sleep: DROVER_FOREVER, or a deadline of a job that is to be told to its future then. */
int drover_get_timeout(const drover *d, uint64_t *ret_deadline_ns);

/* Takes in all verdicts there are and calls the callbacks of drover_future_on_done: here and nowhere else. 1: it did
 * something, call it again. 0: nothing is left to do, and drover_get_fd tells when there is. -EBUSY: called from a
 * callback, or one was left by longjmp. -ECONNABORTED: a callback called drover_close. -EMFILE, -ENFILE, -ENOMEM:
 * nothing is left but what cannot be taken in now; drover_get_timeout tells when to try again. Never blocks, but for
 * the callbacks, and for an answer of the broker when an attempt of a streamed job was lost. */
int drover_process(drover *d);

/* ---- pools ---- */

/* Opens a channel to the pool `name`, or another reference to it if this drover has one open. One whose pool was
 * removed, or whose daemon was not followed by another one in 10 s, is open no more: its handles say -EPIPE for ever,
 * and this makes a new one. Blocks for an answer of the daemon, also while a pool is being started, a daemon that ends
 * is followed by the next (10 s), or its channel is handed to that, 25 s at most in all, then -ETIMEDOUT, which costs
 * the handles that are open nothing. -ENOENT: no such pool. -EHOSTUNREACH: no droverd on this bus. -ESHUTDOWN: the pool
 * is stopped or refused. -EDQUOT: the daemon serves as many sessions as it may. -EACCES. -EXDEV: droverd is in another
 * time namespace, where moments of CLOCK_MONOTONIC are others. -EPROTO: the answer makes no sense. -ECONNREFUSED,
 * -ENOTCONN, …: the bus cannot be opened again (drover_open). */
int drover_pool_open(drover *d, const char *name, drover_pool **ret_pool);
drover_pool *drover_pool_ref(drover_pool *pool);

/* Gives the reference back. The channel stays open as long as a job in it has no verdict: dropping the handle cancels
 * nothing. NULL is fine. Returns NULL. */
drover_pool *drover_pool_unref(drover_pool *pool);

const char *drover_pool_name(const drover_pool *pool);
/* The plugin that the pool runs, as it names itself. */
const char *drover_pool_plugin(const drover_pool *pool);
/* How many jobs may be without a verdict at once in this channel (the pool's Slots=). */
uint32_t drover_pool_slots(const drover_pool *pool);
/* Jobs without a verdict that this drover submitted to the pool. */
uint32_t drover_pool_in_flight(const drover_pool *pool);

/* From now on nothing more is submitted through the handles that are open: -ESHUTDOWN. Others are not concerned; the
 * pool itself is drained by droverctl. Then waits until every job that was submitted has its verdict. drain lets them
 * all run; cancel first cancels those that are still queued. -EAGAIN, -ETIMEDOUT: some are still without; call it
 * again. [waits] */
int drover_pool_drain(drover_pool *pool, uint64_t deadline_ns);
int drover_pool_cancel(drover_pool *pool, uint64_t deadline_ns);

/* ---- arguments ----
 *
 * Fields in any order, each once, as the job's signature in the plugin has them. The first error stays and is returned
 * by every later call and by drover_submit, whose text names the field and what is wrong: -EINVAL, -ENOMEM. Everything
 * is copied. One object can serve for many jobs. */

int drover_args_new(drover_args **ret_args);
drover_args *drover_args_free(drover_args *args); /* NULL is fine; returns NULL */
/* Forgets all fields and errors, keeps the memory. */
void drover_args_reset(drover_args *args);

int drover_args_u64(drover_args *args, const char *name, uint64_t value);
int drover_args_i64(drover_args *args, const char *name, int64_t value);
int drover_args_f64(drover_args *args, const char *name, double value);
int drover_args_bool(drover_args *args, const char *name, bool value);
int drover_args_str(drover_args *args, const char *name, const char *text);
/* Text that is not 0-terminated, or holds a 0. */
int drover_args_str_sized(drover_args *args, const char *name, const char *text, size_t bytes);
int drover_args_bytes(drover_args *args, const char *name, const void *data, size_t bytes);
int drover_args_u64_array(drover_args *args, const char *name, const uint64_t *values, size_t n);
int drover_args_i64_array(drover_args *args, const char *name, const int64_t *values, size_t n);
int drover_args_f64_array(drover_args *args, const char *name, const double *values, size_t n);
int drover_args_bool_array(drover_args *args, const char *name, const bool *values, size_t n);
int drover_args_str_array(drover_args *args, const char *name, const char *const *texts, size_t n);
/* A descriptor, for a field of type fd; at most 7. It is duplicated: yours may be closed at once, the duplicate is
 * closed by drover_args_reset or _free. The daemon has another one until the job's verdict, for the worker and for
 * further attempts: a pipe is at its end only after that. Which open file is meant all of them share, its offset, too.
 * -EBADF. */
int drover_args_fd(drover_args *args, const char *name, int fd);
/* The payload of a raw job; the object must have no fields then. */
int drover_args_raw(drover_args *args, const void *data, size_t bytes);
/* The same as a memory file, all of it, which the worker maps: nothing is copied, however many jobs get it. It must be
 * sealed against writing, shrinking and growing (memfd_create(2), F_ADD_SEALS); -EINVAL if it is not, or empty, or over
 * 1 GiB. Duplicated. */
int drover_args_raw_fd(drover_args *args, int fd);

/* ---- submitting ---- */

/* Of the jobs of one uid that wait for a pool, those of the highest number are begun first; but every 16th time one of
 * the lowest that waits is, so none starves. The same numbers on the bus, the same names in the shell. 0 is
 * DROVER_NORMAL. */
enum drover_priority { DROVER_LOW = 1, DROVER_NORMAL = 2, DROVER_HIGH = 3, DROVER_URGENT = 4 };

enum drover_submit_flag {
        /* Over the bus: the job does not end with this process, others of this uid can wait for its id and ask for its
         * result for the pool's ResultTTL=, and jobs may come after it. */
        DROVER_DETACHED = 1u << 0,
        /* As DROVER_DETACHED, and the job's stream is open from the start: drover_future_next_item,
           drover_future_on_item. */
        DROVER_STREAMED = 1u << 1,
};

/* All zero but struct_size: a plain job, as NULL for the pointer. DROVER_OPTIONS(.priority = DROVER_HIGH) makes one. */
struct drover_options {
        uint32_t struct_size; /* sizeof(struct drover_options): what the caller knows of */
        int32_t priority;     /* enum drover_priority; 0 = DROVER_NORMAL */
        /* How long to wait for room while the channel is full. 0: not at all, -EAGAIN at once. [waits] otherwise */
        uint64_t submit_deadline_ns;
        uint64_t queue_deadline_ns; /* who is not running by then ends as DROVER_EXPIRED; 0 = the pool's */
        /* How long an attempt may run: at the first drover_checkpoint() fails in it, at the second its worker is killed
         * and the job ends as DROVER_TIMED_OUT. 0 = the pool's; the smaller one counts. */
        uint64_t soft_limit_ns, hard_limit_ns;
        uint64_t not_before_ns; /* CLOCK_MONOTONIC: it does not start before, and not much later; 0 = at once */
        uint32_t max_attempts;  /* 0 = the pool's; the smaller one counts */
        uint32_t flags;         /* enum drover_submit_flag bits */
        /* This sends the job over the bus, as DROVER_DETACHED: some 100 µs instead of one, the submission blocks for
         * the broker's answer (25 s at most), there is no waiting for room, and text must not hold a 0. */
        const char *
                idempotency_key; /* of 1 to 128 bytes: a job of this key that is there already is joined; NULL = none */
        /* Ids of jobs: starts when all are DROVER_DONE, and ends as DROVER_CANCELLED when one ends otherwise. Either
         * all of this drover's channels, the newest 4096 of those that ended included: then it has its slot at once,
         * and starts or ends when the last verdict is taken in, which is in a waiting call or in drover_process(). Or
         * all that went over the bus: then it goes there, too. At most 1024. */
        const uint64_t *after;
        size_t n_after;
};

/* The address of a struct that lives until the end of the whole statement (C++) or block (C). Name the fields in the
 * order of the struct: C++ wants it. (g++ -Wextra asks for all of them: -Wno-missing-field-initializers.) */
#ifdef __cplusplus
extern "C++" {
template <class T> static inline const T *drover__address(const T &value) { return &value; }
}
#define DROVER__STRUCT(type, ...) (drover__address((type){.struct_size = sizeof(type), __VA_ARGS__}))
#else
#define DROVER__STRUCT(type, ...) (&(const type){.struct_size = sizeof(type), __VA_ARGS__})
#endif
#define DROVER_OPTIONS(...) DROVER__STRUCT(struct drover_options, __VA_ARGS__)

/* Hands a job to the pool. args NULL: no arguments. Everything is copied; the
 * same args may be submitted again, or be filled anew after drover_args_reset. What takes more than the pool's
 * SlotSize=, and descriptors, go through the daemon beforehand: some 20 µs, and memory for a copy in a sealed memory
 * file. `options` NULL: a plain job. ret_future NULL: nobody wants to know. 0: accepted; from now on there will be
 * exactly one verdict. Otherwise nothing was submitted: -EAGAIN      as many jobs are under way as there are slots, or
 * as many descriptors with them (with large payloads) or with results that were not taken in (64 at least of each), or
 * droverd has yet to read those of some 200 jobs before; also while droverd ends, until the next one has the channel.
 * -ETIMEDOUT: so it was until submit_deadline_ns -ENXIO       the plugin has no job of that name -EINVAL      the
 * arguments do not fit the job's signature, or an option makes no sense: drover_error_text names it -EMSGSIZE    the
 * arguments take more than 1 GiB, or typed ones over the bus more than the pool's SlotSize= -ESHUTDOWN   the pool is
 * stopped or draining, or drover_pool_drain was called -EPIPE       the daemon is gone over the bus also -ENOENT (a job
 * of `after` is not known), -EDQUOT, -EACCES, -EHOSTUNREACH, -EMFILE, and those of a bus that cannot be opened again
 * (drover_open) One error leaves open whether it was submitted, over the bus only: -ETIMEDOUT when droverd does not
 * answer for 25 s, or it or the bus ends before it does, or when its answer cannot be read, for a second, for want of
 * descriptors or memory. Who cannot have it twice gives it a key, and submits it again with that key. */
int drover_submit(drover_pool *pool, const char *job, drover_args *args, const struct drover_options *options,
                  drover_future **ret_future);

/* The same for a raw job. */
int drover_submit_raw(drover_pool *pool, const char *job, const void *data, size_t bytes,
                      const struct drover_options *options, drover_future **ret_future);

/* The same in one line: `signature` says what follows, in the words of a plugin's: "n:u64,who:str,rows:f64[]"; "" or
 * NULL: nothing. u64, i64, f64 (double) and bool (int) take one value, str one pointer, bytes a pointer and a size_t,
 * arrays a pointer and a size_t (str[]: const char *const *), fd an int. -EINVAL: not a signature, or not the job's. */
int drover_submitf(drover_pool *pool, drover_future **ret_future, const char *job, const char *signature, ...);

/* ---- futures ---- */

enum drover_state {
        DROVER_QUEUED = 0,
        DROVER_RUNNING,
        DROVER_DONE,      /* a verdict from here on: it ran, here is the result */
        DROVER_FAILED,    /* it ran and says that it failed, and why */
        DROVER_CANCELLED, /* somebody asked for its end */
        DROVER_EXPIRED,   /* nobody took it before its queue deadline */
        DROVER_TIMED_OUT, /* it ran longer than its limit */
        DROVER_POISONED,  /* each attempt killed its worker */
        DROVER_LOST,      /* whether it ran is not known */
};

drover_future *drover_future_ref(drover_future *future);
/* Gives the reference back; the job goes on whatever its state. Callbacks that were asked for are still called. With
 * the last reference its items go unread, and the job does not wait for anybody to read them. NULL is fine. Returns
 * NULL. */
drover_future *drover_future_unref(drover_future *future);

/* What is known now; a running or queued job is looked at. Never blocks, unless the job went over the bus: then the
 * broker is asked. */
enum drover_state drover_future_state(drover_future *future);
/* "queued", "running", "done" …, the words of the bus. */
const char *drover_state_name(enum drover_state state);
/* The job's number, as in /org/drover1/job/ID and in the journal. It stays the job's if droverd is killed and the next
 * one takes the channel over, and no other job gets it, by no later droverd either. */
uint64_t drover_future_id(const drover_future *future);

/* Until there is a verdict, whichever. -EAGAIN, -ETIMEDOUT: none yet; the job goes on. [waits] */
int drover_future_wait(drover_future *future, uint64_t deadline_ns);

/* The result's bytes: of a raw job what it replied, else a MessagePack map. They live as long as the future and are
 * 64-byte aligned no more than malloc's. A result that is larger than the pool's SlotSize= is mapped, read-only. 0:
 * DROVER_DONE. -EINPROGRESS: no verdict yet. Otherwise the verdict as a number: DROVER_FAILED     -errno as the job
 * gave it, -EIO if it gave none DROVER_CANCELLED  -ECANCELED DROVER_EXPIRED    -ETIME DROVER_TIMED_OUT  -ETIME
 *   DROVER_POISONED   -EOWNERDEAD
 *   DROVER_LOST       -EPIPE, or -ECONNABORTED after drover_close; over the bus also -ENODATA, -ESTALE: it ended, but
 * the bus dropped how, and no more is kept DROVER_DONE       of a job that went over the bus: it ran, but the result is
 * not to be had. -EDQUOT: it is more than the bus carries (typed ones: 16 MiB). -ESTALE: more than is kept (32 MiB of a
 * uid). -ENODATA: ResultTTL= is over, or droverd ended before it was fetched; so for DROVER_FAILED, of which only that
 * is known then. The message says which A job may give any errno: drover_future_state tells them apart for sure. Both
 * ret_ arguments may be NULL. Never blocks. */
int drover_future_result(const drover_future *future, const void **ret_data, size_t *ret_bytes);

/* One field of a typed result. Errors as of drover_future_result, and: -ENOENT: no such field. -EINVAL: of another
 * type. Pointers live as long as the future. Text and the elements of a str array are 0-terminated. Every ret_ argument
 * may be NULL: then the call only says whether the field is there and of this type. */
int drover_future_get_u64(const drover_future *future, const char *name, uint64_t *ret_value);
int drover_future_get_i64(const drover_future *future, const char *name, int64_t *ret_value);
int drover_future_get_f64(const drover_future *future, const char *name, double *ret_value);
int drover_future_get_bool(const drover_future *future, const char *name, bool *ret_value);
/* The descriptor is the future's, and closed with it: dup() what is to live longer. */
int drover_future_get_fd(const drover_future *future, const char *name, int *ret_fd);
int drover_future_get_str(drover_future *future, const char *name, const char **ret_text, size_t *ret_bytes);
int drover_future_get_bytes(drover_future *future, const char *name, const void **ret_data, size_t *ret_bytes);
int drover_future_get_u64_array(drover_future *future, const char *name, const uint64_t **ret_values, size_t *ret_n);
int drover_future_get_i64_array(drover_future *future, const char *name, const int64_t **ret_values, size_t *ret_n);
int drover_future_get_f64_array(drover_future *future, const char *name, const double **ret_values, size_t *ret_n);
int drover_future_get_bool_array(drover_future *future, const char *name, const bool **ret_values, size_t *ret_n);
int drover_future_get_str_array(drover_future *future, const char *name, const char *const **ret_texts, size_t *ret_n);

/* How it was run. Times are CLOCK_MONOTONIC. Those of a job over the bus are told by droverd as durations, in
 * microseconds, and count from the answer to its submission (of a job that was joined by its key, up to its verdict).
 */
struct drover_run {
        uint32_t attempt;                               /* how many were made; 0 = none, it never ran */
        int32_t worker_pid;                             /* of the last attempt; 0 = none, or not known */
        uint64_t submitted_ns, started_ns, finished_ns; /* the last two of the last attempt; 0 = none, or not known */
};

/* -EINPROGRESS: no verdict yet. `struct_bytes`: sizeof(struct drover_run). */
int drover_future_get_run(const drover_future *future, struct drover_run *ret_run, size_t struct_bytes);

/* Why there is no result. Later versions add fields at the end. */
typedef struct drover_error {
        int code; /* as drover_future_result */
        enum drover_state state;
        uint32_t attempt;   /* how many were made; 0 = none, it never ran */
        int32_t worker_pid; /* of the last one; 0 = not known */
        int32_t signal;     /* that the worker died of; 0 = none */
        int32_t status;     /* or its exit code */
        /* the worker's death in one word: exit, signal, syscall, time-limit …; "" = it did not die */
        const char *reason;
        const char *message; /* one line for people; the job's own words if it failed, up to 4095 bytes */
        const char *where;   /* the job by number, name and pool */
} drover_error;

/* NULL: no verdict yet, or a result. Lives as long as the future. */
const drover_error *drover_future_error(const drover_future *future);

/* How far a job says that it is (drover_progress in its plugin); all 0 if it said nothing yet. */
struct drover_progress {
        uint64_t done, total; /* in a unit of its own; total 0 = unknown */
        char note[128];
};

/* Asks the broker, and blocks for its answer. -ENOENT: the job has its verdict. -ESTALE: the next droverd could not
 * give the channel its numbers back, so the job cannot be named any more; its verdict comes as ever. `struct_bytes`:
 * sizeof(struct drover_progress). */
int drover_future_get_progress(drover_future *future, struct drover_progress *ret_progress, size_t struct_bytes);

enum drover_cancel_mode {
        DROVER_CANCEL_QUEUED = 0, /* only if it has not started */
        DROVER_CANCEL_ASK,        /* a running job's next drover_checkpoint() fails; it may take its time, or succeed */
        DROVER_CANCEL_KILL,       /* the worker of a running job is killed now */
};

enum drover_cancelled {
        DROVER_CANCEL_TOO_LATE = 0, /* it has its verdict already */
        DROVER_CANCEL_DONE,         /* it was queued and will never run */
        DROVER_CANCEL_ASKED,        /* it runs, and was asked */
        DROVER_CANCEL_KILLED,       /* it ran */
};

/* enum drover_cancelled: what happened. -EBUSY: it runs, and the mode was DROVER_CANCEL_QUEUED. The verdict comes as
 * ever. DROVER_CANCEL_KILL, and any mode for a job that went over the bus, blocks for the broker's answer.
 * DROVER_CANCEL_KILL: -ESTALE as drover_future_get_progress(); DROVER_CANCEL_ASK goes on working then. -EINVAL: `mode`
 * is none of the three. */
int drover_future_cancel(drover_future *future, enum drover_cancel_mode mode);

/* Has `callback` called once when there is a verdict, from drover_process() and nowhere else, in the order of
 * completion; also if there is one already. Several may be asked for; one that is asked for by a callback of a future
 * that has its verdict is called by the next drover_process(). The callback may use every call but drover_process(). It
 * is not called any more after drover_close. */
typedef void (*drover_done_fn)(drover_future *future, void *user);
int drover_future_on_done(drover_future *future, drover_done_fn callback, void *user);

/* ---- items: what a job hands out before its verdict (drover_emit in its plugin) ----
 *
 * Of a job that was submitted with DROVER_STREAMED and a future. None is lost: a job that is faster than its reader
 * waits for it. Who takes nothing for five seconds while the job waits is given up by the broker: -EOVERFLOW. When an
 * attempt dies the next one's items follow, from its first on, and say so. The verdict does not wait for who reads. */

struct drover_item {
        const void *data; /* until the next item of this future, or the future's end */
        size_t bytes;
        uint32_t attempt; /* 1; a higher number than before: it begins anew */
        uint32_t reserved;
};

/* The next one. 1, or 0 after the last one. -EAGAIN, -ETIMEDOUT: not yet. -EINVAL: not submitted with DROVER_STREAMED.
 * -EBUSY: they go to a callback. -EOVERFLOW: some are lost: we were too slow, or, with a key whose job was there
 * already, the first ones went to whoever read before; -ESTALE: all of them did. -EPIPE, -EHOSTUNREACH, -ENOENT: the
 * daemon went away, or forgot the job. -ECONNABORTED after drover_close. `struct_bytes`: sizeof(struct drover_item).
 * [waits] */
int drover_future_next_item(drover_future *future, struct drover_item *ret_item, size_t struct_bytes,
                            uint64_t deadline_ns);

/* Has `callback` called for each item from drover_process() and nowhere else, before those of drover_future_on_done,
 * which wait for the last item; once for a future. It returns 0 to go on; anything else: no more, please, and the job
 * goes on unread. A stream that breaks off just ends: drover_future_next_item then says why. Errors as of it. While the
 * program waits otherwise than by drover_process(), nobody reads. */
typedef int (*drover_item_fn)(drover_future *future, const struct drover_item *item, void *user);
int drover_future_on_item(drover_future *future, drover_item_fn callback, void *user);

/* ---- waiting for several ---- */

enum drover_wait_for {
        DROVER_ALL_COMPLETED = 0,
        DROVER_FIRST_COMPLETED, /* any verdict */
        DROVER_FIRST_ERROR,     /* any verdict but DROVER_DONE, or all */
};

/* Futures of one drover; one may stand there twice. *ret_n_completed (may be NULL): how many have a verdict, set on
 * -EAGAIN and -ETIMEDOUT, too. -EINVAL: of different drovers, one is NULL, or `what` is none of these. n = 0 is waited
 * for already. [waits] */
int drover_wait(drover_future *const *futures, size_t n, enum drover_wait_for what, uint64_t deadline_ns,
                size_t *ret_n_completed);

/* The same futures by drover_iterator_next, each once, as they end. -EINVAL as above. Of those that ended since the
 * last look, first what ended first by drover_run's finished_ns; what never ran last. */
int drover_as_completed(drover_future *const *futures, size_t n, drover_iterator **ret_iterator);

/* ---- map ----
 *
 * One job for each input, any number of them, in constant memory: inputs are pulled when there is room for them. */

/* Makes the arguments of input `index` (0, 1, 2, …) in `args`, which is empty. 1: there they are. 0: there are no more
 * inputs. -errno: neither are there, and the iterator returns it after the results of the inputs before. Called from
 * drover_map and drover_iterator_next only; must not use the pool. It may call drover_close: no more inputs are pulled,
 * -ECONNABORTED. */
typedef int (*drover_input_fn)(void *user, uint64_t index, drover_args *args);

enum drover_order { DROVER_ORDERED = 0, DROVER_UNORDERED };

struct drover_map_options {
        uint32_t struct_size;
        uint32_t order;  /* enum drover_order: results as the inputs came, or as the jobs ended */
        uint32_t window; /* inputs that are under way or wait for an earlier one's result, at most; 0 = by itself */
        uint32_t chunk;  /* inputs that are handed over together, with one wake-up; 0 = by itself */
        const struct drover_options *job; /* of each job; NULL = plain */
};

#define DROVER_MAP_OPTIONS(...) DROVER__STRUCT(struct drover_map_options, __VA_ARGS__)

/* Starts it: pulls the first inputs. An input whose arguments do not fit becomes a future that is DROVER_FAILED, as any
 * other failure: it ends nothing. Errors as of drover_submit. The job's options are copied but for what their pointers
 * point to. */
int drover_map(drover_pool *pool, const char *job, drover_input_fn input, void *user,
               const struct drover_map_options *options, drover_iterator **ret_iterator);

/* The next future, with its verdict; the caller's to give back. 1, or 0 after the last one. -EAGAIN, -ETIMEDOUT: not
 * yet. A map also returns what its input function returned, and -ESHUTDOWN or -EPIPE when the pool takes no more of it,
 * after the results of what it had taken, then 0. -EBUSY: called from that map's input function, or that was left by
 * longjmp. -ECANCELED: the input function called drover_iterator_free: the iterator is gone. [waits] */
int drover_iterator_next(drover_iterator *iterator, drover_future **ret_future, uint64_t deadline_ns);
/* Of a map: how many inputs were pulled until now. */
uint64_t drover_iterator_pulled(const drover_iterator *iterator);
/* Jobs that were submitted go on; a map pulls no more. NULL is fine. Returns NULL. */
drover_iterator *drover_iterator_free(drover_iterator *iterator);

/* ---- arenas ---- */

/* The same in <drover/plugin.h>. */
#ifndef DROVER__ARENA_OPTIONS
#define DROVER__ARENA_OPTIONS
enum drover_arena_flag {
        /* If it is made: it ends with the last process that opened it, and with all that is in it. Without this it
         * stays for the next run of a program, with its locks, values and queued items as they were left. */
        DROVER_ARENA_TRANSIENT = 1u << 0,
};

struct drover_arena_options {
        uint32_t struct_size;
        uint32_t flags;         /* enum drover_arena_flag bits */
        uint64_t bytes;         /* for objects; 0 takes it as it is, or 1 MiB */
        uint32_t max_objects;   /* 1 to 65,536; 0 takes it as it is, or 256 */
        uint32_t max_processes; /* 1 to 4096; 0 takes it as it is, or 256 */
};
#endif
/* All zero but struct_size: as drover_arena_open with 0 bytes. DROVER_ARENA_OPTIONS(.bytes = 1 << 20) makes one. */
#define DROVER_ARENA_OPTIONS(...) DROVER__STRUCT(struct drover_arena_options, __VA_ARGS__)

/* The arena `name` (1 to 64 of A-Z a-z 0-9 _ . -) of this uid, which the broker makes if there is none, with `bytes`
 * for objects; 0 takes it as it is, or 1 MiB. The objects in it are those of <drover/sync.h>, the same in every
 * process of this uid, and in workers if the daemon runs as this uid. When this process dies, the broker gives back
 * what it held. The arena outlives the process: it stays until `droverctl remove-arena`, RemoveArena on the bus, or
 * the end of droverd (see DROVER_ARENA_TRANSIENT). Free it with drover_arena_free. Blocks for an answer of the
 * daemon, 25 s at most. -EDQUOT: this user has 256 arenas or 4 GiB of them, or as many processes as may have this one
 * at once have it (256, or max_processes). -EHOSTUNREACH, -EACCES, -ETIMEDOUT; -EINVAL: not a name, or the arena has
 * fewer bytes. */
int drover_arena_open(drover *d, const char *name, uint64_t bytes, drover_arena **ret_arena);
/* The same with flags; `options` may be NULL. Also -EINVAL: an option makes no sense, or the arena has room
 * for fewer objects or processes. */
int drover_arena_open_with(drover *d, const char *name, const struct drover_arena_options *options,
                           drover_arena **ret_arena);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
