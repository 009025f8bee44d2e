/* One worker that serves: a real drover-worker on a trial's channel, its jobs of one number, and what it tells. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <sys/types.h>

#include "ipc/memory/event.h"
#include "plugins/host/author/trial.h"

enum { SECONDS = 30 };

/* SECONDS from now. */
uint64_t serve_fixture_deadline(void);

/* Waits for `condition` to hold: what the worker does shows in memory, without an event. */
#define await(condition)                                                                                               \
        do {                                                                                                           \
                for (uint64_t deadline_ns = serve_fixture_deadline(); !(condition);) {                                 \
                        if (event_now_ns() > deadline_ns)                                                              \
                                fail_msg("never came true: %s", #condition);                                           \
                        poll(NULL, 0, 1);                                                                              \
                }                                                                                                      \
        } while (0)

/* A worker of this plugin that claims; then it retires, and must end with this wait status. */
pid_t serve_fixture_start(struct trial *t, const char *plugin);
void serve_fixture_finish(struct trial *t, pid_t pid, int expected_status);

/* Submits `job` with its one u64 argument. */
void serve_fixture_submit(struct trial *t, uint32_t slot, const char *job, const char *name, uint64_t value,
                          uint32_t priority);
/* Waits for it. */
unsigned serve_fixture_verdict(struct trial *t, uint32_t slot);
bool serve_fixture_is_running(struct trial *t, uint32_t slot);

/* Waits until the worker says that it has let channel 0 go. */
void serve_fixture_await_dropped(struct trial *t);
