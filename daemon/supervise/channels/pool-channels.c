/* Owns a pool's shared memory: pool memory and channels (one a session, index 0 the broker's own).
 *
 * Of a channel's memories the descriptors are kept that later workers get, with a worker's rights; those with a
 * client's rights go to the client, and those that could write everything are closed once they are mapped.
 *
 * Invariants: an index is given out again only after every worker that mapped the channel said so or is gone. Until
 * then it counts as its uid's, which may have a quarter of a pool's channels and so many bytes in all pools. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/loop/closer.h"
#include "daemon/supervise/channels/delay.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/pools/limits.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/segment.h"

/* Somebody asks for the broker: the first claim after a quiet spell, or a client of a pool that nobody serves. */
void pool_on_rung(struct pool *p) {
        if (atomic_load(&p->memory->armed))
                limits_wake(p);
        delay_on_doorbell(p);
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (p->bells[i].memory && atomic_load(&p->bells[i].memory->mode) == BELL_FUTEX)
                        bell_pass_on(p->bells[i].memory); /* rung in the old mode: pass it on */
        pool_places_look(p);
        if (pool_is_over(p) && pool_count_awaited(p) == 0)
                pool_cancel_queued(p); /* pushed while we closed */
        pool_scale(p);
        pool_settle(p); /* also rung by workers that are about to be used up */
}

static void pool_on_doorbell(struct loop_poll *poll, uint32_t revents) {
        struct pool *p = poll->user;
        doorbell_clear(p->doorbell.hear_fd);
        pool_on_rung(p);
}

void pool_memory_sign(struct pool *p) {
        p->memory->header = (struct layout_header){.magic = LAYOUT_MAGIC_POOL, .version = LAYOUT_VERSION};
        p->memory->has_timer = 1;
}

int pool_memory_new(struct pool *p) {
        void *memory;
        int r = segment_create("drover-pool", LAYOUT_POOL_BYTES, &p->memory_fd);
        if (r < 0)
                return r;
        r = segment_map(p->memory_fd, 0, LAYOUT_POOL_BYTES, true, &memory);
        if (r < 0)
                return r;
        p->memory = memory;
        pool_memory_sign(p);
        r = doorbell_open(&p->doorbell);
        if (r < 0)
                return r;
        return loop_poll_start(p->supervisor->loop, &p->doorbell_poll, p->doorbell.hear_fd, POLLIN, pool_on_doorbell,
                               p);
}

static int pool_channel_charge(struct pool_channel *c, uint64_t bytes) {
        struct pool *p = c->pool;
        uid_t uid = p->bells[c->bell].uid;
        int r = c->index == 0 ? 0 : quota_take(&p->channels_of, uid, 1, POOL_CHANNELS_OF_UID);
        if (r < 0 || c->index == 0)
                return r;
        r = quota_take(&p->supervisor->channel_bytes_of, uid, bytes, POOL_CHANNEL_BYTES_OF_UID);
        if (r < 0)
                quota_give(&p->channels_of, uid, 1);
        else
                c->charged_bytes = bytes;
        return r;
}

static void pool_channel_uncharge(struct pool_channel *c) {
        struct pool *p = c->pool;
        if (c->charged_bytes == 0)
                return;
        quota_give(&p->channels_of, p->bells[c->bell].uid, 1);
        quota_give(&p->supervisor->channel_bytes_of, p->bells[c->bell].uid, c->charged_bytes);
}

void pool_channel_free(struct pool_channel *c) {
        c->pool->channels[c->index] = NULL;
        delay_forget_channel(c);
        stream_forget_channel(c);
        descriptors_drop_all(c);
        for (uint32_t i = 0; c->tries && i < c->channel.geometry.n_slots; i++)
                free(c->tries[i].forbidden);
        free(c->tries);
        channel_unmap(&c->channel);
        channel_close(c->client_fds);
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                if (c->fds[i] >= 0)
                        closer_close(c->fds[i], CLOSER_MEMORY);
        doorbell_close(&c->done);
        pool_channel_uncharge(c);
        c->pool->bells[c->bell].n_channels--;
        free(c);
}

void pool_memory_free(struct pool *p) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i])
                        pool_channel_free(p->channels[i]);
        for (uint32_t i = 0; i < p->n_bells; i++)
                pool_bell_free(&p->bells[i]);
        quota_deinit(&p->channels_of);
        loop_poll_stop(&p->doorbell_poll);
        doorbell_close(&p->doorbell);
        if (p->memory)
                segment_unmap(p->memory, LAYOUT_POOL_BYTES);
        if (p->memory_fd >= 0)
                close(p->memory_fd);
}

static int pool_channel_remember(struct pool_channel *c, const int fds[CHANNEL_PARTS]) {
        struct stat st;
        for (unsigned i = 0; i < CHANNEL_PARTS; i++) {
                if (fstat(fds[i], &st) < 0)
                        return -errno;
                c->memories[i] = (struct pool_memory_id){st.st_dev, st.st_ino};
        }
        return 0;
}

static int pool_channel_make_memory(struct pool_channel *c, const struct channel_geometry *g, const int *back) {
        int fds[CHANNEL_PARTS], r;
        char suffix[POOL_NUMBERS_SUFFIX];
        pool_numbers_suffix(c->id_base, suffix);
        r = back ? channel_open(back, CHANNEL_BROKER, fds) : channel_create(&c->channel, g, suffix, fds);
        if (r < 0)
                return r;
        if (back)
                r = channel_map(&c->channel, g, fds, CHANNEL_BROKER);
        if (r >= 0)
                r = pool_channel_remember(c, fds);
        if (r >= 0)
                r = channel_open(fds, CHANNEL_WORKER, c->fds);
        if (r >= 0 && !back && c->index > 0)
                r = channel_open(fds, CHANNEL_CLIENT, c->client_fds);
        channel_close(fds);
        return r;
}

int pool_channel_make(struct pool *p, uid_t uid, const struct channel_geometry *g, const int *back,
                      struct pool_channel **ret) {
        uint32_t index = 0, bell;
        while (index < LAYOUT_MAX_CHANNELS && p->channels[index])
                index++;
        if (index == LAYOUT_MAX_CHANNELS)
                return -ENOSPC;
        int r = pool_bell_for(p, uid, &bell);
        if (r < 0)
                return r;
        struct pool_channel *c = calloc(1, sizeof(*c));
        if (!c) {
                pool_bells_collect(p);
                return -ENOMEM;
        }
        *c = (struct pool_channel){.pool = p, .done = DOORBELL_NONE, .index = index, .bell = bell};
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                c->fds[i] = c->client_fds[i] = -1;
        if (index > 0)
                c->id_base =
                        back ? pool_numbers_of(p->supervisor, back[CHANNEL_COMMON]) : pool_numbers_new(p->supervisor);
        p->channels[index] = c;
        p->bells[bell].n_channels++;
        r = pool_channel_charge(c, g->total);
        if (r >= 0)
                r = (c->tries = calloc(g->n_slots, sizeof(*c->tries))) ? doorbell_open(&c->done) : -ENOMEM;
        if (r >= 0)
                r = pool_channel_make_memory(c, g, back);
        if (r < 0) {
                pool_channel_free(c);
                pool_bells_collect(p);
                return r;
        }
        *ret = c;
        return 0;
}

/* Its client reads it with each job: a changed value holds for the next one. */
void pool_channels_tell_timeout(struct pool *p) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS && p->told_queue_ns != p->config.queue_timeout_ns; i++)
                if (p->channels[i])
                        atomic_store(&p->channels[i]->channel.head->queue_timeout_ns, p->config.queue_timeout_ns);
        p->told_queue_ns = p->config.queue_timeout_ns;
}

/* What the clients of this pool are told while it takes no jobs. */
static uint32_t pool_closed_word(const struct pool *p) {
        return p->supervisor->is_shutting_down ? CHANNEL_ENDING : CHANNEL_CLOSED;
}

void pool_channel_tell(const struct pool_channel *c) {
        struct layout_channel *head = c->channel.head;
        if (c->pool->supervisor->is_leaving)
                return; /* it is not ours any more */
        channel_sign(&c->channel);
        atomic_store(&head->queue_timeout_ns, c->pool->config.queue_timeout_ns);
        atomic_store(&head->closed, c->is_dead              ? CHANNEL_DEAD
                                    : pool_accepts(c->pool) ? CHANNEL_OPEN
                                                            : pool_closed_word(c->pool));
}

void pool_channel_publish(struct pool_channel *c) {
        struct pool *p = c->pool;
        pool_channel_tell(c);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        worker_sync(p->workers[i]);
        pool_update_bells(p);
}

int pool_channel_new(struct pool *p, uid_t uid, struct pool_channel **ret) {
        struct channel_geometry g;
        int r = channel_geometry_init(&g, p->config.n_slots, p->config.slot_bytes);
        if (r >= 0)
                r = pool_channel_make(p, uid, &g, NULL, ret);
        if (r >= 0)
                pool_channel_publish(*ret);
        return r;
}

struct pool_channel *pool_channel_at(const struct pool *p, uint32_t index) {
        return index < LAYOUT_MAX_CHANNELS ? p->channels[index] : NULL;
}

void pool_channel_count(const struct pool_channel *c, struct pool_counters *counters) {
        const struct layout_channel *head = c->channel.head;
        counters->submitted += pool_plausible(atomic_load(&head->submitted));
        counters->cancelled += pool_plausible(atomic_load(&head->cancelled));
        counters->expired += pool_plausible(atomic_load(&head->expired));
}

/* Queued jobs of a client that is gone are nobody's; running ones are asked to stop, and have KillGraceSec= for it. At
 * the end of this daemon it is we who are gone: the client keeps what stands in its channel, and hands it to the next
 * daemon. */
void pool_channel_drop(struct pool_channel *c) {
        struct pool *p = c->pool;
        c->session = NULL;
        c->is_dead = true;
        descriptors_drop_all(c);
        if (p->supervisor->is_leaving)
                return; /* the pool is freed next */
        atomic_store(&c->channel.head->closed, CHANNEL_DEAD);
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                uint64_t word = channel_word(&c->channel, slot);
                if ((slot_state(word) == SLOT_QUEUED || slot_state(word) == SLOT_DELAYED) &&
                    channel_judge_queued(&c->channel, slot, slot_generation(word), SLOT_CANCELLED))
                        pool_count_verdict(p, SLOT_CANCELLED);
                else if (slot_state(word) == SLOT_RUNNING)
                        worker_ask(c, slot, slot_generation(word), "its client, which has left", true);
        }
        pool_channel_count(c, &p->counters);
        pool_heal_bell(p, c->bell);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        worker_sync(p->workers[i]);
        pool_channel_collect(c);
}

void pool_channel_collect(struct pool_channel *c) {
        if (!c->is_dead)
                return;
        for (unsigned i = 0; i < LAYOUT_BELL_WORDS; i++)
                if (c->attached[i])
                        return;
        struct pool *p = c->pool;
        bell_clear_work(p->bells[c->bell].memory, c->index);
        pool_channel_free(c);
        pool_bells_collect(p);
}

void pool_close_channels(struct pool *p, bool is_closed) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && !p->channels[i]->is_dead)
                        atomic_store(&p->channels[i]->channel.head->closed,
                                     is_closed ? pool_closed_word(p) : CHANNEL_OPEN);
}

uint32_t pool_cancel_queued(struct pool *p) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                struct pool_channel *c = p->channels[i];
                if (!c)
                        continue;
                for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                        uint64_t word = channel_word(&c->channel, slot);
                        if ((slot_state(word) != SLOT_QUEUED && slot_state(word) != SLOT_DELAYED) ||
                            !channel_judge_queued(&c->channel, slot, slot_generation(word), SLOT_CANCELLED))
                                continue;
                        channel_announce(&c->channel, slot, c->done.ring_fd);
                        pool_count_verdict(p, SLOT_CANCELLED);
                        n++;
                }
        }
        return n;
}

void pool_channel_count_jobs(const struct pool_channel *c, uint32_t *ret_queued, uint32_t *ret_running) {
        uint32_t queued = 0, running = 0;
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                unsigned state = slot_state(channel_word(&c->channel, slot));
                queued += state == SLOT_QUEUED || state == SLOT_DELAYED;
                running += state == SLOT_RUNNING;
        }
        *ret_queued = queued;
        *ret_running = running;
}

void pool_count_jobs(const struct pool *p, uint32_t *ret_queued, uint32_t *ret_running) {
        uint32_t queued = 0, running = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                const struct pool_channel *c = p->channels[i];
                if (!c || c->is_dead)
                        continue;
                uint32_t n_queued, n_running;
                pool_channel_count_jobs(c, &n_queued, &n_running);
                queued += n_queued;
                running += n_running;
        }
        *ret_queued = queued;
        *ret_running = running;
}
