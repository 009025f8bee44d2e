/* Log-linear histograms: eight buckets to each doubling, from 128 ns up to an hour and more, so that a quantile is at
 * most an eighth too large, and never too small.
 *
 * Invariants: a histogram has one writer at a time (the worker of its index, whose death is confirmed before the next
 * one starts), so counting is a load and a store, no locked instruction, and a kill in between loses one count at most.
 * The counts stay when the worker goes: its successor counts on, and nothing needs to be folded at a death. A reader
 * takes each word once; a torn picture is off by the jobs of that moment. */
#include "ipc/memory/latency.h"

enum {
        LATENCY_UNIT_BITS = 7, /* 128 ns: what lies below is one bucket */
        LATENCY_SUB_BITS = 3,
        LATENCY_SUB = 1 << LATENCY_SUB_BITS,
        LATENCY_OCTAVES = LAYOUT_LATENCY_BUCKETS / LATENCY_SUB - 1, /* doublings above the linear part */
};

/* What the worker of a line, or another one, may have written there besides: no sum overflows, and no job ran for a
 * century. */
#define LATENCY_MAX_COUNT (UINT64_C(1) << 40)
#define LATENCY_MAX_NS (UINT64_C(100) * 366 * 86400 * 1000000000)

unsigned latency_bucket(uint64_t ns) {
        uint64_t units = ns >> LATENCY_UNIT_BITS;
        if (units < LATENCY_SUB)
                return (unsigned)units;
        unsigned octave = 63 - LATENCY_SUB_BITS - (unsigned)__builtin_clzll(units);
        if (octave >= LATENCY_OCTAVES)
                return LAYOUT_LATENCY_BUCKETS - 1;
        return (octave + 1) * LATENCY_SUB + (unsigned)(units >> octave & (LATENCY_SUB - 1));
}

uint64_t latency_bucket_top_ns(unsigned bucket) {
        if (bucket >= LAYOUT_LATENCY_BUCKETS - 1)
                return UINT64_MAX;
        uint64_t units = bucket + 1;
        if (bucket >= LATENCY_SUB)
                units = (uint64_t)(LATENCY_SUB + bucket % LATENCY_SUB + 1) << (bucket / LATENCY_SUB - 1);
        return (units << LATENCY_UNIT_BITS) - 1;
}

void latency_count(struct layout_latency *l, uint64_t ns) {
        _Atomic uint64_t *count = &l->counts[latency_bucket(ns)];
        atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
        if (ns > atomic_load_explicit(&l->max_ns, memory_order_relaxed))
                atomic_store_explicit(&l->max_ns, ns, memory_order_relaxed);
}

void latency_add(struct latency_sum *s, const struct layout_latency *l) {
        uint64_t max_ns = atomic_load_explicit(&l->max_ns, memory_order_relaxed);
        for (unsigned i = 0; i < LAYOUT_LATENCY_BUCKETS; i++) {
                uint64_t n = atomic_load_explicit(&l->counts[i], memory_order_relaxed);
                if (n > LATENCY_MAX_COUNT)
                        continue;
                s->counts[i] += n;
                s->n += n;
        }
        if (max_ns > LATENCY_MAX_NS)
                max_ns = LATENCY_MAX_NS;
        if (max_ns > s->max_ns)
                s->max_ns = max_ns;
}

uint64_t latency_quantile_ns(const struct latency_sum *s, unsigned per_mille) {
        uint64_t seen = 0, rank = s->n / 1000 * per_mille + (s->n % 1000 * per_mille + 999) / 1000;
        for (unsigned i = 0; i < LAYOUT_LATENCY_BUCKETS && s->n > 0; i++) {
                seen += s->counts[i];
                if (seen >= rank && s->counts[i] > 0) {
                        uint64_t top_ns = latency_bucket_top_ns(i);
                        return top_ns < s->max_ns ? top_ns : s->max_ns;
                }
        }
        return s->max_ns;
}
