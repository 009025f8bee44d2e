/* Benchmark `recovery`: how long after its worker's SIGKILL a job begins anew elsewhere.
 *
 * The daemon, the spawner, the sandbox, the channel and the kill are the real ones. A round submits one job, waits
 * until a worker says in its result line that it began, kills that worker and waits until another says so; the line
 * tells when. With two workers one is idle and takes over (case "idle worker"); with one the replacement has to be
 * started first (case "no idle worker"), which is what the pool's start method costs, and half of it sandbox.
 *
 * The limit, by turns with ours: a supervisor that polls a pidfd and wakes a process that sleeps on a futex, or forks
 * one, and nothing else. Nobody is pinned. Prints p50, p99 and the longest, in ms.
 *
 *   droverctl run --plugin=cancellable.so -- recovery [--pairs=N] */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"
#include "tests/bench/bench.h"

enum { KILLS = 250, JOB_MS = 60 };
#define PATIENCE_NS UINT64_C(20000000000)
#define PLUGIN "cancellable"
#define JOB "work" /* takes `ms` */

/* Looks every 50 µs, for what shows in memory without an event; the result tells the time, not we. */
static void await(bool (*is_true)(void *user), void *user, const char *what) {
        const struct timespec pause = {.tv_nsec = 50000};
        for (uint64_t end_ns = event_now_ns() + PATIENCE_NS; !is_true(user); nanosleep(&pause, NULL))
                if (event_now_ns() > end_ns)
                        bench_die(what, ETIMEDOUT);
}

/* ---- the limit ---- */

struct bare {
        _Atomic uint32_t wake, supervisor_ready;
        _Atomic int victim;
        _Atomic uint64_t began_ns;
        bool has_idle;
};

static void bare_sleeper(struct bare *b) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (atomic_load(&b->wake) == 0)
                event_wait(&b->wake, 0, EVENT_FOREVER);
        atomic_store(&b->began_ns, event_now_ns());
        _exit(0);
}

static pid_t bare_fork(void) {
        pid_t pid = fork();
        if (pid < 0)
                bench_die("fork", errno);
        return pid;
}

static void bare_supervisor(struct bare *b) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pid_t victim = bare_fork();
        if (victim == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
        if (b->has_idle && bare_fork() == 0)
                bare_sleeper(b);
        struct pollfd p = {.fd = pidfd_open(victim, 0), .events = POLLIN};
        atomic_store(&b->victim, victim);
        poll(&p, 1, -1);
        atomic_store(&b->wake, 1);
        if (b->has_idle)
                event_wake(&b->wake, 1);
        else if (bare_fork() == 0)
                bare_sleeper(b);
        while (wait(NULL) > 0)
                ;
        _exit(0);
}

static bool bare_has_victim(void *user) { return atomic_load(&((struct bare *)user)->victim) > 0; }

static bool bare_began(void *user) { return atomic_load(&((struct bare *)user)->began_ns) > 0; }

/* ms */
static double limit_once(bool has_idle) {
        struct bare *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (b == MAP_FAILED)
                bench_die("mmap", errno);
        b->has_idle = has_idle;
        pid_t supervisor = bare_fork();
        if (supervisor == 0)
                bare_supervisor(b);
        await(bare_has_victim, b, "the bare victim");
        const struct timespec settle = {.tv_nsec = 2000000}; /* all are asleep */
        nanosleep(&settle, NULL);
        uint64_t killed_ns = event_now_ns();
        kill(atomic_load(&b->victim), SIGKILL);
        await(bare_began, b, "the bare successor");
        double took = (double)(atomic_load(&b->began_ns) - killed_ns) / 1e6;
        waitpid(supervisor, NULL, 0);
        munmap(b, sizeof *b);
        return took;
}

/* ---- ours ---- */

struct run {
        struct session *session;
        uint32_t slot, generation, not_pid;
        struct layout_result line;
};

/* Does a worker, and not the one that was killed, say that it began? */
static bool has_begun(void *user) {
        struct run *r = user;
        channel_copy(&r->line, channel_result(&r->session->channel, r->slot), sizeof r->line);
        return r->line.generation == r->generation && r->line.pid != 0 && r->line.pid != r->not_pid &&
               r->line.started_ns > 0;
}

static void submit(struct run *r) {
        const struct args_value value = {.type = SCHEMA_U64, .u64 = JOB_MS};
        uint8_t payload[64];
        struct args_writer w;
        uint32_t type;
        size_t bytes;
        if (!schema_find(session_schema(r->session), JOB, &type))
                bench_die(JOB, ENOENT);
        args_writer_init(&w, payload, sizeof payload);
        args_put(&w, "ms", &value);
        int n = args_finish(&w, &bytes);
        const struct session_job job = {
                .type = type, .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = bytes};
        if (n >= 0)
                n = session_submit(r->session, &job, &r->slot);
        if (n < 0)
                bench_die(JOB, n);
        r->generation = slot_generation(channel_word(&r->session->channel, r->slot));
        r->not_pid = 0;
}

/* Or was it done before the kill came? Then the round says nothing. */
static bool has_begun_or_ended(void *user) {
        const struct run *r = user;
        return has_begun(user) || slot_is_verdict(channel_word(&r->session->channel, r->slot));
}

/* ms from the kill to the same job's beginning on another worker; < 0: it was done before. */
static double ours_once(struct session *s, uint32_t *ret_pid) {
        struct run r = {.session = s};
        struct session_result result;
        submit(&r);
        await(has_begun, &r, "the job does not begin");
        r.not_pid = r.line.pid;
        const struct timespec middle = {.tv_nsec = 3000000};
        nanosleep(&middle, NULL);
        uint64_t killed_ns = event_now_ns();
        if (kill((pid_t)r.not_pid, SIGKILL) < 0)
                bench_die("kill", errno);
        await(has_begun_or_ended, &r, "the job does not begin again");
        if (session_wait(s, r.slot, &result, event_now_ns() + PATIENCE_NS) != 1 || result.state != SLOT_DONE)
                bench_die("the job's second attempt", EPROTO);
        if (result.attempt == 1)
                return -1;
        if (result.attempt != 2 || result.started_ns < killed_ns || result.worker_pid == r.not_pid)
                bench_die("the job's second attempt", EBADMSG);
        *ret_pid = result.worker_pid;
        return (double)(result.started_ns - killed_ns) / 1e6;
}

/* ---- */

static void call(sd_bus *bus, const char *member, const char *pool, unsigned n_workers) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *manager = "org.drover1.Manager";
        int r = n_workers > 0 ? sd_bus_call_method(bus, "org.drover1", "/org/drover1", manager, member, &error, NULL,
                                                   "sa{sv}t", pool, 2, "Plugin", "s", PLUGIN, "Workers", "u", n_workers,
                                                   UINT64_C(0))
                              : sd_bus_call_method(bus, "org.drover1", "/org/drover1", manager, member, &error, NULL,
                                                   "st", pool, UINT64_C(0));
        if (r < 0)
                bench_die(error.message ? error.message : member, r);
}

struct ready {
        sd_bus *bus;
        const char *pool;
        unsigned n_workers;
};

static bool are_idle(void *user) {
        const struct ready *q = user;
        const char *pool, *path, *state;
        sd_bus_message *m = NULL;
        unsigned n = 0;
        uint64_t id;
        uint32_t pid;
        int r = sd_bus_call_method(q->bus, "org.drover1", "/org/drover1", "org.drover1.Manager", "ListWorkers", NULL,
                                   &m, NULL);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "(tsous)");
        while (r >= 0 && sd_bus_message_read(m, "(tsous)", &id, &pool, &path, &pid, &state) > 0)
                n += strcmp(pool, q->pool) == 0 && strcmp(state, "idle") == 0;
        if (r < 0)
                bench_die("ListWorkers", r);
        sd_bus_message_unref(m);
        return n == q->n_workers;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static void run_case(sd_bus *bus, const char *name, unsigned n_workers, unsigned n) {
        static double ours[BENCH_MAX_PAIRS], limit[BENCH_MAX_PAIRS];
        struct ready ready = {.bus = bus, .n_workers = n_workers};
        struct session *s;
        char error[400], pool[32];
        uint32_t pid = 0;
        snprintf(pool, sizeof pool, "recovery-%u", n_workers);
        ready.pool = pool;
        call(bus, "CreatePool", pool, n_workers);
        int r = session_open(&s, bus, pool, error, sizeof error);
        if (r < 0)
                bench_die(error, r);
        for (unsigned i = 0; i < n; i++) {
                limit[i] = limit_once(n_workers > 1);
                do
                        await(are_idle, &ready, "the workers do not come back");
                while ((ours[i] = ours_once(s, &pid)) < 0);
        }
        session_free(s);
        call(bus, "RemovePool", pool, 0);
        qsort(ours, n, sizeof *ours, compare);
        qsort(limit, n, sizeof *limit, compare);
        printf("{\"bench\":\"recovery\",\"case\":\"%s\",\"ours\":%.4g,\"unit\":\"ms\",\"limit\":%.4g,"
               "\"limit_name\":\"bare pidfd and %s\",\"ratio\":%.2f,\"p50\":%.4g,\"p99\":%.4g,\"max\":%.4g,"
               "\"limit_p99\":%.4g,\"limit_max\":%.4g,\"kills\":%u,\"worker_pid\":%u}\n",
               name, ours[n / 2], limit[n / 2], n_workers > 1 ? "futex wake" : "fork", ours[n / 2] / limit[n / 2],
               ours[n / 2], ours[n * 99 / 100], ours[n - 1], limit[n * 99 / 100], limit[n - 1], n, pid);
        fflush(stdout);
}

int main(int argc, char *argv[]) {
        unsigned n = argc > 1 ? bench_pairs(argc, argv) : KILLS;
        sd_bus *bus;
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                bench_die("the bus", r);
        run_case(bus, "idle worker", 2, n);
        run_case(bus, "no idle worker", 1, n);
        sd_bus_flush_close_unref(bus);
        return 0;
}
