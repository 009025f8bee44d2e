/* drover.conf, pools, drop-ins and masks in several directories, as the daemon loads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config/config.h"
#include "daemon/log/log.h"

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

static const struct pool_file *find(const struct config_files *files, const char *name) {
        for (size_t i = 0; i < files->n_pools; i++)
                if (strcmp(files->pools[i].config.name, name) == 0)
                        return &files->pools[i];
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
        struct config_files files;
        char error[400];

        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0);
        assert_int_equal(files.daemon.log_level, -1);
        assert_int_equal(files.n_pools, 0);
        config_files_deinit(&files);
}

static void test_layers(void **state) {
        const struct pool_file *f;
        struct config_files files;
        char error[400], where[200];

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
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0);
        assert_int_equal(files.daemon.log_level, LOG_LEVEL_ERROR);
        assert_int_equal(files.n_pools, 2);
        f = find(&files, "a");
        assert_non_null(f);
        assert_false(f->is_bad);
        assert_int_equal(f->config.n_workers, 3);
        assert_int_equal(f->config.start_method, START_SPAWN);
        assert_int_equal(f->config.n_slots, 64); /* the empty value resets to drover.conf's */
        assert_int_equal(f->config.max_attempts, 7);
        snprintf(where, sizeof(where), "%s/pools.d/a.pool:2", low);
        assert_string_equal(f->config.where_plugin, where);
        assert_string_equal(find(&files, "b")->config.plugin, "new");
        config_files_deinit(&files);
}

static void test_bad_pools(void **state) {
        static const struct {
                const char *name, *text;
                unsigned line;
                const char *word;
        } bad[] = {
                {"value", "[Pool]\nPlugin=primes\nWorkers=lots\n", 3, "lots"},
                {"later", "[Pool]\nPlugin=primes\n[Worker]\nTasksMax=9\n", 4, "TasksMax"},
                {"plugin-option", "[Pool]\nPlugin=primes\n[Plugin]\nColour=red\n", 4, "Colour"},
                {"syntax", "[Pool]\nPlugin\n", 2, "KEY=VALUE"},
                {"missing", "[Pool]\nWorkers=1\n", 1, "Plugin="},
                {"first", "[Pool]\nPlugin=primes\nWorkers=0\nSlots=3\n", 3, "Workers"},
        };
        const struct pool_file *f;
        struct config_files files;
        char error[400], name[80], where[200];

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                snprintf(name, sizeof(name), "pools.d/%s.pool", bad[i].name);
                put(low, name, bad[i].text);
        }
        put(low, "pools.d/typo.pool", "[Pool]\nPlugin=primes\nWokers=3\n"); /* a warning only */
        put(low, "pools.d/bad name.pool", "[Pool]\nPlugin=primes\n");
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0);
        assert_int_equal(files.n_pools, sizeof(bad) / sizeof(*bad) + 2);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                f = find(&files, bad[i].name);
                assert_non_null(f);
                assert_true(f->is_bad);
                snprintf(where, sizeof(where), "%s/pools.d/%s.pool:%u: ", low, bad[i].name, bad[i].line);
                if (strncmp(f->error, where, strlen(where)) != 0)
                        fail_msg("%s does not start with %s", f->error, where);
                assert_non_null(strstr(f->error, bad[i].word));
        }
        assert_false(find(&files, "typo")->is_bad);
        f = find(&files, "");
        assert_non_null(f);
        assert_true(f->is_bad);
        assert_non_null(strstr(f->error, "bad name"));
        config_files_deinit(&files);
}

static void test_bad_daemon(void **state) {
        static const char *const bad[] = {"[Daemon]\n\nLogLevel=loud\n", "[Pool]\n\nPlugin=primes\n",
                                          "[Pool]\n\nSlots=3\n", "[Pool]\n\nSlots\n"};
        char error[400], where[100];
        struct config_files files;

        snprintf(where, sizeof(where), "%s/drover.conf:3: ", low);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                put(low, "drover.conf", bad[i]);
                assert_int_equal(config_load(&paths, &files, error, sizeof(error)), -EINVAL);
                assert_int_equal(strncmp(error, where, strlen(where)), 0);
        }
        put(low, "drover.conf", "[Daemon]\nLogLvel=info\n[Nonsense]\nA=1\n");
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0); /* warnings */
        config_files_deinit(&files);
}

/* ---- what is there and cannot be read ---- */

static void test_unreadable(void **state) {
        const struct pool_file *f;
        struct config_files files;
        char error[512], at[200], words[400];

        put(low, "pools.d/a.pool", "[Pool]\nPlugin=primes\n");
        put(low, "pools.d/b.pool", "[Pool]\nPlugin=primes\n");
        put(low, "pools.d/c.pool", "[Pool]\nPlugin=primes\n");
        put(low, "pools.d/c.pool.d/1.conf", "[Pool]\nWorkers=1\n");
        put(high, "pools.d/d.pool", "[Pool]\nPlugin=primes\n");
        snprintf(at, sizeof(at), "%s/pools.d/a.pool.d", high);
        assert_int_equal(symlink("a.pool.d", at), 0);
        snprintf(at, sizeof(at), "%s/pools.d/c.pool.d/2.conf", low);
        assert_int_equal(symlink("/proc/self/mem", at), 0); /* breaks off at once */
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0);
        f = find(&files, "a");
        snprintf(words, sizeof(words), "%s/pools.d/a.pool.d: %s", high, strerror(ELOOP));
        assert_true(f->is_bad);
        assert_string_equal(f->error, words);
        assert_false(find(&files, "b")->is_bad);
        f = find(&files, "c");
        snprintf(words, sizeof(words), "%s: %s", at, strerror(EIO));
        assert_true(f->is_bad);
        assert_string_equal(f->error, words);
        config_files_deinit(&files);

        snprintf(at, sizeof(at), "%s/drover.conf", high); /* no excuse for the other one */
        put(low, "drover.conf", "[Pool]\nWorkers=3\n");
        assert_int_equal(symlink("/nonexistent/drover.conf", at), 0);
        assert_true(config_load(&paths, &files, error, sizeof(error)) < 0);
        snprintf(words, sizeof(words), "%s: a link that leads nowhere", at);
        assert_string_equal(error, words);
        unlink(at);

        snprintf(at, sizeof(at), "%s/drover.conf.d", low);
        assert_int_equal(symlink("drover.conf.d", at), 0);
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), -ELOOP);
        assert_int_equal(strncmp(error, at, strlen(at)), 0);
        unlink(at);
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), 0);
        config_files_deinit(&files);

        snprintf(words, sizeof(words), "mv %s/pools.d %s/away && ln -s pools.d %s/pools.d", high, high, high);
        assert_int_equal(system(words), 0);
        snprintf(at, sizeof(at), "%s/pools.d", high);
        assert_int_equal(config_load(&paths, &files, error, sizeof(error)), -ELOOP);
        assert_int_equal(strncmp(error, at, strlen(at)), 0);
}

static _Atomic bool is_over;

/* A file that comes and goes. */
static void *come_and_go(void *unused) {
        char here[200], away[220];

        snprintf(here, sizeof(here), "%s/pools.d/x.pool", low);
        snprintf(away, sizeof(away), "%s.away", here);
        while (!is_over) {
                rename(here, away);
                rename(away, here);
        }
        return NULL;
}

/* It is there, or it is not: never one that is refused because it is not there. */
static void test_come_and_go(void **state) {
        struct config_files files;
        char error[512];
        pthread_t thread;

        put(low, "pools.d/x.pool", "[Pool]\nPlugin=primes\n");
        put(low, "pools.d/y.pool", "[Pool]\nPlugin=primes\n");
        is_over = false;
        assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
        for (unsigned i = 0; i < 3000; i++) {
                int r = config_load(&paths, &files, error, sizeof(error));
                const struct pool_file *f = r < 0 ? NULL : find(&files, "x");

                if (r < 0 || (f && f->is_bad) || !find(&files, "y"))
                        fail_msg("%s", r < 0 ? error : f ? f->error : "y is not there");
                config_files_deinit(&files);
        }
        is_over = true;
        pthread_join(thread, NULL);
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
                cmocka_unit_test_setup_teardown(test_unreadable, start, end),
                cmocka_unit_test_setup_teardown(test_come_and_go, start, end),
                cmocka_unit_test(test_paths),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
