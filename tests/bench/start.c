/* Benchmark `start`: from the request for a worker to its first job done, for each start method, beside the bare limit.
 *
 * Runs inside `droverctl run --plugin=PLUGIN`: the daemon, the spawner, the sandbox and the channel are the real ones.
 * A pool of the method has one worker, which a job keeps busy by sleeping. Then a pair is the limit once
 * (start-limit.c), and ours once: Resize(2) over the bus and a job through the channel, until its result is there. The
 * new worker is retired and gone before the next pair. The ratio is the median of the pairs' ratios.
 *
 *   start POOL SLEEP-JOB JOB LIMIT-PROGRAM LIMIT-PLUGIN [--pairs=N] [--table]
 *
 * SLEEP-JOB sleeps for its argument `ms`, JOB returns at once; both take nothing else. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session.h"

enum { MAX_PAIRS = 1000, WAIT_MS = 20000, N_METHODS = 3 };

extern char **environ;

struct bench {
        sd_bus *bus;
        const char *pool, *sleep_job, *job, *limit_program, *limit_plugin;
        unsigned n_pairs;
        bool is_table;
};

struct limit {
        int requests, answers;
        pid_t pid;
};

static const struct method {
        const char *name, *limit_name;
} methods[N_METHODS] = {
        {"fork", "bare fork, plugin loaded"},
        {"forkserver", "bare zygote fork"},
        {"spawn", "posix_spawn and dlopen"},
};

static void die(const char *what, int error) {
        fprintf(stderr, "start: %s: %s\n", what, strerror(error < 0 ? -error : error));
        exit(1);
}

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t deadline(void) { return now_ns() + WAIT_MS * UINT64_C(1000000); }

/* ---- the limit ---- */

static pid_t limit_spawn(const struct bench *b, const char *role, int in, int out) {
        const char *argv[] = {b->limit_program, role, b->limit_plugin, NULL};
        posix_spawn_file_actions_t actions;
        pid_t pid;

        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
        int r = posix_spawn(&pid, b->limit_program, &actions, NULL, (char *const *)argv, environ);
        if (r)
                die(b->limit_program, r);
        posix_spawn_file_actions_destroy(&actions);
        return pid;
}

static void limit_open(struct limit *l, const struct bench *b, const struct method *m) {
        int requests[2], answers[2];

        if (pipe2(requests, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
                die("pipe", errno);
        *l = (struct limit){.requests = requests[1], .answers = answers[0]};
        if (strcmp(m->name, "spawn") != 0)
                l->pid = limit_spawn(b, strcmp(m->name, "fork") == 0 ? "fork" : "zygote", requests[0], answers[1]);
        else
                l->requests = answers[1]; /* what each child writes to */
        close(requests[0]);
        if (l->pid) {
                close(answers[1]);
        } else {
                close(requests[1]);
        }
}

static void limit_close(struct limit *l) {
        close(l->requests);
        close(l->answers);
        if (l->pid)
                waitpid(l->pid, NULL, 0);
}

static double limit_once(const struct limit *l, const struct bench *b) {
        uint64_t start = now_ns(), took;
        ssize_t n;
        pid_t child = 0;

        if (!l->pid)
                child = limit_spawn(b, "child", STDIN_FILENO, l->requests);
        else if (write(l->requests, "", 1) != 1)
                die("start-limit", errno);
        n = read(l->answers, &took, sizeof took);
        if (n != sizeof took) /* one byte: measured here; eight: `fork` measured itself */
                took = now_ns() - start;
        if (n < 1)
                die("start-limit ended", EPIPE);
        if (child)
                waitpid(child, NULL, 0);
        return (double)took / 1e6;
}

/* ---- ours ---- */

static void call(struct bench *b, const char *path, const char *interface, const char *member, const char *types, ...) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m = NULL;
        va_list ap;

        int r = sd_bus_message_new_method_call(b->bus, &m, "org.drover1", path, interface, member);
        va_start(ap, types);
        if (r >= 0)
                r = sd_bus_message_appendv(m, types, ap);
        va_end(ap);
        if (r >= 0)
                r = sd_bus_call(b->bus, m, 0, &error, NULL);
        if (r < 0)
                die(error.message ? error.message : member, r);
        sd_bus_message_unref(m);
}

static char *pool_path(const char *pool) {
        char *path;

        if (sd_bus_path_encode("/org/drover1/pool", pool, &path) < 0)
                die("pool name", ENOMEM);
        return path;
}

/* Without waiting for the reply: the job is under way meanwhile. */
static void ask_resize(struct bench *b, const char *path, unsigned n) {
        sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(b->bus, &m, "org.drover1", path, "org.drover1.Pool", "Resize");

        if (r >= 0)
                r = sd_bus_message_append(m, "u", n);
        if (r >= 0)
                r = sd_bus_message_set_expect_reply(m, false);
        if (r >= 0)
                r = sd_bus_send(b->bus, m, NULL);
        if (r >= 0)
                r = sd_bus_flush(b->bus);
        if (r < 0)
                die("Resize", r);
        sd_bus_message_unref(m);
}

static uint32_t submit(struct session *s, const char *job, uint64_t sleep_ms) {
        uint8_t payload[64];
        struct args_writer w;
        uint32_t type, slot = 0;
        size_t bytes;

        if (!schema_find(session_schema(s), job, &type))
                die(job, ENOENT);
        args_writer_init(&w, payload, sizeof payload);
        if (sleep_ms)
                args_put(&w, "ms", &(struct args_value){.type = SCHEMA_U64, .u64 = sleep_ms});
        int r = args_finish(&w, &bytes);
        if (r >= 0) {
                const struct session_job j = {
                        .type = type, .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = bytes};

                r = session_submit(s, &j, &slot);
        }
        if (r < 0)
                die(job, r);
        return slot;
}

/* One start; the worker that did it is gone on return. */
static double ours_once(struct bench *b, struct session *s, const char *path, uint32_t *ret_pid) {
        struct session_result result;
        uint64_t start = now_ns();

        ask_resize(b, path, 2);
        uint32_t slot = submit(s, b->job, 0);
        if (session_wait(s, slot, &result, deadline()) != 1 || result.state != SLOT_DONE)
                die("the job", ETIMEDOUT);
        double took = (double)(now_ns() - start) / 1e6;

        struct pollfd gone = {.fd = pidfd_open((pid_t)result.worker_pid, 0), .events = POLLIN};
        ask_resize(b, path, 1);
        if (gone.fd >= 0 && poll(&gone, 1, WAIT_MS) != 1)
                die("the worker does not go", ETIMEDOUT);
        if (gone.fd >= 0)
                close(gone.fd);
        *ret_pid = result.worker_pid;
        return took;
}

/* Is the job taken? Looks, bounded by the deadline. */
static void await_running(struct bench *b, const char *path) {
        uint64_t until = deadline();
        uint32_t n = 0;

        while (n != 1) {
                int r = sd_bus_get_property_trivial(b->bus, "org.drover1", path, "org.drover1.Pool", "Running", NULL,
                                                    'u', &n);

                if (r < 0 || now_ns() > until)
                        die("the sleeping job does not start", r < 0 ? r : ETIMEDOUT);
        }
}

/* ---- figures ---- */

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

/* Sorts. */
static double quantile(double *v, unsigned n, double q) {
        qsort(v, n, sizeof *v, compare);
        return v[(unsigned)(q * (n - 1) + 0.5)];
}

static void report(const struct bench *b, const struct method *m, double *ours, double *limit, double *ratio,
                   uint32_t pid) {
        unsigned n = b->n_pairs;

        if (b->is_table)
                printf("%-12s %8.2f ms   %-26s %8.2f ms   %5.2f x\n", m->name, quantile(ours, n, 0.5), m->limit_name,
                       quantile(limit, n, 0.5), quantile(ratio, n, 0.5));
        else
                printf("{\"bench\":\"start\",\"case\":\"%s\",\"ours\":%.3f,\"unit\":\"ms\",\"limit\":%.3f,\"limit_"
                       "name\":\"%s\","
                       "\"ratio\":%.2f,\"ratio_low\":%.2f,\"ratio_high\":%.2f,\"pairs\":%u,\"worker_pid\":%" PRIu32
                       "}\n",
                       m->name, quantile(ours, n, 0.5), quantile(limit, n, 0.5), m->limit_name, quantile(ratio, n, 0.5),
                       quantile(ratio, n, 0.25), quantile(ratio, n, 0.75), n, pid);
        fflush(stdout);
}

static void run_method(struct bench *b, const struct method *m) {
        double ours[MAX_PAIRS], limit[MAX_PAIRS], ratio[MAX_PAIRS];
        char error[400], pool[80];
        struct session *s;
        struct limit l;
        uint32_t pid = 0;

        snprintf(pool, sizeof pool, "start-%s", m->name);
        char *path = pool_path(pool);
        call(b, "/org/drover1", "org.drover1.Manager", "CreatePool", "sa{sv}t", pool, 3, "Plugin", "s", b->pool,
             "StartMethod", "s", m->name, "Workers", "u", 1u, UINT64_C(0));
        int r = session_open(&s, b->bus, pool, error, sizeof error);
        if (r < 0)
                die(error, r);
        uint32_t sleeping = submit(s, b->sleep_job, 600000);
        await_running(b, path);
        limit_open(&l, b, m);
        limit_once(&l, b); /* the first of each pays for cold pages */
        ours_once(b, s, path, &pid);
        for (unsigned i = 0; i < b->n_pairs; i++) {
                limit[i] = limit_once(&l, b);
                ours[i] = ours_once(b, s, path, &pid);
                ratio[i] = ours[i] / limit[i];
        }
        limit_close(&l);
        report(b, m, ours, limit, ratio, pid);
        session_cancel(s, sleeping);
        session_free(s);
        call(b, "/org/drover1", "org.drover1.Manager", "RemovePool", "st", pool, UINT64_C(0));
        free(path);
}

int main(int argc, char *argv[]) {
        struct bench b = {.n_pairs = 25};

        for (int i = 6; i < argc; i++)
                if (strncmp(argv[i], "--pairs=", 8) == 0)
                        b.n_pairs = (unsigned)atoi(argv[i] + 8);
                else
                        b.is_table = strcmp(argv[i], "--table") == 0;
        if (argc < 6 || b.n_pairs < 1 || b.n_pairs > MAX_PAIRS) {
                fputs("start POOL SLEEP-JOB JOB LIMIT-PROGRAM LIMIT-PLUGIN [--pairs=N] [--table]\n", stderr);
                return 2;
        }
        b.pool = argv[1];
        b.sleep_job = argv[2];
        b.job = argv[3];
        b.limit_program = argv[4];
        b.limit_plugin = argv[5];
        int r = sd_bus_open_user(&b.bus);
        if (r < 0)
                die("the bus", r);
        for (unsigned i = 0; i < N_METHODS; i++)
                run_method(&b, &methods[i]);
        sd_bus_flush_close_unref(b.bus);
        return 0;
}
