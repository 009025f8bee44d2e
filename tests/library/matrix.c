/* matrix COLUMN: each call of libdrover while something is missing. Prints a row for each call: how often it did what
 * it should, and which errors it said instead. A lie, a spin or a wait past its deadline ends the program by name.
 *
 * Columns: `signals` (one every 2 ms), `descriptors` (0 to 40 free), `memory` (each allocation of the call fails once,
 * but for those that libsystemd's own code makes), `fork` (every call in a child). Pools: fds of plugin fds, emits of
 * plugin emits; the last line of the output is how many jobs were accepted. */
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/library/cases.h"

enum { ERRORS = 160 };

static drover_pool *p;
static unsigned n_accepted;

/* ---- what is missing ---- */

#define PUBLIC __attribute__((visibility("default"))) /* for the libraries, too */

static long fail_at, n_allocations; /* 0: none fails */

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

/* Where libsystemd's code is: of a message that finds no memory it may drop the descriptors, then the message, in
 * silence, so that its call ends after 25 s, and it asserts on some allocations. */
static uintptr_t systemd_from, systemd_to;

static int find_systemd(struct dl_phdr_info *info, size_t bytes, void *unused) {
        for (int i = 0; strstr(info->dlpi_name, "libsystemd") && i < info->dlpi_phnum; i++)
                if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
                        systemd_from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
                        systemd_to = systemd_from + info->dlpi_phdr[i].p_memsz;
                }
        return 0;
}

static int alloc_fails(const void *caller) {
        if (fail_at == 0 || ((uintptr_t)caller >= systemd_from && (uintptr_t)caller < systemd_to) ||
            ++n_allocations != fail_at)
                return 0;
        errno = ENOMEM;
        return 1;
}

PUBLIC void *malloc(size_t bytes) { return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes); }
PUBLIC void *calloc(size_t n, size_t bytes) {
        return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, bytes);
}
PUBLIC void *realloc(void *old, size_t bytes) {
        return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, bytes);
}

/* Nothing is missing any more. */
static void calm(void) {
        fail_at = 0;
        leave_all_free();
}

/* ---- the calls ---- */

static int took(int r) {
        n_accepted += r == 0;
        return r;
}

/* Its verdict: with what is missing, or if that is said, without. The job's truth is there in any case. */
static int settle(drover_future *f) {
        int r = drover_future_wait(f, drover_deadline_in(SECOND));
        if (r < 0) {
                calm();
                EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        }
        return r;
}

static int check_raw(drover_future *f, const char *text) {
        const void *data;
        size_t bytes;
        int r = settle(f);
        EXPECT(0, drover_future_result(f, &data, &bytes));
        EXPECT_TRUE(bytes == strlen(text) && memcmp(data, text, bytes) == 0);
        drover_future_unref(f);
        return r;
}

static int run_open(void) {
        drover *other;
        int r = drover_open(NULL, &other);
        if (r == 0)
                drover_close(other);
        return r;
}

static int run_pool_open(void) {
        drover_pool *more;
        int r = drover_pool_open(d, "emits", &more);
        if (r == 0)
                drover_pool_unref(more);
        return r;
}

static int run_arena_open(void) {
        drover_arena *arena;
        int r = drover_arena_open(d, "matrix", 4096, &arena);
        if (r == 0)
                drover_arena_free(arena);
        return r;
}

static int run_args(void) {
        static const char *const texts[] = {"a", "b"};
        static const uint64_t numbers[100];
        drover_args *a;
        int r = drover_args_new(&a);
        if (r < 0)
                return r;
        drover_args_str_array(a, "texts", texts, 2);
        drover_args_u64_array(a, "numbers", numbers, 100);
        r = drover_args_fd(a, "fd", 0); /* the first error stays */
        drover_args_free(a);
        return r;
}

static int run_text(size_t bytes, const struct drover_options *o) {
        static char text[9000];
        drover_future *f;
        memset(text, 'x', bytes);
        text[bytes] = 0;
        int r = took(drover_submit_raw(p, "raw", text, bytes, o, &f));
        return r < 0 ? r : check_raw(f, text);
}

static int run_submit_raw(void) { return run_text(7, NULL); }
static int run_submit_medium(void) { return run_text(1000, NULL); }
static int run_submit_large(void) { return run_text(8999, NULL); } /* more than a slot, and than a future holds */
static int run_submit_bus(void) { return run_text(3, DROVER_OPTIONS(.flags = DROVER_DETACHED)); }

/* With a descriptor there, and two back. */
static int run_submitf_fds(void) {
        drover_future *f;
        char text[8] = "";
        int fd, r = took(drover_submitf(p, &f, "make", "in:fd,text:str", STDIN_FILENO, "made"));
        if (r < 0)
                return r;
        r = settle(f);
        EXPECT(0, drover_future_get_fd(f, "pipe", &fd));
        EXPECT(1, poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10000));
        EXPECT(4, read(fd, text, sizeof text));
        EXPECT_TEXT("made", text);
        drover_future_unref(f);
        return r;
}

static int run_failure(void) {
        drover_future *f;
        int r = took(drover_submitf(p, &f, "sum", "in:fd,from:u64,n:u64", STDIN_FILENO, UINT64_C(0), UINT64_C(100)));
        if (r < 0)
                return r;
        r = settle(f);
        EXPECT(DROVER_FAILED, drover_future_state(f));
        EXPECT_TRUE(drover_future_error(f)->state == DROVER_FAILED && *drover_future_error(f)->message);
        drover_future_unref(f);
        return r;
}

static int run_getters(void) {
        drover_future *f;
        const uint64_t *numbers;
        size_t n;
        int r = took(drover_submitf(p, &f, "count", "n:u64", UINT64_C(50)));
        if (r < 0)
                return r;
        int waited = settle(f);
        r = drover_future_get_u64_array(f, "numbers", &numbers, &n);
        if (r < 0) {
                calm();
                EXPECT(0, drover_future_get_u64_array(f, "numbers", &numbers, &n));
        }
        EXPECT_TRUE(n == 50 && numbers[49] == 0);
        drover_future_unref(f);
        return r < 0 ? r : waited;
}

static int run_wait(void) {
        drover_future *f[3];
        drover_iterator *it;
        unsigned n = 0, n_ended = 0;
        int r = 0;
        while (n < 3 && (r = took(drover_submit_raw(p, "raw", "wait", 4, NULL, &f[n]))) == 0)
                n++;
        if (n > 0 && r == 0)
                r = drover_wait(f, n, DROVER_ALL_COMPLETED, drover_deadline_in(SECOND), NULL);
        int s = n > 0 ? drover_as_completed(f, n, &it) : -ENOMEM;
        if (s == 0) {
                drover_future *ended;
                while ((s = drover_iterator_next(it, &ended, drover_deadline_in(SECOND))) == 1) {
                        drover_future_unref(ended);
                        n_ended++;
                }
                EXPECT_TRUE(s < 0 || n_ended == n);
                drover_iterator_free(it);
        }
        for (unsigned i = 0; i < n; i++)
                check_raw(f[i], "wait");
        return r < 0 ? r : s;
}

static int input(void *user, uint64_t i, drover_args *a) {
        int r = i < 10 ? drover_args_raw(a, "input", 5) : 0;
        return i == 10 ? 0 : r < 0 ? r : 1;
}

static int map(enum drover_order order) {
        drover_iterator *it;
        drover_future *f;
        unsigned n = 0;
        int first = 0, r = drover_map(p, "raw", input, NULL, DROVER_MAP_OPTIONS(.order = order), &it);
        if (r < 0)
                return r;
        while (n < 10 && (r = drover_iterator_next(it, &f, drover_deadline_in(10 * SECOND))) != 0) {
                if (r < 0 && first < 0) /* the input function's own */
                        break;
                first = r < 0 ? r : first;
                if (r < 0) {
                        calm();
                        continue;
                }
                if (drover_future_state(f) == DROVER_DONE) {
                        n_accepted++;
                        check_raw(f, "input");
                } else
                        EXPECT(-ENOMEM, drover_future_result(f, NULL, NULL)), drover_future_unref(f);
                n++;
        }
        drover_iterator_free(it);
        return first;
}

static int run_map(void) { return map(DROVER_ORDERED); }
static int run_map_unordered(void) { return map(DROVER_UNORDERED); }

static void count_call(drover_future *f, void *user) { ++*(unsigned *)user; }

static int run_callbacks(void) {
        drover_future *f;
        unsigned n = 0;
        uint64_t end_ns = now_ns() + 30 * SECOND;
        int first = 0, r = took(drover_submit_raw(p, "raw", "call", 4, NULL, &f));
        if (r < 0)
                return r;
        int asked = drover_future_on_done(f, count_call, &n);
        while (asked == 0 && n == 0 && now_ns() < end_ns) {
                while ((r = drover_process(d)) > 0)
                        ;
                if (r < 0)
                        first = r, calm();
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 20);
        }
        EXPECT_TRUE(asked < 0 || n == 1);
        r = check_raw(f, "call");
        return asked < 0 ? asked : first < 0 ? first : r;
}

static int run_items(void) {
        drover_future *f;
        struct drover_item item;
        drover_pool *emits;
        drover_args *a;
        unsigned n = 0;
        int first = 0, r = drover_pool_open(d, "emits", &emits);
        if (r < 0)
                return r;
        r = drover_args_new(&a);
        if (r == 0) {
                drover_args_u64(a, "n", 5);
                drover_args_u64(a, "bytes", 0);
                drover_args_u64(a, "pause_ms", 0);
                r = drover_submit(emits, "count", a, DROVER_OPTIONS(.flags = DROVER_STREAMED), &f);
                drover_args_free(a);
        }
        if (r == 0) {
                while ((r = drover_future_next_item(f, &item, sizeof item, drover_deadline_in(10 * SECOND))) != 0) {
                        EXPECT_TRUE(r == 1 || first == 0);
                        n += r == 1;
                        if (r < 0)
                                first = r, calm();
                }
                EXPECT(5, n);
                int s = settle(f);
                first = first < 0 ? first : s;
                EXPECT(DROVER_DONE, drover_future_state(f));
                drover_future_unref(f);
        } else
                first = r;
        drover_pool_unref(emits);
        return first;
}

static int run_cancel(void) {
        drover_future *f;
        int r = took(
                drover_submit(p, "raw", NULL, DROVER_OPTIONS(.not_before_ns = drover_deadline_in(60 * SECOND)), &f));
        if (r < 0)
                return r;
        r = drover_future_cancel(f, DROVER_CANCEL_QUEUED);
        if (r < 0) {
                calm();
                EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        }
        int s = settle(f);
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        drover_future_unref(f);
        return r < 0 ? r : s;
}

static int run_progress(void) {
        drover_future *f;
        struct drover_progress progress;
        int r = took(
                drover_submit(p, "raw", NULL, DROVER_OPTIONS(.not_before_ns = drover_deadline_in(60 * SECOND)), &f));
        if (r < 0)
                return r;
        r = drover_future_get_progress(f, &progress, sizeof progress);
        calm();
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        settle(f);
        drover_future_unref(f);
        return r;
}

static const struct {
        const char *name;
        int (*run)(void);
} rows[] = {
        {"drover_open, _close", run_open},
        {"drover_pool_open, _unref", run_pool_open},
        {"drover_arena_open", run_arena_open},
        {"drover_args_*", run_args},
        {"drover_submit_raw", run_submit_raw},
        {"drover_submit_raw (1 KB)", run_submit_medium},
        {"drover_submit_raw (9 KB)", run_submit_large},
        {"drover_submit_raw (bus)", run_submit_bus},
        {"drover_submitf (fds)", run_submitf_fds},
        {"drover_future_error", run_failure},
        {"drover_future_get_*_array", run_getters},
        {"drover_wait, _as_completed", run_wait},
        {"drover_map", run_map},
        {"drover_map (unordered)", run_map_unordered},
        {"drover_process, _on_done", run_callbacks},
        {"drover_future_next_item", run_items},
        {"drover_future_cancel", run_cancel},
        {"drover_future_get_progress", run_progress},
};

/* ---- the table ---- */

struct cell {
        unsigned n, n_right;
        char errors[ERRORS];
};

static void note(struct cell *c, int r) {
        const char *name = r < 0 ? strerrorname_np(-r) : "";
        calm();
        c->n++;
        c->n_right += r >= 0;
        if (r < 0 && r != -ENOMEM && r != -EMFILE && r != -ETIMEDOUT && r != -ECHILD)
                EXPECT(0, r);
        if (r < 0 && !strstr(c->errors, name))
                snprintf(c->errors + strlen(c->errors), sizeof c->errors - strlen(c->errors), " %s", name);
}

/* One run: what it returned; it took no longer than its deadlines allow, and slept. */
static int run(size_t row) {
        uint64_t since_ns = now_ns();
        double cpu = cpu_seconds();
        int r = rows[row].run();
        fail_at = 0;
        if (now_ns() - since_ns > 60 * SECOND || cpu_seconds() - cpu > 2) {
                fprintf(stderr, "%s: %.1f s, %.1f s of the processor\n", rows[row].name,
                        (double)(now_ns() - since_ns) / SECOND, cpu_seconds() - cpu);
                exit(1);
        }
        return r;
}

static void fill_memory(struct cell *c, size_t row) {
        for (long i = 1;; i++) {
                n_allocations = 0;
                fail_at = i;
                int r = run(row);
                note(c, r);
                if (n_allocations < i) /* there are no more */
                        return;
        }
}

static void fill_descriptors(struct cell *c, size_t row) {
        for (unsigned n = 0; n <= 40; n++) {
                leave_free(n);
                note(c, run(row));
        }
}

static void on_signal(int signal) {}

static void fill_signals(struct cell *c, size_t row) {
        struct itimerval every = {.it_interval.tv_usec = 2000, .it_value.tv_usec = 2000};
        EXPECT(0, sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL));
        EXPECT(0, setitimer(ITIMER_REAL, &every, NULL));
        for (int i = 0; i < 10; i++)
                note(c, run(row));
        EXPECT(0, setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL));
}

/* In a child what needs the daemon says -ECHILD; the parent is as before. */
static void fill_fork(struct cell *c, size_t row) {
        int status;
        pid_t child = fork();
        if (child == 0)
                _exit(rows[row].run == run_open || rows[row].run == run_args ? 0 : rows[row].run() == -ECHILD ? 1 : 2);
        EXPECT(child, waitpid(child, &status, 0));
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        note(c, WEXITSTATUS(status) == 1 ? -ECHILD : 0);
        note(c, run(row));
}

int main(int argc, char *argv[]) {
        static const struct {
                const char *name;
                void (*fill)(struct cell *c, size_t row);
        } columns[] = {{"signals", fill_signals},
                       {"descriptors", fill_descriptors},
                       {"memory", fill_memory},
                       {"fork", fill_fork}};
        for (size_t i = 0; i < sizeof columns / sizeof *columns && argc == 2; i++) {
                if (strcmp(argv[1], columns[i].name) != 0)
                        continue;
                dl_iterate_phdr(find_systemd, NULL);
                EXPECT(0, drover_open(NULL, &d));
                p = pool("fds");
                for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
                        struct cell c = {0};
                        fprintf(stderr, "%s, %s\n", columns[i].name, rows[row].name);
                        columns[i].fill(&c, row);
                        printf("%-28s %-12s %4u of %4u right%s%s\n", rows[row].name, columns[i].name, c.n_right, c.n,
                               *c.errors ? ", else" : "", c.errors);
                }
                drover_pool_unref(p);
                d = drover_close(d);
                printf("%u\n", n_accepted);
                return 0;
        }
        fputs("matrix COLUMN\n", stderr);
        return 2;
}
