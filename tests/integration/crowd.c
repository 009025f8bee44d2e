/* crowd UID WHAT POOL SEED: becomes UID and does its worst until its standard input ends; says "ready" once it began,
 * and at the end how often it did it ("shares": streams, rounds). WHAT is
 *
 *   names    connections to the bus that call once and stay, as many as one uid may well have; the oldest goes, a new
 * one comes shares   opens a channel of POOL (plugin echo), an arena and a stream, and does to every descriptor that it
 * got what a holder can: flags, signals, leases, locks, seals, sizes; fills, shuts down, scribbles; done_wait =
 * DONE_DOORBELL with a full eventfd that is not O_NONBLOCK any more, and jobs whose verdicts are announced there jobs
 * runs job "scrawl" of POOL (plugin scrawl) over and over: its worker writes over all shared memory
 *
 * Each round of "shares" is a child that kills itself in the middle of it: what it leaves is somebody else's to clean
 * up. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session/session.h"
#include "ipc/layout.h"
#include "ipc/memory/event.h"

enum { NAMES = 200, ROUNDS_AT_ONCE = 4, ROUND_MS = 400, JOBS = 8, TICK_US = 5000, SCRIBBLES = 64 };

#define MANAGER "org.drover1", "/org/drover1", "org.drover1.Manager"

static const char *pool;
static uint64_t seed, n_done;
static pid_t broker_pid;
static struct tally { uint64_t rounds, streams; } * tally; /* shared with the rounds */

__attribute__((noreturn)) static void fail(const char *what, int r) {
        printf("failed: %s: %s\n", what, strerror(-r));
        fflush(stdout);
        _exit(1);
}

static uint64_t dice(uint64_t n) { /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return (z ^ z >> 31) % n;
}

static bool is_over(int wait_ms) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        return poll(&in, 1, wait_ms) > 0;
}

static void say_ready(void) {
        puts("ready");
        fflush(stdout);
}

/* ---- names ---- */

static void come_and_go(void) {
        static sd_bus *names[NAMES];
        for (unsigned next = 0; !is_over(0); next = (next + 1) % NAMES) {
                sd_bus_close_unref(names[next]);
                names[next] = NULL;
                int r = sd_bus_open_user(&names[next]);
                if (r < 0)
                        continue; /* the bus has too many of them, or not closed the old one yet */
                r = sd_bus_call_method_async(names[next], NULL, MANAGER, "GetPool", NULL, NULL, "s", pool);
                if (r >= 0)
                        r = sd_bus_flush(names[next]);
                n_done += r >= 0;
                if (n_done == NAMES)
                        say_ready();
                if (n_done > NAMES)
                        is_over(2);
        }
}

/* ---- shares: what a holder can do to a descriptor ---- */

static void change_flags(int fd) {
        static const int flags[] = {0, O_NONBLOCK, O_APPEND, O_ASYNC, O_ASYNC | O_NONBLOCK, O_APPEND | O_DIRECT};
        fcntl(fd, F_SETFL, flags[dice(sizeof flags / sizeof *flags)]);
        ioctl(fd, FIONBIO, &(int){(int)dice(2)});
}

/* Signals for whoever it says when there is something to read: the kernel asks who said so. */
static void change_owner(int fd) {
        static const int signals[] = {0, SIGKILL, SIGTERM, SIGSTOP, SIGUSR1, 40};
        fcntl(fd, F_SETOWN, dice(2) ? broker_pid : getpid());
        fcntl(fd, F_SETSIG, signals[dice(sizeof signals / sizeof *signals)]);
        ioctl(fd, FIOASYNC, &(int){1});
        fcntl(fd, F_SETSIG, 0); /* ours are ignored only by default */
}

static void lock(int fd) {
        struct flock whole = {.l_type = dice(2) ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
        fcntl(fd, F_SETLEASE, dice(2) ? F_RDLCK : F_WRLCK);
        fcntl(fd, F_OFD_SETLK, &whole);
        fcntl(fd, F_SETLK, &whole);
        flock(fd, LOCK_EX | LOCK_NB);
}

static void resize(int fd) {
        static const int seals[] = {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_SEAL};
        fcntl(fd, F_ADD_SEALS, seals[dice(sizeof seals / sizeof *seals)]);
        fcntl(fd, F_SETPIPE_SZ, 4096);
        lseek(fd, (off_t)dice(1 << 20), SEEK_SET);
        if (ftruncate(fd, (off_t)(dice(16) * 4096)) == 0)
                return;
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(dice(64) * 4096), 4096);
        fchmod(fd, 0);
}

static void fill(int fd) {
        static const char rubbish[4096];
        const uint64_t most = UINT64_MAX - 1, one = 1;
        fcntl(fd, F_SETFL, O_NONBLOCK);
        for (int i = 0; i < 64 && send(fd, rubbish, dice(sizeof rubbish), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0; i++)
                ;
        if (errno != ENOTSOCK || write(fd, &most, sizeof most) < 0)
                while (errno != EBADF && write(fd, &one, sizeof one) == sizeof one && dice(100) > 0)
                        ;
        fcntl(fd, F_SETFL, 0); /* whoever writes now waits, if this is his description, too */
}

static void cut(int fd) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 1000}, sizeof(struct linger));
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int));
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){1}, sizeof(int));
        if (dice(4) == 0)
                shutdown(fd, (int)dice(3));
}

static void abuse(int fd) {
        static void (*const does[])(int fd) = {change_flags, change_owner, lock, resize, cut};
        for (int i = 0; i < 4; i++)
                does[dice(sizeof does / sizeof *does)](fd);
        fill(fd);
}

static void abuse_all(int bus_fd) {
        DIR *dir = opendir("/proc/self/fd");
        struct dirent *e;
        while (dir && (e = readdir(dir))) {
                int fd = atoi(e->d_name);
                if (fd > STDERR_FILENO && fd != bus_fd && fd != dirfd(dir))
                        abuse(fd);
        }
        closedir(dir);
}

/* ---- shares: what it can write ---- */

static void scribble(char *from, char *to, bool is_wild) {
        struct layout_channel *c = (struct layout_channel *)from;
        for (int i = 0; i < SCRIBBLES && is_wild; i++) {
                uint64_t *word = (uint64_t *)(from + dice((uint64_t)(to - from) / (dice(2) ? 8 : 64)) / 8 * 8);
                __atomic_store_n(word, dice(3) ? dice(UINT64_MAX) : *word + 1 - dice(3), __ATOMIC_RELAXED);
        }
        if (c->header.magic == LAYOUT_MAGIC_CHANNEL)
                atomic_store(&c->done_wait, DONE_DOORBELL);
}

static void scribble_all(bool is_wild) {
        FILE *maps = fopen("/proc/self/maps", "re");
        char line[400], rights[8];
        unsigned long from, to;
        while (maps && fgets(line, sizeof line, maps))
                if (strstr(line, "/memfd:") && sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 &&
                    strncmp(rights, "rw-s", 4) == 0)
                        scribble((char *)from, (char *)to, is_wild);
        if (maps)
                fclose(maps);
}

/* ---- shares: a round ---- */

static void submit(struct session *s) {
        const struct session_job job = {.priority = LAYOUT_PRIORITY_DEFAULT, .payload = "x", .bytes = 1};
        uint32_t slot;
        for (int i = 0; i < JOBS; i++)
                session_submit(s, &job, &slot);
}

/* What it has of an arena and a stream, beside what the session keeps. */
static void open_more(sd_bus *bus) {
        sd_bus_message *reply = NULL;
        const char *job;
        uint64_t id;
        int fd;
        int r = sd_bus_call_method(bus, MANAGER, "OpenArena", NULL, &reply, "sa{sv}", "crowd", 1, "bytes", "t",
                                   UINT64_C(65536));
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "{sv}");
        while (r >= 0 && sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
                r = sd_bus_message_skip(reply, "s");
                if (sd_bus_message_read(reply, "v", "h", &fd) >= 0)
                        fcntl(fd, F_DUPFD_CLOEXEC, 3);
                else
                        sd_bus_message_skip(reply, "v");
                sd_bus_message_exit_container(reply);
        }
        sd_bus_message_unref(reply);
        r = sd_bus_call_method(bus, MANAGER, "Submit", NULL, &reply, "ssa{sv}a{sv}", "emits", "count", 3, "n", "t",
                               UINT64_C(1000), "bytes", "t", UINT64_C(2000), "pause_ms", "t", UINT64_C(0), 0);
        if (r < 0 || sd_bus_message_read(reply, "to", &id, &job) < 0)
                return;
        r = sd_bus_call_method(bus, "org.drover1", job, "org.drover1.Job", "OpenStream", NULL, &reply, "");
        if (r >= 0 && sd_bus_message_read(reply, "h", &fd) >= 0 && fcntl(fd, F_DUPFD_CLOEXEC, 3) >= 0)
                __atomic_add_fetch(&tally->streams, 1, __ATOMIC_RELAXED);
}

static void on_tick(int signal) {}

/* Its own calls wait on what it filled and made wait: the tick ends them. */
static void start_ticking(void) {
        const struct itimerval tick = {.it_interval.tv_usec = TICK_US, .it_value.tv_usec = TICK_US};
        sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_tick}, NULL);
        setitimer(ITIMER_REAL, &tick, NULL);
        signal(SIGIO, SIG_IGN);
        signal(SIGUSR1, SIG_IGN);
        signal(40, SIG_IGN);
}

__attribute__((noreturn)) static void misbehave(void) {
        struct session *s;
        sd_bus *bus;
        char error[400];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_bus_open_user(&bus) < 0 || session_open(&s, bus, pool, error, sizeof error) < 0)
                _exit(1); /* it has too many already */
        submit(s);
        open_more(bus);
        start_ticking();
        __atomic_add_fetch(&tally->rounds, 1, __ATOMIC_RELAXED);
        uint64_t end_ns = event_now_ns() + UINT64_C(1000000) * ROUND_MS;
        for (bool is_wild = false; event_now_ns() < end_ns; is_wild = dice(2)) {
                abuse_all(sd_bus_get_fd(bus));
                scribble_all(is_wild);
                submit(s);
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        }
        raise(SIGKILL);
        _exit(1);
}

static void share(void) {
        tally = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t rounds[ROUNDS_AT_ONCE] = {0};
        say_ready();
        for (unsigned i = 0; !is_over(ROUND_MS / ROUNDS_AT_ONCE); i = (i + 1) % ROUNDS_AT_ONCE) {
                if (rounds[i] > 0 && waitpid(rounds[i], NULL, WNOHANG) == 0)
                        continue;
                dice(2);
                rounds[i] = fork();
                if (rounds[i] == 0)
                        misbehave();
        }
        for (unsigned i = 0; i < ROUNDS_AT_ONCE; i++)
                if (rounds[i] > 0)
                        kill(rounds[i], SIGKILL);
        printf("%llu ", (unsigned long long)tally->streams);
        n_done = tally->rounds;
}

/* ---- jobs ---- */

static void run_jobs(void) {
        struct session *s;
        struct session_result result;
        sd_bus *bus;
        char error[400];
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                fail("the bus", r);
        say_ready();
        while (!is_over(5)) {
                if (session_open(&s, bus, pool, error, sizeof error) < 0)
                        continue;
                submit(s);
                uint64_t end_ns = event_now_ns() + UINT64_C(1000000000);
                for (int i = 0; i < JOBS && session_next(s, &result, end_ns) == 1; i++)
                        n_done++; /* others have no verdict: who should give it wrote over what it needs for that */
                session_free(s);
        }
}

static pid_t find_broker(void) {
        sd_bus_message *reply;
        uint32_t pid = 0;
        sd_bus *bus;
        int r = sd_bus_open_user(&bus);
        if (r >= 0)
                r = sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                       "GetConnectionUnixProcessID", NULL, &reply, "s", "org.drover1");
        if (r >= 0)
                r = sd_bus_message_read(reply, "u", &pid);
        if (r < 0)
                fail("whose is org.drover1", r);
        sd_bus_message_unref(reply);
        sd_bus_close_unref(bus);
        return (pid_t)pid;
}

int main(int argc, char *argv[]) {
        static const struct {
                const char *what;
                void (*run)(void);
        } known[] = {{"names", come_and_go}, {"shares", share}, {"jobs", run_jobs}};
        if (argc != 5)
                return 2;
        uid_t uid = (uid_t)strtoul(argv[1], NULL, 10);
        if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
                fail("setresuid", -errno);
        pool = argv[3];
        seed = strtoull(argv[4], NULL, 10);
        broker_pid = find_broker();
        for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
                if (strcmp(argv[2], known[i].what) == 0) {
                        known[i].run();
                        printf("%llu\n", (unsigned long long)n_done);
                        return 0;
                }
        return 2;
}
