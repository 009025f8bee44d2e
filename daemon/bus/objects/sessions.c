/* Manager.ListSessions: whose channels are open, and since when. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/peers/peer.h"

static int append_row(sd_bus_message *reply, const struct session_row *row) {
        return sd_bus_message_append(reply, "a{sv}", 9, "pool", "s", row->pool, "uid", "u", (uint32_t)row->uid, "pid",
                                     "u", (uint32_t)row->pid, "connection", "s", row->connection, "opened-usec", "t",
                                     row->opened_us, "id-base", "t", row->id_base, "slots", "u", row->n_slots, "queued",
                                     "u", row->n_queued, "running", "u", row->n_running);
}

int list_sessions_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const struct session_filter filter = {.viewer = p->uid, .sees_all = authorize_is_root(p->uid)};
        size_t n = supervisor_n_sessions(b->supervisor);
        struct session_row *rows;
        int r;

        r = bus_reply_begin(m, "a{sv}", &reply);
        if (r < 0)
                return r;
        rows = calloc(n ? n : 1, sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        n = supervisor_list_sessions(b->supervisor, &filter, rows, n);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_row(reply, &rows[i]);
        free(rows);
        return bus_reply_end(b, reply, bus_rows_weight(2 * n), r);
}
