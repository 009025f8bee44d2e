/* Dies in its handler, each job in another way. */
#include <drover/plugin.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile uintptr_t nowhere = 16; /* the compiler must not know */

static int segv(drover_job *job) {
        *(volatile int *)nowhere = 1;
        return 0;
}

static int aborts(drover_job *job) { abort(); }

static int kills_itself(drover_job *job) {
        raise(SIGKILL);
        return 0;
}

static int deeper(volatile char *above, unsigned depth) {
        volatile char here[4096];
        memset((char *)here, 1, sizeof here);
        return above ? deeper(here, depth + 1) + here[depth % sizeof here] : 0;
}

static int overflows(drover_job *job) {
        volatile char here[16];
        return deeper(here, 0);
}

static int forbidden(drover_job *job) { return socket(AF_INET, SOCK_STREAM, 0); }

/* Two lines; the second waits for its end in the memory of this process. */
static int says(drover_job *job) {
        printf("a word of another\na part of a word of another");
        return -EIO;
}

static int says_and_aborts(drover_job *job) {
        printf("a word of its own\n");
        abort();
}

/* One line in two writes. */
static int halves_and_aborts(drover_job *job) {
        static const char halves[2][16] = {"one half, ", "the other half\n"};
        for (unsigned i = 0; i < 2; i++) {
                if (write(STDOUT_FILENO, halves[i], strlen(halves[i])) < 0)
                        return -errno;
                nanosleep(&(struct timespec){.tv_nsec = i == 0 ? 200000000 : 0}, NULL);
        }
        abort();
}

/* 64 KiB in large pieces, of 64 lines each, and one word more. */
static int says_much_and_aborts(drover_job *job) {
        char page[4096 + 1];
        for (unsigned i = 0; i < 16; i++) {
                for (unsigned k = 0; k < 64; k++)
                        snprintf(page + 64 * k, 65, "line %04u %053d\n", 64 * i + k, 0);
                if (write(STDOUT_FILENO, page, 4096) != 4096)
                        return -EIO;
        }
        return says_and_aborts(job);
}

static int waits_says_and_aborts(drover_job *job) {
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        return says_and_aborts(job);
}

static int exits_then_aborts(drover_job *job) {
        if (drover_job_attempt(job) == 1)
                _exit(9);
        abort();
}

static int aborts_by_environment(drover_job *job) {
        if (getenv("A_WAY_TO_DIE"))
                abort();
        return 0;
}

static int lives(drover_job *job) { return 0; }

static const struct drover_job_type jobs[] = {
        {.name = "segfault", .handle = segv},
        {.name = "abort", .handle = aborts},
        {.name = "kill", .handle = kills_itself},
        {.name = "stack", .handle = overflows},
        {.name = "once", .handle = segv, .flags = DROVER_ONCE},
        {.name = "forbidden", .handle = forbidden},
        {.name = "exits-aborts", .handle = exits_then_aborts},
        {.name = "environment", .handle = aborts_by_environment},
        {.name = "says", .handle = says},
        {.name = "says-aborts", .handle = says_and_aborts},
        {.name = "waits-says-aborts", .handle = waits_says_and_aborts},
        {.name = "halves-aborts", .handle = halves_and_aborts},
        {.name = "says-much-aborts", .handle = says_much_and_aborts},
        {.name = "fine", .handle = lives},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "crash", "1.0")
