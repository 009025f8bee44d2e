/* A verdict that was found, taken apart: what the worker wrote or the broker judged, and the slot free again.
 *
 * The pool is not trusted: lengths are checked against private sizes, data is copied before it is looked at, and a
 * result that does not fit the job's schema is a failure that says so. So is a verdict that whoever wrote the slot's
 * word could not give: one of the broker's without its line, EXPIRED before the time. What came for a verdict
 * (session-fds.c) is part of its result, if it still is one when it is fetched and can be one, and closed if not. Part
 * of a result it belongs to the session until the next one is fetched, or session_take_fds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"

#define SESSION_EARLY_NS UINT64_C(1000) /* the broker's timer may be that early */

static void session_list_remove(struct session *s, uint32_t slot) {
        const struct session_slot *own = &s->slots[slot];
        if (own->previous == SESSION_NONE)
                s->ready_first = own->next;
        else
                s->slots[own->previous].next = own->next;
        if (own->next == SESSION_NONE)
                s->ready_last = own->previous;
        else
                s->slots[own->next].previous = own->previous;
}

static void session_fail(struct session *s, struct session_result *r, int error, const char *why) {
        r->fds = NULL;
        r->state = SLOT_FAILED;
        r->error = error;
        r->bytes = (size_t)snprintf((char *)s->copy, s->channel.geometry.slot_bytes, "%s", why);
        if (r->bytes >= s->channel.geometry.slot_bytes)
                r->bytes = s->channel.geometry.slot_bytes - 1;
        r->data = s->copy;
}

static int session_check_data(const struct session *s, uint32_t slot, const struct session_result *r, char *why,
                              size_t why_bytes) {
        uint32_t type = s->slots[slot].type;
        if (type >= s->schema->n_jobs)
                return 0;
        const struct schema_fields *fields = &s->schema->jobs[type].result;
        int error = args_check(fields, r->data, r->bytes, why, why_bytes);
        return error < 0 ? error
                         : args_check_fds(fields, r->data, r->bytes, r->fds ? r->fds->n_fds : 0, why, why_bytes);
}

/* A result that can be one, with what came for it. */
static void session_check_result(struct session *s, uint32_t slot, struct session_fds *f, struct session_result *r) {
        char why[200];
        int error = s->slots[slot].has_wanted ? session_fds_check(f, why, sizeof why) : 0;
        if (error == 0 && f && f->mapped) {
                r->data = f->mapped;
                r->bytes = f->mapped_bytes;
        }
        r->fds = f;
        if (error == 0 && session_check_data(s, slot, r, why, sizeof why) < 0)
                error = EBADMSG;
        if (error != 0)
                session_fail(s, r, error, why);
}

/* DONE and FAILED: what the worker wrote, copied, then checked. */
static void session_read_result(struct session *s, uint32_t slot, struct session_fds *f, struct session_result *r) {
        struct layout_result line;
        channel_copy(&line, channel_result(&s->channel, slot), sizeof line);
        if (line.bytes > s->channel.geometry.slot_bytes) {
                session_fail(s, r, EBADMSG, "the worker's result is longer than its slot");
                return;
        }
        r->worker_pid = line.pid;
        r->started_ns = line.started_ns;
        r->finished_ns = line.finished_ns;
        r->data = s->copy;
        r->bytes = line.bytes;
        memcpy(s->copy, channel_result_data(&s->channel, slot), line.bytes);
        s->copy[line.bytes] = 0;
        if (r->state == SLOT_FAILED) {
                r->error = line.error > 0 ? line.error : EIO;
                return;
        }
        session_check_result(s, slot, f, r);
}

/* A verdict without a result: the broker's line, if it gave this one; and what the worker noted when the last attempt
 * began, and if it came to that, when it ended. */
static void session_read_judged(struct session *s, uint32_t slot, uint64_t word, struct session_result *r) {
        const struct session_slot *own = &s->slots[slot];
        struct layout_verdict verdict;
        struct layout_result line;
        bool is_brokers = channel_copy_verdict(&s->channel, slot, word, &verdict);
        if (slot_state_is_brokers(r->state) && !is_brokers) {
                session_fail(s, r, EBADMSG, "a worker of the pool gave a verdict that only droverd can give");
                return;
        }
        if (r->state == SLOT_EXPIRED &&
            (own->queue_deadline_ns == 0 || event_now_ns() + SESSION_EARLY_NS < own->queue_deadline_ns)) {
                session_fail(s, r, EBADMSG, "expired before its queue deadline, says a worker of the pool");
                return;
        }
        if (is_brokers) {
                r->verdict = verdict;
                r->worker_pid = verdict.pid;
                r->finished_ns = verdict.when_ns;
        }
        channel_copy(&line, channel_result(&s->channel, slot), sizeof line);
        if (r->attempt == 0 || line.generation != s->slots[slot].generation || line.started_ns < r->queued_ns)
                return;
        r->started_ns = line.started_ns;
        if (r->worker_pid == 0)
                r->worker_pid = line.pid;
        if (r->finished_ns < line.started_ns)
                r->finished_ns = line.finished_ns > line.started_ns ? line.finished_ns : line.started_ns;
}

void **session_block(struct session *s) { return (void **)&s->copy; }

int session_prepare_fetch(struct session *s) {
        if (!s->copy)
                s->copy = malloc(s->channel.geometry.slot_bytes + 1);
        return s->copy ? 1 : -ENOMEM;
}

void session_fetch(struct session *s, uint32_t slot, struct session_result *ret) {
        struct session_slot *own = &s->slots[slot];
        struct session_fds *f = own->got;
        own->got = NULL;
        s->newest = session_fds_free(s->newest);
        uint64_t word = channel_word(&s->channel, slot);
        bool is_verdict = slot_is_verdict(word) && slot_generation(word) == own->generation; /* it was, when found */
        *ret = (struct session_result){
                .slot = slot,
                .user = own->user,
                .id = own->id,
                .state = slot_state(word),
                .attempt = slot_attempts_made(word),
                .queued_ns = own->queued_ns,
        };
        if (!is_verdict)
                session_fail(s, ret, EBADMSG, "a worker of the pool wrote over its verdict");
        else if (ret->state == SLOT_DONE || ret->state == SLOT_FAILED)
                session_read_result(s, slot, f, ret);
        else
                session_read_judged(s, slot, word, ret);
        if (ret->fds)
                s->newest = f;
        else
                session_fds_free(f);

        s->n_result_fds -= own->n_result_fds;
        if (own->has_fds || own->has_wanted)
                session_fds_end(s, slot);
        session_list_remove(s, slot);
        if (s->ready_first != SESSION_NONE) /* probably the next one to be fetched */
                __builtin_prefetch(channel_result_data(&s->channel, s->ready_first));
        s->n_in_flight--;
        if (session_free_slot(s, slot) == 0) {
                own->state = SESSION_IDLE;
                s->free_slots[s->n_free++] = slot;
                __builtin_prefetch(channel_job(&s->channel, slot), 1); /* it is the next one to be filled */
                __builtin_prefetch(channel_payload(&s->channel, slot), 1);
        } else {
                own->state = SESSION_HELD;
                s->n_held++;
        }
}
