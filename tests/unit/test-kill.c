/* SIGKILL between every two atomic operations of rings, slots, bells and waits, with the library compiled so that a
 * process dies at a named place.
 *
 * This process is the broker: it starts workers and clients, recovers after each death as ipc/PROTOCOL.md says, and
 * starts the next. What must hold whatever dies: every accepted job has exactly one verdict and the right answer, its
 * attempts are the deaths it saw and one, nobody waits for ever, and after a death the run record alone says what was
 * held. The seeds are fixed; what the scheduler makes of them is not. Rounds go on until somebody has died at each
 * place DROVER_KILL_SEEDS times (20). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"
#include "kill-fixture.h"

enum {
        DEFAULT_SEEDS = 20,
        MIN_ROUNDS = 12,
        QUIET_TICKS = 5,    /* without a death, of 1 ms */
        ROUNDS_A_SEED = 20, /* more, and some place is never come to */
};

#define DEADLINE_NS UINT64_C(60000000000)

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

/* ---- who is started, and where it is to die ---- */

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
                kill_plan.name = worker_points[point];
                kill_plan.n_deaths = &b->shared->n_deaths_at[point];
                kill_plan.n_left = 1 + n % 4;
        } else if (may_die)
                kill_plan.n_any_left = 1 + n % 400;
        worker_main(b, index);
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
                victim_main(b, index,
                            &(struct kill_plan){.name = client_points[point],
                                                .n_deaths = &b->shared->n_client_deaths_at[point],
                                                .n_left = nth});
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
        kill_plan.name = "ring-drop";
        kill_plan.n_left = nth;
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
