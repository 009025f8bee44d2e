/* Back-off with jitter, and the start limit: arithmetic only, so that a test can walk through years of it. */
#include "daemon/supervise/facts/restart.h"

void restart_init(struct restart *r, uint64_t seed) { *r = (struct restart){.random = seed | 1}; }

static uint64_t restart_jitter(struct restart *r, uint64_t delay_ns) {
        r->random ^= r->random << 13;
        r->random ^= r->random >> 7;
        r->random ^= r->random << 17;
        uint64_t half = delay_ns / 2;
        return delay_ns - delay_ns / 4 + (half ? r->random % half : 0); /* 75 % … 125 % */
}

void restart_note_failure(struct restart *r, const struct restart_policy *p, uint64_t now_ns) {
        if (r->n_in_interval == 0 || now_ns - r->interval_start_ns > p->interval_ns) {
                r->interval_start_ns = now_ns;
                r->n_in_interval = 0;
        }
        r->n_in_interval++;
        if (p->burst > 0 && r->n_in_interval > p->burst)
                r->is_degraded = true;
        uint64_t delay = p->delay_ns;
        for (uint32_t i = 0; i < r->n_failures && delay < p->max_delay_ns; i++)
                delay *= 2;
        if (delay > p->max_delay_ns || r->is_degraded)
                delay = p->max_delay_ns;
        r->n_failures++;
        r->not_before_ns = now_ns + restart_jitter(r, delay);
}

void restart_note_hang(struct restart *r, const struct restart_policy *p, uint64_t now_ns) {
        restart_note_failure(r, p, now_ns);
        r->is_degraded = true;
}

void restart_note_loss(struct restart *r, uint64_t delay_ns, uint64_t now_ns) {
        r->not_before_ns = now_ns + restart_jitter(r, delay_ns);
}

void restart_note_healthy(struct restart *r) {
        r->n_failures = 0;
        r->n_in_interval = 0;
        r->not_before_ns = 0;
        r->is_degraded = false;
}

void restart_reset(struct restart *r) { restart_note_healthy(r); }
