/* Deaths of workers: why, in words and for the record. */
#pragma once

#include "daemon/supervise/worker.h"

/* Which reason belongs to this end; the worker's line and what it said come into it. */
enum death_reason death_reason_of(const struct worker *w, const struct spawn_event *e, uint32_t syscall);
/* "signal 11 (SIGSEGV)", "exit status 7", "system call openat, which its sandbox forbids" … */
void death_describe(enum death_reason reason, int32_t signal, int32_t status, uint32_t syscall, char *text, size_t bytes);
/* What ended a job of which no death is known (REASON_NONE). */
#define DEATH_WRITTEN_OVER "a worker of the pool wrote over its slot, and nobody knows whether it ran"
/* Where it crashed, by its own line: refined to what a name may be. */
void death_take_fault(struct death *d, const struct worker *w);
/* Adds to the pool's list and returns the entry. */
const struct death *death_record(struct pool *p, const struct death *d);
