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

#include "ipc/bell.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"

struct fixture {
        struct layout_bell *bell;
        struct bell_memo memo;
        int fd, broker_fd;
};

static int setup(void **state) {
        static struct fixture f;
        f = (struct fixture){0};
        *state = &f;
        return bell_create("test", &f.bell, &f.fd) < 0 || doorbell_create(&f.broker_fd) < 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;
        f->bell = bell_unmap(f->bell);
        close(f->fd);
        close(f->broker_fd);
        return 0;
}

static bool broker_was_rung(const struct fixture *f) {
        struct pollfd p = {.fd = f->broker_fd, .events = POLLIN};
        bool rung = poll(&p, 1, 0) == 1;
        doorbell_clear(f->broker_fd);
        return rung;
}

static void test_a_new_bell_rings_the_broker(void **state) {
        struct fixture *f = *state;
        bell_ring(f->bell, 5, f->broker_fd, &f->memo);
        assert_true(broker_was_rung(f));
        assert_true(bell_channel_has_work(f->bell, 5));
        assert_false(bell_channel_has_work(f->bell, 4));
        bell_ring(f->bell, 5, f->broker_fd, &f->memo); /* every time: the broker may have looked in between */
        assert_true(broker_was_rung(f));
}

static void test_nobody_is_woken_where_nobody_sleeps(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        uint32_t seq = atomic_load(&f->bell->seq);
        bell_ring(f->bell, 255, f->broker_fd, &f->memo);
        bell_pass_on(f->bell, &f->memo);
        assert_int_equal(atomic_load(&f->bell->seq), seq);
        assert_false(broker_was_rung(f));
        assert_true(bell_has_work(f->bell));
        assert_true(bell_channel_has_work(f->bell, 255));
}

static void test_a_sleeper_is_woken_but_not_past_a_spinner(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        uint32_t seq = bell_sleep_begin(f->bell, 200);
        assert_true(bell_has_sleepers(f->bell));
        bell_spin_begin(f->bell, 3);
        bell_ring(f->bell, 0, f->broker_fd, &f->memo);
        assert_int_equal(atomic_load(&f->bell->seq), seq);
        bell_spin_end(f->bell, 3);
        bell_pass_on(f->bell, &f->memo); /* what the one that spun owes */
        assert_int_equal(atomic_load(&f->bell->seq), seq + 1);
        bell_sleep_end(f->bell, 200);
        assert_false(bell_has_sleepers(f->bell));
}

static void test_the_baton_needs_work(void **state) {
        struct fixture *f = *state;
        bell_set_mode(f->bell, BELL_FUTEX);
        uint32_t seq = bell_sleep_begin(f->bell, 0);
        bell_pass_on(f->bell, &f->memo);
        assert_int_equal(atomic_load(&f->bell->seq), seq);
        bell_mark_work(f->bell, 77);
        bell_pass_on(f->bell, &f->memo);
        assert_int_equal(atomic_load(&f->bell->seq), seq + 1);
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
        uint32_t seq = atomic_load(&f->bell->seq);
        bell_ring(f->bell, 1, f->broker_fd, &f->memo);
        assert_int_equal(atomic_load(&f->bell->seq), seq + 1);
}

static void *sleep_once(void *p) {
        struct layout_bell *b = p;
        uint32_t seen = bell_sleep_begin(b, 9);
        while (!bell_has_work(b)) {
                event_wait(&b->seq, seen, EVENT_FOREVER);
                seen = atomic_load(&b->seq);
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
                bell_ring(f->bell, 2, f->broker_fd, &f->memo);
                pthread_join(thread, NULL);
                bell_clear_work(f->bell, 2);
        }
}

struct dozer {
        struct layout_bell *bell;
        uint32_t worker;
        _Atomic bool is_asleep, may_get_up;
};

/* Sleeps once, and stays marked as asleep until it may get up: as one that was woken but does not run yet. */
static void *doze(void *p) {
        struct dozer *d = p;
        uint32_t seen = bell_sleep_begin(d->bell, d->worker);
        atomic_store(&d->is_asleep, true);
        while (atomic_load(&d->bell->seq) == seen)
                event_wait(&d->bell->seq, seen, EVENT_FOREVER);
        while (!atomic_load(&d->may_get_up))
                event_pause();
        bell_sleep_end(d->bell, d->worker);
        return NULL;
}

static void test_whoever_is_on_its_way_is_not_woken_again(void **state) {
        struct fixture *f = *state;
        struct dozer d = {.bell = f->bell, .worker = 7};
        unsigned n_met = 0;
        bell_set_mode(f->bell, BELL_FUTEX);
        for (unsigned round = 0; round < 100; round++) {
                pthread_t thread;
                atomic_store(&d.is_asleep, false);
                atomic_store(&d.may_get_up, false);
                assert_int_equal(pthread_create(&thread, NULL, doze, &d), 0);
                while (!atomic_load(&d.is_asleep))
                        event_pause();
                bell_ring(f->bell, 1, f->broker_fd, &f->memo);
                uint32_t seq = atomic_load(&f->bell->seq);
                bell_ring(f->bell, 1, f->broker_fd, &f->memo);
                bell_pass_on(f->bell, &f->memo);
                if (f->memo.n_woken > 0) { /* it was in the futex: the other two saw that nobody is left there */
                        n_met++;
                        assert_int_equal(atomic_load(&f->bell->seq), seq);
                }
                atomic_store(&d.may_get_up, true);
                pthread_join(thread, NULL);

                /* Another sleeps now: it must be woken, by the first ring. */
                seq = bell_sleep_begin(f->bell, d.worker);
                bell_ring(f->bell, 1, f->broker_fd, &f->memo);
                assert_int_equal(atomic_load(&f->bell->seq), seq + 1);
                bell_ring(f->bell, 1, f->broker_fd, &f->memo); /* it is not in the futex: nobody was woken */
                assert_int_equal(atomic_load(&f->bell->seq), seq + 2);
                bell_sleep_end(f->bell, d.worker);
        }
        print_message("met asleep %u times of 100\n", n_met);
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
        assert_int_equal(bell_map(f->broker_fd, &other), -EPROTO);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_new_bell_rings_the_broker, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nobody_is_woken_where_nobody_sleeps, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_sleeper_is_woken_but_not_past_a_spinner, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_baton_needs_work, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_dead_are_forgotten, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_thread_sleeps_until_the_bell_rings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_whoever_is_on_its_way_is_not_woken_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_another_process_maps_the_same_page, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
