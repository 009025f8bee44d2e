/* What the tests of sharing objects have in common: an arena, threads, child processes that attach to it, and the part
 * of a broker: to wait for a child and repair. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/sync/include/drover/sync.h"

#define MS UINT64_C(1000000)

/* How many times slower everything is, roughly. */
#ifdef __SANITIZE_THREAD__
enum { SLOWER = 20 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SLOWER = 4 };
#else
enum { SLOWER = 1 };
#endif

#define STUCK_NS (20000 * MS)

/* In children and threads, where cmocka's asserts do not work. */
#define CHECK(condition)                                                                                               \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
                        _exit(1);                                                                                      \
                }                                                                                                      \
        } while (0)

static inline uint64_t in_ms(uint64_t ms) { return drover_deadline_in(ms * MS); }
static inline uint64_t stuck(void) { return drover_deadline_in(STUCK_NS); }

drover_arena *fixture_arena(uint64_t bytes);

/* Handles that live as long as the arena; fixture_free frees them, then it. */
void fixture_own(void (*free_handle)(void), void *handle);
#define OWN(kind, handle) fixture_own((void (*)(void))drover_##kind##_free, (handle))
void fixture_free(drover_arena *arena);

/* Memory that children share beside the arena, zeroed. */
void *fixture_shared(size_t bytes);
void fixture_unshare(void *p, size_t bytes);

/* A child process, attached to the arena: runs fn(arena of its own, user) and exits 0. */
pid_t fixture_fork(drover_arena *arena, void (*fn)(drover_arena *arena, void *user), void *user);
/* Waits for its end, repairs after it. Returns the exit code, or −signal. */
int fixture_reap(drover_arena *arena, pid_t pid);
/* SIGKILL, wait, repair. Returns how long ago, in ns, the kill was. */
uint64_t fixture_kill(drover_arena *arena, pid_t pid);

/* n at once, as threads of this process or as children; all must end well. */
struct fixture_crew {
        void (*fn)(drover_arena *arena, void *user);
        void *user;
        unsigned n;
        int are_processes;
};
void fixture_run(drover_arena *arena, const struct fixture_crew *crew);

/* Waits, with a deadline, until as many threads as that sleep on the object. */
void fixture_await_waiters(drover_arena *arena, const char *name, uint32_t n);
struct drover_object_info fixture_info(drover_arena *arena, const char *name);
