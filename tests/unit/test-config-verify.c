/* A file looked at alone: which kind it is, every problem of it, and how many are errors. */
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

#include "daemon/config/config-verify.h"

static char directory[] = "/tmp/drover-test-XXXXXX";
static char told[2048];

static void on_problem(void *user, bool is_error, const char *text) {
        snprintf(told + strlen(told), sizeof told - strlen(told), "%c %s\n", is_error ? 'E' : 'W',
                 text + strlen(directory) + 1);
}

static int verify(const char *name, const char *content) {
        char path[256];
        FILE *f;

        snprintf(path, sizeof path, "%s/%s", directory, name);
        f = fopen(path, "we");
        assert_non_null(f);
        fputs(content, f);
        fclose(f);
        told[0] = 0;
        int r = config_verify(path, on_problem, NULL);
        unlink(path);
        return r;
}

static void test_pools(void **state) {
        assert_int_equal(verify("a.pool", "[Pool]\nPlugin=x\n"), 0);
        assert_string_equal(told, "");
        assert_int_equal(verify("a.pool", "[Pool]\nPlugin=x\nWorkers=no\nSlots=3\n"), 2);
        assert_non_null(strstr(told, "E a.pool:3: Workers=no"));
        assert_non_null(strstr(told, "E a.pool:4: Slots=3"));
        assert_int_equal(verify("a.pool", "[Pool]\nPlugin=x\nWorkerz=1\n"), 0);
        assert_non_null(strstr(told, "W a.pool:3: "));
        assert_int_equal(verify("a.pool", "[Pool]\nWorkers=1\n"), 1);
        assert_non_null(strstr(told, "E a.pool:1: Plugin= is missing in pool a"));
        assert_int_equal(verify("a b.pool", "[Pool]\nPlugin=x\n"), 1);
        assert_int_equal(verify("a.pool", "nonsense\n"), 1);
        assert_non_null(strstr(told, "E a.pool:1: "));
}

static void test_a_drop_in_is_no_whole(void **state) {
        assert_int_equal(verify("a.pool.d/b.conf", "[Pool]\nWorkers=1\n"), 0);
        assert_int_equal(verify("a.pool.d/b.conf", "[Pool]\nWorkers=no\n"), 1);
}

static void test_the_daemon(void **state) {
        assert_int_equal(verify("drover.conf", "[Daemon]\nLogLevel=info\n[Pool]\nWorkers=1\n"), 0);
        assert_int_equal(verify("drover.conf", "[Daemon]\nLogLevel=loud\n"), 1);
        assert_int_equal(verify("drover.conf.d/b.conf", "[Pool]\nPlugin=x\n"), 1);
        assert_int_equal(verify("drover.conf", "[Daemon]\nColour=1\n"), 0);
        assert_non_null(strstr(told, "W drover.conf:2: "));
}

/* As who stands beside the folder types it. */
static void test_relative_paths(void **state) {
        static const char *const paths[] = {"drover.conf.d/b.conf", "a.pool.d/b.conf", "./drover.conf.d/b.conf"};
        char *before = get_current_dir_name();

        assert_int_equal(chdir(directory), 0);
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
                FILE *f = fopen(paths[i], "we");

                assert_non_null(f);
                fclose(f);
                assert_int_equal(config_verify(paths[i], on_problem, NULL), 0);
                unlink(paths[i]);
        }
        assert_int_equal(chdir(before), 0);
        free(before);
}

static void test_a_mask(void **state) {
        static const char *const names[] = {"null.pool", "drover.conf", "drover.conf.d/b.conf"};
        char path[256];

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                snprintf(path, sizeof path, "%s/%s", directory, names[i]);
                assert_int_equal(symlink("/dev/null", path), 0);
                told[0] = 0;
                assert_int_equal(config_verify(path, on_problem, NULL), 0);
                assert_string_equal(told, "");
                unlink(path);
        }
}

static void test_names_of_pools(void **state) {
        char name[80] = "", told_of[120];

        memset(name, 'x', 65);
        snprintf(told_of, sizeof told_of, "\"%s\" is not a pool name: 1 to 64 of", name);
        strcat(name, ".pool");
        assert_int_equal(verify(name, "[Pool]\nPlugin=x\n"), 1);
        assert_non_null(strstr(told, told_of));
        assert_int_equal(verify(name + 1, "[Pool]\nPlugin=x\n"), 0);
        assert_int_equal(verify("a b.pool", "[Pool]\nPlugin=x\n"), 1);
        assert_non_null(strstr(told, "E a b.pool: \"a b\" is not a pool name"));
}

static void test_other_names(void **state) {
        assert_int_equal(verify("a.txt", ""), -EINVAL);
        assert_int_equal(verify("b.conf", ""), -EINVAL);
        assert_int_equal(verify(".pool", ""), -EINVAL);
        assert_int_equal(verify(".a.pool", ""), -EINVAL);
        assert_string_equal(told, "");
}

static int set_up(void **state) {
        char path[256];

        if (!mkdtemp(directory))
                return -1;
        snprintf(path, sizeof path, "%s/a.pool.d", directory);
        if (mkdir(path, 0700) < 0)
                return -1;
        snprintf(path, sizeof path, "%s/drover.conf.d", directory);
        return mkdir(path, 0700);
}

static int tear_down(void **state) {
        char path[256];

        snprintf(path, sizeof path, "%s/a.pool.d", directory);
        rmdir(path);
        snprintf(path, sizeof path, "%s/drover.conf.d", directory);
        rmdir(path);
        return rmdir(directory);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pools),       cmocka_unit_test(test_a_drop_in_is_no_whole),
                cmocka_unit_test(test_the_daemon),  cmocka_unit_test(test_relative_paths),
                cmocka_unit_test(test_a_mask),      cmocka_unit_test(test_names_of_pools),
                cmocka_unit_test(test_other_names),
        };
        return cmocka_run_group_tests(tests, set_up, tear_down);
}
