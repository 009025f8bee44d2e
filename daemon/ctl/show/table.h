/* Tables for people: columns that line up, numbers to the right. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct table;

struct table_column {
        const char *heading;
        bool is_number;
        bool is_state; /* may have a colour */
        unsigned rank; /* when the table is too wide: the highest goes first; 0 stays */
};

struct table_look {
        bool with_headings, has_colours;
        unsigned max_width; /* 0 = any */
};

/* At most 16 columns. `columns` is borrowed. -EINVAL, -ENOMEM */
int table_new(struct table **ret, const struct table_column *columns, unsigned n_columns);
struct table *table_free(struct table *t);
/* Copies; n_columns strings, NULL shows as "-". Control characters become '?'. -ENOMEM */
int table_add(struct table *t, const char *const *cells);
void table_print(const struct table *t, FILE *f, const struct table_look *look);

static inline void table_freep(struct table **t) { table_free(*t); }
