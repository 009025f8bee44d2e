/* Numbers from shared memory become words; any number is legal input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <signal.h>

#include "ipc/values/words.h"

static void test_words(void **state) {
        assert_string_equal(words_slot_state(SLOT_QUEUED), "queued");
        assert_string_equal(words_slot_state(SLOT_TIMED_OUT), "timed-out");
        assert_string_equal(words_slot_state(SLOT_LOST), "lost");
        assert_string_equal(words_reason(REASON_NONE), "");
        assert_string_equal(words_reason(REASON_STACK_OVERFLOW), "stack-overflow");
        assert_string_equal(words_reason(REASON_SPAWNER_LOST), "spawner-lost");
        assert_string_equal(words_signal(SIGSEGV), "SIGSEGV");
        assert_string_equal(words_signal(SIGSYS), "SIGSYS");
        assert_string_equal(words_signal(SIGRTMIN), "SIGRTMIN");
        assert_string_equal(words_signal(SIGRTMIN + 15), "SIGRTMIN+15");
        assert_string_equal(words_signal(SIGRTMAX - 14), "SIGRTMAX-14");
        assert_string_equal(words_signal(SIGRTMAX), "SIGRTMAX");
}

static void test_anything_else_is_a_question_mark(void **state) {
        const unsigned odd[] = {SLOT_FREE, SLOT_FILLING, SLOT_N_STATES, 99, UINT_MAX};
        for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++)
                assert_string_equal(words_slot_state(odd[i]), "?");
        assert_string_equal(words_reason(REASON_N), "?");
        assert_string_equal(words_reason(UINT_MAX), "?");
        assert_string_equal(words_signal(0), "?");
        assert_string_equal(words_signal(-9), "?");
        assert_string_equal(words_signal(99), "?");
        assert_string_equal(words_signal(INT_MIN), "?");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_anything_else_is_a_question_mark),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
