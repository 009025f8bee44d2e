/* A pool's settings as a whole: their defaults, what only the whole shows, and what differs between two of them.
 *
 * struct pool_config is plain data without pointers, so it is copied by assignment; a field that files can set has one
 * row in config-keys.c and is compared and reset by that row. */
#include "daemon/config/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config/config-keys.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

void pool_config_defaults(struct pool_config *c) {
        char error[64];

        *c = (struct pool_config){
                .start_method = START_FORKSERVER,
                .min_workers = POOL_WORKERS_UNSET,
                .max_workers = POOL_WORKERS_UNSET,
                .n_slots = 1024,
                .slot_bytes = 4096,
                .n_capsules = 8,
                .max_attempts = 3,
                .guarantee = GUARANTEE_AT_LEAST_ONCE,
                .retry_backoff_milli = 1000,
                .result_ttl_ns = 60 * SECOND,
                .restart_ns = 100 * MS,
                .restart_max_ns = 30 * SECOND,
                .start_limit_burst = 5,
                .start_limit_interval_ns = 10 * SECOND,
                .timeout_start_ns = 30 * SECOND,
                .timeout_stop_ns = 30 * SECOND,
                .kill_grace_ns = 5 * SECOND,
        };
        pool_config_set(c, "Pool", "Workers", "auto", error, sizeof(error));
}

int pool_config_set(struct pool_config *c, const char *section, const char *key, const char *value, char *error,
                    size_t error_bytes) {
        struct pool_config defaults;

        if (value[0] == '\0')
                pool_config_defaults(&defaults);
        return config_key_set(c, &defaults, section, key, value, error, error_bytes);
}

int pool_config_check(const struct pool_config *c, char *error, size_t error_bytes) {
        if (!pool_name_is_valid(c->name)) {
                snprintf(error, error_bytes, "\"%.80s\" is not a pool name: 1 to %d of A-Z a-z 0-9 _ . -", c->name,
                         POOL_NAME_MAX);
                return -EINVAL;
        }
        if (c->plugin[0] == '\0') {
                snprintf(error, error_bytes, "Plugin= is missing in pool %s", c->name);
                return -EINVAL;
        }
        if (pool_config_min_workers(c) > pool_config_max_workers(c)) {
                snprintf(error, error_bytes, "MinWorkers=%u is more than %s=%u in pool %s", c->min_workers,
                         c->max_workers == POOL_WORKERS_UNSET ? "Workers" : "MaxWorkers", pool_config_max_workers(c),
                         c->name);
                return -EINVAL;
        }
        if (c->hard_timeout_ns && c->soft_timeout_ns > c->hard_timeout_ns) {
                snprintf(error, error_bytes, "SoftTimeout= is longer than HardTimeout= in pool %s", c->name);
                return -EINVAL;
        }
        if (c->retry_max_ns && c->retry_max_ns < c->retry_ns) {
                snprintf(error, error_bytes, "RetryMaxDelay= is shorter than RetryDelay= in pool %s", c->name);
                return -EINVAL;
        }
        if (c->restart_max_ns < c->restart_ns) {
                snprintf(error, error_bytes, "RestartMaxDelaySec= is shorter than RestartSec= in pool %s", c->name);
                return -EINVAL;
        }
        return 0;
}

uint32_t pool_config_max_workers(const struct pool_config *c) {
        return c->max_workers == POOL_WORKERS_UNSET ? c->n_workers : c->max_workers;
}

uint32_t pool_config_min_workers(const struct pool_config *c) {
        uint32_t max = pool_config_max_workers(c);

        if (c->min_workers != POOL_WORKERS_UNSET)
                return c->min_workers;
        return c->n_workers < max ? c->n_workers : max;
}

bool pool_name_is_valid(const char *name) {
        size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");

        return n >= 1 && n <= POOL_NAME_MAX && name[n] == '\0';
}

void pool_config_differences(const struct pool_config *a, const struct pool_config *b, char *text, size_t text_bytes) {
        const struct config_key *k;
        size_t n = 0;
        int r;

        text[0] = '\0';
        for (size_t i = 0; i < config_n_keys; i++) {
                k = &config_keys[i];
                if (memcmp((const char *)a + k->offset, (const char *)b + k->offset, k->bytes) == 0)
                        continue;
                r = snprintf(text + n, text_bytes - n, "%s%s", n ? ", " : "", k->name);
                if (r < 0 || (size_t)r >= text_bytes - n)
                        return;
                n += (size_t)r;
        }
}
