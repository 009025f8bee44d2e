/* Which descriptors of a channel's memories go where: to its client, to its workers, the ones that come later too, and
 * none that can do more than those stay with the broker. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/packet.h"
#include "tests/unit/supervise-fixture.h"

static struct session_owner client;

static const int client_modes[CHANNEL_PARTS] = {O_RDWR, O_RDWR, O_RDONLY, O_RDONLY};
static const int worker_modes[CHANNEL_PARTS] = {O_RDWR, O_RDONLY, O_RDWR, -1};

static void open_session(struct pool *p, const int *back, struct session_offer *ret) {
        const struct session_request q = {
                .pool = p,
                .uid = 1,
                .owner = &client,
                .back = back,
                .n_slots = back ? p->config.n_slots : 0,
                .slot_bytes = back ? p->config.slot_bytes : 0,
                .schema_text = p->schema_text,
                .schema_bytes = p->schema_bytes,
        };
        struct fault f;
        bool wait;
        if (supervisor_open_session(supervisor, &q, ret, &wait, &f) < 0)
                fail_msg("%s", f.text);
}

/* "results" of "/memfd:drover-results:1 (deleted)". */
static bool is_part(int fd, enum channel_part part) {
        char path[64], link[128], wanted[128];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof(link) - 1);
        link[n < 0 ? 0 : n] = 0;
        int bytes = snprintf(wanted, sizeof(wanted), "/memfd:%s", channel_part_name(part));
        return strncmp(link, wanted, (size_t)bytes) == 0;
}

static void check(const int *fds, unsigned n_fds, const int modes[CHANNEL_PARTS]) {
        for (unsigned i = 0; i < n_fds; i++) {
                assert_true(is_part(fds[i], i));
                assert_int_equal(fcntl(fds[i], F_GETFL) & O_ACCMODE, modes[i]);
        }
}

/* The next order about that channel. */
static void check_order(const struct stand_in *w, uint32_t channel) {
        struct worker_order order;
        size_t bytes;
        for (;;) {
                int fds[PACKET_MAX_FDS];
                unsigned n_fds = PACKET_MAX_FDS;
                UNTIL(packet_receive(w->fd, &order, sizeof(order), &bytes, fds, &n_fds) == 0);
                bool is_it = order.type == ORDER_CHANNEL && order.channel == channel;
                if (is_it) {
                        assert_int_equal(n_fds, 4); /* the last one is for wake-ups */
                        check(fds, 3, worker_modes);
                }
                for (unsigned i = 0; i < n_fds; i++)
                        close(fds[i]);
                if (is_it)
                        return;
        }
}

/* Of its memories, in this process: those of its workers, once each, and nothing else. */
static void check_what_is_kept(const struct pool_channel *c) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n[CHANNEL_PARTS] = {0};
        assert_non_null(d);
        for (const struct dirent *e; (e = readdir(d));)
                for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                        int fd = atoi(e->d_name);
                        char number[32], path[64], link[128];
                        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                        ssize_t bytes = readlink(path, link, sizeof(link) - 1);
                        link[bytes < 0 ? 0 : bytes] = 0;
                        snprintf(number, sizeof(number), ":%llu (deleted)", (unsigned long long)(c->id_base >> 40));
                        if (!is_part(fd, part) || !strstr(link, number))
                                continue;
                        n[part]++;
                        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, worker_modes[part]);
                }
        closedir(d);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++)
                assert_int_equal(n[part], worker_modes[part] >= 0);
}

static void test_each_gets_its_rights(void **state) {
        struct session_offer offer, again;
        struct pool *p = add_pool(NULL);
        int fds[CHANNEL_PARTS];
        load();
        struct stand_in w = ready();
        open_session(p, NULL, &offer);
        check(offer.memory_fds, CHANNEL_PARTS, client_modes);
        check_order(&w, offer.channel);
        memcpy(fds, offer.memory_fds, sizeof(fds));
        memset(offer.memory_fds, -1, sizeof(fds));

        /* As the next daemon would: here this one has forgotten it. */
        close(offer.socket_fd);
        UNTIL(supervisor_n_sessions(supervisor) == 0);
        report(&w, REPORT_DROPPED, offer.channel);
        UNTIL(!pool_channel_at(p, offer.channel));
        open_session(p, fds, &again);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++)
                assert_int_equal(again.memory_fds[part], -1);
        check_order(&w, again.channel);
        channel_close(fds);
        check_what_is_kept(pool_channel_at(p, again.channel));
        close(again.socket_fd);
        end(&w, CLD_KILLED, SIGKILL);
}

static void test_what_is_kept_is_what_workers_get(void **state) {
        struct session_offer offer;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        open_session(p, NULL, &offer);
        channel_close(offer.memory_fds);
        check_order(&w, offer.channel);
        check_what_is_kept(pool_channel_at(p, offer.channel));
        end(&w, CLD_KILLED, SIGKILL);
        w = ready(); /* the one in its place */
        check_order(&w, offer.channel);
        close(offer.socket_fd);
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_each_gets_its_rights, setup, teardown),
                cmocka_unit_test_setup_teardown(test_what_is_kept_is_what_workers_get, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
