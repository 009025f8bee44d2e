/* What the broker told this worker to serve: bells, and the channels of each. Read between jobs, whatever the model. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/channel/bell.h"
#include "ipc/channel/channel.h"
#include "ipc/layout.h"
#include "ipc/memory/packet.h"
#include "ipc/wire.h"

struct orders_channel {
        struct channel channel;
        int done_fd; /* -1: none */
        uint32_t bell;
        uint64_t id_base;
};

struct orders_bell {
        struct layout_bell *bell;             /* NULL: no such bell */
        uint64_t channels[LAYOUT_BELL_WORDS]; /* those that make sense */
        uint32_t next;                        /* the channel whose turn it is */
        uint32_t n_vain;                      /* wake-ups without a job, less what its jobs make up for */
        uint64_t vain_since_ns;
};

/* Orders that came when they could not be obeyed: somebody waited for another one (arena.c). Obeyed first. */
struct orders_held {
        struct orders_held_one *first, **last;
};

enum { ORDERS_MAX_FDS = PACKET_MAX_FDS };

/* Waits on socket `fd` for an order of this type, the answer to what was asked; others that come before it are put
 * aside. Room for ORDERS_MAX_FDS descriptors, which are the caller's. -EPIPE: the broker is gone. -EPROTO. */
int orders_await(struct orders_held *held, int fd, enum worker_order_type type, struct worker_order *ret_order,
                 int *ret_fds, unsigned *ret_n_fds);

struct orders {
        int fd;
        struct orders_held *held;
        uint32_t n_bells; /* index of the last + 1 */
        uint32_t max_slot_bytes;
        uint64_t muted[LAYOUT_BELL_WORDS];                  /* bit = bell: the broker wants it left alone */
        uint32_t n_waited, waited[LAYOUT_BELLS_PER_WORKER]; /* the bells to sleep on */
        uint32_t n_others;                                  /* that are only looked at */
        struct orders_bell bell[LAYOUT_MAX_BELLS];
        struct orders_channel *channel[LAYOUT_MAX_CHANNELS]; /* NULL: no such channel */
};

void orders_init(struct orders *o, int fd, struct orders_held *held);

/* Reads all orders that wait, and which bells are to be heard. -EPIPE: the broker is gone. -EPROTO: an order that makes
 * no sense. */
int orders_read(struct orders *o, const struct layout_pool *pool);

/* The bell woke us and there was no job; there was one. Too many of the former in a short time are told. */
void orders_vain(struct orders *o, uint32_t bell);
void orders_served(struct orders *o, uint32_t bell);
/* Is the bell there, and to be looked at? */
static inline bool orders_hears(const struct orders *o, uint32_t bell) {
        return o->bell[bell].bell && !(o->muted[bell / 64] >> bell % 64 & 1);
}

/* A channel of `bell` that may have work, from number `from` on; -1: none. */
int orders_next(const struct orders *o, uint32_t bell, uint32_t from);

/* Its memory makes no sense: never look into it again, and tell the broker, which drops it. `error`: positive. */
void orders_foul(struct orders *o, uint32_t channel, int error);

/* Is there work anywhere? Looks at work bits only. */
bool orders_have_work(const struct orders *o);
