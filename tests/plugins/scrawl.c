/* Writes rubbish over the shared memory of its host, wherever in the address space that is: channels, bells, and what
 * the pool's workers share with the broker. It finds them by the magic words of their first pages, and asks the kernel
 * which pages are there and may be written. Now and then it dies of it, in the middle. Job "rest" does nothing. */
#include <drover/plugin.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/layout.h"

enum { PAGE = 4096, MOST = 64, WORDS = 300, STEP = 16 };

#define REACH ((uintptr_t)1 << 26) /* of the plugin's own pages: the kernel maps one below the other */

static uint64_t random_state;

static uint64_t dice(uint64_t n) { /* splitmix64 */
        uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return (z ^ z >> 31) % n;
}

/* Adds 0 to the word there, if the page can be written. */
static bool is_writable(uintptr_t at) {
        const int add_nothing = FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0);
        static uint32_t ours;
        return syscall(SYS_futex, &ours, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, NULL, at, add_nothing) >= 0;
}

static bool is_shared(uintptr_t at) {
        uint32_t magic = *(const uint32_t *)at;
        return magic == LAYOUT_MAGIC_CHANNEL || magic == LAYOUT_MAGIC_BELL || magic == LAYOUT_MAGIC_POOL;
}

/* A page that is not there costs the kernel 10 us: every STEPth is tried, and its neighbours if it can be written. */
static unsigned find(uintptr_t *found) {
        uintptr_t here = (uintptr_t)&random_state & ~(uintptr_t)(PAGE - 1), next = here - REACH;
        unsigned n = 0;
        for (uintptr_t near = next; near < here + REACH; near += STEP * PAGE) {
                if (!is_writable(near))
                        continue;
                if (next < near - (STEP - 1) * PAGE)
                        next = near - (STEP - 1) * PAGE;
                for (; next < near + STEP * PAGE && n < MOST; next += PAGE)
                        if (is_writable(next) && is_shared(next))
                                found[n++] = next;
        }
        return n;
}

static int scrawl(drover_job *job) {
        uintptr_t found[MOST];
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        random_state = (uint64_t)now.tv_nsec;
        unsigned n = find(found);
        for (int i = 0; i < WORDS && n > 0; i++) {
                uintptr_t page = found[dice(n)] + dice(dice(2) ? 1 : 8) * PAGE;
                if (!is_writable(page))
                        continue;
                uint64_t *word = (uint64_t *)page + dice(PAGE / sizeof(uint64_t));
                __atomic_store_n(word, dice(3) ? dice(UINT64_MAX) : dice(4), __ATOMIC_RELAXED);
        }
        if (dice(3) == 0)
                abort();
        return drover_ret_u64(job, "n", n);
}

static int rest(drover_job *job) { return drover_reply(job, "rested", 6); }

static const struct drover_job_type jobs[] = {
        {.name = "scrawl", .args = "raw", .result = "n:u64", .handle = scrawl},
        {.name = "rest", .args = "raw", .result = "raw", .handle = rest},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "scrawl", "1.0")
