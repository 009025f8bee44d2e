/* Shared by the files session*.c: what a session is made of. */
#pragma once

#include <systemd/sd-bus.h>

#include "ipc/channel/bell.h"
#include "ipc/channel/channel.h"
#include "ipc/client/session/session.h"
#include "ipc/memory/spin.h"

enum { SESSION_NONE = UINT32_MAX };

enum session_slot_state {
        SESSION_IDLE = 0,
        SESSION_BUSY,    /* submitted, no verdict seen */
        SESSION_WANTING, /* there is a verdict; what belongs to its result was asked for, or will be */
        SESSION_READY,   /* in the list of verdicts that nobody fetched yet */
        SESSION_HELD,    /* fetched, but a condemned worker may still write there: not free before it is dead */
};

struct session_slot {
        enum session_slot_state state;
        uint32_t generation, type;
        uint32_t previous, next; /* in the ready list; `next` in the line of those that want something */
        uint32_t n_fds;          /* descriptors that were sent with it */
        uint32_t n_result_fds;   /* that its result will have */
        bool has_fds;            /* and the slot word says so */
        bool has_wanted;         /* its result line says that there are some */
        struct session_fds *got; /* with a verdict */
        uint64_t user, id, queued_ns, queue_deadline_ns;
};

struct session {
        struct channel channel;
        struct layout_bell *bell;
        int doorbell_fd, done_fd, socket_fd;
        uint32_t index; /* of the channel in the bell */
        /* to come back with, should the daemon die */
        sd_bus *bus;
        int (*renew_bus)(void *user); /* session_on_bus_lost; NULL: nobody can */
        void *renew_user;
        sd_bus_slot *call;      /* OpenChannel, not answered yet */
        sd_bus_message *answer; /* its answer, while there are no descriptors or memory to take it */
        bool is_short;          /* of either: what the bus says cannot be taken in now */
        char *pool, *schema_text;
        size_t schema_bytes;
        int channel_fds[CHANNEL_PARTS];
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
        uint32_t want_first, want_last; /* verdicts that wait for descriptors; the first is asked for */
        bool is_asking;
        uint32_t n_wanting;           /* in that line */
        int fds_error;                /* why the first could not be asked for: no descriptors, no memory */
        struct session_fds *room;     /* for the answer */
        uint32_t n_fds, n_result_fds; /* sent with jobs that are under way; of their results */
        struct session_fds *newest;   /* of the result fetched last */
        uint64_t next_deadline_ns;    /* no queue deadline passes before this; EVENT_FOREVER = none */

        struct spin spin;
        bool never_spins;
        uint32_t n_rescued; /* verdicts found only because the futex timed out: a wake-up came late, or never */
        uint64_t asked_ns;  /* when the next daemon was called */
        bool is_away;       /* the daemon is gone, another one may adopt the channel */
        bool is_gone;       /* for good */
        bool is_foul;       /* and why: its memory was written over */
        uint8_t *copy;      /* of the newest result */
};

/* ---- session.c ---- */

/* The slot's verdict is to be fetched. */
void session_list_add(struct session *s, uint32_t slot);
/* Of a verdict that was fetched, or of a slot that says something else now. -EBUSY: its worker may still write. */
int session_free_slot(struct session *s, uint32_t slot);
/* What the daemon says, or that it is gone. */
void session_read_socket(struct session *s);
/* 0; -EAGAIN: nothing is until the next daemon has the channel; -ESHUTDOWN: nothing more is taken; -EPIPE: it is over
 * (is_gone is set). */
int session_check_open(struct session *s);
/* Follows the done bits. true: there is a verdict to fetch. */
bool session_collect(struct session *s);
/* Judges what nobody took before its queue deadline. */
void session_expire(struct session *s, uint64_t now_ns);

/* ---- session-fetch.c ---- */

/* 1 or -ENOMEM: first, there must be memory to copy it to. */
int session_prepare_fetch(struct session *s);
/* A verdict in the ready list: its slot is free afterwards. */
void session_fetch(struct session *s, uint32_t slot, struct session_result *ret);

/* ---- session-fds.c ---- */

static inline bool session_fds_are_needed(const struct session *s, const struct session_job *job) {
        return job->n_fds > 0 || job->has_payload_fd || job->bytes > s->channel.geometry.slot_bytes;
}
/* Those of a job that is about to be submitted. -EAGAIN: as many as may be are on their way, there or back. */
int session_fds_send(struct session *s, uint32_t slot, const struct session_job *job);
void session_fds_end(struct session *s, uint32_t slot); /* its job came to its end */
/* A verdict whose descriptors the broker has. */
void session_fds_want(struct session *s, uint32_t slot);
void session_fds_take(struct session *s, struct session_fds *f);
void session_fds_lose(struct session *s); /* there will be no answers any more */
/* What the broker sent for a result that needs it. 0, or a positive errno and `why`. */
int session_fds_check(const struct session_fds *f, char *why, size_t why_bytes);
/* The socket was too full to ask: session_fds_receive tries it again. */
static inline bool session_fds_must_ask(const struct session *s) {
        return s->want_first != SESSION_NONE && !s->is_asking;
}
/* Takes in what is there. -EAGAIN: that was all. -EPIPE. */
int session_fds_receive(struct session *s);

/* Everything but the descriptors and memories: arrays by the channel's geometry. 0 or -ENOMEM. */
int session_init_slots(struct session *s);

/* ---- session-open.c ---- */

/* Begins to hand the channel to the next daemon; `call` until it has answered. Or takes an answer that could not be
 * taken before. 0; -EMFILE, -ENFILE, -ENOMEM: not now; -errno: nobody can be asked any more. */
int session_reattach(struct session *s);

/* ---- session-wait.c ---- */

/* What came of it. 0: the daemon has adopted the channel; -EAGAIN: there is none yet; else there will be none. Called
 * while the bus is being read. */
void session_reattached(struct session *s, int r);
