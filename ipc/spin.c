/* Whether a wait begins with spinning, and for how long.
 *
 * Waking a sleeper on another CPU costs 11 µs here whatever the primitive, a cache line that changes hands 0.2 to 0.45
 * µs: a spin that ends in time saves some 10 µs, a vain one wastes its length and, worse, keeps from its CPU the one
 * who would end it. So:
 *
 *   - with one CPU to run on: never;
 *   - at most SPIN_NS, a third of what a sleep costs: a mix with one hit in three breaks even;
 *   - each miss doubles the number of waits that go straight to sleep before the next try, up to SPIN_MAX_DISTANCE;
 *     a hit takes that back. There being no free CPU shows as misses: nobody can end our wait while we hold his CPU.
 *
 * Measured with two processes on two CPUs that others kept busy as well (load 4), medians, without and with spinning:
 * a mutex held 0.5 µs of every 1 µs by each 0.38 → 0.68 M/s, held 3 of 6 µs 0.074 → 0.13 M/s; a ping-pong over two
 * semaphores, where the other side had to wait for its CPU, 115 → 100 µs, and on one shared CPU 3 µs both ways: spinning
 * that cannot pay costs nothing that can be told from noise. */
#include <sched.h>

#include "ipc/event.h"
#include "ipc/spin.h"

enum {
        SPIN_NS = 4000,
        SPIN_STEPS_PER_LOOK = 8, /* at the clock, which costs about 30 ns */
        SPIN_MAX_PAUSES = 16,
        SPIN_MAX_MISSES = 8,
        SPIN_MAX_DISTANCE = 1 << SPIN_MAX_MISSES,
};

static bool spin_has_cpus(void) {
        static _Atomic int n_cpus;
        int n = atomic_load_explicit(&n_cpus, memory_order_relaxed);
        if (n == 0) {
                cpu_set_t set;
                n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
                atomic_store_explicit(&n_cpus, n, memory_order_relaxed);
        }
        return n > 1;
}

struct spin_round spin_begin(struct spin *s) {
        struct spin_round r = {0};
        uint32_t misses = atomic_load_explicit(&s->misses, memory_order_relaxed);
        if (misses > 0) {
                uint32_t skipped = atomic_load_explicit(&s->skipped, memory_order_relaxed) + 1;
                atomic_store_explicit(&s->skipped, skipped, memory_order_relaxed);
                if (skipped < UINT32_C(1) << (misses < SPIN_MAX_MISSES ? misses : SPIN_MAX_MISSES))
                        return r;
                atomic_store_explicit(&s->skipped, 0, memory_order_relaxed);
        }
        if (spin_has_cpus())
                r.deadline_ns = event_now_ns() + SPIN_NS;
        return r;
}

bool spin_step(struct spin_round *r) {
        if (r->deadline_ns == 0)
                return false;
        if (++r->n_steps % SPIN_STEPS_PER_LOOK == 0 && event_now_ns() >= r->deadline_ns)
                return false;
        uint32_t n = r->n_steps < SPIN_MAX_PAUSES ? r->n_steps : SPIN_MAX_PAUSES;
        for (uint32_t i = 0; i < n; i++)
                event_pause();
        return true;
}

void spin_end(struct spin *s, const struct spin_round *r, bool is_hit) {
        if (r->deadline_ns == 0)
                return;
        uint32_t misses = atomic_load_explicit(&s->misses, memory_order_relaxed);
        if (is_hit && misses > 0)
                atomic_store_explicit(&s->misses, misses / 2, memory_order_relaxed);
        else if (!is_hit && misses < SPIN_MAX_MISSES)
                atomic_store_explicit(&s->misses, misses + 1, memory_order_relaxed);
}
