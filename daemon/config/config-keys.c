/* The table of all settings a pool has, and how each is read.
 *
 * One row a key: where it stands, its field, its limits and its parser. Whatever asks about keys (a file, CreatePool, a
 * reload that wants to know what differs, the nearest name for a typo) reads this table, so a key is added here and
 * nowhere else. A row without a parser is a key that is known and not built yet: refused by name, never ignored.
 *
 * An error is one sentence that starts with KEY=VALUE; file and line are put before it by whoever has them. */
#include "daemon/config/config-keys.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/config/config-value.h"
#include "ipc/layout.h"

enum { MAX_KEY = 48 };

#define SECONDS(n) (UINT64_C(1000000000) * (n))

__attribute__((format(printf, 3, 4))) static int fail(char *error, size_t error_bytes, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(error, error_bytes, format, ap);
        va_end(ap);
        return -EINVAL;
}

/* ---- parsers: 0, or -EINVAL with a sentence ---- */

static int parse_plugin(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        if (strlen(value) >= k->bytes)
                return fail(error, error_bytes, "%s=%.32s…: longer than %zu bytes", k->name, value, k->bytes - 1);
        if (strchr(value, '/') || value[0] == '.')
                return fail(error, error_bytes, "%s=%s: not the name of a file in the plugin directory", k->name,
                            value);
        memset(field, 0, k->bytes);
        strcpy(field, value);
        return 0;
}

static int parse_word(const struct config_key *k, void *field, const char *value, const char *const *words, unsigned n,
                      char *error, size_t error_bytes) {
        char known[128] = "";

        for (unsigned i = 0; i < n; i++) {
                if (strcmp(value, words[i]) == 0) {
                        *(unsigned *)field = i;
                        return 0;
                }
                snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", i ? ", " : "", words[i]);
        }
        return fail(error, error_bytes, "%s=%s: not one of %s", k->name, value, known);
}

static const char *const start_methods[START_N] = {
        [START_FORKSERVER] = "forkserver",
        [START_SPAWN] = "spawn",
        [START_FORK] = "fork",
};
static const char *const guarantees[] = {
        [GUARANTEE_AT_LEAST_ONCE] = "at-least-once",
        [GUARANTEE_AT_MOST_ONCE] = "at-most-once",
};
static const char *const overflows[] = {[OVERFLOW_REJECT] = "reject", [OVERFLOW_BLOCK] = "block"};

static int parse_start_method(const struct config_key *k, void *field, const char *value, char *error,
                              size_t error_bytes) {
        return parse_word(k, field, value, start_methods, START_N, error, error_bytes);
}

static int parse_guarantee(const struct config_key *k, void *field, const char *value, char *error,
                           size_t error_bytes) {
        return parse_word(k, field, value, guarantees, 2, error, error_bytes);
}

static int parse_overflow(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        return parse_word(k, field, value, overflows, 2, error, error_bytes);
}

static void show_start_method(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        snprintf(text, bytes, "%s", start_methods[*(const unsigned *)field]);
}

static void show_guarantee(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        snprintf(text, bytes, "%s", guarantees[*(const unsigned *)field]);
}

static void show_overflow(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        snprintf(text, bytes, "%s", overflows[*(const unsigned *)field]);
}

/* 10, 10/s, 600/min, 5/h: kept as the time that one takes. */
static int parse_rate(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        static const struct {
                const char *name;
                uint64_t ns;
        } periods[] = {{"", UINT64_C(1000000000)},
                       {"/s", UINT64_C(1000000000)},
                       {"/min", UINT64_C(60000000000)},
                       {"/h", UINT64_C(3600000000000)}};
        size_t n_digits = strspn(value, "0123456789");
        char digits[16];
        uint64_t n;

        snprintf(digits, sizeof(digits), "%.*s", (int)n_digits, value);
        for (size_t i = 0; i < sizeof(periods) / sizeof(*periods); i++)
                if (strcmp(value + n_digits, periods[i].name) == 0 && n_digits < sizeof(digits) &&
                    value_parse_number(digits, &n) == 0 && n >= k->minimum && n <= k->maximum) {
                        *(uint64_t *)field = periods[i].ns / n;
                        return 0;
                }
        return fail(error, error_bytes, "%s=%s: not a rate like 10 (a second), 600/min or 5/h, from %ju to %ju",
                    k->name, value, (uintmax_t)k->minimum, (uintmax_t)k->maximum);
}

static int parse_count(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t n;

        if (value_parse_number(value, &n) < 0 || n < k->minimum || n > k->maximum)
                return fail(error, error_bytes, "%s=%s: not a number from %ju to %ju", k->name, value,
                            (uintmax_t)k->minimum, (uintmax_t)k->maximum);
        *(uint32_t *)field = (uint32_t)n;
        return 0;
}

static int parse_capsules(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        bool is_on;

        if (value_parse_bool(value, &is_on) == 0 && !is_on) {
                *(uint32_t *)field = 0;
                return 0;
        }
        return parse_count(k, field, value, error, error_bytes);
}

static uint32_t n_cpus(void) {
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof(set), &set) < 0)
                return 1;
        return (uint32_t)CPU_COUNT(&set);
}

static int parse_workers(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint32_t n;

        if (strcmp(value, "auto") == 0) {
                n = n_cpus();
                *(uint32_t *)field = n > k->maximum ? (uint32_t)k->maximum : n;
                return 0;
        }
        if (parse_count(k, field, value, error, error_bytes) < 0)
                return fail(error, error_bytes, "%s=%s: neither auto nor a number from %ju to %ju", k->name, value,
                            (uintmax_t)k->minimum, (uintmax_t)k->maximum);
        return 0;
}

static int parse_slots(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t n;

        if (value_parse_number(value, &n) < 0 || n < k->minimum || n > k->maximum || (n & (n - 1)) != 0)
                return fail(error, error_bytes, "%s=%s: not a power of two from %ju to %ju", k->name, value,
                            (uintmax_t)k->minimum, (uintmax_t)k->maximum);
        *(uint32_t *)field = (uint32_t)n;
        return 0;
}

static int parse_slot_size(const struct config_key *k, void *field, const char *value, char *error,
                           size_t error_bytes) {
        uint64_t n;

        if (value_parse_size(value, &n) < 0 || n < k->minimum || n > k->maximum || n % LAYOUT_LINE != 0)
                return fail(error, error_bytes, "%s=%s: not a multiple of %d bytes from %ju to %ju", k->name, value,
                            LAYOUT_LINE, (uintmax_t)k->minimum, (uintmax_t)k->maximum);
        *(uint32_t *)field = (uint32_t)n;
        return 0;
}

/* A limit: 0 and infinity both mean none. */
static int parse_limit(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t ns;
        int r;

        r = value_parse_time(value, &ns);
        if (r < 0 || (ns != VALUE_INFINITY && ns > k->maximum))
                return fail(error, error_bytes, "%s=%s: not a time (like 20, 5min or infinity) of %ju days at most",
                            k->name, value, (uintmax_t)(k->maximum / SECONDS(86400)));
        *(uint64_t *)field = ns == VALUE_INFINITY ? 0 : ns;
        return 0;
}

/* A size; 0 and infinity both mean none. */
static int parse_bytes(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t n;
        int r;

        r = value_parse_size(value, &n);
        if (r < 0 || (n != 0 && n != VALUE_INFINITY && (n < k->minimum || n > k->maximum)))
                return fail(error, error_bytes, "%s=%s: not a size of %ju bytes at least (like 512M or infinity)",
                            k->name, value, (uintmax_t)k->minimum);
        *(uint64_t *)field = n == VALUE_INFINITY ? 0 : n;
        return 0;
}

/* A size, or infinity, which is not the default. */
static int parse_memory(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t n;

        if (value_parse_size(value, &n) < 0 || n < k->minimum)
                return fail(error, error_bytes, "%s=%s: not a size of %ju bytes at least (like 512M), nor infinity",
                            k->name, value, (uintmax_t)k->minimum);
        *(uint64_t *)field = n; /* VALUE_INFINITY is any */
        return 0;
}

static int parse_span(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        uint64_t ns;

        if (value_parse_time(value, &ns) < 0 || ns < k->minimum || ns > k->maximum)
                return fail(error, error_bytes,
                            "%s=%s: not a time like 20 (seconds), 100ms or 5min, from %ju ms to %ju s", k->name, value,
                            (uintmax_t)k->minimum / 1000000, (uintmax_t)k->maximum / 1000000000);
        *(uint64_t *)field = ns;
        return 0;
}

/* 2, 1.5: a factor of at least 1, kept in thousandths. */
static int parse_factor(const struct config_key *k, void *field, const char *value, char *error, size_t error_bytes) {
        const char *dot = strchr(value, '.');
        size_t n_decimals = dot ? strlen(dot + 1) : 0, n_digits = strspn(value, "0123456789");
        char digits[16];

        if (n_digits == 0 || n_digits > 3 || n_decimals > 3 || (dot && n_decimals == 0) ||
            n_digits + strspn(value + n_digits + (dot ? 1 : 0), "0123456789") + (dot ? 1 : 0) != strlen(value))
                return fail(error, error_bytes, "%s=%s: not a factor like 2 or 1.5", k->name, value);
        snprintf(digits, sizeof(digits), "%.*s%s%s", (int)n_digits, value, dot ? dot + 1 : "", &"000"[n_decimals]);
        unsigned long milli = strtoul(digits, NULL, 10);
        if (milli < k->minimum || milli > k->maximum)
                return fail(error, error_bytes, "%s=%s: not from %ju to %ju", k->name, value,
                            (uintmax_t)k->minimum / 1000, (uintmax_t)k->maximum / 1000);
        *(uint32_t *)field = (uint32_t)milli;
        return 0;
}

static bool variable_is_valid(const char *word, size_t name_bytes) {
        if (name_bytes == 0 || (word[0] >= '0' && word[0] <= '9'))
                return false;
        for (size_t i = 0; i < name_bytes; i++)
                if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_", word[i]))
                        return false;
        return true;
}

/* Adds NAME=value to a list of 0-separated words, in the place of an older one of that name. */
static int environment_put(char *list, size_t list_bytes, const char *word, size_t name_bytes) {
        size_t used = 0, bytes;

        while (list[used]) {
                bytes = strlen(list + used) + 1;
                if (strncmp(list + used, word, name_bytes + 1) == 0) {
                        memmove(list + used, list + used + bytes, list_bytes - used - bytes);
                        memset(list + list_bytes - bytes, 0, bytes);
                } else
                        used += bytes;
        }
        bytes = strlen(word) + 1;
        if (used + bytes >= list_bytes)
                return -ENOSPC;
        memcpy(list + used, word, bytes);
        return 0;
}

/* Takes the next word, with "…" and '…' around all of it or a part of it, \" and \\ for these two, as in unit files. */
static int next_word(const char **p, char *ret, size_t ret_bytes) {
        char quote = 0;
        size_t n = 0;

        *p += strspn(*p, " \t");
        if (**p == '\0')
                return 0;
        for (; **p != '\0' && (quote || !strchr(" \t", **p)); (*p)++) {
                bool is_escaped = **p == '\\' && (p[0][1] == '"' || p[0][1] == '\\');

                *p += is_escaped;
                if (**p == quote && !is_escaped)
                        quote = 0;
                else if (!quote && !is_escaped && (**p == '"' || **p == '\''))
                        quote = **p;
                else if (n + 1 < ret_bytes)
                        ret[n++] = **p;
                else
                        return -ENOSPC;
        }
        ret[n] = '\0';
        return quote ? -EINVAL : 1;
}

/* The one setting that adds up; an empty value starts anew. */
static int parse_environment(const struct config_key *k, void *field, const char *value, char *error,
                             size_t error_bytes) {
        char word[WIRE_ENVIRONMENT], list[WIRE_ENVIRONMENT];
        const char *p = value, *end;
        int r;

        memcpy(list, field, sizeof(list));
        while ((r = next_word(&p, word, sizeof(word))) > 0) {
                end = strchr(word, '=');
                if (!end || !variable_is_valid(word, (size_t)(end - word)))
                        return fail(error, error_bytes, "%s=%s: \"%s\" is not NAME=value", k->name, value, word);
                r = environment_put(list, sizeof(list), word, (size_t)(end - word));
                if (r < 0)
                        break;
        }
        if (r == -EINVAL)
                return fail(error, error_bytes, "%s=%s: a quote is not closed", k->name, value);
        if (r < 0)
                return fail(error, error_bytes, "%s=%s: the whole environment is limited to %d bytes", k->name, value,
                            WIRE_ENVIRONMENT);
        memcpy(field, list, sizeof(list));
        return 0;
}

/* ---- the table ---- */

#define FIELD(f) offsetof(struct pool_config, f), sizeof(((struct pool_config *)0)->f)
#define YEARS_100 UINT64_C(3155760000000000000)

const struct config_key config_keys[] = {
        {"Pool", "Plugin", parse_plugin, FIELD(plugin)},
        {"Pool", "PluginSHA256"},
        {"Pool", "StartMethod", parse_start_method, FIELD(start_method)},
        {"Pool", "Model", .only = "process"},
        {"Pool", "Workers", parse_workers, FIELD(n_workers), 1, LAYOUT_MAX_WORKERS},
        {"Pool", "MinWorkers", parse_count, FIELD(min_workers), 0, LAYOUT_MAX_WORKERS},
        {"Pool", "MaxWorkers", parse_count, FIELD(max_workers), 1, LAYOUT_MAX_WORKERS},
        {"Pool", "Threads"},
        {"Pool", "Fibers"},
        {"Pool", "Hooks"},
        {"Pool", "Slots", parse_slots, FIELD(n_slots), LAYOUT_MIN_SLOTS, LAYOUT_MAX_SLOTS},
        {"Pool", "SlotSize", parse_slot_size, FIELD(slot_bytes), LAYOUT_MIN_SLOT_BYTES, LAYOUT_MAX_SLOT_BYTES},
        {"Pool", "Overflow", parse_overflow, FIELD(overflow)},
        {"Pool", "RateLimit", parse_rate, FIELD(rate_ns), 1, 1000000},
        {"Pool", "Capsules", parse_capsules, FIELD(n_capsules), 0, 1000},
        {"Pool", "Durable", .only = "no"},
        {"Pool", "AutoReload", .only = "no"},

        {"Job", "MaxAttempts", parse_count, FIELD(max_attempts), 1, LAYOUT_MAX_ATTEMPTS},
        {"Job", "Guarantee", parse_guarantee, FIELD(guarantee)},
        {"Job", "QueueTimeout", parse_limit, FIELD(queue_timeout_ns), 0, YEARS_100},
        {"Job", "SoftTimeout", parse_limit, FIELD(soft_timeout_ns), 0, YEARS_100},
        {"Job", "HardTimeout", parse_limit, FIELD(hard_timeout_ns), 0, YEARS_100},
        {"Job", "RetryDelay", parse_span, FIELD(retry_ns), 0, SECONDS(30 * 86400)},
        {"Job", "RetryBackoff", parse_factor, FIELD(retry_backoff_milli), 1000, 100000},
        {"Job", "RetryMaxDelay", parse_limit, FIELD(retry_max_ns), 0, SECONDS(30 * 86400)},
        {"Job", "ResultTTL", parse_span, FIELD(result_ttl_ns), 0, SECONDS(30 * 86400)},

        {"Worker", "MaxJobs", parse_count, FIELD(max_jobs), 0, UINT32_MAX},
        {"Worker", "RecycleMemory", parse_bytes, FIELD(recycle_bytes), 1 << 20, INT64_MAX},
        {"Worker", "MaxAge", parse_limit, FIELD(max_age_ns), 0, YEARS_100},
        {"Worker", "RestartSec", parse_span, FIELD(restart_ns), 0, SECONDS(86400)},
        {"Worker", "RestartMaxDelaySec", parse_span, FIELD(restart_max_ns), 0, SECONDS(86400)},
        {"Worker", "StartLimitBurst", parse_count, FIELD(start_limit_burst), 1, 1000},
        {"Worker", "StartLimitIntervalSec", parse_span, FIELD(start_limit_interval_ns), 0, SECONDS(86400)},
        {"Worker", "TimeoutStartSec", parse_limit, FIELD(timeout_start_ns), 0, YEARS_100},
        {"Worker", "WatchdogSec"},
        {"Worker", "TimeoutStopSec", parse_span, FIELD(timeout_stop_ns), 0, SECONDS(86400)},
        {"Worker", "KillGraceSec", parse_span, FIELD(kill_grace_ns), 0, SECONDS(86400)},
        {"Worker", "Environment", parse_environment, FIELD(environment)},
        {"Worker", "Host"},
        {"Worker", "Nice"},
        {"Worker", "CPUAffinity"},
        {"Worker", "MemoryMax", parse_memory, FIELD(memory_bytes), 16 << 20},
        {"Worker", "MemoryHigh"},
        {"Worker", "TasksMax"},
        {"Worker", "CPUWeight"},
        {"Worker", "CPUQuota"},
        {"Worker", "IOWeight"},

        {"Sandbox", "Profile", .only = "compute"},
        {"Sandbox", "SystemCallFilter"},
        {"Sandbox", "MemoryDenyWriteExecute"},
        {"Sandbox", "ReadOnlyPaths"},
        {"Sandbox", "ReadWritePaths"},
        {"Sandbox", "Require"},
};

const size_t config_n_keys = sizeof(config_keys) / sizeof(*config_keys);
static_assert(sizeof(config_keys) / sizeof(*config_keys) <= CONFIG_MAX_KEYS,
              "struct config_origins has a place for each");

config_show_fn config_find_show(const struct config_key *k) {
        static const struct {
                config_parse_fn parse;
                config_show_fn show;
        } ways[] = {
                {parse_plugin, config_show_text},   {parse_start_method, show_start_method},
                {parse_guarantee, show_guarantee},  {parse_overflow, show_overflow},
                {parse_rate, config_show_rate},     {parse_slot_size, config_show_size},
                {parse_limit, config_show_limit},   {parse_bytes, config_show_limit_bytes},
                {parse_memory, config_show_memory}, {parse_span, config_show_time},
                {parse_factor, config_show_factor}, {parse_environment, config_show_environment},
        };

        for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
                if (ways[i].parse == k->parse)
                        return ways[i].show;
        return config_show_count; /* also of Workers=, Slots= and Capsules= */
}

/* ---- questions about it ---- */

const struct config_key *config_find_key(const char *section, const char *name) {
        for (size_t i = 0; i < config_n_keys; i++)
                if (strcmp(config_keys[i].name, name) == 0 &&
                    (!section || strcmp(config_keys[i].section, section) == 0))
                        return &config_keys[i];
        return NULL;
}

bool config_section_is_known(const char *section) {
        if (strcmp(section, "Plugin") == 0)
                return true;
        for (size_t i = 0; i < config_n_keys; i++)
                if (strcmp(config_keys[i].section, section) == 0)
                        return true;
        return false;
}

bool pool_config_takes(const char *key, char kind) {
        static const struct {
                config_parse_fn parse;
                const char *kinds;
        } numbers[] = {
                {parse_count, "n"},     {parse_workers, "n"},     {parse_slots, "n"},
                {parse_slot_size, "n"}, {parse_capsules, "nb"},   {parse_bytes, "n"},
                {parse_factor, "n"},    {parse_environment, "l"}, {parse_memory, "n"},
        };
        const struct config_key *k = config_find_key(NULL, key);

        if (kind == 's' || !k || (!k->parse && !k->only))
                return true;
        if (k->only && strcmp(k->only, "no") == 0)
                return kind == 'b';
        for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
                if (k->parse == numbers[i].parse)
                        return strchr(numbers[i].kinds, kind) != NULL;
        return false; /* a name, or a time, whose unit a number would not tell */
}

/* Levenshtein's distance, letters of either case alike; both shorter than MAX_KEY. */
static unsigned edit_distance(const char *a, const char *b) {
        unsigned row[MAX_KEY], previous, above, n_b = (unsigned)strlen(b);

        for (unsigned j = 0; j <= n_b; j++)
                row[j] = j;
        for (unsigned i = 1; a[i - 1]; i++) {
                previous = row[0];
                row[0] = i;
                for (unsigned j = 1; j <= n_b; j++) {
                        above = row[j];
                        row[j] = previous + (strncasecmp(a + i - 1, b + j - 1, 1) != 0);
                        if (above + 1 < row[j])
                                row[j] = above + 1;
                        if (row[j - 1] + 1 < row[j])
                                row[j] = row[j - 1] + 1;
                        previous = above;
                }
        }
        return row[n_b];
}

const char *config_nearest_key(const char *name) {
        const char *nearest = NULL;
        unsigned best, d;

        if (strlen(name) >= MAX_KEY)
                return NULL;
        best = 2 + (unsigned)strlen(name) / 3; /* farther than that is another word */
        for (size_t i = 0; i < config_n_keys; i++) {
                d = edit_distance(name, config_keys[i].name);
                if (d < best) {
                        best = d;
                        nearest = config_keys[i].name;
                }
        }
        return nearest;
}

static int unknown_key(const char *section, const char *name, char *error, size_t error_bytes) {
        const struct config_key *elsewhere = config_find_key(NULL, name);
        const char *nearest = config_nearest_key(name);
        char place[64] = "";

        if (section)
                snprintf(place, sizeof(place), " in [%s]", section);
        if (elsewhere)
                fail(error, error_bytes, "unknown key %s=%s: it belongs in [%s]", name, place, elsewhere->section);
        else if (nearest)
                fail(error, error_bytes, "unknown key %s=%s, the nearest known one is %s=", name, place, nearest);
        else
                fail(error, error_bytes, "unknown key %s=%s", name, place);
        return -ENOENT;
}

int config_key_set(struct pool_config *c, const struct pool_config *defaults, const char *section, const char *name,
                   const char *value, char *error, size_t error_bytes) {
        const struct config_key *k = config_find_key(section, name);
        void *field;

        if (section && strcmp(section, "Plugin") == 0) {
                fail(error, error_bytes, "%s=: options of plugins ([Plugin]) are not built yet", name);
                return -EOPNOTSUPP;
        }
        if (!k)
                return unknown_key(section, name, error, error_bytes);
        if (value[0] == '\0') {
                if (k->bytes)
                        memcpy((char *)c + k->offset, (const char *)defaults + k->offset, k->bytes);
                return 0;
        }
        if (k->parse) {
                field = (char *)c + k->offset;
                return k->parse(k, field, value, error, error_bytes);
        }
        if (k->only && strcmp(k->only, value) == 0)
                return 0;
        if (k->only)
                fail(error, error_bytes, "%s=%s is not built yet, only %s=%s is", name, value, name, k->only);
        else
                fail(error, error_bytes, "%s= is known, but not built yet", name);
        return -EOPNOTSUPP;
}
