/* How users number the priorities of jobs, the same in C, on the bus and in the shell: 0 is the default, and of 1 to 4
 * the highest is served first. The ready rings of a channel are these numbers less one. */
#pragma once

#include "ipc/layout.h"

enum { PRIORITY_DEFAULT = 0, PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH, PRIORITY_URGENT };

#define PRIORITY_WORDS "low|normal|high|urgent" /* from PRIORITY_LOW up */

static_assert((int)PRIORITY_URGENT == (int)LAYOUT_PRIORITIES);
static_assert((int)PRIORITY_NORMAL - 1 == (int)LAYOUT_PRIORITY_DEFAULT);

/* The ring of a number that was checked: 0 to PRIORITY_URGENT. */
static inline uint32_t priority_ring(uint32_t number) {
        return number == PRIORITY_DEFAULT ? (uint32_t)LAYOUT_PRIORITY_DEFAULT : number - 1;
}
