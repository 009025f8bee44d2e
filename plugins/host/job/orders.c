/* The worker's copy of who may give it work. Owns the mappings of bells and channels and the order in which orders are
 * read.
 *
 * Invariants: sizes come from the order (the broker's word), never from the memory itself; every descriptor is closed
 * right after it is mapped, but for the done doorbell; numbers are checked against the tables before use. A worker only
 * maps and unmaps here, between two jobs, so nothing is unmapped under a running one.
 *
 * The broker is trusted, but not to be of the same build: an order it cannot have meant ends the worker (-EPROTO). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "plugins/host/job/orders.h"

enum {
        VAIN_MANY = 1000, /* wake-ups for nothing, in VAIN_SOON_NS: a twentieth of a CPU goes there */
        VAIN_A_JOB = 16,  /* so many are made up for by one job: another worker is often faster, and nobody's fault */
};
#define VAIN_SOON_NS UINT64_C(200000000)

void orders_init(struct orders *o, int fd, struct orders_held *held) { *o = (struct orders){.fd = fd, .held = held}; }

struct orders_held_one {
        struct orders_held_one *next;
        struct worker_order order;
        struct orders_channel *channel; /* ORDER_CHANNEL: mapped already, or NULL */
        int fds[ORDERS_MAX_FDS];
        unsigned n_fds;
};

static void close_all(const int *fds, unsigned n_fds) {
        for (unsigned i = 0; i < n_fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
}

static bool is_within_bounds(const struct worker_order *order) {
        return order->channel < LAYOUT_MAX_CHANNELS && order->bell < LAYOUT_MAX_BELLS;
}

/* Takes the descriptor it keeps out of `fds`. */
static int map_channel(const struct worker_order *order, int *fds, unsigned n_fds, struct orders_channel **ret) {
        struct channel_geometry g;
        if (n_fds < 3 || n_fds > 4 || channel_geometry_init(&g, order->n_slots, order->slot_bytes) < 0)
                return -EPROTO;
        const int memories[CHANNEL_PARTS] = {fds[0], fds[1], fds[2], -1};
        struct orders_channel *c = malloc(sizeof *c);
        if (!c)
                return -ENOMEM;
        int r = channel_map(&c->channel, &g, memories, CHANNEL_WORKER);
        if (r < 0) {
                free(c);
                return r;
        }
        c->bell = order->bell;
        c->id_base = order->id;
        c->done_fd = n_fds == 4 ? fds[3] : -1;
        if (n_fds == 4)
                fds[3] = -1; /* ours now */
        *ret = c;
        return 0;
}

static void unmap_channel(struct orders_channel *c) {
        channel_unmap(&c->channel);
        if (c->done_fd >= 0)
                close(c->done_fd);
        free(c);
}

/* Keeps the descriptors, also on failure. Of a channel there are four, more than a worker may have of all channels at
 * once: so it is mapped at once. */
static int hold(struct orders_held *held, const struct worker_order *order, int *fds, unsigned n_fds) {
        struct orders_held_one *one = malloc(sizeof *one);
        int r = !one ? -ENOMEM : is_within_bounds(order) ? 0 : -EPROTO;
        if (one)
                *one = (struct orders_held_one){.order = *order};
        if (r >= 0 && order->type == ORDER_CHANNEL)
                r = map_channel(order, fds, n_fds, &one->channel);
        if (r < 0 || one->channel)
                close_all(fds, n_fds);
        if (r < 0) {
                free(one);
                return r;
        }
        if (!one->channel) {
                memcpy(one->fds, fds, n_fds * sizeof *fds);
                one->n_fds = n_fds;
        }
        if (!held->first)
                held->last = &held->first;
        *held->last = one;
        held->last = &one->next;
        return 0;
}

static int await_readable(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

/* What an order cannot be taken for: if no descriptor is left, those that it brought are lost, and that is not the
 * broker's doing but the plugin's, which leaks them. */
static int orders_fault(int r) {
        int fd = r == -EPROTO ? fcntl(WIRE_CONTROL_FD, F_DUPFD_CLOEXEC, 0) : -1;
        if (fd >= 0)
                close(fd);
        return r == -EPROTO && fd < 0 && errno == EMFILE ? -EMFILE : r;
}

int orders_await(struct orders_held *held, int fd, enum worker_order_type type, struct worker_order *ret_order,
                 int *ret_fds, unsigned *ret_n_fds) {
        for (;;) {
                size_t bytes;
                *ret_n_fds = ORDERS_MAX_FDS;
                int r = packet_await(fd, ret_order, sizeof *ret_order, &bytes, ret_fds, ret_n_fds);
                if (r == -EAGAIN) {
                        r = await_readable(fd);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (r < 0)
                        return orders_fault(r);
                if (bytes == 0)
                        return -EPIPE;
                if (bytes != sizeof *ret_order || ret_order->version != WIRE_VERSION) {
                        close_all(ret_fds, *ret_n_fds);
                        return -EPROTO;
                }
                if (ret_order->type == type)
                        return 0;
                r = hold(held, ret_order, ret_fds, *ret_n_fds);
                if (r < 0)
                        return r;
        }
}

static uint64_t channel_bit(uint32_t channel) { return UINT64_C(1) << (channel & 63); }

static int add_bell(struct orders *o, const struct worker_order *order, const int *fds, unsigned n_fds) {
        struct orders_bell *b = &o->bell[order->bell];
        if (n_fds != 1 || b->bell)
                return -EPROTO;
        int r = bell_map(fds[0], &b->bell);
        if (r < 0)
                return r;
        if (order->bell >= o->n_bells)
                o->n_bells = order->bell + 1;
        return 0;
}

static int drop_bell(struct orders *o, const struct worker_order *order) {
        struct orders_bell *b = &o->bell[order->bell];
        for (uint32_t i = 0; i < LAYOUT_BELL_WORDS; i++)
                if (b->channels[i])
                        return -EPROTO; /* its channels go first */
        if (b->bell)
                bell_unmap(b->bell);
        *b = (struct orders_bell){0};
        while (o->n_bells > 0 && !o->bell[o->n_bells - 1].bell)
                o->n_bells--;
        return 0;
}

/* The channel is ours, also on failure. */
static int add_channel(struct orders *o, const struct worker_order *order, struct orders_channel *c) {
        if (o->channel[order->channel] || !o->bell[order->bell].bell) {
                unmap_channel(c);
                return -EPROTO;
        }
        o->channel[order->channel] = c;
        o->bell[order->bell].channels[order->channel / 64] |= channel_bit(order->channel);
        if (c->channel.geometry.slot_bytes > o->max_slot_bytes)
                o->max_slot_bytes = c->channel.geometry.slot_bytes;
        return 0;
}

static int map_and_add_channel(struct orders *o, const struct worker_order *order, int *fds, unsigned n_fds) {
        struct orders_channel *c;
        int r = map_channel(order, fds, n_fds, &c);
        return r < 0 ? r : add_channel(o, order, c);
}

static void mute(struct orders *o, uint32_t channel) {
        struct orders_bell *b = &o->bell[o->channel[channel]->bell];
        b->channels[channel / 64] &= ~channel_bit(channel);
}

static int report_on(const struct orders *o, enum worker_report_type type, uint32_t channel, int error) {
        const struct worker_report report = {.type = type, .version = WIRE_VERSION, .channel = channel, .error = error};
        int r;
        while ((r = packet_send(o->fd, &report, sizeof report, NULL, 0)) == -EAGAIN) {
                struct pollfd p = {.fd = o->fd, .events = POLLOUT};
                if (poll(&p, 1, -1) < 0 && errno != EINTR)
                        return -errno;
        }
        return r;
}

void orders_foul(struct orders *o, uint32_t channel, int error) {
        mute(o, channel);
        report_on(o, REPORT_FOUL, channel, error); /* nobody to hear it: then its end is near, and ours */
}

void orders_vain(struct orders *o, uint32_t bell) {
        struct orders_bell *b = &o->bell[bell];
        if (b->n_vain++ == 0)
                b->vain_since_ns = event_now_ns();
        if (b->n_vain < VAIN_MANY)
                return;
        b->n_vain = 0;
        if (event_now_ns() < b->vain_since_ns + VAIN_SOON_NS)
                report_on(o, REPORT_VAIN, bell, 0);
}

void orders_served(struct orders *o, uint32_t bell) {
        struct orders_bell *b = &o->bell[bell];
        b->n_vain = b->n_vain > VAIN_A_JOB ? b->n_vain - VAIN_A_JOB : 0;
}

static int drop_channel(struct orders *o, const struct worker_order *order) {
        struct orders_channel *c = o->channel[order->channel];
        if (c) {
                mute(o, order->channel);
                unmap_channel(c);
                o->channel[order->channel] = NULL;
        }
        return report_on(o, REPORT_DROPPED, order->channel, 0);
}

/* Takes descriptors it keeps out of `fds`. */
static int obey(struct orders *o, const struct worker_order *order, int *fds, unsigned n_fds) {
        if (!is_within_bounds(order))
                return -EPROTO;
        switch (order->type) {
        case ORDER_BELL:
                return add_bell(o, order, fds, n_fds);
        case ORDER_CHANNEL:
                return map_and_add_channel(o, order, fds, n_fds);
        case ORDER_DROP:
                return drop_channel(o, order);
        case ORDER_DROP_BELL:
                return drop_bell(o, order);
        default:
                return -EPROTO;
        }
}

static int obey_held(struct orders *o) {
        int r = 0;
        while (o->held->first && r >= 0) {
                struct orders_held_one *one = o->held->first;
                o->held->first = one->next;
                r = one->channel ? add_channel(o, &one->order, one->channel)
                                 : obey(o, &one->order, one->fds, one->n_fds);
                close_all(one->fds, one->n_fds);
                free(one);
        }
        return r;
}

static int obey_waiting(struct orders *o) {
        for (;;) {
                struct worker_order order;
                size_t bytes;
                int fds[ORDERS_MAX_FDS];
                unsigned n_fds = ORDERS_MAX_FDS;
                int r = packet_receive(o->fd, &order, sizeof order, &bytes, fds, &n_fds);
                if (r == -EAGAIN)
                        return 0;
                if (r < 0)
                        return orders_fault(r);
                if (bytes == 0)
                        return -EPIPE;
                r = bytes != sizeof order || order.version != WIRE_VERSION ? -EPROTO : obey(o, &order, fds, n_fds);
                close_all(fds, n_fds);
                if (r < 0)
                        return r;
        }
}

/* After the orders: a bell's bits were set before it was given to us. While they change there may be too many that have
 * a place; `control` changes after them, so we come back before we sleep. */
static void choose_waited(struct orders *o, const struct layout_pool *pool) {
        uint64_t placeless[LAYOUT_BELL_WORDS];
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++) {
                o->muted[i] = atomic_load_explicit(&pool->muted[i], memory_order_relaxed);
                placeless[i] = atomic_load_explicit(&pool->placeless[i], memory_order_relaxed);
        }
        o->n_waited = o->n_others = 0;
        for (uint32_t i = 0; i < o->n_bells; i++) {
                bool has_place = !(placeless[i / 64] >> i % 64 & 1);
                if (!orders_hears(o, i))
                        continue;
                if (has_place && o->n_waited < LAYOUT_BELLS_PER_WORKER)
                        o->waited[o->n_waited++] = i;
                else
                        o->n_others++;
        }
}

int orders_read(struct orders *o, const struct layout_pool *pool) {
        int r = obey_held(o);
        if (r >= 0)
                r = obey_waiting(o);
        if (r >= 0)
                choose_waited(o, pool);
        return r;
}

/* ---- whose turn is it ---- */

static uint64_t work_of(const struct orders_bell *b, uint32_t word) {
        return atomic_load_explicit(&b->bell->work[word], memory_order_acquire) & b->channels[word];
}

int orders_next(const struct orders *o, uint32_t bell, uint32_t from) {
        const struct orders_bell *b = &o->bell[bell];
        if (!orders_hears(o, bell))
                return -1;
        for (uint32_t word = from / 64; word < LAYOUT_BELL_WORDS; word++) {
                uint64_t bits = work_of(b, word);
                if (word == from / 64)
                        bits &= ~UINT64_C(0) << (from & 63);
                if (bits)
                        return (int)(word * 64) + __builtin_ctzll(bits);
        }
        return -1;
}

bool orders_have_work(const struct orders *o) {
        for (uint32_t i = 0; i < o->n_bells; i++)
                for (uint32_t word = 0; orders_hears(o, i) && word < LAYOUT_BELL_WORDS; word++)
                        if (work_of(&o->bell[i], word))
                                return true;
        return false;
}
