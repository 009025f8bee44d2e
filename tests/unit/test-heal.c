/* A worker writes anything into what it shares with its pool, and dies: the pool serves again, within a second.
 *
 * The broker is in this process, so are the wild writes; the worker that dies is a stand-in, the one that must go on
 * serving is a real drover-worker. Before each wild write it runs a job, and others wait: over the bus, in a client's
 * channel, until a time to come. Afterwards all of them have a verdict, and new ones of each kind are done. */
#include "tests/unit/supervise-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/supervise/job.h"
#include "ipc/args.h"
#include "ipc/bell.h"
#include "ipc/event.h"
#include "tests/unit/host-fixture.h"

enum { CLIENT_UID = 12345, RUN_MS = 3, AHEAD_MS = 6, IDLE_MS = 200, PATIENCE_S = 20 };
#define SECOND (1000 * MS)

static struct pool *pool;
static struct stand_in honest, wild; /* workers 0 and 1 */
static struct session_owner owner;
static struct pool_channel *session; /* the client's; NULL: it has none */
static struct session_offer offer;
static uint32_t client_slot, client_generation;
static const char *what; /* is tried, for who reads of a failure */
static unsigned n_tries, n_late;
static bool all_are_done; /* false: what is written may be a verdict */
static const char *only;  /* DROVER_TEST_ONLY=: what begins so, and nothing else */
static uint64_t value;

/* ---- workers ---- */

static struct stand_in real(const char *plugin) {
        struct spawn_request q = expect(SPAWN_START);
        int fd;
        pid_t pid = host_fixture_start("worker", plugin, &fd);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        answer((struct spawn_event){.type = SPAWN_STARTED, .worker = q.worker, .pid = pid}, (int[]){pidfd, fd}, 2);
        close(pidfd);
        close(fd);
        UNTIL(supervisor_find_worker(supervisor, q.worker)->phase == PHASE_READY);
        return (struct stand_in){q.worker, pid, -1};
}

/* A worker that was told nonsense may end. Then another one is started, as the spawner would. */
static void care(void) {
        int status;
        if (waitpid(honest.pid, &status, WNOHANG) != honest.pid)
                return;
        answer((struct spawn_event){.type = SPAWN_EXITED,
                                    .worker = honest.id,
                                    .pid = honest.pid,
                                    .code = WIFEXITED(status) ? CLD_EXITED : CLD_KILLED,
                                    .status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)},
               NULL, 0);
        UNTIL(!supervisor_find_worker(supervisor, honest.id));
        honest = real("cancellable");
}

static uint64_t cpu_ms(pid_t pid) {
        char path[32], text[1024];
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, text, sizeof(text) - 1);
        close(fd);
        assert_true(n > 0);
        text[n] = 0;
        const char *p = strrchr(text, ')');
        assert_int_equal(sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
        return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* ---- jobs over the bus ---- */

static size_t put_ms(void *to, uint64_t ms) {
        struct args_writer w;
        size_t bytes;
        args_writer_init(&w, to, 64);
        args_put(&w, "ms", &(struct args_value){.type = SCHEMA_U64, .u64 = ms});
        assert_int_equal(args_finish(&w, &bytes), 0);
        return bytes;
}

static struct job *submit(uint64_t ms, uint64_t ahead_ms, uint64_t hard_ns) {
        char payload[64];
        struct job_request r = {
                .pool = pool,
                .name = "work",
                .payload = payload,
                .bytes = put_ms(payload, ms),
                .priority = LAYOUT_PRIORITY_DEFAULT,
                .hard_ns = hard_ns,
        };
        struct job *j;
        struct fault f;
        if (ahead_ms > 0) {
                struct timespec now;
                clock_gettime(CLOCK_REALTIME, &now);
                r.not_before_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 + ahead_ms * 1000;
        }
        if (job_submit(&r, &j, &f) < 0)
                fail_msg("%s = %llx: %s", what, (unsigned long long)value, f.text);
        return j;
}

static struct job_info info_of(const struct job *j) {
        struct job_info info;
        job_get_info(j, &info);
        return info;
}

#define EXPECT(condition)                                                                                              \
        do {                                                                                                           \
                if (!(condition))                                                                                      \
                        fail_msg("%s = %llx: not so: %s", what, (unsigned long long)value, #condition);                \
        } while (0)

/* On a busy machine a process may get no CPU for a second: that is late, and must be rare. Never is something else. */
#define WITHIN_A_SECOND(condition)                                                                                     \
        do {                                                                                                           \
                uint64_t since_ns = event_now_ns();                                                                    \
                bool is_so;                                                                                            \
                while (!(is_so = (condition)) && event_now_ns() - since_ns < PATIENCE_S * SECOND) {                    \
                        turn();                                                                                        \
                        care();                                                                                        \
                }                                                                                                      \
                if (!is_so)                                                                                            \
                        fail_msg("%s = %llx: never: %s", what, (unsigned long long)value, #condition);                 \
                n_late += event_now_ns() - since_ns > SECOND;                                                          \
        } while (0)

/* ---- jobs of a client ---- */

static void open_session(void) {
        struct fault f;
        bool wait;
        const struct session_request q = {.pool = pool, .uid = CLIENT_UID, .owner = &owner};
        if (supervisor_open_session(supervisor, &q, &offer, &wait, &f) < 0)
                fail_msg("%s = %llx: %s", what, (unsigned long long)value, f.text);
        session = pool->channels[offer.channel];
        client_slot = 0;
}

static void close_session(void) {
        supervisor_end_sessions(&owner);
        session_offer_close(&offer);
        session = NULL;
}

static bool session_is_over(void) { return owner.first == NULL; }

/* As ipc/client/session.c does it: a slot that is free by its books is taken, whatever stands there, and a hint that no
 * ring takes is owed. */
static void client_submit(void) {
        struct channel *c = &session->channel;
        if (channel_begin(c, client_slot) < 0) {
                atomic_store(&c->slots[client_slot].word,
                             SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, client_generation + 1));
                EXPECT(channel_begin(c, client_slot) == 0);
        }
        client_generation = slot_generation(channel_word(c, client_slot));
        *channel_job(c, client_slot) = (struct layout_job){
                .type = schema_find(pool->schema, "work", NULL)->number,
                .bytes = (uint32_t)put_ms(channel_payload(c, client_slot), 0),
                .priority = LAYOUT_PRIORITY_DEFAULT,
                .queued_ns = event_now_ns(),
        };
        EXPECT(channel_accept(c, client_slot, LAYOUT_PRIORITY_DEFAULT) != -EBUSY);
        bell_ring(pool->bells[session->bell].memory, session->index, offer.doorbell_fd);
}

/* As the client library knows it: by a word that cannot be, its session is over, too. */
static bool client_is_told(void) {
        if (session_is_over())
                return true;
        uint64_t word = channel_word(&session->channel, client_slot);
        return slot_is_verdict(word) || slot_generation(word) != client_generation || slot_state(word) < SLOT_QUEUED ||
               slot_state(word) >= SLOT_N_STATES;
}

static bool client_is_done(void) {
        return !session_is_over() && slot_state(channel_word(&session->channel, client_slot)) == SLOT_DONE;
}

/* ---- one case ---- */

static struct loop_timer idle_timer;
static void on_idle_over(struct loop_timer *t) { loop_exit(t->loop, 0); }

static void two_workers(struct pool_config *c) {
        c->n_workers = 2;
        c->n_slots = 16;
        c->max_attempts = 50;
        c->restart_ns = 0;
        c->start_limit_burst = 1000000;
        c->result_ttl_ns = 0;
}

static void begin_with(void (*change)(struct pool_config *c)) {
        static char schema[4096];
        what = "nothing";
        all_are_done = true;
        n_tries = n_late = 0;
        pool = add_pool(change);
        load();
        honest = real("cancellable");
        snprintf(schema, sizeof(schema), "%.*s", (int)pool->schema_bytes, pool->schema_text);
        worker_schema = schema;
        wild = ready();
        open_session();
}

static void finish(void) {
        EXPECT(n_late <= 2 + n_tries / 20);
        uint64_t before_ms = cpu_ms(honest.pid), spent_ms = (uint64_t)clock() * 1000 / CLOCKS_PER_SEC;
        for (uint64_t until_ns = event_now_ns() + IDLE_MS * MS; event_now_ns() < until_ns;) {
                loop_timer_set(loop, &idle_timer, until_ns, on_idle_over, NULL);
                loop_run(loop);
        }
        loop_timer_stop(&idle_timer);
        EXPECT(cpu_ms(honest.pid) - before_ms < IDLE_MS / 4); /* nobody spins */
        EXPECT((uint64_t)clock() * 1000 / CLOCKS_PER_SEC - spent_ms < IDLE_MS / 4);
        close_session();
        end(&wild, CLD_KILLED, SIGKILL);
        end(&honest, CLD_KILLED, SIGKILL);
}

/* Another client: the workers are told, and read what pool memory tells them. */
static void visit(void) {
        struct session_owner visitor = {0};
        struct session_offer its;
        struct fault f;
        bool wait;
        const struct session_request q = {.pool = pool, .uid = CLIENT_UID + 1, .owner = &visitor};
        if (supervisor_open_session(supervisor, &q, &its, &wait, &f) < 0)
                fail_msg("%s = %llx: %s", what, (unsigned long long)value, f.text);
        supervisor_end_sessions(&visitor);
        session_offer_close(&its);
}

static void serves(void) {
        visit();
        struct job *j = submit(0, 0, 0);
        uint64_t id = j->id;
        WITHIN_A_SECOND(info_of(jobs_find(supervisor->jobs, id)).state == SLOT_DONE);
        if (session_is_over()) {
                close_session();
                open_session();
        }
        client_submit();
        WITHIN_A_SECOND(client_is_done());
        EXPECT(channel_free(&session->channel, client_slot) == 0);
}

/* Jobs are there, `scribble` writes, the worker that it stands for dies. */
static void try(const char *name, uint64_t written, void (*scribble)(void *at), void *at) {
        if (only && strncmp(name, only, strlen(only)) != 0)
                return;
        what = name;
        value = written;
        n_tries++;
        struct job *jobs[] = {submit(RUN_MS, 0, 0), submit(0, 0, 0), submit(0, AHEAD_MS, 0)};
        WITHIN_A_SECOND(info_of(jobs[0]).state == SLOT_RUNNING || jobs[0]->is_finished);
        client_submit();
        scribble(at);
        end(&wild, CLD_KILLED, SIGSEGV);
        for (unsigned i = 0; i < 3; i++)
                WITHIN_A_SECOND(jobs[i]->is_finished);
        for (unsigned i = 0; all_are_done && i < 3; i++)
                EXPECT(info_of(jobs[i]).state == SLOT_DONE);
        WITHIN_A_SECOND(client_is_told());
        EXPECT(!all_are_done || client_is_done());
        if (!session_is_over())
                channel_free(&session->channel, client_slot); /* if it is what it should be */
        serves();
        wild = ready();
}

/* ---- words ---- */

static uint64_t seed;

static uint64_t some(void) { /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static void write_u32(void *word) { atomic_store((_Atomic uint32_t *)word, (uint32_t)value); }
static void write_u64(void *word) { atomic_store((_Atomic uint64_t *)word, value); }

/* Memories, wherever they are at the moment: a session may have to be opened anew. */
static const struct channel *own(void) { return &pool->channels[0]->channel; }
static const struct channel *clients(void) { return &session->channel; }
static void *in_pool(void) { return pool->memory; }
static void *in_line_0(void) { return &pool->memory->worker[0]; }
static void *in_line_1(void) { return &pool->memory->worker[1]; }
static void *in_own_bell(void) { return pool->bells[0].memory; }
static void *in_clients_bell(void) { return pool->bells[session->bell].memory; }
static void *in_own(void) { return own()->maps[CHANNEL_COMMON]; }
static void *in_clients(void) { return clients()->maps[CHANNEL_COMMON]; }

struct word {
        const char *name;
        size_t offset, bytes; /* of one word: 4 or 8 */
        unsigned n;
};

#define SIZE_OF(type, field) sizeof(((struct type *)0)->field)
#define WORD(type, field)                                                                                              \
        { #type "." #field, offsetof(struct type, field), SIZE_OF(type, field), 1 }
#define WORDS(type, field)                                                                                             \
        {                                                                                                              \
#type "." #field, offsetof(struct type, field), SIZE_OF(type, field[0]),                               \
                        SIZE_OF(type, field) / SIZE_OF(type, field[0])                                                 \
        }
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* 0, 1, all ones, the top bit, one by chance; and what stands there, changed a little. */
static void try_word(const char *name, void *(*memory)(void), size_t offset, size_t bytes) {
        void *word = (char *)memory() + offset;
        uint64_t now = bytes == 4 ? atomic_load((_Atomic uint32_t *)word) : atomic_load((_Atomic uint64_t *)word);
        const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << (8 * bytes - 1), some(), now + 1, now - 1};
        for (unsigned i = 0; i < COUNT(values); i++)
                try(name, values[i], bytes == 4 ? write_u32 : write_u64, (char *)memory() + offset);
}

static void try_words(const struct word *words, unsigned n_words, void *(*memory)(void)) {
        char name[64];
        for (unsigned i = 0; i < n_words; i++)
                for (unsigned k = 0; k < words[i].n; k++) {
                        snprintf(name, sizeof(name), "%s[%u]", words[i].name, k);
                        try_word(name, memory, words[i].offset + k * words[i].bytes, words[i].bytes);
                }
}

static void test_words_of_the_pool(void **state) {
        static const struct word words[] = {
                WORD(layout_pool, header.magic), WORD(layout_pool, header.version), WORD(layout_pool, rate_ns),
                WORD(layout_pool, rate_next_ns), WORDS(layout_pool, placeless),     WORD(layout_pool, armed),
                WORD(layout_pool, has_timer),    WORDS(layout_pool, muted),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_pool);
        finish();
}

static void a_rate(struct pool_config *c) {
        two_workers(c);
        c->rate_ns = MS;
}

static void test_words_of_a_rate(void **state) {
        static const struct word words[] = {WORD(layout_pool, rate_ns), WORD(layout_pool, rate_next_ns)};
        begin_with(a_rate);
        try_words(words, COUNT(words), in_pool);
        finish();
}

static void test_words_of_a_line(void **state) {
        static const struct word words[] = {
                WORD(layout_worker, control),
                WORD(layout_worker, command),
                WORD(layout_worker, soft_hit),
                WORD(layout_worker, max_claims),
                WORD(layout_worker, pad0),
                WORD(layout_worker, last_job),
                WORD(layout_worker, last_started_ns),
                WORD(layout_worker, last_finished_ns),
                WORD(layout_worker, last_type),
                WORD(layout_worker, last_end),
                WORD(layout_worker, record),
                WORD(layout_worker, claims),
                WORD(layout_worker, fault_signal),
                WORD(layout_worker, fault_syscall),
                WORD(layout_worker, fault_address),
                WORD(layout_worker, fault_offset),
                WORDS(layout_worker, counts),
                WORD(layout_worker, progress_done),
                WORD(layout_worker, progress_total),
                WORD(layout_worker, status_seq),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_line_0); /* numbers 0 and 1 are taken by either, as they die */
        try_words(words, COUNT(words), in_line_1);
        finish();
}

static void test_words_of_a_bell(void **state) {
        static const struct word words[] = {
                WORD(layout_bell, header.magic), WORD(layout_bell, header.version), WORDS(layout_bell, seq),
                WORD(layout_bell, mode),         WORD(layout_bell, rises),          WORD(layout_bell, woken),
                WORD(layout_bell, front),        WORDS(layout_bell, sleepers),      WORDS(layout_bell, spinners),
                WORDS(layout_bell, work),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_own_bell);
        try_words(words, COUNT(words), in_clients_bell);
        finish();
}

static void try_channel(const char *name, void *(*memory)(void)) {
        static const struct word words[] = {
                WORD(layout_channel, header.magic),   WORD(layout_channel, header.version),
                WORD(layout_channel, header.n_slots), WORD(layout_channel, header.slot_bytes),
                WORD(layout_channel, done_seq),       WORD(layout_channel, done_wait),
                WORD(layout_channel, closed),         WORD(layout_channel, submitted),
                WORD(layout_channel, cancelled),      WORD(layout_channel, expired),
                WORD(layout_channel, delayed),        WORD(layout_channel, queue_timeout_ns),
                WORD(layout_channel, ring[0].head),   WORD(layout_channel, ring[0].tail),
                WORD(layout_channel, ring[1].head),   WORD(layout_channel, ring[1].tail),
                WORD(layout_channel, ring[2].head),   WORD(layout_channel, ring[2].tail),
                WORD(layout_channel, ring[3].head),   WORD(layout_channel, ring[3].tail),
        };
        struct channel_geometry g = own()->geometry; /* all have the same */
        char text[64];
        try_words(words, COUNT(words), memory);
        for (uint32_t slot = 0; slot < g.n_slots; slot += 5) {
                snprintf(text, sizeof(text), "%s: slot %u", name, slot);
                try_word(text, memory, g.slots + slot * sizeof(struct layout_slot), 8);
        }
        for (uint32_t cell = LAYOUT_PRIORITY_DEFAULT * g.n_cells; cell < 2 * g.n_cells; cell += 31) {
                snprintf(text, sizeof(text), "%s: cell %u", name, cell);
                try_word(text, memory, g.cells + cell * sizeof(uint64_t), 8);
        }
        snprintf(text, sizeof(text), "%s: done bits", name);
        try_word(text, memory, g.done, 8);
}

static void test_our_own_channel(void **state) {
        begin_with(two_workers);
        all_are_done = false;
        try_channel("own", in_own);
        finish();
}

static void test_a_clients_channel(void **state) {
        begin_with(two_workers);
        all_are_done = false;
        try_channel("client's", in_clients);
        finish();
}

/* ---- the words that say most, with the values that say something ---- */

static const struct channel *spoilt;

static void scribble_live_slots(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++)
                if (slot_state(channel_word(spoilt, slot)) != SLOT_FREE)
                        atomic_store(&spoilt->slots[slot].word, value);
}

/* `value`: state, flags and owner; the generation is the one that stands there. */
static void scribble_live_states(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++) {
                uint64_t word = channel_word(spoilt, slot);
                if (slot_state(word) != SLOT_FREE)
                        atomic_store(&spoilt->slots[slot].word,
                                     (uint64_t)slot_generation(word) << 32 | (uint32_t)value);
        }
}

static void test_slots_of_jobs(void **state) {
        static const unsigned owners[] = {0, 1, 2, 3, 257, SLOT_OWNER_CLIENT, SLOT_OWNER_BROKER};
        begin_with(two_workers);
        all_are_done = false;
        for (unsigned k = 0; k < 2; k++) {
                for (unsigned i = 0; i < 4; i++) {
                        spoilt = k ? clients() : own();
                        try("words of jobs", (uint64_t[]){0, UINT64_MAX, 1, some()}[i], scribble_live_slots, NULL);
                }
                for (unsigned state_of = 0; state_of < 16; state_of++) {
                        spoilt = k ? clients() : own();
                        try("states of jobs", SLOT_WORD(state_of, 0, 1, owners[state_of % COUNT(owners)], 0),
                            scribble_live_states, NULL);
                        spoilt = k ? clients() : own();
                        try("states of jobs", SLOT_WORD(state_of, SLOT_QUARANTINE, 2, SLOT_OWNER_NONE, 0),
                            scribble_live_states, NULL);
                }
                for (unsigned i = 0; i < COUNT(owners); i++) {
                        spoilt = k ? clients() : own();
                        try("owners of jobs", SLOT_WORD(SLOT_RUNNING, 0, 1, owners[i], 0), scribble_live_states, NULL);
                }
        }
        finish();
}

/* ---- much at once ---- */

static void fill(void *at, size_t bytes) {
        for (size_t i = 0; i < bytes / 8; i++)
                ((uint64_t *)at)[i] = value == 2 ? some() : value;
}

static void scribble_common(void *unused) {
        fill(spoilt->maps[CHANNEL_COMMON], spoilt->geometry.bytes[CHANNEL_COMMON]);
}

static void scribble_rings(void *unused) {
        fill(spoilt->head->ring, sizeof(spoilt->head->ring));
        fill((char *)spoilt->head + spoilt->geometry.cells, spoilt->geometry.slots - spoilt->geometry.cells);
}

static void scribble_slots(void *unused) { fill(spoilt->slots, spoilt->geometry.n_slots * sizeof(*spoilt->slots)); }

/* Words that can be, at places where they are not. */
static void scribble_states(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++) {
                uint64_t word = channel_word(spoilt, slot), chance = some();
                atomic_store(&spoilt->slots[slot].word,
                             SLOT_WORD(chance % SLOT_N_STATES, chance >> 8 & 0xf, chance >> 16 & 1, chance >> 24 & 3,
                                       slot_generation(word) + (chance >> 32 & 1)));
        }
}

/* Every cell names the same job, in its turn. */
static void scribble_hints(void *unused) {
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++) {
                const struct ring *r = &spoilt->ring[i];
                atomic_store(&r->shared->head, 0);
                atomic_store(&r->shared->tail, r->n_cells);
                for (uint32_t k = 0; k < r->n_cells; k++)
                        atomic_store(&r->cells[k], UINT64_C(1) << 32 | value);
        }
}

static void scribble_some_bytes(void *at) {
        for (unsigned i = 0; i < 64; i++)
                ((uint8_t *)at)[some() % LAYOUT_PAGE] = (uint8_t)some();
}

static void scribble_all(void *unused) {
        fill(pool->memory, offsetof(struct layout_pool, worker[4]));
        for (uint32_t i = 0; i < pool->n_bells; i++)
                if (pool->bells[i].memory)
                        fill(pool->bells[i].memory, LAYOUT_PAGE);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (pool->channels[i]) {
                        spoilt = &pool->channels[i]->channel;
                        scribble_common(NULL);
                }
}

static void test_much_at_once(void **state) {
        static void (*const ways[])(void *) = {scribble_common, scribble_rings, scribble_slots, scribble_states,
                                               scribble_hints};
        static void *(*const pages[])(void) = {in_own, in_clients, in_own_bell, in_clients_bell, in_pool, in_line_0};
        begin_with(two_workers);
        all_are_done = false;
        for (unsigned k = 0; k < COUNT(ways); k++)
                for (unsigned i = 0; i < 6; i++) {
                        uint64_t filler = (uint64_t[]){0, UINT64_MAX, 2, 1, 2, 2}[i];
                        spoilt = own();
                        try("our own channel", filler, ways[k], NULL);
                        spoilt = clients();
                        try("a client's channel", filler, ways[k], NULL);
                }
        for (unsigned i = 0; i < 12 * COUNT(pages); i++)
                try("bytes", i, scribble_some_bytes, pages[i % COUNT(pages)]());
        for (unsigned i = 0; i < 12; i++)
                try("all", i % 4, scribble_all, NULL);
        finish();
}

int main(void) {
        const char *given = getenv("DROVER_TEST_SEED");
        seed = given ? strtoull(given, NULL, 0) : event_now_ns();
        only = getenv("DROVER_TEST_ONLY");
        print_message("DROVER_TEST_SEED=%llu\n", (unsigned long long)seed);
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_words_of_the_pool, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_rate, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_line, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_bell, setup, teardown),
                cmocka_unit_test_setup_teardown(test_our_own_channel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_clients_channel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slots_of_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_much_at_once, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
