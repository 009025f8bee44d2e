/* The bell: how a client wakes a worker of its pool, and how a worker waits on many channels at once.
 * An eventcount: waiter = set bit, fence, read seq, re-check, sleep; waker = publish, fence, if sleepers and
 * no spinner and none on its way: seq++, wake one. PROTOCOL.md has the argument for each lost-wake case. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/layout.h"
#include "ipc/memory/event.h"

/* Makes the one-page memfd and maps it. */
int bell_create(const char *name, struct layout_bell **ret, int *ret_fd);
int bell_map(int fd, struct layout_bell **ret);
struct layout_bell *bell_unmap(struct layout_bell *b); /* NULL is fine; returns NULL */

/* A job was published in channel `channel`: wake one worker, or the broker by `broker_fd` (the ringers' end of a
 * doorbell). One that was woken before and has not got up yet will do, for about 1 ms: it looks at everything and
 * passes the baton. */
void bell_ring(struct layout_bell *b, uint32_t channel, int broker_fd);
/* Is anybody asleep? Cheap: one cache line. */
bool bell_has_sleepers(const struct layout_bell *b);
/* The baton: after a claim (and after bell_spin_end), if work and a sleeper remain, wake one more. Work bits may be set
 * for nothing, so with a sleeper about, make the claimed channel's bit true first:
 *   if (bell_has_sleepers(b)) { if (!channel_has_work(c)) { bell_clear_work(b, i); if (channel_has_work(c))
 *   bell_mark_work(b, i); } bell_pass_on(b); } */
void bell_pass_on(struct layout_bell *b);
/* Wakes one, for work of another bell that nobody sleeps on. Whoever sleeps later looks at that, too (S6 ~ S3). */
void bell_wake(struct layout_bell *b);
void bell_broadcast(struct layout_bell *b);
/* Sets the mode and broadcasts. To BELL_BROKER: look into every channel once afterwards, a ring may have met the old
 * mode. */
void bell_set_mode(struct layout_bell *b, enum bell_mode mode);

/* Worker side. bell_sleep_begin returns the word to wait on and its value; the caller re-checks its channels before
 * sleeping. */
struct event_wait bell_sleep_begin(struct layout_bell *b, uint32_t worker);
void bell_sleep_end(struct layout_bell *b, uint32_t worker);
/* Of the front row: one of the first few, as many as there are CPUs, who are woken before all others. */
bool bell_is_in_front(const struct layout_bell *b, uint32_t worker);
void bell_spin_begin(struct layout_bell *b, uint32_t worker);
void bell_spin_end(struct layout_bell *b, uint32_t worker); /* the caller re-checks once more */
/* Broker, for a dead worker: clears both bits. Then, because it may have died between bell_clear_work and its second
 * look: bell_mark_work for each channel that channel_has_work, and bell_broadcast. */
void bell_forget(struct layout_bell *b, uint32_t worker);
/* Broker, after a death: the page may hold anything. Its own words are written again, bits that are nobody's go, and
 * all spinner bits. `workers` and `channels` are those that there are, a bit each. Then as after bell_forget, and what
 * makes every worker look at everything again: whose sleeper bit was lost sets it anew before it sleeps. */
void bell_heal(struct layout_bell *b, const uint64_t workers[LAYOUT_BELL_WORDS],
               const uint64_t channels[LAYOUT_BELL_WORDS]);

bool bell_channel_has_work(const struct layout_bell *b, uint32_t channel);
/* Clears the channel's work bit, then the caller must look into the channel once more and call bell_mark_work if it
 * was wrong (clear, fence, re-check). */
void bell_clear_work(struct layout_bell *b, uint32_t channel);
void bell_mark_work(struct layout_bell *b, uint32_t channel);
bool bell_has_work(const struct layout_bell *b);
