/* Arenas of the broker: by uid and name, bounded, and repaired when somebody who opened one dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/arenas/arenas.h"
#include "ipc/memory/event.h"

enum { MAX_FDS = 600 };

struct fixture {
        struct loop *loop;
        struct arenas *arenas;
        int pidfd; /* of this process */
        struct loop_timer timer;
        bool is_late;
        int fds[MAX_FDS];
        size_t n_fds;
};

static int set_up(void **state) {
        static struct fixture f;
        const char *why;
        f = (struct fixture){0};
        assert_int_equal(loop_new(&f.loop, &why), 0);
        assert_int_equal(arenas_new(&f.arenas, f.loop), 0);
        f.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
        assert_true(f.pidfd >= 0);
        *state = &f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        while (f->n_fds > 0)
                close(f->fds[--f->n_fds]);
        f->arenas = arenas_free(f->arenas);
        f->loop = loop_free(f->loop);
        close(f->pidfd);
        return 0;
}

static int open_as(struct fixture *f, uid_t uid, const char *name, uint64_t bytes, struct arena_offer *ret,
                   struct fault *fault) {
        const struct arena_request q = {.name = name, .uid = uid, .bytes = bytes, .pid = getpid(), .pidfd = f->pidfd};
        int r = arenas_open(f->arenas, &q, ret, fault);
        if (r == 0) {
                assert_true(f->n_fds < MAX_FDS);
                f->fds[f->n_fds++] = ret->memory_fd;
        }
        return r;
}

static bool is_same_file(int a, int b) {
        struct stat sa, sb;
        return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_ino == sb.st_ino;
}

static void test_key_is_uid_and_name(void **state) {
        struct fixture *f = *state;
        struct arena_offer a, b, c;
        struct fault fault;
        assert_int_equal(open_as(f, 1, "x", 0, &a, &fault), 0);
        assert_true(a.is_created);
        assert_int_equal(a.bytes, ARENAS_DEFAULT_BYTES);
        assert_int_equal(open_as(f, 1, "x", 0, &b, &fault), 0);
        assert_false(b.is_created);
        assert_true(is_same_file(a.memory_fd, b.memory_fd));
        assert_int_equal(open_as(f, 2, "x", 0, &c, &fault), 0);
        assert_true(c.is_created);
        assert_ptr_not_equal(arenas_find(f->arenas, 1, "x"), arenas_find(f->arenas, 2, "x"));
        assert_null(arenas_find(f->arenas, 3, "x"));
        assert_string_equal(arena_name(arenas_opened_by(f->arenas, getpid(), 1)), "x");
        assert_null(arenas_opened_by(f->arenas, getpid(), 2));
}

static void test_bad_requests(void **state) {
        struct fixture *f = *state;
        struct arena_offer a;
        struct fault fault = {0};
        const char *const names[] = {"", "a/b", "a b", "\xff",
                                     "0123456789012345678901234567890123456789012345678901234567890123x"};
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
                assert_int_equal(open_as(f, 1, names[i], 0, &a, &fault), -EINVAL);
                assert_int_equal(fault.code, FAULT_INVALID_ARGS);
        }
        assert_int_equal(open_as(f, 1, "huge", UINT64_MAX, &a, &fault), -EINVAL);
        assert_int_equal(open_as(f, 1, "x", 4096, &a, &fault), 0);
        assert_int_equal(open_as(f, 1, "x", 4097, &a, &fault), -EINVAL);
        assert_non_null(strstr(fault.text, "4096"));
}

static void test_shares(void **state) {
        struct fixture *f = *state;
        struct arena_offer a;
        struct fault fault;
        char name[16];
        assert_int_equal(open_as(f, 1, "most", ARENAS_BYTES_PER_UID - (UINT64_C(1) << 20), &a, &fault), 0);
        assert_int_equal(open_as(f, 1, "more", 0, &a, &fault), -EDQUOT);
        assert_int_equal(fault.code, FAULT_LIMITS_EXCEEDED);
        arenas_remove(arenas_find(f->arenas, 1, "most")); /* we may have it mapped */
        assert_null(arenas_find(f->arenas, 1, "most"));
        assert_int_equal(open_as(f, 1, "more", 0, &a, &fault), -EDQUOT);
        for (int i = 0; i < ARENAS_PER_UID; i++) {
                snprintf(name, sizeof(name), "n%d", i);
                assert_int_equal(open_as(f, 2, name, 1, &a, &fault), 0);
        }
        assert_int_equal(open_as(f, 2, "one-more", 1, &a, &fault), -EDQUOT);
}

/* In pages, each bounded; what is removed meanwhile moves nothing. */
static void test_many_objects(void **state) {
        enum { N = 2 * ARENAS_MAX_LISTED + 10 };
        struct fixture *f = *state;
        struct fault fault;
        struct arena_offer offer;
        struct arena_info info;
        const struct drover_object_info *objects;
        drover_arena *arena;
        drover_event *event;
        char name[16];
        uint32_t position = 0;
        const struct arena_request q = {
                .name = "x", .uid = 1, .n_objects = N, .n_processes = 300, .pid = getpid(), .pidfd = f->pidfd};
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        assert_int_equal(drover_arena_attach(offer.memory_fd, &arena), 0);
        close(offer.memory_fd);
        for (int i = 0; i < N; i++) {
                snprintf(name, sizeof(name), "e%d", i);
                assert_int_equal(drover_event_open(arena, name, &event), 0);
                drover_event_free(event);
        }
        struct arena *a = arenas_find(f->arenas, 1, "x");
        arena_get_info(a, &info);
        assert_int_equal(info.n_objects, N);
        assert_int_equal(info.max_objects, N);
        assert_int_equal(info.max_places, 300);
        assert_int_equal(arena_uid(a), 1);
        assert_int_equal(arena_list_objects(a, &position, 0, &objects), ARENAS_MAX_LISTED);
        assert_string_equal(objects[0].name, "e0");
        assert_int_equal(drover_arena_unlink(arena, "e5"), 0);
        assert_int_equal(drover_arena_unlink(arena, "e1000"), 0);
        assert_int_equal(arena_list_objects(a, &position, UINT32_MAX, &objects), ARENAS_MAX_LISTED);
        assert_string_equal(objects[0].name, "e1001");
        assert_int_equal(arena_list_objects(a, &position, 3, &objects), 3);
        assert_string_equal(objects[2].name, "e2003");
        assert_int_not_equal(position, 0);
        assert_int_equal(arena_list_objects(a, &position, 100, &objects), 6);
        assert_string_equal(objects[5].name, "e2009");
        assert_int_equal(position, 0);
        arena_get_info(a, &info);
        assert_int_equal(info.n_objects, N - 2);
        drover_arena_free(arena);
}

/* The limit is told with its number, and can be raised; what is there is not made larger. */
static void test_many_processes(void **state) {
        struct fixture *f = *state;
        struct fault fault = {0};
        struct arena_offer offer;
        drover_arena *attached[301];
        struct arena_request q = {.name = "x", .uid = 1, .n_processes = 300, .pid = getpid(), .pidfd = f->pidfd};
        for (int i = 0; i < 300; i++) {
                assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
                assert_int_equal(drover_arena_attach(offer.memory_fd, &attached[i]), 0);
                close(offer.memory_fd);
        }
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), -EUSERS);
        assert_int_equal(fault.code, FAULT_LIMITS_EXCEEDED);
        assert_non_null(strstr(fault.text, "300 processes"));
        q.n_processes = 301;
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), -EINVAL);
        assert_non_null(strstr(fault.text, "processes=301"));
        for (int i = 0; i < 300; i++)
                drover_arena_free(attached[i]);
        q.n_processes = 0;
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0); /* a place that was left is kept for us */
        close(offer.memory_fd);
}

static void test_the_dead_open_nothing(void **state) {
        struct fixture *f = *state;
        struct arena_offer a;
        struct fault fault;
        pid_t pid = fork();
        if (pid == 0)
                _exit(0);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        const struct arena_request q = {.name = "x", .uid = 1, .pid = pid, .pidfd = pidfd};
        assert_int_equal(arenas_open(f->arenas, &q, &a, &fault), -ESRCH);
        assert_null(arenas_find(f->arenas, 1, "x"));
        close(pidfd);
}

/* As many processes as a uid may have, by pids that nobody looks at; workers are not asked. */
static void test_processes_of_a_uid(void **state) {
        struct fixture *f = *state;
        struct fault fault = {0};
        struct arena_offer offer;
        struct arena_request q = {.name = "x", .uid = 1, .n_processes = 2048, .pid = 1, .pidfd = f->pidfd};
        for (; q.pid <= ARENAS_USERS_PER_UID; q.pid++) {
                assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
                close(offer.memory_fd);
        }
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), -EUSERS);
        assert_int_equal(fault.code, FAULT_LIMITS_EXCEEDED);
        assert_non_null(strstr(fault.text, "512 processes of uid 1"));
        q.is_worker = true;
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        close(offer.memory_fd);
        q = (struct arena_request){.name = "x", .uid = 2, .pid = 100000, .pidfd = f->pidfd};
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        close(offer.memory_fd);
}

/* The pid of the only user of a transient arena is another's by now, and nobody has heard of the death. */
static void test_a_pid_that_comes_again(void **state) {
        struct fixture *f = *state;
        struct fault fault;
        struct arena_offer offer;
        struct arena_info info;
        pid_t pid = fork();
        if (pid == 0)
                pause();
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct arena_request q = {.name = "x", .uid = 1, .is_transient = true, .pid = pid, .pidfd = pidfd};
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        close(offer.memory_fd);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        q.pidfd = f->pidfd;
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        close(offer.memory_fd);
        arena_get_info(arenas_find(f->arenas, 1, "x"), &info);
        assert_int_equal(info.n_places, 2); /* the first one's, until it is repaired */
        assert_ptr_equal(arenas_opened_by(f->arenas, pid, 0), arenas_find(f->arenas, 1, "x"));
        close(pidfd);
}

/* ---- a death ---- */

static void on_late(struct loop_timer *t) {
        struct fixture *f = t->user;
        f->is_late = true;
        loop_exit(f->loop, 0);
}

static int list_objects(struct fixture *f, const struct drover_object_info **ret) {
        uint32_t position = 0;
        return arena_list_objects(arenas_find(f->arenas, 1, "x"), &position, 0, ret);
}

/* Before each sleep: has the child's death been heard of? */
static void on_turn(void *user) {
        struct fixture *f = user;
        const struct drover_object_info *objects;
        struct arena *a = arenas_find(f->arenas, 1, "x");
        if (a && list_objects(f, &objects) == 1 && objects[0].n_repaired == 1)
                loop_exit(f->loop, 0);
}

static void hold_and_die(int fd, int told) {
        drover_arena *arena;
        drover_mutex *mutex;
        char c = drover_arena_attach(fd, &arena) == 0 && drover_mutex_open(arena, "m", 0, &mutex) == 0 &&
                                 drover_mutex_lock(mutex, DROVER_FOREVER) == 0
                         ? 'y'
                         : 'n';
        if (write(told, &c, 1) == 1)
                pause();
        _exit(1);
}

static void test_death(void **state) {
        struct fixture *f = *state;
        struct arena_offer offer;
        struct fault fault;
        const struct drover_object_info *objects;
        int told[2];
        char c = 0;
        assert_int_equal(open_as(f, 1, "x", 0, &offer, &fault), 0);
        assert_int_equal(pipe(told), 0);
        pid_t pid = fork();
        if (pid == 0)
                hold_and_die(offer.memory_fd, told[1]);
        assert_int_equal(read(told[0], &c, 1), 1);
        assert_int_equal(c, 'y');
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        const struct arena_request q = {.name = "x", .uid = 1, .pid = pid, .pidfd = pidfd};
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        assert_int_equal(list_objects(f, &objects), 1);
        assert_string_equal(objects[0].name, "m");
        assert_int_equal(objects[0].owner_pid, pid);
        assert_int_equal(objects[0].n_repaired, 0);

        kill(pid, SIGKILL);
        loop_add_hook(f->loop, on_turn, f);
        loop_timer_set(f->loop, &f->timer, event_now_ns() + UINT64_C(20000000000), on_late, f);
        assert_int_equal(loop_run(f->loop), 0);
        assert_false(f->is_late);
        loop_timer_stop(&f->timer);
        assert_int_equal(list_objects(f, &objects), 1);
        assert_int_equal(objects[0].owner_pid, 0);
        assert_true(objects[0].is_inconsistent);
        assert_null(arenas_opened_by(f->arenas, pid, 0));
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(pidfd);
        close(told[0]);
        close(told[1]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_key_is_uid_and_name, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_bad_requests, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_shares, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_many_objects, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_many_processes, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_the_dead_open_nothing, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_processes_of_a_uid, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_pid_that_comes_again, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_death, set_up, tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
