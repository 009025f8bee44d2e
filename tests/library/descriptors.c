/* Descriptors with jobs and results, and what does not fit into a slot. Pool fds: one worker, Slots=16, SlotSize=4K. */
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/library/cases.h"

static int memory(const void *data, size_t bytes, bool is_sealed) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        EXPECT_TRUE(fd >= 0);
        EXPECT((long long)bytes, write(fd, data, bytes));
        if (is_sealed)
                EXPECT(0, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW));
        return fd;
}

static drover_future *done(drover_future *f) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        const drover_error *e = drover_future_error(f);
        if (e)
                fprintf(stderr, "%s: %s\n", e->where, e->message);
        EXPECT(DROVER_DONE, drover_future_state(f));
        return f;
}

static void check_text(drover_future *f, const char *text) {
        const char *found;
        EXPECT(0, drover_future_get_str(done(f), "text", &found, NULL));
        EXPECT_TEXT(text, found);
        drover_future_unref(f);
}

/* Readable, and at its end behind the text. */
static void check_pipe(int fd, const char *text) {
        char buffer[64] = "";
        size_t bytes = 0;
        ssize_t n;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        do {
                EXPECT(1, poll(&p, 1, 10000));
                n = read(fd, buffer + bytes, sizeof buffer - 1 - bytes);
                bytes += n > 0 ? (size_t)n : 0;
        } while (n > 0);
        EXPECT(0, n);
        EXPECT_TRUE(strcmp(buffer, text) == 0);
}

void case_fds(void) {
        drover_pool *p = pool("fds");
        drover_future *f;
        uint64_t array[1000], total;
        int pair[2], fd, back;
        for (size_t i = 0; i < 1000; i++)
                array[i] = i;
        fd = memory(array, sizeof array, false);
        EXPECT(0, drover_submitf(p, &f, "sum", "from:u64,in:fd,n:u64", UINT64_C(10), fd, UINT64_C(900)));
        EXPECT(0, drover_future_get_u64(done(f), "sum", &total));
        EXPECT(10 * 900 + 899 * 900 / 2, total);
        drover_future_unref(f);
        /* The job's own view of it. */
        EXPECT(0, drover_submitf(p, &f, "sum", "from:u64,in:fd,n:u64", UINT64_C(10), fd, UINT64_C(991)));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(DROVER_FAILED, drover_future_state(f));
        EXPECT_TEXT("shorter", drover_future_error(f)->message);
        drover_future_unref(f);

        /* A pipe's write end: nobody has it any more once the job is done. */
        EXPECT(0, pipe2(pair, O_CLOEXEC));
        EXPECT(0, drover_submitf(p, &f, "print", "text:str,out:fd,waits:bool", "hello", pair[1], false));
        close(pair[1]);
        check_pipe(pair[0], "hello");
        close(pair[0]);
        drover_future_unref(done(f));

        EXPECT(0, drover_submitf(p, &f, "make", "in:fd,text:str", fd, "from the worker"));
        EXPECT(0, drover_future_get_fd(done(f), "pipe", pair));
        EXPECT(0, drover_future_get_fd(f, "back", &back));
        EXPECT_TRUE(back != fd && fcntl(back, F_GETFD) == FD_CLOEXEC);
        EXPECT((long long)sizeof array, lseek(back, 0, SEEK_END));
        EXPECT(-ENOENT, drover_future_get_fd(f, "nope", &back));
        check_pipe(pair[0], "from the worker");
        drover_future_unref(f);
        EXPECT(-1, fcntl(pair[0], F_GETFD));

        EXPECT(0, drover_submitf(p, &f, "bad", NULL));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT_TEXT("as it should", drover_future_error(f)->message);
        drover_future_unref(f);
        EXPECT(-EBADF, drover_submitf(p, &f, "cat", "in:fd,attempt:u64", 9999, UINT64_C(1)));
        EXPECT(-EINVAL, drover_submitf(p, &f, "cat", "in:u64,attempt:u64", UINT64_C(9), UINT64_C(1)));
        close(fd);
        drover_pool_unref(p);
}

/* The next attempt gets the same; so does the one after. */
void case_fds_retry(void) {
        drover_pool *p = pool("fds");
        drover_future *f;
        struct drover_run run;
        int fd = memory("the same", 8, false);
        EXPECT(0, drover_submitf(p, &f, "cat", "in:fd,attempt:u64", fd, UINT64_C(3)));
        close(fd);
        drover_future_ref(f);
        check_text(f, "the same");
        EXPECT(0, drover_future_get_run(f, &run, sizeof run));
        EXPECT(3, run.attempt);
        drover_future_unref(f);
        drover_pool_unref(p);
}

static void check_pattern(const uint8_t *data, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (data[i] != (uint8_t)(i * 7))
                        EXPECT((uint8_t)(i * 7), data[i]);
}

static void check_large(drover_pool *p, uint64_t n) {
        drover_future *f;
        const void *data;
        const char *end;
        size_t bytes;
        uint64_t said;
        EXPECT(0, drover_submitf(p, &f, "large", "n:u64", n));
        EXPECT(0, drover_future_get_bytes(done(f), "data", &data, &bytes));
        EXPECT((long long)n, (long long)bytes);
        check_pattern(data, bytes);
        EXPECT(0, drover_future_get_str(f, "end", &end, NULL));
        EXPECT_TEXT("end", end);
        EXPECT(0, drover_future_get_u64(f, "n", &said));
        EXPECT((long long)n, (long long)said);
        drover_future_unref(f);
}

static void check_echo(drover_pool *p, const uint8_t *data, size_t n) {
        drover_future *f;
        const void *back;
        const uint64_t *numbers;
        size_t bytes, n_numbers;
        EXPECT(0, drover_submitf(p, &f, "echo", "data:bytes,numbers:u64[]", data, n,
                                 (const uint64_t *)(const void *)data, n / 8));
        EXPECT(0, drover_future_get_bytes(done(f), "data", &back, &bytes));
        EXPECT_TRUE(bytes == n && memcmp(back, data, n) == 0);
        EXPECT(0, drover_future_get_u64_array(f, "numbers", &numbers, &n_numbers));
        EXPECT_TRUE(n_numbers == n / 8 && memcmp(numbers, data, n_numbers * 8) == 0);
        drover_future_unref(f);
}

static void check_raw(drover_pool *p, const uint8_t *data, size_t n) {
        drover_future *f;
        const uint8_t *back;
        size_t bytes;
        EXPECT(0, drover_submit_raw(p, "raw", data, n, NULL, &f));
        EXPECT(0, drover_future_result(done(f), (const void **)&back, &bytes));
        EXPECT_TRUE(bytes == n && memcmp(back, data, n) == 0);
        drover_future_unref(f);
        EXPECT(0, drover_submit_raw(p, "reserve", data, n, NULL, &f));
        EXPECT(0, drover_future_result(done(f), (const void **)&back, &bytes));
        EXPECT((long long)n - 1, (long long)bytes);
        for (size_t i = 0; i < bytes; i++)
                if (back[i] != data[n - 2 - i])
                        EXPECT(data[n - 2 - i], back[i]);
        drover_future_unref(f);
}

/* As large as a slot, a byte more, and much more: both ways. */
void case_large(void) {
        enum { MOST = 5000000 };
        drover_pool *p = pool("fds");
        static uint8_t data[MOST] __attribute__((aligned(8)));
        const size_t sizes[] = {64, 2000, 4000, 4096, 4097, 8200, 100000, MOST};
        for (size_t i = 0; i < MOST; i++)
                data[i] = (uint8_t)(i * 7);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                check_large(p, sizes[i]);
                check_echo(p, data, sizes[i] / 16 * 8);
                check_raw(p, data, sizes[i]);
        }
        drover_pool_unref(p);
}

/* Memory files that are handed through, not copied. */
void case_memory_files(void) {
        enum { BYTES = 100000 };
        drover_pool *p = pool("fds");
        static uint8_t data[BYTES];
        drover_args *a;
        drover_future *f[2];
        const void *back;
        size_t bytes;
        for (size_t i = 0; i < BYTES; i++)
                data[i] = (uint8_t)(i * 7);
        int sealed = memory(data, BYTES, true), open_one = memory(data, BYTES, false);
        EXPECT(0, drover_args_new(&a));
        EXPECT(-EINVAL, drover_args_raw_fd(a, open_one));
        drover_args_reset(a);
        EXPECT(-EINVAL, drover_args_raw_fd(a, STDERR_FILENO));
        drover_args_reset(a);
        EXPECT(0, drover_args_raw_fd(a, sealed));
        for (int i = 0; i < 2; i++) /* the same one twice */
                EXPECT(0, drover_submit(p, "raw", a, NULL, &f[i]));
        drover_args_free(a);
        for (int i = 0; i < 2; i++) {
                EXPECT(0, drover_future_result(done(f[i]), &back, &bytes));
                EXPECT_TRUE(bytes == BYTES && memcmp(back, data, BYTES) == 0);
                drover_future_unref(f[i]);
        }
        EXPECT(0, drover_submitf(p, f, "pass", "in:fd", sealed));
        close(sealed);
        EXPECT(0, drover_future_result(done(f[0]), &back, &bytes));
        EXPECT_TRUE(bytes == BYTES && memcmp(back, data, BYTES) == 0);
        drover_future_unref(f[0]);
        EXPECT(0, drover_submitf(p, f, "pass", "in:fd", open_one));
        EXPECT(0, drover_future_wait(f[0], DROVER_FOREVER));
        EXPECT(-EINVAL, drover_future_error(f[0])->code);
        drover_future_unref(f[0]);
        close(open_one);
        drover_pool_unref(p);
}

/* A number is no descriptor, and a descriptor no number: told before anything runs, over the bus, too. */
void case_fds_and_numbers(void) {
        static const uint32_t flags[] = {0, DROVER_DETACHED};
        drover_pool *p = pool("fds");
        drover_future *f;
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        for (int i = 0; i < 2; i++) {
                const struct drover_options *o = DROVER_OPTIONS(.flags = flags[i]);
                drover_args_u64(a, "in", 0);
                drover_args_u64(a, "from", 0);
                drover_args_u64(a, "n", 100);
                EXPECT(-EINVAL, drover_submit(p, "sum", a, o, &f));
                EXPECT_TEXT("argument \"in\": expected a descriptor", drover_error_text(d));
                drover_args_reset(a);
                drover_args_fd(a, "in", 0);
                drover_args_fd(a, "from", 0);
                drover_args_u64(a, "n", 100);
                EXPECT(-EINVAL, drover_submit(p, "sum", a, o, &f));
                EXPECT_TEXT("2 descriptors were given, and 1 of", drover_error_text(d));
                drover_args_reset(a);
                EXPECT(-EBADF, drover_args_fd(a, "in", -1));
                EXPECT(-EBADF, drover_submit(p, "sum", a, o, &f));
                EXPECT_TEXT("argument \"in\": descriptor -1: Bad file", drover_error_text(d));
                drover_args_reset(a);
        }
        drover_args_free(a);
        drover_pool_unref(p);
}

/* More than a channel may have on their way: told, and waited for. All of them at once, results unread. */
void case_many_fds(void) {
        enum { N = 14 };
        drover_pool *p = pool("fds");
        drover_future *f[N];
        drover_args *a;
        int fd = memory("x", 1, false);
        EXPECT(0, drover_args_new(&a));
        for (int i = 0; i < 8; i++)
                EXPECT(i < 7 ? 0 : -EINVAL, drover_args_fd(a, "in", fd));
        drover_args_free(a);
        for (int i = 0; i < N; i++) {
                char text[16];
                snprintf(text, sizeof text, "%d", i);
                EXPECT(0, drover_submitf(p, &f[i], "make", "in:fd,text:str", fd, text));
        }
        for (int i = N; i-- > 0;) {
                char text[16];
                int out;
                snprintf(text, sizeof text, "%d", i);
                EXPECT(0, drover_future_get_fd(done(f[i]), "pipe", &out));
                check_pipe(out, text);
                drover_future_unref(f[i]);
        }
        close(fd);
        drover_pool_unref(p);
}

static void allow_fds(rlim_t n) {
        struct rlimit limit;
        EXPECT(0, getrlimit(RLIMIT_NOFILE, &limit));
        if (limit.rlim_cur < n)
                limit.rlim_cur = n;
        EXPECT(0, setrlimit(RLIMIT_NOFILE, &limit));
}

/* Until all jobs so far have run, with their results unread. */
static void let_all_run(drover_pool *p) {
        int pair[2];
        EXPECT(0, pipe2(pair, O_CLOEXEC));
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_str(a, "text", "x"));
        EXPECT(0, drover_args_fd(a, "out", pair[1]));
        EXPECT(0, drover_args_bool(a, "waits", false));
        EXPECT(0, drover_submit(p, "print", a, DROVER_OPTIONS(.submit_deadline_ns = drover_deadline_in(20 * SECOND)),
                                NULL));
        drover_args_free(a);
        EXPECT(1, poll(&(struct pollfd){.fd = pair[0], .events = POLLIN}, 1, 20000));
        close(pair[0]);
        close(pair[1]);
}

/* Results with more descriptors than the daemon keeps for one channel: a job waits for room before it runs. */
void case_many_fd_results(void) {
        enum { N = 1000 };
        static drover_future *f[N];
        drover_pool *p = pool("fds");
        drover_args *a;
        int fd = memory("x", 1, false), out;
        allow_fds(3 * N);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_fd(a, "in", fd));
        EXPECT(0, drover_args_str(a, "text", "x"));
        for (int i = 0; i < N; i++)
                EXPECT(0, drover_submit(p, "make", a,
                                        DROVER_OPTIONS(.submit_deadline_ns = drover_deadline_in(60 * SECOND)), &f[i]));
        let_all_run(p);
        for (int i = 0; i < N; i++) {
                EXPECT(0, drover_future_get_fd(done(f[i]), "pipe", &out));
                check_pipe(out, "x");
                drover_future_unref(f[i]);
        }
        drover_args_free(a);
        close(fd);
        drover_pool_unref(p);
}

static int input_fd(void *user, uint64_t i, drover_args *a) {
        if (i == 1000)
                return 0;
        drover_args_fd(a, "in", *(int *)user);
        drover_args_str(a, "text", "x");
        return 1;
}

void case_map_of_fd_results(void) {
        drover_pool *p = pool("fds");
        drover_iterator *it;
        drover_future *f;
        int fd = memory("x", 1, false), n = 0;
        allow_fds(3000);
        EXPECT(0, drover_map(p, "make", input_fd, &fd, DROVER_MAP_OPTIONS(.window = drover_pool_slots(p)), &it));
        let_all_run(p);
        while (drover_iterator_next(it, &f, drover_deadline_in(60 * SECOND)) == 1) {
                int out;
                EXPECT(0, drover_future_get_fd(done(f), "pipe", &out));
                drover_future_unref(f);
                n++;
        }
        EXPECT(1000, n);
        drover_iterator_free(it);
        close(fd);
        drover_pool_unref(p);
}

/* The descriptors of a result that nobody wants to know of are closed, whichever way the job went. */
void case_fds_for_nobody(void) {
        drover_pool *p = pool("fds");
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_fd(a, "in", STDIN_FILENO));
        EXPECT(0, drover_args_str(a, "text", "x"));
        const unsigned n_open = open_fds();
        const uint64_t end_ns = now_ns() + 20 * SECOND;
        for (int i = 0; i < 4; i++) {
                EXPECT(0, drover_submit(p, "make", a, DROVER_OPTIONS(.flags = i % 2 ? DROVER_DETACHED : 0), NULL));
                while (drover_pool_in_flight(p) > 0) {
                        EXPECT_TRUE(now_ns() < end_ns);
                        if (drover_process(d) == 0)
                                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 20);
                }
        }
        EXPECT(n_open, open_fds());
        drover_args_free(a);
        drover_pool_unref(p);
}

/* Whatever becomes of a job, its descriptors go: queued and cancelled, expired, running and asked to end. */
void case_fds_let_go(void) {
        drover_pool *p = pool("fds");
        drover_future *running, *queued, *late;
        drover_args *a;
        int pair[3][2];
        for (int i = 0; i < 3; i++)
                EXPECT(0, pipe2(pair[i], O_CLOEXEC));
        EXPECT(0, drover_submitf(p, &running, "print", "text:str,out:fd,waits:bool", "r", pair[0][1], true));
        wait_running(running);
        EXPECT(0, drover_submitf(p, &queued, "print", "text:str,out:fd,waits:bool", "q", pair[1][1], false));
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_str(a, "text", "l"));
        EXPECT(0, drover_args_fd(a, "out", pair[2][1]));
        EXPECT(0, drover_args_bool(a, "waits", false));
        EXPECT(0,
               drover_submit(p, "print", a, DROVER_OPTIONS(.queue_deadline_ns = drover_deadline_in(50 * MS)), &late));
        drover_args_free(a);
        for (int i = 0; i < 3; i++)
                close(pair[i][1]);
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(queued, DROVER_CANCEL_QUEUED));
        EXPECT(0, drover_future_wait(queued, drover_deadline_in(10 * SECOND)));
        check_pipe(pair[1][0], "");
        EXPECT(0, drover_future_wait(late, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_EXPIRED, drover_future_state(late));
        check_pipe(pair[2][0], "");
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(running, DROVER_CANCEL_ASK));
        check_pipe(pair[0][0], "r");
        EXPECT(0, drover_future_wait(running, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(running));
        for (int i = 0; i < 3; i++)
                close(pair[i][0]);
        drover_future_unref(running);
        drover_future_unref(queued);
        drover_future_unref(late);
        drover_pool_unref(p);
}

/* 256 MiB that four workers and this program have mapped at once; whoever reads "ready" may weigh them, until a line
 * comes. */
void case_shared_array(void) {
        enum { WORKERS = 4, BYTES = 256 << 20 };
        const uint64_t n = BYTES / sizeof n;
        drover_pool *p = pool("four");
        drover_future *f[WORKERS];
        int fd = memfd_create("test", MFD_CLOEXEC), ready[2], go[2];
        char line[16];
        uint64_t sum;
        EXPECT_TRUE(fd >= 0 && pipe2(ready, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
        EXPECT(0, ftruncate(fd, BYTES));
        uint64_t *array = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        EXPECT_TRUE(array != MAP_FAILED);
        for (uint64_t i = 0; i < n; i++)
                array[i] = i;
        for (int i = 0; i < WORKERS; i++)
                EXPECT(0, drover_submitf(p, &f[i], "share", "in:fd,ready:fd,go:fd", fd, ready[1], go[0]));
        for (int i = 0; i < WORKERS; i++)
                EXPECT(1, read(ready[0], line, 1));
        puts("ready");
        fflush(stdout);
        EXPECT_TRUE(fgets(line, sizeof line, stdin) != NULL);
        close(go[1]);
        for (int i = 0; i < WORKERS; i++) {
                EXPECT(0, drover_future_get_u64(done(f[i]), "sum", &sum));
                EXPECT_TRUE(sum == n * (n - 1) / 2);
                drover_future_unref(f[i]);
        }
        drover_pool_unref(p);
}

/* The same over the bus. */
void case_fds_bus(void) {
        enum { BYTES = 100000 };
        static uint8_t data[BYTES];
        drover_pool *p = pool("fds");
        drover_future *f;
        drover_args *a;
        const void *back;
        size_t bytes;
        int pair[2], out, fd = memory("abc", 3, false), sealed = memory(data, BYTES, true);
        const struct drover_options *bus = DROVER_OPTIONS(.flags = DROVER_DETACHED);
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, pipe2(pair, O_CLOEXEC));
        EXPECT(0, drover_args_bool(a, "waits", false));
        EXPECT(0, drover_args_fd(a, "out", pair[1]));
        EXPECT(0, drover_args_str(a, "text", "hello"));
        EXPECT(0, drover_submit(p, "print", a, bus, &f));
        drover_args_reset(a);
        close(pair[1]);
        drover_future_unref(done(f));
        check_pipe(pair[0], "hello");
        close(pair[0]);

        EXPECT(0, drover_args_fd(a, "in", fd));
        EXPECT(0, drover_args_str(a, "text", "from the worker"));
        EXPECT(0, drover_submit(p, "make", a, bus, &f));
        EXPECT(0, drover_future_get_fd(done(f), "pipe", pair));
        EXPECT(0, drover_future_get_fd(f, "back", &out));
        EXPECT(3, lseek(out, 0, SEEK_END));
        drover_future_unref(f);

        drover_args_reset(a);
        EXPECT(0, drover_args_raw_fd(a, sealed));
        EXPECT(0, drover_submit(p, "raw", a, bus, &f));
        EXPECT(0, drover_future_result(done(f), &back, &bytes));
        EXPECT_TRUE(bytes == BYTES && memcmp(back, data, BYTES) == 0);
        drover_future_unref(f);

        drover_args_reset(a);
        EXPECT(0, drover_args_u64(a, "n", BYTES));
        EXPECT(0, drover_submit(p, "large", a, bus, &f));
        EXPECT(0, drover_future_get_bytes(done(f), "data", &back, &bytes));
        EXPECT(BYTES, (long long)bytes);
        check_pattern(back, bytes);
        drover_future_unref(f);

        memset(data, 'b', BYTES);
        EXPECT(0, drover_submit_raw(p, "raw", data, BYTES, bus, &f));
        EXPECT(0, drover_future_result(done(f), &back, &bytes));
        EXPECT_TRUE(bytes == BYTES && memcmp(back, data, BYTES) == 0);
        drover_future_unref(f);

        drover_args_reset(a);
        EXPECT(0, drover_args_bytes(a, "data", data, BYTES));
        EXPECT(0, drover_args_u64_array(a, "numbers", NULL, 0));
        EXPECT_TRUE(drover_submit(p, "echo", a, bus, &f) < 0);
        EXPECT_TEXT("SlotSize=4096", drover_error_text(d));

        drover_args_reset(a); /* more than the bus carries, then more than is kept */
        EXPECT(0, drover_args_u64(a, "n", 17 << 20));
        EXPECT(0, drover_submit(p, "large", a, bus, &f));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        EXPECT(-EDQUOT, drover_future_result(f, &back, &bytes));
        EXPECT_TEXT("16777216 bytes", drover_future_error(f)->message);
        drover_future_unref(f);
        drover_args_reset(a);
        EXPECT(0, drover_args_u64(a, "n", 33 << 20));
        EXPECT(0, drover_submit(p, "large", a, bus, &f));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(-ESTALE, drover_future_result(f, &back, &bytes));
        EXPECT_TEXT("33554432 bytes", drover_future_error(f)->message);
        drover_future_unref(f);
        drover_args_free(a);
        close(fd);
        close(sealed);
        drover_pool_unref(p);
}

/* A worker hands the client's own unsealed file over as a result: that costs the worker, and the file is as it was. */
void case_foreign_fd(void) {
        drover_pool *p = pool("fds-hostile");
        drover_future *f;
        int fd = memory("mine", 4, false);
        EXPECT(0, ftruncate(fd, 4096));
        EXPECT(0, drover_submitf(p, &f, "foreign", "in:fd", fd));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        EXPECT(DROVER_POISONED, drover_future_state(f));
        EXPECT(0, fcntl(fd, F_GET_SEALS));
        drover_future_unref(f);
        close(fd);
        drover_pool_unref(p);
}
