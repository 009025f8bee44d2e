/* The connection to the bus and its place in the event loop.
 *
 * sd-bus has no loop of its own here: its descriptor is polled by ours, and before every sleep a hook reads its
 * descriptor, events and timeout anew, because any handler of any event may have queued a message. A timeout that has
 * passed already also means "I have read messages that you did not process yet". Messages are read by intake.c; those
 * not served at once are served in turns, before every sleep (turn.c).
 *
 * Only bus_start waits for the bus, before the loop runs. A lost connection is reported once; nothing here reconnects.
 */
#include "daemon/bus/bus.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/bus/call.h"
#include "daemon/bus/late.h"
#include "daemon/bus/value.h"
#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "ipc/memory/event.h"

enum { NAME_TRIES = 50, NAME_PAUSE_NS = 20000000, SHORT_PAUSE_NS = 10000000, FLUSH_NS = 2000000000 };

/* ---- in the loop ---- */

void bus_lose(struct bus *b, int error) {
        if (b->is_lost)
                return;
        b->is_lost = true;
        loop_poll_stop(&b->poll);
        loop_timer_stop(&b->timer);
        b->config.on_lost(b->config.user, error);
}

static void on_ready(struct loop_poll *p, uint32_t revents) { intake_round(p->user); }

static void on_timer(struct loop_timer *t) { intake_round(t->user); }

/* No message is read, since each may bring more: until descriptors are closed. */
static void rest(struct bus *b) {
        if (!b->is_resting)
                log_warning(
                        "no message is read from the bus: so many descriptors that came with messages are not closed "
                        "yet, because whoever made them (FUSE, a socket with SO_LINGER) keeps their close waiting");
        b->is_resting = true;
        loop_poll_change(&b->poll, 0);
        loop_timer_set(b->config.loop, &b->timer, loop_now(b->config.loop) + SHORT_PAUSE_NS, on_timer, b);
}

/* Before every sleep: what was read is served, then what is to be waited for. */
static void prepare(void *user) {
        enum turn_end end = TURN_IDLE;
        struct bus *b = user;
        uint64_t usec;
        int fd, events, r;

        if (b->is_lost)
                return;
        if (closer_is_short()) {
                rest(b);
                return;
        }
        b->is_resting = false;
        end = turn_take(b);
        fd = sd_bus_get_fd(b->bus);
        events = fd < 0 ? fd : sd_bus_get_events(b->bus);
        if (events < 0) {
                bus_lose(b, events);
                return;
        }
        if (end == TURN_CONGESTED)
                events |= POLLOUT;
        if (b->poll.fd != fd) {
                loop_poll_stop(&b->poll);
                r = loop_poll_start(b->config.loop, &b->poll, fd, (uint32_t)events, on_ready, b);
        } else
                r = b->poll.events != (uint32_t)events ? loop_poll_change(&b->poll, (uint32_t)events) : 0;
        if (r >= 0)
                r = sd_bus_get_timeout(b->bus, &usec);
        if (end == TURN_OVER)
                usec = 0;
        if (end == TURN_CONGESTED && turn_deadline(b) / 1000 < usec)
                usec = turn_deadline(b) / 1000 + 1;
        if (r < 0)
                bus_lose(b, r);
        else if (usec == UINT64_MAX)
                loop_timer_stop(&b->timer);
        else
                loop_timer_set(b->config.loop, &b->timer, usec > UINT64_MAX / 1000 ? UINT64_MAX : usec * 1000, on_timer,
                               b);
}

/* ---- objects ---- */

static int add_objects(struct bus *b) {
        static const struct {
                const char *prefix, *interface;
                const sd_bus_vtable *vtable;
                sd_bus_object_find_t find;
                sd_bus_node_enumerator_t enumerate;
        } faces[] = {
                {BUS_POOLS, BUS_POOL, pool_vtable, pool_face_find, pool_face_enumerate},
                {BUS_WORKERS, BUS_WORKER, worker_vtable, worker_face_find, worker_face_enumerate},
                {BUS_JOBS, BUS_JOB, job_vtable, job_face_find, NULL},
        };
        int r;

        r = sd_bus_add_object_vtable(b->bus, NULL, BUS_ROOT, BUS_MANAGER, manager_vtable, b);
        if (r >= 0)
                r = sd_bus_add_object_manager(b->bus, NULL, BUS_ROOT);
        if (r >= 0)
                r = sd_bus_add_filter(b->bus, NULL, bus_properties_filter, b);
        if (r >= 0)
                r = sd_bus_add_filter(b->bus, NULL, intake_filter, b); /* the last one is asked first */
        for (size_t i = 0; i < sizeof(faces) / sizeof(*faces) && r >= 0; i++) {
                r = sd_bus_add_fallback_vtable(b->bus, NULL, faces[i].prefix, faces[i].interface, faces[i].vtable,
                                               faces[i].find, b);
                if (r >= 0 && faces[i].enumerate)
                        r = sd_bus_add_node_enumerator(b->bus, NULL, faces[i].prefix, faces[i].enumerate, b);
        }
        return r;
}

/* Started right after another one ended, we may be faster than the bus is told of its end. */
static int take_name(struct bus *b) {
        const struct timespec pause = {.tv_nsec = NAME_PAUSE_NS};
        int r = sd_bus_request_name(b->bus, BUS_NAME, 0);

        for (unsigned i = 0; r == -EEXIST && i < NAME_TRIES; i++) {
                nanosleep(&pause, NULL);
                r = sd_bus_request_name(b->bus, BUS_NAME, 0);
        }
        return r;
}

int bus_start(struct bus *b, struct supervisor *s, char *error, size_t error_bytes) {
        int r;

        b->supervisor = s;
        r = add_objects(b);
        if (r >= 0)
                r = take_name(b);
        if (r >= 0)
                r = loop_add_hook(b->config.loop, prepare, b);
        if (r >= 0) {
                sd_bus_set_method_call_timeout(b->bus, UINT64_MAX); /* the bus answers, or the connection ends */
                b->is_started = true;
                return 0;
        }
        if (r == -EEXIST)
                snprintf(error, error_bytes, "the name " BUS_NAME " is taken on this bus: another droverd runs there");
        else if (r == -EACCES || r == -EPERM)
                snprintf(error, error_bytes,
                         "the bus policy does not let us own " BUS_NAME " (is org.drover1.conf installed?)");
        else
                snprintf(error, error_bytes, "cannot serve " BUS_NAME " on the bus: %s", strerror(-r));
        return r;
}

/* ---- connection ---- */

static int connect_bus(struct bus *b) {
        int r;

        if (!b->config.address)
                return b->config.is_user ? sd_bus_open_user(&b->bus) : sd_bus_open_system(&b->bus);
        r = sd_bus_new(&b->bus);
        if (r >= 0)
                r = sd_bus_set_address(b->bus, b->config.address);
        if (r >= 0)
                r = sd_bus_set_bus_client(b->bus, true);
        return r < 0 ? r : sd_bus_start(b->bus);
}

int bus_new(struct bus **ret, const struct bus_config *c, char *error, size_t error_bytes) {
        struct bus *b = calloc(1, sizeof(*b));
        int r;

        if (!b) {
                snprintf(error, error_bytes, "out of memory");
                return -ENOMEM;
        }
        b->config = *c;
        TAILQ_INIT(&b->peers);
        TAILQ_INIT(&b->waiting_for_pool);
        TAILQ_INIT(&b->waiting_for_room);
        TAILQ_INIT(&b->late);
        STAILQ_INIT(&b->builtin);
        b->poll.fd = -1;
        watch_init(b);
        user_init(b);
        r = connect_bus(b);
        if (r >= 0)
                r = sd_bus_get_unique_name(b->bus, &b->unread.name); /* waits for the bus's greeting */
        if (r < 0) {
                if (r == -ENOMEDIUM)
                        snprintf(error, error_bytes,
                                 "no session bus: DBUS_SESSION_BUS_ADDRESS and XDG_RUNTIME_DIR are not set");
                else
                        snprintf(error, error_bytes, "cannot connect to the %s%s: %s",
                                 c->address   ? "bus at "
                                 : c->is_user ? "session bus"
                                              : "system bus",
                                 c->address ? c->address : "", strerror(-r));
                bus_free(b);
                return r;
        }
        turn_set_limits(b);
        *ret = b;
        return 0;
}

/* What is still to be said, as long as the bus takes it: it may not, and we are to end. */
static void flush(struct bus *b) {
        uint64_t end = event_now_ns() + FLUSH_NS, now;
        struct pollfd p = {.fd = sd_bus_get_fd(b->bus)};

        b->is_ending = true; /* what comes meanwhile is not answered */
        while ((p.events = (short)sd_bus_get_events(b->bus)) > 0 && p.events & POLLOUT &&
               (now = event_now_ns()) < end && poll(&p, 1, (int)((end - now) / 1000000) + 1) >= 0)
                if (sd_bus_process(b->bus, NULL) < 0)
                        return;
}

struct bus *bus_free(struct bus *b) {
        if (!b)
                return NULL;
        loop_poll_stop(&b->poll);
        loop_timer_stop(&b->timer);
        loop_timer_stop(&b->retry_timer);
        loop_timer_stop(&b->farewell.timer);
        b->farewell.done = NULL;
        b->is_started = false;
        call_end_all(b);
        late_end_all(b);
        b->watch.wide = sd_bus_slot_unref(b->watch.wide); /* nobody gets a rule in its place */
        peer_free_all(b);
        if (b->bus)
                flush(b);
        builtin_end(b);
        sd_bus_close_unref(b->bus);
        value_scratch_free(&b->scratch);
        quota_deinit(&b->calls_of);
        user_deinit(b);
        free(b);
        return NULL;
}
