/* Every struct that two processes share, and nothing else.
 *
 * Three kinds of memory, all memfds that the broker makes, sizes and seals (SHRINK|GROW|SEAL):
 *
 *   channel      one client session and one pool: four memfds, by who may write them: slots and
 *                rings; job areas; result areas; verdict lines (struct channel_geometry).
 *   bell         one page, one pool and uid: who sleeps, who spins, which channels may have work.
 *   pool memory  one pool: a line group per worker. Mapped by the broker and the workers.
 *
 * Rules: u32 and u64 only; no pointer; all zero is a safe state; a word is loaded once into a
 * local and checked against sizes the reader holds privately. The sizes in the header are for
 * people with a hex dump: nobody computes an address from them. ipc/PROTOCOL.md is normative. */
#pragma once

#if __SIZEOF_POINTER__ != 8
#error "Drover needs a 64-bit machine: words that processes share are 64 bits wide"
#endif

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free to survive a SIGKILL");

#define LAYOUT_MAGIC_CHANNEL UINT32_C(0x43485244) /* "DRHC" */
#define LAYOUT_MAGIC_BELL UINT32_C(0x42485244)
#define LAYOUT_MAGIC_POOL UINT32_C(0x50485244)
#define LAYOUT_VERSION 3u

#define LAYOUT_JOB_ID_MASK                                                                                             \
        ((UINT64_C(1) << 40) - 1) /* of an id that a client wrote: what stands above is its channel's */

enum {
        LAYOUT_PAGE = 4096,
        LAYOUT_LINE = 64,
        LAYOUT_PRIORITIES = 4, /* ring 3 is the most urgent; 1 is the default */
        LAYOUT_PRIORITY_DEFAULT = 1,
        LAYOUT_MIN_SLOTS = 2,
        LAYOUT_MAX_SLOTS = 65536,   /* a channel; always a power of two */
        LAYOUT_MIN_SLOT_BYTES = 64, /* a job or result area; always a multiple of 64 */
        LAYOUT_MAX_SLOT_BYTES = 1 << 20,
        LAYOUT_MAX_WORKERS = 256,  /* a pool: one bit each in a bell */
        LAYOUT_MAX_CHANNELS = 256, /* a pool: one bit each in a bell */
        LAYOUT_MAX_ATTEMPTS = 63,  /* six bits in the slot word */
        LAYOUT_BELL_WORDS = LAYOUT_MAX_WORKERS / 64,
        LAYOUT_MAX_BELLS = 256,       /* a pool: one a uid, and a uid has a channel */
        LAYOUT_BELLS_PER_WORKER = 16, /* it waits on so many; the other bells are rung by way of the broker */
        LAYOUT_LATENCY_BUCKETS = 272,
        LAYOUT_LATENCY_TYPES = 16, /* a plugin's later job types share the last one */
};

struct layout_header {
        uint32_t magic, version;
        uint32_t n_slots, slot_bytes; /* channel only */
};

/* ---- slot word: the truth about one job. Low half is the futex half. ---- */

enum slot_state {
        SLOT_FREE = 0, /* nobody's */
        SLOT_FILLING,  /* the client's */
        SLOT_QUEUED,   /* whoever claims it first */
        SLOT_DELAYED,  /* the broker's timer's */
        SLOT_RUNNING,  /* the worker's whose index stands in owner */
        SLOT_DONE,     /* a verdict from here on: the client's to read and to free */
        SLOT_FAILED,
        SLOT_CANCELLED,
        SLOT_EXPIRED,
        SLOT_TIMED_OUT,
        SLOT_POISONED,
        SLOT_LOST,
        SLOT_N_STATES,
};

enum slot_flag {
        SLOT_CANCEL = 1u << 0,     /* somebody asked for an early end: checkpoints return an error */
        SLOT_QUARANTINE = 1u << 1, /* the worker may still write here: not to be freed yet */
        SLOT_SUSPECT = 1u << 2,
        SLOT_HAS_FDS = 1u << 3, /* descriptors belong to it: the broker has them */
};

/* state 4 | flags 6 | attempt 6 | owner 16 | generation 32, from bit 0 up */
#define SLOT_WORD(state, flags, attempt, owner, generation)                                                            \
        ((uint64_t)(state) | (uint64_t)(flags) << 4 | (uint64_t)(attempt) << 10 | (uint64_t)(owner) << 16 |            \
         (uint64_t)(generation) << 32)

enum {
        SLOT_OWNER_NONE = 0,
        SLOT_OWNER_WORKER0 = 1, /* worker index i owns as i + 1 */
        SLOT_OWNER_CLIENT = 0xfffe,
        SLOT_OWNER_BROKER = 0xffff,
};

struct layout_slot {
        _Atomic uint64_t word;
        uint64_t reserved[7];
};

/* ---- ready ring: bounded, one per priority; cell = cycle 32 | generation 16 | slot 16, from bit 63 down ---- */

struct layout_ring {
        _Atomic uint64_t head;
        uint64_t pad0[7];
        _Atomic uint64_t tail;
        uint64_t pad1[7];
};

/* ---- what the client waits on ---- */

enum done_wait {
        DONE_NOBODY = 0,
        DONE_FUTEX = 1,    /* FUTEX_WAKE on done_seq */
        DONE_DOORBELL = 2, /* ring the channel's done doorbell */
};

struct layout_channel {
        struct layout_header header;
        uint64_t pad0[6];
        _Atomic uint32_t done_seq;  /* futex word, bumped by whoever sets a verdict while the client waits */
        _Atomic uint32_t done_wait; /* enum done_wait, set by the client */
        uint64_t pad1[7];
        _Atomic uint32_t closed; /* broker: enum channel_closed */
        uint32_t pad2;
        /* jobs QUEUED so far: only the client writes it, only people read it; not on a line that workers read */
        _Atomic uint64_t submitted;
        /* Verdicts that neither a worker that ran the job nor the broker gave: added by whoever won the CAS. */
        _Atomic uint64_t cancelled, expired;
        _Atomic uint64_t delayed; /* one more, by whoever made a slot DELAYED, before it rings the broker's doorbell */
        _Atomic uint64_t queue_timeout_ns; /* broker: QueueTimeout=, which the client heeds; 0 = none */
        uint64_t pad3[2];
        struct layout_ring ring[LAYOUT_PRIORITIES];
        /* then, each at a page (struct channel_geometry): ring cells, slots, done bitmap */
};

enum channel_closed {
        CHANNEL_OPEN = 0,
        CHANNEL_CLOSED = 1, /* no new jobs: -ESHUTDOWN */
        CHANNEL_DEAD = 2,   /* -EPIPE */
        CHANNEL_ENDING = 3, /* no new jobs of this broker, which ends: -EAGAIN until the next one has the channel */
};

/* What the client writes before QUEUED; workers can only read it. The payload follows it. */
struct layout_job {
        uint32_t type;         /* number of the job type (ipc/values/schema.h) */
        uint32_t bytes;        /* payload length, <= slot_bytes */
        uint32_t priority;     /* the ring it stands in */
        uint32_t max_attempts; /* 0 = the pool's; the broker takes the smaller */
        uint64_t id;
        uint64_t queued_ns;         /* CLOCK_MONOTONIC */
        uint64_t queue_deadline_ns; /* absolute, 0 = none */
        uint64_t soft_ns, hard_ns;  /* relative limits, 0 = the pool's; the broker takes the smaller */
        uint64_t not_before_ns;     /* absolute, 0 = none: DELAYED until then */
};

/* What the worker writes before the verdict; the client can only read it. The result, or for FAILED the message,
 * follows. */
struct layout_result {
        uint32_t bytes;
        int32_t error; /* errno of a FAILED job, positive */
        uint32_t pid;
        uint32_t generation; /* low word of the slot's generation, so a stale area is seen as stale */
        uint64_t started_ns, finished_ns;
        uint64_t cpu_ns;
        uint64_t retry_at_ns; /* DELAYED by drover_retry: not before then */
        uint32_t has_fds;     /* DONE: 1 = descriptors belong to it, perhaps the result itself: the broker has them */
        uint32_t reserved32;
        uint64_t reserved;
};

enum { LAYOUT_WHAT = 152 };

/* What the broker alone can write, before a verdict of its own. */
struct layout_verdict {
        uint32_t reason; /* enum death_reason */
        uint32_t signal;
        uint32_t status;  /* exit code, when reason is REASON_EXIT */
        uint32_t syscall; /* number + 1, 0 = none */
        uint32_t pid;
        uint32_t attempts;
        uint64_t when_ns;
        uint32_t generation, state; /* of the slot: the verdict that it stands for, and no other */
        char what[LAYOUT_WHAT];     /* REASON_SYSCALL: the call, where it was made, and when; 0-terminated */
};

/* ---- bell ---- */

enum bell_mode {
        BELL_BROKER = 0, /* write the broker's doorbell */
        BELL_FUTEX = 1,  /* wake a worker */
};

enum bell_row { BELL_FRONT, BELL_BACK, BELL_ROWS };

struct layout_bell {
        struct layout_header header;
        uint64_t pad0[6];
        _Atomic uint32_t seq[BELL_ROWS]; /* the futex words workers sleep on: those of the front row and the others */
        _Atomic uint32_t mode;           /* enum bell_mode, written by the broker */
        _Atomic uint32_t rises;          /* how often somebody got up, counted after its bit is cleared */
        _Atomic uint64_t woken;          /* at the last wake-up: `rises` + 1 32 | time, ns >> 10 32 */
        _Atomic uint64_t front;          /* who is of the front row: as `sleepers`, written by the broker once */
        uint64_t pad1[4];
        _Atomic uint64_t sleepers[LAYOUT_BELL_WORDS]; /* bit = worker index */
        _Atomic uint64_t spinners[LAYOUT_BELL_WORDS];
        _Atomic uint64_t work[LAYOUT_BELL_WORDS]; /* bit = channel index */
};

/* ---- pool memory ---- */

enum worker_command {
        WORKER_WAIT = 0, /* claim nothing (also: paused pool) */
        WORKER_RUN = 1,
        WORKER_RETIRE = 2, /* finish the job in hand, then exit 0 */
};

/* What a worker is at: told of a forbidden system call, and of a start that hangs. */
enum life_phase {
        LIFE_NONE = 0,
        LIFE_CONSTRUCTOR,
        LIFE_PRELOAD,
        LIFE_WORKER_OPEN,
        LIFE_WORKER_INIT,
        LIFE_THREAD_INIT,
        LIFE_HANDLER,
        LIFE_BETWEEN_JOBS,
        LIFE_THREAD_FINI,
        LIFE_WORKER_FINI,
        LIFE_OWN_THREAD, /* a thread of the plugin's or of a library's, whenever */
        LIFE_N,
};

/* A forbidden system call, as its own process tells it: untrusted (ipc/values/breach.h). */
enum { LAYOUT_PATH = 64 };

struct layout_breach {
        uint32_t syscall; /* number + 1; 0 = there was none */
        uint32_t phase;   /* enum life_phase */
        uint64_t offset;  /* of the calling instruction, in `module`: a file's name, or "" */
        char module[24];
        char path[LAYOUT_PATH]; /* that it was given; "" = none. 0-terminated, cut with "..." */
};

/* Why a checkpoint should give up, beside the slot's CANCEL flag. */
enum { CANCEL_ASKED = 0, CANCEL_SOFT_LIMIT = 1 };

/* So many claims of `max`, and the broker is told to have a successor ready: a quarter of them is left, rounded up. */
#define LAYOUT_SUCCESSOR_AT(max) ((max) - ((max) + 3) / 4)

struct layout_worker {
        /* the broker writes */
        _Atomic uint32_t control;  /* futex word: bumped, and woken, whenever anything below or a message is new */
        _Atomic uint32_t command;  /* enum worker_command */
        _Atomic uint64_t soft_hit; /* generation << 32 | slot + 1 of the job whose soft limit passed */
        /* it claims so many jobs and no more, and rings as LAYOUT_SUCCESSOR_AT says; 0 = no end */
        _Atomic uint64_t max_claims;
        uint64_t pad0;
        /* the worker writes, from here on: the last job that it gave a verdict, for people. Here, where the broker
         * seldom writes and never looks, it costs a job nothing. */
        _Atomic uint64_t last_job;                          /* id; 0 = none, or the next four are being written */
        _Atomic uint64_t last_started_ns, last_finished_ns; /* CLOCK_MONOTONIC */
        _Atomic uint32_t last_type;                         /* as in layout_job */
        _Atomic uint32_t last_end;                          /* verdict | attempt << 8 */
        _Atomic uint64_t record; /* generation 32 | channel 16 | slot 16: written before the claim */
        _Atomic uint64_t claims; /* one more per claim: a change tells the broker that a new job runs */
        _Atomic uint32_t fault_signal;
        _Atomic uint32_t fault_syscall; /* number + 1 of the call that broke the filter */
        _Atomic uint64_t fault_address;
        _Atomic uint64_t fault_offset; /* of the instruction, in fault_module: a file's name, or "" */
        char fault_module[24];
        _Atomic uint64_t counts[SLOT_N_STATES]; /* verdicts this worker gave, by state, and DELAYED: attempts put off;
                                                   only it writes them */
        _Atomic uint64_t progress_done, progress_total;
        _Atomic uint32_t status_seq;  /* odd while `status` is being written */
        _Atomic uint32_t start_phase; /* enum life_phase, until it is ready; for people */
        _Atomic uint32_t n_unmarked;  /* ends of jobs that found no room for a mark in the output */
        uint32_t pad2;
        char status[128];             /* drover_progress note; read as untrusted bytes */
        _Atomic uint32_t fault_phase; /* of the forbidden call, and the path that it was given: as in layout_breach */
        uint32_t pad4;
        char fault_path[LAYOUT_PATH];
        uint64_t pad5[7];
};

/* One histogram (ipc/memory/latency.h). Only the worker of its index writes it. */
struct layout_latency {
        _Atomic uint64_t counts[LAYOUT_LATENCY_BUCKETS];
        _Atomic uint64_t max_ns;
        uint64_t reserved[7];
};

/* Jobs of one type with a verdict from a worker. */
struct layout_latencies {
        struct layout_latency queue, run; /* until the claim, from there to the verdict */
};

struct layout_pool {
        struct layout_header header;
        _Atomic uint64_t rate_ns;      /* broker: so much time a claim; 0 = no RateLimit= */
        _Atomic uint64_t rate_next_ns; /* claimers: the time that the next claim stands for */
        /* broker, both told by `control`; bit = bell: not waited on, for want of a place; nor looked at, for now */
        _Atomic uint64_t placeless[LAYOUT_BELL_WORDS];
        _Atomic uint32_t armed; /* 0: the next claimer sets it and rings the broker's doorbell */
        uint32_t has_timer;     /* 1: whoever made the channels sees to DELAYED slots */
        _Atomic uint64_t muted[LAYOUT_BELL_WORDS];
        uint64_t pad0[3];
        struct layout_worker worker[LAYOUT_MAX_WORKERS];
        struct layout_latencies latency[LAYOUT_MAX_WORKERS][LAYOUT_LATENCY_TYPES]; /* pages nobody wrote cost nothing */
};

/* The size of the memory file: whole pages. */
#define LAYOUT_POOL_BYTES ((sizeof(struct layout_pool) + LAYOUT_PAGE - 1) / LAYOUT_PAGE * LAYOUT_PAGE)

/* Why a worker died or a job was judged: the words of the D-Bus API, in this order. */
enum death_reason {
        REASON_NONE = 0,
        REASON_EXIT,
        REASON_SIGNAL,
        REASON_OOM,
        REASON_MEMORY_LIMIT,
        REASON_TIME_LIMIT,
        REASON_WATCHDOG,
        REASON_SYSCALL,
        REASON_STACK_OVERFLOW,
        REASON_PRELOAD,
        REASON_INIT,
        REASON_OPERATOR,
        REASON_RECYCLED,
        REASON_SPAWNER_LOST,
        REASON_N,
};

static_assert(sizeof(struct layout_slot) == LAYOUT_LINE);
static_assert(sizeof(struct layout_job) == LAYOUT_LINE);
static_assert(sizeof(struct layout_result) == LAYOUT_LINE);
static_assert(sizeof(struct layout_verdict) == 3 * LAYOUT_LINE);
static_assert(LAYOUT_MAX_BELLS <= LAYOUT_BELL_WORDS * 64);
static_assert(sizeof(struct layout_worker) == 512);
static_assert(sizeof(struct layout_latencies) == 4480);
static_assert(offsetof(struct layout_pool, placeless) == 32);
static_assert(offsetof(struct layout_pool, muted) == 72);
static_assert(offsetof(struct layout_pool, latency) == 131200);
static_assert(offsetof(struct layout_worker, counts) == 128);
static_assert(offsetof(struct layout_worker, last_job) == 32);
static_assert(offsetof(struct layout_worker, start_phase) == 244);
static_assert(offsetof(struct layout_worker, last_end) == 60);
static_assert(offsetof(struct layout_worker, record) == 64);
static_assert(offsetof(struct layout_worker, fault_phase) == 384);
static_assert(offsetof(struct layout_channel, done_seq) == 64);
static_assert(offsetof(struct layout_channel, closed) == 128);
static_assert(offsetof(struct layout_channel, queue_timeout_ns) == 168);
static_assert(offsetof(struct layout_channel, ring) == 192);
static_assert(sizeof(struct layout_channel) <= LAYOUT_PAGE);
static_assert(offsetof(struct layout_bell, seq) == 64);
static_assert(offsetof(struct layout_bell, sleepers) == 128);
static_assert(offsetof(struct layout_bell, work) == 192);
static_assert(sizeof(struct layout_bell) <= LAYOUT_PAGE);
