/* No uid gets all of a thing that many share. */
#include "tests/unit/supervise-fixture.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/jobs/jobs.h"

enum { UID = 12345, OTHER = 12346, N_SLOTS = 8 };

static void test_counts(void **state) {
        struct quota q = {0};
        assert_int_equal(quota_take(&q, UID, 3, 4), 0);
        assert_int_equal(quota_take(&q, UID, 2, 4), -EDQUOT);
        assert_true(quota_has_room(&q, UID, 4));
        assert_int_equal(quota_take(&q, UID, 1, 4), 0);
        assert_false(quota_has_room(&q, UID, 4));
        assert_int_equal(quota_take(&q, OTHER, UINT64_MAX, UINT64_MAX), 0);
        assert_int_equal(quota_take(&q, OTHER, 1, UINT64_MAX), -EDQUOT);
        quota_give(&q, UID, 4);
        assert_int_equal(quota_take(&q, UID, 4, 4), 0);
        assert_int_equal(quota_take(&q, 0, 100, 1), 0);
        assert_int_equal(quota_take(&q, geteuid(), 100, 1), 0);
        assert_true(quota_has_room(&q, 0, 0));
        quota_give(&q, 0, 100);
        quota_deinit(&q);
        assert_true(quota_has_room(&q, UID, 1));
}

static void eight_slots(struct pool_config *c) { c->n_slots = N_SLOTS; }

static int submit(struct pool *p, uid_t uid, struct job **ret, struct fault *f) {
        static const char nothing[] = {(char)0x80};
        const struct job_request r = {
                .pool = p, .name = "work", .uid = uid, .payload = nothing, .bytes = 1, .priority = 1};
        return job_submit(&r, ret, f);
}

static void test_half_of_the_slots(void **state) {
        struct pool *p = add_pool(eight_slots);
        struct job *j, *one;
        struct fault f;
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < N_SLOTS / 2; i++)
                assert_int_equal(submit(p, UID, &one, &f), 0);
        assert_false(pool_has_room(p, UID));
        assert_int_equal(submit(p, UID, &j, &f), -1);
        assert_int_equal(f.code, FAULT_QUEUE_FULL);
        assert_non_null(strstr(f.text, "uid 12345 has its share"));
        for (unsigned i = 0; i < N_SLOTS / 2; i++) {
                assert_true(pool_has_room(p, OTHER));
                assert_int_equal(submit(p, OTHER, &j, &f), 0);
        }
        assert_string_equal(job_cancel(one, CANCEL_QUEUED, "a test"), "cancelled");
        assert_true(pool_has_room(p, UID));
        assert_false(pool_has_room(p, OTHER));
        assert_int_equal(job_requeue(one, &f), 0);
        assert_int_equal(submit(p, 0, &j, &f), -1); /* all are taken, also for root */
        assert_string_equal(job_cancel(one, CANCEL_QUEUED, "a test"), "cancelled");
        assert_int_equal(submit(p, 0, &j, &f), 0);
        assert_int_equal(submit(p, UID, &j, &f), -1); /* that very slot */
        end(&w, CLD_EXITED, 0);
}

static struct session_owner client;
static int sockets[LAYOUT_MAX_CHANNELS];
static unsigned n_sockets;

static int open_session(struct pool *p, uid_t uid, struct fault *f) {
        const struct session_request q = {.pool = p, .uid = uid, .owner = &client};
        struct session_offer offer;
        bool wait;
        int r = supervisor_open_session(supervisor, &q, &offer, &wait, f);
        if (r == 0) {
                sockets[n_sockets++] = offer.socket_fd; /* the client lives */
                offer.socket_fd = -1;
                session_offer_close(&offer);
        }
        return r;
}

static void end_sessions(void) {
        supervisor_end_sessions(&client);
        while (n_sockets > 0)
                close(sockets[--n_sockets]);
}

/* It reads what it was told, so that the rest can be told. */
static bool has_heard_of_all(const struct pool *p, const struct stand_in *w) {
        char packet[WIRE_MAX_REPORT];
        while (recv(w->fd, packet, sizeof(packet), MSG_DONTWAIT) > 0)
                ;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] &&
                    !((p->channels[i]->is_dead ? p->channels[i]->drop_sent : p->channels[i]->attached)[0] & 1))
                        return false;
        return true;
}

/* What a worker has not let go of yet still counts: else to come and go would take all there is. */
static void test_a_quarter_of_the_channels(void **state) {
        struct pool *p = add_pool(NULL);
        struct fault f;
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < POOL_CHANNELS_OF_UID; i++)
                assert_int_equal(open_session(p, UID, &f), 0);
        assert_int_equal(open_session(p, UID, &f), -1);
        assert_int_equal(f.code, FAULT_LIMITS_EXCEEDED);
        assert_non_null(strstr(f.text, "uid 12345 has its share of sessions"));
        assert_int_equal(open_session(p, OTHER, &f), 0);
        UNTIL(has_heard_of_all(p, &w));
        end_sessions();
        assert_int_equal(open_session(p, UID, &f), -1);
        UNTIL(has_heard_of_all(p, &w));
        for (uint32_t i = 1; i <= POOL_CHANNELS_OF_UID; i++)
                report(&w, REPORT_DROPPED, i);
        UNTIL(open_session(p, UID, &f) == 0);
        end_sessions();
        end(&w, CLD_EXITED, 0);
}

static void large_slots(struct pool_config *c) {
        c->n_slots = 1024;
        c->slot_bytes = 64 << 10;
}

static void test_bytes_of_all_pools(void **state) {
        struct pool *p = add_pool(large_slots);
        struct fault f;
        load();
        struct stand_in w = ready();
        unsigned n = 0;
        while (open_session(p, UID, &f) == 0)
                n++;
        assert_int_equal(f.code, FAULT_LIMITS_EXCEEDED);
        assert_int_equal(n, POOL_CHANNEL_BYTES_OF_UID / p->channels[1]->channel.geometry.total);
        assert_int_equal(open_session(p, 0, &f), 0);
        end_sessions();
        end(&w, CLD_EXITED, 0); /* with it goes what it had not let go of */
        assert_int_equal(open_session(p, UID, &f), 0);
        end_sessions();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_counts),
                cmocka_unit_test_setup_teardown(test_half_of_the_slots, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_quarter_of_the_channels, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bytes_of_all_pools, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
