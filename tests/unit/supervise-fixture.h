/* A supervisor in this process, and a stand-in for its spawner that the test plays, with workers that do nothing. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/supervise/supervisor-internal.h"

#define MS UINT64_C(1000000)
enum { PATIENCE_TURNS = 3000 };

extern struct loop *loop;
extern struct supervisor *supervisor;
extern int spawner; /* the stand-in's end */

struct stand_in { /* a worker as the test plays it */
        uint32_t id;
        pid_t pid;
        int fd;
};

int setup(void **state);
int teardown(void **state);

/* The loop, a millisecond at a time. */
void turn(void);
void turns(unsigned n);

#define UNTIL(condition)                                                                                               \
        do {                                                                                                           \
                unsigned n_left = PATIENCE_TURNS;                                                                      \
                bool is_so;                                                                                            \
                while (!(is_so = (condition)) && n_left--)                                                             \
                        turn();                                                                                        \
                assert_true(is_so);                                                                                    \
        } while (0)

/* The next request of that type; others are passed over. */
struct spawn_request expect(enum spawn_request_type type);
/* How many of that type there are, and nothing is left of the others. */
unsigned count(enum spawn_request_type type);
void answer(struct spawn_event e, const int *fds, unsigned n_fds);
void load(void); /* the plugin file is asked for, and sealed */
struct stand_in started(uint32_t id);
struct stand_in ready(void); /* the next worker that is asked for */
void end(struct stand_in *w, int code, int status);
/* With REPORT_READY go the job types of worker_schema. */
void report(const struct stand_in *w, enum worker_report_type type, uint32_t channel);
extern const char *worker_schema;

/* Pool "p" of plugin "fake", with one worker and four slots unless `change` says otherwise. */
struct pool *add_pool(void (*change)(struct pool_config *c));
