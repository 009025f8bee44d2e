/* One MessagePack token at a time from bytes nobody vouches for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum token_type {
        TOKEN_NIL,
        TOKEN_BOOL,
        TOKEN_UINT, /* any integer >= 0, however it was written */
        TOKEN_INT,  /* an integer < 0 */
        TOKEN_FLOAT,
        TOKEN_STR,
        TOKEN_BIN,
        TOKEN_ARRAY, /* n elements follow as tokens of their own */
        TOKEN_MAP,   /* n pairs follow */
        TOKEN_EXT,
};

struct token {
        enum token_type type;
        uint32_t n; /* bytes of STR, BIN and EXT, elements of ARRAY, pairs of MAP: as claimed, only bytes are checked */
        union {
                bool boolean;
                uint64_t u64;
                int64_t i64;
                double f64;
                const char *data; /* inside the input, not 0-terminated */
        };
};

/* Takes the token at *p and moves *p behind it. -EPROTO if it is cut off or no token. */
int token_next(const uint8_t **p, const uint8_t *end, struct token *ret);
/* "str", "map" …: for "expected u64, got str". */
const char *token_name(enum token_type type);
