/* Whether a wait begins with spinning, and for how long. Everybody who waits on shared memory asks here: locks and
 * gates, the worker's claim loop, the client.
 *
 * Waking a sleeper on another CPU costs 11 µs here whatever the primitive (20 to 40 µs when the machine is busy), a
 * cache line that changes hands 0.2 to 0.45 µs: a spin that ends in time saves the wake-up, a vain one wastes its
 * length and, worse, keeps from its CPU the one who would end it. So:
 *
 *   - with one CPU to run on: never;
 *   - at most SPIN_NS, what a sleep costs: so a wait costs at most twice what the better choice would have; and a
 * worker stays awake while its client, with 64 jobs in flight, takes in the results before it sends the next ones;
 *   - each miss doubles the number of waits that go straight to sleep before the next try; a hit takes that back. There
 *     being no free CPU shows as misses: nobody can end our wait while we hold his CPU.
 *   - Two that sleep for each other hardly ever meet within SPIN_NS, for each is woken too late for the other's spin.
 *     So the try after the first miss, and the rare ones after many, are longer than a wake-up takes. If that finds
 *     something, though late, the next wait spins, too, and meets one that is awake.
 *   - Whoever knows that the one he waits for is awake says so (spin_expect).
 *
 * With fewer CPUs than busy processes no wait is answered while the other side has no CPU, and each sleep makes
 * somebody pay for the wake-up, which comes at the expense of one who has work. There a wait that has been short lately
 * gives its CPU away instead (sched_yield), and stays awake. The time a yield takes tells whether anybody wanted the
 * CPU: if not, it is time to sleep; if so, it costs us next to nothing. SPIN_MAX_YIELDS bounds it: at most so many
 * times a wait stands behind somebody else's slice. It is open to those with credit only: hits and sleeps so short that
 * they were not worth it earn it, yields in vain halve it.
 *
 * Who waits for a lock holds back before it looks at all: a look takes the word's cache line from an owner that gives
 * back and takes again, and a pause is a tenth of what the sleep costs that it often saves. Two processes that do
 * nothing but lock and unlock: 0.87 → 1.2 × a pthread mutex; that hold the lock for 0.1 to 2 µs of twice that: 1.05
 * → 1.2 ×.
 *
 * All bounds together: one wait burns at most SPIN_LONG_NS of CPU, one in 64 if spinning never pays, and whoever has
 * nothing to wait for spins once and then sleeps.
 *
 * Measured with two processes on two CPUs that others kept busy as well (load 4), medians, without and with spinning:
 * a mutex held 0.5 µs of every 1 µs by each 0.38 → 0.68 M/s, held 3 of 6 µs 0.074 → 0.13 M/s; a ping-pong over two
 * semaphores, where the other side had to wait for its CPU, 115 → 100 µs, and on one shared CPU 3 µs both ways:
 * spinning that cannot pay costs nothing that can be told from noise. Three processes on two CPUs (a client with 64
 * jobs in flight and two workers; load 10, so only the order counts): over two seconds the workers slept 1200 times
 * with a fixed spin, 750 times with this policy but for the yields, 190 times with them. */
#include <sched.h>

#include "ipc/memory/event.h"
#include "ipc/memory/spin.h"

enum {
        SPIN_NS = 12000,
        SPIN_LONG_NS = 50000,
        SPIN_STEPS_PER_LOOK = 8, /* at the clock, which costs about 30 ns */
        SPIN_MAX_PAUSES = 16,
        SPIN_BACK_PAUSES = 32, /* about 1 µs */
        SPIN_MAX_MISSES = 6,
        SPIN_MAX_LATE = 8, /* finds in a row that came later than SPIN_NS; one more counts as a miss */

        SPIN_MAX_YIELDS = 8,  /* a round */
        SPIN_AWAY_NS = 20000, /* a yield that takes longer let somebody else work */
        SPIN_YIELD_CREDIT = 16,
        SPIN_MAX_CREDIT = 64,
        SPIN_SLEEP_CREDIT = 4,
        SPIN_SHORT_SLEEP_NS = 50000,
};

#define SPIN_FAR_NS UINT64_C(1000000000) /* more than SPIN_MAX_YIELDS slices of the scheduler */

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

static uint32_t spin_load(const _Atomic uint32_t *word) { return atomic_load_explicit(word, memory_order_relaxed); }

static void spin_store(_Atomic uint32_t *word, uint32_t value) {
        atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Waits that go by before one spins again. */
static uint32_t spin_distance(uint32_t misses) { return misses < 2 ? 0 : (UINT32_C(1) << misses) - 1; }

void spin_hold_back(void) {
        for (unsigned i = 0; i < SPIN_BACK_PAUSES && spin_has_cpus(); i++)
                event_pause();
}

struct spin_round spin_begin(struct spin *s, uint64_t deadline_ns) {
        struct spin_round r = {.is_yielding = true};
        if (!spin_has_cpus())
                return r;
        uint32_t misses = spin_load(&s->misses), skipped = spin_load(&s->skipped);
        bool has_turn = skipped >= spin_distance(misses);
        if (misses > 0)
                spin_store(&s->skipped, has_turn ? 0 : skipped + 1);
        if (has_turn) {
                bool is_long = misses == 1 || misses == SPIN_MAX_MISSES;
                r.is_yielding = false;
                r.start_ns = event_now_ns();
                r.end_ns = r.start_ns + (is_long ? SPIN_LONG_NS : SPIN_NS);
        }
        /* Not if being away might take us past the deadline. */
        if (spin_load(&s->credit) >= SPIN_YIELD_CREDIT &&
            (deadline_ns == EVENT_FOREVER || deadline_ns > event_now_ns() + SPIN_FAR_NS))
                r.n_yields = SPIN_MAX_YIELDS;
        return r;
}

/* true: somebody had the CPU meanwhile. If not, nobody wants it, and sleeping costs nobody anything. */
static bool spin_yield(struct spin_round *r) {
        if (r->n_yields == 0)
                return false;
        r->n_yields--;
        r->has_yielded = true;
        uint64_t start_ns = event_now_ns();
        sched_yield();
        return event_now_ns() - start_ns >= SPIN_AWAY_NS;
}

bool spin_step(struct spin_round *r) {
        if (r->is_yielding)
                return spin_yield(r);
        r->n_steps++;
        if (r->n_steps % SPIN_STEPS_PER_LOOK == 0 && event_now_ns() >= r->end_ns) {
                r->is_yielding = true;
                return r->n_yields > 0; /* one more look, and time to say that we may be away for a while */
        }
        uint32_t n = r->n_steps < SPIN_MAX_PAUSES ? r->n_steps : SPIN_MAX_PAUSES;
        for (uint32_t i = 0; i < n; i++)
                event_pause();
        return true;
}

static void spin_judge_pauses(struct spin *s, const struct spin_round *r, bool is_hit) {
        uint32_t misses = spin_load(&s->misses);
        if (misses == 0 && is_hit)
                return;
        bool is_late = is_hit && event_now_ns() - r->start_ns > SPIN_NS;
        uint32_t n_late = is_late ? spin_load(&s->n_late) + 1 : 0;
        bool pays = is_hit && n_late <= SPIN_MAX_LATE;
        if (pays && !is_late)
                misses /= 2;
        else if (!pays && misses < SPIN_MAX_MISSES)
                misses++;
        spin_store(&s->misses, misses);
        spin_store(&s->n_late, pays ? n_late : 0);
        if (pays)
                spin_store(&s->skipped, spin_distance(misses)); /* the next one may spin, too */
}

static void spin_earn(struct spin *s, uint32_t n) {
        uint32_t credit = spin_load(&s->credit) + n;
        spin_store(&s->credit, credit < SPIN_MAX_CREDIT ? credit : SPIN_MAX_CREDIT);
}

void spin_end(struct spin *s, const struct spin_round *r, bool is_hit) {
        if (r->n_steps > 0)
                spin_judge_pauses(s, r, is_hit && !r->has_yielded);
        if (is_hit)
                spin_earn(s, 1);
        else if (r->has_yielded)
                spin_store(&s->credit, spin_load(&s->credit) / 2);
}

void spin_slept(struct spin *s, uint64_t since_ns) {
        if (event_now_ns() - since_ns < SPIN_SHORT_SLEEP_NS)
                spin_earn(s, SPIN_SLEEP_CREDIT);
}

void spin_expect(struct spin *s) { spin_store(&s->misses, 0); }
