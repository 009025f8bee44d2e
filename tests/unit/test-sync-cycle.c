/* Circles of waits: found in one arena and across two, between threads and between processes, named, broken by ending
 * one call that may end; and never seen where there is none. */
#include "tests/unit/sync-fixture.h"

#include <sched.h>

#include "ipc/sync/wait/cycle.h"

static drover_mutex *mutex_open(drover_arena *a, const char *name) {
        drover_mutex *m;
        CHECK(drover_mutex_open(a, name, 0, &m) == 0);
        OWN(mutex, m);
        return m;
}

/* Both sides of a crossing: each takes its first, waits until all have, takes its second. */
struct crossing {
        _Atomic uint32_t n_started, n_first, n_told, n_through;
};

static uint32_t cross_begin(struct crossing *c) { return atomic_fetch_add(&c->n_started, 1); }

static void cross_meet(struct crossing *c) {
        atomic_fetch_add(&c->n_first, 1);
        while (atomic_load(&c->n_first) < 2)
                sched_yield();
}

static void cross_count(struct crossing *c, int r) {
        CHECK(r == 0 || r == -EDEADLK);
        atomic_fetch_add(r == 0 ? &c->n_through : &c->n_told, 1);
}

struct watcher {
        drover_arena *arena;
        int found;
        struct drover_wait_info infos[4];
};

static void *break_cycle(void *user) {
        struct watcher *w = user;
        uint64_t deadline = stuck();
        while (w->found == 0 && event_now_ns() < deadline)
                w->found = drover_arena_find_cycle(w->arena, w->infos, 4);
        return NULL;
}

/* Runs the two with a watcher beside them; the cycle is found, and one of them is told. */
static void cross(drover_arena *a, void (*fn)(drover_arena *a, void *user), int processes, struct watcher *w) {
        struct crossing *c = fixture_shared(sizeof *c);
        pthread_t id;
        *w = (struct watcher){.arena = a};
        assert_int_equal(pthread_create(&id, NULL, break_cycle, w), 0);
        fixture_run(a, &(struct fixture_crew){fn, c, 2, processes});
        pthread_join(id, NULL);
        assert_int_equal(w->found, 2);
        assert_int_equal(atomic_load(&c->n_told), 1);
        assert_int_equal(atomic_load(&c->n_through), 1);
        assert_true(w->infos[0].owner_pid == w->infos[1].pid && w->infos[1].owner_pid == w->infos[0].pid);
        assert_true(w->infos[0].owner_thread == w->infos[1].thread && w->infos[1].owner_thread == w->infos[0].thread);
        assert_int_equal(drover_arena_find_cycle(a, w->infos, 4), 0);
        fixture_unshare(c, sizeof *c);
}

static bool are_objects(const struct watcher *w, const char *a, const char *b) {
        return (strcmp(w->infos[0].object, a) == 0 && strcmp(w->infos[1].object, b) == 0) ||
               (strcmp(w->infos[0].object, b) == 0 && strcmp(w->infos[1].object, a) == 0);
}

/* ---- two mutexes ---- */

static void cross_mutexes(drover_arena *a, void *user) {
        drover_mutex *m[2] = {mutex_open(a, "bank/a"), mutex_open(a, "bank/b")};
        uint32_t mine = cross_begin(user);
        CHECK(drover_mutex_lock(m[mine], stuck()) == 0);
        cross_meet(user);
        int r = drover_mutex_lock(m[!mine], stuck());
        cross_count(user, r);
        if (r == 0)
                CHECK(drover_mutex_unlock(m[!mine]) == 0);
        CHECK(drover_mutex_unlock(m[mine]) == 0);
}

static void test_two_mutexes(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(4096);
                struct watcher w;
                cross(a, cross_mutexes, processes, &w);
                assert_true(are_objects(&w, "bank/a", "bank/b"));
                fixture_free(a);
        }
}

/* ---- a reader that waits for a writer sleeps at another word than the lock's, and is told all the same ---- */

static void cross_reader(drover_arena *a, void *user) {
        drover_mutex *m = mutex_open(a, "m");
        drover_rwlock *l;
        CHECK(drover_rwlock_open(a, "l", &l) == 0);
        OWN(rwlock, l);
        uint32_t mine = cross_begin(user);
        CHECK((mine == 0 ? drover_rwlock_write(l, stuck()) : drover_mutex_lock(m, stuck())) == 0);
        cross_meet(user);
        if (mine == 1) /* younger */
                fixture_await_waiters(a, "m", 1);
        int r = mine == 0 ? drover_mutex_lock(m, stuck()) : drover_rwlock_read(l, stuck());
        CHECK(r == (mine == 0 ? 0 : -EDEADLK));
        cross_count(user, r);
        if (r == 0)
                CHECK(drover_rwlock_unlock(l) == 0);
        CHECK(drover_mutex_unlock(m) == 0);
}

static void test_a_reader_and_a_writer(void **state) {
        for (int processes = 0; processes < 2; processes++) {
                drover_arena *a = fixture_arena(1 << 16);
                struct watcher w;
                cross(a, cross_reader, processes, &w);
                assert_true(are_objects(&w, "l", "m"));
                fixture_free(a);
        }
}

/* ---- who takes its mutex again after a condition cannot be told, so the other one is ---- */

static void cross_condition(drover_arena *a, void *user) {
        drover_mutex *m = mutex_open(a, "m"), *n = mutex_open(a, "n");
        drover_condition *c;
        CHECK(drover_condition_open(a, "c", m, &c) == 0);
        OWN(condition, c);
        if (cross_begin(user) == 0) {
                CHECK(drover_mutex_lock(n, stuck()) == 0);
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                cross_meet(user);
                int r = drover_condition_wait(c, stuck());
                cross_count(user, r);
                CHECK(r == 0);
        } else {
                cross_meet(user);
                fixture_await_waiters(a, "c", 1);
                CHECK(drover_mutex_lock(m, stuck()) == 0);
                CHECK(drover_condition_notify_all(c) == 0);
                int r = drover_mutex_lock(n, stuck()); /* before or after the other one wants m: it is the victim */
                CHECK(r == -EDEADLK);
                cross_count(user, r);
                CHECK(drover_mutex_unlock(m) == 0);
                return;
        }
        CHECK(drover_mutex_unlock(m) == 0);
        CHECK(drover_mutex_unlock(n) == 0);
}

static void test_a_condition_takes_its_mutex_again(void **state) {
        for (int processes = 0; processes < 2; processes++)
                for (int i = 0; i < 20; i++) { /* which of the two is younger is left to chance */
                        drover_arena *a = fixture_arena(1 << 16);
                        struct watcher w;
                        cross(a, cross_condition, processes, &w);
                        assert_true(are_objects(&w, "m", "n"));
                        fixture_free(a);
                }
}

/* ---- one lock in each of two arenas ---- */

static drover_arena *arenas[2];

static void cross_arenas(drover_arena *a, void *user) {
        drover_mutex *m[2] = {mutex_open(arenas[0], "m"), mutex_open(arenas[1], "m")};
        uint32_t mine = cross_begin(user);
        CHECK(drover_mutex_lock(m[mine], stuck()) == 0);
        cross_meet(user);
        int r = drover_mutex_lock(m[!mine], stuck());
        cross_count(user, r);
        if (r == 0)
                CHECK(drover_mutex_unlock(m[!mine]) == 0);
        CHECK(drover_mutex_unlock(m[mine]) == 0);
}

/* The books: this process is participant 0 of both. */
static bool both_places(void *user, const struct cycle_place *of, uint32_t i, struct cycle_place *ret) {
        if (of->participant != 0 || i > 1)
                return false;
        *ret = (struct cycle_place){.arena = arenas[i]};
        return true;
}

static void *break_cycle_of_both(void *user) {
        const struct cycle_books books = {.place = both_places}, none = {0};
        const struct cycle_place here = {.arena = arenas[0]};
        static struct cycle_step steps[CYCLE_MAX];
        uint64_t deadline = stuck();
        uint32_t n = 0;
        while (n == 0 && event_now_ns() < deadline) {
                struct cycle_budget one = {1}, budget = {CYCLE_MAX_LOOKS}, other = budget;
                CHECK(cycle_find(&books, &here, 0, &one, steps) == 0);
                CHECK(one.n_looks == 0);
                CHECK(cycle_find(&none, &here, 0, &budget, steps) == 0);
                n = cycle_find(&books, &here, 0, &other, steps);
        }
        CHECK(n == 2);
        CHECK(steps[0].place.arena != steps[1].place.arena);
        CHECK(cycle_youngest(steps, n) < 2);
        cycle_break(steps, n);
        return NULL;
}

static void test_two_arenas(void **state) {
        struct crossing c = {0};
        pthread_t id;
        for (int i = 0; i < 2; i++)
                arenas[i] = fixture_arena(4096);
        assert_int_equal(pthread_create(&id, NULL, break_cycle_of_both, NULL), 0);
        fixture_run(arenas[0], &(struct fixture_crew){cross_arenas, &c, 2, 0});
        pthread_join(id, NULL);
        assert_int_equal(c.n_told, 1);
        assert_int_equal(c.n_through, 1);
        fixture_free(arenas[0]);
        drover_arena_free(arenas[1]);
}

/* ---- no cycle ---- */

enum { HONEST_WAITS = 500000, HONEST = 6, LOCKS = 3 };

struct honest {
        _Atomic uint32_t n_waits, n_searches, is_over;
};

/* Takes two or three locks in the order of their names, and counts each that it had to wait for. */
static void lock_in_order(drover_arena *a, void *user) {
        struct honest *h = user;
        drover_mutex *m[LOCKS] = {mutex_open(a, "x"), mutex_open(a, "y"), mutex_open(a, "z")};
        for (uint32_t i = 0; atomic_load(&h->n_waits) < HONEST_WAITS; i++) {
                unsigned left_out = i % (LOCKS + 1);
                for (unsigned k = 0; k < LOCKS; k++) {
                        int r = k == left_out ? 0 : drover_mutex_lock(m[k], 0);
                        if (r == -EAGAIN) {
                                r = drover_mutex_lock(m[k], stuck());
                                atomic_fetch_add(&h->n_waits, 1);
                        }
                        CHECK(r == 0); /* not EDEADLK */
                        sched_yield(); /* so that the others come and wait */
                }
                for (unsigned k = 0; k < LOCKS; k++) { /* the order of giving back does not matter */
                        unsigned at = i % 2 ? k : LOCKS - 1 - k;
                        CHECK(at == left_out || drover_mutex_unlock(m[at]) == 0);
                }
        }
}

struct searcher {
        drover_arena *arena;
        struct honest *honest;
        int found;
};

static void *search_all_the_time(void *user) {
        struct searcher *s = user;
        while (s->found == 0 && !atomic_load(&s->honest->is_over)) {
                s->found = drover_arena_find_cycle(s->arena, NULL, 0);
                atomic_fetch_add(&s->honest->n_searches, 1);
                sched_yield();
        }
        return NULL;
}

static void wait_honestly(int processes) {
        drover_arena *a = fixture_arena(4096);
        struct honest *h = fixture_shared(sizeof *h);
        struct searcher s = {.arena = a, .honest = h};
        pthread_t id;
        assert_int_equal(pthread_create(&id, NULL, search_all_the_time, &s), 0);
        fixture_run(a, &(struct fixture_crew){lock_in_order, h, HONEST, processes});
        atomic_store(&h->is_over, 1);
        pthread_join(id, NULL);
        assert_int_equal(s.found, 0);
        assert_true(h->n_waits >= HONEST_WAITS);
        print_message("%u waits, %u searches\n", h->n_waits, h->n_searches);
        fixture_unshare(h, sizeof *h);
        fixture_free(a);
}

/* A million, half of them of threads, half of processes. */
static void test_honest_waits_of_threads(void **state) { wait_honestly(0); }
static void test_honest_waits_of_processes(void **state) { wait_honestly(1); }

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_two_mutexes),
                cmocka_unit_test(test_a_reader_and_a_writer),
                cmocka_unit_test(test_a_condition_takes_its_mutex_again),
                cmocka_unit_test(test_two_arenas),
                cmocka_unit_test(test_honest_waits_of_threads),
                cmocka_unit_test(test_honest_waits_of_processes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
