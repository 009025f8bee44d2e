/* The D-Bus face of droverd (sd-bus on the daemon's own loop). For daemon.c:
 *
 *   bus_new         connects; needs nothing but the loop
 *   bus_fill_hooks  for supervisor_config.hooks: what the supervisor reports becomes signals
 *   bus_start       objects, then the name org.drover1; the only calls that wait for the bus
 *   bus_farewell    before bus_free, if there is time: answers who was just told of a verdict
 *   bus_free        answers what is still pending with ShuttingDown, flushes, disconnects; before supervisor_free
 *
 * From bus_start on everything runs inside loop_run, and nothing in here waits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config/config.h"
#include "daemon/loop/loop.h"
#include "daemon/reload.h"
#include "daemon/supervise/supervisor.h"

struct bus;

struct bus_config {
        struct loop *loop;
        bool is_user;        /* the session bus, else the system bus */
        const char *address; /* NULL = that bus's usual address */
        void *user;
        /* The connection broke: the daemon says so and ends. Called once, from the loop. */
        void (*on_lost)(void *user, int error);
        /* Manager.Reload: `done` is called once, perhaps at once, but before bus_free. */
        void (*on_reload)(void *user, reload_done_fn done, void *done_user);
};

/* -errno with one sentence in `error`: no such bus, refused … */
int bus_new(struct bus **ret, const struct bus_config *c, char *error, size_t error_bytes);
/* close.c: what libsystemd closes from now on is closed by daemon/loop/closer.h. */
void close_catch_libsystemd(void);
/* Valid before bus_start too: until then the hooks only keep books. */
void bus_fill_hooks(struct bus *b, struct supervisor_hooks *hooks);
/* -EEXIST: another droverd owns the name; -EPERM: the bus policy forbids it … */
int bus_start(struct bus *b, struct supervisor *s, char *error, size_t error_bytes);
/* Calls `done` from the loop, or at once: within a second. */
void bus_farewell(struct bus *b, void (*done)(void *user), void *user);
struct bus *bus_free(struct bus *b);
