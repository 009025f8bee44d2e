/* Benchmark `start`: from the request for a worker to its first job done, for each start method, beside the bare limit.
 *
 * The daemon, the spawner, the sandbox and the channel are the real ones. A pool of the method has one worker, which a
 * long job keeps busy. Then a pair is the limit once (start-limit.c), and ours once: Resize(2) over the bus and a job
 * through the channel, until its result is there. The new worker is retired and gone before the next pair.
 *
 *   droverctl run --plugin=cancellable.so -- start LIMIT-PROGRAM PLUGIN-FILE [--pairs=N] [--table] */
#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "tests/bench/bench.h"

enum { WAIT_MS = 20000, N_METHODS = 3, LONG_MS = 3600 * 1000 };

#define PLUGIN "cancellable"
#define JOB "work" /* takes `ms` */

extern char **environ;

struct bench {
        sd_bus *bus;
        const char *limit_program, *limit_plugin;
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

static uint64_t deadline(void) { return event_now_ns() + WAIT_MS * UINT64_C(1000000); }

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
                bench_die(b->limit_program, r);
        posix_spawn_file_actions_destroy(&actions);
        return pid;
}

static void limit_open(struct limit *l, const struct bench *b, const struct method *m) {
        int requests[2], answers[2];

        if (pipe2(requests, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
                bench_die("pipe", errno);
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
        uint64_t start = event_now_ns(), took;
        ssize_t n;
        pid_t child = 0;

        if (!l->pid)
                child = limit_spawn(b, "child", STDIN_FILENO, l->requests);
        else if (write(l->requests, "", 1) != 1)
                bench_die("start-limit", errno);
        n = read(l->answers, &took, sizeof took);
        if (n != sizeof took) /* one byte: measured here; eight: `fork` measured itself */
                took = event_now_ns() - start;
        if (n < 1)
                bench_die("start-limit ended", EPIPE);
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
                bench_die(error.message ? error.message : member, r);
        sd_bus_message_unref(m);
}

static char *pool_path(const char *pool) {
        char *path;

        if (sd_bus_path_encode("/org/drover1/pool", pool, &path) < 0)
                bench_die("pool name", ENOMEM);
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
                bench_die("Resize", r);
        sd_bus_message_unref(m);
}

static uint32_t submit(struct session *s, uint64_t ms) {
        const struct args_value value = {.type = SCHEMA_U64, .u64 = ms};
        uint8_t payload[64];
        struct args_writer w;
        uint32_t type, slot = 0;
        size_t bytes;

        if (!schema_find(session_schema(s), JOB, &type))
                bench_die(JOB, ENOENT);
        args_writer_init(&w, payload, sizeof payload);
        args_put(&w, "ms", &value);
        int r = args_finish(&w, &bytes);
        if (r >= 0) {
                const struct session_job j = {
                        .type = type, .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = bytes};

                r = session_submit(s, &j, &slot);
        }
        if (r < 0)
                bench_die(JOB, r);
        return slot;
}

/* One start; the worker that did it is gone on return. */
static double ours_once(struct bench *b, struct session *s, const char *path, uint32_t *ret_pid) {
        struct session_result result;
        uint64_t start = event_now_ns();

        ask_resize(b, path, 2);
        uint32_t slot = submit(s, 0);
        if (session_wait(s, slot, &result, deadline()) != 1 || result.state != SLOT_DONE)
                bench_die("the job", ETIMEDOUT);
        double took = (double)(event_now_ns() - start) / 1e6;

        struct pollfd gone = {.fd = pidfd_open((pid_t)result.worker_pid, 0), .events = POLLIN};
        ask_resize(b, path, 1);
        if (gone.fd >= 0 && poll(&gone, 1, WAIT_MS) != 1)
                bench_die("the worker does not go", ETIMEDOUT);
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

                if (r < 0 || event_now_ns() > until)
                        bench_die("the sleeping job does not start", r < 0 ? r : ETIMEDOUT);
        }
}

static void report(const struct bench *b, struct bench_pairs *p) {
        if (!b->is_table) {
                bench_report(p);
                return;
        }
        double ours = bench_median(p->ours, p->n), limit = bench_median(p->limit, p->n);

        printf("%-11s %6.2f ms   %-25s %6.2f ms\n", p->name, ours, p->limit_name, limit);
}

static void run_method(struct bench *b, const struct method *m) {
        static struct bench_pairs pairs;
        char error[400], pool[80];
        struct session *s;
        struct limit l;

        pairs = (struct bench_pairs){
                .bench = "start", .name = m->name, .unit = "ms", .limit_name = m->limit_name, .n = b->n_pairs};
        snprintf(pool, sizeof pool, "start-%s", m->name);
        char *path = pool_path(pool);
        call(b, "/org/drover1", "org.drover1.Manager", "CreatePool", "sa{sv}t", pool, 3, "Plugin", "s", PLUGIN,
             "StartMethod", "s", m->name, "Workers", "u", 1u, UINT64_C(0));
        int r = session_open(&s, b->bus, pool, error, sizeof error);
        if (r < 0)
                bench_die(error, r);
        uint32_t busy = submit(s, LONG_MS);
        await_running(b, path);
        limit_open(&l, b, m);
        limit_once(&l, b); /* the first of each pays for cold pages */
        ours_once(b, s, path, &pairs.worker_pid);
        for (unsigned i = 0; i < pairs.n; i++) {
                pairs.limit[i] = limit_once(&l, b);
                pairs.ours[i] = ours_once(b, s, path, &pairs.worker_pid);
        }
        limit_close(&l);
        report(b, &pairs);
        session_cancel(s, busy);
        session_free(s);
        call(b, "/org/drover1", "org.drover1.Manager", "RemovePool", "st", pool, UINT64_C(0));
        free(path);
}

int main(int argc, char *argv[]) {
        struct bench b = {.n_pairs = bench_pairs(argc, argv)};

        if (argc < 3) {
                fputs("start LIMIT-PROGRAM PLUGIN-FILE [--pairs=N] [--table]\n", stderr);
                return 2;
        }
        b.limit_program = argv[1];
        b.limit_plugin = argv[2];
        b.is_table = strcmp(argv[argc - 1], "--table") == 0;
        int r = sd_bus_open_user(&b.bus);
        if (r < 0)
                bench_die("the bus", r);
        for (unsigned i = 0; i < N_METHODS; i++)
                run_method(&b, &methods[i]);
        sd_bus_flush_close_unref(b.bus);
        return 0;
}
