/* A client's channel, held open by a socket: when the client dies the socket says so. */
#pragma once

#include "daemon/supervise/pool.h"

int session_new(struct session **ret, struct pool *p, uid_t uid, struct session_offer *offer, struct fault *f);
struct session *session_end(struct session *s); /* drops its channel */
