/* A job over the bus, as supervise/ keeps it, and what the files about jobs share: jobs.c (slots and verdicts),
 * job-keep.c (records), job-room.c, job-submit.c, job-result.c, job-info.c, job-list.c. */
#pragma once

#include <string.h>
#include <sys/queue.h>

#include "daemon/supervise/facts/descriptors.h"
#include "daemon/supervise/jobs/jobs.h"
#include "ipc/values/schema.h"

enum { JOBS_NO_SLOT = UINT32_MAX };

/* What one uid has here. */
struct job_user {
        uid_t uid;
        uint32_t n_jobs;                    /* records of any state */
        TAILQ_HEAD(job_uid_list, job) jobs; /* by id */
        uint32_t n_finished;
        size_t finished_bytes;
        TAILQ_HEAD(job_user_list, job) finished; /* in the order they ended */
};

/* What the submitter asked for, kept to queue the job once more. */
struct job_wish {
        uint32_t priority, max_attempts;
        uint64_t queue_timeout_ns, soft_ns, hard_ns;
};

struct job {
        uint64_t id;
        struct jobs *jobs;
        struct pool *pool;                   /* NULL: the pool is gone */
        struct schema_fields *result_fields; /* behind this struct, as many as there are; then these two: */
        const char *name, *pool_name;
        struct job_user *user_of; /* of its uid */
        uid_t uid;
        pid_t pid;              /* this and the next as in struct job_info */
        const char *connection; /* behind the names */
        uint32_t type;          /* its number */
        struct job_wish wish;
        uint32_t slot, generation;
        bool is_finished, is_released;
        enum slot_state state; /* once finished */
        uint32_t attempt;
        pid_t worker_pid;
        uint64_t submitted_us, submitted_ns, started_ns, finished_ns, cpu_ns;
        void *result;
        size_t result_bytes;
        /* the record's own; NULL: none; with payload_bytes the result is in the first */
        struct descriptors *result_fds;
        bool has_fds;  /* came with some: they are gone once it has its verdict */
        void *payload; /* of a job that did not end well, for Requeue */
        size_t payload_bytes;
        char *error; /* NULL: none */
        int error_number;
        struct {
                uint32_t reason, signal, status, syscall;
        } death; /* as in struct layout_verdict, of which `error` has the words */
        struct loop_timer deadline_timer;
        uint64_t ttl_ns, expires_ns; /* once finished */
        struct jobs_ttl *kept_in;    /* once finished */
        struct job_waiter *waiters;
        struct job_needs *needs; /* job-needs.c; NULL: it comes after no other */
        const char *key;         /* job-keep.c: NULL, or behind the names */
        uint64_t not_before_us;  /* CLOCK_REALTIME; 0 = at once */
        void *user;
        struct stream *stream;      /* streams.c: of what it emits, or what was kept of that; NULL: none */
        bool is_stream_gone;        /* and there was one */
        TAILQ_ENTRY(job) all_link;  /* jobs->all */
        TAILQ_ENTRY(job) link;      /* kept_in->finished, if finished */
        TAILQ_ENTRY(job) user_link; /* user_of->finished, if finished */
        TAILQ_ENTRY(job) uid_link;  /* user_of->jobs */
};

/* Those that are kept equally long: so the first of them to expire is the first that came. */
TAILQ_HEAD(job_list, job);
struct jobs_ttl {
        uint64_t ttl_ns;
        struct job_list finished;
        TAILQ_ENTRY(jobs_ttl) link;
};

struct jobs {
        struct supervisor *supervisor;
        void *by_id;                       /* tsearch tree */
        void *users, *by_key;              /* tsearch trees */
        TAILQ_HEAD(job_all_list, job) all; /* by id */
        TAILQ_HEAD(, jobs_ttl) ttls;
        struct jobs_ttl at_once; /* the one that is always there: what nobody asks for */
        size_t n_finished, finished_bytes;
        struct loop_timer expiry_timer;
        unsigned n_telling;          /* inside job_tell, which expires at its end */
        struct job_evicted *evicted; /* the newest JOBS_MAX_EVICTED, or NULL */
        uint64_t n_evicted;
        struct job_user *newest_user; /* whose job ended last, until jobs_expire looked */
};

static inline struct channel *jobs_channel(const struct pool *p) { return &p->channels[0]->channel; }

/* ---- job-keep.c: records, from the first to the last ---- */
int job_keep(struct jobs *js, struct job *j); /* with its id and uid: found from now on. -ENOMEM */
void job_drop(struct job *j);                 /* one that was never queued */
struct job *jobs_find_key(const struct jobs *js, uid_t uid, const char *pool, const char *key);
void job_keep_finished(struct job *j); /* until it expires or others need the room */
void job_keep_again(struct job *j);    /* not finished any more */
void jobs_expire(struct jobs *js);

/* ---- jobs.c ---- */
void job_tell(struct job *j);
void job_finish(struct job *j, enum slot_state state);
uint32_t jobs_take_slot(struct pool *p);
void jobs_put_slot(struct pool *p, uint32_t slot);
void jobs_collect_slot(struct job *j); /* for a verdict that we gave ourselves just now */

/* ---- job-info.c ---- */
enum slot_state job_live_state(const struct job *j); /* SLOT_QUEUED or SLOT_RUNNING */

/* ---- job-list.c ---- */
const char *session_job_name(const struct session_job *sj, uint32_t type);
uint64_t session_job_submitted_us(const struct layout_job *line);

/* ---- job-room.c ---- */
int job_check_room(const struct pool *p, uid_t uid, const struct schema_job *type, struct fault *f);
int job_take_room(struct job *j); /* what job_check_room found; -ENOMEM, -EDQUOT */
void job_give_room(struct job *j);

/* ---- job-times.c ---- */
void job_set_times(struct job *j, uint64_t not_before_us); /* of its submission, which is now */
uint64_t job_due_ns(const struct job *j);    /* not-before by CLOCK_MONOTONIC, as the clocks stand; 0 = at once */
uint64_t *job_deadline(const struct job *j); /* until when it may wait; 0 = for ever */
void job_add_deadline(struct job *j, uint64_t from_ns, uint64_t timeout_ns);
void job_let_go(struct job *j); /* nothing but time is in its way */

/* ---- job-needs.c: what must be done first ---- */
int job_needs_new(struct job *j, const struct job_request *r, struct fault *f); /* -1: one of them is not known */
void job_needs_start(struct job *j);
void job_needs_free(struct job *j); /* it waits no more */
bool job_needs_any(const struct job *j);
void job_needs_again(struct job *j); /* DELAYED once more, after its slot was written over: what is due since then */
/* "job 7, which it comes after, ended as failed"; false: that is not why it was cancelled. */
bool job_needs_failed(const struct job *j, char *text, size_t bytes);

/* ---- job-result.c ---- */
void job_set_error(struct job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_drop_result(struct job *j);
void job_take_verdict(struct job *j, const struct channel *c, uint32_t slot, uint64_t word); /* one without a result */
void job_take_result(struct job *j, const struct channel *c, uint32_t slot, const struct layout_result *line);
