/* How a client waits for verdicts.
 *
 * Spin a little, then sleep on the channel's futex; after a while without any verdict sleep in poll() on the
 * done doorbell and the session socket instead, because a futex cannot tell that the daemon is gone. So a short wait
 * costs what a futex costs, and a long one neither polls nor hangs.
 *
 * A daemon that dies closes the session socket and leaves the memory: the channel is handed to the next one
 * (session_reattach), which puts it in order, and nothing else changes. If it is not back for long, it is gone.
 *
 * Owns no more than the time: whether the daemon is away and since when, how long to sleep where. What to look at when
 * awake is session.c's business. */
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/session/session-internal.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/wait-watch.h"

enum { SESSION_MESSAGES = 64 /* of the bus that one look takes in */ };

#define SESSION_RETRY_NS UINT64_C(20000000)
#define SESSION_FUTEX_NS UINT64_C(50000000) /* sleep this long on the futex, then in poll() */

static uint64_t session_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Who waits only ever for moments would not hear of it otherwise. */
static void session_look_around(struct session *s, uint64_t now_ns) {
        if (now_ns - s->looked_ns < SESSION_FUTEX_NS || s->is_away)
                return;
        s->looked_ns = now_ns;
        session_read_socket(s);
}

void session_reattached(struct session *s, int r) {
        if (r == 0) {
                s->is_away = false;
                s->epoch++;
                /* What was submitted after the daemon had looked, and before we had its bell, was told to nobody. */
                session_ring(s);
                doorbell_ring(s->doorbell_fd);
        } else if (r != -EAGAIN || event_now_ns() - s->away_ns >= s->patience_ns)
                s->is_gone = true;
}

/* Asks the next daemon, one call at a time and not too often, and looks whether it has answered: never waits. Sets
 * is_gone if there is no hope, or no more patience. */
static void session_come_back(struct session *s) {
        session_check_open(s);
        uint64_t now_ns = event_now_ns();
        int r = s->renew_bus && !s->is_gone ? s->renew_bus(s->renew_user) : 0;
        if (r < 0)
                s->call = sd_bus_slot_unref(s->call); /* it went with the bus */
        if (r >= 0 && !s->call && !s->is_gone && now_ns - s->tried_ns >= SESSION_RETRY_NS) {
                s->tried_ns = now_ns;
                r = s->patience_ns == 0 ? -EPIPE : session_reattach(s);
        }
        if (r >= 0)
                r = 1;
        for (unsigned i = 0; i < SESSION_MESSAGES && s->is_away && !s->is_gone && r > 0; i++)
                r = bus_process(s->bus);
        s->is_short = bus_is_short(r);
        bool is_for_now = s->is_short || s->renew_bus;
        if (r < 0 && s->is_away && (!is_for_now || now_ns - s->away_ns >= s->patience_ns))
                s->is_gone = true;
}

/* With the daemon away: until the bus says something, or it is time for another try. 0 or -EINTR. */
static int session_wait_for_daemon(struct session *s, uint64_t deadline_ns) {
        uint64_t now_ns = event_now_ns();
        uint64_t left_ns = session_min(SESSION_RETRY_NS, deadline_ns > now_ns ? deadline_ns - now_ns : 0);
        int events = sd_bus_get_events(s->bus);
        /* What cannot be taken in now stays readable: it is only time for another try then. */
        struct pollfd fd = {.fd = s->is_short ? -1 : sd_bus_get_fd(s->bus),
                            .events = (short)(events > 0 ? events : POLLIN)};
        struct timespec left = {.tv_nsec = (long)left_ns};
        return ppoll(&fd, 1, &left, NULL) < 0 ? -errno : 0;
}

int session_process(struct session *s) {
        if (!s->is_away)
                session_read_socket(s);
        if (s->is_away && !s->is_gone)
                session_come_back(s);
        return s->is_gone ? -EPIPE : 0;
}

int session_takes_jobs(struct session *s, uint64_t deadline_ns) {
        session_check_open(s);
        session_process(s);
        while (s->call && !s->is_gone) {
                if (event_now_ns() >= deadline_ns)
                        return -ETIMEDOUT;
                int r = session_wait_for_daemon(s, deadline_ns);
                if (r < 0 && r != -EINTR)
                        return r;
                session_process(s);
        }
        int r = session_check_open(s);
        return r == 0 || r == -EAGAIN;
}

static int session_poll(struct session *s, uint64_t deadline_ns) {
        struct pollfd fds[] = {{.fd = s->done_fd, .events = POLLIN},
                               {.fd = s->socket_fd,
                                .events = session_fds_must_ask(s) && s->fds_error == 0 ? POLLIN | POLLOUT : POLLIN}};
        uint64_t now_ns = event_now_ns();
        if (s->fds_error < 0)
                deadline_ns = session_min(deadline_ns, now_ns + SESSION_RETRY_NS);
        uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u), .tv_nsec = (long)(left_ns % 1000000000u)};
        int n = ppoll(fds, 2, deadline_ns == EVENT_FOREVER ? NULL : &left, NULL);
        if (n < 0)
                return -errno;
        if (fds[0].revents)
                doorbell_clear(s->done_fd);
        if (fds[1].revents)
                session_read_socket(s);
        return n == 0 ? -ETIMEDOUT : 0;
}

#ifdef DROVER_WATCHED_WAITS
/* A verdict that was announced before, and is not collected. Of those that a worker gave, which say when. */
static uint64_t session_look_done(const void *user, uint64_t before_ns) {
        const struct session *s = user;
        struct layout_result line;
        for (uint32_t i = 0; i < s->n_words; i++)
                for (uint64_t bits = atomic_load(&s->channel.done[i]); bits; bits &= bits - 1) {
                        uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
                        uint64_t word = slot < s->channel.geometry.n_slots ? channel_word(&s->channel, slot) : 0;
                        if (slot_state(word) != SLOT_DONE || s->slots[slot].state != SESSION_BUSY ||
                            s->slots[slot].generation != slot_generation(word))
                                continue;
                        channel_copy(&line, channel_result(&s->channel, slot), sizeof line);
                        if (line.finished_ns < before_ns)
                                return word;
                }
        return 0;
}
#endif

/* What somebody waits for. */
struct session_goal {
        bool (*is_reached)(const struct session *s, uint32_t slot);
        uint32_t slot;
        uint64_t deadline_ns;
        bool is_long; /* it took a while: sleep in poll() */
};

static bool session_is_reached(const struct session *s, const struct session_goal *g) {
        return g->is_reached(s, g->slot);
}

/* Sleeps until something may have changed. 0, -ETIMEDOUT at the deadline, -EINTR. */
static int session_sleep(struct session *s, struct session_goal *g) {
        uint64_t deadline_ns = session_min(g->deadline_ns, s->next_deadline_ns);
        uint32_t seen = channel_wait_begin(&s->channel, g->is_long ? DONE_DOORBELL : DONE_FUTEX);
        int r = 0;
        session_collect(s);
        if (!session_is_reached(s, g)) {
                if (g->is_long || s->want_first != SESSION_NONE)
                        r = session_poll(s, deadline_ns);
                else {
                        uint64_t since_ns = event_now_ns(), futex_ns = since_ns + SESSION_FUTEX_NS;
                        WAIT_LOOK_SINCE("client", session_look_done, s);
                        r = event_wait(&s->channel.head->done_seq, seen, session_min(deadline_ns, futex_ns));
                        spin_slept(&s->spin, since_ns);
                        if (r == -ETIMEDOUT && futex_ns < deadline_ns) {
                                g->is_long = true;
                                s->n_rescued += session_collect(s);
                                r = 0;
                        }
                }
        }
        channel_wait_end(&s->channel);
        return r;
}

bool session_arm(struct session *s, uint64_t *ret_deadline_ns) {
        *ret_deadline_ns = s->next_deadline_ns;
        if (s->is_away && !s->is_gone && !s->call)
                *ret_deadline_ns = session_min(*ret_deadline_ns, s->tried_ns + SESSION_RETRY_NS);
        channel_wait_begin(&s->channel, DONE_DOORBELL);
        bool is_ready = session_collect(s);
        if (session_fds_must_ask(s)) /* nobody polls the socket for that */
                *ret_deadline_ns = session_min(*ret_deadline_ns, event_now_ns() + SESSION_RETRY_NS);
        return is_ready;
}

void session_woken(struct session *s) {
        channel_wait_end(&s->channel);
        doorbell_clear(s->done_fd);
        session_read_socket(s);
        session_expire(s, event_now_ns());
}

static bool session_spin(struct session *s, uint64_t deadline_ns) {
        if (s->never_spins)
                return false;
        struct spin_round round = spin_begin(&s->spin, deadline_ns);
        bool came;
        while (!(came = session_collect(s)) && spin_step(&round))
                ;
        spin_end(&s->spin, &round, came);
        return came;
}

/* Until the goal is reached or its deadline is over. 1, 0, -EPIPE, -EINTR. */
static int session_wait_until(struct session *s, struct session_goal *g) {
        session_collect(s);
        for (bool has_spun = false;; has_spun = true) {
                if (session_is_reached(s, g))
                        return 1;
                if (s->n_in_flight == 0 || session_is_short(s) < 0)
                        return 0;
                session_check_open(s);
                if (s->is_away && !s->is_gone)
                        session_come_back(s);
                if (s->is_gone || s->is_away) { /* what was told before it went is still to be had */
                        session_collect(s);
                        if (session_is_reached(s, g) || s->is_gone)
                                return session_is_reached(s, g) ? 1 : -EPIPE;
                        if (event_now_ns() >= g->deadline_ns)
                                return 0;
                        int r = session_wait_for_daemon(s, g->deadline_ns);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (g->deadline_ns == 0 && s->next_deadline_ns == EVENT_FOREVER) {
                        session_look_around(s, event_now_ns());
                        return 0;
                }
                if (!has_spun && g->deadline_ns > 0 && session_spin(s, g->deadline_ns))
                        continue;

                int r = g->deadline_ns == 0 ? -ETIMEDOUT : session_sleep(s, g);
                if (r == -EINTR)
                        return r;
                if (r == -ETIMEDOUT) {
                        uint64_t now_ns = event_now_ns();
                        session_expire(s, now_ns);
                        session_collect(s);
                        session_look_around(s, now_ns);
                        if (now_ns >= g->deadline_ns)
                                return session_is_reached(s, g);
                } else {
                        if (session_collect(s) && s->ready_first != s->ready_last)
                                spin_expect(&s->spin); /* they come faster than wake-ups */
                        if (!session_is_reached(s, g) && event_now_ns() >= g->deadline_ns)
                                return 0; /* others end all the time, ours does not */
                }
        }
}

static bool session_has_ready(const struct session *s, uint32_t slot) { return s->ready_first != SESSION_NONE; }

static bool session_is_ready(const struct session *s, uint32_t slot) { return s->slots[slot].state == SESSION_READY; }

int session_next(struct session *s, struct session_result *ret, uint64_t deadline_ns) {
        struct session_goal g = {.is_reached = session_has_ready, .deadline_ns = deadline_ns};
        int r = s->ready_first != SESSION_NONE ? 1 : session_wait_until(s, &g);
        if (r == 1 && (r = session_prepare_fetch(s)) == 1)
                session_fetch(s, s->ready_first, ret);
        return r;
}

int session_wait(struct session *s, uint32_t slot, struct session_result *ret, uint64_t deadline_ns) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state == SESSION_IDLE ||
            s->slots[slot].state == SESSION_HELD)
                return -EINVAL;
        struct session_goal g = {.is_reached = session_is_ready, .slot = slot, .deadline_ns = deadline_ns};
        int r = session_wait_until(s, &g);
        if (r == 1 && (r = session_prepare_fetch(s)) == 1)
                session_fetch(s, slot, ret);
        return r;
}
