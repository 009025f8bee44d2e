/* The stand-in of the spawner. Its workers are processes that wait for their end, so that a pidfd and a death are real;
 * what they would say goes over the control socket's other end, which the test holds. */
#include "tests/unit/supervise-fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

struct loop *loop;
struct supervisor *supervisor;
int spawner;
const char *worker_schema;
static struct loop_timer turn_timer;

/* ---- the loop, a millisecond at a time ---- */

static void on_turn(struct loop_timer *t) { loop_exit(t->loop, 0); }

void turn(void) {
        loop_timer_set(loop, &turn_timer, event_now_ns() + MS, on_turn, NULL);
        loop_run(loop);
        loop_timer_stop(&turn_timer);
}

void turns(unsigned n) {
        while (n--)
                turn();
}

/* ---- the stand-in spawner ---- */

static bool receive(struct spawn_request *q) {
        size_t bytes;
        return packet_receive(spawner, q, sizeof(*q), &bytes, NULL, NULL) == 0 && bytes == sizeof(*q);
}

struct spawn_request expect(enum spawn_request_type type) {
        struct spawn_request q = {0};
        UNTIL(receive(&q) && q.type == type);
        return q;
}

unsigned count(enum spawn_request_type type) {
        struct spawn_request q;
        unsigned n = 0;
        turns(5);
        while (receive(&q))
                n += q.type == type;
        return n;
}

void answer(struct spawn_event e, const int *fds, unsigned n_fds) {
        e.version = WIRE_VERSION;
        assert_int_equal(packet_send(spawner, &e, sizeof(e), fds, n_fds), 0);
}

void load(void) {
        struct spawn_request q = expect(SPAWN_LOAD);
        answer((struct spawn_event){.type = SPAWN_LOADED, .generation = q.generation}, NULL, 0);
}

struct stand_in started(uint32_t id) {
        int fds[2];
        assert_int_equal(packet_pair(fds), 0);
        pid_t parent = getpid(), pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
                while (getppid() == parent)
                        pause();
                _exit(0);
        }
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        answer((struct spawn_event){.type = SPAWN_STARTED, .worker = id, .pid = pid, .text = "seccomp"},
               (int[]){pidfd, fds[0]}, 2);
        close(pidfd);
        close(fds[0]);
        fcntl(fds[1], F_SETFL, O_NONBLOCK);
        UNTIL(supervisor_find_worker(supervisor, id)->pidfd >= 0);
        return (struct stand_in){id, pid, fds[1]};
}

void end(struct stand_in *w, int code, int status) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, 0);
        close(w->fd);
        answer(
                (struct spawn_event){
                        .type = SPAWN_EXITED, .worker = w->id, .pid = w->pid, .code = code, .status = status},
                NULL, 0);
        UNTIL(!supervisor_find_worker(supervisor, w->id));
}

void report(const struct stand_in *w, enum worker_report_type type, uint32_t channel) {
        char packet[sizeof(struct worker_report) + 256];
        struct worker_report r = {.type = type, .version = WIRE_VERSION, .channel = channel};
        r.text_bytes = type == REPORT_READY ? (uint32_t)strlen(worker_schema) : 0;
        if (type == REPORT_CLOSED)
                strcpy(r.sandbox, "seccomp,of-its-own");
        memcpy(packet, &r, sizeof(r));
        memcpy(packet + sizeof(r), worker_schema, r.text_bytes);
        assert_int_equal(packet_send(w->fd, packet, sizeof(r) + r.text_bytes, NULL, 0), 0);
}

struct stand_in ready(void) {
        struct stand_in w = started(expect(SPAWN_START).worker);
        report(&w, REPORT_READY, 0);
        UNTIL(supervisor_find_worker(supervisor, w.id)->phase == PHASE_READY);
        return w;
}

/* ---- set up ---- */

struct pool *add_pool(void (*change)(struct pool_config *c)) {
        struct pool_config c;
        struct fault f;
        struct pool *p;
        pool_config_defaults(&c);
        strcpy(c.name, "p");
        strcpy(c.plugin, "fake");
        c.n_workers = 1;
        c.n_slots = 4;
        if (change)
                change(&c);
        assert_int_equal(supervisor_add_pool(supervisor, &c, true, NULL, &p, &f), 0);
        return p;
}

int setup(void **state) {
        const char *why;
        int fds[2];
        turn_timer = (struct loop_timer){0};
        worker_schema = "fake\t1.0\nwork\t\t\t1\t0\t\n";
        log_open("test", LOG_LEVEL_ERROR);
        assert_int_equal(loop_new(&loop, &why), 0);
        assert_int_equal(packet_pair(fds), 0);
        spawner = fds[1];
        fcntl(spawner, F_SETFL, O_NONBLOCK);
        struct supervisor_config c = {
                .loop = loop, .libexec_dir = "/nonexistent", .plugin_dir = "/nonexistent", .spawner_fd = fds[0]};
        assert_int_equal(supervisor_new(&supervisor, &c), 0);
        answer((struct spawn_event){.type = SPAWN_HELLO, .pid = getpid()}, NULL, 0);
        UNTIL(spawner_pid(supervisor->spawner) != 0);
        return 0;
}

int teardown(void **state) {
        supervisor = supervisor_free(supervisor);
        loop = loop_free(loop);
        close(spawner);
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        return 0;
}
