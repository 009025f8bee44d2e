/* A session against a stand-in for the daemon: a peer on a socketpair answers OpenChannel, and the test itself plays
 * worker and broker on the channel's memory. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <systemd/sd-bus.h>

#include "ipc/channel/channel.h"
#include "ipc/client/session/session.h"
#include "ipc/memory/doorbell.h"

enum { SLOTS = 4, BYTES = 64, WORKER = 2, INDEX = 7 };

#define ID_BASE (UINT64_C(5) << 40)

/* What the peer leaves out or gets wrong. */
enum fault { NO_FAULT, NO_BELL, NO_JOBS, BAD_SCHEMA, BAD_SLOTS, WRONG_SIZE, BUS_ERROR, SILENT, MORE_KEYS };

struct daemon {
        struct channel broker, worker;
        struct layout_bell *bell;
        int channel_fds[CHANNEL_PARTS], bell_fd, sockets[2];
        struct doorbell doorbell, done;
        _Atomic uint64_t record;
        uint64_t id_base;
        enum fault fault;
        unsigned n_back; /* how often a channel was handed back */
        int back_fds[CHANNEL_PARTS];
        sd_bus *peer, *bus;
        pthread_t thread;
        struct session *session;
};

/* For cmocka_unit_test_setup_teardown: *state is a struct daemon. */
int session_setup(void **state);
int session_teardown(void **state);
#define SESSION_TEST(test) cmocka_unit_test_setup_teardown(test, session_setup, session_teardown)

struct session *session_fixture_open(struct daemon *d);
/* Claims the next queued job as a worker; its slot word, *ret_slot. */
uint64_t session_fixture_claim(struct daemon *d, uint32_t *ret_slot);
/* Its slot. */
uint32_t session_fixture_submit(struct session *s, uint32_t type, const char *payload, uint64_t user);
/* Runs the next queued job as a worker would. */
void session_fixture_work(struct daemon *d, enum slot_state verdict, int error, const void *data, size_t bytes);
