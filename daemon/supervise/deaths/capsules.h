/* Capsules: the jobs that killed their workers, as files in STATE/capsules, for --replay. ipc/values/capsule.h has the
 * format.
 */
#pragma once

#include "daemon/supervise/facts/numbers.h"
#include "daemon/supervise/workers/worker.h"

struct capsules;

/* `state_dir` NULL, or one that cannot be written to: there are none, and that is told once. A disk that does not
 * answer is waited for until the deadline, here and at the end. */
int capsules_new(struct capsules **ret, struct loop *l, const char *state_dir, uint64_t deadline_ns);
struct capsules *capsules_free(struct capsules *cs, uint64_t deadline_ns);

/* Before a verdict wakes the client, who may use the slot again: a copy of the job that stands there, and of how it
 * ended (`line`: this time; earlier times from the pool's deaths). NULL if there is none to be had. */
struct capsule_draft *capsules_draft(const struct worker *w, const struct worker_job *job, enum slot_state verdict,
                                     const struct layout_verdict *line);
/* The verdict stands: becomes a file, in its own time. Frees the draft; NULL is fine. */
void capsules_keep(struct pool *p, struct capsule_draft *d);
struct capsule_draft *capsules_discard(struct capsule_draft *d);

/* The largest number of a bus job and of a channel that one of them is of; 0 = none. False: there may be larger ones,
 * the directory could not be read. */
bool capsules_last_numbers(const struct capsules *cs, uint64_t ret[NUMBERS_N_KINDS]);

/* Is there one of this job, written and not removed yet? */
bool capsules_has(const struct capsules *cs, const char *pool, uint64_t id);

/* The newest `n` that fit, newest first: how many. */
size_t capsules_list(const struct capsules *cs, const struct capsule_filter *filter, struct capsule_row *ret, size_t n);

/* 0 and a copy to read, which is then the callee's; -ENOENT, for who may not, too; -EBUSY: too many are read already;
 * -ETIMEDOUT; or why it cannot be read. */
typedef void (*capsules_open_fn)(void *user, int error, int fd);

/* For its submitter and root (`is_root`). Calls fn once, perhaps at once. */
void capsules_open(struct capsules *cs, uint64_t id, uid_t uid, bool is_root, capsules_open_fn fn, void *user);
