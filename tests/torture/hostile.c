/* torture-hostile POOL SEED UID MODE: becomes UID (0: stays who it is), opens a channel and an arena, and until SIGTERM
 *   MODE busy     submits honest jobs as fast as it can: what a busy neighbour costs whoever shares a pool with it;
 *   MODE noise    wakes the workers for nothing until it is dropped;
 *   MODE hostile  writes into channel, bell and arena whatever it likes: random words, small steps, flipped bits, words
 * that look like slots, positions of rings, jobs that are fine; rings doorbells and wakes futexes in storms; truncates,
 * punches holes, adds seals, maps executable; sends rubbish on the session socket; leaves all of it behind and opens it
 * anew.
 *
 * Everything comes from SEED. What must not work (a new size, a new seal) is checked here; what it does to others, by
 * those who run it. It never rests. When it was dropped for what it did (its session socket ends) it comes back. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/channel/channel.h"
#include "ipc/client/session/session.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/values/schema.h"
#include "tests/torture/part.h"

enum { BURST = 48, STORM = 300, IN_FLIGHT = 8, PATIENCE_NS = 1000000000, SHARED_FD = 100 };

#define QUOTA_NS UINT64_C(20000000000)

struct memory {
        int fd;
        uint8_t *at;
        size_t bytes;
};

struct hostile {
        sd_bus *bus;
        const char *pool;
        uint64_t random;
        struct memory common, jobs, bell, arena; /* what it may write */
        int memory_fds[CHANNEL_PARTS];           /* of its channel */
        struct layout_header arena_header;
        int doorbell_fd, done_fd, socket_fd;
        uint32_t index, n_slots, slot_bytes;
        struct channel map; /* the channel once more, for jobs that are fine */
        uint64_t n_writes, n_storms, n_jobs, n_opened, n_dropped, n_honest;
};

static uint64_t dice(struct hostile *h, uint64_t n) { return part_random(&h->random) % n; }

/* ---- getting in and out ---- */

static void memory_map(struct memory *m) {
        struct stat st;
        if (fstat(m->fd, &st) < 0)
                part_fail("fstat: %s", strerror(errno));
        m->bytes = (size_t)st.st_size;
        m->at = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
        if (m->at == MAP_FAILED)
                part_fail("mmap: %s", strerror(errno));
}

static void memory_leave(struct memory *m) {
        munmap(m->at, m->bytes);
        close(m->fd);
}

static int read_entry(struct hostile *h, sd_bus_message *m) {
        const struct {
                const char *key;
                int *fd;
                uint32_t *u32;
        } known[] = {
                {"channel", .fd = &h->memory_fds[CHANNEL_COMMON]},
                {"jobs", .fd = &h->memory_fds[CHANNEL_JOBS]},
                {"results", .fd = &h->memory_fds[CHANNEL_RESULTS]},
                {"verdicts", .fd = &h->memory_fds[CHANNEL_VERDICTS]},
                {"bell", .fd = &h->bell.fd},
                {"doorbell", .fd = &h->doorbell_fd},
                {"done", .fd = &h->done_fd},
                {"session", .fd = &h->socket_fd},
                {"memory", .fd = &h->arena.fd},
                {"index", .u32 = &h->index},
                {"slots", .u32 = &h->n_slots},
                {"slot-size", .u32 = &h->slot_bytes},
        };
        const char *key;
        int fd, r = sd_bus_message_read(m, "s", &key);
        for (unsigned i = 0; r >= 0 && i < sizeof known / sizeof *known; i++) {
                if (strcmp(key, known[i].key) != 0)
                        continue;
                if (known[i].u32)
                        return sd_bus_message_read(m, "v", "u", known[i].u32);
                r = sd_bus_message_read(m, "v", "h", &fd);
                if (r >= 0)
                        *known[i].fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
                return r;
        }
        return r < 0 ? r : sd_bus_message_skip(m, "v");
}

/* Its own quota may stop it for as long as workers have not let go of channels that it left; not for ever. */
static int call_within_quota(struct hostile *h, const char *member, const char *name, sd_bus_error *error,
                             sd_bus_message **ret) {
        const struct timespec pause = {.tv_nsec = 10000000};
        for (uint64_t end_ns = event_now_ns() + QUOTA_NS;; nanosleep(&pause, NULL)) {
                uint64_t since_ns = event_now_ns();
                sd_bus_error_free(error);
                int r = sd_bus_call_method(h->bus, "org.drover1", "/org/drover1", "org.drover1.Manager", member, error,
                                           ret, "sa{sv}", name, 0);
                if (event_now_ns() > since_ns + PATIENCE_NS)
                        part_waited("answer", since_ns, event_now_ns());
                if (r >= 0 || event_now_ns() > end_ns ||
                    !sd_bus_error_has_name(error, "org.freedesktop.DBus.Error.LimitsExceeded"))
                        return r;
        }
}

/* Calls Manager.`member`(`name`, {}) and takes what it gives. Told to end meanwhile, we hear of it afterwards. */
static void call(struct hostile *h, const char *member, const char *name) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m = NULL;
        sigset_t term, before;
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_BLOCK, &term, &before);
        int r = call_within_quota(h, member, name, &error, &m);
        sigprocmask(SIG_SETMASK, &before, NULL);
        if (r < 0)
                part_fail("%s: %s", member, error.message ? error.message : strerror(-r));
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_entry(h, m);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r < 0)
                part_fail("the reply of %s: %s", member, strerror(-r));
        sd_bus_message_unref(m);
}

static void enter(struct hostile *h) {
        struct channel_geometry g;
        call(h, "OpenChannel", h->pool);
        h->common.fd = h->memory_fds[CHANNEL_COMMON];
        h->jobs.fd = h->memory_fds[CHANNEL_JOBS];
        memory_map(&h->common);
        memory_map(&h->jobs);
        memory_map(&h->bell);
        int r = channel_geometry_init(&g, h->n_slots, h->slot_bytes);
        if (r >= 0)
                r = channel_map(&h->map, &g, h->memory_fds, CHANNEL_CLIENT);
        if (r < 0)
                part_fail("channel_map: %s", strerror(-r));
        h->n_opened++;
}

static void leave(struct hostile *h) {
        channel_unmap(&h->map);
        memory_leave(&h->common);
        memory_leave(&h->jobs);
        close(h->memory_fds[CHANNEL_RESULTS]);
        close(h->memory_fds[CHANNEL_VERDICTS]);
        memory_leave(&h->bell);
        close(h->doorbell_fd);
        close(h->done_fd);
        close(h->socket_fd);
}

/* ---- what it does ---- */

static struct memory *any_memory(struct hostile *h) {
        uint64_t choice = dice(h, 10);
        return choice < 4 ? &h->common : choice < 6 ? &h->jobs : choice < 8 ? &h->bell : &h->arena;
}

static uint64_t any_word(struct hostile *h, uint64_t before) {
        uint64_t random = part_random(&h->random);
        switch (dice(h, 6)) {
        case 0:
                return random;
        case 1:
                return before + 1 + random % 3;
        case 2:
                return before - 1 - random % 3;
        case 3:
                return before ^ UINT64_C(1) << random % 64;
        case 4:
                return random % 2 == 0 ? 0 : UINT64_MAX;
        default: /* a hint, or a position, or a length */
                return random >> (32 + random % 24);
        }
}

static void scribble(struct hostile *h) {
        struct memory *m = any_memory(h);
        /* Half of the time where it hurts: head and rings, wait lines, objects. */
        uint64_t reach = dice(h, 2) == 0 && m->bytes > 8192 ? 8192 : m->bytes;
        for (uint64_t n = 1 + dice(h, BURST); n > 0; n--) {
                uint64_t *word = (uint64_t *)(m->at + dice(h, reach / 8) * 8);
                __atomic_store_n(word, any_word(h, *word), __ATOMIC_RELAXED);
                h->n_writes++;
        }
        /* An arena that nobody can enter any more is no danger. */
        memcpy(h->arena.at, &h->arena_header, sizeof h->arena_header);
        if (dice(h, 100) == 0)
                memset(h->arena.at + sizeof h->arena_header, 0, h->arena.bytes - sizeof h->arena_header);
}

static void scribble_slots(struct hostile *h) {
        for (uint64_t n = 1 + dice(h, BURST); n > 0; n--) {
                uint32_t slot = (uint32_t)dice(h, h->n_slots);
                uint64_t before = channel_word(&h->map, slot);
                uint64_t owner = dice(h, 4) == 0 ? dice(h, 65536) : dice(h, 5);
                uint32_t generation = slot_generation(before) + (uint32_t)dice(h, 2);
                uint64_t word = SLOT_WORD(dice(h, 16), dice(h, 64), dice(h, 64), owner, generation);
                atomic_store(&h->map.slots[slot].word, word);
                if (slot_state(word) == SLOT_QUEUED)
                        channel_push(&h->map, slot, generation, (uint32_t)dice(h, 5));
                h->n_writes++;
        }
        bell_ring((struct layout_bell *)h->bell.at, h->index, h->doorbell_fd);
}

/* Mostly of the job type that there is. */
static uint32_t job_number(struct hostile *h) {
        static const struct schema_job echo = {.name = "echo", .args.is_raw = true, .result.is_raw = true};
        return dice(h, 8) > 0 ? schema_number(&echo) : (uint32_t)dice(h, 3);
}

static void submit(struct hostile *h) {
        uint32_t slot = (uint32_t)dice(h, h->n_slots);
        if (channel_begin(&h->map, slot) < 0)
                return;
        struct layout_job *job = channel_job(&h->map, slot);
        *job = (struct layout_job){
                .type = job_number(h), .bytes = (uint32_t)dice(h, h->slot_bytes + 2), .priority = (uint32_t)dice(h, 4)};
        channel_commit(&h->map, slot, job->priority);
        bell_ring((struct layout_bell *)h->bell.at, h->index, h->doorbell_fd);
        h->n_jobs++;
}

static void storm(struct hostile *h) {
        struct layout_bell *b = (struct layout_bell *)h->bell.at;
        static const char rings[4096];
        for (unsigned i = 0; i < STORM; i++) {
                doorbell_ring(h->doorbell_fd);
                bell_broadcast(b);
        }
        int flags = (int)dice(h, 2) * O_NONBLOCK;
        if (fcntl(h->doorbell_fd, F_SETFL, flags) < 0 || fcntl(h->done_fd, F_SETFL, flags) < 0 ||
            fcntl(h->socket_fd, F_SETFL, flags) < 0)
                part_fail("F_SETFL: %s", strerror(errno));
        ssize_t n = 1;
        while (n > 0) /* full */
                n = send(h->doorbell_fd, rings, dice(h, sizeof rings) + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        n += send(h->done_fd, rings, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (dice(h, 100) == 0)
                shutdown(dice(h, 2) ? h->doorbell_fd : h->done_fd, SHUT_RDWR);
        n += send(h->socket_fd, h, dice(h, 64), MSG_DONTWAIT | MSG_NOSIGNAL);
        h->n_storms += n != 0;
}

static void misuse(struct hostile *h) {
        struct memory *m = any_memory(h);
        off_t page = (off_t)(dice(h, m->bytes / 4096) * 4096);
        if (ftruncate(m->fd, page) == 0 && page != (off_t)m->bytes)
                part_fail("a sealed memory was cut to %lld", (long long)page);
        if (ftruncate(m->fd, (off_t)m->bytes * 2) == 0 || fallocate(m->fd, 0, (off_t)m->bytes, 4096) == 0)
                part_fail("a sealed memory grew");
        if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_WRITE) == 0 || fcntl(m->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0)
                part_fail("a seal was added");
        fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, 4096);
        void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, m->fd, 0); /* one's own address space */
        if (p != MAP_FAILED)
                munmap(p, 4096);
}

/* Was it thrown out? */
static bool is_dropped(const struct hostile *h) {
        struct pollfd p = {.fd = h->socket_fd, .events = POLLIN};
        return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

/* What a busy neighbour costs that keeps all the rules: as many jobs in the same pool as it takes. */
static void run_busily(struct hostile *h) {
        static const char payload[200];
        struct session *s;
        struct session_result result;
        char error[400];
        uint32_t slot;
        if (session_open(&s, h->bus, h->pool, error, sizeof error) < 0)
                part_fail("%s", error);
        while (!part_is_over()) {
                const struct session_job job = {
                        .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = 1 + dice(h, sizeof payload)};
                if (session_in_flight(s) < IN_FLIGHT)
                        session_submit(s, &job, &slot);
                else if (session_next(s, &result, event_now_ns() + PATIENCE_NS) == 1)
                        h->n_honest++;
        }
        part_say("count neighbour-jobs %llu", (unsigned long long)h->n_honest);
        session_free(s);
}

/* No nonsense anywhere, but the workers are woken for nothing, until it is thrown out for that. */
static void make_noise(struct hostile *h) {
        struct layout_bell *b = (struct layout_bell *)h->bell.at;
        while (!part_is_over() && !is_dropped(h))
                for (unsigned i = 0; i < STORM; i++)
                        bell_broadcast(b);
        part_say("count dropped-for-noise %d", is_dropped(h));
}

static void run(struct hostile *h) {
        static void (*const does[])(struct hostile * h) = {scribble, scribble, scribble_slots, scribble_slots,
                                                           submit,   submit,   misuse,         storm};
        while (!part_is_over()) {
                does[dice(h, sizeof does / sizeof *does)](h);
                bool was_dropped = is_dropped(h);
                h->n_dropped += was_dropped;
                if (was_dropped || dice(h, 2000) == 0) {
                        leave(h);
                        enter(h);
                }
        }
        part_say("count writes %llu", (unsigned long long)h->n_writes);
        part_say("count storms %llu", (unsigned long long)h->n_storms);
        part_say("count hostile-jobs %llu", (unsigned long long)h->n_jobs);
        part_say("count opened %llu", (unsigned long long)h->n_opened);
        part_say("count dropped %llu", (unsigned long long)h->n_dropped);
}

int main(int argc, char *argv[]) {
        static struct hostile h;
        if (argc != 5)
                return 2;
        uid_t uid = (uid_t)strtoul(argv[3], NULL, 10);
        if (uid != 0 && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
                part_fail("setresuid: %s", strerror(errno));
        part_init();
        h.pool = argv[1];
        h.random = strtoull(argv[2], NULL, 10);
        h.bus = part_bus();
        call(&h, "OpenArena", "hostile");
        memory_map(&h.arena);
        memcpy(&h.arena_header, h.arena.at, sizeof h.arena_header);
        if (dup2(h.arena.fd, SHARED_FD) < 0) /* whoever it gives the descriptor to: torture-guest takes it from here */
                part_fail("dup2: %s", strerror(errno));
        enter(&h);
        part_say("ready");
        if (strcmp(argv[4], "hostile") == 0)
                run(&h);
        else if (strcmp(argv[4], "noise") == 0)
                make_noise(&h);
        else
                run_busily(&h);
        part_end();
}
