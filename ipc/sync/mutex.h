/* A mutex as a condition needs it. */
#pragma once

#include "ipc/sync/lock.h"

struct drover_mutex {
        struct object object;
        struct layout_lock *lock;
        uint64_t identity; /* the arena's, one pointer nearer */
        bool is_recursive;
        struct spin spin;
};

static inline uint64_t mutex_self(const struct drover_mutex *m) {
        return m->identity | (uint64_t)owner_sub_self() << OWNER_SUB_SHIFT;
}

/* A mutex inside another object. */
void mutex_init(struct drover_mutex *m, const struct object *o, struct layout_lock *lock, bool is_recursive);

/* Gives back all of it, however deep, and tells how deep it was: > 0, -EPERM. */
int mutex_yield(struct drover_mutex *m);
/* Takes it again that deep. Never gives up: 0, -EOWNERDEAD; -EIDRM: removed, and not taken. */
int mutex_regain(struct drover_mutex *m, int depth);
