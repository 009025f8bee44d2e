/* What a pool's workers can write is put right after each death of one: it may have written anything anywhere.
 *
 * Invariants: every word that is the broker's has a private original (fields of struct pool, pool_bell and worker), and
 * is written from it, never by changing what stands there. What belongs to living workers is made such that no lie in
 * it keeps anybody asleep: then all of them are made to look at everything, and set anew what they have to set. So a
 * pool heals when whoever spoilt it is dead, and nothing here believes a word of it.
 *
 * It costs a few stores for each worker and bell, and is done after every death and before every start: nobody can tell
 * which worker was the one. */
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"

static void heal_find_workers(const struct pool *p, uint64_t workers[LAYOUT_BELL_WORDS]) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        workers[i / 64] |= UINT64_C(1) << i % 64;
}

static void heal_bells(struct pool *p) {
        uint64_t workers[LAYOUT_BELL_WORDS] = {0}, channels[LAYOUT_MAX_BELLS][LAYOUT_BELL_WORDS] = {0};
        heal_find_workers(p, workers);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i])
                        channels[p->channels[i]->bell][i / 64] |= UINT64_C(1) << i % 64;
        for (uint32_t i = 0; i < p->n_bells; i++)
                if (p->bells[i].memory)
                        bell_heal(p->bells[i].memory, workers, channels[i]);
        pool_bells_tell(p);
        pool_update_bells(p);
}

void pool_heal_bell(struct pool *p, uint32_t bell) {
        struct layout_bell *memory = p->bells[bell].memory;
        uint64_t workers[LAYOUT_BELL_WORDS] = {0}, channels[LAYOUT_BELL_WORDS] = {0};
        heal_find_workers(p, workers);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && p->channels[i]->bell == bell)
                        channels[i / 64] |= UINT64_C(1) << i % 64;
        bell_heal(memory, workers, channels);
        pool_update_bells(p);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (channels[i / 64] >> i % 64 & 1 && channel_has_work(&p->channels[i]->channel))
                        bell_mark_work(memory, i);
        bell_broadcast(memory);
}

/* A claim moves it on to a claim's time from now at most. */
static void heal_rate(struct pool *p) {
        uint64_t next_ns = atomic_load(&p->memory->rate_next_ns), now_ns = event_now_ns();
        atomic_store(&p->memory->rate_ns, p->config.rate_ns);
        if (next_ns > now_ns + p->config.rate_ns)
                atomic_store(&p->memory->rate_next_ns, now_ns);
}

void pool_heal(struct pool *p) {
        pool_memory_sign(p);
        heal_rate(p);
        heal_bells(p);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        worker_heal_line(p->workers[i]);
}

void pool_heal_and_wake(struct pool *p) {
        pool_heal(p);
        pool_broadcast(p);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        worker_shake(p->workers[i]);
}
