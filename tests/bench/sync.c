/* Locks and queues between two processes, next to what they are measured against, in alternating pairs.
 *
 *     sync mutex|queue [--pairs=N]
 *
 * mutex: lock and unlock of a process-shared pthread mutex. queue: one way, 64 bytes, against a bare ring with one
 * producer and one consumer that spin. Both sides pinned, one to a CPU. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/sync/include/drover/sync.h"
#include "tests/bench/bench.h"

enum {
        UNCONTENDED_ROUNDS = 1000000,
        CONTENDED_ROUNDS = 4000000,
        ITEMS = 400000,
        RING = 1024,
        ITEM_BYTES = 64,
};

struct ring {
        _Atomic uint64_t head;
        char pad0[56];
        _Atomic uint64_t tail;
        char pad1[56];
        char items[RING][ITEM_BYTES];
};

struct shared {
        pthread_mutex_t mutex;
        _Atomic uint32_t n_ready;
        char pad[64];
        uint64_t counter;
        char pad1[64];
        struct ring ring;
};

struct bench {
        struct shared *shared;
        drover_arena *arena;
        const char *queue_name;
        unsigned order;
};

struct side {
        const struct bench *bench;
        drover_arena *arena;
        drover_mutex *mutex;
        drover_queue *queue;
};

/* ---- what one side does ---- */

static void lock_pthread(struct side *s, unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                pthread_mutex_lock(&s->bench->shared->mutex);
                s->bench->shared->counter++;
                pthread_mutex_unlock(&s->bench->shared->mutex);
        }
}

static void lock_drover(struct side *s, unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                drover_mutex_lock(s->mutex, DROVER_FOREVER);
                s->bench->shared->counter++;
                drover_mutex_unlock(s->mutex);
        }
}

static void wait_change(const _Atomic uint64_t *word, uint64_t old) {
        for (unsigned i = 0; atomic_load_explicit(word, memory_order_acquire) == old; i++)
                event_pause();
}

static void ring_put(struct ring *r, unsigned n) {
        uint64_t head_seen = atomic_load(&r->head), tail = atomic_load(&r->tail);
        char item[ITEM_BYTES] = {1};
        for (unsigned i = 0; i < n; i++, tail++) {
                while (tail - head_seen == RING) {
                        wait_change(&r->head, head_seen);
                        head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
                }
                memcpy(r->items[tail % RING], item, ITEM_BYTES);
                atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
        }
}

static void ring_get(struct ring *r, unsigned n) {
        uint64_t tail_seen = atomic_load(&r->tail), head = atomic_load(&r->head);
        char item[ITEM_BYTES];
        for (unsigned i = 0; i < n; i++, head++) {
                while (head == tail_seen) {
                        wait_change(&r->tail, tail_seen);
                        tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
                }
                memcpy(item, r->items[head % RING], ITEM_BYTES);
                __asm__ volatile("" : : "r"(item) : "memory");
                atomic_store_explicit(&r->head, head + 1, memory_order_release);
        }
}

static void queue_put(struct side *s) {
        char item[ITEM_BYTES] = {1};
        for (unsigned i = 0; i < ITEMS; i++)
                if (drover_queue_put(s->queue, item, sizeof item, DROVER_FOREVER) < 0)
                        exit(1);
}

static void queue_get(struct side *s) {
        char item[ITEM_BYTES];
        size_t bytes;
        for (unsigned i = 0; i < ITEMS; i++) {
                if (drover_queue_get(s->queue, item, sizeof item, &bytes, DROVER_FOREVER) < 0)
                        exit(1);
                if (s->bench->order != DROVER_QUEUE_SIMPLE && drover_queue_task_done(s->queue) < 0)
                        exit(1);
        }
}

static void contend_pthread(struct side *s, int is_child) { lock_pthread(s, CONTENDED_ROUNDS); }
static void contend_drover(struct side *s, int is_child) { lock_drover(s, CONTENDED_ROUNDS); }
static void pass_ring(struct side *s, int is_child) {
        (is_child ? ring_put : ring_get)(&s->bench->shared->ring, ITEMS);
}
static void pass_drover(struct side *s, int is_child) { (is_child ? queue_put : queue_get)(s); }

/* ---- measuring ---- */

static void side_open(struct side *s, const struct bench *b, drover_arena *a) {
        *s = (struct side){.bench = b, .arena = a};
        int r = drover_mutex_open(a, "mutex", 0, &s->mutex);
        if (r == 0 && b->queue_name)
                r = drover_queue_open(a, b->queue_name, RING, ITEM_BYTES, b->order, &s->queue);
        if (r < 0)
                bench_die("objects", -r);
}

static void side_close(struct side *s) {
        drover_queue_free(s->queue);
        drover_mutex_free(s->mutex);
}

static void start_together(struct shared *shared) {
        atomic_fetch_add(&shared->n_ready, 1);
        while (atomic_load(&shared->n_ready) < 2)
                ;
}

/* ns from start to the end of both */
static double both(const struct bench *b, void (*fn)(struct side *s, int is_child)) {
        struct side s;
        atomic_store(&b->shared->n_ready, 0);
        pid_t pid = fork();
        if (pid < 0)
                bench_die("fork", errno);
        if (pid == 0) {
                drover_arena *a;
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                bench_pin(0, 1);
                if (drover_arena_attach(drover_arena_fd(b->arena), &a) < 0)
                        exit(1);
                side_open(&s, b, a);
                start_together(b->shared);
                fn(&s, 1);
                side_close(&s);
                drover_arena_free(a);
                _exit(0);
        }
        bench_pin(0, 0);
        side_open(&s, b, b->arena);
        start_together(b->shared);
        uint64_t start = event_now_ns();
        fn(&s, 0);
        int status;
        if (waitpid(pid, &status, 0) != pid || status != 0)
                bench_die("the other side", ECHILD);
        uint64_t took = event_now_ns() - start;
        side_close(&s);
        return (double)took;
}

static double alone(const struct bench *b, void (*fn)(struct side *s, unsigned n)) {
        struct side s;
        bench_pin(0, 0);
        side_open(&s, b, b->arena);
        uint64_t start = event_now_ns();
        fn(&s, UNCONTENDED_ROUNDS);
        uint64_t took = event_now_ns() - start;
        side_close(&s);
        return (double)took / UNCONTENDED_ROUNDS;
}

static double ours_uncontended(const struct bench *b) { return alone(b, lock_drover); }
static double limit_uncontended(const struct bench *b) { return alone(b, lock_pthread); }
static double ours_contended(const struct bench *b) { return 2e3 * CONTENDED_ROUNDS / both(b, contend_drover); }
static double limit_contended(const struct bench *b) { return 2e3 * CONTENDED_ROUNDS / both(b, contend_pthread); }
static double ours_queue(const struct bench *b) { return 1e3 * ITEMS / both(b, pass_drover); }
static double limit_queue(const struct bench *b) { return 1e3 * ITEMS / both(b, pass_ring); }

static const struct {
        const char *bench, *name, *unit, *limit_name;
        double (*ours)(const struct bench *b), (*limit)(const struct bench *b);
        unsigned order;
} cases[] = {
        {"mutex", "uncontended", "ns", "pthread pshared", ours_uncontended, limit_uncontended, 0},
        {"mutex", "contended", "M/s", "pthread pshared", ours_contended, limit_contended, 0},
        {"queue", "simple", "M/s", "bare SPSC ring", ours_queue, limit_queue, DROVER_QUEUE_SIMPLE},
        {"queue", "leased", "M/s", "bare SPSC ring", ours_queue, limit_queue, DROVER_QUEUE_FIFO},
};

static void run(struct bench *b, unsigned i, unsigned n_pairs) {
        static struct bench_pairs p;
        b->queue_name = cases[i].order ? cases[i].name : NULL;
        b->order = cases[i].order;
        p = (struct bench_pairs){
                .bench = cases[i].bench,
                .name = cases[i].name,
                .unit = cases[i].unit,
                .limit_name = cases[i].limit_name,
                .n = n_pairs,
        };
        for (unsigned k = 0; k < n_pairs; k++) {
                p.limit[k] = cases[i].limit(b);
                p.ours[k] = cases[i].ours(b);
        }
        bench_report(&p);
}

int main(int argc, char *argv[]) {
        struct bench b = {0};
        unsigned n_pairs = bench_pairs(argc, argv);
        if (argc < 2) {
                fputs("sync mutex|queue [--pairs=N]\n", stderr);
                return 2;
        }
        b.shared = mmap(NULL, sizeof *b.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (b.shared == MAP_FAILED)
                bench_die("memory", errno);
        int r = drover_arena_create("bench", 4 << 20, &b.arena);
        if (r < 0)
                bench_die("arena", -r);
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutex_init(&b.shared->mutex, &attributes);
        for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
                if (strcmp(cases[i].bench, argv[1]) == 0)
                        run(&b, i, n_pairs);
        drover_arena_free(b.arena);
        return 0;
}
