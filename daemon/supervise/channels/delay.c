/* The broker's timer for DELAYED slots: not-before, the pause before a retry.
 *
 * Owns a heap per pool by due time, then priority, then age, and one timer of the loop for its head; where a slot
 * stands in the heap is known per channel, so an entry is replaced and never doubled, whatever a client makes of its
 * slots. The slot word is the truth: an entry whose slot is no longer DELAYED in that generation (cancelled, expired,
 * reused) ends when it is due, and nothing happens. All that is due at one time is pushed in order before anybody is
 * woken.
 *
 * News come by the pool's doorbell: who made a slot DELAYED counted it in the channel's head first. The broker compares
 * that count and looks through the slots of the channel, at most so often that a client which rings all the time costs
 * a small share of one CPU. A worker that died in between is found by the same look after its death. Nothing here runs
 * while nothing is due. */
#include "daemon/supervise/channels/delay.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"

enum { DELAY_SLOT_NS = 1000 /* of rest after a look, a slot */, DELAY_BATCH = 256 };

/* ---- the heap ---- */

static bool delay_is_before(const struct delay *a, const struct delay *b) {
        if (a->due_ns != b->due_ns)
                return a->due_ns < b->due_ns;
        return a->priority != b->priority ? a->priority > b->priority : a->age < b->age;
}

static void delay_put(struct pool_delays *d, uint32_t i, struct delay entry) {
        d->heap[i] = entry;
        entry.channel->delay_at[entry.slot] = i + 1;
}

static void delay_sift(struct pool_delays *d, uint32_t i, struct delay entry) {
        for (; i > 0 && delay_is_before(&entry, &d->heap[(i - 1) / 2]); i = (i - 1) / 2)
                delay_put(d, i, d->heap[(i - 1) / 2]);
        for (uint32_t child; (child = 2 * i + 1) < d->n; i = child) {
                if (child + 1 < d->n && delay_is_before(&d->heap[child + 1], &d->heap[child]))
                        child++;
                if (!delay_is_before(&d->heap[child], &entry))
                        break;
                delay_put(d, i, d->heap[child]);
        }
        delay_put(d, i, entry);
}

static void delay_remove(struct pool_delays *d, uint32_t i) {
        d->heap[i].channel->delay_at[d->heap[i].slot] = 0;
        struct delay last = d->heap[--d->n];
        if (i < d->n)
                delay_sift(d, i, last);
}

static bool delay_reserve(struct pool_delays *d, struct pool_channel *c) {
        if (!c->delay_at)
                c->delay_at = calloc(c->channel.geometry.n_slots, sizeof(*c->delay_at));
        if (c->delay_at && d->n == d->n_allocated) {
                uint32_t n = d->n_allocated ? 2 * d->n_allocated : 64;
                struct delay *heap = reallocarray(d->heap, n, sizeof(*heap));
                if (heap) {
                        d->heap = heap;
                        d->n_allocated = n;
                }
        }
        return c->delay_at && d->n < d->n_allocated;
}

/* ---- due ---- */

static void delay_ring(struct pool_channel *c) {
        bell_ring(c->pool->bells[c->bell].memory, c->index, c->pool->doorbell.ring_fd);
}

static void delay_judge(struct pool_channel *c, uint32_t slot, uint32_t generation, enum slot_state verdict) {
        if (!channel_judge_queued(&c->channel, slot, generation, verdict))
                return;
        pool_count_verdict(c->pool, verdict);
        channel_announce(&c->channel, slot, c->done.ring_fd);
}

/* true: it stands in a ring, the bell is due. Who is due when its queue deadline is over does not get there. */
static bool delay_queue(struct pool_channel *c, uint32_t slot, uint32_t generation) {
        uint64_t deadline_ns;
        channel_copy(&deadline_ns, &channel_job(&c->channel, slot)->queue_deadline_ns, sizeof(deadline_ns));
        if (delay_is_overdue(deadline_ns, event_now_ns()))
                delay_judge(c, slot, generation, SLOT_EXPIRED);
        int r = channel_undelay(&c->channel, slot, generation);
        if (r < 0) /* no ring takes it: they will */
                pool_mend_soon(c->pool);
        return r > 0;
}

void delay_end(struct pool_channel *c, uint32_t slot, uint32_t generation) {
        if (delay_queue(c, slot, generation))
                delay_ring(c);
}

static void delay_arm(struct pool *p);

static void delay_on_timer(struct loop_timer *t) {
        struct pool *p = t->user;
        struct pool_delays *d = &p->delays;
        struct pool_channel *due[DELAY_BATCH];
        unsigned n = 0;
        uint64_t now = event_now_ns();
        for (unsigned i = 0; i < DELAY_BATCH && d->n > 0 && d->heap[0].due_ns <= now; i++) {
                struct delay entry = d->heap[0];
                delay_remove(d, 0);
                if (delay_queue(entry.channel, entry.slot, entry.generation))
                        due[n++] = entry.channel;
        }
        for (unsigned i = 0; i < n; i++)
                delay_ring(due[i]);
        if (d->n > 0 && d->heap[0].due_ns <= now) /* others first: the loop runs what was due when it looked */
                loop_timer_set(p->supervisor->loop, &d->timer, event_now_ns(), delay_on_timer, p);
        else
                delay_arm(p);
}

static void delay_arm(struct pool *p) {
        if (p->delays.n > 0)
                loop_timer_set(p->supervisor->loop, &p->delays.timer, p->delays.heap[0].due_ns, delay_on_timer, p);
        else
                loop_timer_stop(&p->delays.timer);
}

void delay_add(struct pool_channel *c, uint32_t slot, uint32_t generation, uint64_t due_ns) {
        struct pool_delays *d = &c->pool->delays;
        uint32_t priority;
        if (!delay_reserve(d, c)) { /* no memory to be patient with */
                delay_end(c, slot, generation);
                return;
        }
        channel_copy(&priority, &channel_job(&c->channel, slot)->priority, sizeof(priority));
        if (c->delay_at[slot])
                delay_remove(d, c->delay_at[slot] - 1);
        delay_sift(d, d->n++,
                   (struct delay){.due_ns = due_ns,
                                  .age = ++d->age,
                                  .channel = c,
                                  .slot = slot,
                                  .generation = generation,
                                  .priority = priority});
        delay_arm(c->pool);
}

/* ---- news ---- */

uint64_t delay_before_retry(const struct pool_config *c, unsigned n_attempts) {
        uint64_t ns = c->retry_ns, max_ns = c->retry_max_ns ? c->retry_max_ns : UINT64_MAX / 2;
        for (unsigned i = 1; i < n_attempts && ns < max_ns && ns > 0; i++)
                if (__builtin_mul_overflow(ns, (uint64_t)c->retry_backoff_milli, &ns))
                        ns = max_ns;
                else
                        ns /= 1000;
        return ns < max_ns ? ns : max_ns;
}

/* Its job asked for one more attempt. */
static void delay_take_retry(struct pool_channel *c, uint32_t slot, uint64_t word, const struct layout_job *job) {
        struct pool *p = c->pool;
        struct layout_result line;
        bool is_once;
        uint32_t max = pool_max_attempts(p, job, &is_once);
        if (is_once || p->config.guarantee == GUARANTEE_AT_MOST_ONCE)
                max = 1;
        if (slot_attempt(word) > max) {
                if (channel_give_up(&c->channel, slot, word)) {
                        pool_count_verdict(p, SLOT_FAILED);
                        channel_announce(&c->channel, slot, c->done.ring_fd);
                }
                return;
        }
        channel_copy(&line, channel_result(&c->channel, slot), sizeof(line));
        uint64_t due_ns = event_now_ns() + delay_before_retry(&p->config, slot_attempt(word) - 1);
        if (line.generation == slot_generation(word) && line.retry_at_ns > due_ns)
                due_ns = line.retry_at_ns;
        p->counters.retried++;
        delay_add(c, slot, slot_generation(word), due_ns);
}

static const struct delay *delay_find(const struct pool_channel *c, uint32_t slot, uint32_t generation) {
        uint32_t at = c->delay_at ? c->delay_at[slot] : 0;
        const struct delay *known = at ? &c->pool->delays.heap[at - 1] : NULL;
        return known && known->generation == generation ? known : NULL;
}

void delay_look(struct pool_channel *c) {
        struct layout_job job;
        if (c->is_dead)
                return;
        c->delayed_seen = atomic_load_explicit(&c->channel.head->delayed, memory_order_acquire);
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                uint64_t word = channel_word(&c->channel, slot);
                if (slot_state(word) != SLOT_DELAYED || (c->index == 0 && jobs_slot_waits(c->pool, slot)))
                        continue;
                const struct delay *known = delay_find(c, slot, slot_generation(word));
                if (known && slot_attempt(word) > 1)
                        continue;
                channel_copy(&job, channel_job(&c->channel, slot), sizeof(job));
                if (slot_attempt(word) > 1)
                        delay_take_retry(c, slot, word, &job);
                else if (!known || known->due_ns != job.not_before_ns) /* its client may have let it go meanwhile */
                        delay_add(c, slot, slot_generation(word), job.not_before_ns);
        }
}

static void delay_on_look_timer(struct loop_timer *t) { delay_on_doorbell(t->user); }

void delay_on_doorbell(struct pool *p) {
        uint64_t now = event_now_ns(), again_ns = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                struct pool_channel *c = p->channels[i];
                if (!c || c->is_dead ||
                    atomic_load_explicit(&c->channel.head->delayed, memory_order_acquire) == c->delayed_seen)
                        continue;
                if (c->delay_look_ns <= now) {
                        delay_look(c);
                        c->delay_look_ns = event_now_ns() + (uint64_t)c->channel.geometry.n_slots * DELAY_SLOT_NS;
                } else if (!again_ns || c->delay_look_ns < again_ns) {
                        again_ns = c->delay_look_ns;
                }
        }
        if (again_ns)
                loop_timer_set(p->supervisor->loop, &p->delays.look_timer, again_ns, delay_on_look_timer, p);
}

/* ---- ends ---- */

void delay_forget_channel(struct pool_channel *c) {
        for (uint32_t slot = 0; c->delay_at && slot < c->channel.geometry.n_slots; slot++)
                if (c->delay_at[slot])
                        delay_remove(&c->pool->delays, c->delay_at[slot] - 1);
        free(c->delay_at);
        c->delay_at = NULL;
        delay_arm(c->pool);
}

void delay_stop(struct pool *p) {
        loop_timer_stop(&p->delays.timer);
        loop_timer_stop(&p->delays.look_timer);
        free(p->delays.heap);
        p->delays = (struct pool_delays){0};
}
