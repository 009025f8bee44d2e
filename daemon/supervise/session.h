/* A client's channel, held open by a socket, by the client's process and by whoever owns the session. */
#pragma once

#include "daemon/supervise/pool.h"

int session_new(struct session **ret, const struct session_request *q, struct session_offer *offer, struct fault *f);
struct session *session_end(struct session *s); /* drops its channel */
bool session_leaves_room(int fd); /* are there descriptors left, for workers, too, if it is the newest? */
uint64_t session_next_id_base(struct supervisor *s); /* job-list.c: of no other session */
