/* The rows of tests/library/matrix: each call of libdrover, as a function that uses it and says what it returned. What
 * a column takes away is missing from its first call on. */
#pragma once

#include "tests/library/cases.h"

/* Pool fds of plugin fds. */
extern drover_pool *p;
/* How many of its jobs were accepted. */
extern unsigned n_accepted;
/* droverd is killed on the way: a job may be lost then, and says so. */
extern bool is_killing;
/* What the call that is under way has, for a child that is forked now. */
extern struct live {
        drover *drover;
        drover_pool *pool;
        drover_arena *arena;
        drover_args *args;
        drover_future *future;
        drover_iterator *iterator;
} live;

struct matrix_row {
        const char *name;
        int (*run)(void); /* 0, or the first error of a call */
        bool is_local;    /* it needs nothing that the child of a fork has not */
};
/* Ends with a name that is NULL. */
extern const struct matrix_row matrix_rows[];

/* Nothing is missing any more. */
void calm(void);
