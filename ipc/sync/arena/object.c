/* The directory of an arena: objects by name and type, made once however many ask at once, and removed.
 *
 * Owns the entries, which memory is whose, and the order in which an entry's word changes:
 *
 *   vacant → valid            object_make (object-room.c finds the place), when all else of it is written
 *   valid → removed           drover_arena_unlink; then its calls are ended, which a repair goes on with
 *   removed → vacant          object_take_back, if nobody uses it (users.c)
 *
 * All of these run under the directory's lock. Looking needs none: who finds a name says that it uses the entry, and
 * then looks whether it is still so. An entry with a user does not change but for being removed. Nothing here needs
 * repair: a maker that dies leaves an entry that is not valid, memory belongs to the entries that name it, and the
 * counts beside the lock are counted anew.
 *
 * Every entry may be rewritten by a hostile peer: each word is read once, checked against the private size of the
 * mapping and the needs of its type, and only the copy is used. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/arena/object-room.h"
#include "ipc/sync/lock.h"

enum { OBJECT_NAME_WORDS = ARENA_NAME / sizeof(uint64_t) };

static const struct object_kind *const object_kinds[OBJECT_N_TYPES] = {
        [OBJECT_MUTEX] = &mutex_kind,         [OBJECT_RECURSIVE_MUTEX] = &recursive_mutex_kind,
        [OBJECT_CONDITION] = &condition_kind, [OBJECT_SEMAPHORE] = &semaphore_kind,
        [OBJECT_PERMITS] = &permits_kind,     [OBJECT_EVENT] = &event_kind,
        [OBJECT_BARRIER] = &barrier_kind,     [OBJECT_RWLOCK] = &rwlock_kind,
        [OBJECT_ARRAY] = &array_kind,         [OBJECT_DICTIONARY] = &dictionary_kind,
        [OBJECT_QUEUE] = &queue_kind,
};

const struct object_kind *object_kind(uint32_t type) { return type < OBJECT_N_TYPES ? object_kinds[type] : NULL; }

/* A name as it stands in an entry: padded with zeros. */
struct object_name {
        uint64_t words[OBJECT_NAME_WORDS];
};

static int object_read_name(const char *name, struct object_name *ret) {
        size_t n = strnlen(name, ARENA_NAME);
        if (n == 0 || n == ARENA_NAME)
                return -EINVAL;
        *ret = (struct object_name){0};
        memcpy(ret->words, name, n);
        return 0;
}

/* ---- looking ---- */

int object_look(struct drover_arena *a, uint32_t index, struct object *ret) {
        if (index >= a->n_objects)
                return -ENOENT;
        const struct layout_object *e = &a->objects[index];
        /* seq_cst: U1. Acquire: partner is the store in object_make; the rest of the entry is older */
        uint64_t word = atomic_load_explicit(&e->word, memory_order_seq_cst);
        uint32_t type = object_word_type(word);
        if (type == OBJECT_NONE)
                return -ENOENT;
        const struct object_kind *kind = object_kind(type);
        if (!kind)
                return -EPROTO;

        struct object o = {
                .arena = a,
                .index = index,
                .type = type,
                .generation = object_word_generation(word),
                .is_removed = word & OBJECT_REMOVED,
        };
        /* acquire: the word is read again after these */
        uint64_t offset = atomic_load_explicit(&e->offset, memory_order_acquire);
        for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                o.parameters[i] = atomic_load_explicit(&e->parameters[i], memory_order_acquire);
        uint64_t now = atomic_load_explicit(&e->word, memory_order_relaxed);
        if ((now | OBJECT_REMOVED) != (word | OBJECT_REMOVED))
                return -ENOENT;
        o.bytes = kind->bytes(a, o.parameters);
        if (o.bytes == 0 || offset % LAYOUT_LINE != 0 || offset < a->first || offset > a->bytes ||
            o.bytes > a->bytes - offset)
                return -EPROTO;
        o.at = (uint8_t *)a->shared + offset;
        *ret = o;
        return 0;
}

void object_get_name(const struct drover_arena *a, uint32_t index, char ret[static ARENA_NAME]) {
        for (unsigned i = 0; i < OBJECT_NAME_WORDS; i++) {
                uint64_t word = atomic_load_explicit(&a->objects[index].name[i], memory_order_relaxed);
                memcpy(ret + i * sizeof word, &word, sizeof word);
        }
        ret[ARENA_NAME - 1] = '\0';
}

/* FNV-1a. Many entries are looked through by it, in memory that lies together. */
static uint32_t object_hash(const struct object_name *name) {
        const uint8_t *p = (const uint8_t *)name->words;
        uint32_t hash = UINT32_C(2166136261);
        for (unsigned i = 0; i < ARENA_NAME && p[i]; i++)
                hash = (hash ^ p[i]) * UINT32_C(16777619);
        return hash < HASH_FIRST ? hash + HASH_FIRST : hash;
}

static bool object_is_called(const struct drover_arena *a, uint32_t index, const struct object_name *name) {
        for (unsigned i = 0; i < OBJECT_NAME_WORDS; i++)
                if (atomic_load_explicit(&a->objects[index].name[i], memory_order_relaxed) != name->words[i])
                        return false;
        return true;
}

/* The entry with this name: 0, and it is used; -ENOENT: there is none; -EPROTO. */
static int object_find(struct drover_arena *a, const struct object_name *name, struct object *ret) {
        uint32_t hash = object_hash(name), seen;
        for (uint32_t i = 0; i < a->n_objects; i++) {
                /* acquire: the word of an entry before is older than the hash of this one */
                seen = atomic_load_explicit(&a->hashes[i], memory_order_acquire);
                if (seen == HASH_NEVER)
                        return -ENOENT;
                if (seen != hash)
                        continue;
                users_enter(a, i);
                int r = object_look(a, i, ret);
                bool is_it = r != -ENOENT && object_is_called(a, i, name) && !(r == 0 && ret->is_removed);
                if (is_it && r == 0)
                        return 0;
                users_leave(a, i);
                if (is_it)
                        return r;
        }
        return -ENOENT;
}

static bool object_matches(const struct object *o, enum object_type type, const uint64_t parameters[ARENA_PARAMETERS]) {
        for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                if (parameters[i] != 0 && parameters[i] != o->parameters[i])
                        return false;
        return o->type == type;
}

/* ---- the directory's lock ---- */

static int directory_lock(struct drover_arena *a) {
        struct spin spin = {0};
        const struct object directory = {.arena = a, .index = a->n_objects};
        int r = lock_acquire(&a->shared->directory, &directory, &spin, drover_deadline_in(LOCK_PATIENCE_NS));
        if (r != -EOWNERDEAD)
                return r == -EIDRM ? -EPROTO : r; /* a hostile peer's: nobody removes the directory */
        object_count(a);
        return lock_consistent(&a->shared->directory, arena_self(a));
}

static void directory_unlock(struct drover_arena *a) { lock_release(&a->shared->directory, arena_self(a)); }

/* ---- making ---- */

/* Under the directory's lock. The object is used. */
static int object_make(struct drover_arena *a, const struct object_name *name, enum object_type type,
                       const uint64_t parameters[ARENA_PARAMETERS], struct object *ret) {
        const struct object_kind *kind = object_kind(type);
        uint64_t bytes = kind->bytes(a, parameters);
        struct object_room room;
        int r = object_find_room(a, bytes, &room);
        if (r < 0)
                return r;

        struct layout_object *e = &a->objects[room.index];
        uint8_t *at = (uint8_t *)a->shared + room.offset;
        uint32_t generation = object_word_generation(atomic_load_explicit(&e->word, memory_order_relaxed)) + 1;
        memset(at, 0, bytes);
        KILL_POINT("object-zeroed");
        if (kind->init)
                kind->init(at, parameters);
        atomic_store_explicit(&e->offset, room.offset, memory_order_relaxed);
        atomic_store_explicit(&e->bytes, bytes, memory_order_relaxed);
        for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                atomic_store_explicit(&e->parameters[i], parameters[i], memory_order_relaxed);
        for (unsigned i = 0; i < OBJECT_NAME_WORDS; i++)
                atomic_store_explicit(&e->name[i], name->words[i], memory_order_relaxed);
        atomic_store_explicit(&e->n_repaired, 0, memory_order_relaxed);
        atomic_store_explicit(&a->hashes[room.index], object_hash(name), memory_order_release);
        users_enter(a, room.index);
        KILL_POINT("object-filled");
        /* release: who sees the word sees the entry and the object */
        atomic_store_explicit(&e->word, OBJECT_WORD(type, generation), memory_order_release);
        KILL_POINT("object-made");
        object_take_room(a, &room, bytes);
        r = object_look(a, room.index, ret);
        if (r < 0) /* a hostile peer was there already */
                users_leave(a, room.index);
        return r;
}

/* 0, and it is used. */
static int object_find_or_make(struct drover_arena *a, const struct object_name *name, enum object_type type,
                               const uint64_t parameters[ARENA_PARAMETERS], struct object *ret) {
        int r = object_find(a, name, ret);
        if (r != -ENOENT)
                return r;
        if (object_kind(type)->bytes(a, parameters) == 0) {
                for (unsigned i = 0; i < ARENA_PARAMETERS; i++)
                        if (parameters[i] != 0)
                                return -EINVAL;
                return -ENOENT;
        }
        r = directory_lock(a);
        if (r < 0)
                return r;
        r = object_find(a, name, ret);
        if (r == -ENOENT)
                r = object_make(a, name, type, parameters, ret);
        directory_unlock(a);
        return r;
}

int object_open(struct drover_arena *a, const char *name, enum object_type type,
                const uint64_t parameters[ARENA_PARAMETERS], size_t handle_bytes, void **ret) {
        struct object_name padded;
        struct object o;
        int r = object_read_name(name, &padded);
        if (r >= 0)
                r = object_find_or_make(a, &padded, type, parameters, &o);
        if (r < 0)
                return r;
        struct object *handle = object_matches(&o, type, parameters) ? calloc(1, handle_bytes) : NULL;
        if (!handle) {
                users_leave(a, o.index);
                return object_matches(&o, type, parameters) ? -ENOMEM : -EEXIST;
        }
        *handle = o;
        arena_ref(a);
        *ret = handle;
        return 0;
}

void object_close(void *handle) {
        struct object *o = handle;
        if (!o)
                return;
        if (arena_is_mapped(o->arena))
                users_leave(o->arena, o->index);
        arena_unref(o->arena);
        free(o);
}

/* ---- removing ---- */

bool object_finish_removal(struct drover_arena *a, uint32_t index) {
        struct object o;
        bool is_begun = object_look(a, index, &o) == 0 && o.is_removed;
        if (is_begun)
                object_kind(o.type)->remove(&o);
        return is_begun;
}

int drover_arena_unlink(drover_arena *arena, const char *name) {
        struct object_name padded;
        struct object o;
        int r = object_read_name(name, &padded);
        if (r >= 0)
                r = directory_lock(arena);
        if (r < 0)
                return r;
        r = object_find(arena, &padded, &o);
        if (r == 0) {
                /* seq_cst: U2. Before its calls end, so that who opens the name again never gets this one */
                atomic_fetch_or_explicit(&arena->objects[o.index].word, OBJECT_REMOVED, memory_order_seq_cst);
                KILL_POINT("unlink-removed");
                object_kind(o.type)->remove(&o);
                KILL_POINT("unlink-told");
                users_leave(arena, o.index);
                object_count_removed(arena);
                KILL_POINT("unlink-left");
                object_take_back(arena, o.index);
                KILL_POINT("unlink-vacant");
        }
        directory_unlock(arena);
        return r;
}
