/* One pool: what is wanted, what is, and the steps from one to the other.
 *
 * Verbs (pool-verbs.c) and news only change the wish or the facts, then call pool_settle, which is the one place that
 * loads plugin files (pool-generations.c), starts and retires workers (pool-strength.c, how many: pool-scale.c, which:
 * pool-recycle.c), sets the bells' modes (pool-channels.c) and tells the state. It may be called any time and changes
 * nothing when nothing is to do. */
#include "daemon/supervise/pools/pool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log/log.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/pools/limits.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

static const char *const pool_state_words[POOL_N_STATES] = {
        [POOL_STARTING] = "starting", [POOL_RUNNING] = "running", [POOL_DRAINING] = "draining",
        [POOL_PAUSED] = "paused",     [POOL_STOPPED] = "stopped", [POOL_DEGRADED] = "degraded",
        [POOL_REFUSED] = "refused",
};

const char *pool_state_word(enum pool_state s) { return s < POOL_N_STATES ? pool_state_words[s] : "?"; }

int pool_new(struct pool **ret, struct supervisor *s, const struct pool_config *c) {
        struct pool *p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->supervisor = s;
        p->config = *c;
        p->memory_fd = -1;
        p->doorbell = DOORBELL_NONE;
        p->is_wanted = true;
        restart_init(&p->restart, event_now_ns());
        scale_init(&p->scale, pool_min_workers(p), event_now_ns());
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

void pool_stop_timers(struct pool *p) {
        loop_timer_stop(&p->restart_timer);
        loop_timer_stop(&p->scale_timer);
        loop_timer_stop(&p->age_timer);
        loop_timer_stop(&p->nobody_timer);
        p->nobody_ns = 0;
}

struct pool *pool_free(struct pool *p) {
        if (!p)
                return NULL;
        pool_stop_timers(p);
        loop_timer_stop(&p->drain_timer);
        limits_stop(p);
        pool_mend_stop(p);
        jobs_pool_deinit(p);
        pool_memory_free(p);
        delay_stop(p);
        schema_free(p->schema);
        free(p->schema_text);
        free(p->before_resize);
        free(p);
        return NULL;
}

void pool_set_problem(struct pool *p, const char *format, ...) {
        char text[sizeof(p->problem)];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        if (strcmp(text, p->problem) == 0) /* the next try ended as the last one: told already */
                return;
        memcpy(p->problem, text, sizeof(text));
        log_write(p->is_refused ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, "pool %s: %s", p->config.name, p->problem);
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

uint32_t pool_count_awaited(const struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                n += p->workers[i] && !p->workers[i]->is_stuck;
        return n;
}

static void pool_counters_add(struct pool_counters *c, enum slot_state verdict, uint64_t n) {
        uint64_t *const counter[SLOT_N_STATES] = {
                [SLOT_DONE] = &c->completed,  [SLOT_FAILED] = &c->failed,       [SLOT_CANCELLED] = &c->cancelled,
                [SLOT_EXPIRED] = &c->expired, [SLOT_TIMED_OUT] = &c->timed_out, [SLOT_POISONED] = &c->poisoned,
                [SLOT_LOST] = &c->lost,
        };
        if (verdict < SLOT_N_STATES && counter[verdict])
                *counter[verdict] += n;
}

/* 50 ns a job, since the machine was started. */
uint64_t pool_plausible(uint64_t n) { return n <= event_now_ns() / 50 ? n : 0; }

void pool_add_verdicts(struct pool *p, enum slot_state verdict, uint64_t n) {
        pool_counters_add(&p->counters, verdict, n);
}

uint32_t pool_max_attempts(const struct pool *p, const struct layout_job *line, bool *ret_is_once) {
        const struct schema_job *type = p->schema ? schema_find_number(p->schema, line->type) : NULL;
        uint32_t asked = line->max_attempts, max = p->config.max_attempts;
        *ret_is_once = !type || type->is_once; /* of a type that is gone nobody knows */
        return asked > 0 && asked < max ? asked : max;
}

/* ---- the state, told once it changed ---- */

static enum pool_state pool_derive_state(const struct pool *p) {
        if (p->is_refused)
                return POOL_REFUSED;
        if (!p->is_wanted || p->is_removed)
                return pool_count_awaited(p) ? POOL_DRAINING : POOL_STOPPED;
        if (p->is_draining)
                return POOL_DRAINING;
        if (p->is_paused)
                return POOL_PAUSED;
        uint32_t n_ready = pool_count_ready(p);
        if (p->restart.is_degraded && n_ready < pool_wanted_workers(p))
                return POOL_DEGRADED;
        if (n_ready > 0 || (p->has_been_ready && p->restart.n_failures == 0 && !pool_is_without_workers(p)))
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

/* Who sleeps until the next time of the old rate is woken, and that time is not waited for. */
static void pool_tell_rate(struct pool *p) {
        if (atomic_exchange(&p->memory->rate_ns, p->config.rate_ns) == p->config.rate_ns)
                return;
        atomic_store(&p->memory->rate_next_ns, 0);
        pool_poke(p);
}

void pool_settle(struct pool *p) {
        bool is_up = spawner_pid(p->supervisor->spawner) != 0;
        bool is_wanted = !pool_is_over(p);
        pool_tell_rate(p);
        pool_channels_tell_timeout(p);
        if (is_wanted && is_up && !p->generation && !p->loading && p->restart.not_before_ns <= event_now_ns())
                pool_load(p);
        if (is_wanted)
                pool_settle_strength(p);
        if (!is_wanted && pool_count_awaited(p) == 0)
                pool_cancel_queued(p); /* what a dying worker gave back */
        pool_update_bells(p);
        pool_tell_state(p);
        if (!is_wanted && pool_count_awaited(p) == 0)
                supervisor_pool_is_empty(p->supervisor, p);
}

void pool_refuse(struct pool *p, const char *text) {
        const char *where = p->config.where_plugin;
        p->is_refused = true;
        if (*where)
                pool_set_problem(p, "%s: %.380s", where, text);
        else
                pool_set_problem(p, "Plugin=%.100s: %.380s", p->config.plugin, text);
        pool_close_channels(p, true);
        pool_retire_all(p, REASON_OPERATOR, p->config.kill_grace_ns);
        pool_forget_generations(p); /* the file may be another one when it is tried again */
        p->has_been_ready = false;
        pool_settle(p);
}

void pool_on_spawner_up(struct pool *p) { pool_settle(p); }

void pool_on_spawner_lost(struct pool *p) { p->generation = p->loading = p->old_generation = 0; }

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
                .min_workers = pool_min_workers(p),
                .max_workers = pool_max_workers(p),
                .counters = p->counters,
                .schema = p->schema,
        };
        struct pool_counters *live = &ret->counters; /* and what living workers and channels count themselves */
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                for (unsigned state = SLOT_DONE; p->workers[i] && state < SLOT_N_STATES; state++)
                        pool_counters_add(live, state, worker_count(p->workers[i], state));
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead)
                        pool_channel_count(p->channels[i], live);
}

enum pool_state pool_get_state(const struct pool *p) { return p->state; }
bool pool_is_runtime(const struct pool *p) { return p->is_runtime; }
const struct pool_config *pool_get_config(const struct pool *p) { return &p->config; }
const struct pool_config *pool_get_file_config(const struct pool *p) {
        return p->before_resize ? p->before_resize : &p->config;
}
void pool_set_user(struct pool *p, void *user) { p->user = user; }
void *pool_get_user(const struct pool *p) { return p->user; }
