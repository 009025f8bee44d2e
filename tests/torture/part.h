/* Shared by the programs that a torture run starts: random numbers, the bus, and what they tell the one who runs them.
 *
 * Lines on standard output, each one write, times in CLOCK_MONOTONIC ns:
 *   fail TEXT                something is broken
 *   slow WHAT SINCE UNTIL    somebody waited that long
 *   stall SINCE UNTIL        a thread was ready to run all that time: it waited for a CPU
 *   runs N JOB SINCE UNTIL   a job ran N times more often than it had attempts
 *   count NAME N             N more of them since the last such line
 *   ready                    it is on its way */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "ipc/sync/include/drover/sync.h"

enum { PART_SLOW_NS = 20000000, PART_STALL_NS = 5000000 };

uint64_t part_random(uint64_t *state);
__attribute__((format(printf, 1, 2))) void part_say(const char *format, ...);
__attribute__((format(printf, 1, 2), noreturn)) void part_fail(const char *format, ...);
/* Says so if the wait was slow. */
void part_waited(const char *what, uint64_t since_ns, uint64_t until_ns);

/* Both end the program when they fail. */
sd_bus *part_bus(void);
drover_arena *part_arena(sd_bus *bus, const char *name, uint64_t bytes);

/* A thread that looks every millisecond: which of the watched ones (this thread and those of part_watch_pid) are ready to
 * run? Says when one was for long, and calls `look` (or NULL). Any process may be watched; the longest known are forgotten. */
void part_watch(void (*look)(void *user, uint64_t now_ns), void *user);
void part_watch_pid(int32_t pid);
/* For `look`: how many of the watched processes live, and how many of these do not sleep. */
void part_count_watched(unsigned *ret_alive, unsigned *ret_awake);
/* Does the thread that called part_watch sleep? */
bool part_is_asleep(void);

/* SIGTERM came. */
bool part_is_over(void);
void part_init(void);
/* Success, and everything goes as with a kill. */
__attribute__((noreturn)) void part_end(void);
