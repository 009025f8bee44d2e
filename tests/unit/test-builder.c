/* Arguments in the making: what comes out is what args_check takes, however large it grows; the first error sticks. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/client/library.h"

static void complete(drover_args *a, const void **payload, size_t *bytes, const char *signature) {
        struct schema_fields fields;
        char why[256] = "";
        assert_int_equal(schema_parse_fields(signature, &fields, why, sizeof why), 0);
        assert_int_equal(builder_complete(a, payload, bytes), 0);
        int r = args_check(&fields, *payload, *bytes, why, sizeof why);
        assert_string_equal(why, "");
        assert_int_equal(r, 0);
}

static void test_grows(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes, n = 100000;
        char *text = malloc(n);
        uint64_t *numbers = calloc(n, sizeof *numbers);
        const char **texts = calloc(n, sizeof *texts);
        memset(text, 'x', n);
        for (size_t i = 0; i < n; i++) {
                numbers[i] = UINT64_MAX - i;
                texts[i] = i % 2 ? "odd" : "";
        }
        assert_int_equal(drover_args_new(&a), 0);
        assert_int_equal(drover_args_str_sized(a, "text", text, n), 0);
        assert_int_equal(drover_args_u64_array(a, "numbers", numbers, n), 0);
        assert_int_equal(drover_args_str_array(a, "texts", texts, n), 0);
        assert_int_equal(drover_args_bool(a, "last", true), 0);
        complete(a, &payload, &bytes, "text:str,numbers:u64[],texts:str[],last:bool");
        struct args_value v;
        assert_int_equal(args_get_element(payload, bytes, "numbers", (uint32_t)n - 1, SCHEMA_U64, &v), 0);
        assert_int_equal(v.u64, UINT64_MAX - (n - 1));
        drover_args_free(a);
        free(text);
        free(numbers);
        free(texts);
}

static void test_sixteen_fields(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        char name[8], signature[256] = "";
        assert_int_equal(drover_args_new(&a), 0);
        for (int round = 0; round < 2; round++) {
                for (int i = 0; i < SCHEMA_MAX_FIELDS; i++) {
                        snprintf(name, sizeof name, "f%d", i);
                        assert_int_equal(drover_args_i64(a, name, i), 0);
                        if (round == 0)
                                snprintf(signature + strlen(signature), sizeof signature - strlen(signature),
                                         "%s%s:i64", i ? "," : "", name);
                }
                complete(a, &payload, &bytes, signature);
                complete(a, &payload, &bytes, signature); /* twice is the same */
                drover_args_reset(a);
        }
        drover_args_free(a);
}

static void test_none(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        assert_int_equal(drover_args_new(&a), 0);
        complete(a, &payload, &bytes, "");
        assert_int_equal(bytes, 0);
        assert_int_equal(drover_args_u64(a, "late", 1), -EINVAL); /* it is complete */
        drover_args_free(a);
        assert_null(drover_args_free(NULL));
}

static void test_nothing_may_be_null(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        assert_int_equal(drover_args_new(&a), 0);
        assert_int_equal(drover_args_bytes(a, "y", NULL, 0), 0);
        assert_int_equal(drover_args_str_sized(a, "s", NULL, 0), 0);
        assert_int_equal(drover_args_f64_array(a, "fs", NULL, 0), 0);
        complete(a, &payload, &bytes, "y:bytes,s:str,fs:f64[]");
        drover_args_free(a);
}

static void test_the_first_error_stays(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        assert_int_equal(drover_args_new(&a), 0);
        assert_int_equal(drover_args_str(a, "s", NULL), -EINVAL);
        assert_int_equal(drover_args_u64(a, "u", 1), -EINVAL);
        assert_int_equal(drover_args_raw(a, "x", 1), -EINVAL);
        assert_int_equal(builder_complete(a, &payload, &bytes), -EINVAL);
        drover_args_reset(a);
        assert_int_equal(drover_args_str_array(a, "s", (const char *const[]){"a", NULL}, 2), -EINVAL);
        drover_args_reset(a);
        assert_int_equal(drover_args_bytes(a, "y", "x", SIZE_MAX), -EMSGSIZE);
        drover_args_reset(a);
        assert_int_equal(drover_args_u64_array(a, "us", NULL, SIZE_MAX / 4), -EMSGSIZE);
        drover_args_reset(a);
        assert_int_equal(drover_args_u64(a, NULL, 1), -EINVAL);
        drover_args_reset(a);
        assert_int_equal(drover_args_raw(a, "abc", 3), 0);
        assert_int_equal(drover_args_u64(a, "u", 1), -EINVAL);
        drover_args_reset(a);
        assert_int_equal(drover_args_raw(a, "abc", 3), 0);
        assert_int_equal(builder_complete(a, &payload, &bytes), 0);
        assert_int_equal(bytes, 3);
        assert_memory_equal(payload, "abc", 3);
        drover_args_free(a);
}

static void expect_why(drover_args *a, int r, int error, const char *why) {
        const void *payload;
        size_t bytes;
        assert_int_equal(r, error);
        assert_int_equal(drover_args_u64(a, "later", 1), error);
        assert_int_equal(builder_complete(a, &payload, &bytes), error);
        assert_string_equal(builder_why(a), why);
        drover_args_reset(a);
        assert_null(a->why);
}

static void test_errors_name_the_field_and_the_reason(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        int fd = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(drover_args_new(&a), 0);
        expect_why(a, drover_args_str(a, "s", NULL), -EINVAL, "argument \"s\": its text is NULL");
        expect_why(a, drover_args_bytes(a, "y", NULL, 3), -EINVAL, "argument \"y\": it is NULL, but its size is 3");
        expect_why(a, drover_args_u64_array(a, "us", NULL, 3), -EINVAL,
                   "argument \"us\": it is NULL, but its size is 3");
        expect_why(a, drover_args_raw(a, NULL, 3), -EINVAL, "argument \"payload\": it is NULL, but its size is 3");
        expect_why(a, drover_args_str_array(a, "ss", (const char *const[]){"a", NULL}, 2), -EINVAL,
                   "argument \"ss\": text 1 is NULL");
        expect_why(a, drover_args_fd(a, "in", -1), -EBADF, "argument \"in\": descriptor -1: Bad file descriptor");
        expect_why(a, drover_args_bytes(a, "y", "x", SIZE_MAX), -EMSGSIZE,
                   "argument \"y\": more than 1073741824 bytes in all");
        expect_why(a, drover_args_i64(a, NULL, 1), -EINVAL, "the name of an argument is NULL");
        for (int i = 0; i < SCHEMA_MAX_FDS; i++)
                assert_int_equal(drover_args_fd(a, "f", 0), 0);
        expect_why(a, drover_args_fd(a, "last", 0), -EINVAL, "argument \"last\": more than 7 descriptors");
        for (int i = 0; i < SCHEMA_MAX_FIELDS; i++)
                assert_int_equal(drover_args_i64(a, "i", i), 0);
        expect_why(a, drover_args_i64(a, "last", 1), -E2BIG, "argument \"last\": more than 16 arguments");
        assert_int_equal(drover_args_raw(a, "x", 1), 0);
        expect_why(a, drover_args_bool(a, "b", true), -EINVAL, "argument \"b\": there is a raw payload already");
        assert_int_equal(drover_args_i64(a, "i", 1), 0);
        expect_why(a, drover_args_raw(a, "x", 1), -EINVAL,
                   "a raw payload is all there is, and there is something already");
        assert_int_equal(builder_complete(a, &payload, &bytes), 0);
        expect_why(a, drover_args_i64(a, "i", 1), -EINVAL,
                   "argument \"i\": they were submitted: drover_args_reset() comes first");
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
        assert_int_equal(drover_args_raw_fd(a, fd), -EINVAL);
        assert_non_null(strstr(builder_why(a), "is no sealed memory file of 1 byte to 1 GiB"));
        close(fd);
        drover_args_free(a);
}

static int put_all(drover_args *a, char *error, size_t error_bytes, const char *signature, ...) {
        va_list ap;
        va_start(ap, signature);
        int r = builder_put_all(a, signature, ap, error, error_bytes);
        va_end(ap);
        return r;
}

static void test_signatures(void **state) {
        drover_args *a;
        const void *payload;
        size_t bytes;
        char error[256];
        struct args_value v;
        assert_int_equal(drover_args_new(&a), 0);
        const char *signature = "a:bool,b:f64,c:str,d:u64,e:i64,f:bytes,g:f64[]";
        assert_int_equal(put_all(a, error, sizeof error, signature, true, 0.5, "text", UINT64_MAX, INT64_C(-1), "xy",
                                 (size_t)2, (const double[]){1, 2, 3}, (size_t)3),
                         0);
        complete(a, &payload, &bytes, signature);
        assert_int_equal(args_get_element(payload, bytes, "g", 2, SCHEMA_F64, &v), 0);
        assert_true(v.f64 == 3);
        drover_args_reset(a);
        assert_int_equal(put_all(a, error, sizeof error, "a:float", 0.5), -EINVAL);
        assert_non_null(strstr(error, "float"));
        assert_int_equal(put_all(a, error, sizeof error, NULL), 0);
        assert_int_equal(put_all(a, error, sizeof error, "raw", "abc", (size_t)3), 0);
        assert_int_equal(builder_complete(a, &payload, &bytes), 0);
        assert_memory_equal(payload, "abc", 3);
        drover_args_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_grows),
                cmocka_unit_test(test_sixteen_fields),
                cmocka_unit_test(test_none),
                cmocka_unit_test(test_the_first_error_stays),
                cmocka_unit_test(test_signatures),
                cmocka_unit_test(test_nothing_may_be_null),
                cmocka_unit_test(test_errors_name_the_field_and_the_reason),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
