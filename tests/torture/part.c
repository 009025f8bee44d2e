/* What the programs of a torture run have in common. They are killed at any time and owe nobody anything: errors end
 * the program, and memory goes with it. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/torture/part.h"

static volatile sig_atomic_t is_over;

uint64_t part_random(uint64_t *state) { /* splitmix64 */
        uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

__attribute__((format(printf, 2, 0))) static void part_vsay(const char *before, const char *format, va_list ap) {
        char line[400];
        int n = snprintf(line, sizeof line, "%s", before);
        int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, ap);
        n = m < (int)sizeof line - n - 2 ? n + m : (int)sizeof line - 2;
        line[n++] = '\n';
        if (write(STDOUT_FILENO, line, (size_t)n) != n)
                _exit(3); /* nobody listens any more */
}

void part_say(const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        part_vsay("", format, ap);
        va_end(ap);
}

void part_fail(const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        part_vsay("fail ", format, ap);
        va_end(ap);
        _exit(1);
}

void part_waited(const char *what, uint64_t since_ns, uint64_t until_ns) {
        if (until_ns > since_ns + PART_SLOW_NS)
                part_say("slow %s %llu %llu", what, (unsigned long long)since_ns, (unsigned long long)until_ns);
}

sd_bus *part_bus(void) {
        sd_bus *bus;
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                part_fail("the bus: %s", strerror(-r));
        return bus;
}

static int part_read_memory(sd_bus_message *m, int *ret_fd) {
        const char *key;
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read_basic(m, 's', &key);
                if (r >= 0 && strcmp(key, "memory") == 0)
                        return sd_bus_message_read(m, "v", "h", ret_fd);
                if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : -ENOENT;
}

drover_arena *part_arena(sd_bus *bus, const char *name, uint64_t bytes) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        drover_arena *arena;
        int fd, r;
        r = sd_bus_call_method(bus, "org.drover1", "/org/drover1", "org.drover1.Manager", "OpenArena", &error, &reply,
                               "sa{sv}", name, 1, "bytes", "t", bytes);
        if (r >= 0)
                r = part_read_memory(reply, &fd);
        if (r >= 0)
                r = drover_arena_attach(fd, &arena);
        if (r < 0)
                part_fail("arena %s: %s", name, error.message ? error.message : strerror(-r));
        sd_bus_message_unref(reply);
        return arena;
}

static void on_term(int signal) { is_over = 1; }

bool part_is_over(void) { return is_over; }

void part_init(void) {
        struct sigaction action = {.sa_handler = on_term};
        sigaction(SIGTERM, &action, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void part_end(void) { _exit(0); }
