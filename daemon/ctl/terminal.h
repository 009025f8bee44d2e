/* What droverctl knows of the terminal it writes to. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* Its width; 0 = no terminal, nothing is cut. */
unsigned terminal_columns(FILE *f);
/* A terminal that has colours, and NO_COLOR is not set. */
bool terminal_has_colours(FILE *f);
/* The sequence that a state of a pool, worker or job is shown in; "" for a plain one. */
const char *terminal_state_colour(const char *state);

#define TERMINAL_BOLD "\033[1m"
#define TERMINAL_PLAIN "\033[0m"
