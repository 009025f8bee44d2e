/* Who asked the job in hand to stop, when, and whether it has an end if it does not heed that.
 *
 * Whoever asks over the bus is there to ask for more, and a limit has its own. A job whose caller or client has left
 * has nobody: past KillGraceSec= it is cancelled and its worker killed, else it would hold that for ever. The first who
 * asks is kept; what is told belongs to one job, and is nothing once the worker runs another. */
#include <stdio.h>
#include <string.h>

#include "daemon/log/log.h"
#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"

bool worker_get_ask(const struct worker *w, uint64_t *ret_when_us, const char **ret_by) {
        struct worker_job job;
        if (w->ask.when_us == 0 || !worker_get_job(w, &job) || !worker_job_is(&job, &w->ask.job))
                return false;
        *ret_when_us = w->ask.when_us;
        *ret_by = w->ask.by;
        return true;
}

static void ask_on_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        struct worker_job job;
        if (!worker_get_job(w, &job) || !worker_job_is(&job, &w->ask.job))
                return;
        uint64_t id = worker_job_id(&job);
        if (worker_judge(w, SLOT_CANCELLED, REASON_OPERATOR))
                log_notice("pool %s: job %llu goes on %g s after it was asked to stop by %s: it is cancelled, and its "
                           "worker %llu (pid %d) killed",
                           w->pool->config.name, (unsigned long long)id, (double)w->pool->config.kill_grace_ns / 1e9,
                           w->ask.by, (unsigned long long)w->id, (int)w->pid);
}

/* A slot's word may name a worker that runs another job by now, or, as its client can write it, that always did. */
static void ask_note(struct worker *w, const struct worker_job_key *asked, const char *by, bool is_final) {
        struct worker_job job;
        uint64_t when_us;
        const char *first;
        if (!worker_get_job(w, &job) || !worker_job_is(&job, asked))
                return;
        if (!worker_get_ask(w, &when_us, &first)) {
                loop_timer_stop(&w->ask.timer);
                w->ask.job = *asked;
                w->ask.when_us = wall_clock_us();
                snprintf(w->ask.by, sizeof(w->ask.by), "%s", by);
        }
        if (is_final && !w->ask.timer.heap_index)
                loop_timer_set(w->pool->supervisor->loop, &w->ask.timer, event_now_ns() + w->pool->config.kill_grace_ns,
                               ask_on_timer, w);
}

bool worker_ask(struct pool_channel *c, uint32_t slot, uint32_t generation, const char *by, bool is_final) {
        if (!channel_ask_cancel(&c->channel, slot, generation))
                return false;
        unsigned index = slot_owner(channel_word(&c->channel, slot)) - SLOT_OWNER_WORKER0;
        struct worker *w = index < LAYOUT_MAX_WORKERS ? c->pool->workers[index] : NULL;
        const struct worker_job_key asked = {c->id_base, c->index, slot, generation};
        if (w)
                ask_note(w, &asked, by, is_final);
        return true;
}
