/* Arenas by name, and the processes that opened them.
 *
 * Owns two lists. An arena is found by (uid, name) until it is removed; then it stays, nameless, on its uid's account
 * until no process that opened it lives, because until then somebody may have it mapped. A user is a process that was
 * handed an arena: its pidfd is watched, and when it is readable every arena that the process opened is repaired.
 *
 * The pid in an arena's table of participants is what the participant wrote. So a process can have its own places
 * repaired early by lying, and those of others who share the arena, whom it could harm in simpler ways; it can do
 * nothing to arenas that it does not share. The broker never becomes a participant: it maps, looks and repairs, and
 * every call it makes there is bounded by the sizes in ipc/sync/layout.h, whatever stands in the memory.
 *
 * What it does not do: know workers and callers (waiting.c puts names to pids), or outlive the broker. */
#include "daemon/supervise/arenas.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "daemon/log.h"
#include "ipc/sync/arena.h"

struct arena {
        struct arenas *arenas;
        char name[POOL_NAME_MAX + 1];
        uid_t uid;
        uint64_t bytes;
        struct drover_arena *watch;
        uint32_t n_users;
        uint64_t last_cycle; /* since when its waiters waited, added up: tells it from the next */
        bool is_removed;
        TAILQ_ENTRY(arena) link;
};

struct arena_user {
        struct arenas *arenas;
        pid_t pid;
        int pidfd;
        struct loop_poll poll;
        struct arena **opened;
        size_t n_opened;
        TAILQ_ENTRY(arena_user) link;
};

struct arenas {
        struct loop *loop;
        TAILQ_HEAD(, arena) all;
        TAILQ_HEAD(, arena_user) users;
        size_t n_all, n_users;
        struct drover_object_info objects[ARENA_OBJECTS];
        struct drover_wait_info waits[ARENA_WAITS];
};

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

static uint64_t arena_cost(uint64_t bytes) { return bytes + ARENA_FIRST_OBJECT; }

static void arena_free(struct arena *a) {
        TAILQ_REMOVE(&a->arenas->all, a, link);
        a->arenas->n_all--;
        drover_arena_free(a->watch);
        free(a);
}

static void arena_collect(struct arena *a) {
        if (a->is_removed && a->n_users == 0)
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

static int arenas_check_share(struct arenas *as, uid_t uid, uint64_t bytes, struct fault *f) {
        uint64_t used = 0;
        size_t n = 0;
        struct arena *a;
        TAILQ_FOREACH(a, &as->all, link)
        if (a->uid == uid) {
                used += arena_cost(a->bytes);
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
        if (arena_cost(bytes) > ARENAS_BYTES_PER_UID - used) {
                fault_set(f, FAULT_LIMITS_EXCEEDED, "the arenas of uid %u have %llu of %llu bytes already",
                          (unsigned)uid, (unsigned long long)used, (unsigned long long)ARENAS_BYTES_PER_UID);
                return -EDQUOT;
        }
        return 0;
}

static int arena_make_memory(const char *name, uint64_t bytes, struct drover_arena **ret) {
        char label[sizeof("drover-arena-") + POOL_NAME_MAX];
        int fd;
        snprintf(label, sizeof(label), "drover-arena-%s", name);
        int r = arena_make(label, bytes, &fd);
        if (r < 0)
                return r;
        r = arena_watch(fd, ret);
        close(fd);
        return r;
}

static int arena_new(struct arenas *as, const struct arena_request *q, struct arena **ret, struct fault *f) {
        uint64_t bytes = q->bytes ? q->bytes : ARENAS_DEFAULT_BYTES;
        if (bytes > ARENAS_BYTES_PER_UID - ARENA_FIRST_OBJECT) {
                fault_set(f, FAULT_INVALID_ARGS, "bytes=%llu: an arena has at most %llu", (unsigned long long)bytes,
                          (unsigned long long)(ARENAS_BYTES_PER_UID - ARENA_FIRST_OBJECT));
                return -EINVAL;
        }
        bytes = (bytes + LAYOUT_PAGE - 1) / LAYOUT_PAGE * LAYOUT_PAGE;
        int r = arenas_check_share(as, q->uid, bytes, f);
        if (r < 0)
                return r;
        struct arena *a = calloc(1, sizeof(*a));
        r = a ? arena_make_memory(q->name, bytes, &a->watch) : -ENOMEM;
        if (r < 0) {
                free(a);
                fault_set(f, FAULT_INTERNAL, "no memory for arena %s: %s", q->name, strerror(-r));
                return r;
        }
        a->arenas = as;
        a->uid = q->uid;
        a->bytes = bytes;
        snprintf(a->name, sizeof(a->name), "%s", q->name);
        TAILQ_INSERT_TAIL(&as->all, a, link);
        as->n_all++;
        *ret = a;
        return 0;
}

/* ---- who opened them ---- */

static bool arenas_is_dead(int pidfd) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        return poll(&p, 1, 0) > 0;
}

static void arena_user_free(struct arena_user *u) {
        TAILQ_REMOVE(&u->arenas->users, u, link);
        u->arenas->n_users--;
        loop_poll_stop(&u->poll);
        close(u->pidfd);
        free(u->opened);
        free(u);
}

static void arena_user_died(struct arena_user *u) {
        for (size_t i = 0; i < u->n_opened; i++) {
                struct arena *a = u->opened[i];
                int n = drover_arena_repair_pid(a->watch, u->pid);
                log_debug("arena %s: process %d ended, %d of its places repaired", a->name, (int)u->pid, n);
                a->n_users--;
                arena_collect(a);
        }
        arena_user_free(u);
}

static void arena_user_on_pidfd(struct loop_poll *p, uint32_t revents) { arena_user_died(p->user); }

static struct arena_user *arena_user_find(struct arenas *as, pid_t pid) {
        struct arena_user *u;
        TAILQ_FOREACH(u, &as->users, link)
        if (u->pid == pid)
                return u;
        return NULL;
}

/* A pid that is known may be another process by now: then the death of the first was not heard of yet. */
static int arena_user_get(struct arenas *as, pid_t pid, int pidfd, struct arena_user **ret) {
        struct arena_user *u = arena_user_find(as, pid);
        if (u && arenas_is_dead(u->pidfd)) {
                arena_user_died(u);
                u = NULL;
        }
        if (arenas_is_dead(pidfd))
                return -ESRCH;
        if (u) {
                *ret = u;
                return 0;
        }
        if (as->n_users >= ARENAS_MAX_USERS)
                return -EUSERS;
        u = calloc(1, sizeof(*u));
        if (!u)
                return -ENOMEM;
        *u = (struct arena_user){.arenas = as, .pid = pid, .pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3)};
        int r = u->pidfd < 0 ? -errno : loop_poll_start(as->loop, &u->poll, u->pidfd, POLLIN, arena_user_on_pidfd, u);
        if (r < 0) {
                if (u->pidfd >= 0)
                        close(u->pidfd);
                free(u);
                return r;
        }
        TAILQ_INSERT_TAIL(&as->users, u, link);
        as->n_users++;
        *ret = u;
        return 0;
}

static int arena_user_add(struct arena_user *u, struct arena *a) {
        for (size_t i = 0; i < u->n_opened; i++)
                if (u->opened[i] == a)
                        return 0;
        if (a->n_users >= ARENAS_USERS_EACH)
                return -EUSERS;
        struct arena **more = realloc(u->opened, (u->n_opened + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        u->opened = more;
        u->opened[u->n_opened++] = a;
        a->n_users++;
        return 0;
}

struct arena *arenas_opened_by(struct arenas *as, pid_t pid, size_t i) {
        struct arena_user *u = arena_user_find(as, pid);
        return u && i < u->n_opened ? u->opened[i] : NULL;
}

static int arenas_add_user(struct arena *a, const struct arena_request *q, struct fault *f) {
        struct arena_user *u;
        int r = arena_user_get(a->arenas, q->pid, q->pidfd, &u);
        if (r < 0) {
                fault_set(f, r == -EUSERS ? FAULT_LIMITS_EXCEEDED : FAULT_INTERNAL, "process %d cannot be watched: %s",
                          (int)q->pid, strerror(-r));
                return r;
        }
        r = arena_user_add(u, a);
        if (r < 0)
                fault_set(f, r == -EUSERS ? FAULT_LIMITS_EXCEEDED : FAULT_INTERNAL, "arena %s: %s", a->name,
                          r == -EUSERS ? "256 processes have it open" : strerror(-r));
        if (u->n_opened == 0)
                arena_user_free(u);
        return r;
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
        r = arenas_add_user(a, q, f);
        if (r < 0) {
                if (is_created)
                        arena_free(a);
                return r;
        }
        *ret = (struct arena_offer){drover_arena_fd(a->watch), a->bytes, is_created};
        return 0;
}

struct arenas *arenas_free(struct arenas *as) {
        if (!as)
                return NULL;
        while (!TAILQ_EMPTY(&as->users))
                arena_user_free(TAILQ_FIRST(&as->users));
        while (!TAILQ_EMPTY(&as->all))
                arena_free(TAILQ_FIRST(&as->all));
        free(as);
        return NULL;
}

/* ---- looking ---- */

static size_t arena_bound(int n, size_t room) { return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room; }

size_t arena_list_objects(struct arena *a, const struct drover_object_info **ret) {
        *ret = a->arenas->objects;
        return arena_bound(drover_arena_list(a->watch, a->arenas->objects, ARENA_OBJECTS), ARENA_OBJECTS);
}

size_t arena_list_waits(struct arena *a, const struct drover_wait_info **ret) {
        *ret = a->arenas->waits;
        return arena_bound(drover_arena_list_waits(a->watch, a->arenas->waits, ARENA_WAITS), ARENA_WAITS);
}

size_t arena_find_cycle(struct arena *a, const struct drover_wait_info **ret, bool *ret_is_new) {
        size_t n = arena_bound(drover_arena_find_cycle(a->watch, a->arenas->waits, ARENA_WAITS), ARENA_WAITS);
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++)
                sum += a->arenas->waits[i].since_ns;
        *ret = a->arenas->waits;
        *ret_is_new = n > 0 && sum != a->last_cycle;
        if (n > 0)
                a->last_cycle = sum;
        return n;
}
