/* From a pool's name to a mapped channel: the OpenChannel call and its reply; and the same for a channel that another
 * daemon is to adopt.
 *
 * The reply is a dictionary; what a newer daemon adds is skipped. Its descriptors belong to the message, so each is
 * duplicated. The memories are mapped out of reach of a fork of this program; the descriptors of the channel's are kept
 * all the same, because only with them the channel survives its daemon. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/session/fd-room.h"
#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"

#define SESSION_PATIENCE_NS UINT64_C(10000000000)
#define SESSION_ASK_AGAIN_NS 20000000

/* What the reply holds; descriptors are ours, -1 = not there. */
struct session_reply {
        int memories[CHANNEL_PARTS]; /* none in the reply to who hands back its own */
        int bell, doorbell, done, socket;
        uint32_t index, n_slots, slot_bytes;
        uint64_t id_base;
        uint64_t clock_ns; /* of droverd, when it answered; 0 = not told */
        struct schema *schema;
        char *schema_text;
        size_t schema_bytes;
};

static void session_reply_done(struct session_reply *r) {
        channel_close(r->memories);
        const int fds[] = {r->bell, r->doorbell, r->done, r->socket};
        for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        schema_free(r->schema);
        free(r->schema_text);
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

static int session_read_schema(sd_bus_message *m, struct session_reply *reply, char *error, size_t error_bytes) {
        int r = sd_bus_message_enter_container(m, 'v', "ay");
        if (r < 0)
                return r;
        const void *text;
        size_t bytes;
        r = sd_bus_message_read_array(m, 'y', &text, &bytes);
        if (r < 0)
                return r;
        struct schema *schema;
        r = schema_parse(text, bytes, &schema, error, error_bytes);
        if (r < 0)
                return r == -ENOMEM ? r : -EPROTO;
        schema_free(reply->schema);
        reply->schema = schema;
        free(reply->schema_text);
        reply->schema_bytes = bytes;
        reply->schema_text = malloc(bytes ? bytes : 1);
        if (!reply->schema_text)
                return -ENOMEM;
        memcpy(reply->schema_text, text, bytes);
        return sd_bus_message_exit_container(m);
}

static int session_read_entry(sd_bus_message *m, struct session_reply *reply, char *error, size_t error_bytes) {
        const struct {
                const char *key;
                int *fd;
                uint32_t *u32;
        } known[] = {
                {"channel", .fd = &reply->memories[CHANNEL_COMMON]},
                {"jobs", .fd = &reply->memories[CHANNEL_JOBS]},
                {"results", .fd = &reply->memories[CHANNEL_RESULTS]},
                {"verdicts", .fd = &reply->memories[CHANNEL_VERDICTS]},
                {"bell", .fd = &reply->bell},
                {"doorbell", .fd = &reply->doorbell},
                {"done", .fd = &reply->done},
                {"session", .fd = &reply->socket},
                {"index", .u32 = &reply->index},
                {"slots", .u32 = &reply->n_slots},
                {"slot-size", .u32 = &reply->slot_bytes},
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
        if (strcmp(key, "clock") == 0)
                return sd_bus_message_read(m, "v", "t", &reply->clock_ns);
        if (strcmp(key, "schema") == 0)
                return session_read_schema(m, reply, error, error_bytes);
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
        bool is_whole = reply->bell >= 0 && reply->doorbell >= 0 && reply->done >= 0 && reply->socket >= 0 &&
                        reply->schema && reply->index < LAYOUT_MAX_CHANNELS;
        return is_whole ? 0 : -EPROTO;
}

/* Deadlines in a channel are moments of CLOCK_MONOTONIC, which another time namespace counts from another zero: there
 * they would all be over, or never be. What droverd's said while it answered lies between what ours said before and
 * after. */
static int session_check_clock(const struct session_reply *reply, uint64_t asked_ns, char *error, size_t error_bytes) {
        uint64_t now_ns = event_now_ns();
        if (reply->clock_ns == 0 || (reply->clock_ns >= asked_ns && reply->clock_ns <= now_ns))
                return 0;
        double ahead_s = ((double)asked_ns - (double)reply->clock_ns) / 1e9;
        snprintf(error, error_bytes,
                 "this program and droverd are in different time namespaces (its CLOCK_MONOTONIC is %.0f s %s "
                 "droverd's): start "
                 "it in that of droverd, or submit over the bus",
                 ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "ahead of");
        return -EXDEV;
}

/* It comes as one that blocks, which descriptors that are looked for must not. */
static int session_set_nonblocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int session_map(struct session *s, struct session_reply *reply) {
        struct channel_geometry g;
        int r = channel_geometry_init(&g, reply->n_slots, reply->slot_bytes);
        if (r < 0)
                return -EPROTO;
        r = channel_map(&s->channel, &g, reply->memories, CHANNEL_CLIENT);
        if (r < 0)
                return r == -EBADF ? -EPROTO : r; /* it was not in the reply */
        /* The one who makes the channel also writes its head: another version means another layout. */
        if (s->channel.head->header.magic != LAYOUT_MAGIC_CHANNEL || s->channel.head->header.version != LAYOUT_VERSION)
                return -EPROTO;
        r = bell_map(reply->bell, &s->bell);
        if (r < 0)
                return r;
        r = session_init_slots(s);
        if (r >= 0)
                r = session_set_nonblocking(reply->socket);
        if (r < 0)
                return r;

        s->doorbell_fd = reply->doorbell;
        s->done_fd = reply->done;
        s->socket_fd = reply->socket;
        memcpy(s->channel_fds, reply->memories, sizeof s->channel_fds);
        memset(reply->memories, -1, sizeof reply->memories);
        s->schema = reply->schema;
        s->schema_text = reply->schema_text;
        s->schema_bytes = reply->schema_bytes;
        s->index = reply->index;
        s->id_base = reply->id_base;
        reply->doorbell = reply->done = reply->socket = -1;
        reply->schema = NULL;
        reply->schema_text = NULL;
        return 0;
}

/* ---- the call ---- */

static int session_append_back(sd_bus_message *m, const struct session *s) {
        const struct channel_geometry *g = &s->channel.geometry;
        const int *fds = s->channel_fds;
        int r = sd_bus_message_append(m, "{sv}{sv}{sv}{sv}{sv}{sv}", "channel", "h", fds[CHANNEL_COMMON], "jobs", "h",
                                      fds[CHANNEL_JOBS], "results", "h", fds[CHANNEL_RESULTS], "verdicts", "h",
                                      fds[CHANNEL_VERDICTS], "slots", "u", g->n_slots, "slot-size", "u", g->slot_bytes);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "schema");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', s->schema_text, s->schema_bytes);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* `back`: the session whose channel is handed back, or NULL. */
static int session_make_call(sd_bus *bus, const char *pool, const struct session *back, sd_bus_message **ret) {
        sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(bus, &m, "org.drover1", "/org/drover1", "org.drover1.Manager",
                                               "OpenChannel");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", pool);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0 && back)
                r = session_append_back(m, back);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r < 0) {
                sd_bus_message_unref(m);
                return r;
        }
        *ret = m;
        return 0;
}

static const struct session_reply session_no_reply = {
        .memories = {-1, -1, -1, -1}, .bell = -1, .doorbell = -1, .done = -1, .socket = -1};

static int session_ask(sd_bus *bus, const char *pool, uint64_t deadline_ns, struct session_reply *reply, char *error,
                       size_t error_bytes) {
        uint64_t now_ns = event_now_ns(), timeout_us = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000 : 0;
        sd_bus_error e = SD_BUS_ERROR_NULL;
        sd_bus_message *call = NULL, *m = NULL;
        int r = bus_has_room(bus);
        if (r >= 0)
                r = session_make_call(bus, pool, NULL, &call);
        if (r >= 0)
                r = bus_call(bus, call, timeout_us ? timeout_us : 1, &e, &m);
        sd_bus_message_unref(call);
        if (r < 0 && sd_bus_error_is_set(&e))
                snprintf(error, error_bytes, "%s: %s", e.name, e.message ? e.message : strerror(-r));
        else if (r == -EMFILE || r == -ENFILE)
                snprintf(error, error_bytes, "%s: the answer of droverd takes up to %d descriptors (RLIMIT_NOFILE)",
                         strerror(-r), FD_ROOM_MOST);
        else if (r < 0)
                snprintf(error, error_bytes, "cannot call OpenChannel: %s", strerror(-r));
        sd_bus_error_free(&e);
        if (r < 0)
                return r;
        snprintf(error, error_bytes, "the reply of OpenChannel makes no sense");
        r = session_read_reply(m, reply, error, error_bytes);
        if (bus_is_short(r))
                snprintf(error, error_bytes, "cannot take in the reply of OpenChannel: %s", strerror(-r));
        sd_bus_message_unref(m);
        return r < 0 ? r : session_check_clock(reply, now_ns, error, error_bytes);
}

/* The name of an error as session_ask() tells it. */
static bool session_error_is(const char *error, const char *name) {
        size_t n = strlen(name);
        return strncmp(error, name, n) == 0 && error[n] == ':';
}

/* A daemon that ends opens no channel: the next one will, if it comes as soon as after a crash. */
static int session_ask_next(sd_bus *bus, const char *pool, uint64_t deadline_ns, struct session_reply *reply,
                            char *error, size_t error_bytes) {
        for (uint64_t until_ns = 0;;) {
                int r = session_ask(bus, pool, deadline_ns, reply, error, error_bytes);
                bool is_ending = r < 0 && session_error_is(error, "org.drover1.Error.ShuttingDown");
                uint64_t now_ns = event_now_ns();
                if (is_ending && until_ns == 0)
                        until_ns =
                                now_ns + SESSION_PATIENCE_NS < deadline_ns ? now_ns + SESSION_PATIENCE_NS : deadline_ns;
                if (r >= 0 || now_ns >= until_ns ||
                    !(is_ending || session_error_is(error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
                      session_error_is(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER) ||
                      session_error_is(error, SD_BUS_ERROR_NO_REPLY)))
                        return r;
                nanosleep(&(struct timespec){.tv_nsec = SESSION_ASK_AGAIN_NS}, NULL);
        }
}

static void session_free_cleanup(struct session **s) { session_free(*s); }

int session_open_until(struct session **ret, sd_bus *bus, const char *pool, uint64_t deadline_ns, char *error,
                       size_t error_bytes) {
        struct session_reply reply = session_no_reply;
        int r = session_ask_next(bus, pool, deadline_ns, &reply, error, error_bytes);
        __attribute__((cleanup(session_free_cleanup))) struct session *s = calloc(1, sizeof *s);
        if (s)
                *s = (struct session){
                        .doorbell_fd = -1, .done_fd = -1, .socket_fd = -1, .channel_fds = {-1, -1, -1, -1}};
        if (r >= 0) {
                r = s && (s->pool = strdup(pool)) ? session_map(s, &reply) : -ENOMEM;
                if (r < 0 && r != -EPROTO)
                        snprintf(error, error_bytes, "cannot map the channel: %s", strerror(-r));
        }
        session_reply_done(&reply);
        if (r < 0)
                return r;
        if (error_bytes > 0)
                error[0] = 0;
        s->bus = sd_bus_ref(bus);
        s->patience_ns = SESSION_PATIENCE_NS;
        *ret = s;
        s = NULL;
        return 0;
}

int session_open(struct session **ret, sd_bus *bus, const char *pool, char *error, size_t error_bytes) {
        return session_open_until(ret, bus, pool, event_now_ns() + SESSION_OPEN_NS, error, error_bytes);
}

/* ---- coming back ---- */

/* Answers that no later try can change. Everything else may be a daemon that is not there yet. */
static bool session_is_refused(const sd_bus_error *e) {
        static const char *const final[] = {"org.drover1.Error.NoSuchPool", "org.drover1.Error.PoolRefused",
                                            "org.drover1.Error.PoolStopped", SD_BUS_ERROR_INVALID_ARGS,
                                            SD_BUS_ERROR_ACCESS_DENIED};
        for (unsigned i = 0; i < sizeof final / sizeof *final; i++)
                if (sd_bus_error_has_name(e, final[i]))
                        return true;
        return false;
}

/* The numbers of our descriptors stay: an outer loop may wait for them. */
static int session_take_reply(struct session *s, struct session_reply *reply) {
        struct layout_bell *bell;
        if (reply->n_slots != s->channel.geometry.n_slots || reply->slot_bytes != s->channel.geometry.slot_bytes)
                return -EPROTO;
        int r = bell_map(reply->bell, &bell);
        if (r < 0)
                return r;
        bell_unmap(s->bell);
        s->bell = bell;
        r = session_set_nonblocking(reply->socket);
        if (r < 0)
                return r;
        s->index = reply->index;
        s->id_base = reply->id_base;
        if (dup3(reply->doorbell, s->doorbell_fd, O_CLOEXEC) < 0 || dup3(reply->done, s->done_fd, O_CLOEXEC) < 0 ||
            dup3(reply->socket, s->socket_fd, O_CLOEXEC) < 0)
                return -errno;
        return 0;
}

/* One that there are no descriptors or memory for is kept: the daemon has adopted the channel, and says so once. */
static int session_take_answer(struct session *s) {
        struct session_reply reply = session_no_reply;
        char error[200];
        int r = sd_bus_message_rewind(s->answer, true);
        if (r >= 0)
                r = session_read_reply(s->answer, &reply, error, sizeof error);
        if (r >= 0)
                r = session_check_clock(&reply, s->asked_ns, error, sizeof error);
        if (r >= 0)
                r = session_take_reply(s, &reply);
        session_reply_done(&reply);
        if (bus_is_short(r))
                return r;
        s->answer = sd_bus_message_unref(s->answer);
        session_reattached(s, r < 0 ? -EPIPE : 0);
        return 0;
}

static int session_on_reply(sd_bus_message *m, void *user, sd_bus_error *unused) {
        struct session *s = user;
        s->call = sd_bus_slot_unref(s->call);
        if (sd_bus_message_is_method_error(m, NULL)) {
                session_reattached(s, session_is_refused(sd_bus_message_get_error(m)) ? -EPIPE : -EAGAIN);
                return 0;
        }
        s->answer = sd_bus_message_ref(m);
        session_take_answer(s);
        return 0;
}

int session_reattach(struct session *s) {
        sd_bus_message *m = NULL;
        if (s->answer)
                return session_take_answer(s);
        int r = bus_has_room(s->bus);
        if (r >= 0)
                r = session_make_call(s->bus, s->pool, s, &m);
        s->asked_ns = event_now_ns();
        if (r >= 0)
                r = sd_bus_call_async(s->bus, &s->call, m, session_on_reply, s, SESSION_OPEN_NS / 1000);
        sd_bus_message_unref(m);
        return r < 0 ? r : 0;
}
