/* Which files make up the settings, and in which order they count.
 *
 *   drover.conf          the last directory that has one; then drover.conf.d/NAME.conf of all, by name
 *   pools.d/NAME.pool    one pool each; then pools.d/NAME.pool.d/NAME.conf of all, by name
 *
 * Every file is read to its end whatever it holds: the first error of a pool is kept in its entry and the pool is
 * refused by it; unknown keys are only warned about, so that an older droverd reads a newer file. A pool whose file or
 * drop-ins cannot be read is refused in the same way: without a part of its settings it would be another pool. Which
 * pools there are must be known, so a folder of pools that cannot be read is the end of it.
 *
 * A file that is gone when its turn comes was removed in between: everything is read again, a few times. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config/config-file.h"
#include "daemon/config/config-keys.h"
#include "daemon/config/config-value.h"
#include "daemon/config/config.h"
#include "daemon/log/log.h"

enum { MAX_READINGS = 10 };

/* ---- where ---- */

static int paths_add(struct config_paths *p, const char *dir, size_t length, const char *suffix) {
        if (p->n_config_dirs == sizeof(p->config_dirs) / sizeof(*p->config_dirs))
                return 0;
        if (asprintf(&p->config_dirs[p->n_config_dirs], "%.*s%s", (int)length, dir, suffix) < 0)
                return -ENOMEM;
        p->n_config_dirs++;
        return 0;
}

/* $XDG_CONFIG_DIRS lists the most important first. */
static int paths_add_xdg(struct config_paths *p, const char *list) {
        const char *start, *end = list + strlen(list);
        int r = 0;

        for (unsigned n = 0; end > list && n < 6 && r >= 0; n++) {
                start = memrchr(list, ':', (size_t)(end - list));
                start = start ? start + 1 : list;
                if (*start == '/')
                        r = paths_add(p, start, (size_t)(end - start), "/drover");
                end = start > list ? start - 1 : list;
        }
        return r;
}

static int paths_init_user(struct config_paths *p) {
        const char *dirs = getenv("XDG_CONFIG_DIRS"), *runtime = getenv("XDG_RUNTIME_DIR"),
                   *own = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        int r;

        r = paths_add_xdg(p, dirs && *dirs ? dirs : "/etc/xdg");
        if (r >= 0 && runtime && *runtime == '/')
                r = paths_add(p, runtime, strlen(runtime), "/drover");
        if (r >= 0 && own && *own == '/')
                r = paths_add(p, own, strlen(own), "/drover");
        else if (r >= 0 && home && *home == '/')
                r = paths_add(p, home, strlen(home), "/.config/drover");
        return r;
}

int config_paths_init(struct config_paths *p, bool is_user, const char *config_dir) {
        static const char *const system_dirs[] = {"/usr/lib/drover", "/run/drover", "/etc/drover"};
        int r = 0;

        *p = (struct config_paths){};
        if (config_dir)
                r = paths_add(p, config_dir, strlen(config_dir), "");
        else if (is_user)
                r = paths_init_user(p);
        else
                for (unsigned i = 0; i < 3 && r >= 0; i++)
                        r = paths_add(p, system_dirs[i], strlen(system_dirs[i]), "");
        if (r < 0)
                config_paths_deinit(p);
        return r;
}

void config_paths_deinit(struct config_paths *p) {
        for (unsigned i = 0; i < p->n_config_dirs; i++)
                free(p->config_dirs[i]);
        *p = (struct config_paths){};
}

/* Where it stands from now on. */
static void note(struct pool_config *c, const struct pool_config *defaults, const char *key, const char *value,
                 const char *path, unsigned line) {
        if (value[0])
                config_origins_note(&c->origins, key, path, line);
        else
                config_origins_reset(&c->origins, &defaults->origins, key);
}

/* ---- drover.conf ---- */

struct loading_daemon {
        struct daemon_config *daemon;
        struct pool_config builtin;
        char *error;
        size_t error_bytes;
};

static int set_log_level(struct daemon_config *d, const char *value, char *why, size_t why_bytes) {
        enum log_level level;

        if (value[0] == '\0') {
                d->log_level = -1;
                return 0;
        }
        if (log_level_from_string(value, &level) < 0) {
                snprintf(why, why_bytes, "LogLevel=%s: not one of error, warning, notice, info, debug", value);
                return -EINVAL;
        }
        d->log_level = (int)level;
        return 0;
}

static int set_max_pools(struct daemon_config *d, const char *value, char *why, size_t why_bytes) {
        uint64_t n = DAEMON_MAX_POOLS;

        if (value[0] != '\0' && (value_parse_number(value, &n) < 0 || n < 1 || n > DAEMON_MAX_POOLS)) {
                snprintf(why, why_bytes, "MaxPools=%s: not a number from 1 to %d", value, DAEMON_MAX_POOLS);
                return -EINVAL;
        }
        d->max_pools = (uint32_t)n;
        return 0;
}

static int set_daemon_key(struct daemon_config *d, const char *key, const char *value, char *why, size_t why_bytes) {
        if (strcmp(key, "LogLevel") == 0)
                return set_log_level(d, value, why, why_bytes);
        if (strcmp(key, "MaxPools") == 0)
                return set_max_pools(d, value, why, why_bytes);
        snprintf(why, why_bytes, "unknown key %s= in [Daemon], the known ones are LogLevel= and MaxPools=", key);
        return -ENOENT;
}

int config_daemon_set(struct daemon_config *d, const struct pool_config *builtin, const char *section, const char *key,
                      const char *value, char *why, size_t why_bytes) {
        if (strcmp(section, "Daemon") == 0)
                return set_daemon_key(d, key, value, why, why_bytes);
        if (strcmp(key, "Plugin") == 0) {
                snprintf(why, why_bytes, "Plugin=%s: a plugin belongs in a pool's file", value);
                return -EINVAL;
        }
        return config_key_set(&d->pool_defaults, builtin, section, key, value, why, why_bytes);
}

static int on_daemon_setting(void *user, const char *path, unsigned line, const char *section, const char *key,
                             const char *value) {
        struct loading_daemon *l = user;
        char why[400];
        int r;

        r = config_daemon_set(l->daemon, &l->builtin, section, key, value, why, sizeof(why));
        if (r >= 0)
                note(&l->daemon->pool_defaults, &l->builtin, key, value, path, line);
        if (r == -ENOENT) {
                log_warning("%s:%u: %s; ignored", path, line, why);
                return 0;
        }
        if (r < 0) {
                snprintf(l->error, l->error_bytes, "%s:%u: %s", path, line, why);
                return -EINVAL;
        }
        return 0;
}

static int load_daemon(const struct config_paths *p, struct daemon_config *ret, char *error, size_t error_bytes) {
        struct loading_daemon l = {.daemon = ret, .error = error, .error_bytes = error_bytes};
        struct config_list lists[2] = {};
        int r;

        pool_config_defaults(&l.builtin);
        *ret = (struct daemon_config){.pool_defaults = l.builtin, .log_level = -1, .max_pools = DAEMON_MAX_POOLS};
        r = config_find_last(p->config_dirs, p->n_config_dirs, "drover.conf", &lists[0]);
        if (r >= 0)
                r = config_list_find(p->config_dirs, p->n_config_dirs, "drover.conf.d", ".conf", &lists[1]);
        if (r < 0)
                snprintf(error, error_bytes, "%s", lists[0].error[0] ? lists[0].error : lists[1].error);
        for (unsigned k = 0; k < 2; k++)
                for (size_t i = 0; i < lists[k].n && r >= 0; i++) {
                        config_origins_add_file(&ret->pool_defaults.origins, lists[k].paths[i]);
                        r = config_file_read(lists[k].paths[i], on_daemon_setting, &l, error, error_bytes);
                }
        config_list_free(&lists[0]);
        config_list_free(&lists[1]);
        return r;
}

/* ---- pools ---- */

struct loading_pool {
        struct pool_file *file;
        const struct pool_config *defaults;
};

__attribute__((format(printf, 2, 3))) static void refuse(struct pool_file *f, const char *format, ...) {
        va_list ap;

        if (f->is_bad)
                return;
        va_start(ap, format);
        vsnprintf(f->error, sizeof(f->error), format, ap);
        va_end(ap);
        f->is_bad = true;
}

static int on_pool_setting(void *user, const char *path, unsigned line, const char *section, const char *key,
                           const char *value) {
        struct loading_pool *l = user;
        char why[400];
        int r;

        r = config_key_set(&l->file->config, l->defaults, section, key, value, why, sizeof(why));
        if (r >= 0)
                note(&l->file->config, l->defaults, key, value, path, line);
        if (r == -ENOENT)
                log_warning("%s:%u: %s; ignored", path, line, why);
        else if (r < 0)
                refuse(l->file, "%s:%u: %s", path, line, why);
        else if (strcmp(key, "Plugin") == 0)
                snprintf(l->file->config.where_plugin, sizeof(l->file->config.where_plugin), "%s:%u", path, line);
        return 0;
}

/* -ENOENT: it is gone. */
static int read_pool_file(struct loading_pool *l, const char *path) {
        char error[512];
        config_origins_add_file(&l->file->config.origins, path);
        int r = config_file_read(path, on_pool_setting, l, error, sizeof(error));

        if (r < 0 && r != -ENOENT)
                refuse(l->file, "%s", error);
        return r == -ENOENT ? r : 0;
}

static int load_pool(const struct config_paths *p, const struct pool_config *defaults, const char *path,
                     struct pool_file *f) {
        struct loading_pool l = {.file = f, .defaults = defaults};
        struct config_list drop_ins = {};
        char name[128], subdir[160], why[300];
        int r;

        snprintf(name, sizeof(name), "%s", config_base_name(path));
        name[strlen(name) - strlen(".pool")] = '\0';
        *f = (struct pool_file){.config = *defaults};
        snprintf(f->path, sizeof(f->path), "%s", path);
        if (!pool_name_is_valid(name)) {
                refuse(f, "%s: \"%s\" is not a pool name: 1 to %d of A-Z a-z 0-9 _ . -", path, name, POOL_NAME_MAX);
                return 0;
        }
        strcpy(f->config.name, name);
        snprintf(subdir, sizeof(subdir), "pools.d/%s.pool.d", name);
        r = config_list_find(p->config_dirs, p->n_config_dirs, subdir, ".conf", &drop_ins);
        if (r < 0 && r != -ENOENT)
                refuse(f, "%s", drop_ins.error);
        if (r != -ENOENT)
                r = read_pool_file(&l, path);
        for (size_t i = 0; i < drop_ins.n && r >= 0; i++)
                r = read_pool_file(&l, drop_ins.paths[i]);
        config_list_free(&drop_ins);
        if (r >= 0 && pool_config_check(&f->config, why, sizeof(why)) < 0)
                refuse(f, "%s:1: %s", path, why);
        return r;
}

static int load_pools(const struct config_paths *p, struct config_files *f, char *error, size_t error_bytes) {
        struct config_list list = {};
        int r;

        r = config_list_find(p->config_dirs, p->n_config_dirs, "pools.d", ".pool", &list);
        if (r < 0) {
                snprintf(error, error_bytes, "%s", list.error);
                return r;
        }
        f->pools = calloc(list.n ? list.n : 1, sizeof(*f->pools));
        if (!f->pools) {
                snprintf(error, error_bytes, "out of memory");
                r = -ENOMEM;
        }
        for (; f->n_pools < list.n && r >= 0; f->n_pools++) {
                r = load_pool(p, &f->daemon.pool_defaults, list.paths[f->n_pools], &f->pools[f->n_pools]);
                if (r < 0)
                        snprintf(error, error_bytes, "%s: comes and goes while it is read", list.paths[f->n_pools]);
        }
        config_list_free(&list);
        return r;
}

/* ---- all ---- */

void config_files_deinit(struct config_files *f) {
        free(f->pools);
        *f = (struct config_files){};
}

int config_load(const struct config_paths *p, struct config_files *ret, char *error, size_t error_bytes) {
        struct config_files f = {};
        int r = -ENOENT;

        for (unsigned i = 0; i < MAX_READINGS && r == -ENOENT; i++) {
                config_files_deinit(&f);
                r = load_daemon(p, &f.daemon, error, error_bytes);
                if (r >= 0)
                        r = load_pools(p, &f, error, error_bytes);
        }
        if (r < 0)
                config_files_deinit(&f);
        else
                *ret = f;
        return r;
}
