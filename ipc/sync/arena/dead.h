/* Participants of one arena that are dead and repaired together, in one walk over its objects. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/sync/layout.h"

struct dead {
        uint64_t bits[ARENA_MAX_PARTICIPANTS / 64];
};

static inline void dead_add(struct dead *d, uint32_t participant) {
        d->bits[participant / 64] |= UINT64_C(1) << participant % 64;
}

static inline bool dead_has(const struct dead *d, uint32_t participant) {
        return participant < ARENA_MAX_PARTICIPANTS && (d->bits[participant / 64] >> participant % 64 & 1) != 0;
}

/* By the number that stands in words: index + 1, 0 = nobody. */
static inline bool dead_has_number(const struct dead *d, uint32_t number) { return dead_has(d, number - 1); }
