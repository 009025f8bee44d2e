/* What a dead worker held, given back or judged; each step one CAS, repeatable. */
#pragma once

#include "daemon/supervise/workers/worker.h"

struct recovery {
        bool had_job;
        uint64_t job_id;
        uid_t job_uid;
        uint32_t attempt; /* the one that ended */
};

/* The worker's process is gone for sure. `line` says why, for verdicts. `is_charged`: the death counts as an attempt.
 */
void recovery_run(struct worker *w, const struct layout_verdict *line, bool is_charged, struct recovery *ret);
/* One slot that is RUNNING in this word, whoever seems to own it and does not run it: queued again, or judged. */
void recovery_give_back(struct pool_channel *c, uint32_t slot, uint64_t word, const struct layout_verdict *line);
/* The same for a channel of a broker that died with all its workers: every slot is put in order, nobody is told but the
 * client and the channel's work bit. */
void recovery_adopt(struct pool_channel *c);
