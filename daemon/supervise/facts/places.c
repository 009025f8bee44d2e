/* The choice of a place's next holder and of its last one: comparisons only, so that a test can walk through any order
 * of events. Nobody is served the less for want of a place (pool-places.c): what is shared out here is the short way.
 */
#include "daemon/supervise/facts/places.h"

static bool places_goes_before(const struct places_holder *a, const struct places_holder *b) {
        if (a->is_busy != b->is_busy)
                return b->is_busy;
        if (!a->is_busy && a->active_ns != b->active_ns)
                return a->active_ns < b->active_ns;
        return a->since_ns < b->since_ns;
}

int places_victim(const struct places_holder *holders, unsigned n, uint64_t now_ns) {
        int victim = -1;
        for (unsigned i = 0; i < n; i++)
                if (victim < 0 || places_goes_before(&holders[i], &holders[victim]))
                        victim = (int)i;
        if (victim >= 0 && holders[victim].is_busy && now_ns < holders[victim].since_ns + PLACES_TERM_NS)
                return -1;
        return victim;
}

unsigned places_next(const uint64_t *until_ns, unsigned n) {
        unsigned next = 0;
        for (unsigned i = 1; i < n; i++)
                if (until_ns[i] < until_ns[next])
                        next = i;
        return next;
}
