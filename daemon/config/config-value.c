/* The kinds of values that settings have, in systemd's spelling.
 *
 * Every parser takes the whole text or refuses it: no blanks around, no sign, no rest. Arithmetic is in integers, with
 * fractions carried as a scaled unit, so that "0.1s" is exactly a hundred million nanoseconds and nothing overflows
 * unseen. What a value means for a key (its range, whether infinity makes sense) is config-keys.c's. */
#include "daemon/config/config-value.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct unit {
        const char *name;
        uint64_t factor;
};

#define SECOND_NS UINT64_C(1000000000)

/* As systemd.time(7) lists them; a month is a twelfth of a year of 365.25 days. */
static const struct unit time_units[] = {
        {"", SECOND_NS},
        {"ns", 1},
        {"nsec", 1},
        {"us", 1000},
        {"usec", 1000},
        {"\xc2\xb5s", 1000},
        {"\xce\xbcs", 1000},
        {"ms", 1000000},
        {"msec", 1000000},
        {"s", SECOND_NS},
        {"sec", SECOND_NS},
        {"second", SECOND_NS},
        {"seconds", SECOND_NS},
        {"m", 60 * SECOND_NS},
        {"min", 60 * SECOND_NS},
        {"minute", 60 * SECOND_NS},
        {"minutes", 60 * SECOND_NS},
        {"h", 3600 * SECOND_NS},
        {"hr", 3600 * SECOND_NS},
        {"hour", 3600 * SECOND_NS},
        {"hours", 3600 * SECOND_NS},
        {"d", 86400 * SECOND_NS},
        {"day", 86400 * SECOND_NS},
        {"days", 86400 * SECOND_NS},
        {"w", 7 * 86400 * SECOND_NS},
        {"week", 7 * 86400 * SECOND_NS},
        {"weeks", 7 * 86400 * SECOND_NS},
        {"M", 2629800 * SECOND_NS},
        {"month", 2629800 * SECOND_NS},
        {"months", 2629800 * SECOND_NS},
        {"y", 31557600 * SECOND_NS},
        {"year", 31557600 * SECOND_NS},
        {"years", 31557600 * SECOND_NS},
};

static const struct unit size_units[] = {
        {"", 1},
        {"B", 1},
        {"K", UINT64_C(1) << 10},
        {"M", UINT64_C(1) << 20},
        {"G", UINT64_C(1) << 30},
        {"T", UINT64_C(1) << 40},
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static int parse_digits(const char **p, uint64_t *ret) {
        uint64_t n = 0;

        if (!is_digit(**p))
                return -EINVAL;
        for (; is_digit(**p); (*p)++)
                if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(**p - '0'), &n))
                        return -ERANGE;
        *ret = n;
        return 0;
}

static const struct unit *find_unit(const struct unit *units, size_t n_units, const char *name, size_t length) {
        for (size_t i = 0; i < n_units; i++)
                if (strlen(units[i].name) == length && memcmp(units[i].name, name, length) == 0)
                        return &units[i];
        return NULL;
}

/* One "12.5min" from *p; leaves *p behind it. */
static int parse_term(const struct unit *units, size_t n_units, const char **p, uint64_t *ret) {
        const struct unit *unit;
        const char *name, *fraction = NULL;
        uint64_t whole, part = 0, value;
        int r;

        r = parse_digits(p, &whole);
        if (r < 0)
                return r;
        if (**p == '.') {
                fraction = ++*p;
                if (!is_digit(*fraction))
                        return -EINVAL;
                while (is_digit(**p))
                        (*p)++;
        }
        while (**p == ' ' && (*p)[1] != '\0' && !is_digit((*p)[1]))
                (*p)++;
        name = *p;
        while (**p != '\0' && **p != ' ' && !is_digit(**p))
                (*p)++;
        unit = find_unit(units, n_units, name, (size_t)(*p - name));
        if (!unit)
                return -EINVAL;
        if (fraction)
                for (uint64_t scale = unit->factor; is_digit(*fraction) && scale >= 10; fraction++) {
                        part += (uint64_t)(*fraction - '0') * (scale / 10) +
                                (uint64_t)(*fraction - '0') * (scale % 10) / 10;
                        scale /= 10;
                }
        if (__builtin_mul_overflow(whole, unit->factor, &value) || __builtin_add_overflow(value, part, &value))
                return -ERANGE;
        *ret = value;
        return 0;
}

int value_parse_time(const char *text, uint64_t *ret_ns) {
        uint64_t sum = 0, term;
        int r;

        if (strcmp(text, "infinity") == 0) {
                *ret_ns = VALUE_INFINITY;
                return 0;
        }
        do {
                r = parse_term(time_units, sizeof(time_units) / sizeof(*time_units), &text, &term);
                if (r < 0)
                        return r;
                if (__builtin_add_overflow(sum, term, &sum) || sum == VALUE_INFINITY)
                        return -ERANGE;
                while (*text == ' ' && text[1] != '\0')
                        text++;
        } while (*text != '\0');
        *ret_ns = sum;
        return 0;
}

int value_parse_size(const char *text, uint64_t *ret_bytes) {
        uint64_t value;
        int r;

        if (strcmp(text, "infinity") == 0) {
                *ret_bytes = VALUE_INFINITY;
                return 0;
        }
        r = parse_term(size_units, sizeof(size_units) / sizeof(*size_units), &text, &value);
        if (r < 0)
                return r;
        if (*text != '\0')
                return -EINVAL;
        if (value == VALUE_INFINITY)
                return -ERANGE;
        *ret_bytes = value;
        return 0;
}

int value_parse_bool(const char *text, bool *ret) {
        static const char *const words[2][6] = {
                {"0", "no", "n", "false", "f", "off"},
                {"1", "yes", "y", "true", "t", "on"},
        };

        for (unsigned value = 0; value < 2; value++)
                for (unsigned i = 0; i < 6; i++)
                        if (strcasecmp(text, words[value][i]) == 0) {
                                *ret = value;
                                return 0;
                        }
        return -EINVAL;
}

int value_parse_number(const char *text, uint64_t *ret) {
        uint64_t n;
        int r;

        r = parse_digits(&text, &n);
        if (r < 0)
                return r;
        if (*text != '\0')
                return -EINVAL;
        *ret = n;
        return 0;
}
