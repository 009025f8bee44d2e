/* Clients and workers as threads of one process over one mapping: what a thread sanitizer can see
 * (-Db_sanitize=thread), which between processes it cannot. Each thread has its own struct channel, as each process
 * has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/client/session/session-internal.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

enum { CLIENTS = 2, WORKERS = 3, SLOTS = 16, JOBS = 200000, JOBS_MENDED = 20000, LATE = 5 };

#define STUCK_NS UINT64_C(60000000000)

struct pool {
        struct layout_bell *bell;
        struct channel channels[CLIENTS];
        int bell_fd, channel_fds[CLIENTS][CHANNEL_PARTS];
        struct doorbell doorbell, dones[CLIENTS];
        uint64_t n_jobs; /* of a client */
        _Atomic uint64_t record[WORKERS];
        _Atomic bool stop;
        _Atomic uint32_t n_cancelled;
};

struct thread {
        pthread_t id;
        struct pool *pool;
        uint32_t index;
        const char *error;
};

static void run(struct channel *c, uint32_t slot, uint64_t word, int done_fd) {
        uint64_t n;
        memcpy(&n, channel_payload(c, slot), sizeof n);
        n = n * 7 + 1;
        memcpy(channel_result_data(c, slot), &n, sizeof n);
        *channel_result(c, slot) = (struct layout_result){.bytes = sizeof n, .generation = slot_generation(word)};
        bool is_cancelled = slot_flags(channel_word(c, slot)) & SLOT_CANCEL;
        if (channel_finish(c, slot, word, is_cancelled ? SLOT_CANCELLED : SLOT_DONE, done_fd) < 0)
                abort();
}

static bool has_reason(struct pool *p) { return bell_has_work(p->bell) || atomic_load(&p->stop); }

static void *work(void *argument) {
        struct thread *t = argument;
        struct pool *p = t->pool;
        struct channel channels[CLIENTS];
        memcpy(channels, p->channels, sizeof channels);
        for (unsigned n = 0; !atomic_load(&p->stop); n++) {
                bool ran = false;
                for (uint32_t i = 0; i < CLIENTS; i++) {
                        uint32_t slot;
                        uint64_t word;
                        if (!bell_channel_has_work(p->bell, i))
                                continue;
                        int r = channel_claim(&channels[i], i, t->index, false, event_now_ns(), &p->record[t->index],
                                              p->dones[i].ring_fd, &slot, &word);
                        if (!channel_has_work(&channels[i])) {
                                bell_clear_work(p->bell, i);
                                if (channel_has_work(&channels[i]))
                                        bell_mark_work(p->bell, i);
                        }
                        if (r != CHANNEL_CLAIMED)
                                continue;
                        bell_pass_on(p->bell);
                        run(&channels[i], slot, word, p->dones[i].ring_fd);
                        ran = true;
                }
                if (ran)
                        continue;
                bell_spin_begin(p->bell, t->index);
                for (unsigned i = 0; i < 50 * (n % 2) && !has_reason(p); i++)
                        event_pause();
                bell_spin_end(p->bell, t->index);
                struct event_wait wait = bell_sleep_begin(p->bell, t->index);
                if (!has_reason(p))
                        event_wait(wait.word, wait.seen, EVENT_FOREVER);
                bell_sleep_end(p->bell, t->index);
        }
        return NULL;
}

static const char *fetch(struct pool *p, struct session *s) {
        struct session_result r;
        if (session_next(s, &r, event_now_ns() + STUCK_NS) != 1)
                return "a job got no verdict";
        if (r.state == SLOT_CANCELLED) {
                atomic_fetch_add(&p->n_cancelled, 1);
                return NULL;
        }
        uint64_t n;
        if (r.state != SLOT_DONE || r.bytes != sizeof n)
                return "not done";
        memcpy(&n, r.data, sizeof n);
        return n == r.user * 7 + 1 ? NULL : "a wrong answer";
}

static void *submit(void *argument) {
        struct thread *t = argument;
        struct pool *p = t->pool;
        static struct schema schema;
        int pair[2];
        struct session *s = calloc(1, sizeof *s);
        if (!s || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                abort();
        s->channel = p->channels[t->index];
        s->bell = p->bell;
        s->index = t->index;
        s->schema = &schema;
        s->doorbell_fd = p->doorbell.ring_fd;
        s->done_fd = p->dones[t->index].hear_fd;
        s->socket_fd = pair[0];
        session_init_slots(s);

        unsigned seed = t->index;
        for (uint64_t n = 0; n < p->n_jobs && !t->error; n++) {
                const struct session_job job = {
                        .priority = (uint32_t)n % LAYOUT_PRIORITIES, .payload = &n, .bytes = sizeof n, .user = n};
                uint32_t slot;
                session_set_spin(s, rand_r(&seed) % 2 == 0);
                if (session_submit(s, &job, &slot) < 0)
                        t->error = "submit failed";
                if (rand_r(&seed) % 8 == 0)
                        session_cancel(s, slot);
                uint32_t window = n % 300 < 100 ? 1 : SLOTS;
                while (session_in_flight(s) >= window && !t->error)
                        t->error = fetch(p, s);
        }
        while (session_in_flight(s) > 0 && !t->error)
                t->error = fetch(p, s);
        if (s->n_rescued > LATE && !t->error) /* a busy machine may hold a waker up now and then */
                t->error = "wake-ups got lost";

        close(pair[0]);
        close(pair[1]);
        free(s->slots);
        free(s->free_slots);
        free(s->n_busy);
        free(s->copy);
        free(s);
        return NULL;
}

/* As the broker after a death, again and again, and worse: rings that are all right begin anew while others push and
 * claim. */
static void *mend(void *argument) {
        struct thread *t = argument;
        struct pool *p = t->pool;
        static const uint64_t all[LAYOUT_BELL_WORDS] = {(1u << WORKERS) - 1};
        static const uint64_t channels_of_bell[LAYOUT_BELL_WORDS] = {(1u << CLIENTS) - 1};
        struct channel channels[CLIENTS];
        memcpy(channels, p->channels, sizeof channels);
        for (unsigned n = 0; !atomic_load(&p->stop); n++) {
                for (uint32_t i = 0; i < CLIENTS; i++) {
                        struct channel *c = &channels[i];
                        for (unsigned k = 0; k < LAYOUT_PRIORITIES; k++)
                                if (!ring_is_sane(&c->ring[k], SLOTS))
                                        t->error = "a ring was told to make no sense";
                        ring_reset(&c->ring[n % LAYOUT_PRIORITIES], event_now_ns());
                        channel_mend_rings(c, event_now_ns());
                        channel_tell_all(c, p->dones[i].ring_fd);
                }
                bell_heal(p->bell, all, channels_of_bell);
                for (uint32_t i = 0; i < CLIENTS; i++)
                        if (channel_has_work(&channels[i]))
                                bell_mark_work(p->bell, i);
                bell_broadcast(p->bell);
                nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
        return NULL;
}

static void test_clients_and_workers(bool is_mended) {
        static struct pool p;
        struct thread workers[WORKERS], clients[CLIENTS], mender = {.pool = &p};
        p = (struct pool){.n_jobs = is_mended ? JOBS_MENDED : JOBS};
        struct channel_geometry g;
        assert_int_equal(channel_geometry_init(&g, SLOTS, 64), 0);
        assert_int_equal(bell_create("test", &p.bell, &p.bell_fd), 0);
        assert_int_equal(doorbell_open(&p.doorbell), 0);
        bell_set_mode(p.bell, BELL_FUTEX);
        for (uint32_t i = 0; i < CLIENTS; i++) {
                assert_int_equal(channel_create(&p.channels[i], &g, "test", p.channel_fds[i]), 0);
                assert_int_equal(doorbell_open(&p.dones[i]), 0);
        }
        for (uint32_t i = 0; i < WORKERS; i++) {
                workers[i] = (struct thread){.pool = &p, .index = i};
                assert_int_equal(pthread_create(&workers[i].id, NULL, work, &workers[i]), 0);
        }
        if (is_mended)
                assert_int_equal(pthread_create(&mender.id, NULL, mend, &mender), 0);
        for (uint32_t i = 0; i < CLIENTS; i++) {
                clients[i] = (struct thread){.pool = &p, .index = i};
                assert_int_equal(pthread_create(&clients[i].id, NULL, submit, &clients[i]), 0);
        }
        for (uint32_t i = 0; i < CLIENTS; i++) {
                pthread_join(clients[i].id, NULL);
                if (clients[i].error)
                        fail_msg("client %u: %s", i, clients[i].error);
        }
        atomic_store(&p.stop, true);
        bell_broadcast(p.bell);
        for (uint32_t i = 0; i < WORKERS; i++)
                pthread_join(workers[i].id, NULL);
        if (is_mended)
                pthread_join(mender.id, NULL);
        if (mender.error)
                fail_msg("%s", mender.error);
        assert_true(atomic_load(&p.n_cancelled) > 0);

        for (uint32_t i = 0; i < CLIENTS; i++) {
                for (uint32_t slot = 0; slot < SLOTS; slot++)
                        assert_int_equal(slot_state(channel_word(&p.channels[i], slot)), SLOT_FREE);
                channel_unmap(&p.channels[i]);
                channel_close(p.channel_fds[i]);
                doorbell_close(&p.dones[i]);
        }
        bell_unmap(p.bell);
        close(p.bell_fd);
        doorbell_close(&p.doorbell);
}

static void test_left_alone(void **state) { test_clients_and_workers(false); }
static void test_mended_all_the_time(void **state) { test_clients_and_workers(true); }

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_left_alone),
                cmocka_unit_test(test_mended_all_the_time),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
