/* The memories of a channel: how large they are, who may open and map which with what right.
 *
 * One for each set of rights, because a right is one of a description (segment.c), and because a mapping can be made
 * longer (mremap) over whatever lies behind it in the same file:
 *
 *              head rings cells slots done | jobs | results | verdicts
 *   client     rw                            rw     ro        ro
 *   worker     rw                            ro     rw        nothing
 *   broker     rw                            rw     rw        rw
 *
 * Addresses are computed from the geometry, which every party was told privately. Nothing here looks at what the
 * memories hold, but for the header, which the one who makes them writes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/segment.h"

enum { CHANNEL_MIN_CELLS = 128 /* a few slots, but up to 63 doubled hints of one slot */ };

static size_t channel_align(size_t bytes, size_t to) { return (bytes + to - 1) & ~(to - 1); }

int channel_geometry_init(struct channel_geometry *g, uint32_t n_slots, uint32_t slot_bytes) {
        if (n_slots < LAYOUT_MIN_SLOTS || n_slots > LAYOUT_MAX_SLOTS || (n_slots & (n_slots - 1)) != 0)
                return -EINVAL;
        if (slot_bytes < LAYOUT_MIN_SLOT_BYTES || slot_bytes > LAYOUT_MAX_SLOT_BYTES || slot_bytes % LAYOUT_LINE != 0)
                return -EINVAL;

        uint32_t n_cells = 2 * n_slots < CHANNEL_MIN_CELLS ? CHANNEL_MIN_CELLS : 2 * n_slots;
        *g = (struct channel_geometry){
                .n_slots = n_slots,
                .slot_bytes = slot_bytes,
                .n_cells = n_cells,
                .job_stride = sizeof(struct layout_job) + slot_bytes,
                .result_stride = sizeof(struct layout_result) + slot_bytes,
        };
        size_t at = LAYOUT_PAGE;
        g->cells = at;
        at = channel_align(at + (size_t)LAYOUT_PRIORITIES * n_cells * sizeof(uint64_t), LAYOUT_PAGE);
        g->slots = at;
        at = channel_align(at + n_slots * sizeof(struct layout_slot), LAYOUT_PAGE);
        g->done = at;
        g->bytes[CHANNEL_COMMON] = channel_align(at + (n_slots + 63) / 64 * sizeof(uint64_t), LAYOUT_PAGE);
        g->bytes[CHANNEL_JOBS] = channel_align(n_slots * g->job_stride, LAYOUT_PAGE);
        g->bytes[CHANNEL_RESULTS] = channel_align(n_slots * g->result_stride, LAYOUT_PAGE);
        g->bytes[CHANNEL_VERDICTS] = channel_align(n_slots * sizeof(struct layout_verdict), LAYOUT_PAGE);
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                g->total += g->bytes[i];
        return 0;
}

enum channel_right { CHANNEL_NOTHING, CHANNEL_READ, CHANNEL_WRITE };

static const enum channel_right channel_rights[][CHANNEL_PARTS] = {
        [CHANNEL_CLIENT] = {CHANNEL_WRITE, CHANNEL_WRITE, CHANNEL_READ, CHANNEL_READ},
        [CHANNEL_WORKER] = {CHANNEL_WRITE, CHANNEL_READ, CHANNEL_WRITE, CHANNEL_NOTHING},
        [CHANNEL_BROKER] = {CHANNEL_WRITE, CHANNEL_WRITE, CHANNEL_WRITE, CHANNEL_WRITE},
};

const char *channel_part_name(enum channel_part part) {
        static const char *const names[CHANNEL_PARTS] = {
                "drover-channel:", "drover-jobs:", "drover-results:", "drover-verdicts:"};
        return names[part];
}

static void channel_no_fds(int fds[CHANNEL_PARTS]) {
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                fds[i] = -1;
}

void channel_close(int fds[CHANNEL_PARTS]) {
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        channel_no_fds(fds);
}

int channel_open(const int fds[CHANNEL_PARTS], enum channel_role role, int ret_fds[CHANNEL_PARTS]) {
        int opened[CHANNEL_PARTS], r = 0;
        channel_no_fds(opened);
        for (unsigned i = 0; i < CHANNEL_PARTS && r >= 0; i++)
                if (channel_rights[role][i] != CHANNEL_NOTHING)
                        r = segment_open(fds[i], channel_rights[role][i] == CHANNEL_WRITE, &opened[i]);
        if (r < 0) {
                channel_close(opened);
                return r;
        }
        memcpy(ret_fds, opened, sizeof opened);
        return 0;
}

static int channel_make(const struct channel_geometry *g, const char *suffix, int ret_fds[CHANNEL_PARTS]) {
        int r = 0;
        channel_no_fds(ret_fds);
        for (unsigned i = 0; i < CHANNEL_PARTS && r >= 0; i++) {
                char name[128];
                snprintf(name, sizeof name, "%s%s", channel_part_name(i), suffix);
                r = segment_create(name, g->bytes[i], &ret_fds[i]);
        }
        if (r < 0)
                channel_close(ret_fds);
        return r;
}

static int channel_map_parts(struct channel *c, const int fds[CHANNEL_PARTS]) {
        const enum channel_right *right = channel_rights[c->role];
        for (unsigned i = 0; i < CHANNEL_PARTS; i++) {
                if (right[i] == CHANNEL_NOTHING)
                        continue;
                size_t bytes = c->geometry.bytes[i];
                int r = segment_check(fds[i], bytes);
                if (r >= 0)
                        r = segment_map(fds[i], 0, bytes, right[i] == CHANNEL_WRITE, &c->maps[i]);
                if (r < 0)
                        return r;
        }
        return 0;
}

int channel_map(struct channel *c, const struct channel_geometry *g, const int fds[CHANNEL_PARTS],
                enum channel_role role) {
        *c = (struct channel){.geometry = *g, .role = role};
        int r = channel_map_parts(c, fds);
        if (r < 0) {
                channel_unmap(c);
                return r;
        }

        uint8_t *common = c->maps[CHANNEL_COMMON];
        c->head = (void *)common;
        c->slots = (void *)(common + g->slots);
        c->done = (void *)(common + g->done);
        c->jobs = c->maps[CHANNEL_JOBS];
        c->results = c->maps[CHANNEL_RESULTS];
        c->verdicts = c->maps[CHANNEL_VERDICTS];
        _Atomic uint64_t *cells = (void *)(common + g->cells);
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++)
                c->ring[i] = (struct ring){
                        .shared = &c->head->ring[i],
                        .cells = cells + (size_t)i * g->n_cells,
                        .n_cells = g->n_cells,
                        .cells_shift = (uint32_t)__builtin_ctz(g->n_cells),
                };
        return 0;
}

void channel_sign(const struct channel *c) {
        c->head->header = (struct layout_header){
                .magic = LAYOUT_MAGIC_CHANNEL,
                .version = LAYOUT_VERSION,
                .n_slots = c->geometry.n_slots,
                .slot_bytes = c->geometry.slot_bytes,
        };
}

int channel_create(struct channel *c, const struct channel_geometry *g, const char *suffix,
                   int ret_fds[CHANNEL_PARTS]) {
        int r = channel_make(g, suffix, ret_fds);
        if (r >= 0)
                r = channel_map(c, g, ret_fds, CHANNEL_BROKER);
        if (r < 0) {
                channel_close(ret_fds);
                return r;
        }
        channel_sign(c);
        return 0;
}

void channel_unmap(struct channel *c) {
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                segment_unmap(c->maps[i], c->geometry.bytes[i]);
        *c = (struct channel){.role = c->role};
}
