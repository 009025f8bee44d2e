/* honest UID WHAT POOL: becomes UID and calls job "echo" of POOL (plugin echo), one call after the other, with a pause
 * between them, as most callers have one: WHAT "run" over the bus, "channel" through a session's shared memory. Each
 * answer is compared. Says "ready"; for each line on standard input "N P50 P99 MAX": the calls since the line before,
 * and how long they took, in us. One that fails ends it, with a line that says why.
 *
 * For comparison, what a call and its answer take on this bus at least: honest UID ping NAME, of a connection. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "ipc/client/session/session.h"
#include "ipc/memory/event.h"

enum { MAX_CALLS = 1 << 18, BYTES = 200, PAUSE_NS = 1000000 };

#define PATIENCE_NS UINT64_C(60000000000)

static sd_bus *bus;
static struct session *session;
static const char *pool;
static uint8_t payload[BYTES];
static uint32_t times_us[MAX_CALLS];

__attribute__((noreturn)) static void fail(const char *what, const char *why) {
        printf("failed: %s: %s\n", what, why);
        fflush(stdout);
        _exit(1);
}

static void compare(const void *data, size_t bytes) {
        if (bytes != sizeof payload || memcmp(data, payload, bytes) != 0)
                fail("an answer", "is not what was asked for");
}

static int append_arguments(sd_bus_message *m) {
        int r = sd_bus_message_append(m, "ss", pool, "echo");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "payload");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', payload, sizeof payload);
        for (int i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_append(m, "a{sv}", 0);
}

static void run(void) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m, *reply = NULL;
        const void *data;
        size_t bytes;
        const char *key;
        int r = sd_bus_message_new_method_call(bus, &m, "org.drover1", "/org/drover1", "org.drover1.Manager", "Run");
        if (r >= 0)
                r = append_arguments(m);
        if (r >= 0)
                r = sd_bus_call(bus, m, PATIENCE_NS / 1000, &error, &reply);
        if (r < 0)
                fail("Run", error.message ? error.message : strerror(-r));
        r = sd_bus_message_enter_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &key);
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'v', "ay");
        if (r >= 0)
                r = sd_bus_message_read_array(reply, 'y', &data, &bytes);
        if (r < 0)
                fail("the reply of Run", strerror(-r));
        compare(data, bytes);
        sd_bus_message_unref(m);
        sd_bus_message_unref(reply);
}

static void round_trip(void) {
        const struct session_job job = {
                .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = sizeof payload};
        struct session_result result;
        uint32_t slot;
        int r = session_submit(session, &job, &slot);
        if (r < 0)
                fail("submit", strerror(-r));
        while ((r = session_next(session, &result, event_now_ns() + PATIENCE_NS)) == -EINTR)
                ;
        if (r != 1)
                fail("no verdict", strerror(r < 0 ? -r : ETIMEDOUT));
        if (result.state != SLOT_DONE || result.attempt != 1)
                fail("a verdict", "of a job that is fine is another than DONE, at the first attempt");
        compare(result.data, result.bytes);
}

static void ping(void) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m;
        int r = sd_bus_message_new_method_call(bus, &m, pool, "/", "org.freedesktop.DBus.Peer", "Ping");
        if (r >= 0)
                r = sd_bus_call(bus, m, PATIENCE_NS / 1000, &error, NULL);
        if (r < 0)
                fail("Ping", error.message ? error.message : strerror(-r));
        sd_bus_message_unref(m);
}

static int less(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
        return (x > y) - (x < y);
}

static void tell(size_t n) {
        qsort(times_us, n, sizeof *times_us, less);
        printf("%zu %u %u %u\n", n, n ? times_us[n / 2] : 0, n ? times_us[n * 99 / 100] : 0, n ? times_us[n - 1] : 0);
        fflush(stdout);
}

static void serve(void (*call)(void)) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        char line[80];
        size_t n = 0;
        for (uint64_t counter = 0;; counter++) {
                for (size_t i = 0; i < sizeof payload; i++)
                        payload[i] = (uint8_t)(counter + i);
                uint64_t since_ns = event_now_ns();
                call();
                if (n < MAX_CALLS)
                        times_us[n++] = (uint32_t)((event_now_ns() - since_ns) / 1000);
                nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
                if (poll(&in, 1, 0) == 0)
                        continue;
                if (!fgets(line, sizeof line, stdin))
                        return;
                tell(n);
                n = 0;
        }
}

int main(int argc, char *argv[]) {
        static const struct {
                const char *what;
                void (*call)(void);
        } known[] = {{"run", run}, {"channel", round_trip}, {"ping", ping}};
        unsigned what = 0;
        char error[400];
        while (argc == 4 && what < 3 && strcmp(known[what].what, argv[2]) != 0)
                what++;
        if (argc != 4 || what == 3)
                return 2;
        uid_t uid = (uid_t)strtoul(argv[1], NULL, 10);
        if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
                fail("setresuid", strerror(errno));
        pool = argv[3];
        int r = sd_bus_open_user(&bus);
        if (r < 0)
                fail("the bus", strerror(-r));
        if (known[what].call == round_trip && session_open(&session, bus, pool, error, sizeof error) < 0)
                fail("OpenChannel", error);
        puts("ready");
        fflush(stdout);
        serve(known[what].call);
        session_free(session);
        sd_bus_unref(bus);
        return 0;
}
