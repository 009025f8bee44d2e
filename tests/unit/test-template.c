/* The template: what its workers share, whose children they are, and what it refuses. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host-fixture.h"
#include "ipc/values/args.h"
#include "ipc/values/words.h"

/* The event after TEMPLATE_LOADED, which a template sends exactly when its plugin has a preload, just before calling
 * it. */
static struct template_event event_after_loaded(int fd, const char *plugin) {
        if (strcmp(plugin, "probe") == 0 || strstr(plugin, "-in-preload"))
                assert_int_equal(host_fixture_event(fd).type, TEMPLATE_LOADED);
        return host_fixture_event(fd);
}

static pid_t start_ready(const char *plugin, int *ret_fd) {
        pid_t pid = host_fixture_start("template", plugin, ret_fd);
        struct template_event e = host_fixture_event(*ret_fd);
        assert_int_equal(e.type, TEMPLATE_CLOSED);
        assert_non_null(strstr(e.text, "seccomp"));
        e = event_after_loaded(*ret_fd, plugin);
        if (e.type != TEMPLATE_READY)
                fail_msg("template of %s: %s", plugin, e.text);
        return pid;
}

struct seen {
        char random[33];
        uint64_t plugin_address;
        int64_t preloads, pid, ppid;
};

static struct args_value result(struct trial *t, const char *name, enum schema_type type) {
        struct args_value v;
        assert_int_equal(
                args_get(channel_result_data(&t->channel, 0), channel_result(&t->channel, 0)->bytes, name, type, &v),
                0);
        return v;
}

static struct seen probe(struct trial *t) {
        assert_int_equal(host_fixture_run(t, 0, "probe", NULL, 0), SLOT_DONE);
        struct seen s = {
                .plugin_address = result(t, "plugin_address", SCHEMA_U64).u64,
                .preloads = result(t, "preloads", SCHEMA_I64).i64,
                .pid = result(t, "pid", SCHEMA_I64).i64,
                .ppid = result(t, "ppid", SCHEMA_I64).i64,
        };
        struct args_value random = result(t, "random", SCHEMA_STR);
        memcpy(s.random, random.data, random.bytes < 32 ? random.bytes : 32);
        assert_int_equal(channel_free(&t->channel, 0), 0);
        return s;
}

static void workers_are_copies_and_our_children(void **state) {
        int fd, control[2];
        pid_t template = start_ready("probe", &fd), worker[2];
        struct trial t[2];
        struct seen s[2];
        for (int i = 0; i < 2; i++) {
                worker[i] = host_fixture_fork(&control[i]);
                host_fixture_trial(&t[i], control[i], true);
                s[i] = probe(&t[i]);
                assert_int_equal(s[i].pid,
                                 worker[i]); /* glibc asks the kernel; its cached tid is test_raise's business */
                assert_int_equal(s[i].ppid, getpid());
                assert_int_equal(s[i].preloads, 1);
        }
        assert_string_equal(s[0].random, s[1].random);
        assert_int_equal(s[0].plugin_address, s[1].plugin_address);

        /* They outlive it. */
        kill(template, SIGKILL);
        assert_true(WIFSIGNALED(host_fixture_reap(template)));
        assert_int_equal(probe(&t[0]).pid, worker[0]);
        for (int i = 0; i < 2; i++) {
                trial_retire(&t[i]);
                assert_int_equal(host_fixture_reap(worker[i]), 0);
                trial_deinit(&t[i]);
        }
        close(fd);
}

/* A worker of a template dies like any other: exact status, the call named, also through threads and raise. */
static void deaths_are_exact(void **state) {
        static const struct {
                const char *plugin, *job;
                int signal, call;
        } deaths[] = {
                {"crash", "abort", SIGABRT, -1},
                {"crash", "segfault", SIGSEGV, -1},
                {"crash", "kill", SIGKILL, -1},
                {"opens", "open", SIGSYS, SYS_openat},
                {"opens", "socket", SIGSYS, SYS_socket},
                {"opens", "execve", SIGSYS, SYS_execve},
                {"doublefork", "escape", SIGSYS, SYS_clone},
        };
        for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
                int fd, control;
                struct trial t;
                pid_t template = start_ready(deaths[i].plugin, &fd), worker = host_fixture_fork(&control);
                host_fixture_trial(&t, control, true);
                assert_int_equal(host_fixture_run(&t, 0, deaths[i].job, NULL, 0), 0);
                int status = host_fixture_reap(worker);
                assert_true(WIFSIGNALED(status));
                assert_int_equal(WTERMSIG(status), deaths[i].signal);
                assert_int_equal((int)atomic_load(&t.line->fault_syscall) - 1, deaths[i].call);
                assert_int_equal(slot_state(channel_word(&t.channel, 0)), SLOT_RUNNING);
                trial_deinit(&t);
                host_fixture_leave(); /* then it ends */
                assert_int_equal(host_fixture_reap(template), 0);
                close(fd);
        }
}

static void threads_work_in_its_workers(void **state) {
        int fd, control;
        struct trial t;
        pid_t template = start_ready("threads", &fd), worker = host_fixture_fork(&control);
        host_fixture_trial(&t, control, true);
        unsigned verdict = host_fixture_run(&t, 0, "run", NULL, 0);
        if (verdict == 0)
                fail_msg("the worker died: wait status %#x", host_fixture_reap(worker));
        assert_int_equal(verdict, SLOT_DONE);
        trial_retire(&t);
        assert_int_equal(host_fixture_reap(worker), 0);
        trial_deinit(&t);
        host_fixture_leave();
        assert_int_equal(host_fixture_reap(template), 0);
        close(fd);
}

static void refuses(const char *plugin, enum death_reason reason, const char *word, int call) {
        int fd;
        pid_t pid = host_fixture_start("template", plugin, &fd);
        struct template_event e = host_fixture_event(fd);
        if (e.type == TEMPLATE_CLOSED)
                e = event_after_loaded(fd, plugin);
        assert_int_equal(e.type, TEMPLATE_FAILED);
        assert_int_equal(e.reason, reason);
        assert_int_equal((int)e.breach.syscall - 1, call);
        const char *where = call >= 0 ? words_phase(e.breach.phase) : e.text;
        if (!strstr(where, word))
                fail_msg("%s: no \"%s\" in \"%s\"", plugin, word, where);
        if (call >= 0)
                assert_string_equal(e.breach.module, plugin);
        int status = host_fixture_reap(pid);
        assert_true(call >= 0 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS
                              : WIFEXITED(status) && WEXITSTATUS(status) == 1);
        close(fd);
}

static void refuses_what_cannot_be_forked(void **state) {
        refuses("threads-in-preload", REASON_PRELOAD, "preload left 1 thread running", -1);
        refuses("threads-in-preload", REASON_PRELOAD, "StartMethod=spawn", -1);
        refuses("fd-in-preload", REASON_PRELOAD, "a pipe", -1);
        refuses("nometa", REASON_INIT, ".drover.info", -1);
        refuses("badabi", REASON_INIT, "99.0", -1);
}

static void names_the_call_that_breaks_the_sandbox(void **state) {
        refuses("open-in-constructor", REASON_SYSCALL, "in a constructor", SYS_openat);
        refuses("open-in-preload", REASON_SYSCALL, "in preload", SYS_openat);
        refuses("socket-in-constructor", REASON_SYSCALL, "in a constructor", SYS_socket);
        refuses("socket-in-preload", REASON_SYSCALL, "in preload", SYS_socket);
        refuses("execve-in-constructor", REASON_SYSCALL, "in a constructor", SYS_execve);
        refuses("execve-in-preload", REASON_SYSCALL, "in preload", SYS_execve);
}

static void dies_of_a_crash_in_preload(void **state) {
        int fd;
        pid_t pid = host_fixture_start("template", "crash-in-preload", &fd);
        assert_int_equal(host_fixture_event(fd).type, TEMPLATE_CLOSED);
        assert_int_equal(host_fixture_event(fd).type, TEMPLATE_LOADED);
        int status = host_fixture_reap(pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(workers_are_copies_and_our_children),
                cmocka_unit_test(deaths_are_exact),
                cmocka_unit_test(threads_work_in_its_workers),
                cmocka_unit_test(refuses_what_cannot_be_forked),
                cmocka_unit_test(names_the_call_that_breaks_the_sandbox),
                cmocka_unit_test(dies_of_a_crash_in_preload),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
