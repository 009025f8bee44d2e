/* Tables for people.
 *
 * Owns copies of all cells until the end, because a column is as wide as its widest cell. Width counts code points, not
 * bytes. What comes from the daemon may hold text that a plugin chose, so control characters never reach the terminal.
 * A table that is too wide first loses columns, those of the highest rank and then the rightmost, as few as let the
 * others fit with their texts cut short; then the widest texts are cut, with an ellipsis. Nothing is ever cut where
 * there is no width to keep: whoever pipes a table gets all of it. Does not wrap. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/show/table.h"
#include "daemon/ctl/show/terminal.h"

enum { TABLE_MAX_COLUMNS = 16, SHORTEST_TEXT = 8, GAP = 2 };

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
        const char *shown = text && *text ? text : "-";

        return terminal_plain(shown, strlen(shown));
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

/* ---- width ---- */

struct layout {
        size_t width[TABLE_MAX_COLUMNS];
        bool is_out[TABLE_MAX_COLUMNS];
};

/* What a column can be cut down to. */
static size_t floor_of(const struct table *t, const struct layout *l, unsigned column) {
        return t->columns[column].is_number || l->width[column] < SHORTEST_TEXT ? l->width[column] : SHORTEST_TEXT;
}

static size_t total(const struct table *t, const struct layout *l, bool is_cut) {
        size_t sum = 0;

        for (unsigned i = 0; i < t->n_columns; i++)
                if (!l->is_out[i])
                        sum += (sum > 0 ? GAP : 0) + (is_cut ? floor_of(t, l, i) : l->width[i]);
        return sum;
}

/* The next column to go: of the highest rank; when only those without one are left, the last but the first two. */
static unsigned worst_column(const struct table *t, const struct layout *l) {
        unsigned worst = t->n_columns;

        for (unsigned i = 0; i < t->n_columns; i++)
                if (!l->is_out[i] && t->columns[i].rank > 0 &&
                    (worst == t->n_columns || t->columns[i].rank > t->columns[worst].rank))
                        worst = i;
        for (unsigned i = 2, n = worst; n == t->n_columns && i < t->n_columns; i++)
                if (!l->is_out[i])
                        worst = i;
        return worst;
}

static void drop_columns(const struct table *t, struct layout *l, size_t max_width) {
        while (total(t, l, true) > max_width) {
                unsigned worst = worst_column(t, l);

                if (worst == t->n_columns)
                        return;
                l->is_out[worst] = true;
        }
}

static void cut_texts(const struct table *t, struct layout *l, size_t max_width) {
        for (size_t now = total(t, l, false); now > max_width; now--) {
                unsigned widest = t->n_columns;

                for (unsigned i = 0; i < t->n_columns; i++)
                        if (!l->is_out[i] && l->width[i] > floor_of(t, l, i) &&
                            (widest == t->n_columns || l->width[i] > l->width[widest]))
                                widest = i;
                if (widest == t->n_columns)
                        return;
                l->width[widest]--;
        }
}

static void lay_out(const struct table *t, const struct table_look *look, struct layout *ret) {
        *ret = (struct layout){0};
        for (unsigned i = 0; i < t->n_columns; i++) {
                ret->width[i] = look->with_headings ? width_of(t->columns[i].heading) : 0;
                for (size_t row = 0; row < t->n_rows; row++) {
                        size_t w = width_of(t->cells[row * t->n_columns + i]);

                        if (w > ret->width[i])
                                ret->width[i] = w;
                }
        }
        if (look->max_width > 0) {
                drop_columns(t, ret, look->max_width);
                cut_texts(t, ret, look->max_width);
        }
}

/* ---- printing ---- */

/* At most `width` characters of it, the last an ellipsis if there are more. */
static void print_text(FILE *f, const char *text, size_t width) {
        size_t n = width_of(text);

        if (n <= width) {
                fputs(text, f);
                return;
        }
        for (n = 0; *text && (n + 1 < width || (*text & 0xc0) == 0x80); text++) {
                fputc(*text, f);
                n += (text[1] & 0xc0) != 0x80;
        }
        fputs("…", f);
}

static void print_cell(FILE *f, const struct table_column *c, const char *text, size_t width, const char *colour,
                       bool is_last) {
        size_t n = width_of(text), blanks = n < width ? width - n : 0;

        if (c->is_number)
                fprintf(f, "%*s", (int)blanks, "");
        fputs(colour, f);
        print_text(f, text, width);
        if (*colour)
                fputs(TERMINAL_PLAIN, f);
        if (!c->is_number && !is_last)
                fprintf(f, "%*s", (int)blanks, "");
}

static void print_row(const struct table *t, FILE *f, const struct layout *l, const struct table_look *look,
                      char *const *cells) {
        unsigned last = t->n_columns;

        while (last > 1 && l->is_out[last - 1])
                last--;
        for (unsigned i = 0; i < last; i++) {
                const char *text = cells ? cells[i] : t->columns[i].heading, *colour = "";

                if (l->is_out[i])
                        continue;
                if (look->has_colours)
                        colour = !cells ? TERMINAL_BOLD : t->columns[i].is_state ? terminal_state_colour(text) : "";
                print_cell(f, &t->columns[i], text, l->width[i], colour, i + 1 == last);
                fprintf(f, "%*s", i + 1 == last ? 0 : GAP, "");
        }
        fputc('\n', f);
}

void table_print(const struct table *t, FILE *f, const struct table_look *look) {
        struct layout l;

        lay_out(t, look, &l);
        if (look->with_headings)
                print_row(t, f, &l, look, NULL);
        for (size_t row = 0; row < t->n_rows; row++)
                print_row(t, f, &l, look, t->cells + row * t->n_columns);
}
