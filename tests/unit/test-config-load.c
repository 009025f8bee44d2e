/* drover.conf, pools, drop-ins and masks in several directories, as the daemon loads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/log.h"

static char directory[] = "/tmp/drover-config-load-XXXXXX";
static char low[64], high[64];
static struct config_paths paths = {.config_dirs = {low, high}, .n_config_dirs = 2};

/* Makes the directories on the way. */
static void put(const char *dir, const char *name, const char *text) {
        char file[200];
        FILE *f;

        snprintf(file, sizeof(file), "%s/%s", dir, name);
        for (char *slash = strchr(file + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                mkdir(file, 0700);
                *slash = '/';
        }
        f = fopen(file, "we");
        assert_non_null(f);
        fputs(text, f);
        fclose(f);
}

static const struct pool_file *find(const struct pool_file *files, size_t n, const char *name) {
        for (size_t i = 0; i < n; i++)
                if (strcmp(files[i].config.name, name) == 0)
                        return &files[i];
        return NULL;
}

static int start(void **state) {
        char command[160];

        strcpy(directory, "/tmp/drover-config-load-XXXXXX");
        if (!mkdtemp(directory))
                return -1;
        snprintf(low, sizeof(low), "%s/low", directory);
        snprintf(high, sizeof(high), "%s/high", directory);
        snprintf(command, sizeof(command), "mkdir %s %s", low, high);
        return system(command);
}

static int end(void **state) {
        char command[80];

        snprintf(command, sizeof(command), "rm -r %s", directory);
        return system(command);
}

static void test_nothing(void **state) {
        struct daemon_config d;
        struct pool_file *files;
        char error[400];
        size_t n;

        assert_int_equal(config_load_daemon(&paths, &d, error, sizeof(error)), 0);
        assert_int_equal(d.log_level, -1);
        assert_int_equal(config_load_pools(&paths, &d, &files, &n), 0);
        assert_int_equal(n, 0);
        free(files);
}

static void test_layers(void **state) {
        const struct pool_file *f;
        struct daemon_config d;
        struct pool_file *files;
        char error[400], where[200];
        size_t n;

        put(low, "drover.conf", "[Daemon]\nLogLevel=debug\n[Pool]\nWorkers=9\n");
        put(high, "drover.conf", "[Daemon]\nLogLevel=error\n[Job]\nMaxAttempts=7\n");
        put(low, "drover.conf.d/10-x.conf", "[Pool]\nSlots=64\n");
        put(low, "pools.d/a.pool", "[Pool]\nPlugin=primes\nWorkers=2\nStartMethod=fork\n");
        put(high, "pools.d/a.pool.d/50-more.conf", "[Pool]\nWorkers=3\nSlots=\n");
        put(low, "pools.d/a.pool.d/60-last.conf", "[Job]\nMaxAttempts=\n[Pool]\nStartMethod=spawn\n");
        put(low, "pools.d/b.pool", "[Pool]\nPlugin=old\n");
        put(high, "pools.d/b.pool", "[Pool]\nPlugin=new\n");
        put(low, "pools.d/gone.pool", "[Pool]\nPlugin=primes\n");
        snprintf(where, sizeof(where), "%s/pools.d/gone.pool", high);
        assert_int_equal(symlink("/dev/null", where), 0);
        assert_int_equal(config_load_daemon(&paths, &d, error, sizeof(error)), 0);
        assert_int_equal(d.log_level, LOG_LEVEL_ERROR);
        assert_int_equal(config_load_pools(&paths, &d, &files, &n), 0);
        assert_int_equal(n, 2);
        f = find(files, n, "a");
        assert_non_null(f);
        assert_false(f->is_bad);
        assert_int_equal(f->config.n_workers, 3);
        assert_int_equal(f->config.start_method, START_SPAWN);
        assert_int_equal(f->config.n_slots, 64); /* the empty value resets to drover.conf's */
        assert_int_equal(f->config.max_attempts, 7);
        snprintf(where, sizeof(where), "%s/pools.d/a.pool:2", low);
        assert_string_equal(f->config.where_plugin, where);
        assert_string_equal(find(files, n, "b")->config.plugin, "new");
        free(files);
}

static void test_bad_pools(void **state) {
        static const struct {
                const char *name, *text;
                unsigned line;
                const char *word;
        } bad[] = {
                {"value", "[Pool]\nPlugin=primes\nWorkers=lots\n", 3, "lots"},
                {"later", "[Pool]\nPlugin=primes\n[Worker]\nMemoryMax=1G\n", 4, "MemoryMax"},
                {"plugin-option", "[Pool]\nPlugin=primes\n[Plugin]\nColour=red\n", 4, "Colour"},
                {"syntax", "[Pool]\nPlugin\n", 2, "KEY=VALUE"},
                {"missing", "[Pool]\nWorkers=1\n", 1, "Plugin="},
                {"first", "[Pool]\nPlugin=primes\nWorkers=0\nSlots=3\n", 3, "Workers"},
        };
        const struct pool_file *f;
        struct daemon_config d;
        struct pool_file *files;
        char error[400], name[80], where[200];
        size_t n;

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                snprintf(name, sizeof(name), "pools.d/%s.pool", bad[i].name);
                put(low, name, bad[i].text);
        }
        put(low, "pools.d/typo.pool", "[Pool]\nPlugin=primes\nWokers=3\n"); /* a warning only */
        put(low, "pools.d/bad name.pool", "[Pool]\nPlugin=primes\n");
        assert_int_equal(config_load_daemon(&paths, &d, error, sizeof(error)), 0);
        assert_int_equal(config_load_pools(&paths, &d, &files, &n), 0);
        assert_int_equal(n, sizeof(bad) / sizeof(*bad) + 2);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                f = find(files, n, bad[i].name);
                assert_non_null(f);
                assert_true(f->is_bad);
                snprintf(where, sizeof(where), "%s/pools.d/%s.pool:%u: ", low, bad[i].name, bad[i].line);
                if (strncmp(f->error, where, strlen(where)) != 0)
                        fail_msg("%s does not start with %s", f->error, where);
                assert_non_null(strstr(f->error, bad[i].word));
        }
        assert_false(find(files, n, "typo")->is_bad);
        f = find(files, n, "");
        assert_non_null(f);
        assert_true(f->is_bad);
        assert_non_null(strstr(f->error, "bad name"));
        free(files);
}

static void test_bad_daemon(void **state) {
        static const char *const bad[] = {"[Daemon]\n\nLogLevel=loud\n", "[Pool]\n\nPlugin=primes\n",
                                          "[Pool]\n\nSlots=3\n", "[Pool]\n\nSlots\n"};
        char error[400], where[100];
        struct daemon_config d;

        snprintf(where, sizeof(where), "%s/drover.conf:3: ", low);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                put(low, "drover.conf", bad[i]);
                assert_int_equal(config_load_daemon(&paths, &d, error, sizeof(error)), -EINVAL);
                assert_int_equal(strncmp(error, where, strlen(where)), 0);
        }
        put(low, "drover.conf", "[Daemon]\nLogLvel=info\n[Nonsense]\nA=1\n");
        assert_int_equal(config_load_daemon(&paths, &d, error, sizeof(error)), 0); /* warnings */
}

static void test_paths(void **state) {
        struct config_paths p;

        assert_int_equal(config_paths_init(&p, true, "/some/dir"), 0);
        assert_int_equal(p.n_config_dirs, 1);
        assert_string_equal(p.config_dirs[0], "/some/dir");
        config_paths_deinit(&p);
        assert_int_equal(config_paths_init(&p, false, NULL), 0);
        assert_int_equal(p.n_config_dirs, 3);
        assert_string_equal(p.config_dirs[0], "/usr/lib/drover");
        assert_string_equal(p.config_dirs[2], "/etc/drover");
        config_paths_deinit(&p);
        setenv("XDG_CONFIG_DIRS", "/most:relative:/least", 1);
        setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
        setenv("XDG_CONFIG_HOME", "/home/x/.config", 1);
        assert_int_equal(config_paths_init(&p, true, NULL), 0);
        assert_int_equal(p.n_config_dirs, 4);
        assert_string_equal(p.config_dirs[0], "/least/drover");
        assert_string_equal(p.config_dirs[1], "/most/drover");
        assert_string_equal(p.config_dirs[2], "/run/user/1/drover");
        assert_string_equal(p.config_dirs[3], "/home/x/.config/drover");
        config_paths_deinit(&p);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_nothing, start, end),
                cmocka_unit_test_setup_teardown(test_layers, start, end),
                cmocka_unit_test_setup_teardown(test_bad_pools, start, end),
                cmocka_unit_test_setup_teardown(test_bad_daemon, start, end),
                cmocka_unit_test(test_paths),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
