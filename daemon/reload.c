/* Brings the pools in line with the files.
 *
 * Everything was read and checked before (config-reader.h): what cannot be read is no configuration. Here pools are
 * added, changed and removed one by one. A pool made by CreatePool is nobody's file: it is left alone, and a file that
 * claims its name is refused. A file that went bad leaves its running pool as it is. What the supervisor refuses costs
 * that pool only. */
#include "daemon/reload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config/config-file.h"
#include "daemon/log/log.h"

struct reloading {
        struct supervisor *supervisor;
        const struct config_files *files;
        struct reload_report report;
        size_t capacity;
};

/* Room was made for two lines a pool beforehand, so that nothing fails half way. A pool's Problem is the supervisor's
 * to log. */
__attribute__((format(printf, 3, 4))) static void tell(struct reloading *r, const char *name, const char *format, ...) {
        struct reload_change *c;
        va_list ap;

        if (r->report.n_changes == r->capacity)
                return;
        c = &r->report.changes[r->report.n_changes++];
        *c = (struct reload_change){.kind = "pool"};
        snprintf(c->name, sizeof(c->name), "%s", name);
        va_start(ap, format);
        vsnprintf(c->what, sizeof(c->what), format, ap);
        va_end(ap);
        if (strncmp(c->what, "refused", 7) != 0)
                log_info("pool %s %s", c->name, c->what);
}

static void tell_fault(struct reloading *r, const char *name, const struct fault *f) {
        tell(r, name, "refused: %s", f->text);
        log_error("pool %s: %s", name, f->text);
}

static void tell_refused(struct reloading *r, const struct pool *pool) {
        struct pool_info info;

        pool_get_info(pool, &info);
        tell(r, info.name, "refused: %s", info.problem);
}

static void add_pool(struct reloading *r, const struct pool_file *f) {
        struct pool *pool;
        struct fault fault = {};

        if (supervisor_add_pool(r->supervisor, &f->config, false, f->is_bad ? f->error : NULL, &pool, &fault) < 0)
                tell_fault(r, f->config.name, &fault);
        else if (pool_get_state(pool) == POOL_REFUSED)
                tell_refused(r, pool);
        else
                tell(r, f->config.name, "added");
}

static void update_pool(struct reloading *r, struct pool *pool, const struct pool_file *f) {
        struct fault fault = {};
        struct pool_info info;
        char differences[400];

        if (pool_is_runtime(pool)) {
                tell(r, f->config.name, "refused: %s: a pool of that name was made over the bus", f->path);
                log_error("pool %s: %s is left aside: a pool of that name was made over the bus", f->config.name,
                          f->path);
                return;
        }
        pool_get_info(pool, &info);
        pool_config_differences(pool_get_file_config(pool), &f->config, differences, sizeof(differences));
        if (!f->is_bad && differences[0] == '\0')
                pool_set_origins(pool, &f->config.origins);
        if (!f->is_bad && differences[0] == '\0' && info.problem[0] == '\0')
                return;
        if (supervisor_update_pool(r->supervisor, pool, &f->config, f->is_bad ? f->error : NULL, &fault) < 0)
                tell_fault(r, f->config.name, &fault);
        else if (f->is_bad)
                tell(r, f->config.name, "refused: %s", f->error);
        else if (differences[0])
                tell(r, f->config.name, "changed: %s", differences);
        else
                tell(r, f->config.name, "tried again");
}

static bool has_file(const struct reloading *r, const char *name) {
        for (size_t i = 0; i < r->files->n_pools; i++)
                if (strcmp(r->files->pools[i].config.name, name) == 0)
                        return true;
        return false;
}

/* Only the name is kept over the removal: what follows is found anew each time. */
static void remove_pools(struct reloading *r) {
        struct pool *pool, *next;
        struct pool_info info;

        for (pool = supervisor_next_pool(r->supervisor, NULL); pool; pool = next) {
                next = supervisor_next_pool(r->supervisor, pool);
                pool_get_info(pool, &info);
                if (pool_is_runtime(pool) || has_file(r, info.name))
                        continue;
                tell(r, info.name, "removed");
                supervisor_remove_pool(r->supervisor, pool);
        }
}

static int make_room(struct reloading *r, struct fault *f) {
        size_t n_pools = 0;

        for (struct pool *pool = supervisor_next_pool(r->supervisor, NULL); pool;
             pool = supervisor_next_pool(r->supervisor, pool))
                n_pools++;
        r->capacity = 2 * (n_pools + r->files->n_pools) + 1;
        r->report.changes = calloc(r->capacity, sizeof(*r->report.changes));
        return r->report.changes ? 0 : fault_set(f, FAULT_INTERNAL, "out of memory");
}

int reload_apply(struct supervisor *s, const struct config_files *files, struct reload_report *ret, struct fault *f) {
        struct reloading r = {.supervisor = s, .files = files};
        const struct pool_file *file;
        struct pool *pool;

        if (make_room(&r, f) < 0)
                return -1;
        supervisor_set_max_pools(s, files->daemon.max_pools);
        remove_pools(&r);
        for (size_t i = 0; i < files->n_pools; i++) {
                file = &files->pools[i];
                if (file->config.name[0] == '\0') {
                        tell(&r, config_base_name(file->path), "refused: %s",
                             file->error); /* no name a pool could have */
                        log_error("%s", file->error);
                        continue;
                }
                pool = supervisor_find_pool(s, file->config.name);
                if (pool)
                        update_pool(&r, pool, file);
                else
                        add_pool(&r, file);
        }
        *ret = r.report;
        return 0;
}

void reload_report_add(struct reload_report *r, const char *what) {
        struct reload_change *changes = reallocarray(r->changes, r->n_changes + 1, sizeof(*changes));

        if (!changes)
                return;
        r->changes = changes;
        changes[r->n_changes] = (struct reload_change){.kind = "daemon", .name = "droverd"};
        snprintf(changes[r->n_changes++].what, sizeof(changes->what), "%s", what);
        log_info("droverd: %s", what);
}

void reload_report_deinit(struct reload_report *r) {
        free(r->changes);
        *r = (struct reload_report){};
}

size_t reload_check(const struct config_paths *p) {
        struct config_files files;
        size_t n_errors = 0;
        char error[512];

        if (config_load(p, &files, error, sizeof(error)) < 0) {
                log_error("%s", error);
                return 1;
        }
        for (size_t i = 0; i < files.n_pools; i++)
                if (files.pools[i].is_bad) {
                        log_error("%s", files.pools[i].error);
                        n_errors++;
                }
        config_files_deinit(&files);
        return n_errors;
}
