/* A pool's settings on the bus. */
#pragma once

#include "daemon/bus/face.h"

/* a(ssss): section, key, value, where; `sees_all`: root. */
int settings_append(sd_bus_message *reply, const struct pool_config *c, bool sees_all);
/* as: the files that they are from, in the order in which they count. */
int settings_append_files(sd_bus_message *reply, const struct pool_config *c);
