/* What an operator may ask of a pool. Each verb changes the wish, then lets pool_settle do the rest.
 *
 * Stop gives every queued job its verdict at once, asks running ones to stop and ends their workers after
 * KillGraceSec=; Drain lets the accepted jobs finish first; Pause keeps jobs and workers as they are; Restart takes a
 * new copy of the plugin file and replaces one worker after the other; Resize holds until a reload finds the pool's
 * file changed. */
#include <stdlib.h>

#include "daemon/config/config-show.h"
#include "daemon/log/log.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

#define POOL_DRAIN_LOOK_NS UINT64_C(10000000)

static int pool_check_alive(const struct pool *p, struct fault *f) {
        if (p->is_removed)
                return fault_set(f, FAULT_NO_SUCH_POOL, "pool %s is being removed", p->config.name);
        if (p->supervisor->is_shutting_down)
                return fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down");
        return 0;
}

/* For what means nothing to a pool that takes no jobs: it must not come true at some later Start. */
static int pool_check_wanted(const struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        if (p->is_refused)
                return fault_set(f, FAULT_POOL_REFUSED, "pool %s is refused: %s", p->config.name, p->problem);
        if (!p->is_wanted)
                return fault_set(f, FAULT_POOL_STOPPED,
                                 "pool %s is stopped: there is nothing to pause or resume before a Start",
                                 p->config.name);
        return 0;
}

/* What an operator asks for is tried at once: what failed before says nothing about it. */
static void pool_forget_failures(struct pool *p) {
        pool_mend_now(p);
        restart_reset(&p->restart);
        if (!p->is_file_bad)
                p->problem[0] = 0;
}

int pool_start(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0 ||
            (p->is_refused && supervisor_check_room(p->supervisor, p->config.name, f) < 0))
                return -1;
        p->is_wanted = true;
        p->is_draining = p->is_refused = false;
        loop_timer_stop(&p->drain_timer);
        if (p->restart.n_failures > 0 && !p->has_been_ready)
                pool_forget_generations(p); /* the file may be another one by now */
        pool_forget_failures(p);
        pool_close_channels(p, false);
        pool_settle(p);
        return 0;
}

static void pool_tell_verdicts(const struct pool *p, uint32_t n_cancelled) {
        uint32_t n_queued, n_running;
        pool_count_jobs(p, &n_queued, &n_running);
        if (n_cancelled + n_running > 0)
                log_notice("pool %s is stopped: %u queued job%s cancelled, %u running asked to stop", p->config.name,
                           n_cancelled, n_cancelled == 1 ? "" : "s", n_running);
}

static void pool_stop_now(struct pool *p, uint64_t grace_ns) {
        p->is_wanted = p->is_draining = false;
        loop_timer_stop(&p->drain_timer);
        pool_stop_timers(p);
        pool_close_channels(p, true);
        pool_tell_verdicts(p, pool_cancel_queued(p));
        pool_retire_all(p, REASON_OPERATOR, grace_ns);
        pool_forget_generations(p); /* a stopped pool keeps no template; Start loads anew */
        p->has_been_ready = false;
        pool_settle(p);
}

int pool_stop(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        pool_stop_now(p, p->config.kill_grace_ns);
        return 0;
}

static void pool_set_paused(struct pool *p, bool is_paused) {
        p->is_paused = is_paused;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && p->workers[i]->phase == PHASE_READY)
                        worker_command(p->workers[i]);
        pool_settle(p);
}

int pool_pause(struct pool *p, struct fault *f) {
        if (pool_check_wanted(p, f) < 0)
                return -1;
        pool_set_paused(p, true);
        return 0;
}

int pool_resume(struct pool *p, struct fault *f) {
        if (pool_check_wanted(p, f) < 0)
                return -1;
        pool_mend_now(p);
        pool_set_paused(p, false);
        return 0;
}

/* KillGraceSec=, but not beyond the end of a shutdown. */
static uint64_t pool_grace(const struct pool *p) {
        uint64_t now = event_now_ns(), grace_ns = p->config.kill_grace_ns;
        uint64_t left_ns = p->drain_deadline_ns > now ? p->drain_deadline_ns - now : 0;
        return p->drain_deadline_ns && left_ns < grace_ns ? left_ns : grace_ns;
}

/* Looks whether the accepted jobs are done; exists only while a drain lasts. */
static void pool_on_drain_timer(struct loop_timer *t) {
        struct pool *p = t->user;
        uint32_t n_queued, n_running;
        uint64_t now = event_now_ns();
        pool_count_jobs(p, &n_queued, &n_running);
        if (n_queued == 0 && n_running == 0) {
                pool_stop_now(p, pool_grace(p));
        } else if (p->drain_deadline_ns && now >= p->drain_deadline_ns) {
                log_warning("pool %s: %u queued and %u running jobs are cancelled: the time to drain is over",
                            p->config.name, n_queued, n_running);
                pool_stop_now(p, 0);
        } else {
                loop_timer_set(p->supervisor->loop, &p->drain_timer, now + POOL_DRAIN_LOOK_NS, pool_on_drain_timer, p);
        }
}

void pool_end(struct pool *p, uint64_t deadline_ns) {
        p->drain_deadline_ns = deadline_ns;
        if (p->is_paused)
                pool_set_paused(p, false);
        if (!p->is_wanted || p->is_refused) {
                pool_stop_now(p, pool_grace(p));
                return;
        }
        p->is_draining = true;
        pool_close_channels(p, true);
        pool_mend_now(p); /* else what no job stands for might be waited for */
        pool_settle(p);
        loop_timer_set(p->supervisor->loop, &p->drain_timer, event_now_ns(), pool_on_drain_timer, p);
}

int pool_drain(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        pool_end(p, 0);
        return 0;
}

void pool_remove(struct pool *p) {
        p->is_removed = true;
        pool_stop_now(p, p->config.kill_grace_ns);
}

int pool_restart(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        if (!p->is_wanted || p->is_refused)
                return pool_start(p, f);
        pool_forget_failures(p);
        pool_load(p);
        return 0;
}

/* Who asks where its settings stand is told that these came over the bus. */
static void pool_note_resize(struct pool *p) {
        config_origins_note(&p->config.origins, "Workers", NULL, 0);
        config_origins_note(&p->config.origins, "MinWorkers", NULL, 0);
        config_origins_note(&p->config.origins, "MaxWorkers", NULL, 0);
}

int pool_resize(struct pool *p, uint32_t n_workers, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        if (n_workers < 1 || n_workers > LAYOUT_MAX_WORKERS)
                return fault_set(f, FAULT_INVALID_ARGS, "Resize: %u workers: not in 1..%d", n_workers,
                                 LAYOUT_MAX_WORKERS);
        if (!p->before_resize) {
                p->before_resize = malloc(sizeof(*p->before_resize));
                if (!p->before_resize)
                        return fault_set(f, FAULT_INTERNAL, "out of memory");
                *p->before_resize = p->config;
        }
        p->config.n_workers = n_workers; /* exactly so many, whatever MinWorkers= and MaxWorkers= say */
        p->config.min_workers = p->config.max_workers = POOL_WORKERS_UNSET;
        pool_note_resize(p);
        pool_settle(p);
        return 0;
}

void pool_set_origins(struct pool *p, const struct config_origins *o) {
        p->config.origins = *o;
        if (!p->before_resize)
                return;
        p->before_resize->origins = *o;
        pool_note_resize(p);
}

int pool_reset_failed(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        restart_reset(&p->restart);
        if (p->is_refused)
                return pool_start(p, f);
        pool_settle(p);
        return 0;
}
