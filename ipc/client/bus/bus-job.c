/* Jobs that go over the bus, because only the broker can do what they ask for: keys, jobs after others, jobs that
 * outlive their client.
 *
 * Submit is a call that waits. How a job ends comes later (bus-verdict.c). Also what is asked about a job of either
 * kind while it is under way, and its cancellation, which only the broker can do for one that runs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/client/stream.h"
#include "ipc/memory/event.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/variants.h"

#define BUS_JOB_TIMEOUT_US (25u * 1000000u)

/* ---- submitting ---- */

static uint64_t bus_job_us(uint64_t ns) { return ns / 1000 + (ns % 1000 != 0); }

static uint64_t bus_job_realtime_us(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* A deadline as what is left of it; 1 if nothing is. */
static uint64_t bus_job_left_us(uint64_t deadline_ns, uint64_t now_ns) {
        return deadline_ns > now_ns ? bus_job_us(deadline_ns - now_ns) : 1;
}

static int bus_job_append_number(sd_bus_message *m, const char *name, char type, uint64_t value) {
        if (value == 0)
                return 0;
        return type == 'u' ? sd_bus_message_append(m, "{sv}", name, "u", (uint32_t)value)
                           : sd_bus_message_append(m, "{sv}", name, "t", value);
}

static int bus_job_append_after(sd_bus_message *m, const struct drover_options *o) {
        if (o->n_after == 0)
                return 0;
        int r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "after");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "at");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 't', o->after, o->n_after * sizeof *o->after);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* The bus has no deadline: a queue timeout counts from not-before. A deadline that comes before that is told as a job
 * that may wait from then on, for no time at all: it expires there. */
static void bus_job_read_times(const struct drover_options *o, uint64_t *ret_not_before_us, uint64_t *ret_queue_us) {
        uint64_t now_ns = event_now_ns(), from_ns = o->not_before_ns > now_ns ? o->not_before_ns : now_ns;
        uint64_t end_ns = o->queue_deadline_ns ? o->queue_deadline_ns : DROVER_FOREVER;
        uint64_t first_ns = end_ns < from_ns ? end_ns : from_ns;
        *ret_queue_us = end_ns == DROVER_FOREVER ? 0 : bus_job_left_us(end_ns, first_ns);
        *ret_not_before_us = first_ns > now_ns ? bus_job_realtime_us() + bus_job_left_us(first_ns, now_ns) : 0;
}

static int bus_job_append_options(sd_bus_message *m, const struct drover_options *o, bool is_streamed) {
        uint64_t not_before_us, queue_us;
        bus_job_read_times(o, &not_before_us, &queue_us);
        int r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = bus_job_append_number(m, "priority", 'u', (uint64_t)o->priority);
        if (r >= 0)
                r = bus_job_append_number(m, "max-attempts", 'u', o->max_attempts);
        if (r >= 0)
                r = bus_job_append_number(m, "queue-timeout", 't', queue_us);
        if (r >= 0)
                r = bus_job_append_number(m, "soft-timeout", 't', bus_job_us(o->soft_limit_ns));
        if (r >= 0)
                r = bus_job_append_number(m, "hard-timeout", 't', bus_job_us(o->hard_limit_ns));
        if (r >= 0)
                r = bus_job_append_number(m, "not-before", 't', not_before_us);
        if (r >= 0 && o->idempotency_key)
                r = sd_bus_message_append(m, "{sv}", "idempotency-key", "s", o->idempotency_key);
        if (r >= 0)
                r = bus_job_append_after(m, o);
        if (r >= 0 && is_streamed)
                r = sd_bus_message_append(m, "{sv}", "stream", "b", 1);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* A raw payload that is larger than a slot goes as a memory file; the message has its own descriptor of it. */
static int bus_job_append_args(sd_bus_message *m, const drover_pool *p, const struct submission *s,
                               const char **ret_bad) {
        const struct schema_fields *fields = &session_schema(p->session)->jobs[s->type].args;
        struct variants_fds fds = {
                .fds = s->args ? s->args->fds : NULL,
                .n_fds = s->args ? s->args->n_fds : 0,
                .payload_fd = s->args && s->args->has_payload_fd ? s->args->payload_fd : -1,
        };
        int made = -1;
        if (fields->is_raw && fds.payload_fd < 0 && s->bytes > session_slot_bytes(p->session)) {
                int r = sealed_create("drover-payload", s->payload, s->bytes, &made);
                if (r < 0)
                        return r;
                fds.payload_fd = made;
        }
        int r = variants_append(m, fields, s->payload, s->bytes, &fds, ret_bad);
        if (made >= 0)
                close(made);
        return r;
}

/* Typed arguments go as they are, so no pool takes more than its slots hold, and none has larger ones than the largest.
 */
static int bus_job_too_large(drover_pool *p, const struct submission *s) {
        uint32_t slot_bytes = session_slot_bytes(p->session);
        return connection_fail(
                p->drover, -EMSGSIZE,
                "job %s: the arguments take %zu bytes, and over the bus at most the pool's SlotSize=%u is "
                "possible (%d at most): submit it without a key, a flag or after=, through the channel",
                s->job, s->bytes, slot_bytes, LAYOUT_MAX_SLOT_BYTES);
}

static int bus_job_call(drover_pool *p, const struct submission *s, bool is_streamed, sd_bus_message **ret_reply) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        __attribute__((cleanup(sd_bus_error_free))) sd_bus_error e = SD_BUS_ERROR_NULL;
        drover *d = p->drover;
        const char *bad = "?";
        bool is_raw = session_schema(p->session)->jobs[s->type].args.is_raw;
        if (!is_raw && s->bytes > LAYOUT_MAX_SLOT_BYTES)
                return bus_job_too_large(p, s);
        int r = sd_bus_message_new_method_call(d->bus, &m, BUS_JOB_NAME, BUS_JOB_ROOT, BUS_JOB_MANAGER, "Submit");
        if (r >= 0)
                r = sd_bus_message_append(m, "ss", p->name, s->job);
        if (r >= 0)
                r = bus_job_append_args(m, p, s, &bad);
        if (r == -EILSEQ)
                return connection_fail(d, -EINVAL,
                                       "job %s: argument \"%s\" holds a zero byte, which the bus cannot carry", s->job,
                                       bad);
        if (r >= 0)
                r = bus_job_append_options(m, s->options, is_streamed);
        if (r >= 0)
                r = bus_call(d->bus, m, BUS_JOB_TIMEOUT_US, &e, ret_reply);
        if (!is_raw && s->bytes > session_slot_bytes(p->session) &&
            sd_bus_error_has_name(&e, SD_BUS_ERROR_INVALID_ARGS))
                return bus_job_too_large(p, s);
        return r < 0 ? errors_report(d, r, "job", s->job, &e) : 0;
}

/* The record of a job that the broker accepted: in memory that was there before it was asked. */
static int bus_job_fill(struct bus_job *j, drover_pool *p, const struct submission *s, sd_bus_message *reply) {
        const struct schema_job *type = &session_schema(p->session)->jobs[s->type];
        const char *path, *broker = sd_bus_message_get_sender(reply);
        uint64_t id;
        int r = broker ? sd_bus_message_read(reply, "to", &id, &path) : -EPROTO;
        if (r < 0)
                return errors_report(p->drover, r, "job", s->job, NULL);
        bus_verdict_accepted_by(p->drover, broker);
        *j = (struct bus_job){.id = id,
                              .pool = drover_pool_ref(p),
                              .is_raw = type->result.is_raw,
                              .has_fds = type->result.is_raw || type->result.n_fds > 0,
                              .name = type->name,
                              .ask_ns = EVENT_FOREVER,
                              .submitted_ns = event_now_ns()};
        snprintf(j->path, sizeof j->path, "%s", path);
        snprintf(j->broker, sizeof j->broker, "%s", broker);
        return 0;
}

static void bus_job_start(struct bus_job *j, drover_future *f, uint32_t type) {
        drover_pool *p = j->pool;
        drover *d = p->drover;
        LIST_INSERT_HEAD(&d->bus_jobs, j, of_drover);
        d->n_bus_jobs++;
        d->wake_ns = 0;
        p->n_bus_jobs++;
        j->future = f;
        if (f) {
                f->id = j->id;
                f->type = type;
                f->bus_job = j;
        }
}

int bus_job_submit(drover_pool *p, const struct submission *s, drover_future **ret) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const bool is_streamed = ret && s->options->flags & DROVER_STREAMED;
        drover *d = p->drover;
        drover_future *f = NULL;
        int r = bus_open_for_call(d);
        if (r < 0)
                return r;
        struct bus_job *j = calloc(1, sizeof *j);
        if (!j)
                return connection_fail(d, -ENOMEM, "job %s: %s", s->job, strerror(ENOMEM));
        d->n_bus_calls++;
        r = bus_verdict_prepare(d);
        if (r >= 0 && (r = bus_verdict_await_fds(d)) < 0)
                r = errors_report(d, r, "job", s->job, NULL);
        if (r >= 0 && ret)
                r = future_new(&f, d, NULL, 2); /* the caller's and ours */
        if (r >= 0 && is_streamed)
                r = stream_new(f);
        if (r == -ENOMEM)
                connection_fail(d, r, "job %s: %s", s->job, strerror(-r));
        if (r >= 0)
                r = bus_job_call(p, s, is_streamed, &reply);
        if (r >= 0)
                r = bus_job_fill(j, p, s, reply);
        if (r >= 0 && is_streamed) /* waits for an answer: before anything is heard of the job, which may free it */
                stream_open(f->stream, j->id);
        d->n_bus_calls--;
        if (r < 0) {
                free(j);
                future_drop(f);
                bus_verdict_rest(d);
                return r;
        }
        bus_job_start(j, f, s->type);
        if (ret)
                *ret = f;
        bus_verdict_ask(
                j); /* also of one that nobody wants to know of: JobRemoved may have been, and its pool counts it */
        return 0;
}

/* ---- looking at jobs, and ending them: of either kind ---- */

static void bus_job_path(uint64_t id, char path[static BUS_JOB_PATH]) {
        snprintf(path, BUS_JOB_PATH, "/org/drover1/job/%" PRIu64, id);
}

static int bus_job_report(drover *d, uint64_t id, int code, const sd_bus_error *e) {
        char name[32];
        snprintf(name, sizeof name, "%" PRIu64, id);
        return errors_report(d, code, "job", name, e);
}

static int bus_job_new_call(drover *d, uint64_t id, const char *interface, const char *member, sd_bus_message **ret) {
        char path[BUS_JOB_PATH];
        bus_job_path(id, path);
        return sd_bus_message_new_method_call(d->bus, ret, BUS_JOB_NAME, path, interface, member);
}

/* Calls a member of the job with up to two strings (NULL: not there), and waits for the answer. */
static int bus_job_ask(drover *d, uint64_t id, const char *interface, const char *member, const char *first,
                       const char *second, sd_bus_message **ret_reply) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        __attribute__((cleanup(sd_bus_error_free))) sd_bus_error e = SD_BUS_ERROR_NULL;
        int r = bus_open_for_call(d);
        if (r < 0)
                return r;
        r = bus_job_new_call(d, id, interface, member, &m);
        if (r >= 0 && first)
                r = sd_bus_message_append(m, "s", first);
        if (r >= 0 && second)
                r = sd_bus_message_append(m, "s", second);
        if (r >= 0)
                r = bus_call(d->bus, m, BUS_JOB_TIMEOUT_US, &e, ret_reply);
        return r < 0 ? bus_job_report(d, id, r, &e) : 0;
}

int bus_job_cancel(drover *d, uint64_t id, enum drover_cancel_mode mode) {
        static const struct {
                const char *word;
                int code;
        } outcomes[] = {
                {"cancelled", DROVER_CANCEL_DONE},
                {"asked", DROVER_CANCEL_ASKED},
                {"killed", DROVER_CANCEL_KILLED},
                {"finished", DROVER_CANCEL_TOO_LATE},
                {"running", -EBUSY},
        };
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const char *word = mode == DROVER_CANCEL_KILL ? "kill" : mode == DROVER_CANCEL_ASK ? "ask" : "queued";
        int r = bus_job_ask(d, id, BUS_JOB_INTERFACE, "Cancel", word, NULL, &reply);
        if (r >= 0 && (r = sd_bus_message_read(reply, "s", &word)) < 0)
                r = bus_job_report(d, id, r, NULL);
        if (r < 0)
                return r;
        for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++)
                if (strcmp(outcomes[i].word, word) == 0)
                        return outcomes[i].code < 0 ? connection_fail(d, outcomes[i].code, "job %" PRIu64 " runs", id)
                                                    : outcomes[i].code;
        return connection_fail(d, -EPROTO, "job %" PRIu64 ": the answer to Cancel is \"%.40s\"", id, word);
}

/* Without waiting for the answers: the verdicts come as messages later. */
void bus_job_cancel_queued(drover_pool *p) {
        struct bus_job *j;
        LIST_FOREACH(j, &p->drover->bus_jobs, of_drover) {
                __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
                if (j->pool == p && bus_job_new_call(p->drover, j->id, BUS_JOB_INTERFACE, "Cancel", &m) >= 0 &&
                    sd_bus_message_append(m, "s", "queued") >= 0 && sd_bus_message_set_expect_reply(m, false) >= 0)
                        sd_bus_send(p->drover->bus, m, NULL);
        }
}

/* One property, with the variant around it opened. */
static int bus_job_get(drover *d, uint64_t id, const char *property, const char *signature, sd_bus_message **ret) {
        int r = bus_job_ask(d, id, "org.freedesktop.DBus.Properties", "Get", BUS_JOB_INTERFACE, property, ret);
        if (r >= 0 && (r = sd_bus_message_enter_container(*ret, 'v', signature)) < 0)
                r = bus_job_report(d, id, r, NULL);
        return r;
}

int bus_job_call_member(drover *d, uint64_t id, const char *member, sd_bus_message **ret_reply) {
        return bus_job_ask(d, id, BUS_JOB_INTERFACE, member, NULL, NULL, ret_reply);
}

bool bus_job_is_running(drover *d, uint64_t id) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        const char *word;
        return bus_job_get(d, id, "State", "s", &m) >= 0 && sd_bus_message_read(m, "s", &word) >= 0 &&
               strcmp(word, "queued") != 0;
}

int drover_future_get_progress(drover_future *future, struct drover_progress *ret_progress, size_t struct_bytes) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        struct drover_progress progress = {0};
        const char *note;
        drover *d = future->drover;
        int r = connection_check(d);
        if (r >= 0 && (future_has_ended(future) || future->id == 0))
                r = connection_fail(d, -ENOENT, "the job has ended");
        if (r >= 0 && !future->bus_job)
                r = pool_check_number(future->pool, future);
        if (r >= 0)
                r = bus_job_get(d, future->id, "Progress", "(tts)", &m);
        if (r >= 0)
                r = sd_bus_message_read(m, "(tts)", &progress.done, &progress.total, &note);
        if (r < 0)
                return r;
        snprintf(progress.note, sizeof progress.note, "%s", note);
        if (struct_bytes > sizeof progress) {
                memset((char *)ret_progress + sizeof progress, 0, struct_bytes - sizeof progress);
                struct_bytes = sizeof progress;
        }
        memcpy(ret_progress, &progress, struct_bytes);
        return 0;
}
