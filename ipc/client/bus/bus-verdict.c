/* How jobs that went over the bus end.
 *
 * JobRemoved tells it; then GetResult is asked for the job, and once right after Submit, because a key may have joined
 * a job that is over, and because of what ended before the signals came our way. The broker answers in order, so one of
 * the two always meets the verdict. No job keeps a call open meanwhile: a bus allows only so many.
 *
 * A bus drops what it has no room for, so of a job that nothing was heard of it is asked again: after a second, then
 * after twice as long each time. An answer that is the bus's and not the broker's (none came in time, too many are on
 * their way) is none, and asked for again as well; only that there is no such broker any more is one.
 *
 * A job belongs to the broker that accepted it, which is a unique name of the bus: only that one is asked and believed,
 * and when it leaves the bus it takes its jobs with it, and no others. It tells of all jobs of this user, so who has
 * none under way unsubscribes: nobody would read that, and the bus would keep it for us. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/bus/bus-job.h"
#include "ipc/memory/event.h"
#include "ipc/values/utf8.h"

enum { BUS_VERDICT_ASKED = 32 /* at once: a bus allows 128 calls */ };

#define BUS_VERDICT_PAUSE_NS UINT64_C(1000000000)
#define BUS_VERDICT_MAX_PAUSE_NS UINT64_C(8000000000)

/* ---- calls ---- */

/* Nobody waits for the answer: what it would say, the next call says as well. */
static int bus_verdict_send(drover *d, const char *broker, const char *member) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(d->bus, &m, broker, BUS_JOB_ROOT, BUS_JOB_MANAGER, member);
        if (r >= 0)
                r = sd_bus_message_set_expect_reply(m, false);
        if (r >= 0)
                r = sd_bus_message_set_auto_start(m, strcmp(member, "Unsubscribe") != 0);
        return r < 0 ? r : sd_bus_send(d->bus, m, NULL);
}

void bus_verdict_rest(drover *d) {
        if (d->n_bus_jobs > 0 || d->n_bus_calls > 0 || !d->bus || !connection_is_ours(d))
                return;
        bus_verdict_send(d, *d->broker ? d->broker : BUS_JOB_NAME, "Unsubscribe");
        *d->broker = 0;
}

/* ---- verdicts ---- */

static void bus_verdict_hang_up(struct bus_job *j) {
        j->pool->drover->n_bus_asked -= j->call != NULL;
        j->pool->drover->n_bus_fds_asked -= j->call && j->has_fds;
        j->call = sd_bus_slot_unref(j->call);
}

static void bus_verdict_free(struct bus_job *j) {
        drover *d = j->pool->drover;
        LIST_REMOVE(j, of_drover);
        d->n_bus_jobs--;
        d->n_ended++;
        j->pool->n_bus_jobs--;
        bus_verdict_hang_up(j);
        drover_pool_unref(j->pool);
        free(j);
        bus_verdict_rest(d);
}

static void bus_verdict_end(struct bus_job *j, struct future_verdict *v) {
        drover_future *f = j->future;
        v->pool = j->pool->name;
        v->job = j->name;
        if (f) {
                f->bus_job = NULL;
                future_end(f, v);
        } else
                session_fds_free(v->fds);
        bus_verdict_free(j);
}

static void bus_verdict_lose(struct bus_job *j, int code, const char *why) {
        bus_verdict_end(
                j, &(struct future_verdict){.state = DROVER_LOST, .code = code, .data = why, .bytes = strlen(why)});
}

/* There is no answer to GetResult. Whoever was told how the job ended knows that, if not what came of it. */
static void bus_verdict_miss(struct bus_job *j, int code, const char *why) {
        char text[DROVER_ERROR_TEXT];
        if (j->told == DROVER_QUEUED || j->told == DROVER_LOST) { /* a job without a record has ended */
                bus_verdict_lose(j, code == -ENOENT ? -ENODATA : code, why);
                return;
        }
        struct future_verdict v = {.state = j->told, .code = future_code(j->told, 0), .submitted_ns = j->submitted_ns};
        if (j->told == DROVER_DONE || j->told == DROVER_FAILED)
                v.code = code == -EDQUOT || code == -ESTALE ? code : -ENODATA;
        snprintf(text, sizeof text, "the job ended as %s, but no more is kept of it: %s", drover_state_name(j->told),
                 why);
        v.data = text;
        v.bytes = utf8_cut(text, strlen(text));
        bus_verdict_end(j, &v);
}

static void bus_verdict_miss_broker(struct bus_job *j) {
        bus_verdict_miss(j, -EPIPE,
                         j->told ? "droverd went away" : "droverd went away: whether the job ran is not known");
}

static void bus_verdict_ask_at(struct bus_job *j, uint64_t ask_ns) {
        drover *d = j->pool->drover;
        j->ask_ns = ask_ns;
        if (ask_ns < d->bus_ask_ns)
                d->bus_ask_ns = ask_ns;
}

/* There is no news of it yet, and may never be any; or, `is_short`, no memory for what there is. */
static void bus_verdict_put_off(struct bus_job *j, bool is_short) {
        bool is_again = j->pause_ns > 0 && j->is_short == is_short;
        j->pause_ns = is_again ? 2 * j->pause_ns : is_short ? BUS_SHORT_NS : BUS_VERDICT_PAUSE_NS;
        j->is_short = is_short;
        if (j->pause_ns > BUS_VERDICT_MAX_PAUSE_NS)
                j->pause_ns = BUS_VERDICT_MAX_PAUSE_NS;
        bus_verdict_ask_at(j, event_now_ns() + j->pause_ns);
}

/* What the bus answers in the place of a broker. */
static void bus_verdict_on_bus_error(struct bus_job *j, const sd_bus_error *e) {
        if (sd_bus_error_has_name(e, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
            sd_bus_error_has_name(e, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                bus_verdict_miss_broker(j);
        else if (sd_bus_error_has_name(e, SD_BUS_ERROR_ACCESS_DENIED))
                bus_verdict_miss(j, -EACCES, e->message ? e->message : e->name);
        else
                bus_verdict_put_off(j, false);
}

static int bus_verdict_on_result(sd_bus_message *m, void *user, sd_bus_error *unused) {
        struct bus_job *j = user;
        const sd_bus_error *e = sd_bus_message_get_error(m);
        const char *sender = sd_bus_message_get_sender(m);
        bus_verdict_hang_up(j);
        if (e && sd_bus_error_has_name(e, "org.drover1.Error.NotFinished")) {
                if (j->is_removed)
                        bus_verdict_ask(j);
                else
                        bus_verdict_put_off(j, false);
                return 0;
        }
        if (e && (!sender || strcmp(sender, j->broker) != 0)) {
                bus_verdict_on_bus_error(j, e);
                return 0;
        }
        if (e) {
                bus_verdict_miss(j, errors_code(e->name, -EPIPE), e->message ? e->message : e->name);
                return 0;
        }
        drover_args result;
        struct future_verdict v = {.submitted_ns = j->submitted_ns, .block = (void **)&result.buffer};
        builder_init(&result);
        int r = bus_result_read(m, j->is_raw, &result, &v);
        if (bus_is_short(r)) /* droverd has it still */
                bus_verdict_put_off(j, true);
        else if (r < 0)
                bus_verdict_lose(j, -EPROTO, "the answer to GetResult makes no sense");
        else
                bus_verdict_end(j, &v); /* v.fds is the future's now */
        builder_deinit(&result);
        return 0;
}

/* An answer with descriptors that find no room would keep all that comes behind it from us, answers to Submit as well.
 */
static bool bus_verdict_must_wait(struct bus_job *j) {
        drover *d = j->pool->drover;
        j->error = j->has_fds && d->n_bus_calls == 0 ? bus_has_room(d->bus) : 0;
        if (!j->has_fds || (d->n_bus_calls == 0 && j->error == 0))
                return false;
        bus_verdict_ask_at(j, event_now_ns() + (j->error < 0 ? BUS_SHORT_NS : 0));
        return true;
}

/* One that may be running still is not waited for in vain. When there is room again they are asked for at once. */
int bus_verdict_are_short(drover *d) {
        struct bus_job *j;
        LIST_FOREACH(j, &d->bus_jobs, of_drover)
                if (j->error == 0 || (j->told == DROVER_QUEUED && j->pause_ns > 0))
                        return 0;
        int r = d->n_bus_jobs > 0 ? bus_has_room(d->bus) : 0;
        if (r == 0)
                LIST_FOREACH(j, &d->bus_jobs, of_drover)
                        bus_verdict_ask_at(j, 0);
        return r;
}

int bus_verdict_await_fds(drover *d) {
        int r;
        do {
                r = bus_process(d->bus);
                if (r == 0 && d->n_bus_fds_asked > 0)
                        r = sd_bus_wait(d->bus, UINT64_MAX);
                r = r == -EINTR ? 0 : r;
        } while (r > 0 || (r == 0 && d->n_bus_fds_asked > 0));
        return r;
}

void bus_verdict_ask(struct bus_job *j) {
        drover *d = j->pool->drover;
        if (bus_verdict_must_wait(j))
                return;
        j->is_removed = false;
        j->ask_ns = EVENT_FOREVER;
        int r = sd_bus_call_method_async(d->bus, &j->call, j->broker, j->path, BUS_JOB_INTERFACE, "GetResult",
                                         bus_verdict_on_result, j, NULL);
        if (r < 0) { /* if because there is no bus any more, who reads it finds out */
                bus_verdict_put_off(j, bus_is_short(r));
                return;
        }
        d->n_bus_asked++;
        d->n_bus_fds_asked += j->has_fds;
}

uint64_t bus_verdict_due_ns(const drover *d) {
        return d->n_bus_jobs == 0 || d->n_bus_asked >= BUS_VERDICT_ASKED ? EVENT_FOREVER : d->bus_ask_ns;
}

void bus_verdict_ask_late(drover *d) {
        uint64_t due_ns = bus_verdict_due_ns(d), now_ns;
        struct bus_job *j;
        if (due_ns == EVENT_FOREVER || (now_ns = event_now_ns()) < due_ns)
                return;
        d->bus_ask_ns = EVENT_FOREVER;
        LIST_FOREACH(j, &d->bus_jobs, of_drover) {
                if (j->ask_ns <= now_ns && d->n_bus_asked < BUS_VERDICT_ASKED)
                        bus_verdict_ask(j);
                if (j->ask_ns < d->bus_ask_ns)
                        d->bus_ask_ns = j->ask_ns;
        }
}

void bus_verdict_lose_all(drover *d, int code, const char *why) {
        while (!LIST_EMPTY(&d->bus_jobs))
                bus_verdict_lose(LIST_FIRST(&d->bus_jobs), code, why);
}

/* ---- what the broker tells ---- */

static int bus_verdict_on_removed(sd_bus_message *m, void *user, sd_bus_error *unused) {
        const char *path, *pool, *word, *broker = sd_bus_message_get_sender(m);
        drover *d = user;
        struct bus_job *j;
        uint64_t id;
        if (!broker || sd_bus_message_read(m, "toss", &id, &path, &pool, &word) < 0)
                return 0;
        LIST_FOREACH(j, &d->bus_jobs, of_drover)
                if (j->id == id && strcmp(j->broker, broker) == 0) { /* several, if they came by one key */
                        j->told = bus_result_state(word);
                        if (j->call)
                                j->is_removed = true;
                        else
                                bus_verdict_ask(j);
                }
        return 0;
}

static struct bus_job *bus_verdict_first_of(drover *d, const char *broker) {
        struct bus_job *j;
        LIST_FOREACH(j, &d->bus_jobs, of_drover)
                if (strcmp(j->broker, broker) == 0)
                        return j;
        return NULL;
}

/* Read late, it may be about one whose successor has jobs of ours already. */
static int bus_verdict_on_owner(sd_bus_message *m, void *user, sd_bus_error *unused) {
        const char *name, *old, *sender = sd_bus_message_get_sender(m);
        drover *d = user;
        struct bus_job *j;
        if (!sender || strcmp(sender, "org.freedesktop.DBus") != 0 || sd_bus_message_read(m, "ss", &name, &old) < 0 ||
            !*old)
                return 0;
        if (strcmp(d->broker, old) == 0)
                *d->broker = 0;
        while ((j = bus_verdict_first_of(d, old)))
                bus_verdict_miss_broker(j);
        return 0;
}

/* ---- subscribing ---- */

static int bus_verdict_on_match(sd_bus_message *m, void *user, sd_bus_error *unused) {
        drover *d = user;
        d->n_matches--;
        if (sd_bus_message_is_method_error(m, NULL))
                d->match_error = -sd_bus_message_get_errno(m);
        return 1; /* as in bus-call.c */
}

static int bus_verdict_match(drover *d) {
        uint64_t since_ns = 0;
        int r = 0;
        d->match_error = 0;
        if (!d->removed_match) {
                r = sd_bus_match_signal_async(d->bus, &d->removed_match, BUS_JOB_NAME, BUS_JOB_ROOT, BUS_JOB_MANAGER,
                                              "JobRemoved", bus_verdict_on_removed, bus_verdict_on_match, d);
                d->n_matches += r >= 0;
        }
        if (r >= 0 && !d->owner_match) {
                r = sd_bus_add_match_async(
                        d->bus, &d->owner_match,
                        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                        "member='NameOwnerChanged',arg0='" BUS_JOB_NAME "'",
                        bus_verdict_on_owner, bus_verdict_on_match, d);
                d->n_matches += r >= 0;
        }
        while (r >= 0 && d->n_matches > 0)
                r = bus_call_step(d->bus, &since_ns);
        if (r >= 0)
                r = d->match_error;
        if (r >= 0)
                return 0;
        d->removed_match = sd_bus_slot_unref(d->removed_match);
        d->owner_match = sd_bus_slot_unref(d->owner_match);
        d->n_matches = 0;
        return connection_fail(d, r, "signals of droverd: %s", strerror(-r));
}

int bus_verdict_prepare(drover *d) {
        int r = bus_verdict_match(d);
        if (r >= 0 && !*d->broker && (r = bus_verdict_send(d, BUS_JOB_NAME, "Subscribe")) < 0)
                return connection_fail(d, r, "droverd cannot be called: %s", strerror(-r));
        return r;
}

void bus_verdict_accepted_by(drover *d, const char *broker) {
        if (strcmp(d->broker, broker) == 0)
                return;
        if (*d->broker) /* it took the place of the one that heard our Subscribe */
                bus_verdict_send(d, broker, "Subscribe");
        snprintf(d->broker, sizeof d->broker, "%s", broker);
}

void bus_verdict_unsubscribe(drover *d) {
        d->removed_match = sd_bus_slot_unref(d->removed_match);
        d->owner_match = sd_bus_slot_unref(d->owner_match);
        *d->broker = 0;
}
