/* Descriptors that belong to jobs: from before a job is queued until its verdict; and those of results, from before the
 * verdict until the client has them.
 *
 * They stand by slot and generation, as everything that is private about a job. Nothing in here is ever used or read,
 * only closed, by daemon/loop/closer.c; the first may be a sealed memory file, and that is all that is looked at. What
 * is left behind (a job that was never queued, a verdict that nobody fetches) is bounded by the table, and goes with
 * the next job of that slot or with the channel.
 *
 * The limit of a channel keeps one client from taking all descriptors of the daemon; the last ones of the process are
 * for workers. Clients hold themselves to it before they submit, by what their job types say, so that no work is done
 * whose result finds no room; the count that is believed is the one in here. */
#include "daemon/supervise/facts/descriptors.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/loop/closer.h"
#include "daemon/loop/fd-share.h"
#include "daemon/supervise/pools/pool.h"
#include "ipc/memory/sealed.h"
#include "ipc/wire.h"

void descriptors_close(int *fds, unsigned n_fds, uid_t uid) {
        for (unsigned i = 0; i < n_fds; i++)
                if (fds[i] >= 0) {
                        closer_close(fds[i], uid);
                        fds[i] = -1;
                }
}

/* As they count towards the limit. The file of a result does not: nobody can tell from a job whether it will need one,
 * and there is one a slot at most. */
static uint32_t descriptors_weight(enum descriptors_of what, const struct descriptors *d) {
        return d->n_fds - (what == DESCRIPTORS_OF_RESULT && d->payload_bytes > 0);
}

void descriptors_drop(struct pool_channel *c, enum descriptors_of what, uint32_t slot) {
        struct descriptors_table *t = &c->descriptors;
        struct descriptors *d = t->by_slot[what] ? t->by_slot[what][slot] : NULL;
        if (!d)
                return;
        descriptors_close(d->fds, d->n_fds, d->uid);
        t->n_fds[what] -= descriptors_weight(what, d);
        t->by_slot[what][slot] = NULL;
        free(d);
}

/* Its job is over and done with, says the slot. A client that lies there loses its own. */
static bool descriptors_are_over(enum descriptors_of what, const struct descriptors *d, uint64_t word) {
        if (slot_generation(word) != d->generation)
                return (int32_t)(slot_generation(word) - d->generation) > 0;
        return slot_state(word) == SLOT_FREE ||
               (slot_is_verdict(word) && (what == DESCRIPTORS_OF_JOB || slot_state(word) != SLOT_DONE));
}

static void descriptors_settle_one(struct pool_channel *c, enum descriptors_of what, uint32_t slot) {
        const struct descriptors_table *t = &c->descriptors;
        const struct descriptors *d = t->by_slot[what] ? t->by_slot[what][slot] : NULL;
        if (d && descriptors_are_over(what, d, channel_word(&c->channel, slot)))
                descriptors_drop(c, what, slot);
}

void descriptors_settle(struct pool_channel *c, uint32_t slot) {
        for (unsigned what = 0; what < DESCRIPTORS_N; what++)
                descriptors_settle_one(c, what, slot);
}

void descriptors_settle_all(struct pool_channel *c) {
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++)
                descriptors_settle(c, slot);
}

static bool descriptors_have_room(const struct pool_channel *c, enum descriptors_of what, const struct descriptors *d) {
        return c->descriptors.n_fds[what] + descriptors_weight(what, d) <= wire_max_fds(c->channel.geometry.n_slots);
}

static int descriptors_check(struct pool_channel *c, enum descriptors_of what, const struct descriptors *d) {
        uint64_t bytes;
        if (d->payload_bytes > 0 && (d->n_fds == 0 || sealed_check(d->fds[0], &bytes) < 0 ||
                                     bytes != d->payload_bytes || sealed_check_pages(d->fds[0]) < 0))
                return -EPROTO;
        if (!descriptors_have_room(c, what, d))
                descriptors_settle_all(c);
        if (!descriptors_have_room(c, what, d) || !closer_has_room(d->uid))
                return -EDQUOT;
        for (unsigned i = 0; i < d->n_fds; i++)
                if (!fd_share_has(FD_SHARE_SESSIONS, d->fds[i]))
                        return -EDQUOT;
        return 0;
}

int descriptors_put(struct pool_channel *c, enum descriptors_of what, uint32_t slot, const struct descriptors *d) {
        struct descriptors_table *t = &c->descriptors;
        struct descriptors *kept = malloc(sizeof(*kept));
        if (kept)
                *kept = *d;
        if (!t->by_slot[what])
                t->by_slot[what] = calloc(c->channel.geometry.n_slots, sizeof(*t->by_slot[what]));
        int r = kept && t->by_slot[what] ? 0 : -ENOMEM;
        if (r >= 0 && what == DESCRIPTORS_OF_JOB && descriptors_get(c, what, slot, d->generation))
                r = -EALREADY;
        if (r >= 0) {
                descriptors_drop(c, what, slot);
                r = descriptors_check(c, what, d);
        }
        if (r < 0) {
                free(kept);
                struct descriptors lost = *d;
                descriptors_close(lost.fds, lost.n_fds, lost.uid);
                return r;
        }
        t->by_slot[what][slot] = kept;
        t->n_fds[what] += descriptors_weight(what, d);
        return 0;
}

const struct descriptors *descriptors_get(const struct pool_channel *c, enum descriptors_of what, uint32_t slot,
                                          uint32_t generation) {
        const struct descriptors_table *t = &c->descriptors;
        const struct descriptors *d = t->by_slot[what] ? t->by_slot[what][slot] : NULL;
        return d && d->generation == generation ? d : NULL;
}

struct descriptors *descriptors_take(struct pool_channel *c, enum descriptors_of what, uint32_t slot,
                                     uint32_t generation) {
        struct descriptors_table *t = &c->descriptors;
        if (!descriptors_get(c, what, slot, generation))
                return NULL;
        struct descriptors *d = t->by_slot[what][slot];
        t->n_fds[what] -= descriptors_weight(what, d);
        t->by_slot[what][slot] = NULL;
        return d;
}

void descriptors_drop_all(struct pool_channel *c) {
        for (unsigned what = 0; what < DESCRIPTORS_N; what++) {
                struct descriptors_table *t = &c->descriptors;
                for (uint32_t slot = 0; t->by_slot[what] && slot < c->channel.geometry.n_slots; slot++)
                        descriptors_drop(c, what, slot);
                free(t->by_slot[what]);
                t->by_slot[what] = NULL;
        }
}
