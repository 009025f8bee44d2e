#include "tests/unit/spawn-fixture.h"

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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/memory/packet.h"

enum { PATIENCE_MS = 10000, END_MS = 1000 };

static int64_t now_ms(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void nap(void) { poll(NULL, 0, 2); }

pid_t fixture_exec(char **argv, int fd3, bool is_listener) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid > 0)
                return pid;
        if (fd3 == 3)
                fcntl(3, F_SETFD, 0);
        else
                dup2(fd3, 3);
        if (is_listener) {
                char own[32];
                snprintf(own, sizeof own, "%d", getpid());
                setenv("LISTEN_PID", own, 1);
                setenv("LISTEN_FDS", "1", 1);
        }
        setenv("TZ", "Europe/Berlin", 1);
        setenv("SECRET", "of the broker", 1);
        execv(argv[0], argv);
        _exit(126);
}

void fixture_write_plugin(struct spawn_fixture *f, const char *name, const char *content) {
        char path[160];
        snprintf(path, sizeof path, "%s/%s", f->dir, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        close(fd);
}

int fixture_setup(void **state) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        struct spawn_fixture *f = calloc(1, sizeof *f);
        snprintf(f->dir, sizeof f->dir, "/tmp/drover-test-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        fixture_write_plugin(f, "plug.so", "one");
        int fds[2];
        assert_int_equal(packet_pair(fds), 0);
        char dir[96];
        snprintf(dir, sizeof dir, "--plugin-dir=%s", f->dir);
        f->pid = fixture_exec((char *[]){TEST_SPAWNER, "--fd=3", dir, "--worker=" TEST_WORKER, NULL}, fds[1], false);
        close(fds[1]);
        f->fd = fds[0];
        f->next_worker = 1;
        *state = f;
        struct spawn_event hello = expect(f, SPAWN_HELLO);
        assert_int_equal(hello.pid, f->pid);
        return 0;
}

int fixture_wait(struct spawn_fixture *f) {
        int status;
        pid_t pid;
        int64_t deadline = now_ms() + END_MS;
        while ((pid = waitpid(f->pid, &status, WNOHANG)) == 0 && now_ms() < deadline)
                nap();
        assert_int_equal(pid, f->pid);
        f->pid = 0;
        return status;
}

int fixture_teardown(void **state) {
        struct spawn_fixture *f = *state;
        if (f->fd >= 0)
                close(f->fd);
        if (f->pid) {
                int status = fixture_wait(f);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 0);
        }
        /* All that was below it would be our child by now. */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        char command_line[96];
        snprintf(command_line, sizeof command_line, "rm -r %s", f->dir);
        assert_int_equal(system(command_line), 0);
        free(f);
        return 0;
}

void send_request(struct spawn_fixture *f, struct spawn_request *q) {
        q->version = WIRE_VERSION;
        int64_t deadline = now_ms() + PATIENCE_MS;
        int r;
        while ((r = packet_send(f->fd, q, sizeof *q, NULL, 0)) == -EAGAIN && now_ms() < deadline)
                nap();
        assert_int_equal(r, 0);
}

void load(struct spawn_fixture *f, uint32_t generation, const char *behaviour) {
        struct spawn_request q = {.type = SPAWN_LOAD, .generation = generation, .pool = "pool", .plugin = "plug"};
        if (*behaviour)
                snprintf(q.environment, sizeof q.environment - 1, "FAKE_TEMPLATE=%s", behaviour);
        send_request(f, &q);
        struct spawn_event e = expect(f, SPAWN_LOADED);
        assert_int_equal(e.generation, generation);
        assert_string_equal(e.text, "");
        assert_int_equal(e.error, 0);
}

uint32_t start(struct spawn_fixture *f, uint32_t generation, enum start_method method) {
        struct spawn_request q = {
                .type = SPAWN_START, .generation = generation, .worker = f->next_worker++, .method = method};
        send_request(f, &q);
        return q.worker;
}

void send_kill(struct spawn_fixture *f, uint32_t worker, int signal) {
        send_request(f, &(struct spawn_request){.type = SPAWN_KILL, .worker = worker, .signal = (uint32_t)signal});
}

static struct spawn_event receive(struct spawn_fixture *f, int fds[2]) {
        struct spawn_event e;
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        size_t bytes;
        unsigned n = 2;
        assert_int_equal(packet_receive(f->fd, &e, sizeof e, &bytes, fds, &n), 0);
        assert_int_equal(bytes, sizeof e);
        assert_int_equal(e.version, WIRE_VERSION);
        assert_int_equal(n, e.type == SPAWN_STARTED ? 2 : 0);
        return e;
}

struct spawn_event expect(struct spawn_fixture *f, enum spawn_event_type type) {
        int fds[2];
        struct spawn_event e = receive(f, fds);
        if (e.type != type)
                print_message("event %u, worker %u, error %d: %s\n", e.type, e.worker, e.error, e.text);
        assert_int_equal(e.type, type);
        return e;
}

struct started expect_started(struct spawn_fixture *f, uint32_t worker) {
        int fds[2];
        struct spawn_event e = receive(f, fds);
        if (e.type != SPAWN_STARTED)
                print_message("event %u, worker %u, error %d: %s\n", e.type, e.worker, e.error, e.text);
        assert_int_equal(e.type, SPAWN_STARTED);
        assert_int_equal(e.worker, worker);
        assert_true(e.pid > 1);
        return (struct started){.worker = worker, .pid = e.pid, .pidfd = fds[0], .fd = fds[1]};
}

struct spawn_event expect_exited(struct spawn_fixture *f, struct started *s) {
        struct spawn_event e = expect(f, SPAWN_EXITED);
        assert_int_equal(e.worker, s->worker);
        assert_int_equal(e.pid, s->pid);
        struct pollfd p = {.fd = s->pidfd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 1); /* the pidfd was that process's */
        close(s->pidfd);
        close(s->fd);
        return e;
}

void command(const struct started *s, const char *text) {
        assert_int_equal(packet_send(s->fd, text, strlen(text), NULL, 0), 0);
}

void answer(const struct started *s, char *text, size_t room) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        size_t bytes;
        assert_int_equal(packet_receive(s->fd, text, room, &bytes, NULL, NULL), 0);
        assert_true(bytes > 0);
}

pid_t answer_pid(const struct started *s) {
        char text[32];
        answer(s, text, sizeof text);
        return atoi(text);
}

bool is_alive(pid_t pid) { return kill(pid, 0) == 0; }

void expect_gone(pid_t pid) {
        int64_t deadline = now_ms() + END_MS;
        while (is_alive(pid) && now_ms() < deadline)
                nap();
        assert_false(is_alive(pid));
}
