/* matrix COLUMN: each call of libdrover (matrix-rows.c) while something is missing or happens. Prints a row for each
 * call: how often it did what it should, and which errors it said instead. A lie, a spin or a wait past its deadline
 * ends the program by name.
 *
 * Columns: `signals` (one every 2 ms), `descriptors` (0 to 40 free), `memory` (each allocation of the call fails once,
 * but for those that libsystemd's own code makes), `fork` (every call in a child; then another thread forks at each
 * system call of the call, and the child gives everything back), `killed` (droverd is killed and started again at a
 * system call of the call: whoever started this program reads `kill`, does it and sends a line). Pools: fds of plugin
 * fds, emits of plugin emits; what was told of each job stands on stdout as well, and on the last line how many of pool
 * fds were accepted. */
#undef _FORTIFY_SOURCE /* which has some of these functions in its headers */
#include <dlfcn.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/library/matrix.h"

enum { ERRORS = 160, LAST_FREE = 40, N_SIGNALS = 10 };

/* Of a run: no call takes longer than 30 s, and none works for more than a moment. */
enum { RUN_SECONDS = 60, RUN_CPU_SECONDS = 2 };

#define PUBLIC __attribute__((visibility("default"))) /* for the libraries, too */

/* ---- memory ---- */

static long fail_at, n_allocations; /* 0: none fails */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t bytes);
void *REAL(calloc)(size_t n, size_t bytes);
void *REAL(realloc)(void *old, size_t bytes);

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

PUBLIC void *malloc(size_t bytes) { return alloc_fails(__builtin_return_address(0)) ? NULL : REAL(malloc)(bytes); }
PUBLIC void *calloc(size_t n, size_t bytes) {
        return alloc_fails(__builtin_return_address(0)) ? NULL : REAL(calloc)(n, bytes);
}
PUBLIC void *realloc(void *old, size_t bytes) {
        return alloc_fails(__builtin_return_address(0)) ? NULL : REAL(realloc)(old, bytes);
}

/* ---- the middle of a call: each system call by which libdrover or libsystemd talks or sleeps ---- */

static long stop_at, n_stops; /* 0: nowhere */
static void (*on_stop)(void);

static void stop(void) {
        if (stop_at == 0 || ++n_stops != stop_at)
                return;
        int error = errno;
        stop_at = 0;
        on_stop();
        errno = error;
}

static long (*real_syscall)(long number, ...);

/* libdrover's futex calls go through it. */
PUBLIC long syscall(long number, ...) {
        long a[6];
        va_list ap;
        va_start(ap, number);
        for (int i = 0; i < 6; i++)
                a[i] = va_arg(ap, long);
        va_end(ap);
        stop();
        if (!real_syscall)
                *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
        return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
PUBLIC int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *signals) {
        struct timespec left = timeout ? *timeout : (struct timespec){0}; /* the kernel writes there */
        return (int)syscall(SYS_ppoll, fds, n, timeout ? &left : NULL, signals, _NSIG / 8);
}
PUBLIC int poll(struct pollfd *fds, nfds_t n, int timeout_ms) {
        struct timespec t = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L};
        return ppoll(fds, n, timeout_ms < 0 ? NULL : &t, NULL);
}
PUBLIC ssize_t sendmsg(int fd, const struct msghdr *m, int flags) { return syscall(SYS_sendmsg, fd, m, flags); }
PUBLIC ssize_t recvmsg(int fd, struct msghdr *m, int flags) { return syscall(SYS_recvmsg, fd, m, flags); }
PUBLIC ssize_t recv(int fd, void *data, size_t bytes, int flags) {
        return syscall(SYS_recvfrom, fd, data, bytes, flags, NULL, NULL);
}
PUBLIC ssize_t write(int fd, const void *data, size_t bytes) { return syscall(SYS_write, fd, data, bytes); }

void calm(void) {
        fail_at = 0;
        leave_all_free();
}

/* ---- the table ---- */

struct cell {
        unsigned n, n_right;
        double longest; /* run, in seconds */
        char errors[ERRORS];
};

static bool is_allowed(int r) {
        switch (r) {
        case -ENOMEM:
        case -EMFILE:
        case -ETIMEDOUT:
        case -ECHILD:
                return true;
        case -EAGAIN:       /* only a next droverd can take the job's descriptors */
        case -EHOSTUNREACH: /* none is on the bus */
        case -EPIPE:        /* the job was lost with it, or what belongs to its result */
        case -ENODATA:
        case -EBADF: /* or to the job */
                return is_killing;
        default:
                return r >= 0;
        }
}

static void note(struct cell *c, int r) {
        const char *name = r < 0 ? strerrorname_np(-r) : "";
        calm();
        c->n++;
        c->n_right += r >= 0;
        if (!is_allowed(r))
                EXPECT(0, r);
        if (r < 0 && !strstr(c->errors, name))
                snprintf(c->errors + strlen(c->errors), sizeof c->errors - strlen(c->errors), " %s", name);
}

/* One run: what it returned; it took no longer than its deadlines allow, and slept. */
static int run(struct cell *c, const struct matrix_row *row) {
        const char *patience = getenv("DROVER_TEST_PATIENCE");
        uint64_t since_ns = now_ns(), times = patience ? strtoull(patience, NULL, 10) : 1;
        double cpu = cpu_seconds();
        int r = row->run();
        fail_at = stop_at = 0;
        double took = (double)(now_ns() - since_ns) / SECOND;
        c->longest = took > c->longest ? took : c->longest;
        if (took > (double)(RUN_SECONDS * times) || cpu_seconds() - cpu > (double)(RUN_CPU_SECONDS * times)) {
                fprintf(stderr, "%s: %.1f s, %.1f s of the processor\n", row->name, took, cpu_seconds() - cpu);
                exit(1);
        }
        return r;
}

static void fill_memory(struct cell *c, const struct matrix_row *row) {
        for (long i = 1;; i++) {
                n_allocations = 0;
                fail_at = i;
                int r = run(c, row);
                note(c, r);
                if (n_allocations < i) /* there are no more */
                        return;
        }
}

static void fill_descriptors(struct cell *c, const struct matrix_row *row) {
        for (unsigned n = 0; n <= LAST_FREE; n++) {
                leave_free(n);
                note(c, run(c, row));
        }
}

static void on_signal(int signal) {}

static void fill_signals(struct cell *c, const struct matrix_row *row) {
        struct itimerval every = {.it_interval.tv_usec = 2000, .it_value.tv_usec = 2000};
        EXPECT(0, sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_RESTART}, NULL));
        EXPECT(0, setitimer(ITIMER_REAL, &every, NULL));
        for (int i = 0; i < N_SIGNALS; i++)
                note(c, run(c, row));
        EXPECT(0, setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL));
}

/* It gives back all that there is, whatever the parent is in the middle of, and no call waits for anything. */
static void end_in_child(void) {
        uint64_t since_ns = now_ns();
        EXPECT(-ECHILD, drover_process(d));
        if (live.future) {
                drover_future_state(live.future);
                drover_future_cancel(live.future, DROVER_CANCEL_ASK);
        }
        drover_iterator_free(live.iterator);
        drover_future_unref(live.future);
        drover_args_free(live.args);
        drover_arena_free(live.arena);
        drover_pool_unref(live.pool);
        drover_pool_unref(p);
        drover_close(live.drover);
        d = drover_close(d);
        EXPECT_TRUE(now_ns() - since_ns < 10 * SECOND);
}

static void *fork_beside(void *unused) {
        int status;
        pid_t child = fork();
        if (child == 0) {
                alarm(20);
                end_in_child();
                _exit(0);
        }
        EXPECT(child, waitpid(child, &status, 0));
        EXPECT(0, status);
        return NULL;
}

static void fork_in_the_middle(void) {
        pthread_t thread;
        EXPECT(0, pthread_create(&thread, NULL, fork_beside, NULL));
        EXPECT(0, pthread_join(thread, NULL));
}

/* In a child what needs the daemon says -ECHILD; the parent is as before. */
static void fill_fork(struct cell *c, const struct matrix_row *row) {
        int status;
        pid_t child = fork();
        if (child == 0)
                _exit(row->run() == (row->is_local ? 0 : -ECHILD) ? 0 : 1);
        EXPECT(child, waitpid(child, &status, 0));
        EXPECT(0, status);
        note(c, row->is_local ? 0 : -ECHILD);
        note(c, run(c, row));
        on_stop = fork_in_the_middle;
        for (long i = 1;; i++) {
                n_stops = 0;
                stop_at = i;
                EXPECT(0, run(c, row));
                if (n_stops < i)
                        return;
                note(c, 0);
        }
}

/* Whoever started us does it, starts the next one, and says so. */
static void kill_droverd(void) {
        puts("kill");
        fflush(stdout);
        EXPECT('\n', getchar());
}

/* With the next one all is well again: it has the channel when it takes a payload that goes through it. */
static void wait_for_droverd(void) {
        static const char large[9000];
        uint64_t end_ns = now_ns() + 30 * SECOND;
        drover_pool *emits;
        drover_future *f;
        int r;
        while ((r = drover_pool_open(d, "emits", &emits)) < 0 && now_ns() < end_ns)
                poll(NULL, 0, 10);
        EXPECT(0, r);
        drover_pool_unref(emits);
        EXPECT(0, drover_submit_raw(p, "raw", large, sizeof large, DROVER_OPTIONS(.submit_deadline_ns = end_ns), &f));
        EXPECT(0, drover_future_wait(f, end_ns));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
}

/* At the first ones, where most calls do what is theirs, and then at fewer and fewer. */
static void fill_killed(struct cell *c, const struct matrix_row *row) {
        on_stop = kill_droverd;
        for (long i = 1; !row->is_local; i *= 2) {
                n_stops = 0;
                stop_at = i;
                int r = run(c, row);
                if (n_stops < i) {
                        EXPECT(0, r);
                        return;
                }
                note(c, r);
                wait_for_droverd();
        }
}

int main(int argc, char *argv[]) {
        static const struct {
                const char *name;
                void (*fill)(struct cell *c, const struct matrix_row *row);
        } columns[] = {{"signals", fill_signals},
                       {"descriptors", fill_descriptors},
                       {"memory", fill_memory},
                       {"fork", fill_fork},
                       {"killed", fill_killed}};
        for (size_t i = 0; i < sizeof columns / sizeof *columns && argc == 2; i++) {
                if (strcmp(argv[1], columns[i].name) != 0)
                        continue;
                dl_iterate_phdr(find_systemd, NULL);
                is_killing = columns[i].fill == fill_killed;
                EXPECT(0, drover_open(NULL, &d));
                p = pool("fds");
                for (const struct matrix_row *row = matrix_rows; row->name; row++) {
                        struct cell c = {0};
                        fprintf(stderr, "%s, %s\n", columns[i].name, row->name);
                        columns[i].fill(&c, row);
                        printf("%-28s %-12s %4u of %4u right, %6.3f s at most%s%s\n", row->name, columns[i].name,
                               c.n_right, c.n, c.longest, *c.errors ? ", else" : "", c.errors);
                }
                drover_pool_unref(p);
                d = drover_close(d);
                printf("%u\n", n_accepted);
                return 0;
        }
        fputs("matrix COLUMN\n", stderr);
        return 2;
}
