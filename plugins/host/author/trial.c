/* Owns the broker's side of everything one worker needs: pool memory, a bell, a channel, and the orders that hand them
 * over.
 *
 * Order of a trial: init → set up → await ready → open → begin, commit, wait … → retire → deinit. Like the real broker
 * it takes nothing from the worker on trust; unlike it, it supervises nothing: `armed` stands from the start, so no
 * doorbell rings for a tick. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"
#include "ipc/memory/segment.h"
#include "ipc/sync/layout.h"
#include "ipc/values/words.h"
#include "plugins/host/author/trial.h"

enum { TRIAL_MAX_FILE = 64 << 20 };

/* ---- the plugin's sealed copy ---- */

static int fill_and_seal(int to, int from, off_t bytes) {
        for (off_t at = 0; at < bytes;) {
                ssize_t n = sendfile(to, from, &at, (size_t)(bytes - at));
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
        }
        return fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0 ? -errno : 0;
}

static int copy_file(int from, int *ret_fd) {
        struct stat st;
        if (fstat(from, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size == 0)
                return -ENOEXEC;
        if (st.st_size > TRIAL_MAX_FILE)
                return -EFBIG;
        int fd = memfd_create("drover-plugin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        int r = fill_and_seal(fd, from, st.st_size);
        if (r < 0)
                close(fd);
        else
                *ret_fd = fd;
        return r;
}

int trial_open_plugin(const char *path, int *ret_fd) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;
        int r = copy_file(fd, ret_fd);
        close(fd);
        return r;
}

/* ---- memory ---- */

int trial_init(struct trial *t) {
        *t = (struct trial){.pool_fd = -1,
                            .bell_fd = -1,
                            .channel_fds = {-1, -1, -1, -1},
                            .doorbell = DOORBELL_NONE,
                            .done = DOORBELL_NONE,
                            .control_fd = -1,
                            .items_fd = -1,
                            .room_fd = -1};
        struct channel_geometry g;
        int fds[CHANNEL_PARTS];
        void *pool;
        int r = segment_create("drover-trial-pool", LAYOUT_POOL_BYTES, &t->pool_fd);
        if (r >= 0)
                r = segment_map(t->pool_fd, 0, LAYOUT_POOL_BYTES, true, &pool);
        if (r < 0)
                return r;
        t->pool = pool;
        t->line = &t->pool->worker[0];
        atomic_store_explicit(&t->pool->armed, 1, memory_order_relaxed);
        r = bell_create("drover-trial-bell", &t->bell, &t->bell_fd);
        if (r >= 0)
                r = channel_geometry_init(&g, TRIAL_SLOTS, TRIAL_SLOT_BYTES);
        if (r >= 0)
                r = channel_create(&t->channel, &g, "trial", fds);
        if (r < 0)
                return r;
        r = channel_open(fds, CHANNEL_WORKER, t->channel_fds);
        channel_close(fds);
        if (r < 0)
                return r;
        bell_set_mode(t->bell, BELL_FUTEX);
        r = doorbell_open(&t->doorbell);
        return r < 0 ? r : doorbell_open(&t->done);
}

void trial_deinit(struct trial *t) {
        const int fds[] = {t->pool_fd, t->bell_fd, t->control_fd, t->items_fd, t->room_fd};
        for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        doorbell_close(&t->doorbell);
        doorbell_close(&t->done);
        segment_unmap(t->pool, LAYOUT_POOL_BYTES);
        if (t->bell)
                bell_unmap(t->bell);
        channel_unmap(&t->channel);
        channel_close(t->channel_fds);
        schema_free(t->schema);
        for (size_t i = 0; i < TRIAL_ARENAS; i++)
                drover_arena_free(t->arenas[i].arena);
        *t = (struct trial){0};
}

/* ---- orders ---- */

static int give_order(struct trial *t, const struct worker_order *order, const int *fds, unsigned n_fds) {
        int r = packet_send(t->control_fd, order, sizeof *order, fds, n_fds);
        if (r >= 0)
                event_broadcast(&t->line->control);
        return r;
}

int trial_set_up(struct trial *t, int control_fd, int output_fd) {
        int items[2];
        t->control_fd = control_fd;
        const struct worker_order order = {
                .type = ORDER_SETUP, .version = WIRE_VERSION, .model = 1, .id = 1, .pool = "trial"};
        int r = packet_pair(items);
        if (r < 0)
                return r;
        t->items_fd = items[0];
        r = fcntl(items[1], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
        if (r >= 0)
                r = give_order(t, &order, (const int[]){t->pool_fd, t->doorbell.ring_fd, output_fd, items[1]}, 4);
        close(items[1]);
        return r;
}

/* ---- items ---- */

/* All that are there; those of an earlier job went to its own wait. */
static void take_items(struct trial *t) {
        static struct { /* one thread, one packet at a time */
                struct worker_item head;
                uint8_t data[WIRE_MAX_ITEM];
        } packet;
        size_t bytes;
        while (packet_receive(t->items_fd, &packet, sizeof packet, &bytes, NULL, NULL) == 0 && bytes > 0)
                if (bytes > sizeof packet.head && packet.head.bytes == bytes - sizeof packet.head && t->on_item)
                        t->on_item(t->on_item_user, packet.data, packet.head.bytes);
}

/* ---- arenas ---- */

static int find_arena(struct trial *t, const struct worker_report *wanted, int *ret_fd) {
        const char *name = wanted->text;
        size_t n = strlen(name);
        if (n == 0 || n > 64 || strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != n)
                return -EINVAL;
        for (size_t i = 0; i < TRIAL_ARENAS; i++) {
                if (!t->arenas[i].arena) {
                        int r = drover_arena_create_sized(
                                "drover-trial-arena", wanted->arena_bytes ? wanted->arena_bytes : 1 << 20,
                                wanted->arena_objects ? wanted->arena_objects : ARENA_DEFAULT_OBJECTS,
                                wanted->arena_processes ? wanted->arena_processes : ARENA_DEFAULT_PARTICIPANTS,
                                &t->arenas[i].arena);
                        if (r < 0)
                                return r;
                        memcpy(t->arenas[i].name, name, n + 1);
                }
                if (strcmp(t->arenas[i].name, name) == 0) {
                        *ret_fd = drover_arena_fd(t->arenas[i].arena);
                        return 0;
                }
        }
        return -ENFILE;
}

static int answer_arena(struct trial *t, struct worker_report *report) {
        struct worker_order order = {.type = ORDER_ARENA, .version = WIRE_VERSION};
        int fd, r;
        report->text[sizeof report->text - 1] = 0;
        r = find_arena(t, report, &fd);
        order.error = r < 0 ? -r : 0;
        return packet_send(t->control_fd, &order, sizeof order, &fd, r < 0 ? 0 : 1);
}

/* ---- results that do not fit into the slot ---- */

static int make_room(struct trial *t, uint64_t bytes) {
        if (t->room_fd >= 0)
                close(t->room_fd);
        t->room_fd = -1;
        return sealed_open("drover-trial-result", bytes, &t->room_fd);
}

/* No job of ours has descriptors, and those of a result are not looked at. */
static int answer_fds(struct trial *t, const struct worker_report *report) {
        struct worker_order order = {.type = ORDER_FDS, .version = WIRE_VERSION};
        uint64_t bytes;
        int r = report->type == REPORT_ROOM ? make_room(t, report->payload_bytes) : 0;
        if (report->type == REPORT_FDS)
                r = -ENOENT;
        if (report->type == REPORT_RESULT && report->has_room) {
                r = t->room_fd < 0 ? -EPROTO : sealed_check(t->room_fd, &bytes);
                t->result_bytes = r < 0 ? 0 : report->payload_bytes;
        }
        order.error = -r;
        return packet_send(t->control_fd, &order, sizeof order, &t->room_fd, report->type == REPORT_ROOM && r >= 0);
}

/* While a job runs a worker reports nothing else. */
static int read_report(struct trial *t) {
        struct worker_report report;
        int fds[PACKET_MAX_FDS];
        unsigned n_fds = PACKET_MAX_FDS;
        size_t bytes;
        int r = packet_receive(t->control_fd, &report, sizeof report, &bytes, fds, &n_fds);
        if (r < 0 || bytes != sizeof report || report.version != WIRE_VERSION)
                return -ECONNRESET;
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
        switch (report.type) {
        case REPORT_ARENA:
                return answer_arena(t, &report);
        case REPORT_FDS:
        case REPORT_ROOM:
        case REPORT_RESULT:
                return answer_fds(t, &report);
        case REPORT_ENDED:
                return 0;
        default:
                return -ECONNRESET;
        }
}

struct ready {
        struct worker_report report;
        char schema[WIRE_MAX_REPORT - sizeof(struct worker_report)];
};

static int read_ready(struct trial *t, struct ready *m, size_t bytes, char *text) {
        struct worker_report *report = &m->report;
        snprintf(text, WIRE_TEXT, "the worker reports nonsense");
        if (bytes < sizeof *report || report->version != WIRE_VERSION)
                return -EPROTO;
        if (report->type == REPORT_FAILED) {
                report->text[sizeof report->text - 1] = 0;
                snprintf(text, WIRE_TEXT, "%s", report->text);
                return report->error > 0 && report->error < 4096 ? -report->error : -EPROTO;
        }
        if (report->type != REPORT_READY || report->text_bytes != bytes - sizeof *report || !t->sandbox[0])
                return -EPROTO;
        memcpy(t->build_id, report->build_id, sizeof t->build_id - 1);
        return schema_parse(m->schema, report->text_bytes, &t->schema, text, WIRE_TEXT) < 0 ? -EPROTO : 0;
}

static int read_closed(struct trial *t, const struct worker_report *report, char *text) {
        snprintf(text, WIRE_TEXT, "the worker closes its sandbox twice");
        if (t->sandbox[0])
                return -EPROTO;
        memcpy(t->sandbox, report->sandbox, sizeof t->sandbox - 1);
        return 1;
}

static int poll_timeout_ms(uint64_t deadline_ns) {
        uint64_t now_ns = event_now_ns();
        if (deadline_ns == EVENT_FOREVER)
                return -1;
        return deadline_ns <= now_ns ? 0 : (int)((deadline_ns - now_ns) / 1000000 + 1);
}

/* 0: something of these, or its end, is there. */
static int await_control(const struct trial *t, short events, uint64_t deadline_ns) {
        struct pollfd p = {.fd = t->control_fd, .events = events};
        int n;
        while ((n = poll(&p, 1, poll_timeout_ms(deadline_ns))) < 0 && errno == EINTR)
                ;
        return n == 0 ? -ETIMEDOUT : 0;
}

/* 1: it was about an arena or the sandbox, and something else comes. */
static int await_report(struct trial *t, struct ready *m, uint64_t deadline_ns, char *text) {
        size_t bytes = 0;
        int r = await_control(t, POLLIN, deadline_ns);
        if (r < 0) {
                const char *where = words_phase(atomic_load(&t->line->start_phase));
                where = *where ? where : "before the plugin was loaded, in a library that it needs perhaps";
                snprintf(text, WIRE_TEXT, "it was not ready in time: it hangs %s", where);
                return r;
        }
        r = packet_receive(t->control_fd, m, sizeof *m, &bytes, NULL, NULL);
        if (r < 0 || bytes == 0)
                return -ECONNRESET;
        if (bytes == sizeof m->report && m->report.version == WIRE_VERSION && m->report.type == REPORT_ARENA) {
                r = answer_arena(t, &m->report);
                return r < 0 ? r : 1;
        }
        if (bytes == sizeof m->report && m->report.version == WIRE_VERSION && m->report.type == REPORT_CLOSED)
                return read_closed(t, &m->report, text);
        return read_ready(t, m, bytes, text);
}

int trial_await_ready(struct trial *t, uint64_t deadline_ns, char *text) {
        struct ready *m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;
        int r;
        while ((r = await_report(t, m, deadline_ns, text)) > 0)
                ;
        free(m);
        return r;
}

int trial_open(struct trial *t) {
        const struct worker_order bell = {.type = ORDER_BELL, .version = WIRE_VERSION};
        const struct worker_order channel = {
                .type = ORDER_CHANNEL, .version = WIRE_VERSION, .n_slots = TRIAL_SLOTS, .slot_bytes = TRIAL_SLOT_BYTES};
        atomic_store_explicit(&t->line->command, WORKER_RUN, memory_order_release);
        int r = give_order(t, &bell, &t->bell_fd, 1);
        const int fds[] = {t->channel_fds[CHANNEL_COMMON], t->channel_fds[CHANNEL_JOBS],
                           t->channel_fds[CHANNEL_RESULTS], t->done.ring_fd};
        return r < 0 ? r : give_order(t, &channel, fds, 4);
}

void trial_retire(struct trial *t) {
        atomic_store_explicit(&t->line->command, WORKER_RETIRE, memory_order_release);
        event_broadcast(&t->line->control);
}

int trial_await_end(struct trial *t, uint64_t deadline_ns) {
        return await_control(t, 0, deadline_ns); /* what it still says is nobody's */
}

/* ---- jobs ---- */

int trial_begin(struct trial *t, uint32_t slot) { return channel_begin(&t->channel, slot); }

int trial_commit(struct trial *t, uint32_t slot, uint32_t type, size_t bytes, uint32_t priority) {
        *channel_job(&t->channel, slot) = (struct layout_job){
                .type = type < t->schema->n_jobs ? t->schema->jobs[type].number : type,
                .bytes = (uint32_t)bytes,
                .priority = priority,
                .id = slot + 1,
                .queued_ns = event_now_ns(),
        };
        int r = channel_commit(&t->channel, slot, priority);
        if (r >= 0)
                bell_ring(t->bell, 0, t->doorbell.ring_fd);
        return r;
}

void trial_set_attempt(struct trial *t, uint32_t slot, uint32_t attempt) {
        uint64_t word = channel_word(&t->channel, slot);
        channel_cas(&t->channel, slot, word,
                    SLOT_WORD(SLOT_QUEUED, slot_flags(word), attempt, SLOT_OWNER_NONE, slot_generation(word)));
}

int trial_wait(struct trial *t, uint32_t slot, uint64_t deadline_ns, uint64_t *ret_word) {
        for (;;) {
                doorbell_clear(t->done.hear_fd);
                channel_wait_begin(&t->channel, DONE_DOORBELL);
                uint64_t word = channel_word(&t->channel, slot);
                if (slot_is_verdict(word)) {
                        channel_wait_end(&t->channel);
                        take_items(t); /* they stand before the verdict */
                        *ret_word = word;
                        return 0;
                }
                struct pollfd p[] = {{.fd = t->done.hear_fd, .events = POLLIN},
                                     {.fd = t->control_fd, .events = POLLIN},
                                     {.fd = t->items_fd, .events = POLLIN}};
                int r = poll(p, 3, poll_timeout_ms(deadline_ns));
                if (r == 0)
                        return -ETIMEDOUT;
                if (r > 0 && p[2].revents)
                        take_items(t);
                if (r > 0 && p[1].revents && !slot_is_verdict(channel_word(&t->channel, slot)) && read_report(t) < 0)
                        return -ECONNRESET;
        }
}
