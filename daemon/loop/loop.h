/* The event loop: the only user of liburing. One thread, everything it waits for is here: descriptors, timers, bells.
 *
 * Events are embedded in their owner. An event in flight belongs to the kernel until its completion came:
 * loop_poll_stop takes it back and may be called any time; freeing the owner is safe from then on (the cancellation
 * carries a generation, not the pointer). Nothing in here runs callbacks but loop_run. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_poll;
struct loop_timer;

typedef void (*loop_poll_fn)(struct loop_poll *p, uint32_t revents); /* POLLIN, POLLHUP … */
typedef void (*loop_timer_fn)(struct loop_timer *t);
typedef void (*loop_hook_fn)(void *user);

struct loop_poll {
        struct loop *loop;
        loop_poll_fn fn;
        void *user;
        int fd;
        uint32_t events;
        uint32_t slot; /* index + 1 into the loop's table; 0 = not in use */
        bool is_armed;
};

struct loop_timer {
        struct loop *loop;
        loop_timer_fn fn;
        void *user;
        uint64_t deadline_ns; /* CLOCK_MONOTONIC */
        uint32_t heap_index;  /* + 1; 0 = not armed */
};

/* -EPERM with a hint in *ret_why when io_uring is refused (sysctl or seccomp), -ENOSYS … */
int loop_new(struct loop **ret, const char **ret_why);
struct loop *loop_free(struct loop *l);

/* Level-triggered: the callback comes again while the condition holds. */
int loop_poll_start(struct loop *l, struct loop_poll *p, int fd, uint32_t events, loop_poll_fn fn, void *user);
int loop_poll_change(struct loop_poll *p, uint32_t events); /* 0 events = paused */
void loop_poll_stop(struct loop_poll *p);                   /* fine if never started */

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ns, loop_timer_fn fn, void *user);
void loop_timer_stop(struct loop_timer *t);

/* Runs before every sleep, in order of adding; at most 8. */
int loop_add_hook(struct loop *l, loop_hook_fn fn, void *user);

int loop_run(struct loop *l); /* until loop_exit; returns its code, or -errno if the ring broke */
void loop_exit(struct loop *l, int code);
uint64_t loop_now(const struct loop *l); /* time at the last wake-up */
