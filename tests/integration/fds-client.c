/* fds-client POOL CASE: a client of pool POOL (plugin fds) that does with its session socket what libdrover never does.
 * Cases are listed at the end; each says "dropped" if its session ends, else what else came of it. `hang` says "ready"
 * and waits to be killed. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"
#include "ipc/wire.h"

enum { MANY = 1000 };

static struct session *s;

static void fail(const char *what, int r) {
        fprintf(stderr, "fds-client: %s: %s\n", what, strerror(-r));
        exit(1);
}

static int memory(int seals, size_t bytes) {
        int fd = memfd_create("fds-client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || (seals && fcntl(fd, F_ADD_SEALS, seals) < 0))
                fail("memfd", -errno);
        return fd;
}

static int say(uint32_t type, uint32_t slot, uint32_t generation, uint64_t payload_bytes, const int *fds, unsigned n) {
        const struct session_packet p = {.type = type,
                                         .version = WIRE_VERSION,
                                         .slot = slot,
                                         .generation = generation,
                                         .payload_bytes = payload_bytes};
        int r;
        while ((r = packet_send(s->socket_fd, &p, sizeof p, fds, n)) == -EAGAIN) {
                struct pollfd poll_fd = {.fd = s->socket_fd, .events = POLLOUT};
                poll(&poll_fd, 1, -1);
        }
        return r;
}

/* Until the session ends, 10 s at most. */
static void await_end(void) {
        for (uint64_t end_ns = event_now_ns() + UINT64_C(10000000000); event_now_ns() < end_ns;) {
                struct pollfd p = {.fd = s->socket_fd, .events = POLLIN};
                char buffer[4096];
                if (poll(&p, 1, 1000) > 0 && recv(s->socket_fd, buffer, sizeof buffer, MSG_DONTWAIT) <= 0) {
                        puts("dropped");
                        return;
                }
        }
        puts("still there");
}

/* For cases in which the broker is stopped before anything is sent, and we are killed behind it. */
static void wait_for_signal(void) {
        sigset_t set;
        int number;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, NULL);
        puts("ready");
        fflush(stdout);
        sigwait(&set, &number);
}

static void sent(void) {
        puts("sent");
        fflush(stdout);
        pause();
}

static void with_payload(int fd, uint64_t bytes) {
        say(SESSION_FDS, 0, 1, bytes, &fd, 1);
        await_end();
}

static void case_unsealed(void) { with_payload(memory(0, 8192), 8192); }
static void case_half_sealed(void) { with_payload(memory(F_SEAL_WRITE | F_SEAL_GROW, 8192), 8192); }
static void case_future_write(void) {
        with_payload(memory(F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, 8192), 8192);
}
static void case_shorter(void) { with_payload(memory(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, 4096), 8192); }
static void case_no_memory(void) { with_payload(STDIN_FILENO, 8192); }

static void case_no_such_slot(void) {
        int fd = STDIN_FILENO;
        say(SESSION_FDS, session_slots(s), 1, 0, &fd, 1);
        await_end();
}

static void case_twice(void) {
        int fd = STDIN_FILENO;
        say(SESSION_FDS, 0, 1, 0, &fd, 1);
        say(SESSION_FDS, 0, 1, 0, &fd, 1);
        await_end();
}

static void case_fds_with_a_question(void) {
        int fd = STDIN_FILENO;
        say(SESSION_WANT, 0, 1, 0, &fd, 1);
        await_end();
}

static void case_rubbish(void) {
        packet_send(s->socket_fd, "rubbish", 7, NULL, 0);
        await_end();
}

/* Asks, and does not read. */
static void case_asks(void) {
        for (unsigned i = 0; i < MANY; i++)
                if (say(SESSION_WANT, 0, 1, 0, NULL, 0) < 0)
                        break;
        await_end();
}

/* More in one packet than anybody takes. */
static void case_too_many(void) {
        enum { N = 100 };
        const struct session_packet p = {.type = SESSION_FDS, .version = WIRE_VERSION, .generation = 1};
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(N * sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = (void *)&p, .iov_len = sizeof p};
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        struct cmsghdr *head = CMSG_FIRSTHDR(&m);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(N * sizeof(int));
        for (size_t i = 0; i < N; i++)
                memcpy(CMSG_DATA(head) + i * sizeof(int), &(int){STDIN_FILENO}, sizeof(int));
        wait_for_signal();
        if (sendmsg(s->socket_fd, &m, MSG_NOSIGNAL) < 0)
                fail("sendmsg", -errno);
        sent();
}

/* What makes no sense, and behind it in the socket what is never read. */
static void case_nonsense_first(void) {
        wait_for_signal();
        packet_send(s->socket_fd, "rubbish", 7, NULL, 0);
        for (uint32_t i = 0; i < 8; i++)
                say(SESSION_FDS, i, 1, 0, &(int){STDIN_FILENO}, 1);
        sent();
}

/* Two packets for one generation, of which the second is nonsense. */
static void case_second(void) {
        wait_for_signal();
        say(SESSION_FDS, 0, 1, 0, &(int){STDIN_FILENO}, 1);
        say(SESSION_FDS, 0, 1, 0, &(int){STDIN_FILENO}, 1);
        sent();
}

/* Descriptors for jobs that never come: a new generation each time, more slots than there may be descriptors. */
static void case_no_push(void) {
        int fds[PACKET_MAX_FDS];
        for (unsigned i = 0; i < PACKET_MAX_FDS; i++)
                fds[i] = STDIN_FILENO;
        for (uint32_t i = 0; i < MANY; i++)
                if (say(SESSION_FDS, i % session_slots(s), 1 + i / session_slots(s), 0, fds, PACKET_MAX_FDS) < 0)
                        break;
        puts("ready");
        fflush(stdout);
        pause();
}

static uint32_t type_of(const char *name) {
        uint32_t type;
        if (!schema_find(session_schema(s), name, &type))
                fail(name, -ENOENT);
        return type;
}

/* Queues a job with arguments `in`:fd 0 and `attempt` of `cat`, as if descriptors had come with it. */
static uint32_t queue_cat(uint64_t attempt) {
        static uint8_t buffer[256];
        struct args_writer w;
        size_t bytes;
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "in", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "attempt", &(struct args_value){.type = SCHEMA_U64, .u64 = attempt});
        args_finish(&w, &bytes);
        uint32_t slot;
        const struct session_job job = {
                .type = type_of("cat"), .priority = LAYOUT_PRIORITY_DEFAULT, .payload = buffer, .bytes = bytes};
        slot = s->free_slots[s->n_free - 1];
        struct layout_job *line = channel_job(&s->channel, slot);
        channel_begin(&s->channel, slot);
        *line = (struct layout_job){.type = session_schema(s)->jobs[job.type].number,
                                    .bytes = (uint32_t)bytes,
                                    .priority = job.priority,
                                    .id = 1};
        memcpy(channel_payload(&s->channel, slot), buffer, bytes);
        channel_mark_fds(&s->channel, slot);
        channel_commit(&s->channel, slot, job.priority);
        session_ring(s);
        return slot;
}

static void await_verdict(uint32_t slot) {
        uint64_t word = 0;
        for (unsigned i = 0; i < 10000 && !slot_is_verdict(word = channel_word(&s->channel, slot)); i++)
                poll(NULL, 0, 1);
        struct layout_result line;
        channel_copy(&line, channel_result(&s->channel, slot), sizeof line);
        printf("%u %.*s\n", slot_state(word), slot_state(word) == SLOT_FAILED ? (int)line.bytes : 0,
               (const char *)channel_result_data(&s->channel, slot));
}

/* It says that there are descriptors, and there are none; then fewer than its arguments say. */
static void case_none_came(void) { await_verdict(queue_cat(1)); }

static void case_too_few_came(void) {
        int fd = memory(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, 4096);
        uint32_t slot = s->free_slots[s->n_free - 1];
        say(SESSION_FDS, slot, 1, 4096, &fd, 1); /* a payload, and it is no map */
        await_verdict(queue_cat(1));
}

/* Its descriptors stand behind many others in the socket of a broker that is stopped until "sent": the worker asks
 * before the broker has read them in turn. */
static void case_late(void) {
        int fd = memory(0, 4096);
        static uint8_t buffer[256];
        struct args_writer w;
        char line[16];
        uint32_t slot;
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "in", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "attempt", &(struct args_value){.type = SCHEMA_U64, .u64 = 1});
        struct session_job job = {
                .type = type_of("cat"), .priority = LAYOUT_PRIORITY_DEFAULT, .payload = buffer, .fds = &fd, .n_fds = 1};
        args_finish(&w, &job.bytes);
        puts("ready");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
                return;
        for (uint32_t i = 0; i < 150; i++)
                say(SESSION_FDS, 0, 1000 + i, 0, &fd, 1);
        int r = session_submit(s, &job, &slot);
        if (r < 0)
                fail("session_submit", r);
        puts("sent");
        fflush(stdout);
        await_verdict(slot);
}

/* Queued jobs, a running one and descriptors without a job: then it is killed. */
static void case_hang(void) {
        int fd = STDIN_FILENO;
        static uint8_t buffer[256];
        struct args_writer w;
        size_t bytes;
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "out", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "text", &(struct args_value){.type = SCHEMA_STR, .data = "x", .bytes = 1});
        args_put(&w, "waits", &(struct args_value){.type = SCHEMA_BOOL, .boolean = true});
        args_finish(&w, &bytes);
        fd = memory(0, 4096);
        const struct session_job job = {.type = type_of("print"),
                                        .priority = LAYOUT_PRIORITY_DEFAULT,
                                        .payload = buffer,
                                        .bytes = bytes,
                                        .fds = &fd,
                                        .n_fds = 1};
        for (unsigned i = 0; i < 8; i++) {
                uint32_t slot;
                int r = session_submit(s, &job, &slot);
                if (r < 0)
                        fail("session_submit", r);
        }
        say(SESSION_FDS, session_slots(s) - 1, 77, 0, &fd, 1);
        puts("ready");
        fflush(stdout);
        pause();
}

static void ready(void) {
        char line[16];
        puts("ready");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
                fail("stdin", -EPIPE);
}

/* Jobs end while the socket is full, so it is said in vain. */
static void case_ended_in_vain(void) {
        enum { N = 8 };
        static uint8_t buffer[256];
        struct args_writer w;
        struct session_result result;
        uint32_t slots[N];
        int fd = memory(0, 4096), r = 0;
        struct session_job job = {.type = type_of("cat"),
                                  .priority = LAYOUT_PRIORITY_DEFAULT,
                                  .payload = buffer,
                                  .fds = &fd,
                                  .n_fds = 1,
                                  .is_held = true};
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "in", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "attempt", &(struct args_value){.type = SCHEMA_U64, .u64 = 1});
        args_finish(&w, &job.bytes);
        ready();
        for (unsigned i = 0; i < N && r >= 0; i++)
                r = session_submit(s, &job, &slots[i]);
        if (r < 0)
                fail("session_submit", r);
        ready(); /* the broker has them, and is stopped */
        const struct session_packet p = {.type = SESSION_ENDED, .version = WIRE_VERSION};
        while ((r = packet_send(s->socket_fd, &p, sizeof p, NULL, 0)) == 0)
                ;
        if (r != -EAGAIN)
                fail("the socket", r);
        for (unsigned i = 0; i < N; i++)
                if (!session_cancel_queued(s, slots[i]) || session_wait(s, slots[i], &result, 0) != 1)
                        fail("session_cancel_queued", -EIO);
        puts("sent");
        fflush(stdout);
        pause();
}

/* A verdict is found, with all that belongs to it, and never fetched. */
static void case_unfetched(void) {
        static uint8_t buffer[256];
        struct args_writer w;
        uint64_t deadline_ns;
        uint32_t slot;
        int fd = memory(0, 4096);
        struct session_job job = {.type = type_of("make"),
                                  .priority = LAYOUT_PRIORITY_DEFAULT,
                                  .payload = buffer,
                                  .fds = &fd,
                                  .n_fds = 1};
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "in", &(struct args_value){.type = SCHEMA_FD});
        args_put(&w, "text", &(struct args_value){.type = SCHEMA_STR, .data = "x", .bytes = 1});
        args_finish(&w, &job.bytes);
        ready();
        int r = session_submit(s, &job, &slot);
        if (r < 0)
                fail("session_submit", r);
        while (!session_arm(s, &deadline_ns)) {
                struct pollfd p[] = {{.fd = session_done_fd(s), .events = POLLIN},
                                     {.fd = s->socket_fd, .events = POLLIN}};
                poll(p, 2, 1000);
                session_woken(s);
        }
        puts("found");
        fflush(stdout);
        pause();
}

int main(int argc, char *argv[]) {
        static const struct {
                const char *name;
                void (*run)(void);
        } cases[] = {
                {"asks", case_asks},
                {"ended-in-vain", case_ended_in_vain},
                {"fds-with-a-question", case_fds_with_a_question},
                {"future-write", case_future_write},
                {"half-sealed", case_half_sealed},
                {"hang", case_hang},
                {"late", case_late},
                {"no-memory", case_no_memory},
                {"no-push", case_no_push},
                {"no-such-slot", case_no_such_slot},
                {"none-came", case_none_came},
                {"nonsense-first", case_nonsense_first},
                {"rubbish", case_rubbish},
                {"second", case_second},
                {"shorter", case_shorter},
                {"too-few-came", case_too_few_came},
                {"too-many", case_too_many},
                {"twice", case_twice},
                {"unfetched", case_unfetched},
                {"unsealed", case_unsealed},
        };
        char error[512];
        sd_bus *bus = NULL;
        int r = argc == 3 ? sd_bus_open_user(&bus) : -EINVAL;
        if (r < 0)
                fail("fds-client POOL CASE", r);
        r = session_open(&s, bus, argv[1], error, sizeof error);
        if (r < 0)
                fail(error, r);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                if (strcmp(cases[i].name, argv[2]) == 0) {
                        cases[i].run();
                        return 0;
                }
        fail(argv[2], -EINVAL);
}
