/* Bells and doorbells of uids that come and go. */
#include "tests/unit/supervise-fixture.h"

#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "tests/unit/skip.h"

enum { UID = 12345 };

struct client {
        struct session_owner owner;
        struct session_offer offer;
};

static int join(struct pool *p, struct client *c, uid_t uid, struct fault *f) {
        const struct session_request q = {.pool = p, .uid = uid, .owner = &c->owner};
        bool wait;
        return supervisor_open_session(supervisor, &q, &c->offer, &wait, f);
}

static void leave(struct client *c) {
        supervisor_end_sessions(&c->owner);
        session_offer_close(&c->offer);
}

/* How many orders of that type the worker has got; others are passed over. */
static unsigned orders(const struct stand_in *w, enum worker_order_type type) {
        struct worker_order order;
        size_t bytes;
        unsigned n = 0;
        for (;;) {
                int fds[PACKET_MAX_FDS];
                unsigned n_fds = PACKET_MAX_FDS;
                if (packet_receive(w->fd, &order, sizeof(order), &bytes, fds, &n_fds) < 0 || bytes != sizeof(order))
                        return n;
                for (unsigned i = 0; i < n_fds; i++)
                        close(fds[i]);
                n += order.type == type;
        }
}

/* More uids than a worker can wait on, and all of them are told to it. */
enum { MANY = LAYOUT_BELLS_PER_WORKER + 8 };

static void test_given_back(void **state) {
        struct pool *p = add_pool(NULL);
        static struct client clients[MANY], late;
        struct fault f;
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < MANY; i++)
                assert_int_equal(join(p, &clients[i], UID + i, &f), 0);
        unsigned n = 0;
        UNTIL((n += orders(&w, ORDER_BELL)) == 1 + MANY);

        uint32_t channel = clients[3].offer.channel, bell = p->channels[channel]->bell;
        leave(&clients[3]);
        turns(3);
        assert_non_null(p->bells[bell].memory); /* the worker has it still */
        assert_int_equal(orders(&w, ORDER_DROP_BELL), 0);
        report(&w, REPORT_DROPPED, channel);
        UNTIL(!p->bells[bell].memory);
        assert_int_equal(orders(&w, ORDER_DROP_BELL), 1);
        report(&w, REPORT_VAIN, bell); /* said before it was told: no offence */
        turns(3);
        assert_int_equal(supervisor_find_worker(supervisor, w.id)->phase, PHASE_READY);
        assert_int_equal(join(p, &late, 1, &f), 0);
        assert_int_equal(p->bells[bell].uid, 1);
        assert_int_equal(orders(&w, ORDER_BELL), 1);

        leave(&late);
        for (unsigned i = 0; i < MANY; i++)
                leave(&clients[i]);
        end(&w, CLD_EXITED, 0); /* it had let go of nothing */
        n = 0;
        for (unsigned i = 0; i < p->n_bells; i++)
                n += p->bells[i].memory != NULL;
        assert_int_equal(n, 1); /* the broker's own */
}

/* How many descriptors are on their way to all workers together is bounded by the kernel. */
static void test_orders_that_nobody_reads(void **state) {
        struct pool *p = add_pool(NULL);
        static struct client clients[LAYOUT_MAX_CHANNELS / 4];
        struct fault f;
        const unsigned n_clients = sizeof(clients) / sizeof(*clients);
        load();
        struct stand_in w = ready();
        for (unsigned i = 0; i < n_clients; i++)
                assert_int_equal(join(p, &clients[i], UID + i, &f), 0);
        turns(3);
        unsigned n = orders(&w, ORDER_CHANNEL);
        assert_in_range(n, 10, 40);
        UNTIL((n += orders(&w, ORDER_CHANNEL)) == 1 + n_clients); /* the broker's own, too */
        for (unsigned i = 0; i < n_clients; i++)
                leave(&clients[i]);
        end(&w, CLD_EXITED, 0);
}

/* As many uids as a pool has channels for, and then no more. */
static void test_as_many_as_there_are(void **state) {
        struct pool *p = add_pool(NULL);
        static struct client clients[LAYOUT_MAX_BELLS];
        struct fault f;
        struct rlimit limit;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (limit.rlim_max < 32 * LAYOUT_MAX_BELLS)
                SKIP("the hard limit of open files is too low for all bells");
        load();
        struct stand_in w = ready(); /* for the job types */
        end(&w, CLD_EXITED, 0);
        for (unsigned i = 0; i < LAYOUT_MAX_BELLS - 1; i++)
                assert_int_equal(join(p, &clients[i], UID + i, &f), 0);
        assert_int_equal(join(p, &clients[LAYOUT_MAX_BELLS - 1], 1, &f), -1);
        assert_int_equal(f.code, FAULT_LIMITS_EXCEEDED);
        leave(&clients[7]); /* no worker has it */
        assert_int_equal(join(p, &clients[LAYOUT_MAX_BELLS - 1], 1, &f), 0);
        for (unsigned i = 0; i < LAYOUT_MAX_BELLS; i++)
                leave(&clients[i]);
}

/* Who was muted and comes back is the one who was muted. */
static void test_kept_for_who_was_muted(void **state) {
        struct pool *p = add_pool(NULL);
        static struct client client;
        struct fault f;
        load();
        struct stand_in w = ready();
        assert_int_equal(join(p, &client, UID, &f), 0);
        uint32_t bell = p->channels[client.offer.channel]->bell;
        report(&w, REPORT_VAIN, bell);
        UNTIL(p->bells[bell].is_muted);
        leave(&client);
        end(&w, CLD_EXITED, 0);
        assert_int_equal(join(p, &client, UID, &f), 0);
        assert_int_equal(p->channels[client.offer.channel]->bell, bell);
        assert_int_equal(p->bells[bell].n_mutes, 1);
        leave(&client);
}

static int rung_fd = -1;
static unsigned n_rounds; /* of the loop */

static void ring(void *user) {
        n_rounds++;
        if (rung_fd >= 0)
                doorbell_ring(rung_fd);
}

/* Whenever the broker is about to sleep, a client rings. */
static void test_doorbell_rung_all_the_time(void **state) {
        struct pool *p = add_pool(NULL);
        static struct client client;
        struct fault f;
        load();
        struct stand_in w = ready();
        assert_int_equal(join(p, &client, UID, &f), 0);
        loop_add_hook(loop, ring, NULL);
        rung_fd = client.offer.doorbell_fd;
        n_rounds = 0;
        uint64_t begun_ns = event_now_ns();
        turns(200);
        unsigned n_most = 200 * 2 + ((unsigned)((event_now_ns() - begun_ns) / (50 * MS)) + 2) * (64 + 4);
        assert_in_range(n_rounds, 64, n_most);
        rung_fd = -1;
        int unread;
        UNTIL(ioctl(client.offer.doorbell_fd, SIOCOUTQ, &unread) == 0 && unread == 0); /* heard after the rest */
        end(&w, CLD_EXITED, 0);
        leave(&client);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_given_back, setup, teardown),
                cmocka_unit_test_setup_teardown(test_orders_that_nobody_reads, setup, teardown),
                cmocka_unit_test_setup_teardown(test_as_many_as_there_are, setup, teardown),
                cmocka_unit_test_setup_teardown(test_kept_for_who_was_muted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_doorbell_rung_all_the_time, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
