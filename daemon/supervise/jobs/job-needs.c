/* Jobs that come after others (the option "after").
 *
 * Such a job is accepted like any other and stands DELAYED in its slot, known to no timer. It waits for the verdict of
 * each of the others as a caller of Wait does; when all are done it is let go, when one ends badly it is CANCELLED, and
 * the text names that one. The verdict is given by the slot word and collected by the loop, not from here, so a long
 * chain of jobs that falls over falls one by one and not down the stack. A job that has its verdict waits for nothing
 * more; queued once more by Requeue it does not ask again. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/values/words.h"

struct job_need {
        struct job_waiter waiter;
        struct job *owner;
        uint64_t id;
};

struct job_needs {
        uint32_t n, n_left;
        uint64_t failed_id; /* 0 = none */
        enum slot_state failed_state;
        struct job_need need[];
};

bool job_needs_any(const struct job *j) { return j->needs && (j->needs->n_left > 0 || j->needs->failed_id); }

bool jobs_slot_waits(const struct pool *p, uint32_t slot) {
        return p->slot_job[slot] && job_needs_any(p->slot_job[slot]);
}

bool job_needs_failed(const struct job *j, char *text, size_t bytes) {
        if (!j->needs || !j->needs->failed_id)
                return false;
        snprintf(text, bytes, "job %llu, which it comes after, ended as %s", (unsigned long long)j->needs->failed_id,
                 words_slot_state(j->needs->failed_state));
        return true;
}

/* May the submitter know of it? As in bus_find_job. */
static int job_need_check(const struct job_request *r, uint64_t id, struct fault *f) {
        struct supervisor *s = r->pool->supervisor;
        struct job *other = jobs_find(s->jobs, id);
        const struct job_evicted *gone = other ? NULL : supervisor_find_evicted(s, id);
        if (other && (r->sees_all || other->uid == r->uid))
                return 0;
        if (gone && (r->sees_all || gone->uid == r->uid))
                return fault_set(f, FAULT_RESULT_EXPIRED, "after: how job %llu ended is not known any more",
                                 (unsigned long long)id);
        return fault_set(f, FAULT_NO_SUCH_JOB, "after: there is no job %llu of yours", (unsigned long long)id);
}

int job_needs_new(struct job *j, const struct job_request *r, struct fault *f) {
        if (r->n_after == 0)
                return 0;
        for (uint32_t i = 0; i < r->n_after; i++)
                if (job_need_check(r, r->after[i], f) < 0)
                        return -1;
        j->needs = calloc(1, sizeof(*j->needs) + r->n_after * sizeof(struct job_need));
        if (!j->needs)
                return fault_set(f, FAULT_INTERNAL, "out of memory");
        j->needs->n = j->needs->n_left = r->n_after;
        for (uint32_t i = 0; i < r->n_after; i++)
                j->needs->need[i] = (struct job_need){.owner = j, .id = r->after[i]};
        return 0;
}

static void job_fail_need(const struct job *j) {
        struct pool_channel *c = j->pool->channels[0];
        if (!channel_judge_queued(&c->channel, j->slot, j->generation, SLOT_CANCELLED))
                return; /* it has another verdict already */
        pool_count_verdict(j->pool, SLOT_CANCELLED);
        channel_announce(&c->channel, j->slot, c->done.ring_fd);
}

void job_needs_again(struct job *j) {
        if (j->needs && j->needs->failed_id)
                job_fail_need(j);
        else if (!job_needs_any(j))
                job_let_go(j);
}

static void job_on_need(struct job_waiter *w, struct job *other) {
        struct job *j = ((struct job_need *)w)->owner;
        j->needs->n_left--;
        if (other->state == SLOT_DONE && j->needs->n_left == 0 && !j->needs->failed_id)
                job_let_go(j);
        if (other->state == SLOT_DONE || j->needs->failed_id)
                return;
        j->needs->failed_id = other->id;
        j->needs->failed_state = other->state;
        job_fail_need(j);
}

void job_needs_start(struct job *j) {
        for (uint32_t i = 0; i < j->needs->n; i++)
                job_wait(jobs_find(j->jobs, j->needs->need[i].id), &j->needs->need[i].waiter, job_on_need);
}

void job_needs_free(struct job *j) {
        for (uint32_t i = 0; j->needs && i < j->needs->n; i++)
                job_wait_stop(&j->needs->need[i].waiter);
        free(j->needs);
        j->needs = NULL;
}
