/* A client's jobs in one channel, from the submission to the verdict that is found.
 *
 * Owns which slot is whose: a private record per slot says what was submitted, and the shared slot word is only ever
 * compared with it. A verdict is found by its done bit (a hint: the word decides), goes into the ready list, and is
 * fetched from there; then the slot is freed.
 *
 * Waiting for a verdict, and for a daemon that went away, is session-wait.c; what a verdict says is read in
 * session-fetch.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session/session-internal.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

enum {
        SESSION_TRIES = 4,     /* for a slot that somebody writes over at this moment */
        SESSION_PUSH_MS = 100, /* for rings that were written over */
};

/* ---- making and ending ---- */

int session_init_slots(struct session *s) {
        uint32_t n = s->channel.geometry.n_slots;
        s->n_words = (n + 63) / 64;
        s->slots = calloc(n, sizeof *s->slots);
        s->free_slots = calloc(n, sizeof *s->free_slots);
        s->n_busy = calloc(s->n_words, sizeof *s->n_busy);
        s->copy = malloc(s->channel.geometry.slot_bytes + 1);
        s->ready_first = s->ready_last = s->want_first = SESSION_NONE;
        s->next_deadline_ns = EVENT_FOREVER;
        if (!s->slots || !s->free_slots || !s->n_busy || !s->copy)
                return -ENOMEM;
        for (uint32_t i = 0; i < n; i++)
                s->free_slots[s->n_free++] = n - 1 - i;
        return 0;
}

struct session *session_free(struct session *s) {
        if (!s)
                return NULL;
        for (uint32_t i = 0; s->slots && i < s->channel.geometry.n_slots; i++)
                if (s->slots[i].state == SESSION_BUSY)
                        channel_cancel(&s->channel, i);
        struct channel_geometry g = s->channel.geometry;
        channel_unmap(&s->channel);
        s->channel.geometry = g;
        bell_unmap(s->bell);
        return session_forget(s);
}

struct session *session_forget(struct session *s) {
        if (!s)
                return NULL;
        for (uint32_t i = 0; s->slots && i < s->channel.geometry.n_slots; i++)
                session_fds_free(s->slots[i].got);
        session_fds_free(s->newest);
        if (s->socket_fd >= 0)
                close(s->socket_fd);
        if (s->done_fd >= 0)
                close(s->done_fd);
        if (s->doorbell_fd >= 0)
                close(s->doorbell_fd);
        channel_close(s->channel_fds);
        sd_bus_slot_unref(s->call);
        sd_bus_message_unref(s->answer);
        sd_bus_unref(s->bus);
        free(s->pool);
        free(s->schema_text);
        schema_free(s->schema);
        free(s->slots);
        free(s->free_slots);
        free(s->n_busy);
        free(s->copy);
        free(s->room);
        free(s);
        return NULL;
}

/* libsystemd aborts when it closes those of a message that are not open: an answer that is kept is left as it is. */
void session_lose_fds(struct session *s) {
        s->socket_fd = s->done_fd = s->doorbell_fd = -1;
        memset(s->channel_fds, -1, sizeof s->channel_fds);
        for (uint32_t i = 0; i < s->channel.geometry.n_slots; i++)
                if (s->slots[i].got)
                        s->slots[i].got->n_fds = 0;
        if (s->newest)
                s->newest->n_fds = 0;
        s->answer = NULL;
}

void session_on_bus_lost(struct session *s, int (*renew)(void *user), void *user) {
        s->renew_bus = renew;
        s->renew_user = user;
}

void session_set_bus(struct session *s, sd_bus *bus) {
        s->call = sd_bus_slot_unref(s->call); /* nobody answers that any more */
        sd_bus_ref(bus);
        sd_bus_unref(s->bus);
        s->bus = bus;
}

const struct schema *session_schema(const struct session *s) { return s->schema; }

uint32_t session_slots(const struct session *s) { return s->channel.geometry.n_slots; }

uint32_t session_slot_bytes(const struct session *s) { return s->channel.geometry.slot_bytes; }

int session_fd(const struct session *s) { return s->socket_fd; }

int session_done_fd(const struct session *s) { return s->done_fd; }

bool session_is_away(const struct session *s) { return s->is_away; }

uint32_t session_epoch(const struct session *s) { return s->epoch; }

void session_set_patience(struct session *s, uint64_t patience_ns) { s->patience_ns = patience_ns; }

void session_set_spin(struct session *s, bool spins) { s->never_spins = !spins; }

uint64_t session_next_deadline(const struct session *s) { return s->next_deadline_ns; }

uint32_t session_in_flight(const struct session *s) { return s->n_in_flight; }

/* ---- submitting ---- */

int session_check_open(struct session *s) {
        uint32_t closed = atomic_load_explicit(&s->channel.head->closed, memory_order_relaxed);
        if (closed == CHANNEL_DEAD)
                s->is_gone = true;
        if (s->is_gone)
                return -EPIPE;
        return closed == CHANNEL_OPEN ? 0 : closed == CHANNEL_ENDING ? -EAGAIN : -ESHUTDOWN;
}

bool session_is_ending(const struct session *s) {
        return atomic_load_explicit(&s->channel.head->closed, memory_order_relaxed) == CHANNEL_ENDING;
}

/* A worker may write anything into the channel. What contradicts our books cannot be believed, nor what does not: this
 * session is over, and the next one has another memory. */
static void session_give_up(struct session *s) {
        s->is_foul = s->is_gone = true;
        shutdown(s->socket_fd, SHUT_RDWR); /* its jobs are nobody's from now on */
}

bool session_is_foul(const struct session *s) { return s->is_foul; }

/* Of a job without a verdict that we know of: only ours are the states before and after. */
static bool session_can_be(const struct session_slot *own, uint64_t word) {
        return slot_generation(word) == own->generation && slot_state(word) >= SLOT_QUEUED &&
               slot_state(word) < SLOT_N_STATES;
}

/* FREE, as it is by our books. */
static uint64_t session_free_word(const struct session *s, uint32_t slot) {
        return SLOT_WORD(SLOT_FREE, 0, 0, SLOT_OWNER_NONE, s->slots[slot].generation);
}

/* FREE, whatever stands there, unless its worker may still write. */
int session_free_slot(struct session *s, uint32_t slot) {
        uint64_t word = channel_word(&s->channel, slot);
        if (session_can_be(&s->slots[slot], word) && slot_is_verdict(word))
                return channel_free(&s->channel, slot);
        return channel_cas(&s->channel, slot, word, session_free_word(s, slot)) ? 0 : -EBUSY;
}

/* A slot that is free by our books is nobody's: what a worker wrote there is written over. The generation is ours, too:
 * one that comes again would have what was sent for the job before. */
static int session_begin_slot(struct session *s, uint32_t slot) {
        struct session_slot *own = &s->slots[slot];
        int r = -EBUSY;
        for (unsigned try = 0; r < 0 && try <= SESSION_TRIES; try++) {
                uint64_t word = channel_word(&s->channel, slot), free_word = session_free_word(s, slot);
                if (word == free_word || channel_cas(&s->channel, slot, word, free_word))
                        r = channel_begin(&s->channel, slot);
        }
        own->generation++; /* also of one that failed: the broker may have descriptors for it */
        return r < 0 || slot_generation(channel_word(&s->channel, slot)) != own->generation ? -EPROTO : 0;
}

/* It is QUEUED, and no ring takes its hint: they were written over. The broker mends them when the worker that did it
 * is dead, which may be now. */
static void session_push_late(struct session *s, uint32_t slot) {
        for (unsigned try = 0; try < SESSION_PUSH_MS; try++) {
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                if (channel_push_again(&s->channel, slot) >= 0)
                        return;
        }
        session_give_up(s);
}

/* Frees what was held back for a worker that had to die first. */
static void session_release_held(struct session *s) {
        for (uint32_t i = 0; s->n_held > 0 && i < s->channel.geometry.n_slots; i++)
                if (s->slots[i].state == SESSION_HELD && session_free_slot(s, i) == 0) {
                        s->slots[i].state = SESSION_IDLE;
                        s->free_slots[s->n_free++] = i;
                        s->n_held--;
                }
}

/* The pool's QueueTimeout= counts from when the job may run; the sooner of the two holds. */
static void session_set_deadline(struct session *s, uint32_t slot, uint64_t from_ns, uint64_t deadline_ns) {
        uint64_t timeout_ns = atomic_load_explicit(&s->channel.head->queue_timeout_ns, memory_order_relaxed), end_ns;
        if (timeout_ns && from_ns != EVENT_FOREVER && !__builtin_add_overflow(from_ns, timeout_ns, &end_ns) &&
            (!deadline_ns || end_ns < deadline_ns))
                deadline_ns = end_ns;
        s->slots[slot].queue_deadline_ns = deadline_ns;
        if (deadline_ns && deadline_ns < s->next_deadline_ns)
                s->next_deadline_ns = deadline_ns;
        /* Atomic, because a claimer that is about to lose its CAS on the slot may still look at it. */
        __atomic_store_n(&channel_job(&s->channel, slot)->queue_deadline_ns, deadline_ns, __ATOMIC_RELAXED);
}

static void session_fill(struct session *s, uint32_t slot, const struct session_job *job) {
        struct session_slot *own = &s->slots[slot];
        size_t bytes = job->has_payload_fd || job->bytes > s->channel.geometry.slot_bytes ? 0 : job->bytes;
        own->state = SESSION_BUSY;
        own->type = job->type;
        own->user = job->user;
        own->id = s->id_base + s->n_submitted + 1;
        own->queued_ns = event_now_ns();
        struct layout_job *line = channel_job(&s->channel, slot);
        line->type = job->type < s->schema->n_jobs ? s->schema->jobs[job->type].number : 0;
        line->bytes = (uint32_t)bytes;
        __atomic_store_n(&line->priority, job->priority, __ATOMIC_RELAXED); /* whoever mends rings may look */
        line->max_attempts = job->max_attempts;
        line->id = own->id;
        line->queued_ns = own->queued_ns;
        line->soft_ns = job->soft_ns;
        line->hard_ns = job->hard_ns;
        line->not_before_ns = job->is_held ? EVENT_FOREVER : job->not_before_ns;
        session_set_deadline(s, slot, line->not_before_ns > own->queued_ns ? line->not_before_ns : own->queued_ns,
                             job->queue_deadline_ns);
        if (bytes > 0)
                memcpy(channel_payload(&s->channel, slot), job->payload, bytes);
}

int session_submit(struct session *s, const struct session_job *job, uint32_t *ret_slot) {
        int r = session_check_open(s);
        if (r == -EAGAIN) /* who has nothing under way would not hear of the next daemon otherwise */
                r = session_process(s) < 0 ? -EPIPE : session_check_open(s);
        if (r < 0)
                return r;
        if (s->n_free == 0)
                session_release_held(s);
        if (s->n_free == 0)
                return -EAGAIN;

        if (job->priority < LAYOUT_PRIORITIES) /* it comes while the slot is filled */
                ring_prefetch_push(&s->channel.ring[job->priority]);
        uint32_t slot = s->free_slots[s->n_free - 1];
        struct session_slot *own = &s->slots[slot];
        own->n_fds = 0;
        own->n_result_fds = job->type < s->schema->n_jobs ? s->schema->jobs[job->type].result.n_fds : 0;
        own->has_wanted = false;
        own->has_fds = session_fds_are_needed(s, job);
        r = own->has_fds || own->n_result_fds > 0 ? session_fds_send(s, slot, job) : 0;
        if (r < 0)
                return r;
        r = session_begin_slot(s, slot);
        if (r < 0)
                return r;
        session_fill(s, slot, job);
        bool is_delayed = job->is_held || job->not_before_ns > own->queued_ns;
        r = own->has_fds ? channel_mark_fds(&s->channel, slot) : 0;
        if (r >= 0 && is_delayed)
                r = channel_commit_delayed(&s->channel, slot);
        int push = r >= 0 && !is_delayed ? channel_accept(&s->channel, slot, job->priority) : 0;
        if (r < 0 || push == -EBUSY) { /* somebody wrote over the slot: nothing was submitted */
                own->state = SESSION_IDLE;
                return -EPROTO;
        }
        s->n_fds += own->n_fds;
        s->n_result_fds += own->n_result_fds;
        s->n_free--;
        s->n_submitted++;
        s->n_in_flight++;
        s->n_busy[slot / 64]++;
        if (push < 0)
                session_push_late(s, slot);
        if (job->is_held)
                ; /* nobody else's business yet */
        else if (is_delayed)
                doorbell_ring(s->doorbell_fd);
        else if (!job->is_quiet)
                session_ring(s);
        *ret_slot = slot;
        return 0;
}

void session_ring(struct session *s) { bell_ring(s->bell, s->index, s->doorbell_fd); }

uint64_t session_job_id(const struct session *s, uint32_t slot) { return s->slots[slot].id; }

bool session_has_number(const struct session *s, uint64_t id) { return (id & ~LAYOUT_JOB_ID_MASK) == s->id_base; }

uint64_t session_look_at(const struct session *s, uint32_t slot) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state == SESSION_IDLE)
                return 0;
        return channel_word(&s->channel, slot);
}

int session_cancel(struct session *s, uint32_t slot) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state == SESSION_IDLE)
                return -EINVAL;
        return channel_cancel(&s->channel, slot);
}

/* ---- finding verdicts ---- */

/* What it says is about descriptors. End of file is the daemon's end, or, if it says so, only ours. */
void session_read_socket(struct session *s) {
        if (s->is_away)
                return;
        int r = session_fds_receive(s);
        if (r == -EAGAIN)
                return;
        session_check_open(s);
        s->is_away = true;
        s->away_ns = event_now_ns();
        s->tried_ns = 0;
        s->epoch++;
        session_fds_lose(s);
}

void session_list_add(struct session *s, uint32_t slot) {
        struct session_slot *own = &s->slots[slot];
        own->state = SESSION_READY;
        own->next = SESSION_NONE;
        own->previous = s->ready_last;
        if (s->ready_last == SESSION_NONE)
                s->ready_first = slot;
        else
                s->slots[s->ready_last].next = slot;
        s->ready_last = slot;
        s->n_busy[slot / 64]--;
}

/* Nothing is believed but that we should ask. */
static bool session_has_fds(const struct session *s, uint32_t slot) {
        return __atomic_load_n(&channel_result(&s->channel, slot)->has_fds, __ATOMIC_RELAXED) != 0;
}

static bool session_look(struct session *s, uint32_t slot) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state != SESSION_BUSY)
                return false;
        uint64_t word = channel_word(&s->channel, slot);
        if (!session_can_be(&s->slots[slot], word)) {
                session_give_up(s);
                return false;
        }
        if (!slot_is_verdict(word))
                return false;
        if (slot_state(word) == SLOT_DONE && session_has_fds(s, slot)) {
                session_fds_want(s, slot);
                return false;
        }
        session_list_add(s, slot);
        return true;
}

/* Where verdict and head of the result lie: asked for all at once, they come in the time of one. What follows the head
 * is asked for one job ahead (session_fetch): for 64 jobs at once it did not come, and cost 0.1 µs a job. */
static void session_prefetch(const struct session *s, uint32_t first, uint64_t bits) {
        for (; bits; bits &= bits - 1) {
                uint32_t slot = first + (uint32_t)__builtin_ctzll(bits);
                __builtin_prefetch(&s->channel.slots[slot], 1);
                __builtin_prefetch(channel_result(&s->channel, slot));
        }
}

/* Follows the done bits. true if there is a verdict to fetch. */
bool session_collect(struct session *s) {
        if (s->want_first != SESSION_NONE)
                session_read_socket(s);
        for (uint32_t i = 0; i < s->n_words; i++) {
                if (s->n_busy[i] == 0)
                        continue;
                uint64_t bits = channel_take_done(&s->channel, i);
                session_prefetch(s, i * 64, bits);
                for (; bits; bits &= bits - 1)
                        session_look(s, i * 64 + (uint32_t)__builtin_ctzll(bits));
        }
        return s->ready_first != SESSION_NONE;
}

void session_let_go(struct session *s, uint32_t slot, uint64_t not_before_ns) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state != SESSION_BUSY)
                return;
        uint32_t generation = s->slots[slot].generation;
        uint64_t now_ns = event_now_ns();
        session_set_deadline(s, slot, not_before_ns > now_ns ? not_before_ns : now_ns,
                             s->slots[slot].queue_deadline_ns);
        if (not_before_ns > now_ns) { /* the broker's timer sees to it from now on */
                __atomic_store_n(&channel_job(&s->channel, slot)->not_before_ns, not_before_ns, __ATOMIC_RELAXED);
                atomic_fetch_add_explicit(&s->channel.head->delayed, 1, memory_order_release);
                doorbell_ring(s->doorbell_fd);
                return;
        }
        int r = channel_undelay(&s->channel, slot, generation);
        if (r < 0)
                session_push_late(s, slot);
        if (r != 0)
                session_ring(s);
}

/* The queue deadline is the waiter's business too: with no worker about, nobody else would notice. */
void session_expire(struct session *s, uint64_t now_ns) {
        if (now_ns < s->next_deadline_ns)
                return;
        s->next_deadline_ns = EVENT_FOREVER;
        for (uint32_t i = 0; i < s->channel.geometry.n_slots; i++) {
                struct session_slot *own = &s->slots[i];
                if (own->state != SESSION_BUSY || own->queue_deadline_ns == 0)
                        continue;
                if (now_ns < own->queue_deadline_ns) {
                        if (own->queue_deadline_ns < s->next_deadline_ns)
                                s->next_deadline_ns = own->queue_deadline_ns;
                } else if (channel_judge_queued(&s->channel, i, own->generation, SLOT_EXPIRED)) {
                        atomic_fetch_add_explicit(&s->channel.head->expired, 1, memory_order_relaxed);
                        session_look(s, i);
                }
        }
}

bool session_cancel_queued(struct session *s, uint32_t slot) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state != SESSION_BUSY ||
            !channel_judge_queued(&s->channel, slot, s->slots[slot].generation, SLOT_CANCELLED))
                return false;
        atomic_fetch_add_explicit(&s->channel.head->cancelled, 1, memory_order_relaxed);
        session_look(s, slot);
        return true;
}
