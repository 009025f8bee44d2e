/* The command line of droverctl, from one table. */
#pragma once

#include <stdio.h>

struct ctl;

/* Fills `c`. -1 = go on with c->verb; else the exit code to end with (--help, --version, usage errors: said already).
 */
int options_parse(struct ctl *c, int argc, char *argv[]);
void options_print_help(FILE *f);
