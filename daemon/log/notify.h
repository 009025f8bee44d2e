/* What the service manager is told ($NOTIFY_SOCKET), without ever waiting for it. */
#pragma once

/* A socket connected to it, CLOEXEC. -ENOENT: there is none; -errno. */
int notify_open(void);
/* Several lines in one message. -EAGAIN: its queue is full, poll for POLLOUT; -errno. */
int notify_send(int fd, const char *text);
