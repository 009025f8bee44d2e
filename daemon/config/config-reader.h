/* Reads all configuration files beside the loop, because they may lie on a disk that does not answer. */
#pragma once

#include <stdbool.h>

#include "daemon/config/config.h"
#include "daemon/loop/loop.h"

struct config_reader;

/* Either `files`, until it returns, or NULL and what config_load said (error -EINVAL: drover.conf makes no sense),
 * -ETIMEDOUT with the path that does not answer, or -ESHUTDOWN. */
typedef void (*config_read_fn)(void *user, const struct config_files *files, int error, const char *text);

/* `p` stays the caller's and as it is. */
int config_reader_new(struct config_reader **ret, struct loop *l, const struct config_paths *p);
struct config_reader *config_reader_free(struct config_reader *r);
/* Calls fn once, perhaps before it returns: each reading begins after it was asked for. */
void config_reader_ask(struct config_reader *r, config_read_fn fn, void *user);
/* Before the loop runs: until fn was called. */
void config_reader_wait(struct config_reader *r);
