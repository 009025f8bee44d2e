/* A channel: its layout, each transition of a slot and what each role may not do. Kills and threads have their own
 * tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/doorbell.h"

enum { SLOTS = 8, BYTES = 128, WORKER = 3, INDEX = 5 };

struct fixture {
        struct channel_geometry geometry;
        struct channel broker, client, worker;
        _Atomic uint64_t record;
        int fds[CHANNEL_PARTS], client_fds[CHANNEL_PARTS], worker_fds[CHANNEL_PARTS];
        struct doorbell done;
};

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof *f);
        *state = f;
        return channel_geometry_init(&f->geometry, SLOTS, BYTES) < 0 ||
               channel_create(&f->broker, &f->geometry, "test", f->fds) < 0 ||
               channel_open(f->fds, CHANNEL_CLIENT, f->client_fds) < 0 ||
               channel_open(f->fds, CHANNEL_WORKER, f->worker_fds) < 0 ||
               channel_map(&f->client, &f->geometry, f->client_fds, CHANNEL_CLIENT) < 0 ||
               channel_map(&f->worker, &f->geometry, f->worker_fds, CHANNEL_WORKER) < 0 || doorbell_open(&f->done) < 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;
        channel_unmap(&f->client);
        channel_unmap(&f->worker);
        channel_unmap(&f->broker);
        channel_close(f->fds);
        channel_close(f->client_fds);
        channel_close(f->worker_fds);
        doorbell_close(&f->done);
        free(f);
        return 0;
}

static void submit(struct fixture *f, uint32_t slot, uint32_t priority, uint64_t queue_deadline_ns) {
        assert_int_equal(channel_begin(&f->client, slot), 0);
        *channel_job(&f->client, slot) =
                (struct layout_job){.priority = priority, .queue_deadline_ns = queue_deadline_ns};
        assert_int_equal(channel_commit(&f->client, slot, priority), 0);
}

static int claim_at(struct fixture *f, bool lowest_first, uint64_t now_ns, uint32_t *slot, uint64_t *word) {
        return channel_claim(&f->worker, INDEX, WORKER, lowest_first, now_ns, &f->record, f->done.ring_fd, slot, word);
}

static uint64_t claim(struct fixture *f, uint32_t expected_slot) {
        uint32_t slot;
        uint64_t word;
        assert_int_equal(claim_at(f, false, 1, &slot, &word), CHANNEL_CLAIMED);
        assert_int_equal(slot, expected_slot);
        return word;
}

static unsigned state_of(const struct fixture *f, uint32_t slot) { return slot_state(channel_word(&f->broker, slot)); }

static void test_geometry(void **state) {
        struct channel_geometry g;
        const uint32_t bad[][2] = {{0, 64},  {1, 64},  {3, 64},   {LAYOUT_MAX_SLOTS * 2, 64},       {64, 0},
                                   {64, 63}, {64, 65}, {64, 100}, {64, LAYOUT_MAX_SLOT_BYTES + 64}, {UINT32_MAX, 64}};
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
                assert_int_equal(channel_geometry_init(&g, bad[i][0], bad[i][1]), -EINVAL);
        for (uint32_t n = LAYOUT_MIN_SLOTS; n <= LAYOUT_MAX_SLOTS; n *= 2)
                for (uint32_t bytes = 64; bytes <= LAYOUT_MAX_SLOT_BYTES; bytes *= 4) {
                        assert_int_equal(channel_geometry_init(&g, n, bytes), 0);
                        assert_true(g.n_cells >= 2 * n);
                        assert_true(g.cells >= sizeof(struct layout_channel));
                        assert_true(g.slots >= g.cells + LAYOUT_PRIORITIES * g.n_cells * sizeof(uint64_t));
                        assert_true(g.done >= g.slots + n * sizeof(struct layout_slot));
                        assert_true(g.bytes[CHANNEL_COMMON] >= g.done + (n + 7) / 8);
                        assert_true(g.bytes[CHANNEL_JOBS] >= (size_t)n * (64 + bytes));
                        assert_true(g.bytes[CHANNEL_RESULTS] >= (size_t)n * (64 + bytes));
                        assert_true(g.bytes[CHANNEL_VERDICTS] >= (size_t)n * 64);
                        size_t total = 0;
                        for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                                assert_int_equal(g.bytes[part] % LAYOUT_PAGE, 0);
                                total += g.bytes[part];
                        }
                        assert_int_equal((g.slots | g.done) % LAYOUT_PAGE, 0);
                        assert_int_equal(g.total, total);
                }
}

static void test_maps_only_what_it_is(void **state) {
        struct fixture *f = *state;
        struct channel c;
        struct channel_geometry g;
        channel_geometry_init(&g, 2 * SLOTS, BYTES * 64);
        assert_int_equal(channel_map(&c, &g, f->client_fds, CHANNEL_CLIENT), -EPROTO);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                int fds[CHANNEL_PARTS];
                memcpy(fds, f->client_fds, sizeof fds);
                fds[part] = f->done.ring_fd;
                assert_int_equal(channel_map(&c, &f->geometry, fds, CHANNEL_CLIENT), -EPROTO);
        }
}

static bool is_writable(const void *p) {
        char line[256], mode[5];
        uintptr_t from, to, at = (uintptr_t)p;
        FILE *maps = fopen("/proc/self/maps", "r");
        assert_non_null(maps);
        bool writable = false;
        while (fgets(line, sizeof line, maps))
                if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && at >= from && at < to)
                        writable = mode[1] == 'w';
        fclose(maps);
        return writable;
}

static void test_rights(void **state) {
        struct fixture *f = *state;
        assert_null(f->worker.verdicts);
        assert_true(is_writable(channel_job(&f->client, SLOTS - 1)));
        assert_false(is_writable(channel_result(&f->client, 0)));
        assert_false(is_writable(channel_verdict(&f->client, SLOTS - 1)));
        assert_false(is_writable(channel_job(&f->worker, 0)));
        assert_false(is_writable(channel_job(&f->worker, SLOTS - 1)));
        assert_true(is_writable(channel_result(&f->worker, SLOTS - 1)));
        assert_true(is_writable(channel_verdict(&f->broker, SLOTS - 1)));

        channel_result(&f->worker, 1)->bytes = 7;
        assert_int_equal(channel_result(&f->client, 1)->bytes, 7);
        channel_job(&f->client, 2)->type = 9;
        assert_int_equal(channel_job(&f->worker, 2)->type, 9);
        channel_verdict(&f->broker, 3)->signal = 11;
        assert_int_equal(channel_verdict(&f->client, 3)->signal, 11);
}

static void test_the_way_of_a_job(void **state) {
        struct fixture *f = *state;
        assert_false(channel_has_work(&f->worker));
        submit(f, 4, LAYOUT_PRIORITY_DEFAULT, 0);
        assert_int_equal(channel_begin(&f->client, 4), -EBUSY);
        assert_int_equal(channel_free(&f->client, 4), -EINVAL);
        assert_true(channel_has_work(&f->worker));
        uint64_t word = claim(f, 4);
        assert_int_equal(slot_state(word), SLOT_RUNNING);
        assert_int_equal(slot_owner(word), WORKER + SLOT_OWNER_WORKER0);
        assert_int_equal(slot_attempt(word), 1);
        assert_int_equal(slot_generation(word), 1);
        assert_true(atomic_load(&f->record) == (UINT64_C(1) << 32 | INDEX << 16 | 4));
        assert_false(channel_has_work(&f->worker));

        assert_int_equal(channel_take_done(&f->client, 0), 0);
        assert_int_equal(channel_finish(&f->worker, 4, word, SLOT_DONE, f->done.ring_fd), 0);
        assert_int_equal(channel_take_done(&f->client, 0), 1 << 4);
        assert_int_equal(channel_take_done(&f->client, 0), 0);
        assert_int_equal(channel_finish(&f->worker, 4, word, SLOT_DONE, f->done.ring_fd), -ESTALE);
        assert_int_equal(channel_free(&f->client, 4), 0);
        assert_int_equal(state_of(f, 4), SLOT_FREE);
        submit(f, 4, LAYOUT_PRIORITY_DEFAULT, 0);
        assert_int_equal(slot_generation(claim(f, 4)), 2);
        assert_int_equal(atomic_load(&f->client.head->submitted), 2);
}

static void test_priorities(void **state) {
        struct fixture *f = *state;
        for (uint32_t i = 0; i < LAYOUT_PRIORITIES; i++)
                submit(f, i, i, 0);
        submit(f, 6, 77, 0); /* out of range: the default's */
        uint32_t slot;
        uint64_t word;
        claim(f, 3);
        assert_int_equal(claim_at(f, true, 1, &slot, &word), CHANNEL_CLAIMED);
        assert_int_equal(slot, 0);
        claim(f, 2);
        claim(f, 1);
        claim(f, 6);
        assert_int_equal(claim_at(f, false, 1, &slot, &word), CHANNEL_EMPTY);
}

static void test_overdue_jobs_expire_at_the_claim(void **state) {
        struct fixture *f = *state;
        uint32_t slot;
        uint64_t word;
        submit(f, 0, 1, 1000);
        submit(f, 1, 1, 1001);
        assert_int_equal(claim_at(f, false, 1000, &slot, &word), CHANNEL_CLAIMED);
        assert_int_equal(slot, 1);
        assert_int_equal(state_of(f, 0), SLOT_EXPIRED);
        assert_int_equal(channel_take_done(&f->client, 0), 1 << 0);
        assert_int_equal(channel_free(&f->client, 0), 0);
}

static void test_cancel(void **state) {
        struct fixture *f = *state;
        assert_int_equal(channel_cancel(&f->client, 0), -EINVAL);
        submit(f, 0, 1, 0);
        submit(f, 1, 1, 0);
        assert_int_equal(channel_cancel(&f->client, 0), SLOT_QUEUED);
        assert_int_equal(state_of(f, 0), SLOT_CANCELLED);
        assert_int_equal(channel_take_done(&f->client, 0), 1 << 0);
        assert_int_equal(channel_cancel(&f->client, 0), SLOT_CANCELLED);
        uint64_t word = claim(f, 1); /* steps over the stale hint */
        assert_int_equal(channel_cancel(&f->client, 1), SLOT_RUNNING);
        assert_int_equal(channel_cancel(&f->client, 1), SLOT_RUNNING);
        assert_true(slot_flags(channel_word(&f->worker, 1)) & SLOT_CANCEL);
        /* The word changed since the claim, but the job is still ours. */
        assert_int_equal(channel_finish(&f->worker, 1, word, SLOT_CANCELLED, -1), 0);
        assert_int_equal(channel_cancel(&f->client, 1), SLOT_CANCELLED);
}

static void test_the_broker_judges_first(void **state) {
        struct fixture *f = *state;
        submit(f, 0, 1, 0);
        uint64_t word = claim(f, 0);
        const struct layout_verdict line = {.reason = REASON_TIME_LIMIT, .pid = 42, .attempts = 1};
        assert_false(channel_judge(&f->broker, 0, WORKER + 1, 1, SLOT_TIMED_OUT, 0, &line));
        assert_false(channel_judge(&f->broker, 0, WORKER, 2, SLOT_TIMED_OUT, 0, &line));
        assert_true(channel_judge(&f->broker, 0, WORKER, 1, SLOT_TIMED_OUT, SLOT_QUARANTINE, &line));
        assert_false(channel_judge(&f->broker, 0, WORKER, 1, SLOT_TIMED_OUT, SLOT_QUARANTINE, &line));
        assert_int_equal(channel_finish(&f->worker, 0, word, SLOT_DONE, -1), -ESTALE);
        assert_int_equal(channel_verdict(&f->client, 0)->pid, 42);
        assert_int_equal(channel_free(&f->client, 0), -EBUSY);
        channel_end_quarantine(&f->broker, 0);
        channel_end_quarantine(&f->broker, 0);
        assert_int_equal(channel_free(&f->client, 0), 0);
}

static void test_requeue_after_a_death(void **state) {
        struct fixture *f = *state;
        submit(f, 0, 2, 0);
        strcpy(channel_payload(&f->client, 0), "untouched");
        uint64_t word = claim(f, 0);
        assert_int_equal(channel_requeue(&f->broker, 0, WORKER + 1, true), 0);
        assert_int_equal(channel_requeue(&f->broker, 0, WORKER, true), 1);
        assert_int_equal(channel_requeue(&f->broker, 0, WORKER, true), 0);
        assert_int_equal(channel_finish(&f->worker, 0, word, SLOT_DONE, -1), -ESTALE);
        word = claim(f, 0);
        assert_int_equal(slot_attempt(word), 2);
        assert_int_equal(slot_generation(word), 1);
        assert_string_equal(channel_payload(&f->worker, 0), "untouched");
        for (unsigned i = 3; i < 70; i++) { /* the attempt stays in its six bits */
                assert_int_equal(channel_requeue(&f->broker, 0, WORKER, true), 1);
                word = claim(f, 0);
                assert_int_equal(slot_attempt(word), i < LAYOUT_MAX_ATTEMPTS ? i : LAYOUT_MAX_ATTEMPTS);
                assert_int_equal(slot_state(word), SLOT_RUNNING);
        }
}

static void test_pushing_again_is_harmless(void **state) {
        struct fixture *f = *state;
        uint32_t slot;
        uint64_t word;
        submit(f, 0, 1, 0);
        for (unsigned i = 0; i < 5000; i++) {
                int r = channel_push_again(&f->broker, 0);
                assert_true(r == 0 || r == -EAGAIN); /* every ring full of hints at one job: it will be found */
        }
        claim(f, 0);
        assert_int_equal(channel_push_again(&f->broker, 0), 0); /* not queued any more */
        assert_int_equal(claim_at(f, false, 1, &slot, &word), CHANNEL_EMPTY);
        assert_false(channel_has_work(&f->worker));
        submit(f, 1, 1, 0);
        claim(f, 1);
}

static void test_judging_queued_jobs(void **state) {
        struct fixture *f = *state;
        uint32_t slot;
        uint64_t word;
        submit(f, 0, 1, 0);
        assert_false(channel_judge_queued(&f->broker, 0, 2, SLOT_CANCELLED));
        assert_true(channel_judge_queued(&f->broker, 0, 1, SLOT_CANCELLED));
        assert_false(channel_judge_queued(&f->broker, 0, 1, SLOT_CANCELLED));
        assert_int_equal(claim_at(f, false, 1, &slot, &word), CHANNEL_EMPTY);
        submit(f, 1, 1, 0);
        assert_false(channel_ask_cancel(&f->broker, 1, 1));
        claim(f, 1);
        assert_false(channel_ask_cancel(&f->broker, 1, 7));
        assert_true(channel_ask_cancel(&f->broker, 1, 1));
}

static void test_delayed_jobs(void **state) {
        struct fixture *f = *state;
        uint32_t slot;
        uint64_t word;
        assert_int_equal(channel_begin(&f->client, 2), 0);
        *channel_job(&f->client, 2) = (struct layout_job){.not_before_ns = 7, .queue_deadline_ns = 5};
        assert_int_equal(channel_commit_delayed(&f->client, 2), 0);
        assert_int_equal(channel_commit_delayed(&f->client, 2), -EPROTO);
        assert_int_equal(atomic_load(&f->broker.head->delayed), 1);
        assert_int_equal(claim_at(f, false, 1, &slot, &word), CHANNEL_EMPTY);
        uint32_t generation = slot_generation(channel_word(&f->broker, 2));
        assert_int_equal(channel_undelay(&f->broker, 2, generation + 1), 0);
        assert_int_equal(channel_undelay(&f->broker, 2, generation), 1);
        assert_int_equal(channel_undelay(&f->broker, 2, generation), 0);
        word = claim(f, 2);
        assert_int_equal(slot_attempt(word), 1);

        /* One more try: the word goes to the broker, with the attempt to come, and has no deadline any more. */
        assert_int_equal(channel_postpone(&f->worker, 2, word), 0);
        assert_int_equal(channel_postpone(&f->worker, 2, word), -ESTALE);
        assert_int_equal(channel_finish(&f->worker, 2, word, SLOT_DONE, -1), -ESTALE);
        assert_int_equal(state_of(f, 2), SLOT_DELAYED);
        assert_int_equal(slot_attempt(channel_word(&f->broker, 2)), 2);
        assert_int_equal(atomic_load(&f->broker.head->delayed), 2);
        assert_false(channel_judge_queued(&f->broker, 2, generation, SLOT_EXPIRED));
        assert_int_equal(channel_undelay(&f->broker, 2, generation), 1);
        assert_int_equal(claim_at(f, false, 100, &slot, &word), CHANNEL_CLAIMED);

        /* The broker's own pause after a death, then no more attempts. */
        assert_int_equal(channel_delay(&f->broker, 2, WORKER + 1), 0);
        assert_int_equal(channel_delay(&f->broker, 2, WORKER), 1);
        uint64_t delayed = channel_word(&f->broker, 2);
        assert_int_equal(slot_attempt(delayed), 3);
        assert_true(channel_give_up(&f->broker, 2, delayed));
        assert_false(channel_give_up(&f->broker, 2, delayed));
        assert_int_equal(state_of(f, 2), SLOT_FAILED);
        assert_int_equal(slot_attempt(channel_word(&f->broker, 2)), 2);
}

static void test_no_further_try_for_what_is_cancelled(void **state) {
        struct fixture *f = *state;
        submit(f, 0, 1, 0);
        uint64_t word = claim(f, 0);
        assert_true(channel_ask_cancel(&f->broker, 0, slot_generation(word)));
        assert_int_equal(channel_postpone(&f->worker, 0, word), -ECANCELED);
        assert_int_equal(state_of(f, 0), SLOT_RUNNING);
        submit(f, 1, 1, 0);
        word = claim(f, 1);
        uint64_t last = word | (uint64_t)LAYOUT_MAX_ATTEMPTS << 10;
        assert_true(channel_cas(&f->broker, 1, word, last));
        assert_int_equal(channel_postpone(&f->worker, 1, last), -ERANGE);
}

static void test_a_full_ring_refuses_and_forgets(void **state) {
        struct fixture *f = *state;
        submit(f, 0, 1, 0);
        for (unsigned i = 0; i < LAYOUT_PRIORITIES * f->geometry.n_cells; i++)
                channel_push_again(&f->broker, 0);
        assert_int_equal(channel_begin(&f->client, 1), 0);
        assert_int_equal(channel_commit(&f->client, 1, 1), -EAGAIN);
        assert_int_equal(state_of(f, 1), SLOT_FREE);
        claim(f, 0);
        submit(f, 1, 1, 0); /* the hints are stale now: room */
        claim(f, 1);
}

static void test_waking_the_client(void **state) {
        struct fixture *f = *state;
        struct pollfd p = {.fd = f->done.hear_fd, .events = POLLIN};
        _Atomic uint32_t *seq = &f->client.head->done_seq;

        channel_announce(&f->broker, 0, f->done.ring_fd);
        assert_int_equal(atomic_load(seq), 0); /* nobody waits: no system call, no change */
        assert_int_equal(poll(&p, 1, 0), 0);

        assert_int_equal(channel_wait_begin(&f->client, DONE_FUTEX), 0);
        channel_announce(&f->broker, 0, f->done.ring_fd);
        channel_announce(&f->broker, 1, f->done.ring_fd); /* once is enough */
        assert_int_equal(atomic_load(seq), 1);

        channel_wait_begin(&f->client, DONE_DOORBELL);
        channel_announce(&f->broker, 0, f->done.ring_fd);
        assert_int_equal(poll(&p, 1, 0), 1);
        doorbell_clear(f->done.hear_fd);
        channel_announce(&f->broker, 0, f->done.ring_fd);
        assert_int_equal(poll(&p, 1, 0), 0);

        channel_wait_begin(&f->client, DONE_FUTEX);
        channel_wait_end(&f->client);
        channel_announce(&f->broker, 0, f->done.ring_fd);
        assert_int_equal(atomic_load(seq), 1);
        channel_broadcast(&f->broker, f->done.ring_fd); /* the death rule asks nobody */
        assert_int_equal(atomic_load(seq), 2);
        assert_int_equal(poll(&p, 1, 0), 1);
}

/* A client that writes anything anywhere: every call of the other two ends, and touches only its own slot. */
static void test_hostile_client(void **state) {
        struct fixture *f = *state;
        unsigned seed = 5;
        uint64_t *words = f->client.maps[CHANNEL_COMMON], *jobs = f->client.maps[CHANNEL_JOBS];
        size_t n_words = f->geometry.bytes[CHANNEL_COMMON] / sizeof *words;
        size_t n_jobs_words = f->geometry.bytes[CHANNEL_JOBS] / sizeof *jobs;
        const struct layout_verdict line = {0};
        for (unsigned round = 0; round < 4000; round++) {
                for (unsigned i = 0; i < 400; i++) {
                        uint64_t word = (uint64_t)rand_r(&seed) << 33 ^ (unsigned)rand_r(&seed);
                        words[(size_t)rand_r(&seed) % n_words] = word;
                        jobs[(size_t)rand_r(&seed) % n_jobs_words] = word;
                }
                for (unsigned i = 0; i < LAYOUT_PRIORITIES && round % 4; i++) { /* mostly plausible rings */
                        struct layout_ring *r = &f->client.head->ring[i];
                        uint64_t at = (unsigned)rand_r(&seed) % 1000;
                        atomic_store(&r->head, at);
                        atomic_store(&r->tail, at + 1);
                        f->client.ring[i].cells[at % f->geometry.n_cells] = (at / f->geometry.n_cells + 1) << 32 |
                                                                            ((unsigned)rand_r(&seed) % 4) << 16 |
                                                                            (unsigned)rand_r(&seed) % (SLOTS + 1);
                }
                uint32_t slot = (unsigned)rand_r(&seed) % SLOTS, claimed;
                if (round % 3)
                        atomic_store(&f->client.slots[slot].word,
                                     SLOT_WORD(rand_r(&seed) % 16, rand_r(&seed) % 64, rand_r(&seed) % 64,
                                               rand_r(&seed) % 8, rand_r(&seed) % 4));
                uint64_t word = 0;
                int r = claim_at(f, round % 2, 1, &claimed, &word);
                assert_true(r == CHANNEL_EMPTY || r == CHANNEL_CLAIMED || r == -EPROTO);
                if (r == CHANNEL_CLAIMED)
                        assert_true(claimed < SLOTS);
                channel_has_work(&f->worker);
                channel_finish(&f->worker, slot, word, SLOT_DONE, -1);
                channel_requeue(&f->broker, slot, WORKER, true);
                channel_judge(&f->broker, slot, WORKER, 1, SLOT_POISONED, 0, &line);
                channel_judge_queued(&f->broker, slot, 1, SLOT_CANCELLED);
                channel_end_quarantine(&f->broker, slot);
                channel_ask_cancel(&f->broker, slot, 1);
                channel_push_again(&f->broker, slot);
                channel_begin(&f->broker, slot);
                channel_commit(&f->broker, slot, 1);
                channel_cancel(&f->broker, slot);
                channel_take_done(&f->broker, 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_geometry),
                cmocka_unit_test_setup_teardown(test_maps_only_what_it_is, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_way_of_a_job, setup, teardown),
                cmocka_unit_test_setup_teardown(test_priorities, setup, teardown),
                cmocka_unit_test_setup_teardown(test_overdue_jobs_expire_at_the_claim, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_broker_judges_first, setup, teardown),
                cmocka_unit_test_setup_teardown(test_requeue_after_a_death, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pushing_again_is_harmless, setup, teardown),
                cmocka_unit_test_setup_teardown(test_judging_queued_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_delayed_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_further_try_for_what_is_cancelled, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_full_ring_refuses_and_forgets, setup, teardown),
                cmocka_unit_test_setup_teardown(test_waking_the_client, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hostile_client, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
