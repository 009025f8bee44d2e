/* A bell that wakes workers again and again for nothing is muted, and in the end those who hold it are dropped.
 *
 * A uid's clients share one bell and can write into it what they like, so nothing in it says who wakes. What says it is
 * that the workers find no job: one tells when it was woken for nothing too often in a short time
 * (plugins/host/job/orders.c; its jobs from that bell make up for wake-ups that another worker was faster to), and when
 * all that are ready have told, nobody serves that bell, and it is only noise. Then workers leave it alone, and its
 * honest clients ring the broker (mode BROKER), until the time is over and they look into it again. Whose bell had to
 * be muted again and again within a while loses all sessions of this pool.
 *
 * Our own bell is never muted: only root could make noise there, and workers wake each other by it for bells that
 * nobody sleeps on. A lying worker mutes nobody alone, and all of them together are the pool. */
#include <errno.h>
#include <string.h>

#include "daemon/log/log.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"

enum { MUTE_TIMES = 5 };
#define MUTE_TOLD_NS UINT64_C(1000000000) /* how long a worker's word counts */
#define MUTE_NS UINT64_C(200000000)
#define MUTE_WHILE_NS UINT64_C(10000000000)

static void mute_set(struct pool_bell *b, bool is_muted) {
        struct pool *p = b->pool;
        b->is_muted = is_muted;
        pool_bells_tell(p);
        pool_poke(p);
        pool_update_bells(p);
}

static void mute_on_timer(struct loop_timer *t) {
        struct pool_bell *b = t->user;
        struct pool *p = b->pool;
        uint64_t end_ns = b->mutes_ns + MUTE_WHILE_NS;
        if (b->is_muted)
                mute_set(b, false);
        if (b->n_mutes > 0 && event_now_ns() <= end_ns) {
                loop_timer_set(p->supervisor->loop, t, end_ns + 1, mute_on_timer, b);
                return;
        }
        b->n_mutes = 0;
        pool_bells_collect(p);
}

static bool mute_have_all_told(const struct pool *p, const struct pool_bell *b) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && worker_serves(p->workers[i]) && !(b->told[i / 64] >> i % 64 & 1))
                        return false;
        return true;
}

static void mute_drop(struct pool *p, uint32_t bell) {
        unsigned n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && p->channels[i]->bell == bell && p->channels[i]->session) {
                        session_end(p->channels[i]->session);
                        n++;
                }
        log_warning("pool %s: uid %u wakes workers for nothing and does not stop: %u sessions are dropped",
                    p->config.name, (unsigned)p->bells[bell].uid, n);
}

int pool_on_vain(struct pool *p, uint32_t worker, uint32_t bell) {
        if (bell >= LAYOUT_MAX_BELLS)
                return -EPROTO;
        if (bell == POOL_OWN_BELL || !p->bells[bell].memory) /* baton for others; given back by now */
                return 0;
        struct pool_bell *b = &p->bells[bell];
        uint64_t now = event_now_ns();
        if (b->is_muted)
                return 0;
        if (now > b->told_ns + MUTE_TOLD_NS) {
                memset(b->told, 0, sizeof(b->told));
                b->told_ns = now;
        }
        b->told[worker / 64] |= UINT64_C(1) << worker % 64;
        if (!mute_have_all_told(p, b))
                return 0;

        memset(b->told, 0, sizeof(b->told));
        if (now > b->mutes_ns + MUTE_WHILE_NS) {
                b->mutes_ns = now;
                b->n_mutes = 0;
        }
        if (b->n_mutes++ == 0)
                log_notice("pool %s: uid %u wakes workers for nothing: its bell is muted for a while", p->config.name,
                           (unsigned)b->uid);
        mute_set(b, true);
        loop_timer_set(p->supervisor->loop, &b->mute_timer, now + MUTE_NS, mute_on_timer, b);
        if (b->n_mutes > MUTE_TIMES) {
                b->n_mutes = 0;
                mute_drop(p, bell);
        }
        return 0;
}
