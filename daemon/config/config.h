/* Settings: droverd's own and the pools', from unit-style files (libinih) or from the bus. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/wire.h"

enum { POOL_NAME_MAX = 64 }; /* [A-Za-z0-9_.-]{1,64} */
#define POOL_WORKERS_UNSET UINT32_MAX

enum pool_overflow { OVERFLOW_REJECT, OVERFLOW_BLOCK };
enum pool_guarantee { GUARANTEE_AT_LEAST_ONCE, GUARANTEE_AT_MOST_ONCE };

/* Where its settings stand; config-show.h reads and writes it. */
enum { CONFIG_MAX_KEYS = 64, CONFIG_MAX_PATHS = 4096 };
struct config_origin {
        uint32_t where, line; /* 0 = the default */
};
struct config_origins {
        struct config_origin keys[CONFIG_MAX_KEYS]; /* by place in the table of keys */
        char paths[CONFIG_MAX_PATHS]; /* of the files that were read, each with its end; an empty one is the last */
};

struct pool_config {
        char name[POOL_NAME_MAX + 1];
        char plugin[WIRE_NAME];
        char where_plugin[256]; /* "FILE:LINE" of Plugin=, or "" when set over the bus: for messages */
        enum start_method start_method;
        uint32_t n_workers;                /* resolved: auto = CPUs in the affinity mask */
        uint32_t min_workers, max_workers; /* POOL_WORKERS_UNSET: see pool_config_min_workers */
        uint32_t n_slots, slot_bytes;
        enum pool_overflow overflow;
        uint64_t rate_ns;    /* between two starts; 0 = no limit */
        uint32_t n_capsules; /* kept of its jobs; 0 = none */
        uint32_t max_attempts;
        enum pool_guarantee guarantee;
        uint64_t retry_ns, retry_max_ns; /* pause before the second attempt; at most, 0 = any */
        uint32_t retry_backoff_milli;    /* each further one that many thousandths of the one before */
        uint64_t queue_timeout_ns, soft_timeout_ns, hard_timeout_ns; /* 0 = none */
        uint64_t result_ttl_ns;
        uint64_t restart_ns, restart_max_ns, start_limit_interval_ns;
        uint32_t start_limit_burst;
        uint64_t timeout_start_ns; /* 0 = none */
        uint64_t timeout_stop_ns, kill_grace_ns;
        uint32_t max_jobs; /* 0 = none, as the next two */
        uint64_t recycle_bytes, max_age_ns;
        uint64_t memory_bytes;              /* of a worker; 0 = the default, UINT64_MAX = any */
        char environment[WIRE_ENVIRONMENT]; /* NAME=value, 0-separated, ended by an empty one */
        struct config_origins origins;
};

void pool_config_defaults(struct pool_config *c);
/* One setting: `section` may be NULL (from the bus: key names are unique). 0; -ENOENT unknown key (a warning; `error`
 * names the nearest known one); -EINVAL bad value; -EOPNOTSUPP a key or value that is known but not built yet: `error`
 * says so by name. */
int pool_config_set(struct pool_config *c, const char *section, const char *key, const char *value, char *error,
                    size_t error_bytes);
/* May a setting be given over the bus by a value of this kind: 's' text, as in a file (always), 'n' number, 'b'
 * boolean, 'l' list of texts? true for an unknown key: pool_config_set says what is wrong with it. */
bool pool_config_takes(const char *key, char kind);
/* What only the whole shows (Plugin= missing, SoftTimeout= over HardTimeout= …). -EINVAL with `error`. */
int pool_config_check(const struct pool_config *c, char *error, size_t error_bytes);
/* MaxWorkers=, else Workers=; MinWorkers=, else Workers=, but no more than the most. */
uint32_t pool_config_max_workers(const struct pool_config *c);
uint32_t pool_config_min_workers(const struct pool_config *c);
bool pool_name_is_valid(const char *name);
/* "" when equal, else the names of the settings that differ, comma-separated. */
void pool_config_differences(const struct pool_config *a, const struct pool_config *b, char *text, size_t text_bytes);

/* ---- files ---- */

struct pool_file {
        struct pool_config config;
        char path[256];
        bool is_bad; /* refused: `error` starts with FILE:LINE, or with the PATH that cannot be read */
        char error[512];
};

struct config_paths {
        char *config_dirs[8]; /* lowest priority first; each may hold drover.conf, drover.conf.d/, pools.d/ */
        unsigned n_config_dirs;
};

/* --config-dir replaces the search path. */
int config_paths_init(struct config_paths *p, bool is_user, const char *config_dir);
void config_paths_deinit(struct config_paths *p);

struct daemon_config {
        struct pool_config pool_defaults; /* drover.conf may set any pool key as the default */
        int log_level;                    /* [Daemon] LogLevel=, -1 = not set */
        uint32_t max_pools;               /* [Daemon] MaxPools= */
};

enum { DAEMON_MAX_POOLS = 1000 }; /* the default, and the most: the spawner has room for three generations of each */

struct config_files {
        struct daemon_config daemon;
        struct pool_file *pools; /* sorted by name, masked ones (link to /dev/null) left out */
        size_t n_pools;
};

/* Everything there is. A bad pool file, or one that cannot be read, is an entry with is_bad; what keeps the whole from
 * being known is an error that says where: -EINVAL for a drover.conf that makes no sense, else -errno (a folder that is
 * there and cannot be read, no memory …). Unknown keys are warned about through log.h. */
int config_load(const struct config_paths *p, struct config_files *ret, char *error, size_t error_bytes);
void config_files_deinit(struct config_files *f);
