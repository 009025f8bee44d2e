/* Copies of plugin files that take their time, as the spawner's broker sees them. Those that take for ever are in
 * tests/integration/test_hung_files.py. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/memory/packet.h"
#include "tests/unit/spawn-fixture.h"

static void write_large_plugin(struct spawn_fixture *f) {
        char path[96];
        snprintf(path, sizeof path, "%s/large.so", f->dir);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 64 << 20), 0);
        close(fd);
}

static void send_load_large(struct spawn_fixture *f, uint32_t generation) {
        send_request(f, &(struct spawn_request){
                                .type = SPAWN_LOAD, .generation = generation, .pool = "pool", .plugin = "large"});
}

/* A copy of it takes some 30 ms; each test tries again should we ever be slower. */
enum { TRIES = 50 };

static void retire(struct spawn_fixture *f, uint32_t generation) {
        send_request(f, &(struct spawn_request){.type = SPAWN_RETIRE, .generation = generation});
}

static void close_started(struct started s) {
        close(s.fd);
        close(s.pidfd);
}

static struct spawn_event next_event(struct spawn_fixture *f) {
        struct spawn_event e;
        int fds[2];
        size_t bytes;
        unsigned n = 2;
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 10000), 1);
        assert_int_equal(packet_receive(f->fd, &e, sizeof e, &bytes, fds, &n), 0);
        while (n > 0)
                close(fds[--n]);
        return e;
}

static void test_copy_is_not_waited_for(void **state) {
        struct spawn_fixture *f = *state;
        bool was_waited_for = true;
        write_large_plugin(f);
        load(f, 1, "");
        for (uint32_t g = 2; g < TRIES && was_waited_for; g++) {
                send_load_large(f, g);
                uint32_t other = start(f, 1, START_SPAWN);
                send_kill(f, other, SIGKILL);
                struct spawn_event e = next_event(f);
                was_waited_for = e.type == SPAWN_LOADED;
                for (unsigned i = 0; i < 2; i++) /* STARTED, EXITED and LOADED */
                        e = next_event(f);
                assert_int_equal(e.type, was_waited_for ? SPAWN_EXITED : SPAWN_LOADED);
        }
        assert_false(was_waited_for);
}

/* An answer, not an error of the broker's. */
static void test_start_before_it_is_copied(void **state) {
        struct spawn_fixture *f = *state;
        struct spawn_event e = {0};
        write_large_plugin(f);
        for (uint32_t g = 1; g < TRIES && e.type != SPAWN_FAILED; g++) {
                send_load_large(f, g);
                uint32_t early = start(f, g, START_SPAWN);
                e = next_event(f);
                if (e.type == SPAWN_FAILED) {
                        assert_int_equal(e.worker, early);
                        assert_int_equal(e.error, ENOENT);
                        assert_int_equal(expect(f, SPAWN_LOADED).generation, g);
                } else {
                        close_started(expect_started(f, early));
                        send_kill(f, early, SIGKILL);
                        expect(f, SPAWN_EXITED);
                }
        }
        assert_int_equal(e.type, SPAWN_FAILED);
}

static void test_copies_of_one_file_come_in_order(void **state) {
        struct spawn_fixture *f = *state;
        write_large_plugin(f);
        for (uint32_t g = 1; g <= 4; g++)
                send_load_large(f, g);
        for (uint32_t g = 1; g <= 4; g++) {
                struct spawn_event e = expect(f, SPAWN_LOADED);
                assert_int_equal(e.generation, g);
                assert_int_equal(e.error, 0);
        }
}

static void test_retired_while_it_is_copied(void **state) {
        struct spawn_fixture *f = *state;
        int32_t errors[2] = {0};
        write_large_plugin(f);
        for (uint32_t g = 1; g < 2 * TRIES && !errors[0]; g += 2) {
                for (uint32_t i = 0; i < 2; i++) /* one that is being copied, one that waits for it */
                        send_load_large(f, g + i);
                for (uint32_t i = 0; i < 2; i++)
                        retire(f, g + i);
                for (uint32_t i = 0; i < 2; i++) {
                        struct spawn_event e = expect(f, SPAWN_LOADED);
                        assert_int_equal(e.generation, g + i);
                        errors[i] = e.error;
                }
        }
        assert_int_equal(errors[0], ECANCELED);
        assert_int_equal(errors[1], ECANCELED);
        send_load_large(f, 3 * TRIES);
        assert_int_equal(expect(f, SPAWN_LOADED).error, 0);
}

/* 0: it has none, or no more. */
static pid_t find_copier(const struct spawn_fixture *f) {
        char path[64], text[64] = "";
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", f->pid, f->pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        return n > 0 ? atoi(text) : 0;
}

static void test_killed_copier(void **state) {
        struct spawn_fixture *f = *state;
        write_large_plugin(f);
        struct spawn_event e = {0};
        for (uint32_t g = 1; g < TRIES && e.error == 0; g++) {
                send_load_large(f, g);
                pid_t pid;
                struct pollfd p = {.fd = f->fd, .events = POLLIN};
                while ((pid = find_copier(f)) == 0 && poll(&p, 1, 0) == 0)
                        ;
                if (pid > 0)
                        kill(pid, SIGKILL);
                e = expect(f, SPAWN_LOADED);
                retire(f, g);
        }
        assert_int_equal(e.error, EIO);
        assert_int_equal(e.is_permanent, 0);
        assert_string_equal(e.text, "plugin large: the process that copied it ended with signal 9: try again");
        load(f, TRIES, "");
}

static void test_end_while_it_is_copied(void **state) {
        struct spawn_fixture *f = *state;
        write_large_plugin(f);
        send_load_large(f, 1);
        close(f->fd);
        f->fd = -1;
        int status = fixture_wait(f);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_copy_is_not_waited_for, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_start_before_it_is_copied, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_copies_of_one_file_come_in_order, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_retired_while_it_is_copied, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_killed_copier, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_end_while_it_is_copied, fixture_setup, fixture_teardown),
        };
        return cmocka_run_group_tests_name("copier", tests, NULL, NULL);
}
