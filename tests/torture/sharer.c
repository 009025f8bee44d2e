/* torture-sharer INSTANCE SEED: takes locks, permits and items of one arena, in random order, until SIGTERM; is killed
 * in between, and so are others that do the same. torture-sharer end: when all are gone, takes what they left and
 * checks that nothing is missing.
 *
 * Checked: what a mutex and a rwlock guard is never seen half changed but after -EOWNERDEAD; every item whose put
 * returned 0 is got at least once, and nothing else is got; at the end all permits are there, the queue is empty and
 * all is done. Who waits says how long. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/memory/event.h"
#include "tests/torture/part.h"

#define SHARER_ARENA "torture-objects"
#define SHARER_WAIT_NS UINT64_C(10000000000)

enum {
        SHARER_BYTES = 32 << 20,
        SHARER_ITEMS = 1 << 21, /* elements: one an item */
        SHARER_ITEMS_EACH = 1 << 14,
        SHARER_PERMITS = 2,
        SHARER_PARTIES = 2,
        SHARER_CAPACITY = 64,
        COUNT_EVERY = 512,
        REST_EVERY = 4,
};

/* An item's element: the lower half is what its producer says, the upper counts how often it was got. */
enum { ITEM_TRIED = 1, ITEM_PUT = 2 };
#define ITEM_GOT (UINT64_C(1) << 32)

struct sharer {
        drover_arena *arena;
        drover_mutex *mutex;
        drover_rwlock *rwlock;
        drover_permits *permits;
        drover_queue *queue;
        drover_barrier *barrier;
        drover_array *pairs; /* 0, 1: the mutex's; 2, 3: the rwlock's; equal whenever nobody writes */
        drover_array *items;
        uint64_t random, n_calls, n_dead_owners;
        uint32_t next_item, end_item;
};

static void open_all(struct sharer *s) {
        sd_bus *bus = part_bus();
        s->arena = part_arena(bus, SHARER_ARENA, SHARER_BYTES);
        const int results[] = {
                drover_mutex_open(s->arena, "mutex", 0, &s->mutex),
                drover_rwlock_open(s->arena, "rwlock", &s->rwlock),
                drover_permits_open(s->arena, "permits", SHARER_PERMITS, &s->permits),
                drover_queue_open(s->arena, "queue", SHARER_CAPACITY, sizeof(uint32_t), DROVER_QUEUE_FIFO, &s->queue),
                drover_barrier_open(s->arena, "barrier", SHARER_PARTIES, &s->barrier),
                drover_array_open(s->arena, "pairs", sizeof(uint64_t), 4, &s->pairs),
                drover_array_open(s->arena, "items", sizeof(uint64_t), SHARER_ITEMS, &s->items),
        };
        for (unsigned i = 0; i < sizeof results / sizeof *results; i++)
                if (results[i] < 0)
                        part_fail("object %u: %s", i, strerror(-results[i]));
}

/* Holds what it holds, for a moment or asleep. */
static void linger(struct sharer *s) {
        if (part_random(&s->random) % 8 == 0) {
                const struct timespec nap = {.tv_nsec = (long)(part_random(&s->random) % 1000000)};
                nanosleep(&nap, NULL);
        }
        uint64_t end_ns = event_now_ns() + part_random(&s->random) % 10000;
        while (event_now_ns() < end_ns)
                ;
}

static int waited(const char *what, uint64_t since_ns, int r) {
        part_waited(what, since_ns, event_now_ns());
        if (r < 0 && r != -EOWNERDEAD)
                part_fail("%s: %s", what, strerror(-r));
        return r;
}

/* With the writing side of what guards the pair. */
static void change(struct sharer *s, unsigned first, const char *what, int r) {
        uint64_t a, b;
        drover_array_load(s->pairs, first, &a);
        drover_array_load(s->pairs, first + 1, &b);
        if (r == 0 && a != b)
                part_fail("the %s let somebody see %llu and %llu", what, (unsigned long long)a, (unsigned long long)b);
        s->n_dead_owners += r == -EOWNERDEAD;
        drover_array_store(s->pairs, first, a + 1);
        linger(s);
        drover_array_store(s->pairs, first + 1, a + 1);
}

static void use_mutex(struct sharer *s) {
        int r = waited("mutex", event_now_ns(), drover_mutex_lock(s->mutex, drover_deadline_in(SHARER_WAIT_NS)));
        change(s, 0, "mutex", r);
        if (r == -EOWNERDEAD && (r = drover_mutex_consistent(s->mutex)) < 0)
                part_fail("mutex_consistent: %s", strerror(-r));
        if ((r = drover_mutex_unlock(s->mutex)) < 0)
                part_fail("mutex_unlock: %s", strerror(-r));
}

static void use_rwlock(struct sharer *s) {
        uint64_t since_ns = event_now_ns(), deadline_ns = drover_deadline_in(SHARER_WAIT_NS), a, b;
        int r;
        if (part_random(&s->random) % 3 > 0) {
                r = waited("rwlock-read", since_ns, drover_rwlock_read(s->rwlock, deadline_ns));
                if (r == 0) {
                        drover_array_load(s->pairs, 2, &a);
                        linger(s);
                        drover_array_load(s->pairs, 3, &b);
                        if (a != b)
                                part_fail("the rwlock let a reader see %llu and %llu", (unsigned long long)a,
                                          (unsigned long long)b);
                        if ((r = drover_rwlock_unlock(s->rwlock)) < 0)
                                part_fail("rwlock_unlock of a reader: %s", strerror(-r));
                        return;
                }
        }
        r = waited("rwlock-write", since_ns, drover_rwlock_write(s->rwlock, deadline_ns));
        change(s, 2, "rwlock", r);
        if (r == -EOWNERDEAD && (r = drover_rwlock_consistent(s->rwlock)) < 0)
                part_fail("rwlock_consistent: %s", strerror(-r));
        if ((r = drover_rwlock_unlock(s->rwlock)) < 0)
                part_fail("rwlock_unlock: %s", strerror(-r));
}

static void use_permits(struct sharer *s) {
        waited("permits", event_now_ns(), drover_permits_acquire(s->permits, drover_deadline_in(SHARER_WAIT_NS)));
        linger(s);
        int r = drover_permits_release(s->permits);
        if (r < 0)
                part_fail("permits_release: %s", strerror(-r));
}

static void put_item(struct sharer *s) {
        if (s->next_item == s->end_item)
                return;
        uint32_t item = s->next_item++;
        drover_array_store(s->items, item, ITEM_TRIED);
        int r = drover_queue_put(s->queue, &item, sizeof item, 0);
        if (r == 0)
                drover_array_add(s->items, item, ITEM_PUT - ITEM_TRIED, NULL);
        else if (r != -EAGAIN)
                part_fail("queue_put: %s", strerror(-r));
        else
                drover_array_store(s->items, item, 0);
}

/* 0 or -ETIMEDOUT, -EAGAIN. */
static int get_item(struct sharer *s, uint64_t deadline_ns) {
        uint32_t item = 0;
        size_t bytes;
        uint64_t before;
        int r = drover_queue_get(s->queue, &item, sizeof item, &bytes, deadline_ns);
        if (r == -ETIMEDOUT || r == -EAGAIN)
                return r;
        if (r < 0 || bytes != sizeof item || drover_array_add(s->items, item, ITEM_GOT, &before) < 0 || before == 0)
                part_fail("queue_get: %s, item %u of %zu bytes", strerror(-r), item, bytes);
        linger(s);
        if ((r = drover_queue_task_done(s->queue)) < 0)
                part_fail("task_done: %s", strerror(-r));
        return 0;
}

static void use_queue(struct sharer *s) {
        if (part_random(&s->random) % 2 == 0)
                put_item(s);
        else
                get_item(s, drover_deadline_in(part_random(&s->random) % 2000000));
}

static void use_barrier(struct sharer *s) {
        uint64_t since_ns = event_now_ns(), patience_ns = 5000000;
        int r = drover_barrier_wait(s->barrier, drover_deadline_in(patience_ns));
        part_waited("barrier", since_ns + patience_ns, event_now_ns());
        if (r == -EPIPE || r == -ETIMEDOUT)
                r = drover_barrier_reset(s->barrier);
        if (r < 0 || r >= SHARER_PARTIES)
                part_fail("barrier: %d", r);
}

static void run(struct sharer *s) {
        static void (*const uses[])(struct sharer * s) = {use_mutex, use_rwlock, use_permits,
                                                          use_queue, use_queue,  use_barrier};
        const unsigned n = sizeof uses / sizeof *uses;
        while (!part_is_over()) {
                uint64_t choice = part_random(&s->random);
                if (choice % 64 == 0) /* rarely: it is slow */
                        use_barrier(s);
                else
                        uses[choice / 64 % (n - 1)](s);
                if (++s->n_calls % COUNT_EVERY == 0) {
                        part_say("count calls %u", COUNT_EVERY);
                        part_say("count dead-owners %llu", (unsigned long long)s->n_dead_owners);
                        s->n_dead_owners = 0;
                }
                if (s->n_calls % REST_EVERY == 0) { /* others shall find a CPU, too */
                        const struct timespec rest = {.tv_nsec = (long)(part_random(&s->random) % 1500000)};
                        nanosleep(&rest, NULL);
                }
        }
        s->arena = drover_arena_free(s->arena);
}

static void check_end(struct sharer *s) {
        uint64_t n_put = 0, n_again = 0, element;
        while (get_item(s, 0) == 0)
                ;
        for (uint32_t i = 0; i < SHARER_ITEMS; i++) {
                drover_array_load(s->items, i, &element);
                uint64_t n_got = element / ITEM_GOT;
                if ((uint32_t)element == ITEM_PUT && n_got == 0)
                        part_fail("item %u was put and is lost", i);
                n_put += (uint32_t)element == ITEM_PUT;
                n_again += n_got > 1;
        }
        int r = drover_queue_join(s->queue, drover_deadline_in(1000000000));
        uint32_t n_queued = drover_queue_size(s->queue), n_permits = drover_permits_available(s->permits);
        if (r < 0 || n_queued != 0 || n_permits != SHARER_PERMITS)
                part_fail("at the end: join %d, %u items queued, %u of %u permits", r, n_queued, n_permits,
                          SHARER_PERMITS);
        use_mutex(s);
        use_rwlock(s);
        part_say("count items %llu", (unsigned long long)n_put);
        part_say("count items-again %llu", (unsigned long long)n_again);
}

int main(int argc, char *argv[]) {
        static struct sharer s;
        if (argc < 2)
                return 2;
        part_init();
        open_all(&s);
        if (strcmp(argv[1], "end") == 0) {
                check_end(&s);
                part_end();
        }
        s.next_item = (uint32_t)strtoul(argv[1], NULL, 10) * SHARER_ITEMS_EACH % SHARER_ITEMS;
        s.end_item = s.next_item + SHARER_ITEMS_EACH;
        s.random = strtoull(argv[2], NULL, 10);
        part_say("ready");
        run(&s);
        part_end();
}
