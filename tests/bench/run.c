/* Benchmark `run`: Manager.Run of a trivial job, beside a bare sd-bus echo service on the same bus.
 *
 * Runs inside `droverctl run --plugin=primes.so`: the bus, the daemon, the spawner, the sandbox and a worker are the
 * real ones. The echo service is what anybody writes with sd-bus: one method of the same signature that answers at
 * once, in a process of its own. `trivial` is one call after the other, a pair is the median of 200 calls of each;
 * `window 64` keeps 64 calls under way, a pair is the rate of 4000 calls of each. Nobody is pinned, ours and the limit
 * alike.
 *
 *   run POOL [--pairs=N]       the pool's plugin has the job is_prime with argument n */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "tests/bench/bench.h"

enum { CALLS_ONE_BY_ONE = 200, CALLS_IN_WINDOW = 4000, WINDOW = 64 };

#define ECHO_NAME "org.drover1.BenchEcho"

struct target {
        const char *name, *path, *interface, *pool;
};

/* ---- the limit ---- */

static int on_echo(sd_bus_message *m, void *user, sd_bus_error *e) {
        const char *pool, *job;
        uint64_t n;
        int r;

        r = sd_bus_message_read(m, "ssa{sv}a{sv}", &pool, &job, 1, NULL, "t", &n, 0);
        if (r < 0)
                return r;
        return sd_bus_reply_method_return(m, "a{sv}", 1, "prime", "b", true);
}

static const sd_bus_vtable echo_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Run", "ssa{sv}a{sv}", "a{sv}", on_echo, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

_Noreturn static void echo_serve(int ready) {
        sd_bus *bus;
        int r;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        r = sd_bus_open_user(&bus);
        if (r >= 0)
                r = sd_bus_add_object_vtable(bus, NULL, "/", ECHO_NAME, echo_vtable, NULL);
        if (r >= 0)
                r = sd_bus_request_name(bus, ECHO_NAME, 0);
        if (r >= 0 && write(ready, "", 1) != 1)
                r = -errno;
        while (r >= 0) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
        }
        _exit(1);
}

static pid_t echo_start(void) {
        int fds[2];
        pid_t pid;
        char byte;

        if (pipe(fds) < 0 || (pid = fork()) < 0)
                bench_die("the echo service", errno);
        if (pid == 0)
                echo_serve(fds[1]);
        close(fds[1]);
        if (read(fds[0], &byte, 1) != 1)
                bench_die("the echo service did not start", EPIPE);
        close(fds[0]);
        return pid;
}

/* ---- the calls ---- */

static sd_bus_message *new_call(sd_bus *bus, const struct target *t) {
        sd_bus_message *m;
        int r;

        r = sd_bus_message_new_method_call(bus, &m, t->name, t->path, t->interface, "Run");
        if (r >= 0)
                r = sd_bus_message_append(m, "ssa{sv}a{sv}", t->pool, "is_prime", 1, "n", "t", UINT64_C(97), 0);
        if (r < 0)
                bench_die("a call", r);
        return m;
}

static void check_reply(sd_bus_message *reply) {
        const sd_bus_error *e = sd_bus_message_get_error(reply);
        const char *name;
        int prime;

        if (e)
                bench_die(e->message, EPROTO);
        if (sd_bus_message_read(reply, "a{sv}", 1, &name, "b", &prime) < 0 || strcmp(name, "prime") != 0 || !prime)
                bench_die("a wrong answer", EBADMSG);
}

/* Median time of one call, in µs. */
static double one_by_one(sd_bus *bus, const struct target *t) {
        double us[CALLS_ONE_BY_ONE];

        for (unsigned i = 0; i < CALLS_ONE_BY_ONE; i++) {
                sd_bus_message *m = new_call(bus, t), *reply = NULL;
                uint64_t start = event_now_ns();
                int r = sd_bus_call(bus, m, 0, NULL, &reply);

                us[i] = (double)(event_now_ns() - start) / 1000;
                if (r < 0)
                        bench_die(t->interface, r);
                check_reply(reply);
                sd_bus_message_unref(reply);
                sd_bus_message_unref(m);
        }
        return bench_median(us, CALLS_ONE_BY_ONE);
}

static int on_reply(sd_bus_message *reply, void *user, sd_bus_error *e) {
        check_reply(reply);
        ++*(unsigned *)user;
        return 0;
}

/* Calls per second. */
static double in_window(sd_bus *bus, const struct target *t) {
        unsigned n_sent = 0, n_answered = 0;
        uint64_t start = event_now_ns();

        while (n_answered < CALLS_IN_WINDOW) {
                int r = 1;

                for (; n_sent < CALLS_IN_WINDOW && n_sent - n_answered < WINDOW; n_sent++) {
                        sd_bus_message *m = new_call(bus, t);

                        r = sd_bus_call_async(bus, NULL, m, on_reply, &n_answered, 0);
                        sd_bus_message_unref(m);
                        if (r < 0)
                                bench_die(t->interface, r);
                }
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r < 0)
                        bench_die("the bus", r);
        }
        return CALLS_IN_WINDOW / ((double)(event_now_ns() - start) / 1e9);
}

/* ---- pairs ---- */

static uint32_t worker_pid(sd_bus *bus, const char *pool) {
        sd_bus_error e = SD_BUS_ERROR_NULL;
        const char *name, *path, *state;
        sd_bus_message *reply;
        uint32_t pid, found = 0;
        uint64_t id;

        if (sd_bus_call_method(bus, "org.drover1", "/org/drover1", "org.drover1.Manager", "ListWorkers", &e, &reply,
                               NULL) < 0 ||
            sd_bus_message_enter_container(reply, 'a', "(tsous)") < 0)
                bench_die(e.message ? e.message : "ListWorkers", EPROTO);
        while (sd_bus_message_read(reply, "(tsous)", &id, &name, &path, &pid, &state) > 0)
                if (strcmp(name, pool) == 0)
                        found = pid;
        sd_bus_message_unref(reply);
        return found;
}

static void measure(sd_bus *bus, struct bench_pairs *p, const struct target *ours, const struct target *limit,
                    double (*fn)(sd_bus *, const struct target *)) {
        fn(bus, limit);
        fn(bus, ours);
        for (unsigned i = 0; i < p->n; i++) {
                p->limit[i] = fn(bus, limit);
                p->ours[i] = fn(bus, ours);
        }
        p->worker_pid = worker_pid(bus, ours->pool);
        bench_report(p);
}

int main(int argc, char *argv[]) {
        static struct bench_pairs trivial = {"run", "trivial", "us", "sd-bus echo service"};
        static struct bench_pairs window = {"run", "window 64", "calls/s", "sd-bus echo service"};
        struct target limit = {ECHO_NAME, "/", ECHO_NAME, "pool"};
        struct target ours = {"org.drover1", "/org/drover1", "org.drover1.Manager", argc > 1 ? argv[1] : "primes"};
        pid_t echo = echo_start();
        sd_bus *bus;
        int r;

        r = sd_bus_open_user(&bus);
        if (r < 0)
                bench_die("the bus", r);
        trivial.n = window.n = bench_pairs(argc, argv);
        measure(bus, &trivial, &ours, &limit, one_by_one);
        measure(bus, &window, &ours, &limit, in_window);
        sd_bus_flush_close_unref(bus);
        kill(echo, SIGTERM);
        waitpid(echo, NULL, 0);
        return 0;
}
