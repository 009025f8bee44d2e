/* What the cases share: how they say what is wrong, and a connection. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/library/cases.h"

enum { TABLE = 128 };

drover *d;

static int filler[TABLE];
static unsigned n_filler;

void expect(const char *file, int line, const char *what, long long expected, long long is) {
        if (expected == is)
                return;
        fprintf(stderr, "%s:%d: %s is %lld, not %lld (%s)\n", file, line, what, is, expected,
                d ? drover_error_text(d) : "");
        exit(1);
}

void expect_text(const char *file, int line, const char *word, const char *text) {
        if (strstr(text, word))
                return;
        fprintf(stderr, "%s:%d: \"%s\" does not hold \"%s\"\n", file, line, text, word);
        exit(1);
}

drover_pool *pool(const char *name) {
        drover_pool *p;
        EXPECT(0, drover_pool_open(d, name, &p));
        return p;
}

uint64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

double cpu_seconds(void) {
        struct timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

unsigned open_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        EXPECT_TRUE(dir != NULL);
        unsigned n = 0;
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

void leave_free(unsigned n) {
        int fd;
        struct rlimit limit;
        EXPECT(0, getrlimit(RLIMIT_NOFILE, &limit));
        limit.rlim_cur = TABLE;
        EXPECT(0, setrlimit(RLIMIT_NOFILE, &limit));
        while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
                filler[n_filler++] = fd;
        EXPECT(EMFILE, errno);
        while (n-- > 0)
                close(filler[--n_filler]);
}

void leave_all_free(void) {
        while (n_filler > 0)
                close(filler[--n_filler]);
}

drover_future *submit_sleep(drover_pool *p, double seconds, const struct drover_options *o) {
        drover_future *f;
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", seconds));
        EXPECT(0, drover_submit(p, "sleep", a, o, &f));
        drover_args_free(a);
        return f;
}

drover_future *sleeper(const char *name, double seconds) {
        drover_pool *p = pool(name);
        drover_future *f;
        EXPECT(0, drover_submitf(p, &f, "sleep", "seconds:f64", seconds));
        drover_pool_unref(p);
        return f;
}

void wait_running(drover_future *f) {
        for (uint64_t end_ns = now_ns() + 10 * SECOND; drover_future_state(f) == DROVER_QUEUED;) {
                EXPECT_TRUE(now_ns() < end_ns);
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        EXPECT(DROVER_RUNNING, drover_future_state(f));
}
