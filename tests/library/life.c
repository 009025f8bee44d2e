/* What the library does to the process it is in: forks, descriptors, threads, loops, ends. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/library/cases.h"

/* In the child of a fork every call says so, and giving back is all that can be done; the parent does not notice. */
void case_fork(void) {
        drover_pool *p = pool("squares");
        drover_future *f = sleeper("squares", 0.3), *late;
        drover_future *ended = sleeper("squares", 0);
        const void *data;
        size_t bytes;
        EXPECT(0, drover_future_wait(ended, DROVER_FOREVER));
        drover_iterator *it;
        EXPECT(0, drover_as_completed(&f, 1, &it));
        pid_t pid = fork();
        EXPECT_TRUE(pid >= 0);
        if (pid == 0) {
                drover_pool *q;
                uint64_t deadline_ns;
                EXPECT(-ECHILD, drover_submitf(p, &late, "getpid", NULL));
                EXPECT(-ECHILD, drover_submit_raw(p, "getpid", NULL, 0, NULL, &late));
                EXPECT(-ECHILD, drover_pool_open(d, "squares", &q));
                EXPECT(-ECHILD, drover_future_wait(f, DROVER_FOREVER));
                EXPECT(-ECHILD, drover_future_cancel(f, DROVER_CANCEL_ASK));
                EXPECT(-ECHILD, drover_wait(&f, 1, DROVER_ALL_COMPLETED, 0, NULL));
                EXPECT(-ECHILD, drover_iterator_next(it, &late, 0));
                EXPECT(-ECHILD, drover_process(d));
                EXPECT(-ECHILD, drover_get_fd(d));
                EXPECT(-ECHILD, drover_get_timeout(d, &deadline_ns));
                EXPECT(-ECHILD, drover_pool_drain(p, 0));
                EXPECT(-ECHILD, drover_pool_cancel(p, 0));
                EXPECT(0, drover_future_wait(ended, 0)); /* it is in memory of our own */
                EXPECT(0, drover_wait(&ended, 1, DROVER_ALL_COMPLETED, 0, NULL));
                EXPECT(0, drover_future_result(ended, &data, &bytes));
                drover_iterator_free(it);
                drover_pool_unref(p);
                drover_close(d);
                drover_future_unref(f);
                drover_future_unref(ended);
                EXPECT(0, drover_open(NULL, &d)); /* its own */
                drover_future *own = sleeper("squares", 0);
                EXPECT(0, drover_future_wait(own, DROVER_FOREVER));
                EXPECT(DROVER_DONE, drover_future_state(own));
                drover_future_unref(own);
                drover_close(d);
                exit(0);
        }
        int status;
        EXPECT(pid, waitpid(pid, &status, 0));
        EXPECT(0, status);
        EXPECT(1, drover_iterator_next(it, &late, DROVER_FOREVER));
        EXPECT(DROVER_DONE, drover_future_state(late));
        drover_future_unref(late);
        drover_iterator_free(it);
        drover_future_unref(f);
        drover_future_unref(ended);
        drover_pool_unref(p);
}

static unsigned count(const char *directory) {
        unsigned n = 0;
        DIR *dir = opendir(directory);
        EXPECT_TRUE(dir != NULL);
        for (struct dirent *e; (e = readdir(dir));)
                n += e->d_name[0] != '.';
        closedir(dir);
        return n;
}

/* CLOEXEC on everything, no thread, no signal handler, and nothing is left of it. */
void case_descriptors(void) {
        drover *other;
        unsigned n_before = count("/proc/self/fd");
        EXPECT(0, drover_open(NULL, &other));
        drover_pool *p;
        drover_future *f;
        EXPECT(0, drover_pool_open(other, "squares", &p));
        EXPECT(0, drover_submitf(p, &f, "getpid", NULL));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(1, count("/proc/self/task"));
        for (int s = 1; s < NSIG; s++) {
                struct sigaction a;
                if (sigaction(s, NULL, &a) == 0 && !getenv("DROVER_TEST_SANITIZED"))
                        EXPECT_TRUE(a.sa_handler == SIG_DFL || a.sa_handler == SIG_IGN);
        }
        EXPECT_TRUE(count("/proc/self/fd") > n_before);
        for (int fd = 3; fd < 100; fd++) {
                int flags = fcntl(fd, F_GETFD);
                EXPECT_TRUE(flags < 0 || flags & FD_CLOEXEC);
        }
        drover_future_unref(f);
        drover_pool_unref(p);
        drover_close(other);
        EXPECT(n_before, count("/proc/self/fd"));
}

/* ---- a loop of the program's own ---- */

struct chain {
        drover_pool *pool;
        unsigned n, n_failed;
};

/* Each end submits the next, twenty times. */
static void next_in_chain(drover_future *f, void *user) {
        struct chain *c = user;
        drover_future *next;
        c->n_failed += f && drover_future_state(f) != DROVER_DONE;
        if (++c->n > 20)
                return;
        EXPECT(0, drover_submitf(c->pool, &next, "sleep", "seconds:f64", c->n % 5 == 0 ? 0.02 : 0.0));
        EXPECT(0, drover_future_on_done(next, next_in_chain, c));
        drover_future_unref(next);
}

static void poll_once(uint64_t end_ns) {
        uint64_t deadline_ns, now = now_ns();
        EXPECT_TRUE(now < end_ns);
        EXPECT(0, drover_get_timeout(d, &deadline_ns));
        uint64_t until_ns = deadline_ns < end_ns ? deadline_ns : end_ns;
        struct pollfd fd = {.fd = drover_get_fd(d), .events = POLLIN};
        poll(&fd, 1, until_ns > now ? (int)((until_ns - now) / MS) + 1 : 0);
}

/* The descriptor and drover_process() are enough; while nothing happens nothing is readable. */
void case_loop(void) {
        struct chain one = {.pool = pool("squares")}, two = {.pool = pool("single")};
        uint64_t end_ns = now_ns() + 20 * SECOND;
        unsigned n_rounds = 0;
        next_in_chain(NULL, &one);
        next_in_chain(NULL, &two);
        while (one.n <= 20 || two.n <= 20) {
                int r;
                while ((r = drover_process(d)) > 0)
                        ;
                EXPECT(0, r);
                if (one.n <= 20 || two.n <= 20)
                        poll_once(end_ns);
                n_rounds++;
        }
        EXPECT(0, one.n_failed + two.n_failed);
        EXPECT_TRUE(n_rounds < 500); /* it sleeps in between */

        /* A queue deadline is kept by the timeout, with nobody to write to the descriptor. */
        drover_future *blocker = sleeper("single", 30), *f;
        drover_args *a;
        wait_running(blocker);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        EXPECT(0, drover_submit(two.pool, "sleep", a, DROVER_OPTIONS(.queue_deadline_ns = drover_deadline_in(100 * MS)),
                                &f));
        two.n = 20;
        EXPECT(0, drover_future_on_done(f, next_in_chain, &two));
        for (n_rounds = 0; two.n == 20; n_rounds++) {
                while (drover_process(d) > 0)
                        ;
                if (two.n == 20)
                        poll_once(end_ns);
        }
        EXPECT(DROVER_EXPIRED, drover_future_state(f));
        EXPECT_TRUE(n_rounds < 20);
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(blocker, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(blocker, DROVER_FOREVER));

        /* A wait in between takes the verdicts of the loop with it, and the loop goes on. */
        one.n = 1;
        next_in_chain(NULL, &one);
        drover_future *other = sleeper("squares", 0.05);
        while (drover_process(d) > 0)
                ;
        EXPECT(0, drover_future_wait(other, DROVER_FOREVER));
        while (one.n <= 20) {
                while (drover_process(d) > 0)
                        ;
                if (one.n <= 20)
                        poll_once(end_ns);
        }
        drover_future_unref(other);
        drover_future_unref(blocker);
        drover_future_unref(f);
        drover_args_free(a);
        drover_pool_unref(one.pool);
        drover_pool_unref(two.pool);
}

/* ---- ends ---- */

static void never(drover_future *f, void *user) { EXPECT_TRUE(!"called after drover_close"); }

/* What is still referenced after drover_close stays valid, and says so. */
void case_close(void) {
        drover *other;
        drover_pool *p;
        drover_future *done, *running, *queued, *late;
        drover_iterator *it;
        const void *data;
        size_t bytes;
        EXPECT(0, drover_open(NULL, &other));
        EXPECT(0, drover_pool_open(other, "single", &p));
        EXPECT(0, drover_submitf(p, &done, "getpid", NULL));
        EXPECT(0, drover_future_wait(done, DROVER_FOREVER));
        EXPECT(0, drover_submitf(p, &running, "sleep", "seconds:f64", 30.0));
        EXPECT(0, drover_submitf(p, &queued, "sleep", "seconds:f64", 30.0));
        EXPECT(0, drover_future_on_done(queued, never, NULL));
        EXPECT(0, drover_as_completed((drover_future *[]){done, running, queued}, 3, &it));
        wait_running(running);
        drover_close(other);
        EXPECT(0, drover_future_result(done, &data, &bytes));
        EXPECT(DROVER_LOST, drover_future_state(running));
        EXPECT(-ECONNABORTED, drover_future_result(queued, &data, &bytes));
        EXPECT_TEXT("drover_close", drover_future_error(queued)->message);
        EXPECT(0, drover_future_wait(running, DROVER_FOREVER));
        EXPECT(-ECONNABORTED, drover_submitf(p, &late, "getpid", NULL));
        EXPECT(-ECONNABORTED, drover_future_on_done(done, never, NULL));
        for (int i = 0; i < 3; i++) {
                EXPECT(1, drover_iterator_next(it, &late, DROVER_FOREVER));
                drover_future_unref(late);
        }
        EXPECT(0, drover_iterator_next(it, &late, DROVER_FOREVER));
        drover_iterator_free(it);
        drover_future_unref(done);
        drover_future_unref(running);
        drover_future_unref(queued);
        drover_pool_unref(p);

        /* The worker was asked to stop: it is free soon, not after 30 s. */
        drover_future *f = sleeper("single", 0);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        drover_future_unref(f);
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_JOBS = 200 };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* A connection of its own. */
static void *alone(void *user) {
        drover *own;
        drover_pool *p;
        EXPECT(0, drover_open(NULL, &own));
        EXPECT(0, drover_pool_open(own, "squares", &p));
        for (int64_t i = 0; i < N_JOBS; i++) {
                drover_future *f;
                int64_t square;
                EXPECT(0, drover_submitf(p, &f, "square", "x:i64", i));
                EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
                EXPECT(0, drover_future_get_i64(f, "square", &square));
                EXPECT(i * i, square);
                drover_future_unref(f);
        }
        drover_pool_unref(p);
        drover_close(own);
        return NULL;
}

/* The same one for all, in turns. */
static void *in_turns(void *user) {
        drover_pool *p = user;
        for (int64_t i = 0; i < N_JOBS; i++) {
                drover_future *f;
                int64_t square;
                pthread_mutex_lock(&turn);
                EXPECT(0, drover_submitf(p, &f, "square", "x:i64", i));
                pthread_mutex_unlock(&turn);
                pthread_mutex_lock(&turn);
                EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
                EXPECT(0, drover_future_get_i64(f, "square", &square));
                EXPECT(i * i, square);
                drover_future_unref(f);
                pthread_mutex_unlock(&turn);
        }
        return NULL;
}

/* Threads as the header allows them; built with -fsanitize=thread this finds what is shared by mistake. */
void case_threads(void) {
        pthread_t threads[2 * N_THREADS];
        drover_pool *p = pool("squares");
        for (int i = 0; i < N_THREADS; i++) {
                EXPECT(0, pthread_create(&threads[2 * i], NULL, alone, NULL));
                EXPECT(0, pthread_create(&threads[2 * i + 1], NULL, in_turns, p));
        }
        for (int i = 0; i < 2 * N_THREADS; i++)
                EXPECT(0, pthread_join(threads[i], NULL));
        drover_pool_unref(p);
}

/* Says "ready", waits for a line, by when the daemon was killed. */
void case_daemon_returns(void) {
        drover_pool *p = pool("single");
        drover_future *f = sleeper("single", 1), *late, *after;
        const uint64_t id = drover_future_id(f);
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.after = &id, .n_after = 1), &after));
        drover_args_free(a);
        wait_running(f);
        puts("ready");
        fflush(stdout);
        EXPECT_TRUE(getchar() == '\n'); /* by now another one runs */
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        EXPECT(0, drover_future_wait(after, drover_deadline_in(30 * SECOND))); /* it waited in the channel meanwhile */
        EXPECT(DROVER_DONE, drover_future_state(after));
        drover_future_unref(after);
        EXPECT(0, drover_submitf(p, &late, "getpid", NULL));
        /* An outer loop is told of its verdict, too. */
        for (uint64_t end_ns = now_ns() + 30 * SECOND; drover_future_state(late) < DROVER_DONE && now_ns() < end_ns;) {
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 1000);
                while (drover_process(d) > 0)
                        ;
        }
        EXPECT(DROVER_DONE, drover_future_state(late));
        drover_future_unref(late);
        drover_future_unref(f);
        drover_pool_unref(p);
}

/* The same, and the next one is stopped: deadlines hold all the same, and nothing that does not wait waits. */
void case_daemon_stopped(void) {
        enum { ROUNDS = 50 };
        drover_pool *p = pool("single");
        drover_future *f = sleeper("single", 1);
        wait_running(f);
        puts("ready");
        fflush(stdout);
        EXPECT_TRUE(getchar() == '\n');
        const uint64_t start_ns = now_ns();
        for (unsigned i = 0; i < ROUNDS; i++) {
                EXPECT_TRUE(drover_process(d) >= 0);
                EXPECT(-EAGAIN, drover_future_wait(f, 0));
        }
        EXPECT(-ETIMEDOUT, drover_future_wait(f, drover_deadline_in(SECOND / 10)));
        EXPECT_TRUE(now_ns() - start_ns < 10 * SECOND); /* it used to wait for an answer, 25 s each time */
        puts("waited");
        fflush(stdout);
        EXPECT_TRUE(getchar() == '\n'); /* by now it goes on */
        EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
        drover_pool_unref(p);
}

static int told(void) {
        fflush(stdout);
        return getchar();
}

/* Of two that run this one kills its job, after another droverd took both channels over, this one's last. */
void case_numbers_stay(void) {
        char name[32];
        struct drover_progress progress;
        EXPECT_TRUE(scanf("%31s", name) == 1 && getchar() == '\n');
        drover_pool *p = pool(name);
        drover_future *f = sleeper(name, 60), *next, *after;
        const uint64_t id = drover_future_id(f);
        drover_args *a;
        wait_running(f);
        printf("%llu\n", (unsigned long long)id);
        EXPECT_TRUE(told() == '\n'); /* by now another one runs */
        for (uint64_t end_ns = now_ns() + 30 * SECOND; drover_future_get_progress(f, &progress, sizeof progress) < 0;) {
                EXPECT_TRUE(now_ns() < end_ns);
                EXPECT(-ETIMEDOUT, drover_future_wait(f, drover_deadline_in(10 * MS)));
        }
        wait_running(f);
        EXPECT_TRUE(drover_future_id(f) == id);
        puts("back");
        const bool kills = told() == 'k';
        if (kills) {
                EXPECT(DROVER_CANCEL_KILLED, drover_future_cancel(f, DROVER_CANCEL_KILL));
                EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
                EXPECT(DROVER_CANCELLED, drover_future_state(f));
                EXPECT(0, drover_submitf(p, &next, "sleep", "seconds:f64", 0.0));
                EXPECT(0, drover_future_wait(next, drover_deadline_in(30 * SECOND)));
                EXPECT_TRUE(drover_future_id(next) == id + 1);
                const uint64_t next_id = drover_future_id(next);
                EXPECT(0, drover_args_new(&a));
                EXPECT(0, drover_args_f64(a, "seconds", 0));
                EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.after = &next_id, .n_after = 1), &after));
                EXPECT(0, drover_future_wait(after, drover_deadline_in(30 * SECOND)));
                EXPECT(DROVER_DONE, drover_future_state(after));
                drover_args_free(a);
                drover_future_unref(next);
                drover_future_unref(after);
        } else {
                EXPECT(DROVER_RUNNING, drover_future_state(f));
                EXPECT(0, drover_future_get_progress(f, &progress, sizeof progress));
        }
        drover_future_unref(f);
        drover_pool_unref(p);
}
