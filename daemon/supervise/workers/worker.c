/* One worker process: from the START request to the last descriptor.
 *
 * Its life is the table `worker_table`: phase × event → action and next phase. The broker orders (worker-orders.c) and
 * judges; it never trusts what comes back (worker-reports.c): a report of the wrong shape is the worker's fault and
 * costs it its life. It is gone when the spawner says that it was reaped and its process group killed, or, without a
 * spawner, when its pidfd is readable; only then its slots are recovered and its index is free. */
#include "daemon/supervise/workers/worker.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/deaths/death.h"
#include "daemon/supervise/deaths/recovery.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"
#include "ipc/values/args.h"
#include "ipc/values/breach.h"
#include "ipc/values/utf8.h"
#include "ipc/values/words.h"

#define WORKER_SECOND_NS UINT64_C(1000000000)
enum {
        WORKER_DEATH_S = 5, /* from SIGKILL to the end */
};
#define WORKER_HUNG_NS (WORKER_SECOND_NS / 2) /* the same, of what does not hang in a file */

static void worker_on_start_timer(struct loop_timer *t);
static void worker_on_death_timer(struct loop_timer *t);

static int worker_request(struct worker *w, uint32_t type, int signal) {
        struct spawn_request request = {
                .type = type,
                .version = WIRE_VERSION,
                .generation = w->generation,
                .worker = (uint32_t)w->id,
                .method = w->method,
                .signal = signal,
        };
        return spawner_send(w->pool->supervisor->spawner, &request);
}

int worker_start(struct pool *p, uint32_t index, struct worker **ret) {
        struct supervisor *s = p->supervisor;
        struct worker *w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        *w = (struct worker){
                .pool = p,
                .id = ++s->last_worker,
                .index = index,
                .generation = p->generation,
                .method = p->config.start_method,
                .phase = PHASE_STARTING,
                .is_standby = true,
                .pidfd = -1,
                .control_fd = -1,
                .output_fd = -1,
                .items_fd = -1,
                .room_fd = -1,
                .started_us = wall_clock_us(),
        };
        int r = worker_request(w, SPAWN_START, 0);
        if (r < 0) {
                free(w);
                return r;
        }
        memset(&p->memory->worker[index], 0, sizeof(p->memory->worker[index]));
        p->workers[index] = w;
        pool_heal(p);
        supervisor_add_worker(s, w);
        if (p->config.timeout_start_ns)
                loop_timer_set(s->loop, &w->kill_timer, event_now_ns() + p->config.timeout_start_ns,
                               worker_on_start_timer, w);
        SUPERVISOR_TELL(s, on_worker_added, w);
        *ret = w;
        return 0;
}

/* ---- what it runs ---- */

bool worker_get_job(const struct worker *w, struct worker_job *ret) {
        uint64_t record = atomic_load(&worker_line(w)->record);
        struct pool_channel *c = pool_channel_at(w->pool, record >> 16 & 0xffff);
        uint32_t slot = record & 0xffff;
        if (!c || slot >= c->channel.geometry.n_slots || !(c->attached[w->index / 64] >> w->index % 64 & 1))
                return false; /* a channel that it said it had left may be gone before it is */
        uint64_t word = channel_word(&c->channel, slot);
        if (slot_state(word) != SLOT_RUNNING || slot_owner(word) != w->index + SLOT_OWNER_WORKER0 ||
            slot_generation(word) != record >> 32)
                return false;
        if (c->index == 0 && !jobs_slot_is_of(w->pool, slot, slot_generation(word)))
                return false; /* it wrote both itself: what it runs in truth, nobody knows */
        *ret = (struct worker_job){c, slot, slot_generation(word), word};
        return true;
}

uint64_t worker_job_id(const struct worker_job *j) {
        uint64_t id;
        channel_copy(&id, &channel_job(&j->channel->channel, j->slot)->id, sizeof(id));
        return j->channel->id_base | (id & LAYOUT_JOB_ID_MASK); /* a client cannot name another's job */
}

struct worker_job_key worker_job_key(const struct worker_job *j) {
        return (struct worker_job_key){j->channel->id_base, j->channel->index, j->slot, j->generation};
}

bool worker_job_is(const struct worker_job *j, const struct worker_job_key *key) {
        return j->channel->id_base == key->id_base && j->channel->index == key->channel && j->slot == key->slot &&
               j->generation == key->generation;
}

uid_t worker_job_uid(const struct worker_job *j) {
        const struct pool *p = j->channel->pool;
        return j->channel->index == 0 ? jobs_owner(p->supervisor->jobs, worker_job_id(j))
                                      : p->bells[j->channel->bell].uid;
}

bool worker_judge(struct worker *w, enum slot_state verdict, enum death_reason why) {
        struct worker_job job;
        if (w->quarantine_channel || !worker_get_job(w, &job))
                return false;
        struct layout_verdict line = {
                .reason = why,
                .pid = w->pid,
                .attempts = slot_attempt(job.word),
                .when_ns = event_now_ns(),
        };
        struct capsule_draft *draft = NULL;
        if (verdict == SLOT_TIMED_OUT) {
                struct layout_verdict killed = line;
                killed.signal = SIGKILL; /* what it is about to end by */
                draft = capsules_draft(w, &job, verdict, &killed);
        }
        if (!channel_judge(&job.channel->channel, job.slot, w->index, job.generation, verdict, SLOT_QUARANTINE,
                           &line)) {
                capsules_discard(draft);
                return false;
        }
        capsules_keep(w->pool, draft);
        w->quarantine_channel = job.channel;
        w->quarantine_slot = job.slot;
        w->judged.id = worker_job_id(&job);
        w->judged.uid = worker_job_uid(&job);
        w->judged.attempt = line.attempts;
        pool_count_verdict(w->pool, verdict);
        descriptors_settle(job.channel, job.slot);
        channel_announce(&job.channel->channel, job.slot, job.channel->done.ring_fd);
        if (verdict == SLOT_TIMED_OUT)
                log_error("pool %s: job %llu is timed-out at attempt %u: its worker %llu (pid %d) is being killed",
                          w->pool->config.name, (unsigned long long)w->judged.id, line.attempts,
                          (unsigned long long)w->id, (int)w->pid);
        worker_kill_now(w, why);
        return true;
}

/* ---- the table ---- */

static void worker_do_setup(struct worker *w) {
        if (worker_send_setup(w) < 0)
                worker_kill_now(w, REASON_INIT);
}

static void worker_do_ready(struct worker *w) {
        w->ready_ns = event_now_ns();
        loop_timer_stop(&w->kill_timer);
        pool_latency_begin(w->pool, w->index);
        worker_sync(w);
        worker_command(w);
        pool_on_worker_ready(w->pool, w);
}

static void worker_do_retire(struct worker *w) { worker_command(w); }

static void worker_ask_kill(struct worker *w) {
        if (worker_request(w, SPAWN_KILL, SIGKILL) < 0 && w->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

static void worker_expect_death(struct worker *w) {
        if (w->killed_ns == 0)
                w->killed_ns = event_now_ns();
        if (!w->is_stuck)
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer,
                               w->killed_ns + (w->is_hung ? WORKER_DEATH_S * WORKER_SECOND_NS : WORKER_HUNG_NS),
                               worker_on_death_timer, w);
}

static void worker_do_kill(struct worker *w) {
        worker_ask_kill(w);
        worker_expect_death(w);
}

static const struct {
        void (*action)(struct worker *w);
        enum worker_phase next;
        bool is_valid;
} worker_table[PHASE_N][WORKER_EVENT_N] = {
        [PHASE_STARTING] =
                {
                        [WORKER_EVENT_STARTED] = {worker_do_setup, PHASE_INIT, true},
                        [WORKER_EVENT_RETIRE] = {worker_do_kill, PHASE_STOPPING, true},
                        [WORKER_EVENT_KILL] = {worker_do_kill, PHASE_STOPPING, true},
                },
        [PHASE_INIT] =
                {
                        [WORKER_EVENT_READY] = {worker_do_ready, PHASE_READY, true},
                        [WORKER_EVENT_RETIRE] = {worker_do_kill, PHASE_STOPPING, true},
                        [WORKER_EVENT_KILL] = {worker_do_kill, PHASE_STOPPING, true},
                },
        [PHASE_READY] =
                {
                        [WORKER_EVENT_RETIRE] = {worker_do_retire, PHASE_STOPPING, true},
                        [WORKER_EVENT_KILL] = {worker_do_kill, PHASE_STOPPING, true},
                },
        [PHASE_STOPPING] =
                {
                        [WORKER_EVENT_STARTED] = {worker_do_kill, PHASE_STOPPING, true},
                        [WORKER_EVENT_READY] = {worker_do_kill, PHASE_STOPPING, true},
                        [WORKER_EVENT_RETIRE] = {worker_do_retire, PHASE_STOPPING, true},
                        [WORKER_EVENT_KILL] = {worker_do_kill, PHASE_STOPPING, true},
                },
};

static void worker_step(struct worker *w, enum worker_event event) {
        enum worker_phase before = w->phase;
        assert(worker_table[before][event].is_valid); /* reports out of turn do not come here */
        w->phase = worker_table[before][event].next;
        worker_table[before][event].action(w);
        if (w->phase != before)
                SUPERVISOR_TELL(w->pool->supervisor, on_worker_state, w);
}

void worker_on_ready(struct worker *w) { worker_step(w, WORKER_EVENT_READY); }

/* The phase is the plugin's to write, or its template's to say: for people only. */
const char *worker_start_words(uint32_t phase) {
        return phase == LIFE_NONE ? "before the plugin was loaded, in a library that it needs perhaps"
                                  : words_phase(phase);
}

static void worker_is_late_in(struct worker *w, uint32_t phase) {
        w->is_late = true;
        w->doom = phase == LIFE_PRELOAD ? REASON_PRELOAD : REASON_INIT;
        snprintf(w->text, sizeof(w->text), "it was not ready %g s after its start (TimeoutStartSec=): it hung %s",
                 (double)w->pool->config.timeout_start_ns / 1e9, worker_start_words(phase));
}

/* A plugin that hangs in a constructor, preload or worker_init is a failure, not a wait. */
static void worker_on_start_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        worker_is_late_in(w, atomic_load(&worker_line(w)->start_phase));
        worker_kill_now(w, w->doom);
}

static bool worker_is_process_alive(const struct worker *w) {
        struct pollfd p = {.fd = w->pidfd, .events = POLLIN};
        return w->pidfd >= 0 && poll(&p, 1, 0) == 0;
}

/* Whose file it is that it hangs in, as far as we know. Who has many of them hang gets no other to hang. */
static void worker_charge_hung(struct worker *w) {
        w->is_hung = true;
        w->is_charged = worker_is_process_alive(w) && w->judged.id != 0 &&
                        quota_take(&w->pool->supervisor->hung_of, w->judged.uid, 1, UINT64_MAX) == 0;
        worker_expect_death(w);
}

/* It should be dead by now. Nobody can do more, so nobody waits for it any more: its place was given to another when it
 * was killed, its job has its verdict, and its slot and index are kept until it is gone. */
static void worker_on_death_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        if (!w->is_hung) {
                worker_charge_hung(w);
                return;
        }
        spawner_check(w->pool->supervisor->spawner);
        if (w->pid == 0) { /* its template has a time for it, which is the spawner's to know */
                loop_timer_set(t->loop, t, event_now_ns() + WORKER_DEATH_S * WORKER_SECOND_NS, worker_on_death_timer,
                               w);
                return;
        }
        w->is_stuck = true;
        w->phase = PHASE_STOPPING;
        if (worker_is_process_alive(w))
                log_warning("pool %s: worker %llu (pid %d) does not die of SIGKILL: it hangs in the kernel, in a file "
                            "whose "
                            "disk or server does not answer; another one takes its place",
                            w->pool->config.name, (unsigned long long)w->id, (int)w->pid);
        else
                log_warning(
                        "pool %s: worker %llu (pid %d) is dead, but the spawner does not say that all of it is gone",
                        w->pool->config.name, (unsigned long long)w->id, (int)w->pid);
        SUPERVISOR_TELL(w->pool->supervisor, on_worker_state, w);
        pool_settle(w->pool); /* the daemon's end may have waited for it */
}

static void worker_on_kill_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        worker_judge(w, SLOT_CANCELLED, w->doom);
        worker_kill_now(w, w->doom);
}

/* It was told to end after its job and is still there: a job may take its time, ending may not. */
static void worker_on_retire_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        struct worker_job job;
        if (worker_get_job(w, &job))
                loop_timer_set(t->loop, t, event_now_ns() + WORKER_SECOND_NS, worker_on_retire_timer, w);
        else
                worker_kill_now(w, w->doom);
}

void worker_retire(struct worker *w, enum death_reason why) {
        uint64_t grace_ns = w->pool->config.kill_grace_ns;
        if (w->doom == REASON_NONE)
                w->doom = why;
        if (w->phase == PHASE_READY)
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer,
                               event_now_ns() + (grace_ns > WORKER_SECOND_NS ? grace_ns : WORKER_SECOND_NS),
                               worker_on_retire_timer, w);
        worker_step(w, WORKER_EVENT_RETIRE);
}

void worker_kill_now(struct worker *w, enum death_reason why) {
        if (w->doom == REASON_NONE || why == REASON_TIME_LIMIT)
                w->doom = why;
        worker_step(w, WORKER_EVENT_KILL);
}

void worker_kill_after(struct worker *w, uint64_t grace_ns) {
        uint64_t deadline_ns = event_now_ns() + grace_ns;
        if (!w->kill_timer.heap_index || w->kill_timer.fn == worker_on_retire_timer ||
            w->kill_timer.deadline_ns > deadline_ns)
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer, deadline_ns, worker_on_kill_timer, w);
}

int worker_kill(struct worker *w, int signal, struct fault *f) {
        if (signal < 1 || signal > 64)
                return fault_set(f, FAULT_INVALID_ARGS, "signal %d: not in 1..64", signal);
        if (w->pidfd < 0)
                return fault_set(f, FAULT_NO_SUCH_WORKER, "worker %llu is still being started",
                                 (unsigned long long)w->id);
        if (worker_request(w, SPAWN_KILL, signal) < 0)
                return fault_set(f, FAULT_INTERNAL, "there is no spawner to send the signal");
        return 0;
}

int worker_get_pidfd(const struct worker *w) { return w->pidfd; }

void worker_on_started(struct worker *w, const struct spawn_event *e, const int fds[2]) {
        w->pid = e->pid;
        w->pidfd = fds[0];
        w->control_fd = fds[1];
        worker_take_sandbox(w, e->text);
        if (worker_listen(w) < 0)
                worker_kill_now(w, REASON_INIT);
        else
                worker_step(w, WORKER_EVENT_STARTED);
}

/* ---- the end ---- */

static void worker_fold_counts(struct worker *w) {
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++) {
                pool_add_verdicts(w->pool, state, worker_count(w, state));
        }
}

static struct death worker_make_death(struct worker *w, const struct spawn_event *e, const struct recovery *recovery,
                                      const struct layout_verdict *line, const struct layout_breach *breach) {
        bool by_signal = e->code == CLD_KILLED || e->code == CLD_DUMPED;
        char why[300];
        struct death d = {
                .worker_id = w->id,
                .job_id = recovery->job_id,
                .job_uid = recovery->job_uid,
                .pid = w->pid,
                .reason = line->reason,
                .is_signal = by_signal,
                .status = e->status,
                .attempt = recovery->attempt,
                .realtime_us = wall_clock_us(),
        };
        death_take_fault(&d, w, breach);
        snprintf(d.pool, sizeof(d.pool), "%s", w->pool->config.name);
        death_describe(line, why, sizeof(why));
        if (w->is_full)
                snprintf(why, sizeof(why), "%.200s", w->text);
        if (recovery->job_id) {
                d.job_text_at = (uint32_t)snprintf(d.text, sizeof(d.text), "%.240s", why);
                snprintf(d.text + d.job_text_at, sizeof(d.text) - d.job_text_at, " while running job %llu (attempt %u)",
                         (unsigned long long)recovery->job_id, recovery->attempt);
        } else
                snprintf(d.text, sizeof(d.text), "%.310s", w->text[0] ? w->text : why);
        return d;
}

void worker_free(struct worker *w) {
        pool_doorbell_close(&w->doorbell);
        doorbell_rate_stop(&w->rate);
        worker_items_stop(w);
        worker_output_free(w);
        worker_drop_room(w);
        loop_timer_stop(&w->kill_timer);
        loop_timer_stop(&w->retry_timer);
        loop_timer_stop(&w->ask.timer);
        loop_poll_stop(&w->control_poll);
        loop_poll_stop(&w->pid_poll);
        if (w->control_fd >= 0)
                closer_close(w->control_fd, CLOSER_WORKERS);
        if (w->pidfd >= 0)
                close(w->pidfd);
        free(w);
}

/* The forbidden system call that it, or its template, is said to have made. */
static void worker_get_breach(const struct worker *w, const struct spawn_event *e, struct layout_breach *ret) {
        if (e->type == SPAWN_FAILED) {
                *ret = e->breach;
                breach_clean(ret);
        } else {
                breach_read(worker_line(w), ret);
        }
}

/* A worker that ends as it was told to is no death; one that never came to life is told, but not counted. */
static void worker_tell_death(struct worker *w, const struct death *death, bool had_job) {
        struct pool *p = w->pool;
        if ((w->doom == REASON_RECYCLED || w->doom == REASON_OPERATOR) && !had_job)
                return;
        death_record(p, death);
        p->counters.worker_deaths += w->pid != 0;
        if (w->ready_ns)
                log_warning("pool %s: worker %llu (pid %d) died: %s", p->config.name, (unsigned long long)w->id,
                            (int)w->pid, death->text);
}

/* It could not be given the descriptors of the job that it claimed: the handler did not run, so the job is not charged.
 * One whose result could not be handed over may have leaked them itself. And if no worker has room for them from its
 * start, the job must have an end all the same. */
static bool worker_is_wanting(const struct worker *w) {
        return w->is_full && w->fds_told == REPORT_FDS && worker_has_served(w);
}

void worker_on_gone(struct worker *w, const struct spawn_event *e) {
        struct pool *p = w->pool;
        struct supervisor *s = p->supervisor;
        struct layout_breach breach;
        worker_get_breach(w, e, &breach);
        w->phase = PHASE_STOPPING;
        worker_hear_out(w);
        worker_items_stop(w);
        worker_output_stop(w); /* its last words first: a capsule has them */
        if (e->type == SPAWN_FAILED) {
                w->is_permanent = e->is_permanent;
                w->said = e->reason ? e->reason : REASON_INIT;
                worker_take_text(w, breach.syscall ? "" : e->text);
                if (w->is_late && e->error == ECANCELED) /* its template was, and knows where */
                        worker_is_late_in(w, e->start_phase);
        }
        enum death_reason reason = death_reason_of(w, e);
        bool by_signal = e->code == CLD_KILLED || e->code == CLD_DUMPED;
        struct layout_verdict line = {
                .reason = reason,
                .signal = by_signal ? e->status : 0,
                .status = by_signal ? 0 : e->status,
                .pid = w->pid,
                .when_ns = event_now_ns(),
        };
        if (reason == REASON_SYSCALL)
                death_note_breach(&line, &breach);
        struct recovery recovery;
        recovery_run(w, &line, reason != REASON_SPAWNER_LOST && reason != REASON_RECYCLED && !worker_is_wanting(w),
                     &recovery);
        if (!recovery.had_job) { /* it was judged before the kill */
                recovery.job_id = w->judged.id;
                recovery.job_uid = w->judged.uid;
                recovery.attempt = w->judged.attempt;
        }
        worker_fold_counts(w);
        struct death death = worker_make_death(w, e, &recovery, &line, &breach);
        p->workers[w->index] = NULL;
        pool_bells_collect(p);
        supervisor_forget_worker(s, w);
        if (w->is_charged)
                quota_give(&s->hung_of, w->judged.uid, 1);
        worker_tell_death(w, &death, recovery.had_job);
        SUPERVISOR_TELL(s, on_worker_removed, w, &death);
        pool_on_worker_gone(p, w, &death, recovery.had_job || w->is_wronged);
        worker_free(w);
        pool_settle(p); /* may free the pool */
}

static void worker_on_pid(struct loop_poll *p, uint32_t revents) {
        struct worker *w = p->user;
        struct spawn_event e = {
                .type = SPAWN_EXITED, .reason = REASON_SPAWNER_LOST, .code = CLD_KILLED, .status = SIGKILL};
        worker_on_gone(w, &e);
}

/* Nobody will reap it for us: it dies by PDEATHSIG, and its pidfd says when. The next spawner may be lost before that.
 */
void worker_on_spawner_lost(struct worker *w) {
        if (w->pid_poll.slot)
                return;
        if (w->pidfd < 0) {
                struct spawn_event e = {
                        .type = SPAWN_EXITED, .reason = REASON_SPAWNER_LOST, .code = CLD_KILLED, .status = SIGKILL};
                worker_on_gone(w, &e);
                return;
        }
        syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0); /* ours to kill only where the uid is the same */
        loop_poll_start(w->pool->supervisor->loop, &w->pid_poll, w->pidfd, POLLIN, worker_on_pid, w);
        worker_expect_death(w);
}

/* ---- for the bus ---- */

static void worker_read_status(const struct worker *w, char *text, size_t bytes) {
        const struct layout_worker *line = worker_line(w);
        for (unsigned try = 0; try < 3; try++) {
                uint32_t before = atomic_load(&line->status_seq);
                snprintf(text, bytes, "%.*s", (int)(bytes - 1), line->status);
                text[utf8_cut(text, strlen(text))] = 0;
                atomic_thread_fence(memory_order_acquire);
                if (!(before & 1) && atomic_load(&line->status_seq) == before && args_is_utf8(text, strlen(text)))
                        return;
        }
        text[0] = 0;
}

void worker_get_info(const struct worker *w, struct worker_info *ret) {
        struct worker_job job;
        bool has_job = w->phase >= PHASE_READY && worker_get_job(w, &job);
        *ret = (struct worker_info){
                .id = w->id,
                .pid = w->pid,
                .pool = w->pool,
                .state = w->quarantine_channel || w->is_stuck         ? WORKER_QUARANTINED
                         : w->phase == PHASE_STOPPING                 ? WORKER_STOPPING
                         : w->phase == PHASE_STARTING || !w->ready_ns ? WORKER_STARTING
                         : has_job                                    ? WORKER_RUNNING
                                                                      : WORKER_IDLE,
                .start_method = w->method,
                .sandbox = w->sandbox,
                .current_job = has_job ? worker_job_id(&job) : 0,
                .job_uid = has_job ? worker_job_uid(&job) : 0,
                .started_realtime_us = w->started_us,
        };
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++)
                ret->jobs_done += worker_count(w, state);
        if (has_job)
                worker_read_status(w, ret->status, sizeof(ret->status));
}
