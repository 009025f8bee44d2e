/* Owns the places: the bells of a pool that its workers wait on, LAYOUT_BELLS_PER_WORKER at most, because each costs
 * every wait of every worker. The others stand in mode BROKER: whoever rings one reaches us, and we give it a place.
 *
 * Invariants. Workers look into the channels of all bells whenever they are awake, uid by uid in turn, and before they
 * sleep; a place is about being woken and nothing else. So a bell that loses its place loses no job, and nobody needs
 * one to be served: when all that have a place are busy and within their term, it is enough to wake those who sleep.
 * The broker's own bell always has a place: over the bus come jobs of all uids, and no stranger writes its page.
 *
 * No wake-up is lost (ipc/PROTOCOL.md, 4.3): a bell that loses its place gets mode BROKER first, then every worker is
 * made to look at everything. A client that still read FUTEX had published before that. One that read BROKER rang us.
 *
 * Nothing here polls: only a ring makes us look, and who never rings keeps its place for nothing, which harms nobody.
 */
#include "daemon/supervise/facts/places.h"

#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

/* What one look sees, by bell. */
struct places_look {
        uint64_t now_ns;
        bool has_queued[LAYOUT_MAX_BELLS], has_running[LAYOUT_MAX_BELLS];
        uint64_t submitted[LAYOUT_MAX_BELLS];
};

static unsigned places_count(const struct pool *p) {
        unsigned n = 0;
        for (uint32_t i = 0; i < p->n_bells; i++)
                n += p->bells[i].memory && p->bells[i].has_place;
        return n;
}

void pool_place_begin(struct pool_bell *b) {
        b->has_place = places_count(b->pool) < LAYOUT_BELLS_PER_WORKER;
        b->place_ns = b->has_place ? event_now_ns() : 0;
        pool_bells_tell(b->pool);
}

/* Whether it has work only its channels know: its bits may be clear for a moment (settle). */
static bool places_may_ask(const struct pool_bell *b) { return b->memory && !b->has_place && !b->is_muted; }

static bool places_may_be_asked(const struct pool *p) {
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (places_may_ask(&p->bells[i]))
                        return true;
        return false;
}

static void places_see(struct pool *p, struct places_look *l) {
        struct worker_job job;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct pool_channel *c = p->channels[i];
                if (!c)
                        continue;
                l->has_queued[c->bell] |= channel_has_work(&c->channel);
                l->submitted[c->bell] += atomic_load(&c->channel.head->submitted);
        }
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && worker_get_job(p->workers[i], &job))
                        l->has_running[job.channel->bell] = true;
        for (uint32_t i = 0; i < p->n_bells; i++) {
                struct pool_bell *b = &p->bells[i];
                if (l->has_queued[i] || l->has_running[i] || l->submitted[i] != b->submitted)
                        b->active_ns = l->now_ns;
                b->submitted = l->submitted[i];
        }
}

/* The bell whose turn it is to get a place: none that has just lost its own. */
static struct pool_bell *places_find_next(struct pool *p, const struct places_look *l) {
        struct pool_bell *asking[LAYOUT_MAX_BELLS];
        uint64_t until_ns[LAYOUT_MAX_BELLS];
        unsigned n = 0;
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (places_may_ask(&p->bells[i]) && l->has_queued[i] && p->bells[i].place_ns < l->now_ns) {
                        until_ns[n] = p->bells[i].place_ns;
                        asking[n++] = &p->bells[i];
                }
        return n > 0 ? asking[places_next(until_ns, n)] : NULL;
}

static struct pool_bell *places_find_victim(struct pool *p, const struct places_look *l) {
        struct pool_bell *bells[LAYOUT_BELLS_PER_WORKER];
        struct places_holder holders[LAYOUT_BELLS_PER_WORKER];
        unsigned n = 0;
        for (uint32_t i = POOL_OWN_BELL + 1; i < p->n_bells; i++) {
                struct pool_bell *b = &p->bells[i];
                if (!b->memory || !b->has_place)
                        continue;
                holders[n] = (struct places_holder){
                        .is_busy = l->has_queued[i] || l->has_running[i],
                        .active_ns = b->active_ns,
                        .since_ns = b->place_ns,
                };
                bells[n++] = b;
        }
        int victim = places_victim(holders, n, l->now_ns);
        return victim < 0 ? NULL : bells[victim];
}

/* Whoever is to know hears of it afterwards (pool_poke): it would wake the workers twice to broadcast the bell, too. */
static void places_set(struct pool_bell *b, bool has_place, uint64_t now_ns) {
        enum bell_mode mode = has_place && !b->is_muted ? BELL_FUTEX : BELL_BROKER;
        b->has_place = has_place;
        b->place_ns = now_ns;
        atomic_store(&b->memory->mode, mode); /* S7: before the workers look at everything */
        pool_bells_tell(b->pool);
}

/* Those who sleep have set their bits in our own bell and looked into all channels after that. Who is awake looks by
 * itself. */
static void places_wake_sleepers(struct pool *p) {
        const struct layout_bell *own = p->bells[POOL_OWN_BELL].memory;
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && atomic_load(&own->sleepers[i / 64]) >> i % 64 & 1)
                        worker_poke(p->workers[i]);
}

void pool_places_look(struct pool *p) {
        if (!pool_serves(p) || !places_may_be_asked(p))
                return;
        struct places_look look = {.now_ns = event_now_ns()};
        struct pool_bell *next, *victim;
        unsigned n_taken = places_count(p), n_given = 0;
        places_see(p, &look);
        while ((next = places_find_next(p, &look))) {
                if (n_taken < LAYOUT_BELLS_PER_WORKER)
                        n_taken++;
                else if ((victim = places_find_victim(p, &look)))
                        places_set(victim, false, look.now_ns);
                else
                        break;
                places_set(next, true, look.now_ns);
                n_given++;
        }
        if (n_given > 0)
                pool_poke(p);
        else if (next)
                places_wake_sleepers(p);
}
