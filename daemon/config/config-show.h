/* Settings as files spell them, and where each stands. */
#pragma once

#include "daemon/config/config.h"

enum { CONFIG_MAX_VALUE = 2 * WIRE_ENVIRONMENT + 64 };

struct config_shown {
        const char *section, *name;
        char value[CONFIG_MAX_VALUE]; /* reads back as the same; "" = none, of MemoryMax= the default */
        char from[400];               /* "FILE:LINE", "(one of more files):LINE", "default", "bus" */
};

/* Setting `i` < config_n_keys of a pool; false: that one is not built yet. */
bool config_show(const struct pool_config *c, size_t i, struct config_shown *ret);

/* A file is read from now on; then what it sets is noted, or (value "") reset to what `defaults` have noted. */
void config_origins_add_file(struct config_origins *o, const char *path);
void config_origins_note(struct config_origins *o, const char *key, const char *path,
                         unsigned line); /* NULL: the bus */
void config_origins_reset(struct config_origins *o, const struct config_origins *defaults, const char *key);

/* ---- for the table of keys ---- */

typedef void (*config_show_fn)(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_text(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_count(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_size(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_limit_bytes(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_memory(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_time(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_limit(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_factor(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_rate(const struct pool_config *c, const void *field, char *text, size_t bytes);
void config_show_environment(const struct pool_config *c, const void *field, char *text, size_t bytes);
