/* Who closes what others sent.
 *
 * The last close of a socket with SO_LINGER waits until its peer has taken what was sent; every close of a file of FUSE
 * waits for the program behind it, and no signal ends that. So the loop closes none of them, however many there are:
 * this is the one thing that threads are for in this process. Each closes, and does nothing else, and there is one for
 * each close that was begun. (Not the ring's own threads: they let go of a file when they are idle by their books, and
 * one that waits there keeps everybody behind it waiting.)
 *
 * Each user has a few threads at most and waits for himself: that somebody's closes take for ever costs him, and nobody
 * else. What waits keeps its number, so it is bounded where descriptors come in, for nothing can be sent back:
 * - Sessions, and jobs and results with descriptors: whoever has CLOSER_MAX_OF_USER that are not closed yet, and none
 *   of them moved for half a second, or a sixteenth of all numbers anyway, brings no more of them (closer_has_room).
 *   (Many alone may only mean that our threads have no CPU.) His sessions are not read; one whose wait is long ends,
 *   with all that lies in its socket, as one number; and he opens no other. A worker whose results are refused so goes
 *   on until there is twice as much.
 * - Messages of the bus: they are here before anybody can refuse them. Those that are kept end at their share of all
 *   numbers (fd-share.h). Those that wait to be closed have theirs; when it is used up, the bus is not read until some
 *   are closed (closer_is_short). This can be brought about by who may send messages to us, answers the closes of
 *   the bus itself and not ours, and has as many files of FUSE as the share holds; only the policy of the bus can
 *   refuse them earlier. Jobs of channels go on meanwhile.
 * Without memory for its record a descriptor stays open.
 *
 * What libsystemd and ipc/memory/packet.c close for us has no name: whoever handles what somebody sent says whose it
 * is, and it holds until the next does (closer_blame).
 *
 * Lists are the loop's; between it and the threads, under the lock, is what is to be closed and what was. There is one
 * closer in the process, as there is one table of descriptors. */
#include "daemon/loop/closer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/loop/fd-share.h"
#include "daemon/loop/loop.h"
#include "ipc/memory/doorbell.h"
#include "ipc/memory/event.h"

enum {
        CLOSER_MAX_THREADS = 64,
        CLOSER_OF_USER = 4, /* threads */
        CLOSER_STACK = 256 * 1024,
};

#define CLOSER_STUCK_NS UINT64_C(500000000)

struct closing {
        struct closer_user *user;
        int fd;
        bool is_high; /* above what is to wait at all */
        TAILQ_ENTRY(closing) link;
};
TAILQ_HEAD(closing_list, closing);

struct closer_user {
        uid_t uid;
        unsigned n, n_begun;
        uint64_t moved_ns; /* when one was begun last, or closed */
        struct closing_list waiting;
        TAILQ_ENTRY(closer_user) link;
};

static struct {
        struct loop *loop; /* NULL: not started */
        struct loop_poll poll;
        struct doorbell done;
        unsigned n_begun, n_threads, n_high;
        rlim_t max_of_user; /* even if they move */
        uid_t blamed;
        TAILQ_HEAD(, closer_user) users; /* whose turn it is, first */
        sem_t n_more; /* those that were begun: it counts, so whoever wakes has one to take, and nothing else to ask */
        pthread_mutex_t lock;
        struct closing_list begun, closed; /* under the lock */
} closer = {.blamed = CLOSER_STRANGERS, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the threads ---- */

static void *closer_thread(void *unused) {
        for (;;) {
                while (sem_wait(&closer.n_more) < 0)
                        ;
                pthread_mutex_lock(&closer.lock);
                struct closing *c = TAILQ_FIRST(&closer.begun); /* one for each that was counted */
                TAILQ_REMOVE(&closer.begun, c, link);
                pthread_mutex_unlock(&closer.lock);
                close(c->fd);
                pthread_mutex_lock(&closer.lock);
                TAILQ_INSERT_TAIL(&closer.closed, c, link);
                pthread_mutex_unlock(&closer.lock);
                doorbell_ring(closer.done.ring_fd);
        }
        return NULL;
}

static void closer_add_thread(void) {
        pthread_attr_t attributes;
        pthread_t thread;
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, CLOSER_STACK);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        closer.n_threads += pthread_create(&thread, &attributes, closer_thread, NULL) == 0;
        pthread_attr_destroy(&attributes);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- users ---- */

static struct closer_user *closer_find_user(uid_t uid) {
        struct closer_user *u = closer.loop ? TAILQ_FIRST(&closer.users) : NULL;
        while (u && u->uid != uid)
                u = TAILQ_NEXT(u, link);
        return u;
}

static struct closer_user *closer_user_of(uid_t uid) {
        struct closer_user *u = closer_find_user(uid);
        if (u || !(u = calloc(1, sizeof(*u))))
                return u;
        u->uid = uid;
        TAILQ_INIT(&u->waiting);
        TAILQ_INSERT_TAIL(&closer.users, u, link);
        return u;
}

static void closer_put_user(struct closer_user *u) {
        if (u->n > 0)
                return;
        TAILQ_REMOVE(&closer.users, u, link);
        free(u);
}

static void closer_begin(struct closer_user *u) {
        struct closing *c = TAILQ_FIRST(&u->waiting);
        TAILQ_REMOVE(&u->waiting, c, link);
        u->n_begun++;
        u->moved_ns = event_now_ns();
        closer.n_begun++;
        TAILQ_REMOVE(&closer.users, u, link);
        TAILQ_INSERT_TAIL(&closer.users, u, link);
        if (closer.n_begun > closer.n_threads)
                closer_add_thread(); /* in vain: then it waits for another close */
        pthread_mutex_lock(&closer.lock);
        TAILQ_INSERT_TAIL(&closer.begun, c, link);
        pthread_mutex_unlock(&closer.lock);
        sem_post(&closer.n_more);
}

static void closer_go_on(void) {
        struct closer_user *u = TAILQ_FIRST(&closer.users);
        while (u && closer.n_begun < CLOSER_MAX_THREADS) {
                if (!TAILQ_EMPTY(&u->waiting) && u->n_begun < CLOSER_OF_USER) {
                        closer_begin(u);
                        u = TAILQ_FIRST(&closer.users);
                } else
                        u = TAILQ_NEXT(u, link);
        }
}

static void closer_on_closed(struct loop_poll *p, uint32_t revents) {
        struct closing_list closed = TAILQ_HEAD_INITIALIZER(closed);
        struct closing *c;
        doorbell_clear(closer.done.hear_fd);
        pthread_mutex_lock(&closer.lock);
        TAILQ_CONCAT(&closed, &closer.closed, link);
        pthread_mutex_unlock(&closer.lock);
        while ((c = TAILQ_FIRST(&closed))) {
                TAILQ_REMOVE(&closed, c, link);
                c->user->n--;
                c->user->n_begun--;
                c->user->moved_ns = event_now_ns();
                closer.n_begun--;
                closer.n_high -= c->is_high;
                closer_put_user(c->user);
                free(c);
        }
        closer_go_on();
}

/* ---- the calls ---- */

unsigned closer_count(uid_t uid) {
        const struct closer_user *u = closer_find_user(uid);
        return u ? u->n : 0;
}

bool closer_has_room(uid_t uid) {
        const struct closer_user *u = closer_find_user(uid);
        return !u || u->n < CLOSER_MAX_OF_USER ||
               (u->n < closer.max_of_user && event_now_ns() - u->moved_ns < CLOSER_STUCK_NS);
}

bool closer_is_short(void) { return closer.n_high > 0; }

void closer_blame(uid_t uid) { closer.blamed = uid; }

void closer_close_blamed(int fd) { closer_close(fd, closer.blamed); }

void closer_close(int fd, uid_t uid) {
        if (!closer.loop) {
                close(fd);
                return;
        }
        struct closer_user *u = closer_user_of(uid);
        struct closing *c = u ? calloc(1, sizeof(*c)) : NULL;
        if (!c) {
                if (u)
                        closer_put_user(u);
                return;
        }
        *c = (struct closing){.user = u, .fd = fd, .is_high = !fd_share_has(FD_SHARE_MESSAGES, fd)};
        closer.n_high += c->is_high;
        u->n++;
        TAILQ_INSERT_TAIL(&u->waiting, c, link);
        closer_go_on();
}

int closer_start(struct loop *l) {
        int r = doorbell_open(&closer.done);
        if (r < 0)
                return r;
        struct rlimit limit;
        closer.max_of_user = getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur / 16;
        sem_init(&closer.n_more, 0, 0);
        TAILQ_INIT(&closer.users);
        TAILQ_INIT(&closer.begun);
        TAILQ_INIT(&closer.closed);
        r = loop_poll_start(l, &closer.poll, closer.done.hear_fd, POLLIN, closer_on_closed, NULL);
        if (r >= 0)
                closer_add_thread();
        if (r >= 0 && closer.n_threads == 0) {
                loop_poll_stop(&closer.poll);
                r = -EAGAIN;
        }
        if (r >= 0)
                closer.loop = l;
        return r;
}

void closer_stop(void) {
        closer.loop = NULL;
        loop_poll_stop(&closer.poll);
}
