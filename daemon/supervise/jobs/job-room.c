/* Room for jobs over the bus: the slots of channel 0, and the descriptors that their results will have.
 *
 * Both are taken before a job is accepted, so that none is refused once its work is done, and given back when its
 * verdict was collected. One uid has half of either at most: the other half is for others. What a worker really hands
 * over is counted where it is kept (descriptors.c). */
#include <errno.h>

#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/wire.h"

static uint32_t room_slots(const struct pool *p) { return jobs_channel(p)->geometry.n_slots; }

static uint32_t room_share(const struct pool *p) { return room_slots(p) / 2; }

static bool room_has_slot(const struct pool *p, uid_t uid) {
        return p->n_free_slots > 0 && quota_has_room(&p->jobs_of, uid, room_share(p));
}

static bool room_has_fds(const struct pool *p, uid_t uid, uint32_t n) {
        uint32_t max = wire_max_fds(room_slots(p));
        return n == 0 || (p->n_result_fds + n <= max && quota_has_room(&p->result_fds_of, uid, max / 2 - (n - 1)));
}

bool pool_has_room(const struct pool *p, uid_t uid) { return !pool_accepts(p) || room_has_slot(p, uid); }

int job_check_room(const struct pool *p, uid_t uid, const struct schema_job *type, struct fault *f) {
        if (room_has_slot(p, uid) && room_has_fds(p, uid, type->result.n_fds))
                return 0;
        if (room_has_slot(p, uid))
                return fault_set(
                        f, FAULT_QUEUE_FULL,
                        "the results of uid %u's jobs, or of all, will have as many descriptors as pool %s keeps: "
                        "%u in all, half of them for one uid (Slots=)",
                        (unsigned)uid, p->config.name, wire_max_fds(room_slots(p)));
        if (p->n_free_slots > 0)
                return fault_set(f, FAULT_QUEUE_FULL,
                                 "uid %u has its share of the slots of pool %s in use: %u of %u (Slots=)",
                                 (unsigned)uid, p->config.name, room_share(p), room_slots(p));
        return fault_set(f, FAULT_QUEUE_FULL, "pool %s has all its %u slots in use (Slots=)", p->config.name,
                         room_slots(p));
}

int job_take_room(struct job *j) {
        struct pool *p = j->pool;
        uint32_t n = j->result_fields->n_fds;
        int r = quota_take(&p->jobs_of, j->uid, 1, room_share(p));
        if (r < 0)
                return r;
        r = n > 0 ? quota_take(&p->result_fds_of, j->uid, n, wire_max_fds(room_slots(p)) / 2) : 0;
        if (r < 0) {
                quota_give(&p->jobs_of, j->uid, 1);
                return r;
        }
        p->n_result_fds += n;
        return 0;
}

void job_give_room(struct job *j) {
        struct pool *p = j->pool;
        uint32_t n = j->result_fields->n_fds;
        quota_give(&p->jobs_of, j->uid, 1);
        if (n > 0)
                quota_give(&p->result_fds_of, j->uid, n);
        p->n_result_fds -= n;
}
