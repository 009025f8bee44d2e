/* Time limits of running jobs.
 *
 * The broker is not told of claims. The first claim after a quiet spell finds `armed` = 0, sets it and rings; from then
 * on this tick looks at every worker's run record a few times per smallest limit (1–50 ms), stamps a start when it
 * changed, and acts when a limit passed: soft = CANCEL flag, hard = verdict first, then the kill. A worker that is past
 * its soft limit and waits in an arena may be part of a cycle: that is looked for on each tick. After a second without
 * work it disarms, so an idle pool costs nothing. Precision: limit + one tick.
 *
 * Disarming: armed = 0, then look at the claims once more. A worker writes claims, then reads armed; one of the two
 * sees the other (both seq_cst), so no job runs unwatched. */
#include "daemon/supervise/pools/limits.h"

#include "daemon/log/log.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/waiting.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"

enum { LIMITS_MANY_JOBS = 1 << 20 /* in one slot, between two ticks: nobody is so fast */ };
#define LIMITS_MIN_TICK_NS UINT64_C(1000000)
#define LIMITS_MAX_TICK_NS UINT64_C(50000000)
#define LIMITS_WAITING_TICK_NS UINT64_C(25000000)
#define LIMITS_CUT_OFF_NS UINT64_C(1000000000)
#define LIMITS_QUIET_NS UINT64_C(1000000000)
#define LIMITS_OBEY_NS UINT64_C(1000000000) /* at least: on a busy machine, an idle worker has not obeyed before */

static uint64_t limits_smaller(uint64_t a, uint64_t b) { return a == 0 ? b : b == 0 || a < b ? a : b; }

static void limits_stamp(struct worker *w, const struct worker_job *job, uint64_t now) {
        struct layout_job line;
        channel_copy(&line, channel_job(&job->channel->channel, job->slot), sizeof(line));
        w->stamp_job = worker_job_key(job);
        w->stamp_ns = now;
        w->soft_told = false;
        w->soft_ns = limits_smaller(w->pool->config.soft_timeout_ns, line.soft_ns);
        w->hard_ns = limits_smaller(w->pool->config.hard_timeout_ns, line.hard_ns);
}

/* What one tick sees, over all workers. */
struct limits_look {
        uint64_t now;
        uint64_t smallest;        /* limit that is still ahead; 0 = none */
        uint64_t next;            /* when to look again at the latest; 0 = whenever */
        bool is_busy, is_running; /* the second: a worker is seen to run a job */
};

static void limits_ahead(struct limits_look *l, const struct worker *w, uint64_t limit_ns) {
        if (limit_ns == 0)
                return;
        l->smallest = limits_smaller(l->smallest, limit_ns);
        l->next = limits_smaller(l->next, w->stamp_ns + limit_ns);
}

/* It was asked to stop and goes on: it may wait for somebody who waits for it. Who makes searches long, which takes a
 * hostile program, or hundreds of threads that wait at once, is searched less often. */
static void limits_overdue(struct limits_look *l, struct worker *w) {
        if (l->now < w->search_ns)
                return;
        enum waiting_found found = waiting_break_cycles(w->pool->supervisor, w->pid);
        if (found == WAITING_CUT_OFF && w->search_ns == 0)
                log_notice("pool %s, worker %llu: the search for a cycle of waits was cut off, too much waits there",
                           w->pool->config.name, (unsigned long long)w->id);
        w->search_ns = found == WAITING_CUT_OFF ? l->now + LIMITS_CUT_OFF_NS : 0;
        if (found != WAITING_NONE)
                l->next = limits_smaller(l->next, l->now + LIMITS_WAITING_TICK_NS);
}

/* The job that it was seen to run is over for none of the reasons that there are. */
static bool limits_is_strange(const struct worker *w) {
        uint32_t slot = w->stamp_job.slot, generation = w->stamp_job.generation;
        const struct pool_channel *c = pool_channel_at(w->pool, w->stamp_job.channel);
        if (w->stamp_ns == 0 || w->quarantine_channel || !c || c->is_dead || c->id_base != w->stamp_job.id_base ||
            slot >= c->channel.geometry.n_slots)
                return false;
        uint64_t word = channel_word(&c->channel, slot);
        if (c->index == 0 && jobs_slot_is_of(w->pool, slot, generation) && slot_generation(word) != generation)
                return true;
        if (slot_generation(word) != generation)
                return slot_generation(word) - generation > LIMITS_MANY_JOBS;
        return slot_state(word) == SLOT_FILLING || slot_state(word) == SLOT_RUNNING ||
               slot_state(word) >= SLOT_N_STATES;
}

/* It seems to run nothing and does not let go of a channel as it was told: it runs what we do not know of any more,
 * because its slot was written over. That job was given back or has a verdict, so this run counts for nothing: it has
 * KillGraceSec=, or as long as the job that we saw last if that is less. */
static void limits_check_hidden(struct worker *w, struct limits_look *l) {
        uint64_t grace_ns = w->pool->config.kill_grace_ns;
        if (w->asked_ns == 0)
                return;
        grace_ns = grace_ns > LIMITS_OBEY_NS ? grace_ns : LIMITS_OBEY_NS;
        grace_ns = limits_smaller(grace_ns, limits_smaller(w->pool->config.hard_timeout_ns, w->hard_ns));
        l->is_busy = true;
        if (l->now - w->asked_ns >= grace_ns) {
                w->asked_ns = 0;
                worker_kill_now(w, REASON_TIME_LIMIT);
        } else {
                l->next = limits_smaller(l->next, w->asked_ns + grace_ns);
        }
}

static void limits_check(struct worker *w, struct limits_look *l) {
        struct worker_job job;
        worker_output_look(w);
        uint64_t claims = atomic_load(&worker_line(w)->claims);
        l->is_busy |= claims != w->seen_claims;
        w->seen_claims = claims;
        if (!worker_get_job(w, &job)) {
                if (limits_is_strange(w))
                        pool_mend_soon(w->pool);
                w->stamp_ns = 0;
                limits_check_hidden(w, l);
                return;
        }
        l->is_busy = l->is_running = true;
        if (w->asked_ns != 0)
                w->asked_ns = l->now;                                /* between two jobs it lets go */
        if (w->stamp_ns == 0 || !worker_job_is(&job, &w->stamp_job)) /* not by `claims`: it may lag behind the record */
                limits_stamp(w, &job, l->now);
        uint64_t ran = l->now - w->stamp_ns;
        if (w->hard_ns && ran >= w->hard_ns) {
                worker_judge(w, SLOT_TIMED_OUT, REASON_TIME_LIMIT);
                return;
        }
        if (w->soft_ns && ran >= w->soft_ns && !w->soft_told) {
                w->soft_told = true;
                w->soft_hit = (uint64_t)job.generation << 32 | (job.slot + 1);
                atomic_store(&worker_line(w)->soft_hit, w->soft_hit);
                worker_ask(job.channel, job.slot, job.generation, "SoftTimeout=", false);
        }
        if (w->soft_told)
                limits_overdue(l, w);
        limits_ahead(l, w, w->soft_told ? 0 : w->soft_ns);
        limits_ahead(l, w, w->hard_ns);
}

static bool limits_disarm(struct pool *p) {
        atomic_store(&p->memory->armed, 0);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && atomic_load(&worker_line(p->workers[i])->claims) != p->workers[i]->seen_claims)
                        return false;
        return true;
}

static uint64_t limits_next_tick(const struct pool *p, const struct limits_look *l) {
        uint64_t smallest =
                limits_smaller(l->smallest, limits_smaller(p->config.soft_timeout_ns, p->config.hard_timeout_ns));
        uint64_t tick = smallest ? smallest / 4 : LIMITS_MAX_TICK_NS;
        if (pool_may_grow(p))
                tick = limits_smaller(tick, SCALE_LOOK_NS);
        if (l->next)
                tick = limits_smaller(tick, l->next > l->now ? l->next - l->now : LIMITS_MIN_TICK_NS);
        tick = tick < LIMITS_MIN_TICK_NS ? LIMITS_MIN_TICK_NS : tick > LIMITS_MAX_TICK_NS ? LIMITS_MAX_TICK_NS : tick;
        return l->now + tick;
}

static void limits_on_tick(struct loop_timer *t);

static void limits_look(struct pool *p) {
        struct limits_look look = {.now = event_now_ns()};
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && p->workers[i]->phase >= PHASE_READY)
                        limits_check(p->workers[i], &look);
        if (look.is_busy)
                p->busy_ns = look.now;
        bool is_quiet = look.now - p->busy_ns > LIMITS_QUIET_NS;
        pool_mend_look(p, look.is_running, is_quiet);
        if (is_quiet) {
                if (limits_disarm(p)) {
                        p->is_at_work = false;
                        return;
                }
                atomic_store(&p->memory->armed, 1);
                p->busy_ns = look.now;
        }
        loop_timer_set(p->supervisor->loop, &p->tick_timer, limits_next_tick(p, &look), limits_on_tick, p);
}

static void limits_on_tick(struct loop_timer *t) {
        struct pool *p = t->user;
        limits_look(p);
        bool is_scaled = pool_scale(p), is_due = pool_look_at_memory(p);
        if (is_scaled || is_due || !p->is_at_work) /* nobody needs to stand by any more */
                pool_settle(p);
}

void limits_wake(struct pool *p) {
        if (p->tick_timer.heap_index)
                return;
        p->is_at_work = true;
        p->busy_ns = event_now_ns();
        p->mend.look_ns = p->busy_ns + LIMITS_QUIET_NS;
        p->mend.has_run = false;
        limits_look(p);
}

void limits_stop(struct pool *p) { loop_timer_stop(&p->tick_timer); }
