/* The methods of the manager that are about arenas. */
#pragma once

#include "daemon/bus/peers/peer.h"

int arena_method_open(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int arena_method_remove(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int arena_method_list(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int arena_method_list_objects(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int arena_method_list_objects_from(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
