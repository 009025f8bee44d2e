/* kill and reload: what an operator does to workers and to the configuration. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "daemon/ctl/remote.h"

/* "TERM", "SIGTERM" or "15". 0 = none of these. */
static int parse_signal(const char *word) {
        char *end;
        long n = strtol(word, &end, 10);

        if (*word >= '0' && *word <= '9' && !*end)
                return n > 0 && n < _NSIG ? (int)n : 0;
        if (strncmp(word, "SIG", 3) == 0)
                word += 3;
        for (int i = 1; i < _NSIG; i++)
                if (sigabbrev_np(i) && strcmp(sigabbrev_np(i), word) == 0)
                        return i;
        return 0;
}

/* The path of the worker that an operand names: its number, "worker/ID", its object path, or "pid:PID". CTL_OK or the
 * exit code, said. */
static int find_worker(struct ctl *c, const char *word, struct json_object **ret) {
        const struct remote_call by_pid = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetWorkerByPID"};
        bool is_pid = strncmp(word, "pid:", 4) == 0;
        const char *slash = strrchr(word, '/'), *digits = is_pid ? word + 4 : slash ? slash + 1 : word;
        char path[64], *end;
        uint64_t n;
        int r = 0;

        errno = 0;
        n = strtoull(digits, &end, 10);
        if (*digits < '0' || *digits > '9' || *end || errno || (is_pid && n > UINT32_MAX)) {
                ctl_error("kill %s: a worker is a number, as list-workers gives it, or pid:PID", word);
                return CTL_USAGE;
        }
        if (is_pid)
                r = remote_call(c->remote, &by_pid, ret, "u", (uint32_t)n);
        if (r < 0)
                return remote_report(c->remote, r);
        snprintf(path, sizeof path, REMOTE_MANAGER "/worker/%" PRIu64, n);
        if (!is_pid)
                *ret = json_object_new_string(path);
        return CTL_OK;
}

static int kill_worker(struct ctl *c, const char *word, int signal, struct json_object *rows) {
        ctl_cleanup(json_putp) struct json_object *path = NULL;
        struct json_object *row;
        int r, code = find_worker(c, word, &path);

        if (code != CTL_OK)
                return code;
        const struct remote_call kill = {.path = json_string(path), .interface = "Worker", .member = "Kill"};
        r = remote_call(c->remote, &kill, NULL, "i", signal);
        if (r < 0)
                return remote_report(c->remote, r);
        row = json_object_new_object();
        json_object_object_add(row, "worker", json_object_get(path));
        json_object_object_add(row, "signal", json_object_new_int(signal));
        json_object_array_add(rows, row);
        return CTL_OK;
}

/* All that can be killed are, also behind one that cannot. */
int verb_kill(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *rows = json_object_new_array();
        int code = CTL_OK, signal = parse_signal(c->signal ? c->signal : "TERM");

        if (signal == 0) {
                ctl_error("--signal=%s: no such signal", c->signal);
                return CTL_USAGE;
        }
        for (int i = 0; i < c->n_operands; i++) {
                int r = kill_worker(c, c->operands[i], signal, rows);

                code = r != CTL_OK ? r : code;
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, rows, c->json);
        return code;
}

int verb_reload(struct ctl *c) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "Reload"};
        static const char *const keys[] = {"kind", "name", "what"};
        ctl_cleanup(json_putp) struct json_object *changes = NULL, *rows = json_object_new_array();
        int r = remote_call(c->remote, &call, &changes, "t", (uint64_t)0);

        if (r < 0) {
                r = remote_report(c->remote, r);
                return r == CTL_USAGE ? CTL_REFUSED : r; /* drover.conf makes no sense, not the command line */
        }
        for (size_t i = 0; i < json_length(changes); i++) {
                struct json_object *change = json_at(changes, i), *row = json_object_new_object();

                for (unsigned k = 0; k < 3; k++)
                        json_object_object_add(row, keys[k], json_object_get(json_at(change, k)));
                json_object_array_add(rows, row);
                if (c->json == CTL_JSON_OFF)
                        printf("%s %s: %s\n", json_text(row, "kind", "?"), json_text(row, "name", "?"),
                               json_text(row, "what", "?"));
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, rows, c->json);
        else if (json_length(rows) == 0 && !c->quiet)
                puts("nothing changed");
        return CTL_OK;
}
