/* Owns the one timer of the kernel's that hears of the wall clock.
 *
 * The loop's timers run by CLOCK_MONOTONIC, which nobody sets and which stands still while the machine sleeps. A timer
 * by CLOCK_REALTIME that is never due, but is cancelled when that clock jumps (TFD_TIMER_CANCEL_ON_SET), which it also
 * does when the machine wakes up, says when moments of the one clock are other moments of the other. Slewing moves
 * both alike. While nothing jumps it costs nothing. */
#include "daemon/loop/wall-clock.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define WALL_CLOCK_NEVER_S INT64_C(9000000000) /* the year 2255 */

uint64_t wall_clock_us(void) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int wall_clock_arm(const struct wall_clock *c) {
        const struct itimerspec never = {.it_value.tv_sec = WALL_CLOCK_NEVER_S};
        /* ECANCELED: it jumped again, and the timer is armed all the same */
        return timerfd_settime(c->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 &&
                               errno != ECANCELED
                       ? -errno
                       : 0;
}

static void wall_clock_on_poll(struct loop_poll *p, uint32_t revents) {
        struct wall_clock *c = p->user;
        uint64_t n;
        if (read(c->fd, &n, sizeof(n)) < 0 && errno != ECANCELED)
                return;
        wall_clock_arm(c); /* first: what jumps from now on is told again */
        c->on_set(c->user);
}

int wall_clock_start(struct wall_clock *c, struct loop *l, void (*on_set)(void *user), void *user) {
        *c = (struct wall_clock){.on_set = on_set, .user = user};
        c->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
        if (c->fd < 0)
                return -errno;
        int r = wall_clock_arm(c);
        return r < 0 ? r : loop_poll_start(l, &c->poll, c->fd, POLLIN, wall_clock_on_poll, c);
}

void wall_clock_stop(struct wall_clock *c) {
        loop_poll_stop(&c->poll);
        if (c->fd >= 0)
                close(c->fd);
        c->fd = -1;
}
