/* complete: what may stand in the place of the last word, one candidate a line.
 *
 * The shell's script (droverctl.bash) only asks this, so completion knows every verb and option of the tables the
 * moment they have them. Pools, types, arguments, jobs and workers come from the live bus. It never starts a daemon,
 * waits two seconds at most, and says nothing rather than something wrong: without candidates the shell offers files.
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "daemon/ctl/options.h"
#include "daemon/ctl/remote.h"

enum { MAX_OPERANDS = 64, MAX_WORD = 512, CALL_US = 2 * 1000 * 1000, MAX_JOBS = 200 };

struct completion {
        struct ctl *c;
        const char *current; /* the word to complete */
        const char *verb;    /* NULL: not there yet */
        const char *operands[MAX_OPERANDS];
        unsigned n_operands;
        bool is_behind_options; /* a -- stands before it */
        struct remote *remote;
};

/* ---- candidates ---- */

static void offer(const struct completion *k, const char *before, const char *text, const char *after) {
        char word[MAX_WORD];

        if (!*before && *text == '-' && !k->is_behind_options)
                return; /* there it would be an option */
        snprintf(word, sizeof word, "%s%s%s", before, text, after);
        if (strncmp(word, k->current, strlen(k->current)) == 0)
                puts(word);
}

/* "a|b|c" after what is there already. */
static void offer_list(const struct completion *k, const char *before, const char *list) {
        for (size_t n; *list; list += n + (list[n] == '|')) {
                char word[64];

                n = strcspn(list, "|");
                snprintf(word, sizeof word, "%.*s", (int)n, list);
                offer(k, before, word, "");
        }
}

static const char states[] = "queued|running|done|failed|cancelled|expired|timed-out|poisoned|lost";

static void offer_options(const struct completion *k) {
        struct options_entry o;

        for (size_t i = 0; options_get(i, k->verb, &o); i++)
                if (o.is_known)
                        offer(k, "--", o.name, o.value ? "=" : "");
}

/* ---- from the bus ---- */

/* Is a daemon there to be asked? */
static bool open_bus(struct completion *k) {
        if (remote_open(&k->remote, k->c->scope, k->c->address) < 0)
                return false;
        sd_bus_set_method_call_timeout(remote_bus(k->remote), CALL_US);
        return remote_has_daemon(k->remote) == 1;
}

/* Element `at` of each row that the manager's list method returns. */
static void offer_rows(const struct completion *k, const char *member, const char *before, unsigned at) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = member};
        ctl_cleanup(json_putp) struct json_object *rows = NULL;

        if (remote_call(k->remote, &list, &rows, NULL) < 0)
                return;
        for (size_t i = 0; i < json_length(rows); i++) {
                struct json_object *row = json_at(rows, i);

                offer(k, before, json_plain(json_at(row, at)), "");
        }
}

/* Those that have one. */
static void offer_capsules(const struct completion *k) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListCapsules"};
        ctl_cleanup(json_putp) struct json_object *rows = NULL;

        if (remote_call(k->remote, &list, &rows, "su", "", (uint32_t)MAX_JOBS) < 0)
                return;
        for (size_t i = 0; i < json_length(rows); i++)
                offer(k, "", json_text(json_at(rows, i), "id", ""), "");
}

static void offer_arenas(const struct completion *k) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListArenas"};
        ctl_cleanup(json_putp) struct json_object *arenas = NULL;

        if (remote_call(k->remote, &list, &arenas, NULL) < 0)
                return;
        for (size_t i = 0; i < json_length(arenas); i++)
                offer(k, "", json_text(json_at(arenas, i), "name", ""), "");
}

static void offer_jobs(const struct completion *k, const char *before) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListJobs"};
        ctl_cleanup(json_putp) struct json_object *reply = NULL;
        struct json_object *rows;

        if (remote_call(k->remote, &list, &reply, "a{sv}su", 0, "", (uint32_t)MAX_JOBS) < 0)
                return;
        rows = json_at(reply, 0);
        for (size_t i = 0; i < json_length(rows); i++) {
                struct json_object *row = json_at(rows, i);

                offer(k, before, json_string(json_at(row, 0)), "");
        }
}

/* The job types of the pool that is the first operand: an array in *ret, owned by *ret_schema. */
static bool find_types(const struct completion *k, struct json_object **ret_schema, struct json_object **ret) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL;

        return k->n_operands > 0 && remote_call(k->remote, &get, &path, "s", k->operands[0]) >= 0 &&
               remote_get_schema(k->remote, json_string(path), ret_schema) >= 0 &&
               json_object_object_get_ex(*ret_schema, "jobs", ret);
}

static void offer_types(const struct completion *k) {
        ctl_cleanup(json_putp) struct json_object *schema = NULL;
        struct json_object *types;

        if (!find_types(k, &schema, &types))
                return;
        for (size_t i = 0; i < json_length(types); i++)
                offer(k, "", json_text(json_at(types, i), "name", ""), "");
}

static bool is_given(const struct completion *k, const char *name) {
        size_t n = strlen(name);

        for (unsigned i = 2; i < k->n_operands; i++)
                if (strncmp(k->operands[i], name, n) == 0 && k->operands[i][n] == '=')
                        return true;
        return false;
}

/* What job type TYPE takes ("args") or gives ("result"), by its name; owned by *ret_schema. NULL: not known. */
static struct json_object *find_fields(const struct completion *k, const char *which, struct json_object **ret_schema) {
        struct json_object *types, *fields = NULL;

        if (k->n_operands < 2 || !find_types(k, ret_schema, &types))
                return NULL;
        for (size_t i = 0; i < json_length(types); i++) {
                struct json_object *type = json_at(types, i);

                if (strcmp(json_text(type, "name", ""), k->operands[1]) == 0)
                        json_object_object_get_ex(type, which, &fields);
        }
        return fields;
}

/* The names of these fields, with `after` behind each. */
static void offer_fields(const struct completion *k, const char *which, const char *before, const char *after) {
        ctl_cleanup(json_putp) struct json_object *schema = NULL;
        struct json_object *fields = find_fields(k, which, &schema);

        if (json_object_is_type(fields, json_type_string) && strcmp(which, "result") == 0)
                offer(k, before, "payload", after);
        if (!json_object_is_type(fields, json_type_object))
                return;
        json_object_object_foreach(fields, name, type) {
                (void)type;
                offer(k, before, name, after);
        }
}

/* The names of arguments that are still to be given; of a bool also its values. */
static void offer_arguments(const struct completion *k) {
        ctl_cleanup(json_putp) struct json_object *schema = NULL;
        struct json_object *args = find_fields(k, "args", &schema);

        if (json_object_is_type(args, json_type_string)) {
                offer(k, "", "payload=", "");
                return;
        }
        if (!json_object_is_type(args, json_type_object))
                return;
        json_object_object_foreach(args, name, type) {
                char before[128];

                snprintf(before, sizeof before, "%s=", name);
                if (is_given(k, name))
                        continue;
                if (strncmp(k->current, before, strlen(before)) == 0 && strcmp(json_string(type), "bool") == 0)
                        offer_list(k, before, "true|false");
                else
                        offer(k, before, "", "");
        }
}

/* ---- values of options ---- */

/* A word of a list with commas: `before` and the words of it that are there. */
static void find_list_start(const struct completion *k, const char *before, char ret[MAX_WORD]) {
        const char *comma = strrchr(k->current, ',');

        if (comma)
                snprintf(ret, MAX_WORD, "%.*s", (int)(comma + 1 - k->current), k->current);
        else
                snprintf(ret, MAX_WORD, "%s", before);
}

/* The value of an option, whose word so far is `before`. */
static void offer_values(struct completion *k, const char *before, const struct options_entry *option) {
        const char *value = option->value;
        char start[MAX_WORD];

        find_list_start(k, before, start);
        if (strchr(value, '|'))
                offer_list(k, before, value);
        else if (strcmp(value, "STATE") == 0)
                offer_list(k, start, states);
        else if (strcmp(value, "SIGNAL") == 0)
                for (int i = 1; i < SIGRTMIN; i++)
                        if (sigabbrev_np(i))
                                offer(k, before, sigabbrev_np(i), "");
        if (strcmp(option->name, "arg") == 0 && open_bus(k))
                offer_fields(k, "args", before, "");
        else if (strcmp(option->name, "output") == 0 && open_bus(k))
                offer_fields(k, "result", before, "=");
        else if (strcmp(option->name, "after") == 0 && open_bus(k))
                offer_jobs(k, start);
}

/* ---- which word is it ---- */

/* `word` out of the operands of the verb table. */
static void offer_kind(const struct completion *k, const char *word) {
        if (strcmp(word, "POOL") == 0)
                offer_rows(k, "ListPools", "", 0);
        else if (strcmp(word, "ARENA") == 0)
                offer_arenas(k);
        else if (strcmp(word, "TYPE") == 0)
                offer_types(k);
        else if (strcmp(word, "KEY=VALUE") == 0)
                offer_arguments(k);
        else if (strcmp(word, "JOB") == 0 && (strcmp(k->verb, "show-capsule") == 0 || strcmp(k->verb, "resubmit") == 0))
                offer_capsules(k);
        else if (strcmp(word, "JOB") == 0)
                offer_jobs(k, "");
        else if (strcmp(word, "job/ID") == 0)
                offer_jobs(k, "job/");
        else if (strcmp(word, "WORKER") == 0)
                offer_rows(k, "ListWorkers", "", 0);
        else if (strcmp(word, "worker/ID") == 0)
                offer_rows(k, "ListWorkers", "worker/", 0);
}

/* The operand at the place behind those that are given: "POOL TYPE [KEY=VALUE...]", "JOB|POOL...". */
static void offer_operands(const struct completion *k) {
        char operands[128], *rest = operands, *word, *last = NULL;

        snprintf(operands, sizeof operands, "%s", ctl_find_verb(k->verb)->operands);
        for (unsigned i = 0; i <= k->n_operands && (word = strsep(&rest, " ")); i++)
                last = i == k->n_operands || strstr(word, "...") ? word : NULL;
        if (!last)
                return;
        last += *last == '[';
        last[strcspn(last, "].")] = 0;
        while ((word = strsep(&last, "|")))
                offer_kind(k, word);
}

/* The option that `word` begins with, and that takes a value: 0 = none, 1 = the value stands in the word itself, 2 = in
 * the next. */
static int option_of(const char *word, struct options_entry *ret) {
        const char *equals = strchr(word, '=');
        size_t n = equals ? (size_t)(equals - word) : strlen(word);

        if (word[0] != '-')
                return 0;
        for (size_t i = 0; options_get(i, NULL, ret); i++) {
                bool is_it = word[1] == '-' ? strlen(ret->name) + 2 == n && strncmp(word + 2, ret->name, n - 2) == 0
                                            : ret->letter && word[1] == ret->letter;

                if (is_it && ret->value)
                        return equals || (word[1] != '-' && word[2]) ? 1 : 2;
        }
        return 0;
}

static void note_bus(struct ctl *c, const char *word, const char *next) {
        if (strcmp(word, "--user") == 0)
                c->scope = CTL_SCOPE_USER;
        else if (strcmp(word, "--system") == 0)
                c->scope = CTL_SCOPE_SYSTEM;
        else if (strncmp(word, "--address", 9) == 0) {
                c->scope = CTL_SCOPE_ADDRESS;
                c->address = word[9] == '=' ? word + 10 : next;
        }
}

/* Reads the words before the last. The option whose value the last word is, if it is one; else false. */
static bool read_words(struct completion *k, char **words, int n, struct options_entry *ret) {
        for (int i = 0; i + 1 < n; i++) {
                struct options_entry o;
                int takes = k->is_behind_options ? 0 : option_of(words[i], &o);

                if (!k->is_behind_options && strcmp(words[i], "--") == 0) {
                        k->is_behind_options = true;
                        continue;
                }

                note_bus(k->c, words[i], words[i + 1]);
                if (takes == 2 && ++i + 1 == n) {
                        *ret = o;
                        return true;
                }
                if (takes || (words[i][0] == '-' && !k->is_behind_options))
                        continue;
                if (!k->verb)
                        k->verb = ctl_find_verb(words[i]) ? words[i] : "";
                else if (k->n_operands < MAX_OPERANDS)
                        k->operands[k->n_operands++] = words[i];
        }
        return false;
}

static void complete(struct completion *k, char **words, int n) {
        struct options_entry option;
        const struct ctl_verb *v;
        char before[MAX_WORD];

        k->current = words[n - 1];
        if (read_words(k, words, n, &option)) {
                offer_values(k, "", &option);
                return;
        }
        if (!k->is_behind_options && option_of(k->current, &option) == 1) {
                snprintf(before, sizeof before, "--%s=", option.name);
                offer_values(k, before, &option);
                return;
        }
        if (k->current[0] == '-' && !k->is_behind_options) {
                offer_options(k);
                return;
        }
        for (size_t i = 0; !k->verb && (v = ctl_verb_at(i)); i++)
                offer(k, "", v->name, "");
        if (k->verb && ctl_find_verb(k->verb) && open_bus(k))
                offer_operands(k);
}

int verb_complete(struct ctl *c) {
        struct completion k = {.c = c};

        complete(&k, c->operands, c->n_operands);
        remote_free(k.remote);
        return CTL_OK;
}
