/* The uids behind the callers: what they use of what all share.
 *
 * A record lives while one of its uid's callers is known, and longer while it has used more than its share: who leaves
 * the bus and comes back does not begin anew. Callers whose uid the bus has not told yet are one user together, the
 * strangers. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/bus/peers/peer.h"
#include "daemon/loop/closer.h"

void user_init(struct bus *b) {
        TAILQ_INIT(&b->users);
        TAILQ_INIT(&b->turns);
        b->strangers.uid = CLOSER_STRANGERS;
        TAILQ_INIT(&b->strangers.turn.ready);
}

static void user_free(struct bus *b, struct bus_user *u) {
        loop_timer_stop(&u->unread.timer);
        TAILQ_REMOVE(&b->users, u, link);
        free(u);
}

static void sweep(struct bus *b) {
        struct bus_user *u, *next;

        for (u = TAILQ_FIRST(&b->users); u; u = next) {
                next = TAILQ_NEXT(u, link);
                if (u->n_peers == 0 && turn_has_credit(b, u))
                        user_free(b, u);
        }
}

static struct bus_user *find(const struct bus *b, uid_t uid) {
        struct bus_user *u;

        TAILQ_FOREACH(u, &b->users, link) {
                if (u->uid == uid)
                        return u;
        }
        return NULL;
}

int user_take(struct bus_peer *p, uid_t uid) {
        struct bus *b = p->bus;
        struct bus_user *u = find(b, uid);

        if (!u) {
                sweep(b);
                u = calloc(1, sizeof(*u));
                if (!u)
                        return -ENOMEM;
                u->bus = b;
                u->uid = uid;
                TAILQ_INIT(&u->turn.ready);
                TAILQ_INSERT_TAIL(&b->users, u, link);
        }
        if (u->n_peers >= BUS_MAX_PEERS_OF_USER && !quota_is_free(uid) && !peer_evict_one(b, u))
                return -EDQUOT;
        u->n_peers++;
        p->user = u;
        p->uid = uid;
        return 0;
}

void user_give(struct bus_peer *p) {
        struct bus_user *u = p->user;

        if (u && --u->n_peers == 0 && turn_has_credit(p->bus, u))
                user_free(p->bus, u);
        p->user = NULL;
}

void user_deinit(struct bus *b) {
        struct bus_user *u;

        while ((u = TAILQ_FIRST(&b->users)))
                user_free(b, u);
}
