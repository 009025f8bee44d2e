/* Owns the pool of the tests of healing, its two workers and its client. What the client does is what
 * ipc/client/session/session.c does. */
#include "tests/unit/heal-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/values/args.h"
#include "tests/unit/host-fixture.h"

enum { IDLE_MS = 200 };

struct pool *pool;
struct stand_in honest, wild; /* workers 0 and 1 */
struct session_owner owner;
struct pool_channel *session; /* the client's; NULL: it has none */
const char *plugin = "cancellable", *job_type = "work";
uint32_t client_slot;
static struct session_offer offer;
static uint32_t client_generation;
const char *what; /* is tried, for who reads of a failure */
unsigned n_tries, n_late;
bool all_are_done; /* false: what is written may be a verdict */
const char *only;  /* DROVER_TEST_ONLY=: what begins so, and nothing else */
uint64_t value, seed;

/* ---- workers ---- */

static struct stand_in real(void) {
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
void care(void) {
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
        honest = real();
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

struct job *submit(uint64_t ms, uint64_t ahead_ms, uint64_t hard_ns) {
        char payload[64];
        struct job_request r = {
                .pool = pool,
                .name = job_type,
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

struct job_info info_of(const struct job *j) {
        struct job_info info;
        job_get_info(j, &info);
        return info;
}

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

void close_session(void) {
        supervisor_end_sessions(&owner);
        session_offer_close(&offer);
        session = NULL;
}

static bool session_is_over(void) { return owner.first == NULL; }

/* As ipc/client/session/session.c does it: a slot that is free by its books is taken, whatever stands there, and a hint
 * that no ring takes is owed. */
void client_submit(void) {
        struct channel *c = &session->channel;
        if (channel_begin(c, client_slot) < 0) {
                atomic_store(&c->slots[client_slot].word,
                             SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, client_generation + 1));
                EXPECT(channel_begin(c, client_slot) == 0);
        }
        client_generation = slot_generation(channel_word(c, client_slot));
        *channel_job(c, client_slot) = (struct layout_job){
                .type = schema_find(pool->schema, job_type, NULL)->number,
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

bool client_is_done(void) {
        return !session_is_over() && slot_state(channel_word(&session->channel, client_slot)) == SLOT_DONE;
}

/* ---- one case ---- */

static struct loop_timer idle_timer;
static void on_idle_over(struct loop_timer *t) { loop_exit(t->loop, 0); }

void two_workers(struct pool_config *c) {
        c->n_workers = 2;
        c->n_slots = 16;
        c->max_attempts = 50;
        c->restart_ns = 0;
        c->start_limit_burst = 1000000;
        c->result_ttl_ns = 0;
}

void begin_with(void (*change)(struct pool_config *c)) {
        static char schema[4096];
        what = "nothing";
        all_are_done = true;
        n_tries = n_late = 0;
        pool = add_pool(change);
        load();
        honest = real();
        snprintf(schema, sizeof(schema), "%.*s", (int)pool->schema_bytes, pool->schema_text);
        worker_schema = schema;
        wild = ready();
        open_session();
}

void finish(void) {
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

/* Every word that is the broker's. */
static bool memory_is_right(void) {
        for (uint32_t i = 0; i < pool->n_bells; i++) {
                const struct pool_bell *b = &pool->bells[i];
                bool is_placeless = atomic_load(&pool->memory->placeless[i / 64]) >> i % 64 & 1;
                if (!b->memory)
                        continue;
                if (b->has_place == is_placeless || atomic_load(&b->memory->mode) != BELL_FUTEX ||
                    b->memory->header.magic != LAYOUT_MAGIC_BELL || atomic_load(&b->memory->front) == 0)
                        return false;
        }
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct pool_channel *c = pool->channels[i];
                if (c && !c->is_dead &&
                    (atomic_load(&c->channel.head->closed) != CHANNEL_OPEN ||
                     atomic_load(&c->channel.head->queue_timeout_ns) != pool->config.queue_timeout_ns ||
                     c->channel.head->header.magic != LAYOUT_MAGIC_CHANNEL ||
                     c->channel.head->header.n_slots != c->channel.geometry.n_slots))
                        return false;
        }
        for (uint32_t i = 0; i < LAYOUT_BELL_WORDS; i++)
                if (atomic_load(&pool->memory->muted[i]) != 0)
                        return false;
        const struct layout_worker *line = worker_line(supervisor_find_worker(supervisor, honest.id));
        return pool->memory->header.magic == LAYOUT_MAGIC_POOL && pool->memory->has_timer == 1 &&
               atomic_load(&pool->memory->rate_ns) == pool->config.rate_ns &&
               atomic_load(&line->command) == WORKER_RUN && atomic_load(&line->max_claims) == 0;
}

static void client_submit_anew(void) {
        if (session_is_over()) {
                close_session();
                open_session();
        }
        client_submit();
}

/* A worker that looks at the channel before it is mended says that it makes no sense, and then its session is over. */
static bool client_is_served(void) {
        if (session_is_over())
                client_submit_anew();
        return client_is_done();
}

void serves(void) {
        visit();
        struct job *j = submit(0, 0, 0);
        uint64_t id = j->id;
        WITHIN_A_SECOND(info_of(jobs_find(supervisor->jobs, id)).state == SLOT_DONE);
        client_submit_anew();
        WITHIN_A_SECOND(client_is_served());
        EXPECT(channel_free(&session->channel, client_slot) == 0);
}

/* Jobs are there, `scribble` writes, the worker that it stands for dies. */
void try(const char *name, uint64_t written, void (*scribble)(void *at), void *at) {
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
        WITHIN_A_SECOND(memory_is_right());
        wild = ready();
}

/* ---- what is written, and where ---- */

uint64_t some(void) { /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

/* Memories, wherever they are at the moment: a session may have to be opened anew. */
const struct channel *own(void) { return &pool->channels[0]->channel; }
const struct channel *clients(void) { return &session->channel; }
void *in_pool(void) { return pool->memory; }
void *in_line_0(void) { return &pool->memory->worker[0]; }
void *in_line_1(void) { return &pool->memory->worker[1]; }
void *in_own_bell(void) { return pool->bells[0].memory; }
void *in_clients_bell(void) { return pool->bells[session->bell].memory; }
void *in_own(void) { return own()->maps[CHANNEL_COMMON]; }
void *in_clients(void) { return clients()->maps[CHANNEL_COMMON]; }

const struct channel *spoilt;

void fill(void *at, size_t bytes) {
        for (size_t i = 0; i < bytes / 8; i++)
                ((uint64_t *)at)[i] = value == 2 ? some() : value;
}

void scribble_common(void *unused) { fill(spoilt->maps[CHANNEL_COMMON], spoilt->geometry.bytes[CHANNEL_COMMON]); }

void scribble_some_bytes(void *at) {
        for (unsigned i = 0; i < 64; i++)
                ((uint8_t *)at)[some() % LAYOUT_PAGE] = (uint8_t)some();
}

int heal_main(const struct CMUnitTest *tests, size_t n_tests) {
        const char *given = getenv("DROVER_TEST_SEED");
        seed = given ? strtoull(given, NULL, 0) : event_now_ns();
        only = getenv("DROVER_TEST_ONLY");
        print_message("DROVER_TEST_SEED=%llu\n", (unsigned long long)seed);
        return _cmocka_run_group_tests("heal", tests, n_tests, NULL, NULL);
}
