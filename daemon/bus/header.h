/* What the header of a message says, where it lies in the socket: before libsystemd has read it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEADER_MIN = 16, HEADER_MAX_FDS = 16 /* what a bus lets through */ };
enum { HEADER_METHOD_CALL = 1, HEADER_SIGNAL = 4 };

struct header {
        uint8_t type;     /* HEADER_METHOD_CALL, … */
        uint64_t n_bytes; /* of the message */
        bool is_whole;    /* n_fds is known */
        unsigned n_fds;
};

/* n >= HEADER_MIN. False: this is no header. */
bool header_read(const uint8_t *message, size_t n, struct header *ret);
