/* A file is read as droverd reads it, by the same table of keys, and every problem is told. A drop-in is looked at
 * alone: what only the whole shows is left to the pool file and to `droverd --check`, which reads all files there are.
 * A link to /dev/null has nothing wrong in it: it takes away the file of its name in the directories before. */
#include "daemon/config/config-verify.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config/config-file.h"
#include "daemon/config/config-keys.h"

enum file_kind { FILE_POOL, FILE_POOL_DROP_IN, FILE_DAEMON };

struct verifying {
        config_problem_fn fn;
        void *user;
        enum file_kind kind;
        struct pool_config builtin, pool;
        struct daemon_config daemon;
        unsigned n_errors;
};

static void tell(struct verifying *v, bool is_error, const char *text) {
        v->n_errors += is_error;
        v->fn(v->user, is_error, text);
}

static int on_setting(void *user, const char *path, unsigned line, const char *section, const char *key,
                      const char *value) {
        struct verifying *v = user;
        char why[400], text[800];
        int r;

        if (v->kind == FILE_DAEMON)
                r = config_daemon_set(&v->daemon, &v->builtin, section, key, value, why, sizeof(why));
        else
                r = config_key_set(&v->pool, &v->builtin, section, key, value, why, sizeof(why));
        if (r < 0) {
                snprintf(text, sizeof(text), "%s:%u: %s%s", path, line, why, r == -ENOENT ? "; ignored" : "");
                tell(v, r != -ENOENT, text);
        }
        return 0;
}

static bool ends_with(const char *text, size_t length, const char *end) {
        size_t n = strlen(end);

        return length >= n && memcmp(text + length - n, end, n) == 0;
}

static int find_kind(const char *path, enum file_kind *ret) {
        const char *name = config_base_name(path);
        size_t folder = name > path ? (size_t)(name - path) - 1 : 0;

        if (name[0] == '.')
                return -EINVAL; /* droverd passes it over */
        if (ends_with(name, strlen(name), ".pool"))
                *ret = FILE_POOL;
        else if (strcmp(name, "drover.conf") == 0)
                *ret = FILE_DAEMON;
        else if (ends_with(name, strlen(name), ".conf") && ends_with(path, folder, ".pool.d"))
                *ret = FILE_POOL_DROP_IN;
        else if (ends_with(name, strlen(name), ".conf") && ends_with(path, folder, "drover.conf.d"))
                *ret = FILE_DAEMON;
        else
                return -EINVAL;
        return 0;
}

/* The pool as a whole, named after its file. */
static void check_whole(struct verifying *v, const char *path) {
        char why[300], text[700], name[256];

        snprintf(name, sizeof(name), "%s", config_base_name(path));
        name[strlen(name) - strlen(".pool")] = '\0';
        if (!pool_name_is_valid(name)) {
                snprintf(text, sizeof(text), "%s: \"%s\" is not a pool name: 1 to %d of A-Z a-z 0-9 _ . -", path, name,
                         POOL_NAME_MAX);
                tell(v, true, text);
                return;
        }
        strcpy(v->pool.name, name);
        if (pool_config_check(&v->pool, why, sizeof(why)) < 0) {
                snprintf(text, sizeof(text), "%s:1: %s", path, why);
                tell(v, true, text);
        }
}

int config_verify(const char *path, config_problem_fn fn, void *user) {
        struct verifying v = {.fn = fn, .user = user};
        char error[512];

        if (find_kind(path, &v.kind) < 0)
                return -EINVAL;
        if (config_is_masked(path))
                return 0;
        pool_config_defaults(&v.builtin);
        v.pool = v.daemon.pool_defaults = v.builtin;
        if (config_file_read(path, on_setting, &v, error, sizeof(error)) < 0)
                tell(&v, true, error);
        else if (v.kind == FILE_POOL)
                check_whole(&v, path);
        return (int)v.n_errors;
}
