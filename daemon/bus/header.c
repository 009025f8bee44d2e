/* Reads the header of a D-Bus message: sixteen bytes, then fields, each a struct of code and variant at a multiple of
 * eight. The bus has checked what it passes on, and has put the sender's name and the number of descriptors in; what
 * makes no sense all the same is not known, as what has not come yet. */
#include "daemon/bus/header.h"

#include <endian.h>
#include <string.h>

enum { HEADER_MAX_MESSAGE = 128 << 20, HEADER_FDS = 9 };

static uint32_t header_word(const uint8_t *message, size_t at) {
        uint32_t word;

        memcpy(&word, message + at, sizeof(word));
        return message[0] == 'B' ? be32toh(word) : le32toh(word);
}

static size_t header_round(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* The end of a value that begins at `at`; 0: it is none of those that a header has. */
static size_t header_skip(const uint8_t *message, size_t at, size_t end, uint8_t kind) {
        size_t word = header_round(at, 4);

        if (kind == 'g')
                return at < end ? at + 1 + message[at] + 1 : 0;
        if (word + 4 > end || (kind != 'u' && kind != 's' && kind != 'o'))
                return 0;
        return kind == 'u' ? word + 4 : word + 4 + (size_t)header_word(message, word) + 1;
}

static bool header_read_fds(const uint8_t *message, size_t end, unsigned *ret_n) {
        unsigned n = 0;

        for (size_t at = HEADER_MIN, next; (at = header_round(at, 8)) + 4 <= end; at = next) {
                const uint8_t *field = message + at; /* code, "\1", kind, "\0", value */

                next = field[1] == 1 ? header_skip(message, at + 4, end, field[2]) : 0;
                if (next == 0 || next > end)
                        return false;
                if (field[0] == HEADER_FDS && field[2] == 'u')
                        n = header_word(message, next - 4);
        }
        *ret_n = n;
        return true;
}

bool header_read(const uint8_t *message, size_t n, struct header *ret) {
        uint64_t end = HEADER_MIN + (uint64_t)header_word(message, 12), bytes;

        if ((message[0] != 'l' && message[0] != 'B') || message[3] != 1)
                return false;
        bytes = header_round(end, 8) + header_word(message, 4);
        if (bytes > HEADER_MAX_MESSAGE)
                return false;
        *ret = (struct header){.type = message[1], .n_bytes = bytes};
        ret->is_whole = end <= n && header_read_fds(message, end, &ret->n_fds);
        return true;
}
