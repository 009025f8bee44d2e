/* Circles of waits, for those who know more than one arena: which participants of several arenas are one process. */
#pragma once

#include "ipc/sync/arena/arena.h"

enum { CYCLE_MAX = 512 }; /* waits in a walk; a longer way is not followed */

struct cycle_place {
        struct drover_arena *arena;
        uint32_t participant;
        void *tag; /* the books' own */
};

struct cycle_step {
        struct cycle_place place;
        uint32_t line, object;
        uint64_t wait, since_ns;
        uint64_t waiter; /* identity, in this arena, of who waits … */
        uint64_t holder; /* … and of who has it */
};

struct cycle_books {
        /* Place number `i` of the process that has `of`, in whatever arena; false: no more. NULL: nobody is in two. */
        bool (*place)(void *user, const struct cycle_place *of, uint32_t i, struct cycle_place *ret);
        void *user;
};

enum { CYCLE_MAX_LOOKS = 8192 }; /* of a search that holds up nobody else */

/* What a search has left of its work: looks through a table of lines, or what takes as long. Several may share one. 0:
 * it was cut off. */
struct cycle_budget {
        unsigned n_looks;
};

/* Follows each wait of the participants of `from->arena` that have this pid (0: of all) until it comes back to where it
 * was. Returns how many waits the circle has that it found (in their order, in `steps`), 0: none, or the budget is
 * spent. */
uint32_t cycle_find(const struct cycle_books *books, const struct cycle_place *from, int32_t pid,
                    struct cycle_budget *budget, struct cycle_step steps[static CYCLE_MAX]);

/* The one whose call is to return -EDEADLK; `n` if none can. */
uint32_t cycle_youngest(const struct cycle_step *steps, uint32_t n);
void cycle_break(const struct cycle_step *steps, uint32_t n);
