/* Owns the connection to the service manager.
 *
 * It may read late or never (notify.h), so what it is to be told is kept here as it is at last, not as a queue of
 * messages: while its queue is full the loop waits for room beside everything else, and then tells what is due in one
 * message. */
#include "daemon/service.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/log/notify.h"
#include "ipc/memory/event.h"

/* So long it waits for the next word, and so often there is one. */
#define SERVICE_EXTENSION_NS UINT64_C(30000000000)
#define SERVICE_EXTEND_EVERY_NS UINT64_C(5000000000)

static void service_flush(struct service *s);

static void service_on_room(struct loop_poll *p, uint32_t revents) { service_flush(p->user); }

static void service_flush(struct service *s) {
        char text[sizeof(s->status) + 128];
        if (s->fd < 0)
                return;
        char extension[64] = "";
        if (s->is_extension_due)
                snprintf(extension, sizeof(extension), "EXTEND_TIMEOUT_USEC=%llu\n",
                         (unsigned long long)(SERVICE_EXTENSION_NS / 1000));
        snprintf(text, sizeof(text), "%s%s%s%s%s%s%s", s->state ? s->state : "", s->state ? "\n" : "",
                 s->is_status_due ? "STATUS=" : "", s->is_status_due ? s->status : "", s->is_status_due ? "\n" : "",
                 s->is_alive_due ? "WATCHDOG=1\n" : "", extension);
        if (text[0] && notify_send(s->fd, text) == -EAGAIN) {
                if (s->poll.slot == 0)
                        loop_poll_start(s->loop, &s->poll, s->fd, POLLOUT, service_on_room, s);
                return;
        }
        s->state = NULL;
        s->is_status_due = s->is_alive_due = s->is_extension_due = false;
        loop_poll_stop(&s->poll);
}

void service_init(struct service *s, struct loop *l) {
        *s = (struct service){.loop = l, .fd = notify_open()};
        if (s->fd < 0 && s->fd != -ENOENT)
                log_warning("the service manager cannot be told anything: NOTIFY_SOCKET: %s", strerror(-s->fd));
}

void service_deinit(struct service *s) {
        loop_timer_stop(&s->watchdog_timer);
        loop_timer_stop(&s->extend_timer);
        loop_poll_stop(&s->poll);
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
}

bool service_is_there(const struct service *s) { return s->fd >= 0; }

void service_tell_state(struct service *s, const char *state) {
        s->state = state;
        service_flush(s);
}

void service_tell_status(struct service *s, const char *text) {
        if (strncmp(s->status, text, sizeof(s->status) - 1) == 0)
                return;
        snprintf(s->status, sizeof(s->status), "%s", text);
        s->is_status_due = true;
        service_flush(s);
}

static void service_on_watchdog(struct loop_timer *t) {
        struct service *s = t->user;
        s->is_alive_due = true;
        service_flush(s);
        loop_timer_set(s->loop, t, event_now_ns() + s->watchdog_ns, service_on_watchdog, s);
}

void service_start_watchdog(struct service *s) {
        uint64_t usec;
        if (sd_watchdog_enabled(0, &usec) <= 0)
                return;
        s->watchdog_ns = usec * 1000 / 2;
        loop_timer_set(s->loop, &s->watchdog_timer, event_now_ns() + s->watchdog_ns, service_on_watchdog, s);
}

static void service_on_extend(struct loop_timer *t) {
        struct service *s = t->user;
        uint64_t now = event_now_ns();
        if (s->fd < 0 || now >= s->extend_until_ns)
                return;
        s->is_extension_due = true;
        service_flush(s);
        loop_timer_set(s->loop, t, now + SERVICE_EXTEND_EVERY_NS, service_on_extend, s);
}

void service_extend(struct service *s, uint64_t until_ns) {
        s->extend_until_ns = until_ns;
        s->extend_timer.user = s;
        service_on_extend(&s->extend_timer);
}
