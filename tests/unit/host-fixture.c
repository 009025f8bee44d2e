/* Owns processes of the tests: each waits with a deadline, and whatever is left dies with the test (PDEATHSIG). */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host-fixture.h"
#include "ipc/event.h"
#include "ipc/packet.h"

enum { FIXTURE_SECONDS = 30 };

const char *host_fixture_plugin(const char *name) {
        static char path[512];
        snprintf(path, sizeof path, TEST_PLUGINS "/%s.so", name);
        return path;
}

pid_t host_fixture_start(const char *role, const char *plugin, int *ret_fd) {
        int pair[2], plugin_fd;
        char role_word[32], parent_word[32];
        assert_int_equal(packet_pair(pair), 0);
        assert_int_equal(trial_open_plugin(host_fixture_plugin(plugin), &plugin_fd), 0);
        snprintf(role_word, sizeof role_word, "--role=%s", role);
        snprintf(parent_word, sizeof parent_word, "--parent=%d", getpid());
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                int control = fcntl(pair[1], F_DUPFD, 10), file = fcntl(plugin_fd, F_DUPFD, 10);
                if (dup2(control, WIRE_CONTROL_FD) < 0 || dup2(file, WIRE_PLUGIN_FD) < 0)
                        _exit(127);
                execl(TEST_WORKER, TEST_WORKER, role_word, parent_word, "--name=test", NULL);
                _exit(127);
        }
        close(pair[1]);
        close(plugin_fd);
        *ret_fd = pair[0];
        return pid;
}

static void wait_readable(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, FIXTURE_SECONDS * 1000), 1);
}

struct template_event host_fixture_event(int template_fd) {
        struct template_event e;
        size_t bytes;
        wait_readable(template_fd);
        assert_int_equal(packet_receive(template_fd, &e, sizeof e, &bytes, NULL, NULL), 0);
        assert_int_equal(bytes, sizeof e);
        e.text[sizeof e.text - 1] = 0;
        return e;
}

pid_t host_fixture_fork(int template_fd, int *ret_fd) {
        int pair[2];
        assert_int_equal(packet_pair(pair), 0);
        const struct template_request q = {.version = WIRE_VERSION, .worker = 7};
        assert_int_equal(packet_send(template_fd, &q, sizeof q, &pair[1], 1), 0);
        close(pair[1]);
        struct template_event e = host_fixture_event(template_fd);
        assert_int_equal(e.type, TEMPLATE_FORKED);
        assert_int_equal(e.worker, 7);
        assert_int_equal(e.error, 0);
        *ret_fd = pair[0];
        return e.pid;
}

void host_fixture_trial(struct trial *t, int control_fd, bool is_of_template) {
        char text[WIRE_TEXT] = "";
        assert_int_equal(trial_init(t), 0);
        assert_int_equal(trial_set_up(t, control_fd, STDERR_FILENO), 0);
        if (is_of_template)
                strcpy(t->sandbox, "its template's");
        int r = trial_await_ready(t, text);
        if (r < 0)
                fail_msg("the worker was not ready: %d %s", r, text);
        assert_int_equal(trial_open(t), 0);
}

unsigned host_fixture_run(struct trial *t, uint32_t slot, const char *job, const void *payload, size_t bytes) {
        uint32_t type;
        uint64_t word;
        assert_non_null(schema_find(t->schema, job, &type));
        assert_int_equal(trial_begin(t, slot), 0);
        if (bytes > 0)
                memcpy(channel_payload(&t->channel, slot), payload, bytes);
        assert_int_equal(trial_commit(t, slot, type, bytes, LAYOUT_PRIORITY_DEFAULT), 0);
        int r = trial_wait(t, slot, event_now_ns() + FIXTURE_SECONDS * UINT64_C(1000000000), &word);
        if (r < 0) { /* the worker died; a test that did not expect it wants to know more */
                print_message("job %s: %s, system call %d, signal %u\n", job, strerrorname_np(-r),
                              (int)atomic_load(&t->line->fault_syscall) - 1, atomic_load(&t->line->fault_signal));
                return 0;
        }
        return slot_state(word);
}

int host_fixture_reap(pid_t pid) {
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}
