/* Owns the io_uring and everything the broker waits for.
 *
 * Polls are one-shot POLL_ADD operations that are armed again after their callback: level-triggered for the owner, and
 * re-arming rides on the same io_uring_enter that sleeps, so an event costs one system call. An operation's user_data
 * is {generation 32, table slot 32}, never a pointer: a completion that outlives its owner finds another generation and
 * is dropped, so an owner may be freed right after loop_poll_stop. Timers stand in a binary heap; the earliest becomes
 * the timeout of the sleep itself and costs no operation. With nothing to do the loop makes no system call at all.
 *
 * It reads and writes nothing: what is ready is told, the owner does the rest. */
#include "daemon/loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/event.h"

enum {
        LOOP_ENTRIES = 256,
        LOOP_BATCH = 64,
        LOOP_MAX_HOOKS = 8,
};

struct loop_hook {
        loop_hook_fn fn;
        void *user;
};

struct loop_entry {
        struct loop_poll *poll; /* NULL = free */
        uint32_t generation;
        uint32_t next_free; /* + 1 */
};

struct loop {
        struct io_uring ring;
        bool has_ring;
        struct loop_entry *entries;
        uint32_t n_entries, free_entry; /* + 1; 0 = none */
        struct loop_timer **heap;
        uint32_t n_timers, heap_capacity;
        struct loop_hook hooks[LOOP_MAX_HOOKS];
        unsigned n_hooks;
        uint64_t now_ns;
        bool is_exiting;
        int exit_code;
};

static const char *loop_refusal(int error) {
        char word = '0';
        int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
                if (read(fd, &word, 1) != 1)
                        word = '0';
                close(fd);
        }
        if (error == EPERM && word != '0')
                return "kernel.io_uring_disabled forbids it: set the sysctl to 0 (or to 1 with io_uring_group)";
        if (error == EPERM || error == EACCES)
                return "a seccomp filter forbids it: allow io_uring_setup, io_uring_enter and io_uring_register "
                       "(Docker: --security-opt seccomp=…)";
        if (error == ENOSYS)
                return "this kernel was built without io_uring: Drover needs Linux 6.1 or later";
        if (error == ENOMEM)
                return "not enough lockable memory for the ring: raise RLIMIT_MEMLOCK";
        return strerror(error);
}

int loop_new(struct loop **ret, const char **ret_why) {
        struct loop *l = calloc(1, sizeof(*l));
        if (!l) {
                *ret_why = strerror(ENOMEM);
                return -ENOMEM;
        }
        struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
        int r = io_uring_queue_init_params(LOOP_ENTRIES, &l->ring, &params);
        if (r == -EINVAL) { /* the flags only make it faster */
                params = (struct io_uring_params){0};
                r = io_uring_queue_init_params(LOOP_ENTRIES, &l->ring, &params);
        }
        if (r >= 0 && !(l->ring.features & IORING_FEAT_EXT_ARG)) {
                io_uring_queue_exit(&l->ring);
                r = -ENOSYS;
        }
        if (r < 0) {
                *ret_why = loop_refusal(-r);
                free(l);
                return r;
        }
        l->has_ring = true;
        io_uring_ring_dontfork(&l->ring);
        l->now_ns = event_now_ns();
        *ret = l;
        return 0;
}

struct loop *loop_free(struct loop *l) {
        if (!l)
                return NULL;
        for (uint32_t i = 0; i < l->n_entries; i++)
                if (l->entries[i].poll)
                        loop_poll_stop(l->entries[i].poll);
        if (l->has_ring)
                io_uring_queue_exit(&l->ring);
        free(l->entries);
        free(l->heap);
        free(l);
        return NULL;
}

/* The one place that prepares operations. */
static struct io_uring_sqe *loop_operation(struct loop *l) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
        if (sqe)
                return sqe;
        io_uring_submit(&l->ring);
        sqe = io_uring_get_sqe(&l->ring);
        assert(sqe); /* a submit that leaves the queue full is a broken ring: our own fault */
        return sqe;
}

static uint64_t loop_entry_data(const struct loop *l, uint32_t slot) {
        return (uint64_t)l->entries[slot].generation << 32 | (slot + 1);
}

static void loop_arm(struct loop_poll *p) {
        struct loop *l = p->loop;
        struct io_uring_sqe *sqe = loop_operation(l);
        io_uring_prep_poll_add(sqe, p->fd, p->events);
        io_uring_sqe_set_data64(sqe, loop_entry_data(l, p->slot - 1));
        p->is_armed = true;
}

/* Takes an armed operation back: its completion, if it still comes, finds another generation. */
static void loop_disarm(struct loop_poll *p) {
        struct loop *l = p->loop;
        if (!p->is_armed)
                return;
        struct io_uring_sqe *sqe = loop_operation(l);
        io_uring_prep_poll_remove(sqe, loop_entry_data(l, p->slot - 1));
        io_uring_sqe_set_data64(sqe, 0);
        l->entries[p->slot - 1].generation++;
        p->is_armed = false;
}

static int loop_grow(struct loop *l) {
        uint32_t n = l->n_entries ? l->n_entries * 2 : 64;
        struct loop_entry *entries = reallocarray(l->entries, n, sizeof(*entries));
        if (!entries)
                return -ENOMEM;
        l->entries = entries;
        for (uint32_t i = l->n_entries; i < n; i++)
                entries[i] = (struct loop_entry){.next_free = i + 1 < n ? i + 2 : l->free_entry};
        l->free_entry = l->n_entries + 1;
        l->n_entries = n;
        return 0;
}

int loop_poll_start(struct loop *l, struct loop_poll *p, int fd, uint32_t events, loop_poll_fn fn, void *user) {
        assert(p->slot == 0);
        if (!l->free_entry) {
                int r = loop_grow(l);
                if (r < 0)
                        return r;
        }
        uint32_t slot = l->free_entry - 1;
        l->free_entry = l->entries[slot].next_free;
        l->entries[slot].poll = p;
        *p = (struct loop_poll){.loop = l, .fn = fn, .user = user, .fd = fd, .events = events, .slot = slot + 1};
        if (events)
                loop_arm(p);
        return 0;
}

int loop_poll_change(struct loop_poll *p, uint32_t events) {
        if (p->slot == 0)
                return -ENOENT;
        if (p->events == events)
                return 0;
        loop_disarm(p);
        p->events = events;
        if (events)
                loop_arm(p);
        return 0;
}

void loop_poll_stop(struct loop_poll *p) {
        if (p->slot == 0)
                return;
        struct loop *l = p->loop;
        loop_disarm(p);
        uint32_t slot = p->slot - 1;
        l->entries[slot].generation++;
        l->entries[slot].poll = NULL;
        l->entries[slot].next_free = l->free_entry;
        l->free_entry = slot + 1;
        p->slot = 0;
}

/* ---- timers ---- */

static void loop_heap_place(struct loop *l, uint32_t i, struct loop_timer *t) {
        l->heap[i] = t;
        t->heap_index = i + 1;
}

static void loop_heap_up(struct loop *l, uint32_t i) {
        struct loop_timer *t = l->heap[i];
        while (i > 0 && l->heap[(i - 1) / 2]->deadline_ns > t->deadline_ns) {
                loop_heap_place(l, i, l->heap[(i - 1) / 2]);
                i = (i - 1) / 2;
        }
        loop_heap_place(l, i, t);
}

static void loop_heap_down(struct loop *l, uint32_t i) {
        struct loop_timer *t = l->heap[i];
        for (;;) {
                uint32_t child = 2 * i + 1;
                if (child >= l->n_timers)
                        break;
                if (child + 1 < l->n_timers && l->heap[child + 1]->deadline_ns < l->heap[child]->deadline_ns)
                        child++;
                if (l->heap[child]->deadline_ns >= t->deadline_ns)
                        break;
                loop_heap_place(l, i, l->heap[child]);
                i = child;
        }
        loop_heap_place(l, i, t);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ns, loop_timer_fn fn, void *user) {
        loop_timer_stop(t);
        if (l->n_timers == l->heap_capacity) {
                uint32_t n = l->heap_capacity ? l->heap_capacity * 2 : 64;
                struct loop_timer **heap = reallocarray(l->heap, n, sizeof(struct loop_timer *));
                assert(heap); /* a timer that cannot be set is a job that is never judged: stop rather than forget */
                l->heap = heap;
                l->heap_capacity = n;
        }
        *t = (struct loop_timer){.loop = l, .fn = fn, .user = user, .deadline_ns = deadline_ns};
        l->heap[l->n_timers] = t;
        loop_heap_up(l, l->n_timers++);
}

void loop_timer_stop(struct loop_timer *t) {
        if (t->heap_index == 0)
                return;
        struct loop *l = t->loop;
        uint32_t i = t->heap_index - 1;
        t->heap_index = 0;
        struct loop_timer *last = l->heap[--l->n_timers];
        if (last == t)
                return;
        loop_heap_place(l, i, last);
        loop_heap_up(l, i);
        loop_heap_down(l, last->heap_index - 1);
}

static void loop_run_timers(struct loop *l) {
        while (!l->is_exiting && l->n_timers > 0 && l->heap[0]->deadline_ns <= l->now_ns) {
                struct loop_timer *t = l->heap[0];
                loop_timer_stop(t);
                t->fn(t);
        }
}

/* ---- running ---- */

int loop_add_hook(struct loop *l, loop_hook_fn fn, void *user) {
        if (l->n_hooks == LOOP_MAX_HOOKS)
                return -ENOSPC;
        l->hooks[l->n_hooks++] = (struct loop_hook){fn, user};
        return 0;
}

static int loop_sleep(struct loop *l) {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec wait, *timeout = NULL;
        if (l->n_timers > 0) {
                uint64_t now = event_now_ns(), at = l->heap[0]->deadline_ns, left = at > now ? at - now : 0;
                wait = (struct __kernel_timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
                timeout = &wait;
        }
        int r = io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, timeout, NULL);
        return r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY ? r : 0;
}

static void loop_complete(struct loop *l, uint64_t data, int result) {
        uint32_t slot = (uint32_t)data - 1;
        if ((uint32_t)data == 0 || slot >= l->n_entries)
                return;
        struct loop_entry *entry = &l->entries[slot];
        if (!entry->poll || entry->generation != data >> 32)
                return;
        struct loop_poll *p = entry->poll;
        uint32_t generation = ++entry->generation; /* whatever the callback does, this completion is spent */
        p->is_armed = false;
        p->fn(p, result < 0 ? POLLERR : (uint32_t)result); /* may free p */
        entry = &l->entries[slot];                         /* the table may have moved */
        if (entry->poll == p && entry->generation == generation && !p->is_armed && p->events)
                loop_arm(p);
}

static void loop_run_completions(struct loop *l) {
        struct {
                uint64_t data;
                int result;
        } batch[LOOP_BATCH];
        struct io_uring_cqe *cqe;
        unsigned n = 0, head;
        io_uring_for_each_cqe(&l->ring, head, cqe) {
                batch[n].data = io_uring_cqe_get_data64(cqe);
                batch[n++].result = cqe->res;
                if (n == LOOP_BATCH)
                        break;
        }
        io_uring_cq_advance(&l->ring, n);
        for (unsigned i = 0; i < n && !l->is_exiting; i++)
                loop_complete(l, batch[i].data, batch[i].result);
}

int loop_run(struct loop *l) {
        l->is_exiting = false;
        while (!l->is_exiting) {
                for (unsigned i = 0; i < l->n_hooks; i++)
                        l->hooks[i].fn(l->hooks[i].user);
                if (l->is_exiting)
                        break;
                int r = loop_sleep(l);
                if (r < 0)
                        return r;
                l->now_ns = event_now_ns();
                loop_run_completions(l);
                loop_run_timers(l);
        }
        return l->exit_code;
}

void loop_exit(struct loop *l, int code) {
        l->is_exiting = true;
        l->exit_code = code;
}

uint64_t loop_now(const struct loop *l) { return l->now_ns; }
