/* Shared by the programs that a torture run starts: random numbers, the bus, and what they tell the one who runs them.
 *
 * Lines on standard output, each one write, times in CLOCK_MONOTONIC ns:
 *   fail TEXT                something is broken
 *   slow WHAT SINCE UNTIL …  somebody waited that long
 *   died WHEN                a worker of its pool did, of a job
 *   delay NAME PID SINCE UNTIL   a process was ready to run all that time: it waited for a CPU
 *   runs N JOB SINCE UNTIL   a job ran N times more often than it had attempts
 *   count NAME N             N more of them since the last such line
 *   ready                    it is on its way */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "ipc/sync/include/drover/sync.h"

enum { PART_SLOW_NS = 20000000 };

uint64_t part_random(uint64_t *state);
__attribute__((format(printf, 1, 2))) void part_say(const char *format, ...);
__attribute__((format(printf, 1, 2), noreturn)) void part_fail(const char *format, ...);
/* Says so if the wait was slow. */
void part_waited(const char *what, uint64_t since_ns, uint64_t until_ns);

/* Both end the program when they fail. */
sd_bus *part_bus(void);
drover_arena *part_arena(sd_bus *bus, const char *name, uint64_t bytes);

/* SIGTERM came. */
bool part_is_over(void);
void part_init(void);
/* Success, and everything goes as with a kill. */
__attribute__((noreturn)) void part_end(void);
