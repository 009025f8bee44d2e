/* The messages on the private sockets (all SEQPACKET, one struct a packet, host byte order: same machine).
 *
 *   broker  ↔ spawner     struct spawn_request → struct spawn_event
 *   spawner ← template    struct template_event
 *   broker  ↔ worker      struct worker_order → struct worker_report, some with text behind the struct
 *   broker  ← worker      struct worker_item with the item behind it, on a socket of its own
 *   client  ↔ broker      struct session_packet, both ways
 *
 * Each starts with a type; a receiver checks length and type and drops the peer otherwise. Text is bounded,
 * 0-terminated by the receiver, and untrusted when it comes from a worker or a template. */
#pragma once

#include <stdint.h>

#include "ipc/layout.h"

enum {
        WIRE_VERSION = 1,
        WIRE_NAME = 128,
        WIRE_TEXT = 384,
        WIRE_ENVIRONMENT = 1024,
        WIRE_MAX_REPORT = 40 * 1024, /* struct worker_report and the schema text */
        WIRE_MAX_ITEM = 64 * 1024,   /* behind a struct worker_item */
};

enum start_method { START_FORKSERVER = 0, START_SPAWN, START_FORK, START_N };

/* ---- broker → spawner ----
 *
 * Every START is answered by exactly one of FAILED, or STARTED and later EXITED. At most 1024 workers and 256
 * generations at once; more is FAILED or LOADED with an error, for now. A malformed request, a worker or generation
 * given twice, an unknown method or signal: the spawner drops the broker and kills all that it had started, as at end
 * of file. A KILL or RETIRE of what is gone is no error. A KILL of a worker that has no pid yet: FAILED with ECANCELED,
 * or STARTED and the signal at once; a template that only such workers waited for is killed, too (its preload may
 * hang). A LOAD takes its time: the copy is made by a child, and whatever is asked for goes on meanwhile. Every LOAD is
 * answered by exactly one LOADED: done, or failed, after some 10 s at the latest once its turn has come, or (ECANCELED)
 * by a RETIRE before that. A START before it is FAILED. LD_… in `environment` is refused: the loader would run that
 * code outside the sandbox. */

enum spawn_request_type {
        SPAWN_LOAD = 1, /* seal a copy of plugin `name` as generation `generation` → SPAWN_LOADED */
        SPAWN_START,    /* a worker of that generation → SPAWN_STARTED or SPAWN_FAILED, later SPAWN_EXITED */
        SPAWN_KILL,     /* `signal` to worker `worker`'s process group (SIGKILL) or to it alone (others) */
        SPAWN_RETIRE,   /* the generation's template ends, its sealed copy is dropped; its workers go on */
        SPAWN_PING,     /* → SPAWN_PONG: it answers, so what is missing is not its fault */
};

struct spawn_request {
        uint32_t type, version;
        uint32_t generation; /* given by the broker, rising, one per pool and load */
        uint32_t worker;     /* START, KILL: the broker's id of the worker, rising, never reused */
        uint32_t method;     /* LOAD and START: enum start_method */
        uint32_t signal;
        int32_t oom_score_adj;  /* LOAD: of its workers, at least; in any case more than the spawner's */
        uint64_t memory_bytes;  /* LOAD: that a worker may have for itself (RLIMIT_DATA); 0 = the default, UINT64_MAX =
                                   any */
        char pool[72];          /* LOAD: for process names and messages */
        char plugin[WIRE_NAME]; /* LOAD: file name inside the plugin directory, with or without ".so" */
        char environment[WIRE_ENVIRONMENT]; /* LOAD: NAME=value, 0-separated, ended by an empty one */
};

enum spawn_event_type {
        SPAWN_HELLO = 1, /* first packet: pid of the spawner, version */
        SPAWN_LOADED,    /* error 0 or an errno with text */
        SPAWN_STARTED,   /* pid; text: the layers of its sandbox if it came from a template; two descriptors: pidfd,
                            control socket */
        SPAWN_FAILED,    /* START came to nothing: error, reason, text (the template's words if it was the template) */
        SPAWN_EXITED,    /* pid, code, status, usage; its process group is gone */
        SPAWN_TEMPLATE,  /* a template ended unasked: generation, pid, reason, signal, breach, text; later STARTs make a
                          * new one. Not sent when it refused in words (TEMPLATE_FAILED without a breach): each START's
                          * FAILED says so */
        SPAWN_PONG,
        SPAWN_ESCAPED, /* pid of a process nobody started: killed, and reaped by now */
};

struct spawn_event {
        uint32_t type, version;
        uint32_t generation, worker;
        int32_t pid;
        int32_t error;         /* errno, positive; 0 = fine */
        uint32_t reason;       /* enum death_reason */
        int32_t code;          /* CLD_EXITED, CLD_KILLED, CLD_DUMPED */
        int32_t status;        /* exit code or signal */
        uint32_t is_permanent; /* FAILED, LOADED: trying again cannot help (bad file, threads after preload…): the pool
                                  is refused */
        uint32_t start_phase;  /* FAILED by a KILL: what its template was at, enum life_phase */
        uint64_t cpu_us, max_rss_kib;
        struct layout_breach breach; /* FAILED, TEMPLATE with REASON_SYSCALL: of the template */
        char text[WIRE_TEXT];
};

/* ---- template → spawner (descriptor 3 of the template) ----
 *
 * The other way there are no messages. When the spawner wants a worker, it lets the fork go on that the template is in
 * (ipc/memory/notified.h), one fork for each. The child's call of PR_SET_PDEATHSIG says that it is there, and who it
 * is; while that waits, the spawner gives it a process group of its own, and the worker's control socket at
 * descriptor 3. Both within three seconds, else the template is ended, and what it forked. When the spawner's end of
 * this socket is closed, the kernel kills the template's process group: it, and whom it forked and who did not come. */

enum template_event_type {
        TEMPLATE_CLOSED = 1, /* before any plugin code runs: the sandbox is closed; text: its layers, as in
                              * REPORT_CLOSED; one descriptor: the listener for its system calls, and its workers' */
        TEMPLATE_READY,      /* it forks */
        TEMPLATE_FAILED,
        TEMPLATE_FORKED, /* the fork that was let go on has failed: `error` */
        TEMPLATE_LOADED, /* the constructors have run, and the plugin's preload is called next */
};

struct template_event {
        uint32_t type, version;
        int32_t error; /* FORKED, FAILED: errno, positive */
        uint32_t reason, is_permanent;
        uint32_t reserved;
        struct layout_breach breach; /* FAILED with REASON_SYSCALL */
        char text[WIRE_TEXT];
};

/* ---- broker ↔ worker (descriptor 3 of the worker) ---- */

enum worker_order_type {
        ORDER_SETUP = 1, /* descriptors: pool memory, its doorbell (ringers' end), stdout+stderr (a stream socket),
                            items' socket */
        ORDER_BELL,      /* descriptor: bell memory; bell number `bell` */
        ORDER_CHANNEL,   /* descriptors: the channel's common memory, jobs (read-only), results, its done doorbell
                            (ringers' end); channel `channel` of bell `bell` */
        ORDER_DROP,      /* unmap channel `channel` → REPORT_DROPPED */
        ORDER_DROP_BELL,
        ORDER_ARENA, /* the answer to REPORT_ARENA: descriptor: its memory, `arena_bytes`; or none, and `error` */
        ORDER_FDS,   /* the answer to REPORT_FDS (with the descriptors), REPORT_ROOM (with one) and REPORT_RESULT; or
                        `error` */
};

struct worker_order {
        uint32_t type, version;
        uint32_t index;               /* SETUP: the worker's line in pool memory */
        uint32_t channel, bell;       /* channel < LAYOUT_MAX_CHANNELS, bell < LAYOUT_MAX_BELLS */
        uint32_t n_slots, slot_bytes; /* CHANNEL */
        uint32_t model;               /* SETUP: 1 = process */
        uint64_t id;                  /* SETUP: D-Bus id of the worker; CHANNEL: its jobs' ids are this + n */
        char pool[72];
        int32_t error;          /* ARENA, FDS: errno, positive; 0 = fine */
        uint32_t marks_output;  /* SETUP: 1: the end of a job is marked in its output (PROTOCOL.md 1.3) */
        uint64_t arena_bytes;   /* ARENA */
        uint64_t payload_bytes; /* FDS: not 0: the first descriptor is the payload, sealed, so long */
};

enum worker_report_type {
        REPORT_READY = 1, /* schema text behind the struct */
        REPORT_FAILED,    /* init failed: reason, error, text; the worker exits next */
        REPORT_DROPPED,   /* channel */
        REPORT_FOUL, /* channel: its memory makes no sense, or (`error` = ESTALE) a job was taken from us while it ran
                      */
        REPORT_VAIN, /* bell (in `channel`): it wakes us again and again, and there is no job */
        REPORT_ARENA, /* wants the arena named in `text`, with `arena_…` (0 = as it is) → ORDER_ARENA; one at a time */
        REPORT_FDS,    /* wants the descriptors of the job it runs in `channel`, `slot`, `generation` → ORDER_FDS */
        REPORT_ROOM,   /* wants a memory file of `payload_bytes` to write that job's result into → ORDER_FDS */
        REPORT_RESULT, /* descriptors of that job's result, before its verdict; `payload_bytes` as in ORDER_FDS →
                        * ORDER_FDS. With `has_room` the result is what stands in the room, and no descriptor of the
                        * packet */
        REPORT_ENDED,  /* that job has its verdict: its descriptors are of no more use */
        REPORT_CLOSED, /* once, before any plugin code runs: the sandbox is closed, `sandbox` says by what, and `text`
                        * which library had started threads before, if one had. READY is
                        * believed after it only. Workers of templates do not say it: their template has */
};

struct worker_report {
        uint32_t type, version;
        uint32_t channel;
        int32_t error;
        uint32_t reason, is_permanent;
        uint32_t text_bytes;         /* of the schema text behind the struct */
        uint32_t arena_is_transient; /* if it is made */
        char sandbox[64];            /* CLOSED: layers that are on, e.g. "seccomp,landlock:7,no-new-privs,rlimits" */
        char text[WIRE_TEXT];
        uint64_t arena_bytes;
        char build_id[48];         /* READY: of the plugin file, in hex; "" = it has none */
        uint32_t slot, generation; /* FDS, ROOM, RESULT, ENDED */
        uint64_t payload_bytes;
        uint32_t has_room;
        uint32_t arena_objects, arena_processes; /* at most */
        uint32_t reserved;
};

/* What a job emits, one packet an item. All packets of a job stand before its verdict. */
struct worker_item {
        uint32_t version;
        uint32_t channel, slot, generation; /* the job, as in the worker's run record */
        uint32_t attempt;
        uint32_t bytes; /* of the item, 1 … WIRE_MAX_ITEM */
};

/* ---- client ↔ broker (the session socket) ----
 *
 * The client sends a job's descriptors before it queues the job; the broker keeps them. At most one WANT is under way.
 */

enum session_packet_type {
        SESSION_FDS = 1, /* client: descriptors of the job that it is about to queue in `slot` as `generation` */
        SESSION_ENDED,   /* client: it has that job's verdict and what it wants of it */
        SESSION_WANT,    /* client: the descriptors of that job's result → SESSION_RESULT */
        SESSION_RESULT,  /* broker: here they are; or none, and `error` */
};

struct session_packet {
        uint32_t type, version;
        uint32_t slot, generation;
        int32_t error; /* RESULT: errno, positive */
        uint32_t reserved;
        uint64_t payload_bytes; /* FDS, RESULT: not 0: the first descriptor is the payload or the result, sealed, so
                                   long */
};

/* How many descriptors the broker keeps for the jobs of one channel, and for results as many again. */
static inline uint32_t wire_max_fds(uint32_t n_slots) { return n_slots < 64 ? 64 : n_slots; }

/* Descriptors of an exec'd drover-worker, whatever its role. */
enum { WIRE_CONTROL_FD = 3, WIRE_PLUGIN_FD = 4 };
