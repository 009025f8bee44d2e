/* Futexes on shared words. Owns the system calls and nothing else: who sets which bit before sleeping is the business
 * of bell.c and channel.c.
 *
 * Never FUTEX_PRIVATE: the words lie in memory that several processes map. Deadlines are absolute, so a wait that is
 * interrupted and begun again does not grow. A wait on several words costs about 0.2 µs a word, so one word takes the
 * plain futex. */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/wait-watch.h"

/* glibc 2.36 has no wrapper, and headers before 5.16 have neither the number nor the struct. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

enum { EVENT_FUTEX_32 = 2 };

struct event_waitv {
        uint64_t seen;
        uint64_t address;
        uint32_t flags;
        uint32_t reserved;
};

static const struct timespec *event_timespec(struct timespec *ts, uint64_t deadline_ns) {
        if (deadline_ns == EVENT_FOREVER)
                return NULL;
        ts->tv_sec = (time_t)(deadline_ns / 1000000000u);
        ts->tv_nsec = (long)(deadline_ns % 1000000000u);
        return ts;
}

static int event_result(long r) {
        if (r >= 0 || errno == EAGAIN)
                return 0;
        return -errno;
}

uint64_t event_now_ns(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int event_sleep_one(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns) {
        struct timespec ts;
        return event_result(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, event_timespec(&ts, deadline_ns), NULL,
                                    FUTEX_BITSET_MATCH_ANY));
}

static int event_sleep(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns) {
        if (n_waits == 1)
                return event_sleep_one(waits[0].word, waits[0].seen, deadline_ns);
        if (n_waits == 0 || n_waits > EVENT_MAX_WORDS)
                return -EINVAL;

        struct event_waitv v[EVENT_MAX_WORDS];
        for (unsigned i = 0; i < n_waits; i++)
                v[i] = (struct event_waitv){
                        .seen = waits[i].seen,
                        .address = (uint64_t)(uintptr_t)waits[i].word,
                        .flags = EVENT_FUTEX_32,
                };
        struct timespec ts;
        return event_result(syscall(SYS_futex_waitv, v, n_waits, 0, event_timespec(&ts, deadline_ns), CLOCK_MONOTONIC));
}

#ifdef DROVER_WATCHED_WAITS
int event_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns) {
        return wait_watch_sleep(&(struct event_wait){.word = word, .seen = seen}, 1, deadline_ns, event_sleep);
}

int event_wait_any(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns) {
        return wait_watch_sleep(waits, n_waits, deadline_ns, event_sleep);
}
#else
int event_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns) {
        return event_sleep_one(word, seen, deadline_ns);
}

int event_wait_any(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns) {
        return event_sleep(waits, n_waits, deadline_ns);
}
#endif

int event_wake(_Atomic uint32_t *word, int n) {
        long r = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
        return r < 0 ? 0 : (int)r;
}

void event_broadcast(_Atomic uint32_t *seq) {
        /* release: what was changed before is seen by whoever reads the new seq (acquire in bell_sleep_begin and the
         * like). The futex itself is the partner of the sleeper's compare. */
        atomic_fetch_add_explicit(seq, 1, memory_order_acq_rel);
        event_wake(seq, INT32_MAX);
}

void event_publish(_Atomic uint32_t *word, uint32_t value) {
        /* As above; seq_cst, because a broker's words go both ways (ipc/PROTOCOL.md, C1 and P1). */
        atomic_store_explicit(word, value, memory_order_seq_cst);
        event_wake(word, INT32_MAX);
}
