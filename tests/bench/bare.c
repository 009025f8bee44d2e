/* Bare rings and futexes, as fast as we know how.
 *
 * One worker: two rings of one producer and one consumer each, indices on lines of their own, the other side's index
 * cached, 64 bytes in the cell. Several workers: two rings of many producers and consumers (Vyukov's), so that any
 * worker takes any job. Whoever sleeps says so before it looks again; whoever publishes looks for sleepers after it. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"

enum { CELLS = 128 };

/* Sleepers of one ring. */
struct bare_event {
        _Alignas(64) _Atomic uint32_t seq;
        _Atomic uint32_t n_sleepers;
};

struct bare_spsc {
        _Alignas(64) _Atomic uint32_t tail;
        _Alignas(64) _Atomic uint32_t head;
        _Alignas(64) uint32_t head_cache; /* the producer's */
        _Alignas(64) uint32_t tail_cache; /* the consumer's */
        struct bare_event event;
        _Alignas(64) char cells[CELLS][BENCH_PAYLOAD];
};

struct bare_mpmc {
        _Alignas(64) _Atomic uint32_t tail;
        _Alignas(64) _Atomic uint32_t head;
        struct bare_event event;
        struct {
                _Alignas(64) _Atomic uint32_t seq;
                char data[BENCH_PAYLOAD];
        } cells[CELLS];
};

struct bare_memory {
        _Alignas(64) _Atomic uint32_t ping;
        _Alignas(64) _Atomic uint32_t pong;
        struct bare_spsc in, out;
        struct bare_mpmc many_in, many_out;
};

struct bare {
        struct bare_memory *memory;
        unsigned n_workers;
        bool spins;
        uint32_t n_pings;
        pid_t pids[2 * BARE_MAX_WORKERS];
        unsigned n_pids;
};

/* ---- sleeping ---- */

static void bare_publish(struct bare_event *e) {
        atomic_thread_fence(memory_order_seq_cst); /* ~ bare_sleep */
        if (atomic_load_explicit(&e->n_sleepers, memory_order_relaxed) == 0)
                return;
        atomic_fetch_add(&e->seq, 1);
        event_wake(&e->seq, 1);
}

static void bare_sleep(struct bare_event *e, bool (*is_empty)(void *ring), void *ring) {
        atomic_fetch_add(&e->n_sleepers, 1);
        atomic_thread_fence(memory_order_seq_cst); /* ~ bare_publish */
        uint32_t seen = atomic_load(&e->seq);
        if (is_empty(ring))
                event_wait(&e->seq, seen, EVENT_FOREVER);
        atomic_fetch_sub(&e->n_sleepers, 1);
}

/* ---- one producer, one consumer ---- */

static bool spsc_push(struct bare_spsc *r, const char *data) {
        uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        if (tail - r->head_cache == CELLS) {
                r->head_cache = atomic_load_explicit(&r->head, memory_order_acquire);
                if (tail - r->head_cache == CELLS)
                        return false;
        }
        memcpy(r->cells[tail % CELLS], data, BENCH_PAYLOAD);
        atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
        return true;
}

static bool spsc_pop(struct bare_spsc *r, char *data) {
        uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
        if (head == r->tail_cache) {
                r->tail_cache = atomic_load_explicit(&r->tail, memory_order_acquire);
                if (head == r->tail_cache)
                        return false;
        }
        memcpy(data, r->cells[head % CELLS], BENCH_PAYLOAD);
        atomic_store_explicit(&r->head, head + 1, memory_order_release);
        return true;
}

static bool spsc_is_empty(void *ring) {
        struct bare_spsc *r = ring;
        return atomic_load(&r->head) == atomic_load(&r->tail);
}

/* ---- many producers, many consumers ---- */

static bool mpmc_push(struct bare_mpmc *r, const char *data) {
        uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        for (;;) {
                uint32_t seq = atomic_load_explicit(&r->cells[tail % CELLS].seq, memory_order_acquire);
                if (seq == tail) {
                        if (atomic_compare_exchange_weak(&r->tail, &tail, tail + 1))
                                break;
                } else if ((int32_t)(seq - tail) < 0)
                        return false;
                else
                        tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        }
        memcpy(r->cells[tail % CELLS].data, data, BENCH_PAYLOAD);
        atomic_store_explicit(&r->cells[tail % CELLS].seq, tail + 1, memory_order_release);
        return true;
}

static bool mpmc_pop(struct bare_mpmc *r, char *data) {
        uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
        for (;;) {
                uint32_t seq = atomic_load_explicit(&r->cells[head % CELLS].seq, memory_order_acquire);
                if (seq == head + 1) {
                        if (atomic_compare_exchange_weak(&r->head, &head, head + 1))
                                break;
                } else if ((int32_t)(seq - (head + 1)) < 0)
                        return false;
                else
                        head = atomic_load_explicit(&r->head, memory_order_relaxed);
        }
        memcpy(data, r->cells[head % CELLS].data, BENCH_PAYLOAD);
        atomic_store_explicit(&r->cells[head % CELLS].seq, head + CELLS, memory_order_release);
        return true;
}

static bool mpmc_is_empty(void *ring) {
        struct bare_mpmc *r = ring;
        uint32_t head = atomic_load(&r->head);
        return (int32_t)(atomic_load(&r->cells[head % CELLS].seq) - (head + 1)) < 0;
}

/* ---- either, as this run has it ---- */

static bool bare_push(struct bare *b, bool is_out, const char *data) {
        struct bare_memory *m = b->memory;
        bool pushed = b->n_workers == 1 ? spsc_push(is_out ? &m->out : &m->in, data)
                                        : mpmc_push(is_out ? &m->many_out : &m->many_in, data);
        if (pushed && !b->spins)
                bare_publish(b->n_workers == 1 ? (is_out ? &m->out.event : &m->in.event)
                                               : (is_out ? &m->many_out.event : &m->many_in.event));
        return pushed;
}

static bool bare_try_pop(struct bare *b, bool is_out, char *data) {
        struct bare_memory *m = b->memory;
        return b->n_workers == 1 ? spsc_pop(is_out ? &m->out : &m->in, data)
                                 : mpmc_pop(is_out ? &m->many_out : &m->many_in, data);
}

static void bare_pop(struct bare *b, bool is_out, char *data) {
        struct bare_memory *m = b->memory;
        while (!bare_try_pop(b, is_out, data)) {
                if (b->spins)
                        event_pause();
                else if (b->n_workers == 1) {
                        struct bare_spsc *r = is_out ? &m->out : &m->in;
                        bare_sleep(&r->event, spsc_is_empty, r);
                } else {
                        struct bare_mpmc *r = is_out ? &m->many_out : &m->many_in;
                        bare_sleep(&r->event, mpmc_is_empty, r);
                }
        }
}

/* ---- the workers ---- */

static _Noreturn void bare_work(struct bare *b) {
        char data[BENCH_PAYLOAD];
        for (;;) {
                bare_pop(b, false, data);
                while (!bare_push(b, true, data))
                        event_pause();
        }
}

static _Noreturn void bare_pong(struct bare *b) {
        struct bare_memory *m = b->memory;
        for (uint32_t i = 1;; i++) {
                while (atomic_load(&m->ping) != i)
                        event_wait(&m->ping, i - 1, EVENT_FOREVER);
                atomic_store(&m->pong, i);
                event_wake(&m->pong, 1);
        }
}

static void bare_fork(struct bare *b, void (*run)(struct bare *b), int cpu) {
        pid_t pid = fork();
        if (pid < 0)
                bench_die("fork", errno);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                bench_pin(0, cpu);
                run(b);
                _exit(0);
        }
        b->pids[b->n_pids++] = pid;
}

struct bare *bare_start(unsigned n_workers, bool spins, int cpu) {
        struct bare *b = calloc(1, sizeof *b);
        if (!b || n_workers < 1 || n_workers > BARE_MAX_WORKERS)
                bench_die("bare_start", EINVAL);
        b->memory =
                mmap(NULL, sizeof *b->memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (b->memory == MAP_FAILED)
                bench_die("mmap", errno);
        for (uint32_t i = 0; i < CELLS; i++) {
                atomic_store(&b->memory->many_in.cells[i].seq, i);
                atomic_store(&b->memory->many_out.cells[i].seq, i);
        }
        b->n_workers = n_workers;
        b->spins = spins;
        for (unsigned i = 0; i < n_workers; i++)
                bare_fork(b, bare_work, cpu);
        if (!spins)
                bare_fork(b, bare_pong, cpu);
        bare_roundtrip(b); /* they are there */
        return b;
}

void bare_stop(struct bare *b) {
        for (unsigned i = 0; i < b->n_pids; i++)
                kill(b->pids[i], SIGKILL);
        for (unsigned i = 0; i < b->n_pids; i++)
                waitpid(b->pids[i], NULL, 0);
        munmap(b->memory, sizeof *b->memory);
        free(b);
}

void bare_ping(struct bare *b) {
        struct bare_memory *m = b->memory;
        uint32_t i = ++b->n_pings;
        atomic_store(&m->ping, i);
        event_wake(&m->ping, 1);
        while (atomic_load(&m->pong) != i)
                event_wait(&m->pong, i - 1, EVENT_FOREVER);
}

void bare_roundtrip(struct bare *b) {
        char data[BENCH_PAYLOAD] = "there and back";
        bare_push(b, false, data);
        bare_pop(b, true, data);
}

double bare_throughput(struct bare *b, uint64_t n_jobs, unsigned window) {
        char data[BENCH_PAYLOAD] = {0};
        uint64_t start_ns = event_now_ns(), sent = 0, got = 0;
        while (got < n_jobs) {
                while (sent < n_jobs && sent - got < window) {
                        memcpy(data, &sent, sizeof sent);
                        if (!bare_push(b, false, data))
                                break;
                        sent++;
                }
                bare_pop(b, true, data);
                do
                        got++;
                while (got < sent && bare_try_pop(b, true, data));
        }
        return (double)n_jobs * 1e9 / (double)(event_now_ns() - start_ns);
}
