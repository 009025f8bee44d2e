/* One worker process: from the START request to the last descriptor.
 *
 * Its life is the table `worker_table`: phase × event → action and next phase. The broker orders (bells, channels,
 * commands) and judges; it never trusts what comes back: a report of the wrong shape is the worker's fault and costs it
 * its life. It is gone when the spawner says that it was reaped and its process group killed, or, without a spawner, when
 * its pidfd is readable; only then its slots are recovered and its index is free. */
#include "daemon/supervise/worker.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/supervise/death.h"
#include "daemon/supervise/recovery.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/args.h"
#include "ipc/event.h"
#include "ipc/packet.h"

#define WORKER_SECOND_NS UINT64_C(1000000000)
enum { WORKER_START_LIMIT_S = 30 }; /* constructors, preload, worker_init: a plugin that hangs there is a failure, not a wait */

static void worker_on_start_timer(struct loop_timer *t);

static uint64_t worker_realtime_us(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

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
                .pidfd = -1,
                .control_fd = -1,
                .output_fd = -1,
                .started_us = worker_realtime_us(),
        };
        int r = worker_request(w, SPAWN_START, 0);
        if (r < 0) {
                free(w);
                return r;
        }
        memset(&p->memory->worker[index], 0, sizeof(p->memory->worker[index]));
        p->workers[index] = w;
        supervisor_add_worker(s, w);
        loop_timer_set(s->loop, &w->kill_timer, event_now_ns() + WORKER_START_LIMIT_S * WORKER_SECOND_NS,
                       worker_on_start_timer, w);
        SUPERVISOR_TELL(s, on_worker_added, w);
        *ret = w;
        return 0;
}

/* ---- orders ---- */

static void worker_poke(struct worker *w) { event_broadcast(&worker_line(w)->control); }

static int worker_order(struct worker *w, const struct worker_order *order, const int *fds, unsigned n_fds) {
        return packet_send(w->control_fd, order, sizeof(*order), fds, n_fds);
}

static int worker_send_setup(struct worker *w) {
        int output = -1;
        struct worker_order order = {
                .type = ORDER_SETUP, .version = WIRE_VERSION, .index = w->index, .model = 1, .id = w->id};
        snprintf(order.pool, sizeof(order.pool), "%s", w->pool->config.name);
        int r = worker_output_start(w, &output);
        if (r >= 0) {
                int fds[] = {w->pool->memory_fd, w->pool->doorbell_fd, output};
                r = worker_order(w, &order, fds, 3);
        }
        if (output >= 0)
                close(output);
        return r;
}

static int worker_send_bell(struct worker *w, uint32_t bell) {
        struct worker_order order = {.type = ORDER_BELL, .version = WIRE_VERSION, .bell = bell};
        int r = worker_order(w, &order, &w->pool->bells[bell].fd, 1);
        if (r >= 0)
                w->bells_sent |= 1u << bell;
        return r;
}

static int worker_send_channel(struct worker *w, struct pool_channel *c) {
        uint64_t bit = UINT64_C(1) << w->index % 64;
        uint64_t *attached = &c->attached[w->index / 64], *drop_sent = &c->drop_sent[w->index / 64];
        struct worker_order order = {
                .version = WIRE_VERSION,
                .channel = c->index,
                .bell = c->bell,
                .n_slots = c->channel.geometry.n_slots,
                .slot_bytes = c->channel.geometry.slot_bytes,
        };
        int r = 0;
        if (!c->is_dead && !(*attached & bit)) {
                int fds[] = {c->fd, c->done_fd};
                if (!(w->bells_sent & 1u << c->bell))
                        r = worker_send_bell(w, c->bell);
                order.type = ORDER_CHANNEL;
                r = r < 0 ? r : worker_order(w, &order, fds, 2);
                if (r >= 0)
                        *attached |= bit;
        } else if (c->is_dead && (*attached & bit) && !(*drop_sent & bit)) {
                order.type = ORDER_DROP;
                r = worker_order(w, &order, NULL, 0);
                if (r >= 0)
                        *drop_sent |= bit;
        }
        return r;
}

void worker_sync(struct worker *w) {
        if (w->phase != PHASE_READY && w->phase != PHASE_STOPPING)
                return;
        int r = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS && r >= 0; i++)
                if (w->pool->channels[i])
                        r = worker_send_channel(w, w->pool->channels[i]);
        if (!w->is_unheard)
                loop_poll_change(&w->control_poll, r == -EAGAIN ? POLLIN | POLLOUT : POLLIN);
        worker_poke(w);
}

void worker_command(struct worker *w) {
        uint32_t command = w->phase == PHASE_STOPPING ? WORKER_RETIRE
                           : w->phase != PHASE_READY  ? WORKER_WAIT
                           : w->pool->is_paused       ? WORKER_WAIT
                                                      : WORKER_RUN;
        if (atomic_exchange(&worker_line(w)->command, command) != command)
                worker_poke(w);
}

/* ---- what it runs ---- */

bool worker_get_job(const struct worker *w, struct worker_job *ret) {
        uint64_t record = atomic_load(&worker_line(w)->record);
        struct pool_channel *c = pool_channel_at(w->pool, record >> 16 & 0xffff);
        uint32_t slot = record & 0xffff;
        if (!c || slot >= c->channel.geometry.n_slots)
                return false;
        uint64_t word = channel_word(&c->channel, slot);
        if (slot_state(word) != SLOT_RUNNING || slot_owner(word) != w->index + SLOT_OWNER_WORKER0 ||
            slot_generation(word) != record >> 32)
                return false;
        *ret = (struct worker_job){c, slot, slot_generation(word), word};
        return true;
}

uint64_t worker_job_id(const struct worker_job *j) {
        uint64_t id;
        channel_copy(&id, &channel_job(&j->channel->channel, j->slot)->id, sizeof(id));
        return j->channel->id_base | (id & ((UINT64_C(1) << 40) - 1)); /* a client cannot name another's job */
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
        if (!channel_judge(&job.channel->channel, job.slot, w->index, job.generation, verdict, SLOT_QUARANTINE, &line))
                return false;
        w->quarantine_channel = job.channel;
        w->quarantine_slot = job.slot;
        pool_count_verdict(w->pool, verdict);
        channel_announce(&job.channel->channel, job.slot, job.channel->done_fd);
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
        worker_sync(w);
        worker_command(w);
        pool_on_worker_ready(w->pool, w);
}

static void worker_do_retire(struct worker *w) { worker_command(w); }

static void worker_do_kill(struct worker *w) {
        if (worker_request(w, SPAWN_KILL, SIGKILL) < 0 && w->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
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

static void worker_on_start_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        snprintf(w->text, sizeof(w->text), "it was not ready %d s after its start", WORKER_START_LIMIT_S);
        worker_kill_now(w, REASON_INIT);
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

static void worker_on_deaf_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        snprintf(w->text, sizeof(w->text), "it closed its control socket and lived on");
        worker_kill_now(w, REASON_INIT);
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
        if (!w->kill_timer.heap_index || w->kill_timer.fn == worker_on_retire_timer || w->kill_timer.deadline_ns > deadline_ns)
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer, deadline_ns, worker_on_kill_timer, w);
}

int worker_kill(struct worker *w, int signal, struct fault *f) {
        if (signal < 1 || signal > 64)
                return fault_set(f, FAULT_INVALID_ARGS, "signal %d: not in 1..64", signal);
        if (w->pidfd < 0)
                return fault_set(f, FAULT_NO_SUCH_WORKER, "worker %llu is still being started", (unsigned long long)w->id);
        if (worker_request(w, SPAWN_KILL, signal) < 0)
                return fault_set(f, FAULT_INTERNAL, "there is no spawner to send the signal");
        return 0;
}

int worker_get_pidfd(const struct worker *w) { return w->pidfd; }

/* ---- reports ---- */

static int worker_on_dropped(struct worker *w, uint32_t index) {
        struct pool_channel *c = pool_channel_at(w->pool, index);
        uint64_t bit = UINT64_C(1) << w->index % 64;
        if (!c || !(c->drop_sent[w->index / 64] & bit))
                return -EPROTO;
        if (c == w->quarantine_channel)
                return 0; /* it is being killed, and its death lets go of the channel */
        c->attached[w->index / 64] &= ~bit;
        c->drop_sent[w->index / 64] &= ~bit;
        pool_channel_collect(c);
        return 0;
}

static int worker_learn_schema(struct worker *w, const struct worker_report *report, const char *text, size_t bytes) {
        char error[200];
        struct pool *p = w->pool;
        if (report->text_bytes != bytes) {
                snprintf(w->text, sizeof(w->text), "the worker's READY is cut short");
                return -EPROTO;
        }
        if (p->schema && bytes == p->schema_bytes && memcmp(p->schema_text, text, bytes) == 0)
                return 0;
        struct schema *schema;
        int r = schema_parse(text, bytes, &schema, error, sizeof(error));
        if (r < 0) {
                snprintf(w->text, sizeof(w->text), "the plugin's job types: %.180s", error);
                return r;
        }
        char *copy = malloc(bytes ? bytes : 1);
        if (!copy) {
                schema_free(schema);
                return -ENOMEM;
        }
        memcpy(copy, text, bytes);
        if (p->schema)
                log_notice("pool %s: the plugin's job types changed", p->config.name);
        schema_free(p->schema);
        free(p->schema_text);
        p->schema = schema;
        p->schema_text = copy;
        p->schema_bytes = bytes;
        return 0;
}

static int worker_on_ready_report(struct worker *w, const struct worker_report *report, const char *text, size_t bytes) {
        if (w->ready_ns)
                return -EPROTO;
        if (w->phase != PHASE_INIT) /* it is to end: what it has to say is of no use */
                return 0;
        snprintf(w->sandbox, sizeof(w->sandbox), "%.*s", (int)sizeof(report->sandbox) - 1, report->sandbox);
        for (char *c = w->sandbox; *c; c++)
                if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
                        *c = '?';
        if (worker_learn_schema(w, report, text, bytes) < 0) {
                w->is_permanent = true;
                worker_kill_now(w, REASON_INIT);
                return 0;
        }
        worker_step(w, WORKER_EVENT_READY);
        return 0;
}

/* Text of a worker or a template is bytes of a plugin: printable ASCII and UTF-8 lead to the bus, the rest does not. */
static void worker_take_text(struct worker *w, const char *text) {
        snprintf(w->text, sizeof(w->text), "%s", text);
        if (!args_is_utf8(w->text, strlen(w->text)))
                for (char *c = w->text; *c; c++)
                        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
                                *c = '?';
}

static int worker_on_failed(struct worker *w, const struct worker_report *report) {
        if (w->ready_ns || w->said != REASON_NONE)
                return -EPROTO;
        worker_take_text(w, report->text);
        w->said = report->reason > REASON_NONE && report->reason < REASON_N ? report->reason : REASON_INIT;
        w->is_permanent = report->is_permanent;
        return 0;
}

/* One report. -EAGAIN: none; another error: there will be no more, or none that is worth hearing. */
static int worker_receive(struct worker *w) {
        static union { /* one thread, one packet at a time */
                struct worker_report report;
                char bytes[WIRE_MAX_REPORT];
        } packet;
        size_t bytes;
        unsigned n_fds = 0;
        int r = packet_receive(w->control_fd, &packet, sizeof(packet), &bytes, NULL, &n_fds);
        if (r < 0)
                return r;
        if (bytes == 0)
                return -EPIPE;
        struct worker_report *report = &packet.report;
        if (bytes < sizeof(*report) || report->version != WIRE_VERSION)
                return -EPROTO;
        report->text[sizeof(report->text) - 1] = 0;
        switch (report->type) {
        case REPORT_READY:
                return worker_on_ready_report(w, report, packet.bytes + sizeof(*report), bytes - sizeof(*report));
        case REPORT_FAILED:
                return worker_on_failed(w, report);
        case REPORT_DROPPED:
                return worker_on_dropped(w, report->channel);
        default:
                return -EPROTO;
        }
}

static void worker_on_control(struct loop_poll *p, uint32_t revents) {
        struct worker *w = p->user;
        if (revents & POLLOUT)
                worker_sync(w);
        int r = worker_receive(w);
        if (r == 0 || r == -EAGAIN)
                return;
        w->is_unheard = true;
        loop_poll_change(p, 0); /* end of file: its death follows; a false report: make it follow */
        if (r != -EPIPE && r != -ECONNRESET) {
                log_error("pool %s, worker %llu: a report that makes no sense, or out of turn", w->pool->config.name,
                          (unsigned long long)w->id);
                worker_kill_now(w, REASON_INIT);
        } else if (!w->kill_timer.heap_index) { /* it would hear of no more channels */
                loop_timer_set(w->pool->supervisor->loop, &w->kill_timer, event_now_ns() + WORKER_SECOND_NS,
                               worker_on_deaf_timer, w);
        }
}

void worker_on_started(struct worker *w, const struct spawn_event *e, const int fds[2]) {
        w->pid = e->pid;
        w->pidfd = fds[0];
        w->control_fd = fds[1];
        int r = loop_poll_start(w->pool->supervisor->loop, &w->control_poll, w->control_fd, POLLIN, worker_on_control, w);
        if (r < 0)
                worker_kill_now(w, REASON_INIT);
        else
                worker_step(w, WORKER_EVENT_STARTED);
}

/* ---- the end ---- */

static void worker_fold_counts(struct worker *w) {
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++) {
                pool_add_verdicts(w->pool, state, atomic_load(&worker_line(w)->counts[state]));
        }
}

static struct death worker_make_death(struct worker *w, const struct spawn_event *e, const struct recovery *recovery,
                                      enum death_reason reason, uint32_t syscall) {
        bool by_signal = e->code == CLD_KILLED || e->code == CLD_DUMPED;
        char why[160];
        struct death d = {
                .worker_id = w->id,
                .job_id = recovery->job_id,
                .pid = w->pid,
                .reason = reason,
                .status = e->status,
                .syscall = reason == REASON_SYSCALL ? syscall : 0,
                .attempt = recovery->attempt,
                .realtime_us = worker_realtime_us(),
        };
        snprintf(d.pool, sizeof(d.pool), "%s", w->pool->config.name);
        death_describe(reason, by_signal ? e->status : 0, e->status, d.syscall, why, sizeof(why));
        if (recovery->had_job)
                snprintf(d.text, sizeof(d.text), "%.100s while running job %llu (attempt %u)", why,
                         (unsigned long long)recovery->job_id, recovery->attempt);
        else
                snprintf(d.text, sizeof(d.text), "%.150s", w->text[0] ? w->text : why);
        return d;
}

void worker_free(struct worker *w) {
        worker_output_stop(w);
        loop_timer_stop(&w->kill_timer);
        loop_poll_stop(&w->control_poll);
        loop_poll_stop(&w->pid_poll);
        if (w->control_fd >= 0)
                close(w->control_fd);
        if (w->pidfd >= 0)
                close(w->pidfd);
        free(w);
}

/* The template knows the number, we know the name. */
static void worker_add_syscall(struct worker *w, uint32_t syscall) {
        char call[64];
        size_t bytes = strlen(w->text);
        death_syscall_name(syscall, call, sizeof(call));
        snprintf(w->text + bytes, sizeof(w->text) - bytes, ": %s", call);
}

/* A worker that ends as it was told to is no death; one that never came to life is told, but not counted. */
static void worker_tell_death(struct worker *w, const struct death *death, bool had_job) {
        struct pool *p = w->pool;
        if ((w->doom == REASON_RECYCLED || w->doom == REASON_OPERATOR) && !had_job)
                return;
        death_record(p, death);
        p->counters.worker_deaths += w->pid != 0;
        if (w->ready_ns)
                log_notice("pool %s: worker %llu (pid %d) died: %s", p->config.name, (unsigned long long)w->id, (int)w->pid,
                           death->text);
}

void worker_on_gone(struct worker *w, const struct spawn_event *e) {
        struct pool *p = w->pool;
        struct supervisor *s = p->supervisor;
        uint32_t syscall = atomic_load(&worker_line(w)->fault_syscall);
        w->phase = PHASE_STOPPING;
        if (w->control_fd >= 0 && !w->is_unheard)
                while (worker_receive(w) == 0) /* its last words */
                        ;
        if (e->type == SPAWN_FAILED) {
                syscall = e->syscall;
                w->is_permanent = e->is_permanent;
                w->said = e->reason ? e->reason : REASON_INIT;
                worker_take_text(w, e->text);
                if (syscall)
                        worker_add_syscall(w, syscall);
        }
        enum death_reason reason = death_reason_of(w, e, syscall);
        bool by_signal = e->code == CLD_KILLED || e->code == CLD_DUMPED;
        struct layout_verdict line = {
                .reason = reason,
                .signal = by_signal ? e->status : 0,
                .status = by_signal ? 0 : e->status,
                .syscall = reason == REASON_SYSCALL ? syscall : 0,
                .pid = w->pid,
                .when_ns = event_now_ns(),
        };
        struct recovery recovery;
        recovery_run(w, &line, reason != REASON_SPAWNER_LOST && reason != REASON_RECYCLED, &recovery);
        worker_fold_counts(w);
        struct death death = worker_make_death(w, e, &recovery, reason, syscall);
        p->workers[w->index] = NULL;
        supervisor_forget_worker(s, w);
        worker_tell_death(w, &death, recovery.had_job);
        SUPERVISOR_TELL(s, on_worker_removed, w, &death);
        pool_on_worker_gone(p, w, reason, recovery.had_job);
        worker_free(w);
        pool_settle(p); /* may free the pool */
}

static void worker_on_pid(struct loop_poll *p, uint32_t revents) {
        struct worker *w = p->user;
        struct spawn_event e = {.type = SPAWN_EXITED, .reason = REASON_SPAWNER_LOST, .code = CLD_KILLED, .status = SIGKILL};
        worker_on_gone(w, &e);
}

/* Nobody will reap it for us: it dies by PDEATHSIG, and its pidfd says when. The next spawner may be lost before that. */
void worker_on_spawner_lost(struct worker *w) {
        if (w->pid_poll.slot)
                return;
        if (w->pidfd < 0) {
                struct spawn_event e = {.type = SPAWN_EXITED, .reason = REASON_SPAWNER_LOST, .code = CLD_KILLED, .status = SIGKILL};
                worker_on_gone(w, &e);
                return;
        }
        syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0); /* ours to kill only where the uid is the same */
        loop_poll_start(w->pool->supervisor->loop, &w->pid_poll, w->pidfd, POLLIN, worker_on_pid, w);
}

/* ---- for the bus ---- */

static void worker_read_status(const struct worker *w, char *text, size_t bytes) {
        const struct layout_worker *line = worker_line(w);
        for (unsigned try = 0; try < 3; try++) {
                uint32_t before = atomic_load(&line->status_seq);
                snprintf(text, bytes, "%.*s", (int)(bytes - 1), line->status);
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
                .state = w->quarantine_channel                           ? WORKER_QUARANTINED
                         : w->phase == PHASE_STOPPING                    ? WORKER_STOPPING
                         : w->phase == PHASE_STARTING || !w->ready_ns    ? WORKER_STARTING
                         : has_job                                       ? WORKER_RUNNING
                                                                         : WORKER_IDLE,
                .start_method = w->method,
                .sandbox = w->sandbox,
                .current_job = has_job ? worker_job_id(&job) : 0,
                .started_realtime_us = w->started_us,
        };
        for (unsigned state = SLOT_DONE; state < SLOT_N_STATES; state++)
                ret->jobs_done += atomic_load(&worker_line(w)->counts[state]);
        if (has_job)
                worker_read_status(w, ret->status, sizeof(ret->status));
}
