/* Descriptors of a job and of its result, and results that do not fit into the slot: all that goes by way of the
 * broker.
 *
 * A job whose slot word says so has descriptors; the broker has them, also for the next attempt, and is asked before
 * the handler runs. The first may be the payload, as a sealed memory file: it is checked here as well, because it is
 * read in place. They are ours until the handler returned, and closed before the verdict: the broker has its own until
 * then, so ours are never the last ones, which could keep us waiting; and if a close waits all the same (a file of
 * FUSE), that is the job's time, with the job's limits.
 *
 * A result grows in memory of our own when the slot is full. When the handler is done, the broker lends a memory file
 * for it (the sandbox lets us make none), it is written there, and handed over before the verdict. Jobs without any of
 * this never come here. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/sealed.h"
#include "plugins/host/job/job.h"
#include "plugins/host/job/orders.h"

static void fds_close(int *fds, unsigned *n_fds) {
        for (unsigned i = 0; i < *n_fds; i++)
                close(fds[i]);
        *n_fds = 0;
}

/* One question, with descriptors or without, and its answer. -EPIPE, -EPROTO: there is no broker to talk to. */
static int fds_ask(struct drover_job *j, struct worker_report *report, const int *send, unsigned n_send,
                   struct worker_order *ret_order, int *ret_fds, unsigned *ret_n_fds) {
        struct host *h = (struct host *)job_host(j);
        report->version = WIRE_VERSION;
        report->channel = j->channel_index;
        report->slot = j->slot;
        report->generation = slot_generation(j->claimed);
        int r = host_send_fds(h, report, sizeof *report, send, n_send);
        if (r >= 0)
                r = orders_await(&h->held, WIRE_CONTROL_FD, ORDER_FDS, ret_order, ret_fds, ret_n_fds);
        j->is_orphaned = r < 0;
        j->is_full = r == -EMFILE;
        return r;
}

/* ---- what came ---- */

static int fds_map_payload(struct drover_job *j, uint64_t bytes) {
        uint64_t found;
        if (j->n_fds == 0 || sealed_check(j->fds[0], &found) < 0 || found != bytes)
                return job_fail(j, EBADMSG, "its payload is no sealed memory file");
        int r = sealed_map(j->fds[0], bytes, &j->mapped);
        if (r < 0)
                return job_fail(j, -r, "its payload of %llu bytes cannot be mapped: %s", (unsigned long long)bytes,
                                strerrordesc_np(-r));
        j->mapped_bytes = bytes;
        j->first_fd = 1;
        return 0;
}

int job_fds_take(struct drover_job *j) {
        struct worker_report report = {.type = REPORT_FDS};
        struct worker_order order;
        int r = fds_ask(j, &report, NULL, 0, &order, j->fds, &j->n_fds);
        if (r < 0)
                return r;
        if (order.error == ENOENT)
                return job_fail(j, EBADF,
                                "its descriptors are not there: they did not come, or went with an earlier "
                                "droverd");
        if (order.error == EDQUOT)
                return job_fail(j, EBADF,
                                "its descriptors are not to be had: too many workers hang in files that its submitter "
                                "sent before, and none of them can be ended until these answer");
        if (order.error != 0)
                return job_fail(j, EBADF, "its descriptors are not to be had: %s",
                                strerrordesc_np(order.error) ?: "unknown error");
        return order.payload_bytes > 0 ? fds_map_payload(j, order.payload_bytes) : 0;
}

int job_fds_get(const struct drover_job *j, uint64_t i) {
        return i < j->n_fds - j->first_fd ? j->fds[j->first_fd + i] : -1;
}

/* ---- what goes ---- */

int job_fds_add(struct drover_job *j, int fd, uint64_t *ret_i) {
        if (j->n_ret_fds == SCHEMA_MAX_FDS)
                return -E2BIG;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0)
                return -errno;
        *ret_i = j->n_ret_fds;
        j->ret_fds[j->n_ret_fds++] = copy;
        return 0;
}

int job_fds_reply(struct drover_job *j, int fd) {
        uint64_t bytes;
        if (sealed_check(fd, &bytes) < 0)
                return -EINVAL;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0)
                return -errno;
        job_forget_reply(j);
        j->reply_fd = copy;
        j->reply_bytes = bytes;
        return 0;
}

void job_forget_reply(struct drover_job *j) {
        if (j->reply_bytes > 0)
                close(j->reply_fd);
        j->reply_bytes = 0;
}

int job_grow_result(struct drover_job *j, size_t used, size_t bytes) {
        size_t room = j->out == j->result ? job_result_capacity(j) : j->big_bytes;
        if (used + bytes <= room)
                return 0;
        if (bytes > SEALED_MAX_BYTES || used > SEALED_MAX_BYTES - bytes) {
                j->is_too_large = true;
                return -EMSGSIZE;
        }
        size_t wanted = used + bytes > 2 * room ? used + bytes : 2 * room;
        uint8_t *big = malloc(wanted);
        if (!big)
                return -ENOMEM;
        memcpy(big, j->out, used);
        free(j->big);
        j->big = j->out = big;
        j->big_bytes = wanted;
        return 0;
}

static int fds_write(int fd, const uint8_t *data, size_t bytes) {
        for (size_t at = 0; at < bytes;) {
                ssize_t n = pwrite(fd, data + at, bytes - at, (off_t)at);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                at += (size_t)n;
        }
        return 0;
}

static int fds_refused(struct drover_job *j, int error) {
        if (error == ESTALE) /* judged meanwhile: the verdict will not be taken either */
                return 0;
        return job_fail(j, error, "a result of %zu bytes and %u descriptors cannot be handed over: %s", j->result_bytes,
                        j->n_ret_fds, strerrordesc_np(error) ?: "unknown error");
}

/* The result into a memory file of the broker's. */
static int fds_fill_room(struct drover_job *j) {
        struct worker_report report = {.type = REPORT_ROOM, .payload_bytes = j->result_bytes};
        struct worker_order order;
        int fds[ORDERS_MAX_FDS];
        unsigned n_fds;
        int r = fds_ask(j, &report, NULL, 0, &order, fds, &n_fds);
        if (r < 0)
                return r;
        r = order.error > 0 ? fds_refused(j, order.error) : n_fds == 1 ? fds_write(fds[0], j->out, j->result_bytes) : 0;
        if (r >= 0 && order.error == 0 && n_fds == 1)
                r = sealed_close(fds[0]);
        if (r < 0 && order.error == 0)
                job_fail(j, -r, "a result of %zu bytes cannot be written: %s", j->result_bytes, strerrordesc_np(-r));
        fds_close(fds, &n_fds);
        return r < 0 ? r : order.error > 0 ? 1 : 0;
}

int job_fds_deliver(struct drover_job *j) {
        struct worker_report report = {.type = REPORT_RESULT};
        struct worker_order order;
        int fds[ORDERS_MAX_FDS], none[ORDERS_MAX_FDS];
        unsigned n_fds = 0, n_none;
        int r = 0;
        if (j->reply_bytes > 0) {
                fds[n_fds++] = j->reply_fd;
                report.payload_bytes = j->reply_bytes;
        } else if (j->result_bytes > job_result_capacity(j)) {
                report.has_room = 1;
                report.payload_bytes = j->result_bytes;
                r = fds_fill_room(j);
        } else if (j->n_ret_fds == 0) {
                return 0;
        }
        if (r != 0) /* failed, or judged meanwhile */
                return r < 0 ? r : 0;
        memcpy(fds + n_fds, j->ret_fds, j->n_ret_fds * sizeof *fds);
        r = fds_ask(j, &report, fds, n_fds + j->n_ret_fds, &order, none, &n_none);
        if (r < 0)
                return r;
        fds_close(none, &n_none);
        if (order.error > 0)
                return fds_refused(j, order.error);
        j->has_result_fds = true;
        if (report.payload_bytes > 0)
                j->result_bytes = 0;
        return 0;
}

/* ---- the end ---- */

void job_fds_close(struct drover_job *j) {
        fds_close(j->fds, &j->n_fds);
        fds_close(j->ret_fds, &j->n_ret_fds);
        job_forget_reply(j);
        sealed_unmap(j->mapped, j->mapped_bytes);
        j->mapped = NULL;
        j->first_fd = 0;
        free(j->big);
        j->big = NULL;
        j->big_bytes = 0;
}

void job_fds_end(const struct drover_job *j) {
        const struct worker_report report = {
                .type = REPORT_ENDED,
                .version = WIRE_VERSION,
                .channel = j->channel_index,
                .slot = j->slot,
                .generation = slot_generation(j->claimed),
        };
        host_send_fds(job_host(j), &report, sizeof report, NULL, 0); /* nobody to hear it: then nobody keeps them */
}
