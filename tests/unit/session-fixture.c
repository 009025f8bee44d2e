/* The bus peer, the memories and the socket of a daemon that there is none of. */
#include "tests/unit/session-fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

/* By enum channel_part. */
static const char *const memory_keys[] = {"channel", "jobs", "results", "verdicts"};

static const char schema_text[] = "test\t1\nraw\traw\traw\t1\t0\t\ntyped\tn:u64\ts:str\t1\t0\t\n"
                                  "ends\tend:fd\tend:fd\t1\t0\t\n";

static int append_fd(sd_bus_message *m, const char *key, int fd) {
        return sd_bus_message_append(m, "{sv}", key, "h", fd);
}

static int append_u32(sd_bus_message *m, const char *key, uint32_t v) {
        return sd_bus_message_append(m, "{sv}", key, "u", v);
}

static int append_schema(sd_bus_message *m, const char *text) {
        sd_bus_message_open_container(m, 'e', "sv");
        sd_bus_message_append(m, "s", "schema");
        sd_bus_message_open_container(m, 'v', "ay");
        sd_bus_message_append_array(m, 'y', text, strlen(text));
        sd_bus_message_close_container(m);
        return sd_bus_message_close_container(m);
}

static int on_open_channel(sd_bus_message *call, void *user, sd_bus_error *error) {
        struct daemon *d = user;
        const char *pool;
        sd_bus_message *m;
        bool is_back = false;
        sd_bus_message_read(call, "s", &pool);
        sd_bus_message_enter_container(call, 'a', "{sv}");
        while (sd_bus_message_enter_container(call, 'e', "sv") > 0) {
                const char *key;
                int fd, part = 0;
                sd_bus_message_read(call, "s", &key);
                while (part < CHANNEL_PARTS && strcmp(key, memory_keys[part]) != 0)
                        part++;
                if (part < CHANNEL_PARTS) {
                        sd_bus_message_read(call, "v", "h", &fd);
                        if (d->back_fds[part] >= 0)
                                close(d->back_fds[part]);
                        d->back_fds[part] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
                        is_back = true;
                } else
                        sd_bus_message_skip(call, "v");
                sd_bus_message_exit_container(call);
        }
        d->n_back += is_back;
        if (d->fault == BUS_ERROR)
                return sd_bus_error_setf(error, "org.drover1.Error.NoSuchPool", "there is no pool %s", pool);
        if (d->fault == SILENT)
                return 1;
        sd_bus_message_new_method_return(call, &m);
        sd_bus_message_open_container(m, 'a', "{sv}");
        int fds[CHANNEL_PARTS];
        if (!is_back && channel_open(d->channel_fds, CHANNEL_CLIENT, fds) == 0) {
                for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                        if (d->fault != NO_JOBS || i != CHANNEL_JOBS)
                                append_fd(m, memory_keys[i], fds[i]);
                channel_close(fds);
        }
        if (d->fault != NO_BELL)
                append_fd(m, "bell", d->bell_fd);
        if (d->fault == MORE_KEYS)
                sd_bus_message_append(m, "{sv}", "of-a-later-version", "as", 1, "x");
        append_fd(m, "doorbell", d->doorbell.ring_fd);
        append_fd(m, "done", d->done.hear_fd);
        append_fd(m, "session", d->sockets[1]);
        append_u32(m, "index", INDEX);
        append_u32(m, "slots", d->fault == BAD_SLOTS ? 3 : d->fault == WRONG_SIZE ? 2 * SLOTS : SLOTS);
        append_u32(m, "slot-size", d->fault == WRONG_SIZE ? 1 << 16 : BYTES);
        sd_bus_message_append(m, "{sv}", "id-base", "t", d->id_base);
        append_schema(m, d->fault == BAD_SCHEMA ? "test\t1\nraw\tn:u65\t\t1\t0\t\n" : schema_text);
        sd_bus_message_close_container(m);
        sd_bus_send(NULL, m, NULL);
        sd_bus_message_unref(m);
        return 1;
}

static void *serve_peer(void *user) {
        struct daemon *d = user;
        for (int r = 0; r >= 0;) {
                r = sd_bus_process(d->peer, NULL);
                if (r == 0)
                        r = sd_bus_wait(d->peer, UINT64_MAX);
        }
        return NULL;
}

int session_setup(void **state) {
        struct daemon *d = calloc(1, sizeof *d);
        struct channel_geometry g;
        int pair[2];
        *state = d;
        d->id_base = ID_BASE;
        memset(d->back_fds, -1, sizeof d->back_fds);
        assert_int_equal(channel_geometry_init(&g, SLOTS, BYTES), 0);
        assert_int_equal(channel_create(&d->broker, &g, "test", d->channel_fds), 0);
        assert_int_equal(channel_map(&d->worker, &g, d->channel_fds, CHANNEL_WORKER), 0);
        assert_int_equal(bell_create("test", &d->bell, &d->bell_fd), 0);
        assert_int_equal(doorbell_open(&d->doorbell), 0);
        assert_int_equal(doorbell_open(&d->done), 0);
        assert_int_equal(packet_pair(d->sockets), 0);
        bell_set_mode(d->bell, BELL_FUTEX);

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        sd_id128_t id = {0};
        id.bytes[0] = 1;
        sd_bus_new(&d->peer);
        sd_bus_set_fd(d->peer, pair[0], pair[0]);
        sd_bus_set_server(d->peer, 1, id);
        sd_bus_negotiate_fds(d->peer, 1);
        sd_bus_add_object(d->peer, NULL, "/org/drover1", on_open_channel, d);
        assert_true(sd_bus_start(d->peer) >= 0);
        sd_bus_new(&d->bus);
        sd_bus_set_fd(d->bus, pair[1], pair[1]);
        sd_bus_negotiate_fds(d->bus, 1);
        assert_true(sd_bus_start(d->bus) >= 0);
        return pthread_create(&d->thread, NULL, serve_peer, d);
}

int session_teardown(void **state) {
        struct daemon *d = *state;
        session_free(d->session);
        sd_bus_flush_close_unref(d->bus);
        pthread_join(d->thread, NULL);
        sd_bus_close_unref(d->peer);
        channel_unmap(&d->broker);
        channel_unmap(&d->worker);
        bell_unmap(d->bell);
        channel_close(d->channel_fds);
        channel_close(d->back_fds);
        doorbell_close(&d->doorbell);
        doorbell_close(&d->done);
        const int fds[] = {d->bell_fd, d->sockets[0], d->sockets[1]};
        for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        free(d);
        return 0;
}

struct session *session_fixture_open(struct daemon *d) {
        char error[256];
        int r = session_open(&d->session, d->bus, "pool", error, sizeof error);
        if (r < 0)
                fail_msg("%s", error);
        return d->session;
}

uint64_t session_fixture_claim(struct daemon *d, uint32_t *ret_slot) {
        uint64_t word;
        assert_int_equal(channel_claim(&d->worker, INDEX, WORKER, false, event_now_ns(), &d->record, d->done.ring_fd,
                                       ret_slot, &word),
                         CHANNEL_CLAIMED);
        return word;
}

uint32_t session_fixture_submit(struct session *s, uint32_t type, const char *payload, uint64_t user) {
        const struct session_job job = {
                .type = type, .priority = 1, .payload = payload, .bytes = strlen(payload), .user = user};
        uint32_t slot;
        assert_int_equal(session_submit(s, &job, &slot), 0);
        return slot;
}

void session_fixture_work(struct daemon *d, enum slot_state verdict, int error, const void *data, size_t bytes) {
        uint32_t slot;
        uint64_t word = session_fixture_claim(d, &slot);
        memcpy(channel_result_data(&d->worker, slot), data, bytes);
        *channel_result(&d->worker, slot) = (struct layout_result){
                .bytes = (uint32_t)bytes, .error = error, .pid = 4711, .started_ns = 1, .finished_ns = 2};
        assert_int_equal(channel_finish(&d->worker, slot, word, verdict, d->done.ring_fd), 0);
}
