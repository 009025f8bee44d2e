/* Every key of a pool's settings, in one table. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/config/config-show.h"
#include "daemon/config/config.h"

struct config_key;
typedef int (*config_parse_fn)(const struct config_key *k, void *field, const char *value, char *error,
                               size_t error_bytes);

struct config_key {
        const char *section, *name;
        config_parse_fn parse; /* NULL: known, not built yet */
        size_t offset, bytes;  /* of its field in struct pool_config */
        uint64_t minimum, maximum;
        const char *only; /* not built yet but for this one value, which is what happens anyway */
};

extern const struct config_key config_keys[];
extern const size_t config_n_keys;

/* NULL section: any (names are unique). */
const struct config_key *config_find_key(const char *section, const char *name);
/* The known name with the smallest edit distance to a misspelt one; NULL if none is near. */
const char *config_nearest_key(const char *name);
/* Names of [Section]s, for the same purpose. */
bool config_section_is_known(const char *section);

/* How its value is written; of a key that has a parser. */
config_show_fn config_find_show(const struct config_key *k);

/* pool_config_set with the values that an empty one resets to. */
int config_key_set(struct pool_config *c, const struct pool_config *defaults, const char *section, const char *name,
                   const char *value, char *error, size_t error_bytes);
/* The same for drover.conf: [Daemon], and every key of a pool but Plugin= as the default. */
int config_daemon_set(struct daemon_config *d, const struct pool_config *builtin, const char *section, const char *key,
                      const char *value, char *why, size_t why_bytes);
