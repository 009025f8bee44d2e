/* One pool: its settings, its memory, its workers and what it wants of them. Read and changed by supervise/ only;
 * everybody else uses supervisor.h. */
#pragma once

#include <sys/queue.h>

#include "daemon/supervise/facts/descriptors.h"
#include "daemon/supervise/facts/doorbells.h"
#include "daemon/supervise/facts/quota.h"
#include "daemon/supervise/facts/restart.h"
#include "daemon/supervise/facts/scale.h"
#include "daemon/supervise/supervisor.h"
#include "ipc/channel/channel.h"
#include "ipc/memory/doorbell.h"

enum {
        POOL_DEATHS = 64,
        POOL_OWN_BELL = 0,                              /* the broker's, and root's */
        POOL_CHANNELS_OF_UID = LAYOUT_MAX_CHANNELS / 4, /* who is not root: the rest is for others */
};
#define POOL_CHANNEL_BYTES_OF_UID (UINT64_C(4) << 30) /* in all pools */

/* What one uid's clients ring. */
struct pool_bell {
        struct layout_bell *memory; /* NULL = not in use */
        struct pool *pool;
        int fd;
        uid_t uid;
        uint32_t n_channels; /* also those that some worker still has */
        bool is_muted;       /* pool-mute.c: workers leave it alone */
        /* pool-places.c: do workers wait on it, since when or until when; when work of it was last seen, and its count
         * then */
        bool has_place;
        uint64_t place_ns, active_ns, submitted;
        struct doorbell_rate rate; /* of its clients' doorbells, together */
        /* pool-mute.c: which workers found it to ring for nothing lately, and how often it was muted since `mutes_ns`
         */
        uint64_t told[LAYOUT_BELL_WORDS], told_ns, mutes_ns;
        unsigned n_mutes;
        struct loop_timer mute_timer;
};

struct pool_tries {
        uint32_t generation, n_deaths;
        struct layout_verdict *forbidden; /* the first death by a forbidden system call, else NULL: malloc'd */
};

/* delay.c: a DELAYED slot that is known, and all of a pool's. */
struct delay {
        uint64_t due_ns, age;
        struct pool_channel *channel;
        uint32_t slot, generation, priority;
};

struct pool_delays {
        struct delay *heap;
        uint32_t n, n_allocated;
        uint64_t age;
        struct loop_timer timer, look_timer;
};

/* One channel of the pool: index 0 is the broker's own, for jobs that come over the bus. */
/* A memory file is known by these, whoever hands it to us. */
struct pool_memory_id {
        dev_t device;
        ino_t inode;
};

struct pool_channel {
        struct pool *pool;
        struct channel channel;
        int fds[CHANNEL_PARTS];        /* what its workers get */
        int client_fds[CHANNEL_PARTS]; /* what its client gets, until it has them */
        struct pool_memory_id memories[CHANNEL_PARTS];
        struct doorbell done; /* we and the workers ring it; its hearing end goes to the client */
        uint32_t index, bell;
        uint64_t id_base;
        bool is_dead;       /* its client is gone: unmapped by the workers first, then freed */
        uint32_t *delay_at; /* delay.c: by slot, its place + 1 in the heap; NULL before the first */
        uint64_t delayed_seen, delay_look_ns;
        struct pool_tries *tries; /* by slot: deaths charged to the job there, where no client can rewrite them */
        uint64_t attached[LAYOUT_BELL_WORDS], drop_sent[LAYOUT_BELL_WORDS]; /* bit = worker index */
        /* pool-mend.c: who found it to make no sense, and who is to let go of it and take it again */
        uint64_t foul[LAYOUT_BELL_WORDS], doubted[LAYOUT_BELL_WORDS];
        struct session *session; /* NULL: the broker's own, or dead */
        struct stream **streams; /* streams.c: by slot; NULL before the first */
        uint64_t charged_bytes;  /* of its uid's share; 0 = it does not count */
        struct descriptors_table descriptors;
};

struct pool {
        struct supervisor *supervisor;
        struct pool_config config;
        struct pool_config *before_resize; /* what a file says; NULL: config */
        void *user;
        bool is_runtime;

        /* what is wanted */
        bool is_wanted, is_paused, is_draining, is_removed;
        bool is_refused; /* until ResetFailed, Start or Reload */
        struct scale scale;

        /* what is */
        enum pool_state state;
        char problem[512];        /* of the workers */
        char config_problem[512]; /* of the file, at reload: the old settings go on */
        /* sealed plugin files: current, asked for, to go back to; 0 = none */
        uint32_t generation, loading, old_generation;
        bool has_been_ready;   /* a worker, since the pool was started */
        bool is_file_bad;      /* the newest plugin file is not the one that runs, and problem says why */
        struct schema *schema; /* of the newest plugin file that a worker was ready of */
        char *schema_text;
        size_t schema_bytes;
        uint32_t schema_generation;
        uint32_t n_type_lists; /* how often the job types were other ones than before */
        /* pool-latency.c: whose job types an index counts by; 0 = none yet */
        uint32_t latency_list[LAYOUT_MAX_WORKERS];

        struct layout_pool *memory;
        int memory_fd;
        struct doorbell doorbell; /* our own, for jobs over the bus */
        struct loop_poll doorbell_poll;
        struct pool_bell bells[LAYOUT_MAX_BELLS];
        uint32_t n_bells; /* index of the last that was ever in use + 1 */
        struct pool_channel *channels[LAYOUT_MAX_CHANNELS];
        uint64_t told_queue_ns; /* QueueTimeout= as the channels have it */
        struct quota channels_of;
        struct worker *workers[LAYOUT_MAX_WORKERS]; /* by index; NULL = free */
        struct restart restart;
        struct loop_timer restart_timer, drain_timer, scale_timer, age_timer, nobody_timer;
        uint64_t nobody_ns;         /* since when no worker is ready though some are wanted; 0 = some are */
        uint64_t scale_claims;      /* pool-scale.c: claims seen at the last look */
        uint64_t memory_look_ns;    /* pool-recycle.c: when it was looked at */
        uint64_t drain_deadline_ns; /* 0 = none; past it what is left is cancelled */
        struct pool_delays delays;
        struct { /* pool-mend.c */
                struct loop_timer timer;
                uint64_t rest_ns, told_ns; /* not before then; when it was last told */
                uint64_t look_ns;          /* pool_mend_look: not before then */
                /* a worker was seen at work since the last look; it found work and nobody at it */
                bool has_run, is_stuck;
        } mend;
        struct loop_timer tick_timer; /* limits.c */
        uint64_t busy_ns;             /* limits.c: when work was last seen */
        uint32_t partial_told;        /* the generation whose workers Landlock holds in part only, as was logged */
        bool is_at_work;              /* limits.c: it was, lately */

        /* bus jobs: jobs.c */
        struct job **slot_job; /* by slot of channel 0 */
        uint32_t *free_slots, n_free_slots;
        bool *is_slot_free;         /* by slot: it stands in free_slots */
        struct quota jobs_of;       /* slots of channel 0 */
        struct quota result_fds_of; /* descriptors that results of those jobs will have */
        uint32_t n_result_fds;
        struct loop_poll done_poll;

        struct pool_counters counters; /* the broker's own verdicts and those of workers and channels that are gone */
        struct death deaths[POOL_DEATHS];
        uint64_t n_deaths;
        TAILQ_ENTRY(pool) link;
};

int pool_new(struct pool **ret, struct supervisor *s, const struct pool_config *c);
struct pool *pool_free(struct pool *p); /* no worker may be left */

void pool_set_problem(struct pool *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pool_refuse(struct pool *p, const char *text); /* permanent failure: workers end, state REFUSED */
/* Brings what is towards what is wanted: loads, starts, retires; then tells the state. Call after any change. */
void pool_settle(struct pool *p);

/* The spawner's answers and the workers' lives. */
void pool_on_spawner_up(struct pool *p);
void pool_on_spawner_lost(struct pool *p); /* its workers hear of it themselves */

bool pool_accepts(const struct pool *p);
bool pool_is_over(const struct pool *p);         /* stopped, refused or removed: what is queued will never run */
uint32_t pool_count_ready(const struct pool *p); /* also those that stand by */
uint32_t pool_count_workers(const struct pool *p);
uint32_t pool_count_awaited(const struct pool *p); /* without those that SIGKILL does not end */
uint32_t pool_max_attempts(const struct pool *p, const struct layout_job *line, bool *ret_is_once);
void pool_add_verdicts(struct pool *p, enum slot_state verdict, uint64_t n);
uint64_t pool_plausible(uint64_t n); /* of a count in shared memory; 0 for one that no machine can have come to */
static inline void pool_count_verdict(struct pool *p, enum slot_state verdict) { pool_add_verdicts(p, verdict, 1); }

/* A worker at this index is about to claim: pool-latency.c */
void pool_latency_begin(struct pool *p, uint32_t index);

void pool_stop_timers(struct pool *p); /* what only a pool that is wanted needs */

/* ---- the plugin files: pool-generations.c ---- */

void pool_load(struct pool *p);
void pool_forget_old_generation(struct pool *p);
void pool_forget_generations(struct pool *p);
void pool_set_file_problem(struct pool *p, const char *text);
/* the new plugin file cannot run at all: back to the one that does, if there is one */
bool pool_roll_back(struct pool *p);
void pool_on_loaded(struct pool *p, const struct spawn_event *e);
void pool_on_template(struct pool *p, const struct spawn_event *e);

/* ---- as many workers as are wanted: pool-strength.c ---- */

void pool_settle_strength(struct pool *p);
void pool_retire_all(struct pool *p, enum death_reason why, uint64_t grace_ns);
uint32_t pool_count_serving(const struct pool *p);
bool pool_is_without_workers(const struct pool *p); /* for so long that it is to be told */
void pool_note_failure(struct pool *p);             /* the next start waits: restart.h */
void pool_on_worker_ready(struct pool *p, struct worker *w);
void pool_on_worker_gone(struct pool *p, struct worker *w, const struct death *d, bool had_job);

/* ---- how many: pool-scale.c ---- */

uint32_t pool_min_workers(const struct pool *p);
uint32_t pool_max_workers(const struct pool *p);
uint32_t pool_wanted_workers(const struct pool *p);
bool pool_may_grow(const struct pool *p);
bool pool_scale(struct pool *p);      /* looks at the load; true: another number is wanted, settle */
void pool_scale_wake(struct pool *p); /* a pool without workers has work: it wants one */
void pool_scale_arm(struct pool *p);

/* ---- which are worn: pool-recycle.c ---- */

void pool_check_ages(struct pool *p);
bool pool_look_at_memory(struct pool *p); /* true: somebody is due, settle */

/* ---- verbs: pool-verbs.c; more in supervisor.h ---- */

void pool_end(struct pool *p, uint64_t deadline_ns); /* drains until the deadline, then ends what is left (shutdown) */
void pool_remove(struct pool *p);

/* ---- channels: pool-channels.c ---- */

int pool_memory_new(struct pool *p);
void pool_memory_sign(struct pool *p); /* the words that never change */
void pool_memory_free(struct pool *p);
void pool_on_rung(struct pool *p); /* somebody asks for us */
/* -ENOSPC: too many sessions or users; -EDQUOT: too many of this uid. */
int pool_channel_new(struct pool *p, uid_t uid, struct pool_channel **ret);
/* The parts of it: memories (new ones, or those of `back`, which are opened once more, checked and mapped), and telling
 * the workers. */
int pool_channel_make(struct pool *p, uid_t uid, const struct channel_geometry *g, const int *back,
                      struct pool_channel **ret);
void pool_channel_publish(struct pool_channel *c);
void pool_channel_tell(const struct pool_channel *c); /* its client, by the head's words that are ours */
void pool_channels_tell_timeout(struct pool *p);      /* QueueTimeout=, if it has changed */
void pool_channel_free(struct pool_channel *c);       /* no worker knows it */
/* pool-adopt.c: one that a client hands back. -EBUSY: not yet, -EALREADY: somebody has it, -EPROTO: no channel of ours.
 */
int pool_channel_adopt(const struct session_request *q, struct pool_channel **ret);
void pool_channel_drop(struct pool_channel *c); /* its client is gone */
/* Adds what the channel's parties counted themselves. */
void pool_channel_count(const struct pool_channel *c, struct pool_counters *counters);
void pool_channel_count_jobs(const struct pool_channel *c, uint32_t *ret_queued, uint32_t *ret_running);
void pool_channel_collect(struct pool_channel *c); /* frees it once no worker maps it */
struct pool_channel *pool_channel_at(const struct pool *p, uint32_t index);
void pool_close_channels(struct pool *p, bool is_closed);
uint32_t pool_cancel_queued(struct pool *p); /* returns how many */

/* ---- what the ids of a channel's jobs stand above: pool-numbers.c ---- */

enum { POOL_NUMBERS_SUFFIX = 21 };
uint64_t pool_numbers_new(struct supervisor *s); /* that no channel has or had */
/* that of this common memory if it is its own and free, or a new one */
uint64_t pool_numbers_of(struct supervisor *s, int fd);
/* of the names of the memories that have it */
void pool_numbers_suffix(uint64_t id_base, char text[static POOL_NUMBERS_SUFFIX]);
/* Did a daemon of our uid make each of these memories, as what it is handed to us as, and all of them for one channel?
 */
bool pool_numbers_are_ours(const int fds[CHANNEL_PARTS]);

/* ---- bells: pool-bells.c ---- */

int pool_bell_for(struct pool *p, uid_t uid, uint32_t *ret_bell); /* -ENOSPC: too many users */
void pool_bell_free(struct pool_bell *b);                         /* no worker knows it; it need not be in use */
bool pool_bell_is_over(const struct pool *p, uint32_t bell);      /* workers are to let go of it */
void pool_bells_collect(struct pool *p); /* frees those without a channel that no worker knows, and sees to it */
void pool_update_bells(struct pool *p);  /* mode by state: FUTEX only while somebody can serve, and waits on it */
bool pool_serves(const struct pool *p);  /* somebody can */
void pool_broadcast(struct pool *p);
void pool_bells_tell(struct pool *p); /* in pool memory: which have no place, which are muted */
void pool_poke(struct pool *p); /* all workers look at what changed in pool memory, and at all that they may serve */

/* ---- after a worker's death, which may have written anything anywhere: pool-heal.c ---- */

void pool_heal(struct pool *p);          /* what is ours says again what it must */
void pool_heal_and_wake(struct pool *p); /* and everybody looks at everything */
/* a client of it is gone, which could write there, too; poke then */
void pool_heal_bell(struct pool *p, uint32_t bell);

/* ---- and its channels: pool-mend.c ---- */

void pool_mend_soon(struct pool *p); /* in a moment: rings, slots and done bits make sense again */
void pool_mend_now(struct pool *p);  /* an operator asks: memory and channels, whether a worker died or not */
void pool_mend_stop(struct pool *p);
/* Once a second while there is work, and `is_last` before it is taken for done: are our own jobs where they should be?
 * A worker that wrote over its record and its slot shows in nothing else. */
void pool_mend_look(struct pool *p, bool is_at_work, bool is_last);
/* A worker let go of the channel because it was asked to: what it seems to run there it does not. */
void pool_mend_let_go(struct pool_channel *c, const struct worker *w);

/* ---- which of them workers wait on: pool-places.c ---- */

void pool_place_begin(struct pool_bell *b); /* a new one: if there is room */
void pool_places_look(struct pool *p);      /* somebody rang: whoever has work and no place is seen to */

/* A worker says that the bell wakes it for nothing. -EPROTO: there is no such bell. pool-mute.c */
int pool_on_vain(struct pool *p, uint32_t worker, uint32_t bell);
