/* Where the next object of an arena goes. All of this runs under the directory's lock. */
#pragma once

#include "ipc/sync/arena/arena.h"

struct object_room {
        uint64_t offset;
        uint32_t index;
};

/* An entry and memory for an object. -ENOSPC, and drover_arena_error() says of what; -EPROTO; -ENOMEM. */
int object_find_room(struct drover_arena *a, uint64_t bytes, struct object_room *ret);
/* They are an object's now. */
void object_take_room(struct drover_arena *a, const struct object_room *room, uint64_t bytes);

void object_count_removed(struct drover_arena *a);
/* Makes the entry of a removed object vacant if nobody uses it. */
void object_take_back(struct drover_arena *a, uint32_t index);
/* After a death: the counts anew. */
void object_count(struct drover_arena *a);
