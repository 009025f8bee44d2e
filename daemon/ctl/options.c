/* The command line of droverctl.
 *
 * Options stand before or after the verb (getopt_long permutes); `--` ends them, and what follows belongs to the verb
 * (run's COMMAND). One table says for each option its letter, its argument, the verbs that know it and how it is
 * stored, so that an option given to the wrong verb is an error that names both, and --help and completion cannot
 * forget one. What is only passed on is a row as well: to run's pool file (section and key), or to a job (its option
 * of the same name). Such values are judged by droverd. */
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "daemon/config/config-value.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/options.h"
#include "ipc/values/priority.h"

enum option_kind {
        OPTION_HELP,
        OPTION_VERSION,
        OPTION_USER,
        OPTION_SYSTEM,
        OPTION_ADDRESS,
        OPTION_JSON,
        OPTION_QUIET,
        OPTION_INPUT,
        OPTION_ARG,
        OPTION_PLUGIN,
        OPTION_SETTING,
        OPTION_FULL,
        OPTION_NO_WAIT,
        OPTION_MODE,
        OPTION_SIGNAL,
        OPTION_LINES,
        OPTION_OUTPUT,
        OPTION_STATE,
        OPTION_STATE_DIR,
        OPTION_ONCE,
        OPTION_INTERVAL,
};

struct option_row {
        const char *name, *value, *verbs, *help; /* verbs: space-separated, NULL = all */
        enum option_kind kind;
        char letter;
        const char *section, *key; /* OPTION_SETTING of run */
        char type;                 /* OPTION_SETTING of a job: its type on the bus */
};

#define TAKES_TIME "start stop restart drain"
#define JOB "call submit resubmit"
#define JOB_OR_RUN "run call submit resubmit"

static const struct option_row rows[] = {
        {"help", NULL, NULL, "this text", OPTION_HELP, 'h'},
        {"version", NULL, NULL, "the version", OPTION_VERSION},
        {"user", NULL, NULL, "use the user bus", OPTION_USER},
        {"system", NULL, NULL, "use the system bus (neither: the user bus if a droverd is there)", OPTION_SYSTEM},
        {"address", "ADDRESS", NULL, "use the bus at this D-Bus address", OPTION_ADDRESS},
        {"json", "pretty|short|off", NULL, "print JSON; short: one object a line", OPTION_JSON},
        {"quiet", NULL, NULL, "no progress bar, no table headings", OPTION_QUIET, 'q'},
        {"full", NULL,
         "status list-pools list-workers list-jobs list-sessions list-arenas list-objects list-deaths "
         "list-capsules cat",
         "cut nothing to the terminal's width; status: the workers, too", OPTION_FULL, 'l'},
        {"no-wait", NULL, TAKES_TIME, "do not wait until it is done", OPTION_NO_WAIT},
        {"mode", "queued|ask|kill", "cancel", "queued: only if it has not begun; ask is the default", OPTION_MODE},
        {"signal", "SIGNAL", "kill", "a name or a number; TERM if not given", OPTION_SIGNAL, 's'},
        {"lines", "N", "list-jobs list-deaths", "at most N rows", OPTION_LINES, 'n'},
        {"state", "STATE", "list-jobs", "only these; several with commas between", OPTION_STATE},
        {"state-dir", "DIR", "list-capsules show-capsule resubmit",
         "read what a droverd left there, and do not ask the bus", OPTION_STATE_DIR},
        {"once", NULL, "top", "one block, after one interval", OPTION_ONCE},
        {"interval", "TIME", "top", "between two looks; 1s if not given", OPTION_INTERVAL, 'd'},
        {"input", "FILE", "map call submit",
         "read lines (map) or the payload of a raw job (call, submit) from FILE, - = standard input", OPTION_INPUT,
         'i'},
        {"output", "[FIELD=]FILE", "call result show-capsule",
         "write a field of the result to FILE; may be repeated; show-capsule: save it", OPTION_OUTPUT, 'o'},
        {"arg", "NAME", "map", "the line is the value of this argument", OPTION_ARG, 'a'},
        {"plugin", "FILE", "run", "a pool for this plugin, named after the file; may be repeated", OPTION_PLUGIN, 'p'},
        {"start-method", "fork|spawn|forkserver", "run", "how workers are started", OPTION_SETTING, 'm', "Pool",
         "StartMethod"},
        {"workers", "N", "run", "workers of each pool, or auto", OPTION_SETTING, 'w', "Pool", "Workers"},
        {"slots", "N", "run", "jobs a channel holds", OPTION_SETTING, 0, "Pool", "Slots"},
        {"slot-size", "BYTES", "run", "largest payload and result", OPTION_SETTING, 0, "Pool", "SlotSize"},
        {"priority", PRIORITY_WORDS, JOB, "urgent is served first, low last; also 1 (low) to 4; normal if not given",
         OPTION_SETTING, 0, NULL, NULL, 'p'},
        {"max-attempts", "N", JOB_OR_RUN, "attempts before a job is poisoned", OPTION_SETTING, 0, "Job", "MaxAttempts",
         'u'},
        {"queue-timeout", "TIME", JOB_OR_RUN, "longest wait in the queue", OPTION_SETTING, 0, "Job", "QueueTimeout",
         't'},
        {"soft-timeout", "TIME", JOB_OR_RUN, "when a job is asked to stop", OPTION_SETTING, 0, "Job", "SoftTimeout",
         't'},
        {"hard-timeout", "TIME", JOB_OR_RUN, "when its worker is killed", OPTION_SETTING, 0, "Job", "HardTimeout", 't'},
        {"delay", "TIME", JOB, "begin it so much later", OPTION_SETTING, 0, NULL, NULL, 'n'},
        {"after", "JOB[,JOB...]", JOB, "begin it when these jobs are done", OPTION_SETTING, 0, NULL, NULL, 'a'},
        {"idempotency-key", "KEY", JOB, "submit it once, whoever asks how often", OPTION_SETTING, 0, NULL, NULL, 's'},
        {"restart-sec", "TIME", "run", "first pause before a worker that failed to start is replaced", OPTION_SETTING,
         0, "Worker", "RestartSec"},
        {"environment", "NAME=VALUE", "run", "environment of the workers", OPTION_SETTING, 'e', "Worker",
         "Environment"},
};

enum { N_ROWS = sizeof rows / sizeof *rows, LONG_BASE = 256 };

void options_print_help(FILE *f) {
        fputs("\nOptions, before or after the verb:\n", f);
        for (size_t i = 0; i < N_ROWS; i++) {
                const struct option_row *row = &rows[i];
                char letter[5] = "    ";

                if (row->letter)
                        snprintf(letter, sizeof letter, "-%c, ", row->letter);
                int n = fprintf(f, "  %s--%s%s%s", letter, row->name, row->value ? "=" : "",
                                row->value ? row->value : "");
                fprintf(f, "%*s", n < 30 ? 30 - n : 1, "");
                if (row->verbs)
                        fprintf(f, "(%s) ", row->verbs);
                fprintf(f, "%s\n", row->help);
        }
}

/* Is `verb` one of the words of `list`? */
static bool verb_is_in(const char *verb, const char *list) {
        size_t n = strlen(verb);

        for (const char *p = list; (p = strstr(p, verb)); p += n)
                if ((p == list || p[-1] == ' ') && (p[n] == 0 || p[n] == ' '))
                        return true;
        return false;
}

bool options_get(size_t i, const char *verb, struct options_entry *ret) {
        if (i >= N_ROWS)
                return false;
        *ret = (struct options_entry){.name = rows[i].name,
                                      .value = rows[i].value,
                                      .letter = rows[i].letter,
                                      .is_known = !rows[i].verbs || (verb && verb_is_in(verb, rows[i].verbs))};
        return true;
}

static int store_json(struct ctl *c, const char *value) {
        static const char *const words[] = {
                [CTL_JSON_OFF] = "off", [CTL_JSON_SHORT] = "short", [CTL_JSON_PRETTY] = "pretty"};

        for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
                if (strcmp(value, words[i]) == 0) {
                        c->json = (enum ctl_json)i;
                        return -1;
                }
        ctl_error("--json=%s: it is pretty, short or off", value);
        return CTL_USAGE;
}

static int store_plugin(struct ctl *c, const char *value) {
        if (c->n_plugins == CTL_MAX_PLUGINS) {
                ctl_error("--plugin=%s: at most %d plugins", value, CTL_MAX_PLUGINS);
                return CTL_USAGE;
        }
        c->plugins[c->n_plugins++] = value;
        return -1;
}

static int store_setting(struct ctl *c, const struct option_row *row, const char *value) {
        if (c->n_settings == CTL_MAX_SETTINGS) {
                ctl_error("--%s=%s: at most %d settings", row->name, value, CTL_MAX_SETTINGS);
                return CTL_USAGE;
        }
        if (strpbrk(value, "\r\n")) {
                ctl_error("--%s: a line break in its value", row->name);
                return CTL_USAGE;
        }
        c->settings[c->n_settings++] = (struct ctl_setting){row->name, row->section, row->key, value, row->type};
        return -1;
}

static int store_output(struct ctl *c, const char *value) {
        if (c->n_outputs == CTL_MAX_OUTPUTS) {
                ctl_error("--output=%s: at most %d fields", value, CTL_MAX_OUTPUTS);
                return CTL_USAGE;
        }
        c->outputs[c->n_outputs++] = value;
        return -1;
}

static int store_lines(struct ctl *c, const char *value) {
        char *end;
        unsigned long n;

        errno = 0;
        n = strtoul(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || errno || n < 1 || n > UINT32_MAX) {
                ctl_error("--lines=%s: not a number from 1", value);
                return CTL_USAGE;
        }
        c->n_lines = (uint32_t)n;
        return -1;
}

static int store_interval(struct ctl *c, const char *value) {
        uint64_t ns;

        if (value_parse_time(value, &ns) < 0 || ns < 100 * 1000 * 1000 || ns == VALUE_INFINITY) {
                ctl_error("--interval=%s: not a time like 2 (seconds) or 500ms, from 100ms", value);
                return CTL_USAGE;
        }
        c->interval_us = ns / 1000;
        return -1;
}

static int store(struct ctl *c, const struct option_row *row, const char *value) {
        switch (row->kind) {
        case OPTION_HELP:
                ctl_print_help(stdout);
                return CTL_OK;
        case OPTION_VERSION:
                puts("droverctl " DROVER_VERSION);
                return CTL_OK;
        case OPTION_USER:
                c->scope = CTL_SCOPE_USER;
                return -1;
        case OPTION_SYSTEM:
                c->scope = CTL_SCOPE_SYSTEM;
                return -1;
        case OPTION_ADDRESS:
                c->scope = CTL_SCOPE_ADDRESS;
                c->address = value;
                return -1;
        case OPTION_JSON:
                return store_json(c, value);
        case OPTION_QUIET:
                c->quiet = true;
                return -1;
        case OPTION_INPUT:
                c->input = value;
                return -1;
        case OPTION_ARG:
                c->arg = value;
                return -1;
        case OPTION_PLUGIN:
                return store_plugin(c, value);
        case OPTION_SETTING:
                return store_setting(c, row, value);
        case OPTION_FULL:
                c->full = true;
                return -1;
        case OPTION_NO_WAIT:
                c->no_wait = true;
                return -1;
        case OPTION_MODE:
                c->mode = value;
                return -1;
        case OPTION_SIGNAL:
                c->signal = value;
                return -1;
        case OPTION_LINES:
                return store_lines(c, value);
        case OPTION_OUTPUT:
                return store_output(c, value);
        case OPTION_STATE:
                c->state = value;
                return -1;
        case OPTION_STATE_DIR:
                c->state_dir = value;
                return -1;
        case OPTION_ONCE:
                c->once = true;
                return -1;
        case OPTION_INTERVAL:
                return store_interval(c, value);
        }
        return CTL_USAGE;
}

/* Only now the verb is known. */
static int check_outputs(const struct ctl *c) {
        bool is_file = c->verb->run == verb_show_capsule;

        for (unsigned i = 0; i < c->n_outputs; i++) {
                const char *value = c->outputs[i], *equals = strchr(value, '=');

                if (is_file ? !*value : !equals || equals == value || !equals[1]) {
                        ctl_error("--output=%s: not %s", value, is_file ? "a file" : "FIELD=FILE");
                        return CTL_USAGE;
                }
        }
        if (is_file && c->n_outputs > 1) {
                ctl_error("--output=%s: one file is enough for a capsule", c->outputs[1]);
                return CTL_USAGE;
        }
        return -1;
}

/* Builds getopt's own forms of the table. */
static void getopt_tables(struct option longs[N_ROWS + 1], char shorts[2 * N_ROWS + 2]) {
        char *s = shorts;

        *s++ = ':'; /* a missing argument is told apart from an unknown option */
        for (size_t i = 0; i < N_ROWS; i++) {
                longs[i] = (struct option){rows[i].name, rows[i].value ? required_argument : no_argument, NULL,
                                           LONG_BASE + (int)i};
                if (!rows[i].letter)
                        continue;
                *s++ = rows[i].letter;
                if (rows[i].value)
                        *s++ = ':';
        }
        *s = 0;
        longs[N_ROWS] = (struct option){0};
}

static int row_of(int code) {
        if (code >= LONG_BASE)
                return code - LONG_BASE;
        for (size_t i = 0; i < N_ROWS; i++)
                if (rows[i].letter == code)
                        return (int)i;
        return -1;
}

static int check_verb(struct ctl *c, const bool seen[N_ROWS]) {
        const struct ctl_verb *v = c->verb;

        if (c->n_operands < v->min_operands) {
                ctl_error("%s needs %s", v->name, v->operands);
                return CTL_USAGE;
        }
        if (v->max_operands >= 0 && c->n_operands > v->max_operands) {
                ctl_error("%s: one word too many: '%s'", v->name, c->operands[v->max_operands]);
                return CTL_USAGE;
        }
        for (size_t i = 0; i < N_ROWS; i++)
                if (seen[i] && rows[i].verbs && !verb_is_in(v->name, rows[i].verbs)) {
                        ctl_error("--%s is no option of %s, but of: %s", rows[i].name, v->name, rows[i].verbs);
                        return CTL_USAGE;
                }
        return check_outputs(c);
}

int options_parse(struct ctl *c, int argc, char *argv[]) {
        struct option longs[N_ROWS + 1];
        char shorts[2 * N_ROWS + 2];
        bool seen[N_ROWS] = {0};
        int code, r;

        getopt_tables(longs, shorts);
        opterr = 0;
        while ((code = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
                int row = code == '?' || code == ':' ? -1 : row_of(code);

                if (row < 0) {
                        ctl_error("%s '%s'; droverctl --help lists the options, and a name that begins with - stands "
                                  "behind --",
                                  code == ':' ? "a value is missing after" : "unknown option", argv[optind - 1]);
                        return CTL_USAGE;
                }
                seen[row] = true;
                r = store(c, &rows[row], optarg);
                if (r >= 0)
                        return r;
        }
        if (optind >= argc) {
                ctl_error("which verb? droverctl --help lists them");
                return CTL_USAGE;
        }
        c->verb = ctl_find_verb(argv[optind]);
        if (!c->verb) {
                ctl_error("unknown verb '%s'; droverctl --help lists them", argv[optind]);
                return CTL_USAGE;
        }
        c->operands = argv + optind + 1;
        c->n_operands = argc - optind - 1;
        return check_verb(c, seen);
}
