/* SIGKILL after every single instruction (ptrace) of lock, unlock, notify, post, put, get, task_done and the like,
 * while somebody else waits for what the dead one was about to give.
 *
 * Each scenario is run again and again, one instruction further each time, until the child gets through. DROVER_STEP
 * says how many instructions further: 1 for all of them, which takes minutes; the default keeps the suite short. */
#include "tests/unit/sync-fixture.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

enum { DEFAULT_STRIDE = 61, PERMITS = 2 };

struct objects {
        drover_mutex *mutex;
        drover_condition *condition;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_event *event;
        drover_queue *queue, *priority;
        drover_dictionary *dictionary;
        drover_rwlock *rwlock;
};

/* Shared with the child. */
struct shared {
        _Atomic uint32_t is_done, is_true;
};

static struct shared *shared;

static void objects_open(drover_arena *a, struct objects *o) {
        CHECK(drover_mutex_open(a, "mutex", 0, &o->mutex) == 0);
        CHECK(drover_condition_open(a, "condition", o->mutex, &o->condition) == 0);
        CHECK(drover_semaphore_open(a, "semaphore", 0, &o->semaphore) == 0);
        CHECK(drover_permits_open(a, "permits", PERMITS, &o->permits) == 0);
        CHECK(drover_event_open(a, "event", &o->event) == 0);
        CHECK(drover_queue_open(a, "queue", 1, 8, DROVER_QUEUE_FIFO, &o->queue) == 0);
        CHECK(drover_queue_open(a, "priority", 2, 8, DROVER_QUEUE_PRIORITY, &o->priority) == 0);
        CHECK(drover_dictionary_open(a, "dictionary", 2, 8, 8, &o->dictionary) == 0);
        CHECK(drover_rwlock_open(a, "rwlock", &o->rwlock) == 0);
}

static void objects_free(struct objects *o) {
        drover_rwlock_free(o->rwlock);
        drover_dictionary_free(o->dictionary);
        drover_queue_free(o->priority);
        drover_queue_free(o->queue);
        drover_event_free(o->event);
        drover_permits_free(o->permits);
        drover_semaphore_free(o->semaphore);
        drover_condition_free(o->condition);
        drover_mutex_free(o->mutex);
}

/* ---- scenarios: what the child does before and while it is stepped, who waits for it, what must hold ---- */

static void nothing(struct objects *o) {}

static void lock(struct objects *o) { CHECK(drover_mutex_lock(o->mutex, 0) == 0); }
static void unlock(struct objects *o) { CHECK(drover_mutex_unlock(o->mutex) == 0); }
static void lock_unlock(struct objects *o) {
        lock(o);
        unlock(o);
}
static void want_lock(struct objects *o) {
        int r = drover_mutex_lock(o->mutex, stuck());
        CHECK(r == 0 || r == -EOWNERDEAD);
        CHECK(drover_mutex_unlock(o->mutex) == 0);
}

static void notify(struct objects *o) {
        lock(o);
        atomic_store(&shared->is_true, 1);
        CHECK(drover_condition_notify(o->condition, 1) == 0);
        unlock(o);
}
/* Whatever the notifier lived to do: the waiter is told, by it or by its death. */
static void want_notification(struct objects *o) {
        CHECK(drover_mutex_lock(o->mutex, stuck()) == 0);
        int r = drover_condition_wait(o->condition, stuck());
        CHECK(r == 0 || r == -EOWNERDEAD);
        CHECK(drover_mutex_unlock(o->mutex) == 0);
}

static void post(struct objects *o) { CHECK(drover_semaphore_post(o->semaphore, 1) == 0); }

static void take_permits(struct objects *o) {
        for (int i = 0; i < PERMITS; i++)
                CHECK(drover_permits_acquire(o->permits, 0) == 0);
}
static void give_permit(struct objects *o) { CHECK(drover_permits_release(o->permits) == 0); }
static void want_permit(struct objects *o) {
        CHECK(drover_permits_acquire(o->permits, stuck()) == 0);
        CHECK(drover_permits_release(o->permits) == 0);
}

static void set(struct objects *o) { CHECK(drover_event_set(o->event) == 0); }

static void put(struct objects *o) {
        CHECK(drover_queue_put(o->queue, "item", 4, 0) == 0);
        atomic_store(&shared->is_done, 1);
}
static void verify_put(struct objects *o) {
        char item[8];
        size_t bytes;
        int r = drover_queue_get(o->queue, item, sizeof item, &bytes, 0);
        CHECK(r == 0 || (r == -EAGAIN && !shared->is_done));
        CHECK(r < 0 || (bytes == 4 && memcmp(item, "item", 4) == 0));
        CHECK(r < 0 || drover_queue_task_done(o->queue) == 0);
        CHECK(drover_queue_join(o->queue, 0) == 0);
}

static void get_done(struct objects *o) {
        char item[8];
        size_t bytes;
        CHECK(drover_queue_get(o->queue, item, sizeof item, &bytes, 0) == 0);
        CHECK(drover_queue_task_done(o->queue) == 0);
        atomic_store(&shared->is_done, 1);
}
static void want_join(struct objects *o) { CHECK(drover_queue_join(o->queue, stuck()) == 0); }
static void verify_got(struct objects *o) {
        char item[8];
        size_t bytes;
        int r = drover_queue_get(o->queue, item, sizeof item, &bytes, 0);
        CHECK(r == -EAGAIN || (r == 0 && !shared->is_done && memcmp(item, "item", 4) == 0));
        CHECK(r < 0 || drover_queue_task_done(o->queue) == 0);
        CHECK(drover_queue_join(o->queue, 0) == 0);
}
static void want_room(struct objects *o) { CHECK(drover_queue_put(o->queue, "item", 4, stuck()) == 0); }
/* The item that the dead one left, if it did, and the waiter's, who may still be putting it. */
static void drain(struct objects *o) {
        char item[8];
        size_t bytes;
        const uint64_t until_ns = stuck();
        bool is_settled;
        while (drover_queue_get(o->queue, item, sizeof item, &bytes, 0) == 0)
                CHECK(drover_queue_task_done(o->queue) == 0);
        do
                is_settled = drover_queue_join(o->queue, 0) == 0 || drover_queue_size(o->queue) > 0;
        while (!is_settled && event_now_ns() < until_ns);
        CHECK(is_settled);
}

static void put_get_priority(struct objects *o) {
        char item[8];
        size_t bytes;
        CHECK(drover_queue_put_priority(o->priority, 7, "item", 4, 0) == 0);
        CHECK(drover_queue_get(o->priority, item, sizeof item, &bytes, 0) == 0);
        CHECK(drover_queue_task_done(o->priority) == 0);
}
static void verify_priority(struct objects *o) {
        char item[8];
        size_t bytes;
        while (drover_queue_get(o->priority, item, sizeof item, &bytes, 0) == 0)
                CHECK(drover_queue_task_done(o->priority) == 0);
        CHECK(drover_queue_join(o->priority, 0) == 0);
}

static void update(struct objects *o) {
        CHECK(drover_dictionary_put(o->dictionary, "key", 3, "newvalue", 8, 0) == 0);
        CHECK(drover_dictionary_remove(o->dictionary, "key", 3, 0) == 0);
}
static void verify_dictionary(struct objects *o) {
        char value[8];
        size_t bytes;
        int r = drover_dictionary_get(o->dictionary, "key", 3, value, 8, &bytes, 0);
        if (r == -EOWNERDEAD) {
                CHECK(drover_dictionary_consistent(o->dictionary) == 0);
                r = drover_dictionary_get(o->dictionary, "key", 3, value, 8, &bytes, 0);
        }
        CHECK(r == -ENOENT || (r == 0 && memcmp(value, "newvalue", 8) == 0));
        CHECK(drover_dictionary_count(o->dictionary, 0) == (r == 0));
}

static void read_lock(struct objects *o) { CHECK(drover_rwlock_read(o->rwlock, 0) == 0); }
static void read_unlock(struct objects *o) { CHECK(drover_rwlock_unlock(o->rwlock) == 0); }
static void write_lock(struct objects *o) {
        CHECK(drover_rwlock_write(o->rwlock, 0) == 0);
        CHECK(drover_rwlock_unlock(o->rwlock) == 0);
}
static void want_write(struct objects *o) {
        int r = drover_rwlock_write(o->rwlock, stuck());
        CHECK(r == 0 || r == -EOWNERDEAD);
        CHECK(drover_rwlock_unlock(o->rwlock) == 0);
}
static void verify_permits(struct objects *o) { CHECK(drover_permits_available(o->permits) == PERMITS); }

static const struct scenario {
        const char *name, *awaited; /* the object a waiter sleeps on before the first step; NULL: no waiter */
        void (*before)(struct objects *o), (*act)(struct objects *o), (*want)(struct objects *o),
                (*verify)(struct objects *o);
        bool is_verified_first; /* the waiter waits for what verify does in the place of the dead */
} scenarios[] = {
        {"lock, unlock", NULL, nothing, lock_unlock, NULL, want_lock},
        {"unlock to a waiter", "mutex", lock, unlock, want_lock, want_lock},
        {"notify", "condition", nothing, notify, want_notification, nothing},
        {"post", NULL, nothing, post, NULL, nothing},
        {"permit to a waiter", "permits", take_permits, give_permit, want_permit, verify_permits},
        {"set", NULL, nothing, set, NULL, nothing},
        {"put", NULL, nothing, put, NULL, verify_put},
        {"get, done", NULL, put, get_done, NULL, verify_got},
        {"get, done before a joiner", "queue", put, get_done, want_join, verify_got, true},
        {"get before a producer", "queue", put, get_done, want_room, drain, true},
        {"priority", NULL, nothing, put_get_priority, NULL, verify_priority},
        {"dictionary", NULL, nothing, update, NULL, verify_dictionary},
        {"reader before a writer", "rwlock", read_lock, read_unlock, want_write, want_write},
        {"writer", NULL, nothing, write_lock, NULL, want_write},
};

/* ---- stepping ---- */

static void child(drover_arena *a, void *user) {
        const struct scenario *s = user;
        struct objects o;
        objects_open(a, &o);
        s->before(&o);
        atomic_store(&shared->is_done, 0);
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        raise(SIGSTOP);
        s->act(&o);
}

struct waiter {
        const struct scenario *scenario;
        struct objects *objects;
};

static void *wait_for_child(void *user) {
        struct waiter *w = user;
        w->scenario->want(w->objects);
        return NULL;
}

/* Kills after n instructions. false: the child got through before. */
static bool step(drover_arena *a, struct objects *o, const struct scenario *s, unsigned n) {
        int status;
        pthread_t id;
        struct waiter w = {s, o};
        pid_t pid = fixture_fork(a, child, (void *)s);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status));
        if (s->awaited) {
                assert_int_equal(pthread_create(&id, NULL, wait_for_child, &w), 0);
                fixture_await_waiters(a, s->awaited, 1);
        }
        bool is_there = true;
        for (unsigned i = 0; i < n && is_there; i++) {
                assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                is_there = WIFSTOPPED(status);
        }
        if (is_there) {
                kill(pid, SIGKILL);
                assert_int_equal(waitpid(pid, &status, 0), pid);
        } else
                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        drover_arena_repair_pid(a, pid);
        if (s->is_verified_first)
                s->verify(o);
        if (s->awaited)
                pthread_join(id, NULL);
        s->verify(o);
        return is_there;
}

static void test_every_instruction(void **state) {
        const char *text = getenv("DROVER_STEP");
        unsigned stride = text && atoi(text) > 0 ? (unsigned)atoi(text) : DEFAULT_STRIDE;
        shared = fixture_shared(sizeof *shared);
        for (unsigned i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
                unsigned n = 0, n_kills = 0;
                bool is_there = true;
                for (; is_there; n += stride, n_kills++) {
                        drover_arena *a = fixture_arena(1 << 16);
                        struct objects o;
                        objects_open(a, &o);
                        is_there = step(a, &o, &scenarios[i], n);
                        objects_free(&o);
                        drover_arena_free(a);
                }
                print_message("%-26s %5u instructions, %4u kills\n", scenarios[i].name, n, n_kills);
        }
        fixture_unshare(shared, sizeof *shared);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_instruction),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
