/* Arenas: making, attaching, participants.
 *
 * Owns the participant table. An entry goes FREE → LIVE by one CAS of whoever attaches (with the next generation), LIVE
 * → DEAD by whoever knows the process for dead, DEAD → FREE when its repair is through (arena-repair.c): so an index is
 * not given out again while any word may still name its dead holder.
 *
 * A broker does not believe the pid that a participant writes (in another pid namespace it is another number): it keeps
 * an entry for each process that it hands the arena to, and later repairs that entry, whatever stands there. The entry
 * is told by the file offset of a descriptor that only this process gets: so that attaching needs the descriptor and
 * nothing else. A child that inherits it has another pid, and attaches as anybody.
 *
 * In the child of a fork the memory is not mapped. Giving back an object or an arena there gives back private memory
 * and the child's descriptor, and touches nothing else.
 *
 * Sizes are private: the mapping is as long as the sealed file is, and every offset from shared memory is checked
 * against that. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"
#include "ipc/memory/process.h"
#include "ipc/memory/segment.h"
#include "ipc/sync/arena/arena.h"

enum { ARENA_TEXT = 192 };

uint64_t drover_deadline_in(uint64_t ns) {
        uint64_t now = event_now_ns();
        return ns > DROVER_FOREVER - now ? DROVER_FOREVER : now + ns;
}

/* ---- words for what is used up ---- */

static __thread char arena_text[ARENA_TEXT];

void arena_say(const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(arena_text, sizeof arena_text, format, ap);
        va_end(ap);
}

const char *drover_arena_error(void) { return arena_text; }

static int arena_say_full(const struct drover_arena *a) {
        arena_say("the arena's processes: %u are attached, which is what it was made for", a->n_participants);
        return -EUSERS;
}

/* ---- mapping ---- */

static int arena_map(int fd, struct drover_arena **ret) {
        struct stat st;
        if (fstat(fd, &st) < 0)
                return -errno;
        uint64_t bytes = (uint64_t)st.st_size;
        if (st.st_size < (off_t)arena_first_object(1, 1) ||
            bytes > ARENA_MAX_BYTES + arena_first_object(ARENA_MAX_OBJECTS, ARENA_MAX_PARTICIPANTS))
                return -EPROTO;
        int r = segment_check(fd, bytes);
        if (r < 0)
                return r;

        struct drover_arena *a = calloc(1, sizeof *a);
        if (!a)
                return -ENOMEM;
        a->bytes = bytes;
        a->process = process_number();
        int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        void *shared;
        r = own < 0 ? -errno : a->process == 0 ? -ENOMEM : segment_map(own, 0, bytes, true, &shared);
        if (r < 0) {
                if (own >= 0)
                        close(own);
                free(a);
                return r;
        }
        own_fd_init(&a->memory, own);
        a->shared = shared;
        atomic_store_explicit(&a->n_refs, 1, memory_order_relaxed);
        pthread_mutex_init(&a->mutex, NULL);
        *ret = a;
        return 0;
}

bool arena_is_mapped(const struct drover_arena *a) { return a->shared && a->process == process_number(); }

void arena_unref(struct drover_arena *a) {
        if (atomic_fetch_sub_explicit(&a->n_refs, 1, memory_order_acq_rel) > 1)
                return;
        pthread_mutex_destroy(&a->mutex);
        free(a->n_handles);
        free(a);
}

void arena_ref(struct drover_arena *a) { atomic_fetch_add_explicit(&a->n_refs, 1, memory_order_relaxed); }

/* A callback that is left by longjmp() never comes here, which costs what is left of the arena. */
int arena_leave(struct drover_arena *a) {
        int r = a->shared ? 0 : -EBUSY;
        arena_unref(a);
        return r;
}

static struct drover_arena *arena_unmap(struct drover_arena *a) {
        if (arena_is_mapped(a))
                segment_unmap(a->shared, a->bytes);
        a->shared = NULL;
        own_fd_close(&a->memory);
        arena_unref(a);
        return NULL;
}

/* Where everything is, if what the header says can be. */
static bool arena_read_header(struct drover_arena *a) {
        const struct layout_header h = a->shared->header;
        a->n_objects = *(const volatile uint32_t *)&a->shared->n_objects;
        a->n_participants = *(const volatile uint32_t *)&a->shared->n_participants;
        if (h.magic != LAYOUT_MAGIC_ARENA || h.version != LAYOUT_ARENA_VERSION || a->n_objects == 0 ||
            a->n_objects > ARENA_MAX_OBJECTS || a->n_participants == 0 || a->n_participants > ARENA_MAX_PARTICIPANTS)
                return false;
        a->first = arena_first_object(a->n_objects, a->n_participants);
        a->n_user_words = arena_user_words(a->n_participants);
        a->participant = a->n_participants;
        a->objects = (struct layout_object *)&a->shared->participants[a->n_participants];
        a->users = (_Atomic uint64_t *)&a->objects[a->n_objects];
        a->hashes = (_Atomic uint32_t *)&a->users[(uint64_t)a->n_objects * a->n_user_words];
        return a->first <= a->bytes;
}

/* FREE or KEPT → LIVE in one entry. */
static bool arena_join_as(struct drover_arena *a, uint32_t participant, unsigned from) {
        _Atomic uint64_t *word = &a->shared->participants[participant].word;
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        uint16_t generation = (uint16_t)(participant_generation(seen) + 1);
        uint32_t pid = from == PARTICIPANT_KEPT ? participant_pid(seen) : (uint32_t)getpid();
        uint64_t live = PARTICIPANT_WORD(PARTICIPANT_LIVE, generation, pid) | (seen & PARTICIPANT_TIED);
        /* acquire: what the repair of the last holder left behind */
        if (participant_state(seen) != from ||
            !atomic_compare_exchange_strong_explicit(word, &seen, live, memory_order_acq_rel, memory_order_relaxed))
                return false;
        KILL_POINT("arena-joined");
        a->participant = participant;
        a->identity = (uint64_t)(participant + 1) << OWNER_PARTICIPANT_SHIFT | (uint64_t)generation
                                                                                       << OWNER_GENERATION_SHIFT;
        return true;
}

/* The entry that a broker keeps for us, if there is one. */
static bool arena_join_kept(struct drover_arena *a) {
        off_t at = lseek(a->memory.fd, 0, SEEK_CUR);
        if (at <= 0 || at > a->n_participants)
                return false;
        const struct layout_participant *p = &a->shared->participants[at - 1];
        return atomic_load_explicit(&p->own_pid, memory_order_acquire) == (uint64_t)getpid() &&
               arena_join_as(a, (uint32_t)at - 1, PARTICIPANT_KEPT);
}

static int arena_join(struct drover_arena *a) {
        if (arena_join_kept(a))
                return 0;
        for (uint32_t i = 0; i < a->n_participants; i++)
                if (arena_join_as(a, i, PARTICIPANT_FREE))
                        return 0;
        return arena_say_full(a);
}

int arena_watch(int fd, struct drover_arena **ret) {
        struct drover_arena *a;
        int r = arena_map(fd, &a);
        if (r < 0)
                return r;
        if (!arena_read_header(a)) {
                arena_unmap(a);
                return -EPROTO;
        }
        *ret = a;
        return 0;
}

int drover_arena_attach(int fd, drover_arena **ret_arena) {
        struct drover_arena *a;
        int r = arena_watch(fd, &a);
        if (r < 0)
                return r;
        a->n_handles = calloc(a->n_objects, sizeof *a->n_handles);
        r = a->n_handles ? arena_join(a) : -ENOMEM;
        if (r < 0) {
                arena_unmap(a);
                return r;
        }
        *ret_arena = a;
        return 0;
}

int arena_make(const char *name, uint64_t bytes, uint32_t n_objects, uint32_t n_participants, int *ret_fd) {
        if (bytes == 0 || bytes > ARENA_MAX_BYTES || n_objects == 0 || n_objects > ARENA_MAX_OBJECTS ||
            n_participants == 0 || n_participants > ARENA_MAX_PARTICIPANTS)
                return -EINVAL;
        uint64_t first = arena_first_object(n_objects, n_participants);
        bytes = (bytes + LAYOUT_PAGE - 1) / LAYOUT_PAGE * LAYOUT_PAGE + first;
        int fd;
        int r = segment_create(name, bytes, &fd);
        if (r < 0)
                return r;
        struct drover_arena *a;
        r = arena_map(fd, &a);
        if (r < 0) {
                close(fd);
                return r;
        }
        a->shared->bytes = bytes;
        a->shared->n_objects = n_objects;
        a->shared->n_participants = n_participants;
        atomic_store_explicit(&a->shared->end, first, memory_order_relaxed);
        atomic_store_explicit(&a->shared->limit, bytes, memory_order_relaxed);
        a->shared->header = (struct layout_header){.magic = LAYOUT_MAGIC_ARENA, .version = LAYOUT_ARENA_VERSION};
        arena_unmap(a);
        *ret_fd = fd;
        return 0;
}

int drover_arena_create(const char *name, uint64_t bytes, drover_arena **ret_arena) {
        return drover_arena_create_sized(name, bytes, ARENA_DEFAULT_OBJECTS, ARENA_DEFAULT_PARTICIPANTS, ret_arena);
}

int drover_arena_create_sized(const char *name, uint64_t bytes, uint32_t max_objects, uint32_t max_processes,
                              drover_arena **ret_arena) {
        int fd;
        int r = arena_make(name, bytes, max_objects, max_processes, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, ret_arena);
        close(fd);
        return r;
}

drover_arena *drover_arena_free(drover_arena *arena) {
        if (!arena)
                return NULL;
        if (arena->identity != 0 && arena_is_mapped(arena))
                drover_arena_repair(arena, arena->participant);
        return arena_unmap(arena);
}

int drover_arena_fd(const drover_arena *arena) { return arena->memory.fd; }

uint32_t drover_arena_participant(const drover_arena *arena) { return arena->participant; }

/* ---- a broker's ---- */

int arena_keep(struct drover_arena *a, uint32_t pid, uint32_t own_pid, uint32_t *ret_participant) {
        for (uint32_t i = 0; i < a->n_participants; i++) {
                struct layout_participant *p = &a->shared->participants[i];
                uint64_t seen = atomic_load_explicit(&p->word, memory_order_relaxed);
                uint64_t kept =
                        PARTICIPANT_WORD(PARTICIPANT_KEPT, participant_generation(seen), pid) | PARTICIPANT_TIED;
                if (participant_state(seen) != PARTICIPANT_FREE ||
                    !atomic_compare_exchange_strong_explicit(&p->word, &seen, kept, memory_order_acq_rel,
                                                             memory_order_relaxed))
                        continue;
                /* Nobody has a descriptor yet that says which entry this is. */
                atomic_store_explicit(&p->own_pid, own_pid, memory_order_release);
                *ret_participant = i;
                return 0;
        }
        return arena_say_full(a);
}

bool arena_is_kept(const struct drover_arena *a, uint32_t participant) {
        uint64_t word = atomic_load_explicit(&a->shared->participants[participant].word, memory_order_relaxed);
        return participant_state(word) == PARTICIPANT_KEPT;
}

uint32_t arena_count_places(const struct drover_arena *a) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < a->n_participants; i++)
                n += participant_state(atomic_load_explicit(&a->shared->participants[i].word, memory_order_relaxed)) !=
                     PARTICIPANT_FREE;
        return n;
}

int arena_open_for(const struct drover_arena *a, uint32_t participant, int *ret_fd) {
        int fd, r = segment_open(a->memory.fd, true, &fd);
        if (r < 0)
                return r;
        if (lseek(fd, (off_t)participant + 1, SEEK_SET) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

void arena_let_go(struct drover_arena *a, uint32_t participant) {
        _Atomic uint64_t *word = &a->shared->participants[participant].word;
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        if (participant_state(seen) == PARTICIPANT_KEPT)
                atomic_compare_exchange_strong_explicit(
                        word, &seen, PARTICIPANT_WORD(PARTICIPANT_FREE, participant_generation(seen), 0),
                        memory_order_acq_rel, memory_order_relaxed);
}
