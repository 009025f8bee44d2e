/* What may wait for a disk or a server: done by a process of its own, with a time after which nobody waits for it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/loop/loop.h"

enum { HELPER_MAX_ORDER = 8192 };
#define HELPER_PATIENCE_NS UINT64_C(10000000000)

struct helper_answer {
        int error; /* 0, -errno */
        int fd;    /* -1, or whoever gets the answer owns it */
        char text[512];
};

/* Runs in the other process, which has a copy of ours as it was when helper_start was called: `order` says everything.
 * `fd` came with it, -1 = none. */
typedef void (*helper_fn)(const void *order, int fd, struct helper_answer *ret);

struct helper_call {
        void (*on_answer)(struct helper_call *c, const struct helper_answer *a); /* once; the call is free then */
        /* NULL, or once, before that: it takes longer than HELPER_PATIENCE_NS */
        void (*on_late)(struct helper_call *c);
        void *user;
        /* of helper.c */
        struct loop_poll poll;
        struct loop_timer timer;
        int fd; /* while it is under way */
        bool is_busy;
};

/* Splits off the process that starts the others: first of all, while there is one thread. Without it, as in unit tests,
 * everything is done at once, in helper_begin. */
int helper_start(void);
void helper_stop(void); /* whatever is still under way ends with it, if it can be ended */

/* 0, and on_answer will be called (at once without helper_start); -errno. `fd` -1 = none, and stays the caller's. */
int helper_begin(struct helper_call *c, struct loop *l, helper_fn fn, const void *order, size_t bytes, int fd);
/* For the beginning and the end, when no loop runs: on_answer, or false at the deadline. */
bool helper_wait(struct helper_call *c, uint64_t deadline_ns);
/* Nobody wants to know any more. */
void helper_forget(struct helper_call *c);
