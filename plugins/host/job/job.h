/* One run of one job: the object a handler gets, and the table of calls it makes on it.
 *
 * A context belongs to one thread (later: fiber) that runs handlers and is used for job after job; nothing of it is
 * shared with other contexts, so there are as many as jobs can run at once. */
#pragma once

#include <drover/plugin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/packet.h"
#include "ipc/values/args.h"
#include "plugins/host/host.h"

enum { JOB_SCRATCH_BYTES = 4096, JOB_FAILURE_BYTES = 4096 };

struct job_block {
        struct job_block *next;
        max_align_t data[];
};

/* The opaque drover_job of the SDK. */
struct drover_job {
        struct host_object object; /* first: what the SDK sees */
        struct layout_worker *line;
        struct layout_latencies *latencies; /* of this worker, by job type */
        void *thread_state;
        uint32_t pid;

        /* the job in hand */
        const struct channel *channel;
        uint32_t channel_index;
        _Atomic uint64_t *word;
        uint64_t claimed; /* the slot word as this context claimed it */
        uint32_t slot;
        uint64_t id, id_base; /* the client's number for it; what the channel's ids stand above, set by who claims */
        uint32_t type_number;
        uint64_t queued_ns;               /* as the client says */
        struct layout_latencies *latency; /* of its type; NULL: the type does not exist */
        const struct drover_job_type *type;
        const struct schema_job *schema;
        const uint8_t *payload; /* raw: in place; typed: `args` */
        size_t payload_bytes;

        /* job-fds.c: all of these are ours, duplicates of the broker's or of the handler's, until job_fds_close */
        int fds[PACKET_MAX_FDS];
        unsigned n_fds, first_fd; /* the first may be the payload */
        const void *mapped;       /* the payload */
        size_t mapped_bytes;
        int ret_fds[SCHEMA_MAX_FDS];
        unsigned n_ret_fds;
        int reply_fd; /* the result, if reply_bytes > 0 */
        uint64_t reply_bytes;
        bool has_result_fds; /* the broker has some */
        bool is_orphaned;    /* the broker is gone */
        bool is_full;        /* because no descriptor is left */

        /* its result, built in place, or where it outgrows that in `big` */
        uint8_t *result, *out, *big;
        size_t big_bytes;
        size_t result_bytes, reserved_bytes;
        bool has_reservation;
        struct args_writer writer;

        int failure_error; /* of drover_fail, positive */
        bool is_retry;
        bool is_too_large; /* a result that was tried */
        uint64_t retry_after_ns;
        char failure[JOB_FAILURE_BYTES];

        /* memory */
        uint8_t *args; /* private copy of typed arguments: the client cannot change what was checked */
        size_t args_capacity;
        uint8_t *scratch;
        size_t scratch_used;
        struct job_block *blocks;
        bool has_progress;

        /* CPU time without a system call for each job: see job_cpu_ns */
        uint64_t cpu_mark_ns, cpu_mark_at_ns;
        uint64_t cpu_start_ns;
};

/* The calls that plugins make, for drover_plugin_entry and as the head of every object. */
extern const struct drover_host job_table;

int job_init(struct drover_job *j, struct host *h);
/* Room for arguments of this many bytes. */
int job_reserve_args(struct drover_job *j, size_t bytes);

/* Runs the job that was just claimed (`word` is its slot word) and gives its verdict. -ESTALE: judged meanwhile, claim
 * no more. -EPIPE, -EPROTO: the broker is gone, and the job without a verdict. */
int job_run(struct drover_job *j, const struct channel *c, uint32_t channel_index, int done_fd, uint32_t slot,
            uint64_t word, uint64_t started_ns);

/* ---- for the other files that fill the table ---- */

/* Memory until the handler returns; NULL if there is none. */
void *job_alloc(const struct drover_job *j, size_t bytes);
/* How many bytes of result the slot holds. */
static inline size_t job_result_capacity(const struct drover_job *j) { return j->channel->geometry.slot_bytes; }
/* The host that any object of the SDK belongs to. */
static inline const struct host *job_host(const void *object) { return ((const struct host_object *)object)->host; }
/* Makes text fit for others: valid UTF-8, cut between characters. */
/* job-mark.c: before it counts as ended. */
void job_mark_output(const struct drover_job *j, uint64_t ran_ns);

void job_make_text(char *text);
/* May it go on? 0, -ECANCELED, -ETIMEDOUT. */
int job_checkpoint(drover_job *j);
/* The next job does not inherit this one's progress. */
void job_clear_progress(struct drover_job *j);

/* emit.c */
int job_emit(drover_job *job, const void *data, size_t size);

/* Sets the failure. Returns -error. */
int job_fail(struct drover_job *j, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- job-fds.c ---- */

int job_fds_take(struct drover_job *j); /* the job's, from the broker. Fails as the job does; j->is_orphaned */
int job_fds_get(const struct drover_job *j, uint64_t i); /* borrowed; -1: there is none */
/* `fd` stays the caller's: a duplicate is kept. */
int job_fds_add(struct drover_job *j, int fd, uint64_t *ret_i);
int job_fds_reply(struct drover_job *j, int fd); /* -EINVAL: it is not sealed */
void job_forget_reply(struct drover_job *j);
/* Room in j->out for `bytes` behind the first `used` of the result; it may move. -EMSGSIZE, -ENOMEM. */
int job_grow_result(struct drover_job *j, size_t used, size_t bytes);
/* What of the result cannot go through the slot, to the broker. As job_fds_take. */
int job_fds_deliver(struct drover_job *j);
void job_fds_close(struct drover_job *j);
void job_fds_end(const struct drover_job *j); /* it has its verdict: tells the broker */

/* arena.c */
extern const struct drover_arena_extension arena_extension;

int job_arg_get(const drover_job *job, const char *name, char type, void *ret, size_t *ret_size);
int job_ret_set(drover_job *job, const char *name, char type, const void *value, size_t size);
