/* One object of every kind, for the tests of removing, and what must be so afterwards. */
#pragma once

#include "tests/unit/sync-fixture.h"

union unlink_handle {
        void *any;
        drover_mutex *mutex;
        drover_condition *condition;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_event *event;
        drover_barrier *barrier;
        drover_rwlock *rwlock;
        drover_array *array;
        drover_dictionary *dictionary;
        drover_queue *queue;
};

struct unlink_kind {
        const char *name;
        int (*open)(drover_arena *a, union unlink_handle *ret);
        void *(*free)(union unlink_handle h);
        int (*wait)(union unlink_handle h, uint64_t deadline); /* what a second one waits in */
        int (*hold)(union unlink_handle h);                    /* what makes it wait; NULL: it does so by itself */
};

enum { UNLINK_N_KINDS = 14 };
extern const struct unlink_kind unlink_kinds[UNLINK_N_KINDS];

/* For fixture_fork, with the kind: waits in its object "x", which somebody removes meanwhile. */
void unlink_fixture_wait(drover_arena *a, void *user);

/* Everything can be made that could at first: of an arena for 4 objects. */
void unlink_fixture_check_whole(drover_arena *a);
