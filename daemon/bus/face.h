/* What the files of the bus face share: the connection, its callers, and the calls that wait for something. */
#pragma once

#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "daemon/bus/bus.h"
#include "daemon/supervise/quota.h"

#define BUS_NAME "org.drover1"
#define BUS_ROOT "/org/drover1"
#define BUS_POOLS BUS_ROOT "/pool"
#define BUS_WORKERS BUS_ROOT "/worker"
#define BUS_JOBS BUS_ROOT "/job"
#define BUS_MANAGER "org.drover1.Manager"
#define BUS_POOL "org.drover1.Pool"
#define BUS_WORKER "org.drover1.Worker"
#define BUS_JOB "org.drover1.Job"

enum {
        BUS_MAX_CALLS = 128, /* of one caller waiting at once: dbus-daemon's own limit on replies */
        BUS_MAX_ROOM_CALLS = 4096, /* of all waiting for room in a pool: beyond that it is QueueFull, whatever Overflow= says */
        BUS_MAX_CALLS_OF_UID = BUS_MAX_ROOM_CALLS / 2, /* of all callers of one uid waiting at once; not of root */
        BUS_MAX_PEERS = 1024,
        BUS_PEER_BUCKETS = 256,
        BUS_MAX_RULES = 128, /* match rules of single callers; then one for all, and so no more than 129 at any time */
        BUS_MAX_PATH = 320, /* a pool name escaped at its worst */
};

struct bus_peer;
TAILQ_HEAD(bus_peer_list, bus_peer);
TAILQ_HEAD(bus_call_list, bus_call);

/* Room for one conversion, kept between calls. */
struct bus_scratch {
        void *map;
        size_t map_bytes;
        struct args_value *values;
        size_t n_values;
        int fds[SCHEMA_MAX_FDS]; /* of the message that was read last, and the message's */
        unsigned n_fds;
        int payload_fd; /* -1 = none */
};

struct bus {
        struct bus_config config;
        struct supervisor *supervisor;
        sd_bus *bus;
        struct loop_poll poll;
        struct loop_timer timer;       /* sd-bus's own timeouts, and messages it has read already */
        struct loop_timer retry_timer; /* a pool changed or has room: calls that wait for it try again */
        bool is_started, is_lost, is_resting;
        struct bus_peer_list peers; /* least recently heard of first */
        struct bus_peer *buckets[BUS_PEER_BUCKETS];
        unsigned n_peers, n_subscribers, n_room_calls;
        struct { /* peer-watch.c */
                sd_bus_slot *wide; /* the rule for those that have none of their own */
                unsigned max_own, n_own, n_confirmed;
        } watch;
        struct quota calls_of; /* that wait */
        struct bus_call_list waiting_for_pool, waiting_for_room;
        TAILQ_HEAD(, bus_late) late;
        struct bus_scratch scratch;
        struct { /* farewell.c */
                void (*done)(void *user); /* NULL = not asked for, or over */
                void *user;
                unsigned n_pings;
                struct loop_timer timer;
        } farewell;
};

/* A method: 1 = handled (answered now or later), else -errno or `e` set. It may run again for the same message. */
typedef int (*bus_method_fn)(struct bus *b, struct bus_peer *peer, sd_bus_message *m, sd_bus_error *e);

struct bus_method {
        const char *member;
        bus_method_fn fn;
};

/* ---- dispatch.c: who calls, may they, go ---- */

/* For vtable handlers: finds the member in `methods` (ended by {}), learns who the sender is, asks authorize.h, calls.
 */
int bus_dispatch(struct bus *b, sd_bus_message *m, const struct bus_method *methods, sd_bus_error *e);
/* The part after the member is known; `fn` may be called later. */
int bus_dispatch_to(struct bus *b, sd_bus_message *m, bus_method_fn fn, sd_bus_error *e);
/* Runs `fn` for a call that was held back, and answers it if it fails. */
void bus_run_held(struct bus *b, struct bus_peer *peer, sd_bus_message *m, bus_method_fn fn);
int bus_reply(sd_bus_message *call, const char *types, ...);
/* A reply that is one array: begun here, filled by the caller, closed and sent unless filling failed (`r` < 0). */
int bus_reply_begin(sd_bus_message *call, const char *contents, sd_bus_message **ret_reply);
int bus_reply_end(sd_bus_message *reply, int r);

/* ---- errors.c ---- */

/* Always -1-like for `return`: a negative errno, with `e` set to the fault's name and text. */
int bus_error_from_fault(sd_bus_error *e, const struct fault *f);
int bus_invalid(sd_bus_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes any bytes valid UTF-8 in place, as every string on the bus must be. */
void bus_clean_text(char *text);

/* ---- paths.c ---- */

void bus_pool_path(const char *name, char ret[static BUS_MAX_PATH]);
void bus_worker_path(uint64_t id, char ret[static BUS_MAX_PATH]);
void bus_job_path(uint64_t id, char ret[static BUS_MAX_PATH]);
/* For who lists objects: a copy of `path` at the end of a list that NULL ends. Without memory the list is freed. */
int bus_path_add(char ***paths, size_t *n, const char *path);
struct pool *bus_pool_at(struct bus *b, const char *path);
struct worker *bus_worker_at(struct bus *b, const char *path);
int bus_parse_id(const char *path, const char *prefix, uint64_t *ret);
/* NoSuchPool, naming it and the ones that exist. */
int bus_find_pool(struct bus *b, const char *name, struct pool **ret, sd_bus_error *e);
/* One of the bus, or (job NULL) one of a session. */
struct bus_job {
        struct job *job;
        struct session_job session;
};

void bus_job_get_info(const struct bus_job *j, struct job_info *ret);
/* NoSuchJob for a missing and for a foreign one alike; ResultExpired for one's own that was not kept long enough. */
int bus_find_job(struct bus *b, const struct bus_peer *peer, uint64_t id, struct bus_job *ret, sd_bus_error *e);

/* ---- properties.c: getters by table ---- */

struct bus_property {
        const char *name, *type;
        size_t offset; /* into the info struct; strings are const char * unless is_inline */
        bool is_inline;
};

/* Appends the value at info + offset; 64-bit, 32-bit and int32 by `type` t, u, i; s. */
int bus_append_property(sd_bus_message *reply, const struct bus_property *p, const void *info);
/* What else an append does than bus_append_property. */
typedef int (*bus_append_fn)(sd_bus_message *reply, const struct bus_property *p, void *view);
/* Answers Properties.Get or GetAll, whichever `m` is. */
int bus_reply_properties(sd_bus_message *m, const char *interface, const struct bus_property *table,
                         bus_append_fn append, void *view, sd_bus_error *e);
/* Holds back what a caller not known yet asks of a job or a worker: no vtable getter could answer later. */
int bus_properties_filter(sd_bus_message *m, void *user, sd_bus_error *e);
const struct bus_property *bus_find_property(const struct bus_property *table, const char *name);

/* ---- the interfaces ---- */

extern const sd_bus_vtable manager_vtable[], pool_vtable[], worker_vtable[], job_vtable[];
int list_jobs_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int pool_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int pool_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e);
int worker_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int worker_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e);
int job_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int job_properties_get(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                       void *user, sd_bus_error *e);
/* Properties.Get and GetAll, once it is known who asks. */
int job_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int worker_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
