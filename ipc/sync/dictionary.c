/* Dictionaries of fixed capacity: a hash table with open addressing, changed under one recursive lock.
 *
 * Each entry has one word (used, which of two copies of the value, both lengths) and every change of it is one store:
 * the new value is written beside the old one, a new key into an entry that nobody reads yet. So a kill leaves the old
 * or the new state of every key. What several changes under one lock mean together only their author knows: after a
 * death nothing works before drover_dictionary_consistent.
 *
 * A table has at least twice as many entries as keys, so probes are short; the mark of a removed key goes away as soon
 * as no chain runs through it. Lengths from shared memory are checked against the private ones. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/memory/kill-point.h"
#include "ipc/sync/mutex.h"

struct drover_dictionary {
        struct object object;
        struct layout_dictionary *shared;
        struct drover_mutex mutex;
        uint8_t *data;
        uint32_t capacity, key_bytes, value_bytes, n_entries;
        size_t stride;
};

static uint32_t dictionary_entries(uint64_t capacity) {
        uint32_t n = 4;
        while (n < 2 * capacity)
                n *= 2;
        return n;
}

static size_t dictionary_align(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

static size_t dictionary_stride(uint64_t key_bytes, uint64_t value_bytes) {
        return dictionary_align(key_bytes) + 2 * dictionary_align(value_bytes);
}

static uint64_t dictionary_bytes(const struct drover_arena *a, const uint64_t parameters[ARENA_PARAMETERS]) {
        (void)a;
        uint64_t capacity = parameters[0], key = parameters[1], value = parameters[2];
        if (capacity == 0 || capacity > ARENA_MAX_ENTRIES || key == 0 || key > ARENA_MAX_KEY || value == 0 ||
            value > ARENA_MAX_ITEM)
                return 0;
        uint64_t n = dictionary_entries(capacity);
        return sizeof(struct layout_dictionary) + n * (sizeof(uint64_t) + dictionary_stride(key, value));
}

static bool dictionary_repair(const struct object *o, const struct dead *dead) {
        return lock_repair(&((struct layout_dictionary *)o->at)->lock, dead);
}

static void dictionary_remove(const struct object *o) { lock_remove(&((struct layout_dictionary *)o->at)->lock); }

const struct object_kind dictionary_kind = {
        .name = "dictionary",
        .bytes = dictionary_bytes,
        .repair = dictionary_repair,
        .remove = dictionary_remove,
        .has_lock = true,
};

int drover_dictionary_open(drover_arena *arena, const char *name, uint32_t capacity, uint32_t key_bytes,
                           uint32_t value_bytes, drover_dictionary **ret_dictionary) {
        const uint64_t parameters[ARENA_PARAMETERS] = {capacity, key_bytes, value_bytes};
        void *handle;
        int r = object_open(arena, name, OBJECT_DICTIONARY, parameters, sizeof(struct drover_dictionary), &handle);
        if (r < 0)
                return r;
        struct drover_dictionary *d = handle;
        d->shared = d->object.at;
        mutex_init(&d->mutex, &d->object, &d->shared->lock, true);
        d->capacity = (uint32_t)d->object.parameters[0];
        d->key_bytes = (uint32_t)d->object.parameters[1];
        d->value_bytes = (uint32_t)d->object.parameters[2];
        d->n_entries = dictionary_entries(d->capacity);
        d->stride = dictionary_stride(d->key_bytes, d->value_bytes);
        d->data = (uint8_t *)(d->shared->entries + d->n_entries);
        *ret_dictionary = d;
        return 0;
}

drover_dictionary *drover_dictionary_free(drover_dictionary *dictionary) {
        object_close(dictionary);
        return NULL;
}

/* ---- entries ---- */

struct dictionary_entry {
        uint64_t word;
        bool is_used;
        unsigned copy;
        uint32_t key_bytes, value_bytes;
        uint8_t *key, *values[2];
};

static struct dictionary_entry dictionary_look(const struct drover_dictionary *d, uint32_t i) {
        uint64_t word = atomic_load_explicit(&d->shared->entries[i], memory_order_acquire);
        uint32_t key_bytes = word >> 2 & 0xffff, value_bytes = word >> 18 & 0xffffff;
        struct dictionary_entry e = {
                .word = word,
                .is_used = word & 1,
                .copy = word >> 1 & 1,
                .key_bytes = key_bytes < d->key_bytes ? key_bytes : d->key_bytes,
                .value_bytes = value_bytes < d->value_bytes ? value_bytes : d->value_bytes,
                .key = d->data + i * d->stride,
        };
        e.values[0] = e.key + dictionary_align(d->key_bytes);
        e.values[1] = e.values[0] + dictionary_align(d->value_bytes);
        return e;
}

static void dictionary_set(struct drover_dictionary *d, uint32_t i, bool is_used, unsigned copy, size_t key_bytes,
                           size_t bytes) {
        KILL_POINT("dictionary-written");
        /* release: key and value are older */
        atomic_store_explicit(&d->shared->entries[i],
                              (uint64_t)is_used | (uint64_t)copy << 1 | (uint64_t)key_bytes << 2 |
                                      (uint64_t)bytes << 18,
                              memory_order_release);
        KILL_POINT("dictionary-set");
}

static uint64_t dictionary_hash(const void *key, size_t n) {
        const uint8_t *p = key;
        uint64_t h = UINT64_C(14695981039346656037);
        for (size_t i = 0; i < n; i++)
                h = (h ^ p[i]) * UINT64_C(1099511628211);
        return h ^ h >> 32;
}

/* The key's entry: true; else where it would go, n_entries if nowhere. */
static bool dictionary_find(const struct drover_dictionary *d, const void *key, size_t n, uint32_t *ret) {
        uint32_t mask = d->n_entries - 1, vacant = d->n_entries, at = (uint32_t)dictionary_hash(key, n) & mask;
        for (uint32_t i = 0; i < d->n_entries; i++, at = (at + 1) & mask) {
                struct dictionary_entry e = dictionary_look(d, at);
                if (e.is_used && e.key_bytes == n && memcmp(e.key, key, n) == 0) {
                        *ret = at;
                        return true;
                }
                if (!e.is_used && vacant == d->n_entries)
                        vacant = at;
                if (e.word == 0)
                        break;
        }
        *ret = vacant;
        return false;
}

static uint32_t dictionary_used(const struct drover_dictionary *d) {
        uint32_t n = atomic_load_explicit(&d->shared->n_used, memory_order_relaxed);
        return n < d->capacity ? n : d->capacity;
}

static void dictionary_set_used(struct drover_dictionary *d, uint32_t n) {
        atomic_store_explicit(&d->shared->n_used, n, memory_order_relaxed);
}

/* ---- calls ---- */

int drover_dictionary_lock(drover_dictionary *dictionary, uint64_t deadline_ns) {
        int r = drover_mutex_lock(&dictionary->mutex, deadline_ns);
        if (r == -EOWNERDEAD)
                drover_mutex_unlock(&dictionary->mutex);
        return r;
}

int drover_dictionary_unlock(drover_dictionary *dictionary) { return drover_mutex_unlock(&dictionary->mutex); }

int drover_dictionary_consistent(drover_dictionary *dictionary) {
        int r = drover_mutex_lock(&dictionary->mutex, drover_deadline_in(LOCK_PATIENCE_NS));
        if (r < 0 && r != -EOWNERDEAD)
                return r;
        if (r == -EOWNERDEAD) {
                uint32_t n = 0;
                for (uint32_t i = 0; i < dictionary->n_entries; i++)
                        n += dictionary_look(dictionary, i).is_used;
                dictionary_set_used(dictionary, n);
        }
        r = drover_mutex_consistent(&dictionary->mutex);
        drover_mutex_unlock(&dictionary->mutex);
        return r;
}

static void dictionary_unlock(struct drover_dictionary **d) { drover_dictionary_unlock(*d); }

/* Locks to the end of the block, or returns. */
#define DICTIONARY_LOCKED(dictionary, deadline_ns)                                                                     \
        int locked = drover_dictionary_lock((dictionary), (deadline_ns));                                              \
        if (locked < 0)                                                                                                \
                return locked;                                                                                         \
        struct drover_dictionary *guard __attribute__((cleanup(dictionary_unlock), unused)) = (dictionary)

int drover_dictionary_put(drover_dictionary *dictionary, const void *key, size_t key_bytes, const void *value,
                          size_t bytes, uint64_t deadline_ns) {
        if (key_bytes == 0)
                return -EINVAL;
        if (key_bytes > dictionary->key_bytes || bytes > dictionary->value_bytes)
                return -EMSGSIZE;
        DICTIONARY_LOCKED(dictionary, deadline_ns);
        uint32_t i;
        if (dictionary_find(dictionary, key, key_bytes, &i)) {
                struct dictionary_entry e = dictionary_look(dictionary, i);
                memcpy(e.values[!e.copy], value, bytes);
                dictionary_set(dictionary, i, true, !e.copy, key_bytes, bytes);
                return 0;
        }
        if (i == dictionary->n_entries || dictionary_used(dictionary) >= dictionary->capacity) {
                arena_say("the dictionary's keys: there are %u, which is its capacity", dictionary->capacity);
                return -ENOSPC;
        }
        struct dictionary_entry e = dictionary_look(dictionary, i);
        memcpy(e.key, key, key_bytes);
        memcpy(e.values[0], value, bytes);
        dictionary_set(dictionary, i, true, 0, key_bytes, bytes);
        dictionary_set_used(dictionary, dictionary_used(dictionary) + 1);
        return 0;
}

static int dictionary_copy(const void *from, uint32_t n, void *buffer, size_t room, size_t *ret_bytes) {
        *ret_bytes = n;
        if (n > room)
                return -EMSGSIZE;
        memcpy(buffer, from, n);
        return 0;
}

int drover_dictionary_get(drover_dictionary *dictionary, const void *key, size_t key_bytes, void *buffer, size_t room,
                          size_t *ret_bytes, uint64_t deadline_ns) {
        DICTIONARY_LOCKED(dictionary, deadline_ns);
        uint32_t i;
        if (key_bytes > dictionary->key_bytes || !dictionary_find(dictionary, key, key_bytes, &i))
                return -ENOENT;
        struct dictionary_entry e = dictionary_look(dictionary, i);
        return dictionary_copy(e.values[e.copy], e.value_bytes, buffer, room, ret_bytes);
}

int drover_dictionary_remove(drover_dictionary *dictionary, const void *key, size_t key_bytes, uint64_t deadline_ns) {
        DICTIONARY_LOCKED(dictionary, deadline_ns);
        uint32_t i, mask = dictionary->n_entries - 1;
        if (key_bytes > dictionary->key_bytes || !dictionary_find(dictionary, key, key_bytes, &i))
                return -ENOENT;
        dictionary_set(dictionary, i, false, 1, key_bytes, 0);
        uint32_t n_used = dictionary_used(dictionary);
        dictionary_set_used(dictionary, n_used > 0 ? n_used - 1 : 0); /* 0: a hostile peer's */
        /* No chain runs through a mark before an entry that was never used. */
        bool is_end = dictionary_look(dictionary, (i + 1) & mask).word == 0;
        for (uint32_t n = 0; is_end && n < dictionary->n_entries; n++, i = (i - 1) & mask) {
                struct dictionary_entry e = dictionary_look(dictionary, i);
                if (e.is_used || e.word == 0)
                        break;
                atomic_store_explicit(&dictionary->shared->entries[i], 0, memory_order_release);
                KILL_POINT("dictionary-swept");
        }
        return 0;
}

int drover_dictionary_next(drover_dictionary *dictionary, uint32_t *position, void *key, size_t room, size_t *ret_bytes,
                           uint64_t deadline_ns) {
        DICTIONARY_LOCKED(dictionary, deadline_ns);
        for (uint32_t i = *position; i < dictionary->n_entries; i++) {
                struct dictionary_entry e = dictionary_look(dictionary, i);
                if (!e.is_used)
                        continue;
                int r = dictionary_copy(e.key, e.key_bytes, key, room, ret_bytes);
                if (r < 0)
                        return r;
                *position = i + 1;
                return 1;
        }
        *position = dictionary->n_entries;
        return 0;
}

int drover_dictionary_count(drover_dictionary *dictionary, uint64_t deadline_ns) {
        DICTIONARY_LOCKED(dictionary, deadline_ns);
        return (int)dictionary_used(dictionary);
}
