/* uids-client POOL UID: becomes UID, opens a session of pool POOL (plugin sleep) and says "ready". For each line "N MS"
 * on standard input it queues N jobs of MS milliseconds at once, waits until each has its one verdict, and says "DONE
 * OTHER HALF LAST": how many are done, how many ended otherwise, when half of them had ended and when all
 * (CLOCK_MONOTONIC ns). A line "N MS 1" is the same one by one. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/client/session/session.h"
#include "ipc/memory/event.h"
#include "ipc/values/args.h"

enum { MAX_JOBS = 1000 };
#define PATIENCE_NS UINT64_C(60000000000)

static struct session *s;

__attribute__((noreturn)) static void fail(const char *what, const char *why) {
        fprintf(stderr, "uids-client %u: %s: %s\n", (unsigned)getuid(), what, why);
        exit(1);
}

static void submit(uint64_t ms, uint64_t number) {
        uint8_t buffer[64];
        struct args_writer w;
        size_t bytes;
        uint32_t slot;
        args_writer_init(&w, buffer, sizeof buffer);
        args_put(&w, "ms", &(struct args_value){.type = SCHEMA_U64, .u64 = ms});
        args_finish(&w, &bytes);
        const struct session_job job = {
                .priority = LAYOUT_PRIORITY_DEFAULT, .payload = buffer, .bytes = bytes, .user = number};
        int r = session_submit(s, &job, &slot);
        if (r < 0)
                fail("submit", strerror(-r));
}

struct tally {
        unsigned n, n_done;
        bool has[MAX_JOBS];
        uint64_t half_ns, last_ns;
};

static void fetch(struct tally *t, unsigned n_all) {
        struct session_result result;
        int r;
        while ((r = session_next(s, &result, event_now_ns() + PATIENCE_NS)) == -EINTR)
                ;
        if (r != 1)
                fail("no verdict", strerror(r < 0 ? -r : ETIMEDOUT));
        if (result.user >= n_all || t->has[result.user])
                fail("a verdict", "twice, or of no job of ours");
        t->has[result.user] = true;
        t->n_done += result.state == SLOT_DONE;
        t->last_ns = event_now_ns();
        if (++t->n == (n_all + 1) / 2)
                t->half_ns = t->last_ns;
}

static void round_of(unsigned n, uint64_t ms, bool one_by_one) {
        struct tally t = {0};
        for (unsigned i = 0; i < n; i++) {
                submit(ms, i);
                if (one_by_one)
                        fetch(&t, n);
        }
        while (t.n < n)
                fetch(&t, n);
        printf("%u %u %llu %llu\n", t.n_done, t.n - t.n_done, (unsigned long long)t.half_ns,
               (unsigned long long)t.last_ns);
        fflush(stdout);
}

int main(int argc, char *argv[]) {
        char error[400], line[80];
        sd_bus *bus;
        if (argc != 3)
                return 2;
        uid_t uid = (uid_t)strtoul(argv[2], NULL, 10);
        if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
                fail("setresuid", strerror(errno));
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                fail("the bus", strerror(-r));
        if (session_open(&s, bus, argv[1], error, sizeof error) < 0)
                fail("OpenChannel", error);
        puts("ready");
        fflush(stdout);
        while (fgets(line, sizeof line, stdin)) {
                unsigned n, one_by_one = 0;
                unsigned long long ms;
                if (sscanf(line, "%u %llu %u", &n, &ms, &one_by_one) < 2 || n < 1 || n > MAX_JOBS)
                        fail("a line that makes no sense", line);
                round_of(n, ms, one_by_one);
        }
        session_free(s);
        sd_bus_unref(bus);
        return 0;
}
