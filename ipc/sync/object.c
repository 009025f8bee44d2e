/* The directory of an arena: objects by name and type, made once however many ask at once.
 *
 * Owns the entries and where objects lie. An entry is valid from the store of its type on, and never changes then, so
 * looking needs no lock. Making runs under the directory's lock; how many entries there are and where free memory
 * begins stands beside it, and is counted anew after a death. So a maker that dies leaves nothing to repair: its
 * entry was never valid and its memory is taken, and zeroed, by the next. Objects are not unmade; arenas are.
 *
 * Every entry may be rewritten by a hostile peer: it is copied once, checked against the private size of the mapping
 * and the needs of its type, and only the copy is used. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/kill-point.h"
#include "ipc/sync/lock.h"

static const struct object_kind *const object_kinds[OBJECT_N_TYPES] = {
        [OBJECT_MUTEX] = &mutex_kind,         [OBJECT_RECURSIVE_MUTEX] = &recursive_mutex_kind,
        [OBJECT_CONDITION] = &condition_kind, [OBJECT_SEMAPHORE] = &semaphore_kind,
        [OBJECT_PERMITS] = &permits_kind,     [OBJECT_EVENT] = &event_kind,
        [OBJECT_BARRIER] = &barrier_kind,     [OBJECT_RWLOCK] = &rwlock_kind,
        [OBJECT_ARRAY] = &array_kind,         [OBJECT_DICTIONARY] = &dictionary_kind,
        [OBJECT_QUEUE] = &queue_kind,
};

const struct object_kind *object_kind(uint32_t type) { return type < OBJECT_N_TYPES ? object_kinds[type] : NULL; }

static uint64_t object_align(uint64_t bytes) { return (bytes + LAYOUT_LINE - 1) & ~(uint64_t)(LAYOUT_LINE - 1); }

int object_look(struct drover_arena *a, uint32_t index, struct object *ret) {
        if (index >= a->n_objects)
                return -ENOENT;
        const struct layout_object *e = &a->shared->objects[index];
        /* acquire: partner is the store in object_make; the rest of the entry is older */
        uint32_t type = atomic_load_explicit(&e->type, memory_order_acquire);
        if (type == OBJECT_NONE)
                return -ENOENT;
        const struct object_kind *kind = object_kind(type);
        if (!kind)
                return -EPROTO;

        struct object o = {.arena = a, .index = index, .type = type};
        uint64_t offset = *(const volatile uint64_t *)&e->offset;
        for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                o.parameters[i] = *(const volatile uint64_t *)&e->parameters[i];
        o.bytes = kind->bytes(o.parameters);
        if (o.bytes == 0 || offset % LAYOUT_LINE != 0 || offset < a->first || offset > a->bytes ||
            o.bytes > a->bytes - offset)
                return -EPROTO;
        o.at = (uint8_t *)a->shared + offset;
        *ret = o;
        return 0;
}

/* FNV-1a; never 0. Many entries are looked through by it, in memory that lies together. */
static uint32_t object_hash(const char name[static ARENA_NAME]) {
        uint32_t hash = UINT32_C(2166136261);
        for (unsigned i = 0; i < ARENA_NAME && name[i]; i++)
                hash = (hash ^ (uint8_t)name[i]) * UINT32_C(16777619);
        return hash ? hash : 1;
}

/* The entry with this name; `ret` untouched and -ENOENT if there is none. */
static int object_find(struct drover_arena *a, const char name[static ARENA_NAME], struct object *ret) {
        uint32_t hash = object_hash(name), seen;
        for (uint32_t i = 0; i < a->n_objects; i++) {
                const struct layout_object *e = &a->shared->objects[i];
                /* acquire: the type of an entry before is older than the hash of this one */
                seen = atomic_load_explicit(&a->hashes[i], memory_order_acquire);
                if (seen == 0)
                        return -ENOENT;
                if (seen == hash && atomic_load_explicit(&e->type, memory_order_acquire) != OBJECT_NONE &&
                    memcmp(e->name, name, ARENA_NAME) == 0)
                        return object_look(a, i, ret);
        }
        return -ENOENT;
}

static bool object_matches(const struct object *o, enum object_type type, const uint64_t parameters[ARENA_PARAMETERS]) {
        for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                if (parameters[i] != 0 && parameters[i] != o->parameters[i])
                        return false;
        return o->type == type;
}

/* Under the directory's lock, after a death there: how many entries are valid, and where free memory begins. */
static int object_count(struct drover_arena *a) {
        uint64_t offset = a->first;
        uint32_t index = 0;
        for (struct object o; index < a->n_objects; index++) {
                int r = object_look(a, index, &o);
                if (r == -ENOENT)
                        break;
                if (r < 0)
                        return r;
                uint64_t end = object_align((uint64_t)((uint8_t *)o.at - (uint8_t *)a->shared) + o.bytes);
                offset = end > offset ? end : offset;
        }
        a->shared->end = offset;
        atomic_store_explicit(&a->shared->n_made, index, memory_order_relaxed);
        return 0;
}

/* Under the directory's lock. */
static int object_make(struct drover_arena *a, const char name[static ARENA_NAME], enum object_type type,
                       const uint64_t parameters[ARENA_PARAMETERS], struct object *ret) {
        const struct object_kind *kind = object_kind(type);
        uint64_t bytes = kind->bytes(parameters), offset = *(const volatile uint64_t *)&a->shared->end;
        uint32_t index = atomic_load_explicit(&a->shared->n_made, memory_order_relaxed);
        if (index > a->n_objects || offset < a->first || offset % LAYOUT_LINE != 0)
                return -EPROTO;
        if (index == a->n_objects || offset > a->bytes || bytes > a->bytes - offset)
                return -ENOSPC;

        struct layout_object *e = &a->shared->objects[index];
        uint8_t *at = (uint8_t *)a->shared + offset;
        memset(at, 0, bytes);
        KILL_POINT("object-zeroed");
        if (kind->init)
                kind->init(at, parameters);
        e->offset = offset;
        e->bytes = bytes;
        memcpy(e->parameters, parameters, sizeof e->parameters);
        memcpy(e->name, name, ARENA_NAME);
        atomic_store_explicit(&e->n_repaired, 0, memory_order_relaxed);
        atomic_store_explicit(&a->hashes[index], object_hash(name), memory_order_release);
        KILL_POINT("object-filled");
        /* release: who sees the type sees the entry and the object */
        atomic_store_explicit(&e->type, type, memory_order_release);
        KILL_POINT("object-made");
        a->shared->end = object_align(offset + bytes);
        atomic_store_explicit(&a->shared->n_made, index + 1, memory_order_relaxed);
        return object_look(a, index, ret);
}

static int object_find_or_make(struct drover_arena *a, const char name[static ARENA_NAME], enum object_type type,
                               const uint64_t parameters[ARENA_PARAMETERS], struct object *ret) {
        int r = object_find(a, name, ret);
        if (r != -ENOENT)
                return r;
        if (object_kind(type)->bytes(parameters) == 0) {
                for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                        if (parameters[i] != 0)
                                return -EINVAL;
                return -ENOENT;
        }

        struct spin spin = {0};
        const struct object directory = {.arena = a, .index = a->n_objects};
        r = lock_acquire(&a->shared->directory, &directory, &spin, drover_deadline_in(LOCK_PATIENCE_NS));
        if (r == -EOWNERDEAD) {
                r = object_count(a);
                if (r == 0)
                        r = lock_consistent(&a->shared->directory, arena_self(a));
                if (r < 0)
                        lock_release(&a->shared->directory, arena_self(a));
        }
        if (r < 0)
                return r;
        r = object_find(a, name, ret);
        if (r == -ENOENT)
                r = object_make(a, name, type, parameters, ret);
        lock_release(&a->shared->directory, arena_self(a));
        return r;
}

int object_open(struct drover_arena *a, const char *name, enum object_type type,
                const uint64_t parameters[ARENA_PARAMETERS], size_t handle_bytes, void **ret) {
        char padded[ARENA_NAME] = {0};
        size_t n = strnlen(name, ARENA_NAME);
        if (n == 0 || n == ARENA_NAME)
                return -EINVAL;
        memcpy(padded, name, n);

        struct object o;
        int r = object_find_or_make(a, padded, type, parameters, &o);
        if (r < 0)
                return r;
        if (!object_matches(&o, type, parameters))
                return -EEXIST;
        struct object *handle = calloc(1, handle_bytes);
        if (!handle)
                return -ENOMEM;
        *handle = o;
        *ret = handle;
        return 0;
}
