/* drover_emit: an item goes to the broker, as one packet on a socket that is for nothing else.
 *
 * The socket is the queue: while it is full its reader is slow, and the handler waits here. Nobody wakes it for a
 * cancel or a soft limit, so it looks at the slot word a hundred times a second meanwhile, as its own checkpoint would.
 * write and poll are in every filter; the socket never blocks by itself. All packets of a job stand in the socket
 * before its verdict does in the slot word. */
#include <errno.h>
#include <poll.h>
#include <sys/uio.h>

#include "plugins/host/job/job.h"

enum { EMIT_LOOK_MS = 10 };

int job_emit(drover_job *job, const void *data, size_t size) {
        const struct host *h = job_host(job);
        if (size == 0)
                return -EINVAL; /* an empty packet is how a stream ends */
        if (size > WIRE_MAX_ITEM)
                return -EMSGSIZE;
        struct worker_item head = {
                .version = WIRE_VERSION,
                .channel = (uint32_t)(atomic_load_explicit(&job->line->record, memory_order_relaxed) >> 16 & 0xffff),
                .slot = job->slot,
                .generation = slot_generation(job->claimed),
                .attempt = slot_attempt(job->claimed),
                .bytes = (uint32_t)size,
        };
        const struct iovec parts[] = {{.iov_base = &head, .iov_len = sizeof head},
                                      {.iov_base = (void *)data, .iov_len = size}};
        for (;;) {
                int r = job_checkpoint(job);
                if (r < 0)
                        return r;
                if (writev(h->items_fd, parts, 2) >= 0)
                        return 0;
                if (errno == EAGAIN) {
                        if (poll(&(struct pollfd){.fd = h->items_fd, .events = POLLOUT}, 1, EMIT_LOOK_MS) < 0 &&
                            errno != EINTR)
                                return -errno;
                } else if (errno != EINTR)
                        return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : -errno;
        }
}
