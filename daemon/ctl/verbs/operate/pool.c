/* The switches of pools: start, stop, restart, drain, pause, resume, resize, reset-failed.
 *
 * Each is one call of the Pool object. The daemon answers at once; start, stop, restart and drain then watch the pool
 * until it is there, with a bar, unless --no-wait is given. Nothing is decided here: a state that somebody else changes
 * meanwhile ends the watching, and is what is printed. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/progress.h"

/* A problem that stands for so long while nothing moves is why nothing does. */
enum { LOOK_MS = 50, STUCK_LOOKS = 60, WAIT_LOOKS = 20 };

struct watch {
        struct ctl *c;
        const char *name;
        struct json_object *path;
        struct json_object *pool;    /* its properties, as last seen */
        struct json_object *workers; /* restart: ids of those to be replaced */
        struct progress progress;
        uint64_t n_most;  /* jobs or workers that were to go */
        size_t n_at_work; /* of the workers last listed, those that are ready */
        size_t n_left;    /* restart: of those to be replaced */
        unsigned n_stuck;
        unsigned n_still; /* restart: looks since n_left changed */
};

static void watch_deinit(struct watch *w) {
        progress_clear(&w->progress);
        json_object_put(w->path);
        json_object_put(w->pool);
        json_object_put(w->workers);
}

/* The pool's properties anew. CTL_OK or the exit code, said. */
static int look(struct watch *w) {
        struct json_object *pool;
        int r = remote_get_all(w->c->remote, json_string(w->path), "Pool", &pool);

        if (r < 0) {
                progress_clear(&w->progress);
                return remote_report(w->c->remote, r);
        }
        json_object_put(w->pool);
        w->pool = pool;
        return CTL_OK;
}

static bool is_state(const struct watch *w, const char *state) {
        return strcmp(json_text(w->pool, "State", ""), state) == 0;
}

static int say_problem(struct watch *w) {
        progress_clear(&w->progress);
        ctl_error("pool %s: %s", w->name, json_text(w->pool, "Problem", "refused"));
        return CTL_REFUSED;
}

/* Of the pool's workers, the ids. CTL_OK or the exit code, said. */
static int list_workers(struct watch *w, struct json_object **ret) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListWorkers"};
        ctl_cleanup(json_putp) struct json_object *all = NULL;
        int r = remote_call(w->c->remote, &call, &all, NULL);

        if (r < 0) {
                progress_clear(&w->progress);
                return remote_report(w->c->remote, r);
        }
        *ret = json_object_new_array();
        w->n_at_work = 0;
        for (size_t i = 0; i < json_length(all); i++) {
                struct json_object *row = json_at(all, i);
                const char *state = json_string(json_at(row, 4));

                if (strcmp(json_string(json_at(row, 1)), w->name) != 0)
                        continue;
                json_object_array_add(*ret, json_object_get(json_at(row, 0)));
                w->n_at_work += strcmp(state, "idle") == 0 || strcmp(state, "running") == 0;
        }
        return CTL_OK;
}

/* ---- is it there? -1 = not yet, else the exit code ---- */

/* Not while the only workers are some that are coming: they may be it. */
static bool is_stuck(struct watch *w) {
        if (!*json_text(w->pool, "Problem", ""))
                w->n_stuck = 0;
        else if (w->n_at_work > 0 || json_number(w->pool, "Workers") == 0)
                w->n_stuck++;
        return w->n_stuck >= STUCK_LOOKS;
}

/* Its workers do not come up, and the daemon tries it seldom. */
static bool is_hopeless(const struct watch *w) {
        return is_state(w, "degraded") && w->n_at_work == 0 && *json_text(w->pool, "Problem", "");
}

/* The state says it all, in one answer, but for a degraded pool: some of its workers may be ready. */
static int is_started(struct watch *w) {
        ctl_cleanup(json_putp) struct json_object *now = NULL;
        uint64_t n = json_number(w->pool, "Workers"), wanted = json_number(w->pool, "MinWorkers");
        bool is_degraded = is_state(w, "degraded");
        int code = is_degraded ? list_workers(w, &now) : CTL_OK;

        if (code != CTL_OK)
                return code;
        progress_update(&w->progress, n, 0, wanted ? (double)n / (double)wanted : 1);
        if (is_state(w, "refused") || is_hopeless(w))
                return say_problem(w);
        if (!is_state(w, "starting") && (!is_degraded || w->n_at_work > 0))
                return CTL_OK;
        return is_stuck(w) ? say_problem(w) : -1;
}

static int is_drained(struct watch *w) {
        uint64_t left = json_number(w->pool, "Queued") + json_number(w->pool, "Running");

        w->n_most = left > w->n_most ? left : w->n_most;
        progress_update(&w->progress, w->n_most - left, 0,
                        w->n_most ? (double)(w->n_most - left) / (double)w->n_most : 1);
        return is_state(w, "draining") ? -1 : CTL_OK;
}

static int is_stopped(struct watch *w) {
        uint64_t left = json_number(w->pool, "Workers");

        w->n_most = left > w->n_most ? left : w->n_most;
        progress_update(&w->progress, w->n_most - left, 0,
                        w->n_most ? (double)(w->n_most - left) / (double)w->n_most : 1);
        /* A pool that somebody starts again meanwhile is none of ours. */
        return is_state(w, "draining") || (is_state(w, "stopped") && left > 0) ? -1 : CTL_OK;
}

static bool is_in(struct json_object *ids, uint64_t id) {
        for (size_t i = 0; i < json_length(ids); i++)
                if (json_object_get_uint64(json_at(ids, i)) == id)
                        return true;
        return false;
}

/* Is there somebody in place of the old ones? A pool without workers needs nobody. */
static bool has_successor(const struct watch *w) {
        return w->n_at_work > 0 || (json_number(w->pool, "MinWorkers") == 0 && is_state(w, "running"));
}

/* Of the old workers, those that have a job in hand: they end when it does. */
static void say_what_it_waits_for(struct watch *w, struct json_object *now) {
        for (size_t i = 0; i < json_length(now); i++) {
                uint64_t id = json_object_get_uint64(json_at(now, i));
                ctl_cleanup(json_putp) struct json_object *worker = NULL;
                char path[64];

                snprintf(path, sizeof path, REMOTE_MANAGER "/worker/%" PRIu64, id);
                if (!is_in(w->workers, id) || remote_get_all(w->c->remote, path, "Worker", &worker) < 0 ||
                    json_number(worker, "CurrentJob") == 0)
                        continue;
                progress_clear(&w->progress);
                if (!w->c->quiet)
                        fprintf(stderr, "%s: worker %" PRIu64 " has job %" PRIu64 " in hand, which is waited for\n",
                                w->name, id, json_number(worker, "CurrentJob"));
        }
}

static int is_restarted(struct watch *w) {
        ctl_cleanup(json_putp) struct json_object *now = NULL;
        size_t n_old = json_length(w->workers), n_left = 0;
        int code = list_workers(w, &now);

        if (code != CTL_OK)
                return code;
        for (size_t i = 0; i < n_old; i++)
                n_left += is_in(now, json_object_get_uint64(json_at(w->workers, i)));
        progress_update(&w->progress, n_old - n_left, 0, n_old ? (double)(n_old - n_left) / (double)n_old : 1);
        if (is_state(w, "refused") || (n_left == 0 && is_hopeless(w)))
                return say_problem(w);
        if (n_left != w->n_left)
                w->n_stuck = w->n_still = 0;
        if (n_left > 0 && ++w->n_still == WAIT_LOOKS)
                say_what_it_waits_for(w, now);
        w->n_left = n_left;
        if (n_left == 0 && (has_successor(w) || is_state(w, "stopped") || is_state(w, "draining")))
                return CTL_OK;
        return is_stuck(w) ? say_problem(w) : -1;
}

/* ---- one verb ---- */

struct verb {
        const char *member;
        const char *counted;              /* by the bar */
        int (*is_there)(struct watch *w); /* NULL: at once */
};

static int watch(struct watch *w, const struct verb *verb) {
        int code = CTL_OK;

        progress_init(&w->progress, !w->c->quiet, verb->counted);
        do {
                code = look(w);
                if (code != CTL_OK)
                        return code;
                code = verb->is_there(w);
                if (code < 0 && remote_pause(LOOK_MS, -1) < 0)
                        code = CTL_INTERRUPTED;
        } while (code < 0);
        return code;
}

static int act(struct watch *w, const struct verb *verb) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        struct remote_call call = {.interface = "Pool", .member = verb->member};
        int code, r = remote_call(w->c->remote, &get, &w->path, "s", w->name);

        if (r < 0)
                return remote_report(w->c->remote, r);
        if (verb->is_there == is_restarted && (code = list_workers(w, &w->workers)) != CTL_OK)
                return code;
        call.path = json_string(w->path);
        r = remote_call(w->c->remote, &call, NULL, NULL);
        if (r < 0)
                return remote_report(w->c->remote, r);
        return verb->is_there && !w->c->no_wait ? watch(w, verb) : look(w);
}

static void print_state(struct ctl *c, struct json_object *done, const char *name, const char *state) {
        struct json_object *o = json_object_new_object();

        json_object_object_add(o, "pool", json_object_new_string(name));
        json_object_object_add(o, "state", json_object_new_string(state));
        json_object_array_add(done, o);
        if (c->json == CTL_JSON_OFF && !c->quiet)
                printf("%s is %s\n", name, state);
}

/* All pools of the command line, one after the other; the first failure ends it. */
static int act_on_pools(struct ctl *c, const struct verb *verb, int n_pools) {
        ctl_cleanup(json_putp) struct json_object *done = json_object_new_array();
        int code = CTL_OK;

        ctl_catch_interrupts();
        for (int i = 0; i < n_pools && code == CTL_OK; i++) {
                struct watch w = {.c = c, .name = c->operands[i]};

                code = act(&w, verb);
                progress_clear(&w.progress);
                if (code == CTL_OK)
                        print_state(c, done, w.name, json_text(w.pool, "State", "?"));
                watch_deinit(&w);
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, done, c->json);
        return code;
}

int verb_start(struct ctl *c) {
        return act_on_pools(c, &(const struct verb){"Start", "workers", is_started}, c->n_operands);
}

int verb_stop(struct ctl *c) {
        return act_on_pools(c, &(const struct verb){"Stop", "workers", is_stopped}, c->n_operands);
}

int verb_restart(struct ctl *c) {
        return act_on_pools(c, &(const struct verb){"Restart", "workers", is_restarted}, c->n_operands);
}

int verb_drain(struct ctl *c) {
        return act_on_pools(c, &(const struct verb){"Drain", "jobs", is_drained}, c->n_operands);
}

int verb_pause(struct ctl *c) { return act_on_pools(c, &(const struct verb){.member = "Pause"}, c->n_operands); }

int verb_resume(struct ctl *c) { return act_on_pools(c, &(const struct verb){.member = "Resume"}, c->n_operands); }

int verb_reset_failed(struct ctl *c) {
        return act_on_pools(c, &(const struct verb){.member = "ResetFailed"}, c->n_operands);
}

int verb_resize(struct ctl *c) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *done = json_object_new_object();
        char *end;
        unsigned long n;
        int r;

        errno = 0;
        n = strtoul(c->operands[1], &end, 10);
        if (*c->operands[1] < '0' || *c->operands[1] > '9' || *end || errno || n > UINT32_MAX) {
                ctl_error("resize %s %s: not a number of workers", c->operands[0], c->operands[1]);
                return CTL_USAGE;
        }
        r = remote_call(c->remote, &get, &path, "s", c->operands[0]);
        const struct remote_call call = {.path = json_string(path), .interface = "Pool", .member = "Resize"};
        if (r >= 0)
                r = remote_call(c->remote, &call, NULL, "u", (uint32_t)n);
        if (r < 0)
                return remote_report(c->remote, r);
        json_object_object_add(done, "pool", json_object_new_string(c->operands[0]));
        json_object_object_add(done, "workers", json_object_new_int64((int64_t)n));
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, done, c->json);
        else if (!c->quiet)
                printf("%s has %lu workers\n", c->operands[0], n);
        return CTL_OK;
}
