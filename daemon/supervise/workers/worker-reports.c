/* What a worker says: CLOSED, once its sandbox is; READY with its plugin's job types, FAILED with a reason, DROPPED,
 * FOUL, VAIN; ARENA and what is about descriptors go to files of their own.
 *
 * None of it is trusted. Each report is copied once, checked, and taken only where it is due; the first that is not
 * ends the hearing and the worker. One packet a turn of the loop, so that a flood costs no more than its share. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/values/args.h"
#include "ipc/values/breach.h"

#define WORKER_DEAF_NS UINT64_C(1000000000)
enum {
        WORKER_ORDERS_BYTES = 16384,
        WORKER_LAST_REPORTS = 1024, /* of a dead one: more than its socket can hold */
};

static int worker_on_dropped(struct worker *w, uint32_t index) {
        struct pool_channel *c = pool_channel_at(w->pool, index);
        uint64_t bit = UINT64_C(1) << w->index % 64;
        if (!c || !(c->drop_sent[w->index / 64] & bit))
                return -EPROTO;
        if (c == w->quarantine_channel)
                return 0; /* it is being killed, and its death lets go of the channel */
        c->attached[w->index / 64] &= ~bit;
        c->drop_sent[w->index / 64] &= ~bit;
        if (c->doubted[w->index / 64] & bit) {
                c->doubted[w->index / 64] &= ~bit;
                w->asked_ns = 0; /* it is between two jobs */
                pool_mend_let_go(c, w);
                worker_sync(w); /* it has it again */
        }
        pool_channel_collect(c);
        return 0;
}

/* Who writes nonsense into a channel is its client, or a worker of the pool: that can spoil all of them anyway. */
static int worker_on_foul(struct worker *w, uint32_t index, int error) {
        struct pool_channel *c = pool_channel_at(w->pool, index);
        uint64_t bit = UINT64_C(1) << w->index % 64;
        if (!c || c->is_dead || !(c->attached[w->index / 64] & bit))
                return 0; /* gone already */
        if (error == ESTALE && (w->doom != REASON_NONE || w->quarantine_channel))
                return 0; /* it was us who judged its job */
        w->is_wronged |= error == ESTALE;
        if (!c->session) { /* our own: only a worker of the pool can have done that */
                c->foul[w->index / 64] |= bit;
                pool_mend_soon(w->pool);
                return 0;
        }
        log_warning("pool %s: %s in a channel of uid %u: the session is dropped", w->pool->config.name,
                    error == ESTALE ? "a running job was rewritten" : "there is nonsense",
                    (unsigned)w->pool->bells[c->bell].uid);
        session_end(c->session);
        return 0;
}

/* Job types go by their numbers, so a type of the new list must not look like another one of the old list. */
static int worker_check_numbers(struct worker *w, const struct schema *schema) {
        for (uint32_t i = 0; i < schema->n_jobs; i++) {
                const struct schema_job *job = &schema->jobs[i],
                                        *before = schema_find_number(w->pool->schema, job->number);
                if (!before || schema_is_same(job, before))
                        continue;
                snprintf(w->text, sizeof(w->text),
                         "the plugin's job type %s happens to have the number of %s before it: rename it", job->name,
                         before->name);
                return -EINVAL;
        }
        return 0;
}

/* Workers of older files end now if there is a job type that they lack: they would claim its jobs. */
static void worker_end_older(const struct worker *w, const struct schema *before) {
        struct pool *p = w->pool;
        uint32_t n_known = 0;
        for (uint32_t i = 0; i < p->schema->n_jobs; i++)
                n_known += schema_find_number(before, p->schema->jobs[i].number) != NULL;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS && n_known < p->schema->n_jobs; i++)
                if (p->workers[i] && p->workers[i]->generation < w->generation &&
                    p->workers[i]->phase != PHASE_STOPPING)
                        worker_retire(p->workers[i], REASON_RECYCLED);
}

static int worker_take_schema(struct worker *w, struct schema *schema, const char *text, size_t bytes) {
        struct pool *p = w->pool;
        struct schema *before = p->schema;
        char *copy = malloc(bytes);
        if (!copy)
                return -ENOMEM;
        free(p->schema_text);
        p->schema = schema;
        p->schema_text = memcpy(copy, text, bytes);
        p->schema_bytes = bytes;
        p->schema_generation = w->generation;
        p->n_type_lists++;
        if (before) {
                log_notice("pool %s: the plugin's job types changed", p->config.name);
                worker_end_older(w, before);
        }
        schema_free(before);
        return 0;
}

/* -ESTALE: it came up so late that a newer plugin file has other job types. */
static int worker_learn_schema(struct worker *w, const struct worker_report *report, const char *text, size_t bytes) {
        char error[200];
        struct pool *p = w->pool;
        if (report->text_bytes != bytes) {
                snprintf(w->text, sizeof(w->text), "the worker's READY is cut short");
                return -EPROTO;
        }
        bool is_known = p->schema && bytes == p->schema_bytes && memcmp(p->schema_text, text, bytes) == 0;
        if (w->generation < p->schema_generation)
                return is_known ? 0 : -ESTALE;
        if (is_known) {
                p->schema_generation = w->generation;
                return 0;
        }
        struct schema *schema;
        int r = schema_parse(text, bytes, &schema, error, sizeof(error));
        if (r < 0) {
                snprintf(w->text, sizeof(w->text), "the plugin's job types: %.180s", error);
                return r;
        }
        r = p->schema ? worker_check_numbers(w, schema) : 0;
        if (r >= 0)
                r = worker_take_schema(w, schema, text, bytes);
        if (r < 0)
                schema_free(schema);
        return r;
}

void worker_take_sandbox(struct worker *w, const char *layers) {
        snprintf(w->sandbox, sizeof(w->sandbox), "%s", layers);
        breach_clean_text(w->sandbox, sizeof(w->sandbox));
}

/* Landlock does not hold for threads that a library of the plugin's had started: told once a plugin file. */
static void worker_tell_partial(struct worker *w, struct worker_report *report) {
        struct pool *p = w->pool;
        if (!strstr(w->sandbox, "no-landlock") || p->partial_told == w->generation)
                return;
        p->partial_told = w->generation;
        breach_clean_text(report->text, 64);
        log_warning("pool %s: Landlock does not hold for all threads of its workers: %s started some when it was "
                    "loaded, and the kernel restricts no thread but the calling one; the system call filters hold for "
                    "all of them. Environment= may keep the library from it (SandboxLevel: %s)",
                    p->config.name, report->text[0] ? report->text : "a library", w->sandbox);
}

/* The first packet of its life, from before its plugin's first instruction. A second one would be the plugin's. */
static int worker_on_closed_report(struct worker *w, struct worker_report *report) {
        report->sandbox[sizeof(report->sandbox) - 1] = 0;
        if (w->sandbox[0] || !report->sandbox[0])
                return -EPROTO;
        worker_take_sandbox(w, report->sandbox);
        worker_tell_partial(w, report);
        return 0;
}

static int worker_on_ready_report(struct worker *w, const struct worker_report *report, const char *text,
                                  size_t bytes) {
        if (w->ready_ns || !w->sandbox[0])
                return -EPROTO;
        if (w->phase != PHASE_INIT) /* it is to end: what it has to say is of no use */
                return 0;
        snprintf(w->build_id, sizeof(w->build_id), "%.*s", (int)sizeof(report->build_id) - 1, report->build_id);
        w->build_id[strspn(w->build_id, "0123456789abcdef")] = 0;
        int r = worker_learn_schema(w, report, text, bytes);
        if (r == -ESTALE) {
                worker_kill_now(w, REASON_RECYCLED);
                return 0;
        }
        if (r < 0) {
                w->is_permanent = true;
                worker_kill_now(w, REASON_INIT);
                return 0;
        }
        worker_on_ready(w);
        return 0;
}

/* Text of a worker or a template is bytes of a plugin: printable ASCII and UTF-8 lead to the bus, the rest does not. */
void worker_take_text(struct worker *w, const char *text) {
        snprintf(w->text, sizeof(w->text), "%s", text);
        if (!args_is_utf8(w->text, strlen(w->text)))
                breach_clean_text(w->text, sizeof(w->text));
}

static int worker_on_failed(struct worker *w, const struct worker_report *report) {
        w->is_full = w->ready_ns && report->error == EMFILE; /* the only reason to give up later */
        if ((w->ready_ns && !w->is_full) || w->said != REASON_NONE)
                return -EPROTO;
        worker_take_text(w, report->text);
        w->said = report->reason > REASON_NONE && report->reason < REASON_N ? report->reason : REASON_INIT;
        w->is_permanent = report->is_permanent;
        return 0;
}

/* One report. -EAGAIN: none; another error: there will be no more, or none that is worth hearing. */
static int worker_receive(struct worker *w) {
        static union { /* one thread, one packet at a time */
                struct worker_report report;
                char bytes[WIRE_MAX_REPORT];
        } packet;
        size_t bytes;
        int fds[PACKET_MAX_FDS];
        unsigned n_fds = PACKET_MAX_FDS;
        closer_blame(CLOSER_WORKERS);
        int r = packet_receive(w->control_fd, &packet, sizeof(packet), &bytes, fds, &n_fds);
        if (r < 0)
                return r;
        if (bytes == 0)
                return -EPIPE;
        struct worker_report *report = &packet.report;
        bool is_sane = bytes >= sizeof(*report) && report->version == WIRE_VERSION;
        if (!is_sane || (n_fds > 0 && report->type != REPORT_RESULT)) {
                descriptors_close(fds, n_fds, CLOSER_WORKERS);
                return -EPROTO;
        }
        report->text[sizeof(report->text) - 1] = 0;
        switch (report->type) {
        case REPORT_CLOSED:
                return worker_on_closed_report(w, report);
        case REPORT_READY:
                return worker_on_ready_report(w, report, packet.bytes + sizeof(*report), bytes - sizeof(*report));
        case REPORT_FAILED:
                return worker_on_failed(w, report);
        case REPORT_DROPPED:
                return worker_on_dropped(w, report->channel);
        case REPORT_FOUL:
                return worker_on_foul(w, report->channel, report->error);
        case REPORT_VAIN:
                return pool_on_vain(w->pool, w->index, report->channel);
        case REPORT_ARENA:
                return worker_on_arena_wanted(w, report);
        case REPORT_FDS:
        case REPORT_ROOM:
        case REPORT_RESULT:
                return worker_on_fds_report(w, report, fds, n_fds);
        case REPORT_ENDED:
                worker_on_ended(w, report);
                return 0;
        default:
                return -EPROTO;
        }
}

static void worker_on_deaf_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        snprintf(w->text, sizeof(w->text), "it closed its control socket and lived on");
        worker_kill_now(w, REASON_INIT);
}

static void worker_on_control(struct loop_poll *p, uint32_t revents) {
        struct worker *w = p->user;
        if (revents & POLLOUT) {
                worker_sync(w);
                pool_bells_collect(w->pool);
        }
        int r = worker_receive(w);
        if (r == 0 || r == -EAGAIN)
                return;
        w->is_unheard = true;
        loop_poll_change(p, 0); /* end of file: its death follows; a false report: make it follow */
        if (r != -EPIPE && r != -ECONNRESET) {
                log_error("pool %s, worker %llu: a report that makes no sense, or out of turn", w->pool->config.name,
                          (unsigned long long)w->id);
                worker_kill_now(w, REASON_INIT);
        } else if (!w->kill_timer.heap_index) { /* it would hear of no more channels */
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer, event_now_ns() + WORKER_DEAF_NS,
                               worker_on_deaf_timer, w);
        }
}

/* Orders that it has not read yet hold descriptors, of which our user may have as many on their way, to all workers
 * together, as it may have open. One that reads nothing for long leaves the others theirs: some forty orders wait. */
int worker_listen(struct worker *w) {
        const int bytes = WORKER_ORDERS_BYTES;
        if (setsockopt(w->control_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0)
                return -errno;
        return loop_poll_start(w->pool->supervisor->loop, &w->control_poll, w->control_fd, POLLIN, worker_on_control,
                               w);
}

void worker_hear_out(struct worker *w) {
        for (unsigned i = 0; w->control_fd >= 0 && !w->is_unheard && i < WORKER_LAST_REPORTS; i++)
                if (worker_receive(w) < 0)
                        return;
}
