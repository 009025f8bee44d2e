/* Who acts: the sub-owner half of an identity, a thread or, where a scheduler says so, a fiber. */
#pragma once

#include <stdint.h>

#include "ipc/sync/layout.h"

/* 0 until the thread first asks. One instruction to read: no call on the fast path of a lock. */
extern __thread uint32_t owner_sub_current __attribute__((tls_model("initial-exec"), visibility("hidden")));

uint32_t owner_sub_assign(void); /* gives this thread its number */

static inline uint32_t owner_sub_self(void) {
        uint32_t sub = owner_sub_current;
        return sub ? sub : owner_sub_assign();
}

/* A scheduler of fibers: numbers for its fibers, and which of them runs on this thread now. */
uint32_t owner_sub_new(void);
static inline void owner_sub_set(uint32_t sub) { owner_sub_current = sub; }
