/* Owns a pool's bells, one a uid.
 *
 * Invariants: a bell stands in mode FUTEX only while a ready worker may claim and waits on it (pool-places.c), so
 * whoever rings otherwise reaches the broker and nothing is lost (bell_set_mode broadcasts). A bell has at least one
 * channel, living or not let go by all workers yet; after its last one the workers are told to let go of it, too, and
 * once all have been told, its number is given to the next uid that comes. A worker obeys in order, so it never takes
 * the new one for the old. A client that still holds the page rings where nobody listens. One that had to be muted
 * lately is kept a while: else to come back would be to be heard again. */
#include <errno.h>
#include <unistd.h>

#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/channel/bell.h"

/* ---- from the first channel to the last ---- */

static int pool_bell_new(struct pool *p, struct pool_bell *b, uid_t uid) {
        *b = (struct pool_bell){.pool = p, .uid = uid};
        int r = bell_create("drover-bell", &b->memory, &b->fd);
        if (r >= 0)
                pool_place_begin(b);
        return r;
}

void pool_bell_free(struct pool_bell *b) {
        if (!b->memory)
                return;
        loop_timer_stop(&b->mute_timer);
        doorbell_rate_stop(&b->rate);
        b->memory = bell_unmap(b->memory);
        close(b->fd);
        pool_bells_tell(b->pool);
}

int pool_bell_for(struct pool *p, uid_t uid, uint32_t *ret_bell) {
        uint32_t unused = p->n_bells;
        for (uint32_t i = 0; i < p->n_bells; i++) {
                if (p->bells[i].memory && p->bells[i].uid == uid) {
                        *ret_bell = i;
                        return 0;
                }
                if (!p->bells[i].memory && unused == p->n_bells)
                        unused = i;
        }
        if (unused == LAYOUT_MAX_BELLS)
                return -ENOSPC;
        if (unused == p->n_bells)
                p->n_bells++;
        int r = pool_bell_new(p, &p->bells[unused], uid);
        if (r < 0)
                return r;
        *ret_bell = unused;
        return 0;
}

bool pool_bell_is_over(const struct pool *p, uint32_t bell) {
        const struct pool_bell *b = &p->bells[bell];
        return b->memory && b->n_channels == 0 && b->n_mutes == 0 && !b->is_muted;
}

static bool pool_bell_is_known(const struct pool *p, uint32_t bell) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && worker_knows_bell(p->workers[i], bell))
                        return true;
        return false;
}

void pool_bells_collect(struct pool *p) {
        for (uint32_t bell = 0; bell < p->n_bells; bell++) {
                if (!pool_bell_is_over(p, bell))
                        continue;
                for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                        if (p->workers[i] && worker_knows_bell(p->workers[i], bell))
                                worker_sync(p->workers[i]);
                if (!pool_bell_is_known(p, bell))
                        pool_bell_free(&p->bells[bell]);
        }
}

/* ---- all of them ---- */

bool pool_serves(const struct pool *p) { return !p->is_paused && pool_count_serving(p) > 0; }

void pool_update_bells(struct pool *p) {
        enum bell_mode mode = pool_serves(p) ? BELL_FUTEX : BELL_BROKER;
        for (uint32_t i = 0; i < p->n_bells; i++) {
                const struct pool_bell *b = &p->bells[i];
                enum bell_mode wanted = b->is_muted || !b->has_place ? BELL_BROKER : mode;
                if (b->memory && atomic_load(&b->memory->mode) != wanted)
                        bell_set_mode(b->memory, wanted);
        }
}

/* Both tables anew, from what we know: pool memory is also the workers' to write. */
void pool_bells_tell(struct pool *p) {
        uint64_t placeless[LAYOUT_BELL_WORDS] = {0}, muted[LAYOUT_BELL_WORDS] = {0};
        for (uint32_t i = 0; i < p->n_bells; i++) {
                const struct pool_bell *b = &p->bells[i];
                uint64_t bit = b->memory ? UINT64_C(1) << i % 64 : 0;
                placeless[i / 64] |= b->has_place ? 0 : bit;
                muted[i / 64] |= b->is_muted ? bit : 0;
        }
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++) {
                atomic_store(&p->memory->placeless[i], placeless[i]);
                atomic_store(&p->memory->muted[i], muted[i]);
        }
}

void pool_broadcast(struct pool *p) {
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (p->bells[i].memory)
                        bell_broadcast(p->bells[i].memory);
}

void pool_poke(struct pool *p) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        worker_poke(p->workers[i]);
}
