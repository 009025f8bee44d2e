/* Tables for people.
 *
 * Owns copies of all cells until the end, because a column is as wide as its widest cell. Width counts code points, not
 * bytes. What comes from the daemon may hold text that a plugin chose, so control characters never reach the terminal.
 * Does not cut, wrap or colour: whoever pipes a table gets what a terminal gets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/table.h"

enum { TABLE_MAX_COLUMNS = 16 };

struct table {
        const struct table_column *columns;
        unsigned n_columns;
        size_t n_rows, room;
        char **cells; /* n_rows × n_columns */
};

int table_new(struct table **ret, const struct table_column *columns, unsigned n_columns) {
        struct table *t;

        if (n_columns > TABLE_MAX_COLUMNS)
                return -EINVAL;
        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        t->columns = columns;
        t->n_columns = n_columns;
        *ret = t;
        return 0;
}

struct table *table_free(struct table *t) {
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t);
        return NULL;
}

static char *copy_cell(const char *text) {
        char *s = strdup(text && *text ? text : "-");

        for (char *p = s; p && *p; p++)
                if ((unsigned char)*p < ' ' || *p == 0x7f)
                        *p = '?';
        return s;
}

int table_add(struct table *t, const char *const *cells) {
        if (t->n_rows == t->room) {
                size_t room = t->room ? 2 * t->room : 16;
                char **bigger = reallocarray(t->cells, room * t->n_columns, sizeof *bigger);

                if (!bigger)
                        return -ENOMEM;
                t->cells = bigger;
                t->room = room;
        }
        char **row = t->cells + t->n_rows * t->n_columns;
        for (unsigned i = 0; i < t->n_columns; i++) {
                row[i] = copy_cell(cells[i]);
                if (!row[i]) {
                        while (i > 0)
                                free(row[--i]);
                        return -ENOMEM;
                }
        }
        t->n_rows++;
        return 0;
}

static size_t width_of(const char *s) {
        size_t n = 0;

        for (; *s; s++)
                n += (*s & 0xc0) != 0x80;
        return n;
}

static void print_cell(const struct table *t, FILE *f, unsigned column, const char *text, size_t width) {
        size_t blanks = width - width_of(text);
        bool is_last = column + 1 == t->n_columns;

        if (t->columns[column].is_number)
                fprintf(f, "%*s%s", (int)blanks, "", text);
        else if (is_last)
                fputs(text, f);
        else
                fprintf(f, "%s%*s", text, (int)blanks, "");
        fputs(is_last ? "\n" : "  ", f);
}

void table_print(const struct table *t, FILE *f, bool with_headings) {
        size_t width[TABLE_MAX_COLUMNS];

        for (unsigned i = 0; i < t->n_columns; i++) {
                width[i] = with_headings ? width_of(t->columns[i].heading) : 0;
                for (size_t row = 0; row < t->n_rows; row++) {
                        size_t w = width_of(t->cells[row * t->n_columns + i]);

                        if (w > width[i])
                                width[i] = w;
                }
        }
        for (unsigned i = 0; with_headings && i < t->n_columns; i++)
                print_cell(t, f, i, t->columns[i].heading, width[i]);
        for (size_t cell = 0; cell < t->n_rows * t->n_columns; cell++)
                print_cell(t, f, cell % t->n_columns, t->cells[cell], width[cell % t->n_columns]);
}
