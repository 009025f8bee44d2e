/* One setting at a time: what each key takes, what it refuses and in which words; and two settings compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config/config-keys.h"

static int set(struct pool_config *c, const char *section, const char *key, const char *value, char error[static 400]) {
        error[0] = '\0';
        return pool_config_set(c, section, key, value, error, 400);
}

static void test_defaults(void **state) {
        struct pool_config c;
        char error[400];

        pool_config_defaults(&c);
        assert_int_equal(c.start_method, START_FORKSERVER);
        assert_int_equal(c.n_slots, 1024);
        assert_int_equal(c.slot_bytes, 4096);
        assert_int_equal(c.max_attempts, 3);
        assert_true(c.n_workers >= 1);
        assert_true(c.result_ttl_ns == UINT64_C(60000000000));
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), -EINVAL);
        strcpy(c.name, "primes");
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), -EINVAL);
        assert_non_null(strstr(error, "Plugin="));
        strcpy(c.plugin, "primes");
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), 0);
}

static void test_good_values(void **state) {
        static const struct {
                const char *section, *key, *value;
        } good[] = {
                {"Pool", "Plugin", "primes"},
                {"Pool", "StartMethod", "spawn"},
                {"Pool", "Model", "process"},
                {"Pool", "Workers", "256"},
                {"Pool", "Workers", "auto"},
                {"Pool", "Slots", "65536"},
                {"Pool", "SlotSize", "1M"},
                {"Pool", "Overflow", "block"},
                {"Pool", "RateLimit", "600/min"},
                {"Job", "MaxAttempts", "63"},
                {"Job", "Guarantee", "at-most-once"},
                {"Job", "HardTimeout", "5min"},
                {"Job", "SoftTimeout", "infinity"},
                {"Job", "RetryDelay", "5s"},
                {"Job", "RetryBackoff", "1.25"},
                {"Job", "RetryMaxDelay", "infinity"},
                {"Worker", "RestartSec", "0"},
                {"Worker", "MemoryMax", "infinity"},
                {"Worker", "MemoryMax", "512M"},
                {"Worker", "Environment", "A=1 \"B=two words\" C='x' \"D=\\\"q\\\\\" E=\\n"},
                {"Sandbox", "Profile", "compute"},
        };
        struct pool_config c;
        char error[400];

        pool_config_defaults(&c);
        for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
                if (set(&c, good[i].section, good[i].key, good[i].value, error) != 0)
                        fail_msg("%s=%s: %s", good[i].key, good[i].value, error);
        assert_memory_equal(c.environment, "A=1\0B=two words\0C=x\0D=\"q\\\0E=\\n\0", 32);
        assert_true(c.hard_timeout_ns == UINT64_C(300000000000));
        assert_true(c.soft_timeout_ns == 0);
        assert_int_equal(c.retry_backoff_milli, 1250);
        assert_int_equal(c.rate_ns, 100000000);
        assert_true(c.memory_bytes == 512 << 20);
}

/* Each refusal names the key and the word. */
static void test_bad_values(void **state) {
        static const struct {
                const char *key, *value;
                int error;
        } bad[] = {
                {"Plugin", "../primes", -EINVAL},    {"Plugin", ".hidden", -EINVAL},
                {"StartMethod", "threads", -EINVAL}, {"Model", "threads", -EOPNOTSUPP},
                {"Workers", "0", -EINVAL},           {"Workers", "257", -EINVAL},
                {"Workers", "many", -EINVAL},        {"Slots", "1000", -EINVAL},
                {"Slots", "131072", -EINVAL},        {"SlotSize", "100", -EINVAL},
                {"SlotSize", "2M", -EINVAL},         {"Overflow", "drop", -EINVAL},
                {"RateLimit", "0", -EINVAL},         {"RateLimit", "10/d", -EINVAL},
                {"RateLimit", "/s", -EINVAL},        {"RateLimit", "99999999999999999999", -EINVAL},
                {"MaxAttempts", "64", -EINVAL},      {"HardTimeout", "soon", -EINVAL},
                {"RetryDelay", "soon", -EINVAL},     {"RetryBackoff", "0.5", -EINVAL},
                {"RetryBackoff", "2.", -EINVAL},     {"RetryBackoff", "1,5", -EINVAL},
                {"RetryBackoff", "101", -EINVAL},    {"ResultTTL", "1y", -EINVAL},
                {"Environment", "novalue", -EINVAL}, {"Environment", "9A=1", -EINVAL},
                {"Environment", "\"A=1", -EINVAL},   {"MemoryMax", "15M", -EINVAL},
                {"MemoryMax", "0", -EINVAL},         {"MemoryMax", "20%", -EINVAL},
                {"TasksMax", "10", -EOPNOTSUPP},     {"MinWorkers", "257", -EINVAL},
                {"MaxWorkers", "0", -EINVAL},        {"MaxJobs", "4294967296", -EINVAL},
                {"RecycleMemory", "4K", -EINVAL},    {"MaxAge", "old", -EINVAL},
                {"Profile", "net", -EOPNOTSUPP},     {"Wokers", "4", -ENOENT},
        };
        struct pool_config before, c;
        char error[400];

        pool_config_defaults(&before);
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                c = before;
                assert_int_equal(set(&c, NULL, bad[i].key, bad[i].value, error), bad[i].error);
                assert_non_null(strstr(error, bad[i].key));
                if (bad[i].error == -EINVAL)
                        assert_non_null(strstr(error, bad[i].value));
                if (bad[i].error == -EOPNOTSUPP)
                        assert_non_null(strstr(error, "not built yet"));
                assert_memory_equal(&c, &before, sizeof(c));
        }
}

static void test_bounds_of_workers(void **state) {
        struct pool_config c;
        char error[400];

        pool_config_defaults(&c);
        strcpy(c.name, "p");
        strcpy(c.plugin, "p");
        set(&c, NULL, "Workers", "4", error);
        assert_int_equal(pool_config_min_workers(&c), 4);
        assert_int_equal(pool_config_max_workers(&c), 4);
        set(&c, NULL, "MinWorkers", "0", error);
        assert_int_equal(pool_config_min_workers(&c), 0);
        assert_int_equal(pool_config_max_workers(&c), 4);
        set(&c, NULL, "MaxWorkers", "8", error);
        assert_int_equal(pool_config_max_workers(&c), 8);
        set(&c, NULL, "MinWorkers", "", error);
        assert_int_equal(pool_config_min_workers(&c), 4);
        set(&c, NULL, "MaxWorkers", "2", error);
        assert_int_equal(pool_config_min_workers(&c), 2); /* Workers=auto may be more */
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), 0);
        set(&c, NULL, "MaxWorkers", "8", error);
        set(&c, NULL, "MinWorkers", "9", error);
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), -EINVAL);
        assert_string_equal(error, "MinWorkers=9 is more than MaxWorkers=8 in pool p");
}

static void test_nearest_name(void **state) {
        struct pool_config c;
        char error[400];

        assert_string_equal(config_nearest_key("Wokers"), "Workers");
        assert_string_equal(config_nearest_key("workers"), "Workers");
        assert_string_equal(config_nearest_key("StartMetod"), "StartMethod");
        assert_string_equal(config_nearest_key("MaxAttempt"), "MaxAttempts");
        assert_null(config_nearest_key("Zyxwvu"));
        assert_null(config_nearest_key("AKeyThatIsMuchLongerThanAnyKeyThatAnybodyWouldEverWrite"));
        pool_config_defaults(&c);
        assert_int_equal(set(&c, "Pool", "Wokers", "4", error), -ENOENT);
        assert_non_null(strstr(error, "Workers="));
        assert_int_equal(set(&c, "Job", "Workers", "4", error), -ENOENT);
        assert_non_null(strstr(error, "[Pool]"));
        assert_int_equal(set(&c, "Plugin", "Colour", "red", error), -EOPNOTSUPP);
        assert_non_null(strstr(error, "Colour"));
}

static void test_empty_resets(void **state) {
        struct pool_config c, defaults;
        char error[400], differences[400];

        pool_config_defaults(&defaults);
        for (size_t i = 0; i < config_n_keys; i++) {
                c = defaults;
                assert_int_equal(set(&c, config_keys[i].section, config_keys[i].name, "", error), 0);
        }
        c = defaults;
        set(&c, NULL, "Workers", "7", error);
        set(&c, NULL, "Environment", "A=1", error);
        set(&c, NULL, "Environment", "B=2 A=3", error);
        assert_memory_equal(c.environment, "B=2\0A=3\0", 9);
        pool_config_differences(&defaults, &c, differences, sizeof(differences));
        assert_string_equal(differences, "Workers, Environment");
        set(&c, NULL, "Workers", "", error);
        set(&c, NULL, "Environment", "", error);
        pool_config_differences(&defaults, &c, differences, sizeof(differences));
        assert_string_equal(differences, "");
        pool_config_differences(&defaults, &c, differences, 1);
}

static void test_whole(void **state) {
        struct pool_config c;
        char error[400];

        pool_config_defaults(&c);
        strcpy(c.name, "p");
        strcpy(c.plugin, "primes");
        set(&c, NULL, "SoftTimeout", "10", error);
        set(&c, NULL, "HardTimeout", "5", error);
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), -EINVAL);
        assert_non_null(strstr(error, "SoftTimeout="));
        set(&c, NULL, "HardTimeout", "infinity", error);
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), 0);
        set(&c, NULL, "RestartSec", "1h", error);
        assert_int_equal(pool_config_check(&c, error, sizeof(error)), -EINVAL);
}

static void test_names(void **state) {
        char longest[66];

        assert_true(pool_name_is_valid("a"));
        assert_true(pool_name_is_valid("My-pool_1.2"));
        assert_false(pool_name_is_valid(""));
        assert_false(pool_name_is_valid("a b"));
        assert_false(pool_name_is_valid("a/b"));
        assert_false(pool_name_is_valid("\xc3\xa4"));
        memset(longest, 'x', 65);
        longest[64] = '\0';
        assert_true(pool_name_is_valid(longest));
        longest[64] = 'x';
        longest[65] = '\0';
        assert_false(pool_name_is_valid(longest));
}

/* What is shown of a value reads back as that value. */
static void test_shown(void **state) {
        static const struct {
                const char *key, *value, *shown;
        } cases[] = {
                {"Plugin", "primes", "primes"},
                {"StartMethod", "spawn", "spawn"},
                {"Guarantee", "at-most-once", "at-most-once"},
                {"Overflow", "block", "block"},
                {"Workers", "7", "7"},
                {"Slots", "512", "512"},
                {"SlotSize", "8192", "8K"},
                {"SlotSize", "4160", "4160"},
                {"Capsules", "no", "0"},
                {"RateLimit", "600/min", "10/s"},
                {"RateLimit", "5/h", "5/h"},
                {"RateLimit", "3", "3/s"},
                {"SoftTimeout", "90", "90s"},
                {"HardTimeout", "0", "infinity"},
                {"ResultTTL", "2h", "2h"},
                {"RestartSec", "0", "0"},
                {"RestartSec", "1500us", "1500us"},
                {"RetryBackoff", "1.5", "1.5"},
                {"RetryBackoff", "10", "10"},
                {"RecycleMemory", "1536M", "1536M"},
                {"RecycleMemory", "infinity", "infinity"},
                {"MemoryMax", "2G", "2G"},
                {"MemoryMax", "infinity", "infinity"},
                {"MaxAge", "1d", "24h"},
                {"Environment", "A=1 'B=two words' C=\\\\\\\"", "A=1 \"B=two words\" \"C=\\\\\\\"\""},
        };
        char error[400], differences[400];

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
                const struct config_key *k = config_find_key(NULL, cases[i].key);
                struct pool_config c, again;
                struct config_shown shown;

                pool_config_defaults(&c);
                again = c;
                assert_int_equal(set(&c, NULL, cases[i].key, cases[i].value, error), 0);
                assert_true(config_show(&c, (size_t)(k - config_keys), &shown));
                assert_string_equal(shown.value, cases[i].shown);
                assert_int_equal(set(&again, NULL, cases[i].key, shown.value, error), 0);
                pool_config_differences(&c, &again, differences, sizeof(differences));
                assert_string_equal(differences, "");
        }
}

/* Each default, too; what is not given follows Workers=, and what is not built is not shown. */
static void test_shown_defaults(void **state) {
        struct pool_config c;
        struct config_shown shown;
        char error[400];

        pool_config_defaults(&c);
        set(&c, NULL, "Workers", "3", error);
        for (size_t i = 0; i < config_n_keys; i++) {
                const struct config_key *k = &config_keys[i];
                struct pool_config again = c;

                assert_int_equal(config_show(&c, i, &shown), k->parse || k->only);
                if (!k->parse && !k->only)
                        continue;
                assert_string_equal(shown.from, "default");
                if (strcmp(k->name, "MinWorkers") == 0 || strcmp(k->name, "MaxWorkers") == 0)
                        assert_string_equal(shown.value, "3");
                else if (shown.value[0] && k->parse) {
                        assert_int_equal(set(&again, k->section, k->name, shown.value, error), 0);
                        assert_memory_equal((char *)&again + k->offset, (char *)&c + k->offset, k->bytes);
                }
        }
}

static void test_origins(void **state) {
        struct config_origins defaults = {0}, o;
        struct pool_config c;
        struct config_shown shown;
        size_t workers = (size_t)(config_find_key("Pool", "Workers") - config_keys);
        char path[300];

        config_origins_add_file(&defaults, "/etc/drover.conf");
        config_origins_note(&defaults, "Workers", "/etc/drover.conf", 3);
        o = defaults;
        config_origins_add_file(&o, "/etc/p.pool");
        config_origins_note(&o, "Workers", "/etc/p.pool", 7);
        config_origins_note(&o, "Slots", NULL, 0);
        config_origins_note(&o, "Colour", "/etc/p.pool", 8);
        pool_config_defaults(&c);
        c.origins = o;
        assert_true(config_show(&c, workers, &shown));
        assert_string_equal(shown.from, "/etc/p.pool:7");
        assert_true(config_show(&c, (size_t)(config_find_key("Pool", "Slots") - config_keys), &shown));
        assert_string_equal(shown.from, "bus");
        config_origins_reset(&c.origins, &defaults, "Workers");
        assert_true(config_show(&c, workers, &shown));
        assert_string_equal(shown.from, "/etc/drover.conf:3");
        for (unsigned i = 0; i < 1000; i++) {
                snprintf(path, sizeof(path), "/etc/%0200u.conf", i);
                config_origins_add_file(&c.origins, path);
        }
        config_origins_note(&c.origins, "Workers", path, 9);
        assert_true(config_show(&c, workers, &shown));
        assert_string_equal(shown.from, "(one of more files):9");
}

/* Any value for any key: an answer, a text that ends, and no write past its field. */
static void test_any_value(void **state) {
        static const char letters[] = "abcA=19 .,\"'\\/\xc3\xa4\xff-_infyes";
        struct pool_config c, reset;
        char value[40], error[60];

        srandom(21);
        for (unsigned round = 0; round < 300000; round++) {
                const struct config_key *k = &config_keys[(size_t)random() % config_n_keys];
                size_t n = (size_t)random() % (sizeof(value) - 1) + 1;

                for (size_t i = 0; i < n; i++)
                        value[i] = letters[(size_t)random() % (sizeof(letters) - 1)];
                value[n] = '\0';
                pool_config_defaults(&reset);
                c = reset;
                memset(error, 'x', sizeof(error));
                if (pool_config_set(&c, k->section, k->name, value, error, sizeof(error)) < 0)
                        assert_non_null(memchr(error, '\0', sizeof(error)));
                memcpy((char *)&c + k->offset, (char *)&reset + k->offset, k->bytes);
                assert_memory_equal(&c, &reset, sizeof(c));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),       cmocka_unit_test(test_good_values),
                cmocka_unit_test(test_bad_values),     cmocka_unit_test(test_bounds_of_workers),
                cmocka_unit_test(test_nearest_name),   cmocka_unit_test(test_empty_resets),
                cmocka_unit_test(test_whole),          cmocka_unit_test(test_names),
                cmocka_unit_test(test_any_value),      cmocka_unit_test(test_shown),
                cmocka_unit_test(test_shown_defaults), cmocka_unit_test(test_origins),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
