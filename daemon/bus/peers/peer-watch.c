/* Which callers have left the bus.
 *
 * A match rule costs the bus memory and counts against a limit: 512 for a connection on dbus-daemon's system bus,
 * shared by all programs of a user on dbus-broker. So the rules are bounded, however many call. Up to BUS_MAX_RULES
 * callers have a rule each, which wakes nobody for the end of strangers. Of more callers, one wide rule tells of the
 * end of every name, and the daemon is woken for each program that leaves the bus, until half of the callers are gone:
 * then each that is left gets a rule of its own, and the wide one goes last.
 *
 * Nobody is without a rule at any moment: the bus reads what we send in order, so a rule stands before the question
 * that is sent behind it is answered (peer.c), and the wide rule is given up when the bus has confirmed each that takes
 * its place. A rule that is refused (a lower limit, a quota that others used up) costs those who have no other: they
 * are told LimitsExceeded and forgotten. The daemon lives: libsystemd closes the connection only for rules without a
 * callback for their installation. */
#include "daemon/bus/peers/peer.h"

#define WATCH_RULE                                                                                                     \
        "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"   \
        "member='NameOwnerChanged',arg2=''" /* no new owner */

static int on_gone(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus *b = user;
        const char *name, *old, *new;
        struct bus_peer *p;

        if (sd_bus_message_read(m, "sss", &name, &old, &new) >= 0 && new[0] == '\0' && (p = peer_find(b, name)))
                peer_free(p);
        return 0;
}

static int on_own_gone(sd_bus_message *m, void *user, sd_bus_error *e) {
        const struct bus_peer *p = user;

        return on_gone(m, p->bus, e);
}

static void refuse(struct bus_peer *p) {
        peer_refuse(p, SD_BUS_ERROR_LIMITS_EXCEEDED,
                    "the bus allows droverd no match rule by which it would hear of the end of %s; try again later",
                    p->name);
}

/* ---- the wide rule ---- */

static int on_wide_installed(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus *b = user;
        struct bus_peer *p, *next;

        if (!sd_bus_message_is_method_error(m, NULL))
                return 0;
        b->watch.wide = sd_bus_slot_unref(b->watch.wide);
        for (p = TAILQ_FIRST(&b->peers); p; p = next) {
                next = TAILQ_NEXT(p, link);
                if (!p->match)
                        refuse(p);
        }
        return 0;
}

static int add_wide(struct bus *b) {
        return b->watch.wide
                       ? 0
                       : sd_bus_add_match_async(b->bus, &b->watch.wide, WATCH_RULE, on_gone, on_wide_installed, b);
}

static void drop_wide_if_needless(struct bus *b) {
        if (b->watch.n_confirmed == b->n_peers)
                b->watch.wide = sd_bus_slot_unref(b->watch.wide);
}

/* ---- one caller's own ---- */

static void drop_own(struct bus_peer *p) {
        if (!p->match)
                return;
        p->match = sd_bus_slot_unref(p->match);
        p->bus->watch.n_own--;
        p->bus->watch.n_confirmed -= p->is_match_confirmed;
        p->is_match_confirmed = false;
}

/* The limit is lower than we thought: who is idle makes room for the wide rule, and the question is asked again behind
 * that. */
static void give_way(struct bus_peer *p) {
        struct bus *b = p->bus;

        drop_own(p);
        b->watch.max_own = b->watch.n_confirmed / 2;
        while (b->watch.n_own > b->watch.max_own && peer_evict_one(b, NULL))
                ;
        if (!b->watch.wide && peer_ask(p) < 0)
                refuse(p);
}

static int on_own_installed(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        struct bus *b = p->bus;

        if (sd_bus_message_is_method_error(m, NULL)) {
                give_way(p);
                return 0;
        }
        p->is_match_confirmed = true;
        b->watch.n_confirmed++;
        drop_wide_if_needless(b);
        return 0;
}

static int add_own(struct bus_peer *p) {
        char rule[sizeof(WATCH_RULE) + 300]; /* a unique name has 255 bytes at most */
        int r;

        snprintf(rule, sizeof(rule), WATCH_RULE ",arg0='%s'", p->name);
        r = sd_bus_add_match_async(p->bus->bus, &p->match, rule, on_own_gone, on_own_installed, p);
        if (r >= 0)
                p->bus->watch.n_own++;
        return r;
}

/* ---- both ---- */

static bool is_wide(const struct bus *b) { return b->watch.wide && b->n_peers > b->watch.max_own / 2; }

void watch_init(struct bus *b) { b->watch.max_own = BUS_MAX_RULES; }

int watch_begin(struct bus_peer *p) {
        struct bus *b = p->bus;

        if (p->match)
                return 0;
        return b->watch.n_own < b->watch.max_own && !is_wide(b) ? add_own(p) : add_wide(b);
}

/* In vain: the wide rule stays. */
static void narrow(struct bus *b) {
        struct bus_peer *p;
        int r = 0;

        for (p = TAILQ_FIRST(&b->peers); p && r >= 0; p = TAILQ_NEXT(p, link))
                r = watch_begin(p);
        drop_wide_if_needless(b);
}

void watch_end(struct bus_peer *p) {
        struct bus *b = p->bus;

        drop_own(p);
        if (b->watch.wide && !is_wide(b))
                narrow(b);
        if (b->n_peers == 0)
                watch_init(b); /* a quota may be free again */
}
