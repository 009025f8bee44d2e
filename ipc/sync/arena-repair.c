/* What is done for a participant that died, and what people see of an arena.
 *
 * Repair goes over everything that can name a participant: wait lines, the directory's lock, every object by the repair
 * of its kind. Each step is one CAS that only a word of the dead one can satisfy, and broadcasts, which only make
 * others look again; so all of it may be done twice, or begun anew by a broker that was itself killed. The entry is
 * given out again after the last step and not before. One repairer at a time for one participant: a second that is late
 * would take from the entry's next holder.
 *
 * Listing reads words that move: each line is true by itself, at some moment of the call. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ipc/kill-point.h"
#include "ipc/sync/lock.h"

static void repair_objects(struct drover_arena *a, uint32_t participant) {
        for (uint32_t i = 0; i < a->n_objects; i++) {
                struct object o;
                int r = object_look(a, i, &o);
                if (r == -ENOENT)
                        return;
                if (r < 0) /* a peer's scribble: whoever uses the object has its handle, and what it deserves */
                        continue;
                if (object_kind(o.type)->repair(&o, participant))
                        atomic_fetch_add_explicit(&a->shared->objects[i].n_repaired, 1, memory_order_relaxed);
                KILL_POINT("repair-object");
        }
}

int drover_arena_repair(drover_arena *arena, uint32_t participant) {
        if (participant >= ARENA_PARTICIPANTS)
                return -EINVAL;
        _Atomic uint64_t *word = &arena->shared->participants[participant].word;
        uint64_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (participant_state(seen) == PARTICIPANT_FREE || participant_state(seen) == PARTICIPANT_KEPT)
                return -EINVAL;
        uint64_t tied = seen & PARTICIPANT_TIED;
        uint64_t dead = PARTICIPANT_WORD(PARTICIPANT_DEAD, participant_generation(seen), participant_pid(seen)) | tied;
        uint64_t left =
                tied ? PARTICIPANT_WORD(PARTICIPANT_KEPT, participant_generation(seen), participant_pid(seen)) | tied
                     : PARTICIPANT_WORD(PARTICIPANT_FREE, participant_generation(seen), 0);
        if (seen != dead &&
            !atomic_compare_exchange_strong_explicit(word, &seen, dead, memory_order_acq_rel, memory_order_relaxed))
                return -EBUSY;
        KILL_POINT("repair-begun");
        wait_repair(arena, participant);
        lock_repair(&arena->shared->directory, participant);
        repair_objects(arena, participant);
        KILL_POINT("repair-done");
        /* release: whoever gets the entry next finds nothing that names it */
        atomic_compare_exchange_strong_explicit(word, &dead, left, memory_order_acq_rel, memory_order_relaxed);
        return 0;
}

int drover_arena_repair_pid(drover_arena *arena, int32_t pid) {
        int n = 0;
        for (uint32_t i = 0; i < ARENA_PARTICIPANTS; i++) {
                uint64_t word = atomic_load_explicit(&arena->shared->participants[i].word, memory_order_acquire);
                if (participant_state(word) == PARTICIPANT_FREE || participant_pid(word) != (uint32_t)pid ||
                    (word & PARTICIPANT_TIED)) /* a broker's: it will */
                        continue;
                n += drover_arena_repair(arena, i) == 0;
        }
        return n;
}

/* ---- looking ---- */

int32_t wait_pid(const struct drover_arena *a, uint64_t owner) {
        uint32_t participant = owner_participant(owner);
        if (participant == 0 || participant > ARENA_PARTICIPANTS)
                return 0;
        uint64_t word = atomic_load_explicit(&a->shared->participants[participant - 1].word, memory_order_acquire);
        return (int32_t)participant_pid(word);
}

static void repair_copy_name(const struct drover_arena *a, uint32_t index, char name[static ARENA_NAME],
                             char type[static 24]) {
        if (index == a->n_objects) {
                snprintf(name, ARENA_NAME, "%s", "the directory");
                snprintf(type, 24, "%s", "mutex");
                return;
        }
        memcpy(name, a->shared->objects[index].name, ARENA_NAME);
        name[ARENA_NAME - 1] = '\0';
        const struct object_kind *kind = object_kind(atomic_load(&a->shared->objects[index].type));
        snprintf(type, 24, "%s", kind ? kind->name : "?");
}

struct layout_lock *wait_lock(struct drover_arena *a, uint32_t object) {
        struct object o;
        if (object == a->n_objects)
                return &a->shared->directory;
        if (object_look(a, object, &o) < 0 || !object_kind(o.type)->has_lock)
                return NULL;
        return o.at;
}

static uint64_t repair_lock_word(struct drover_arena *a, uint32_t object) {
        const struct layout_lock *l = wait_lock(a, object);
        return l ? atomic_load_explicit(&l->word, memory_order_acquire) : 0;
}

int drover_arena_list(drover_arena *arena, struct drover_object_info *infos, size_t n) {
        uint32_t count = 0;
        for (; count < arena->n_objects; count++) {
                struct object o;
                if (object_look(arena, count, &o) == -ENOENT)
                        break;
                if (count >= n)
                        continue;
                uint64_t word = repair_lock_word(arena, count);
                infos[count] = (struct drover_object_info){
                        .owner_pid = wait_pid(arena, word),
                        .owner_thread = owner_sub(word),
                        .n_repaired = atomic_load(&arena->shared->objects[count].n_repaired),
                        .is_inconsistent = word & LOCK_OWNERDEAD,
                };
                repair_copy_name(arena, count, infos[count].name, infos[count].type);
        }
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                uint64_t object = atomic_load(&arena->shared->waits[i].wait) & WAIT_OBJECT_MASK;
                if (object > 0 && object <= count && object <= n)
                        infos[object - 1].n_waiters++;
        }
        return (int)count;
}

void wait_describe(struct drover_arena *a, uint32_t line, uint32_t object, struct drover_wait_info *ret) {
        const struct layout_wait *l = &a->shared->waits[line];
        uint64_t owner = atomic_load(&l->owner), holder = repair_lock_word(a, object);
        *ret = (struct drover_wait_info){
                .pid = wait_pid(a, owner),
                .thread = owner_sub(owner),
                .since_ns = atomic_load(&l->since_ns),
                .owner_pid = wait_pid(a, holder),
                .owner_thread = owner_sub(holder),
        };
        repair_copy_name(a, object, ret->object, ret->type);
}

int drover_arena_list_waits(drover_arena *arena, struct drover_wait_info *infos, size_t n) {
        size_t count = 0;
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                uint64_t object = atomic_load(&arena->shared->waits[i].wait) & WAIT_OBJECT_MASK;
                if (object == 0 || object > arena->n_objects + 1)
                        continue;
                if (count < n)
                        wait_describe(arena, i, (uint32_t)object - 1, &infos[count]);
                count++;
        }
        return (int)count;
}
