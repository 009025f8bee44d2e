/* Futex waits: the value comes first, deadlines are absolute, one word or many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "ipc/memory/event.h"

static void test_returns_at_once_when_the_word_differs(void **state) {
        _Atomic uint32_t word = 1;
        assert_int_equal(event_wait(&word, 0, EVENT_FOREVER), 0);
        const struct event_wait waits[] = {{&word, 1}, {&word, 0}};
        assert_int_equal(event_wait_any(waits, 2, EVENT_FOREVER), 0);
}

static void test_times_out_at_the_deadline(void **state) {
        _Atomic uint32_t word = 0;
        uint64_t deadline_ns = event_now_ns() + 2000000;
        assert_int_equal(event_wait(&word, 0, deadline_ns), -ETIMEDOUT);
        assert_true(event_now_ns() >= deadline_ns);

        const struct event_wait waits[] = {{&word, 0}, {&word, 0}};
        deadline_ns = event_now_ns() + 2000000;
        assert_int_equal(event_wait_any(waits, 2, deadline_ns), -ETIMEDOUT);
        assert_true(event_now_ns() >= deadline_ns);
        assert_int_equal(event_wait(&word, 0, 1), -ETIMEDOUT);
}

static void test_refuses_no_words_and_too_many(void **state) {
        _Atomic uint32_t word = 0;
        struct event_wait waits[EVENT_MAX_WORDS + 1];
        for (unsigned i = 0; i <= EVENT_MAX_WORDS; i++)
                waits[i] = (struct event_wait){&word, 1};
        assert_int_equal(event_wait_any(waits, 0, EVENT_FOREVER), -EINVAL);
        assert_int_equal(event_wait_any(waits, EVENT_MAX_WORDS + 1, EVENT_FOREVER), -EINVAL);
        assert_int_equal(event_wait_any(waits, EVENT_MAX_WORDS, EVENT_FOREVER), 0);
}

struct sleepers {
        _Atomic uint32_t words[3];
        _Atomic uint32_t n_awake;
};

static void *sleep_on_one(void *p) {
        struct sleepers *s = p;
        while (atomic_load(&s->words[1]) == 0)
                event_wait(&s->words[1], 0, EVENT_FOREVER);
        atomic_fetch_add(&s->n_awake, 1);
        return NULL;
}

static void *sleep_on_all(void *p) {
        struct sleepers *s = p;
        const struct event_wait waits[] = {{&s->words[0], 0}, {&s->words[1], 0}, {&s->words[2], 0}};
        while (atomic_load(&s->words[1]) == 0)
                event_wait_any(waits, 3, EVENT_FOREVER);
        atomic_fetch_add(&s->n_awake, 1);
        return NULL;
}

static void test_broadcast_wakes_all(void **state) {
        struct sleepers s = {0};
        pthread_t threads[4];
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? sleep_on_all : sleep_on_one, &s), 0);
        event_broadcast(&s.words[1]);
        for (unsigned i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(atomic_load(&s.n_awake), 4);
        assert_int_equal(atomic_load(&s.words[1]), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_returns_at_once_when_the_word_differs),
                cmocka_unit_test(test_times_out_at_the_deadline),
                cmocka_unit_test(test_refuses_no_words_and_too_many),
                cmocka_unit_test(test_broadcast_wakes_all),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
