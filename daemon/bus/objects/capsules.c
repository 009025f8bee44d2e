/* Manager.ListCapsules: which capsules there are, whoever the daemon is and wherever it keeps them. Job.GetCapsule
 * (job.c) hands out one. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/peers/peer.h"

enum { MAX_CAPSULES_LISTED = 4096 };

static int append_row(sd_bus_message *reply, const struct capsule_row *row) {
        return sd_bus_message_append(reply, "a{sv}", 5, "id", "t", row->id, "pool", "s", row->pool, "uid", "u",
                                     (uint32_t)row->uid, "bytes", "t", row->bytes, "created-usec", "t",
                                     row->created_us);
}

/* Also of pools that are gone: their capsules are still there. */
int list_capsules_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct capsule_filter filter = {.viewer = p->uid, .sees_all = authorize_is_root(p->uid)};
        struct capsule_row *rows;
        const char *pool;
        uint32_t limit;
        size_t n;
        int r;

        r = sd_bus_message_read(m, "su", &pool, &limit);
        if (r >= 0)
                r = bus_reply_begin(m, "a{sv}", &reply);
        if (r < 0)
                return r;
        filter.pool = pool[0] ? pool : NULL;
        if (limit == 0 || limit > MAX_CAPSULES_LISTED)
                limit = MAX_CAPSULES_LISTED;
        rows = calloc(limit, sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        n = supervisor_list_capsules(b->supervisor, &filter, rows, limit);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_row(reply, &rows[i]);
        free(rows);
        return bus_reply_end(b, reply, bus_rows_weight(2 * n), r);
}
