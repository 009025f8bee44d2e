/* An eventfd for whoever sleeps in a ring or a poll: broker, or a client's own loop. */
#pragma once

int doorbell_create(int *ret_fd);        /* CLOEXEC, NONBLOCK */
void doorbell_ring(int fd);              /* never blocks; fd < 0: nothing */
void doorbell_clear(int fd);
