/* When a job of the bus may run, and until when it may wait.
 *
 * not-before is a moment of the wall clock, everything that waits for it a timer by CLOCK_MONOTONIC. So the moment is
 * kept, and translated anew when the two clocks do not stand to each other as they did (wall-clock.h): the clock was
 * set, or the machine was asleep. Queue timeouts are spans, and count from the moment as it is known then. */
#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

static void job_on_deadline(struct loop_timer *t) {
        struct job *j = t->user;
        struct channel *c = jobs_channel(j->pool);
        if (channel_judge_queued(c, j->slot, j->generation, SLOT_EXPIRED)) {
                pool_count_verdict(j->pool, SLOT_EXPIRED);
                channel_announce(c, j->slot, j->pool->channels[0]->done.ring_fd);
        }
}

/* Kept in the line: nobody else writes there. */
uint64_t *job_deadline(const struct job *j) { return &channel_job(jobs_channel(j->pool), j->slot)->queue_deadline_ns; }

/* The sooner of those that it is given holds. Its own timeout counts from its submission or not-before, so that a
 * submitter knows the end, whatever else the job waits for; the pool's from when it may run. */
void job_add_deadline(struct job *j, uint64_t from_ns, uint64_t timeout_ns) {
        uint64_t deadline_ns, *deadline = job_deadline(j);
        if (!timeout_ns || __builtin_add_overflow(from_ns, timeout_ns, &deadline_ns))
                return; /* beyond the end of time: none */
        if (*deadline == 0 || deadline_ns < *deadline)
                *deadline = deadline_ns;
        loop_timer_set(j->pool->supervisor->loop, &j->deadline_timer, *deadline, job_on_deadline, j);
}

/* By CLOCK_MONOTONIC, which is at `now_ns` when the wall clock is at `wall_us`; a moment that is over is now. */
static uint64_t job_moment_ns(uint64_t moment_us, uint64_t wall_us, uint64_t now_ns) {
        uint64_t delta_ns, moment_ns;
        if (moment_us <= wall_us)
                return now_ns;
        if (__builtin_mul_overflow(moment_us - wall_us, UINT64_C(1000), &delta_ns) ||
            __builtin_add_overflow(now_ns, delta_ns, &moment_ns))
                return UINT64_MAX;
        return moment_ns;
}

void job_set_times(struct job *j, uint64_t not_before_us) {
        j->submitted_us = wall_clock_us();
        j->submitted_ns = event_now_ns();
        j->not_before_us = not_before_us > j->submitted_us ? not_before_us : 0;
}

uint64_t job_due_ns(const struct job *j) {
        return j->not_before_us ? job_moment_ns(j->not_before_us, wall_clock_us(), event_now_ns()) : 0;
}

void job_let_go(struct job *j) {
        struct pool_channel *c = j->pool->channels[0];
        uint64_t due_ns = job_due_ns(j), now = event_now_ns();
        if (due_ns < now) /* over, or just now */
                due_ns = now;
        if (slot_state(channel_word(&c->channel, j->slot)) != SLOT_DELAYED)
                return;
        channel_job(&c->channel, j->slot)->not_before_ns = due_ns;
        job_add_deadline(j, due_ns, j->pool->config.queue_timeout_ns);
        if (due_ns > now)
                delay_add(c, j->slot, j->generation, due_ns);
        else
                delay_end(c, j->slot, j->generation);
}

/* One that waits for its moment, not one whose moment came: that one may wait for its next attempt. */
static bool job_is_early(const struct job *j) {
        if (j->is_finished || !j->pool || !j->not_before_us || j->slot == JOBS_NO_SLOT)
                return false;
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        return slot_state(word) == SLOT_DELAYED && slot_generation(word) == j->generation && slot_attempt(word) <= 1;
}

void jobs_clock_was_set(struct jobs *js) {
        struct job *j;
        TAILQ_FOREACH(j, &js->all, all_link) {
                if (!job_is_early(j))
                        continue;
                uint64_t due_ns = job_due_ns(j);
                if (due_ns > event_now_ns()) { /* else the time it had holds, unless it has less now */
                        loop_timer_stop(&j->deadline_timer);
                        *job_deadline(j) = 0;
                }
                job_add_deadline(j, due_ns, j->wish.queue_timeout_ns);
                if (!job_needs_any(j))
                        job_let_go(j);
        }
}
