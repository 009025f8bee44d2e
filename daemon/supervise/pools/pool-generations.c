/* The plugin files of a pool, each a generation: a sealed copy that the spawner keeps.
 *
 * At most three at a time: the current one, one that is being loaded, and the one to go back to until a worker of the
 * current one was ready. A file that cannot run at all is given up for the old one, and the pool says so; without an
 * old one the pool is refused. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/supervisor-internal.h"

enum { GENERATIONS_MORE_EXPENDABLE = 200 };

static void pool_forget_generation(struct pool *p, uint32_t generation) {
        struct spawn_request request = {.type = SPAWN_RETIRE, .version = WIRE_VERSION, .generation = generation};
        if (generation)
                spawner_send(p->supervisor->spawner, &request);
}

void pool_forget_old_generation(struct pool *p) {
        pool_forget_generation(p, p->old_generation);
        p->old_generation = 0;
}

/* None of its workers was ready yet: they go, too. */
static void pool_give_up_generation(struct pool *p, uint32_t generation) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i] && p->workers[i]->generation == generation && p->workers[i]->phase != PHASE_STOPPING)
                        worker_kill_now(p->workers[i], REASON_RECYCLED);
        pool_forget_generation(p, generation);
}

/* Also one that is still being loaded: nobody would ask for it when it is. */
void pool_forget_generations(struct pool *p) {
        pool_forget_generation(p, p->generation);
        pool_forget_generation(p, p->old_generation);
        pool_forget_generation(p, p->loading);
        p->generation = p->old_generation = p->loading = 0;
        p->is_file_bad = false;
}

/* That of its workers: when memory is short, they go before we do. */
static int32_t pool_oom_score_adj(void) {
        char text[16] = "";
        int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (fd >= 0)
                close(fd);
        return (n > 0 ? atoi(text) : 0) + GENERATIONS_MORE_EXPENDABLE;
}

void pool_load(struct pool *p) {
        struct spawn_request request = {
                .type = SPAWN_LOAD,
                .version = WIRE_VERSION,
                .generation = ++p->supervisor->last_generation,
                .method = p->config.start_method,
                .oom_score_adj = pool_oom_score_adj(),
                .memory_bytes = p->config.memory_bytes,
        };
        snprintf(request.pool, sizeof(request.pool), "%s", p->config.name);
        snprintf(request.plugin, sizeof(request.plugin), "%s", p->config.plugin);
        memcpy(request.environment, p->config.environment, sizeof(request.environment));
        if (spawner_send(p->supervisor->spawner, &request) < 0)
                return;
        pool_forget_generation(p, p->loading); /* a file that is older than the wish for a new one */
        p->loading = request.generation;
}

/* Workers of the old file that come up do not make the new one good: it is told until another one is loaded. */
void pool_set_file_problem(struct pool *p, const char *text) {
        pool_set_problem(p, "the new plugin file is not used: %.400s", text);
        p->is_file_bad = true;
}

static void pool_take_generation(struct pool *p, uint32_t generation) {
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        p->workers[i]->is_outdated = true;
        if (p->old_generation) /* the one before this has not shown yet that it runs, the old one has */
                pool_give_up_generation(p, p->generation);
        else
                p->old_generation = p->generation;
        p->generation = generation;
        if (p->is_file_bad)
                p->problem[0] = 0;
        p->is_file_bad = false;
}

void pool_on_loaded(struct pool *p, const struct spawn_event *e) {
        if (e->generation != p->loading)
                return;
        p->loading = 0;
        if (e->error && p->generation) {
                pool_set_file_problem(p, e->text);
        } else if (e->error && e->is_permanent) {
                pool_refuse(p, e->text);
                return;
        } else if (e->error) {
                pool_set_problem(p, "%.400s", e->text);
                pool_note_failure(p);
        } else {
                pool_take_generation(p, e->generation);
        }
        pool_settle(p);
}

bool pool_roll_back(struct pool *p) {
        if (!p->old_generation)
                return false;
        pool_give_up_generation(p, p->generation);
        for (uint32_t i = 0; i < LAYOUT_MAX_WORKERS; i++)
                if (p->workers[i])
                        p->workers[i]->is_outdated = p->workers[i]->generation != p->old_generation;
        p->generation = p->old_generation;
        p->old_generation = 0;
        return true;
}

void pool_on_template(struct pool *p, const struct spawn_event *e) {
        char text[sizeof(e->text)];
        snprintf(text, sizeof(text), "%s", e->text);
        if (p->generation == e->generation)
                log_debug("pool %s: its template (pid %d) ended: %s", p->config.name, (int)e->pid, text);
}
