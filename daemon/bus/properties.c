/* Properties by table: an object's getters fill one info struct and this appends a field of it. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "daemon/bus/face.h"

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
