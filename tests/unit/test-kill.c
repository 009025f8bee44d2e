/* SIGKILL between every two atomic operations of rings, slots, bells and waits, with the library compiled so that a
 * process dies at a named place.
 *
 * This process is the broker: it starts workers and clients, recovers after each death as ipc/PROTOCOL.md says, and
 * starts the next. What must hold whatever dies: every accepted job has exactly one verdict and the right answer, its
 * attempts are the deaths it saw and one, nobody waits for ever, and after a death the run record alone says what was
 * held. The seeds are fixed; what the scheduler makes of them is not. Rounds go on until somebody has died at each
 * place DROVER_KILL_SEEDS times (20). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/bell.h"
#include "ipc/client/session-internal.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"
#include "ipc/kill-point.h"

enum {
        WORKERS = 3,
        VICTIMS = 24, /* clients that die, one channel each */
        CHANNELS = 1 + VICTIMS,
        SLOTS = 16,
        WINDOW = 8,
        JOBS = 6000,
        CRASH_EVERY = 101, /* a job that kills each worker that runs it */
        CRASH_ATTEMPTS = 3,
        AGAIN_EVERY = 37, /* a job that asks for another attempt in its first */
        LATER_EVERY = 41, /* a job that begins delayed */
        NEVER_POISONED = LAYOUT_MAX_ATTEMPTS,
        DEFAULT_SEEDS = 20,
        MIN_ROUNDS = 12,
        QUIET_TICKS = 5,    /* without a death, of 1 ms */
        ROUNDS_A_SEED = 20, /* more, and some place is never come to */
};

#define DEADLINE_NS UINT64_C(60000000000)
#define STUCK_NS UINT64_C(20000000000)

static const char *const worker_points[] = {
        "claim-record",  "claim-slot",    "claim-head", "finish-word",     "announce-bit",
        "announce-wait", "announce-seq",  "bell-seq",   "bell-sleeper",    "bell-woken",
        "bell-awake",    "bell-spinner",  "bell-spun",  "bell-clear-work", "handler",
        "handler-half",  "postpone-word", "bell-wake",  "bell-risen",
};
static const char *const client_points[] = {
        "slot-filling", "slot-queued", "ring-cell", "bell-work-before", "bell-work-after", "bell-seq",
        "done-taken",   "wait-seen",   "wait-set",  "slot-delayed",     "bell-wake",
};

enum job_type { JOB_PLAIN, JOB_CRASH, JOB_AGAIN };
#define NUMBER(type) (1000u + (type)) /* as it stands in the job's line */

enum { N_WORKER_POINTS = sizeof worker_points / sizeof *worker_points };
enum { N_CLIENT_POINTS = sizeof client_points / sizeof *client_points };

/* Shared by all processes of a test, besides what is tested. */
struct shared {
        _Atomic uint64_t record[WORKERS];
        _Atomic uint32_t stop;
        _Atomic uint32_t n_deaths_at[N_WORKER_POINTS];
        _Atomic uint32_t n_client_deaths_at[N_CLIENT_POINTS];
        _Atomic uint64_t n_verdicts, n_retries, n_poisoned;
};

struct broker {
        struct shared *shared;
        struct layout_bell *bell;
        int bell_fd, n_channels;
        struct doorbell doorbell;
        struct channel channels[CHANNELS];
        int channel_fds[CHANNELS][CHANNEL_PARTS];
        struct doorbell dones[CHANNELS];
        bool is_open[CHANNELS];
        pid_t workers[WORKERS], steady, victim;
        unsigned seed, n_deaths, n_victims;
        uint64_t n_requeued; /* of the steady client's jobs */
};

/* Of the rounds before. */
static uint32_t n_died_at[N_WORKER_POINTS], n_clients_died_at[N_CLIENT_POINTS];

static unsigned n_seeds(void) {
        const char *text = getenv("DROVER_KILL_SEEDS");
        return text ? (unsigned)atoi(text) : DEFAULT_SEEDS;
}

/* The place where the fewest have died. */
static unsigned rarest(const uint32_t *before, const _Atomic uint32_t *now, unsigned n) {
        unsigned best = 0;
        for (unsigned i = 1; i < n; i++)
                if (before[i] + atomic_load(&now[i]) < before[best] + atomic_load(&now[best]))
                        best = i;
        return best;
}

/* ---- dying at a named place ---- */

static struct {
        const char *name;
        _Atomic uint32_t *n_deaths;
        unsigned n_left;     /* visits of `name` */
        unsigned n_any_left; /* visits of any place */
} plan;

void kill_point(const char *name) {
        bool is_here = plan.name && strcmp(plan.name, name) == 0 && --plan.n_left == 0;
        if (is_here && plan.n_deaths)
                atomic_fetch_add(plan.n_deaths, 1);
        if (is_here || (plan.n_any_left > 0 && --plan.n_any_left == 0))
                kill(getpid(), SIGKILL);
}

static void child_begin(void) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

#define CHECK(condition)                                                                                               \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
                        _exit(1);                                                                                      \
                }                                                                                                      \
        } while (0)

/* ---- a worker ---- */

struct worker {
        struct shared *shared;
        struct layout_bell *bell;
        struct channel channels[CHANNELS];
        const struct doorbell *dones;
        int n_channels;
        uint32_t index, next;
};

static void worker_settle(struct worker *w, uint32_t channel) {
        bell_clear_work(w->bell, channel);
        if (channel_has_work(&w->channels[channel]))
                bell_mark_work(w->bell, channel);
}

static bool worker_run_one(struct worker *w, uint32_t index) {
        struct channel *c = &w->channels[index];
        uint32_t slot;
        uint64_t word;
        int r = channel_claim(c, index, w->index, false, event_now_ns(), &w->shared->record[w->index],
                              w->dones[index].ring_fd, &slot, &word);
        CHECK(r >= 0);
        if (r == CHANNEL_EMPTY) {
                worker_settle(w, index);
                return false;
        }
        if (!channel_has_work(c))
                worker_settle(w, index);
        bell_pass_on(w->bell);

        const uint64_t *in = channel_payload(c, slot);
        struct layout_result *line = channel_result(c, slot);
        uint64_t *out = channel_result_data(c, slot);
        KILL_POINT("handler");
        uint32_t type = channel_job(c, slot)->type;
        if (type == NUMBER(JOB_CRASH))
                kill(getpid(), SIGKILL);
        if (type == NUMBER(JOB_AGAIN) && slot_attempt(word) == 1) {
                CHECK(channel_postpone(c, slot, word) == 0);
                return true;
        }
        out[0] = in[0] * 3 + 1;
        KILL_POINT("handler-half");
        out[1] = ~in[0];
        *line = (struct layout_result){.bytes = 16, .pid = (uint32_t)getpid(), .generation = slot_generation(word)};
        CHECK(channel_finish(c, slot, word, SLOT_DONE, w->dones[index].ring_fd) ==
              0); /* nobody judges the living here */
        return true;
}

static bool worker_has_reason(const struct worker *w) {
        return bell_has_work(w->bell) || atomic_load(&w->shared->stop);
}

static void worker_rest(struct worker *w) {
        bell_spin_begin(w->bell, w->index);
        for (unsigned i = 0; i < 20 && !worker_has_reason(w); i++)
                event_pause();
        bell_spin_end(w->bell, w->index);
        if (worker_has_reason(w))
                return;
        struct event_wait wait = bell_sleep_begin(w->bell, w->index);
        if (!worker_has_reason(w))
                event_wait(wait.word, wait.seen, EVENT_FOREVER);
        bell_sleep_end(w->bell, w->index);
}

static void worker_main(struct broker *b, uint32_t index) {
        static struct worker w;
        child_begin();
        w = (struct worker){.shared = b->shared, .dones = b->dones, .n_channels = b->n_channels, .index = index};
        CHECK(bell_map(b->bell_fd, &w.bell) == 0);
        for (int i = 0; i < b->n_channels; i++)
                CHECK(channel_map(&w.channels[i], &b->channels[i].geometry, b->channel_fds[i], CHANNEL_WORKER) == 0);
        while (!atomic_load(&w.shared->stop)) {
                bool ran = false;
                for (int i = 0; i < w.n_channels && !ran; i++) {
                        uint32_t channel = (w.next + (uint32_t)i) % (uint32_t)w.n_channels;
                        if (!bell_channel_has_work(w.bell, channel))
                                continue;
                        ran = worker_run_one(&w, channel);
                        w.next = channel + 1;
                }
                if (!ran)
                        worker_rest(&w);
        }
        _exit(0);
}

static void start_worker(struct broker *b, uint32_t index, bool may_die) {
        unsigned kind = (unsigned)rand_r(&b->seed) % 4, n = (unsigned)rand_r(&b->seed);
        /* A place that is hard to come to must not keep all others from being tried. */
        unsigned point =
                n / 16 % 2 ? b->n_deaths % N_WORKER_POINTS : rarest(n_died_at, b->shared->n_deaths_at, N_WORKER_POINTS);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid > 0) {
                b->workers[index] = pid;
                return;
        }
        if (may_die && kind < 2) {
                plan.name = worker_points[point];
                plan.n_deaths = &b->shared->n_deaths_at[point];
                plan.n_left = 1 + n % 4;
        } else if (may_die)
                plan.n_any_left = 1 + n % 400;
        worker_main(b, index);
}

/* ---- a client ---- */

static struct session *client_open(struct broker *b, int index) {
        static struct schema_job jobs[] = {
                [JOB_PLAIN] = {.number = NUMBER(JOB_PLAIN), .result.is_raw = true},
                [JOB_CRASH] = {.number = NUMBER(JOB_CRASH), .result.is_raw = true},
                [JOB_AGAIN] = {.number = NUMBER(JOB_AGAIN), .result.is_raw = true},
        };
        static struct schema schema = {.n_jobs = sizeof jobs / sizeof *jobs, .jobs = jobs};
        int pair[2];
        struct session *s = calloc(1, sizeof *s);
        CHECK(s && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        CHECK(channel_map(&s->channel, &b->channels[index].geometry, b->channel_fds[index], CHANNEL_CLIENT) == 0);
        CHECK(bell_map(b->bell_fd, &s->bell) == 0 && session_init_slots(s) == 0);
        s->schema = &schema;
        s->index = (uint32_t)index;
        s->doorbell_fd = b->doorbell.ring_fd;
        s->done_fd = b->dones[index].hear_fd;
        s->socket_fd = pair[0];
        return s;
}

static enum job_type type_of(uint64_t n) {
        return n % CRASH_EVERY == CRASH_EVERY - 1 ? JOB_CRASH : n % AGAIN_EVERY == 3 ? JOB_AGAIN : JOB_PLAIN;
}

static void client_submit(struct session *s, uint64_t n, enum job_type type) {
        const uint64_t payload[2] = {n, 0};
        bool crashes = type == JOB_CRASH;
        const struct session_job job = {
                .type = type,
                .not_before_ns = n % LATER_EVERY == 5 ? event_now_ns() + 1000000 : 0,
                .priority = (uint32_t)(n % LAYOUT_PRIORITIES),
                .max_attempts = crashes ? CRASH_ATTEMPTS : NEVER_POISONED,
                .payload = payload,
                .bytes = sizeof payload,
                .user = n,
        };
        uint32_t slot;
        CHECK(session_submit(s, &job, &slot) == 0);
}

static void client_main(struct broker *b) {
        child_begin();
        struct session *s = client_open(b, 0);
        static bool is_finished[JOBS];
        unsigned seed = b->seed;
        for (uint64_t sent = 0, got = 0; got < JOBS;) {
                /* Now many at once, now one by one, now everything drained: then all fall asleep. */
                unsigned window = sent % 500 < 200 ? 1 : WINDOW;
                session_set_spin(s, (unsigned)rand_r(&seed) % 2 == 0);
                for (; sent < JOBS && session_in_flight(s) < window; sent++)
                        client_submit(s, sent, type_of(sent));

                struct session_result r;
                CHECK(session_next(s, &r, event_now_ns() + STUCK_NS) == 1);
                CHECK(r.user < sent && !is_finished[r.user]);
                is_finished[r.user] = true;
                got++;
                bool crashes = type_of(r.user) == JOB_CRASH;
                CHECK(r.state == (crashes ? SLOT_POISONED : SLOT_DONE));
                if (crashes)
                        CHECK(r.attempt == CRASH_ATTEMPTS && r.verdict.attempts == CRASH_ATTEMPTS);
                else {
                        uint64_t out[2];
                        CHECK(r.bytes == sizeof out);
                        memcpy(out, r.data, sizeof out);
                        CHECK(out[0] == r.user * 3 + 1 && out[1] == ~r.user);
                }
                atomic_fetch_add(&b->shared->n_verdicts, 1);
                atomic_fetch_add(&b->shared->n_retries, r.attempt - 1);
                atomic_fetch_add(&b->shared->n_poisoned, crashes);
        }
        _exit(0);
}

static void victim_main(struct broker *b, int index, unsigned point, unsigned nth) {
        child_begin();
        struct session *s = client_open(b, index);
        plan.name = client_points[point];
        plan.n_deaths = &b->shared->n_client_deaths_at[point];
        plan.n_left = nth;
        for (uint64_t n = 0;; n++) {
                struct session_result r;
                while (session_in_flight(s) == SLOTS / 2)
                        CHECK(session_next(s, &r, event_now_ns() + STUCK_NS) == 1);
                client_submit(s, n, JOB_PLAIN);
                if (n > 5000) /* this place was not met in time */
                        kill(getpid(), SIGKILL);
        }
}

static void start_victim(struct broker *b) {
        unsigned nth = 1 + (unsigned)rand_r(&b->seed) % 10;
        unsigned point = b->n_victims % 2 ? b->n_victims / 2 % N_CLIENT_POINTS
                                          : rarest(n_clients_died_at, b->shared->n_client_deaths_at, N_CLIENT_POINTS);
        int index = 1 + (int)b->n_victims++;
        b->is_open[index] = true;
        b->victim = fork();
        assert_true(b->victim >= 0);
        if (b->victim == 0)
                victim_main(b, index, point, nth);
}

/* ---- the broker ---- */

static void recover_slot(struct broker *b, uint32_t worker, uint32_t index, uint32_t slot) {
        struct channel *c = &b->channels[index];
        uint64_t word = channel_word(c, slot);
        if (slot_attempt(word) >= channel_job(c, slot)->max_attempts) {
                const struct layout_verdict line = {.reason = REASON_SIGNAL,
                                                    .signal = SIGKILL,
                                                    .attempts = slot_attempt(word),
                                                    .when_ns = event_now_ns()};
                assert_true(channel_judge(c, slot, worker, slot_generation(word), SLOT_POISONED, 0, &line));
                channel_announce(c, slot, b->dones[index].ring_fd);
                return;
        }
        assert_int_equal(channel_requeue(c, slot, worker, true), 1);
        b->n_requeued += index == 0;
}

static void recover_worker(struct broker *b, uint32_t worker) {
        uint64_t record = atomic_load(&b->shared->record[worker]);
        uint32_t index = record >> 16 & 0xffff, slot = record & 0xffff;
        uint64_t word = channel_word(&b->channels[index], slot);
        if (slot_generation(word) == record >> 32) {
                if (slot_state(word) == SLOT_RUNNING && slot_owner(word) == worker + SLOT_OWNER_WORKER0)
                        recover_slot(b, worker, index, slot);
                else if (slot_is_verdict(word))
                        channel_announce(&b->channels[index], slot, b->dones[index].ring_fd);
        }
        for (int i = 0; i < b->n_channels; i++) {
                for (uint32_t k = 0; k < SLOTS; k++) { /* the record told all */
                        word = channel_word(&b->channels[i], k);
                        assert_false(slot_state(word) == SLOT_RUNNING &&
                                     slot_owner(word) == worker + SLOT_OWNER_WORKER0);
                }
                if (channel_has_work(&b->channels[i]))
                        bell_mark_work(b->bell, (uint32_t)i);
                channel_broadcast(&b->channels[i], b->dones[i].ring_fd);
        }
        bell_forget(b->bell, worker);
        bell_broadcast(b->bell);
}

/* What was delayed, by the living or the dead, is due now. Nobody has to be told: here the broker looks by itself. */
static void let_delayed_go(struct broker *b) {
        for (int i = 0; i < b->n_channels; i++) {
                bool is_any = false;
                for (uint32_t slot = 0; slot < SLOTS && b->is_open[i]; slot++) {
                        uint64_t word = channel_word(&b->channels[i], slot);
                        if (slot_state(word) != SLOT_DELAYED ||
                            channel_undelay(&b->channels[i], slot, slot_generation(word)) != 1)
                                continue;
                        is_any = true;
                        b->n_requeued += i == 0 && slot_attempt(word) > 1; /* by the job's own wish */
                }
                if (is_any)
                        bell_ring(b->bell, (uint32_t)i, b->doorbell.ring_fd);
        }
}

/* A dead client's slots. Even ones are dropped; odd ones are adopted, as by a broker that was restarted: what was
 * accepted runs, pushed or not. */
static void recover_client(struct broker *b, uint32_t index) {
        struct channel *c = &b->channels[index];
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
                uint64_t word = channel_word(c, slot);
                if (slot_state(word) == SLOT_FILLING)
                        assert_true(channel_cas(c, slot, word,
                                                SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, slot_generation(word))));
                else if ((slot_state(word) == SLOT_QUEUED || slot_state(word) == SLOT_DELAYED) && index % 2 == 0)
                        channel_judge_queued(c, slot, slot_generation(word),
                                             SLOT_CANCELLED); /* or a worker has it now */
                else if (slot_state(word) == SLOT_QUEUED)
                        assert_int_equal(channel_push_again(c, slot), 0);
        }
        bell_ring(b->bell, index, b->doorbell.ring_fd);
        bell_broadcast(b->bell);
}

static bool is_settled(const struct broker *b, uint32_t index) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
                uint64_t word = channel_word(&b->channels[index], slot);
                if (slot_state(word) == SLOT_QUEUED || slot_state(word) == SLOT_DELAYED ||
                    slot_state(word) == SLOT_RUNNING || slot_state(word) == SLOT_FILLING)
                        return false;
        }
        return true;
}

/* One dead child. false: the steady client ended. */
static bool on_death(struct broker *b, pid_t pid, int status, bool may_die) {
        if (pid == b->steady) {
                assert_int_equal(status, 0);
                b->steady = 0;
                return false;
        }
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (pid == b->victim) {
                b->victim = 0;
                recover_client(b, b->n_victims);
                if (b->n_victims < VICTIMS)
                        start_victim(b);
                return true;
        }
        for (uint32_t i = 0; i < WORKERS; i++)
                if (pid == b->workers[i]) {
                        b->n_deaths++;
                        recover_worker(b, i);
                        start_worker(b, i, may_die);
                }
        return true;
}

static void broker_run(struct broker *b, bool with_victims) {
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigprocmask(SIG_BLOCK, &child, NULL);
        for (uint32_t i = 0; i < WORKERS; i++)
                start_worker(b, i, true);
        b->steady = fork();
        if (b->steady == 0)
                client_main(b);
        if (with_victims)
                start_victim(b);

        uint64_t deadline_ns = event_now_ns() + DEADLINE_NS;
        for (unsigned n_quiet = 0; b->steady || b->victim;) {
                assert_true(event_now_ns() < deadline_ns);
                const struct timespec tick = {.tv_nsec = 1000000};
                n_quiet = sigtimedwait(&child, NULL, &tick) < 0 ? n_quiet + 1 : 0;
                if (n_quiet % QUIET_TICKS == QUIET_TICKS - 1) /* somebody dies wherever it is */
                        kill(b->workers[(unsigned)rand_r(&b->seed) % WORKERS], SIGKILL);
                let_delayed_go(b);
                int status;
                for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
                        on_death(b, pid, status, true);
        }
}

/* No more deaths: what is left over must come to its end by itself. */
static void broker_settle(struct broker *b) {
        uint64_t deadline_ns = event_now_ns() + DEADLINE_NS;
        for (bool settled = false; !settled;) {
                assert_true(event_now_ns() < deadline_ns);
                sigset_t child;
                sigemptyset(&child);
                sigaddset(&child, SIGCHLD);
                const struct timespec tick = {.tv_nsec = 2000000};
                sigtimedwait(&child, NULL, &tick);
                int status;
                for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
                        on_death(b, pid, status, false);
                let_delayed_go(b);
                settled = true;
                for (int i = 0; i < b->n_channels; i++)
                        settled = settled && (!b->is_open[i] || is_settled(b, (uint32_t)i));
        }
        atomic_store(&b->shared->stop, 1);
        bell_broadcast(b->bell);
        for (uint32_t i = 0; i < WORKERS; i++)
                while (waitpid(b->workers[i], NULL, 0) < 0)
                        assert_int_equal(errno, EINTR);
}

static struct broker *round_begin(unsigned seed) {
        struct broker *b = calloc(1, sizeof *b);
        struct channel_geometry g;
        assert_non_null(b);
        b->seed = seed;
        b->n_channels = CHANNELS;
        b->is_open[0] = true;
        b->shared = mmap(NULL, sizeof *b->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        int r = bell_create("test", &b->bell, &b->bell_fd);
        r = r < 0 ? r : doorbell_open(&b->doorbell);
        r = r < 0 ? r : channel_geometry_init(&g, SLOTS, 64);
        for (int i = 0; i < CHANNELS && r == 0; i++) {
                r = channel_create(&b->channels[i], &g, "test", b->channel_fds[i]);
                r = r < 0 ? r : doorbell_open(&b->dones[i]);
        }
        assert_int_equal(r, 0);
        bell_set_mode(b->bell, BELL_FUTEX);
        return b;
}

static void round_end(struct broker *b) {
        for (unsigned i = 0; i < N_WORKER_POINTS; i++)
                n_died_at[i] += atomic_load(&b->shared->n_deaths_at[i]);
        for (unsigned i = 0; i < N_CLIENT_POINTS; i++)
                n_clients_died_at[i] += atomic_load(&b->shared->n_client_deaths_at[i]);
        for (int i = 0; i < CHANNELS; i++) {
                channel_unmap(&b->channels[i]);
                channel_close(b->channel_fds[i]);
                doorbell_close(&b->dones[i]);
        }
        bell_unmap(b->bell);
        close(b->bell_fd);
        doorbell_close(&b->doorbell);
        munmap(b->shared, sizeof *b->shared);
        free(b);
}

static void assert_books_balance(const struct broker *b) {
        assert_int_equal(atomic_load(&b->shared->n_verdicts), JOBS);
        assert_int_equal(atomic_load(&b->shared->n_poisoned), JOBS / CRASH_EVERY);
        assert_int_equal(atomic_load(&b->shared->n_retries), b->n_requeued);
        assert_true(is_settled(b, 0));
        for (uint32_t slot = 0; slot < SLOTS; slot++)
                assert_int_equal(slot_state(channel_word(&b->channels[0], slot)), SLOT_FREE);
}

static void workers_die(unsigned seed) {
        struct broker *b = round_begin(seed);
        broker_run(b, false);
        broker_settle(b);
        assert_books_balance(b);
        assert_true(b->n_deaths > 100);
        round_end(b);
}

static void clients_die_too(unsigned seed) {
        struct broker *b = round_begin(seed);
        broker_run(b, true);
        broker_settle(b);
        assert_books_balance(b);
        /* Adopted channels: every job that was accepted and not fetched has run and is right. */
        for (uint32_t i = 1; i <= b->n_victims; i += 2)
                for (uint32_t slot = 0; slot < SLOTS; slot++) {
                        struct channel *c = &b->channels[i];
                        uint64_t word = channel_word(c, slot);
                        if (slot_state(word) == SLOT_FREE)
                                continue;
                        assert_int_equal(slot_state(word), SLOT_DONE);
                        uint64_t n = *(uint64_t *)channel_payload(c, slot), *out = channel_result_data(c, slot);
                        assert_true(out[0] == n * 3 + 1 && out[1] == ~n);
                }
        round_end(b);
}

/* ---- a ring full of hints that nobody needs any more ---- */

static void drop_hints(struct broker *b, unsigned nth) {
        child_begin();
        static struct channel c;
        CHECK(channel_map(&c, &b->channels[0].geometry, b->channel_fds[0], CHANNEL_BROKER) == 0);
        plan.name = "ring-drop";
        plan.n_left = nth;
        for (;;) {
                CHECK(channel_begin(&c, 0) == 0 && channel_commit(&c, 0, LAYOUT_PRIORITY_DEFAULT) == 0);
                CHECK(channel_judge_queued(&c, 0, slot_generation(channel_word(&c, 0)), SLOT_CANCELLED));
                CHECK(channel_free(&c, 0) == 0);
        }
}

/* A client that only cancels fills its ring with hints of the past, which the next push takes away. It dies doing that;
 * whoever goes on loses nothing. */
static void test_dropping_hints(void **state) {
        for (unsigned i = 0; i < n_seeds(); i++) {
                struct broker *b = round_begin(i);
                struct channel *c = &b->channels[0];
                int status;
                pid_t pid = fork();
                assert_true(pid >= 0);
                if (pid == 0)
                        drop_hints(b, 1 + i % 40);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

                if (slot_state(channel_word(c, 0)) == SLOT_QUEUED) /* accepted, and not pushed yet */
                        assert_true(channel_judge_queued(c, 0, slot_generation(channel_word(c, 0)), SLOT_CANCELLED));
                assert_int_equal(channel_free(c, 0), 0);
                for (uint32_t slot = 0; slot < SLOTS; slot++)
                        assert_true(channel_begin(c, slot) == 0 &&
                                    channel_commit(c, slot, LAYOUT_PRIORITY_DEFAULT) == 0);
                for (uint32_t n = 0; n < SLOTS; n++) {
                        uint32_t slot;
                        uint64_t word;
                        assert_int_equal(channel_claim(c, 0, 0, false, event_now_ns(), &b->shared->record[0],
                                                       b->dones[0].ring_fd, &slot, &word),
                                         CHANNEL_CLAIMED);
                        assert_int_equal(slot, n); /* each once, in order */
                }
                round_end(b);
        }
}

/* How often somebody has died where the fewest have. */
static uint32_t fewest(void) {
        uint32_t n = UINT32_MAX;
        for (unsigned i = 0; i < N_WORKER_POINTS; i++)
                n = n_died_at[i] < n ? n_died_at[i] : n;
        for (unsigned i = 0; i < N_CLIENT_POINTS; i++)
                n = n_clients_died_at[i] < n ? n_clients_died_at[i] : n;
        return n;
}

static void test_every_place(void **state) {
        unsigned n = n_seeds(), n_rounds = 0, n_deaths = 0;
        while (n_rounds < MIN_ROUNDS || (fewest() < n && n_rounds < MIN_ROUNDS + n * ROUNDS_A_SEED)) {
                n_rounds++;
                (n_rounds % 2 ? workers_die : clients_die_too)(19 + n_rounds);
        }
        for (unsigned i = 0; i < N_WORKER_POINTS; i++) {
                print_message("%u workers died at %s\n", n_died_at[i], worker_points[i]);
                n_deaths += n_died_at[i];
        }
        for (unsigned i = 0; i < N_CLIENT_POINTS; i++) {
                print_message("%u clients died at %s\n", n_clients_died_at[i], client_points[i]);
                n_deaths += n_clients_died_at[i];
        }
        print_message("%u rounds, %u deaths at named places\n", n_rounds, n_deaths);
        assert_true(fewest() >= n);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_dropping_hints),
                cmocka_unit_test(test_every_place),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
