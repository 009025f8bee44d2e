/* From a pool's name to a mapped channel: the OpenChannel call, its reply, and the way back.
 *
 * The reply is a dictionary; what a newer daemon adds is skipped. Its descriptors belong to the message, so each is
 * duplicated. The two memories are mapped and their descriptors closed: a fork of this program cannot reach them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/client/session-internal.h"
#include "ipc/event.h"

#define SESSION_CALL_TIMEOUT_US (25u * 1000000u)


/* What the reply holds; descriptors are ours, -1 = not there. */
struct session_reply {
        int channel, bell, doorbell, done, socket;
        uint32_t index, n_slots, slot_bytes;
        uint64_t id_base;
        struct schema *schema;
};

static void session_reply_done(struct session_reply *r) {
        const int fds[] = {r->channel, r->bell, r->doorbell, r->done, r->socket};
        for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        schema_free(r->schema);
}

static int session_read_fd(sd_bus_message *m, int *ret_fd) {
        int fd;
        int r = sd_bus_message_read(m, "v", "h", &fd);
        if (r < 0)
                return r;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return -errno;
        if (*ret_fd >= 0)
                close(*ret_fd); /* the same key twice */
        *ret_fd = copy;
        return 0;
}

static int session_read_schema(sd_bus_message *m, struct schema **ret, char *error, size_t error_bytes) {
        int r = sd_bus_message_enter_container(m, 'v', "ay");
        if (r < 0)
                return r;
        const void *text;
        size_t bytes;
        r = sd_bus_message_read_array(m, 'y', &text, &bytes);
        if (r < 0)
                return r;
        struct schema *schema;
        if (schema_parse(text, bytes, &schema, error, error_bytes) < 0)
                return -EPROTO;
        schema_free(*ret);
        *ret = schema;
        return sd_bus_message_exit_container(m);
}

static int session_read_entry(sd_bus_message *m, struct session_reply *reply, char *error, size_t error_bytes) {
        const struct {
                const char *key;
                int *fd;
                uint32_t *u32;
        } known[] = {
                {"channel", .fd = &reply->channel},   {"bell", .fd = &reply->bell},
                {"doorbell", .fd = &reply->doorbell}, {"done", .fd = &reply->done},
                {"session", .fd = &reply->socket},    {"index", .u32 = &reply->index},
                {"slots", .u32 = &reply->n_slots},    {"slot-size", .u32 = &reply->slot_bytes},
        };
        const char *key;
        int r = sd_bus_message_read(m, "s", &key);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
                if (strcmp(key, known[i].key) == 0)
                        return known[i].fd ? session_read_fd(m, known[i].fd)
                                           : sd_bus_message_read(m, "v", "u", known[i].u32);
        if (strcmp(key, "id-base") == 0)
                return sd_bus_message_read(m, "v", "t", &reply->id_base);
        if (strcmp(key, "schema") == 0)
                return session_read_schema(m, &reply->schema, error, error_bytes);
        return sd_bus_message_skip(m, "v");
}

static int session_read_reply(sd_bus_message *m, struct session_reply *reply, char *error, size_t error_bytes) {
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = session_read_entry(m, reply, error, error_bytes);
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        bool is_whole = reply->channel >= 0 && reply->bell >= 0 && reply->doorbell >= 0 && reply->done >= 0 &&
                        reply->socket >= 0 && reply->schema && reply->index < LAYOUT_MAX_CHANNELS;
        return is_whole ? 0 : -EPROTO;
}

static int session_map(struct session *s, struct session_reply *reply) {
        struct channel_geometry g;
        int r = channel_geometry_init(&g, reply->n_slots, reply->slot_bytes);
        if (r < 0)
                return -EPROTO;
        r = channel_map(&s->channel, &g, reply->channel, CHANNEL_CLIENT);
        if (r < 0)
                return r;
        /* The one who makes the channel also writes its head: another version means another layout. */
        if (s->channel.head->header.magic != LAYOUT_MAGIC_CHANNEL || s->channel.head->header.version != LAYOUT_VERSION)
                return -EPROTO;
        r = bell_map(reply->bell, &s->bell);
        if (r < 0)
                return r;
        r = session_init_slots(s);
        if (r < 0)
                return r;

        s->doorbell_fd = reply->doorbell;
        s->done_fd = reply->done;
        s->socket_fd = reply->socket;
        s->schema = reply->schema;
        s->index = reply->index;
        s->id_base = reply->id_base;
        reply->doorbell = reply->done = reply->socket = -1;
        reply->schema = NULL;
        return 0;
}

static int session_call(sd_bus *bus, const char *pool, sd_bus_message **ret_reply, char *error, size_t error_bytes) {
        sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(bus, &m, "org.drover1", "/org/drover1", "org.drover1.Manager",
                                               "OpenChannel");
        if (r >= 0)
                r = sd_bus_message_append(m, "sa{sv}", pool, 0);
        sd_bus_error e = SD_BUS_ERROR_NULL;
        if (r >= 0)
                r = sd_bus_call(bus, m, SESSION_CALL_TIMEOUT_US, &e, ret_reply);
        if (r < 0 && sd_bus_error_is_set(&e))
                snprintf(error, error_bytes, "%s: %s", e.name, e.message ? e.message : strerror(-r));
        else if (r < 0)
                snprintf(error, error_bytes, "cannot call OpenChannel: %s", strerror(-r));
        sd_bus_error_free(&e);
        sd_bus_message_unref(m);
        return r < 0 ? r : 0;
}

static void session_free_cleanup(struct session **s) { session_free(*s); }

int session_open(struct session **ret, sd_bus *bus, const char *pool, char *error, size_t error_bytes) {
        sd_bus_message *m = NULL;
        int r = session_call(bus, pool, &m, error, error_bytes);
        if (r < 0)
                return r;

        snprintf(error, error_bytes, "the reply of OpenChannel makes no sense");
        struct session_reply reply = {.channel = -1, .bell = -1, .doorbell = -1, .done = -1, .socket = -1};
        r = session_read_reply(m, &reply, error, error_bytes);
        sd_bus_message_unref(m);

        __attribute__((cleanup(session_free_cleanup))) struct session *s = calloc(1, sizeof *s);
        if (r >= 0 && !s)
                r = -ENOMEM;
        if (r >= 0) {
                s->doorbell_fd = s->done_fd = s->socket_fd = -1;
                r = session_map(s, &reply);
                if (r < 0 && r != -EPROTO)
                        snprintf(error, error_bytes, "cannot map the channel: %s", strerror(-r));
        }
        session_reply_done(&reply);
        if (r < 0)
                return r;
        if (error_bytes > 0)
                error[0] = 0;
        *ret = s;
        s = NULL;
        return 0;
}
