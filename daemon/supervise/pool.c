/* One pool: what is wanted, what is, and the steps from one to the other.
 *
 * Verbs and news only change the wish or the facts, then call pool_settle, which is the one place that loads plugin
 * files, starts and retires workers, sets the bells' modes and tells the state. It may be called any time and changes
 * nothing when nothing is to do. A plugin file is a generation: a new one runs beside the old until its first worker is
 * ready, and is given up for the old one if it cannot run at all. */
#include "daemon/supervise/pool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/supervise/jobs.h"
#include "daemon/supervise/limits.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/event.h"

#define POOL_DRAIN_LOOK_NS UINT64_C(10000000)

static const char *const pool_state_words[POOL_N_STATES] = {
        [POOL_STARTING] = "starting", [POOL_RUNNING] = "running", [POOL_DRAINING] = "draining", [POOL_PAUSED] = "paused",
        [POOL_STOPPED] = "stopped",   [POOL_DEGRADED] = "degraded", [POOL_REFUSED] = "refused",
};

const char *pool_state_word(enum pool_state s) { return s < POOL_N_STATES ? pool_state_words[s] : "?"; }

int pool_new(struct pool **ret, struct supervisor *s, const struct pool_config *c) {
        struct pool *p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->supervisor = s;
        p->config = *c;
        p->memory_fd = p->doorbell_fd = -1;
        p->is_wanted = true;
        restart_init(&p->restart, event_now_ns());
        struct pool_channel *bus;
        int r = pool_memory_new(p);
        if (r >= 0)
                r = pool_channel_new(p, 0, &bus);
        if (r >= 0)
                r = jobs_pool_init(p);
        if (r < 0) {
                pool_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

struct pool *pool_free(struct pool *p) {
        if (!p)
                return NULL;
        loop_timer_stop(&p->restart_timer);
        loop_timer_stop(&p->drain_timer);
        limits_stop(p);
        jobs_pool_deinit(p);
        pool_memory_free(p);
        schema_free(p->schema);
        free(p->schema_text);
        free(p);
        return NULL;
}

void pool_set_problem(struct pool *p, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(p->problem, sizeof(p->problem), format, ap);
        va_end(ap);
        log_warning("pool %s: %s", p->config.name, p->problem);
}

/* Workers of the old file that come up do not make the new one good: it is told until another one is loaded. */
static void pool_set_file_problem(struct pool *p, const char *text) {
        pool_set_problem(p, "the new plugin file is not used: %.400s", text);
        p->is_file_bad = true;
}

/* ---- counting ---- */

bool pool_accepts(const struct pool *p) {
        return p->is_wanted && !p->is_draining && !p->is_refused && !p->is_removed && !p->supervisor->is_shutting_down;
}

bool pool_is_over(const struct pool *p) { return !p->is_wanted || p->is_refused || p->is_removed; }

uint32_t pool_count_ready(const struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                n += p->workers[i] && p->workers[i]->phase == PHASE_READY;
        return n;
}

uint32_t pool_count_workers(const struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                n += p->workers[i] != NULL;
        return n;
}

static uint32_t pool_count_current(const struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                n += p->workers[i] && p->workers[i]->phase != PHASE_STOPPING && !p->workers[i]->is_outdated;
        return n;
}

static void pool_counters_add(struct pool_counters *c, enum slot_state verdict, uint64_t n) {
        uint64_t *const counter[SLOT_N_STATES] = {
                [SLOT_DONE] = &c->completed,    [SLOT_FAILED] = &c->failed,      [SLOT_CANCELLED] = &c->cancelled,
                [SLOT_EXPIRED] = &c->expired,   [SLOT_TIMED_OUT] = &c->timed_out, [SLOT_POISONED] = &c->poisoned,
                [SLOT_LOST] = &c->lost,
        };
        if (verdict < SLOT_N_STATES && counter[verdict])
                *counter[verdict] += n;
}

void pool_add_verdicts(struct pool *p, enum slot_state verdict, uint64_t n) {
        pool_counters_add(&p->counters, verdict, n);
}

uint32_t pool_max_attempts(const struct pool *p, const struct layout_job *line, bool *ret_is_once) {
        uint32_t type = line->type, asked = line->max_attempts, max = p->config.max_attempts;
        *ret_is_once = p->schema && type < p->schema->n_jobs && p->schema->jobs[type].is_once;
        return asked > 0 && asked < max ? asked : max;
}

/* ---- the state, told once it changed ---- */

static enum pool_state pool_derive_state(const struct pool *p) {
        if (p->is_refused)
                return POOL_REFUSED;
        if (!p->is_wanted || p->is_removed)
                return pool_count_workers(p) ? POOL_DRAINING : POOL_STOPPED;
        if (p->is_draining)
                return POOL_DRAINING;
        if (p->is_paused)
                return POOL_PAUSED;
        uint32_t n_ready = pool_count_ready(p);
        if (p->restart.is_degraded && n_ready < p->config.n_workers)
                return POOL_DEGRADED;
        if (n_ready > 0 || (p->has_been_ready && p->restart.n_failures == 0))
                return POOL_RUNNING;
        return POOL_STARTING;
}

static void pool_tell_state(struct pool *p) {
        enum pool_state state = pool_derive_state(p);
        if (state == p->state)
                return;
        p->state = state;
        log_info("pool %s: %s", p->config.name, pool_state_word(state));
        SUPERVISOR_TELL(p->supervisor, on_pool_state, p);
}

/* ---- towards what is wanted ---- */

static void pool_on_restart_timer(struct loop_timer *t) { pool_settle(t->user); }

static void pool_forget_generation(struct pool *p, uint32_t generation) {
        struct spawn_request request = {.type = SPAWN_RETIRE, .version = WIRE_VERSION, .generation = generation};
        if (generation)
                spawner_send(p->supervisor->spawner, &request);
}

/* None of its workers was ready yet: they go, too. */
static void pool_give_up_generation(struct pool *p, uint32_t generation) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && p->workers[i]->generation == generation && p->workers[i]->phase != PHASE_STOPPING)
                        worker_kill_now(p->workers[i], REASON_RECYCLED);
        pool_forget_generation(p, generation);
}

/* Also one that is still being loaded: nobody would ask for it when it is. */
static void pool_forget_generations(struct pool *p) {
        pool_forget_generation(p, p->generation);
        pool_forget_generation(p, p->old_generation);
        pool_forget_generation(p, p->loading);
        p->generation = p->old_generation = p->loading = 0;
}

static void pool_load(struct pool *p) {
        struct spawn_request request = {
                .type = SPAWN_LOAD,
                .version = WIRE_VERSION,
                .generation = ++p->supervisor->last_generation,
                .method = p->config.start_method,
        };
        snprintf(request.pool, sizeof(request.pool), "%s", p->config.name);
        snprintf(request.plugin, sizeof(request.plugin), "%s", p->config.plugin);
        memcpy(request.environment, p->config.environment, sizeof(request.environment));
        if (spawner_send(p->supervisor->spawner, &request) < 0)
                return;
        pool_forget_generation(p, p->loading); /* a file that is older than the wish for a new one */
        p->loading = request.generation;
}

static bool pool_retire_one(struct pool *p, bool (*fits)(const struct worker *w)) {
        struct worker *busy = NULL;
        struct worker_job job;
        for (uint32_t i = LAYOUT_MAX_WORKERS; i-- > 0;) {
                struct worker *w = p->workers[i];
                if (!w || w->phase == PHASE_STOPPING || !fits(w))
                        continue;
                if (w->phase == PHASE_READY && worker_get_job(w, &job)) {
                        busy = w;
                        continue;
                }
                worker_retire(w, REASON_RECYCLED);
                return true;
        }
        if (busy)
                worker_retire(busy, REASON_RECYCLED);
        return busy != NULL;
}

static bool pool_fits_any(const struct worker *w) { return !w->is_outdated; }
static bool pool_fits_outdated(const struct worker *w) { return w->is_outdated; }

static void pool_fill(struct pool *p) {
        uint64_t now = event_now_ns();
        uint32_t n = pool_count_current(p);
        while (n > p->config.n_workers && pool_retire_one(p, pool_fits_any))
                n--;
        if (n >= p->config.n_workers)
                return;
        if (p->restart.not_before_ns > now) {
                loop_timer_set(p->supervisor->loop, &p->restart_timer, p->restart.not_before_ns, pool_on_restart_timer, p);
                return;
        }
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS && n < p->config.n_workers; i++) {
                struct worker *w;
                if (p->workers[i])
                        continue;
                if (worker_start(p, i, &w) < 0)
                        return; /* no spawner: on_up settles again */
                n++;
                if (p->restart.n_failures > 0)
                        return; /* after failures one at a time: the first to be ready lets the others follow */
        }
        if (n < p->config.n_workers)
                pool_retire_one(p, pool_fits_outdated); /* no free index: make room */
}

static void pool_retire_all(struct pool *p, enum death_reason why, uint64_t grace_ns) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker_job job;
                struct worker *w = p->workers[i];
                if (!w)
                        continue;
                if (w->phase != PHASE_STOPPING)
                        worker_retire(w, why);
                if (worker_get_job(w, &job))
                        channel_ask_cancel(&job.channel->channel, job.slot, job.generation);
                worker_kill_after(w, grace_ns);
        }
}

/* At full strength for StartLimitIntervalSec=: what made it degraded is over. */
static void pool_check_health(struct pool *p) {
        uint64_t youngest_ns = 0;
        if (!p->restart.is_degraded || pool_count_ready(p) < p->config.n_workers)
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

void pool_settle(struct pool *p) {
        bool is_up = spawner_pid(p->supervisor->spawner) != 0;
        bool is_wanted = !pool_is_over(p);
        if (is_wanted && is_up && !p->generation && !p->loading && p->restart.not_before_ns <= event_now_ns())
                pool_load(p);
        if (is_wanted && is_up && p->generation)
                pool_fill(p);
        if (is_wanted)
                pool_check_health(p);
        if (!is_wanted && pool_count_workers(p) == 0)
                pool_cancel_queued(p); /* what a dying worker gave back */
        pool_update_bells(p);
        pool_tell_state(p);
        if (!is_wanted && pool_count_workers(p) == 0)
                supervisor_pool_is_empty(p->supervisor, p);
}

void pool_refuse(struct pool *p, const char *text) {
        const char *where = p->config.where_plugin;
        if (*where)
                pool_set_problem(p, "%s: %.380s", where, text);
        else
                pool_set_problem(p, "Plugin=%.100s: %.380s", p->config.plugin, text);
        p->is_refused = true;
        pool_close_channels(p, true);
        pool_retire_all(p, REASON_OPERATOR, p->config.kill_grace_ns);
        pool_forget_generations(p); /* the file may be another one when it is tried again */
        pool_settle(p);
}

/* ---- news ---- */

void pool_on_spawner_up(struct pool *p) { pool_settle(p); }

void pool_on_spawner_lost(struct pool *p) { p->generation = p->loading = p->old_generation = 0; }

void pool_on_loaded(struct pool *p, const struct spawn_event *e) {
        if (e->generation != p->loading)
                return;
        p->loading = 0;
        if (e->error && p->generation) {
                pool_set_file_problem(p, e->text);
        } else if (e->error && e->is_permanent) {
                pool_refuse(p, e->text);
                return;
        } else if (e->error) {
                pool_set_problem(p, "%.400s", e->text);
                pool_note_failure(p);
        } else {
                for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                        if (p->workers[i])
                                p->workers[i]->is_outdated = true;
                if (p->old_generation) /* the one before this has not shown yet that it runs, the old one has */
                        pool_give_up_generation(p, p->generation);
                else
                        p->old_generation = p->generation;
                p->generation = e->generation;
                p->is_file_bad = false;
        }
        pool_settle(p);
}

void pool_note_failure(struct pool *p) {
        struct restart_policy policy = {
                .delay_ns = p->config.restart_ns,
                .max_delay_ns = p->config.restart_max_ns,
                .burst = p->config.start_limit_burst,
                .interval_ns = p->config.start_limit_interval_ns,
        };
        uint64_t now = event_now_ns();
        restart_note_failure(&p->restart, &policy, now);
        loop_timer_set(p->supervisor->loop, &p->restart_timer, p->restart.not_before_ns, pool_on_restart_timer, p);
}

void pool_on_worker_ready(struct pool *p, struct worker *w) {
        p->has_been_ready = true;
        if (w->generation == p->generation) {
                pool_forget_generation(p, p->old_generation);
                p->old_generation = 0;
                if (!p->is_file_bad)
                        p->problem[0] = 0;
                p->restart.n_failures = 0; /* the others may follow at once; the start limit still counts */
                p->restart.not_before_ns = 0;
        }
        while (pool_count_ready(p) > p->config.n_workers && pool_retire_one(p, pool_fits_outdated))
                ;
        pool_settle(p);
}

/* The new plugin file cannot run at all: back to the one that does. */
static bool pool_roll_back(struct pool *p) {
        if (!p->old_generation)
                return false;
        pool_give_up_generation(p, p->generation);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        p->workers[i]->is_outdated = p->workers[i]->generation != p->old_generation;
        p->generation = p->old_generation;
        p->old_generation = 0;
        return true;
}

static bool pool_worker_served(const struct worker *w) {
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++)
                if (atomic_load(&worker_line(w)->counts[state]))
                        return true;
        return false;
}

/* A death with a job was charged to the job: its worker is replaced at once. The others are the pool's. */
void pool_on_worker_gone(struct pool *p, struct worker *w, enum death_reason reason, bool had_job) {
        bool was_ready = w->ready_ns != 0;
        if (!was_ready && w->generation != p->generation) {
                if (w->is_permanent && w->generation == p->old_generation) {
                        pool_forget_generation(p, p->old_generation); /* nothing to go back to */
                        p->old_generation = 0;
                }
                return; /* the plugin file was replaced meanwhile */
        }
        if (w->is_permanent && !was_ready) {
                if (pool_roll_back(p))
                        pool_set_file_problem(p, w->text);
                else if (!p->is_refused)
                        pool_refuse(p, w->text);
                return;
        }
        if (had_job || (w->doom != REASON_NONE && w->doom != REASON_INIT) || reason == REASON_SPAWNER_LOST || !p->is_wanted)
                return;
        if (was_ready && event_now_ns() - w->ready_ns > p->config.start_limit_interval_ns)
                restart_note_healthy(&p->restart);
        if (!was_ready)
                pool_set_problem(p, "a worker did not come up: %s",
                                 p->n_deaths ? p->deaths[(p->n_deaths - 1) % POOL_DEATHS].text : w->text);
        if (was_ready && pool_worker_served(w)) { /* it was fine: replace it after RestartSec=, no growing pause */
                p->restart.n_in_interval = 0;
                p->restart.n_failures = 0;
        }
        pool_note_failure(p);
        if (was_ready && pool_worker_served(w))
                p->restart.n_failures = 0;
}

void pool_on_template(struct pool *p, const struct spawn_event *e) {
        char text[sizeof(e->text)];
        snprintf(text, sizeof(text), "%s", e->text);
        if (p->generation == e->generation)
                log_debug("pool %s: its template (pid %d) ended: %s", p->config.name, (int)e->pid, text);
}

/* ---- verbs ---- */

static int pool_check_alive(const struct pool *p, struct fault *f) {
        if (p->is_removed)
                return fault_set(f, FAULT_NO_SUCH_POOL, "pool %s is being removed", p->config.name);
        if (p->supervisor->is_shutting_down)
                return fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down");
        return 0;
}

int pool_start(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        p->is_wanted = true;
        p->is_draining = p->is_refused = false;
        loop_timer_stop(&p->drain_timer);
        restart_reset(&p->restart);
        pool_close_channels(p, false);
        pool_settle(p);
        return 0;
}

static void pool_stop_now(struct pool *p, uint64_t grace_ns) {
        p->is_wanted = p->is_draining = false;
        loop_timer_stop(&p->drain_timer);
        loop_timer_stop(&p->restart_timer);
        pool_close_channels(p, true);
        pool_cancel_queued(p);
        pool_retire_all(p, REASON_OPERATOR, grace_ns);
        pool_forget_generations(p); /* a stopped pool keeps no template; Start loads anew */
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
        if (pool_check_alive(p, f) < 0)
                return -1;
        pool_set_paused(p, true);
        return 0;
}

int pool_resume(struct pool *p, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
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
                log_warning("pool %s: %u queued and %u running jobs are cancelled: the time to drain is over", p->config.name,
                            n_queued, n_running);
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
        pool_load(p);
        return 0;
}

int pool_resize(struct pool *p, uint32_t n_workers, struct fault *f) {
        if (pool_check_alive(p, f) < 0)
                return -1;
        if (n_workers < 1 || n_workers > LAYOUT_MAX_WORKERS)
                return fault_set(f, FAULT_INVALID_ARGS, "Resize: %u workers: not in 1..%d", n_workers, LAYOUT_MAX_WORKERS);
        p->config.n_workers = n_workers;
        pool_settle(p);
        return 0;
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

/* ---- for the bus ---- */

void pool_get_info(const struct pool *p, struct pool_info *ret) {
        *ret = (struct pool_info){
                .name = p->config.name,
                .plugin = p->config.plugin,
                .plugin_version = p->schema ? p->schema->version : "",
                .problem = p->config_problem[0] ? p->config_problem : p->problem,
                .start_method = p->config.start_method,
                .state = p->state,
                .n_workers = pool_count_workers(p),
                .min_workers = p->config.n_workers,
                .max_workers = p->config.n_workers,
                .counters = p->counters,
                .schema = p->schema,
        };
        struct pool_counters *live = &ret->counters; /* and what living workers and channels count themselves */
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                for (unsigned state = SLOT_DONE; p->workers[i] && state < SLOT_N_STATES; state++)
                        pool_counters_add(live, state, atomic_load(&worker_line(p->workers[i])->counts[state]));
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead)
                        pool_channel_count(p->channels[i], live);
}

enum pool_state pool_get_state(const struct pool *p) { return p->state; }
bool pool_is_runtime(const struct pool *p) { return p->is_runtime; }
const struct pool_config *pool_get_config(const struct pool *p) { return &p->config; }
void pool_set_user(struct pool *p, void *user) { p->user = user; }
void *pool_get_user(const struct pool *p) { return p->user; }
