/* What a verdict says: the result, copied and checked against the schema, or one sentence that names job and attempt.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/deaths/death.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/pools/pool.h"
#include "ipc/memory/event.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/args.h"
#include "ipc/values/utf8.h"

void job_set_error(struct job *j, const char *format, ...) {
        char text[FAULT_TEXT];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        free(j->error);
        j->error = strdup(text);
}

static void job_describe_end(const struct layout_verdict *v, char *text, size_t bytes) {
        char why[300];
        death_describe(v, why, sizeof(why));
        if (v->reason == REASON_NONE)
                snprintf(text, bytes, "%s", DEATH_WRITTEN_OVER);
        else
                snprintf(text, bytes, "its worker (pid %u) died: %s", v->pid, why);
}

static void job_describe_failure(struct job *j, const struct layout_verdict *v) {
        char why[360], what[120];
        snprintf(what, sizeof(what), "job %llu (%.40s of pool %.40s)", (unsigned long long)j->id, j->name,
                 j->pool_name);
        job_describe_end(v, why, sizeof(why));
        switch (j->state) {
        case SLOT_POISONED:
                job_set_error(j, "%s is poisoned after %u attempt%s: %s", what, j->attempt, j->attempt == 1 ? "" : "s",
                              why);
                break;
        case SLOT_LOST:
                job_set_error(j, "%s is lost in attempt %u and may not run twice: %s", what, j->attempt, why);
                break;
        case SLOT_TIMED_OUT:
                job_set_error(j, "%s timed out in attempt %u: %s", what, j->attempt,
                              v->reason == REASON_TIME_LIMIT ? "its hard limit passed, its worker is being killed"
                                                             : "its soft limit passed and it stopped");
                break;
        case SLOT_CANCELLED:
                if (job_needs_failed(j, why, sizeof(why)))
                        job_set_error(j, "%s was cancelled: %s", what, why);
                else
                        job_set_error(j, "%s was cancelled%s", what,
                                      j->started_ns ? " while it ran" : " before it ran");
                break;
        case SLOT_EXPIRED:
                job_set_error(j, "%s expired: no worker took it before its queue timeout", what);
                break;
        case SLOT_FREE:
        case SLOT_FILLING:
        case SLOT_QUEUED:
        case SLOT_DELAYED:
        case SLOT_RUNNING:
        case SLOT_DONE:
        case SLOT_FAILED:
        case SLOT_N_STATES:
                break;
        }
}

static void job_fail(struct job *j, int error, const char *message) {
        j->state = SLOT_FAILED;
        j->error_number = error;
        job_set_error(j, "job %llu (%.40s of pool %.40s) failed in attempt %u: %s", (unsigned long long)j->id, j->name,
                      j->pool_name, j->attempt, message);
}

/* Any worker of the pool can write a slot's word. What only we give is known by our own line, which none can write; and
 * the deadline stands where they can only read. */
void job_take_verdict(struct job *j, const struct channel *c, uint32_t slot, uint64_t word) {
        struct layout_verdict v = {0};
        bool is_ours = channel_copy_verdict(c, slot, word, &v);
        uint64_t deadline_ns = channel_job(c, slot)->queue_deadline_ns;
        if (!is_ours)
                v = (struct layout_verdict){0};
        j->death.reason = v.reason;
        j->death.signal = v.signal;
        j->death.status = v.status;
        j->death.syscall = v.syscall;
        if (slot_state_is_brokers(j->state) && !is_ours) {
                job_fail(j, EBADMSG, "a worker of the pool gave a verdict that only droverd can give");
                return;
        }
        if (j->state == SLOT_EXPIRED && !delay_is_overdue(deadline_ns, event_now_ns())) {
                job_fail(j, EBADMSG, "expired before its queue deadline, says a worker of the pool");
                return;
        }
        if (v.pid && (slot_state_is_brokers(j->state) || j->state == SLOT_TIMED_OUT))
                j->worker_pid = v.pid;
        job_describe_failure(j, &v);
}

void job_drop_result(struct job *j) {
        struct descriptors *d = j->result_fds;
        if (d && d->payload_bytes > 0)
                sealed_unmap(j->result, j->result_bytes);
        else
                free(j->result);
        if (d)
                descriptors_close(d->fds, d->n_fds, d->uid);
        free(d);
        j->result_fds = NULL;
        j->result = NULL;
        j->result_bytes = 0;
}

/* 0 or the number of what is wrong. A raw result stays in its file; a map is looked at, where nobody can change it. */
static int job_take_fds(struct job *j, uint32_t slot) {
        struct descriptors *d = descriptors_take(j->pool->channels[0], DESCRIPTORS_OF_RESULT, slot, j->generation);
        const void *data = NULL;
        if (!d)
                return EPROTO;
        if (d->payload_bytes > 0) {
                int r = j->result_fields->is_raw ? 0 : sealed_map(d->fds[0], d->payload_bytes, &data);
                if (r < 0) {
                        descriptors_close(d->fds, d->n_fds, d->uid);
                        free(d);
                        return -r;
                }
                free(j->result);
                j->result = (void *)data;
                j->result_bytes = d->payload_bytes;
        }
        j->result_fds = d;
        return 0;
}

static void job_check_result(struct job *j) {
        const struct descriptors *d = j->result_fds;
        char error[200];
        unsigned n_fds = d ? d->n_fds - (d->payload_bytes > 0) : 0;
        if (!j->result_fields->is_raw &&
            (args_check(j->result_fields, j->result, j->result_bytes, error, sizeof(error)) < 0 ||
             args_check_fds(j->result_fields, j->result, j->result_bytes, n_fds, error, sizeof(error)) < 0))
                job_fail(j, EPROTO, error);
}

/* The result area is the worker's to write, still: one copy, then only the copy. */
void job_take_result(struct job *j, const struct channel *c, uint32_t slot, const struct layout_result *line) {
        size_t bytes = line->bytes;
        if (bytes > c->geometry.slot_bytes || !(j->result = malloc(bytes ? bytes : 1))) {
                job_fail(j, EPROTO, "its worker returned a result of impossible size");
                return;
        }
        memcpy(j->result, channel_result_data(c, slot), bytes);
        j->result_bytes = bytes;
        if (j->state == SLOT_FAILED) {
                char message[FAULT_MAX_MESSAGE + 1];
                snprintf(message, sizeof(message), "%.*s", (int)bytes, (const char *)j->result);
                message[utf8_cut(message, strlen(message))] = 0;
                job_fail(j, line->error,
                         args_is_utf8(message, strlen(message)) ? message : "(its message is not UTF-8)");
        } else {
                int error = line->has_fds ? job_take_fds(j, slot) : 0;
                if (error != 0)
                        job_fail(j, error, "the descriptors of its result are not to be had");
                else
                        job_check_result(j);
        }
        if (j->state != SLOT_DONE)
                job_drop_result(j);
}
