/* The extension "drover.arena/1": a plugin asks the broker for an arena, by name.
 *
 * The answer comes on the socket that orders come on, and orders may come before it. What a worker maps and unmaps it
 * does between two jobs, so they are put aside (orders_await) and obeyed at the next look. The wait has no deadline:
 * the broker answers at once, or it is gone, and then the worker has nothing to do any more. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "ipc/values/options.h"
#include "plugins/host/job/job.h"
#include "plugins/host/job/orders.h"

static int arena_open_with(const void *object, const char *name, const struct drover_arena_options *options,
                           int *ret_fd) {
        struct host *h = (struct host *)job_host(object);
        struct drover_arena_options o;
        size_t byte;
        int r = options_copy(options, sizeof o.struct_size, &o, sizeof o, &byte);
        if (r < 0)
                return r;
        if (o.flags & ~(uint32_t)DROVER_ARENA_TRANSIENT)
                return -EINVAL;
        struct worker_report report = {
                .type = REPORT_ARENA,
                .version = WIRE_VERSION,
                .arena_bytes = o.bytes,
                .arena_objects = o.max_objects,
                .arena_processes = o.max_processes,
                .arena_is_transient = o.flags & DROVER_ARENA_TRANSIENT,
        };
        struct worker_order order;
        int fds[ORDERS_MAX_FDS];
        unsigned n_fds = 0;
        if (!h->line || object == &h->preload) /* a template has no broker */
                return -EPERM;
        snprintf(report.text, sizeof report.text, "%s", name);
        r = host_send(h, &report, sizeof report);
        if (r >= 0)
                r = orders_await(&h->held, WIRE_CONTROL_FD, ORDER_ARENA, &order, fds, &n_fds);
        if (r < 0)
                return r;
        if (n_fds == 1 && order.error == 0) {
                *ret_fd = fds[0];
                return 0;
        }
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
        return n_fds == 0 && order.error > 0 && order.error < 4096 ? -order.error : -EPROTO;
}

static int arena_open(const void *object, const char *name, uint64_t bytes, int *ret_fd) {
        const struct drover_arena_options options = {.struct_size = sizeof options, .bytes = bytes};
        return arena_open_with(object, name, &options, ret_fd);
}

const struct drover_arena_extension arena_extension = {
        .struct_size = sizeof arena_extension,
        .open = arena_open,
        .open_with = arena_open_with,
};
