/* A pool with a real worker that must go on serving, and one that a test stands in for, writes anything anywhere as,
 * and lets die; jobs over the bus and of a client's channel that wait meanwhile. The broker is in this process. */
#pragma once

#include "tests/unit/supervise-fixture.h"

#include "daemon/supervise/jobs/job.h"
#include "ipc/memory/event.h"

enum { CLIENT_UID = 12345, RUN_MS = 3, AHEAD_MS = 6, PATIENCE_S = 20 };
#define SECOND (1000 * MS)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

extern struct pool *pool;
extern struct stand_in honest, wild; /* numbers 0 and 1, in turn */
extern struct session_owner owner;
extern struct pool_channel *session;  /* the client's */
extern const char *plugin, *job_type; /* one argument, "ms" */
extern uint32_t client_slot;
extern const char *what; /* is tried, for who reads of a failure */
extern uint64_t value;   /* that is written */
extern uint64_t seed;
extern const char *only; /* DROVER_TEST_ONLY=: what begins so, and nothing else */
extern unsigned n_tries, n_late;
extern bool all_are_done; /* false: what is written may be a verdict */

#define EXPECT(condition)                                                                                              \
        do {                                                                                                           \
                if (!(condition))                                                                                      \
                        fail_msg("%s = %llx: not so: %s", what, (unsigned long long)value, #condition);                \
        } while (0)

/* On a busy machine a process may get no CPU for a second: that is late, and must be rare. Never is something else. */
#define WITHIN_A_SECOND(condition)                                                                                     \
        do {                                                                                                           \
                uint64_t since_ns = event_now_ns();                                                                    \
                bool is_so;                                                                                            \
                while (!(is_so = (condition)) && event_now_ns() - since_ns < PATIENCE_S * SECOND) {                    \
                        turn();                                                                                        \
                        care();                                                                                        \
                }                                                                                                      \
                if (!is_so)                                                                                            \
                        fail_msg("%s = %llx: never: %s", what, (unsigned long long)value, #condition);                 \
                n_late += event_now_ns() - since_ns > SECOND;                                                          \
        } while (0)

/* From the first worker to the last, and a look whether anybody spins. */
void begin_with(void (*change)(struct pool_config *c));
void finish(void);
void two_workers(struct pool_config *c);
void care(void); /* in each turn: a worker that ended is followed by another one */

/* Over the bus: a job of `ms`, not before `ahead_ms` from now; 0 = no limit. */
struct job *submit(uint64_t ms, uint64_t ahead_ms, uint64_t hard_ns);
struct job_info info_of(const struct job *j);
void close_session(void);
void client_submit(void);
bool client_is_done(void);

/* Jobs are there, `scribble` writes, the worker that it stands for dies: they have their verdicts, new ones are done.
 */
void try(const char *name, uint64_t written, void (*scribble)(void *at), void *at);
void serves(void);

uint64_t some(void); /* by chance, from `seed` */

/* Memories, wherever they are at the moment: a session may have to be opened anew. */
const struct channel *own(void);
const struct channel *clients(void);
void *in_pool(void);
void *in_line_0(void);
void *in_line_1(void);
void *in_own_bell(void);
void *in_clients_bell(void);
void *in_own(void);
void *in_clients(void);

/* Ways to write. `value` 2: any. */
extern const struct channel *spoilt;
void fill(void *at, size_t bytes);
void scribble_common(void *unused); /* all of `spoilt` that a worker can write, but results */
void scribble_some_bytes(void *page);

int heal_main(const struct CMUnitTest *tests, size_t n_tests);
