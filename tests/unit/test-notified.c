/* System calls that wait for another process: what is allowed happens, what is refused fails, and who is gone is told.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/memory/notified.h"
#include "ipc/memory/packet.h"

enum { CALL = SYS_getpriority, PATIENCE_MS = 20000, NUMBER = 77 };

static int listen_to_calls(void) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static int make_call(void) { return syscall(CALL, 0, 0) < 0 ? errno : 0; }

/* A child under such a filter that runs `fn` and exits with what it returns; the listener. */
static pid_t start(int (*fn)(void), int *ret_listener) {
        int pair[2];
        assert_int_equal(packet_pair(pair), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                int listener = listen_to_calls();
                if (listener < 0 || packet_send(pair[1], "", 1, &listener, 1) < 0)
                        _exit(100);
                close(listener);
                _exit(fn());
        }
        struct pollfd p = {.fd = pair[0], .events = POLLIN};
        char byte;
        size_t bytes;
        unsigned n_fds = 1;
        close(pair[1]);
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_int_equal(packet_receive(pair[0], &byte, 1, &bytes, ret_listener, &n_fds), 0);
        assert_int_equal(n_fds, 1);
        close(pair[0]);
        return pid;
}

static struct notified_call next_call(int listener) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        struct notified_call c;
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_true(p.revents & POLLIN);
        assert_int_equal(notified_receive(listener, &c), 0);
        return c;
}

static int end(pid_t pid) {
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static int calls_twice(void) {
        int first = make_call(), second = syscall(CALL, 0x1122334455667788, 7) < 0 ? errno : 0;
        return first == 0 && second == ENOTUNIQ ? 0 : 1;
}

static void calls_are_told_and_answered(void **state) {
        int listener;
        pid_t pid = start(calls_twice, &listener);
        struct notified_call c = next_call(listener);
        assert_int_equal(c.pid, pid);
        assert_int_equal(c.number, CALL);
        assert_int_equal(notified_allow(listener, c.id), 0);
        uint64_t first = c.id;
        c = next_call(listener);
        assert_int_equal(c.args[0], 0x1122334455667788);
        assert_int_equal(c.args[1], 7);
        assert_int_not_equal(c.id, first);
        assert_int_equal(notified_allow(listener, first), -ENOENT); /* an answer is given once */
        assert_int_equal(notified_refuse(listener, c.id, ENOTUNIQ), 0);
        assert_int_equal(end(pid), 0);
        struct pollfd p = {.fd = listener, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_true(p.revents & POLLHUP);
        close(listener);
}

static int writes_to_what_it_got(void) { return make_call() == 0 && write(NUMBER, "x", 1) == 1 ? 0 : 1; }

static void descriptors_are_put_in_place(void **state) {
        int listener, ends[2];
        char byte;
        assert_int_equal(pipe(ends), 0);
        pid_t pid = start(writes_to_what_it_got, &listener);
        struct notified_call c = next_call(listener);
        assert_int_equal(notified_put(listener, c.id, STDIN_FILENO, NUMBER), 0); /* taken by the next one */
        assert_int_equal(notified_put(listener, c.id, ends[1], NUMBER), 0);
        assert_int_equal(notified_allow(listener, c.id), 0);
        assert_int_equal(end(pid), 0);
        close(ends[1]);
        assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(notified_put(listener, c.id, ends[0], NUMBER), -ENOENT);
        close(ends[0]);
        close(listener);
}

static void who_is_gone_is_told(void **state) {
        int listener;
        pid_t pid = start(make_call, &listener);
        struct notified_call c = next_call(listener);
        kill(pid, SIGKILL);
        assert_true(WIFSIGNALED(end(pid)));
        assert_int_equal(notified_put(listener, c.id, STDIN_FILENO, NUMBER), -ENOENT);
        assert_int_equal(notified_allow(listener, c.id), -ENOENT);
        assert_int_equal(notified_refuse(listener, c.id, EPERM), -ENOENT);
        close(listener);

        /* Nobody listens any more. */
        pid = start(make_call, &listener);
        next_call(listener);
        close(listener);
        int status = end(pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), ENOSYS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(calls_are_told_and_answered),
                cmocka_unit_test(descriptors_are_put_in_place),
                cmocka_unit_test(who_is_gone_is_told),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
