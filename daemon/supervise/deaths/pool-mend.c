/* A pool's channels make sense again after a worker's death, which may have written anything into them.
 *
 * A moment after a death all rings and slots are looked at. Rings that do not fit together begin anew, and what is
 * QUEUED is pushed again. A slot that is RUNNING by nobody is given back as after a death, because nobody knows whether
 * it ran. A worker that lives and seems to run a job of which its record says nothing is asked to let go of the channel
 * and to take it again: once it has, it runs none of them. So is one that found our own channel to make no sense. Done
 * bits are all set, so that clients, and we, look at each job.
 *
 * Our own channel is compared with our own books (struct job): which slots are free, which generation a job has,
 * whether it may run yet. What contradicts them is put right, and a job whose word says nothing is given back. A client
 * does the same with its channel (ipc/client/session/session.c); what we cannot know of it we leave alone.
 *
 * Every step is one CAS from the word that was looked at, so all may go on meanwhile. It costs a look at every slot and
 * cell, so it rests for a multiple of the time that it took: somebody who lives and goes on writing costs a bounded
 * share of one CPU. */
#include "daemon/log/log.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/deaths/recovery.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/pools/limits.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"

enum { MEND_REST = 20 /* times as long as it took */ };
#define MEND_MIN_REST_NS UINT64_C(20000000)
#define MEND_TELL_NS UINT64_C(10000000000)
#define MEND_LOOK_NS UINT64_C(1000000000)

/* One look at all channels. */
struct mend {
        struct pool *pool;
        unsigned n_wrong;                    /* of words that no honest party leaves behind */
        bool is_news;                        /* for workers */
        uint64_t doubted[LAYOUT_BELL_WORDS]; /* bit = worker index: it is to let go of a channel */
};

static uint64_t mend_bit(const struct worker *w) { return UINT64_C(1) << w->index % 64; }

static bool mend_is_in_quarantine(const struct pool_channel *c, uint32_t slot) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                const struct worker *w = c->pool->workers[i];
                if (w && w->quarantine_channel == c && w->quarantine_slot == slot)
                        return true;
        }
        return false;
}

/* Who may be what the word says; NULL: nobody. */
static struct worker *mend_runner(const struct pool_channel *c, uint64_t word) {
        uint32_t index = slot_owner(word) - SLOT_OWNER_WORKER0;
        struct worker *w = index < LAYOUT_MAX_WORKERS ? c->pool->workers[index] : NULL;
        return w && w->ready_ns && c->attached[index / 64] & mend_bit(w) ? w : NULL;
}

static void mend_give_back(struct mend *m, struct pool_channel *c, uint32_t slot, uint64_t word) {
        m->n_wrong++;
        m->is_news = true;
        const struct layout_verdict line = {.reason = REASON_NONE, .when_ns = event_now_ns()}; /* no death is known */
        recovery_give_back(c, slot, word, &line);
}

/* Its record says nothing of a job, and perhaps was written over: then limits go by ours. Or it runs none. */
static void mend_doubt(struct mend *m, struct worker *w, struct pool_channel *c, uint32_t slot, uint64_t word) {
        uint64_t seen = atomic_load(&worker_line(w)->record);
        uint64_t record = (uint64_t)slot_generation(word) << 32 | (uint64_t)c->index << 16 | slot;
        if (channel_word(&c->channel, slot) != word)
                return; /* it went on */
        atomic_compare_exchange_strong(&worker_line(w)->record, &seen, record);
        c->doubted[w->index / 64] |= mend_bit(w);
        m->doubted[w->index / 64] |= mend_bit(w);
        m->n_wrong++;
}

static void mend_running(struct mend *m, struct pool_channel *c, uint32_t slot, uint64_t word) {
        struct worker *w = mend_runner(c, word);
        struct worker_job job;
        if (w && w->quarantine_channel)
                return; /* its death sees to it */
        if (w && !worker_get_job(w, &job)) {
                mend_doubt(m, w, c, slot, word);
                return;
        }
        if (w && job.channel == c && job.slot == slot)
                return;
        /* It runs another one, and wrote its record before it claimed that: if the word still stands, this is not its.
         */
        if (channel_word(&c->channel, slot) == word)
                mend_give_back(m, c, slot, word);
}

/* ---- our own channel ---- */

static void mend_no_job(struct mend *m, struct pool_channel *c, uint32_t slot, uint64_t word) {
        if (mend_is_in_quarantine(c, slot))
                return; /* until its end */
        if (c->pool->is_slot_free[slot] && slot_state(word) == SLOT_FREE)
                return;
        m->n_wrong++;
        jobs_slot_reclaim(c->pool, slot);
}

static bool mend_must_wait(const struct job *j) { return job_needs_any(j) || job_due_ns(j) > event_now_ns(); }

/* What the word of a job is to say that nobody has claimed yet, or not again. */
static uint64_t mend_claimable(const struct job *j, uint64_t word) {
        bool must_wait = mend_must_wait(j);
        unsigned attempt = must_wait || slot_attempt(word) == 0 ? 1 : slot_attempt(word);
        enum slot_state state = must_wait     ? SLOT_DELAYED
                                : attempt > 1 ? slot_state(word) /* put off, perhaps */
                                              : SLOT_QUEUED;
        return SLOT_WORD(state, j->has_fds ? SLOT_HAS_FDS : 0, attempt, SLOT_OWNER_NONE, j->generation);
}

/* As if it had run, and its worker had died: nobody knows better. */
static uint64_t mend_unknown(const struct job *j, const struct pool_channel *c) {
        const struct pool_tries *tries = &c->tries[j->slot];
        uint32_t attempt = tries->generation == j->generation ? tries->n_deaths + 1 : 1;
        return SLOT_WORD(SLOT_RUNNING, j->has_fds ? SLOT_HAS_FDS : 0,
                         attempt < LAYOUT_MAX_ATTEMPTS ? attempt : LAYOUT_MAX_ATTEMPTS, SLOT_OWNER_BROKER,
                         j->generation);
}

static void mend_job(struct mend *m, struct pool_channel *c, struct job *j, uint64_t word) {
        bool is_known = slot_generation(word) == j->generation;
        bool is_claimable = is_known && (slot_state(word) == SLOT_QUEUED || slot_state(word) == SLOT_DELAYED);
        if (is_known && slot_is_verdict(word))
                return;
        if (is_known && slot_state(word) == SLOT_RUNNING) {
                mend_running(m, c, j->slot, word);
                return;
        }
        uint64_t wanted = is_claimable || mend_must_wait(j) ? mend_claimable(j, word) : mend_unknown(j, c);
        if (wanted == word || !channel_cas(&c->channel, j->slot, word, wanted))
                return;
        m->n_wrong++;
        if (slot_state(wanted) == SLOT_RUNNING)
                mend_give_back(m, c, j->slot, wanted);
        else if (slot_state(wanted) == SLOT_DELAYED && slot_attempt(wanted) == 1)
                job_needs_again(j);
}

/* ---- all ---- */

static void mend_slot(struct mend *m, struct pool_channel *c, uint32_t slot) {
        uint64_t word = channel_word(&c->channel, slot);
        if (c->index == 0 && c->pool->slot_job[slot])
                mend_job(m, c, c->pool->slot_job[slot], word);
        else if (c->index == 0)
                mend_no_job(m, c, slot, word);
        else if (slot_state(word) == SLOT_RUNNING)
                mend_running(m, c, slot, word);
        else if (slot_is_verdict(word) && slot_flags(word) & SLOT_QUARANTINE && !mend_is_in_quarantine(c, slot))
                channel_end_quarantine(&c->channel, slot);
}

static void mend_channel(struct mend *m, struct pool_channel *c) {
        uint32_t n = channel_mend_rings(&c->channel, event_now_ns());
        pool_channel_tell(c);
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++)
                mend_slot(m, c, slot);
        delay_look(c);
        n += channel_mend_rings(&c->channel, event_now_ns()); /* for what is QUEUED since */
        m->is_news |= n > 0;
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++) {
                c->doubted[i] |= c->foul[i];
                m->doubted[i] |= c->foul[i];
                c->foul[i] = 0;
        }
        if (channel_has_work(&c->channel))
                bell_mark_work(c->pool->bells[c->bell].memory, c->index);
        channel_tell_all(&c->channel, c->done.ring_fd);
}

/* Who seems to run nothing may run what was taken from it on paper: whether it is between two jobs shows when it obeys,
 * and who does not obey is ended (limits.c). */
static void mend_ask_idle(struct mend *m) {
        struct pool *p = m->pool;
        struct worker_job job;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++) {
                struct worker *w = p->workers[i];
                if (w && w->phase == PHASE_READY && !w->quarantine_channel && !worker_get_job(w, &job)) {
                        p->channels[0]->doubted[i / 64] |= mend_bit(w);
                        m->doubted[i / 64] |= mend_bit(w);
                }
        }
        limits_wake(p);
}

static void mend_tell(struct mend *m) {
        struct pool *p = m->pool;
        uint64_t now_ns = event_now_ns();
        if (m->n_wrong == 0 || (p->mend.told_ns && now_ns - p->mend.told_ns < MEND_TELL_NS))
                return;
        p->mend.told_ns = now_ns;
        log_warning(
                "pool %s: a worker wrote over what belongs to other jobs (%u of them): what can be is put right, and "
                "jobs of which nobody knows whether they ran are given back as after a death",
                p->config.name, m->n_wrong);
}

static void mend_on_timer(struct loop_timer *t) {
        struct pool *p = t->user;
        struct mend m = {.pool = p};
        uint64_t since_ns = event_now_ns();
        jobs_collect(p); /* what is a verdict already */
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead)
                        mend_channel(&m, p->channels[i]);
        if (m.n_wrong > 0 || p->mend.is_stuck)
                mend_ask_idle(&m);
        p->mend.is_stuck = false;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && m.doubted[i / 64] >> i % 64 & 1)
                        worker_sync(p->workers[i]);
        if (m.is_news)
                pool_heal_and_wake(p);
        mend_tell(&m);
        uint64_t now_ns = event_now_ns(), rest_ns = (now_ns - since_ns) * MEND_REST;
        p->mend.rest_ns = now_ns + (rest_ns > MEND_MIN_REST_NS ? rest_ns : MEND_MIN_REST_NS);
        if (m.n_wrong > 0 || m.is_news)
                pool_settle(p); /* may free the pool */
}

void pool_mend_soon(struct pool *p) {
        uint64_t now_ns = event_now_ns();
        if (!p->mend.timer.heap_index)
                loop_timer_set(p->supervisor->loop, &p->mend.timer, p->mend.rest_ns > now_ns ? p->mend.rest_ns : now_ns,
                               mend_on_timer, p);
}

void pool_mend_now(struct pool *p) {
        pool_heal_and_wake(p);
        pool_mend_soon(p);
}

void pool_mend_stop(struct pool *p) { loop_timer_stop(&p->mend.timer); }

/* Somebody else than who runs it wrote there, or it is run by nobody that can be seen. */
static bool mend_is_lost(const struct pool_channel *c, const struct job *j) {
        struct worker_job job;
        uint64_t word = channel_word(&c->channel, j->slot);
        if (slot_generation(word) != j->generation)
                return true;
        if (slot_state(word) != SLOT_RUNNING)
                return slot_state(word) == SLOT_FREE || slot_state(word) == SLOT_FILLING;
        const struct worker *w = mend_runner(c, word);
        bool is_run =
                w && (w->quarantine_channel || (worker_get_job(w, &job) && job.channel == c && job.slot == j->slot));
        return !is_run && channel_word(&c->channel, j->slot) == word;
}

static bool mend_has_lost(const struct pool *p) {
        const struct pool_channel *c = p->channels[0];
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++)
                if (p->slot_job[slot] && mend_is_lost(c, p->slot_job[slot]))
                        return true;
        return false;
}

static bool mend_is_stuck(const struct pool *p) {
        if (p->mend.has_run || p->state != POOL_RUNNING || p->config.rate_ns != 0)
                return false;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead && channel_has_work(&p->channels[i]->channel))
                        return true;
        return false;
}

void pool_mend_look(struct pool *p, bool is_at_work, bool is_last) {
        uint64_t now_ns = event_now_ns();
        p->mend.has_run |= is_at_work;
        if (!p->channels[0] || (now_ns < p->mend.look_ns && !is_last))
                return;
        bool is_stuck = mend_is_stuck(p);
        if (is_stuck || mend_has_lost(p))
                pool_mend_soon(p);
        p->mend.is_stuck |= is_stuck;
        p->mend.has_run = false;
        p->mend.look_ns = now_ns + MEND_LOOK_NS;
}

void pool_mend_let_go(struct pool_channel *c, const struct worker *w) {
        struct mend m = {.pool = c->pool};
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                uint64_t word = channel_word(&c->channel, slot);
                bool has_job = c->index > 0 || jobs_slot_is_of(c->pool, slot, slot_generation(word));
                if (has_job && slot_state(word) == SLOT_RUNNING && slot_owner(word) == w->index + SLOT_OWNER_WORKER0)
                        mend_give_back(&m, c, slot, word);
        }
        if (m.is_news)
                pool_heal_and_wake(c->pool);
}
