/* Deaths of workers: why, in words and for the record. */
#pragma once

#include "daemon/supervise/workers/worker.h"

/* Which reason belongs to this end; the worker's line and what it said come into it. */
enum death_reason death_reason_of(const struct worker *w, const struct spawn_event *e);
/* "signal 11 (SIGSEGV)", "exit status 7", "system call socket at opens+0x1139, in the handler (its sandbox forbids it)"
 * … */
void death_describe(const struct layout_verdict *v, char *text, size_t bytes);
/* The verdict's words for a forbidden system call. */
void death_note_breach(struct layout_verdict *v, const struct layout_breach *b);
/* What ended a job of which no death is known (REASON_NONE). */
#define DEATH_WRITTEN_OVER "a worker of the pool wrote over its slot, and nobody knows whether it ran"
/* Where it crashed, by its own line, or made the call `b`, which may be of its template: refined to what a name may be.
 */
void death_take_fault(struct death *d, const struct worker *w, const struct layout_breach *b);
/* Adds to the pool's list and returns the entry. */
const struct death *death_record(struct pool *p, const struct death *d);
