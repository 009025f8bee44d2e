/* One message on a SEQPACKET socket, with descriptors: the only user of SCM_RIGHTS. */
#pragma once

#include <stddef.h>

enum { PACKET_MAX_FDS = 8 };

/* 0, -EAGAIN (never blocks), -EPIPE; -EINVAL for an empty packet or more than PACKET_MAX_FDS. */
int packet_send(int fd, const void *data, size_t bytes, const int *fds, unsigned n_fds);
/* Receives one packet. *ret_bytes = 0 at end of file. -EAGAIN (never blocks); -EPROTO if truncated (data or
 * descriptors; all are closed then). Descriptors come CLOEXEC; *n_fds holds the room on entry and the number on return;
 * more than the room is -EPROTO. */
int packet_receive(int fd, void *data, size_t capacity, size_t *ret_bytes, int *fds, unsigned *n_fds);
/* The same, but it waits for one if the descriptor does: only where nobody holds the other end who is trusted less. */
int packet_await(int fd, void *data, size_t capacity, size_t *ret_bytes, int *fds, unsigned *n_fds);
/* The same without descriptors, by calls that carry none: all that a worker's sandbox lets through. The kernel closes
 * those that come with a packet, and nobody is told of them. */
int packet_send_bytes(int fd, const void *data, size_t bytes);
int packet_receive_bytes(int fd, void *data, size_t capacity, size_t *ret_bytes);
/* Who closes descriptors that nobody is given, in this process; NULL: close(). */
void packet_set_refuse(void (*refuse)(int fd));
int packet_pair(int fds[2]); /* socketpair SEQPACKET, CLOEXEC, NONBLOCK on fds[0] only */
