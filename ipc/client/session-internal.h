/* Shared by session.c, which lives by it, and session-open.c, which makes it. */
#pragma once

#include "ipc/bell.h"
#include "ipc/channel.h"
#include "ipc/client/session.h"
#include "ipc/spin.h"

enum { SESSION_NONE = UINT32_MAX };

enum session_slot_state {
        SESSION_IDLE = 0,
        SESSION_BUSY,  /* submitted, no verdict seen */
        SESSION_READY, /* in the list of verdicts that nobody fetched yet */
        SESSION_HELD,  /* fetched, but a condemned worker may still write there: not free before it is dead */
};

struct session_slot {
        enum session_slot_state state;
        uint32_t generation, type;
        uint32_t previous, next; /* in the ready list */
        uint64_t user, id, queued_ns, queue_deadline_ns;
};

struct session {
        struct channel channel;
        struct layout_bell *bell;
        struct bell_memo memo;
        int doorbell_fd, done_fd, socket_fd;
        uint32_t index; /* of the channel in the bell */
        /* to come back with, should the daemon die */
        sd_bus *bus;
        char *pool, *schema_text;
        size_t schema_bytes;
        int channel_fd;
        uint64_t patience_ns, away_ns; /* how long a daemon may be away; since when it is */
        uint64_t looked_ns, tried_ns;  /* when the session socket was last looked at; a next daemon called */
        uint32_t epoch;
        uint64_t id_base, n_submitted;
        struct schema *schema;

        struct session_slot *slots;
        uint32_t *free_slots; /* a stack: the slot used last is the one whose lines are in the cache */
        uint32_t n_free, n_held, n_in_flight;
        uint32_t *n_busy; /* by word of the done bitmap */
        uint32_t n_words;
        uint32_t ready_first, ready_last;
        uint64_t next_deadline_ns; /* no queue deadline passes before this; EVENT_FOREVER = none */

        struct spin spin;
        bool never_spins;
        uint32_t n_rescued; /* verdicts found only because the futex timed out: a wake-up came late, or never */
        bool is_away; /* the daemon is gone, another one may adopt the channel */
        bool is_gone; /* for good */
        uint8_t *copy; /* of the newest result */
};

/* Everything but the descriptors and memories: arrays by the channel's geometry. 0 or -ENOMEM. */
int session_init_slots(struct session *s);
/* session-open.c: hands the channel to the next daemon, blocking. 0; -EAGAIN: there is none yet; else there will be none. */
int session_reattach(struct session *s);
