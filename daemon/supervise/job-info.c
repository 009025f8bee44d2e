/* Looking at a job and cancelling it, for the bus. While it runs, its state is in shared memory; once it has a verdict,
 * in its record. */
#include <stdio.h>
#include <string.h>

#include "daemon/supervise/job.h"
#include "daemon/supervise/supervisor-internal.h"

static struct worker *job_worker(const struct job *j, uint64_t word) {
        unsigned index = slot_owner(word) - SLOT_OWNER_WORKER0;
        return slot_state(word) == SLOT_RUNNING && index < LAYOUT_MAX_WORKERS ? j->pool->workers[index] : NULL;
}

static void job_get_live(const struct job *j, struct job_info *ret) {
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        struct worker *w = job_worker(j, word);
        ret->state = slot_state(word) == SLOT_RUNNING ? SLOT_RUNNING : SLOT_QUEUED;
        ret->attempt = slot_attempt(word);
        if (!w)
                return;
        struct worker_info info;
        worker_get_info(w, &info);
        ret->worker_pid = w->pid;
        snprintf(ret->progress_note, sizeof(ret->progress_note), "%s", info.status);
        ret->progress_done = atomic_load(&worker_line(w)->progress_done);
        ret->progress_total = atomic_load(&worker_line(w)->progress_total);
        if (w->stamp_ns >= j->submitted_ns && (uint32_t)(w->stamp_job >> 32) == j->generation)
                ret->started_us = j->submitted_us + (w->stamp_ns - j->submitted_ns) / 1000;
}

static uint64_t job_span_us(uint64_t from_ns, uint64_t to_ns) {
        return from_ns && to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

void job_get_info(const struct job *j, struct job_info *ret) {
        *ret = (struct job_info){
                .id = j->id,
                .pool = j->pool,
                .pool_name = j->pool_name,
                .name = j->name,
                .uid = j->uid,
                .state = j->state,
                .attempt = j->attempt,
                .worker_pid = j->worker_pid,
                .submitted_us = j->submitted_us,
                .result_fields = j->result_fields,
                .error = j->error ? j->error : "",
        };
        if (!j->is_finished) {
                job_get_live(j, ret);
                return;
        }
        ret->result = j->result;
        ret->result_bytes = j->result_bytes;
        ret->error_number = j->error_number;
        ret->reason = j->verdict.reason;
        ret->signal = j->verdict.signal;
        ret->status = j->verdict.status;
        ret->syscall = j->verdict.syscall;
        ret->finished_us = j->submitted_us + job_span_us(j->submitted_ns, j->finished_ns);
        ret->started_us = j->started_ns ? j->submitted_us + job_span_us(j->submitted_ns, j->started_ns) : 0;
        ret->queue_us = job_span_us(j->submitted_ns, j->started_ns ? j->started_ns : j->finished_ns);
        ret->run_us = job_span_us(j->started_ns, j->finished_ns);
        ret->cpu_us = j->cpu_ns / 1000;
}

void job_get_fault(const struct job *j, struct fault *f) {
        static const enum fault_code codes[SLOT_N_STATES] = {
                [SLOT_FAILED] = FAULT_FAILED,       [SLOT_CANCELLED] = FAULT_CANCELLED, [SLOT_EXPIRED] = FAULT_EXPIRED,
                [SLOT_TIMED_OUT] = FAULT_TIMED_OUT, [SLOT_POISONED] = FAULT_POISONED,   [SLOT_LOST] = FAULT_LOST,
        };
        if (!j->is_finished)
                fault_set(f, FAULT_NOT_FINISHED, "job %llu has no verdict yet", (unsigned long long)j->id);
        else
                fault_set(f, codes[j->state], "%s", j->error ? j->error : "");
}

static const char *job_cancel_queued(struct job *j) {
        struct channel *c = jobs_channel(j->pool);
        if (!channel_judge_queued(c, j->slot, j->generation, SLOT_CANCELLED))
                return NULL;
        pool_count_verdict(j->pool, SLOT_CANCELLED);
        jobs_collect_slot(j);
        return "cancelled";
}

const char *job_cancel(struct job *j, const char *mode, struct fault *f) {
        bool ask = strcmp(mode, "ask") == 0, kill = strcmp(mode, "kill") == 0;
        if (!ask && !kill && strcmp(mode, "queued") != 0) {
                fault_set(f, FAULT_INVALID_ARGS, "Cancel: \"%.40s\" is not a mode: use queued, ask or kill", mode);
                return NULL;
        }
        if (j->is_finished)
                return "finished";
        const char *done = job_cancel_queued(j);
        if (done)
                return done;
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        struct worker *w = job_worker(j, word);
        if (ask && channel_ask_cancel(jobs_channel(j->pool), j->slot, j->generation))
                return "asked";
        struct worker_job held;
        if (kill && w && worker_get_job(w, &held) && held.generation == j->generation && held.slot == j->slot &&
            worker_judge(w, SLOT_CANCELLED, REASON_OPERATOR))
                return "killed";
        return slot_is_verdict(channel_word(jobs_channel(j->pool), j->slot)) ? "finished" : "running";
}

void job_set_user(struct job *j, void *user) { j->user = user; }
void *job_get_user(const struct job *j) { return j->user; }
