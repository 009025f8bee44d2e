/* Waits that look for themselves whether a wake-up was lost; linked into the programs of a torture run in place of
 * waits that sleep until they are woken. Each sleep lasts a slice; then:
 *
 *   WAIT_LOOK  what would end the wait is there, and still the same after another moment asleep: nobody woke us for it.
 *              Between the end of the slice and that moment we are in nobody's queue, and a wake-up may miss us: so it
 *              counts only if we were back at once, and was there well before (WAIT_LOOK_SINCE); or, for the latter,
 *              if the words are still those that we went to sleep on;
 *   WAIT_GATE  the sequence did not change during the whole slice, the caller tries again and finds something, and
 * nobody changes the sequence soon after: it was published without a signal. Or the sequence changed once, nobody came
 * for what that told of for a moment, and the gate does not say that a waker met nobody (us, between two pieces of
 * sleep): it was told and nobody was woken.
 *
 * A waker that is stopped, killed or without a CPU between publishing and waking looks the same: what is told here is
 * judged by who knows when that was (parts.py). A look changes nothing; a gate's caller registers anew before each
 * slice, as after any vain wake-up. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memory/wait-watch.h"
#include "ipc/sync/layout.h"

#define WATCH_SLICE_NS UINT64_C(20000000)
#define WATCH_MOMENT_NS UINT64_C(15000000)
#define WATCH_BEFORE_NS                                                                                                \
        UINT64_C(2000000)                /* the end of the slice: more than a waker takes from publishing to waking    \
                                          */
#define WATCH_AT_ONCE_NS UINT64_C(80000) /* a timer is late by 50 µs as a rule */
#define WATCH_PIECE_NS UINT64_C(5000000) /* of a gate's slice */

static _Thread_local struct {
        const char *what; /* NULL: the next wait is not watched */
        wait_look look;   /* NULL: any change of the word is a reason to be woken */
        const void *user;
        bool is_timed;
        const _Atomic uint64_t *gate; /* NULL: not a gate */
} next;

static _Thread_local struct { /* a gate's slice that ended in vain, and nothing changed meanwhile */
        const char *what;
        const _Atomic uint32_t *word;
        uint32_t seen;
        uint64_t since_ns;
} vain;

static void watch_say(const char *what, uint64_t since_ns) {
        char line[128];
        int n = snprintf(line, sizeof line, "rescued %s %llu %llu %d\n", what, (unsigned long long)since_ns,
                         (unsigned long long)event_now_ns(), (int)getpid());
        if (write(STDERR_FILENO, line, (size_t)n) != n)
                _exit(3); /* nobody listens any more */
}

void wait_watch_look(const char *what, wait_look look, const void *user, bool is_timed) {
        next.what = what;
        next.look = look;
        next.user = user;
        next.is_timed = is_timed;
        next.gate = NULL;
}

void wait_watch_gate(const char *what, const _Atomic uint64_t *gate) {
        next.what = what;
        next.gate = gate;
}

void wait_watch_found(void) {
        const char *what = vain.what;
        next.what = vain.what = NULL;
        if (!what)
                return;
        for (uint64_t end_ns = event_now_ns() + WATCH_MOMENT_NS; event_now_ns() < end_ns;) {
                const struct timespec pause = {.tv_nsec = 500000};
                if (atomic_load(vain.word) != vain.seen)
                        return; /* the signal was on its way */
                nanosleep(&pause, NULL);
        }
        watch_say(what, vain.since_ns);
}

/* What a wait is for, as its caller said it. */
struct reason {
        wait_look look;
        const void *user;
        bool is_timed;
        uint64_t before_ns; /* the end of the slice, less a little */
};

static uint64_t watch_look_now(const struct event_wait *w, const struct reason *reason) {
        if (reason->look)
                return reason->look(reason->user, reason->before_ns);
        uint32_t now = atomic_load(w->word);
        return now != w->seen ? (uint64_t)now | UINT64_C(1) << 63 : 0;
}

static bool watch_has_changed(const struct event_wait *waits, unsigned n_waits) {
        for (unsigned i = 0; i < n_waits; i++)
                if (atomic_load(waits[i].word) != waits[i].seen)
                        return true;
        return false;
}

/* Asleep for another moment on the words as they are now: 0 = woken, or something changed. */
static int watch_confirm(const struct event_wait *waits, unsigned n_waits, const struct reason *reason,
                         uint64_t *ret_what, wait_sleeper sleep) {
        struct event_wait now[EVENT_MAX_WORDS];
        for (unsigned i = 0; i < n_waits; i++)
                now[i] = (struct event_wait){.word = waits[i].word, .seen = atomic_load(waits[i].word)};
        *ret_what = watch_look_now(waits, reason);
        return *ret_what == 0 ? -EAGAIN : sleep(now, n_waits, event_now_ns() + WATCH_MOMENT_NS);
}

/* One slice on a gate. 0: to be looked at again. */
static int watch_gate(const struct event_wait *w, const char *what, const _Atomic uint64_t *gate, uint64_t deadline_ns,
                      wait_sleeper sleep) {
        uint64_t since_ns = event_now_ns(), slice_ns = since_ns + WATCH_SLICE_NS;
        uint32_t now = w->seen;
        for (uint64_t at_ns = since_ns; at_ns < slice_ns && now == w->seen; now = atomic_load(w->word)) {
                at_ns += WATCH_PIECE_NS;
                int r = sleep(w, 1, at_ns < deadline_ns ? at_ns : deadline_ns);
                if (r != -ETIMEDOUT || at_ns >= deadline_ns)
                        return r;
        }
        if (now != w->seen) {
                const struct timespec moment = {.tv_nsec = (long)WATCH_MOMENT_NS};
                nanosleep(&moment, NULL);
                uint64_t later = atomic_load(gate);
                if ((uint32_t)later != now || !(later & GATE_SLEEPERS))
                        return 0;
        }
        vain.what = what;
        vain.word = w->word;
        vain.seen = now;
        vain.since_ns = since_ns;
        return 0;
}

int wait_watch_sleep(const struct event_wait *waits, unsigned n_waits, uint64_t deadline_ns, wait_sleeper sleep) {
        const char *what = next.what;
        struct reason reason = {.look = next.look, .user = next.user, .is_timed = next.is_timed};
        const _Atomic uint64_t *gate = next.gate;
        next.what = vain.what = NULL;
        if (!what || deadline_ns == 0)
                return sleep(waits, n_waits, deadline_ns);
        if (gate)
                return watch_gate(waits, what, gate, deadline_ns, sleep);
        for (;;) {
                uint64_t slice_ns = event_now_ns() + WATCH_SLICE_NS, before;
                int r = sleep(waits, n_waits, slice_ns < deadline_ns ? slice_ns : deadline_ns);
                if (r != -ETIMEDOUT || slice_ns >= deadline_ns)
                        return r;
                uint64_t looked_ns = event_now_ns();
                reason.before_ns = slice_ns - WATCH_BEFORE_NS;
                if (looked_ns > slice_ns + WATCH_AT_ONCE_NS && (!reason.is_timed || watch_has_changed(waits, n_waits)))
                        continue;
                r = watch_confirm(waits, n_waits, &reason, &before, sleep);
                if (r == -EAGAIN)
                        continue;
                if (r == -ETIMEDOUT && watch_look_now(waits, &reason) == before)
                        watch_say(what, looked_ns);
                return 0;
        }
}
