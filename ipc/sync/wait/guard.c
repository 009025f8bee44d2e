/* Guards: what was taken, and how to give it back. */
#include "ipc/sync/include/drover/sync.h"

void drover_guard_release(struct drover_guard *guard) {
        if (guard->object)
                guard->release(guard->object);
        guard->object = NULL;
}

static int guard_post(drover_semaphore *semaphore) { return drover_semaphore_post(semaphore, 1); }

#define GUARD(name, type, take, give, is_taken)                                                                        \
        static int guard_give_##name(void *object) { return give(object); }                                            \
        struct drover_guard drover_guard_##name(type *object, uint64_t deadline_ns) {                                  \
                int result = take(object, deadline_ns);                                                                \
                return (struct drover_guard){                                                                          \
                        .object = (is_taken) ? object : NULL,                                                          \
                        .release = guard_give_##name,                                                                  \
                        .result = result,                                                                              \
                };                                                                                                     \
        }

GUARD(mutex, drover_mutex, drover_mutex_lock, drover_mutex_unlock, result == 0 || result == -EOWNERDEAD)
GUARD(semaphore, drover_semaphore, drover_semaphore_wait, guard_post, result == 0)
GUARD(permit, drover_permits, drover_permits_acquire, drover_permits_release, result == 0)
GUARD(read, drover_rwlock, drover_rwlock_read, drover_rwlock_unlock, result == 0)
GUARD(write, drover_rwlock, drover_rwlock_write, drover_rwlock_unlock, result == 0 || result == -EOWNERDEAD)
GUARD(array, drover_array, drover_array_lock, drover_array_unlock, result == 0 || result == -EOWNERDEAD)
GUARD(dictionary, drover_dictionary, drover_dictionary_lock, drover_dictionary_unlock, result == 0)
