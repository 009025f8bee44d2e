/* The way out: events to the broker.
 *
 * Owns the queue of events that the socket did not take. Invariants: order is kept (nothing is sent past a non-empty
 * queue); a descriptor handed in is closed here, sent or not; while the queue is not empty no request is read (main),
 * so the queue holds at most what living workers can still produce. It does not decide that the broker is gone: it
 * notes why in broker_fault and main drops it. */
#include "daemon/spawn/events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/packet.h"

enum { EVENT_FDS = 2 };

struct event_node {
        struct event_node *next;
        unsigned n_fds;
        int fds[EVENT_FDS];
        struct spawn_event event;
};

static void close_all(const int *fds, unsigned n_fds) {
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
}

/* True if the packet is dealt with: sent, or nobody will ever take it. */
static bool send_now(struct spawner *s, const struct spawn_event *e, const int *fds, unsigned n_fds) {
        int r = packet_send(s->broker_fd, e, sizeof *e, fds, n_fds);
        if (r == -EAGAIN || r == -ENOBUFS || r == -ETOOMANYREFS)
                return false;
        if (r < 0 && !s->broker_fault)
                s->broker_fault = r == -EPIPE || r == -ECONNRESET ? "" : "its socket failed";
        return true;
}

static void queue(struct spawner *s, const struct spawn_event *e, const int *fds, unsigned n_fds) {
        struct event_node *n = s->n_events < EVENTS_MAX ? calloc(1, sizeof *n) : NULL;
        if (!n) {
                s->broker_fault = "it does not read its events";
                close_all(fds, n_fds);
                return;
        }
        n->event = *e;
        n->n_fds = n_fds;
        for (unsigned i = 0; i < n_fds; i++)
                n->fds[i] = fds[i];
        *s->last_event = n;
        s->last_event = &n->next;
        s->n_events++;
}

void events_send(struct spawner *s, struct spawn_event *e, const int *fds, unsigned n_fds) {
        e->version = WIRE_VERSION;
        if (s->broker_fd < 0 || s->broker_fault)
                close_all(fds, n_fds);
        else if (!s->first_event && send_now(s, e, fds, n_fds))
                close_all(fds, n_fds);
        else
                queue(s, e, fds, n_fds);
}

void events_flush(struct spawner *s) {
        struct event_node *n;
        while ((n = s->first_event) && send_now(s, &n->event, n->fds, n->n_fds)) {
                s->first_event = n->next;
                if (!s->first_event)
                        s->last_event = &s->first_event;
                s->n_events--;
                close_all(n->fds, n->n_fds);
                free(n);
        }
}

void events_clear(struct spawner *s) {
        struct event_node *n;
        while ((n = s->first_event)) {
                s->first_event = n->next;
                close_all(n->fds, n->n_fds);
                free(n);
        }
        s->last_event = &s->first_event;
        s->n_events = 0;
}

void events_text(struct spawn_event *e, const char *format, ...) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        for (char *c = e->text; *c; c++)
                if (*c < ' ' || *c > '~')
                        *c = '?';
}
