/* What a verdict says: the result, copied and checked against the schema, or one sentence that names job and attempt.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervise/death.h"
#include "daemon/supervise/job.h"
#include "ipc/args.h"

void job_set_error(struct job *j, const char *format, ...) {
        char text[400];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        free(j->error);
        j->error = strdup(text);
}

void job_describe_failure(struct job *j) {
        char why[200], what[120];
        snprintf(what, sizeof(what), "job %llu (%.40s of pool %.40s)", (unsigned long long)j->id, j->name,
                 j->pool_name);
        death_describe(j->verdict.reason, j->verdict.signal, j->verdict.status, j->verdict.syscall, why, sizeof(why));
        switch (j->state) {
        case SLOT_POISONED:
                job_set_error(j, "%s is poisoned after %u attempt%s: its worker (pid %u) died: %s", what, j->attempt,
                              j->attempt == 1 ? "" : "s", j->verdict.pid, why);
                break;
        case SLOT_LOST:
                job_set_error(j, "%s is lost in attempt %u and may not run twice: its worker (pid %u) died: %s", what,
                              j->attempt, j->verdict.pid, why);
                break;
        case SLOT_TIMED_OUT:
                job_set_error(j, "%s timed out in attempt %u: %s", what, j->attempt,
                              j->verdict.reason == REASON_TIME_LIMIT ? "its hard limit passed, its worker was killed"
                                                                     : "its soft limit passed and it stopped");
                break;
        case SLOT_CANCELLED:
                if (job_needs_failed(j, why, sizeof(why)))
                        job_set_error(j, "%s was cancelled: %s", what, why);
                else
                        job_set_error(j, "%s was cancelled%s", what, j->started_ns ? " while it ran" : " before it ran");
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
        job_set_error(j, "job %llu (%.40s of pool %.40s) failed in attempt %u: %.220s", (unsigned long long)j->id,
                      j->name, j->pool_name, j->attempt, message);
}

/* The result area is the worker's to write, still: one copy, then only the copy. */
void job_take_result(struct job *j, const struct channel *c, uint32_t slot, const struct layout_result *line) {
        char error[200];
        size_t bytes = line->bytes;
        if (bytes > c->geometry.slot_bytes || !(j->result = malloc(bytes ? bytes : 1))) {
                job_fail(j, EPROTO, "its worker returned a result of impossible size");
                return;
        }
        memcpy(j->result, channel_result_data(c, slot), bytes);
        j->result_bytes = bytes;
        if (j->state == SLOT_FAILED) {
                char message[221];
                snprintf(message, sizeof(message), "%.*s", (int)(bytes < 220 ? bytes : 220), (const char *)j->result);
                job_fail(j, line->error,
                         args_is_utf8(message, strlen(message)) ? message : "(its message is not UTF-8)");
        } else if (!j->result_fields->is_raw &&
                   args_check(j->result_fields, j->result, bytes, error, sizeof(error)) < 0) {
                job_fail(j, EPROTO, error);
        }
        if (j->state != SLOT_DONE) {
                free(j->result);
                j->result = NULL;
                j->result_bytes = 0;
        }
}
