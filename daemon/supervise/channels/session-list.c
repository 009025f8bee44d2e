/* The channels that clients have open, as an operator sees them. */
#include <stdlib.h>

#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/supervisor-internal.h"

static int session_row_compare(const void *a, const void *b) {
        uint64_t x = ((const struct session_row *)a)->id_base, y = ((const struct session_row *)b)->id_base;
        return (x > y) - (x < y);
}

static void session_describe_row(const struct pool_channel *c, struct session_row *ret) {
        *ret = (struct session_row){
                .id_base = c->id_base,
                .opened_us = session_opened_us(c->session),
                .pool = c->pool->config.name,
                .connection = session_connection(c->session),
                .uid = c->pool->bells[c->bell].uid,
                .pid = session_pid(c->session),
                .n_slots = c->channel.geometry.n_slots,
        };
        pool_channel_count_jobs(c, &ret->n_queued, &ret->n_running);
}

size_t supervisor_list_sessions(const struct supervisor *s, const struct session_filter *f, struct session_row *ret,
                                size_t n) {
        const struct pool *p;
        size_t n_found = 0;
        TAILQ_FOREACH(p, &s->pools, link)
                for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                        const struct pool_channel *c = p->channels[i];
                        if (c && c->session && n_found < n && (f->sees_all || p->bells[c->bell].uid == f->viewer))
                                session_describe_row(c, &ret[n_found++]);
                }
        if (n_found > 1)
                qsort(ret, n_found, sizeof(*ret), session_row_compare);
        return n_found;
}
