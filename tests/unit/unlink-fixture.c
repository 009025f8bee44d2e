/* Every kind opened as "x", waited in, held and freed by the same five calls. */
#include "tests/unit/unlink-fixture.h"

#include "ipc/sync/arena/arena.h"

static int open_mutex(drover_arena *a, union unlink_handle *h) { return drover_mutex_open(a, "x", 0, &h->mutex); }
static void *free_mutex(union unlink_handle h) { return drover_mutex_free(h.mutex); }
static int wait_mutex(union unlink_handle h, uint64_t deadline) { return drover_mutex_lock(h.mutex, deadline); }
static int hold_mutex(union unlink_handle h) { return drover_mutex_lock(h.mutex, 0); }

static int open_recursive(drover_arena *a, union unlink_handle *h) {
        return drover_mutex_open(a, "x", DROVER_RECURSIVE, &h->mutex);
}

static int open_semaphore(drover_arena *a, union unlink_handle *h) {
        return drover_semaphore_open(a, "x", 0, &h->semaphore);
}
static void *free_semaphore(union unlink_handle h) { return drover_semaphore_free(h.semaphore); }
static int wait_semaphore(union unlink_handle h, uint64_t deadline) {
        return drover_semaphore_wait(h.semaphore, deadline);
}

static int open_permits(drover_arena *a, union unlink_handle *h) { return drover_permits_open(a, "x", 1, &h->permits); }
static void *free_permits(union unlink_handle h) { return drover_permits_free(h.permits); }
static int wait_permits(union unlink_handle h, uint64_t deadline) {
        return drover_permits_acquire(h.permits, deadline);
}
static int hold_permits(union unlink_handle h) { return drover_permits_acquire(h.permits, 0); }

static int open_event(drover_arena *a, union unlink_handle *h) { return drover_event_open(a, "x", &h->event); }
static void *free_event(union unlink_handle h) { return drover_event_free(h.event); }
static int wait_event(union unlink_handle h, uint64_t deadline) { return drover_event_wait(h.event, deadline); }

static int open_barrier(drover_arena *a, union unlink_handle *h) { return drover_barrier_open(a, "x", 3, &h->barrier); }
static void *free_barrier(union unlink_handle h) { return drover_barrier_free(h.barrier); }
static int wait_barrier(union unlink_handle h, uint64_t deadline) { return drover_barrier_wait(h.barrier, deadline); }

static int open_rwlock(drover_arena *a, union unlink_handle *h) { return drover_rwlock_open(a, "x", &h->rwlock); }
static void *free_rwlock(union unlink_handle h) { return drover_rwlock_free(h.rwlock); }
static int wait_read(union unlink_handle h, uint64_t deadline) { return drover_rwlock_read(h.rwlock, deadline); }
static int hold_write(union unlink_handle h) { return drover_rwlock_write(h.rwlock, 0); }
static int wait_write(union unlink_handle h, uint64_t deadline) { return drover_rwlock_write(h.rwlock, deadline); }
static int hold_read(union unlink_handle h) { return drover_rwlock_read(h.rwlock, 0); }

static int open_array(drover_arena *a, union unlink_handle *h) { return drover_array_open(a, "x", 8, 4, &h->array); }
static void *free_array(union unlink_handle h) { return drover_array_free(h.array); }
static int wait_array(union unlink_handle h, uint64_t deadline) { return drover_array_lock(h.array, deadline); }
static int hold_array(union unlink_handle h) { return drover_array_lock(h.array, 0); }

static int open_dictionary(drover_arena *a, union unlink_handle *h) {
        return drover_dictionary_open(a, "x", 4, 8, 8, &h->dictionary);
}
static void *free_dictionary(union unlink_handle h) { return drover_dictionary_free(h.dictionary); }
static int wait_dictionary(union unlink_handle h, uint64_t deadline) {
        return drover_dictionary_put(h.dictionary, "k", 1, "v", 1, deadline);
}
static int hold_dictionary(union unlink_handle h) { return drover_dictionary_lock(h.dictionary, 0); }

static int open_queue(drover_arena *a, union unlink_handle *h) {
        return drover_queue_open(a, "x", 1, 8, DROVER_QUEUE_FIFO, &h->queue);
}
static int open_lifo(drover_arena *a, union unlink_handle *h) {
        return drover_queue_open(a, "x", 1, 8, DROVER_QUEUE_LIFO, &h->queue);
}
static void *free_queue(union unlink_handle h) { return drover_queue_free(h.queue); }
static int wait_get(union unlink_handle h, uint64_t deadline) {
        char item[8];
        size_t bytes;
        return drover_queue_get(h.queue, item, sizeof item, &bytes, deadline);
}
static int wait_put(union unlink_handle h, uint64_t deadline) { return drover_queue_put(h.queue, "x", 1, deadline); }
static int hold_put(union unlink_handle h) { return drover_queue_put(h.queue, "x", 1, 0); }
static int wait_join(union unlink_handle h, uint64_t deadline) { return drover_queue_join(h.queue, deadline); }

const struct unlink_kind unlink_kinds[UNLINK_N_KINDS] = {
        {"mutex", open_mutex, free_mutex, wait_mutex, hold_mutex},
        {"recursive mutex", open_recursive, free_mutex, wait_mutex, hold_mutex},
        {"semaphore", open_semaphore, free_semaphore, wait_semaphore, NULL},
        {"permits", open_permits, free_permits, wait_permits, hold_permits},
        {"event", open_event, free_event, wait_event, NULL},
        {"barrier", open_barrier, free_barrier, wait_barrier, NULL},
        {"rwlock, reader", open_rwlock, free_rwlock, wait_read, hold_write},
        {"rwlock, writer", open_rwlock, free_rwlock, wait_write, hold_read},
        {"array", open_array, free_array, wait_array, hold_array},
        {"dictionary", open_dictionary, free_dictionary, wait_dictionary, hold_dictionary},
        {"queue, get", open_queue, free_queue, wait_get, NULL},
        {"queue, put", open_queue, free_queue, wait_put, hold_put},
        {"queue, join", open_queue, free_queue, wait_join, hold_put},
        {"lifo queue, get", open_lifo, free_queue, wait_get, NULL},
};

void unlink_fixture_wait(drover_arena *a, void *user) {
        const struct unlink_kind *kind = user;
        union unlink_handle h;
        CHECK(kind->open(a, &h) == 0);
        int r = kind->wait(h, stuck());
        if (r != -EIDRM)
                fprintf(stderr, "%s: %d\n", kind->name, r);
        CHECK(r == -EIDRM);
        CHECK(kind->wait(h, stuck()) == -EIDRM);
        CHECK(kind->wait(h, 0) == -EIDRM);
        kind->free(h);
        drover_arena_free(a);
}

void unlink_fixture_check_whole(drover_arena *a) {
        drover_array *array;
        char name[16];
        for (unsigned i = 0; i < 4; i++) {
                snprintf(name, sizeof name, "%u", i);
                int r = drover_array_open(a, name, 1, 1984, &array);
                if (r < 0)
                        print_message("%s\n", drover_arena_error());
                assert_int_equal(r, 0);
                assert_int_equal(drover_array_lock(array, 0), 0);
                assert_int_equal(drover_array_unlock(array), 0);
                drover_array_free(array);
        }
        assert_int_equal(drover_arena_list(a, NULL, 0), 4);
        assert_int_equal(arena_count_objects(a), 4);
        assert_int_equal(drover_array_open(a, "more", 1, 1, &array), -ENOSPC);
}
