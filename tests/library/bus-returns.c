/* The bus goes, and comes back under its address. Each case says "ready" on stdout when something is due beside it, and
 * goes on after a line. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/library/cases.h"

#define PROMISED_NS (8 * SECOND)

static void let_it_happen(void) {
        puts("ready");
        fflush(stdout);
        EXPECT('\n', getchar());
}

static drover_future *detached(drover_pool *p, double seconds) {
        return submit_sleep(p, seconds, DROVER_OPTIONS(.flags = DROVER_DETACHED));
}

static int try_detached(drover_pool *p) {
        drover_future *f;
        return drover_submit(p, "getpid", NULL, DROVER_OPTIONS(.flags = DROVER_DETACHED), &f);
}

static int try_arena(void) {
        drover_arena *arena;
        int r = drover_arena_open(d, "bus-returns", 4096, &arena);
        if (r == 0)
                drover_arena_free(arena);
        return r;
}

static void expect_done(drover_future *f) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
}

static void expect_lost(drover_future *f) {
        EXPECT(DROVER_LOST, drover_future_state(f));
        EXPECT(-EPIPE, drover_future_error(f)->code);
        drover_future_unref(f);
}

static void set(drover_future *f, void *user) { *(bool *)user = true; }

/* In a loop of the program's own, which has the descriptor in an epoll of its own. */
static void expect_done_by_loop(int loop, drover_future *f) {
        bool is_done = false;
        uint64_t end_ns = now_ns() + 30 * SECOND, deadline_ns;
        EXPECT(0, drover_future_on_done(f, set, &is_done));
        while (!is_done && now_ns() < end_ns) {
                if (drover_process(d) > 0)
                        continue;
                EXPECT(0, drover_get_timeout(d, &deadline_ns));
                uint64_t until_ns = deadline_ns < end_ns ? deadline_ns : end_ns, now = now_ns();
                poll(&(struct pollfd){.fd = loop, .events = POLLIN}, 1,
                     until_ns > now ? (int)((until_ns - now) / MS) + 1 : 0);
        }
        EXPECT_TRUE(is_done);
        expect_done(f);
}

/* Droverd ends with its bus, and the next one takes the channel over, with its jobs. Those over the bus are lost, which
 * is told in time. */
void case_bus_returns(void) {
        drover_pool *p = pool("single"), *other;
        drover_future *running = submit_sleep(p, 1, NULL), *queued = submit_sleep(p, 0, NULL), *lost[2];
        int fd = drover_get_fd(d), loop = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event e = {.events = EPOLLIN};
        EXPECT(0, epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e));
        wait_running(running);
        for (int i = 0; i < 2; i++)
                lost[i] = detached(p, 30);
        let_it_happen(); /* it goes */
        uint64_t start_ns = now_ns();
        EXPECT(0, drover_wait(lost, 2, DROVER_ALL_COMPLETED, drover_deadline_in(30 * SECOND), NULL));
        EXPECT_TRUE(now_ns() - start_ns < PROMISED_NS);
        for (int i = 0; i < 2; i++)
                expect_lost(lost[i]);
        EXPECT(-ECONNREFUSED, try_detached(p));
        EXPECT_TEXT("the connection to the bus broke", drover_error_text(d));
        EXPECT(-ECONNREFUSED, drover_pool_open(d, "other", &other));
        EXPECT(-ECONNREFUSED, try_arena());
        EXPECT(DROVER_QUEUED, drover_future_state(queued));
        let_it_happen(); /* it is back */
        expect_done_by_loop(loop, running);
        expect_done(queued);
        expect_done(submit_sleep(p, 0, NULL));
        expect_done_by_loop(loop, detached(p, 0.1));
        EXPECT(0, try_arena());
        EXPECT(0, drover_pool_open(d, "other", &other));
        expect_done(detached(other, 0));
        EXPECT(fd, drover_get_fd(d));
        let_it_happen(); /* it went once more, and is back already */
        drover_future *f = detached(p, 0.1);
        expect_done(f);
        expect_done_by_loop(loop, submit_sleep(other, 0, NULL));
        drover_pool_unref(other);
        drover_pool_unref(p);
        close(loop);
}

/* The same, in the middle of a wait. */
void case_bus_returns_in_a_wait(void) {
        drover_pool *p = pool("single");
        drover_future *f = submit_sleep(p, 2, NULL);
        struct drover_run run;
        wait_running(f);
        let_it_happen();
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT(2, run.attempt);
        expect_done(f);
        drover_pool_unref(p);
}

static void ask_in_callback(drover_future *f, void *user) {
        EXPECT(-ENOTCONN, try_arena());
        EXPECT_TEXT("in a callback", drover_error_text(d));
        *(bool *)user = true;
}

/* Of a bus that is gone drover_process makes no work, also if a child has its socket as well; nor is the connection
 * opened again in a callback, or in that child. */
void case_bus_gone(void) {
        drover_pool *p = pool("single");
        drover_future *f = detached(p, 30);
        uint64_t deadline_ns;
        bool is_called = false;
        int to_child[2], status;
        EXPECT(0, drover_future_on_done(f, ask_in_callback, &is_called));
        drover_pool_unref(p);
        EXPECT(0, pipe(to_child));
        pid_t child = fork();
        if (child == 0) {
                char byte;
                close(to_child[1]);
                EXPECT(0, read(to_child[0], &byte, 1));
                EXPECT(-ECHILD, try_arena());
                _exit(0);
        }
        close(to_child[0]);
        let_it_happen();
        while (drover_process(d) > 0)
                ;
        EXPECT_TRUE(is_called);
        expect_lost(f);
        while (drover_process(d) > 0)
                ;
        EXPECT(0, drover_get_timeout(d, &deadline_ns));
        EXPECT_TRUE(deadline_ns == DROVER_FOREVER);
        EXPECT(0, poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 0));
        close(to_child[1]);
        EXPECT(child, waitpid(child, &status, 0));
        EXPECT(0, status);
        let_it_happen();
        EXPECT(0, try_arena());
}

/* Somebody listens at the address and accepts nobody. Says how often it was called, which is counted there, in a second
 * of asking in a loop. */
void case_bus_hangs(void) {
        EXPECT(0, try_arena());
        let_it_happen();
        uint64_t start_ns = now_ns();
        EXPECT(-ENOTCONN, try_arena());
        EXPECT_TRUE(now_ns() - start_ns < PROMISED_NS);
        let_it_happen(); /* it closes at once */
        for (uint64_t end_ns = now_ns() + SECOND; now_ns() < end_ns;)
                EXPECT_TRUE(try_arena() < 0);
        let_it_happen();
        EXPECT(0, try_arena());
}

/* Calls that wait for droverd, which is stopped, when the bus goes. */
void case_bus_goes_in_a_call(void) {
        drover_pool *p = pool("single"), *other;
        expect_done(detached(p, 0));
        const struct {
                const char *name;
                int is;
        } calls[] = {{"submit", 0}, {"arena", 1}, {"pool", 2}, {"drain", 3}};
        drover_future *f = NULL;
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
                if (calls[i].is == 3)
                        f = detached(p, 30);
                let_it_happen(); /* droverd is stopped */
                uint64_t start_ns = now_ns();
                if (calls[i].is == 0)
                        EXPECT(-ETIMEDOUT, try_detached(p));
                else if (calls[i].is == 1)
                        EXPECT(-ETIMEDOUT, try_arena());
                else if (calls[i].is == 2)
                        EXPECT(-ETIMEDOUT, drover_pool_open(d, "other", &other));
                else
                        EXPECT(0, drover_drain(d, drover_deadline_in(30 * SECOND)));
                EXPECT_TRUE(now_ns() - start_ns < PROMISED_NS);
                if (f)
                        expect_lost(f);
                let_it_happen(); /* all is back */
                if (calls[i].is == 3) {
                        drover_pool_unref(p);
                        p = pool("single"); /* it takes nothing more */
                }
                expect_done(submit_sleep(p, 0, NULL));
        }
        drover_pool_unref(p);
}

/* libsystemd's descriptor of the bus. */
static int bus_socket(void) {
        struct sockaddr_un a;
        for (int fd = 3; fd < 64; fd++) {
                socklen_t n = sizeof a;
                memset(&a, 0, sizeof a);
                if (getpeername(fd, (struct sockaddr *)&a, &n) == 0 && a.sun_family == AF_UNIX &&
                    strstr(getenv("DBUS_SESSION_BUS_ADDRESS"), a.sun_path) && a.sun_path[0])
                        return fd;
        }
        EXPECT_TRUE(false);
        return -1;
}

/* What the bus says makes no sense any more. */
static void spoil_bus(void) {
        char nonsense[64];
        int ends[2];
        memset(nonsense, 'x', sizeof nonsense);
        EXPECT(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
        EXPECT(sizeof nonsense, write(ends[0], nonsense, sizeof nonsense));
        EXPECT_TRUE(dup3(ends[1], bus_socket(), O_CLOEXEC) >= 0);
        close(ends[0]);
        close(ends[1]);
}

/* Only this program's connection breaks: droverd ends its channel with it, and the pool is opened again. A job over the
 * bus goes on, and its future is lost. */
void case_thrown_out(void) {
        drover_pool *p = pool("single"), *next;
        drover_future *f = detached(p, 0.5), *g = submit_sleep(p, 0, NULL);
        unsigned n_fds = open_fds();
        EXPECT(0, shutdown(bus_socket(), SHUT_RDWR));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        expect_lost(f);
        EXPECT(0, drover_future_wait(g, drover_deadline_in(30 * SECOND)));
        EXPECT_TRUE(drover_future_state(g) == DROVER_LOST || drover_future_state(g) == DROVER_CANCELLED);
        drover_future_unref(g);
        for (uint64_t end_ns = now_ns() + 10 * SECOND;; drover_pool_unref(next)) {
                EXPECT(0, drover_pool_open(d, "single", &next));
                if (next != p)
                        break;
                EXPECT_TRUE(now_ns() < end_ns);
        }
        EXPECT(-EPIPE, drover_submitf(p, &f, "getpid", NULL));
        drover_pool_unref(p);
        expect_done(submit_sleep(next, 0, NULL));
        expect_done(detached(next, 0));
        EXPECT(n_fds, open_fds());
        f = detached(next, 0.5);
        spoil_bus();
        EXPECT(0, drover_future_wait(f, drover_deadline_in(PROMISED_NS)));
        expect_lost(f);
        EXPECT(0, try_arena());
        drover_pool_unref(next);
        let_it_happen(); /* three jobs went over the bus, none twice */
}
