/* drover-spawn from its broker's seat: lives and ends of workers, and a broker that misbehaves. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/memory/packet.h"
#include "tests/unit/spawn-fixture.h"

static void test_worker_gets_only_what_it_should(void **state) {
        struct spawn_fixture *f = *state;
        send_request(f, &(struct spawn_request){
                                .type = SPAWN_LOAD,
                                .generation = 7,
                                .pool = "pool",
                                .plugin = "plug.so",
                                .environment = "A=1\0B=",
                        });
        assert_int_equal(expect(f, SPAWN_LOADED).error, 0);
        static const enum start_method methods[] = {START_SPAWN, START_FORKSERVER};
        for (unsigned i = 0; i < 2; i++) {
                struct started s = expect_started(f, start(f, 7, methods[i]));
                char text[2048], wanted[256];
                command(&s, "describe");
                answer(&s, text, sizeof text);
                snprintf(wanted, sizeof wanted,
                         " ppid=%d env=LANG=C.UTF-8|PATH=/usr/local/bin:/usr/bin:/bin|TZ=Europe/Berlin|A=1|B=|",
                         f->pid);
                assert_non_null(strstr(text, wanted));
                assert_non_null(strstr(text, "fds=0,1,2,3,4, group=own signals=default plugin=one template="));
                send_kill(f, s.worker, SIGKILL);
                struct spawn_event e = expect_exited(f, &s);
                assert_int_equal(e.code, CLD_KILLED);
                assert_int_equal(e.status, SIGKILL);
        }
}

/* "0,1,2,3,4," once the host has closed the rest; before, whatever there is. */
static void list_fds(pid_t pid, char *text, size_t room) {
        char path[64];
        struct stat st;
        size_t n = 0;
        *text = 0;
        for (int fd = 0; fd < 256; fd++) {
                snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
                if (lstat(path, &st) == 0 && n < room)
                        n += (size_t)snprintf(text + n, room - n, "%d,", fd);
        }
}

static void test_forked_worker_keeps_nothing_of_the_spawner(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        struct started s = expect_started(f, start(f, 1, START_FORK));
        char text[1024] = "";
        for (unsigned i = 0; i < 500 && strcmp(text, "0,1,2,3,4,") != 0; i++) {
                list_fds(s.pid, text, sizeof text);
                poll(NULL, 0, 2);
        }
        assert_string_equal(text, "0,1,2,3,4,");
        close(s.fd);
        s.fd = -1;
        struct spawn_event e = expect(f, SPAWN_EXITED); /* it saw the end of file: nobody else holds the socket */
        assert_int_equal(e.worker, s.worker);
        assert_int_equal(e.code, CLD_EXITED);
        assert_int_equal(e.status, 0);
        close(s.pidfd);

        s = expect_started(f, start(f, 1, START_FORK));
        send_kill(f, s.worker, SIGKILL);
        e = expect_exited(f, &s);
        assert_int_equal(e.code, CLD_KILLED);
        assert_int_equal(e.status, SIGKILL);
}

/* The kernel's own word for a process that aborts where cores may be written. */
static int code_of_a_core(void) {
        pid_t pid = fork();
        if (pid == 0) {
                setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
                abort();
        }
        siginfo_t si;
        assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED), 0);
        return si.si_code;
}

static void test_exact_status(void **state) {
        struct spawn_fixture *f = *state;
        static const struct {
                const char *command;
                int code, status;
        } ends[] = {{"exit 0", CLD_EXITED, 0},          {"exit 7", CLD_EXITED, 7},
                    {"exit 255", CLD_EXITED, 255},      {"signal 9", CLD_KILLED, SIGKILL},
                    {"signal 15", CLD_KILLED, SIGTERM}, {"core ", 0, SIGABRT}};
        int core = code_of_a_core();
        load(f, 1, "");
        for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++)
                for (unsigned m = 0; m < 2; m++) {
                        struct started s = expect_started(f, start(f, 1, m ? START_SPAWN : START_FORKSERVER));
                        command(&s, ends[i].command);
                        struct spawn_event e = expect_exited(f, &s);
                        assert_int_equal(e.code, ends[i].code ? ends[i].code : core);
                        assert_int_equal(e.status, ends[i].status);
                        assert_true(e.max_rss_kib > 0);
                }
        unlink("core");
}

static void test_signals_go_to_the_worker_alone(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        struct started s = expect_started(f, start(f, 1, START_SPAWN));
        send_kill(f, 999, SIGKILL); /* nobody: no harm */
        send_kill(f, s.worker, SIGUSR1);
        struct spawn_event e = expect_exited(f, &s);
        assert_int_equal(e.code, CLD_KILLED);
        assert_int_equal(e.status, SIGUSR1);
}

static void test_process_group_dies_with_its_worker(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        for (unsigned m = 0; m < 4; m++) {
                struct started s = expect_started(f, start(f, 1, m & 1 ? START_SPAWN : START_FORKSERVER));
                command(&s, "fork");
                pid_t child = answer_pid(&s);
                assert_true(is_alive(child));
                if (m & 2)
                        command(&s, "exit 0");
                else
                        send_kill(f, s.worker, SIGKILL);
                expect_exited(f, &s); /* nothing before it: a member of the group is no escapee */
                assert_false(is_alive(child));
        }
}

static void test_escapees_are_found_killed_and_counted(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        for (unsigned m = 0; m < 2; m++) {
                struct started s = expect_started(f, start(f, 1, m ? START_SPAWN : START_FORKSERVER));
                command(&s, "tree");
                pid_t first = answer_pid(&s), second = answer_pid(&s);
                assert_true(is_alive(first) && is_alive(second));
                command(&s, "exit 0");
                struct spawn_event e[3] = {expect(f, SPAWN_EXITED), expect(f, SPAWN_ESCAPED), expect(f, SPAWN_ESCAPED)};
                assert_int_equal(e[0].worker, s.worker);
                assert_true((e[1].pid == first && e[2].pid == second) || (e[1].pid == second && e[2].pid == first));
                assert_false(is_alive(first));
                assert_false(is_alive(second));
                close(s.fd);
                close(s.pidfd);
        }
}

static void test_end_of_file_ends_everything(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        load(f, 2, "hang");
        struct started s[5];
        pid_t pids[9];
        for (unsigned i = 0; i < 4; i++) {
                s[i] = expect_started(f, start(f, 1, i & 1 ? START_SPAWN : START_FORKSERVER));
                pids[i] = s[i].pid;
        }
        start(f, 2, START_FORKSERVER);
        command(&s[0], "escape");
        pids[4] = answer_pid(&s[0]);
        command(&s[1], "tree");
        pids[5] = answer_pid(&s[1]);
        pids[6] = answer_pid(&s[1]);
        command(&s[2], "fork");
        pids[7] = answer_pid(&s[2]);
        s[4] = expect_started(f, start(f, 1, START_FORK));
        pids[8] = s[4].pid;
        close(f->fd);
        f->fd = -1;
        int status = fixture_wait(f); /* within a second */
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        for (unsigned i = 0; i < 9; i++)
                assert_false(is_alive(pids[i]));
        for (unsigned i = 0; i < 5; i++) {
                close(s[i].fd);
                close(s[i].pidfd);
        }
}

static void test_terminate(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
        kill(f->pid, SIGTERM);
        int status = fixture_wait(f);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_false(is_alive(s.pid));
        close(s.fd);
        close(s.pidfd);
}

static void test_generations_never_mix(void **state) {
        struct spawn_fixture *f = *state;
        char text[2048];
        load(f, 1, "");
        fixture_write_plugin(f, "plug.so", "two"); /* in place */
        load(f, 2, "");
        fixture_write_plugin(f, "new", "three");
        char from[96], to[96];
        snprintf(from, sizeof from, "%s/new", f->dir);
        snprintf(to, sizeof to, "%s/plug.so", f->dir);
        assert_int_equal(rename(from, to), 0);
        load(f, 3, "");
        for (uint32_t g = 1; g <= 3; g++)
                for (unsigned m = 0; m < 2; m++) {
                        struct started s = expect_started(f, start(f, g, m ? START_SPAWN : START_FORKSERVER));
                        command(&s, "describe");
                        answer(&s, text, sizeof text);
                        assert_non_null(strstr(text, g == 1 ? "plugin=one" : g == 2 ? "plugin=two" : "plugin=three"));
                        command(&s, "exit 0");
                        expect_exited(f, &s);
                }
}

static void test_retire(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        load(f, 2, "hang");
        struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
        char text[2048];
        uint32_t waiting = start(f, 2, START_FORKSERVER);
        send_request(f, &(struct spawn_request){.type = SPAWN_RETIRE, .generation = 1});
        send_request(f, &(struct spawn_request){.type = SPAWN_RETIRE, .generation = 2});
        send_request(f, &(struct spawn_request){.type = SPAWN_RETIRE, .generation = 3});
        struct spawn_event e = expect(f, SPAWN_FAILED); /* and no SPAWN_TEMPLATE: it was asked for */
        assert_int_equal(e.worker, waiting);
        assert_int_equal(e.error, ECANCELED);
        uint32_t late = start(f, 1, START_SPAWN);
        e = expect(f, SPAWN_FAILED);
        assert_int_equal(e.worker, late);
        assert_int_equal(e.error, ENOENT);
        assert_string_equal(e.text, "generation 1 is not loaded");
        command(&s, "describe"); /* its workers go on */
        answer(&s, text, sizeof text);
        char *template = strstr(text, "template=");
        expect_gone(atoi(template + strlen("template=")));
        command(&s, "exit 0");
        expect_exited(f, &s);
}

static void test_refused_file_is_told_once(void **state) {
        struct spawn_fixture *f = *state;
        struct spawn_request q = {.type = SPAWN_LOAD, .generation = 1, .pool = "pool", .plugin = "absent"};
        send_request(f, &q);
        struct spawn_event e = expect(f, SPAWN_LOADED);
        char wanted[256];
        snprintf(wanted, sizeof wanted,
                 "plugin %s/absent.so: no such file: install it there or correct Plugin=", f->dir);
        assert_string_equal(e.text, wanted);
        assert_int_equal(e.error, ENOENT);
        assert_int_equal(e.is_permanent, 1);
        q = (struct spawn_request){.type = SPAWN_LOAD,
                                   .generation = 2,
                                   .pool = "pool",
                                   .plugin = "plug",
                                   .environment = "LD_PRELOAD=/x.so"};
        send_request(f, &q);
        e = expect(f, SPAWN_LOADED);
        assert_int_equal(e.error, EPERM);
        assert_non_null(strstr(e.text, "LD_"));
        load(f, 3, ""); /* and goes on */
}

/* The spawner must end, not crash; what it had started must be gone (teardown). */
static void hostile(void **state, const void *data, size_t bytes) {
        struct spawn_fixture *f;
        void *own;
        fixture_setup(&own);
        f = own;
        load(f, 1, "");
        struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
        if (bytes)
                assert_int_equal(packet_send(f->fd, data, bytes, NULL, 0), 0);
        else
                assert_int_equal(send(f->fd, data, 0, MSG_NOSIGNAL), 0);
        int status = fixture_wait(f);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), bytes ? 1 : 0);
        assert_false(is_alive(s.pid));
        close(s.fd);
        close(s.pidfd);
        fixture_teardown(&own);
}

static void test_hostile_packets(void **state) {
        struct spawn_request good = {
                .type = SPAWN_LOAD, .version = WIRE_VERSION, .generation = 9, .pool = "p", .plugin = "plug"};
        struct spawn_request q[14];
        unsigned n = 0;
        for (unsigned i = 0; i < 14; i++)
                q[i] = good;
        q[n++].type = 0;
        q[n++].type = SPAWN_PING + 1;
        q[n++].type = UINT32_MAX;
        q[n++].version = WIRE_VERSION + 1;
        q[n++].method = START_N;
        memset(q[n++].pool, 'p', sizeof good.pool);
        memset(q[n++].pool, 0, sizeof good.pool);
        memcpy(q[n++].pool, "a/b", 4);
        memset(q[n++].plugin, 'p', sizeof good.plugin);
        memset(q[n++].environment, 'e', sizeof good.environment);
        memcpy(q[n++].environment, "no equals", 10);
        memcpy(q[n++].environment, "=x", 3);
        for (size_t i = 0; i + 4 <= sizeof good.environment; i += 4) /* full: no empty one at its end */
                memcpy(q[n].environment + i, "a=b", 4);
        n++;
        q[n++].generation = 1; /* loaded twice */
        for (unsigned i = 0; i < n; i++)
                hostile(state, &q[i], sizeof q[i]);

        struct spawn_request twice = {.type = SPAWN_START, .version = WIRE_VERSION, .generation = 1, .worker = 1};
        hostile(state, &twice, sizeof twice);
        struct spawn_request kill_by = {.type = SPAWN_KILL, .version = WIRE_VERSION, .worker = 1};
        hostile(state, &kill_by, sizeof kill_by);
        kill_by.signal = 4711;
        hostile(state, &kill_by, sizeof kill_by);

        char large[sizeof good + 1] = {0};
        memcpy(large, &good, sizeof good);
        hostile(state, large, sizeof large);
        hostile(state, &good, sizeof good - 1);
        hostile(state, &good, 1);
        hostile(state, &good, 0);
}

/* More events than the socket takes, while the broker does not read. */
static void test_broker_that_is_slow_to_read(void **state) {
        struct spawn_fixture *f = *state;
        enum { N = 1500 };
        load(f, 1, "");
        struct spawn_request q = {
                .type = SPAWN_START, .version = WIRE_VERSION, .generation = 99, .method = START_SPAWN};
        unsigned n_sent = 0, n_read = 0;
        while (n_sent < N) {
                q.worker = n_sent + 1;
                if (packet_send(f->fd, &q, sizeof q, NULL, 0) == 0)
                        n_sent++;
                else if (n_read < n_sent && n_sent - n_read > 100)
                        assert_int_equal(expect(f, SPAWN_FAILED).worker, ++n_read);
        }
        while (n_read < N)
                assert_int_equal(expect(f, SPAWN_FAILED).worker, ++n_read);
        struct started s[40];
        f->next_worker = N + 1;
        for (unsigned i = 0; i < 40; i++)
                s[i].worker = start(f, 1, i & 1 ? START_SPAWN : START_FORKSERVER);
        for (unsigned i = 0; i < 40; i++)
                send_kill(f, s[i].worker, SIGKILL);
        unsigned n_ends = 0;
        while (n_ends < 40) { /* STARTED and EXITED, or FAILED: killed before it was started */
                struct spawn_event e;
                int fds[2];
                size_t bytes;
                unsigned n = 2;
                struct pollfd p = {.fd = f->fd, .events = POLLIN};
                assert_int_equal(poll(&p, 1, 5000), 1);
                assert_int_equal(packet_receive(f->fd, &e, sizeof e, &bytes, fds, &n), 0);
                assert_true(e.type == SPAWN_STARTED || e.type == SPAWN_EXITED || e.type == SPAWN_FAILED);
                n_ends += e.type != SPAWN_STARTED;
                while (n > 0)
                        close(fds[--n]);
        }
}

static int connect_to(const struct sockaddr_un *a) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)a, sizeof *a), 0);
        return fd;
}

/* systemd's way: one broker after the other, and not everybody. */
static void test_listener(void **state) {
        struct spawn_fixture *first = *state, f = {.next_worker = 1};
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        snprintf(a.sun_path, sizeof a.sun_path, "%s/spawn", first->dir);
        int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(listen(listener, 5), 0);
        chmod(a.sun_path, 0777);
        chmod(first->dir, 0755);
        char dir[96];
        snprintf(dir, sizeof dir, "--plugin-dir=%s", first->dir);
        f.pid = fixture_exec((char *[]){TEST_SPAWNER, dir, "--worker=" TEST_WORKER, NULL}, listener, true);
        close(listener);

        if (geteuid() == 0) {
                pid_t stranger = fork();
                if (stranger == 0) {
                        char byte;
                        if (setuid(65534) < 0)
                                _exit(2);
                        _exit(recv(connect_to(&a), &byte, 1, 0) == 0 ? 0 : 1);
                }
                int status;
                assert_int_equal(waitpid(stranger, &status, 0), stranger);
                assert_int_equal(status, 0);
        }
        for (unsigned i = 0; i < 2; i++) {
                f.fd = connect_to(&a);
                assert_int_equal(expect(&f, SPAWN_HELLO).pid, f.pid);
                load(&f, 1, "");
                struct started s = expect_started(&f, start(&f, 1, START_FORKSERVER));
                if (i == 0)
                        close(f.fd);
                else
                        send_request(&f, &(struct spawn_request){.type = 77});
                expect_gone(s.pid);
                close(s.fd);
                close(s.pidfd);
        }
        close(f.fd);
        kill(f.pid, SIGTERM);
        int status = fixture_wait(&f);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_command_line(void **state) {
        struct spawn_fixture *f = *state, other = {0};
        static char *const bad[][3] = {
                {"--fd=x"}, {"--fd=9"}, {"--nonsense"}, {"--fd=3", "argument"}, {"--broker-user=nobody-at-all"}};
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        int err = dup(STDERR_FILENO);
        dup2(null, STDERR_FILENO);
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                other.pid = fixture_exec((char *[]){TEST_SPAWNER, bad[i][0], bad[i][1], NULL}, null, false);
                int status = fixture_wait(&other);
                assert_true(WIFEXITED(status));
                assert_in_range(WEXITSTATUS(status), 1, 2);
        }
        dup2(err, STDERR_FILENO);
        close(err);
        close(null);
        (void)f;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_worker_gets_only_what_it_should, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_forked_worker_keeps_nothing_of_the_spawner, fixture_setup,
                                                fixture_teardown),
                cmocka_unit_test_setup_teardown(test_exact_status, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_signals_go_to_the_worker_alone, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_process_group_dies_with_its_worker, fixture_setup,
                                                fixture_teardown),
                cmocka_unit_test_setup_teardown(test_escapees_are_found_killed_and_counted, fixture_setup,
                                                fixture_teardown),
                cmocka_unit_test_setup_teardown(test_end_of_file_ends_everything, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_terminate, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_generations_never_mix, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_retire, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_refused_file_is_told_once, fixture_setup, fixture_teardown),
                cmocka_unit_test(test_hostile_packets),
                cmocka_unit_test_setup_teardown(test_broker_that_is_slow_to_read, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_listener, fixture_setup, fixture_teardown),
                cmocka_unit_test_setup_teardown(test_command_line, fixture_setup, fixture_teardown),
        };
        return cmocka_run_group_tests_name("drover-spawn", tests, NULL, NULL);
}
