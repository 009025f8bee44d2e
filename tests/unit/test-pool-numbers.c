/* Channels and their numbers: kept by the memory, granted to nobody twice, and not to be forged by another uid. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/skip.h"
#include "tests/unit/supervise-fixture.h"

static struct session_owner client;

static struct pool_channel *open_channel(struct pool *p) {
        const struct session_request q = {.pool = p, .uid = 1, .owner = &client};
        struct session_offer offer;
        struct fault f;
        bool wait;
        assert_int_equal(supervisor_open_session(supervisor, &q, &offer, &wait, &f), 0);
        session_offer_close(&offer);
        return pool_channel_at(p, offer.channel);
}

static uint64_t number_of(int fd) { return pool_numbers_of(supervisor, fd) >> 40; }

static uint64_t number_of_name(const char *name) {
        int fd = memfd_create(name, MFD_CLOEXEC);
        assert_true(fd >= 0);
        uint64_t number = number_of(fd);
        close(fd);
        return number;
}

static void test_a_number_goes_with_the_memory(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct pool_channel *c = open_channel(p);
        int fd = fcntl(c->fds[CHANNEL_COMMON], F_DUPFD_CLOEXEC, 3);
        assert_int_equal(c->id_base, UINT64_C(1) << 40);
        assert_int_equal(number_of(fd), 2);   /* somebody has it */
        report(&w, REPORT_DROPPED, c->index); /* its client left */
        UNTIL(!pool_channel_at(p, 1));
        assert_int_equal(number_of(fd), 1);
        assert_int_equal(pool_numbers_new(supervisor) >> 40, 3); /* a new one gets it in no case */
        close(fd);
        end(&w, CLD_KILLED, SIGKILL);
}

/* A channel whose workers have not let go of it yet is still there. */
static void test_a_dead_channel_has_its_number(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct pool_channel *c = open_channel(p);
        uint64_t id_base = c->id_base;
        UNTIL(c->is_dead);
        assert_int_not_equal(pool_numbers_of(supervisor, c->fds[CHANNEL_COMMON]), id_base);
        supervisor_remove_pool(supervisor, p);
        assert_int_not_equal(pool_numbers_of(supervisor, c->fds[CHANNEL_COMMON]), id_base);
        end(&w, CLD_KILLED, SIGKILL);
}

static void test_names_that_say_nothing(void **state) {
        static const char *const names[] = {
                "drover-channel",          "drover-channel:",
                "drover-channel:0",        "drover-channel:07",
                "drover-channel:-7",       "drover-channel: 7",
                "drover-channel:7x",       "drover-channel:7 (deleted)",
                "drover-channel:16777215", "drover-channel:18446744073709551623",
                "drover-arena-7",          "x/memfd:drover-channel:7",
        };
        uint64_t last = 0;
        for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
                uint64_t number = number_of_name(names[i]);
                if (number != last + 1)
                        fail_msg("\"%s\": %llu, not %llu", names[i], (unsigned long long)number,
                                 (unsigned long long)last + 1);
                last = number;
        }
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(number_of(fd), last + 1);
        close(fd);
        assert_int_equal(number_of_name("drover-channel:777"), 777); /* who made this one is us */
}

static void test_another_uid_cannot_make_one(void **state) {
        if (geteuid() != 0)
                SKIP("only root can be somebody else");
        assert_int_equal(seteuid(65534), 0);
        int fd = memfd_create("drover-channel:777", MFD_CLOEXEC);
        assert_int_equal(seteuid(0), 0);
        assert_true(fd >= 0);
        assert_int_equal(number_of(fd), 1);
        close(fd);
}

/* Each memory is what its name says, and nobody has given it another one. */
static void test_the_memories_of_one_channel(void **state) {
        static const char *const names[][CHANNEL_PARTS] = {
                {"drover-jobs:7", "drover-channel:7", "drover-results:7", "drover-verdicts:7"},
                {"drover-channel:7", "drover-jobs:7", "drover-jobs:7",
                 "drover-verdicts:7"}, /* its client writes jobs */
                {"drover-channel:7", "drover-jobs:7", "drover-results:8", "drover-verdicts:7"},
                {"drover-channel:7", "drover-jobs:7", "drover-results:7", "drover-arena-7"},
                {"drover-channel:0", "drover-jobs:0", "drover-results:0", "drover-verdicts:0"}, /* the broker's own */
                {"drover-channel:7", "drover-jobs:7", "drover-results:7", "drover-verdicts:7"},
        };
        enum { N = sizeof(names) / sizeof(*names) };
        for (unsigned i = 0; i < N; i++) {
                int fds[CHANNEL_PARTS];
                for (unsigned k = 0; k < CHANNEL_PARTS; k++)
                        assert_true((fds[k] = memfd_create(names[i][k], MFD_CLOEXEC)) >= 0);
                assert_int_equal(pool_numbers_are_ours(fds), i == N - 1);
                channel_close(fds);
        }
        int fds[CHANNEL_PARTS];
        for (unsigned k = 0; k < CHANNEL_PARTS; k++) {
                if (geteuid() != 0)
                        SKIP("only root can be somebody else");
                assert_int_equal(seteuid(k == CHANNEL_RESULTS ? 65534 : 0), 0);
                fds[k] = memfd_create(names[N - 1][k], MFD_CLOEXEC);
                assert_int_equal(seteuid(0), 0);
        }
        assert_false(pool_numbers_are_ours(fds));
        channel_close(fds);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_number_goes_with_the_memory, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_dead_channel_has_its_number, setup, teardown),
                cmocka_unit_test_setup_teardown(test_names_that_say_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_another_uid_cannot_make_one, setup, teardown),
                cmocka_unit_test_setup_teardown(test_the_memories_of_one_channel, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
