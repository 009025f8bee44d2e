/* The session's own state against a hostile worker and a hostile broker, in process: each round is a session on which
 * all three do at random what they can, on the channel's memory and on the session socket.
 *
 * What must hold: each job has at most one result, and it is this job's; a descriptor or a memory file that a result
 * has was sent for it; no call lasts past its deadline for long; and when the session is freed, no descriptor and no
 * mapping is left. Each memory file that is sent holds the number of the job that it is for. DROVER_FUZZ_SEEDS says how
 * many rounds there are, DROVER_TEST_SEED which one is the only one. */
#include "tests/unit/session-fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"
#include "ipc/wire.h"

enum { DEFAULT_SEEDS = 150, STEPS = 300, MAX_JOBS = STEPS + 1, MAX_ANSWERS = 8, LARGE = 2 * BYTES };

/* No call waits for longer than a millisecond, but for rings that were written over, and the machine. */
#define CALL_NS UINT64_C(5000000000)

struct round {
        struct daemon *d;
        struct session *s;
        unsigned seed;
        uint64_t random;
        uint64_t n_jobs;
        bool is_under_way[MAX_JOBS]; /* by the job's number, from 1 on */
        uint32_t slot_of[MAX_JOBS], generation_of[MAX_JOBS];
        struct session_packet answered[MAX_ANSWERS]; /* to be given once more */
        unsigned n_answered;
        bool is_over;
};

static uint64_t any(struct round *t, uint64_t n) {
        t->random ^= t->random << 13;
        t->random ^= t->random >> 7;
        t->random ^= t->random << 17;
        return (t->random >> 11) % n;
}

#define HOLDS(t, condition)                                                                                            \
        do {                                                                                                           \
                if (!(condition))                                                                                      \
                        fail_msg("seed %u: %s", (t)->seed, #condition);                                                \
        } while (0)

/* ---- what is open ---- */

static unsigned count_open(void) {
        unsigned n = 0;
        DIR *folder = opendir("/proc/self/fd");
        assert_non_null(folder);
        while (readdir(folder))
                n++;
        closedir(folder);
        return n;
}

static unsigned count_mapped(void) {
        char line[512];
        unsigned n = 0;
        FILE *f = fopen("/proc/self/maps", "re");
        assert_non_null(f);
        while (fgets(line, sizeof line, f))
                n += strstr(line, "memfd:hostile") != NULL;
        fclose(f);
        return n;
}

/* A memory file with the job's number. */
static int make_file(uint64_t job) {
        int fd;
        assert_int_equal(sealed_create("hostile", &job, sizeof job, &fd), 0);
        return fd;
}

static uint64_t number_in(int fd) {
        uint64_t job = 0;
        return pread(fd, &job, sizeof job, 0) == sizeof job ? job : 0;
}

/* ---- the client ---- */

static void check_descriptors(struct round *t, const struct session_fds *f, uint64_t job) {
        uint64_t number;
        HOLDS(t, f->error == 0);
        for (unsigned i = 0; i < f->n_fds; i++)
                HOLDS(t, number_in(f->fds[i]) == job);
        if (f->mapped) {
                memcpy(&number, f->mapped, sizeof number);
                HOLDS(t, number == job);
        }
}

static void check_result(struct round *t, const struct session_result *r) {
        HOLDS(t, r->user >= 1 && r->user <= t->n_jobs && t->is_under_way[r->user]);
        HOLDS(t, r->slot == t->slot_of[r->user] && r->state >= SLOT_DONE && r->state < SLOT_N_STATES);
        t->is_under_way[r->user] = false;
        if (r->state != SLOT_DONE)
                HOLDS(t, !r->fds && (!r->data || r->bytes <= BYTES));
        if (r->fds)
                check_descriptors(t, r->fds, r->user);
        struct session_fds *f = any(t, 2) ? session_take_fds(t->s) : NULL;
        HOLDS(t, !f || f == r->fds);
        session_fds_free(f);
}

static void submit(struct round *t) {
        char payload[LARGE] = "\x81\xa3"
                              "end"
                              "\x00";
        int fd = any(t, 3) == 0 ? make_file(t->n_jobs + 1) : -1;
        const struct session_job job = {
                .type = (uint32_t)any(t, 3),
                .priority = (uint32_t)any(t, LAYOUT_PRIORITIES + 1),
                .payload = payload,
                .bytes = any(t, 4) == 0 ? LARGE : 6,
                .fds = &fd,
                .n_fds = fd >= 0,
                .user = t->n_jobs + 1,
                .queue_deadline_ns = any(t, 8) == 0 ? event_now_ns() + any(t, 1000000) : 0,
                .not_before_ns = any(t, 8) == 0 ? event_now_ns() + any(t, 1000000) : 0,
                .is_held = any(t, 16) == 0,
        };
        uint32_t slot;
        if (session_submit(t->s, &job, &slot) == 0) {
                t->n_jobs++;
                t->is_under_way[t->n_jobs] = true;
                t->slot_of[t->n_jobs] = slot;
                t->generation_of[t->n_jobs] = slot_generation(channel_word(&t->d->broker, slot));
        }
        if (fd >= 0)
                close(fd);
}

static void fetch(struct round *t) {
        struct session_result r;
        uint64_t deadline_ns = any(t, 4) == 0 ? event_now_ns() + 1000000 : 0;
        int got = any(t, 3) ? session_next(t->s, &r, deadline_ns)
                            : session_wait(t->s, (uint32_t)any(t, SLOTS + 1), &r, deadline_ns);
        if (got == 1)
                check_result(t, &r);
        t->is_over = got == -EPIPE;
}

static void look(struct round *t) {
        uint32_t slot = (uint32_t)any(t, SLOTS + 1);
        uint64_t deadline_ns;
        switch (any(t, 6)) {
        case 0:
                session_cancel(t->s, slot);
                break;
        case 1:
                session_cancel_queued(t->s, slot);
                break;
        case 2:
                session_let_go(t->s, slot, 0);
                break;
        case 3:
                session_arm(t->s, &deadline_ns);
                session_woken(t->s);
                break;
        case 4:
                t->is_over = session_process(t->s) == -EPIPE;
                break;
        default:
                session_look_at(t->s, slot);
        }
}

static void act_as_client(struct round *t) {
        uint64_t since_ns = event_now_ns();
        uint32_t n = 0;
        switch (any(t, 5)) {
        case 0:
        case 1:
                submit(t);
                break;
        case 2:
        case 3:
                fetch(t);
                break;
        default:
                look(t);
        }
        HOLDS(t, event_now_ns() - since_ns < CALL_NS);
        for (uint64_t job = 1; job <= t->n_jobs; job++)
                n += t->is_under_way[job];
        HOLDS(t, n == session_in_flight(t->s));
}

/* ---- the worker ---- */

static void write_line(struct round *t, uint32_t slot) {
        *channel_result(&t->d->worker, slot) = (struct layout_result){
                .bytes = any(t, 4) == 0 ? (uint32_t)any(t, 4 * BYTES) : 6,
                .error = (int32_t)any(t, 200) - 50,
                .pid = 4711,
                .generation = slot_generation(channel_word(&t->d->worker, slot)),
                .started_ns = any(t, 1000),
                .finished_ns = any(t, 1000),
                .has_fds = any(t, 3) > 0,
        };
        memcpy(channel_result_data(&t->d->worker, slot),
               "\x81\xa3"
               "end"
               "\x00",
               6);
}

/* Another word for the same job; before its verdict seldom any, because that ends the session. */
static uint64_t write_word(struct round *t, uint32_t slot) {
        static const unsigned owners[] = {SLOT_OWNER_NONE, SLOT_OWNER_WORKER0 + WORKER, SLOT_OWNER_CLIENT,
                                          SLOT_OWNER_BROKER};
        uint64_t word = channel_word(&t->d->worker, slot);
        uint32_t generation = slot_generation(word);
        unsigned seldom = slot_is_verdict(word) ? 8 : 256;
        if (any(t, seldom) == 0)
                generation += (uint32_t)any(t, 3) - 1;
        unsigned state = any(t, 4) == 0 ? SLOT_DONE : (unsigned)(SLOT_QUEUED + any(t, SLOT_N_STATES - SLOT_QUEUED));
        if (any(t, seldom) == 0)
                state = (unsigned)any(t, 16);
        unsigned flags = any(t, 16) == 0 ? (unsigned)any(t, 64) : 0;
        return SLOT_WORD(state, flags, 1, owners[any(t, 4)], generation);
}

static void act_as_worker(struct round *t) {
        struct channel *c = &t->d->worker;
        uint32_t slot = (uint32_t)any(t, SLOTS);
        uint64_t word;
        switch (any(t, 6)) {
        case 0:
        case 1:
        case 2:
                if (channel_claim(c, INDEX, WORKER, false, event_now_ns(), &t->d->record, -1, &slot, &word) !=
                    CHANNEL_CLAIMED)
                        return;
                write_line(t, slot);
                channel_finish(c, slot, word, any(t, 5) ? SLOT_DONE : SLOT_FAILED, t->d->done.ring_fd);
                return;
        case 3:
                write_line(t, slot);
                return;
        case 4:
                atomic_store(&c->done[0], UINT64_MAX);
                return;
        default:
                atomic_store(&c->slots[slot].word, write_word(t, slot));
                channel_announce(c, slot, t->d->done.ring_fd);
                if (any(t, 512) == 0)
                        atomic_store(&c->ring[any(t, LAYOUT_PRIORITIES)].shared->tail, any(t, UINT64_MAX));
                if (any(t, 512) == 0)
                        atomic_store(&c->head->closed, (uint32_t)any(t, 3));
        }
}

/* ---- the broker ---- */

/* The first job that was there in this generation, or 0. */
static uint64_t job_at(const struct round *t, uint32_t slot, uint32_t generation) {
        for (uint64_t job = 1; job <= t->n_jobs; job++)
                if (t->slot_of[job] == slot && t->generation_of[job] == generation)
                        return job;
        return 0;
}

/* To that question, or to another one; what is sent is for the job that it names. */
static void answer(struct round *t, const struct session_packet *wanted) {
        struct session_packet p = *wanted;
        int fds[PACKET_MAX_FDS];
        unsigned n = (unsigned)any(t, 3);
        p.type = SESSION_RESULT;
        p.error = 0;
        p.payload_bytes = n > 0 && any(t, 2) ? sizeof(uint64_t) : 0;
        switch (any(t, 12)) {
        case 0:
                p.payload_bytes = any(t, 32); /* which the file has not, if there is one */
                break;
        case 1:
                p.error = (int32_t)any(t, 100) - 50;
                break;
        case 2:
                p.generation += 1 - 2 * (uint32_t)any(t, 2);
                break;
        case 3:
                p.slot = (uint32_t)any(t, SLOTS + 2);
                break;
        case 4:
                p.version++;
                break;
        case 5:
                p.type = (enum session_packet_type)any(t, 6);
                break;
        default:
                break;
        }
        uint64_t job = job_at(t, p.slot, p.generation);
        n = job ? n : 0; /* of a job to come nobody knows yet what is its own */
        for (unsigned i = 0; i < n; i++)
                fds[i] = make_file(job);
        t->answered[t->n_answered++ % MAX_ANSWERS] = p;
        packet_send(t->d->sockets[0], &p, any(t, 24) ? sizeof p : sizeof p / 2, fds, n);
        for (unsigned i = 0; i < n; i++)
                close(fds[i]);
}

/* What the session says; each question gets an answer, or none. */
static void hear(struct round *t) {
        struct session_packet p;
        size_t bytes;
        for (;;) {
                int fds[PACKET_MAX_FDS];
                unsigned n = PACKET_MAX_FDS;
                int r = packet_receive(t->d->sockets[0], &p, sizeof p, &bytes, fds, &n);
                if (r < 0 || bytes == 0)
                        return;
                for (unsigned i = 0; i < n; i++)
                        close(fds[i]);
                HOLDS(t, bytes == sizeof p && p.slot < SLOTS);
                if (p.type == SESSION_WANT && any(t, 16))
                        answer(t, &p);
        }
}

static void act_as_broker(struct round *t) {
        char large[sizeof(struct session_packet) + 1] = "";
        unsigned n = t->n_answered < MAX_ANSWERS ? t->n_answered : MAX_ANSWERS;
        hear(t);
        switch (any(t, 24)) {
        case 0: /* too long: all that is under way is lost */
                packet_send(t->d->sockets[0], large, sizeof large, NULL, 0);
                break;
        case 1:
        case 2:
        case 3: /* an old one once more */
                if (n > 0)
                        answer(t, &t->answered[any(t, n)]);
                break;
        case 4:
                channel_mend_rings(&t->d->broker, t->random);
                break;
        case 5:
                channel_end_quarantine(&t->d->broker, (uint32_t)any(t, SLOTS));
                break;
        case 6:
                if (any(t, 8) == 0) { /* killed: the next one adopts the channel */
                        close(t->d->sockets[0]);
                        close(t->d->sockets[1]);
                        assert_int_equal(packet_pair(t->d->sockets), 0);
                }
                break;
        default:
                break;
        }
}

/* ---- rounds ---- */

/* Descriptors that jobs and results hold are the session's, and bounded, whatever is said. */
static void play(unsigned seed) {
        void *state;
        unsigned n_open = count_open();
        session_setup(&state);
        struct round *t = calloc(1, sizeof *t);
        t->d = state;
        t->seed = seed;
        t->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
        t->s = session_fixture_open(t->d);
        session_set_spin(t->s, false);
        unsigned n_most = count_open() + (SLOTS + 1) * SCHEMA_MAX_FDS;
        for (unsigned i = 0; i < STEPS && !t->is_over; i++) {
                unsigned who = (unsigned)any(t, 4);
                if (who < 2)
                        act_as_client(t);
                else if (who == 2)
                        act_as_worker(t);
                else
                        act_as_broker(t);
        }
        HOLDS(t, count_open() <= n_most && count_mapped() <= SLOTS + 1);
        session_teardown(&state);
        HOLDS(t, count_open() == n_open);
        HOLDS(t, count_mapped() == 0);
        free(t);
}

static void test_the_sessions_own_state(void **state) {
        const char *seeds = getenv("DROVER_FUZZ_SEEDS"), *only = getenv("DROVER_TEST_SEED");
        unsigned first = only ? (unsigned)strtoul(only, NULL, 10) : 1;
        unsigned n = only ? 1 : seeds ? (unsigned)strtoul(seeds, NULL, 10) : DEFAULT_SEEDS;
        for (unsigned i = 0; i < n; i++)
                play(first + i);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_sessions_own_state),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
