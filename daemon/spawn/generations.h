/* The table of generations: each a plugin file of one pool, copied once. */
#pragma once

#include "daemon/spawn/spawner.h"

struct generation *generations_find(struct spawner *s, uint32_t id);
/* NULL also for one that is still being copied. */
struct generation *generations_find_loaded(struct spawner *s, uint32_t id);
/* A new one, without its plugin yet. −errno with the reason in `e`. */
int generations_add(struct spawner *s, const struct spawn_request *q, struct generation **ret, struct spawn_event *e);
void generations_forget(struct spawner *s, struct generation *g);
/* Its copy is complete (`plugin_fd` is taken), or there will be none (`e` says why): tells the broker, and forgets it
 * in the second case. */
void generations_loaded(struct spawner *s, struct generation *g, int plugin_fd);
void generations_failed(struct spawner *s, struct generation *g, struct spawn_event *e);
