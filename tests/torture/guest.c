/* torture-guest FILE SECONDS SEED: uses objects in an arena, of which it got the descriptor (FILE), and into which
 * somebody else writes anything.
 *
 * Any call may fail in any way, but each ends soon after its deadline, and none takes the process along. Says how many
 * calls there were and how many failed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/memory/event.h"
#include "tests/torture/part.h"

enum { CALLS_AN_OPENING = 50 };
#define DEADLINE_NS UINT64_C(2000000)
#define PATIENCE_NS UINT64_C(2000000000) /* past a deadline, on a machine that is busy: what a hang is not */

struct guest {
        drover_mutex *mutex;
        drover_queue *queue;
        drover_permits *permits;
        drover_rwlock *rwlock;
        drover_dictionary *dictionary;
        uint64_t random, n_calls, n_failed;
};

static void use_mutex(struct guest *g, uint64_t deadline_ns) {
        int r = drover_mutex_lock(g->mutex, deadline_ns);
        if (r == -EOWNERDEAD)
                drover_mutex_consistent(g->mutex);
        g->n_failed += r < 0 || drover_mutex_unlock(g->mutex) < 0;
}

static void use_queue(struct guest *g, uint64_t deadline_ns) {
        char item[16] = "item";
        size_t bytes;
        g->n_failed += drover_queue_put(g->queue, item, sizeof item, deadline_ns) < 0;
        if (drover_queue_get(g->queue, item, sizeof item, &bytes, deadline_ns) < 0)
                g->n_failed++;
        else if (bytes > sizeof item)
                part_fail("an item of %zu bytes", bytes);
        else
                drover_queue_task_done(g->queue);
}

static void use_permits(struct guest *g, uint64_t deadline_ns) {
        g->n_failed += drover_permits_acquire(g->permits, deadline_ns) < 0 || drover_permits_release(g->permits) < 0;
}

static void use_rwlock(struct guest *g, uint64_t deadline_ns) {
        int r = part_random(&g->random) % 2 ? drover_rwlock_read(g->rwlock, deadline_ns)
                                            : drover_rwlock_write(g->rwlock, deadline_ns);
        if (r == -EOWNERDEAD)
                drover_rwlock_consistent(g->rwlock);
        g->n_failed += r < 0 || drover_rwlock_unlock(g->rwlock) < 0;
}

static void use_dictionary(struct guest *g, uint64_t deadline_ns) {
        char key[2] = {(char)('a' + part_random(&g->random) % 8), 0}, value[32] = "value";
        size_t bytes = 0;
        g->n_failed += drover_dictionary_put(g->dictionary, key, 1, value, sizeof value, deadline_ns) < 0;
        int r = drover_dictionary_get(g->dictionary, key, 1, value, sizeof value, &bytes, deadline_ns);
        if (r == 0 && bytes > sizeof value)
                part_fail("a value of %zu bytes", bytes);
        g->n_failed += r < 0;
}

static void (*const uses[])(struct guest *g, uint64_t deadline_ns) = {use_mutex, use_queue, use_permits, use_rwlock,
                                                                      use_dictionary};
enum { USES = sizeof uses / sizeof *uses };

/* false: the arena or one of its objects does not make sense any more. */
static bool enter(struct guest *g, drover_arena *arena) {
        return drover_mutex_open(arena, "mutex", 0, &g->mutex) == 0 &&
               drover_queue_open(arena, "queue", 8, 16, DROVER_QUEUE_FIFO, &g->queue) == 0 &&
               drover_permits_open(arena, "permits", 2, &g->permits) == 0 &&
               drover_rwlock_open(arena, "rwlock", &g->rwlock) == 0 &&
               drover_dictionary_open(arena, "dictionary", 8, 8, 32, &g->dictionary) == 0;
}

static void leave(struct guest *g) {
        g->mutex = drover_mutex_free(g->mutex);
        g->queue = drover_queue_free(g->queue);
        g->permits = drover_permits_free(g->permits);
        g->rwlock = drover_rwlock_free(g->rwlock);
        g->dictionary = drover_dictionary_free(g->dictionary);
}

static void visit(struct guest *g, drover_arena *arena) {
        if (enter(g, arena))
                for (unsigned i = 0; i < CALLS_AN_OPENING && !part_is_over(); i++) {
                        uint64_t deadline_ns = event_now_ns() + DEADLINE_NS;
                        unsigned use = (unsigned)(part_random(&g->random) % USES);
                        uses[use](g, deadline_ns);
                        if (event_now_ns() > deadline_ns + PATIENCE_NS)
                                part_say("late use %u of an object went on long after its deadline", use);
                        g->n_calls++;
                }
        else
                g->n_failed++;
        leave(g);
}

int main(int argc, char *argv[]) {
        static struct guest g;
        if (argc != 4)
                return 2;
        part_init();
        g.random = strtoull(argv[3], NULL, 10);
        int fd = open(argv[1], O_RDWR | O_CLOEXEC);
        if (fd < 0)
                part_fail("%s: %s", argv[1], strerror(errno));
        part_say("ready");
        for (uint64_t end_ns = event_now_ns() + (uint64_t)(strtod(argv[2], NULL) * 1e9);
             event_now_ns() < end_ns && !part_is_over();) {
                const struct timespec rest = {.tv_nsec = 2000000};
                drover_arena *arena;
                if (drover_arena_attach(fd, &arena) < 0)
                        g.n_failed++;
                else {
                        visit(&g, arena);
                        drover_arena_free(arena);
                }
                nanosleep(&rest, NULL);
        }
        part_say("count guest-calls %llu", (unsigned long long)g.n_calls);
        part_say("count guest-failures %llu", (unsigned long long)g.n_failed);
        part_end();
}
