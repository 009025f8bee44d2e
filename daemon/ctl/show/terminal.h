/* What droverctl knows of the terminal it writes to. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <termios.h>

/* Its width; 0 = no terminal, nothing is cut. */
unsigned terminal_columns(FILE *f);
unsigned terminal_rows(FILE *f);
/* A terminal that has colours, and NO_COLOR is not set. */
bool terminal_has_colours(FILE *f);
/* The sequence that a state of a pool, worker or job is shown in; "" for a plain one. */
const char *terminal_state_colour(const char *state);

/* utf8_plain that keeps no control character. */
char *terminal_plain(const char *text, size_t bytes);

#define TERMINAL_BOLD "\033[1m"
#define TERMINAL_PLAIN "\033[0m"

/* A screen of our own on standard output until terminal_leave, with keys as they are pressed on standard input. */
struct terminal {
        bool is_on, has_keys;
        struct termios before;
};
void terminal_enter(struct terminal *t);
/* `text` in place of what is there; what does not fit below is left out. */
void terminal_draw(const struct terminal *t, const char *text);
void terminal_leave(struct terminal *t);
