/* A client's channel, held open by a socket, by the client's process and by whoever owns the session. */
#pragma once

#include <stdbool.h>

#include "daemon/supervise/pools/pool.h"

/* Whose it is, for people to read; NULL, 0 and "": not known. */
pid_t session_pid(const struct session *s);
const char *session_connection(const struct session *s);
uint64_t session_opened_us(const struct session *s); /* CLOCK_REALTIME */
int session_new(struct session **ret, const struct session_request *q, struct session_offer *offer, struct fault *f);
struct session *session_end(struct session *s); /* drops its channel */
/* Reads what its client has sent until now. It may end the session. */
void session_hear(struct session *s);
/* Nothing is read of it for a while: too much of its user's is not closed yet. It ends, or is read again. */
bool session_is_waiting(const struct session *s);
/* Says so; -1. */
int session_refuse_unclosed(uid_t uid, struct fault *f);
