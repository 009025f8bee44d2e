/* A worker asks for the descriptors of the job it runs, and hands over those of its result.
 *
 * Whatever it says is about the job that its slot says it runs, or it is answered with ESTALE: such a job was judged.
 * It asks for one thing at a time and waits for the answer, so what it asked for fits into struct worker; what it gets
 * is looked up when it is sent, because a session may end in between. It has an answer always: the kernel may refuse
 * to carry descriptors (too many of one user on their way), and a session may wait for its user's closes, for a moment
 * or for good, so it is tried for a second, and then the worker is told why there are none.
 *
 * A job is queued after its descriptors were sent, but we may not have read them yet: then the client's socket is read
 * first. Not there even so: they went with another droverd, or the client only said that there were some.
 *
 * A result is here before its verdict is, so a client that has seen the verdict gets it at once. One that does not fit
 * a slot is written into a memory file of ours (the worker can make none), which nobody can write once it counts: the
 * worker seals it, and we look whether it did. To seal it ourselves would be to wait for whoever is writing into it. */
#include <errno.h>
#include <unistd.h>

#include "daemon/loop/closer.h"
#include "daemon/loop/fd-share.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"

#define FDS_PATIENCE_NS UINT64_C(1000000000)

/* Its channel, if that is what the worker runs; else NULL. */
static struct pool_channel *fds_find(const struct worker *w) {
        struct worker_job job;
        if (!worker_get_job(w, &job) || job.channel->index != w->fds_channel || job.slot != w->fds_slot ||
            job.generation != w->fds_generation)
                return NULL;
        return job.channel;
}

/* Workers hang in files of this uid (FUSE: whoever serves them does not answer), where nothing ends them, and they are
 * as many as one may have. A payload is memory: nobody hangs in that. */
static bool fds_may_hang(const struct worker *w, const struct descriptors *d) {
        return d->n_fds > (d->payload_bytes > 0) &&
               !quota_has_room(&w->pool->supervisor->hung_of, d->uid, WORKER_HUNG_OF_UID);
}

static const struct descriptors *fds_of_job(const struct worker *w, int32_t *ret_error) {
        struct pool_channel *c = fds_find(w);
        const struct descriptors *d = NULL;
        if (c)
                d = descriptors_get(c, DESCRIPTORS_OF_JOB, w->fds_slot, w->fds_generation);
        if (c && !d && c->session) {
                session_hear(c->session);
                c = fds_find(w);
                d = c ? descriptors_get(c, DESCRIPTORS_OF_JOB, w->fds_slot, w->fds_generation) : NULL;
        }
        *ret_error = !c ? ESTALE : d ? 0 : c->session && session_is_waiting(c->session) ? EBUSY : ENOENT;
        if (d && fds_may_hang(w, d)) {
                *ret_error = EDQUOT;
                return NULL;
        }
        return d;
}

int worker_answer_fds(struct worker *w) {
        struct worker_order order = {.type = ORDER_FDS, .version = WIRE_VERSION, .error = w->fds_error};
        const struct descriptors *d = NULL;
        const int *fds = NULL;
        unsigned n_fds = 0;
        uint32_t wanted = w->fds_wanted;
        if (!wanted)
                return 0;
        w->fds_wanted = 0; /* a session that ends while we read it comes here, too */
        if (wanted == REPORT_FDS && (d = fds_of_job(w, &order.error))) {
                order.payload_bytes = d->payload_bytes;
                fds = d->fds;
                n_fds = d->n_fds;
        } else if (wanted == REPORT_ROOM && order.error == 0) {
                fds = &w->room_fd;
                n_fds = 1;
        }
        if (order.error == EBUSY && event_now_ns() < w->fds_patience_ns) {
                w->fds_wanted = wanted;
                return -EBUSY;
        }
        int r = packet_send(w->control_fd, &order, sizeof(order), fds, n_fds);
        if (r < 0 && r != -EAGAIN && r != -EPIPE && n_fds > 0 && event_now_ns() >= w->fds_patience_ns) {
                order.error = -r;
                order.payload_bytes = 0;
                r = packet_send(w->control_fd, &order, sizeof(order), NULL, 0);
        }
        if (r < 0)
                w->fds_wanted = wanted;
        return r;
}

void worker_drop_room(struct worker *w) {
        if (w->room_fd >= 0)
                closer_close(w->room_fd, CLOSER_MEMORY);
        w->room_fd = -1;
        w->room_bytes = 0;
}

static int fds_make_room(struct worker *w, uint64_t bytes) {
        worker_drop_room(w);
        if (!fds_find(w))
                return -ESTALE;
        int r = sealed_open("drover-result", bytes, &w->room_fd);
        if (r < 0)
                return r;
        w->room_bytes = bytes;
        if (fd_share_has(FD_SHARE_SESSIONS, w->room_fd))
                return 0;
        worker_drop_room(w);
        return -EDQUOT;
}

/* -EPROTO: its fault. Else what it is told. */
static int fds_take_result(struct worker *w, const struct worker_report *report, struct descriptors *d) {
        if (report->has_room) {
                uint64_t bytes;
                if (w->room_fd < 0 || report->payload_bytes != w->room_bytes || d->n_fds == PACKET_MAX_FDS ||
                    sealed_check(w->room_fd, &bytes) < 0)
                        return -EPROTO;
                for (unsigned i = d->n_fds; i > 0; i--)
                        d->fds[i] = d->fds[i - 1];
                d->fds[0] = w->room_fd;
                d->n_fds++;
                w->room_fd = -1;
        }
        worker_drop_room(w);
        struct pool_channel *c = fds_find(w);
        if (d->n_fds == 0)
                return -EPROTO;
        if (!c)
                return -ESTALE;
        struct worker_job job;
        if (worker_get_job(w, &job))
                d->uid = worker_job_uid(&job);
        d->generation = w->fds_generation;
        d->payload_bytes = report->payload_bytes;
        int r = descriptors_put(c, DESCRIPTORS_OF_RESULT, w->fds_slot, d);
        d->n_fds = 0;
        return r;
}

int worker_on_fds_report(struct worker *w, const struct worker_report *report, int *fds, unsigned n_fds) {
        struct descriptors d = {.uid = CLOSER_WORKERS, .n_fds = n_fds};
        for (unsigned i = 0; i < n_fds; i++)
                d.fds[i] = fds[i];
        int r = w->fds_wanted || !w->ready_ns || (n_fds > 0 && report->type != REPORT_RESULT) ? -EPROTO : 0;
        if (r >= 0) {
                w->fds_channel = report->channel;
                w->fds_slot = report->slot;
                w->fds_generation = report->generation;
        }
        if (r >= 0 && report->type == REPORT_ROOM)
                r = fds_make_room(w, report->payload_bytes);
        else if (r >= 0 && report->type == REPORT_RESULT)
                r = fds_take_result(w, report, &d);
        descriptors_close(d.fds, d.n_fds, d.uid);
        if (n_fds > 0 && r < 0 && closer_count(d.uid) >= 2 * CLOSER_MAX_OF_USER && !closer_has_room(d.uid))
                r = -EPROTO; /* else it would be answered, and bring more without end */
        if (r == -EPROTO)
                return r;
        w->fds_wanted = w->fds_told = report->type;
        w->fds_error = -r;
        w->fds_patience_ns = event_now_ns() + FDS_PATIENCE_NS;
        r = worker_answer_fds(w);
        if (r < 0)
                worker_send_later(w, r);
        return 0;
}

void worker_on_ended(struct worker *w, const struct worker_report *report) {
        struct pool_channel *c = pool_channel_at(w->pool, report->channel);
        if (c && report->slot < c->channel.geometry.n_slots)
                descriptors_settle(c, report->slot);
}
