/* Callers by unique name: who they are, what they wait for, whether they want signals. */
#pragma once

#include "daemon/bus/face.h"

struct bus_held {
        struct bus_held *next;
        sd_bus_message *message;
        bus_method_fn fn;
};

struct bus_peer {
        struct bus *bus;
        TAILQ_ENTRY(bus_peer) link; /* bus->peers */
        struct bus_peer *next;      /* in its bucket */
        uid_t uid;
        bool is_known, is_subscribed, is_match_confirmed;
        unsigned n_calls; /* held back, or waiting for a verdict */
        struct bus_held *held, **held_tail;
        struct bus_call_list calls;
        sd_bus_slot *match, *query, *ping;
        uint64_t told_ns; /* when it was last told of a verdict; 0 = never, or it does not want to hear more */
        struct session_owner sessions;
        struct { /* peer-process.c */
                uint64_t heard_ticks; /* when its name was new to us, in clock ticks since boot */
                pid_t pid;
                int pidfd, opened; /* -1: not known yet; `opened` becomes pidfd when it is certain whose it is */
                sd_bus_slot *query;
                struct loop_poll poll; /* of pidfd: its sessions end with it */
        } process;
        char name[];
};

/* Makes it known to us, and asks the bus for its uid, if it is new. -EBUSY: too many callers at once, -ENOMEM … */
int peer_get(struct bus *b, const char *name, struct bus_peer **ret);
struct bus_peer *peer_find(struct bus *b, const char *name);
struct bus_peer *peer_free(struct bus_peer *p);
/* Asks the bus for its uid, once more if it was asked already. */
int peer_ask(struct bus_peer *p);
/* Forgets the one not heard of for longest, if one is idle. */
bool peer_evict_one(struct bus *b);
/* Keeps the message until the uid is known, then bus_run_held. */
int peer_hold(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn);
/* What was held, in order: runs, or is answered by an error. */
void peer_run_held(struct bus_peer *p);
void peer_fail_held(struct bus_peer *p, const char *error, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* Holds the call back until p->process.pidfd is there. 1, or an error. */
int peer_ask_process(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn);
void peer_init_process(struct bus_peer *p);
void peer_forget_process(struct bus_peer *p);
void peer_subscribe(struct bus_peer *p, bool is_subscribed);
bool peer_may_see(const struct bus_peer *p, uid_t owner);
void peer_free_all(struct bus *b);

/* ---- peer-watch.c ---- */

void watch_init(struct bus *b);
/* From the next message to the bus on we hear of its end, or it is forgotten. */
int watch_begin(struct bus_peer *p);
void watch_end(struct bus_peer *p); /* which is in no list any more */

/* ---- farewell.c ---- */

void farewell_told(struct bus_peer *p);
void farewell_forget(struct bus_peer *p); /* nothing more comes from it */
