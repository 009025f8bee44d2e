/* The bell: an eventcount shared by the channels of one uid in one pool, with one bit per sleeper, spinner and channel.
 *
 * Each wake-up rests on two parties that both write and then read what the other wrote; all four accesses are seq_cst,
 * so at least one of them sees the other. A locked instruction is the fence here: on x86 the loads cost nothing, a
 * separate fence would. The pairs (PROTOCOL.md, "Wake-ups", goes through the cases):
 *
 *   S1 bell_ring        hint published      | work bit read              ~ S5
 *   S2 bell_ring        work bit set        | mode, spinners, sleepers   ~ S3, S4
 *   S3 bell_sleep_begin sleeper bit set     | seq, work bits read
 *   S4 bell_spin_end    spinner bit cleared | the caller's second look
 *   S5 bell_clear_work  work bit cleared    | the caller's second look into the channel
 *   S6 bell_pass_on     work bit set again  | sleepers                   ~ S3
 *   S7 bell_set_mode    mode set            | the caller's look into the channels ~ S1
 *   S8 bell_ring        hint published      | sleeps, sleepers           ~ S3, and bell_sleep_end
 *
 * Bits outlive their owners: the broker clears those of the dead (bell_forget) and broadcasts. Nothing here is trusted:
 * indices come from the caller, words are loaded once, and the worst a hostile client does to this page is to wake or
 * not to wake the workers for the channels of its own uid. */
#include <unistd.h>

#include "ipc/bell.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"
#include "ipc/kill-point.h"
#include "ipc/segment.h"

static inline uint64_t bell_bit(uint32_t i) { return UINT64_C(1) << (i & 63); }

static inline uint32_t bell_word(uint32_t i) { return i / 64 & (LAYOUT_BELL_WORDS - 1); }

static inline bool bell_any(const _Atomic uint64_t words[LAYOUT_BELL_WORDS]) {
        uint64_t all = 0;
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++)
                all |= atomic_load_explicit(&words[i], memory_order_seq_cst);
        return all != 0;
}

static inline void bell_set(_Atomic uint64_t *words, uint32_t i) {
        atomic_fetch_or_explicit(&words[bell_word(i)], bell_bit(i), memory_order_seq_cst);
}

static inline void bell_clear(_Atomic uint64_t *words, uint32_t i) {
        atomic_fetch_and_explicit(&words[bell_word(i)], ~bell_bit(i), memory_order_seq_cst);
}

/* S8: between our last wake-up and now nobody on `memo` got up or lay down, and we woke as many as there are: the futex
 * has no waiter left, so the system call would do nothing. `sleeps` is read before the bits and counted after them, so
 * a bit that is new here came with a count that is new at the next call. */
static bool bell_is_all_woken(const struct layout_bell *b, struct bell_memo *memo) {
        struct bell_memo now = {.sleeps = atomic_load_explicit(&b->sleeps, memory_order_seq_cst)};
        unsigned n_asleep = 0;
        bool is_same = now.sleeps == memo->sleeps;
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++) {
                now.sleepers[i] = atomic_load_explicit(&b->sleepers[i], memory_order_seq_cst);
                n_asleep += (unsigned)__builtin_popcountll(now.sleepers[i]);
                is_same = is_same && now.sleepers[i] == memo->sleepers[i];
        }
        if (!is_same)
                *memo = now;
        return memo->n_woken >= n_asleep;
}

static inline void bell_wake_one(struct layout_bell *b, struct bell_memo *memo) {
        if (!bell_any(b->sleepers) || bell_any(b->spinners) || bell_is_all_woken(b, memo))
                return;
        /* Partner: the load in bell_sleep_begin. */
        atomic_fetch_add_explicit(&b->seq, 1, memory_order_seq_cst);
        KILL_POINT("bell-seq");
        memo->n_woken += (unsigned)event_wake(&b->seq, 1);
}

int bell_create(const char *name, struct layout_bell **ret, int *ret_fd) {
        int fd;
        int r = segment_create(name, LAYOUT_PAGE, &fd);
        if (r < 0)
                return r;
        void *p;
        r = segment_map(fd, 0, LAYOUT_PAGE, true, &p);
        if (r < 0) {
                close(fd);
                return r;
        }
        struct layout_bell *b = p;
        b->header = (struct layout_header){.magic = LAYOUT_MAGIC_BELL, .version = LAYOUT_VERSION};
        *ret = b;
        *ret_fd = fd;
        return 0;
}

int bell_map(int fd, struct layout_bell **ret) {
        int r = segment_check(fd, LAYOUT_PAGE);
        if (r < 0)
                return r;
        void *p;
        r = segment_map(fd, 0, LAYOUT_PAGE, true, &p);
        if (r < 0)
                return r;
        *ret = p;
        return 0;
}

struct layout_bell *bell_unmap(struct layout_bell *b) {
        segment_unmap(b, LAYOUT_PAGE);
        return NULL;
}

void bell_ring(struct layout_bell *b, uint32_t channel, int broker_fd, struct bell_memo *memo) {
        /* S1 ~ S5: either the clearer's second look finds our hint, or we find the bit cleared and set it. */
        if (!bell_channel_has_work(b, channel)) {
                /* S2 ~ S3, S4: either the sleeper sees the bit, or we see the sleeper. If the bit stood already, S1
                 * does this: whoever clears it later looks again, and our hint was there before. */
                KILL_POINT("bell-work-before");
                bell_set(b->work, channel);
                KILL_POINT("bell-work-after");
        }
        if (atomic_load_explicit(&b->mode, memory_order_seq_cst) != BELL_FUTEX) {
                doorbell_ring(broker_fd);
                return;
        }
        bell_wake_one(b, memo);
}

bool bell_has_sleepers(const struct layout_bell *b) { return bell_any(b->sleepers); }

void bell_pass_on(struct layout_bell *b, struct bell_memo *memo) {
        /* S6 ~ S3: either the one that goes to sleep sees the work that remains, or we see its bit. */
        if (bell_has_sleepers(b) && bell_has_work(b))
                bell_wake_one(b, memo);
}

void bell_broadcast(struct layout_bell *b) { event_broadcast(&b->seq); }

void bell_set_mode(struct layout_bell *b, enum bell_mode mode) {
        /* S7 ~ S1: a client that still sees the old mode has published before the caller looks into the channels. */
        atomic_store_explicit(&b->mode, mode, memory_order_seq_cst);
        bell_broadcast(b);
}

uint32_t bell_sleep_begin(struct layout_bell *b, uint32_t worker) {
        /* S3 ~ S2, S6. The seq is read after it: a ring that misses our bit was published before our second look, a
         * ring that sees it changes the seq we are about to compare. */
        bell_set(b->sleepers, worker);
        KILL_POINT("bell-sleeper");
        atomic_fetch_add_explicit(&b->sleeps, 1, memory_order_seq_cst);
        return atomic_load_explicit(&b->seq, memory_order_seq_cst);
}

void bell_sleep_end(struct layout_bell *b, uint32_t worker) {
        KILL_POINT("bell-woken");
        bell_clear(b->sleepers, worker);
        KILL_POINT("bell-awake");
}

void bell_spin_begin(struct layout_bell *b, uint32_t worker) {
        bell_set(b->spinners, worker);
        KILL_POINT("bell-spinner");
}

void bell_spin_end(struct layout_bell *b, uint32_t worker) {
        /* S4 ~ S2: a waker that still saw the bit, and so woke nobody, published before the caller's second look. */
        bell_clear(b->spinners, worker);
        KILL_POINT("bell-spun");
}

void bell_forget(struct layout_bell *b, uint32_t worker) {
        bell_clear(b->sleepers, worker);
        bell_clear(b->spinners, worker); /* S4 on behalf of the dead */
}

bool bell_channel_has_work(const struct layout_bell *b, uint32_t channel) {
        return atomic_load_explicit(&b->work[bell_word(channel)], memory_order_seq_cst) & bell_bit(channel);
}

void bell_clear_work(struct layout_bell *b, uint32_t channel) {
        /* S5 ~ S1: a ring that still saw the bit published before the caller's second look. */
        bell_clear(b->work, channel);
        KILL_POINT("bell-clear-work");
}

void bell_mark_work(struct layout_bell *b, uint32_t channel) { bell_set(b->work, channel); }

bool bell_has_work(const struct layout_bell *b) { return bell_any(b->work); }
