/* What callers have not taken from the bus yet.
 *
 * dbus-daemon keeps what a caller does not read, and counts it against the sender: of a connection whose messages hold
 * 64 descriptors or 127 MiB there (the limits of a system bus), it reads nothing more. A caller that opened eight
 * channels and read none of the answers would cut droverd off from everybody, for as long as it liked. The bus tells
 * nobody of that by itself, but answers whom its policy lets ask (org.freedesktop.DBus.Debug.Stats): how much of a
 * connection it keeps, and how much a connection has not read.
 *
 * So each answer is counted as if it were never read, until the bus is asked, and the bus is asked when there is no
 * room for the next answer. Of the room, one user gets half of what the others leave. Those who are found to read go on
 * at once; who does not waits here, and so do his further calls (turn.c). While a question is under way, nothing goes
 * to whom it is about, but what is small: it would be forgotten with the answer.
 *
 * dbus-broker counts against who does not read, and cuts that one off. It does not know the question, and needs none.
 */
#include <errno.h>
#include <string.h>

#include "daemon/bus/peers/peer.h"
#include "daemon/log/log.h"

enum {
        UNREAD_MAX_FDS = 64 - 16, /* the last message may bring as many more */
        UNREAD_LITTLE = 16384,    /* bytes that may be on their way at any time */
        UNREAD_QUESTIONS = 16,    /* at once, about one user's callers */
};

#define UNREAD_MAX_BYTES (UINT64_C(64) << 20)
#define UNREAD_PAUSE_NS UINT64_C(5000000)
#define UNREAD_MAX_PAUSE_NS UINT64_C(1000000000)

/* ---- room ---- */

static bool fits(uint64_t n, uint64_t own, uint64_t all, uint64_t max, bool is_free) {
        uint64_t left = max > all ? max - all : 0;

        if (n == 0 || all == 0)
                return true;
        if (is_free || own == 0)
                return n <= left;
        return n <= left && own + n <= (left + own) / 2;
}

bool unread_has_room(struct bus_peer *p, struct bus_weight w) {
        const struct bus *b = p->bus;
        const struct bus_weight *own = &p->user->unread.sum, *all = &b->unread.all;
        bool is_free = quota_is_free(p->uid);

        if (b->unread.is_blind)
                return true;
        if ((b->unread.query || p->unread_query) && (w.n_fds > 0 || w.n_bytes > UNREAD_LITTLE))
                return false;
        return fits(w.n_fds, own->n_fds, all->n_fds, UNREAD_MAX_FDS, is_free) &&
               fits(w.n_bytes, own->n_bytes, all->n_bytes, UNREAD_MAX_BYTES, is_free);
}

void unread_count(struct bus_peer *p, struct bus_weight w) {
        weight_add(&p->unread, w);
        weight_add(&p->user->unread.sum, w);
        weight_add(&p->bus->unread.all, w);
}

static void set_unread(struct bus_peer *p, struct bus_weight w) {
        weight_subtract(&p->user->unread.sum, p->unread);
        weight_add(&p->user->unread.sum, w);
        p->unread = w;
}

/* ---- answers ---- */

/* Two entries of a{sv}, named so for what is kept of a connection's, or for it. */
static int read_stats(sd_bus_message *m, const char *bytes_key, const char *fds_key, struct bus_weight *ret) {
        const char *key, *contents;
        uint32_t n;
        char type;
        int r;

        *ret = (struct bus_weight){0};
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read_basic(m, 's', &key);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, &type, &contents);
                if (r < 0)
                        return r;
                if (strcmp(contents, "u") != 0)
                        r = sd_bus_message_skip(m, "v");
                else if ((r = sd_bus_message_read(m, "v", "u", &n)) >= 0) {
                        if (strcmp(key, bytes_key) == 0)
                                ret->n_bytes = n;
                        else if (strcmp(key, fds_key) == 0)
                                ret->n_fds = n;
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r;
}

static void release(struct bus *b, const struct bus_user *u) {
        struct bus_peer *p;

        TAILQ_FOREACH(p, &b->peers, link) {
                if (p->user == u && p->is_stuck) {
                        p->is_stuck = false;
                        turn_join(p);
                }
        }
}

/* Its answers are tried again; who is in vain asks again. */
static void end_round(struct bus *b, struct bus_user *u, bool is_better) {
        u->unread.is_asking = false;
        u->unread.pause_ns = is_better || !u->unread.pause_ns ? UNREAD_PAUSE_NS : 2 * u->unread.pause_ns;
        if (u->unread.pause_ns > UNREAD_MAX_PAUSE_NS)
                u->unread.pause_ns = UNREAD_MAX_PAUSE_NS;
        u->unread.not_before_ns = loop_now(b->config.loop) + u->unread.pause_ns;
        release(b, u);
}

static void answered(struct bus *b, struct bus_user *u) {
        if (--u->unread.n_questions == 0)
                end_round(b, u,
                          u->unread.sum.n_fds < u->unread.before.n_fds ||
                                  u->unread.sum.n_bytes < u->unread.before.n_bytes);
}

static int on_peer(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        struct bus_weight w;

        p->unread_query = sd_bus_slot_unref(p->unread_query);
        if (!sd_bus_message_is_method_error(m, NULL) && read_stats(m, "OutgoingBytes", "OutgoingFDs", &w) >= 0) {
                if (w.n_fds > p->unread.n_fds) /* others send to it, too */
                        w.n_fds = p->unread.n_fds;
                if (w.n_bytes > p->unread.n_bytes)
                        w.n_bytes = p->unread.n_bytes;
                set_unread(p, w);
        }
        answered(p->bus, p->user);
        return 0;
}

static int ask(struct bus *b, sd_bus_slot **slot, const char *name, sd_bus_message_handler_t fn, void *user) {
        return sd_bus_call_method_async(b->bus, slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                        "org.freedesktop.DBus.Debug.Stats", "GetConnectionStats", fn, user, "s", name);
}

/* Some of its callers, others the next time. */
static void ask_about(struct bus *b, struct bus_user *u) {
        struct bus_peer *chosen[UNREAD_QUESTIONS], *p;
        unsigned n = 0;

        u->unread.before = u->unread.sum;
        TAILQ_FOREACH(p, &b->peers, link) {
                if (n < UNREAD_QUESTIONS && p->user == u && !p->unread_query &&
                    (p->unread.n_fds > 0 || p->unread.n_bytes > UNREAD_LITTLE))
                        chosen[n++] = p;
        }
        for (unsigned i = 0; i < n; i++) {
                p = chosen[i];
                TAILQ_REMOVE(&b->peers, p, link);
                TAILQ_INSERT_TAIL(&b->peers, p, link);
                u->unread.n_questions += ask(b, &p->unread_query, p->name, on_peer, p) >= 0;
        }
        if (u->unread.n_questions == 0)
                end_round(b, u, false);
}

static void forget_all(struct bus *b) {
        struct bus_peer *p;

        TAILQ_FOREACH(p, &b->peers, link) {
                if (p->user)
                        set_unread(p, (struct bus_weight){0});
        }
        b->unread.all = (struct bus_weight){0};
}

static int on_own(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus *b = user;
        bool is_nothing = false;
        struct bus_weight w;
        struct bus_user *u;

        b->unread.query = sd_bus_slot_unref(b->unread.query);
        if (sd_bus_message_is_method_error(m, NULL) || read_stats(m, "IncomingBytes", "IncomingFDs", &w) < 0) {
                b->unread.is_blind = true;
                log_info("the bus does not tell what its clients have not read: answers are not held back");
        } else if (w.n_fds > 0 || w.n_bytes > UNREAD_LITTLE)
                b->unread.all = w;
        else
                is_nothing = true;
        if (is_nothing || b->unread.is_blind)
                forget_all(b);
        TAILQ_FOREACH(u, &b->users, link) {
                if (!u->unread.is_asking || u->unread.n_questions > 0)
                        continue;
                if (is_nothing || b->unread.is_blind)
                        end_round(b, u, true);
                else
                        ask_about(b, u);
        }
        return 0;
}

/* ---- questions ---- */

static void on_pause(struct loop_timer *t) {
        struct bus_user *u = t->user;

        unread_ask(u->bus, u);
}

void unread_ask(struct bus *b, struct bus_user *u) {
        if (u->unread.is_asking || u->unread.timer.heap_index)
                return;
        if (loop_now(b->config.loop) < u->unread.not_before_ns) {
                loop_timer_set(b->config.loop, &u->unread.timer, u->unread.not_before_ns, on_pause, u);
                return;
        }
        if (!b->unread.query && ask(b, &b->unread.query, b->unread.name, on_own, b) < 0)
                b->unread.is_blind = true;
        u->unread.is_asking = !b->unread.is_blind;
        if (b->unread.is_blind)
                release(b, u);
}

void unread_forget(struct bus_peer *p) {
        if (!p->user)
                return;
        set_unread(p, (struct bus_weight){0});
        if (p->unread_query) {
                p->unread_query = sd_bus_slot_unref(p->unread_query);
                answered(p->bus, p->user);
        }
}
