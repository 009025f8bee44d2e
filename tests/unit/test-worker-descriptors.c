/* Descriptors of jobs and results between client, broker and worker, when the kernel does not carry them. */
#include "tests/unit/supervise-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"

/* ---- a kernel that refuses to carry descriptors ---- */

static struct {
        int error;      /* of packets with descriptors */
        int bare_error; /* of those without */
        unsigned n, n_refused;
} refusal;

static void refuse(int error, unsigned n) {
        refusal.error = error;
        refusal.bare_error = 0;
        refusal.n = n;
        refusal.n_refused = 0;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) {
        int error = m->msg_controllen > 0 ? refusal.error : refusal.bare_error;
        if (error != 0 && refusal.n > 0) {
                refusal.n--;
                refusal.n_refused++;
                errno = error;
                return -1;
        }
        return syscall(SYS_sendmsg, fd, m, flags);
}

/* ---- a client with one job, and its worker ---- */

static struct session_owner client;

struct scene {
        struct pool *pool;
        struct pool_channel *c;
        struct stand_in w;
        int client_fd;
        uint32_t slot, generation;
        uint64_t word;
};

static void claim(struct scene *s) {
        assert_int_equal(channel_claim(&s->c->channel, s->c->index, 0, false, event_now_ns(),
                                       &s->pool->memory->worker[0].record, -1, &s->slot, &s->word),
                         CHANNEL_CLAIMED);
}

static void say(const struct scene *s, uint32_t type, const int *fds, unsigned n_fds) {
        const struct session_packet p = {
                .type = type, .version = WIRE_VERSION, .slot = s->slot, .generation = s->generation};
        assert_int_equal(packet_send(s->client_fd, &p, sizeof(p), fds, n_fds), 0);
}

/* A job in that slot, claimed by the worker. */
static void queue(struct scene *s, uint32_t slot) {
        assert_int_equal(channel_begin(&s->c->channel, slot), 0);
        assert_int_equal(channel_mark_fds(&s->c->channel, slot), 0);
        assert_int_equal(channel_commit(&s->c->channel, slot, 1), 0);
        claim(s);
        assert_int_equal(s->slot, slot);
        s->generation = slot_generation(s->word);
}

static void many_slots(struct pool_config *c) { c->n_slots = 16; }

/* A job with two descriptors, of which the broker knows, claimed by the worker. */
static struct scene begin(void) {
        struct scene s = {.pool = add_pool(many_slots)};
        struct session_offer offer;
        struct fault f;
        bool wait;
        load();
        s.w = ready();
        const struct session_request q = {.pool = s.pool, .uid = 1, .owner = &client};
        assert_int_equal(supervisor_open_session(supervisor, &q, &offer, &wait, &f), 0);
        s.client_fd = offer.socket_fd;
        channel_close(offer.memory_fds);
        fcntl(s.client_fd, F_SETFL, O_NONBLOCK);
        s.c = pool_channel_at(s.pool, offer.channel);
        s.generation = slot_generation(channel_word(&s.c->channel, 0)) + 1;
        say(&s, SESSION_FDS, (int[]){STDERR_FILENO, STDERR_FILENO}, 2);
        queue(&s, 0);
        return s;
}

static void finish(struct scene *s) {
        refuse(0, 0);
        supervisor_end_sessions(&client);
        close(s->client_fd);
        end(&s->w, CLD_KILLED, SIGKILL);
}

static void tell(const struct scene *s, enum worker_report_type type, const int *fds, unsigned n_fds) {
        struct worker_report r = {.type = type,
                                  .version = WIRE_VERSION,
                                  .channel = s->c->index,
                                  .slot = s->slot,
                                  .generation = s->generation};
        assert_int_equal(packet_send(s->w.fd, &r, sizeof(r), fds, n_fds), 0);
}

static bool hear(const struct scene *s, enum worker_order_type type, struct worker_order *ret, unsigned *ret_n_fds) {
        size_t bytes;
        int fds[PACKET_MAX_FDS];
        do {
                *ret_n_fds = PACKET_MAX_FDS;
                if (packet_receive(s->w.fd, ret, sizeof(*ret), &bytes, fds, ret_n_fds) < 0)
                        return false;
                for (unsigned i = 0; i < *ret_n_fds; i++)
                        close(fds[i]);
        } while (ret->type != type);
        return true;
}

static bool hear_client(const struct scene *s, struct session_packet *ret, unsigned *ret_n_fds) {
        size_t bytes;
        int fds[PACKET_MAX_FDS];
        *ret_n_fds = PACKET_MAX_FDS;
        if (packet_receive(s->client_fd, ret, sizeof(*ret), &bytes, fds, ret_n_fds) < 0)
                return false;
        for (unsigned i = 0; i < *ret_n_fds; i++)
                close(fds[i]);
        return bytes == sizeof(*ret);
}

/* ---- the tests ---- */

static int setup_scene(void **state) {
        refuse(0, 0);
        client = (struct session_owner){0};
        return setup(state);
}

/* As ipc/PROTOCOL.md says: who runs a job is what the slot's word and the worker's record say, and it writes both. */
static void test_it_has_those_of_any_job_that_it_says_it_runs(void **state) {
        struct worker_order order;
        unsigned n_fds;
        struct scene s = begin();
        const struct channel *c = &s.c->channel;
        s.slot = 1;
        s.generation = slot_generation(channel_word(c, 1)) + 1;
        say(&s, SESSION_FDS, (int[]){STDERR_FILENO, STDERR_FILENO}, 2);
        assert_int_equal(channel_begin(c, 1), 0);
        assert_int_equal(channel_mark_fds(c, 1), 0);
        assert_int_equal(channel_commit(&s.c->channel, 1, 1), 0); /* another worker might claim it */
        tell(&s, REPORT_FDS, NULL, 0);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(order.error, ESTALE);
        assert_int_equal(n_fds, 0);
        atomic_store(&c->slots[1].word, SLOT_WORD(SLOT_RUNNING, SLOT_HAS_FDS, 1, SLOT_OWNER_WORKER0, s.generation));
        atomic_store(&s.pool->memory->worker[0].record, (uint64_t)s.generation << 32 | (uint64_t)s.c->index << 16 | 1);
        tell(&s, REPORT_FDS, NULL, 0);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(order.error, 0);
        assert_int_equal(n_fds, 2);
        finish(&s);
}

static void test_refused_for_a_moment(void **state) {
        struct worker_order order;
        unsigned n_fds;
        struct scene s = begin();
        refuse(ETOOMANYREFS, 5);
        tell(&s, REPORT_FDS, NULL, 0);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(refusal.n_refused, 5);
        assert_int_equal(order.error, 0);
        assert_int_equal(n_fds, 2);
        finish(&s);
}

static void test_refused_for_good(void **state) {
        struct worker_order order;
        unsigned n_fds;
        struct scene s = begin();
        refuse(ETOOMANYREFS, UINT32_MAX);
        tell(&s, REPORT_FDS, NULL, 0);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(order.error, ETOOMANYREFS);
        assert_int_equal(n_fds, 0);
        tell(&s, REPORT_ENDED, NULL, 0); /* it may go on to speak */
        turns(5);
        assert_int_equal(supervisor_find_worker(supervisor, s.w.id)->phase, PHASE_READY);
        finish(&s);
}

/* Nor does a channel get lost, nor an answer without descriptors. */
/* A worker that has no descriptor left ends; how often its job was tried then. */
static unsigned attempt_after_full(uint64_t n_done) {
        struct worker_order order;
        unsigned n_fds;
        struct scene s = begin();
        struct worker_report full = {.type = REPORT_FAILED, .version = WIRE_VERSION, .error = EMFILE};
        channel_job(&s.c->channel, 0)->type = s.pool->schema->jobs[0].number; /* which may be tried again */
        atomic_store(&s.pool->memory->worker[0].counts[SLOT_DONE], n_done);
        tell(&s, REPORT_FDS, NULL, 0);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(packet_send(s.w.fd, &full, sizeof(full), NULL, 0), 0);
        end(&s.w, CLD_EXITED, 1);
        uint64_t word = channel_word(&s.c->channel, 0);
        assert_int_equal(slot_state(word), SLOT_QUEUED);
        s.w = ready();
        finish(&s);
        return slot_attempt(word);
}

/* Earlier jobs leaked them: the next worker has room. */
static void test_a_full_worker_is_not_the_jobs_fault(void **state) { assert_int_equal(attempt_after_full(1), 1); }

/* So it would be with the next worker, without an end. */
static void test_one_that_was_full_from_its_start_is(void **state) { assert_int_equal(attempt_after_full(0), 2); }

static void test_other_orders_are_sent_later(void **state) {
        struct worker_order order;
        unsigned n_fds;
        struct scene s = begin();
        struct session_offer offer;
        struct fault f;
        bool wait;
        while (hear(&s, ORDER_CHANNEL, &order, &n_fds))
                ;
        refuse(ENOMEM, 3);
        const struct session_request q = {.pool = s.pool, .uid = 1, .owner = &client};
        assert_int_equal(supervisor_open_session(supervisor, &q, &offer, &wait, &f), 0);
        UNTIL(hear(&s, ORDER_CHANNEL, &order, &n_fds));
        assert_int_equal(order.channel, offer.channel);
        assert_int_equal(n_fds, 4);
        session_offer_close(&offer);

        s.generation++; /* not the job it runs */
        tell(&s, REPORT_FDS, NULL, 0);
        refuse(0, 3);
        refusal.bare_error = ENOBUFS;
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(refusal.n_refused, 3);
        assert_int_equal(order.error, ESTALE);
        finish(&s);
}

static int try_to_hand_over(struct scene *s, unsigned n) {
        struct worker_order order;
        unsigned n_fds;
        int fds[PACKET_MAX_FDS];
        for (unsigned i = 0; i < n; i++)
                fds[i] = STDERR_FILENO;
        tell(s, REPORT_RESULT, fds, n);
        UNTIL(hear(s, ORDER_FDS, &order, &n_fds));
        return order.error;
}

static void hand_over(struct scene *s, unsigned n) {
        assert_int_equal(try_to_hand_over(s, n), 0);
        assert_int_equal(channel_finish(&s->c->channel, s->slot, s->word, SLOT_DONE, -1), 0);
}

static void test_a_result_refused_for_a_moment(void **state) {
        struct session_packet answer;
        unsigned n_fds;
        struct scene s = begin();
        hand_over(&s, 1);
        refuse(ENOMEM, 5);
        say(&s, SESSION_WANT, NULL, 0);
        UNTIL(hear_client(&s, &answer, &n_fds));
        assert_int_equal(answer.error, 0);
        assert_int_equal(n_fds, 1);
        assert_non_null(s.c->session);
        finish(&s);
}

static void test_a_result_refused_for_good(void **state) {
        struct session_packet answer;
        unsigned n_fds;
        struct scene s = begin();
        hand_over(&s, 1);
        refuse(ETOOMANYREFS, UINT32_MAX);
        say(&s, SESSION_WANT, NULL, 0);
        UNTIL(hear_client(&s, &answer, &n_fds));
        assert_int_equal(answer.error, ETOOMANYREFS);
        assert_int_equal(n_fds, 0);
        assert_non_null(s.c->session);
        finish(&s);
}

/* Who asks again instead of waiting is none of ours. */
static void test_asked_again_while_it_is_refused(void **state) {
        struct scene s = begin();
        hand_over(&s, 1);
        refuse(ENOMEM, UINT32_MAX);
        say(&s, SESSION_WANT, NULL, 0);
        UNTIL(refusal.n_refused > 0);
        say(&s, SESSION_WANT, NULL, 0);
        UNTIL(s.c->is_dead);
        finish(&s);
}

/* 64 descriptors of results at most. What its client has fetched counts no more, though nobody told us yet. */
static void test_results_that_were_fetched_make_room(void **state) {
        struct scene s = begin();
        hand_over(&s, 7);
        for (uint32_t slot = 1; slot < 9; slot++) {
                queue(&s, slot);
                hand_over(&s, 7);
        }
        queue(&s, 9);
        assert_int_equal(try_to_hand_over(&s, 2), EDQUOT);
        assert_int_equal(channel_free(&s.c->channel, 4), 0);
        assert_int_equal(try_to_hand_over(&s, 7), 0);
        assert_int_equal(s.c->descriptors.n_fds[DESCRIPTORS_OF_RESULT], 63);
        assert_int_equal(channel_finish(&s.c->channel, s.slot, s.word, SLOT_DONE, -1), 0);

        assert_int_equal(channel_free(&s.c->channel, 0), 0);
        queue(&s, 0); /* the next life of that slot */
        hand_over(&s, 7);
        queue(&s, 10);
        assert_int_equal(try_to_hand_over(&s, 2), EDQUOT);

        struct worker_order order; /* one more, and the file of a long result, which does not count */
        unsigned n_fds;
        int file;
        assert_int_equal(sealed_create("test", "x", 1, &file), 0);
        const struct worker_report r = {.type = REPORT_RESULT,
                                        .version = WIRE_VERSION,
                                        .channel = s.c->index,
                                        .slot = s.slot,
                                        .generation = s.generation,
                                        .payload_bytes = 1};
        assert_int_equal(packet_send(s.w.fd, &r, sizeof(r), (int[]){file, STDERR_FILENO}, 2), 0);
        close(file);
        UNTIL(hear(&s, ORDER_FDS, &order, &n_fds));
        assert_int_equal(order.error, 0);
        assert_int_equal(s.c->descriptors.n_fds[DESCRIPTORS_OF_RESULT], 64);
        descriptors_drop(s.c, DESCRIPTORS_OF_RESULT, s.slot);
        assert_int_equal(s.c->descriptors.n_fds[DESCRIPTORS_OF_RESULT], 63);
        finish(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_it_has_those_of_any_job_that_it_says_it_runs, setup_scene,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_refused_for_a_moment, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_refused_for_good, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_a_full_worker_is_not_the_jobs_fault, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_one_that_was_full_from_its_start_is, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_other_orders_are_sent_later, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_a_result_refused_for_a_moment, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_a_result_refused_for_good, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_asked_again_while_it_is_refused, setup_scene, teardown),
                cmocka_unit_test_setup_teardown(test_results_that_were_fetched_make_room, setup_scene, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
