/* The broker's side: its socket and its requests. */
#pragma once

#include "daemon/spawn/spawner.h"

/* Serves the broker behind `fd` (taken): says hello. −errno if it is no such socket. */
int requests_attach(struct spawner *s, int fd);
/* One request. A broker that breaks the protocol or went away is noted in broker_fault. */
void requests_receive(struct spawner *s);
/* Ends everything that the broker had started, closes its socket. Returns 0 if it went by itself, -EPROTO if it was
 * thrown out. */
int requests_detach(struct spawner *s);
