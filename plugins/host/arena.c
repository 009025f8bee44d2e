/* The extension "drover.arena/1": a plugin asks the broker for an arena, by name.
 *
 * The answer comes on the socket that orders come on, and orders may come before it. What a worker maps and unmaps it
 * does between two jobs, so they are put aside (orders_hold) and obeyed at the next look. The wait has no deadline: the
 * broker answers at once, or it is gone, and then the worker has nothing to do any more. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/packet.h"
#include "plugins/host/job.h"
#include "plugins/host/orders.h"

/* 1: the answer, with its descriptor or -1 in *ret_fd; 0: something else, which was put aside. */
static int arena_receive(struct host *h, struct worker_order *order, int *ret_fd) {
        int fds[ORDERS_MAX_FDS];
        unsigned n_fds = ORDERS_MAX_FDS;
        size_t bytes;
        int r = packet_receive(WIRE_CONTROL_FD, order, sizeof *order, &bytes, fds, &n_fds);
        if (r < 0)
                return r;
        if (bytes == 0)
                return -EPIPE;
        if (bytes == sizeof *order && order->version == WIRE_VERSION && order->type != ORDER_ARENA)
                return orders_hold(&h->held, order, fds, n_fds);
        bool is_sane = bytes == sizeof *order && order->version == WIRE_VERSION && n_fds == (order->error == 0);
        if (is_sane) {
                *ret_fd = n_fds ? fds[0] : -1;
                return 1;
        }
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
        return -EPROTO;
}

static int arena_open(const void *object, const char *name, uint64_t bytes, int *ret_fd) {
        struct host *h = (struct host *)job_host(object);
        struct worker_report report = {.type = REPORT_ARENA, .version = WIRE_VERSION, .arena_bytes = bytes};
        struct worker_order order;
        if (!h->line || object == &h->preload) /* a template has no broker */
                return -EPERM;
        snprintf(report.text, sizeof report.text, "%s", name);
        int fd = -1, r = host_send(h, &report, sizeof report);
        while (r == 0) {
                r = arena_receive(h, &order, &fd);
                if (r == -EAGAIN)
                        r = host_wait_readable();
        }
        if (r < 0)
                return r;
        if (fd < 0)
                return order.error > 0 && order.error < 4096 ? -order.error : -EPROTO;
        *ret_fd = fd;
        return 0;
}

const struct drover_arena_extension arena_extension = {
        .struct_size = sizeof arena_extension,
        .open = arena_open,
};
