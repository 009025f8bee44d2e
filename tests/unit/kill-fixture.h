/* The processes of the test of kills, and how they die: a worker and clients on rings, slots, bells and waits that are
 * compiled with kill points. The test itself is their broker. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "ipc/channel/channel.h"
#include "ipc/memory/doorbell.h"

enum {
        WORKERS = 3,
        VICTIMS = 24, /* clients that die, one channel each */
        CHANNELS = 1 + VICTIMS,
        SLOTS = 16,
        JOBS = 6000,
        CRASH_EVERY = 101, /* a job that kills each worker that runs it */
        N_WORKER_POINTS = 19,
        N_CLIENT_POINTS = 11,
};

extern const char *const worker_points[N_WORKER_POINTS], *const client_points[N_CLIENT_POINTS];

/* Shared by all processes of a test, besides what is tested. */
struct shared {
        _Atomic uint64_t record[WORKERS];
        _Atomic uint32_t stop;
        _Atomic uint32_t n_deaths_at[N_WORKER_POINTS];
        _Atomic uint32_t n_client_deaths_at[N_CLIENT_POINTS];
        _Atomic uint64_t n_verdicts, n_retries, n_poisoned;
};

struct broker {
        struct shared *shared;
        struct layout_bell *bell;
        int bell_fd, n_channels;
        struct doorbell doorbell;
        struct channel channels[CHANNELS];
        int channel_fds[CHANNELS][CHANNEL_PARTS];
        struct doorbell dones[CHANNELS];
        bool is_open[CHANNELS];
        pid_t workers[WORKERS], steady, victim;
        unsigned seed, n_deaths, n_victims;
        uint64_t n_requeued; /* of the steady client's jobs */
};

/* Where this process is to die. */
struct kill_plan {
        const char *name;
        _Atomic uint32_t *n_deaths;
        unsigned n_left;     /* visits of `name` */
        unsigned n_any_left; /* visits of any place */
};
extern struct kill_plan kill_plan;

#define CHECK(condition)                                                                                               \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
                        _exit(1);                                                                                      \
                }                                                                                                      \
        } while (0)

/* First in each child. */
void child_begin(void);

/* A child's life. The steady client sends JOBS and checks each verdict; a victim sends until it dies of its plan. */
void worker_main(struct broker *b, uint32_t index) __attribute__((noreturn));
void client_main(struct broker *b) __attribute__((noreturn));
void victim_main(struct broker *b, int index, const struct kill_plan *plan) __attribute__((noreturn));
