/* Reads what comes from the bus.
 *
 * What waits is to be bounded by bytes and descriptors, and libsystemd tells neither of a message. So the headers of
 * the next messages are looked at in the socket (header.c) before it reads them. It reads one at a time and no further:
 * the socket stands at a header after each message that it has handled, until it begins to read the next (is_between).
 * A large one comes in pieces; of what was not looked at, as many descriptors are assumed as a message may have.
 *
 * Messages are read in bounded rounds, so that a busy bus does not keep timers and workers waiting. What each costs is
 * charged to its sender: a flat sum for reading it, and the time of what is done at once (turn.c). Only calls, answers
 * to our own, and what the bus itself says mean anything here: signals and answers that others make up go no further.
 *
 * An error of one message is not one of the connection: without memory, or with as many messages to be sent as
 * libsystemd keeps, this message is lost and the next may not be. What fails again and again without a message to show
 * for it is the connection's. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/bus/header.h"
#include "daemon/bus/peers/peer.h"
#include "daemon/loop/closer.h"

enum {
        INTAKE_MESSAGES = 1024, /* a round */
        INTAKE_CLOCK = 16,      /* after so many of them its time is looked at */
        INTAKE_ERRORS = 64,
        INTAKE_LOOK = 2048, /* bytes that are looked at */
};

#define INTAKE_NS UINT64_C(4000000)
#define INTAKE_READ_NS UINT64_C(5000) /* to read one message, or to close one descriptor */

static bool is_of_the_bus(const char *sender) { return sender && strcmp(sender, "org.freedesktop.DBus") == 0; }

/* ---- what comes next ---- */

/* The messages that begin in what lies in the socket first. False: nothing does. */
static bool look(struct bus *b) {
        uint8_t bytes[INTAKE_LOOK];
        ssize_t n = recv(sd_bus_get_fd(b->bus), bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
        bool is_empty = n < 0 && errno == EAGAIN;
        struct header h = {0};
        size_t at = 0;

        b->intake.n_coming = b->intake.next = 0;
        for (; n > 0 && at + HEADER_MIN <= (size_t)n && b->intake.n_coming < BUS_COMING; at += h.n_bytes) {
                if (!header_read(bytes + at, (size_t)n - at, &h) || (at > 0 && !h.is_whole))
                        break; /* that one is looked at when its turn comes */
                b->intake.coming[b->intake.n_coming++] = (struct bus_coming){
                        .weight = {.n_bytes = h.n_bytes, .n_fds = h.is_whole ? h.n_fds : HEADER_MAX_FDS},
                        .is_call = h.type == HEADER_METHOD_CALL || h.type == HEADER_SIGNAL,
                        .is_there = h.n_bytes <= (size_t)n - at};
        }
        /* No look goes past descriptors. */
        b->intake.was_all = n > 0 && n < INTAKE_LOOK && at >= (size_t)n && h.n_fds == 0;
        return !is_empty;
}

/* ---- what is done with it ---- */

/* The first filter: whose it is, and whether it is served now. */
int intake_filter(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus *b = user;
        const char *sender = sd_bus_message_get_sender(m);
        struct bus_peer *p = sender ? peer_find(b, sender) : NULL;
        uint8_t type = SD_BUS_MESSAGE_SIGNAL;
        int r;

        closer_blame(p && p->user ? p->uid : CLOSER_STRANGERS);
        if (builtin_is_back(b, m))
                return 0;
        b->intake.n_messages++;
        sd_bus_message_get_type(m, &type);
        if (type != SD_BUS_MESSAGE_METHOD_CALL)
                return is_of_the_bus(sender) ? 0 : 1;
        if (b->is_ending)
                return 1;
        b->intake.payer = p ? turn_payer(p) : &b->strangers;
        turn_charge(b->intake.payer, INTAKE_READ_NS * (1 + b->call.n_fds));
        r = bus_dispatch_early(b, p, m, e);
        b->intake.began_ns = r == 0 ? turn_clock(b) : 0;
        return r;
}

/* Where the socket stands after one step of libsystemd, which was to read `c` (NULL: unknown) or to send something: it
 * tells of a call or signal by the filter only, and of an answer to us by nothing. */
static void follow(struct bus *b, const struct bus_coming *c, bool is_seen, int r, bool has_sent) {
        if (!is_seen && (r == 0 || has_sent))
                return;
        b->intake.is_between = is_seen || (r > 0 && c && c->is_there && !c->is_call);
        if (b->intake.is_between)
                b->intake.next++;
        else if (r < 0 || !c || !c->is_call) /* else it read a part */
                b->intake.n_coming = b->intake.next = 0;
}

/* 1: go on, 0: nothing more is there, -1: the connection is over. */
static int read_one(struct bus *b) {
        uint64_t n_seen = b->intake.n_messages, n_to_write = 0, n_read = 0, n_left = 0;
        bool is_idle, is_known, is_seen;
        int r;

        sd_bus_get_n_queued_write(b->bus, &n_to_write);
        sd_bus_get_n_queued_read(b->bus, &n_read); /* left from the start */
        is_idle = n_to_write + n_read == 0 && sd_bus_is_open(b->bus) > 0;
        if (b->intake.is_between && b->intake.next >= b->intake.n_coming &&
            ((is_idle && b->intake.was_all) || !look(b)) && is_idle)
                return 0; /* if more has come since, poll tells */
        is_known = b->intake.next < b->intake.n_coming;
        b->call = is_known ? b->intake.coming[b->intake.next].weight : (struct bus_weight){.n_fds = HEADER_MAX_FDS};
        b->intake.began_ns = 0;
        closer_blame(CLOSER_OURS); /* what was sent; the filter for what comes */
        r = sd_bus_process(b->bus, NULL);
        if (b->intake.began_ns)
                turn_charge(b->intake.payer, turn_clock(b) - b->intake.began_ns);
        sd_bus_get_n_queued_write(b->bus, &n_left);
        is_seen = b->intake.n_messages != n_seen;
        follow(b, is_known ? &b->intake.coming[b->intake.next] : NULL, is_seen, r, n_left < n_to_write);
        if (n_read > 0)
                b->intake.is_between = false;
        builtin_finish(b);
        if (r >= 0 || is_seen) {
                b->intake.n_errors = 0;
                return r != 0;
        }
        if (sd_bus_is_open(b->bus) > 0 && ++b->intake.n_errors < INTAKE_ERRORS)
                return 1;
        bus_lose(b, r);
        return -1;
}

void intake_round(struct bus *b) {
        uint64_t began = turn_clock(b);
        int r = 1;

        b->intake.was_all = false;
        for (unsigned n = 1; r > 0 && n <= INTAKE_MESSAGES && !b->is_lost && !closer_is_short(); n++) {
                r = read_one(b);
                if (n % INTAKE_CLOCK == 0 && turn_clock(b) - began > INTAKE_NS)
                        break;
        }
        b->intake.has_more = r > 0;
}
