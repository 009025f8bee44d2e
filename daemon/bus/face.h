/* What the files of the bus face share: the connection, its callers, and the calls that wait for something. */
#pragma once

#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "daemon/bus/bus.h"
#include "daemon/supervise/facts/quota.h"

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
        /* Of all waiting for room in a pool: beyond that it is QueueFull, whatever Overflow= says. */
        BUS_MAX_ROOM_CALLS = 4096,
        BUS_MAX_CALLS_OF_UID = BUS_MAX_ROOM_CALLS / 2, /* of all callers of one uid waiting at once; not of root */
        BUS_MAX_PEERS = 4096,
        BUS_MAX_PEERS_OF_USER = BUS_MAX_PEERS / 8, /* dbus-daemon itself has 256; not of root */
        BUS_MAX_SUBSCRIBERS_OF_USER = 64,          /* each is told of each job; not of root */
        BUS_PEER_BUCKETS = 1024,
        BUS_MAX_RULES = 128, /* match rules of single callers; then one for all, and so no more than 129 at any time */
        BUS_MAX_PATH = 320,  /* a pool name escaped at its worst */
        BUS_COMING = 16,
        BUS_REPLY_BYTES = 512, /* a small message, generously */
};

struct bus_peer;
struct bus_user;
TAILQ_HEAD(bus_peer_list, bus_peer);
TAILQ_HEAD(bus_user_list, bus_user);
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

/* What a message weighs, where messages are kept: those that wait here, and ours that the bus has not delivered. */
struct bus_weight {
        uint64_t n_bytes; /* of ours: about */
        unsigned n_fds;
};

static inline void weight_add(struct bus_weight *to, struct bus_weight w) {
        to->n_bytes += w.n_bytes;
        to->n_fds += w.n_fds;
}

static inline void weight_subtract(struct bus_weight *from, struct bus_weight w) {
        from->n_bytes -= w.n_bytes;
        from->n_fds -= w.n_fds;
}

/* A message that lies in the socket (intake.c). */
struct bus_coming {
        struct bus_weight weight;
        bool is_call;  /* or a signal: the filter sees it, once it is read */
        bool is_there; /* all of it */
};

/* One uid, while somebody of it calls (user.c). */
struct bus_user {
        struct bus *bus;
        TAILQ_ENTRY(bus_user) link; /* bus->users */
        uid_t uid;
        unsigned n_peers, n_subscribers, n_denied; /* n_denied: and not logged */
        uint64_t denied_ns;                        /* when it was logged last */
        struct {                                   /* turn.c */
                TAILQ_ENTRY(bus_user) link;        /* bus->turns, while somebody of it is ready */
                struct bus_peer_list ready;        /* those of whom something waits; whose turn is next, first */
                unsigned n_calls, n_replies;
                struct bus_weight sum; /* of these calls, and of those that wait for something else */
                int64_t credit_ns;
                uint64_t credited_ns, congestion; /* in which it had an answer that could not wait */
        } turn;
        struct { /* unread.c */
                struct bus_weight sum, before;
                bool is_asking;
                unsigned n_questions;
                uint64_t pause_ns, not_before_ns;
                struct loop_timer timer;
        } unread;
};

struct bus {
        struct bus_config config;
        struct supervisor *supervisor;
        sd_bus *bus;
        struct loop_poll poll;
        struct loop_timer timer;       /* sd-bus's own timeouts, and messages it has read already */
        struct loop_timer retry_timer; /* a pool changed or has room: calls that wait for it try again */
        bool is_started, is_lost, is_resting, is_ending;
        struct bus_peer_list peers; /* least recently heard of first */
        struct bus_peer *buckets[BUS_PEER_BUCKETS];
        unsigned n_peers, n_subscribers, n_room_calls;
        struct bus_user_list users, turns;
        struct bus_user strangers;    /* whoever the bus has not told us of yet */
        unsigned n_turns, max_fds;    /* max_fds: that come with the calls of one user, while they wait */
        uint64_t turn_ns, congestion; /* the last turn; which congestion of the way out this is, or the next will be */
        struct {                      /* turn.c */
                uint64_t now_ns, told_ns;     /* what was told last, and when */
                uint64_t asked_ns, answer_ns; /* when the kernel was asked, and its answer */
        } clock;
        struct {                 /* turn.c: what was sent */
                uint64_t bytes;  /* of it, so many lie in our socket at most, as the kernel counts */
                uint64_t cookie; /* of the last message */
        } out;
        struct bus_weight call;                       /* the one that runs, or is to wait; 0 bytes = not known */
        struct {                                      /* intake.c */
                struct bus_coming coming[BUS_COMING]; /* the messages that come next */
                unsigned n_coming, next;
                uint64_t n_messages;
                bool has_more, is_between; /* is_between: the socket stands at a header */
                bool was_all;              /* more than these did not lie there */
                unsigned n_errors;         /* in a row, of the connection itself */
                struct bus_user *payer;    /* of the call that is handled */
                uint64_t began_ns;         /* when libsystemd was left to do so */
        } intake;
        struct { /* unread.c */
                struct bus_weight all;
                bool is_blind; /* the bus does not tell */
                const char *name;
                sd_bus_slot *query;
        } unread;
        struct {                   /* peer-watch.c */
                sd_bus_slot *wide; /* the rule for those that have none of their own */
                unsigned max_own, n_own, n_confirmed;
        } watch;
        struct quota calls_of; /* that wait */
        struct bus_call_list waiting_for_pool, waiting_for_room;
        unsigned retry_round;
        TAILQ_HEAD(, bus_late) late;
        STAILQ_HEAD(, bus_item) builtin; /* calls that libsystemd was given back and did not handle yet */
        struct bus_scratch scratch;
        struct {                          /* farewell.c */
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
        bool only_asks; /* it changes nothing */
};

/* ---- dispatch.c: who calls, may they, go ---- */

/* For vtable handlers: finds the member in `methods` (ended by {}), learns who the sender is, asks authorize.h, calls.
 */
int bus_dispatch(struct bus *b, sd_bus_message *m, const struct bus_method *methods, sd_bus_error *e);
/* The part after the member is known: now, or when it is the caller's turn. */
int bus_dispatch_to(struct bus *b, sd_bus_message *m, bus_method_fn fn, sd_bus_error *e);
/* Before libsystemd does anything with a call; `p` NULL: not known yet. 0: it may. */
int bus_dispatch_early(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
/* Runs `fn`, and answers the call if it fails. */
void bus_run(struct bus *b, struct bus_peer *peer, sd_bus_message *m, bus_method_fn fn);
/* Sends an answer, or a signal to one caller, now or in its turn (turn.c). */
int bus_send(struct bus *b, sd_bus_message *m, struct bus_weight w);
int bus_properties_filter(sd_bus_message *m, void *user, sd_bus_error *e);
void bus_reply_error(struct bus *b, sd_bus_message *call, int r, const sd_bus_error *e);
int bus_reply(struct bus *b, sd_bus_message *call, const char *types, ...);
/* A reply that is one array: begun here, filled by the caller, closed and sent unless filling failed (`r` < 0). */
int bus_reply_begin(sd_bus_message *call, const char *contents, sd_bus_message **ret_reply);
int bus_reply_end(struct bus *b, sd_bus_message *reply, struct bus_weight w, int r);
static inline struct bus_weight bus_rows_weight(size_t n) {
        return (struct bus_weight){.n_bytes = BUS_REPLY_BYTES * (n + 1)};
}

/* ---- bus.c ---- */

void bus_lose(struct bus *b, int error);

/* ---- intake.c ---- */

void intake_round(struct bus *b);
int intake_filter(sd_bus_message *m, void *user, sd_bus_error *e);

/* ---- errors.c ---- */

/* Always -1-like for `return`: a negative errno, with `e` set to the fault's name and text. */
int bus_error_from_fault(sd_bus_error *e, const struct fault *f);
/* What libsystemd says of a path that can be none of ours. */
int bus_unknown_object(sd_bus_message *m, sd_bus_error *e);
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
/* The same of an object's path: 1, or 0 (`e` is not set) if it is none of a pool. */
int bus_find_pool_at(struct bus *b, const char *path, struct pool **ret, sd_bus_error *e);
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
        size_t offset;               /* into the info struct; strings are const char * unless is_inline */
        bool is_inline, is_explicit; /* explicit: GetAll leaves it out */
};

/* Appends the value at info + offset; 64-bit, 32-bit and int32 by `type` t, u, i; s. */
int bus_append_property(sd_bus_message *reply, const struct bus_property *p, const void *info);
/* What else an append does than bus_append_property. */
typedef int (*bus_append_fn)(sd_bus_message *reply, const struct bus_property *p, void *view);
/* Answers Properties.Get or GetAll, whichever `m` is. */
struct bus_properties {
        const char *interface;
        const struct bus_property *table;
        bus_append_fn append;
};
int bus_reply_properties(struct bus *b, sd_bus_message *m, const struct bus_properties *p, void *view, sd_bus_error *e);
const struct bus_property *bus_find_property(const struct bus_property *table, const char *name);

/* ---- the interfaces ---- */

extern const sd_bus_vtable manager_vtable[], pool_vtable[], worker_vtable[], job_vtable[];
extern const struct bus_method manager_methods[], pool_methods[], worker_methods[], job_methods[];
int list_capsules_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int list_sessions_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int list_jobs_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int list_jobs_method_describe(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int pool_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int pool_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e);
int worker_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int worker_face_enumerate(sd_bus *bus, const char *prefix, void *user, char ***ret, sd_bus_error *e);
int job_face_find(sd_bus *bus, const char *path, const char *interface, void *user, void **ret, sd_bus_error *e);
int job_properties_get(sd_bus *bus, const char *path, const char *interface, const char *name, sd_bus_message *reply,
                       void *user, sd_bus_error *e);
/* Properties.Get and GetAll, once it is known who asks. */
int manager_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int pool_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int worker_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
int job_properties_answer(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
