/* What the broker sends to a worker: its setup, the bells and channels it is to serve, and which of them to let go.
 *
 * A worker reads its orders between two jobs, so its socket may be full of them: what did not fit is sent when there is
 * room, from the state of the pool as it is then (worker_sync), so nothing is queued here. What could not be sent for
 * another reason (no memory, more descriptors on their way than the kernel allows our user) is tried again a moment
 * later: the socket would not say when. The command (run, wait, retire) is a word in its line of pool memory and needs
 * no room. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

#define WORKER_RETRY_NS UINT64_C(10000000)

void worker_poke(struct worker *w) { event_publish(&worker_line(w)->control, ++w->control); }

static int worker_order(struct worker *w, const struct worker_order *order, const int *fds, unsigned n_fds) {
        return packet_send(w->control_fd, order, sizeof(*order), fds, n_fds);
}

static void worker_on_foul_doorbell(void *user) {
        struct worker *w = user;
        log_error("pool %s, worker %llu: its doorbell is sent what is no ring", w->pool->config.name,
                  (unsigned long long)w->id);
        worker_kill_now(w, REASON_INIT);
}

static int worker_doorbell_start(struct worker *w, int *ret_ring_fd) {
        const struct pool_doorbell doorbell = {
                .pool = w->pool,
                .rate = &w->rate,
                .uid = CLOSER_WORKERS,
                .on_foul = worker_on_foul_doorbell,
                .user = w,
        };
        return pool_doorbell_open(&w->doorbell, &doorbell, ret_ring_fd);
}

int worker_send_setup(struct worker *w) {
        int output = -1, items = -1, doorbell = -1;
        struct worker_order order = {.type = ORDER_SETUP,
                                     .version = WIRE_VERSION,
                                     .index = w->index,
                                     .model = 1,
                                     .id = w->id,
                                     .marks_output = 1};
        snprintf(order.pool, sizeof(order.pool), "%s", w->pool->config.name);
        int r = worker_output_start(w, &output);
        if (r >= 0)
                r = worker_items_start(w, &items);
        if (r >= 0)
                r = worker_doorbell_start(w, &doorbell);
        if (r >= 0) {
                int fds[] = {w->pool->memory_fd, doorbell, output, items};
                r = worker_order(w, &order, fds, 4);
        }
        if (output >= 0)
                close(output);
        if (items >= 0)
                close(items);
        if (doorbell >= 0)
                close(doorbell);
        return r;
}

static int worker_send_bell(struct worker *w, uint32_t bell) {
        struct worker_order order = {.type = ORDER_BELL, .version = WIRE_VERSION, .bell = bell};
        int r = worker_order(w, &order, &w->pool->bells[bell].fd, 1);
        if (r >= 0)
                w->bells_sent[bell / 64] |= UINT64_C(1) << bell % 64;
        return r;
}

static int worker_send_channel(struct worker *w, struct pool_channel *c) {
        uint64_t bit = UINT64_C(1) << w->index % 64;
        uint64_t *attached = &c->attached[w->index / 64], *drop_sent = &c->drop_sent[w->index / 64];
        struct worker_order order = {
                .version = WIRE_VERSION,
                .channel = c->index,
                .bell = c->bell,
                .n_slots = c->channel.geometry.n_slots,
                .slot_bytes = c->channel.geometry.slot_bytes,
                .id = c->id_base,
        };
        int r = 0;
        if (!c->is_dead && !(*attached & bit)) {
                int fds[] = {c->fds[CHANNEL_COMMON], c->fds[CHANNEL_JOBS], c->fds[CHANNEL_RESULTS], c->done.ring_fd};
                if (!worker_knows_bell(w, c->bell))
                        r = worker_send_bell(w, c->bell);
                order.type = ORDER_CHANNEL;
                r = r < 0 ? r : worker_order(w, &order, fds, 4);
                if (r >= 0)
                        *attached |= bit;
        } else if ((c->is_dead || c->doubted[w->index / 64] & bit) && (*attached & bit) && !(*drop_sent & bit)) {
                order.type = ORDER_DROP;
                r = worker_order(w, &order, NULL, 0);
                if (r >= 0)
                        *drop_sent |= bit;
                if (r >= 0 && !c->is_dead && w->asked_ns == 0)
                        w->asked_ns = event_now_ns();
        }
        return r;
}

/* Its channels went before it. */
static int worker_drop_bell(struct worker *w, uint32_t bell) {
        struct worker_order order = {.type = ORDER_DROP_BELL, .version = WIRE_VERSION, .bell = bell};
        int r = worker_order(w, &order, NULL, 0);
        if (r >= 0)
                w->bells_sent[bell / 64] &= ~(UINT64_C(1) << bell % 64);
        return r;
}

static void worker_on_retry(struct loop_timer *t) { worker_sync(t->user); }

void worker_send_later(struct worker *w, int error) {
        if (w->is_unheard)
                return;
        loop_poll_change(&w->control_poll, error == -EAGAIN ? POLLIN | POLLOUT : POLLIN);
        if (error < 0 && error != -EAGAIN && error != -EPIPE) /* its end is told by the socket's poll */
                loop_timer_set(w->pool->supervisor->loop, &w->retry_timer, event_now_ns() + WORKER_RETRY_NS,
                               worker_on_retry, w);
}

void worker_sync(struct worker *w) {
        if (w->control_fd < 0)
                return;
        int r = worker_answer_arena(w);
        if (r >= 0)
                r = worker_answer_fds(w);
        bool is_served = w->phase == PHASE_READY || w->phase == PHASE_STOPPING;
        for (uint32_t i = 0; is_served && i < LAYOUT_MAX_CHANNELS && r >= 0; i++)
                if (w->pool->channels[i])
                        r = worker_send_channel(w, w->pool->channels[i]);
        for (uint32_t i = 0; is_served && i < w->pool->n_bells && r >= 0; i++)
                if (worker_knows_bell(w, i) && pool_bell_is_over(w->pool, i))
                        r = worker_drop_bell(w, i);
        worker_send_later(w, r);
        worker_poke(w);
}

static uint32_t worker_wish(const struct worker *w) {
        return w->phase == PHASE_STOPPING ? WORKER_RETIRE
               : w->phase != PHASE_READY  ? WORKER_WAIT
               : w->pool->is_paused       ? WORKER_WAIT
               : w->is_standby            ? WORKER_WAIT
                                          : WORKER_RUN;
}

void worker_command(struct worker *w) {
        uint32_t command = worker_wish(w);
        if (atomic_exchange(&worker_line(w)->command, command) != command)
                worker_poke(w);
}

void worker_heal_line(struct worker *w) {
        struct layout_worker *line = worker_line(w);
        atomic_store(&line->command, worker_wish(w));
        atomic_store(&line->soft_hit, w->soft_hit);
        atomic_store(&line->max_claims, w->pool->config.max_jobs);
}

void worker_shake(struct worker *w) {
        w->control += (uint32_t)event_now_ns() | 1;
        worker_poke(w);
}
