/* Owns processes of the tests and, for a template, the word that its system calls wait for: each waits with a deadline,
 * and whatever is left dies with the test (PDEATHSIG). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "host-fixture.h"
#include "ipc/memory/event.h"
#include "ipc/memory/notified.h"
#include "ipc/memory/packet.h"

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

/* ---- in the spawner's place ---- */

static struct {
        int listener, quit[2];
        pthread_t thread;
        sem_t want, came; /* a worker; `pid` and `fd` are its */
        pid_t pid;
        int fd;
        uint64_t fork_id;
        bool is_forking;
} warden = {.listener = -1};

static void let_fork(void) {
        if (warden.is_forking && sem_trywait(&warden.want) == 0) {
                warden.is_forking = false;
                notified_allow(warden.listener, warden.fork_id);
        }
}

static void answer(const struct notified_call *c) {
        int fds[2];
        if (c->number == SYS_clone) {
                warden.is_forking = true;
                warden.fork_id = c->id;
        } else if (c->number == SYS_prctl && setpgid(c->pid, c->pid) == 0 && packet_pair(fds) == 0 &&
                   notified_put(warden.listener, c->id, fds[1], WIRE_CONTROL_FD) == 0) {
                close(fds[1]);
                warden.pid = c->pid;
                warden.fd = fds[0];
                notified_allow(warden.listener, c->id);
                sem_post(&warden.came);
        } else if (c->number == SYS_tgkill && syscall(SYS_tgkill, c->args[0], c->pid, 0) == 0) {
                notified_allow(warden.listener, c->id);
        } else {
                notified_refuse(warden.listener, c->id, EPERM);
        }
}

static void *watch(void *user) {
        struct pollfd p[] = {{.fd = warden.listener, .events = POLLIN}, {.fd = warden.quit[0], .events = POLLIN}};
        for (;;) {
                struct notified_call c;
                char wake;
                poll(p, 2, -1);
                if (p[0].revents & POLLIN && notified_receive(warden.listener, &c) == 0)
                        answer(&c);
                else if (p[0].revents & POLLHUP)
                        p[0].fd = -1; /* nobody is left */
                if (p[1].revents && read(warden.quit[0], &wake, 1) != 1)
                        return user;
                let_fork();
        }
}

void host_fixture_leave(void) {
        if (warden.listener < 0)
                return;
        close(warden.quit[1]);
        pthread_join(warden.thread, NULL);
        close(warden.quit[0]);
        close(warden.listener);
        sem_destroy(&warden.want);
        sem_destroy(&warden.came);
        warden.listener = -1;
}

static void begin_to_watch(int listener) {
        host_fixture_leave();
        memset(&warden, 0, sizeof warden);
        warden.listener = listener;
        sem_init(&warden.want, 0, 0);
        sem_init(&warden.came, 0, 0);
        assert_int_equal(pipe2(warden.quit, O_CLOEXEC), 0);
        assert_int_equal(pthread_create(&warden.thread, NULL, watch, &warden), 0);
}

struct template_event host_fixture_event(int template_fd) {
        struct template_event e;
        size_t bytes;
        int listener = -1;
        unsigned n_fds = 1;
        wait_readable(template_fd);
        assert_int_equal(packet_receive(template_fd, &e, sizeof e, &bytes, &listener, &n_fds), 0);
        assert_int_equal(bytes, sizeof e);
        assert_int_equal(n_fds, e.type == TEMPLATE_CLOSED);
        e.text[sizeof e.text - 1] = 0;
        if (n_fds == 1)
                begin_to_watch(listener);
        return e;
}

pid_t host_fixture_fork(int *ret_fd) {
        struct timespec until;
        sem_post(&warden.want);
        assert_int_equal(write(warden.quit[1], "", 1), 1);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += FIXTURE_SECONDS;
        assert_int_equal(sem_timedwait(&warden.came, &until), 0);
        *ret_fd = warden.fd;
        return warden.pid;
}

/* ---- jobs ---- */

void host_fixture_trial(struct trial *t, int control_fd, bool is_of_template) {
        char text[WIRE_TEXT] = "";
        assert_int_equal(trial_init(t), 0);
        assert_int_equal(trial_set_up(t, control_fd, STDERR_FILENO), 0);
        if (is_of_template)
                strcpy(t->sandbox, "its template's");
        int r = trial_await_ready(t, EVENT_FOREVER, text);
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
