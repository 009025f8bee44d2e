/* All pools, the spawner and the identities of workers and jobs. Knows no D-Bus: the bus face reads the structs below,
 * calls these functions, and hears of changes through the hooks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/config/config.h"
#include "daemon/loop/loop.h"
#include "daemon/supervise/facts/fault.h"
#include "ipc/channel/channel.h"
#include "ipc/layout.h"
#include "ipc/values/schema.h"

enum pool_state {
        POOL_STARTING,
        POOL_RUNNING,
        POOL_DRAINING,
        POOL_PAUSED,
        POOL_STOPPED,
        POOL_DEGRADED,
        POOL_REFUSED,
        POOL_N_STATES
};
enum worker_state {
        WORKER_STARTING,
        WORKER_IDLE,
        WORKER_RUNNING,
        WORKER_STOPPING,
        WORKER_QUARANTINED,
        WORKER_N_STATES
};

const char *pool_state_word(enum pool_state s);
const char *worker_state_word(enum worker_state s);
const char *start_method_word(enum start_method m);

struct supervisor;
struct pool;
struct worker;
struct job;
struct job_info;
enum cancel_mode { CANCEL_QUEUED, CANCEL_ASK, CANCEL_KILL, CANCEL_ABANDON /* ask; who asks has left */ };

struct pool_counters {
        uint64_t submitted, completed, failed, cancelled, expired, timed_out, poisoned, lost, retried, worker_deaths;
};

/* A snapshot for the bus: cheap to take, strings belong to the pool. */
struct pool_info {
        const char *name, *plugin, *plugin_version, *problem;
        enum start_method start_method;
        enum pool_state state;
        uint32_t n_workers, min_workers, max_workers;
        struct pool_counters counters;
        const struct schema *schema; /* NULL until a worker of it was ready once */
};

struct worker_info {
        uint64_t id;
        pid_t pid; /* 0 while it is being started */
        const struct pool *pool;
        enum worker_state state;
        enum start_method start_method;
        const char *sandbox;             /* layers that are on; "" before READY */
        char status[120];                /* drover_progress note, made valid UTF-8 */
        uint64_t jobs_done, current_job; /* 0 = none */
        uid_t job_uid;                   /* whose that job is */
        uint64_t started_realtime_us;
};

struct death {
        uint64_t worker_id, job_id; /* job 0 = it was idle or starting */
        uid_t job_uid;
        uint32_t job_text_at; /* from there on `text` tells of the job; 0 = it does not */
        char pool[POOL_NAME_MAX + 1];
        pid_t pid;
        enum death_reason reason;
        int32_t status; /* exit code or signal number */
        bool is_signal;
        uint32_t syscall;     /* number + 1; then `fault_phase` and `fault_path` tell more of it */
        uint32_t fault_phase; /* enum life_phase */
        char fault_path[LAYOUT_PATH];
        char fault_module[24]; /* where it crashed, or made the call: a file's name, or "" */
        uint64_t fault_offset; /* of the instruction in it */
        uint32_t attempt;      /* of the job */
        uint64_t realtime_us;
        char text[320]; /* "worker 12 (pid 345) of pool primes died: signal SIGSEGV while running job 7 (attempt 1)" */
};

/* For those who may not see its job: no word of it, nor of the path that it gave to a forbidden system call. */
void death_hide_job(struct death *d);

/* "openat", "number 999"; "" for 0. `syscall` is number + 1. */
void death_syscall_name(uint32_t syscall, char *text, size_t bytes);

struct supervisor_hooks {
        void *user;
        void (*on_pool_added)(void *user, struct pool *p);
        void (*on_pool_removed)(void *user, struct pool *p); /* still readable */
        void (*on_pool_state)(void *user, struct pool *p);
        void (*on_pool_room)(void *user, struct pool *p); /* a slot for jobs over the bus is free again */
        void (*on_worker_added)(void *user, struct worker *w);
        void (*on_worker_removed)(void *user, struct worker *w, const struct death *d); /* still readable */
        void (*on_worker_state)(void *user, struct worker *w);
        void (*on_job_finished)(void *user, struct job *j);  /* bus-submitted jobs; still readable */
        void (*on_job_forgotten)(void *user, struct job *j); /* ResultTTL= passed */
};

struct supervisor_config {
        struct loop *loop;
        const char *libexec_dir, *plugin_dir; /* drover-spawn, drover-worker; plugins */
        const char *state_dir;                /* for capsules and numbers; NULL: none are kept */
        int spawner_fd;                       /* connected spawner socket (systemd), or -1: start our own */
        const char *spawner_path;             /* of that socket, for the spawner after this one; NULL = there is none */
        int lock_fd;                          /* for our own, which inherits it; the caller's; -1 = none */
        struct supervisor_hooks hooks;
};

int supervisor_new(struct supervisor **ret, const struct supervisor_config *c);
struct supervisor *supervisor_free(struct supervisor *s);

/* ---- pools ---- */

struct pool *supervisor_find_pool(struct supervisor *s, const char *name);
struct pool *supervisor_next_pool(struct supervisor *s, const struct pool *after); /* by name; NULL starts and ends */
/* Makes a pool; is_runtime = from CreatePool (Reload leaves it alone). A pool whose file is bad is made REFUSED with
 * its error as problem (`refused_because` non-NULL). */
int supervisor_add_pool(struct supervisor *s, const struct pool_config *c, bool is_runtime, const char *refused_because,
                        struct pool **ret, struct fault *f);
/* More pools than that are refused, in whichever way they come; those that there are stay. */
void supervisor_set_max_pools(struct supervisor *s, uint32_t n);
/* Verdicts for its queued jobs (CANCELLED), workers ended, then on_pool_removed. Returns at once. */
void supervisor_remove_pool(struct supervisor *s, struct pool *p);
/* New settings for a pool from files: workers are replaced where a setting needs it. */
int supervisor_update_pool(struct supervisor *s, struct pool *p, const struct pool_config *c,
                           const char *refused_because, struct fault *f);
/* The same settings, though from other lines or files. */
void pool_set_origins(struct pool *p, const struct config_origins *o);
bool pool_is_runtime(const struct pool *p);
const struct pool_config *pool_get_config(const struct pool *p);
/* Without what Resize changed since. */
const struct pool_config *pool_get_file_config(const struct pool *p);

void pool_get_info(const struct pool *p, struct pool_info *ret);
/* Looks at every slot of every channel: for who asks for these two. */
void pool_count_jobs(const struct pool *p, uint32_t *ret_queued, uint32_t *ret_running);
/* Waits in the queue and run times since the plugin's job types were last other ones, of `n_types` types from the first
 * on; type < pool_n_latency_types. Not what a worker did not live to finish. */
struct pool_quantiles {
        uint64_t p50_us, p90_us, p99_us, max_us;
};
struct pool_latency {
        uint64_t n_jobs;
        struct pool_quantiles queue, run;
};
uint32_t pool_n_latency_types(const struct pool *p);
const char *pool_latency_type(const struct pool *p, uint32_t type); /* "*": several share it */
void pool_get_latency(const struct pool *p, uint32_t first_type, uint32_t n_types, struct pool_latency *ret);
enum pool_state pool_get_state(const struct pool *p);
int pool_start(struct pool *p, struct fault *f);
int pool_stop(struct pool *p, struct fault *f);
int pool_pause(struct pool *p, struct fault *f);
int pool_resume(struct pool *p, struct fault *f);
int pool_drain(struct pool *p, struct fault *f);   /* refuse new jobs, finish the accepted ones, then STOPPED */
int pool_restart(struct pool *p, struct fault *f); /* every worker is replaced once its job is done */
int pool_resize(struct pool *p, uint32_t n_workers, struct fault *f);
int pool_reset_failed(struct pool *p, struct fault *f);
/* The bus face keeps what it wants per pool here. */
void pool_set_user(struct pool *p, void *user);
void *pool_get_user(const struct pool *p);

/* The newest deaths first, at most n; pool NULL = of all. Returns how many were written. */
size_t supervisor_list_deaths(struct supervisor *s, const struct pool *p, struct death *ret, size_t n);

/* ---- workers ---- */

struct worker *supervisor_find_worker(struct supervisor *s, uint64_t id);
struct worker *supervisor_find_worker_by_pid(struct supervisor *s, pid_t pid);
struct worker *supervisor_next_worker(struct supervisor *s, const struct worker *after); /* by id */
void worker_get_info(const struct worker *w, struct worker_info *ret);
/* The job that it runs; false: none. started_us is when it began. */
bool worker_get_task(const struct worker *w, struct job_info *ret);
/* The last one it gave a verdict, as it says: id, name, attempt, state, times and whose it is; root's and the daemon's
 * if that cannot be told any more. false: none. */
bool worker_get_last(const struct worker *w, struct job_info *ret);
/* The death is recorded with this signal, not as REASON_OPERATOR. */
int worker_kill(struct worker *w, int signal, struct fault *f);
int worker_get_pidfd(const struct worker *w); /* borrowed; -1 while starting */

/* ---- jobs submitted over the bus ---- */

struct job_request {
        struct pool *pool;
        const char *name; /* job type */
        uid_t uid;
        const void *payload; /* checked MessagePack map, or raw bytes */
        size_t bytes;
        const int *fds; /* what its fd fields mean; duplicated */
        unsigned n_fds;
        const int *payload_fd; /* of a raw job: the bytes are in this sealed memory file; NULL = they are not */
        uint32_t priority, max_attempts;             /* a ring of the channel; 0 = the pool's */
        uint64_t queue_timeout_ns, soft_ns, hard_ns; /* relative; 0 = the pool's */
        uint64_t not_before_us; /* CLOCK_REALTIME; 0 = at once. The queue timeout counts from then. */
        const char *key;        /* NULL, or: the job of this uid and pool that has it is the one, if there is one */
        const uint64_t *after;  /* jobs that must be done first; if one is not, this one is CANCELLED */
        uint32_t n_after;
        bool sees_all;          /* root: `after` may name anybody's */
        bool is_streamed;       /* somebody will open its stream: nothing of it is dropped until then */
        uint64_t id;            /* of a job that is to run once more; 0 = the next one */
        pid_t pid;              /* who asks, as the bus told it, for people to read: 0 = not known */
        const char *connection; /* NULL = not known */
};

/* The job type's schema for building args: NULL with a fault (pool refused, still starting without a known schema,
 * unknown type). A pool that is STARTING for the first time has no schema yet: -> *ret_wait = true, ask again at
 * on_pool_state. */
const struct schema_job *pool_find_job_type(struct pool *p, const char *job, bool *ret_wait, struct fault *f);
/* QUEUE_FULL, also for a uid that has half of the slots (but root), is with Overflow=block a reason to wait until
 * pool_has_room. */
int job_submit(const struct job_request *r, struct job **ret, struct fault *f);
bool pool_has_room(const struct pool *p, uid_t uid); /* or takes no jobs at all: a try makes sense */

struct job_info {
        uint64_t id;
        const struct pool *pool; /* NULL if the pool is gone */
        const char *pool_name, *name;
        uid_t uid;
        pid_t pid;              /* of who submitted it; 0 = not known */
        const char *connection; /* the name that it had on the bus; "" = not known */
        enum slot_state state;  /* SLOT_QUEUED, SLOT_RUNNING or a verdict */
        uint32_t attempt;
        pid_t worker_pid;
        uint64_t progress_done, progress_total;
        char progress_note[120];
        uint64_t submitted_us, started_us, finished_us; /* CLOCK_REALTIME; 0 = not yet */
        uint64_t cancel_asked_us;                       /* the same, while it runs: first, and by whom, "" = not */
        char cancel_asked_by[64];
        /* with a verdict: */
        const struct schema_fields *result_fields; /* of the job type */
        const void *result;                        /* DONE: checked map or raw bytes */
        size_t result_bytes;
        const int *result_fds; /* what its fd fields mean */
        unsigned n_result_fds;
        int result_payload_fd; /* raw: the bytes are in this memory file; -1 = they are not */
        const char *error;     /* "" for DONE: one sentence that names job and attempt */
        int error_number;      /* FAILED */
        enum death_reason reason;
        int signal, status;
        uint32_t syscall; /* number + 1 */
        uint64_t queue_us, run_us, cpu_us;
};

/* The capsule of a job, to read; as capsules_open. */
void supervisor_open_capsule(struct supervisor *s, uint64_t id, uid_t uid, bool is_root,
                             void (*fn)(void *user, int error, int fd), void *user);
/* The capsules there are, the newest `n` first: how many. The names of pools last until the loop turns. */
struct capsule_filter {
        const char *pool; /* NULL = any, also one that is gone */
        bool sees_all;    /* root; else only what belongs to `viewer` */
        uid_t viewer;
};
struct capsule_row {
        uint64_t id, bytes, created_us; /* bytes of the file; CLOCK_REALTIME */
        uid_t uid;
        const char *pool;
};
size_t supervisor_list_capsules(const struct supervisor *s, const struct capsule_filter *filter,
                                struct capsule_row *ret, size_t n);
struct job *supervisor_find_job(struct supervisor *s, uint64_t id);

/* Jobs of the bus and of sessions, by id. */
struct job_filter {
        const char *pool, *name; /* NULL = any */
        uint32_t states;         /* bit = enum slot_state; 0 = any */
        bool has_uid, sees_all;  /* sees_all: root; else only what belongs to `viewer` */
        uid_t uid, viewer;
        uint64_t since_us; /* CLOCK_REALTIME, of the submission */
};

struct job_row {
        uint64_t id;
        const char *pool, *name, *connection; /* valid until the loop runs again */
        enum slot_state state;
        uid_t uid;
        pid_t pid; /* this and the next as in job_info */
        uint64_t submitted_us;
};

/* The next ones with an id above `after`, at most n; *ret_next is where to go on, 0 = there are no more. A page may be
 * short, or empty, without being the last: a call looks at a bounded number of jobs. Of sessions' jobs it knows those
 * that are queued or running. */
size_t supervisor_list_jobs(struct supervisor *s, const struct job_filter *f, uint64_t after, struct job_row *ret,
                            size_t n, uint64_t *ret_next);

/* A queued or running job of a session: all the broker knows is in its slot. */
struct session_job {
        struct pool_channel *channel;
        uint32_t slot, generation;
};
bool supervisor_find_session_job(struct supervisor *s, uint64_t id, struct session_job *ret);
void session_job_get_info(const struct session_job *sj, struct job_info *ret);
const char *session_job_cancel(const struct session_job *sj, enum cancel_mode mode, const char *by);
/* A record that had to go before ResultTTL= was over, because too much was kept; NULL: none of this id. */
enum { JOBS_MAX_KEPT_BYTES_OF_UID = 32 << 20 };
struct job_evicted {
        uint64_t id, until_ns;
        uint64_t bytes; /* not 0: its result alone was too much */
        uid_t uid;
        bool is_raw;
};
const struct job_evicted *supervisor_find_evicted(struct supervisor *s, uint64_t id);
void job_get_info(const struct job *j, struct job_info *ret);
/* The fault a caller of Run gets for this verdict; FAULT_NONE for DONE. */
void job_get_fault(const struct job *j, struct fault *f);
/* queued: only if it has not begun. ask: a running one hears of it at its next checkpoint. kill: a running one gets its
 * verdict, then its worker dies. All end a queued one. Returns what happened: "cancelled" (it never ran), "asked",
 * "killed", "running" (too late for queued; for kill: its worker is already being ended), "finished" (too late). */
int job_cancel_mode(const char *word, enum cancel_mode *ret);                 /* -1: none of the three */
const char *job_cancel(struct job *j, enum cancel_mode mode, const char *by); /* who asks, for people */
/* Called once when the job has its verdict (at once if it has); a waiter is embedded in the caller's struct. */
struct job_waiter {
        void (*fn)(struct job_waiter *w, struct job *j);
        struct job_waiter *next, **previous;
        struct job *job;
};
void job_wait(struct job *j, struct job_waiter *w, void (*fn)(struct job_waiter *, struct job *));
void job_wait_stop(struct job_waiter *w);
/* Nobody asks for its result any more (a Run that was answered or left): drop it as soon as it has a verdict. */
void job_release(struct job *j);
/* A job with a bad end runs once more, under its id and with its arguments, its attempts counted from 1. NOT_FINISHED,
 * INVALID_ARGS (done, or its arguments are gone), NO_SUCH_POOL, QUEUE_FULL … */
int job_requeue(struct job *j, struct fault *f);
/* The same from its capsule, for one that no record is kept of: as its uid's, with the limits of the pool. Not for a
 * channel's, whose numbers are its client's. */
struct capsule;
int supervisor_requeue_capsule(struct supervisor *s, const struct capsule *c, struct fault *f);
int pool_requeue_poisoned(struct pool *p, uint32_t *ret_n, struct fault *f); /* as many as there is room for */
/* What it emits, one item a packet; *ret_fd is the caller's. LIMITS_EXCEEDED, RESULT_EXPIRED. */
int job_open_stream(struct job *j, int *ret_fd, struct fault *f);
int session_job_open_stream(const struct session_job *sj, int *ret_fd, struct fault *f);
void job_set_user(struct job *j, void *user);
void *job_get_user(const struct job *j);

/* ---- sessions ---- */

/* One client, embedded in whatever stands for it; all zero at first. supervisor_end_sessions is due once the client is
 * gone, and before this is freed. */
struct session_owner {
        struct session *first;
        uint32_t n_sessions;
        pid_t pid;        /* for people to read; 0 = not known */
        const char *name; /* on the bus; NULL = not known */
};

struct session_request {
        struct pool *pool;
        uid_t uid;
        struct session_owner *owner;
        /* A channel that a client of an earlier daemon hands back: its memories and what it was told of it then. */
        const int *back; /* CHANNEL_PARTS of the caller's; NULL = none: a new channel */
        uint32_t n_slots, slot_bytes;
        const char *schema_text;
        size_t schema_bytes;
};

struct session_offer {
        int memory_fds[CHANNEL_PARTS]; /* the client's; -1: it has them */
        /* the client's ends. The caller sends all these, then session_offer_close */
        int doorbell_fd, done_fd, socket_fd;
        int bell_fd; /* borrowed */
        uint32_t channel, n_slots, slot_bytes;
        uint64_t id_base; /* job ids of this channel: id_base + n */
        const char *schema_text;
        size_t schema_bytes;
};
/* *ret_wait as in pool_find_job_type. */
int supervisor_open_session(struct supervisor *s, const struct session_request *q, struct session_offer *ret,
                            bool *ret_wait, struct fault *f);
void session_offer_close(struct session_offer *o);
void supervisor_end_sessions(struct session_owner *o);
uint32_t supervisor_n_sessions(const struct supervisor *s);
/* In the order in which they were opened first, by whichever daemon. */
struct session_filter {
        bool sees_all; /* root; else only what belongs to `viewer` */
        uid_t viewer;
};
struct session_row {
        uint64_t id_base, opened_us;   /* of its jobs' ids; CLOCK_REALTIME, of this daemon's opening */
        const char *pool, *connection; /* valid until the loop runs again; connection and pid as in job_info */
        uid_t uid;
        pid_t pid;
        uint32_t n_slots, n_queued, n_running;
};
/* At most n: how many. */
size_t supervisor_list_sessions(const struct supervisor *s, const struct session_filter *f, struct session_row *ret,
                                size_t n);
uint32_t supervisor_n_workers(const struct supervisor *s);

/* ---- arenas: arenas.h ---- */

struct arenas;
struct arenas *supervisor_arenas(struct supervisor *s);

/* SIGTERM: refuses new jobs, drains every pool for at most TimeoutStopSec=, then `done` is called once. */
void supervisor_shut_down(struct supervisor *s, void (*done)(void *user), void *user);
/* Before anything is freed: the channels stay their clients', for the next daemon. */
void supervisor_leave(struct supervisor *s);
/* So long that takes at most. */
uint64_t supervisor_drain_ns(struct supervisor *s);
bool supervisor_is_shutting_down(const struct supervisor *s);
