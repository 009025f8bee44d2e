/* drover-spawn and its templates: warm ones, dying ones, lying ones. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/memory/packet.h"
#include "tests/unit/spawn-fixture.h"

static pid_t template_of(const struct started *s) {
        char text[2048];
        command(s, "describe");
        answer(s, text, sizeof text);
        char *template = strstr(text, "template=");
        assert_non_null(template);
        return atoi(template + strlen("template="));
}

static void end(struct spawn_fixture *f, struct started *s, const char *how) {
        command(s, how);
        expect_exited(f, s);
}

static void test_one_template_serves_all_starts(void **state) {
        struct spawn_fixture *f = *state;
        enum { N = 50 };
        struct started s[N];
        load(f, 1, "");
        for (unsigned i = 0; i < N; i++) /* all before it is ready, and more than it is asked at once */
                s[i].worker = start(f, 1, START_FORKSERVER);
        for (unsigned i = 0; i < N; i++)
                s[i] = expect_started(f, s[i].worker);
        pid_t template = template_of(&s[0]);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(template_of(&s[i]), template);
                end(f, &s[i], "exit 0");
        }
        assert_true(is_alive(template));
}

static void test_killed_template_is_replaced(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        struct started a = expect_started(f, start(f, 1, START_FORKSERVER));
        pid_t template = template_of(&a);
        kill(template, SIGKILL);
        struct spawn_event e = expect(f, SPAWN_TEMPLATE);
        assert_int_equal(e.generation, 1);
        assert_int_equal(e.pid, template);
        assert_int_equal(e.reason, REASON_SIGNAL);
        assert_int_equal(e.code, CLD_KILLED);
        assert_int_equal(e.status, SIGKILL);
        char wanted[128];
        snprintf(wanted, sizeof wanted, "the template of plugin plug (pid %d) was killed by signal 9 (SIGKILL)",
                 template);
        assert_string_equal(e.text, wanted);

        struct started b = expect_started(f, start(f, 1, START_FORKSERVER));
        assert_int_not_equal(template_of(&b), template);
        assert_int_equal(template_of(&a), template); /* its worker lives on, and its end is seen exactly */
        command(&a, "exit 7");
        e = expect_exited(f, &a);
        assert_int_equal(e.code, CLD_EXITED);
        assert_int_equal(e.status, 7);
        end(f, &b, "exit 0");
}

static void test_crashes_in_a_row_make_a_new_template(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        pid_t first = 0;
        for (unsigned i = 0; i < 11; i++) {
                struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
                pid_t template = template_of(&s);
                if (i == 0)
                        first = template;
                if (i < 10)
                        assert_int_equal(template, first);
                else
                        assert_int_not_equal(template, first);
                end(f, &s, i == 4 ? "exit 1" : "signal 11"); /* four, an orderly end, five */
        }
        expect_gone(first);
}

/* Each: what two waiting starts hear, and whether the template's end is news. */
static void test_templates_that_fail(void **state) {
        struct spawn_fixture *f = *state;
        static const struct {
                const char *behaviour, *text;
                int error, status;
                uint32_t reason, is_permanent, syscall;
                bool is_news;
        } fails[] = {
                {"crash", "was killed by signal 11 (SIGSEGV) while it loaded the plugin", EPIPE, SIGSEGV,
                 REASON_PRELOAD, 0, 0, true},
                {"exit", "exited with status 3 while it loaded the plugin", EPIPE, 3, REASON_PRELOAD, 0, 0, true},
                {"fail", "no metadata", EINVAL, 0, REASON_PRELOAD, 1, 0, false},
                {"syscall", "preload failed", EPROTO, SIGSYS, REASON_SYSCALL, 0, SYS_openat + 1, true},
                {"short", "was ended: it sent a packet that is no message", EPROTO, 0, REASON_PRELOAD, 0, 0, true},
                {"unasked", "was ended: it spoke out of turn", EPROTO, 0, REASON_PRELOAD, 0, 0, true},
                {"threads",
                 "plugin plug has 2 threads after preload (one is named \"blas?pool\"); a template may have one: set "
                 "Environment=... (for OpenBLAS: Environment=OPENBLAS_NUM_THREADS=1) or StartMethod=spawn",
                 EBUSY, 0, REASON_PRELOAD, 1, 0, false},
                {"open", "was ended: it did not close its sandbox", EPROTO, 0, REASON_PRELOAD, 0, 0, true},
                {"closed-twice", "was ended: it spoke out of turn", EPROTO, 0, REASON_PRELOAD, 0, 0, true},
                {"loaded-again", "was ended: it spoke out of turn", EPROTO, 0, REASON_PRELOAD, 0, 0, true},
                {"listens-twice", "was ended: it sent a packet that is no message", EPROTO, 0, REASON_PRELOAD, 0, 0,
                 true},
                {"die", "exited with status 0", EPIPE, 0, REASON_PRELOAD, 0, 0, true},
        };
        for (unsigned i = 0; i < sizeof fails / sizeof *fails; i++) {
                load(f, i + 1, fails[i].behaviour);
                uint32_t first = start(f, i + 1, START_FORKSERVER);
                for (unsigned n = 0; n < 2; n++) {
                        struct spawn_event e = expect(f, SPAWN_FAILED);
                        assert_int_equal(e.worker, first);
                        assert_int_equal(e.error, fails[i].error);
                        assert_int_equal(e.reason, fails[i].reason);
                        assert_int_equal(e.is_permanent, fails[i].is_permanent);
                        assert_int_equal(e.breach.syscall, fails[i].syscall);
                        if (fails[i].status)
                                assert_int_equal(e.status, fails[i].status);
                        if (!strstr(e.text, fails[i].text))
                                print_message("%s\n", e.text);
                        assert_non_null(strstr(e.text, fails[i].text));
                        if (fails[i].is_news)
                                assert_string_equal(expect(f, SPAWN_TEMPLATE).text, e.text);
                        if (n == 0) /* the next start tries again */
                                first = start(f, i + 1, START_FORKSERVER);
                }
        }
        load(f, 100, "");
        struct started s = expect_started(f, start(f, 100, START_FORKSERVER));
        end(f, &s, "exit 0"); /* and nothing of the above was told as an escapee */
}

static void test_template_that_cannot_fork_stays(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "no-fork");
        for (unsigned i = 0; i < 3; i++) {
                uint32_t worker = start(f, 1, START_FORKSERVER);
                struct spawn_event e = expect(f, SPAWN_FAILED);
                assert_int_equal(e.worker, worker);
                assert_int_equal(e.error, ENOMEM);
                assert_int_equal(e.is_permanent, 0);
                assert_string_equal(e.text, "the template of plugin plug cannot fork: Cannot allocate memory");
        }
}

/* As soon as it is known: still STARTED, then EXITED. */
static void test_worker_that_ends_at_once(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "brief");
        for (unsigned i = 0; i < 50; i++) {
                struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
                struct spawn_event e = expect_exited(f, &s);
                assert_int_equal(e.code, CLD_EXITED);
                assert_int_equal(e.status, 5);
        }
}

static void test_kill_before_the_template_is_ready(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "hang");
        uint32_t a = start(f, 1, START_FORKSERVER), b = start(f, 1, START_FORKSERVER);
        send_kill(f, b, SIGKILL);
        struct spawn_event e = expect(f, SPAWN_FAILED);
        assert_int_equal(e.worker, b);
        assert_int_equal(e.error, ECANCELED);
        send_kill(f, a, SIGTERM); /* the last that waited: a preload that hangs ends with it, as was asked */
        assert_int_equal(expect(f, SPAWN_FAILED).worker, a);
        load(f, 2, "");
        struct started s = expect_started(f, start(f, 2, START_FORKSERVER));
        end(f, &s, "exit 0");
}

/* What a template may owe: a fork, and whom it forked. Whoever waits is told in time, without asking. */
static void check_overdue(struct spawn_fixture *f, const char *behaviour, const char *why) {
        static uint32_t generation;
        load(f, ++generation, behaviour);
        uint32_t a = start(f, generation, START_FORKSERVER);
        struct spawn_event e = expect(f, SPAWN_FAILED);
        assert_int_equal(e.worker, a);
        assert_int_equal(e.error, EPROTO);
        if (!strstr(e.text, why))
                fail_msg("no \"%s\" in \"%s\"", why, e.text);
        struct spawn_event ended = expect(f, SPAWN_TEMPLATE);
        assert_string_equal(ended.text, e.text);
        expect_gone(ended.pid);
}

static void test_template_that_owes(void **state) {
        check_overdue(*state, "mute", "it does not fork");
        check_overdue(*state, "silent", "what it forked does not come"); /* and it is gone: see fixture_teardown */
}

/* Whom it forked in secret is found and killed. */
static void test_template_that_lies(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "liar");
        uint32_t a = start(f, 1, START_FORKSERVER);
        struct spawn_event e = expect(f, SPAWN_FAILED);
        assert_int_equal(e.worker, a);
        assert_int_equal(e.error, ENOMEM);
        expect_gone(expect(f, SPAWN_ESCAPED).pid);
        load(f, 2, "stranger");
        a = start(f, 2, START_FORKSERVER);
        e = expect(f, SPAWN_FAILED);
        assert_int_equal(e.worker, a);
        assert_non_null(strstr(e.text, "it reported a fork that nobody asked for"));
        expect(f, SPAWN_TEMPLATE);
}

/* It forked one that ended at once. */
static void test_worker_that_never_was(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "early");
        for (unsigned i = 0; i < 20; i++) {
                uint32_t a = start(f, 1, START_FORKSERVER);
                struct spawn_event e = expect(f, SPAWN_FAILED);
                assert_int_equal(e.worker, a);
                assert_int_equal(e.is_permanent, 0);
                assert_non_null(strstr(e.text, "which ended with status 5 before it was set up"));
        }
}

/* A worker is under its template's filter, and its calls are not the template's. */
static void test_workers_fork_nobody_and_signal_nobody(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "");
        struct started s = expect_started(f, start(f, 1, START_FORKSERVER));
        struct started t = expect_started(f, start(f, 1, START_FORKSERVER));
        const pid_t others[] = {getpid(), f->pid, t.pid, template_of(&s), 1};
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
                char text[64];
                snprintf(text, sizeof text, "forbidden %d", others[i]);
                command(&s, text);
                answer(&s, text, sizeof text);
                assert_string_equal(text, "1 1 1 0");
        }
        kill(template_of(&s), SIGKILL); /* it is answered all the same */
        expect(f, SPAWN_TEMPLATE);
        char text[64];
        snprintf(text, sizeof text, "forbidden %d", t.pid);
        command(&s, text);
        answer(&s, text, sizeof text);
        assert_string_equal(text, "1 1 1 0");
        end(f, &s, "exit 0");
        end(f, &t, "exit 0");
}

/* Many who ask without an end do not keep the spawner from others. */
static void test_flood_of_calls(void **state) {
        struct spawn_fixture *f = *state;
        enum { N = 8 };
        struct started flooding[N];
        char text[16];
        for (uint32_t i = 0; i < N; i++) {
                load(f, i + 1, "");
                flooding[i] = expect_started(f, start(f, i + 1, START_FORKSERVER));
                command(&flooding[i], "flood");
                answer(&flooding[i], text, sizeof text);
        }
        for (unsigned i = 0; i < 50; i++) {
                struct started s = expect_started(f, start(f, i % N + 1, i % 2 ? START_FORKSERVER : START_SPAWN));
                end(f, &s, "exit 0");
        }
        for (unsigned i = 0; i < N; i++) {
                send_kill(f, flooding[i].worker, SIGKILL);
                expect_exited(f, &flooding[i]);
        }
}

/* Nor do workers that kept their template's socket, also when it is dead. */
static void test_flood_in_the_templates_name(void **state) {
        struct spawn_fixture *f = *state;
        enum { N = 4 };
        struct started flooding[N];
        char text[16];
        load(f, 1, "keep");
        load(f, 2, "");
        for (unsigned i = 0; i < N; i++)
                flooding[i] = expect_started(f, start(f, 1, START_FORKSERVER));
        for (unsigned i = 0; i < N; i++) {
                command(&flooding[i], "flood-as-template");
                answer(&flooding[i], text, sizeof text);
        }
        assert_non_null(strstr(expect(f, SPAWN_TEMPLATE).text, "it spoke out of turn"));
        struct started s = expect_started(f, start(f, 2, START_FORKSERVER));
        end(f, &s, "exit 0");
        for (unsigned i = 0; i < N; i++) {
                send_kill(f, flooding[i].worker, SIGKILL);
                expect_exited(f, &flooding[i]);
        }
}

/* While a worker is on its way, others' ends are seen all the same, and an escapee is found. */
static void test_silent_template_hides_nothing(void **state) {
        struct spawn_fixture *f = *state;
        load(f, 1, "silent");
        load(f, 2, "");
        struct started s = expect_started(f, start(f, 2, START_FORKSERVER));
        struct started t = expect_started(f, start(f, 2, START_FORKSERVER));
        uint32_t a = start(f, 1, START_FORKSERVER);
        command(&s, "escape");
        pid_t escapee = answer_pid(&s);
        command(&s, "fork");
        answer_pid(&s);
        end(f, &t, "exit 0"); /* some child's end is what makes us look */
        assert_int_equal(expect(f, SPAWN_ESCAPED).pid, escapee);
        command(&s, "exit 3");
        assert_int_equal(expect_exited(f, &s).status, 3);
        assert_int_equal(expect(f, SPAWN_FAILED).worker, a);
        expect(f, SPAWN_TEMPLATE);
}

/* Starts, kills and dying templates all at once: every start ends exactly once, by FAILED or by STARTED and EXITED. */
static void test_storm(void **state) {
        struct spawn_fixture *f = *state;
        enum { N = 600, WINDOW = 40 };
        static struct {
                bool is_started, is_ended;
                pid_t pid;
        } worker[N + 1];
        unsigned n_sent = 0, n_ended = 0, n_templates = 0, random = 1;
        pid_t template = 0;
        load(f, 1, "");
        while (n_ended < N) {
                while (n_sent < N && n_sent - n_ended < WINDOW)
                        n_sent = start(f, 1, n_sent % 4 ? START_FORKSERVER : START_SPAWN);
                struct pollfd p = {.fd = f->fd, .events = POLLIN};
                assert_int_equal(poll(&p, 1, 10000), 1);
                struct spawn_event e;
                int fds[2];
                size_t bytes;
                unsigned n = 2;
                assert_int_equal(packet_receive(f->fd, &e, sizeof e, &bytes, fds, &n), 0);
                random = random * 1103515245u + 12345u;
                switch (e.type) {
                case SPAWN_STARTED:
                        assert_in_range(e.worker, 1, N);
                        assert_false(worker[e.worker].is_started || worker[e.worker].is_ended);
                        worker[e.worker].is_started = true;
                        worker[e.worker].pid = e.pid;
                        struct started s = {.worker = e.worker, .pid = e.pid, .pidfd = fds[0], .fd = fds[1]};
                        if (random >> 16 & 1)
                                send_kill(f, e.worker, SIGKILL);
                        else if (random >> 17 & 7)
                                command(&s, "exit 0");
                        else if ((template = template_of(&s)) > 0)
                                kill(template, SIGKILL);
                        close(s.fd); /* and whoever is left exits at its end of file */
                        close(s.pidfd);
                        break;
                case SPAWN_EXITED:
                        assert_true(worker[e.worker].is_started && !worker[e.worker].is_ended);
                        assert_int_equal(worker[e.worker].pid, e.pid);
                        worker[e.worker].is_ended = true;
                        n_ended++;
                        break;
                case SPAWN_FAILED:
                        assert_false(worker[e.worker].is_started || worker[e.worker].is_ended);
                        worker[e.worker].is_ended = true;
                        n_ended++;
                        break;
                case SPAWN_TEMPLATE:
                        n_templates++;
                        break;
                default:
                        fail_msg("event %u: %s", e.type, e.text);
                }
        }
        assert_true(n_templates > 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_one_template_serves_all_starts),
                TEST(test_killed_template_is_replaced),
                TEST(test_crashes_in_a_row_make_a_new_template),
                TEST(test_templates_that_fail),
                TEST(test_template_that_cannot_fork_stays),
                TEST(test_worker_that_ends_at_once),
                TEST(test_kill_before_the_template_is_ready),
                TEST(test_template_that_owes),
                TEST(test_template_that_lies),
                TEST(test_worker_that_never_was),
                TEST(test_workers_fork_nobody_and_signal_nobody),
                TEST(test_flood_of_calls),
                TEST(test_flood_in_the_templates_name),
                TEST(test_silent_template_hides_nothing),
                TEST(test_storm),
        };
        return cmocka_run_group_tests_name("drover-spawn: templates", tests, NULL, NULL);
}
