/* How many workers the pool wants now: a fixed number, or what scale.h makes of its load.
 *
 * The load is looked at by the tick that exists only while there is work (limits.c), and by a timer that exists only
 * while there are more workers than MinWorkers=: a pool that is as small as it may be costs nothing. With no worker at
 * all the bells stand in mode BROKER, so the first job rings here. It may do so while the pool takes none (paused), or
 * have rung a worker that was just let go: so every settling of a pool that wants no worker looks at its queues. */
#include "daemon/supervise/facts/scale.h"

#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

uint32_t pool_max_workers(const struct pool *p) { return pool_config_max_workers(&p->config); }
uint32_t pool_min_workers(const struct pool *p) { return pool_config_min_workers(&p->config); }

static bool pool_is_scaled(const struct pool *p) { return pool_min_workers(p) < pool_max_workers(p); }

bool pool_may_grow(const struct pool *p) { return p->scale.target < pool_max_workers(p) && pool_is_scaled(p); }

uint32_t pool_wanted_workers(const struct pool *p) {
        uint32_t min = pool_min_workers(p), max = pool_max_workers(p), n = p->scale.target;
        n = n < min ? min : n > max ? max : n;
        /* One to learn the job types from, and to see that the file runs. */
        return n == 0 && (!p->has_been_ready || p->old_generation) ? 1 : n;
}

/* Of the job that stands first in a ring. It is its client's word: it can win that client a worker, within MaxWorkers=.
 */
static uint64_t pool_head_wait_ns(const struct channel *c, const struct ring *ring, uint64_t now_ns) {
        struct ring_hint hint;
        struct layout_job job;
        if (!ring_peek(ring, &hint) || hint.slot >= c->geometry.n_slots)
                return 0;
        uint64_t word = channel_word(c, hint.slot);
        if (slot_state(word) != SLOT_QUEUED || (uint16_t)slot_generation(word) != hint.generation)
                return 0;
        channel_copy(&job, channel_job(c, hint.slot), sizeof(job));
        uint64_t since_ns = job.queued_ns > job.not_before_ns ? job.queued_ns : job.not_before_ns;
        return now_ns > since_ns ? now_ns - since_ns : 0;
}

static bool pool_has_work(const struct pool *p) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead && channel_has_work(&p->channels[i]->channel))
                        return true;
        return false;
}

void pool_scale_wake(struct pool *p) {
        if (p->scale.target == 0 && pool_wanted_workers(p) == 0 && !p->is_paused && pool_has_work(p))
                scale_init(&p->scale, 1, event_now_ns());
}

static void pool_view_queue(const struct pool *p, struct scale_view *v) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct pool_channel *c = p->channels[i];
                if (!c || c->is_dead || !channel_has_work(&c->channel))
                        continue;
                v->has_work = true;
                for (unsigned r = 0; r < LAYOUT_PRIORITIES; r++) {
                        uint64_t wait_ns = pool_head_wait_ns(&c->channel, &c->channel.ring[r], v->now_ns);
                        if (wait_ns > v->longest_wait_ns)
                                v->longest_wait_ns = wait_ns;
                }
        }
}

static void pool_view_workers(struct pool *p, struct scale_view *v) {
        uint64_t n_claims = 0;
        struct worker_job job;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker *w = p->workers[i];
                if (!w)
                        continue;
                v->is_starting |= w->phase == PHASE_STARTING || w->phase == PHASE_INIT;
                v->n_busy += w->phase == PHASE_READY && worker_get_job(w, &job);
                n_claims += atomic_load(&worker_line(w)->claims);
        }
        v->n_held = v->n_busy;
        if (n_claims != p->scale_claims && v->n_busy == 0) /* too short to be seen, but somebody ran them */
                v->n_busy = 1;
        p->scale_claims = n_claims;
}

bool pool_scale(struct pool *p) {
        struct scale_view v = {.now_ns = event_now_ns(),
                               .min = pool_min_workers(p),
                               .max = pool_max_workers(p),
                               .is_rated = p->config.rate_ns > 0};
        if (!pool_is_scaled(p) || p->is_paused || pool_is_over(p))
                return false;
        pool_view_workers(p, &v);
        pool_view_queue(p, &v);
        return scale_look(&p->scale, &v);
}

static void pool_on_scale_timer(struct loop_timer *t) {
        struct pool *p = t->user;
        pool_scale(p);
        pool_settle(p);
}

void pool_scale_arm(struct pool *p) {
        uint64_t next_ns = pool_is_scaled(p) && !pool_is_over(p) ? scale_next_ns(&p->scale, pool_min_workers(p)) : 0;
        if (next_ns == 0 || p->is_paused)
                loop_timer_stop(&p->scale_timer);
        else if (!p->scale_timer.heap_index)
                loop_timer_set(p->supervisor->loop, &p->scale_timer, next_ns, pool_on_scale_timer, p);
}
