/* Arenas by name.
 *
 * Owns the list of them. An arena is found by (uid, name) until it is removed; then it stays, nameless, on its uid's
 * account until no process that opened it lives (arena-users.c), because until then somebody may have it mapped. A
 * transient one is removed at that moment.
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

#include "daemon/supervise/arenas/arenas-internal.h"
#include "ipc/memory/event.h"

int arenas_new(struct arenas **ret, struct loop *loop) {
        struct arenas *as = calloc(1, sizeof(*as));
        if (!as)
                return -ENOMEM;
        as->loop = loop;
        TAILQ_INIT(&as->all);
        TAILQ_INIT(&as->users);
        TAILQ_INIT(&as->dead);
        *ret = as;
        return 0;
}

/* ---- arenas ---- */

static uint64_t arena_cost(const struct arena *a) { return a->bytes + arena_first_object(a->n_objects, a->n_places); }

static void arena_free(struct arena *a) {
        TAILQ_REMOVE(&a->arenas->all, a, link);
        a->arenas->n_all--;
        drover_arena_free(a->watch);
        free(a->holders);
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

uid_t arena_uid(const struct arena *a) { return a->uid; }

static int arenas_check_share(struct arenas *as, uid_t uid, uint64_t cost, struct fault *f) {
        uint64_t used = 0;
        size_t n = 0, n_own = 0, n_kept = 0;
        struct arena *a;
        TAILQ_FOREACH(a, &as->all, link) {
                n_own += a->uid == geteuid();
                if (a->uid == uid) {
                        used += arena_cost(a);
                        n++;
                }
        }
        if (uid != geteuid() && n_own < ARENAS_PER_UID) /* what workers may still want */
                n_kept = ARENAS_PER_UID - n_own;
        if (as->n_all + n_kept >= ARENAS_MAX) {
                fault_set(f, FAULT_LIMITS_EXCEEDED, "there are %zu arenas already, and room is kept for %zu of workers",
                          as->n_all, n_kept);
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

static int arena_make_memory(struct arena *a) {
        char label[sizeof("drover-arena-") + POOL_NAME_MAX];
        int fd;
        a->holders = calloc(a->n_places, sizeof(*a->holders));
        if (!a->holders)
                return -ENOMEM;
        snprintf(label, sizeof(label), "drover-arena-%s", a->name);
        int r = arena_make(label, a->bytes, a->n_objects, a->n_places, &fd);
        if (r < 0)
                return r;
        r = arena_watch(fd, &a->watch);
        close(fd);
        return r;
}

static int arena_new(struct arenas *as, const struct arena_request *q, struct arena **ret, struct fault *f) {
        if (q->n_objects > ARENA_MAX_OBJECTS || q->n_processes > ARENA_MAX_PARTICIPANTS) {
                fault_set(f, FAULT_INVALID_ARGS, "arena %s: %u objects and %u processes: at most %d and %d", q->name,
                          q->n_objects, q->n_processes, ARENA_MAX_OBJECTS, ARENA_MAX_PARTICIPANTS);
                return -EINVAL;
        }
        struct arena new = {
                .arenas = as,
                .uid = q->uid,
                .bytes = q->bytes ? q->bytes : ARENAS_DEFAULT_BYTES,
                .n_objects = q->n_objects ? q->n_objects : ARENA_DEFAULT_OBJECTS,
                .n_places = q->n_processes ? q->n_processes : ARENA_DEFAULT_PARTICIPANTS,
                .is_transient = q->is_transient,
        };
        uint64_t max_bytes = ARENAS_BYTES_PER_UID - arena_first_object(new.n_objects, new.n_places);
        if (new.bytes > max_bytes) {
                fault_set(f, FAULT_INVALID_ARGS, "bytes=%llu: an arena has at most %llu", (unsigned long long)new.bytes,
                          (unsigned long long)max_bytes);
                return -EINVAL;
        }
        new.bytes = (new.bytes + LAYOUT_PAGE - 1) / LAYOUT_PAGE *LAYOUT_PAGE;
        snprintf(new.name, sizeof(new.name), "%s", q->name);
        int r = arenas_check_share(as, q->uid, arena_cost(&new), f);
        if (r < 0)
                return r;
        struct arena *a = malloc(sizeof(*a));
        r = a ? arena_make_memory(&new) : -ENOMEM;
        if (r < 0) {
                free(new.holders);
                free(a);
                fault_set(f, FAULT_INTERNAL, "no memory for arena %s: %s", q->name, strerror(-r));
                return r;
        }
        *a = new;
        TAILQ_INSERT_TAIL(&as->all, a, link);
        as->n_all++;
        *ret = a;
        return 0;
}

/* What is there has as much as was asked for. */
static int arena_check(const struct arena *a, const struct arena_request *q, struct fault *f) {
        if (q->bytes > a->bytes)
                fault_set(f, FAULT_INVALID_ARGS, "bytes=%llu: there is an arena %s already, with %llu",
                          (unsigned long long)q->bytes, a->name, (unsigned long long)a->bytes);
        else if (q->n_objects > a->n_objects)
                fault_set(f, FAULT_INVALID_ARGS, "objects=%u: there is an arena %s already, with room for %u",
                          q->n_objects, a->name, a->n_objects);
        else if (q->n_processes > a->n_places)
                fault_set(f, FAULT_INVALID_ARGS, "processes=%u: there is an arena %s already, with room for %u",
                          q->n_processes, a->name, a->n_places);
        else
                return 0;
        return -EINVAL;
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
        r = arena_check(a, q, f);
        if (r < 0)
                return r;
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
        arena_users_free(as);
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

/* Large tables that nobody has touched take longest: the memory is made then. */
static uint32_t arena_count_taken(struct arena *a) {
        struct arenas *as = a->arenas;
        uint64_t now = event_now_ns();
        if (now - as->count_given_ns >= ARENAS_LOOKS_NS) {
                as->count_given_ns = now;
                as->count_spent_ns = 0;
        }
        if (as->count_spent_ns < ARENAS_COUNT_NS) {
                a->n_taken = arena_count_places(a->watch);
                as->count_spent_ns += event_now_ns() - now;
        }
        return a->n_taken;
}

void arena_get_info(struct arena *a, struct arena_info *ret) {
        *ret = (struct arena_info){
                .name = a->name,
                .uid = a->uid,
                .bytes = a->bytes,
                .n_objects = arena_count_objects(a->watch),
                .max_objects = a->n_objects,
                .n_places = arena_count_taken(a),
                .max_places = a->n_places,
                .n_users = a->n_users,
                .is_transient = a->is_transient,
        };
}

int arena_list_objects(struct arena *a, uint32_t *position, size_t limit, const struct drover_object_info **ret) {
        struct arenas *as = a->arenas;
        if (limit == 0 || limit > ARENAS_MAX_LISTED)
                limit = ARENAS_MAX_LISTED;
        if (!as->objects)
                as->objects = calloc(ARENAS_MAX_LISTED, sizeof(*as->objects));
        if (!as->objects)
                return -ENOMEM;
        uint32_t n = arena_list_from(a->watch, position, as->objects, limit);
        if (*position >= a->n_objects)
                *position = 0;
        *ret = as->objects;
        return (int)n;
}

/* ---- waits and cycles ---- */

static struct cycle_budget *arenas_give_looks(struct arena_looks *looks, unsigned n) {
        uint64_t now = event_now_ns();
        if (looks->given_ns == 0 || now - looks->given_ns >= ARENAS_LOOKS_NS)
                *looks = (struct arena_looks){.left = {n}, .given_ns = now};
        return &looks->left;
}

bool arenas_find_wait(struct arenas *as, pid_t pid, uint32_t thread, struct arena_wait *ret) {
        const struct arena_user *u = arena_user_find(as, pid);
        struct cycle_budget *budget = arenas_give_looks(&as->wait_looks, ARENAS_WAIT_LOOKS);
        struct drover_wait_info info;
        *ret = (struct arena_wait){0};
        for (size_t i = 0; u && i < u->n_opened && budget->n_looks > 0; i++, budget->n_looks--)
                if (arena_find_wait(u->opened[i]->watch, pid, thread, &info) &&
                    (!ret->arena || info.since_ns < ret->info.since_ns))
                        *ret = (struct arena_wait){.arena = u->opened[i], .info = info};
        return budget->n_looks > 0;
}

/* Of the process that has one place: its places in all arenas, counted through. */
static bool arenas_place(void *user, const struct cycle_place *of, uint32_t i, struct cycle_place *ret) {
        const struct arena *from = of->tag;
        const struct arena_user *u = from->holders[of->participant];
        (void)user;
        if (!u || i >= u->n_places)
                return false;
        struct arena *a = u->places[i].arena;
        *ret = (struct cycle_place){.arena = a->watch, .participant = u->places[i].participant, .tag = a};
        return true;
}

/* The steps of a circle; 0: none was found before the budget was spent. */
static uint32_t arenas_search(struct arenas *as, const struct arena_user *u, struct cycle_budget *budget) {
        const struct cycle_books books = {.place = arenas_place};
        uint32_t n = 0;
        for (size_t i = 0; n == 0 && i < u->n_opened && budget->n_looks > 0; i++) {
                const struct cycle_place here = {.arena = u->opened[i]->watch, .tag = u->opened[i]};
                n = cycle_find(&books, &here, u->pid, budget, as->steps);
        }
        return n;
}

void arenas_find_cycle(struct arenas *as, pid_t pid, struct arena_cycle *ret) {
        struct cycle_budget *all = arenas_give_looks(&as->cycle_looks, ARENAS_CYCLE_LOOKS);
        struct cycle_budget budget = {all->n_looks < ARENAS_SEARCH_LOOKS ? all->n_looks : ARENAS_SEARCH_LOOKS};
        const struct arena_user *u = arena_user_find(as, pid);
        uint64_t sum = 0;
        bool is_full = budget.n_looks == ARENAS_SEARCH_LOOKS;
        all->n_looks -= budget.n_looks;
        uint32_t n = u ? arenas_search(as, u, &budget) : 0;
        all->n_looks += budget.n_looks;
        uint32_t youngest = cycle_youngest(as->steps, n);
        for (uint32_t i = 0; i < n; i++) {
                const struct cycle_step *s = &as->steps[i];
                as->cycle[i].arena = s->place.tag;
                as->cycle[i].ends = i == youngest;
                wait_describe(s->place.arena, s->line, s->object, &as->cycle[i].info);
                sum += s->since_ns;
        }
        as->n_steps = n;
        *ret = (struct arena_cycle){
                .waits = as->cycle,
                .n = n,
                .is_new = n > 0 && sum != as->cycle[0].arena->last_cycle,
                .is_cut_off = n == 0 && is_full && budget.n_looks == 0,
        };
        for (uint32_t i = 0; i < n; i++)
                as->cycle[i].arena->last_cycle = sum;
}

void arenas_break_cycle(struct arenas *as) {
        cycle_break(as->steps, as->n_steps);
        as->n_steps = 0;
}
