/* SIGKILL between every two atomic operations of the sharing objects, with the library compiled so that a process dies
 * at a named place.
 *
 * This process is the broker: it starts workers that use every kind of object, repairs after each death and starts the
 * next. What must hold whatever dies: nobody waits for ever, no wake-up is lost (a wait that ends by its deadline finds
 * that it had no reason to end), what a lock guards is whole or its next owner is told, no item is lost, and in the end
 * nothing is held. DROVER_KILL_SEEDS says how often every place is tried. */
#include "tests/unit/sync-kill-fixture.h"

#include <sys/wait.h>

#include "ipc/memory/kill-point.h"

enum {
        WORKERS = 4,
        MAX_ITEMS = 1 << 20,
        SEEDS_AT_ONCE = 20, /* in one arena, which has room for so many names */
        MAX_NAMES = 220
};

static const char *const points[] = {
        "arena-joined",       "mutex-taken",      "mutex-given",          "lock-flagged",     "lock-woken",
        "lock-taken",         "lock-given",       "lock-waked",           "wait-line",        "wait-published",
        "wait-awake",         "wait-unpublished", "gate-registered",      "gate-sequence",    "gate-vain",
        "gate-woken",         "semaphore-taken",  "semaphore-posted",     "permit-taken",     "permit-given",
        "event-set",          "event-sleeper",    "rwlock-entered",       "rwlock-left",      "rwlock-closed",
        "condition-yielded",  "condition-woken",  "condition-registered", "condition-all",    "condition-sequence",
        "condition-notified", "queue-claimed",    "queue-tail",           "queue-written",    "queue-published",
        "queue-leased",       "queue-head",       "queue-copied",         "queue-freed",      "dictionary-written",
        "queue-passed",       "queue-scanned",    "dictionary-set",       "dictionary-swept", "guarded-half",
        "object-zeroed",      "object-filled",    "object-made",
};
enum { N_POINTS = sizeof points / sizeof *points };

struct shared {
        _Atomic uint32_t stop, n_names;
        _Atomic uint64_t n_operations, n_accepted, next_item;
        _Atomic uint32_t n_deaths_at[N_POINTS];
        _Atomic uint32_t inside_permits, peak_permits;
        uint64_t a, b;    /* under the mutex */
        uint64_t c, d;    /* under the rwlock */
        int64_t n_tokens; /* under the condition's mutex */
        _Atomic uint8_t accepted[MAX_ITEMS], seen[MAX_ITEMS];
};

static struct shared *shared;

static void use_mutex(struct sync_kill_objects *o, unsigned random) {
        int r = drover_mutex_lock(o->mutex, stuck());
        if (r == -EOWNERDEAD) {
                shared->b = shared->a;
                CHECK(drover_mutex_consistent(o->mutex) == 0);
        } else
                CHECK(r == 0);
        CHECK(shared->a == shared->b);
        shared->a++;
        KILL_POINT("guarded-half");
        if (random % 8 == 0)
                usleep(50); /* the others come to wait */
        shared->b++;
        CHECK(drover_mutex_unlock(o->mutex) == 0);
}

static void lock_bank(struct sync_kill_objects *o) {
        int r = drover_mutex_lock(o->bank, stuck());
        if (r == -EOWNERDEAD)
                r = drover_mutex_consistent(o->bank); /* one word: never half changed */
        CHECK(r == 0);
}

static void give_token(struct sync_kill_objects *o, unsigned random) {
        lock_bank(o);
        if (shared->n_tokens < 2) { /* scarce, so that takers wait */
                shared->n_tokens++;
                CHECK(drover_condition_notify(o->tokens, random % 4 == 0 ? UINT32_MAX : 1) == 0);
        }
        CHECK(drover_mutex_unlock(o->bank) == 0);
}

static void take_token(struct sync_kill_objects *o, unsigned random) {
        lock_bank(o);
        bool is_deep = random % 2;
        if (is_deep)
                CHECK(drover_mutex_lock(o->bank, 0) == 0);
        while (shared->n_tokens == 0) { /* the steady worker only gives: one will come, and be told of */
                int r = drover_condition_wait(o->tokens, stuck());
                if (r == -EOWNERDEAD)
                        r = drover_mutex_consistent(o->bank);
                CHECK(r == 0);
        }
        shared->n_tokens--;
        for (int i = 0; i <= is_deep; i++)
                CHECK(drover_mutex_unlock(o->bank) == 0);
}

static void use_semaphore(struct sync_kill_objects *o, unsigned random) {
        CHECK(drover_semaphore_post(o->semaphore, 1) == 0);
        if (random % 8 == 0)
                usleep(50);
        CHECK(drover_semaphore_wait(o->semaphore, stuck()) == 0);
}

static void use_permit(struct sync_kill_objects *o, unsigned random) {
        CHECK(drover_permits_acquire(o->permits, stuck()) == 0);
        if (random % 4 == 0)
                usleep(50);
        CHECK(drover_permits_release(o->permits) == 0);
}

static void use_event(struct sync_kill_objects *o, unsigned random) {
        if (random % 2) {
                CHECK(drover_event_set(o->event) == 0);
                CHECK(drover_event_clear(o->event) == 0);
        } else {
                int r = drover_event_wait(o->event, in_ms(2));
                CHECK(r == 0 || r == -ETIMEDOUT);
        }
}

static void use_rwlock(struct sync_kill_objects *o, unsigned random) {
        int r = random % 4 == 0 ? -EOWNERDEAD : drover_rwlock_read(o->rwlock, stuck());
        if (r == 0) {
                CHECK(shared->c == shared->d);
                if (random % 8 == 1)
                        usleep(50);
                CHECK(shared->c == shared->d);
                CHECK(drover_rwlock_unlock(o->rwlock) == 0);
                return;
        }
        CHECK(r == -EOWNERDEAD);
        r = drover_rwlock_write(o->rwlock, stuck());
        if (r == -EOWNERDEAD) {
                shared->d = shared->c;
                r = drover_rwlock_consistent(o->rwlock);
        }
        CHECK(r == 0 && shared->c == shared->d);
        shared->c++;
        KILL_POINT("guarded-half");
        shared->d++;
        CHECK(drover_rwlock_unlock(o->rwlock) == 0);
}

static void use_dictionary(struct sync_kill_objects *o, unsigned random) {
        char key[2] = {(char)('a' + random % 8), 0}, value[64], read[64];
        size_t bytes;
        int r = drover_dictionary_lock(o->dictionary, stuck());
        if (r == -EOWNERDEAD) {
                r = drover_dictionary_consistent(o->dictionary); /* somebody else may have said so */
                CHECK(r == 0 || r == -EINVAL);
                return;
        }
        CHECK(r == 0);
        r = drover_dictionary_get(o->dictionary, key, 1, read, sizeof read, &bytes, stuck());
        CHECK(r == -ENOENT || (r == 0 && bytes == 64));
        for (unsigned i = 1; r == 0 && i < 64; i++)
                CHECK(read[i] == read[0]); /* the old or the new value, never a mix */
        memset(value, (int)(random >> 8), sizeof value);
        if (random % 3 == 0 && r == 0)
                CHECK(drover_dictionary_remove(o->dictionary, key, 1, stuck()) == 0);
        else
                CHECK(drover_dictionary_put(o->dictionary, key, 1, value, sizeof value, stuck()) == 0);
        CHECK(drover_dictionary_unlock(o->dictionary) == 0);
}

static void queue_in(drover_queue *q, bool is_simple) {
        uint64_t item[8] = {atomic_fetch_add(&shared->next_item, 1)};
        CHECK(item[0] < MAX_ITEMS);
        for (int i = 1; i < 8; i++)
                item[i] = item[0];
        CHECK(drover_queue_put(q, item, sizeof item, stuck()) == 0);
        if (!is_simple) /* what a simple queue gave to one who then died is gone */
                atomic_store(&shared->accepted[item[0]], 1);
}

static bool queue_out(drover_queue *q, bool is_simple, uint64_t deadline) {
        uint64_t item[8];
        size_t bytes;
        int r = drover_queue_get(q, item, sizeof item, &bytes, deadline);
        if (r == -EAGAIN && deadline == 0)
                return false;
        CHECK(r == 0 && bytes == sizeof item && item[0] < MAX_ITEMS);
        for (int i = 1; i < 8; i++)
                CHECK(item[i] == item[0]);
        atomic_store(&shared->seen[item[0]], 1);
        CHECK(is_simple || drover_queue_task_done(q) == 0);
        return true;
}

static void use_queue(struct sync_kill_objects *o, unsigned random) {
        drover_queue *q = random % 3 == 0 ? o->lifo : o->queue;
        queue_in(q, false);
        if (random % 8 == 1)
                usleep(50);
        queue_out(q, false, stuck());
}

static void use_simple_queue(struct sync_kill_objects *o, unsigned random) {
        queue_in(o->simple, true);
        queue_out(o->simple, true, stuck());
}

static void (*const uses[])(struct sync_kill_objects *o, unsigned random) = {
        use_mutex, give_token,     take_token, use_semaphore,    use_permit, use_event,  use_rwlock,
        use_queue, use_dictionary, use_queue,  use_simple_queue, use_mutex,  take_token, give_token,
};

static void make_something(drover_arena *a, unsigned random) {
        char name[32];
        drover_permits *p;
        if (atomic_load(&shared->n_names) >= MAX_NAMES)
                return;
        snprintf(name, sizeof name, "made %u", atomic_fetch_add(&shared->n_names, 1));
        CHECK(drover_permits_open(a, name, 4, &p) == 0);
        CHECK(drover_permits_available(p) == 4);
        drover_permits_free(p);
}

static void worker(drover_arena *a, void *user) {
        const struct sync_kill_order *order = user;
        struct sync_kill_objects o;
        unsigned seed = order->seed;
        sync_kill_open(a, &o);
        if (order->point >= 0) {
                sync_kill_plan.n_deaths = &shared->n_deaths_at[order->point];
                sync_kill_plan.n_left = 1 + (unsigned)rand_r(&seed) % 3;
                sync_kill_plan.name = points[order->point];
        }
        for (unsigned i = 0; !atomic_load(&shared->stop); i++) {
                unsigned random = (unsigned)rand_r(&seed);
                if (sync_kill_plan.name && strncmp(sync_kill_plan.name, "object", 6) == 0)
                        make_something(a, random);
                if (sync_kill_plan.name && strncmp(sync_kill_plan.name, "arena", 5) == 0) {
                        drover_arena *again;
                        CHECK(drover_arena_attach(drover_arena_fd(a), &again) == 0);
                        drover_arena_free(again);
                }
                void (*use)(struct sync_kill_objects * o, unsigned random) =
                        uses[random / 16 % (sizeof uses / sizeof *uses)];
                if (use == take_token && order->point < 0)
                        use = give_token;
                use(&o, random);
                atomic_fetch_add(&shared->n_operations, 1);
                if (order->point >= 0 && i > 3000) /* this place was not met in time */
                        kill(getpid(), SIGKILL);
        }
        if (order->point < 0) { /* the steady one goes: nobody will give any more */
                lock_bank(&o);
                shared->n_tokens += WORKERS;
                CHECK(drover_condition_notify_all(o.tokens) == 0);
                CHECK(drover_mutex_unlock(o.bank) == 0);
        }
        fixture_free(a);
}

/* Puts and gets are paired in each worker; what deaths between the two leave behind would fill the queues. */
static void drain(struct sync_kill_objects *o) {
        while (drover_queue_size(o->queue) > CAPACITY / 2 && queue_out(o->queue, false, 0))
                ;
        while (drover_queue_size(o->lifo) > CAPACITY / 2 && queue_out(o->lifo, false, 0))
                ;
        while (drover_queue_size(o->simple) > CAPACITY / 2 && queue_out(o->simple, true, 0))
                ;
}

static void verify(drover_arena *arena, struct sync_kill_objects *o) {
        while (queue_out(o->queue, false, 0) || queue_out(o->lifo, false, 0) || queue_out(o->simple, true, 0))
                ;
        uint64_t n = atomic_load(&shared->next_item);
        for (uint64_t i = 0; i < n; i++)
                assert_true(!shared->accepted[i] || shared->seen[i]);
        assert_int_equal(drover_queue_join(o->queue, stuck()), 0);
        assert_int_equal(drover_queue_join(o->lifo, stuck()), 0);
        assert_int_equal(drover_permits_available(o->permits), PERMITS);
        use_mutex(o, 1);
        use_rwlock(o, 0);
        use_rwlock(o, 1);
        struct drover_wait_info waits[1];
        assert_int_equal(drover_arena_list_waits(arena, waits, 1), 0);
}

/* Every place with the seeds from `first` on. */
static void kill_at_every_place(unsigned first, unsigned n, unsigned n_died_at[N_POINTS]) {
        drover_arena *arena = fixture_arena(4 << 20);
        struct sync_kill_objects o;
        pid_t pids[WORKERS];
        struct sync_kill_order order = {.seed = first * N_POINTS};
        unsigned n_deaths = 0, n_wanted = N_POINTS * n;
        shared = fixture_shared(sizeof *shared);
        sync_kill_open(arena, &o);
        for (unsigned i = 0; i < WORKERS; i++, order.seed++) {
                order.point = i == 0 ? -1 : (int)(order.seed % N_POINTS);
                pids[i] = fixture_fork(arena, worker, &order);
        }
        while (n_deaths < n_wanted) {
                int status;
                pid_t pid = waitpid(-1, &status, 0);
                assert_true(pid > 0);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* else a CHECK said why */
                drover_arena_repair_pid(arena, pid);
                drain(&o);
                n_deaths++;
                order.seed++;
                order.point = (int)(order.seed % N_POINTS);
                for (unsigned i = 0; i < WORKERS; i++)
                        if (pids[i] == pid)
                                pids[i] = fixture_fork(arena, worker, &order);
        }
        atomic_store(&shared->stop, 1);
        for (unsigned i = 0; i < WORKERS; i++)
                sync_kill_reap_any(arena);
        verify(arena, &o);
        for (unsigned i = 0; i < N_POINTS; i++)
                n_died_at[i] += shared->n_deaths_at[i];
        fixture_unshare(shared, sizeof *shared);
        fixture_free(arena);
}

static void test_every_place(void **state) {
        unsigned n_died_at[N_POINTS] = {0}, n_all = 0;
        for (unsigned first = 0; first < sync_kill_seeds(); first += SEEDS_AT_ONCE)
                kill_at_every_place(
                        first, sync_kill_seeds() - first < SEEDS_AT_ONCE ? sync_kill_seeds() - first : SEEDS_AT_ONCE,
                        n_died_at);
        for (unsigned i = 0; i < N_POINTS; i++) {
                n_all += n_died_at[i];
                print_message("%u died at %s\n", n_died_at[i], points[i]);
        }
        print_message("%u seeds, %u places, %u deaths there\n", sync_kill_seeds(), N_POINTS, n_all);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_place),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
