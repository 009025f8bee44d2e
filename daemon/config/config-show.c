/* Settings as files spell them, and where each stands: what `droverctl cat` shows.
 *
 * A value is written from the field that is in force, so it is also right for a default, for Workers=auto and after
 * Resize, and reads back as the same. Where it stands is noted by who reads the files (config-load.c); the names of
 * files are kept as long as there is room for them. */
#include "daemon/config/config-show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config/config-keys.h"

/* ---- where ---- */

enum { ORIGIN_DEFAULT, ORIGIN_BUS, ORIGIN_UNNAMED, ORIGIN_FILE }; /* ORIGIN_FILE + the place of its name in `paths` */

static struct config_origin *origin_of(struct config_origins *o, const char *key) {
        const struct config_key *k = config_find_key(NULL, key);

        return k ? &o->keys[k - config_keys] : NULL;
}

/* Where the names end. */
static size_t paths_end(const struct config_origins *o) {
        size_t n = 0;

        while (o->paths[n])
                n += strlen(o->paths + n) + 1;
        return n;
}

void config_origins_add_file(struct config_origins *o, const char *path) {
        size_t n = paths_end(o), bytes = strlen(path) + 1;

        if (n + bytes < sizeof(o->paths))
                memcpy(o->paths + n, path, bytes);
}

void config_origins_note(struct config_origins *o, const char *key, const char *path, unsigned line) {
        struct config_origin *origin = origin_of(o, key);

        if (!origin)
                return;
        *origin = (struct config_origin){.where = path ? ORIGIN_UNNAMED : ORIGIN_BUS, .line = line};
        for (size_t n = 0; path && o->paths[n]; n += strlen(o->paths + n) + 1)
                if (strcmp(o->paths + n, path) == 0)
                        origin->where = (uint32_t)(ORIGIN_FILE + n);
}

void config_origins_reset(struct config_origins *o, const struct config_origins *defaults, const char *key) {
        struct config_origin *origin = origin_of(o, key);

        if (origin)
                *origin = defaults->keys[origin - o->keys];
}

static void describe_origin(const struct config_origins *o, const struct config_origin *origin, char *text,
                            size_t bytes) {
        if (origin->where == ORIGIN_DEFAULT)
                snprintf(text, bytes, "default");
        else if (origin->where == ORIGIN_BUS)
                snprintf(text, bytes, "bus");
        else
                snprintf(text, bytes, "%s:%u",
                         origin->where == ORIGIN_UNNAMED ? "(one of more files)"
                                                         : o->paths + (origin->where - ORIGIN_FILE),
                         origin->line);
}

/* ---- values ---- */

struct unit {
        const char *name;
        uint64_t factor;
};

static const struct unit time_units[] = {{"h", UINT64_C(3600000000000)}, {"min", UINT64_C(60000000000)},
                                         {"s", UINT64_C(1000000000)},    {"ms", UINT64_C(1000000)},
                                         {"us", UINT64_C(1000)},         {"ns", 1}};
static const struct unit size_units[] = {
        {"G", UINT64_C(1) << 30}, {"M", UINT64_C(1) << 20}, {"K", UINT64_C(1) << 10}, {"", 1}};

/* In the largest unit that leaves no rest. */
static void write_units(uint64_t n, const struct unit *units, char *text, size_t bytes) {
        while (n % units->factor != 0 || n < units->factor)
                units++;
        snprintf(text, bytes, "%" PRIu64 "%s", n / units->factor, units->name);
}

void config_show_text(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        snprintf(text, bytes, "%s", (const char *)field);
}

void config_show_count(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        uint32_t n = *(const uint32_t *)field;

        if (field == &c->min_workers) /* follows Workers= if it is not given */
                n = pool_config_min_workers(c);
        else if (field == &c->max_workers)
                n = pool_config_max_workers(c);
        snprintf(text, bytes, "%" PRIu32, n);
}

void config_show_size(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        write_units(*(const uint32_t *)field, size_units, text, bytes);
}

static void write_bytes(uint64_t n, const char *zero, char *text, size_t bytes) {
        if (n == 0)
                snprintf(text, bytes, "%s", zero);
        else if (n == UINT64_MAX)
                snprintf(text, bytes, "infinity");
        else
                write_units(n, size_units, text, bytes);
}

void config_show_limit_bytes(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        write_bytes(*(const uint64_t *)field, "infinity", text, bytes);
}

/* 0 is a share of the machine's, which the worker knows. */
void config_show_memory(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        write_bytes(*(const uint64_t *)field, "", text, bytes);
}

void config_show_time(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        uint64_t ns = *(const uint64_t *)field;

        if (ns == 0)
                snprintf(text, bytes, "0");
        else
                write_units(ns, time_units, text, bytes);
}

void config_show_limit(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        if (*(const uint64_t *)field == 0)
                snprintf(text, bytes, "infinity");
        else
                config_show_time(c, field, text, bytes);
}

void config_show_factor(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        uint32_t milli = *(const uint32_t *)field;
        size_t n;

        snprintf(text, bytes, "%u.%03u", (unsigned)(milli / 1000), (unsigned)(milli % 1000));
        for (n = strlen(text); n > 0 && text[n - 1] == '0';)
                text[--n] = '\0';
        if (n > 0 && text[n - 1] == '.')
                text[n - 1] = '\0';
}

void config_show_rate(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        static const struct unit periods[] = {
                {"s", UINT64_C(1000000000)}, {"min", UINT64_C(60000000000)}, {"h", UINT64_C(3600000000000)}};
        uint64_t ns = *(const uint64_t *)field;

        text[0] = '\0'; /* none */
        for (unsigned i = 0; ns > 0 && i < 3 && !text[0]; i++) {
                uint64_t n = periods[i].factor / ns;

                if (n > 0 && periods[i].factor / n == ns)
                        snprintf(text, bytes, "%" PRIu64 "/%s", n, periods[i].name);
        }
}

/* NAME=value words, each in quotes if it would be read as several, or as another. */
void config_show_environment(const struct pool_config *c, const void *field, char *text, size_t bytes) {
        const char *word = field;
        size_t n = 0;

        text[0] = '\0';
        for (; *word && n + 2 * strlen(word) + 4 < bytes; word += strlen(word) + 1) {
                bool is_quoted = word[strcspn(word, " \t\"'\\")] != '\0';

                if (n > 0)
                        text[n++] = ' ';
                if (is_quoted)
                        text[n++] = '"';
                for (const char *p = word; *p; p++) {
                        if (*p == '"' || *p == '\\')
                                text[n++] = '\\';
                        text[n++] = *p;
                }
                if (is_quoted)
                        text[n++] = '"';
                text[n] = '\0';
        }
}

bool config_show(const struct pool_config *c, size_t i, struct config_shown *ret) {
        const struct config_key *k = &config_keys[i];

        if (!k->parse && !k->only) /* not built yet */
                return false;
        ret->section = k->section;
        ret->name = k->name;
        if (k->parse)
                config_find_show(k)(c, (const char *)c + k->offset, ret->value, sizeof(ret->value));
        else
                snprintf(ret->value, sizeof(ret->value), "%s", k->only);
        describe_origin(&c->origins, &c->origins.keys[i], ret->from, sizeof(ret->from));
        return true;
}
