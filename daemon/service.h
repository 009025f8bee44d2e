/* What droverd tells the service manager: what it is about, how it is, that it lives. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/loop/loop.h"

struct service {
        struct loop *loop;
        int fd; /* -1: there is none */
        struct loop_poll poll;
        struct loop_timer watchdog_timer, extend_timer;
        uint64_t watchdog_ns, extend_until_ns;
        const char *state; /* READY=1 and the like, NULL = told */
        bool is_status_due, is_alive_due, is_extension_due;
        char status[128];
};

void service_init(struct service *s, struct loop *l);
void service_deinit(struct service *s);
bool service_is_there(const struct service *s);
void service_tell_state(struct service *s, const char *state); /* a literal: "READY=1", "RELOADING=1", "STOPPING=1" */
void service_tell_status(struct service *s, const char *text); /* told if it is news */
void service_start_watchdog(struct service *s);                /* if the service manager wants one */
/* Until then it is told again and again that the end takes longer: TimeoutStopSec= of the unit does not cut a drain. */
void service_extend(struct service *s, uint64_t until_ns);
