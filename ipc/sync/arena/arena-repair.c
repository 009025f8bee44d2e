/* What is done for a participant that died, and what people see of an arena.
 *
 * Repair goes over everything that can name a participant: wait lines, the directory's lock, every object by the repair
 * of its kind. Each step is one CAS that only a word of the dead one can satisfy, and broadcasts, which only make
 * others look again; so all of it may be done twice, or begun anew by a broker that was itself killed. The entry is
 * given out again after the last step and not before. One repairer at a time for one participant: a second that is late
 * would take from the entry's next holder.
 *
 * All that died together are repaired in one walk, and what it goes through is counted: its work is bounded by the
 * arena's size, however many entries name the same memory. It can be done in steps, by who must not be held up.
 *
 * Listing reads words that move: each line is true by itself, at some moment of the call. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/sync/arena/repair.h"
#include "ipc/sync/lock.h"

/* How often all that an arena has room for may be gone through in one walk. Objects lie beside each other, so more than
 * once is memory that changed hands meanwhile, and much more is a hostile peer, whose entries all name the same. */
enum { REPAIR_TIMES_MEMORY = 4, REPAIR_LOOK_AT_CLOCK = 256 };

enum repair_phase { REPAIR_PARTICIPANTS, REPAIR_REMOVALS, REPAIR_OBJECTS, REPAIR_DONE };

void repair_begin(struct repair *r, struct drover_arena *a) {
        *r = (struct repair){.arena = a, .bytes_left = REPAIR_TIMES_MEMORY * (a->bytes - a->first)};
}

int repair_add(struct repair *r, uint32_t participant) {
        if (participant >= r->arena->n_participants)
                return -EINVAL;
        _Atomic uint64_t *word = &r->arena->shared->participants[participant].word;
        uint64_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (participant_state(seen) == PARTICIPANT_FREE || participant_state(seen) == PARTICIPANT_KEPT)
                return -EINVAL;
        uint64_t dead = (seen & ~UINT64_C(0xff)) | PARTICIPANT_DEAD;
        if (seen != dead &&
            !atomic_compare_exchange_strong_explicit(word, &seen, dead, memory_order_acq_rel, memory_order_relaxed))
                return -EBUSY;
        KILL_POINT("repair-begun");
        r->first = r->n == 0 ? participant : r->first;
        r->n++;
        dead_add(&r->dead, participant);
        return 0;
}

/* Of an object that was removed nothing is given back: nobody can use it, and nobody waits there. What is too much to
 * go through is removed: that is little work, and nobody waits there for ever. */
static void repair_object(struct repair *r, uint32_t index) {
        struct drover_arena *a = r->arena;
        struct object o;
        if (object_look(a, index, &o) < 0 ||
            o.is_removed) /* else a peer's scribble: whoever uses the object has its handle */
                return;
        if (o.bytes > r->bytes_left) {
                r->bytes_left = 0;
                r->n_ended++;
                atomic_fetch_or_explicit(&a->objects[index].word, OBJECT_REMOVED, memory_order_seq_cst);
                object_kind(o.type)->remove(&o);
                return;
        }
        r->bytes_left -= o.bytes;
        if (object_kind(o.type)->repair(&o, &r->dead))
                atomic_fetch_add_explicit(&a->objects[index].n_repaired, 1, memory_order_relaxed);
}

/* true: something was there that takes time. */
static bool repair_entry(struct repair *r, uint32_t index) {
        struct drover_arena *a = r->arena;
        bool is_any =
                object_word_type(atomic_load_explicit(&a->objects[index].word, memory_order_acquire)) != OBJECT_NONE;
        if (is_any) {
                /* As if the dead used it, so that it stays what it is until this is done. */
                users_enter_for(a, index, r->first);
                repair_object(r, index);
                KILL_POINT("repair-object");
        }
        users_leave_dead(a, index, &r->dead);
        return is_any;
}

/* The last step for each of the dead: nothing names it. */
static void repair_end(struct repair *r) {
        KILL_POINT("repair-done");
        for (uint32_t i = 0; i < r->arena->n_participants; i++) {
                if (!dead_has(&r->dead, i))
                        continue;
                _Atomic uint64_t *word = &r->arena->shared->participants[i].word;
                uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
                uint64_t left = seen & PARTICIPANT_TIED
                                        ? (seen & ~UINT64_C(0xff)) | PARTICIPANT_KEPT
                                        : PARTICIPANT_WORD(PARTICIPANT_FREE, participant_generation(seen), 0);
                if (participant_state(seen) == PARTICIPANT_DEAD)
                        /* release: whoever gets the entry next finds nothing that names it */
                        atomic_compare_exchange_strong_explicit(word, &seen, left, memory_order_acq_rel,
                                                                memory_order_relaxed);
        }
}

static void repair_next_phase(struct repair *r) {
        struct layout_lock *directory = &r->arena->shared->directory;
        uint64_t word = atomic_load_explicit(&directory->word, memory_order_acquire);
        r->next = 0;
        switch (r->phase++) {
        case REPAIR_PARTICIPANTS:
                wait_repair(r->arena, &r->dead);
                /* Who died with the directory may have taken a name away and told nobody. As long as the lock names the
                 * dead one no memory changes hands. */
                if (!dead_has_number(&r->dead, owner_participant(word)))
                        r->next = r->arena->n_objects;
                break;
        case REPAIR_REMOVALS:
                KILL_POINT("repair-removals");
                lock_repair(directory, &r->dead);
                break;
        case REPAIR_OBJECTS:
                repair_end(r);
                break;
        default:
                break;
        }
}

/* One entry of the directory. false: it was the last, or behind it. */
static bool repair_next(struct repair *r, bool *ret_is_work) {
        struct drover_arena *a = r->arena;
        uint32_t i = r->next++;
        *ret_is_work = false;
        if (r->phase == REPAIR_PARTICIPANTS || i >= a->n_objects ||
            atomic_load_explicit(&a->hashes[i], memory_order_acquire) == HASH_NEVER)
                return false;
        if (r->phase == REPAIR_REMOVALS)
                *ret_is_work = object_finish_removal(a, i);
        else
                *ret_is_work = repair_entry(r, i);
        return true;
}

bool repair_step(struct repair *r, uint64_t until_ns) {
        if (r->n == 0)
                return true;
        for (uint32_t i = 1; r->phase != REPAIR_DONE; i++) {
                bool is_work;
                if (!repair_next(r, &is_work))
                        repair_next_phase(r);
                if ((is_work || i % REPAIR_LOOK_AT_CLOCK == 0) && until_ns != UINT64_MAX && event_now_ns() >= until_ns)
                        break;
        }
        return r->phase == REPAIR_DONE;
}

int drover_arena_repair(drover_arena *arena, uint32_t participant) {
        struct repair repair;
        repair_begin(&repair, arena);
        int r = repair_add(&repair, participant);
        if (r == 0)
                repair_step(&repair, UINT64_MAX);
        return r;
}

void repair_add_pid(struct repair *r, int32_t pid) {
        for (uint32_t i = 0; i < r->arena->n_participants; i++) {
                uint64_t word = atomic_load_explicit(&r->arena->shared->participants[i].word, memory_order_acquire);
                if (participant_state(word) == PARTICIPANT_FREE || participant_pid(word) != (uint32_t)pid ||
                    (word & PARTICIPANT_TIED)) /* a broker's: it will */
                        continue;
                repair_add(r, i);
        }
}

int drover_arena_repair_pid(drover_arena *arena, int32_t pid) {
        struct repair repair;
        repair_begin(&repair, arena);
        repair_add_pid(&repair, pid);
        repair_step(&repair, UINT64_MAX);
        return (int)repair.n;
}

/* ---- looking ---- */

int32_t wait_pid(const struct drover_arena *a, uint64_t owner) {
        uint32_t participant = owner_participant(owner);
        if (participant == 0 || participant > a->n_participants)
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
        object_get_name(a, index, name);
        uint64_t word = atomic_load_explicit(&a->objects[index].word, memory_order_acquire);
        const struct object_kind *kind = object_kind(object_word_type(word));
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

/* The objects that are waited for, in order: at most one a wait line. Returns how many. */
static uint32_t repair_list_waited(const struct drover_arena *a, uint32_t objects[static ARENA_WAITS]) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                uint64_t object = atomic_load(&a->shared->waits[i].wait) & WAIT_OBJECT_MASK;
                if (object == 0 || object > a->n_objects)
                        continue;
                uint32_t at = n++;
                for (; at > 0 && objects[at - 1] > object - 1; at--)
                        objects[at] = objects[at - 1];
                objects[at] = (uint32_t)object - 1;
        }
        return n;
}

static void repair_list_object(struct drover_arena *a, uint32_t index, struct drover_object_info *ret) {
        uint64_t word = repair_lock_word(a, index);
        *ret = (struct drover_object_info){
                .owner_pid = wait_pid(a, word),
                .owner_thread = owner_sub(word),
                .n_repaired = atomic_load(&a->objects[index].n_repaired),
                .is_inconsistent = word & LOCK_OWNERDEAD,
        };
        repair_copy_name(a, index, ret->name, ret->type);
}

/* Has entry `index` a name? *ret_is_end: neither it nor one behind it was ever filled. */
static bool repair_is_listed(struct drover_arena *a, uint32_t index, bool *ret_is_end) {
        struct object o;
        *ret_is_end =
                index >= a->n_objects || atomic_load_explicit(&a->hashes[index], memory_order_acquire) == HASH_NEVER;
        int r = *ret_is_end ? -ENOENT : object_look(a, index, &o);
        return r == -EPROTO || (r == 0 && !o.is_removed);
}

uint32_t arena_list_from(struct drover_arena *a, uint32_t *position, struct drover_object_info *infos, size_t n) {
        uint32_t waited[ARENA_WAITS], n_waited = n > 0 ? repair_list_waited(a, waited) : 0, at = 0, count = 0;
        bool is_end = false;
        while (count < n && !is_end) {
                uint32_t index = *position;
                bool is_listed = repair_is_listed(a, index, &is_end);
                *position = is_end ? a->n_objects : index + 1;
                if (!is_listed)
                        continue;
                repair_list_object(a, index, &infos[count]);
                while (at < n_waited && waited[at] < index)
                        at++;
                for (; at < n_waited && waited[at] == index; at++)
                        infos[count].n_waiters++;
                count++;
        }
        return count;
}

int drover_arena_list(drover_arena *arena, struct drover_object_info *infos, size_t n) {
        uint32_t position = 0, count = arena_list_from(arena, &position, infos, n);
        for (bool is_end = false; !is_end; position++)
                count += repair_is_listed(arena, position, &is_end);
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

bool arena_find_wait(struct drover_arena *a, int32_t pid, uint32_t thread, struct drover_wait_info *ret) {
        uint32_t line = ARENA_WAITS, object = 0;
        uint64_t since_ns = UINT64_MAX;
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                const struct layout_wait *l = &a->shared->waits[i];
                uint64_t owner = atomic_load(&l->owner), wait = atomic_load(&l->wait) & WAIT_OBJECT_MASK;
                uint64_t since = atomic_load(&l->since_ns);
                if (wait_pid(a, owner) != pid || (thread && owner_sub(owner) != thread) || wait == 0 ||
                    wait > a->n_objects + 1 || since >= since_ns)
                        continue;
                line = i;
                object = (uint32_t)wait - 1;
                since_ns = since;
        }
        if (line < ARENA_WAITS)
                wait_describe(a, line, object, ret);
        return line < ARENA_WAITS;
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
