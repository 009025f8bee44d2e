/* A worker asks for an arena.
 *
 * It asks for one at a time and waits for the answer, so what it asked for fits into struct worker. Only when its
 * socket is full the answer waits, too, until it reads. Arenas of workers belong to the broker's own uid: workers of
 * all pools and the programs of that user share them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/arenas/arenas.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"

#define ARENA_NOTICE_NS UINT64_C(1000000000)

/* It may ask without an end: one notice a second. */
static void arena_log_refusal(struct worker *w, const char *why) {
        uint64_t now = event_now_ns();
        if (w->arena_told_ns && now - w->arena_told_ns < ARENA_NOTICE_NS)
                return;
        w->arena_told_ns = now;
        log_notice("pool %s, worker %llu: %s", w->pool->config.name, (unsigned long long)w->id, why);
}

int worker_answer_arena(struct worker *w) {
        if (!w->arena_wanted)
                return 0;
        const struct arena_request q = {
                .name = w->arena_name,
                .uid = geteuid(),
                .bytes = w->arena_bytes,
                .n_objects = w->arena_objects,
                .n_processes = w->arena_processes,
                .is_transient = w->arena_is_transient,
                .is_worker = true,
                .pid = w->pid,
                .pidfd = w->pidfd,
        };
        struct worker_order order = {.type = ORDER_ARENA, .version = WIRE_VERSION};
        struct arena_offer offer;
        struct fault f;
        int r = arenas_open(w->pool->supervisor->arenas, &q, &offer, &f);
        if (r < 0) {
                arena_log_refusal(w, f.text);
                order.error = -r;
                r = packet_send(w->control_fd, &order, sizeof(order), NULL, 0);
        } else {
                order.arena_bytes = offer.bytes;
                r = packet_send(w->control_fd, &order, sizeof(order), &offer.memory_fd, 1);
                close(offer.memory_fd);
                if (r < 0 && r != -EAGAIN && r != -EPIPE) { /* the answer may go where its descriptor does not */
                        order.error = -r;
                        r = packet_send(w->control_fd, &order, sizeof(order), NULL, 0);
                }
        }
        w->arena_wanted = r < 0;
        return r;
}

int worker_on_arena_wanted(struct worker *w, const struct worker_report *report) {
        if (w->arena_wanted || w->phase == PHASE_STARTING)
                return -EPROTO;
        snprintf(w->arena_name, sizeof(w->arena_name), "%.*s", (int)sizeof(w->arena_name) - 1, report->text);
        w->arena_bytes = report->arena_bytes;
        w->arena_objects = report->arena_objects;
        w->arena_processes = report->arena_processes;
        w->arena_is_transient = report->arena_is_transient;
        w->arena_wanted = true;
        int r = worker_answer_arena(w);
        if (r < 0)
                worker_send_later(w, r);
        return 0;
}
