/* A call whose answer somebody else brings, outside the bus face: it survives its caller, and the bus. */
#pragma once

#include "daemon/bus/face.h"

struct bus_late;

/* -ENOMEM. Whoever keeps these bounds their number. */
int late_new(struct bus *b, sd_bus_message *m, struct bus_late **ret);
/* The call, to be answered (bus_send …) and unref'd, or NULL if the bus is gone. */
sd_bus_message *late_take(struct bus_late *l, struct bus **ret_bus);
/* Answers all with ShuttingDown. */
void late_end_all(struct bus *b);
