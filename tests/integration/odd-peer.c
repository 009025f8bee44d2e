/* Owns org.drover1 and answers each call with something else than droverd would: odd-peer ADDRESS SEED [MISSING].
 *
 * With MISSING, answers have the types and properties of droverd's, but for the property or the method of that name:
 * the one is not there, the other answers nothing. Without it, every third answer has types by chance, the others those
 * of the member with anything in them: variants of any type, keys in any place, schemas that are none. Between answers
 * come signals that make as little sense. Prints a line once it has the name. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static uint64_t state;
static const char *missing;

static uint32_t chance(uint32_t n) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (uint32_t)(state >> 33) % n;
}

#define PICK(list) list[chance(sizeof list / sizeof *list)]

static const char *const words[] = {"",
                                    "running",
                                    "done",
                                    "queued",
                                    "refused",
                                    "x",
                                    "7",
                                    "\x1b[31m",
                                    "{",
                                    "null",
                                    "[1]",
                                    "{\"jobs\":7}",
                                    "{\"jobs\":[1,null,{\"name\":3,\"args\":[1],\"result\":7}]}",
                                    "{\"jobs\":[{\"name\":\"x\",\"args\":{\"n\":null},\"result\":{\"n\":[]}}]}",
                                    "{\"jobs\":[{\"name\":\"x\",\"args\":{},\"result\":\"bytes\"}]}",
                                    "{\"jobs\":[{\"name\":\"x\",\"args\":{},\"result\":{\"n\":\"bytes\"}}]}"};
static const char *const keys[] = {"Name", "State",    "Problem", "Workers",    "MinWorkers", "Queued",       "Running",
                                   "Id",   "Pool",     "Pid",     "CurrentJob", "Latency",    "all",          "types",
                                   "jobs", "Progress", "result",  "payload",    "n",          "state",        "error",
                                   "job",  "id",       "Version", "NPools",     "NWorkers",   "NSessions",    "Attempt",
                                   "text", "attempt",  "channel", "slots",      "schema",     "PluginVersion"};
static const char *const types[] = {"s",  "u",     "t",     "x",  "d", "b", "as", "a{sv}", "aa{sv}",
                                    "ay", "(tts)", "a(ss)", "av", "g", "o", "h",  "ai",    "a{ss}"};
static const char *const replies[] = {
        "",  "s",  "u",  "t",  "o", "as",    "a{sv}", "aa{sv}", "a(soss)", "a(tsous)", "a(tosss)s", "a(sss)",
        "h", "to", "ot", "ss", "v", "a(ss)", "av",    "ay",     "a{ss}",   "a{ts}",    "a{sa{sv}}"};
static const struct {
        const char *member, *types;
} members[] = {
        {"GetAll", "a{sv}"},
        {"Submit", "to"},
        {"ListPools", "a(soss)"},
        {"GetPool", "o"},
        {"ListWorkers", "a(tsous)"},
        {"GetWorkerByPID", "o"},
        {"ListJobs", "a(tosss)s"},
        {"DescribeJobs", "aa{sv}s"},
        {"ListDeaths", "aa{sv}"},
        {"ListCapsules", "aa{sv}"},
        {"ListObjectsFrom", "aa{sv}s"},
        {"GetJob", "o"},
        {"Reload", "a(sss)"},
        {"RequeuePoisoned", "u"},
        {"Schema", "s"},
        {"ListTasks", "aa{sv}"},
        {"Cancel", "s"},
        {"Wait", "s"},
        {"GetResult", "a{sv}"},
        {"GetCapsule", "h"},
        {"OpenChannel", "a{sv}"},
        {"OpenArena", "a{sv}"},
        {"ListArenas", "aa{sv}"},
        {"ListSessions", "aa{sv}"},
        {"Get", "v"},
};

static int fill(sd_bus_message *m, const char *signature, unsigned depth);

/* How long the first complete type of `s` is. */
static size_t one_type(const char *s) {
        if (*s == 'a')
                return 1 + one_type(s + 1);
        if (*s != '(' && *s != '{')
                return 1;
        size_t n = 1;
        while (s[n] != ')' && s[n] != '}')
                n += one_type(s + n);
        return n + 1;
}

static int fill_basic(sd_bus_message *m, char type) {
        static const uint64_t numbers[] = {0, 1, 7, UINT32_MAX, UINT64_MAX, 1u << 31};
        uint64_t number = PICK(numbers);
        double real = 0.5;
        int flag = (int)chance(2), fd = 0;

        switch (type) {
        case 's':
                return sd_bus_message_append_basic(m, 's', PICK(words));
        case 'o':
                return sd_bus_message_append_basic(m, 'o', chance(2) ? "/org/drover1/job/7" : "/");
        case 'g':
                return sd_bus_message_append_basic(m, 'g', "s");
        case 'd':
                return sd_bus_message_append_basic(m, 'd', &real);
        case 'b':
                return sd_bus_message_append_basic(m, 'b', &flag);
        case 'h':
                return sd_bus_message_append_basic(m, 'h', &fd);
        default:
                return sd_bus_message_append_basic(m, type, &number);
        }
}

static int fill_array(sd_bus_message *m, const char *contents, unsigned depth) {
        int r = sd_bus_message_open_container(m, 'a', contents);
        char entry[64];

        snprintf(entry, sizeof entry, "%.*s", *contents == '{' ? (int)strlen(contents) - 2 : 0, contents + 1);
        unsigned n = depth > 3 ? 0 : strcmp(contents, "{sv}") == 0 ? 5 + chance(40) : chance(4);

        for (unsigned i = 0; i < n && r >= 0; i++) {
                if (*contents != '{') {
                        r = fill(m, contents, depth + 1);
                        continue;
                }
                r = sd_bus_message_open_container(m, 'e', entry);
                if (r >= 0)
                        r = contents[1] == 's' ? sd_bus_message_append_basic(m, 's', PICK(keys))
                                               : fill_basic(m, contents[1]);
                if (r >= 0)
                        r = fill(m, entry + 1, depth + 1);
                if (r >= 0)
                        r = sd_bus_message_close_container(m);
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int fill(sd_bus_message *m, const char *signature, unsigned depth) {
        int r = 0;

        while (*signature && r >= 0) {
                size_t n = one_type(signature);
                char inner[64];

                snprintf(inner, sizeof inner, "%.*s", (int)n, signature);
                signature += n;
                if (*inner == 'a') {
                        r = fill_array(m, inner + 1, depth);
                } else if (*inner == '(') {
                        inner[n - 1] = 0;
                        r = sd_bus_message_open_container(m, 'r', inner + 1);
                        if (r >= 0)
                                r = fill(m, inner + 1, depth + 1);
                        if (r >= 0)
                                r = sd_bus_message_close_container(m);
                } else if (*inner == 'v') {
                        const char *type = depth > 3 ? "s" : PICK(types);

                        r = sd_bus_message_open_container(m, 'v', type);
                        if (r >= 0)
                                r = fill(m, type, depth + 1);
                        if (r >= 0)
                                r = sd_bus_message_close_container(m);
                } else {
                        r = fill_basic(m, *inner);
                }
        }
        return r;
}

static const char *types_of(const char *member) {
        for (size_t i = 0; i < sizeof members / sizeof *members; i++)
                if (strcmp(members[i].member, member) == 0)
                        return members[i].types;
        return "";
}

/* One entry each: one pool with one worker. */
static int append_list(sd_bus_message *m, const char *member) {
        if (strcmp(member, "ListPools") == 0)
                return sd_bus_message_append(m, "a(soss)", 1, "x", "/org/drover1/pool/x", "x", "running");
        if (strcmp(member, "ListWorkers") == 0)
                return sd_bus_message_append(m, "a(tsous)", 1, UINT64_C(7), "x", "/org/drover1/worker/7", 7, "idle");
        return fill(m, types_of(member), 4);
}

static int append_properties(sd_bus_message *m) {
        static const char *const texts[] = {"Version", "Name", "State", "Problem", "Pool"};
        static const char *const numbers[] = {"NPools",  "NWorkers", "NSessions", "Workers",    "MinWorkers", "Queued",
                                              "Running", "Id",       "Pid",       "CurrentJob", "Attempt"};
        int r = sd_bus_message_open_container(m, 'a', "{sv}");

        for (size_t i = 0; i < sizeof texts / sizeof *texts && r >= 0; i++)
                if (strcmp(texts[i], missing) != 0)
                        r = sd_bus_message_append(m, "{sv}", texts[i], "s", "x");
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers && r >= 0; i++)
                if (strcmp(numbers[i], missing) != 0)
                        r = sd_bus_message_append(m, "{sv}", numbers[i], "t", UINT64_C(7));
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int append_answer(sd_bus_message *m, const char *member) {
        if (!missing)
                return fill(m, chance(3) ? types_of(member) : PICK(replies), 0);
        if (strcmp(member, missing) == 0)
                return 0;
        return strcmp(member, "GetAll") == 0 ? append_properties(m) : append_list(m, member);
}

static int on_message(sd_bus_message *call, void *user, sd_bus_error *error) {
        sd_bus *bus = user;
        sd_bus_message *reply = NULL, *signal = NULL;
        uint8_t type;
        int r;

        if (sd_bus_message_get_type(call, &type) < 0 || type != SD_BUS_MESSAGE_METHOD_CALL)
                return 0;
        if (!missing && chance(16) == 0 &&
            sd_bus_message_new_signal(bus, &signal, "/org/drover1", "org.drover1.Manager", "JobRemoved") >= 0 &&
            fill(signal, chance(2) ? "toss" : PICK(replies), 0) >= 0)
                sd_bus_send(bus, signal, NULL);
        sd_bus_message_unref(signal);
        if (!missing && chance(24) == 0)
                return sd_bus_reply_method_errorf(call, chance(2) ? "org.drover1.Error.NoSuchJob" : "com.example.Odd",
                                                  "%s", PICK(words));
        r = sd_bus_message_new_method_return(call, &reply);
        if (r >= 0)
                r = append_answer(reply, sd_bus_message_get_member(call));
        if (r >= 0)
                r = sd_bus_send(bus, reply, NULL);
        sd_bus_message_unref(reply);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", sd_bus_message_get_member(call), strerror(-r));
        return 1;
}

int main(int argc, char *argv[]) {
        sd_bus *bus = NULL;
        int r = argc == 3 || argc == 4 ? sd_bus_new(&bus) : -1;

        missing = argc == 4 ? argv[3] : NULL;
        state = argc >= 3 ? strtoull(argv[2], NULL, 10) : 0;
        if (r < 0 || sd_bus_set_address(bus, argv[1]) < 0 || sd_bus_set_bus_client(bus, true) < 0 ||
            sd_bus_start(bus) < 0 || sd_bus_add_filter(bus, NULL, on_message, bus) < 0 ||
            sd_bus_request_name(bus, "org.drover1", 0) < 0)
                return 1;
        puts("ready");
        fflush(stdout);
        while ((r = sd_bus_process(bus, NULL)) >= 0)
                if (r == 0 && (r = sd_bus_wait(bus, UINT64_MAX)) < 0)
                        break;
        return 0;
}
