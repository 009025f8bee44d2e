/* Arguments there and results back; what is refused before it is submitted. */
#include "tests/library/cases.h"

drover_args *all_types(const char *text) {
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_u64(a, "u", UINT64_MAX));
        EXPECT(0, drover_args_i64(a, "i", INT64_MIN));
        EXPECT(0, drover_args_f64(a, "f", 0.1));
        EXPECT(0, drover_args_bool(a, "b", true));
        EXPECT(0, text ? drover_args_str(a, "s", text) : drover_args_str_sized(a, "s", "a\0b", 3));
        EXPECT(0, drover_args_bytes(a, "y", "\xff\0\x01", 3));
        EXPECT(0, drover_args_u64_array(a, "us", (const uint64_t[]){1, UINT64_MAX}, 2));
        EXPECT(0, drover_args_i64_array(a, "is", (const int64_t[]){-1, INT64_MIN, 7}, 3));
        EXPECT(0, drover_args_f64_array(a, "fs", (const double[]){-0.5}, 1));
        EXPECT(0, drover_args_bool_array(a, "bs", (const bool[]){true, false}, 2));
        EXPECT(0, drover_args_str_array(a, "ss", (const char *const[]){"", "grün", "x"}, 3));
        return a;
}

static void check_scalars(drover_future *f, const char *text) {
        uint64_t u;
        int64_t i;
        double x;
        bool b;
        const char *s;
        const void *y;
        size_t n;
        EXPECT(0, drover_future_get_u64(f, "u", &u));
        EXPECT(0, drover_future_get_i64(f, "i", &i));
        EXPECT(0, drover_future_get_f64(f, "f", &x));
        EXPECT(0, drover_future_get_bool(f, "b", &b));
        EXPECT_TRUE(u == UINT64_MAX && i == INT64_MIN && x == 0.1 && b);
        EXPECT(0, drover_future_get_str(f, "s", &s, &n));
        EXPECT_TRUE(n == 3 && memcmp(s, text ? text : "a\0b", 4) == 0);
        EXPECT(0, drover_future_get_bytes(f, "y", &y, &n));
        EXPECT_TRUE(n == 3 && memcmp(y, "\xff\0\x01", 3) == 0);
        EXPECT(-ENOENT, drover_future_get_u64(f, "nope", &u));
        EXPECT(-EINVAL, drover_future_get_u64(f, "s", &u));
        EXPECT(-EINVAL, drover_future_get_u64(f, "i", &u)); /* negative */
}

static void check_arrays(drover_future *f) {
        const uint64_t *u;
        const int64_t *i;
        const double *x;
        const bool *b;
        const char *const *s;
        size_t n;
        EXPECT(0, drover_future_get_u64_array(f, "us", &u, &n));
        EXPECT_TRUE(n == 2 && u[0] == 1 && u[1] == UINT64_MAX);
        EXPECT(0, drover_future_get_i64_array(f, "is", &i, &n));
        EXPECT_TRUE(n == 3 && i[0] == -1 && i[1] == INT64_MIN && i[2] == 7);
        EXPECT(0, drover_future_get_f64_array(f, "fs", &x, &n));
        EXPECT_TRUE(n == 1 && x[0] == -0.5);
        EXPECT(0, drover_future_get_bool_array(f, "bs", &b, &n));
        EXPECT_TRUE(n == 2 && b[0] && !b[1]);
        EXPECT(0, drover_future_get_str_array(f, "ss", &s, &n));
        EXPECT_TRUE(n == 3 && !*s[0] && strcmp(s[1], "grün") == 0 && strcmp(s[2], "x") == 0);
        EXPECT(-EINVAL, drover_future_get_u64_array(f, "ss", &u, &n));
        EXPECT(-EINVAL, drover_future_get_u64_array(f, "u", &u, &n));
}

void check_types(drover_future *f, const char *text) {
        check_scalars(f, text);
        check_arrays(f);
}

/* Who only asks whether a field is there gives no place for it. */
static void check_without_outputs(drover_future *f) {
        EXPECT(0, drover_future_result(f, NULL, NULL));
        EXPECT(0, drover_future_get_run(f, NULL, sizeof(struct drover_run)));
        EXPECT(0, drover_future_get_u64(f, "u", NULL));
        EXPECT(0, drover_future_get_i64(f, "i", NULL));
        EXPECT(0, drover_future_get_f64(f, "f", NULL));
        EXPECT(0, drover_future_get_bool(f, "b", NULL));
        EXPECT(0, drover_future_get_str(f, "s", NULL, NULL));
        EXPECT(0, drover_future_get_bytes(f, "y", NULL, NULL));
        EXPECT(0, drover_future_get_u64_array(f, "us", NULL, NULL));
        EXPECT(0, drover_future_get_i64_array(f, "is", NULL, NULL));
        EXPECT(0, drover_future_get_f64_array(f, "fs", NULL, NULL));
        EXPECT(0, drover_future_get_bool_array(f, "bs", NULL, NULL));
        EXPECT(0, drover_future_get_str_array(f, "ss", NULL, NULL));
        EXPECT(-ENOENT, drover_future_get_u64(f, "none", NULL));
        EXPECT(-EINVAL, drover_future_get_u64(f, "s", NULL));
        EXPECT(-EINVAL, drover_future_cancel(f, (enum drover_cancel_mode)9));
        EXPECT_TEXT("cancel mode 9", drover_error_text(d));
}

void case_values(void) {
        drover_pool *p = pool("typed");
        drover_args *a = all_types(NULL);
        drover_future *f;
        EXPECT_TRUE(strcmp(drover_pool_name(p), "typed") == 0 && strcmp(drover_pool_plugin(p), "typed") == 0);
        for (int i = 0; i < 2; i++) { /* the same arguments twice */
                EXPECT(0, drover_submit(p, "echo", a, NULL, &f));
                EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
                check_types(f, NULL);
                drover_future_unref(f);
        }
        drover_args_reset(a);
        EXPECT(-EINVAL, drover_submit(p, "echo", a, NULL, &f));
        EXPECT_TEXT("missing argument \"u\"", drover_error_text(d));
        drover_args_free(a);

        EXPECT(0, drover_submitf(p, &f, "echo",
                                 "u:u64,i:i64,f:f64,b:bool,s:str,y:bytes,us:u64[],is:i64[],fs:f64[],bs:bool[],ss:str[]",
                                 UINT64_MAX, INT64_MIN, 0.1, true, "abc", "\xff\0\x01", (size_t)3,
                                 (const uint64_t[]){1, UINT64_MAX}, (size_t)2, (const int64_t[]){-1, INT64_MIN, 7},
                                 (size_t)3, (const double[]){-0.5}, (size_t)1, (const bool[]){true, false}, (size_t)2,
                                 (const char *const[]){"", "grün", "x"}, (size_t)3));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        check_arrays(f);
        check_without_outputs(f);
        drover_future_unref(f);
        drover_pool_unref(p);
}

static drover_args *emptied(drover_args *a) {
        drover_args_reset(a);
        return a;
}

void case_wrong_arguments(void) {
        drover_pool *p = pool("squares");
        drover_future *f;
        drover_args *a;
        EXPECT(-EINVAL, drover_submitf(p, &f, "square", "x:u64,y:u64", UINT64_C(1), UINT64_C(2)));
        EXPECT_TEXT("unknown argument \"y\"", drover_error_text(d));
        EXPECT(-EINVAL, drover_submitf(p, &f, "square", "x:str", "three"));
        EXPECT_TEXT("expected i64, got str", drover_error_text(d));
        EXPECT(-EINVAL, drover_submitf(p, &f, "square", "x:int", 3));
        EXPECT_TEXT("int", drover_error_text(d));
        EXPECT(-EINVAL, drover_submitf(p, &f, "square", NULL));
        EXPECT(-EINVAL, drover_submit_raw(p, "square", "xy", 2, NULL, &f));
        EXPECT_TEXT("by name", drover_error_text(d));
        EXPECT(-ENXIO, drover_submitf(p, &f, "cube", "x:i64", INT64_C(3)));
        EXPECT_TEXT("cube", drover_error_text(d));

        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_i64(a, "x", 3));
        EXPECT(-EINVAL, drover_args_raw(a, "x", 1));
        EXPECT(-EINVAL, drover_args_i64(a, "y", 3)); /* the first error stays */
        EXPECT(-EINVAL, drover_submit(p, "square", a, NULL, &f));

        /* NULL, and a size that says otherwise. */
        EXPECT(-EINVAL, drover_args_bytes(emptied(a), "x", NULL, 3));
        EXPECT(-EINVAL, drover_args_str_sized(emptied(a), "x", NULL, 3));
        EXPECT(-EINVAL, drover_args_u64_array(emptied(a), "x", NULL, 3));
        EXPECT(-EINVAL, drover_args_str_array(emptied(a), "x", NULL, 3));
        EXPECT(-EINVAL, drover_args_raw(emptied(a), NULL, 3));
        drover_args_free(a);
        EXPECT(-EINVAL, drover_submitf(p, &f, "square", "x:i64[]", NULL, (size_t)1));
        EXPECT_TEXT("NULL", drover_error_text(d));
        EXPECT(-EINVAL, drover_submit_raw(p, "square", NULL, 3, NULL, &f));
        EXPECT_TEXT("NULL", drover_error_text(d));
        EXPECT(-EINVAL, drover_submit(p, "getpid", NULL, DROVER_OPTIONS(.n_after = 1), &f));
        EXPECT_TEXT("after is NULL", drover_error_text(d));
        EXPECT(-EINVAL, drover_wait(NULL, 1, DROVER_ALL_COMPLETED, 0, NULL));
        EXPECT(-EINVAL, drover_wait(&(drover_future *){NULL}, 1, DROVER_ALL_COMPLETED, 0, NULL));
        drover_iterator *it;
        EXPECT(-EINVAL, drover_as_completed(NULL, 1, &it));
        EXPECT(0, drover_pool_in_flight(p));
        drover_pool_unref(p);
}

void case_raw(void) {
        enum { LARGE = 4096 };
        drover_pool *p = pool("typed");
        char data[LARGE + 1];
        const void *result;
        size_t bytes, sizes[] = {0, 1, 64, 96, 97, LARGE, LARGE + 1};
        drover_future *f;
        for (size_t i = 0; i < sizeof data; i++)
                data[i] = (char)(i * 7);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                EXPECT(0, drover_submit_raw(p, "raw", data, sizes[i], NULL, &f));
                EXPECT(-EINPROGRESS, drover_future_result(f, &result, &bytes));
                EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
                EXPECT(0, drover_future_result(f, &result, &bytes));
                EXPECT_TRUE(bytes == sizes[i] && memcmp(result, data, bytes) == 0);
                drover_future_unref(f);
        }
        EXPECT(-EINVAL, drover_submitf(p, &f, "raw", "x:i64", INT64_C(1)));
        EXPECT(0, drover_submitf(p, NULL, "raw", "raw", data, (size_t)3)); /* nobody wants to know */
        EXPECT(0, drover_pool_drain(p, DROVER_FOREVER));
        drover_pool_unref(p);
}

static int no_input(void *user, uint64_t i, drover_args *a) { return 0; }

void case_options(void) {
        drover_pool *p = pool("squares");
        drover_args *a;
        drover_future *f;
        struct drover_options o = {0};
        EXPECT(0, drover_args_new(&a));
        EXPECT(0, drover_args_f64(a, "seconds", 0));
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, &o, &f));
        EXPECT_TEXT("struct_size", drover_error_text(d));
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, DROVER_OPTIONS(.priority = 5), &f));
        EXPECT_TEXT("priority 5", drover_error_text(d));
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, DROVER_OPTIONS(.max_attempts = 64), &f));
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, DROVER_OPTIONS(.flags = 1u << 31), &f));
        struct {
                struct drover_map_options known;
                uint64_t later;
        } newer_map = {.known = {.struct_size = sizeof newer_map}, .later = 1};
        drover_iterator *it;
        EXPECT(-EINVAL, drover_map(p, "sleep", no_input, NULL, &newer_map.known, &it));
        EXPECT_TEXT("beyond what this library knows", drover_error_text(d));
        newer_map.later = 0;
        EXPECT(0, drover_map(p, "sleep", no_input, NULL, &newer_map.known, &it));
        drover_iterator_free(it);
        struct {
                struct drover_options known;
                uint64_t later;
        } newer = {.known = {.struct_size = sizeof newer}};
        EXPECT(0, drover_submit(p, "sleep", a, &newer.known, &f)); /* of a newer header, but unused */
        drover_future_unref(f);
        newer.later = 1;
        EXPECT(-EINVAL, drover_submit(p, "sleep", a, &newer.known, &f));

        drover_args_reset(a);
        EXPECT(0, drover_args_f64(a, "seconds", 30));
        EXPECT(0, drover_submit(p, "sleep", a, DROVER_OPTIONS(.soft_limit_ns = 200 * MS), &f));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_TIMED_OUT, drover_future_state(f));
        drover_future_unref(f);
        EXPECT(0,
               drover_submit(p, "sleep", a, DROVER_OPTIONS(.hard_limit_ns = 200 * MS, .priority = DROVER_URGENT), &f));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        const drover_error *e = drover_future_error(f);
        EXPECT(-ETIME, e->code);
        EXPECT(DROVER_TIMED_OUT, e->state);
        EXPECT_TEXT("time-limit", e->reason);
        EXPECT_TRUE(e->worker_pid > 0);
        drover_future_unref(f);
        drover_args_free(a);
        drover_pool_unref(p);
}

void case_errors(void) {
        drover_pool *fails = pool("fails"), *crash = pool("crash");
        drover_future *f;
        const void *data;
        size_t bytes;
        EXPECT(0, drover_submitf(fails, &f, "fail", "error:i64,text:str", (int64_t)ENOSPC, "the disk is full"));
        EXPECT_TRUE(drover_future_error(f) == NULL);
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(DROVER_FAILED, drover_future_state(f));
        EXPECT(-ENOSPC, drover_future_result(f, &data, &bytes));
        const drover_error *e = drover_future_error(f);
        EXPECT_TEXT("the disk is full", e->message);
        EXPECT_TEXT("fail of pool fails", e->where);
        EXPECT(1, e->attempt);
        EXPECT_TRUE(e->worker_pid > 0 && e->signal == 0 && !*e->reason);
        drover_future_unref(f);

        EXPECT(0, drover_submitf(crash, &f, "segfault", ""));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT(-EOWNERDEAD, drover_future_result(f, &data, &bytes));
        e = drover_future_error(f);
        EXPECT(DROVER_POISONED, e->state);
        EXPECT(2, e->attempt);
        EXPECT(11, e->signal);
        EXPECT_TEXT("signal", e->reason);
        EXPECT_TEXT("SIGSEGV", e->message);
        EXPECT_TRUE(e->worker_pid > 0);
        drover_future_unref(f);

        EXPECT(0, drover_submitf(crash, &f, "forbidden", ""));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        EXPECT_TEXT("syscall", drover_future_error(f)->reason);
        EXPECT_TEXT("forbidden system call socket", drover_future_error(f)->message);
        drover_future_unref(f);
        drover_pool_unref(fails);
        drover_pool_unref(crash);
}

void case_no_such(void) {
        drover_pool *p;
        drover *other;
        EXPECT(-ENOENT, drover_pool_open(d, "nowhere", &p));
        EXPECT_TEXT("nowhere", drover_error_text(d));
        EXPECT(-EINVAL, drover_pool_open(d, "", &p));
        EXPECT_TRUE(drover_open("unix:path=/nonexistent/bus", &other) < 0);
        EXPECT_TRUE(drover_open("nonsense", &other) < 0);
        EXPECT(0, drover_open(getenv("DBUS_SESSION_BUS_ADDRESS"), &other));
        EXPECT(0, drover_pool_open(other, "squares", &p));
        drover_pool_unref(p);
        drover_close(other);
}
