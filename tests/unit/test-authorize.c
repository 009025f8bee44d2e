/* Every member of every vtable has a row, every row a member, every method is left to the table by sd-bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/face.h"

static const struct {
        const char *interface;
        const sd_bus_vtable *vtable;
        unsigned n_methods;
} faces[] = {
        {BUS_MANAGER, manager_vtable, 23},
        {BUS_POOL, pool_vtable, 10},
        {BUS_WORKER, worker_vtable, 3},
        {BUS_JOB, job_vtable, 6},
};

static void test_every_member_has_a_row(void **state) {
        for (size_t i = 0; i < sizeof(faces) / sizeof(*faces); i++) {
                unsigned n = 0;

                for (const sd_bus_vtable *v = faces[i].vtable; v->type != _SD_BUS_VTABLE_END; v++) {
                        if (v->type != _SD_BUS_VTABLE_METHOD)
                                continue;
                        n++;
                        if (!authorize_find(faces[i].interface, v->x.method.member))
                                fail_msg("%s.%s has no row", faces[i].interface, v->x.method.member);
                        assert_true(v->flags & SD_BUS_VTABLE_UNPRIVILEGED);
                }
                assert_int_equal(n, faces[i].n_methods);
        }
}

static void test_default_deny(void **state) {
        assert_null(authorize_find(BUS_MANAGER, "Fly"));
        assert_null(authorize_find(BUS_POOL, "Run"));
        assert_null(authorize_find("org.example.Other", "Run"));
        assert_int_equal(authorize_find(BUS_MANAGER, "Run")->access, AUTHORIZE_PUBLIC);
        assert_int_equal(authorize_find(BUS_MANAGER, "CreatePool")->access, AUTHORIZE_ROOT);
        assert_int_equal(authorize_find(BUS_WORKER, "Kill")->access, AUTHORIZE_ROOT);
        assert_int_equal(authorize_find(BUS_JOB, "GetResult")->access, AUTHORIZE_OWNER);
        assert_true(authorize_is_root(0));
        assert_true(authorize_is_root(geteuid()));
        assert_false(authorize_is_root(geteuid() + 12345));
}

/* Only State of pools and workers is announced: counters never are. */
static void test_only_state_emits(void **state) {
        for (size_t i = 0; i < sizeof(faces) / sizeof(*faces); i++)
                for (const sd_bus_vtable *v = faces[i].vtable; v->type != _SD_BUS_VTABLE_END; v++)
                        if (v->type == _SD_BUS_VTABLE_PROPERTY && v->flags & SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)
                                assert_string_equal(v->x.property.member, "State");
}

static void test_clean_text(void **state) {
        char text[] = "a\xc3\xa4\xff\xe2\x82z\xf0\x9f\x98";

        bus_clean_text(text);
        assert_string_equal(text, "a\xc3\xa4???z???");
}

static void test_paths(void **state) {
        char path[BUS_MAX_PATH], name[65];
        uint64_t id;

        bus_pool_path("my-pool.1", path);
        assert_string_equal(path, "/org/drover1/pool/my_2dpool_2e1");
        bus_pool_path("1x9", path);
        assert_string_equal(path, "/org/drover1/pool/_31x9");
        memset(name, '-', 64);
        name[64] = '\0';
        bus_pool_path(name, path);
        assert_true(strlen(path) < BUS_MAX_PATH);
        assert_true(sd_bus_object_path_is_valid(path));
        assert_int_equal(bus_parse_id("/org/drover1/job/18446744073709551615", BUS_JOBS, &id), 0);
        assert_true(id == UINT64_MAX);
        assert_true(bus_parse_id("/org/drover1/job/18446744073709551616", BUS_JOBS, &id) < 0);
        assert_true(bus_parse_id("/org/drover1/job/07", BUS_JOBS, &id) < 0);
        assert_true(bus_parse_id("/org/drover1/job/", BUS_JOBS, &id) < 0);
        assert_true(bus_parse_id("/org/drover1/job", BUS_JOBS, &id) < 0);
        assert_true(bus_parse_id("/org/drover1/job/7x", BUS_JOBS, &id) < 0);
        assert_true(bus_parse_id("/org/drover1/pool/7", BUS_JOBS, &id) < 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_member_has_a_row),
                cmocka_unit_test(test_default_deny),
                cmocka_unit_test(test_only_state_emits),
                cmocka_unit_test(test_clean_text),
                cmocka_unit_test(test_paths),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
