/* What the jobs of a worker emit: one packet an item, on a socket that is for nothing else.
 *
 * A packet is copied once and checked; the first of the wrong shape ends the hearing and the worker, as with its
 * reports. A few are taken a turn of the loop, so a flood costs no more than its share. While the reader of the job in
 * hand is behind, the socket is left alone: it fills, and drover_emit waits in the worker. So a slow reader holds up
 * this one job. All items of a job stand in the socket before its verdict: what is there then, is all there will be. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/packet.h"

enum { ITEMS_A_TURN = 16, ITEMS_AT_ONCE = 4096 };

/* One item. 0, 1: the reader is behind; -EAGAIN, -EPIPE; -EPROTO: it makes no sense. */
static int items_receive(struct worker *w) {
        static struct { /* one thread, one packet at a time */
                struct worker_item head;
                char data[WIRE_MAX_ITEM];
        } packet;
        size_t bytes;
        closer_blame(CLOSER_WORKERS);
        int r = packet_receive(w->items_fd, &packet, sizeof(packet), &bytes, NULL, NULL);
        if (r < 0)
                return r;
        if (bytes == 0)
                return -EPIPE;
        if (bytes <= sizeof(packet.head) || packet.head.version != WIRE_VERSION ||
            packet.head.bytes != bytes - sizeof(packet.head))
                return -EPROTO;
        return stream_take(w, &packet.head, packet.data);
}

static void items_refuse(struct worker *w, int error) {
        loop_poll_change(&w->items_poll, 0);
        if (error == -EPIPE)
                return; /* its death follows, or it does without */
        log_error("pool %s, worker %llu: an item that makes no sense", w->pool->config.name, (unsigned long long)w->id);
        worker_kill_now(w, REASON_INIT);
}

static void items_on_socket(struct loop_poll *p, uint32_t revents) {
        struct worker *w = p->user;
        for (unsigned i = 0; i < ITEMS_A_TURN; i++) {
                int r = items_receive(w);
                if (r == 1)
                        loop_poll_change(p, 0);
                if (r < 0 && r != -EAGAIN)
                        items_refuse(w, r);
                if (r != 0)
                        return;
        }
}

int worker_items_start(struct worker *w, int *ret_worker_fd) {
        int fds[2], r = packet_pair(fds);
        if (r < 0)
                return r;
        w->items_fd = fds[0];
        *ret_worker_fd = fds[1];
        if (fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        return loop_poll_start(w->pool->supervisor->loop, &w->items_poll, w->items_fd, POLLIN, items_on_socket, w);
}

void worker_items_take_all(struct worker *w) {
        int r = 0;
        for (unsigned i = 0; w->items_fd >= 0 && i < ITEMS_AT_ONCE && r >= 0; i++)
                r = items_receive(w);
}

void worker_items_resume(struct worker *w) {
        if (w->items_fd >= 0 && w->items_poll.slot)
                loop_poll_change(&w->items_poll, POLLIN);
}

void worker_items_stop(struct worker *w) {
        worker_items_take_all(w);
        stream_forget_worker(w);
        loop_poll_stop(&w->items_poll);
        if (w->items_fd >= 0)
                closer_close(w->items_fd, CLOSER_WORKERS);
        w->items_fd = -1;
}
