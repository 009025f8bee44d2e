/* Which process this is, for memory that a fork copies: an object that notes the number is known in a child for one of
 * its parent's, whose shared memory is not mapped there.
 *
 * The number stands in a page that the kernel wipes in a child (MADV_WIPEONFORK), so no handler of the C library is
 * needed, and no system call after the first one. A child counts on from its parent: its number is higher than those of
 * all that it comes from. */
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#include "ipc/layout.h"
#include "ipc/memory/process.h"

static _Atomic(_Atomic uint64_t *) process_page;
static _Atomic uint64_t process_last;

static _Atomic uint64_t *process_make_page(void) {
        _Atomic uint64_t *page = mmap(NULL, LAYOUT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        _Atomic uint64_t *none = NULL;
        if (page == MAP_FAILED)
                return NULL;
        if (madvise(page, LAYOUT_PAGE, MADV_WIPEONFORK) == 0 &&
            atomic_compare_exchange_strong(&process_page, &none, page))
                return page;
        munmap(page, LAYOUT_PAGE);
        return none; /* another thread was first */
}

uint64_t process_number(void) {
        _Atomic uint64_t *page = atomic_load_explicit(&process_page, memory_order_acquire);
        if (!page)
                page = process_make_page();
        if (!page)
                return 0;
        uint64_t number = atomic_load_explicit(page, memory_order_relaxed), wiped = 0;
        if (number != 0)
                return number;
        number = atomic_fetch_add(&process_last, 1) + 1;
        return atomic_compare_exchange_strong(page, &wiped, number) ? number : wiped;
}
