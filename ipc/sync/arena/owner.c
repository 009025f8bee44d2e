/* Numbers for threads and fibers, unique in this process.
 *
 * Not the kernel's thread id: a process that was forked from a template by a raw clone shares cached ids with it, and a
 * fiber has none. Numbers begin anew after 2^24; two owners that live 16 million starts apart would be taken for one.
 */
#include <stdatomic.h>

#include "ipc/sync/arena/owner.h"

__thread uint32_t owner_sub_current;

uint32_t owner_sub_new(void) {
        static _Atomic uint32_t last;
        uint32_t sub;
        do
                sub = (atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1) & OWNER_SUB_MASK;
        while (sub == 0);
        return sub;
}

uint32_t owner_sub_assign(void) { return owner_sub_current = owner_sub_new(); }
