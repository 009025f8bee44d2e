/* One worker process: from the START request to the last descriptor. */
#pragma once

#include <sys/queue.h>

#include "daemon/supervise/pools/pool.h"
#include "ipc/values/capsule.h"

enum worker_phase {
        PHASE_STARTING, /* START was sent, nothing came back */
        PHASE_INIT,     /* the process exists and prepares itself */
        PHASE_READY,    /* claims jobs */
        PHASE_STOPPING, /* was told to end after its job, or is being killed */
        PHASE_N,
};

enum worker_event {
        WORKER_EVENT_STARTED,
        WORKER_EVENT_READY,
        WORKER_EVENT_RETIRE,
        WORKER_EVENT_KILL,
        WORKER_EVENT_N,
};

struct worker_job {
        struct pool_channel *channel;
        uint32_t slot, generation;
        uint64_t word;
};

/* Which job it is. Once a channel is gone another client's gets its index, and counts its slots' generations anew: only
 * the channel's numbers tell them apart. No client can write them. */
struct worker_job_key {
        uint64_t id_base;
        uint32_t channel, slot, generation;
};

struct worker {
        struct pool *pool;
        uint64_t id;
        uint32_t index, generation;
        enum start_method method;
        enum worker_phase phase;
        pid_t pid;
        int pidfd, control_fd, output_fd, items_fd;
        struct loop_poll control_poll, output_poll, items_poll, pid_poll;
        struct pool_doorbell doorbell; /* it rings when it claims the first job after a quiet spell, and the like */
        struct doorbell_rate rate;
        struct stream *feeds; /* streams.c: whose items came last */
        struct loop_timer kill_timer, retry_timer;
        bool is_outdated;       /* another generation or other settings are wanted now */
        bool is_due;            /* MaxAge= or RecycleMemory= passed: to be replaced */
        bool is_standby;        /* ready, but somebody else still has its place */
        enum death_reason doom; /* why we are ending it; REASON_NONE = we are not */
        enum death_reason said; /* REPORT_FAILED, SPAWN_FAILED: its own reason */
        bool is_permanent;
        bool is_full;           /* no descriptor was left in it */
        bool is_late;           /* not ready in TimeoutStartSec= */
        bool is_wronged;        /* a client took its job from it while it ran: it ends, and that is not its fault */
        bool is_unheard;        /* nothing more is read from its control socket */
        uint64_t killed_ns;     /* when SIGKILL was first asked for; 0 = it was not */
        bool is_hung, is_stuck; /* SIGKILL has not ended it in a moment; nor in so long that nobody waits any more */
        bool is_charged;        /* hung_of: to judged.uid */
        uint64_t started_us, ready_ns;
        char sandbox[64], text[WIRE_TEXT];
        uint64_t bells_sent[LAYOUT_BELL_WORDS]; /* bit = bell number */
        /* worker-arena.c: what it asked for and was not answered yet */
        bool arena_wanted;
        char arena_name[POOL_NAME_MAX + 2]; /* one more: too long stays too long */
        uint64_t arena_bytes;
        uint32_t arena_objects, arena_processes;
        bool arena_is_transient;
        uint64_t arena_told_ns; /* when the log last had a refusal; 0 = never */
        /* worker-descriptors.c: the same, of which job; and where it writes a result into */
        uint32_t fds_wanted; /* enum worker_report_type; 0 = nothing */
        uint32_t fds_told;   /* the last of them */
        uint32_t fds_channel, fds_slot, fds_generation;
        int32_t fds_error;
        uint64_t fds_patience_ns; /* then it is told what keeps them from being sent */
        int room_fd;
        uint64_t room_bytes;
        uint64_t asked_ns; /* pool-mend.c: since when it is to let go of a channel and take it again; 0 = it is not */
        uint32_t control;  /* what its line says, as last written */
        uint64_t soft_hit; /* the same */
        /* limits.c */
        uint64_t seen_claims, stamp_ns, soft_ns, hard_ns; /* stamp_ns 0: it runs nothing */
        struct worker_job_key stamp_job;
        bool soft_told;
        uint64_t search_ns; /* no search for a cycle of its waits before then; 0 = none was cut off */
        struct {            /* worker-ask.c: the job that was asked to stop, first when and by whom */
                struct worker_job_key job;
                uint64_t when_us; /* 0: none was */
                char by[64];
                struct loop_timer timer;
        } ask;
        /* a verdict was given while it may still write: which slot waits for its death */
        struct pool_channel *quarantine_channel;
        uint32_t quarantine_slot;
        struct { /* that job; id 0: there is none */
                uint64_t id;
                uid_t uid;
                uint32_t attempt;
        } judged;
        struct worker_output *output; /* worker-output.c */
        char build_id[48];            /* of its plugin file, in hex */
        TAILQ_ENTRY(worker) link;
};

enum { WORKER_HUNG_OF_UID = 16 }; /* then a uid that is neither root nor ours has no file handed to workers */

int worker_start(struct pool *p, uint32_t index, struct worker **ret); /* -ENOTCONN: no spawner */
void worker_retire(struct worker *w, enum death_reason why);           /* after the job in hand */
void worker_kill_now(struct worker *w, enum death_reason why);         /* verdicts were given before */
/* Verdict first: RUNNING → verdict with QUARANTINE, then SIGKILL. false: it had no job to judge or was faster. */
bool worker_judge(struct worker *w, enum slot_state verdict, enum death_reason why);
void worker_kill_after(struct worker *w, uint64_t grace_ns); /* judges and kills if it is still there then */
bool worker_get_job(const struct worker *w, struct worker_job *ret);
uint64_t worker_job_id(const struct worker_job *j);
uid_t worker_job_uid(const struct worker_job *j);
struct worker_job_key worker_job_key(const struct worker_job *j);
bool worker_job_is(const struct worker_job *j, const struct worker_job_key *key);
static inline struct layout_worker *worker_line(const struct worker *w) { return &w->pool->memory->worker[w->index]; }
/* What it says, within what can be. */
static inline uint64_t worker_count(const struct worker *w, enum slot_state end) {
        return pool_plausible(atomic_load(&worker_line(w)->counts[end]));
}
static inline bool worker_knows_bell(const struct worker *w, uint32_t bell) {
        return w->bells_sent[bell / 64] >> bell % 64 & 1;
}

const char *worker_start_words(uint32_t phase); /* what its start is at: "in preload" */
void worker_on_ready(struct worker *w);
void worker_on_started(struct worker *w, const struct spawn_event *e, const int fds[2]);
/* It is gone, for this reason: recovery, the death's record, hooks; frees it. */
void worker_on_gone(struct worker *w, const struct spawn_event *e);
void worker_on_spawner_lost(struct worker *w);
void worker_free(struct worker *w); /* no recovery: the broker itself ends */

/* ---- worker-ask.c ---- */
/* Asks the job to stop; `by` is who does, for people. Final: with nobody there to do more, so KillGraceSec= ends it.
 * false: it does not run. */
bool worker_ask(struct pool_channel *c, uint32_t slot, uint32_t generation, const char *by, bool is_final);
bool worker_get_ask(const struct worker *w, uint64_t *ret_when_us, const char **ret_by); /* of the job in hand */

/* ---- worker-orders.c: what it is told ---- */
int worker_send_setup(struct worker *w);
void worker_sync(struct worker *w); /* sends the bells and channels it does not know yet, takes back dead ones */
void worker_send_later(struct worker *w, int error); /* what this error kept from being sent */
void worker_poke(struct worker *w);      /* it looks at its line of pool memory, and at everything it may serve */
void worker_command(struct worker *w);   /* tells it the pool's wish: RUN, WAIT or RETIRE */
void worker_heal_line(struct worker *w); /* what it was told by its line once more, whatever stands there */
void worker_shake(struct worker *w);     /* worker_poke, also for one that may have seen any value in `control` */

/* ---- pool-strength.c, pool-recycle.c: its place in the pool ---- */
bool worker_serves(const struct worker *w);
bool worker_has_served(const struct worker *w); /* a job of it has a verdict; its own word */
bool worker_is_worn(const struct worker *w);    /* to be replaced */
bool worker_is_used_up(const struct worker *w); /* claims no more */
void worker_limit_jobs(struct worker *w);       /* tells it MaxJobs= */

/* ---- worker-reports.c: what it says ---- */
int worker_listen(struct worker *w);
void worker_hear_out(struct worker *w); /* the last words of a dead one */
void worker_take_text(struct worker *w, const char *text);
/* Of its template, by the spawner, or its own; "" = not told yet. READY counts after it only. */
void worker_take_sandbox(struct worker *w, const char *layers);

/* ---- worker-arena.c ---- */
int worker_on_arena_wanted(struct worker *w, const struct worker_report *report); /* -EPROTO: out of turn */
int worker_answer_arena(struct worker *w); /* an error: not yet, worker_send_later */

/* ---- worker-descriptors.c ---- */
/* FDS, ROOM and RESULT. Takes the descriptors. -EPROTO: out of turn, or a result that cannot be one. */
int worker_on_fds_report(struct worker *w, const struct worker_report *report, int *fds, unsigned n_fds);
int worker_answer_fds(struct worker *w); /* an error: not yet, worker_send_later */
void worker_on_ended(struct worker *w, const struct worker_report *report);
void worker_drop_room(struct worker *w);

enum {
        WORKER_OUTPUT_KEPT = CAPSULE_KEPT_LOG, /* also what of it is logged in a second */
        WORKER_OUTPUT_DIGITS = 21,             /* of a job's number, and one more */
};

/* ---- worker-output.c: what it prints becomes log lines, at a bounded rate ---- */
int worker_output_start(struct worker *w, int *ret_write_fd);
void worker_output_stop(struct worker *w); /* once it is dead: its last words are taken */
void worker_output_free(struct worker *w);
void worker_output_look(struct worker *w); /* now and then: so it is known whose lines come next */
/* The newest lines of the job in hand, WORKER_OUTPUT_KEPT bytes of them at most, and how many bytes of it came before;
 * "": nothing, or nothing that is surely its own. */
const char *worker_output_last(const struct worker *w, uint64_t *ret_lost);
