/* hostile-ends POOL: a client of pool POOL (plugin echo) that does what it likes with its ends of everything it shares
 * with the daemon and the workers: clears O_NONBLOCK, fills, shuts down, sets options, owners, locks and leases, reads
 * nothing. Meanwhile it has jobs, and says all the time that it waits by the doorbell. Says "ready", later "ran" when
 * jobs came to their end in spite of it all, and goes on until it is killed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session/session-internal.h"

enum { SESSIONS = 4, JOBS = 20 };

static void fail(const char *what, int r) {
        fprintf(stderr, "hostile-ends: %s: %s\n", what, strerror(-r));
        exit(1);
}

static void set_flags(int fd, int flags) {
        if (fcntl(fd, F_SETFL, flags) < 0)
                fail("F_SETFL", -errno);
}

/* Until no more goes in: the counter of an eventfd, the buffer of a socket. */
static void fill(int fd) {
        const uint64_t most = UINT64_MAX - 1;
        set_flags(fd, O_NONBLOCK);
        while (write(fd, &most, sizeof most) > 0)
                ;
}

static void set_options(int fd) {
        static const struct {
                int option, value;
        } options[] = {{SO_RCVBUF, 1}, {SO_SNDBUF, 1}, {SO_PEEK_OFF, 1}, {SO_PASSCRED, 1}, {SO_RCVLOWAT, 1 << 20}};
        const struct linger linger = {.l_onoff = 1, .l_linger = 3600};
        const struct timeval ever = {.tv_sec = 1 << 30};
        for (size_t i = 0; i < sizeof options / sizeof *options; i++)
                setsockopt(fd, SOL_SOCKET, options[i].option, &options[i].value, sizeof options[i].value);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &ever, sizeof ever);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ever, sizeof ever);
}

/* Whatever works of it. */
static void misuse(int fd) {
        struct flock lock = {.l_type = F_WRLCK};
        set_options(fd);
        fcntl(fd, F_SETOWN, getpid());
        fcntl(fd, F_SETSIG, SIGUSR1);
        fcntl(fd, F_SETLEASE, F_WRLCK);
        fcntl(fd, F_OFD_SETLK, &lock);
        flock(fd, LOCK_EX | LOCK_NB);
        lseek(fd, 4711, SEEK_SET);
        fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_WRITE);
        ioctl(fd, FIOASYNC, &(int){1});
        set_flags(fd, O_ASYNC); /* and no O_NONBLOCK */
}

static struct session *open_one(sd_bus *bus, const char *pool, bool is_shut) {
        char error[512];
        struct session *s;
        int r = session_open(&s, bus, pool, error, sizeof error);
        if (r < 0)
                fail(error, r);
        fill(s->done_fd);
        fill(s->doorbell_fd);
        misuse(s->done_fd);
        misuse(s->doorbell_fd);
        misuse(s->socket_fd);
        for (unsigned i = 0; i < CHANNEL_PARTS; i++)
                misuse(s->channel_fds[i]);
        if (is_shut) {
                shutdown(s->done_fd, SHUT_RDWR);
                shutdown(s->doorbell_fd, SHUT_RDWR);
        }
        return s;
}

static void say_that_it_waits(struct session *s) { atomic_store(&s->channel.head->done_wait, DONE_DOORBELL); }

/* One job, and until it has a verdict. */
static void run_one(struct session *s[SESSIONS], struct session *mine) {
        const struct session_job job = {.priority = LAYOUT_PRIORITY_DEFAULT, .payload = "x", .bytes = 1};
        const struct timespec moment = {.tv_nsec = 1000000};
        struct session_result result;
        uint32_t slot;
        int r = session_submit(mine, &job, &slot);
        if (r == -ESHUTDOWN || r == -EPIPE) { /* droverd ends */
                pause();
                exit(0);
        }
        if (r < 0)
                fail("session_submit", r);
        do {
                for (unsigned i = 0; i < SESSIONS; i++)
                        say_that_it_waits(s[i]);
                nanosleep(&moment, NULL);
        } while (!slot_is_verdict(channel_word(&mine->channel, slot)));
        if (session_wait(mine, slot, &result, 0) != 1)
                fail("a verdict was not found", -EPROTO);
}

int main(int argc, char *argv[]) {
        struct session *s[SESSIONS];
        sd_bus *bus = NULL;
        int r = argc == 2 ? sd_bus_open_user(&bus) : -EINVAL;
        if (r < 0)
                fail("hostile-ends POOL", r);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGIO, SIG_IGN);
        signal(SIGUSR1, SIG_IGN);
        for (unsigned i = 0; i < SESSIONS; i++) {
                s[i] = open_one(bus, argv[1], i % 2);
                say_that_it_waits(s[i]);
        }
        puts("ready");
        fflush(stdout);
        for (unsigned n = 0;; n++) {
                run_one(s, s[n % SESSIONS]);
                if (n == JOBS) {
                        puts("ran");
                        fflush(stdout);
                }
        }
}
