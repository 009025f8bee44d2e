/* Queue waits and run times of a pool: the workers' histograms in pool memory, added up when somebody asks.
 *
 * A histogram belongs to a worker's index and a job type's number, and outlives the worker. The numbers mean something
 * only with the plugin's job types at hand, so each index notes of which list its histograms are: a worker whose plugin
 * has another list than its predecessor's begins anew, and only those of the list that counts now are added. */
#include "ipc/memory/latency.h"

#include <string.h>

#include "daemon/supervise/pools/pool.h"

void pool_latency_begin(struct pool *p, uint32_t index) {
        if (p->latency_list[index] == p->n_type_lists)
                return;
        if (p->latency_list[index] != 0) /* memory nobody wrote is not touched */
                memset(p->memory->latency[index], 0, sizeof(p->memory->latency[index]));
        p->latency_list[index] = p->n_type_lists;
}

static uint64_t pool_latency_us(const struct latency_sum *s, unsigned per_mille) {
        return (latency_quantile_ns(s, per_mille) + 999) / 1000;
}

static struct pool_quantiles pool_latency_quantiles(const struct latency_sum *s) {
        return (struct pool_quantiles){
                .p50_us = pool_latency_us(s, 500),
                .p90_us = pool_latency_us(s, 900),
                .p99_us = pool_latency_us(s, 990),
                .max_us = (s->max_ns + 999) / 1000,
        };
}

uint32_t pool_n_latency_types(const struct pool *p) {
        uint32_t n = p->schema ? p->schema->n_jobs : 0;
        return n < LAYOUT_LATENCY_TYPES ? n : LAYOUT_LATENCY_TYPES;
}

const char *pool_latency_type(const struct pool *p, uint32_t type) {
        bool is_shared = type == LAYOUT_LATENCY_TYPES - 1 && p->schema->n_jobs > LAYOUT_LATENCY_TYPES;
        return is_shared ? "*" : p->schema->jobs[type].name;
}

void pool_get_latency(const struct pool *p, uint32_t first_type, uint32_t n_types, struct pool_latency *ret) {
        struct latency_sum queue = {0}, run = {0};
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                for (uint32_t t = first_type;
                     p->n_type_lists && p->latency_list[i] == p->n_type_lists && t < first_type + n_types; t++) {
                        latency_add(&queue, &p->memory->latency[i][t].queue);
                        latency_add(&run, &p->memory->latency[i][t].run);
                }
        *ret = (struct pool_latency){run.n, pool_latency_quantiles(&queue), pool_latency_quantiles(&run)};
}
