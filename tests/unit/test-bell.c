/* The bell: who is woken, by what, and when nobody is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

struct fixture {
        struct layout_bell *bell;
        int fd;
        struct doorbell broker;
};

static int setup(void **state) {
        static struct fixture f;
        f = (struct fixture){0};
        *state = &f;
        return bell_create("test", &f.bell, &f.fd) < 0 || doorbell_open(&f.broker) < 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;
        f->bell = bell_unmap(f->bell);
        close(f->fd);
        doorbell_close(&f->broker);
        return 0;
}

/* Wake-ups so far. */
static uint32_t count(const struct fixture *f) {
        return atomic_load(&f->bell->seq[BELL_FRONT]) + atomic_load(&f->bell->seq[BELL_BACK]);
}

static bool broker_was_rung(const struct fixture *f) {
        struct pollfd p = {.fd = f->broker.hear_fd, .events = POLLIN};
        bool rung = poll(&p, 1, 0) == 1;
        doorbell_clear(f->broker.hear_fd);
        return rung;
}

static void test_a_new_bell_rings_the_broker(void **state) {
        struct fixture *f = *state;
        bell_ring(f->bell, 5, f->broker.ring_fd);
        assert_true(broker_was_rung(f));
        assert_true(bell_channel_has_work(f->bell, 5));
        assert_false(bell_channel_has_work(f->bell, 4));
        bell_ring(f->bell, 5, f->broker.ring_fd); /* every time: the broker may have looked in between */
        assert_true(broker_was_rung(f));
}

static void test_nobody_is_woken_where_nobody_sleeps(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        uint32_t seq = count(f);
        bell_ring(f->bell, 255, f->broker.ring_fd);
        bell_pass_on(f->bell);
        assert_int_equal(count(f), seq);
        assert_false(broker_was_rung(f));
        assert_true(bell_has_work(f->bell));
        assert_true(bell_channel_has_work(f->bell, 255));
}

static void test_a_sleeper_is_woken_but_not_past_a_spinner(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        bell_sleep_begin(f->bell, 200);
        uint32_t seq = count(f);
        assert_true(bell_has_sleepers(f->bell));
        bell_spin_begin(f->bell, 3);
        bell_ring(f->bell, 0, f->broker.ring_fd);
        assert_int_equal(count(f), seq);
        bell_spin_end(f->bell, 3);
        bell_pass_on(f->bell); /* what the one that spun owes */
        assert_int_equal(count(f), seq + 1);
        bell_sleep_end(f->bell, 200);
        assert_false(bell_has_sleepers(f->bell));
}

static void test_the_baton_needs_work(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        bell_sleep_begin(f->bell, 64);
        uint32_t seq = count(f);
        bell_pass_on(f->bell);
        assert_int_equal(count(f), seq);
        bell_mark_work(f->bell, 77);
        bell_pass_on(f->bell);
        assert_int_equal(count(f), seq + 1);
        bell_clear_work(f->bell, 77);
        assert_false(bell_has_work(f->bell));
}

static void test_the_dead_are_forgotten(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        bell_sleep_begin(f->bell, 64);
        bell_spin_begin(f->bell, 64);
        bell_sleep_begin(f->bell, 65);
        bell_forget(f->bell, 64);
        assert_true(bell_has_sleepers(f->bell)); /* 65 is not dead */
        uint32_t seq = count(f);
        bell_ring(f->bell, 1, f->broker.ring_fd);
        assert_int_equal(count(f), seq + 1);
}

static void *sleep_once(void *p) {
        struct layout_bell *b = p;
        struct event_wait wait = bell_sleep_begin(b, 9);
        while (!bell_has_work(b)) {
                event_wait(wait.word, wait.seen, EVENT_FOREVER);
                wait.seen = atomic_load(wait.word);
        }
        bell_sleep_end(b, 9);
        return NULL;
}

static void test_a_thread_sleeps_until_the_bell_rings(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        for (unsigned i = 0; i < 200; i++) {
                pthread_t thread;
                assert_int_equal(pthread_create(&thread, NULL, sleep_once, f->bell), 0);
                bell_ring(f->bell, 2, f->broker.ring_fd);
                pthread_join(thread, NULL);
                bell_clear_work(f->bell, 2);
        }
}

struct dozer {
        struct layout_bell *bell;
        uint32_t worker;
        pthread_t thread;
        _Atomic bool is_asleep, may_get_up;
};

/* Sleeps once, and stays marked as asleep until it may get up: as one that was woken but does not run yet. */
static void *doze(void *p) {
        struct dozer *d = p;
        struct event_wait wait = bell_sleep_begin(d->bell, d->worker);
        atomic_store(&d->is_asleep, true);
        event_wait(wait.word, wait.seen, EVENT_FOREVER);
        while (!atomic_load(&d->may_get_up))
                event_pause();
        bell_sleep_end(d->bell, d->worker);
        return NULL;
}

static void start_to_doze(struct dozer *d) {
        atomic_store(&d->is_asleep, false);
        atomic_store(&d->may_get_up, false);
        assert_int_equal(pthread_create(&d->thread, NULL, doze, d), 0);
        while (!atomic_load(&d->is_asleep))
                event_pause();
}

static void get_up(struct dozer *d) {
        atomic_store(&d->may_get_up, true);
        bell_broadcast(d->bell);
        pthread_join(d->thread, NULL);
}

static bool ring_wakes(struct fixture *f) {
        uint32_t seq = count(f);
        bell_ring(f->bell, 1, f->broker.ring_fd);
        return count(f) != seq;
}

/* Until a ring took the dozer out of the futex: it may come just before the sleep. */
static void have_one_on_its_way(struct fixture *f, struct dozer *d) {
        for (unsigned i = 0; i < 10000; i++) {
                start_to_doze(d);
                assert_true(ring_wakes(f));
                if (atomic_load(&f->bell->woken) >> 32 == atomic_load(&f->bell->rises) + 1)
                        return;
                get_up(d);
        }
        fail_msg("no ring met a sleeper");
}

static void test_while_one_is_on_its_way_no_other_is_woken(void **state) {
        struct fixture *f = *state;
        struct dozer d = {.bell = f->bell, .worker = 7};
        unsigned n_spared = 0;
        bell_set_mode(f->bell, BELL_FUTEX);
        for (unsigned round = 0; round < 100; round++) {
                have_one_on_its_way(f, &d);
                bell_sleep_begin(f->bell, 70); /* another */
                n_spared += !ring_wakes(f);
                uint32_t seq = count(f);
                bell_pass_on(f->bell);
                n_spared += count(f) == seq;

                get_up(&d); /* from now on it counts as awake */
                assert_true(ring_wakes(f));
                assert_true(ring_wakes(f)); /* the other is not in the futex: nobody was woken */
                bell_sleep_end(f->bell, 70);
        }
        assert_true(n_spared > 0); /* not always: it is waited for a millisecond, and this machine may be busy */
}

/* One that is stopped on its way, or dead, does not hold others' wake-ups back for long. */
static void test_whoever_does_not_get_up_is_not_waited_for(void **state) {
        struct fixture *f = *state;
        struct dozer d = {.bell = f->bell, .worker = 7};
        bell_set_mode(f->bell, BELL_FUTEX);

        have_one_on_its_way(f, &d);
        bell_sleep_begin(f->bell, 70);
        for (uint64_t deadline_ns = event_now_ns() + 10000000000u; !ring_wakes(f);)
                assert_true(event_now_ns() < deadline_ns);
        bell_sleep_end(f->bell, 70);
        get_up(&d);

        have_one_on_its_way(f, &d);
        bell_sleep_begin(f->bell, 70);
        bell_forget(f->bell, 7); /* no time needs to pass */
        assert_true(ring_wakes(f));
        get_up(&d);
}

static uint32_t count_row(const struct fixture *f, enum bell_row row) { return atomic_load(&f->bell->seq[row]); }

static void test_the_front_row_is_woken_first(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        atomic_store(&f->bell->front, 1);
        bell_sleep_begin(f->bell, 1); /* of the others */
        uint32_t front = count_row(f, BELL_FRONT), back = count_row(f, BELL_BACK);
        assert_true(ring_wakes(f));
        assert_int_equal(count_row(f, BELL_FRONT), front);
        assert_int_equal(count_row(f, BELL_BACK), back + 1);

        bell_sleep_begin(f->bell, 0); /* marked as asleep, but not in the futex, as if stopped: another as well */
        assert_true(ring_wakes(f));
        assert_int_equal(count_row(f, BELL_FRONT), front + 1);
        assert_int_equal(count_row(f, BELL_BACK), back + 2);
        bell_sleep_end(f->bell, 0);

        bell_broadcast(f->bell);
        assert_int_equal(count_row(f, BELL_FRONT), front + 2);
        assert_int_equal(count_row(f, BELL_BACK), back + 3);
        bell_sleep_end(f->bell, 1);
}

/* Nobody else is needed when one of the front row was in the futex. */
static void test_the_others_sleep_on(void **state) {
        struct fixture *f = *state;
        struct dozer d = {.bell = f->bell, .worker = 0};
        bell_set_mode(f->bell, BELL_FUTEX);
        atomic_store(&f->bell->front, 1);
        bell_sleep_begin(f->bell, 1);
        for (unsigned i = 0; i < 100; i++) {
                start_to_doze(&d);
                uint32_t back = count_row(f, BELL_BACK);
                assert_true(ring_wakes(f));
                bool was_met = atomic_load(&f->bell->woken) >> 32 == atomic_load(&f->bell->rises) + 1;
                assert_int_equal(count_row(f, BELL_BACK), back + !was_met);
                get_up(&d);
        }
        bell_sleep_end(f->bell, 1);
}

static void test_another_process_maps_the_same_page(void **state) {
        struct fixture *f = *state;
        struct layout_bell *other;
        assert_int_equal(bell_map(f->fd, &other), 0);
        bell_mark_work(other, 100);
        assert_true(bell_channel_has_work(f->bell, 100));
        assert_int_equal(other->header.magic, LAYOUT_MAGIC_BELL);
        assert_null(bell_unmap(other));
        assert_null(bell_unmap(NULL));
        assert_int_equal(bell_map(f->broker.ring_fd, &other), -EPROTO);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_new_bell_rings_the_broker, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nobody_is_woken_where_nobody_sleeps, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_sleeper_is_woken_but_not_past_a_spinner, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_baton_needs_work, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_dead_are_forgotten, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_thread_sleeps_until_the_bell_rings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_while_one_is_on_its_way_no_other_is_woken, setup, teardown),
                cmocka_unit_test_setup_teardown(test_whoever_does_not_get_up_is_not_waited_for, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_front_row_is_woken_first, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_others_sleep_on, setup, teardown),
                cmocka_unit_test_setup_teardown(test_another_process_maps_the_same_page, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
