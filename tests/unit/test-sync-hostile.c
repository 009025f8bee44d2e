/* An arena with a peer that writes anywhere in it, or that holds its directory and never goes on. */
#include "tests/unit/sync-fixture.h"

#include <sys/stat.h>

#include "ipc/sync/arena/arena.h"

static void scribble(drover_arena *a, void *user) {
        struct stat st;
        CHECK(fstat(drover_arena_fd(a), &st) == 0);
        uint64_t *words = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, drover_arena_fd(a), 0);
        CHECK(words != MAP_FAILED);
        unsigned seed = 7;
        for (uint64_t i = 0;; i++) {
                uint64_t at = ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % ((uint64_t)st.st_size / 8);
                uint64_t value = (uint64_t)rand_r(&seed) << 32 | (uint64_t)rand_r(&seed);
                if (at < 8)
                        continue; /* or nobody could attach */
                __atomic_store_n(&words[at], i % 3 == 0 ? 0 : i % 3 == 1 ? value : value & 0xffffff, __ATOMIC_RELAXED);
                atomic_fetch_add((_Atomic uint64_t *)user, 1);
        }
}

/* Nobody who shares memory with such a peer gets sense out of it, but nobody crashes, and what looks and repairs never
 * blocks. */
static void test_hostile_peer(void **state) {
        drover_arena *a = fixture_arena(1 << 16);
        _Atomic uint64_t *n_writes = fixture_shared(4096);
        drover_queue *q;
        drover_dictionary *d;
        drover_barrier *b;
        drover_mutex *m;
        assert_int_equal(drover_queue_open(a, "q", 8, 16, DROVER_QUEUE_FIFO, &q), 0);
        OWN(queue, q);
        assert_int_equal(drover_dictionary_open(a, "d", 8, 8, 8, &d), 0);
        OWN(dictionary, d);
        assert_int_equal(drover_barrier_open(a, "b", 3, &b), 0);
        OWN(barrier, b);
        assert_int_equal(drover_mutex_open(a, "m", 0, &m), 0);
        OWN(mutex, m);
        pid_t pid = fixture_fork(a, scribble, n_writes);
        uint64_t end = in_ms(300);
        for (unsigned i = 0; event_now_ns() < end || atomic_load(n_writes) < 100000; i++) {
                struct drover_object_info infos[8];
                struct drover_wait_info waits[8];
                char buffer[16];
                size_t bytes;
                drover_arena_list(a, infos, 8);
                drover_arena_list_waits(a, waits, 8);
                drover_arena_find_cycle(a, waits, 8);
                drover_arena_repair(a, 1 + i % 255);
                drover_queue_put(q, buffer, sizeof buffer, 0);
                drover_queue_get(q, buffer, sizeof buffer, &bytes, 0);
                drover_queue_task_done(q);
                drover_queue_size(q);
                drover_dictionary_put(d, "key", 3, "value", 5, 0);
                drover_dictionary_get(d, "key", 3, buffer, 8, &bytes, 0);
                drover_dictionary_remove(d, "key", 3, 0);
                drover_barrier_wait(b, 0);
                drover_barrier_reset(b);
                if (drover_mutex_lock(m, 0) == 0)
                        drover_mutex_unlock(m);
        }
        kill(pid, SIGKILL);
        fixture_reap(a, pid);
        fixture_unshare((void *)n_writes, 4096);
        fixture_free(a);
}

static void lock_and_die(drover_arena *a, void *user) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, "first", 0, &m) == 0);
        CHECK(drover_mutex_lock(m, 0) == 0);
        kill(getpid(), SIGKILL);
}

/* Entries that all name one queue: the repair of a dead peer does no more than if they lay beside each other. What it
 * does not get to ends, rather than to keep somebody waiting. */
static void test_entries_that_name_the_same_memory(void **state) {
        enum { OBJECTS = ARENA_MAX_OBJECTS };
        drover_arena *a;
        drover_mutex *m;
        drover_event *e;
        struct timespec began, ended;
        assert_int_equal(drover_arena_create_sized("same", 11 << 20, OBJECTS, 8, &a), 0);
        assert_int_equal(drover_mutex_open(a, "first", 0, &m), 0);
        OWN(mutex, m);
        for (uint32_t i = 1; i < OBJECTS - 1; i++) {
                a->objects[i].offset = a->first + LAYOUT_PAGE;
                a->objects[i].parameters[0] = ARENA_MAX_CELLS / 2;
                a->objects[i].parameters[1] = 1;
                a->objects[i].parameters[2] = DROVER_QUEUE_FIFO;
                a->objects[i].word = OBJECT_WORD(OBJECT_QUEUE, 1);
                a->hashes[i] = HASH_FIRST;
        }
        a->shared->n_made = OBJECTS - 1;
        assert_int_equal(drover_event_open(a, "last", &e), 0);
        OWN(event, e);
        pid_t pid = fixture_fork(a, lock_and_die, NULL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
        assert_int_equal(fixture_reap(a, pid), -SIGKILL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
        assert_in_range(ended.tv_sec - began.tv_sec, 0, 2 * SLOWER);
        assert_int_equal(drover_mutex_lock(m, 0), -EOWNERDEAD);
        assert_int_equal(drover_event_wait(e, stuck()), -EIDRM);
        drover_event *next;
        assert_int_equal(drover_event_open(a, "last", &next), 0); /* there is room again */
        OWN(event, next);
        assert_int_equal(drover_event_wait(next, 0), -EAGAIN);
        fixture_free(a);
}

static void scribble_but_lock(drover_arena *a, void *user) {
        struct layout_arena *shared = a->shared;
        uint64_t *words = (uint64_t *)shared, skip = offsetof(struct layout_arena, directory) / 8;
        unsigned seed = 11;
        for (uint64_t i = 0;; i++) {
                uint64_t at = ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % (a->bytes / 8);
                if (i % 2) /* what says where objects are */
                        at = 2 + at % ((a->first + 64) / 8);
                uint64_t value = (uint64_t)rand_r(&seed) << 32 | (uint64_t)rand_r(&seed);
                if (at < 2 || at == skip || at == skip + 1) /* nobody could attach; each call would wait 5 s */
                        continue;
                __atomic_store_n(&words[at], i % 3 == 0 ? 0 : i % 3 == 1 ? value : value & 0xffff, __ATOMIC_RELAXED);
                atomic_fetch_add((_Atomic uint64_t *)user, 1);
        }
}

/* Objects are made and removed in a directory, and memory found between others, that somebody writes over. */
static void test_making_and_removing_beside_a_hostile_peer(void **state) {
        drover_arena *a, *attached;
        _Atomic uint64_t *n_writes = fixture_shared(4096);
        assert_int_equal(drover_arena_create_sized("hostile", 1 << 16, 16, 8, &a), 0);
        pid_t pid = fixture_fork(a, scribble_but_lock, n_writes);
        uint64_t end = in_ms(300);
        for (unsigned i = 0; event_now_ns() < end || atomic_load(n_writes) < 100000; i++) {
                drover_array *array;
                drover_barrier *barrier;
                struct drover_object_info infos[8];
                char name[16];
                snprintf(name, sizeof name, "%u", i % 20);
                if (drover_array_open(a, name, 8, 1 + i % 1000, &array) == 0) {
                        memset(drover_array_data(array), 0, drover_array_length(array) * 8);
                        drover_array_free(array);
                }
                if (drover_barrier_open(a, "b", 3, &barrier) == 0) {
                        drover_barrier_wait(barrier, 0);
                        drover_barrier_free(barrier);
                }
                snprintf(name, sizeof name, "%u", (i + 7) % 20);
                drover_arena_unlink(a, i % 5 ? name : "b");
                drover_arena_list(a, infos, 8);
                arena_count_objects(a);
                drover_arena_repair(a, 1 + i % 6);
                if (drover_arena_attach(drover_arena_fd(a), &attached) == 0)
                        drover_arena_free(attached);
        }
        kill(pid, SIGKILL);
        fixture_reap(a, pid);
        fixture_unshare((void *)n_writes, 4096);
        drover_arena_free(a);
}

/* A maker that never finishes: who wants an object, or the dictionary it has, is told, and does not hang. */
static void test_the_directory_is_held(void **state) {
        (void)state;
        drover_arena *a = fixture_arena(4096);
        drover_mutex *m;
        assert_int_equal(drover_mutex_open(a, "there", 0, &m), 0);
        drover_mutex_free(m);
        atomic_store(&a->shared->directory.word, UINT64_C(0x7777) << OWNER_PARTICIPANT_SHIFT);
        uint64_t since_ns = event_now_ns();
        assert_int_equal(drover_mutex_open(a, "another", 0, &m), -ETIMEDOUT);
        assert_true(event_now_ns() - since_ns >= 4900 * MS);
        assert_int_equal(drover_mutex_open(a, "there", 0, &m), 0); /* what exists needs no lock */
        drover_mutex_free(m);
        fixture_free(a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hostile_peer),
                cmocka_unit_test(test_entries_that_name_the_same_memory),
                cmocka_unit_test(test_making_and_removing_beside_a_hostile_peer),
                cmocka_unit_test(test_the_directory_is_held),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
