/* A client's jobs in one channel: submit, find verdicts, wait, collect.
 *
 * Owns which slot is whose: a private record per slot says what was submitted, and the shared slot word is only ever
 * compared with it. A verdict is found by its done bit (a hint: the word decides), goes into the ready list, and is
 * fetched from there; then the slot is freed.
 *
 * Waiting: spin a little, then sleep on the channel's futex; after a while without any verdict sleep in poll() on the
 * done eventfd and the session socket instead, because a futex cannot tell that the daemon is gone. So a short wait
 * costs what a futex costs, and a long one neither polls nor hangs.
 *
 * A daemon that dies closes the session socket and leaves the memory: the channel is handed to the next one
 * (session_reattach), which puts it in order, and nothing else changes here. If it is not back for long, it is gone.
 *
 * What a verdict says is read in session-fetch.c. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session-internal.h"
#include "ipc/doorbell.h"
#include "ipc/event.h"
#include "ipc/wait-watch.h"

enum { SESSION_RETRY_MS = 20 };

#define SESSION_FUTEX_NS UINT64_C(50000000) /* sleep this long on the futex, then in poll() */

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
        if (s->channel_fd >= 0)
                close(s->channel_fd);
        sd_bus_unref(s->bus);
        free(s->pool);
        free(s->schema_text);
        schema_free(s->schema);
        free(s->slots);
        free(s->free_slots);
        free(s->n_busy);
        free(s->copy);
        free(s);
        return NULL;
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

uint32_t session_in_flight(const struct session *s) { return s->n_in_flight; }

/* ---- submitting ---- */

static int session_check_open(struct session *s) {
        uint32_t closed = atomic_load_explicit(&s->channel.head->closed, memory_order_relaxed);
        if (closed == CHANNEL_DEAD)
                s->is_gone = true;
        if (s->is_gone)
                return -EPIPE;
        return closed == CHANNEL_OPEN ? 0 : -ESHUTDOWN;
}

/* Frees what was held back for a worker that had to die first. */
static void session_release_held(struct session *s) {
        for (uint32_t i = 0; s->n_held > 0 && i < s->channel.geometry.n_slots; i++)
                if (s->slots[i].state == SESSION_HELD && channel_free(&s->channel, i) == 0) {
                        s->slots[i].state = SESSION_IDLE;
                        s->free_slots[s->n_free++] = i;
                        s->n_held--;
                }
}

static void session_fill(struct session *s, uint32_t slot, const struct session_job *job) {
        struct session_slot *own = &s->slots[slot];
        size_t bytes = job->has_payload_fd || job->bytes > s->channel.geometry.slot_bytes ? 0 : job->bytes;
        own->state = SESSION_BUSY;
        own->generation = slot_generation(channel_word(&s->channel, slot));
        own->type = job->type;
        own->user = job->user;
        own->id = s->id_base + s->n_submitted + 1;
        own->queued_ns = event_now_ns();
        own->queue_deadline_ns = job->queue_deadline_ns;
        struct layout_job *line = channel_job(&s->channel, slot);
        line->type = job->type < s->schema->n_jobs ? s->schema->jobs[job->type].number : 0;
        line->bytes = (uint32_t)bytes;
        line->priority = job->priority;
        line->max_attempts = job->max_attempts;
        line->id = own->id;
        line->queued_ns = own->queued_ns;
        line->soft_ns = job->soft_ns;
        line->hard_ns = job->hard_ns;
        line->not_before_ns = job->is_held ? EVENT_FOREVER : job->not_before_ns;
        /* Atomic, because a claimer that is about to lose its CAS on the slot may still look at it. */
        __atomic_store_n(&line->queue_deadline_ns, job->queue_deadline_ns, __ATOMIC_RELAXED);
        if (bytes > 0)
                memcpy(channel_payload(&s->channel, slot), job->payload, bytes);
}

int session_submit(struct session *s, const struct session_job *job, uint32_t *ret_slot) {
        int r = session_check_open(s);
        if (r < 0)
                return r;
        if (s->n_free == 0)
                session_release_held(s);
        if (s->n_free == 0)
                return -EAGAIN;

        uint32_t slot = s->free_slots[s->n_free - 1];
        struct session_slot *own = &s->slots[slot];
        own->n_fds = 0;
        own->n_result_fds = job->type < s->schema->n_jobs ? s->schema->jobs[job->type].result.n_fds : 0;
        own->has_wanted = false;
        own->has_fds = session_fds_are_needed(s, job);
        r = own->has_fds || own->n_result_fds > 0 ? session_fds_send(s, slot, job) : 0;
        if (r < 0)
                return r;
        r = channel_begin(&s->channel, slot);
        if (r < 0) { /* nobody but a broken peer changes a free slot: never use it again */
                s->n_free--;
                return -EPROTO;
        }
        session_fill(s, slot, job);
        bool is_delayed = job->is_held || job->not_before_ns > own->queued_ns;
        r = own->has_fds ? channel_mark_fds(&s->channel, slot) : 0;
        if (r >= 0)
                r = is_delayed ? channel_commit_delayed(&s->channel, slot)
                               : channel_commit(&s->channel, slot, job->priority);
        if (r < 0) {
                own->state = SESSION_IDLE;
                return r;
        }
        s->n_fds += own->n_fds;
        s->n_result_fds += own->n_result_fds;
        s->n_free--;
        s->n_submitted++;
        s->n_in_flight++;
        s->n_busy[slot / 64]++;
        if (job->queue_deadline_ns && job->queue_deadline_ns < s->next_deadline_ns)
                s->next_deadline_ns = job->queue_deadline_ns;
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
        if (!slot_is_verdict(word) || slot_generation(word) != s->slots[slot].generation)
                return false;
        if (slot_state(word) == SLOT_DONE && session_has_fds(s, slot)) {
                session_fds_want(s, slot);
                return false;
        }
        session_list_add(s, slot);
        return true;
}

/* Where verdict and result of a slot lie: asked for all at once, they come in the time of one. */
static void session_prefetch(const struct session *s, uint32_t first, uint64_t bits) {
        for (; bits; bits &= bits - 1) {
                uint32_t slot = first + (uint32_t)__builtin_ctzll(bits);
                __builtin_prefetch(&s->channel.slots[slot], 1);
                __builtin_prefetch(channel_result(&s->channel, slot));
                __builtin_prefetch(channel_result_data(&s->channel, slot));
        }
}

/* Follows the done bits. true if there is a verdict to fetch. */
static bool session_collect(struct session *s) {
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
        if (not_before_ns > event_now_ns()) { /* the broker's timer sees to it from now on */
                __atomic_store_n(&channel_job(&s->channel, slot)->not_before_ns, not_before_ns, __ATOMIC_RELAXED);
                atomic_fetch_add_explicit(&s->channel.head->delayed, 1, memory_order_release);
                doorbell_ring(s->doorbell_fd);
                return;
        }
        int r = channel_undelay(&s->channel, slot, generation);
        if (r > 0)
                session_ring(s);
        else if (r < 0 && channel_judge_queued(&s->channel, slot, generation, SLOT_LOST)) /* no ring takes it */
                session_look(s, slot);
}

/* The queue deadline is the waiter's business too: with no worker about, nobody else would notice. */
static void session_expire(struct session *s, uint64_t now_ns) {
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

/* ---- waiting ---- */

static uint64_t session_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Who waits only ever for moments would not hear of it otherwise. */
static void session_look_around(struct session *s, uint64_t now_ns) {
        if (now_ns - s->looked_ns < SESSION_FUTEX_NS || s->is_away)
                return;
        s->looked_ns = now_ns;
        session_read_socket(s);
}

/* One try, but not too often. Sets is_gone if there is no hope, or no more patience. */
static void session_come_back(struct session *s) {
        session_check_open(s);
        uint64_t now_ns = event_now_ns();
        if (s->is_gone || now_ns - s->tried_ns < SESSION_RETRY_MS * UINT64_C(1000000))
                return;
        s->tried_ns = now_ns;
        int r = s->patience_ns == 0 ? -EPIPE : session_reattach(s);
        if (r == 0) {
                s->is_away = false;
                s->epoch++;
        } else if (r != -EAGAIN || event_now_ns() - s->away_ns >= s->patience_ns)
                s->is_gone = true;
}

int session_process(struct session *s) {
        if (!s->is_away)
                session_read_socket(s);
        if (s->is_away && !s->is_gone)
                session_come_back(s);
        return s->is_gone ? -EPIPE : 0;
}

static int session_poll(struct session *s, uint64_t deadline_ns) {
        struct pollfd fds[] = {{.fd = s->done_fd, .events = POLLIN},
                               {.fd = s->socket_fd, .events = session_fds_must_ask(s) ? POLLIN | POLLOUT : POLLIN}};
        uint64_t now_ns = event_now_ns();
        uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u), .tv_nsec = (long)(left_ns % 1000000000u)};
        int n = ppoll(fds, 2, deadline_ns == EVENT_FOREVER ? NULL : &left, NULL);
        if (n < 0)
                return -errno;
        if (fds[0].revents)
                doorbell_clear(s->done_fd);
        if (fds[1].revents)
                session_read_socket(s);
        return n == 0 ? -ETIMEDOUT : 0;
}

#ifdef DROVER_WATCHED_WAITS
/* A verdict that was announced before, and is not collected. Of those that a worker gave, which say when. */
static uint64_t session_look_done(const void *user, uint64_t before_ns) {
        const struct session *s = user;
        struct layout_result line;
        for (uint32_t i = 0; i < s->n_words; i++)
                for (uint64_t bits = atomic_load(&s->channel.done[i]); bits; bits &= bits - 1) {
                        uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
                        uint64_t word = slot < s->channel.geometry.n_slots ? channel_word(&s->channel, slot) : 0;
                        if (slot_state(word) != SLOT_DONE || s->slots[slot].state != SESSION_BUSY ||
                            s->slots[slot].generation != slot_generation(word))
                                continue;
                        channel_copy(&line, channel_result(&s->channel, slot), sizeof line);
                        if (line.finished_ns < before_ns)
                                return word;
                }
        return 0;
}
#endif

/* Sleeps until something may have changed. 0, -ETIMEDOUT at the deadline, -EINTR. */
static int session_sleep(struct session *s, uint64_t deadline_ns, bool *is_long) {
        deadline_ns = session_min(deadline_ns, s->next_deadline_ns);
        uint32_t seen = channel_wait_begin(&s->channel, *is_long ? DONE_DOORBELL : DONE_FUTEX);
        int r = 0;
        if (!session_collect(s)) {
                if (*is_long || s->want_first != SESSION_NONE)
                        r = session_poll(s, deadline_ns);
                else {
                        uint64_t since_ns = event_now_ns(), futex_ns = since_ns + SESSION_FUTEX_NS;
                        WAIT_LOOK_SINCE("client", session_look_done, s);
                        r = event_wait(&s->channel.head->done_seq, seen, session_min(deadline_ns, futex_ns));
                        spin_slept(&s->spin, since_ns);
                        if (r == -ETIMEDOUT && futex_ns < deadline_ns) {
                                *is_long = true;
                                s->n_rescued += session_collect(s);
                                r = 0;
                        }
                }
        }
        channel_wait_end(&s->channel);
        return r;
}

bool session_arm(struct session *s, uint64_t *ret_deadline_ns) {
        *ret_deadline_ns = s->next_deadline_ns;
        if (s->is_away && !s->is_gone)
                *ret_deadline_ns = session_min(*ret_deadline_ns, s->tried_ns + SESSION_RETRY_MS * UINT64_C(1000000));
        channel_wait_begin(&s->channel, DONE_DOORBELL);
        bool is_ready = session_collect(s);
        if (session_fds_must_ask(s)) /* nobody polls the socket for that */
                *ret_deadline_ns = session_min(*ret_deadline_ns, event_now_ns() + SESSION_RETRY_MS * UINT64_C(1000000));
        return is_ready;
}

void session_woken(struct session *s) {
        channel_wait_end(&s->channel);
        doorbell_clear(s->done_fd);
        session_read_socket(s);
        session_expire(s, event_now_ns());
}

static bool session_spin(struct session *s, uint64_t deadline_ns) {
        if (s->never_spins)
                return false;
        struct spin_round round = spin_begin(&s->spin, deadline_ns);
        bool came;
        while (!(came = session_collect(s)) && spin_step(&round))
                ;
        spin_end(&s->spin, &round, came);
        return came;
}

/* Until `is_done` holds or the deadline. 1, 0, -EPIPE, -EINTR. */
static int session_wait_until(struct session *s, bool (*is_done)(const struct session *s, uint32_t slot), uint32_t slot,
                              uint64_t deadline_ns) {
        bool is_long = false;
        session_collect(s);
        for (bool has_spun = false;; has_spun = true) {
                if (is_done(s, slot))
                        return 1;
                if (s->n_in_flight == 0)
                        return 0;
                session_check_open(s);
                if (s->is_away && !s->is_gone)
                        session_come_back(s);
                if (s->is_gone || s->is_away) { /* what was told before it went is still to be had */
                        session_collect(s);
                        if (is_done(s, slot) || s->is_gone)
                                return is_done(s, slot) ? 1 : -EPIPE;
                        if (event_now_ns() >= deadline_ns)
                                return 0;
                        if (poll(NULL, 0, SESSION_RETRY_MS) < 0)
                                return -errno;
                        continue;
                }
                if (deadline_ns == 0 && s->next_deadline_ns == EVENT_FOREVER) {
                        session_look_around(s, event_now_ns());
                        return 0;
                }
                if (!has_spun && deadline_ns > 0 && session_spin(s, deadline_ns))
                        continue;

                int r = deadline_ns == 0 ? -ETIMEDOUT : session_sleep(s, deadline_ns, &is_long);
                if (r == -EINTR)
                        return r;
                if (r == -ETIMEDOUT) {
                        uint64_t now_ns = event_now_ns();
                        session_expire(s, now_ns);
                        session_collect(s);
                        session_look_around(s, now_ns);
                        if (now_ns >= deadline_ns)
                                return is_done(s, slot);
                } else if (session_collect(s) && s->ready_first != s->ready_last)
                        spin_expect(&s->spin); /* they come faster than wake-ups */
        }
}

/* ---- fetching: session-fetch.c ---- */

static bool session_has_ready(const struct session *s, uint32_t slot) { return s->ready_first != SESSION_NONE; }

static bool session_is_ready(const struct session *s, uint32_t slot) { return s->slots[slot].state == SESSION_READY; }

int session_next(struct session *s, struct session_result *ret, uint64_t deadline_ns) {
        int r = s->ready_first != SESSION_NONE ? 1 : session_wait_until(s, session_has_ready, 0, deadline_ns);
        if (r == 1)
                session_fetch(s, s->ready_first, ret);
        return r;
}

int session_wait(struct session *s, uint32_t slot, struct session_result *ret, uint64_t deadline_ns) {
        if (slot >= s->channel.geometry.n_slots || s->slots[slot].state == SESSION_IDLE ||
            s->slots[slot].state == SESSION_HELD)
                return -EINVAL;
        int r = session_wait_until(s, session_is_ready, slot, deadline_ns);
        if (r == 1)
                session_fetch(s, slot, ret);
        return r;
}
