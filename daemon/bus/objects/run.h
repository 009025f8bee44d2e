/* The methods that bring work: Run, Submit; and OpenChannel (channel.c), through which it comes by itself. */
#pragma once

#include "daemon/bus/peers/peer.h"

int run_method_run(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int run_method_submit(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int channel_method_open(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
/* The result of a job that is done, as a{sv}. */
int run_append_result(sd_bus_message *reply, const struct job_info *i, sd_bus_error *e);
struct bus_weight run_result_weight(const struct job_info *i);
