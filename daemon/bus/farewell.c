/* The last moment on the bus: who was just told of a verdict still gets its result.
 *
 * JobRemoved, and the answer to Job.Wait, say that a job is over; its result is asked for after that, by when a droverd
 * that drains would be gone. So whoever was told something of late is pinged: a client takes its messages in order, so
 * when it answers, its questions about what it was told are here, and are answered whoever's turn it is. The end waits
 * for that, for FAREWELL_NS at most; of who leaves the bus nothing more comes. With nobody to wait for it is at once. A
 * bus lets us wait for 128 answers at a time, so the last ones are pinged when the first have answered. */
#include "daemon/bus/peers/peer.h"

#define FAREWELL_NS UINT64_C(1000000000)
#define FAREWELL_RECENT_NS UINT64_C(2000000000) /* who did not ask for this long does not want to know */

enum { FAREWELL_PINGS = 100 };

static void farewell_end(struct bus *b) {
        void (*done)(void *user) = b->farewell.done;

        b->farewell.done = NULL;
        loop_timer_stop(&b->farewell.timer);
        turn_finish(b, loop_now(b->config.loop) + FAREWELL_NS);
        if (done)
                done(b->farewell.user);
}

static void on_late(struct loop_timer *t) { farewell_end(t->user); }

static int on_pong(sd_bus_message *m, void *user, sd_bus_error *e) { /* an error is an answer, too */
        farewell_forget(user);
        return 0;
}

static void ping_some(struct bus *b) {
        uint64_t now = loop_now(b->config.loop);
        struct bus_peer *p;

        TAILQ_FOREACH(p, &b->peers, link) {
                if (b->farewell.n_pings < FAREWELL_PINGS && p->told_ns && now - p->told_ns < FAREWELL_RECENT_NS &&
                    !p->ping) {
                        p->told_ns = 0;
                        b->farewell.n_pings +=
                                sd_bus_call_method_async(b->bus, &p->ping, p->name, "/", "org.freedesktop.DBus.Peer",
                                                         "Ping", on_pong, p, NULL) >= 0;
                }
        }
}

void farewell_forget(struct bus_peer *p) {
        struct bus *b = p->bus;

        if (!p->ping)
                return;
        p->ping = sd_bus_slot_unref(p->ping);
        b->farewell.n_pings--;
        if (!b->farewell.done)
                return;
        ping_some(b);
        if (b->farewell.n_pings == 0)
                farewell_end(b);
}

void farewell_told(struct bus_peer *p) { p->told_ns = loop_now(p->bus->config.loop); }

void bus_farewell(struct bus *b, void (*done)(void *user), void *user) {
        b->farewell.done = done;
        b->farewell.user = user;
        ping_some(b);
        if (b->farewell.n_pings == 0)
                farewell_end(b);
        else
                loop_timer_set(b->config.loop, &b->farewell.timer, loop_now(b->config.loop) + FAREWELL_NS, on_late, b);
}
