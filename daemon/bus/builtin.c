/* Calls that libsystemd answers by itself: Introspect, GetManagedObjects, Ping, members that do not exist.
 *
 * It does so as soon as it has read one, and sends the answer at once. So that these take their turns like all others
 * (turn.c), the first filter keeps a call that is not due, and gives it back to libsystemd when it is: to the end of
 * what that has read already, which is where it takes its next message from, before it reads more. The filter knows the
 * message again then and lets it pass.
 *
 * What libsystemd sends goes past bus_send, so neither the way out nor what the caller leaves unread would be known to
 * hold it. The answer is therefore counted by a guess before it is made, on the high side: what is counted too much
 * costs a question to the bus (unread.c), what is counted too little could cut us off from it. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/bus/peers/peer.h"

enum {
        BUILTIN_FACE_BYTES = 32 * BUS_REPLY_BYTES,  /* of the longest description of an object */
        BUILTIN_NODE_BYTES = 128,                   /* of a name below it */
        BUILTIN_OBJECT_BYTES = 8 * BUS_REPLY_BYTES, /* of an object with its properties */
        BUILTIN_LITTLE = 2 * BUS_REPLY_BYTES,       /* for somebody of whom nothing is known */
};

static size_t n_objects(struct bus *b) {
        size_t n = 1 + supervisor_n_workers(b->supervisor);

        for (struct pool *p = supervisor_next_pool(b->supervisor, NULL); p; p = supervisor_next_pool(b->supervisor, p))
                n++;
        return n;
}

/* An error may quote what the call, of so many bytes, says. */
static struct bus_weight weight_of(struct bus *b, sd_bus_message *m, uint64_t call_bytes) {
        uint64_t bytes = BUS_REPLY_BYTES + call_bytes;

        if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Introspectable", "Introspect") > 0)
                bytes += BUILTIN_FACE_BYTES + BUILTIN_NODE_BYTES * n_objects(b);
        else if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects") > 0)
                bytes += BUILTIN_OBJECT_BYTES * n_objects(b);
        return (struct bus_weight){.n_bytes = bytes};
}

bool builtin_has_room(struct bus_peer *p, const struct bus_item *i) {
        return i->fn != builtin_method || unread_has_room(p, weight_of(p->bus, i->message, i->weight.n_bytes));
}

bool builtin_may_pass(struct bus *b, struct bus_peer *p, sd_bus_message *m) {
        struct bus_weight w = weight_of(b, m, b->call.n_bytes);

        if (p ? !turn_is_due(p) || !unread_has_room(p, w)
              : w.n_bytes > BUILTIN_LITTLE || !turn_has_credit(b, &b->strangers))
                return false;
        if (!turn_may_answer_now(b, b->intake.payer))
                return false;
        if (p)
                unread_count(p, w);
        return true;
}

int builtin_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct bus_item *i = item_new(m, builtin_method);
        uint64_t n_before = 0;
        int r;

        sd_bus_get_n_queued_read(b->bus, &n_before);
        r = i ? sd_bus_enqueue_for_read(b->bus, m) : -ENOMEM;
        if (r < 0) {
                if (i)
                        item_free(p, i);
                return r;
        }
        STAILQ_INSERT_TAIL(&b->builtin, i, link);
        unread_count(p, weight_of(b, m, b->call.n_bytes));
        if (n_before == 0) /* else others come first, and any may be the end of this caller */
                builtin_finish(b);
        return 1;
}

bool builtin_is_back(struct bus *b, sd_bus_message *m) {
        struct bus_item *i = STAILQ_FIRST(&b->builtin);

        if (!i || i->message != m)
                return false;
        STAILQ_REMOVE_HEAD(&b->builtin, link);
        sd_bus_message_unref(i->message); /* libsystemd has one of its own */
        free(i);
        return true;
}

void builtin_finish(struct bus *b) {
        while (!STAILQ_EMPTY(&b->builtin) && !sd_bus_get_current_message(b->bus) && sd_bus_is_open(b->bus) > 0 &&
               sd_bus_process(b->bus, NULL) > 0)
                ;
}

void builtin_end(struct bus *b) {
        struct bus_item *i;

        while ((i = STAILQ_FIRST(&b->builtin)))
                builtin_is_back(b, i->message);
}
