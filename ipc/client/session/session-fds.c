/* Descriptors of jobs and of results on the session socket, and payloads and results that do not fit into a slot.
 *
 * Out: a job's descriptors are sent before its slot is filled, for the generation that it will have; the socket keeps
 * the order, so the broker has them, or finds them in its socket, whatever comes of the job. A large payload is a
 * sealed copy, sent as the first of them.
 *
 * In: a verdict says only that there are some. The slot then waits in line: one after the other is asked for, the
 * answer is taken apart, and with it the verdict counts as found. Nothing here blocks. What is read is checked as
 * anything that comes from a pool: the result's memory file must be sealed, so it can be read in place. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/client/bus/bus-call.h"
#include "ipc/client/session/fd-room.h"
#include "ipc/client/session/session-internal.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"
#include "ipc/wire.h"

struct session_fds *session_fds_free(struct session_fds *f) {
        if (!f)
                return NULL;
        for (unsigned i = 0; i < f->n_fds; i++)
                close(f->fds[i]);
        sealed_unmap(f->mapped, f->mapped_bytes);
        free(f);
        return NULL;
}

/* ---- out ---- */

static int session_fds_say(struct session *s, enum session_packet_type type, uint32_t slot, uint32_t generation,
                           uint64_t payload_bytes, const int *fds, unsigned n_fds) {
        const struct session_packet p = {
                .type = type,
                .version = WIRE_VERSION,
                .slot = slot,
                .generation = generation,
                .payload_bytes = payload_bytes,
        };
        return packet_send(s->socket_fd, &p, sizeof p, fds, n_fds);
}

/* -EBADF: one of them is none. */
static int session_fds_collect(const struct session *s, const struct session_job *job, int *fds, unsigned *ret_n,
                               uint64_t *ret_payload_bytes, int *ret_made) {
        unsigned n = 0;
        int r = 0;
        *ret_made = -1;
        *ret_payload_bytes = 0;
        if (job->has_payload_fd) {
                fds[n++] = job->payload_fd;
                r = sealed_check(job->payload_fd, ret_payload_bytes);
        } else if (job->bytes > s->channel.geometry.slot_bytes) {
                r = sealed_create("drover-payload", job->payload, job->bytes, ret_made);
                fds[n++] = *ret_made;
                *ret_payload_bytes = job->bytes;
        }
        for (unsigned i = 0; i < job->n_fds; i++)
                fds[n++] = job->fds[i];
        *ret_n = n;
        return r;
}

int session_fds_send(struct session *s, uint32_t slot, const struct session_job *job) {
        int fds[PACKET_MAX_FDS], made;
        unsigned n;
        uint64_t payload_bytes;
        if (job->n_fds > SCHEMA_MAX_FDS)
                return -E2BIG;
        const uint32_t max = wire_max_fds(s->channel.geometry.n_slots);
        if (s->n_result_fds + s->slots[slot].n_result_fds > max)
                return -EAGAIN; /* its work would be for nothing: earlier results must be fetched first */
        if (!s->slots[slot].has_fds)
                return 0;
        if (s->n_fds + job->n_fds + 1 > max)
                return -EAGAIN; /* those of earlier jobs must come to their end first */
        int r = session_fds_collect(s, job, fds, &n, &payload_bytes, &made);
        if (r >= 0)
                r = session_fds_say(s, SESSION_FDS, slot, s->slots[slot].generation + 1, payload_bytes, fds, n);
        if (made >= 0)
                close(made);
        if (r == -EPIPE) {
                session_read_socket(s);
                return s->is_gone ? -EPIPE : -EAGAIN;
        }
        if (r >= 0)
                s->slots[slot].n_fds = n;
        return r;
}

void session_fds_end(struct session *s, uint32_t slot) {
        struct session_slot *own = &s->slots[slot];
        s->n_fds -= own->n_fds;
        own->n_fds = 0;
        own->has_fds = own->has_wanted = false;
        session_fds_say(s, SESSION_ENDED, slot, own->generation, 0, NULL, 0); /* full: the broker looks */
}

/* ---- in ---- */

/* What is sent once is not sent again, so there must be room for it. 0, or what there is not. */
static int session_fds_prepare(struct session *s, uint32_t slot) {
        if (!s->room && !(s->room = calloc(1, sizeof *s->room)))
                return -ENOMEM;
        int r = fd_room(s->socket_fd, s->slots[slot].n_result_fds + 1); /* and one for a large one */
        return bus_is_short(r) ? r : 0;
}

/* The next one in line. */
static void session_fds_ask(struct session *s) {
        while (s->want_first != SESSION_NONE && !s->is_asking) {
                uint32_t slot = s->want_first;
                int r = s->fds_error = session_fds_prepare(s, slot);
                if (r < 0)
                        return;
                r = session_fds_say(s, SESSION_WANT, slot, s->slots[slot].generation, 0, NULL, 0);
                s->is_asking = r >= 0;
                if (r == -EAGAIN) /* full: asked again when there is room, session_fds_must_ask */
                        return;
                if (r < 0)
                        session_fds_take(s, NULL);
        }
}

void session_fds_want(struct session *s, uint32_t slot) {
        struct session_slot *own = &s->slots[slot];
        own->state = SESSION_WANTING;
        s->n_wanting++;
        own->has_wanted = true;
        own->next = SESSION_NONE;
        if (s->want_first == SESSION_NONE)
                s->want_first = slot;
        else
                s->slots[s->want_last].next = slot;
        s->want_last = slot;
        session_fds_ask(s);
}

/* The first in line has its answer, or (NULL) will have none. */
void session_fds_take(struct session *s, struct session_fds *f) {
        uint32_t slot = s->want_first;
        s->want_first = s->slots[slot].next;
        s->n_wanting--;
        s->is_asking = false;
        s->slots[slot].got = f;
        session_list_add(s, slot);
}

static void session_fds_take_error(struct session *s, int error) {
        struct session_fds *f = s->room;
        s->room = NULL;
        f->error = error;
        session_fds_take(s, f);
}

int session_is_short(const struct session *s) {
        if (!s->copy && s->ready_first != SESSION_NONE)
                return -ENOMEM;
        return s->n_wanting == s->n_in_flight && s->want_first != SESSION_NONE && !s->is_asking ? s->fds_error : 0;
}

void session_fds_lose(struct session *s) {
        while (s->want_first != SESSION_NONE)
                session_fds_take(s, NULL);
        s->fds_error = 0;
}

/* What the broker sent, checked. NULL: nothing that could be a result. */
static struct session_fds *session_fds_read(struct session *s, const struct session_packet *p, int *fds,
                                            unsigned *n_fds) {
        uint64_t bytes;
        bool has_data = p->payload_bytes > 0 && p->error <= 0;
        if (*n_fds < has_data || *n_fds - has_data > SCHEMA_MAX_FDS ||
            (has_data && (sealed_check(fds[0], &bytes) < 0 || bytes != p->payload_bytes)))
                return NULL;
        struct session_fds *f = s->room;
        s->room = NULL;
        f->error = p->error;
        int r = has_data ? sealed_map(fds[0], bytes, &f->mapped) : 0;
        if (r < 0)
                f->error = -r;
        if (has_data) {
                f->mapped_bytes = r < 0 ? 0 : bytes;
                close(fds[0]);
        }
        for (unsigned i = has_data; i < *n_fds; i++)
                f->fds[f->n_fds++] = fds[i];
        *n_fds = 0;
        return f;
}

int session_fds_check(const struct session_fds *f, char *why, size_t why_bytes) {
        if (!f)
                snprintf(why, why_bytes, "what belongs to its result is gone: it went with the droverd that had it");
        else if (f->error != 0)
                snprintf(why, why_bytes, "what belongs to its result is not to be had: %s",
                         strerrordesc_np(f->error) ?: "unknown error");
        return !f ? EPIPE : f->error >= 0 ? f->error : EPROTO;
}

static void session_fds_on_packet(struct session *s, const struct session_packet *p, int *fds, unsigned n_fds) {
        uint32_t slot = s->want_first;
        if (p->version == WIRE_VERSION && p->type == SESSION_RESULT && s->is_asking && slot == p->slot &&
            s->slots[slot].generation == p->generation)
                session_fds_take(s, session_fds_read(s, p, fds, &n_fds));
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
}

/* A message of another kind would be news from a later version: dropped. */
int session_fds_receive(struct session *s) {
        session_fds_ask(s);
        for (;;) {
                struct session_packet p;
                int fds[PACKET_MAX_FDS];
                unsigned n_fds = PACKET_MAX_FDS;
                size_t bytes;
                int r = packet_receive(s->socket_fd, &p, sizeof p, &bytes, fds, &n_fds);
                if (r == -EPROTO && s->is_asking) /* another thread took the descriptors that were free */
                        session_fds_take_error(s, EMFILE);
                else if (r == -EPROTO)
                        continue;
                else if (r < 0)
                        return r;
                else if (bytes == 0)
                        return -EPIPE;
                else if (bytes == sizeof p)
                        session_fds_on_packet(s, &p, fds, n_fds);
                else
                        for (unsigned i = 0; i < n_fds; i++)
                                close(fds[i]);
                session_fds_ask(s);
        }
}

struct session_fds *session_take_fds(struct session *s) {
        struct session_fds *f = s->newest;
        s->newest = NULL;
        return f;
}
