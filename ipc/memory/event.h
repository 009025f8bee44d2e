/* Futex waits and wakes on shared words: the only user of futex(2) and futex_waitv(2).
 * Deadlines are absolute CLOCK_MONOTONIC ns; EVENT_FOREVER = none. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define EVENT_FOREVER UINT64_MAX
#define EVENT_MAX_WORDS 17 /* a worker's control word and the bells of LAYOUT_BELLS_PER_WORKER uids */

struct event_wait {
        const _Atomic uint32_t *word;
        uint32_t seen;
};

uint64_t event_now_ns(void);

/* Sleeps while *word == seen. 0 when woken or the word differs (callers re-check anyway), -ETIMEDOUT, -EINTR. */
int event_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns);
/* The same on several words at once, 1..EVENT_MAX_WORDS. */
int event_wait_any(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns);

/* Wakes up to n sleepers. Returns how many it woke; 0 if the word is not mapped. */
int event_wake(_Atomic uint32_t *word, int n);

/* seq++ and wake everybody: after a death, a mode change, a message. */
void event_broadcast(_Atomic uint32_t *seq);
/* The same for a word whose value its only writer keeps privately: what stands there counts for nothing. */
void event_publish(_Atomic uint32_t *word, uint32_t value);

static inline void event_pause(void) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
}
