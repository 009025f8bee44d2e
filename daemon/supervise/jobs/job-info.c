/* Looking at a job and cancelling it, for the bus, be it one of the bus or of a session. While it runs, its state is in
 * shared memory; once it has a verdict, in its record. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

static struct worker *job_worker(const struct pool *p, uint64_t word) {
        unsigned index = slot_owner(word) - SLOT_OWNER_WORKER0;
        return slot_state(word) == SLOT_RUNNING && index < LAYOUT_MAX_WORKERS ? p->workers[index] : NULL;
}

enum slot_state job_live_state(const struct job *j) {
        uint64_t word = channel_word(jobs_channel(j->pool), j->slot);
        return slot_state(word) == SLOT_RUNNING ? SLOT_RUNNING : SLOT_QUEUED;
}

/* When it began, as its worker says, within what is possible: a worker that only just claimed it has not written it
 * yet, and began now. */
static uint64_t job_began_ns(const struct channel *c, uint32_t slot, uint64_t word, uint64_t submitted_ns) {
        uint64_t now_ns = event_now_ns();
        struct layout_result line;
        channel_copy(&line, channel_result(c, slot), sizeof(line));
        bool is_known = line.generation == slot_generation(word) && line.started_ns && line.started_ns <= now_ns;
        uint64_t began_ns = is_known ? line.started_ns : now_ns;
        return began_ns > submitted_ns ? began_ns : submitted_ns;
}

/* What the slot and the worker's line tell. The word is read once: who is told that it runs is told since when. */
static void job_get_live(const struct channel *c, uint32_t slot, const struct pool *p, uint64_t submitted_ns,
                         struct job_info *ret) {
        uint64_t word = channel_word(c, slot);
        ret->state = slot_state(word) == SLOT_RUNNING ? SLOT_RUNNING : SLOT_QUEUED;
        ret->attempt = slot_attempt(word);
        if (ret->state == SLOT_RUNNING)
                ret->started_us = ret->submitted_us + (job_began_ns(c, slot, word, submitted_ns) - submitted_ns) / 1000;
        struct worker *w = job_worker(p, word);
        if (!w)
                return;
        struct worker_info info;
        worker_get_info(w, &info);
        ret->worker_pid = w->pid;
        const char *by;
        if (worker_get_ask(w, &ret->cancel_asked_us, &by))
                snprintf(ret->cancel_asked_by, sizeof(ret->cancel_asked_by), "%s", by);
        snprintf(ret->progress_note, sizeof(ret->progress_note), "%s", info.status);
        ret->progress_done = atomic_load(&worker_line(w)->progress_done);
        ret->progress_total = atomic_load(&worker_line(w)->progress_total);
}

void session_job_get_info(const struct session_job *sj, struct job_info *ret) {
        const struct pool_channel *c = sj->channel;
        struct layout_job line;
        channel_copy(&line, channel_job(&c->channel, sj->slot), sizeof(line));
        *ret = (struct job_info){
                .id = worker_job_id(&(struct worker_job){.channel = sj->channel, .slot = sj->slot}),
                .pool = c->pool,
                .pool_name = c->pool->config.name,
                .name = session_job_name(sj, line.type),
                .uid = c->pool->bells[c->bell].uid,
                .pid = session_pid(c->session),
                .connection = session_connection(c->session),
                .submitted_us = session_job_submitted_us(&line),
                .error = "",
        };
        job_get_live(&c->channel, sj->slot, c->pool, line.queued_ns, ret);
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
                .pid = j->pid,
                .connection = j->connection,
                .state = j->state,
                .attempt = j->attempt,
                .worker_pid = j->worker_pid,
                .submitted_us = j->submitted_us,
                .result_fields = j->result_fields,
                .result_payload_fd = -1,
                .error = j->error ? j->error : "",
        };
        if (!j->is_finished) {
                job_get_live(jobs_channel(j->pool), j->slot, j->pool, j->submitted_ns, ret);
                return;
        }
        ret->result = j->result;
        ret->result_bytes = j->result_bytes;
        if (j->result_fds) {
                bool has_file = j->result_fds->payload_bytes > 0;
                ret->result_fds = j->result_fds->fds + has_file;
                ret->n_result_fds = j->result_fds->n_fds - has_file;
                ret->result_payload_fd = has_file ? j->result_fds->fds[0] : -1;
        }
        ret->error_number = j->error_number;
        ret->reason = j->death.reason;
        ret->signal = j->death.signal;
        ret->status = j->death.status;
        ret->syscall = j->death.syscall;
        ret->finished_us = j->submitted_us + job_span_us(j->submitted_ns, j->finished_ns);
        ret->started_us = j->started_ns ? j->submitted_us + job_span_us(j->submitted_ns, j->started_ns) : 0;
        ret->queue_us = job_span_us(j->submitted_ns, j->started_ns ? j->started_ns : j->finished_ns);
        ret->run_us = job_span_us(j->started_ns, j->finished_ns);
        ret->cpu_us = j->cpu_ns / 1000;
}

bool worker_get_task(const struct worker *w, struct job_info *ret) {
        struct worker_job held;
        if (w->phase < PHASE_READY || !worker_get_job(w, &held))
                return false;
        const struct job *j = held.channel->index == 0 ? w->pool->slot_job[held.slot] : NULL;
        if (j && j->generation == held.generation)
                job_get_info(j, ret);
        else
                session_job_get_info(&(struct session_job){held.channel, held.slot, held.generation}, ret);
        return ret->state == SLOT_RUNNING;
}

static uid_t worker_last_uid(const struct pool *p, uint64_t id) {
        if (id <= LAYOUT_JOB_ID_MASK)
                return jobs_owner(p->supervisor->jobs, id);
        for (uint32_t i = 1; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && p->channels[i]->id_base == (id & ~LAYOUT_JOB_ID_MASK))
                        return p->bells[p->channels[i]->bell].uid;
        return geteuid();
}

/* The worker's words: a time that makes no sense or a state that is no verdict is no job. */
static bool worker_fill_last(const struct worker *w, uint64_t started_ns, uint64_t finished_ns, uint32_t type,
                             uint32_t end, struct job_info *ret) {
        enum slot_state state = end & 0xff;
        if (state < SLOT_DONE || state >= SLOT_N_STATES || started_ns > finished_ns || finished_ns > event_now_ns())
                return false;
        ret->pool = w->pool;
        ret->pool_name = w->pool->config.name;
        ret->name = session_job_name(&(struct session_job){.channel = w->pool->channels[0]}, type);
        ret->uid = worker_last_uid(w->pool, ret->id);
        ret->state = state;
        ret->attempt = end >> 8 & LAYOUT_MAX_ATTEMPTS;
        ret->connection = "";
        ret->error = "";
        ret->run_us = (finished_ns - started_ns) / 1000;
        ret->finished_us = session_job_submitted_us(&(struct layout_job){.queued_ns = finished_ns});
        ret->started_us = ret->finished_us - ret->run_us;
        return true;
}

bool worker_get_last(const struct worker *w, struct job_info *ret) {
        const struct layout_worker *line = worker_line(w);
        for (unsigned try = 0; try < 3; try++) {
                *ret = (struct job_info){.id = atomic_load(&line->last_job)};
                uint64_t started_ns = atomic_load(&line->last_started_ns),
                         finished_ns = atomic_load(&line->last_finished_ns);
                uint32_t type = atomic_load(&line->last_type), end = atomic_load(&line->last_end);
                atomic_thread_fence(memory_order_acquire); /* partner: the release fence in job_tell_last */
                if (ret->id != 0 && atomic_load(&line->last_job) == ret->id)
                        return worker_fill_last(w, started_ns, finished_ns, type, end, ret);
        }
        return false;
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

/* A slot in some channel that may be about to change: each step is a CAS on exactly this generation, so what is said is
 * what happened. */
static const char *job_cancel_slot(struct pool_channel *pc, uint32_t slot, uint32_t generation, enum cancel_mode mode,
                                   const char *by) {
        struct channel *c = &pc->channel;
        if (channel_judge_queued(c, slot, generation, SLOT_CANCELLED)) {
                pool_count_verdict(pc->pool, SLOT_CANCELLED);
                return "cancelled";
        }
        if ((mode == CANCEL_ASK || mode == CANCEL_ABANDON) &&
            worker_ask(pc, slot, generation, by, mode == CANCEL_ABANDON))
                return "asked";
        struct worker *w = job_worker(pc->pool, channel_word(c, slot));
        struct worker_job held;
        if (mode == CANCEL_KILL && w && worker_get_job(w, &held) && held.channel == pc &&
            held.generation == generation && held.slot == slot && worker_judge(w, SLOT_CANCELLED, REASON_OPERATOR))
                return "killed";
        uint64_t word = channel_word(c, slot);
        return slot_generation(word) != generation || slot_is_verdict(word) ? "finished" : "running";
}

int job_cancel_mode(const char *word, enum cancel_mode *ret) {
        static const char *const words[] = {[CANCEL_QUEUED] = "queued", [CANCEL_ASK] = "ask", [CANCEL_KILL] = "kill"};
        for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++)
                if (strcmp(words[i], word) == 0) {
                        *ret = i;
                        return 0;
                }
        return -1;
}

const char *job_cancel(struct job *j, enum cancel_mode mode, const char *by) {
        if (j->is_finished)
                return "finished";
        const char *what = job_cancel_slot(j->pool->channels[0], j->slot, j->generation, mode, by);
        if (strcmp(what, "cancelled") == 0)
                jobs_collect_slot(j);
        return what;
}

const char *session_job_cancel(const struct session_job *sj, enum cancel_mode mode, const char *by) {
        const char *what = job_cancel_slot(sj->channel, sj->slot, sj->generation, mode, by);
        if (strcmp(what, "cancelled") == 0)
                channel_announce(&sj->channel->channel, sj->slot, sj->channel->done.ring_fd);
        return what;
}

void job_set_user(struct job *j, void *user) { j->user = user; }
void *job_get_user(const struct job *j) { return j->user; }
