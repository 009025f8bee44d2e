/* An explicit-state explorer: every state that a model can reach, breadth first, so that the first violation found is
 * one of the shortest. A state is a string of bytes in which equal states are equal bytes (clear padding and unused
 * fields). No hashing away of states: what is reported as whole is whole; a compact run (explore.c) says what is not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct explore;

struct explore_model {
        size_t state_bytes; /* a multiple of 8 */
        void (*init)(void *ret_state);
        /* Calls explore_emit for each step that can be taken in `state`, explore_fail for what must never be. */
        void (*expand)(struct explore *x, const void *state);
        /* Replaces a state by the representative of its symmetry class; NULL: none. */
        void (*canonicalize)(void *state);
        void (*print_step)(unsigned label);
        void (*print_state)(const void *state);
};

struct explore_result {
        uint64_t n_states, n_steps;
        unsigned depth;        /* steps from the start to the farthest state */
        const char *violation; /* NULL: none, and the space is whole */
        double seconds;
};

/* 0, also with a violation, whose trace is printed; -ENOBUFS if there are more than `max_states` (the result says how
 * far it came); -ENOMEM, -EINVAL. */
int explore_run(const struct explore_model *m, uint64_t max_states, bool is_compact, struct explore_result *ret);

/* Runs it and prints what came out. true if that is the violation `expected` (NULL: none, and the space is whole). */
bool explore_case(const struct explore_model *m, const char *name, const char *expected, uint64_t max_states,
                  bool is_compact);

void explore_emit(struct explore *x, const void *next, unsigned label);
/* The step `label` (or the state itself, if no step is to blame: EXPLORE_NO_STEP) breaks the property `what`. */
void explore_fail(struct explore *x, const char *what, unsigned label);

enum { EXPLORE_NO_STEP = ~0u };
