/* A pair of sockets that wakes whoever sleeps in a poll: the broker, or a client's own loop. */
#pragma once

struct doorbell {
        int hear_fd; /* the sleeper's end: readable when it was rung */
        int ring_fd; /* the ringers' */
};

#define DOORBELL_NONE ((struct doorbell){.hear_fd = -1, .ring_fd = -1})

int doorbell_open(struct doorbell *ret); /* both ends CLOEXEC, NONBLOCK */
void doorbell_close(struct doorbell *d); /* the ends that are open */
/* Never waits, whatever the holders of the two ends do. ring_fd < 0: nothing. */
void doorbell_ring(int ring_fd);
/* Takes the rings out, and never waits; more may be left if somebody sent what is no ring. -EPIPE: nobody can ring it
 * any more, it is readable for ever. -EPROTO: somebody sent descriptors; they are gone, and it was rung. */
int doorbell_clear(int hear_fd);
