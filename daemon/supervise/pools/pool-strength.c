/* As many workers as the pool wants, and what happens when they come and go.
 *
 * Two steps, taken at every settling: balance gives the work to whoever is ready and lets go of workers that are worn
 * once another is ready in their place; fill starts those that are missing. A worker that is ready stands by until the
 * balance needs it. Workers of an older plugin file are replaced one after the other, the others as soon as it shows
 * that they will be missed; so the pool never serves with fewer than it wants for a replacement's sake.
 *
 * When to try again after a failure is restart.h's to say. A worker's death with a job was charged to the job, one by
 * a signal from outside is nobody's failure: only workers that do not come up, or die of themselves while idle, count
 * towards the start limit. */
#include <signal.h>
#include <stdio.h>

#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

#define STRENGTH_PATIENCE_NS                                                                                           \
        UINT64_C(1000000000) /* without any ready worker: until then it is a moment, then a state */

static void pool_on_restart_timer(struct loop_timer *t) { pool_settle(t->user); }

bool worker_serves(const struct worker *w) { return w->phase == PHASE_READY && !w->is_standby; }

uint32_t pool_count_serving(const struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                n += p->workers[i] && worker_serves(p->workers[i]);
        return n;
}

/* ---- letting go ---- */

/* Rather one that has no job in hand, rather one that stands by. */
static bool pool_retire_one(struct pool *p, bool (*fits)(const struct worker *w)) {
        struct worker *best = NULL;
        struct worker_job job;
        int best_rank = -1;
        for (uint32_t i = LAYOUT_MAX_WORKERS; i-- > 0;) {
                struct worker *w = p->workers[i];
                if (!w || w->phase == PHASE_STOPPING || !fits(w))
                        continue;
                int rank = !worker_serves(w) ? 2 : !worker_get_job(w, &job);
                if (rank > best_rank) {
                        best = w;
                        best_rank = rank;
                }
        }
        if (best)
                worker_retire(best, REASON_RECYCLED);
        return best != NULL;
}

static bool pool_fits_fresh(const struct worker *w) { return !worker_is_worn(w); }
static bool pool_fits_outdated(const struct worker *w) { return w->is_outdated || w->is_due; }
static bool pool_fits_outdated_server(const struct worker *w) { return worker_serves(w) && pool_fits_outdated(w); }
static bool pool_fits_outdated_standby(const struct worker *w) {
        return w->phase == PHASE_READY && w->is_standby && pool_fits_outdated(w);
}
static bool pool_fits_any_server(const struct worker *w) { return worker_serves(w); }

void pool_retire_all(struct pool *p, enum death_reason why, uint64_t grace_ns) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker_job job;
                struct worker *w = p->workers[i];
                if (!w)
                        continue;
                if (w->phase != PHASE_STOPPING)
                        worker_retire(w, why);
                if (worker_get_job(w, &job)) {
                        w->doom = why; /* it was to be replaced when it is done; that is not what ends the job */
                        worker_ask(job.channel, job.slot, job.generation, "Stop of its pool", false);
                }
                worker_kill_after(w, grace_ns);
        }
}

/* ---- balance: who of the ready ones serves ---- */

/* A fresh one rather than one of an older file. */
static struct worker *pool_find_standby(const struct pool *p, bool may_be_worn) {
        struct worker *found = NULL;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker *w = p->workers[i];
                if (w && w->phase == PHASE_READY && w->is_standby && (!worker_is_worn(w) || (may_be_worn && !found)))
                        found = w;
        }
        return found;
}

static void pool_put_to_work(struct worker *w) {
        w->is_standby = false;
        worker_command(w);
}

static void pool_balance(struct pool *p) {
        uint32_t wanted = pool_wanted_workers(p);
        struct worker *w;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                w = p->workers[i];
                if (w)
                        worker_limit_jobs(w);
                if (w && worker_serves(w) && worker_is_used_up(w))
                        worker_retire(w, REASON_RECYCLED);
        }
        uint32_t n = pool_count_serving(p);
        while (n < wanted && (w = pool_find_standby(p, true))) {
                pool_put_to_work(w);
                n++;
        }
        while ((w = pool_find_standby(p, false)) && pool_retire_one(p, pool_fits_outdated_server))
                pool_put_to_work(w);
        while (n >= wanted && pool_retire_one(p, pool_fits_outdated_standby))
                ;
        while (n > wanted &&
               (pool_retire_one(p, pool_fits_outdated_server) || pool_retire_one(p, pool_fits_any_server)))
                n--;
}

/* ---- fill: who is missing ---- */

struct pool_strength {
        uint32_t n_fresh;  /* serve, stand by or are being started, and are not worn */
        uint32_t n_coming; /* of those, the ones that do not serve yet */
        uint32_t n_old;    /* of an older file, but serve or will */
};

static struct pool_strength pool_look_at_strength(const struct pool *p) {
        struct pool_strength s = {0};
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                const struct worker *w = p->workers[i];
                if (!w || w->phase == PHASE_STOPPING)
                        continue;
                bool is_fresh = !worker_is_worn(w);
                s.n_fresh += is_fresh;
                s.n_coming += is_fresh && !worker_serves(w);
                s.n_old += w->is_outdated;
        }
        return s;
}

static uint32_t pool_count_missing(const struct pool *p) {
        struct pool_strength s = pool_look_at_strength(p);
        uint32_t wanted = pool_wanted_workers(p);
        if (s.n_fresh + s.n_old < wanted)
                return wanted - s.n_fresh - s.n_old;
        return s.n_fresh < wanted && s.n_coming == 0; /* the next of the older ones */
}

static void pool_fill(struct pool *p) {
        uint64_t now = event_now_ns();
        uint32_t wanted = pool_wanted_workers(p), n_fresh = pool_look_at_strength(p).n_fresh;
        while (n_fresh > wanted && pool_retire_one(p, pool_fits_fresh))
                n_fresh--;
        uint32_t n_missing = pool_count_missing(p);
        if (n_missing == 0)
                return;
        if (p->restart.not_before_ns > now) {
                loop_timer_set(p->supervisor->loop, &p->restart_timer, p->restart.not_before_ns, pool_on_restart_timer,
                               p);
                return;
        }
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS && n_missing > 0; i++) {
                struct worker *w;
                if (p->workers[i])
                        continue;
                if (worker_start(p, i, &w) < 0)
                        return; /* no spawner: on_up settles again */
                n_missing--;
                if (p->restart.n_failures > 0)
                        return; /* after failures one at a time: the first to be ready lets the others follow */
        }
        if (n_missing > 0)
                pool_retire_one(p, pool_fits_outdated); /* no free index: make room */
}

/* ---- health ---- */

/* At full strength for StartLimitIntervalSec=: what made it degraded is over. */
static void pool_check_health(struct pool *p) {
        uint64_t youngest_ns = 0;
        if (!p->restart.is_degraded || pool_count_ready(p) < pool_wanted_workers(p))
                return;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && p->workers[i]->phase == PHASE_READY && p->workers[i]->ready_ns > youngest_ns)
                        youngest_ns = p->workers[i]->ready_ns;
        uint64_t healthy_ns = youngest_ns + p->config.start_limit_interval_ns;
        if (healthy_ns <= event_now_ns())
                restart_note_healthy(&p->restart);
        else if (!p->restart_timer.heap_index)
                loop_timer_set(p->supervisor->loop, &p->restart_timer, healthy_ns, pool_on_restart_timer, p);
}

static void pool_tell_nobody_ready(struct pool *p) {
        if (spawner_pid(p->supervisor->spawner) == 0) {
                pool_set_problem(p, "no worker is ready: there is no drover-spawn that answers, and the log says why");
                return;
        }
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                const struct worker *w = p->workers[i];
                if (!w || w->ready_ns || w->phase == PHASE_STOPPING)
                        continue;
                if (w->pid)
                        pool_set_problem(p,
                                         "no worker is ready: worker %llu (pid %d) takes its time to start: it is %s",
                                         (unsigned long long)w->id, (int)w->pid,
                                         worker_start_words(atomic_load(&worker_line(w)->start_phase)));
                else
                        pool_set_problem(
                                p,
                                "no worker is ready: worker %llu waits for its process (a template whose preload "
                                "takes its time?)",
                                (unsigned long long)w->id);
                return;
        }
}

static void pool_check_presence(struct pool *p) {
        uint64_t now = event_now_ns();
        if (pool_count_ready(p) > 0 || pool_wanted_workers(p) == 0) {
                p->nobody_ns = 0;
                loop_timer_stop(&p->nobody_timer);
        } else if (p->nobody_ns == 0) {
                p->nobody_ns = now;
                loop_timer_set(p->supervisor->loop, &p->nobody_timer, now + STRENGTH_PATIENCE_NS, pool_on_restart_timer,
                               p);
        } else if (pool_is_without_workers(p) && !p->problem[0]) {
                pool_tell_nobody_ready(p);
        }
}

bool pool_is_without_workers(const struct pool *p) {
        return p->nobody_ns != 0 && event_now_ns() - p->nobody_ns >= STRENGTH_PATIENCE_NS;
}

void pool_settle_strength(struct pool *p) {
        pool_scale_wake(p);
        pool_check_ages(p);
        pool_balance(p);
        if (p->generation && spawner_pid(p->supervisor->spawner) != 0)
                pool_fill(p);
        pool_scale_arm(p);
        pool_check_health(p);
        pool_check_presence(p);
}

/* ---- coming and going ---- */

static struct restart_policy pool_restart_policy(const struct pool *p) {
        return (struct restart_policy){
                .delay_ns = p->config.restart_ns,
                .max_delay_ns = p->config.restart_max_ns,
                .burst = p->config.start_limit_burst,
                .interval_ns = p->config.start_limit_interval_ns,
        };
}

static void pool_restart_later(struct pool *p) {
        loop_timer_set(p->supervisor->loop, &p->restart_timer, p->restart.not_before_ns, pool_on_restart_timer, p);
}

static void pool_note_hang(struct pool *p) {
        struct restart_policy policy = pool_restart_policy(p);
        restart_note_hang(&p->restart, &policy, event_now_ns());
        pool_restart_later(p);
}

void pool_note_failure(struct pool *p) {
        struct restart_policy policy = pool_restart_policy(p);
        restart_note_failure(&p->restart, &policy, event_now_ns());
        pool_restart_later(p);
}

void pool_on_worker_ready(struct pool *p, struct worker *w) {
        p->has_been_ready = true;
        if (w->generation == p->generation) {
                if (p->scale.target == 0) /* who waited for its job types is about to use them */
                        scale_init(&p->scale, 1, event_now_ns());
                pool_forget_old_generation(p);
                if (!p->is_file_bad)
                        p->problem[0] = 0;
                p->restart.n_failures = 0; /* the others may follow at once; the start limit still counts */
                p->restart.not_before_ns = 0;
        }
        pool_settle(p);
}

bool worker_has_served(const struct worker *w) {
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++)
                if (atomic_load(&worker_line(w)->counts[state]))
                        return true;
        return false;
}

/* It came up, and what ended it was not its own doing, or it had been of use. */
static bool pool_worker_was_fine(const struct worker *w, const struct death *d) {
        bool from_outside = d->reason == REASON_SIGNAL && (d->status == SIGKILL || d->status == SIGTERM);
        return w->ready_ns != 0 && (from_outside || worker_has_served(w));
}

/* By us, and not because it did not come up or misbehaved. */
static bool pool_worker_was_ended(const struct worker *w) {
        return w->doom != REASON_NONE && w->doom != REASON_INIT && w->doom != REASON_PRELOAD;
}

/* A death with a job was charged to the job: its worker is replaced at once. The others are the pool's. */
void pool_on_worker_gone(struct pool *p, struct worker *w, const struct death *d, bool had_job) {
        bool was_ready = w->ready_ns != 0;
        if (!was_ready && w->generation != p->generation) {
                if (w->is_permanent && w->generation == p->old_generation)
                        pool_forget_old_generation(p); /* nothing to go back to */
                return;                                /* the plugin file was replaced meanwhile */
        }
        if (w->is_permanent && !was_ready) {
                if (pool_roll_back(p))
                        pool_set_file_problem(p, w->text);
                else if (!p->is_refused)
                        pool_refuse(p, w->text);
                return;
        }
        if (had_job || pool_worker_was_ended(w) || d->reason == REASON_SPAWNER_LOST || !p->is_wanted)
                return;
        if (pool_worker_was_fine(w, d)) {
                restart_note_loss(&p->restart, p->config.restart_ns, event_now_ns());
                pool_restart_later(p);
                return;
        }
        if (was_ready && event_now_ns() - w->ready_ns > p->config.start_limit_interval_ns)
                restart_note_healthy(&p->restart);
        if (!was_ready)
                pool_set_problem(p, "a worker did not come up: %s",
                                 p->n_deaths ? p->deaths[(p->n_deaths - 1) % POOL_DEATHS].text : w->text);
        if (w->is_late)
                pool_note_hang(p);
        else
                pool_note_failure(p);
}
