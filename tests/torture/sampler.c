/* torture-sampler RUN DROVERD: who waits for a CPU, and when. Looks every two milliseconds at the time that each
 * process of a torture run has spent on a run queue (schedstat): the children of RUN that are clients and sharers,
 * DROVERD, its spawner and what that has started. The kernel adds a delay when it ends, so it is told as the time just
 * before the look. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "tests/torture/part.h"

enum {
        KNOWN = 128,
        LOOK_MS = 2,
        SCAN_EVERY = 4, /* looks */
        NAME_BYTES = 16,
        CHILDREN_BYTES = 4096,
};
#define WORTH_TELLING_NS UINT64_C(300000)
#define OVERSLEPT_NS UINT64_C(3000000)

struct known {
        int pid, fd; /* 0: nobody */
        char name[NAME_BYTES + 1];
        uint64_t delay_ns;
        bool is_seen;
};

static struct known known[KNOWN];

static int open_proc(int pid, const char *name) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
        return open(path, O_RDONLY | O_CLOEXEC);
}

/* Text of a small file of /proc; "" if it is gone. */
static void read_proc(int pid, const char *name, char *text, size_t room) {
        int fd = open_proc(pid, name);
        ssize_t n = fd < 0 ? 0 : read(fd, text, room - 1);
        text[n > 0 ? n : 0] = 0;
        text[strcspn(text, "\n")] = 0;
        if (fd >= 0)
                close(fd);
}

static bool is_part(const char *name) {
        return strcmp(name, "torture-client") == 0 || strcmp(name, "torture-sharer") == 0;
}

static void meet(int pid, bool must_be_part) {
        char name[CHILDREN_BYTES];
        struct known *vacant = NULL, *k = NULL;
        for (unsigned i = 0; i < KNOWN && !k; i++) {
                if (known[i].pid == pid)
                        k = &known[i];
                else if (known[i].pid == 0)
                        vacant = &known[i];
        }
        if (k && strncmp(k->name, "drover-", 7) != 0) { /* its name is settled */
                k->is_seen = true;
                return;
        }
        read_proc(pid, "comm", name, sizeof name);
        if (name[0] == 0 || (must_be_part && !is_part(name)))
                return;
        if (!k && vacant) {
                k = vacant;
                *k = (struct known){.pid = pid, .fd = open_proc(pid, "schedstat")};
        }
        if (!k)
                return;
        snprintf(k->name, sizeof k->name, "%.*s", NAME_BYTES, name);
        k->is_seen = true;
}

/* Calls meet() with each child of `pid`; the first of them. */
static int meet_children(int pid, bool must_be_parts) {
        char path[64], text[CHILDREN_BYTES];
        int first = 0;
        snprintf(path, sizeof path, "task/%d/children", pid);
        read_proc(pid, path, text, sizeof text);
        for (char *at = text, *end; *at; at = end) {
                int child = (int)strtol(at, &end, 10);
                if (end == at)
                        break;
                first = first ? first : child;
                meet(child, must_be_parts);
        }
        return first;
}

static void scan(int run_pid, int droverd_pid) {
        for (unsigned i = 0; i < KNOWN; i++)
                known[i].is_seen = false;
        meet(droverd_pid, false);
        meet_children(run_pid, true);
        int spawner = meet_children(droverd_pid, false);
        if (spawner)
                meet_children(spawner, false);
        for (unsigned i = 0; i < KNOWN; i++)
                if (known[i].pid && !known[i].is_seen) {
                        close(known[i].fd);
                        known[i] = (struct known){0};
                }
}

static void say_delay(const char *name, int pid, uint64_t from_ns, uint64_t to_ns) {
        part_say("delay %s %d %llu %llu", name, pid, (unsigned long long)from_ns, (unsigned long long)to_ns);
}

static void look(struct known *k) {
        char text[128];
        ssize_t n = pread(k->fd, text, sizeof text - 1, 0);
        unsigned long long ran, waited;
        if (n <= 0)
                return;
        text[n] = 0;
        uint64_t now_ns = event_now_ns();
        if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
                return;
        uint64_t more_ns = waited - k->delay_ns;
        k->delay_ns = waited;
        if (more_ns >= WORTH_TELLING_NS)
                say_delay(k->name, k->pid, now_ns - more_ns, now_ns);
}

int main(int argc, char *argv[]) {
        if (argc != 3)
                return 2;
        int run_pid = atoi(argv[1]), droverd_pid = atoi(argv[2]);
        part_init();
        part_say("ready");
        uint64_t before_ns = event_now_ns();
        for (unsigned i = 0; !part_is_over(); i++) {
                if (i % SCAN_EVERY == 0)
                        scan(run_pid, droverd_pid);
                for (unsigned j = 0; j < KNOWN; j++)
                        if (known[j].pid)
                                look(&known[j]);
                poll(NULL, 0, LOOK_MS);
                uint64_t now_ns = event_now_ns();
                if (now_ns > before_ns + LOOK_MS * UINT64_C(1000000) + OVERSLEPT_NS)
                        say_delay("machine", 0, before_ns, now_ns);
                before_ns = now_ns;
        }
        part_end();
}
