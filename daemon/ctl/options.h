/* The command line of droverctl, from one table. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct ctl;

/* Fills `c`. -1 = go on with c->verb; else the exit code to end with (--help, --version, usage errors: said already).
 */
int options_parse(struct ctl *c, int argc, char *argv[]);
void options_print_help(FILE *f);

/* What completion asks: the i-th option, and whether `verb` (NULL: none yet) knows it. False behind the last. */
struct options_entry {
        const char *name, *value; /* value: NULL = takes none; "a|b" = one of these; else what it is */
        char letter;
        bool is_known;
};
bool options_get(size_t i, const char *verb, struct options_entry *ret);
