/* The room of an arena: entries and memory.
 *
 * Memory belongs to the entries that name it; what none names is free. One free piece is given out from its front,
 * until something does not fit: then the entries are gone through, and the largest piece that lies between their
 * objects is the next. So nothing needs to be kept of free memory, and a death leaves nothing to repair.
 *
 * What was removed takes its room until nobody uses it; that is looked for when there is no room otherwise. */
#include "ipc/sync/arena/object-room.h"

#include <errno.h>
#include <stdlib.h>

#include "ipc/memory/kill-point.h"

struct room_piece {
        uint64_t offset, end;
};

static uint64_t room_align(uint64_t bytes) { return (bytes + LAYOUT_LINE - 1) & ~(uint64_t)(LAYOUT_LINE - 1); }

static uint32_t room_read(const _Atomic uint32_t *word, uint32_t limit) {
        uint32_t n = atomic_load_explicit(word, memory_order_relaxed);
        return n < limit ? n : limit;
}

static uint32_t room_n_made(const struct drover_arena *a) { return room_read(&a->shared->n_made, a->n_objects); }
static uint32_t room_n_gone(const struct drover_arena *a) { return room_read(&a->shared->n_gone, room_n_made(a)); }

uint32_t arena_count_objects(const struct drover_arena *a) {
        uint32_t n_made = room_n_made(a);
        return n_made - room_read(&a->shared->n_gone, n_made);
}

static void room_set_gone(struct drover_arena *a, uint32_t n) {
        atomic_store_explicit(&a->shared->n_gone, n, memory_order_relaxed);
}

void object_count_removed(struct drover_arena *a) { room_set_gone(a, room_n_gone(a) + 1); }

void object_take_back(struct drover_arena *a, uint32_t index) {
        _Atomic uint64_t *word = &a->objects[index].word;
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        if (!(seen & OBJECT_REMOVED) || users_has_any(a, index)) /* U2 */
                return;
        atomic_store_explicit(word, OBJECT_WORD(OBJECT_NONE, object_word_generation(seen)), memory_order_seq_cst);
        KILL_POINT("object-taken-back");
        atomic_store_explicit(&a->hashes[index], HASH_VACANT, memory_order_release);
}

static void room_take_back_all(struct drover_arena *a) {
        uint32_t n_made = room_n_made(a);
        for (uint32_t i = 0; i < n_made; i++)
                object_take_back(a, i);
}

/* What is free is looked for when memory is wanted next. */
static void room_look_anew(struct drover_arena *a) {
        atomic_store_explicit(&a->shared->end, a->first, memory_order_relaxed);
        atomic_store_explicit(&a->shared->limit, a->first, memory_order_relaxed);
}

void object_count(struct drover_arena *a) {
        uint32_t n_made = 0, n_gone = 0;
        for (; n_made < a->n_objects; n_made++) {
                if (atomic_load_explicit(&a->hashes[n_made], memory_order_relaxed) == HASH_NEVER)
                        break;
                uint64_t word = atomic_load_explicit(&a->objects[n_made].word, memory_order_relaxed);
                if (object_word_type(word) == OBJECT_NONE)
                        atomic_store_explicit(&a->hashes[n_made], HASH_VACANT, memory_order_release);
                n_gone += object_word_type(word) == OBJECT_NONE || (word & OBJECT_REMOVED);
        }
        atomic_store_explicit(&a->shared->n_made, n_made, memory_order_relaxed);
        room_set_gone(a, n_gone);
        room_look_anew(a);
}

/* ---- memory ---- */

static int room_compare(const void *a, const void *b) {
        const struct room_piece *x = a, *y = b;
        return (x->offset > y->offset) - (x->offset < y->offset);
}

/* What the entries name, in order. */
static int room_list_taken(struct drover_arena *a, struct room_piece *taken, uint32_t n_made) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < n_made; i++) {
                struct object o;
                int r = object_look(a, i, &o);
                if (r == -ENOENT)
                        continue;
                if (r < 0)
                        return r;
                uint64_t offset = (uint64_t)((uint8_t *)o.at - (uint8_t *)a->shared);
                taken[n++] = (struct room_piece){offset, room_align(offset + o.bytes)};
        }
        qsort(taken, n, sizeof *taken, room_compare);
        return (int)n;
}

static int room_find_largest(struct drover_arena *a, struct room_piece *ret) {
        uint32_t n_made = room_n_made(a);
        struct room_piece *taken = calloc(n_made + 1, sizeof *taken);
        if (!taken)
                return -ENOMEM;
        int n = room_list_taken(a, taken, n_made);
        struct room_piece largest = {a->first, a->first};
        uint64_t from = a->first;
        for (int i = 0; i <= n; i++) {
                uint64_t to = i < n ? taken[i].offset : a->bytes;
                if (to > from && to - from > largest.end - largest.offset)
                        largest = (struct room_piece){from, to};
                if (i < n && taken[i].end > from)
                        from = taken[i].end;
        }
        free(taken);
        *ret = largest;
        return n < 0 ? n : 0;
}

static int room_say_full_memory(const struct drover_arena *a, uint64_t bytes, uint64_t largest) {
        arena_say("the arena's memory: the object takes %llu bytes, of %llu the largest piece that is free has %llu",
                  (unsigned long long)bytes, (unsigned long long)(a->bytes - a->first), (unsigned long long)largest);
        return -ENOSPC;
}

static int room_find_memory(struct drover_arena *a, uint64_t bytes, uint64_t *ret_offset) {
        struct room_piece piece = {
                atomic_load_explicit(&a->shared->end, memory_order_relaxed),
                atomic_load_explicit(&a->shared->limit, memory_order_relaxed),
        };
        if (piece.offset < a->first || piece.offset % LAYOUT_LINE != 0 || piece.offset > piece.end ||
            piece.end > a->bytes)
                return -EPROTO;
        if (bytes > piece.end - piece.offset) {
                room_take_back_all(a);
                int r = room_find_largest(a, &piece);
                if (r < 0)
                        return r;
                atomic_store_explicit(&a->shared->end, piece.offset, memory_order_relaxed);
                KILL_POINT("room-found");
                atomic_store_explicit(&a->shared->limit, piece.end, memory_order_relaxed);
        }
        if (bytes > piece.end - piece.offset)
                return room_say_full_memory(a, bytes, piece.end - piece.offset);
        *ret_offset = piece.offset;
        return 0;
}

/* ---- entries ---- */

static bool room_find_vacant(const struct drover_arena *a, uint32_t *ret) {
        uint32_t n_made = room_n_made(a);
        for (uint32_t i = 0; i < n_made; i++)
                if (atomic_load_explicit(&a->hashes[i], memory_order_relaxed) == HASH_VACANT &&
                    object_word_type(atomic_load_explicit(&a->objects[i].word, memory_order_relaxed)) == OBJECT_NONE) {
                        *ret = i;
                        return true;
                }
        return false;
}

static int room_find_entry(struct drover_arena *a, uint32_t *ret) {
        uint32_t n_made = room_n_made(a);
        if (room_n_gone(a) > 0 && room_find_vacant(a, ret))
                return 0;
        *ret = n_made;
        if (n_made < a->n_objects)
                return 0;
        room_take_back_all(a);
        if (room_find_vacant(a, ret))
                return 0;
        arena_say("the arena's objects: there are %u, which is what it was made for, %u of them removed but still open",
                  n_made, room_n_gone(a));
        return -ENOSPC;
}

int object_find_room(struct drover_arena *a, uint64_t bytes, struct object_room *ret) {
        if (arena_count_objects(a) == 0 && room_n_gone(a) > 0) /* as at first: not in the middle of what is free */
                room_look_anew(a);
        int r = room_find_entry(a, &ret->index);
        return r < 0 ? r : room_find_memory(a, bytes, &ret->offset);
}

void object_take_room(struct drover_arena *a, const struct object_room *room, uint64_t bytes) {
        uint32_t n_made = room_n_made(a), n_gone = room_n_gone(a);
        atomic_store_explicit(&a->shared->end, room_align(room->offset + bytes), memory_order_relaxed);
        if (room->index == n_made)
                atomic_store_explicit(&a->shared->n_made, n_made + 1, memory_order_relaxed);
        else
                room_set_gone(a, n_gone > 0 ? n_gone - 1 : 0);
}
