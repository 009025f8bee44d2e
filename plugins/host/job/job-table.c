/* The table of calls that a plugin makes on a job, a worker or a preload context: how each reaches the host. Values by
 * name are in job-values.c, the run itself in job.c.
 *
 * Invariants: nothing here trusts its arguments more than it must: sizes are checked against the slot, text is cut and
 * made valid before others read it. What a plugin may call a thousand times in a loop (checkpoint, progress) makes no
 * system call; drover_log makes one and never blocks. The order of the table is the ABI. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/values/utf8.h"
#include "plugins/host/job/job.h"

enum { JOB_LOG_BYTES = 1024, JOB_NOTE_BYTES = 119 /* as the header promises */ };

/* ---- failure ---- */

__attribute__((format(printf, 4, 0))) static int table_vfail(drover_job *j, int error, uint64_t retry_after_ns,
                                                             const char *format, va_list ap) {
        j->is_retry = retry_after_ns != UINT64_MAX;
        j->retry_after_ns = retry_after_ns;
        if (error == INT32_MIN || error == 0)
                error = j->is_retry ? EAGAIN : EIO;
        j->failure_error = error < 0 ? -error : error;
        vsnprintf(j->failure, sizeof j->failure, format, ap);
        return -j->failure_error;
}

/* ---- going on ---- */

/* The slot word changed since the claim: what does that mean for the handler? */
static int job_interruption(const struct drover_job *j, uint64_t word) {
        if (slot_state(word) != SLOT_RUNNING || slot_owner(word) != slot_owner(j->claimed) ||
            slot_generation(word) != slot_generation(j->claimed))
                return -ECANCELED; /* judged already: whatever comes of it counts no more */
        if (!(slot_flags(word) & SLOT_CANCEL))
                return 0;
        /* Written before the flag; partner of the acquire load of the word. */
        uint64_t soft_hit = atomic_load_explicit(&j->line->soft_hit, memory_order_relaxed);
        return soft_hit == ((uint64_t)slot_generation(word) << 32 | (j->slot + 1)) ? -ETIMEDOUT : -ECANCELED;
}

int job_checkpoint(drover_job *j) {
        uint64_t word = atomic_load_explicit(j->word, memory_order_acquire);
        return __builtin_expect(word == j->claimed, 1) ? 0 : job_interruption(j, word);
}

static bool table_job_cancelled(const drover_job *j) {
        uint64_t word = atomic_load_explicit(j->word, memory_order_acquire);
        return word != j->claimed && job_interruption(j, word) < 0;
}

static void job_set_note(struct layout_worker *line, const char *note) {
        uint32_t seq = atomic_load_explicit(&line->status_seq, memory_order_relaxed);
        atomic_store_explicit(&line->status_seq, seq | 1, memory_order_relaxed);
        atomic_thread_fence(
                memory_order_release); /* partner: the reader's acquire fence between text and second look */
        size_t n = strnlen(note, JOB_NOTE_BYTES);
        if (n == JOB_NOTE_BYTES)
                n = utf8_cut(note, n);
        memcpy(line->status, note, n);
        line->status[n] = 0;
        atomic_store_explicit(&line->status_seq, (seq | 1) + 1, memory_order_release);
}

static int table_progress(drover_job *j, uint64_t done, uint64_t total, const char *note) {
        j->has_progress = true;
        atomic_store_explicit(&j->line->progress_done, done, memory_order_relaxed);
        atomic_store_explicit(&j->line->progress_total, total, memory_order_relaxed);
        if (note || j->line->status[0])
                job_set_note(j->line, note ? note : "");
        return 0;
}

void job_clear_progress(struct drover_job *j) {
        if (j->has_progress)
                table_progress(j, 0, 0, NULL);
        j->has_progress = false;
}

/* ---- payload and raw result ---- */

static const void *table_payload(const drover_job *j, size_t *ret_size) {
        if (ret_size)
                *ret_size = j->schema->args.is_raw ? j->payload_bytes : 0;
        return j->schema->args.is_raw ? j->payload : NULL;
}

static void *table_reserve(drover_job *j, size_t size) {
        if (!j->schema->result.is_raw || job_grow_result(j, 0, size) < 0)
                return NULL;
        job_forget_reply(j);
        j->has_reservation = true;
        j->reserved_bytes = size;
        return j->out;
}

static int table_commit(drover_job *j, size_t size) {
        if (!j->has_reservation)
                return -EINVAL;
        if (size > j->reserved_bytes)
                return -EMSGSIZE;
        job_forget_reply(j);
        j->result_bytes = size;
        return 0;
}

static int table_reply(drover_job *j, const void *data, size_t size) {
        if (!j->schema->result.is_raw)
                return -EOPNOTSUPP;
        const uint8_t *before = j->out;
        size_t at = j->reserved_bytes > 0 ? (size_t)((const uint8_t *)data - before) : SIZE_MAX;
        int r = job_grow_result(j, j->reserved_bytes, size > j->reserved_bytes ? size - j->reserved_bytes : 0);
        if (r < 0)
                return r;
        if (at < j->reserved_bytes) /* it is what was reserved, which may have moved */
                data = j->out + at;
        if (size > 0)
                memmove(j->out, data, size); /* it may be the payload, too */
        job_forget_reply(j);
        j->result_bytes = size;
        return 0;
}

static int table_reply_fd(drover_job *j, int fd) {
        return j->schema->result.is_raw ? job_fds_reply(j, fd) : -EOPNOTSUPP;
}

/* ---- where we are ---- */

static uint64_t table_job_id(const drover_job *j) { return j->id; }
static uint32_t table_job_attempt(const drover_job *j) { return slot_attempt(j->claimed); }
static const char *table_job_name(const drover_job *j) { return j->schema->name; }
static uint64_t table_worker_id(const drover_worker *w) { return job_host(w)->id; }
static const char *table_pool_name(const void *object) { return job_host(object)->name; }
static void *table_shared(const void *object) { return job_host(object)->plugin.shared; }
static void *table_state(const void *object) { return job_host(object)->state; }
static void *table_thread_state(const drover_job *j) { return j->thread_state; }
static const void *table_get_extension(const char *id) {
        return strcmp(id, DROVER_ARENA_EXTENSION) == 0 ? &arena_extension : NULL;
}

/* "<6>job 812: text": the priority in the journal's own spelling, one write, lost if the socket is full. */
__attribute__((format(printf, 6, 0))) static void table_vlog(const void *object, int priority, const char *file,
                                                             int line, const char *function, const char *format,
                                                             va_list ap) {
        char text[JOB_LOG_BYTES];
        int n = snprintf(text, sizeof text, "<%d>", priority < 0 ? 0 : priority > 7 ? 7 : priority);
        const struct host *h = job_host(object);
        if (object != &h->worker && object != &h->preload)
                n += snprintf(text + n, sizeof text - (size_t)n,
                              "job %llu: ", (unsigned long long)((const struct drover_job *)object)->id);
        vsnprintf(text + n, sizeof text - (size_t)n - 1, format, ap);
        if (priority >= 7 && file) {
                size_t used = strlen(text);
                snprintf(text + used, sizeof text - used - 1, " (%s:%d, %s)", file, line, function);
        }
        job_make_text(text);
        for (char *p = text; *p; p++)
                if (*p == '\n')
                        *p = ' ';
        size_t bytes = strlen(text);
        text[bytes++] = '\n';
        ssize_t written = write(STDERR_FILENO, text, bytes);
        (void)written;
}

const struct drover_host job_table = {
        .struct_size = sizeof job_table,
        .abi_major = DROVER_ABI_MAJOR,
        .abi_minor = DROVER_ABI_NEWEST_MINOR,
        .get_extension = table_get_extension,
        .payload = table_payload,
        .arg_get = job_arg_get,
        .ret_set = job_ret_set,
        .reply = table_reply,
        .reserve = table_reserve,
        .commit = table_commit,
        .vfail = table_vfail,
        .progress = table_progress,
        .vlog = table_vlog,
        .checkpoint = job_checkpoint,
        .job_id = table_job_id,
        .job_attempt = table_job_attempt,
        .job_cancelled = table_job_cancelled,
        .job_name = table_job_name,
        .worker_id = table_worker_id,
        .pool_name = table_pool_name,
        .shared = table_shared,
        .state = table_state,
        .thread_state = table_thread_state,
        .emit = job_emit,
        .reply_fd = table_reply_fd,
};
