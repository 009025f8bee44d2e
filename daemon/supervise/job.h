/* A job over the bus, as supervise/ keeps it, and what the files about jobs share: jobs.c (records and verdicts),
 * job-submit.c, job-result.c, job-info.c. */
#pragma once

#include <sys/queue.h>

#include "daemon/supervise/jobs.h"
#include "ipc/schema.h"

enum { JOBS_NO_SLOT = UINT32_MAX };

struct job {
        uint64_t id;
        struct jobs *jobs;
        struct pool *pool; /* NULL: the pool is gone */
        char pool_name[POOL_NAME_MAX + 1];
        char name[SCHEMA_MAX_NAME];
        struct schema_fields *result_fields; /* behind this struct, as many as there are */
        uid_t uid;
        uint32_t slot, generation;
        bool is_finished, is_released;
        enum slot_state state; /* once finished */
        uint32_t attempt;
        pid_t worker_pid;
        uint64_t submitted_us, submitted_ns, started_ns, finished_ns, cpu_ns;
        void *result;
        size_t result_bytes;
        char *error; /* NULL: none */
        int error_number;
        struct layout_verdict verdict;
        struct loop_timer deadline_timer;
        uint64_t expires_ns; /* once finished */
        struct job_waiter *waiters;
        void *user;
        TAILQ_ENTRY(job) link; /* finished ones, oldest first */
};

struct jobs {
        struct supervisor *supervisor;
        void *by_id; /* tsearch tree */
        TAILQ_HEAD(job_list, job) finished; /* by expiry */
        size_t n_finished, finished_bytes;
        struct loop_timer expiry_timer;
        unsigned n_telling; /* inside job_tell, which expires at its end */
};

static inline struct channel *jobs_channel(const struct pool *p) { return &p->channels[0]->channel; }

/* ---- jobs.c ---- */
int job_compare(const void *a, const void *b); /* by id, for tsearch */
uint32_t jobs_take_slot(struct pool *p);
void jobs_put_slot(struct pool *p, uint32_t slot);
void jobs_collect_slot(struct job *j); /* for a verdict that we gave ourselves just now */

/* ---- job-result.c ---- */
void job_set_error(struct job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_describe_failure(struct job *j);
void job_take_result(struct job *j, const struct channel *c, uint32_t slot, const struct layout_result *line);
