/* Arenas that somebody who shares them wrote over, so that they cost the broker as much as they can: what a turn of its
 * loop takes stays small. CPU time is measured, which a busy machine does not add to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/supervise/arenas/arenas.h"
#include "ipc/memory/event.h"
#include "ipc/sync/arena/arena.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 10 };
#else
enum { SLOWER = 1 };
#endif

#define TURN_NS (UINT64_C(20000000) * SLOWER) /* that a turn, or a call, may take */
#define WORST_NS (10 * TURN_NS) /* a guest's CPU time has what its host took from it: a few may look longer */

enum { MAX_LONG = 2 };
enum { PLACES = ARENA_MAX_PARTICIPANTS, OBJECTS = ARENA_MAX_OBJECTS, TOO_LONG_S = 60 };

struct fixture {
        struct loop *loop;
        struct arenas *arenas;
        pid_t child; /* that opens them */
        int pidfd;
        uint64_t turn_began, longest;
        unsigned n_long;
};

static uint64_t cpu_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void count_time(struct fixture *f, uint64_t took_ns) {
        f->longest = took_ns > f->longest ? took_ns : f->longest;
        f->n_long += took_ns > TURN_NS;
}

static void check_times(const struct fixture *f) {
        print_message("%u longer than %llu us, the longest %llu us\n", f->n_long, (unsigned long long)TURN_NS / 1000,
                      (unsigned long long)f->longest / 1000);
        assert_in_range(f->n_long, 0, MAX_LONG);
        assert_in_range(f->longest, 0, WORST_NS);
}

static int set_up(void **state) {
        static struct fixture f;
        const char *why;
        alarm(TOO_LONG_S);
        f = (struct fixture){.child = fork()};
        if (f.child == 0) {
                alarm(TOO_LONG_S);
                for (;;)
                        pause();
        }
        assert_int_equal(loop_new(&f.loop, &why), 0);
        assert_int_equal(arenas_new(&f.arenas, f.loop), 0);
        f.pidfd = (int)syscall(SYS_pidfd_open, f.child, 0);
        assert_true(f.pidfd >= 0);
        *state = &f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        kill(f->child, SIGKILL);
        waitpid(f->child, NULL, 0);
        f->arenas = arenas_free(f->arenas);
        f->loop = loop_free(f->loop);
        close(f->pidfd);
        alarm(0);
        return 0;
}

/* Opened by the child; what it could do in the memory, the caller does. */
static struct drover_arena *open_arena(struct fixture *f, uid_t uid, const char *name, uint64_t bytes, uint32_t objects,
                                       uint32_t places) {
        const struct arena_request q = {.name = name,
                                        .uid = uid,
                                        .bytes = bytes,
                                        .n_objects = objects,
                                        .n_processes = places,
                                        .pid = f->child,
                                        .pidfd = f->pidfd};
        struct arena_offer offer;
        struct drover_arena *a;
        struct fault fault;
        assert_int_equal(arenas_open(f->arenas, &q, &offer, &fault), 0);
        assert_int_equal(arena_watch(offer.memory_fd, &a), 0);
        close(offer.memory_fd);
        return a;
}

/* Every entry is the largest queue that there can be, and all are the same. */
static void fill_with_one_queue(struct drover_arena *a) {
        for (uint32_t i = 0; i < a->n_objects; i++) {
                a->objects[i].offset = a->first;
                a->objects[i].parameters[0] = ARENA_MAX_CELLS / 2;
                a->objects[i].parameters[1] = 1;
                a->objects[i].parameters[2] = DROVER_QUEUE_FIFO;
                a->objects[i].word = OBJECT_WORD(OBJECT_QUEUE, 1);
                a->hashes[i] = HASH_FIRST;
        }
        a->shared->n_made = a->n_objects;
}

static void take_all_places(struct drover_arena *a, pid_t pid) {
        for (uint32_t i = 0; i < a->n_participants; i++)
                if (participant_state(a->shared->participants[i].word) == PARTICIPANT_FREE)
                        a->shared->participants[i].word = PARTICIPANT_WORD(PARTICIPANT_LIVE, 1, pid);
                else
                        a->shared->participants[i].word =
                                (a->shared->participants[i].word & ~UINT64_C(0xff)) | PARTICIPANT_LIVE;
}

/* ---- a death ---- */

static void on_turn(void *user) {
        struct fixture *f = user;
        struct arena_info info;
        bool is_over = true;
        uint64_t took = cpu_ns() - f->turn_began;
        if (f->turn_began > 0)
                count_time(f, took);
        for (struct arena *a = NULL; (a = arenas_next(f->arenas, a));) {
                arena_get_info(a, &info);
                is_over &= info.n_users == 0;
        }
        if (is_over)
                loop_exit(f->loop, 0);
        f->turn_began = cpu_ns();
}

static void run_until_repaired(struct fixture *f) {
        kill(f->child, SIGKILL);
        assert_int_equal(loop_add_hook(f->loop, on_turn, f), 0);
        assert_int_equal(loop_run(f->loop), 0);
        check_times(f);
}

static void test_a_death(void **state) {
        struct fixture *f = *state;
        struct drover_arena *a = open_arena(f, 1, "x", 11 << 20, OBJECTS, PLACES);
        struct arena_info info;
        fill_with_one_queue(a);
        take_all_places(a, f->child);
        run_until_repaired(f);
        arena_get_info(arenas_find(f->arenas, 1, "x"), &info);
        assert_int_equal(info.n_places, 0);
        drover_arena_free(a);
}

/* Who died with the directory's lock leaves removals to be ended, of every entry. */
static void test_a_death_in_the_directory(void **state) {
        struct fixture *f = *state;
        struct drover_arena *a = open_arena(f, 1, "x", 11 << 20, OBJECTS, PLACES);
        fill_with_one_queue(a);
        take_all_places(a, f->child);
        for (uint32_t i = 0; i < a->n_objects; i++)
                a->objects[i].word |= OBJECT_REMOVED;
        a->shared->directory.word = UINT64_C(7) << OWNER_PARTICIPANT_SHIFT;
        run_until_repaired(f);
        assert_int_equal(owner_participant(a->shared->directory.word), 0);
        drover_arena_free(a);
}

/* Honest, but many: nothing is lost by being repaired in steps. */
static void test_a_death_with_many_objects(void **state) {
        struct fixture *f = *state;
        struct drover_arena *a = open_arena(f, 1, "x", (uint64_t)OBJECTS * LAYOUT_LINE, OBJECTS, 0);
        const struct drover_object_info *objects;
        uint32_t position = OBJECTS - 1;
        for (uint32_t i = 0; i < a->n_objects; i++) {
                struct layout_mutex *mutex = (void *)((uint8_t *)a->shared + a->first + (uint64_t)i * LAYOUT_LINE);
                a->objects[i].offset = a->first + (uint64_t)i * LAYOUT_LINE;
                a->objects[i].word = OBJECT_WORD(OBJECT_MUTEX, 1);
                a->hashes[i] = HASH_FIRST;
                mutex->lock.word = UINT64_C(1) << OWNER_PARTICIPANT_SHIFT;
        }
        take_all_places(a, f->child);
        run_until_repaired(f);
        for (uint32_t i = 0; i < a->n_objects; i++)
                assert_int_equal(a->objects[i].n_repaired, 1);
        assert_int_equal(arena_list_objects(arenas_find(f->arenas, 1, "x"), &position, 0, &objects), 1);
        assert_true(objects[0].is_inconsistent);
        drover_arena_free(a);
}

/* ---- looking ---- */

enum { CALLS = 10 };

/* Threads 1 to 512 of the process in place 0: each waits for the next, and the last runs. */
static void fill_with_a_chain(struct drover_arena *a) {
        for (uint32_t i = 0; i < ARENA_WAITS; i++) {
                struct layout_mutex *mutex = (void *)((uint8_t *)a->shared + a->first + (uint64_t)i * LAYOUT_LINE);
                a->objects[i].offset = a->first + (uint64_t)i * LAYOUT_LINE;
                a->objects[i].word = OBJECT_WORD(OBJECT_MUTEX, 1);
                a->hashes[i] = HASH_FIRST;
                mutex->lock.word = UINT64_C(1) << OWNER_PARTICIPANT_SHIFT | (uint64_t)(i + 2) << OWNER_SUB_SHIFT;
                a->shared->waits[i].owner = UINT64_C(1) << OWNER_PARTICIPANT_SHIFT | (uint64_t)(i + 1)
                                                                                             << OWNER_SUB_SHIFT;
                a->shared->waits[i].wait = i + 1;
                a->shared->waits[i].since_ns = 1;
        }
}

static void fill_with_one_mutex(struct drover_arena *a) {
        for (uint32_t i = 0; i < a->n_objects; i++) {
                a->objects[i].offset = a->first;
                a->objects[i].word = OBJECT_WORD(OBJECT_MUTEX, 1);
                a->hashes[i] = HASH_FIRST;
        }
        a->shared->n_made = a->n_objects;
}

static void open_many(struct fixture *f, uint32_t objects, uint32_t places, void (*fill)(struct drover_arena *a)) {
        char name[16];
        for (int i = 0; i < ARENAS_PER_UID; i++) {
                snprintf(name, sizeof(name), "n%d", i);
                struct drover_arena *a = open_arena(f, 1, name, 1 << 16, objects, places);
                fill(a);
                drover_arena_free(a);
        }
}

static void test_searches(void **state) {
        struct fixture *f = *state;
        struct arena_cycle cycle;
        struct arena_wait wait;
        open_many(f, ARENA_WAITS, 0, fill_with_a_chain);
        for (int i = 0; i < CALLS; i++) {
                uint64_t began = cpu_ns();
                arenas_find_cycle(f->arenas, f->child, &cycle);
                assert_int_equal(cycle.n, 0);
                assert_true(i > 0 || cycle.is_cut_off);
                for (int k = 0; k < 1000; k++) /* as for a list of so many workers */
                        arenas_find_wait(f->arenas, f->child, 0, &wait);
                count_time(f, cpu_ns() - began);
        }
        check_times(f);
        uint64_t later = event_now_ns() + ARENAS_LOOKS_NS;
        while (event_now_ns() < later)
                ;
        assert_true(arenas_find_wait(f->arenas, f->child, 0, &wait)); /* the looks were given anew */
        assert_non_null(wait.arena);
}

static void test_lists(void **state) {
        struct fixture *f = *state;
        const struct drover_object_info *objects;
        struct arena_info info;
        open_many(f, 1024, PLACES, fill_with_one_mutex);
        struct drover_arena *large = open_arena(f, 2, "large", 1 << 16, OBJECTS, PLACES);
        fill_with_one_mutex(large);
        drover_arena_free(large);
        for (int i = 0; i < CALLS; i++) {
                uint64_t began = cpu_ns();
                for (struct arena *a = NULL; (a = arenas_next(f->arenas, a));)
                        arena_get_info(a, &info);
                count_time(f, cpu_ns() - began);
        }
        for (uint32_t position = 0, i = 0; i == 0 || position > 0; i++) {
                uint64_t began = cpu_ns();
                assert_in_range(arena_list_objects(arenas_find(f->arenas, 2, "large"), &position, 0, &objects), 1,
                                ARENAS_MAX_LISTED);
                count_time(f, cpu_ns() - began);
        }
        check_times(f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_death, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_death_in_the_directory, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_death_with_many_objects, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_searches, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_lists, set_up, tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
