/* Arenas by name.
 *
 * Owns the list of them. An arena is found by (uid, name) until it is removed; then it stays, nameless, on its uid's
 * account until no process that opened it lives (arena-users.c), because until then somebody may have it mapped. A transient one is
 * removed at that moment.
 *
 * The broker never becomes a participant: it maps, looks and repairs, and every call it makes there is bounded by the
 * sizes in ipc/sync/layout.h, whatever stands in the memory. Who waits for whom is followed from arena to arena by way
 * of the places that are kept for a process, which the broker knows by itself.
 *
 * What it does not do: know workers and callers (waiting.c puts names to pids), or outlive the broker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/supervise/arenas-internal.h"

int arenas_new(struct arenas **ret, struct loop *loop) {
        struct arenas *as = calloc(1, sizeof(*as));
        if (!as)
                return -ENOMEM;
        as->loop = loop;
        TAILQ_INIT(&as->all);
        TAILQ_INIT(&as->users);
        *ret = as;
        return 0;
}

/* ---- arenas ---- */

static uint64_t arena_cost(uint64_t bytes, uint32_t n_objects) { return bytes + arena_first_object(n_objects, ARENA_DEFAULT_PARTICIPANTS); }

static void arena_free(struct arena *a) {
        TAILQ_REMOVE(&a->arenas->all, a, link);
        a->arenas->n_all--;
        drover_arena_free(a->watch);
        free(a);
}

void arena_collect(struct arena *a) {
        if ((a->is_removed || a->is_transient) && a->n_users == 0)
                arena_free(a);
}

struct arena *arenas_find(struct arenas *as, uid_t uid, const char *name) {
        struct arena *a;
        TAILQ_FOREACH(a, &as->all, link)
        if (a->uid == uid && !a->is_removed && strcmp(a->name, name) == 0)
                return a;
        return NULL;
}

void arenas_remove(struct arena *a) {
        a->is_removed = true;
        arena_collect(a);
}

const char *arena_name(const struct arena *a) { return a->name; }

static int arenas_check_share(struct arenas *as, uid_t uid, uint64_t cost, struct fault *f) {
        uint64_t used = 0;
        size_t n = 0;
        struct arena *a;
        TAILQ_FOREACH(a, &as->all, link)
        if (a->uid == uid) {
                used += arena_cost(a->bytes, a->n_objects);
                n++;
        }
        if (as->n_all >= ARENAS_MAX) {
                fault_set(f, FAULT_LIMITS_EXCEEDED, "there are %d arenas already", ARENAS_MAX);
                return -ENFILE;
        }
        if (n >= ARENAS_PER_UID) {
                fault_set(f, FAULT_LIMITS_EXCEEDED, "uid %u has %d arenas already", (unsigned)uid, ARENAS_PER_UID);
                return -EDQUOT;
        }
        if (cost > ARENAS_BYTES_PER_UID - used) {
                fault_set(f, FAULT_LIMITS_EXCEEDED, "the arenas of uid %u have %llu of %llu bytes already",
                          (unsigned)uid, (unsigned long long)used, (unsigned long long)ARENAS_BYTES_PER_UID);
                return -EDQUOT;
        }
        return 0;
}

static int arena_make_memory(const char *name, uint64_t bytes, uint32_t n_objects, struct drover_arena **ret) {
        char label[sizeof("drover-arena-") + POOL_NAME_MAX];
        int fd;
        snprintf(label, sizeof(label), "drover-arena-%s", name);
        int r = arena_make(label, bytes, n_objects, ARENA_DEFAULT_PARTICIPANTS, &fd);
        if (r < 0)
                return r;
        r = arena_watch(fd, ret);
        close(fd);
        return r;
}

static int arena_new(struct arenas *as, const struct arena_request *q, struct arena **ret, struct fault *f) {
        uint64_t bytes = q->bytes ? q->bytes : ARENAS_DEFAULT_BYTES;
        uint32_t n_objects = q->n_objects ? q->n_objects : ARENA_DEFAULT_OBJECTS;
        uint64_t max_bytes = ARENAS_BYTES_PER_UID - arena_first_object(n_objects, ARENA_DEFAULT_PARTICIPANTS);
        if (bytes > max_bytes) {
                fault_set(f, FAULT_INVALID_ARGS, "bytes=%llu: an arena has at most %llu", (unsigned long long)bytes,
                          (unsigned long long)max_bytes);
                return -EINVAL;
        }
        bytes = (bytes + LAYOUT_PAGE - 1) / LAYOUT_PAGE * LAYOUT_PAGE;
        int r = arenas_check_share(as, q->uid, arena_cost(bytes, n_objects), f);
        if (r < 0)
                return r;
        struct arena *a = calloc(1, sizeof(*a));
        r = a ? arena_make_memory(q->name, bytes, n_objects, &a->watch) : -ENOMEM;
        if (r < 0) {
                free(a);
                fault_set(f, FAULT_INTERNAL, "no memory for arena %s: %s", q->name, strerror(-r));
                return r;
        }
        a->arenas = as;
        a->uid = q->uid;
        a->bytes = bytes;
        a->n_objects = n_objects;
        a->is_transient = q->is_transient;
        snprintf(a->name, sizeof(a->name), "%s", q->name);
        TAILQ_INSERT_TAIL(&as->all, a, link);
        as->n_all++;
        *ret = a;
        return 0;
}

struct arena *arenas_opened_by(struct arenas *as, pid_t pid, size_t i) {
        struct arena_user *u = arena_user_find(as, pid);
        return u && i < u->n_opened ? u->opened[i] : NULL;
}

int arenas_open(struct arenas *as, const struct arena_request *q, struct arena_offer *ret, struct fault *f) {
        if (!pool_name_is_valid(q->name)) {
                fault_set(f, FAULT_INVALID_ARGS, "\"%.80s\" is not an arena name: 1 to %d of A-Z a-z 0-9 _ . -",
                          q->name, POOL_NAME_MAX);
                return -EINVAL;
        }
        struct arena *a = arenas_find(as, q->uid, q->name);
        bool is_created = !a;
        int r = a ? 0 : arena_new(as, q, &a, f);
        if (r < 0)
                return r;
        if (q->bytes > a->bytes) {
                fault_set(f, FAULT_INVALID_ARGS, "bytes=%llu: there is an arena %s already, with %llu",
                          (unsigned long long)q->bytes, a->name, (unsigned long long)a->bytes);
                return -EINVAL;
        }
        if (q->n_objects > a->n_objects) {
                fault_set(f, FAULT_INVALID_ARGS, "objects=%u: there is an arena %s already, with room for %u", q->n_objects,
                          a->name, a->n_objects);
                return -EINVAL;
        }
        uint32_t participant;
        int fd;
        r = arena_user_open(a, q, &participant, f);
        if (r == 0 && (r = arena_open_for(a->watch, participant, &fd)) < 0)
                fault_set(f, FAULT_INTERNAL, "arena %s: %s", a->name, strerror(-r));
        if (r < 0) {
                if (is_created) {
                        a->is_removed = true;
                        arena_collect(a);
                }
                return r;
        }
        *ret = (struct arena_offer){fd, a->bytes, is_created};
        return 0;
}

struct arenas *arenas_free(struct arenas *as) {
        if (!as)
                return NULL;
        while (!TAILQ_EMPTY(&as->users))
                arena_user_free(TAILQ_FIRST(&as->users));
        while (!TAILQ_EMPTY(&as->all))
                arena_free(TAILQ_FIRST(&as->all));
        free(as->objects);
        free(as);
        return NULL;
}

/* ---- looking ---- */

struct arena *arenas_next(struct arenas *as, const struct arena *after) {
        struct arena *a = after ? TAILQ_NEXT(after, link) : TAILQ_FIRST(&as->all);
        while (a && a->is_removed)
                a = TAILQ_NEXT(a, link);
        return a;
}

void arena_get_info(struct arena *a, struct arena_info *ret) {
        *ret = (struct arena_info){
                .name = a->name,
                .uid = a->uid,
                .bytes = a->bytes,
                .n_objects = (uint32_t)drover_arena_list(a->watch, NULL, 0),
                .max_objects = a->n_objects,
                .n_places = arena_count_places(a->watch),
                .max_places = ARENA_DEFAULT_PARTICIPANTS,
                .n_users = a->n_users,
                .is_transient = a->is_transient,
        };
}

static size_t arena_bound(int n, size_t room) { return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room; }

size_t arena_list_objects(struct arena *a, const struct drover_object_info **ret) {
        size_t n = arena_bound(drover_arena_list(a->watch, NULL, 0), a->n_objects);
        free(a->arenas->objects);
        a->arenas->objects = calloc(n + 1, sizeof(*a->arenas->objects));
        *ret = a->arenas->objects;
        return a->arenas->objects ? arena_bound(drover_arena_list(a->watch, a->arenas->objects, n), n) : 0;
}

size_t arena_list_waits(struct arena *a, const struct drover_wait_info **ret) {
        *ret = a->arenas->waits;
        return arena_bound(drover_arena_list_waits(a->watch, a->arenas->waits, ARENA_WAITS), ARENA_WAITS);
}

/* ---- cycles ---- */

static struct arena *arena_of_watch(const struct arenas *as, const struct drover_arena *watch) {
        struct arena *a;
        TAILQ_FOREACH(a, &as->all, link)
        if (a->watch == watch)
                return a;
        return NULL;
}

/* Of the process that has one place: its places in all arenas, counted through. */
static bool arenas_place(void *user, const struct cycle_place *of, uint32_t i, struct cycle_place *ret) {
        const struct arena *from = arena_of_watch(user, of->arena);
        const struct arena_user *u = from ? from->holders[of->participant] : NULL;
        for (size_t k = 0; u && k < u->n_opened; k++)
                for (uint32_t at = 0; at < ARENA_DEFAULT_PARTICIPANTS; at++) {
                        if (u->opened[k]->holders[at] != u || i-- > 0)
                                continue;
                        *ret = (struct cycle_place){.arena = u->opened[k]->watch, .participant = at};
                        return true;
                }
        return false;
}

size_t arenas_find_cycle(struct arenas *as, pid_t pid, const struct arena_wait **ret, bool *ret_is_new) {
        const struct cycle_books books = {.place = arenas_place, .user = as};
        struct arena *a;
        uint64_t sum = 0;
        uint32_t n = 0;
        for (size_t i = 0; n == 0 && (a = arenas_opened_by(as, pid, i)); i++) {
                const struct cycle_place here = {.arena = a->watch};
                n = cycle_find(&books, &here, pid, as->steps);
        }
        uint32_t youngest = cycle_youngest(as->steps, n);
        for (uint32_t i = 0; i < n; i++) {
                const struct cycle_step *s = &as->steps[i];
                as->cycle[i].arena = arena_of_watch(as, s->place.arena);
                as->cycle[i].ends = i == youngest;
                wait_describe(s->place.arena, s->line, s->object, &as->cycle[i].info);
                sum += s->since_ns;
        }
        as->n_steps = n;
        *ret = as->cycle;
        *ret_is_new = n > 0 && sum != as->cycle[0].arena->last_cycle;
        for (uint32_t i = 0; i < n; i++)
                as->cycle[i].arena->last_cycle = sum;
        return n;
}

void arenas_break_cycle(struct arenas *as) {
        cycle_break(as->steps, as->n_steps);
        as->n_steps = 0;
}
