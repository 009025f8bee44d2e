/* Properties by table: an object's getters fill one info struct and this appends a field of it. Get and GetAll are
 * answered here, from the same table (dispatch.c), and as libsystemd would. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "daemon/bus/peers/peer.h"

const struct bus_property *bus_find_property(const struct bus_property *table, const char *name) {
        for (; table->name; table++)
                if (strcmp(table->name, name) == 0)
                        return table;
        return NULL;
}

int bus_append_property(sd_bus_message *reply, const struct bus_property *p, const void *info) {
        const void *field = (const char *)info + p->offset;
        const char *text;

        if (p->type[0] != 's')
                return sd_bus_message_append_basic(reply, p->type[0], field);
        text = p->is_inline ? field : *(const char *const *)field;
        return sd_bus_message_append_basic(reply, 's', text ? text : "");
}

static int reply_one(struct bus *b, sd_bus_message *m, const struct bus_property *p, bus_append_fn append, void *view) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', p->type);
        if (r >= 0)
                r = append(reply, p, view);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r
                     : bus_send(b, reply, (struct bus_weight){.n_bytes = (p->is_explicit ? 32 : 4) * BUS_REPLY_BYTES});
}

static int append_entry(sd_bus_message *reply, const struct bus_property *p, bus_append_fn append, void *view) {
        int r;

        r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(reply, 's', p->name);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', p->type);
        if (r >= 0)
                r = append(reply, p, view);
        for (int i = 0; i < 2 && r >= 0; i++)
                r = sd_bus_message_close_container(reply);
        return r;
}

static int reply_all(struct bus *b, sd_bus_message *m, const struct bus_property *table, bus_append_fn append,
                     void *view) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        int r;

        r = bus_reply_begin(m, "{sv}", &reply);
        for (const struct bus_property *p = table; p->name && r >= 0; p++)
                if (!p->is_explicit)
                        r = append_entry(reply, p, append, view);
        return bus_reply_end(b, reply, (struct bus_weight){.n_bytes = 8 * BUS_REPLY_BYTES}, r);
}

/* Each object has these. */
static bool is_without_properties(const char *interface) {
        return strcmp(interface, "org.freedesktop.DBus.Properties") == 0 ||
               strcmp(interface, "org.freedesktop.DBus.Introspectable") == 0 ||
               strcmp(interface, "org.freedesktop.DBus.Peer") == 0;
}

int bus_reply_properties(struct bus *b, sd_bus_message *m, const struct bus_properties *face, void *view,
                         sd_bus_error *e) {
        bool is_all = sd_bus_message_is_method_call(m, NULL, "GetAll");
        static const struct bus_property nothing[] = {{}};
        const char *asked, *name = NULL;
        const struct bus_property *p;
        int r;

        if (!sd_bus_message_has_signature(m, is_all ? "s" : "ss"))
                return bus_invalid(e, "wrong arguments for %s", sd_bus_message_get_member(m));
        r = sd_bus_message_read_basic(m, 's', &asked);
        if (r >= 0 && !is_all)
                r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        if (is_all && is_without_properties(asked))
                return reply_all(b, m, nothing, face->append, view);
        if (asked[0] && strcmp(asked, face->interface) != 0)
                return sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_INTERFACE, "unknown interface \"%s\"", asked);
        if (is_all)
                return reply_all(b, m, face->table, face->append, view);
        p = bus_find_property(face->table, name);
        return p ? reply_one(b, m, p, face->append, view)
                 : sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_PROPERTY, "unknown property \"%s\"", name);
}
