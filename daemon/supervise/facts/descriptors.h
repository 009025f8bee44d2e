/* Descriptors that belong to jobs, and to results nobody fetched yet: kept by slot, in the broker's own memory. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "ipc/memory/packet.h"

struct pool_channel;

enum descriptors_of { DESCRIPTORS_OF_JOB, DESCRIPTORS_OF_RESULT, DESCRIPTORS_N };

struct descriptors {
        uid_t uid;              /* whose they are: what their closing costs is his */
        uint32_t generation;    /* of the job */
        uint64_t payload_bytes; /* not 0: the first is payload or result, sealed, so long */
        unsigned n_fds;
        int fds[PACKET_MAX_FDS];
};

/* What a channel has; all zero at first. */
struct descriptors_table {
        struct descriptors **by_slot[DESCRIPTORS_N]; /* NULL before the first */
        uint32_t n_fds[DESCRIPTORS_N];
};

void descriptors_close(int *fds, unsigned n_fds, uid_t uid); /* those that are not negative */
/* Keeps them, also on failure (closed then). -EALREADY: there are some of this job already. -EDQUOT: more than a
 * channel may have, or than leaves room for others, or too many of this uid are not closed yet. -EPROTO: what should be
 * a payload is none. */
int descriptors_put(struct pool_channel *c, enum descriptors_of what, uint32_t slot, const struct descriptors *d);
const struct descriptors *descriptors_get(const struct pool_channel *c, enum descriptors_of what, uint32_t slot,
                                          uint32_t generation); /* NULL: none */
/* The same, and the caller's from now on, to be freed; NULL: none. */
struct descriptors *descriptors_take(struct pool_channel *c, enum descriptors_of what, uint32_t slot,
                                     uint32_t generation);
void descriptors_drop(struct pool_channel *c, enum descriptors_of what, uint32_t slot);
/* Drops what the slot's word says is over: a job's at a verdict, a result's when it is none or was fetched. */
void descriptors_settle(struct pool_channel *c, uint32_t slot);
/* The same, of all slots: for when the client may have tried to say so in vain. */
void descriptors_settle_all(struct pool_channel *c);
void descriptors_drop_all(struct pool_channel *c);
