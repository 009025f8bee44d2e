/* All pools, the spawner, and who is who.
 *
 * Routes the spawner's events to the workers and pools they are about, and holds the two orders people see: pools by
 * name, workers by id. A spawner that is lost takes its workers with it; pools start over when the next one is up. */
#include "daemon/supervise/supervisor.h"

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/helper.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

#define SUPERVISOR_LAST_WRITE_NS UINT64_C(1000000000) /* for the state, at the end */

static const char *const worker_state_words[WORKER_N_STATES] = {
        [WORKER_STARTING] = "starting",       [WORKER_IDLE] = "idle",
        [WORKER_RUNNING] = "running",         [WORKER_STOPPING] = "stopping",
        [WORKER_QUARANTINED] = "quarantined",
};
static const char *const start_method_words[START_N] = {
        [START_FORKSERVER] = "forkserver", [START_SPAWN] = "spawn", [START_FORK] = "fork"};

const char *worker_state_word(enum worker_state s) { return s < WORKER_N_STATES ? worker_state_words[s] : "?"; }
const char *start_method_word(enum start_method m) { return m < START_N ? start_method_words[m] : "?"; }

/* ---- workers by id ---- */

static int worker_compare(const void *a, const void *b) {
        uint64_t x = ((const struct worker *)a)->id, y = ((const struct worker *)b)->id;
        return (x > y) - (x < y);
}

void supervisor_add_worker(struct supervisor *s, struct worker *w) {
        TAILQ_INSERT_TAIL(&s->workers, w, link); /* ids rise */
        tsearch(w, &s->workers_by_id, worker_compare);
        s->n_workers++;
}

void supervisor_forget_worker(struct supervisor *s, struct worker *w) {
        TAILQ_REMOVE(&s->workers, w, link);
        tdelete(w, &s->workers_by_id, worker_compare);
        s->n_workers--;
}

struct worker *supervisor_find_worker(struct supervisor *s, uint64_t id) {
        struct worker key = {.id = id}, **found = tfind(&key, &s->workers_by_id, worker_compare);
        return found ? *found : NULL;
}

struct worker *supervisor_find_worker_by_pid(struct supervisor *s, pid_t pid) {
        struct worker *w;
        TAILQ_FOREACH(w, &s->workers, link)
                if (w->pid == pid && pid != 0)
                        return w;
        return NULL;
}

struct worker *supervisor_next_worker(struct supervisor *s, const struct worker *after) {
        return after ? TAILQ_NEXT(after, link) : TAILQ_FIRST(&s->workers);
}

/* ---- the spawner's news ---- */

static void supervisor_on_up(void *user) {
        struct supervisor *s = user;
        struct pool *p, *next;
        log_info("the spawner is up (pid %d)", (int)spawner_pid(s->spawner));
        for (p = TAILQ_FIRST(&s->pools); p; p = next) {
                next = TAILQ_NEXT(p, link);
                pool_on_spawner_up(p);
        }
}

/* By workers: the last one of a removed pool takes the pool with it. */
static void supervisor_on_lost(void *user) {
        struct supervisor *s = user;
        struct pool *p;
        struct worker *w, *next;
        TAILQ_FOREACH(p, &s->pools, link)
                pool_on_spawner_lost(p);
        for (w = TAILQ_FIRST(&s->workers); w; w = next) {
                next = TAILQ_NEXT(w, link);
                worker_on_spawner_lost(w);
        }
}

struct pool *supervisor_find_generation(struct supervisor *s, uint32_t generation) {
        struct pool *p;
        TAILQ_FOREACH(p, &s->pools, link)
                if (generation &&
                    (p->generation == generation || p->loading == generation || p->old_generation == generation))
                        return p;
        return NULL;
}

static void supervisor_on_event(void *user, const struct spawn_event *e, const int *fds, unsigned n_fds) {
        struct supervisor *s = user;
        struct worker *w = supervisor_find_worker(s, e->worker);
        struct pool *p = supervisor_find_generation(s, e->generation);
        if (e->type == SPAWN_STARTED && n_fds == 2 && w && w->pidfd < 0) {
                worker_on_started(w, e, fds);
                return;
        }
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
        if (e->type == SPAWN_LOADED && p)
                pool_on_loaded(p, e);
        else if ((e->type == SPAWN_FAILED || e->type == SPAWN_EXITED) && w)
                worker_on_gone(w, e);
        else if (e->type == SPAWN_TEMPLATE && p)
                pool_on_template(p, e);
        else if (e->type == SPAWN_ESCAPED)
                log_warning("the spawner killed process %d, which escaped from a worker", (int)e->pid);
}

static void supervisor_on_unreachable(void *user, const char *why) {
        struct supervisor *s = user;
        log_error("there was no spawner (%s): ending, to be started again with one", why);
        loop_exit(s->loop, 1);
}

static void supervisor_on_clock_set(void *user) {
        struct supervisor *s = user;
        log_debug("the wall clock was set, or the machine was asleep");
        jobs_clock_was_set(s->jobs);
}

/* The capsules first: they make the directory, and know numbers of jobs that were. */
static int supervisor_begin_state(struct supervisor *s, const char *state_dir) {
        uint64_t deadline_ns = event_now_ns() + HELPER_PATIENCE_NS;
        uint64_t used[NUMBERS_N_KINDS];
        int r = capsules_new(&s->capsules, s->loop, state_dir, deadline_ns);
        if (r < 0)
                return r;
        bool is_known = capsules_last_numbers(s->capsules, used);
        return numbers_new(&s->numbers, s->loop, state_dir, is_known ? used : NULL, deadline_ns);
}

int supervisor_new(struct supervisor **ret, const struct supervisor_config *c) {
        struct supervisor *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->loop = c->loop;
        s->hooks = c->hooks;
        s->max_pools = DAEMON_MAX_POOLS;
        s->wall_clock.fd = -1;
        snprintf(s->plugin_dir, sizeof(s->plugin_dir), "%s", c->plugin_dir);
        TAILQ_INIT(&s->pools);
        TAILQ_INIT(&s->workers);
        struct spawner_config config = {
                .loop = c->loop,
                .libexec_dir = c->libexec_dir,
                .plugin_dir = c->plugin_dir,
                .fd = c->spawner_fd,
                .socket_path = c->spawner_path,
                .lock_fd = c->lock_fd,
                .hooks = {s, supervisor_on_up, supervisor_on_lost, supervisor_on_event, supervisor_on_unreachable},
        };
        int r = jobs_new(&s->jobs, s);
        if (r >= 0)
                r = wall_clock_start(&s->wall_clock, s->loop, supervisor_on_clock_set, s);
        if (r >= 0)
                r = streams_new(&s->streams, s);
        if (r >= 0)
                r = arenas_new(&s->arenas, s->loop);
        if (r >= 0)
                r = supervisor_begin_state(s, c->state_dir);
        if (r >= 0)
                r = spawner_new(&s->spawner, &config);
        if (r < 0) {
                supervisor_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

static void supervisor_drop_pool(struct supervisor *s, struct pool *p);

void supervisor_leave(struct supervisor *s) { s->is_leaving = true; }

/* Whatever still lives is ended with the spawner's socket. */
struct supervisor *supervisor_free(struct supervisor *s) {
        if (!s)
                return NULL;
        struct pool *p;
        struct worker *w;
        s->hooks = (struct supervisor_hooks){0}; /* the bus face went before us */
        s->on_down = NULL;
        s->spawner = spawner_free(s->spawner);
        wall_clock_stop(&s->wall_clock);
        while ((w = TAILQ_FIRST(&s->workers))) {
                w->pool->workers[w->index] = NULL;
                supervisor_forget_worker(s, w);
                worker_free(w);
        }
        while ((p = TAILQ_FIRST(&s->pools)))
                supervisor_drop_pool(s, p);
        s->jobs = jobs_free(s->jobs);
        s->streams = streams_free(s->streams);
        s->arenas = arenas_free(s->arenas);
        uint64_t deadline_ns = event_now_ns() + SUPERVISOR_LAST_WRITE_NS;
        s->capsules = capsules_free(s->capsules, deadline_ns);
        s->numbers = numbers_free(s->numbers, deadline_ns);
        quota_deinit(&s->channel_bytes_of);
        quota_deinit(&s->hung_of);
        free(s);
        return NULL;
}

/* ---- pools ---- */

struct pool *supervisor_find_pool(struct supervisor *s, const char *name) {
        struct pool *p;
        TAILQ_FOREACH(p, &s->pools, link)
                if (strcmp(p->config.name, name) == 0 && !p->is_removed)
                        return p;
        return NULL;
}

struct pool *supervisor_next_pool(struct supervisor *s, const struct pool *after) {
        struct pool *p = after ? TAILQ_NEXT(after, link) : TAILQ_FIRST(&s->pools);
        while (p && p->is_removed)
                p = TAILQ_NEXT(p, link);
        return p;
}

static void supervisor_insert_pool(struct supervisor *s, struct pool *p) {
        struct pool *other;
        TAILQ_FOREACH(other, &s->pools, link)
                if (strcmp(other->config.name, p->config.name) > 0) {
                        TAILQ_INSERT_BEFORE(other, p, link);
                        return;
                }
        TAILQ_INSERT_TAIL(&s->pools, p, link);
}

void supervisor_set_max_pools(struct supervisor *s, uint32_t n) { s->max_pools = n; }

int supervisor_check_room(struct supervisor *s, const char *pool, struct fault *f) {
        struct pool *p;
        uint32_t n = 0;
        TAILQ_FOREACH(p, &s->pools, link)
                n += !p->is_refused && !p->is_removed;
        if (n < s->max_pools)
                return 0;
        return fault_set(f, FAULT_LIMITS_EXCEEDED,
                         "pool %s is one too many: there are %u already (MaxPools= in drover.conf, %d at most): remove "
                         "one, or raise it",
                         pool, n, DAEMON_MAX_POOLS);
}

int supervisor_add_pool(struct supervisor *s, const struct pool_config *c, bool is_runtime, const char *refused_because,
                        struct pool **ret, struct fault *f) {
        struct pool *p;
        if (s->is_shutting_down)
                return fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down");
        if (supervisor_find_pool(s, c->name))
                return fault_set(f, FAULT_INVALID_ARGS, "there is a pool %s already", c->name);
        struct fault room;
        if (!refused_because && supervisor_check_room(s, c->name, &room) < 0) {
                if (is_runtime)
                        return fault_set(f, room.code, "%s", room.text);
                refused_because = room.text; /* its object says why it does not run */
        }
        int r = pool_new(&p, s, c);
        if (r < 0)
                return fault_set(f, FAULT_INTERNAL, "pool %s: %s", c->name, strerror(-r));
        p->is_runtime = is_runtime;
        supervisor_insert_pool(s, p);
        if (refused_because) {
                p->is_refused = true;
                p->state = POOL_REFUSED;
                pool_close_channels(p, true);
                pool_set_problem(p, "%.500s", refused_because);
        }
        SUPERVISOR_TELL(s, on_pool_added, p);
        pool_settle(p);
        if (ret)
                *ret = p;
        return 0;
}

static void supervisor_drop_pool(struct supervisor *s, struct pool *p) {
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (p->channels[i] && p->channels[i]->session)
                        session_end(p->channels[i]->session);
        SUPERVISOR_TELL(s, on_pool_removed, p);
        jobs_pool_gone(s->jobs, p);
        TAILQ_REMOVE(&s->pools, p, link);
        pool_free(p);
}

void supervisor_remove_pool(struct supervisor *s, struct pool *p) { pool_remove(p); }

void supervisor_pool_is_empty(struct supervisor *s, struct pool *p) {
        if (p->is_removed && pool_count_workers(p) == 0)
                supervisor_drop_pool(s, p);
        if (!s->is_shutting_down || !s->on_down)
                return;
        TAILQ_FOREACH(p, &s->pools, link)
                if (p->is_wanted || pool_count_awaited(p) > 0)
                        return;
        TAILQ_FOREACH(p, &s->pools, link)
                jobs_collect(p); /* verdicts of this moment are told first: nothing is heard after the end */
        void (*done)(void *) = s->on_down;
        s->on_down = NULL;
        done(s->on_down_user);
}

int supervisor_update_pool(struct supervisor *s, struct pool *p, const struct pool_config *c,
                           const char *refused_because, struct fault *f) {
        if (refused_because) { /* the old settings go on */
                snprintf(p->config_problem, sizeof(p->config_problem), "%s", refused_because);
                log_error("pool %s keeps its old settings: %s", p->config.name, refused_because);
                return 0;
        }
        p->config_problem[0] = 0;
        bool needs_load = p->is_file_bad || strcmp(c->plugin, p->config.plugin) != 0 ||
                          c->start_method != p->config.start_method || c->memory_bytes != p->config.memory_bytes ||
                          memcmp(c->environment, p->config.environment, sizeof(c->environment)) != 0;
        p->config = *c;
        free(p->before_resize);
        p->before_resize = NULL;
        if (p->is_refused)
                return pool_start(p, f);
        if (needs_load && p->is_wanted)
                return pool_restart(p, f);
        pool_settle(p);
        return 0;
}

size_t supervisor_list_deaths(struct supervisor *s, const struct pool *pool, struct death *ret, size_t n) {
        size_t n_found = 0;
        struct pool *p;
        TAILQ_FOREACH(p, &s->pools, link) {
                uint64_t oldest = p->n_deaths > POOL_DEATHS ? p->n_deaths - POOL_DEATHS : 0;
                if (pool && p != pool)
                        continue;
                for (uint64_t i = p->n_deaths; i > oldest; i--) { /* insertion into what is sorted already: small n */
                        const struct death *d = &p->deaths[(i - 1) % POOL_DEATHS];
                        size_t at = n_found < n ? n_found++ : n;
                        while (at > 0 && ret[at - 1].realtime_us < d->realtime_us) {
                                if (at < n)
                                        ret[at] = ret[at - 1];
                                at--;
                        }
                        if (at < n)
                                ret[at] = *d;
                }
        }
        return n_found;
}

/* ---- jobs, sessions, the end ---- */

struct job *supervisor_find_job(struct supervisor *s, uint64_t id) {
        return jobs_find(s->jobs, id);
}

int supervisor_open_session(struct supervisor *s, const struct session_request *q, struct session_offer *ret,
                            bool *ret_wait, struct fault *f) {
        struct pool *p = q->pool;
        struct session *session;
        *ret_wait = false;
        if (s->is_shutting_down)
                return fault_set(f, FAULT_SHUTTING_DOWN, "the daemon is shutting down");
        if (p->is_refused)
                return fault_set(f, FAULT_POOL_REFUSED, "pool %s is refused: %s", p->config.name, p->problem);
        if (!pool_accepts(p))
                return fault_set(f, FAULT_POOL_STOPPED, "pool %s is %s", p->config.name, pool_state_word(p->state));
        if (!p->schema) {
                *ret_wait = p->state == POOL_STARTING || p->state == POOL_PAUSED;
                return fault_set(f, FAULT_POOL_REFUSED, "pool %s is %s: no worker of it was ready yet%s%s",
                                 p->config.name, pool_state_word(p->state), p->problem[0] ? ": " : "", p->problem);
        }
        return session_new(&session, q, ret, f);
}

void supervisor_open_capsule(struct supervisor *s, uint64_t id, uid_t uid, bool is_root,
                             void (*fn)(void *user, int error, int fd), void *user) {
        capsules_open(s->capsules, id, uid, is_root, fn, user);
}

size_t supervisor_list_capsules(const struct supervisor *s, const struct capsule_filter *filter,
                                struct capsule_row *ret, size_t n) {
        return capsules_list(s->capsules, filter, ret, n);
}

struct arenas *supervisor_arenas(struct supervisor *s) {
        return s->arenas;
}
uint32_t supervisor_n_sessions(const struct supervisor *s) { return s->n_sessions; }
uint32_t supervisor_n_workers(const struct supervisor *s) { return s->n_workers; }
bool supervisor_is_shutting_down(const struct supervisor *s) { return s->is_shutting_down; }

uint64_t supervisor_drain_ns(struct supervisor *s) {
        struct pool *p;
        uint64_t longest_ns = 0;
        TAILQ_FOREACH(p, &s->pools, link)
                if (p->config.timeout_stop_ns + p->config.kill_grace_ns > longest_ns)
                        longest_ns = p->config.timeout_stop_ns + p->config.kill_grace_ns;
        return longest_ns;
}

void supervisor_shut_down(struct supervisor *s, void (*done)(void *user), void *user) {
        struct pool *p, *next;
        if (s->is_shutting_down)
                return;
        s->is_shutting_down = true;
        s->on_down = done;
        s->on_down_user = user;
        if (TAILQ_EMPTY(&s->pools)) {
                s->on_down = NULL;
                done(user);
        }
        for (p = TAILQ_FIRST(&s->pools); p && s->on_down; p = next) {
                next = TAILQ_NEXT(p, link);
                pool_end(p, event_now_ns() + p->config.timeout_stop_ns);
        }
}
