/* Calls that wait for a file. Each is owned by who looks for its answer and will call late_take; the bus only knows
 * them, so that nobody is left without an answer at its end. */
#include "daemon/bus/late.h"

#include <errno.h>
#include <stdlib.h>

struct bus_late {
        struct bus *bus; /* NULL: gone */
        sd_bus_message *message;
        TAILQ_ENTRY(bus_late) link;
};

int late_new(struct bus *b, sd_bus_message *m, struct bus_late **ret) {
        struct bus_late *l = calloc(1, sizeof(*l));

        if (!l)
                return -ENOMEM;
        *l = (struct bus_late){.bus = b, .message = sd_bus_message_ref(m)};
        TAILQ_INSERT_TAIL(&b->late, l, link);
        *ret = l;
        return 0;
}

sd_bus_message *late_take(struct bus_late *l, struct bus **ret_bus) {
        sd_bus_message *m = l->message;

        *ret_bus = l->bus;
        if (l->bus)
                TAILQ_REMOVE(&l->bus->late, l, link);
        free(l);
        return m;
}

void late_end_all(struct bus *b) {
        struct bus_late *l;

        while ((l = TAILQ_FIRST(&b->late))) {
                TAILQ_REMOVE(&b->late, l, link);
                sd_bus_reply_method_errorf(l->message, "org.drover1.Error.ShuttingDown", "droverd is shutting down");
                l->message = sd_bus_message_unref(l->message);
                l->bus = NULL;
        }
}
