/* What the supervisor reports, as signals.
 *
 * Pools and workers are announced to everybody in D-Bus's standard forms: InterfacesAdded and Removed, and
 * PropertiesChanged of State. What happened to a job or a worker goes only to those who called Subscribe, one message
 * each, and JobRemoved only to those who may see the job. A hook comes in the middle of the supervisor's work, so
 * nothing is called back from here: calls that wait for a pool try again from a timer. */
#include <string.h>

#include "daemon/bus/call.h"
#include "ipc/values/words.h"

static void on_retry(struct loop_timer *t) {
        struct bus *b = t->user;
        bool has_more = call_retry_pool(b);

        has_more = call_retry_room(b) || has_more;
        if (has_more)
                loop_timer_set(b->config.loop, t, loop_now(b->config.loop) + 1, on_retry, b); /* others first */
}

static void retry_soon(struct bus *b) {
        if (TAILQ_EMPTY(&b->waiting_for_pool) && TAILQ_EMPTY(&b->waiting_for_room))
                return;
        b->retry_round++;
        loop_timer_set(b->config.loop, &b->retry_timer, loop_now(b->config.loop), on_retry, b);
}

static void pool_path(struct pool *p, char ret[static BUS_MAX_PATH]) { bus_pool_path(pool_get_config(p)->name, ret); }

static void on_pool_added(void *user, struct pool *p) {
        struct bus *b = user;
        char path[BUS_MAX_PATH];

        if (!b->is_started)
                return;
        pool_path(p, path);
        sd_bus_emit_interfaces_added(b->bus, path, BUS_POOL, NULL);
}

static void on_pool_removed(void *user, struct pool *p) {
        struct bus *b = user;
        char path[BUS_MAX_PATH];

        if (!b->is_started)
                return;
        pool_path(p, path);
        if (!bus_pool_at(b, path)) /* else one of the same name stands there already */
                sd_bus_emit_interfaces_removed(b->bus, path, BUS_POOL, NULL);
        retry_soon(b);
}

static void on_pool_state(void *user, struct pool *p) {
        struct bus *b = user;
        char path[BUS_MAX_PATH];

        if (!b->is_started)
                return;
        pool_path(p, path);
        sd_bus_emit_properties_changed(b->bus, path, BUS_POOL, "State", NULL);
        retry_soon(b);
}

static void on_pool_room(void *user, struct pool *p) { retry_soon(user); }

static void on_worker_added(void *user, struct worker *w) {
        struct bus *b = user;
        struct worker_info info;
        char path[BUS_MAX_PATH];

        if (!b->is_started)
                return;
        worker_get_info(w, &info);
        bus_worker_path(info.id, path);
        sd_bus_emit_interfaces_added(b->bus, path, BUS_WORKER, NULL);
}

static void on_worker_state(void *user, struct worker *w) {
        struct bus *b = user;
        struct worker_info info;
        char path[BUS_MAX_PATH];

        if (!b->is_started)
                return;
        worker_get_info(w, &info);
        bus_worker_path(info.id, path);
        sd_bus_emit_properties_changed(b->bus, path, BUS_WORKER, "State", NULL);
}

/* One who does not take what we send misses signals, as the bus itself has it. */
static void tell(struct bus_peer *p, sd_bus_message *m) {
        if (sd_bus_message_set_destination(m, p->name) >= 0)
                bus_send(p->bus, m, (struct bus_weight){.n_bytes = BUS_REPLY_BYTES});
}

static void tell_worker_removed(struct bus *b, struct bus_peer *p, const struct death *d) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        int r;

        r = sd_bus_message_new_signal(b->bus, &m, BUS_ROOT, BUS_MANAGER, "WorkerRemoved");
        if (r >= 0)
                r = sd_bus_message_append(m, "tsusit", d->worker_id, d->pool, (uint32_t)d->pid, words_reason(d->reason),
                                          d->status, peer_may_see(p, d->job_uid) ? d->job_id : 0);
        if (r >= 0)
                tell(p, m);
}

static void on_worker_removed(void *user, struct worker *w, const struct death *d) {
        struct bus *b = user;
        struct worker_info info;
        char path[BUS_MAX_PATH];
        struct bus_peer *p;

        if (!b->is_started)
                return;
        worker_get_info(w, &info);
        bus_worker_path(info.id, path);
        sd_bus_emit_interfaces_removed(b->bus, path, BUS_WORKER, NULL);
        if (!d || b->n_subscribers == 0)
                return;
        TAILQ_FOREACH(p, &b->peers, link) {
                if (p->is_subscribed)
                        tell_worker_removed(b, p, d);
        }
}

static void tell_job_removed(struct bus *b, struct bus_peer *p, const struct job_info *info) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *m = NULL;
        char path[BUS_MAX_PATH];
        int r;

        bus_job_path(info->id, path);
        r = sd_bus_message_new_signal(b->bus, &m, BUS_ROOT, BUS_MANAGER, "JobRemoved");
        if (r >= 0)
                r = sd_bus_message_append(m, "toss", info->id, path, info->pool_name, words_slot_state(info->state));
        if (r >= 0)
                tell(p, m);
}

static void on_job_finished(void *user, struct job *j) {
        struct bus *b = user;
        struct job_info info;
        struct bus_peer *p;

        if (!b->is_started || b->n_subscribers == 0)
                return;
        job_get_info(j, &info);
        TAILQ_FOREACH(p, &b->peers, link) {
                if (p->is_subscribed && peer_may_see(p, info.uid)) {
                        tell_job_removed(b, p, &info);
                        farewell_told(p);
                }
        }
}

void bus_fill_hooks(struct bus *b, struct supervisor_hooks *hooks) {
        *hooks = (struct supervisor_hooks){
                .user = b,
                .on_pool_added = on_pool_added,
                .on_pool_removed = on_pool_removed,
                .on_pool_state = on_pool_state,
                .on_pool_room = on_pool_room,
                .on_worker_added = on_worker_added,
                .on_worker_removed = on_worker_removed,
                .on_worker_state = on_worker_state,
                .on_job_finished = on_job_finished,
        };
}
