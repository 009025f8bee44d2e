/* The claim loop. Owns the choice of the next job and the way into sleep and out of it.
 *
 * Round: control word → orders → scan (bells in turn, in a bell its channels in turn, every 16th claim the least urgent
 * job first) → claim → baton → run → finish. Nothing to do: spin for a moment if that paid lately, then sleep on the
 * control word and all bells that have a place at once. While it sleeps it makes no system call; there is no timeout.
 *
 * Wake-ups are argued in ipc/PROTOCOL.md; the three duties that fall to this file:
 *   - between "I am a sleeper" and sleeping, look again at everything a waker may have published;
 *   - after a claim, before the handler runs, pass the baton, on every bell: one wake-up may have been meant for two
 * jobs;
 *   - a work bit is cleared only in the order clear, fence, look again (settle).
 *
 * What the loop needs for each thread of execution is in struct serve: the models to come have one for each thread, or
 * one for all fibers of a thread. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"
#include "ipc/memory/spin.h"
#include "ipc/memory/wait-watch.h"
#include "plugins/host/job/job.h"
#include "plugins/host/job/orders.h"
#include "plugins/host/job/serve-process.h"

enum {
        SERVE_LOWEST_EVERY = 16, /* claims: nobody starves behind the urgent */
};

#define SERVE_BURST_MIN_NS UINT64_C(10000000)
#define SERVE_BURST_MAX_NS UINT64_C(500000000)

struct serve {
        struct host *host;
        struct layout_worker *line;
        struct orders orders;
        struct drover_job job;
        uint32_t control_seen;
        uint32_t next_bell;
        uint32_t n_claims;
        struct spin spin;
};

/* No work was found in a channel whose work bit stands. true: there is some now. */
static bool settle(struct serve *s, struct orders_bell *b, uint32_t channel) {
        bell_clear_work(b->bell, channel);
        if (!channel_has_work(&s->orders.channel[channel]->channel))
                return false;
        bell_mark_work(b->bell, channel);
        return true;
}

/* Tells the broker that a job runs: by the count it compares at every tick, and if it does not tick, by its doorbell.
 */
static void announce_claim(struct serve *s) {
        uint64_t n = atomic_load_explicit(&s->line->claims, memory_order_relaxed);
        /* seq_cst, store before load: the broker disarms and then looks at the counts once more. One of us sees the
         * other. */
        atomic_store_explicit(&s->line->claims, n + 1, memory_order_seq_cst);
        _Atomic uint32_t *armed = &s->host->pool->armed;
        uint32_t idle = 0;
        if (atomic_load_explicit(armed, memory_order_seq_cst) == 0 &&
            atomic_compare_exchange_strong_explicit(armed, &idle, 1, memory_order_seq_cst, memory_order_relaxed))
                doorbell_ring(s->host->doorbell_fd);
        const uint64_t max = atomic_load_explicit(&s->line->max_claims, memory_order_relaxed);
        if (max != 0 && (n + 1 == max || n + 1 == LAYOUT_SUCCESSOR_AT(max))) /* the broker sees to one */
                doorbell_ring(s->host->doorbell_fd);
}

static bool is_used_up(const struct serve *s) {
        const uint64_t max = atomic_load_explicit(&s->line->max_claims, memory_order_relaxed);
        return max != 0 && atomic_load_explicit(&s->line->claims, memory_order_relaxed) >= max;
}

static bool is_waited(const struct serve *s, uint32_t bell) {
        for (uint32_t i = 0; i < s->orders.n_waited; i++)
                if (s->orders.waited[i] == bell)
                        return true;
        return false;
}

/* Nobody sleeps on bells without a place, nor perhaps on those of our list, if it is an old one by now; but who sleeps
 * at all sleeps on the first bell that has a place, and looks at all. */
static void pass_baton_for_others(struct serve *s, struct orders_bell *from, uint32_t channel) {
        if (s->orders.n_others == 0 || s->orders.n_waited == 0)
                return;
        struct layout_bell *way = s->orders.bell[s->orders.waited[0]].bell;
        for (uint32_t i = 0; bell_has_sleepers(way) && i < s->orders.n_bells; i++) {
                struct orders_bell *b = &s->orders.bell[i];
                if (!orders_hears(&s->orders, i) || (is_waited(s, i) && bell_has_sleepers(b->bell)))
                        continue;
                if (b == from && !channel_has_work(&s->orders.channel[channel]->channel))
                        settle(s, b, channel);
                if (!bell_has_work(b->bell))
                        continue;
                bell_wake(way);
                return;
        }
}

/* After a claim from `channel` of bell `from`. With nobody asleep it costs a look at one cache line a bell. */
static void pass_baton(struct serve *s, struct orders_bell *from, uint32_t channel) {
        for (uint32_t i = 0; i < s->orders.n_waited; i++) {
                struct orders_bell *b = &s->orders.bell[s->orders.waited[i]];
                if (!bell_has_sleepers(b->bell))
                        continue;
                if (b == from && !channel_has_work(&s->orders.channel[channel]->channel))
                        settle(s, b, channel); /* nobody is to be woken for a bit that stands for nothing */
                bell_pass_on(b->bell);
        }
        pass_baton_for_others(s, from, channel);
}

/* Tries one channel. 1: ran a job, 0: there was none; -ESTALE. */
static int serve_channel(struct serve *s, struct orders_bell *b, uint32_t channel) {
        struct orders_channel *c = s->orders.channel[channel];
        bool lowest_first = s->n_claims % SERVE_LOWEST_EVERY == SERVE_LOWEST_EVERY - 1;
        uint64_t now_ns = event_now_ns(), word;
        uint32_t slot;
        int r = channel_claim(&c->channel, channel, s->host->index, lowest_first, now_ns, &s->line->record, c->done_fd,
                              &slot, &word);
        if (r == CHANNEL_EMPTY) /* the bit stands until we go to sleep: see settle_all */
                return 0;
        if (r < 0) { /* the client's fault: it has lost us, the others have not */
                orders_foul(&s->orders, channel, -r);
                return 0;
        }
        s->n_claims++;
        orders_served(&s->orders, c->bell);
        announce_claim(s);
        pass_baton(s, b, channel);
        const struct layout_channel *head = c->channel.head;
        bool polls = atomic_load_explicit(&head->done_wait, memory_order_relaxed) == DONE_DOORBELL;
        uint32_t seq = atomic_load_explicit(&head->done_seq, memory_order_relaxed);
        s->job.id_base = c->id_base;
        r = job_run(&s->job, &c->channel, channel, c->done_fd, slot, word, now_ns);
        if (r == -ESTALE) /* judged, or its client has rewritten the slot: the broker knows */
                orders_foul(&s->orders, channel, -r);
        else if (!polls && atomic_load_explicit(&head->done_seq, memory_order_relaxed) == seq)
                spin_expect(&s->spin); /* nobody had to be woken: the client is awake and may send the next one soon */
        return r < 0 ? r : 1;
}

/* One turn of a bell: its channels from where we left off. 1, 0, -ESTALE. */
static int serve_bell(struct serve *s, uint32_t bell) {
        struct orders_bell *b = &s->orders.bell[bell];
        const uint32_t start = b->next;
        for (unsigned lap = 0; lap < 2; lap++) {
                int channel = orders_next(&s->orders, bell, lap == 0 ? start : 0);
                while (channel >= 0 && (lap == 0 || (uint32_t)channel < start)) {
                        b->next = ((uint32_t)channel + 1) % LAYOUT_MAX_CHANNELS;
                        int r = serve_channel(s, b, (uint32_t)channel);
                        if (r != 0)
                                return r;
                        channel = channel + 1 < LAYOUT_MAX_CHANNELS
                                          ? orders_next(&s->orders, bell, (uint32_t)channel + 1)
                                          : -1;
                }
        }
        return 0;
}

static int serve_one(struct serve *s) {
        const uint32_t n = s->orders.n_bells;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t bell = (s->next_bell + i) % n;
                if (!s->orders.bell[bell].bell)
                        continue;
                int r = serve_bell(s, bell);
                if (r != 0) {
                        s->next_bell = bell + 1;
                        return r;
                }
        }
        return 0;
}

static uint32_t control_now(const struct serve *s) {
        return atomic_load_explicit(&s->line->control, memory_order_acquire);
}

static bool has_reason_to_wake(const struct serve *s) {
        return control_now(s) != s->control_seen || orders_have_work(&s->orders);
}

/* As has_reason_to_wake, but by the rings of the channels whose bits stand: while it spins a worker leaves the bits
 * alone, so that neither it nor a client pays for clearing and setting them with every job. */
static bool has_work_in_sight(const struct serve *s) {
        if (control_now(s) != s->control_seen)
                return true;
        for (uint32_t i = 0; i < s->orders.n_bells; i++) {
                if (!s->orders.bell[i].bell)
                        continue;
                for (int c = orders_next(&s->orders, i, 0); c >= 0;
                     c = c + 1 < LAYOUT_MAX_CHANNELS ? orders_next(&s->orders, i, (uint32_t)c + 1) : -1)
                        if (channel_has_work(&s->orders.channel[c]->channel))
                                return true;
        }
        return false;
}

/* Before sleep the bits must be true: a sleeper goes by them. */
static void settle_all(struct serve *s) {
        for (uint32_t i = 0; i < s->orders.n_bells; i++) {
                if (!s->orders.bell[i].bell)
                        continue;
                for (int c = orders_next(&s->orders, i, 0); c >= 0;
                     c = c + 1 < LAYOUT_MAX_CHANNELS ? orders_next(&s->orders, i, (uint32_t)c + 1) : -1)
                        if (!settle(s, &s->orders.bell[i], (uint32_t)c))
                                orders_vain(&s->orders, i);
        }
}

static bool has_sleepers(const struct serve *s) {
        for (uint32_t i = 0; i < s->orders.n_waited; i++)
                if (bell_has_sleepers(s->orders.bell[s->orders.waited[i]].bell))
                        return true;
        return false;
}

/* Which these are changes in serve_orders only, so a bit that was set is cleared. */
static void each_waited(struct serve *s, void (*fn)(struct layout_bell *b, uint32_t worker)) {
        for (uint32_t i = 0; i < s->orders.n_waited; i++)
                fn(s->orders.bell[s->orders.waited[i]].bell, s->host->index);
}

static bool is_in_front(const struct serve *s) {
        for (uint32_t i = 0; i < s->orders.n_bells; i++)
                if (s->orders.bell[i].bell && bell_is_in_front(s->orders.bell[i].bell, s->host->index))
                        return true;
        return false;
}

/* true if something came. Only so many spin as there are CPUs: more would keep them from those who have work. */
static bool spin(struct serve *s) {
        if (!is_in_front(s))
                return false;
        struct spin_round round = spin_begin(&s->spin, EVENT_FOREVER);
        /* The spinner bits keep wakers from waking those who sleep, and are for nothing else. They are cleared before
         * the CPU is given away: somebody else may be needed meanwhile. */
        bool is_told = !spin_is_yielding(&round) && has_sleepers(s);
        if (is_told)
                each_waited(s, bell_spin_begin);
        bool came;
        while (!(came = has_work_in_sight(s)) && spin_step(&round))
                if (is_told && spin_is_yielding(&round)) {
                        each_waited(s, bell_spin_end);
                        is_told = false;
                }
        if (is_told)
                each_waited(s, bell_spin_end);
        spin_end(&s->spin, &round, came);
        return came || has_work_in_sight(s); /* a waker that saw our bit woke nobody */
}

#ifdef DROVER_WATCHED_WAITS
/* The first job that waits in a channel of ours since before, for the first time: when it was queued again nobody
 * says. Not by the bits, which may be what is wrong. */
static uint64_t look_for_job(const void *user, uint64_t before_ns) {
        const struct serve *s = user;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct orders_channel *c = s->orders.channel[i];
                struct ring_hint hint;
                for (unsigned k = 0; c && k < LAYOUT_PRIORITIES; k++) {
                        if (!ring_peek(&c->channel.ring[k], &hint) || hint.slot >= c->channel.geometry.n_slots)
                                continue;
                        uint64_t word = channel_word(&c->channel, hint.slot);
                        uint64_t queued_ns =
                                __atomic_load_n(&channel_job(&c->channel, hint.slot)->queued_ns, __ATOMIC_RELAXED);
                        if (slot_state(word) == SLOT_QUEUED && slot_attempt(word) == 1 && queued_ns < before_ns &&
                            (uint16_t)slot_generation(word) == hint.generation)
                                return word | (uint64_t)hint.slot << 16; /* QUEUED has no owner */
                }
        }
        return 0;
}
#endif

/* A worker that cannot sleep would take a whole CPU for nothing: it ends. `r` is what the wait said. */
static void slept(int r) {
        if (r >= 0 || r == -EINTR || r == -ETIMEDOUT)
                return;
        fprintf(stderr, "drover-worker: it cannot wait for work, and ends: %s\n", strerrordesc_np(-r));
        fflush(NULL);
        _exit(HOST_EXIT_FAILED);
}

static void sleep_on_control(const struct serve *s, uint64_t deadline_ns) {
        slept(event_wait(&s->line->control, s->control_seen, deadline_ns));
}

static void sleep_on_all(struct serve *s) {
        struct event_wait waits[EVENT_MAX_WORDS] = {{.word = &s->line->control, .seen = s->control_seen}};
        unsigned n = 1;
        settle_all(s);
        if (has_reason_to_wake(s))
                return;
        for (uint32_t i = 0; i < s->orders.n_waited; i++) {
                struct layout_bell *b = s->orders.bell[s->orders.waited[i]].bell;
                waits[n++] = bell_sleep_begin(b, s->host->index);
        }
        WAIT_LOOK_SINCE("worker", look_for_job, s);
        if (!has_reason_to_wake(s)) {
                uint64_t since_ns = event_now_ns();
                slept(event_wait_any(waits, n, EVENT_FOREVER));
                spin_slept(&s->spin, since_ns);
        }
        each_waited(s, bell_sleep_end);
        for (unsigned i = 1; i < n; i++) /* if it is for a job, that makes up for it */
                if (atomic_load_explicit(waits[i].word, memory_order_relaxed) != waits[i].seen)
                        orders_vain(&s->orders, s->orders.waited[i - 1]);
}

/* New orders since the last look? Called before every claim. */
static int serve_orders(struct serve *s) {
        uint32_t control = control_now(s);
        if (control == s->control_seen)
                return 0;
        s->control_seen = control;
        int r = orders_read(&s->orders, s->host->pool);
        return r < 0 ? r : job_reserve_args(&s->job, s->orders.max_slot_bytes);
}

/* RateLimit=: each claim stands for a time, rate_ns after the one before, and none is made more than a burst before its
 * time: so a high rate needs no sleep for each, and what a late wake-up lost is made good. Whoever finds work takes the
 * next time by a CAS, and gives it back if the work is gone; a worker that dies in between has used one up. All that
 * have work in sight and may not take it sleep until that time: nothing but orders can change it.
 *
 * Nobody moves the time on to more than rate_ns from then. What is further away is of an older rate, or nonsense. */
static int serve_limited(struct serve *s, uint64_t rate_ns) {
        _Atomic uint64_t *next = &s->host->pool->rate_next_ns;
        if (!has_work_in_sight(s))
                return 0;
        uint64_t burst_ns = rate_ns / 4 < SERVE_BURST_MIN_NS   ? SERVE_BURST_MIN_NS
                            : rate_ns / 4 > SERVE_BURST_MAX_NS ? SERVE_BURST_MAX_NS
                                                               : rate_ns / 4;
        uint64_t at = atomic_load_explicit(next, memory_order_acquire), now, from;
        do {
                now = event_now_ns(); /* after `at` was read: else one that is faster would look like nonsense */
                from = at > now + rate_ns ? now : at > now - burst_ns ? at : now - burst_ns;
                if (from > now) {
                        sleep_on_control(s, from);
                        return 1;
                }
        } while (!atomic_compare_exchange_weak_explicit(next, &at, from + rate_ns, memory_order_acq_rel,
                                                        memory_order_acquire));
        int r = serve_one(s);
        if (r == 0)
                atomic_fetch_sub_explicit(next, rate_ns, memory_order_relaxed);
        return r;
}

static int serve_loop(struct serve *s) {
        uint64_t rate_ns;
        for (;;) {
                int r = serve_orders(s);
                if (r < 0)
                        return r;
                switch (atomic_load_explicit(&s->line->command, memory_order_acquire)) {
                case WORKER_RETIRE:
                        return 0;
                case WORKER_RUN:
                        if (is_used_up(s)) {
                                sleep_on_control(s, EVENT_FOREVER);
                                break;
                        }
                        rate_ns = atomic_load_explicit(&s->host->pool->rate_ns, memory_order_relaxed);
                        r = rate_ns == 0 ? serve_one(s) : serve_limited(s, rate_ns);
                        if (r < 0)
                                return r;
                        if (r == 0 && !spin(s))
                                sleep_on_all(s);
                        break;
                default:
                        sleep_on_control(s, EVENT_FOREVER);
                        break;
                }
        }
}

int serve_process(struct host *h, void *thread_state) {
        struct serve *s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->host = h;
        s->line = h->line;
        orders_init(&s->orders, WIRE_CONTROL_FD, &h->held);
        int r = job_init(&s->job, h);
        if (r < 0)
                return r;
        s->job.thread_state = thread_state;
        /* Orders sent before we looked for the first time have bumped the word already. */
        s->control_seen = control_now(s) - 1;
        return serve_loop(s);
}
