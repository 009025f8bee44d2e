/* The processes that opened arenas.
 *
 * Owns the list of them. A process is known by the pidfd that came with its request, which is watched: when it is
 * readable, every place that is kept for the process is repaired and given up, a little in each turn of the loop: how
 * much there is to do others decide. Which places those are stands in arena.holders, privately; nothing that is written
 * in an arena can change it. So processes of other pid namespaces, whose own pids mean nothing here, are repaired like
 * any other.
 *
 * A process that attaches a second time without asking, or that was given the descriptor by another, says who it is by
 * writing its pid. For the first kind that pid is looked for after a death, too; the second kind is the business of
 * whoever gave it the descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/arenas/arenas-internal.h"
#include "ipc/memory/event.h"

#define ARENAS_REPAIR_NS UINT64_C(1000000) /* of a turn of the loop */

static bool is_dead(int pidfd) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        return poll(&p, 1, 0) > 0;
}

/* What getpid() says in that process: the last number of the line NSpid, which goes from our namespace to its own. */
static uint32_t read_own_pid(int pidfd, pid_t pid) {
        char path[sizeof("/proc/self/fdinfo/") + 10], line[256];
        uint32_t own = (uint32_t)pid;
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
        FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file)) {
                const char *last = strrchr(line, '\t');
                if (strncmp(line, "NSpid:", 6) == 0 && last && atoi(last + 1) > 0)
                        own = (uint32_t)atoi(last + 1);
        }
        if (file)
                fclose(file);
        return own;
}

static void arena_user_free(struct arena_user *u, struct arena_users *list) {
        TAILQ_REMOVE(list, u, link);
        u->arenas->n_users--;
        loop_poll_stop(&u->poll);
        close(u->pidfd);
        free(u->opened);
        free(u->places);
        free(u);
}

void arena_users_free(struct arenas *as) {
        loop_timer_stop(&as->repair_timer);
        while (!TAILQ_EMPTY(&as->users))
                arena_user_free(TAILQ_FIRST(&as->users), &as->users);
        while (!TAILQ_EMPTY(&as->dead))
                arena_user_free(TAILQ_FIRST(&as->dead), &as->dead);
}

/* ---- after a death ---- */

static void begin_repair(struct arena_user *u, struct arena *a) {
        repair_begin(&u->repair, a->watch);
        if (!arena_user_find(u->arenas, u->pid)) /* else another has that pid by now */
                repair_add_pid(&u->repair, u->pid);
        for (size_t i = 0; i < u->n_places; i++)
                if (u->places[i].arena == a)
                        repair_add(&u->repair, u->places[i].participant);
}

/* Only now its places are anybody's. */
static void leave_after_death(struct arena_user *u, struct arena *a) {
        if (u->repair.n_ended > 0)
                log_warning("arena %s of uid %u was written over: its objects have more bytes than it; %u were ended",
                            a->name, (unsigned)a->uid, u->repair.n_ended);
        log_debug("arena %s: process %d ended, %u of its places repaired", a->name, (int)u->pid, u->repair.n);
        for (size_t i = 0; i < u->n_places; i++) {
                if (u->places[i].arena != a)
                        continue;
                arena_let_go(a->watch, u->places[i].participant);
                a->holders[u->places[i].participant] = NULL;
        }
        u->repair.arena = NULL;
        a->n_users--;
        arena_collect(a);
}

/* true: nothing is left to be done. */
static bool repair_after_death(struct arena_user *u, uint64_t until_ns) {
        do {
                struct arena *a = u->opened[u->n_opened - 1];
                if (!u->repair.arena)
                        begin_repair(u, a);
                if (!repair_step(&u->repair, until_ns))
                        return false;
                leave_after_death(u, a);
        } while (--u->n_opened > 0 && event_now_ns() < until_ns);
        return u->n_opened == 0;
}

/* They take turns: one that left much does not keep the others from being repaired. */
static void on_repair(struct loop_timer *t) {
        struct arenas *as = t->user;
        struct arena_user *u;
        uint64_t until_ns = event_now_ns() + ARENAS_REPAIR_NS;
        do {
                u = TAILQ_FIRST(&as->dead);
                if (repair_after_death(u, until_ns)) {
                        arena_user_free(u, &as->dead);
                } else {
                        TAILQ_REMOVE(&as->dead, u, link);
                        TAILQ_INSERT_TAIL(&as->dead, u, link);
                }
        } while (!TAILQ_EMPTY(&as->dead) && event_now_ns() < until_ns);
        if (!TAILQ_EMPTY(&as->dead))
                loop_timer_set(as->loop, t, until_ns, on_repair, as);
}

/* Its arenas stay as they are until the loop's next turn. */
static void arena_user_died(struct arena_user *u) {
        struct arenas *as = u->arenas;
        loop_poll_stop(&u->poll);
        TAILQ_REMOVE(&as->users, u, link);
        if (TAILQ_EMPTY(&as->dead))
                loop_timer_set(as->loop, &as->repair_timer, event_now_ns(), on_repair, as);
        TAILQ_INSERT_TAIL(&as->dead, u, link);
}

static void on_pidfd(struct loop_poll *p, uint32_t revents) { arena_user_died(p->user); }

struct arena_user *arena_user_find(struct arenas *as, pid_t pid) {
        struct arena_user *u;
        TAILQ_FOREACH(u, &as->users, link)
                if (u->pid == pid)
                        return u;
        return NULL;
}

static void count_users(const struct arena_users *list, uid_t uid, size_t *n_of_uid, size_t *n_workers) {
        const struct arena_user *u;
        TAILQ_FOREACH(u, list, link) {
                *n_workers += u->is_worker;
                *n_of_uid += !u->is_worker && u->uid == uid;
        }
}

/* The dead count until they are repaired. */
static int check_users(const struct arenas *as, const struct arena_request *q, struct fault *f) {
        size_t n_of_uid = 0, n_workers = 0, n_kept = 0;
        count_users(&as->users, q->uid, &n_of_uid, &n_workers);
        count_users(&as->dead, q->uid, &n_of_uid, &n_workers);
        if (!q->is_worker && n_workers < ARENAS_USERS_OF_WORKERS)
                n_kept = ARENAS_USERS_OF_WORKERS - n_workers;
        if (!q->is_worker && n_of_uid >= ARENAS_USERS_PER_UID)
                fault_set(f, FAULT_LIMITS_EXCEEDED, "%zu processes of uid %u have arenas open, which is its share",
                          n_of_uid, (unsigned)q->uid);
        else if (as->n_users + n_kept >= ARENAS_MAX_USERS)
                fault_set(f, FAULT_LIMITS_EXCEEDED,
                          "%zu processes have arenas open, and room is kept for %zu that are workers", as->n_users,
                          n_kept);
        else
                return 0;
        return -EUSERS;
}

static int arena_user_new(struct arenas *as, const struct arena_request *q, struct arena_user **ret, struct fault *f) {
        int r = check_users(as, q, f);
        if (r < 0)
                return r;
        struct arena_user *u = calloc(1, sizeof(*u));
        if (!u)
                return -ENOMEM;
        *u = (struct arena_user){
                .arenas = as,
                .uid = q->uid,
                .is_worker = q->is_worker,
                .pid = q->pid,
                .own_pid = read_own_pid(q->pidfd, q->pid),
                .pidfd = fcntl(q->pidfd, F_DUPFD_CLOEXEC, 3),
        };
        r = u->pidfd < 0 ? -errno : loop_poll_start(as->loop, &u->poll, u->pidfd, POLLIN, on_pidfd, u);
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

/* A pid that is known may be another process by now: then the death of the first was not heard of yet. */
static int arena_user_get(struct arenas *as, const struct arena_request *q, struct arena_user **ret, struct fault *f) {
        struct arena_user *u = arena_user_find(as, q->pid);
        if (u && is_dead(u->pidfd)) {
                arena_user_died(u);
                u = NULL;
        }
        if (is_dead(q->pidfd))
                return -ESRCH;
        if (!u)
                return arena_user_new(as, q, ret, f);
        *ret = u;
        return 0;
}

static int arena_user_add(struct arena_user *u, struct arena *a) {
        for (size_t i = 0; i < u->n_opened; i++)
                if (u->opened[i] == a)
                        return 0;
        struct arena **more = realloc(u->opened, (u->n_opened + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        u->opened = more;
        u->opened[u->n_opened++] = a;
        a->n_users++;
        return 0;
}

/* A place that is kept for the process and not used now, or another. */
static int keep_place(struct arena_user *u, struct arena *a, uint32_t *ret) {
        for (size_t i = 0; i < u->n_places; i++)
                if (u->places[i].arena == a && arena_is_kept(a->watch, u->places[i].participant)) {
                        *ret = u->places[i].participant;
                        return 0;
                }
        struct arena_place *more = realloc(u->places, (u->n_places + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        u->places = more;
        uint32_t i;
        int r = arena_keep(a->watch, (uint32_t)u->pid, u->own_pid, &i);
        if (r < 0)
                return r;
        if (a->holders[i]) /* somebody wrote there that it was free */
                return -EUSERS;
        a->holders[i] = u;
        u->places[u->n_places++] = (struct arena_place){a, i};
        *ret = i;
        return 0;
}

int arena_user_open(struct arena *a, const struct arena_request *q, uint32_t *ret_participant, struct fault *f) {
        struct arena_user *u;
        int r = arena_user_get(a->arenas, q, &u, f);
        if (r < 0) {
                if (r != -EUSERS)
                        fault_set(f, FAULT_INTERNAL, "process %d cannot be watched: %s", (int)q->pid, strerror(-r));
                return r;
        }
        r = arena_user_add(u, a);
        if (r == 0)
                r = keep_place(u, a, ret_participant);
        if (r == -EUSERS)
                fault_set(f, FAULT_LIMITS_EXCEEDED,
                          "arena %s: %u processes are attached, which is what it was made for (ListArenas)", a->name,
                          a->n_places);
        else if (r < 0)
                fault_set(f, FAULT_INTERNAL, "arena %s: %s", a->name, strerror(-r));
        if (u->n_opened == 0)
                arena_user_free(u, &u->arenas->users);
        return r;
}
