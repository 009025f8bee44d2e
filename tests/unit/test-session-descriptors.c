/* Descriptors that belong to a result: the session asks the daemon for them, and closes those that nobody takes. */
#include "tests/unit/session-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/wire.h"

static void finish_with_fds(struct daemon *d) {
        uint32_t slot;
        uint64_t word = session_fixture_claim(d, &slot);
        *channel_result(&d->worker, slot) = (struct layout_result){.has_fds = 1, .pid = 4711};
        assert_int_equal(channel_finish(&d->worker, slot, word, SLOT_DONE, d->done.ring_fd), 0);
}

/* The result line says that something belongs to it, and the daemon says why it is not to be had. */
static void test_what_belongs_to_a_result_is_not_to_be_had(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        struct session_packet p;
        size_t bytes;
        session_fixture_submit(s, 0, "x", 0);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        assert_int_equal(packet_receive(d->sockets[0], &p, sizeof p, &bytes, NULL, NULL), 0);
        assert_int_equal(p.type, SESSION_WANT);
        p.type = SESSION_RESULT;
        p.error = ETOOMANYREFS;
        assert_int_equal(packet_send(d->sockets[0], &p, sizeof p, NULL, 0), 0);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(r.state, SLOT_FAILED);
        assert_int_equal(r.error, ETOOMANYREFS);
        assert_null(r.fds);
        assert_non_null(strstr((const char *)r.data, "is not to be had"));
}

static bool hears(struct daemon *d, enum session_packet_type type, struct session_packet *ret) {
        size_t bytes;
        while (packet_receive(d->sockets[0], ret, sizeof *ret, &bytes, NULL, NULL) == 0)
                if (ret->type == type)
                        return true;
        return false;
}

/* One descriptor for a result; *ret_fd is readable for as long as anybody holds it. */
static void answer_with_a_descriptor(struct daemon *d, int *ret_fd) {
        struct session_packet p;
        int ends[2];
        assert_true(hears(d, SESSION_WANT, &p));
        p.type = SESSION_RESULT;
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(packet_send(d->sockets[0], &p, sizeof p, &ends[1], 1), 0);
        close(ends[1]);
        *ret_fd = ends[0];
}

static bool is_held_by_anybody(int fd) {
        char byte;
        return read(fd, &byte, 1) < 0 && errno == EAGAIN;
}

/* What came for a verdict that is another one when it is fetched, or makes no sense then, is closed: no later job has
 * it. */
static void test_what_came_for_a_verdict_that_changed(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint64_t deadline_ns;
        int fd;
        for (unsigned round = 0; round < 3; round++) {
                uint32_t slot = session_fixture_submit(s, 0, "x", 1);
                finish_with_fds(d);
                assert_int_equal(session_next(s, &r, 0), 0);
                answer_with_a_descriptor(d, &fd);
                assert_true(session_arm(s, &deadline_ns));
                uint64_t word = channel_word(&d->worker, slot);
                if (round == 0)
                        atomic_store(&d->worker.slots[slot].word, (word & ~UINT64_C(0xf)) | SLOT_FAILED);
                else if (round == 1)
                        atomic_store(&d->worker.slots[slot].word, (word & ~UINT64_C(0xf)) | SLOT_CANCELLED);
                else
                        channel_result(&d->worker, slot)->bytes = BYTES + 1;
                assert_int_equal(session_next(s, &r, 0), 1);
                assert_true(r.state != SLOT_DONE);
                assert_null(r.fds);
                assert_null(session_take_fds(s));
                assert_false(is_held_by_anybody(fd));
                close(fd);

                assert_int_equal(session_fixture_submit(s, 0, "y", 2), slot);
                session_fixture_work(d, SLOT_DONE, 0, "Y", 1);
                assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
                assert_int_equal(r.state, SLOT_DONE);
                assert_null(r.fds);
                assert_int_equal(r.bytes, 1);
        }
        session_fixture_submit(s, 0, "z", 3); /* a result that a later one follows, of whatever kind */
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        answer_with_a_descriptor(d, &fd);
        session_fixture_submit(s, 0, "f", 4);
        session_fixture_work(d, SLOT_FAILED, EIO, "no", 2);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_int_equal(session_next(s, &r, EVENT_FOREVER), 1);
        assert_false(is_held_by_anybody(fd));
        close(fd);
}

/* Somebody closed all descriptors: their numbers are others' by now, also that of one that came for a verdict. */
static void test_what_came_before_all_descriptors_were_closed(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_result r;
        uint64_t deadline_ns;
        int fd;
        session_fixture_submit(s, 0, "x", 1);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        answer_with_a_descriptor(d, &fd);
        int number = dup(fd);
        close(number);
        assert_true(session_arm(s, &deadline_ns)); /* it came as that number */
        assert_true(is_held_by_anybody(fd));
        assert_int_equal(dup2(STDIN_FILENO, number), number);
        assert_false(is_held_by_anybody(fd));
        session_lose_fds(s);
        d->session = session_free(s);
        assert_int_not_equal(fcntl(number, F_GETFD), -1);
        close(number);
        close(fd);
}

/* A daemon that reads what was sent a moment late, and answers. */
static void *answer_late(void *user) {
        struct daemon *d = user;
        struct session_packet p;
        for (unsigned i = 0; i < 200; i++) {
                poll(NULL, 0, 50);
                if (!hears(d, SESSION_WANT, &p))
                        continue;
                p.type = SESSION_RESULT;
                p.error = EIO;
                packet_send(d->sockets[0], &p, sizeof p, NULL, 0);
                return user;
        }
        return NULL;
}

static void fill_socket(struct session *s) {
        const struct session_packet other = {.type = SESSION_ENDED, .version = WIRE_VERSION};
        while (packet_send(session_fd(s), &other, sizeof other, NULL, 0) == 0)
                ;
}

/* Its socket is full when it wants to ask: it asks when there is room, and nothing else has to happen. */
static void test_asks_when_there_is_room(void **state) {
        struct daemon *d = *state;
        struct session *s = session_fixture_open(d);
        struct session_packet p;
        struct session_result r;
        pthread_t thread;
        uint64_t deadline_ns;
        void *answered;
        fcntl(d->sockets[0], F_SETFL, O_NONBLOCK);
        session_fixture_submit(s, 0, "x", 0);
        fill_socket(s);
        finish_with_fds(d);
        assert_int_equal(session_next(s, &r, 0), 0);
        pthread_create(&thread, NULL, answer_late, d);
        assert_int_equal(session_next(s, &r, event_now_ns() + UINT64_C(10000000000)), 1);
        assert_int_equal(r.error, EIO);
        pthread_join(thread, &answered);
        assert_non_null(answered);

        session_fixture_submit(s, 0, "y", 0); /* the same in a loop of the caller's own */
        fill_socket(s);
        finish_with_fds(d);
        assert_false(session_arm(s, &deadline_ns));
        assert_true(deadline_ns != EVENT_FOREVER);
        assert_false(hears(d, SESSION_WANT, &p));
        session_woken(s);
        assert_true(hears(d, SESSION_WANT, &p));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                SESSION_TEST(test_what_belongs_to_a_result_is_not_to_be_had),
                SESSION_TEST(test_what_came_for_a_verdict_that_changed),
                SESSION_TEST(test_what_came_before_all_descriptors_were_closed),
                SESSION_TEST(test_asks_when_there_is_room),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
