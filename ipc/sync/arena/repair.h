/* The repair of an arena after deaths, in steps: for who must not be held up by it. */
#pragma once

#include "ipc/sync/arena/arena.h"

struct repair {
        struct drover_arena *arena;
        struct dead dead;
        uint32_t n, first;   /* of the dead: how many, and one of them */
        uint32_t n_ended;    /* objects that were removed, because all were more than the arena has room for */
        uint64_t bytes_left; /* of objects to go through */
        unsigned phase;
        uint32_t next; /* entry of the directory */
};

void repair_begin(struct repair *r, struct drover_arena *a);
/* Before the first step: another that is dead. -EINVAL: there is none such; -EBUSY. */
int repair_add(struct repair *r, uint32_t participant);
/* All that say that they have this pid, but for those of a broker. */
void repair_add_pid(struct repair *r, int32_t pid);
/* Goes on until then, or a little longer: as one object takes. true: all is repaired. */
bool repair_step(struct repair *r, uint64_t until_ns);
