/* The life of one run: what the client wrote is loaded once and checked, the handler runs, its outcome becomes a
 * verdict.
 *
 * Invariants: the job line is copied before anything in it is believed, typed arguments are checked in a private copy,
 * so a client that goes on writing changes nothing; a raw payload is the one thing given in place. The result is built
 * where it will be read and only counts with the verdict, which is one CAS (channel_finish): a death anywhere before it
 * leaves the job to be run again on untouched input. The verdict is counted before that CAS, so whoever saw it finds it
 * counted.
 *
 * The fast path makes no system call and allocates nothing: two looks at the clock, scratch memory that is reused, CPU
 * time by estimate (job_cpu_ns). A checkpoint is one load and one comparison.
 *
 * Calls that come with a job of another thread, or after the handler returned, are the plugin's fault and not detected.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/latency.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/utf8.h"
#include "plugins/host/job/job.h"

#define JOB_TOO_LARGE "the result is larger than %llu bytes"

enum {
        JOB_LONG_NS = 100 * 1000,  /* a job longer than this has its CPU time measured */
        JOB_MARK_NS = 1000 * 1000, /* how old the mark it is measured from may be */
};

/* ---- memory of one run ---- */

void *job_alloc(const struct drover_job *job, size_t bytes) {
        struct drover_job *j = (struct drover_job *)job;
        size_t aligned = (bytes + 15) & ~(size_t)15;
        if (aligned >= bytes && aligned <= JOB_SCRATCH_BYTES - j->scratch_used) {
                void *p = j->scratch + j->scratch_used;
                j->scratch_used += aligned;
                return p;
        }
        struct job_block *b = malloc(sizeof *b + bytes);
        if (!b || bytes > PTRDIFF_MAX)
                return NULL;
        b->next = j->blocks;
        j->blocks = b;
        return b->data;
}

static void job_release(struct drover_job *j) {
        j->scratch_used = 0;
        while (j->blocks) {
                struct job_block *next = j->blocks->next;
                free(j->blocks);
                j->blocks = next;
        }
}

int job_reserve_args(struct drover_job *j, size_t bytes) {
        if (bytes <= j->args_capacity)
                return 0;
        uint8_t *args = realloc(j->args, bytes);
        if (!args)
                return -ENOMEM;
        j->args = args;
        j->args_capacity = bytes;
        return 0;
}

static uint64_t thread_cpu_ns(void) {
        struct timespec ts;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int job_init(struct drover_job *j, struct host *h) {
        *j = (struct drover_job){
                .object = {.sdk = {.host = &job_table}, .host = h},
                .line = h->line,
                .latencies = h->pool->latency[h->index],
                .pid = (uint32_t)getpid(),
                .scratch = malloc(JOB_SCRATCH_BYTES),
        };
        if (!j->scratch)
                return -ENOMEM;
        j->cpu_mark_ns = thread_cpu_ns();
        j->cpu_mark_at_ns = event_now_ns();
        return 0;
}

/* ---- CPU time ----
 *
 * Its clock is a system call, which would double the cost of a short job. So a mark is taken at most once a
 * millisecond, and only jobs over JOB_LONG_NS are measured, from the last mark; a shorter one is taken to have computed
 * all along. What lies between the mark and the start of a long job is less than JOB_MARK_NS, so that is the error at
 * most. */

static void job_cpu_begin(struct drover_job *j, uint64_t started_ns) {
        if (started_ns - j->cpu_mark_at_ns < JOB_MARK_NS)
                return;
        j->cpu_mark_ns = thread_cpu_ns();
        j->cpu_mark_at_ns = started_ns;
}

static uint64_t job_cpu_ns(struct drover_job *j, uint64_t started_ns, uint64_t finished_ns) {
        uint64_t wall_ns = finished_ns - started_ns;
        if (wall_ns < JOB_LONG_NS)
                return wall_ns;
        uint64_t now_ns = thread_cpu_ns(), cpu_ns = now_ns - j->cpu_mark_ns;
        j->cpu_mark_ns = now_ns;
        j->cpu_mark_at_ns = finished_ns;
        return cpu_ns < wall_ns ? cpu_ns : wall_ns;
}

/* ---- failure ---- */

void job_make_text(char *text) {
        size_t whole = utf8_cut(text, strlen(text)); /* vsnprintf may have cut a character in two */
        if (args_is_utf8(text, whole)) {
                text[whole] = 0;
                return;
        }
        for (char *p = text; *p; p++)
                if ((unsigned char)*p >= 0x80)
                        *p = '?';
}

int job_fail(struct drover_job *j, int error, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(j->failure, sizeof j->failure, format, ap);
        va_end(ap);
        j->failure_error = error;
        return -error;
}

/* ---- one run ---- */

/* The index of the job type that has this number, or as many as there are. */
static uint32_t job_find_type(const struct plugin *p, uint32_t number) {
        uint32_t i = 0;
        while (i < p->schema.n_jobs && p->numbers[i] != number)
                i++;
        return i;
}

/* A sealed payload is as good as a private copy: nobody can change it. */
static int job_take_payload(struct drover_job *j) {
        if (j->mapped) {
                j->payload = j->mapped;
                j->payload_bytes = j->mapped_bytes;
        }
        if (j->schema->args.is_raw)
                return 0;
        if (!j->mapped) {
                if (j->payload_bytes > j->args_capacity)
                        return job_fail(j, ENOMEM, "no memory for %zu bytes of arguments", j->payload_bytes);
                memcpy(j->args, j->payload, j->payload_bytes);
                j->payload = j->args;
        }
        char why[256];
        if (args_check(&j->schema->args, j->payload, j->payload_bytes, why, sizeof why) < 0 ||
            args_check_fds(&j->schema->args, j->payload, j->payload_bytes, j->n_fds - j->first_fd, why, sizeof why) < 0)
                return job_fail(j, EINVAL, "%s", why);
        return 0;
}

/* What the client wrote, in private memory and checked. */
static int job_take(struct drover_job *j) {
        const struct plugin *p = &job_host(j)->plugin;
        struct layout_job line;
        memcpy(&line, channel_job(j->channel, j->slot), sizeof line);
        __asm__ volatile("" ::: "memory"); /* the copy is what counts from here on, not the client's next write */

        j->id = line.id;
        j->type_number = line.type;
        j->queued_ns = line.not_before_ns > line.queued_ns ? line.not_before_ns : line.queued_ns;
        j->latency = NULL;
        j->schema = &p->schema_jobs[0];
        uint32_t type = job_find_type(p, line.type);
        if (type == p->schema.n_jobs)
                return job_fail(j, EOPNOTSUPP,
                                "the plugin %s, version %s, has no such job type: it is gone, or takes or returns "
                                "something else",
                                p->schema.plugin, p->schema.version);
        j->type = &p->jobs[type];
        j->latency = &j->latencies[type < LAYOUT_LATENCY_TYPES ? type : LAYOUT_LATENCY_TYPES - 1];
        j->schema = &p->schema_jobs[type];
        if (line.bytes > j->channel->geometry.slot_bytes)
                return job_fail(j, EMSGSIZE, "a payload of %u bytes does not fit SlotSize=%u", line.bytes,
                                j->channel->geometry.slot_bytes);
        j->payload = channel_payload(j->channel, j->slot);
        j->payload_bytes = line.bytes;
        int r = slot_flags(j->claimed) & SLOT_HAS_FDS ? job_fds_take(j) : 0;
        if (r < 0)
                return r;
        return job_take_payload(j);
}

static int job_finish_map(struct drover_job *j) {
        int r = args_finish(&j->writer, &j->result_bytes);
        if (r == -EMSGSIZE)
                return job_fail(j, EMSGSIZE, JOB_TOO_LARGE, (unsigned long long)SEALED_MAX_BYTES);
        if (r < 0)
                return job_fail(j, -r, "the result cannot be written: %s", strerrordesc_np(-r));
        char why[256];
        if (args_check(&j->schema->result, j->out, j->result_bytes, why, sizeof why) < 0 ||
            args_check_fds(&j->schema->result, j->out, j->result_bytes, j->n_ret_fds, why, sizeof why) < 0)
                return job_fail(j, EPROTO, "the handler's result is not what its signature says: %s", why);
        return 0;
}

/* Completes and checks the result of a handler that returned 0. */
static int job_close_result(struct drover_job *j) {
        int r = j->schema->result.is_raw ? 0 : job_finish_map(j);
        if (r < 0)
                return r;
        if (j->out != j->result && j->result_bytes <= job_result_capacity(j)) /* it grew, and shrank again */
                memcpy(j->result, j->out, j->result_bytes);
        return j->n_ret_fds > 0 || j->reply_bytes > 0 || j->result_bytes > job_result_capacity(j) ? job_fds_deliver(j)
                                                                                                  : 0;
}

static enum slot_state job_verdict(struct drover_job *j, int r) {
        if (r == 0 && job_close_result(j) == 0)
                return SLOT_DONE;
        uint64_t word = atomic_load_explicit(j->word, memory_order_acquire);
        if (r == -ECANCELED && slot_flags(word) & SLOT_CANCEL)
                return SLOT_CANCELLED;
        if (r == -ETIMEDOUT && slot_flags(word) & SLOT_CANCEL)
                return SLOT_TIMED_OUT;
        if (r > 0)
                job_fail(j, EPROTO, "the handler returned %d: 0 or a negative errno is expected", r);
        else if (!j->failure[0] && r == -EMSGSIZE && j->is_too_large)
                job_fail(j, EMSGSIZE, JOB_TOO_LARGE, (unsigned long long)SEALED_MAX_BYTES);
        else if (!j->failure[0]) {
                const char *text = strerrordesc_np(-r);
                job_fail(j, r < -4095 ? EPROTO : -r, "%s", text ? text : "the handler returned an unknown error");
        } else if (r < 0 && !j->is_retry && r >= -4095)
                j->failure_error = -r; /* the return value has the last word */
        return r < 0 && j->is_retry && job_host(j)->pool->has_timer ? SLOT_DELAYED : SLOT_FAILED;
}

static void job_write_failure(struct drover_job *j) {
        job_make_text(j->failure);
        size_t n = strlen(j->failure), room = job_result_capacity(j);
        if (n > room) {
                j->failure[room] = 0;
                job_make_text(j->failure);
                n = strlen(j->failure);
        }
        memcpy(j->result, j->failure, n);
        j->result_bytes = n;
}

/* Should we not come to its end, the broker still sees when it began, and that it did. */
static void job_mark_begin(const struct drover_job *j, uint64_t started_ns) {
        struct layout_result *r = channel_result(j->channel, j->slot);
        r->pid = j->pid;
        r->started_ns = started_ns;
        r->finished_ns = r->cpu_ns = r->retry_at_ns = 0;
        __atomic_store_n(&r->generation, slot_generation(j->claimed),
                         __ATOMIC_RELEASE); /* last: it vouches for the rest */
}

static void job_count_latency(const struct drover_job *j, uint64_t started_ns, uint64_t finished_ns) {
        if (!j->latency)
                return;
        if (slot_attempt(j->claimed) == 1) /* later ones waited for their predecessors to die */
                latency_count(&j->latency->queue, started_ns > j->queued_ns ? started_ns - j->queued_ns : 0);
        latency_count(&j->latency->run, finished_ns - started_ns);
}

/* Only we write it: no need for a locked add. */
static uint64_t job_count_end(const struct drover_job *j, enum slot_state end) {
        _Atomic uint64_t *count = &j->line->counts[end];
        uint64_t n = atomic_load_explicit(count, memory_order_relaxed);
        atomic_store_explicit(count, n + 1, memory_order_relaxed);
        return n;
}

static void job_uncount_end(const struct drover_job *j, enum slot_state end, uint64_t before) {
        atomic_store_explicit(&j->line->counts[end], before, memory_order_relaxed);
}

/* What it printed leaves the process before it counts as ended: later it would pass for the next job's. */
static void job_flush_output(void) {
        if (__fpending(stdout) == 0 || ftrylockfile(stdout) != 0) /* a thread of the plugin is printing */
                return;
        fflush_unlocked(stdout);
        funlockfile(stdout);
}

/* One more try: the slot goes into the broker's hands, which knows when, and whether there is one more. The failure's
 * text stays with it, should there be none. *ret_verdict is what remains if it cannot go there. */
static int job_postpone(const struct drover_job *j, uint64_t finished_ns, enum slot_state *ret_verdict) {
        struct layout_result *r = channel_result(j->channel, j->slot);
        if (__builtin_add_overflow(finished_ns, j->retry_after_ns, &r->retry_at_ns))
                r->retry_at_ns = UINT64_MAX;
        uint64_t n = job_count_end(j, SLOT_DELAYED);
        int e = channel_postpone(j->channel, j->slot, j->claimed);
        if (e == 0)
                doorbell_ring(job_host(j)->doorbell_fd);
        else
                job_uncount_end(j, SLOT_DELAYED, n);
        *ret_verdict = e == -ECANCELED ? SLOT_CANCELLED : SLOT_FAILED;
        return e;
}

/* For people, before the verdict as the counts are. Whoever finds the same id before and after has one job's words. */
static void job_tell_last(const struct drover_job *j, enum slot_state verdict, uint64_t started_ns,
                          uint64_t finished_ns) {
        struct layout_worker *line = j->line;
        atomic_store_explicit(&line->last_job, 0, memory_order_relaxed);
        atomic_thread_fence(memory_order_release); /* partner: the acquire fence in worker_get_last */
        atomic_store_explicit(&line->last_started_ns, started_ns, memory_order_relaxed);
        atomic_store_explicit(&line->last_finished_ns, finished_ns, memory_order_relaxed);
        atomic_store_explicit(&line->last_type, j->type_number, memory_order_relaxed);
        atomic_store_explicit(&line->last_end, verdict | slot_attempt(j->claimed) << 8, memory_order_relaxed);
        atomic_store_explicit(&line->last_job, j->id_base | (j->id & LAYOUT_JOB_ID_MASK), memory_order_release);
}

static int job_finish(struct drover_job *j, int done_fd, enum slot_state verdict, uint64_t started_ns) {
        if (verdict == SLOT_FAILED || verdict == SLOT_DELAYED)
                job_write_failure(j);
        else if (verdict != SLOT_DONE)
                j->result_bytes = 0;
        uint64_t finished_ns = event_now_ns();
        job_mark_output(j, finished_ns - started_ns);
        struct layout_result *r = channel_result(j->channel, j->slot);
        r->bytes = (uint32_t)j->result_bytes;
        r->has_fds = verdict == SLOT_DONE && j->has_result_fds;
        r->error = verdict == SLOT_FAILED || verdict == SLOT_DELAYED ? j->failure_error : 0;
        r->finished_ns = finished_ns;
        r->cpu_ns = job_cpu_ns(j, started_ns, finished_ns);

        job_count_latency(j, started_ns, finished_ns);
        if (verdict == SLOT_DELAYED) {
                int e = job_postpone(j, finished_ns, &verdict);
                if (e == 0 || e == -ESTALE)
                        return e;
        }
        uint64_t n = job_count_end(j, verdict);
        job_tell_last(j, verdict, started_ns, finished_ns);
        int e = channel_finish(j->channel, j->slot, j->claimed, verdict, done_fd);
        if (e < 0) { /* it was not ours to give */
                job_uncount_end(j, verdict, n);
                atomic_store_explicit(&j->line->last_job, 0, memory_order_relaxed);
        }
        return e;
}

int job_run(struct drover_job *j, const struct channel *c, uint32_t channel_index, int done_fd, uint32_t slot,
            uint64_t word, uint64_t started_ns) {
        j->channel = c;
        j->channel_index = channel_index;
        j->slot = slot;
        j->word = &c->slots[slot].word;
        j->claimed = word;
        j->result = j->out = channel_result_data(c, slot);
        j->result_bytes = j->reserved_bytes = 0;
        j->has_reservation = j->is_retry = j->is_too_large = j->has_result_fds = j->is_orphaned = false;
        j->failure[0] = 0;
        j->failure_error = 0;
        args_writer_init(&j->writer, j->result, c->geometry.slot_bytes);
        job_mark_begin(j, started_ns);
        job_cpu_begin(j, started_ns);

        int r = job_take(j);
        if (r >= 0) {
                struct host *h = j->object.host;
                host_enter(h, LIFE_HANDLER, (uintptr_t)j->type->handle);
                r = j->type->handle(j);
                host_enter(h, LIFE_BETWEEN_JOBS, 0);
        }
        job_flush_output();
        enum slot_state verdict = job_verdict(j, r);
        bool had_fds = slot_flags(word) & SLOT_HAS_FDS;
        if (had_fds || j->big || j->n_ret_fds > 0 || j->reply_bytes > 0)
                job_fds_close(j);
        r = j->is_orphaned ? (j->is_full ? -EMFILE : -EPIPE) : job_finish(j, done_fd, verdict, started_ns);
        if (had_fds && r == 0)
                job_fds_end(j);
        job_clear_progress(j);
        if (j->scratch_used > 0 || j->blocks)
                job_release(j);
        return r;
}
