/* flooder WHAT UID CONNECTIONS WINDOW | flooder echo: calls droverd as fast as it can, as this uid, until it is killed
 * or its stdin ends.
 *
 * WHAT is a row of the table below, or "rubbish" for the first of them in turn; "echo" calls nothing and answers pings,
 * to tell how fast the bus itself is: it says its name then. WINDOW: so many calls under way on a connection, whose
 * replies are read; 0: nothing is ever read; -1: no reply is asked for. At the end it says what it got: "SENT ANSWERED
 * REFUSED", the last being LimitsExceeded. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 64, BATCH = 32 };

#define MANAGER "/org/drover1", "org.drover1.Manager"

static const struct row {
        const char *what, *path, *interface, *member;
        int (*fill)(sd_bus_message *m);
} rows[];

struct connection {
        sd_bus *bus;
        int n_under_way;
};

static struct connection connections[MAX_CONNECTIONS];
static uint64_t n_sent, n_answered, n_refused;
static char *big;

static int fill_pool(sd_bus_message *m) { return sd_bus_message_append(m, "s", "p"); }
static int fill_open(sd_bus_message *m) { return sd_bus_message_append(m, "sa{sv}", "p", 0); }
static int fill_wrong_job(sd_bus_message *m) {
        return sd_bus_message_append(m, "ssa{sv}a{sv}", "p", "no such job", 0, 0);
}
static int fill_wrong_types(sd_bus_message *m) { return sd_bus_message_append(m, "u", 7); }
static int fill_list(sd_bus_message *m) { return sd_bus_message_append(m, "a{sv}su", 0, "", 0); }
static int fill_deaths(sd_bus_message *m) { return sd_bus_message_append(m, "su", "", 1024); }
static int fill_reload(sd_bus_message *m) { return sd_bus_message_append(m, "t", UINT64_C(0)); }
static int fill_arena(sd_bus_message *m) {
        return sd_bus_message_append(m, "sa{sv}", "flood", 1, "bytes", "t", UINT64_C(65536));
}
static int fill_face(sd_bus_message *m) { return sd_bus_message_append(m, "s", "org.drover1.Pool"); }
static int fill_nothing(sd_bus_message *m) { return 0; }

static int fill_sleep(sd_bus_message *m) {
        return sd_bus_message_append(m, "ssa{sv}a{sv}", "p", "sleep", 1, "ms", "t", UINT64_C(0), 0);
}

static int fill_big(sd_bus_message *m) {
        return sd_bus_message_append(m, "ssa{sv}a{sv}", "p", "sleep", 1, "ms", "s", big, 0);
}

static int fill_fds(sd_bus_message *m) {
        int r = sd_bus_message_open_container(m, 'a', "h");
        for (int i = 0; i < 16 && r >= 0; i++)
                r = sd_bus_message_append_basic(m, 'h', &(int){0});
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static const struct row rows[] = {
        {"no-pool", MANAGER, "GetPool", fill_pool},
        {"wrong-job", MANAGER, "Run", fill_wrong_job},
        {"wrong-types", MANAGER, "Submit", fill_wrong_types},
        {"unknown-member", MANAGER, "NoSuchMember", fill_nothing},
        {"unknown-path", "/org/drover1/job/0/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z", "org.drover1.Job",
         "Wait", fill_nothing},
        {"denied", MANAGER, "Reload", fill_reload},
        {"list-jobs", MANAGER, "ListJobs", fill_list},
        {"list-deaths", MANAGER, "ListDeaths", fill_deaths},
        {"list-workers", MANAGER, "ListWorkers", fill_nothing},
        {"introspect", "/org/drover1", "org.freedesktop.DBus.Introspectable", "Introspect", fill_nothing},
        {"managed", "/org/drover1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", fill_nothing},
        {"get-all", "/org/drover1/pool/p", "org.freedesktop.DBus.Properties", "GetAll", fill_face},
        {"ping", "/org/drover1", "org.freedesktop.DBus.Peer", "Ping", fill_nothing},
        {"arena", MANAGER, "OpenArena", fill_arena},
        {"open", MANAGER, "OpenChannel", fill_open},
        {"run", MANAGER, "Run", fill_sleep},
        {"submit", MANAGER, "Submit", fill_sleep},
        {"big", MANAGER, "Run", fill_big},
        {"fds", MANAGER, "Run", fill_fds},
        {"subscribe", MANAGER, "Subscribe", fill_nothing},
};

enum { N_ROWS = sizeof(rows) / sizeof(*rows), N_RUBBISH = 13 };

static void fail(const char *what, int r) {
        fprintf(stderr, "flooder: %s: %s\n", what, strerror(-r));
        exit(1);
}

static int on_reply(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct connection *c = user;
        c->n_under_way--;
        n_answered++;
        n_refused += sd_bus_message_is_method_error(m, SD_BUS_ERROR_LIMITS_EXCEEDED);
        return 0;
}

static void call(struct connection *c, const struct row *row, int window) {
        sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(c->bus, &m, "org.drover1", row->path, row->interface, row->member);
        if (r >= 0)
                r = row->fill(m);
        if (r >= 0 && window > 0)
                r = sd_bus_call_async(c->bus, NULL, m, on_reply, c, UINT64_MAX);
        else if (r >= 0)
                r = sd_bus_send(c->bus, m, window == 0 ? &(uint64_t){0} : NULL);
        if (r < 0 && r != -ENOBUFS &&
            r != -ETOOMANYREFS) /* the latter: too many descriptors of ours are on their way */
                fail(row->what, r);
        sd_bus_message_unref(m);
        c->n_under_way++;
        n_sent++;
}

static bool is_full(const struct connection *c, int window) {
        uint64_t queued = 0;
        if (window > 0)
                return c->n_under_way >= window;
        sd_bus_get_n_queued_write(c->bus, &queued);
        return queued > 0;
}

/* One that reads nothing writes all the same: sd_bus_flush, which does not wait where nothing is queued. */
static bool turn(struct connection *c, const struct row *row, int n_rows, int window) {
        static unsigned next;
        bool did = false;
        for (int i = 0; i < BATCH && !is_full(c, window); i++) {
                call(c, &row[next++ % (unsigned)n_rows], window);
                did = true;
        }
        if (window <= 0) {
                struct pollfd p = {.fd = sd_bus_get_fd(c->bus), .events = POLLOUT};
                if (is_full(c, window) && poll(&p, 1, 0) > 0) {
                        sd_bus_flush(c->bus);
                        did = true;
                }
                return did;
        }
        for (int i = 0; i < 2 * BATCH; i++) {
                int r = sd_bus_process(c->bus, NULL);
                if (r < 0)
                        fail("process", r);
                if (r == 0)
                        break;
                did = true;
        }
        return did;
}

static int echo(void) {
        const char *name;
        sd_bus *bus;
        int r = sd_bus_open_user(&bus);
        if (r >= 0)
                r = sd_bus_get_unique_name(bus, &name);
        if (r < 0)
                fail("connect", r);
        puts(name);
        fflush(stdout);
        while ((r = sd_bus_process(bus, NULL)) >= 0) {
                struct pollfd p[] = {{.fd = sd_bus_get_fd(bus), .events = POLLIN}, {.fd = 0, .events = POLLIN}};
                if (r == 0 && poll(p, 2, -1) > 0 && p[1].revents)
                        return 0;
        }
        return 1;
}

int main(int argc, char **argv) {
        if (argc == 2 && strcmp(argv[1], "echo") == 0)
                return echo();
        if (argc != 5)
                return 2;
        const struct row *row = rows;
        int n_rows = N_RUBBISH, n = atoi(argv[3]), window = atoi(argv[4]);
        if (strcmp(argv[1], "rubbish") != 0) {
                for (n_rows = 1; row < rows + N_ROWS && strcmp(row->what, argv[1]) != 0; row++)
                        ;
                if (row == rows + N_ROWS)
                        return 2;
        }
        if (atoi(argv[2]) && (setgid((gid_t)atoi(argv[2])) < 0 || setuid((uid_t)atoi(argv[2])) < 0))
                fail("setuid", -errno);
        big = calloc(1, 1 << 20);
        memset(big, 'x', (1 << 20) - 1);
        for (int i = 0; i < n; i++) {
                int r = sd_bus_open_user(&connections[i].bus);
                if (r < 0)
                        fail("connect", r);
        }
        puts("ready");
        fflush(stdout);
        struct pollfd in[MAX_CONNECTIONS + 1] = {{.fd = 0, .events = POLLIN}};
        do {
                bool did = false;
                for (int i = 0; i < n; i++) {
                        did |= turn(&connections[i], row, n_rows, window);
                        in[i + 1] = (struct pollfd){.fd = sd_bus_get_fd(connections[i].bus),
                                                    .events = window > 0 ? POLLIN : POLLOUT};
                }
                poll(in, did ? 1 : (nfds_t)n + 1, did ? 0 : 100);
        } while (!in[0].revents);
        printf("%llu %llu %llu\n", (unsigned long long)n_sent, (unsigned long long)n_answered,
               (unsigned long long)n_refused);
        return 0;
}
