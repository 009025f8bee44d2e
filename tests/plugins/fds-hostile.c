/* A worker that hands over results that are none: each says it all by itself on the control socket, and the broker must
 * end the worker for it, or answer that it has no such job. */
#include <drover/plugin.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "ipc/wire.h"

static int say(drover_job *job, struct worker_report r, const int *fds, unsigned n_fds) {
        r.version = WIRE_VERSION;
        int e = packet_send(WIRE_CONTROL_FD, &r, sizeof r, fds, n_fds);
        return e < 0 ? drover_fail(job, -e, "sendmsg") : 0;
}

static int hear(struct worker_order *order, unsigned *ret_n_fds) {
        int fds[PACKET_MAX_FDS], e;
        size_t bytes;
        do {
                *ret_n_fds = PACKET_MAX_FDS;
                e = packet_receive(WIRE_CONTROL_FD, order, sizeof *order, &bytes, fds, ret_n_fds);
        } while (e == -EAGAIN || (e == 0 && order->type != ORDER_FDS));
        return e;
}

/* `fd` as a sealed file that is the result, of whichever job this is. */
static int hand_over(drover_job *job, int fd) {
        struct worker_report r = {.type = REPORT_RESULT, .payload_bytes = 4096};
        struct worker_order order;
        unsigned n_fds;
        for (r.channel = 0; r.channel < 4; r.channel++)
                for (r.slot = 0; r.slot < 16; r.slot++)
                        for (r.generation = 1; r.generation < 16; r.generation++) {
                                int e = say(job, r, &fd, 1);
                                if (e < 0 || (e = hear(&order, &n_fds)) < 0)
                                        return e;
                                if (order.error != ESTALE)
                                        return drover_fail(job, EPROTO, "it was taken");
                        }
        return drover_fail(job, ENOENT, "it is none of these jobs");
}

static int pipe_as_result(drover_job *job) { return hand_over(job, STDERR_FILENO); }

/* An unsealed memory file of the client's. */
static int foreign(drover_job *job) {
        int fd, e = drover_arg_fd(job, "in", &fd);
        return e < 0 ? e : hand_over(job, fd);
}

static int no_room(drover_job *job) {
        const struct worker_report r = {.type = REPORT_RESULT, .payload_bytes = 4096, .has_room = 1};
        say(job, r, NULL, 0);
        pause();
        return 0;
}

static int question_with_fds(drover_job *job) {
        const struct worker_report r = {.type = REPORT_FDS};
        say(job, r, (const int[]){STDERR_FILENO}, 1);
        pause();
        return 0;
}

/* Of a job that it does not run: answered, and harmless. */
static int of_others(drover_job *job) {
        struct worker_report r = {.type = REPORT_FDS, .channel = 200, .slot = 60000, .generation = 7};
        struct worker_order order;
        unsigned n_fds;
        int e = say(job, r, NULL, 0);
        if (e < 0 || (e = hear(&order, &n_fds)) < 0)
                return e;
        if (n_fds != 0)
                return drover_fail(job, EPROTO, "an answer of type %u with %u descriptors", order.type, n_fds);
        r.type = REPORT_ENDED;
        say(job, r, NULL, 0);
        return drover_fail(job, order.error, "refused");
}

static const struct drover_job_type jobs[] = {
        {.name = "pipe", .handle = pipe_as_result}, {.name = "foreign", .args = "in:fd", .handle = foreign},
        {.name = "no_room", .handle = no_room},     {.name = "question", .handle = question_with_fds},
        {.name = "of_others", .handle = of_others},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "fds-hostile", "1.0")
