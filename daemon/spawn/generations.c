/* Owns the table of generations and what their workers' environment is.
 *
 * Invariants: an id is in the table once; a generation without a plugin (plugin_fd < 0) has no template and no worker,
 * and the broker hears of it by exactly one SPAWN_LOADED, be it by a copy, a failure or its own RETIRE.
 *
 * A pool's environment may not name LD_…: the loader would run what it names before the sandbox closes. */
#include "daemon/spawn/generations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/spawn/events.h"

struct generation *generations_find(struct spawner *s, uint32_t id) {
        for (unsigned i = 0; i < s->n_generations; i++)
                if (s->generations[i]->id == id)
                        return s->generations[i];
        return NULL;
}

struct generation *generations_find_loaded(struct spawner *s, uint32_t id) {
        struct generation *g = generations_find(s, id);
        return g && g->plugin_fd >= 0 ? g : NULL;
}

static struct generation *generation_free(struct generation *g) {
        if (!g)
                return NULL;
        if (g->plugin_fd >= 0)
                close(g->plugin_fd);
        free(g->envp);
        free(g);
        return NULL;
}

void generations_forget(struct spawner *s, struct generation *g) {
        for (unsigned i = 0; i < s->n_generations; i++)
                if (s->generations[i] == g)
                        s->generations[i] = s->generations[--s->n_generations];
        generation_free(g);
}

/* What every worker gets: a fixed part, then the pool's. */
static int fill_environment(struct spawner *s, struct generation *g) {
        size_t n = 0, max = s->n_environment + 1;
        for (const char *e = g->environment; *e; e += strlen(e) + 1)
                max++;
        g->envp = calloc(max, sizeof *g->envp);
        if (!g->envp)
                return -ENOMEM;
        for (; n < s->n_environment; n++)
                g->envp[n] = s->environment[n];
        for (char *e = g->environment; *e; e += strlen(e) + 1)
                g->envp[n++] = e;
        return 0;
}

static bool has_loader_variable(const char *environment) {
        for (const char *e = environment; *e; e += strlen(e) + 1)
                if (strncmp(e, "LD_", 3) == 0)
                        return true;
        return false;
}

static int refuse(struct spawn_event *e, int error, bool is_permanent, const char *text) {
        e->error = error;
        e->is_permanent = is_permanent;
        events_text(e, "%s", text);
        return -error;
}

int generations_add(struct spawner *s, const struct spawn_request *q, struct generation **ret, struct spawn_event *e) {
        if (s->n_generations == SPAWNER_MAX_GENERATIONS)
                return refuse(e, ENOSPC, false,
                              "so many plugin files are loaded already that there is no room for another: "
                              "have fewer pools (MaxPools= in drover.conf)");
        if (has_loader_variable(q->environment))
                return refuse(e, EPERM, true,
                              "Environment= sets a variable of the dynamic loader (LD_...), whose code would run "
                              "outside the sandbox: remove it");
        struct generation *g = calloc(1, sizeof *g);
        if (!g)
                return refuse(e, ENOMEM, false, "no memory for another plugin");
        g->id = q->generation;
        g->plugin_fd = -1;
        g->limits = (struct limits){.memory_bytes = q->memory_bytes, .oom_score_adj = q->oom_score_adj};
        limits_resolve(&g->limits);
        memcpy(g->pool, q->pool, sizeof g->pool);
        memcpy(g->plugin, q->plugin, sizeof g->plugin);
        memcpy(g->environment, q->environment, sizeof g->environment);
        if (fill_environment(s, g) < 0) {
                generation_free(g);
                return refuse(e, ENOMEM, false, "no memory for another plugin");
        }
        s->generations[s->n_generations++] = g;
        *ret = g;
        return 0;
}

void generations_loaded(struct spawner *s, struct generation *g, int plugin_fd) {
        g->plugin_fd = plugin_fd;
        struct spawn_event e = {.type = SPAWN_LOADED, .generation = g->id};
        events_send(s, &e, NULL, 0);
}

void generations_failed(struct spawner *s, struct generation *g, struct spawn_event *e) {
        e->type = SPAWN_LOADED;
        e->generation = g->id;
        generations_forget(s, g);
        events_send(s, e, NULL, 0);
}
