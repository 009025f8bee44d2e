/* Callers by unique name: who they are, what they wait for, whether they want signals. */
#pragma once

#include "daemon/bus/face.h"

/* A call that waits to be run, or an answer that waits to be sent. */
struct bus_item {
        STAILQ_ENTRY(bus_item) link;
        sd_bus_message *message;
        bus_method_fn fn; /* NULL: an answer */
        struct bus_weight weight;
};
STAILQ_HEAD(bus_item_list, bus_item);

struct bus_peer {
        struct bus *bus;
        TAILQ_ENTRY(bus_peer) link; /* bus->peers */
        struct bus_peer *next;      /* in its bucket */
        uid_t uid;
        pid_t pid;             /* as the bus told it with the uid, for people to read; 0 = it did not */
        struct bus_user *user; /* NULL: the bus has not told yet */
        bool is_subscribed, is_match_confirmed;
        unsigned n_calls; /* in `calls` */
        struct bus_call_list calls;
        TAILQ_ENTRY(bus_peer) ready_link;      /* user->turn.ready */
        struct bus_item_list waiting, replies; /* turn.c; in order */
        unsigned n_waiting, n_replies;
        struct bus_weight waiting_sum;
        bool is_ready, is_stuck;  /* stuck: what it has not read leaves no room for its first reply */
        struct bus_weight unread; /* unread.c */
        sd_bus_slot *unread_query;
        sd_bus_slot *match, *query, *ping;
        uint64_t told_ns; /* when it was last told of a verdict; 0 = never, or it does not want to hear more */
        struct session_owner sessions;
        struct {                      /* peer-process.c */
                uint64_t heard_ticks; /* when its name was new to us, in clock ticks since boot */
                pid_t pid;
                int pidfd, opened; /* -1: not known yet; `opened` becomes pidfd when it is certain whose it is */
                sd_bus_slot *query;
                struct bus_item_list waiting; /* calls that need to know it */
                struct loop_poll poll;        /* of pidfd: its sessions end with it */
        } process;
        char name[];
};

/* Makes it known to us, and asks the bus for its uid, if it is new. -EBUSY: too many callers at once, -ENOMEM … */
int peer_get(struct bus *b, const char *name, struct bus_peer **ret);
struct bus_peer *peer_find(struct bus *b, const char *name);
struct bus_peer *peer_free(struct bus_peer *p);
/* Asks the bus for its uid, once more if it was asked already. */
int peer_ask(struct bus_peer *p);
/* Forgets the one not heard of for longest, if one (of this user; NULL: of any) is idle. */
bool peer_evict_one(struct bus *b, const struct bus_user *u);
/* Answers all that waits of it by an error, and forgets it. */
void peer_refuse(struct bus_peer *p, const char *error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What the bus answers to GetConnectionCredentials; a pidfd is the message's. */
struct peer_credentials {
        bool has_uid;
        uint32_t uid, pid; /* pid 0: not told */
        int pidfd;         /* -1: not told */
};
int peer_read_credentials(sd_bus_message *m, struct peer_credentials *ret);
/* Holds the call back until p->process.pidfd is there. 1, or an error. */
int peer_ask_process(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn);
/* Those that are held back so are answered by `e`, if it is one. */
void peer_fail_process(struct bus_peer *p, const sd_bus_error *e);
void peer_init_process(struct bus_peer *p);
void peer_forget_process(struct bus_peer *p);
/* False: its user has too many subscribers. */
bool peer_subscribe(struct bus_peer *p, bool is_subscribed);
bool peer_may_see(const struct bus_peer *p, uid_t owner);
void peer_free_all(struct bus *b);

/* ---- user.c ---- */

void user_init(struct bus *b);
int user_take(struct bus_peer *p, uid_t uid); /* -EDQUOT: it has too many callers; -ENOMEM */
void user_give(struct bus_peer *p);
void user_deinit(struct bus *b);

/* ---- turn.c ---- */

uint64_t turn_clock(struct bus *b); /* CPU time, in ns: for differences within one wake-up */
bool turn_has_credit(struct bus *b, struct bus_user *u);
void turn_charge(struct bus_user *u, uint64_t ns);
/* Whether a call of it that came now runs now. */
bool turn_is_due(struct bus_peer *p);
/* Whether its user may have the call that runs kept, by its bytes and descriptors. */
bool turn_may_keep(struct bus_peer *p);
/* Whether another call of it cannot be kept. Of root and the daemon's own uid it can: what waits is served. */
bool turn_is_full(struct bus_peer *p);
/* Who is charged for it: its user, or the strangers. */
struct bus_user *turn_payer(struct bus_peer *p);
/* Whether a call that cannot be kept is answered. */
bool turn_refuses(const struct bus_peer *p);
/* Keeps a call for later. 1, -ENOMEM. */
int turn_wait(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn);
void turn_known(struct bus_peer *p);                              /* who it is; it may have its turns */
void turn_again(struct bus_peer *p, struct bus_item_list *calls); /* before those that wait; the list is empty then */
void turn_join(struct bus_peer *p);                               /* if something of it waits */
enum turn_end {
        TURN_IDLE,
        TURN_OVER,
        TURN_CONGESTED
}; /* nothing waits; time is over; until POLLOUT, or the deadline */
enum turn_end turn_take(struct bus *b);
uint64_t turn_deadline(const struct bus *b);
/* Whether libsystemd may answer a call of it by itself, which is sent at once. */
bool turn_may_answer_now(struct bus *b, struct bus_user *u);
void turn_finish(struct bus *b, uint64_t deadline_ns); /* all that waits, at once */
/* Nothing waits any more: answers are sent, calls are answered by `e` if it is one. */
void turn_end(struct bus_peer *p, const sd_bus_error *e);
void turn_set_limits(struct bus *b);
struct bus_item *item_new(sd_bus_message *m, bus_method_fn fn);
struct bus_item *item_free(struct bus_peer *p, struct bus_item *i);

/* ---- builtin.c ---- */

/* The method of a call that libsystemd answers by itself. Called from within libsystemd: builtin_finish is to follow.
 */
int builtin_method(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e);
/* Whether libsystemd may have such a call, just read, at once; `p` NULL: not known yet. Its answer is counted then. */
bool builtin_may_pass(struct bus *b, struct bus_peer *p, sd_bus_message *m);
/* Whether the answer to this call, if libsystemd gives it, has room at its caller. */
bool builtin_has_room(struct bus_peer *p, const struct bus_item *i);
/* Whether the filter sees a call that was given back to libsystemd. */
bool builtin_is_back(struct bus *b, sd_bus_message *m);
void builtin_finish(struct bus *b); /* all that were given back, unless libsystemd is at work */
void builtin_end(struct bus *b);

/* ---- unread.c ---- */

bool unread_has_room(struct bus_peer *p, struct bus_weight w);
void unread_count(struct bus_peer *p, struct bus_weight w);
/* Asks the bus what its callers have read, soon; those that are stuck are tried again then. */
void unread_ask(struct bus *b, struct bus_user *u);
void unread_forget(struct bus_peer *p);

/* ---- peer-watch.c ---- */

void watch_init(struct bus *b);
/* From the next message to the bus on we hear of its end, or it is forgotten. */
int watch_begin(struct bus_peer *p);
void watch_end(struct bus_peer *p); /* which is in no list any more */

/* ---- farewell.c ---- */

void farewell_told(struct bus_peer *p);
void farewell_forget(struct bus_peer *p); /* nothing more comes from it */
