/* A worker that holds what the kernel keeps of a file while somebody writes into it, for as long as the maker of
 * another file likes: it writes from a mapping of `in`, whose reads hang. */
#include <drover/plugin.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "ipc/wire.h"

enum { PAGE = 4096 };

static const void *hung;

static int map_in(drover_job *job) {
        int fd, r = drover_arg_fd(job, "in", &fd);
        if (r < 0)
                return r;
        hung = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        return hung == MAP_FAILED ? drover_fail(job, errno, "mmap") : 0;
}

/* What the broker reads. */
static int output(drover_job *job) {
        int r = map_in(job);
        if (r < 0)
                return r;
        if (write(STDOUT_FILENO, "read this\n", 10) != 10)
                return drover_fail(job, errno, "write");
        return write(STDOUT_FILENO, hung, PAGE) < 0 ? drover_fail(job, errno, "write") : 0;
}

static void *write_room(void *fd) { return pwrite(*(int *)fd, hung, PAGE, 0) < 0 ? fd : NULL; }

static int ask(struct worker_report *r, int *fds, unsigned *n_fds, struct worker_order *order) {
        size_t bytes;
        int e;
        r->version = WIRE_VERSION;
        do
                e = packet_send(WIRE_CONTROL_FD, r, sizeof *r, NULL, 0);
        while (e == -EAGAIN);
        do {
                *n_fds = PACKET_MAX_FDS;
                if (e >= 0)
                        e = packet_await(WIRE_CONTROL_FD, order, sizeof *order, &bytes, fds, n_fds);
        } while (e >= 0 && order->type != ORDER_FDS);
        return e;
}

/* The memory file for a long result, which the broker lends: it is handed over while a thread writes into it. */
static int room(drover_job *job) {
        struct worker_report report = {.type = REPORT_ROOM, .payload_bytes = PAGE};
        struct worker_order order = {.error = ESTALE};
        static int fds[PACKET_MAX_FDS];
        unsigned n_fds = 0;
        pthread_t thread;
        int r = map_in(job);
        for (unsigned i = 0; r >= 0 && order.error == ESTALE && i < 4 * 16 * 16; i++) {
                report.channel = i / 256;
                report.slot = i / 16 % 16;
                report.generation = i % 16;
                r = ask(&report, fds, &n_fds, &order);
        }
        if (r < 0 || n_fds != 1)
                return drover_fail(job, EPROTO, "no room");
        if (pthread_create(&thread, NULL, write_room, fds) != 0)
                return drover_fail(job, EAGAIN, "no thread");
        usleep(100000); /* it is in the kernel by now */
        report.type = REPORT_RESULT;
        report.has_room = 1;
        ask(&report, fds, &n_fds, &order);
        pthread_join(thread, NULL);
        return 0;
}

static const struct drover_job_type jobs[] = {
        {.name = "output", .args = "in:fd", .handle = output},
        {.name = "room", .args = "in:fd", .handle = room},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "holds", "1.0")
