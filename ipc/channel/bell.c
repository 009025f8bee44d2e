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
 *   S8 bell_ring        hint published      | woken, rises               ~ bell_sleep_end: rises + 1 | its look
 *
 * Bits outlive their owners: the broker clears those of the dead (bell_forget) and broadcasts. Nothing here is trusted:
 * indices come from the caller, words are loaded once, and the worst a hostile client does to this page is to wake or
 * not to wake the workers for the channels of its own uid. */
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/segment.h"

enum {
        BELL_TICK_SHIFT = 10, /* of the time in `woken`: about 1 µs */
        BELL_PATIENCE = 1000, /* ticks */
};

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

static inline uint64_t bell_front(const struct layout_bell *b) {
        return atomic_load_explicit(&b->front, memory_order_relaxed);
}

bool bell_is_in_front(const struct layout_bell *b, uint32_t worker) {
        return worker < 64 && bell_front(b) & bell_bit(worker);
}

/* FUTEX_WAKE took one out of the futex when this many had got up, and none has since: it is on its way and will look.
 * Not for long, for it may have been stopped, or there are many busy processes to a CPU. All zero says no. */
static uint64_t bell_woken_now(uint32_t rises) {
        return (uint64_t)(rises + 1) << 32 | (uint32_t)(event_now_ns() >> BELL_TICK_SHIFT);
}

static bool bell_is_one_on_its_way(const struct layout_bell *b, uint32_t *ret_rises) {
        /* S8 ~ bell_rise: whoever had not got up when `rises` is read looks later, and our hint is published. */
        uint64_t woken = atomic_load_explicit(&b->woken, memory_order_seq_cst);
        *ret_rises = atomic_load_explicit(&b->rises, memory_order_seq_cst);
        return (uint32_t)(woken >> 32) == *ret_rises + 1 &&
               (uint32_t)bell_woken_now(*ret_rises) - (uint32_t)woken < BELL_PATIENCE;
}

static int bell_wake_row(struct layout_bell *b, enum bell_row row) {
        /* Partner: the load in bell_sleep_begin. */
        atomic_fetch_add_explicit(&b->seq[row], 1, memory_order_seq_cst);
        KILL_POINT("bell-seq");
        return event_wake(&b->seq[row], 1);
}

/* One of the front row if any sleeps. Its bits may stand for some that are not in the futex: those just before their
 * sleep look again, those that get up look; but some may be stopped. So then one of the others, too. */
static void bell_wake_one(struct layout_bell *b) {
        uint32_t rises;
        if (bell_any(b->spinners))
                return;
        const uint64_t first = atomic_load_explicit(&b->sleepers[0], memory_order_seq_cst);
        if ((first == 0 && !bell_any(b->sleepers)) || bell_is_one_on_its_way(b, &rises))
                return;
        int n = first & bell_front(b) ? bell_wake_row(b, BELL_FRONT) : 0;
        if (n == 0)
                n = bell_wake_row(b, BELL_BACK);
        KILL_POINT("bell-wake");
        if (n > 0) /* with the count of before: if it got up meanwhile, this says nothing */
                atomic_store_explicit(&b->woken, bell_woken_now(rises), memory_order_seq_cst);
}

static void bell_rise(struct layout_bell *b) { atomic_fetch_add_explicit(&b->rises, 1, memory_order_seq_cst); }

/* The words that only the broker writes. */
static void bell_sign(struct layout_bell *b) {
        const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
        b->header = (struct layout_header){.magic = LAYOUT_MAGIC_BELL, .version = LAYOUT_VERSION};
        atomic_store_explicit(&b->front,
                              n_cpus < 1    ? 1
                              : n_cpus < 64 ? bell_bit((uint32_t)n_cpus) - 1
                                            : UINT64_MAX,
                              memory_order_relaxed);
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
        bell_sign(p);
        *ret = p;
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

void bell_ring(struct layout_bell *b, uint32_t channel, int broker_fd) {
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
        bell_wake_one(b);
}

bool bell_has_sleepers(const struct layout_bell *b) { return bell_any(b->sleepers); }

void bell_pass_on(struct layout_bell *b) {
        /* S6 ~ S3: either the one that goes to sleep sees the work that remains, or we see its bit. */
        if (bell_has_sleepers(b) && bell_has_work(b))
                bell_wake_one(b);
}

void bell_wake(struct layout_bell *b) { bell_wake_one(b); }

void bell_broadcast(struct layout_bell *b) {
        for (unsigned row = 0; row < BELL_ROWS; row++)
                event_broadcast(&b->seq[row]);
}

void bell_set_mode(struct layout_bell *b, enum bell_mode mode) {
        /* S7 ~ S1: a client that still sees the old mode has published before the caller looks into the channels. */
        atomic_store_explicit(&b->mode, mode, memory_order_seq_cst);
        bell_broadcast(b);
}

struct event_wait bell_sleep_begin(struct layout_bell *b, uint32_t worker) {
        const _Atomic uint32_t *seq = &b->seq[bell_is_in_front(b, worker) ? BELL_FRONT : BELL_BACK];
        /* S3 ~ S2, S6. The seq is read after it: a ring that misses our bit was published before our second look, a
         * ring that sees it changes the seq we are about to compare, or wakes another. */
        bell_set(b->sleepers, worker);
        KILL_POINT("bell-sleeper");
        return (struct event_wait){.word = seq, .seen = atomic_load_explicit(seq, memory_order_seq_cst)};
}

void bell_sleep_end(struct layout_bell *b, uint32_t worker) {
        KILL_POINT("bell-woken");
        bell_clear(b->sleepers, worker);
        KILL_POINT("bell-awake");
        bell_rise(b);
        KILL_POINT("bell-risen");
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
        bell_rise(b);                    /* S8, if it was on its way */
}

void bell_heal(struct layout_bell *b, const uint64_t workers[LAYOUT_BELL_WORDS],
               const uint64_t channels[LAYOUT_BELL_WORDS]) {
        bell_sign(b);
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++) {
                atomic_fetch_and_explicit(&b->sleepers[i], workers[i], memory_order_seq_cst);
                /* Who does spin looks once more when it stops (S4), and until then a ring wakes one more than it had
                 * to. */
                atomic_store_explicit(&b->spinners[i], 0, memory_order_seq_cst);
                atomic_fetch_and_explicit(&b->work[i], channels[i], memory_order_seq_cst);
        }
        /* Nobody is on its way. After UINT32_MAX all zero would say that somebody is. */
        atomic_store_explicit(&b->woken, 0, memory_order_seq_cst);
        if (atomic_load_explicit(&b->rises, memory_order_seq_cst) == UINT32_MAX)
                bell_rise(b);
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
