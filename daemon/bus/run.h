/* The methods that bring work: Run, Submit; and OpenChannel (channel.c), through which it comes by itself. */
#pragma once

#include "daemon/bus/peer.h"

int run_method_run(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int run_method_submit(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int channel_method_open(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
