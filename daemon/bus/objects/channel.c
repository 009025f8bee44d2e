/* OpenChannel: a session's memories and descriptors for a client, or for one whose daemon died the adoption of those it
 * has.
 *
 * The options of an adoption are `channel`, `jobs`, `results` and `verdicts` (the memories), `slots`, `slot-size` and
 * `schema`, all as an earlier OpenChannel told them; its reply has no memories. Descriptors in a message are the
 * message's; what is kept is duplicated by the supervisor. */
#include <errno.h>
#include <string.h>

#include "daemon/bus/call.h"
#include "daemon/bus/objects/run.h"
#include "daemon/bus/value.h"
#include "daemon/loop/closer.h"
#include "ipc/memory/event.h"

/* By enum channel_part. */
static const char *const memory_keys[CHANNEL_PARTS] = {"channel", "jobs", "results", "verdicts"};

static int read_as(sd_bus_message *m, const char *name, const char *type, void *ret, sd_bus_error *e) {
        const char *contents;
        char kind;
        int r;

        r = sd_bus_message_peek_type(m, &kind, &contents);
        if (r >= 0 && strcmp(contents, type) != 0)
                return bus_invalid(e, "%s: %s is expected, not %s", name, type, contents);
        return r < 0 ? r : sd_bus_message_read(m, "v", type, ret);
}

static int read_schema(sd_bus_message *m, struct session_request *q, sd_bus_error *e) {
        const char *contents;
        const void *text;
        char kind;
        int r;

        r = sd_bus_message_peek_type(m, &kind, &contents);
        if (r >= 0 && strcmp(contents, "ay") != 0)
                return bus_invalid(e, "schema: ay is expected, not %s", contents);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_read_array(m, 'y', &text, &q->schema_bytes);
        if (r < 0)
                return r;
        q->schema_text = text ? text : "";
        return sd_bus_message_exit_container(m);
}

static int read_option(sd_bus_message *m, struct session_request *q, int back[CHANNEL_PARTS], sd_bus_error *e) {
        const char *name;
        uint64_t n = 0;
        int r;

        r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                if (strcmp(name, memory_keys[i]) == 0)
                        return read_as(m, name, "h", &back[i], e);
        if (strcmp(name, "schema") == 0)
                return read_schema(m, q, e);
        if (strcmp(name, "slots") == 0) {
                r = value_read_number(m, name, LAYOUT_MIN_SLOTS, LAYOUT_MAX_SLOTS, &n, e);
                q->n_slots = (uint32_t)n;
        } else if (strcmp(name, "slot-size") == 0) {
                r = value_read_number(m, name, LAYOUT_MIN_SLOT_BYTES, LAYOUT_MAX_SLOT_BYTES, &n, e);
                q->slot_bytes = (uint32_t)n;
        } else {
                return bus_invalid(e,
                                   "unknown option \"%.64s\"; there are channel, jobs, results, verdicts, slots, "
                                   "slot-size, schema",
                                   name);
        }
        return r;
}

/* All or none. */
static int read_options(sd_bus_message *m, struct session_request *q, int back[CHANNEL_PARTS], sd_bus_error *e) {
        unsigned n_memories = 0, n_others;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_option(m, q, back, e);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                n_memories += back[i] >= 0;
        n_others = (q->n_slots > 0) + (q->slot_bytes > 0) + (q->schema_text != NULL);
        if (n_memories + n_others > 0 && (n_memories < CHANNEL_PARTS || n_others < 3))
                return bus_invalid(
                        e, "channel, jobs, results, verdicts, slots, slot-size and schema: all of them, or none");
        q->back = n_memories > 0 ? back : NULL;
        return 0;
}

static int reply_offer(struct bus *b, sd_bus_message *m, const struct session_offer *o) {
        const struct bus_weight w = {.n_bytes = 4 * BUS_REPLY_BYTES + o->schema_bytes, .n_fds = CHANNEL_PARTS + 4};
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int r;

        closer_blame(CLOSER_OURS);
        r = bus_reply_begin(m, "{sv}", &reply);
        for (unsigned i = 0; i < CHANNEL_PARTS && r >= 0; i++)
                if (o->memory_fds[i] >= 0)
                        r = sd_bus_message_append(reply, "{sv}", memory_keys[i], "h", o->memory_fds[i]);
        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "bell", "h", o->bell_fd,
                                          "doorbell", "h", o->doorbell_fd, "done", "h", o->done_fd, "session", "h",
                                          o->socket_fd, "index", "u", o->channel, "slots", "u", o->n_slots, "slot-size",
                                          "u", o->slot_bytes, "id-base", "t", o->id_base, "clock", "t", event_now_ns());
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(reply, 's', "schema");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_append_array(reply, 'y', o->schema_text, o->schema_bytes);
        for (int i = 0; i < 2 && r >= 0; i++)
                r = sd_bus_message_close_container(reply);
        return bus_reply_end(b, reply, w, r);
}

int channel_method_open(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct session_request q = {.uid = p->uid, .owner = &p->sessions};
        int back[CHANNEL_PARTS] = {-1, -1, -1, -1};
        struct session_offer offer;
        struct fault f = {};
        const char *name;
        bool must_wait = false;
        int r;

        r = call_check_room(p, e);
        if (r >= 0)
                r = call_check_numbers(b, e); /* for those that it opens */
        if (r >= 0 && p->process.pidfd < 0)
                return peer_ask_process(p, m, channel_method_open);
        if (r >= 0)
                r = sd_bus_message_read(m, "s", &name);
        if (r >= 0)
                r = bus_find_pool(b, name, &q.pool, e);
        if (r >= 0)
                r = read_options(m, &q, back, e);
        if (r < 0)
                return r;
        p->sessions.pid = p->process.pid;
        p->sessions.name = p->name;
        r = supervisor_open_session(b->supervisor, &q, &offer, &must_wait, &f);
        if (r < 0 && must_wait)
                return call_wait_pool(p, m, channel_method_open);
        if (r < 0)
                return bus_error_from_fault(e, &f);
        r = reply_offer(b, m, &offer);
        session_offer_close(&offer); /* the message has its own; without it the supervisor sees the session end */
        return r;
}
