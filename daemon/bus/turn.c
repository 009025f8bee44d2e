/* Whose turn it is.
 *
 * All callers come through one connection, in one row, and all answers leave through it, in one row. Whoever calls most
 * would have most of both. So calls are only read in that row, quickly (intake.c), and served by turns:
 *
 * - Each user (uid) has a credit of the daemon's CPU time: a share of all time, of which little can be saved up. A call
 *   of a user with credit, by a caller of whom nothing waits, is served when it is read. On a quiet bus all are.
 * - Other calls wait, each caller's in order. Users take turns, a user's callers take turns in these, and a turn is one
 *   call. What waits is bounded in number and bytes; what is more is answered LimitsExceeded.
 * - dbus-daemon takes from us what it likes: while it is busy, 2 KiB for each round through its connections, which may
 *   take tens of milliseconds. What lies in our socket then stands before everything that comes later. So when it holds
 *   TURN_OUT_BYTES, answers wait here for their user's turn, and no call that waits is served: a flood goes at the pace
 *   at which the bus takes the answers, and one other answer has to wait for few of them.
 * - An answer for which unread.c has no room waits until it has, and so do its caller's calls.
 *
 * What libsystemd answers by itself (Introspect, GetManagedObjects, Ping, members that do not exist) has its turns too
 * (builtin.c). The calls of root and the daemon's own uid are not refused for their number: then the first that waits
 * is served at once, as if it had its turn. */
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "daemon/bus/peers/peer.h"
#include "daemon/loop/closer.h"
#include "ipc/memory/event.h"

enum {
        TURN_MAX_CALLS = 1024, /* of one caller */
        TURN_MAX_CALLS_OF_USER = 4096,
        TURN_MAX_REFUSALS = 1024, /* of one user's calls; who has more answers waiting gets none */
        TURN_MAX_REPLIES = 8192,  /* to one user: the calls that wait for something, and refusals */
        TURN_MAX_SIGNALS = 256,   /* to one caller */
        TURN_OUT_BYTES = 8192,    /* as the kernel counts them: ten small messages */
        TURN_MAX_FDS = 16384,     /* with a user's calls; less, if we may have few */
        TURN_MIN_FDS = 16,        /* of a stranger */
        TURN_FRAME_BYTES = 512,   /* that the kernel counts for a message, without its own */
        TURN_SHARE = 10,          /* a tenth of the time; less, if many users take turns */
};

#define TURN_MAX_BYTES (UINT64_C(64) << 20) /* of a user's calls, also those that wait for something else */
#define TURN_MIN_BYTES (UINT64_C(64) << 10) /* of a stranger's, however much there is of other strangers */
#define TURN_CREDIT_NS INT64_C(2000000)
#define TURN_SERVE_NS UINT64_C(500000)   /* a quarter of it while there is more to be read */
#define TURN_STILL_NS UINT64_C(20000000) /* one turn, however long the bus takes nothing */

#define TURN_ASK_NS UINT64_C(200000) /* of real time, which is taken for CPU time meanwhile */

/* ---- credit ---- */

/* CPU time costs a system call, real time none. So the kernel is asked after each sleep, and then now and again. */
uint64_t turn_clock(struct bus *b) {
        uint64_t now = event_now_ns(), cpu_ns;
        struct timespec t;

        b->clock.now_ns = now;
        if (b->clock.asked_ns < loop_now(b->config.loop) || now - b->clock.asked_ns >= TURN_ASK_NS) {
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
                b->clock.asked_ns = now;
                b->clock.answer_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        }
        cpu_ns = b->clock.answer_ns + (now - b->clock.asked_ns);
        if (cpu_ns > b->clock.told_ns) /* else this thread was not always on a CPU */
                b->clock.told_ns = cpu_ns;
        return b->clock.told_ns;
}

bool turn_has_credit(struct bus *b, struct bus_user *u) {
        uint64_t now = loop_now(b->config.loop), share = 2 * b->n_turns > TURN_SHARE ? 2 * b->n_turns : TURN_SHARE;
        uint64_t earned = (now - u->turn.credited_ns) / share, room = (uint64_t)(TURN_CREDIT_NS - u->turn.credit_ns);

        u->turn.credit_ns += (int64_t)(earned < room ? earned : room);
        u->turn.credited_ns = now;
        return u->turn.credit_ns > 0;
}

void turn_charge(struct bus_user *u, uint64_t ns) { u->turn.credit_ns -= (int64_t)ns; }

bool turn_is_due(struct bus_peer *p) {
        return p->user && STAILQ_EMPTY(&p->waiting) && STAILQ_EMPTY(&p->replies) && turn_has_credit(p->bus, p->user);
}

/* ---- the row of users, and of a user's callers ---- */

static void leave(struct bus_peer *p) {
        struct bus_user *u = p->user;

        if (!p->is_ready)
                return;
        TAILQ_REMOVE(&u->turn.ready, p, ready_link);
        p->is_ready = false;
        if (!TAILQ_EMPTY(&u->turn.ready))
                return;
        TAILQ_REMOVE(&p->bus->turns, u, turn.link);
        p->bus->n_turns--;
}

void turn_join(struct bus_peer *p) {
        struct bus_user *u = p->user;

        if (!u || p->is_ready || p->is_stuck || (STAILQ_EMPTY(&p->replies) && STAILQ_EMPTY(&p->waiting)))
                return;
        if (TAILQ_EMPTY(&u->turn.ready)) {
                TAILQ_INSERT_TAIL(&p->bus->turns, u, turn.link);
                p->bus->n_turns++;
        }
        TAILQ_INSERT_TAIL(&u->turn.ready, p, ready_link);
        p->is_ready = true;
}

/* ---- what waits ---- */

struct bus_item *item_new(sd_bus_message *m, bus_method_fn fn) {
        struct bus_item *i = calloc(1, sizeof(*i));

        if (!i)
                return NULL;
        i->message = sd_bus_message_ref(m);
        i->fn = fn;
        return i;
}

struct bus_item *item_free(struct bus_peer *p, struct bus_item *i) {
        closer_blame(!i->fn ? CLOSER_OURS : p->user ? p->uid : CLOSER_STRANGERS);
        sd_bus_message_unref(i->message);
        free(i);
        return NULL;
}

struct bus_user *turn_payer(struct bus_peer *p) {
        return p->user ? p->user : &p->bus->strangers;
}

static void count_call(struct bus_peer *p, const struct bus_item *i) {
        p->n_waiting++;
        weight_add(&p->waiting_sum, i->weight);
        turn_payer(p)->turn.n_calls++;
        weight_add(&turn_payer(p)->turn.sum, i->weight);
}

static struct bus_item *take_call(struct bus_peer *p) {
        struct bus_item *i = STAILQ_FIRST(&p->waiting);

        if (!i)
                return NULL;
        STAILQ_REMOVE_HEAD(&p->waiting, link);
        p->n_waiting--;
        weight_subtract(&p->waiting_sum, i->weight);
        turn_payer(p)->turn.n_calls--;
        weight_subtract(&turn_payer(p)->turn.sum, i->weight);
        return i;
}

static struct bus_item *take_reply(struct bus_peer *p) {
        struct bus_item *i = STAILQ_FIRST(&p->replies);

        if (!i)
                return NULL;
        STAILQ_REMOVE_HEAD(&p->replies, link);
        p->n_replies--;
        p->user->turn.n_replies--;
        return i;
}

static void serve_call(struct bus_peer *p) {
        struct bus_item *i = take_call(p);

        p->bus->call = i->weight;
        bus_run(p->bus, p, i->message, i->fn);
        if (i->fn == builtin_method)
                p->bus->out.bytes = TURN_OUT_BYTES; /* its answer was not counted */
        item_free(p, i);
}

static bool fits(const struct bus_weight *sum, struct bus_weight w, uint64_t max_bytes, unsigned max_fds) {
        return sum->n_bytes + w.n_bytes <= max_bytes && sum->n_fds + w.n_fds <= max_fds;
}

bool turn_may_keep(struct bus_peer *p) {
        const struct bus *b = p->bus;

        if (p->user && quota_is_free(p->uid))
                return true;
        return fits(&turn_payer(p)->turn.sum, b->call, TURN_MAX_BYTES, b->max_fds) ||
               (!p->user && fits(&p->waiting_sum, b->call, TURN_MIN_BYTES, TURN_MIN_FDS));
}

static bool has_room(struct bus_peer *p) {
        return p->n_waiting < TURN_MAX_CALLS && (!p->user || p->user->turn.n_calls < TURN_MAX_CALLS_OF_USER) &&
               turn_may_keep(p);
}

bool turn_is_full(struct bus_peer *p) {
        struct bus_weight w = p->bus->call;

        for (; !has_room(p); p->bus->call = w) {
                if (!p->user || !quota_is_free(p->uid) || STAILQ_EMPTY(&p->waiting))
                        return true;
                serve_call(p);
        }
        return false;
}

bool turn_refuses(const struct bus_peer *p) { return !p->user || p->user->turn.n_replies < TURN_MAX_REFUSALS; }

int turn_wait(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        struct bus_item *i = item_new(m, fn);

        if (!i)
                return -ENOMEM;
        i->weight = p->bus->call;
        STAILQ_INSERT_TAIL(&p->waiting, i, link);
        count_call(p, i);
        turn_join(p);
        return 1;
}

void turn_known(struct bus_peer *p) {
        p->bus->strangers.turn.n_calls -= p->n_waiting;
        weight_subtract(&p->bus->strangers.turn.sum, p->waiting_sum);
        p->user->turn.n_calls += p->n_waiting;
        weight_add(&p->user->turn.sum, p->waiting_sum);
        turn_join(p);
}

void turn_again(struct bus_peer *p, struct bus_item_list *calls) {
        struct bus_item *i;

        STAILQ_FOREACH(i, calls, link) {
                count_call(p, i);
        }
        STAILQ_CONCAT(calls, &p->waiting);
        STAILQ_CONCAT(&p->waiting, calls);
        turn_join(p);
}

/* ---- answers ---- */

void turn_set_limits(struct bus *b) {
        int bytes = 2 * TURN_OUT_BYTES; /* the kernel doubles it; a socket is writable with a quarter of it in use */
        struct rlimit limit;

        b->max_fds = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 16u * TURN_MAX_FDS
                             ? (unsigned)limit.rlim_cur / 16
                             : TURN_MAX_FDS;
        setsockopt(sd_bus_get_fd(b->bus), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* The kernel is asked when what was sent since may be so much. What others than this file send (signals, questions,
 * libsystemd's own answers) is noticed with the next that we do: messages are numbered. */
static bool is_congested(struct bus *b) {
        uint64_t n_queued = 0;
        int bytes = 0, fd;

        sd_bus_get_n_queued_write(b->bus, &n_queued);
        if (n_queued > 0)
                b->out.bytes = TURN_OUT_BYTES;
        else if (b->out.bytes >= TURN_OUT_BYTES && (fd = sd_bus_get_fd(b->bus)) >= 0)
                b->out.bytes = ioctl(fd, SIOCOUTQ, &bytes) == 0 ? (uint64_t)bytes : 0;
        if (b->out.bytes >= TURN_OUT_BYTES)
                return true;
        b->congestion++; /* the next is another one */
        return false;
}

static int send_now(struct bus *b, sd_bus_message *m, struct bus_weight w) {
        uint64_t cookie = 0;
        int r = sd_bus_send(b->bus, m, NULL);

        sd_bus_message_get_cookie(m, &cookie);
        b->out.bytes = cookie == b->out.cookie + 1 ? b->out.bytes + TURN_FRAME_BYTES + w.n_bytes : TURN_OUT_BYTES;
        b->out.cookie = cookie;
        return r;
}

int bus_send(struct bus *b, sd_bus_message *m, struct bus_weight w) {
        const char *to = sd_bus_message_get_destination(m);
        struct bus_peer *p = to ? peer_find(b, to) : NULL;
        uint8_t type = SD_BUS_MESSAGE_SIGNAL;
        struct bus_item *i;

        if (!p || !p->user)
                return sd_bus_send(b->bus, m, NULL);
        if (STAILQ_EMPTY(&p->replies) && !is_congested(b) && unread_has_room(p, w)) {
                unread_count(p, w);
                return send_now(b, m, w);
        }
        sd_bus_message_get_type(m, &type);
        if (p->user->turn.n_replies >= TURN_MAX_REPLIES ||
            (type == SD_BUS_MESSAGE_SIGNAL && p->n_replies >= TURN_MAX_SIGNALS))
                return 1;
        i = item_new(m, NULL);
        if (!i)
                return -ENOMEM;
        i->weight = w;
        STAILQ_INSERT_TAIL(&p->replies, i, link);
        p->n_replies++;
        p->user->turn.n_replies++;
        turn_join(p);
        return 1;
}

static void get_stuck(struct bus_peer *p) {
        p->is_stuck = true;
        unread_ask(p->bus, p->user);
}

static void send_reply(struct bus_peer *p) {
        struct bus_item *i = STAILQ_FIRST(&p->replies);

        if (!unread_has_room(p, i->weight)) {
                get_stuck(p);
                return;
        }
        take_reply(p);
        unread_count(p, i->weight);
        send_now(p->bus, i->message, i->weight);
        item_free(p, i);
}

/* Of who wants it at once while the bus does not take what we have, one answer that nobody else can delay. */
bool turn_may_answer_now(struct bus *b, struct bus_user *u) {
        b->out.bytes = TURN_OUT_BYTES; /* such answers are not counted */
        if (!is_congested(b))
                return true;
        if (u->turn.congestion == b->congestion)
                return false;
        u->turn.congestion = b->congestion;
        return true;
}

/* ---- a turn ---- */

/* The user, and its caller, stand last then. From one turn_clock to the next, which is returned. */
static uint64_t turn_of(struct bus *b, struct bus_user *u, uint64_t began) {
        struct bus_peer *p = TAILQ_FIRST(&u->turn.ready);
        uint64_t end;

        TAILQ_REMOVE(&b->turns, u, turn.link);
        TAILQ_INSERT_TAIL(&b->turns, u, turn.link);
        leave(p);
        if (!STAILQ_EMPTY(&p->replies))
                send_reply(p);
        else if (builtin_has_room(p, STAILQ_FIRST(&p->waiting)))
                serve_call(p);
        else
                get_stuck(p);
        turn_join(p);
        end = turn_clock(b);
        turn_charge(u, end - began);
        b->turn_ns = b->clock.now_ns;
        return end;
}

enum turn_end turn_take(struct bus *b) {
        uint64_t began = TAILQ_EMPTY(&b->turns) ? 0 : turn_clock(b), now = began;
        uint64_t budget = b->intake.has_more ? TURN_SERVE_NS / 4 : TURN_SERVE_NS;
        struct bus_user *u;

        while ((u = TAILQ_FIRST(&b->turns))) {
                if (is_congested(b) && event_now_ns() - b->turn_ns < TURN_STILL_NS)
                        return TURN_CONGESTED;
                if (now - began > budget)
                        return TURN_OVER;
                now = turn_of(b, u, now);
        }
        return TURN_IDLE;
}

uint64_t turn_deadline(const struct bus *b) { return b->turn_ns + TURN_STILL_NS; }

void turn_finish(struct bus *b, uint64_t deadline_ns) {
        uint64_t now = turn_clock(b);
        struct bus_user *u;

        while ((u = TAILQ_FIRST(&b->turns)) && b->clock.now_ns < deadline_ns)
                now = turn_of(b, u, now);
}

void turn_end(struct bus_peer *p, const sd_bus_error *e) {
        struct bus_item *i;

        leave(p);
        for (; (i = take_reply(p)); item_free(p, i))
                sd_bus_send(p->bus->bus, i->message, NULL);
        for (; (i = take_call(p)); item_free(p, i))
                if (e)
                        sd_bus_reply_method_error(i->message, e);
}
