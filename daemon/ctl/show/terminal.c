/* The terminal: its size, whether it has colours and which state has which, and a screen of our own for a live view.
 *
 * Green is at work, yellow asks for a look, red has gone wrong; what is merely over or idle stays plain. Colours only
 * repeat what a word says already, so nothing is lost without them. A screen is drawn line over line, never cleared
 * first: it does not flicker. */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/show/terminal.h"
#include "ipc/values/utf8.h"

enum { ASSUMED_COLUMNS = 80, ASSUMED_ROWS = 24 };

unsigned terminal_columns(FILE *f) {
        struct winsize w;

        if (!isatty(fileno(f)))
                return 0;
        return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : ASSUMED_COLUMNS;
}

unsigned terminal_rows(FILE *f) {
        struct winsize w;

        return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_row > 0 ? w.ws_row : ASSUMED_ROWS;
}

bool terminal_has_colours(FILE *f) {
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return isatty(fileno(f)) && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

const char *terminal_state_colour(const char *state) {
        static const struct {
                const char *colour, *states;
        } colours[] = {
                {"\033[32m", " running "},
                {"\033[33m", " starting draining paused degraded stopping quarantined cancelled expired "},
                {"\033[31m", " refused failed timed-out poisoned lost "},
        };
        char word[32];

        snprintf(word, sizeof word, " %s ", state);
        for (size_t i = 0; i < sizeof colours / sizeof *colours; i++)
                if (strstr(colours[i].states, word))
                        return colours[i].colour;
        return "";
}

/* Only there to end a sleep: the screen is drawn anew for its new size. */
static void on_resize(int signal) {}

void terminal_enter(struct terminal *t) {
        struct sigaction action = {.sa_handler = on_resize};
        struct termios raw;

        *t = (struct terminal){.is_on = isatty(STDOUT_FILENO)};
        if (!t->is_on)
                return;
        sigemptyset(&action.sa_mask);
        sigaction(SIGWINCH, &action, NULL);
        t->has_keys = tcgetattr(STDIN_FILENO, &t->before) == 0;
        if (t->has_keys) {
                raw = t->before;
                raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
                tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        }
        fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
}

void terminal_draw(const struct terminal *t, const char *text) {
        unsigned rows = terminal_rows(stdout);

        fputs("\033[H", stdout);
        for (unsigned row = 0; row < rows && *text; row++) {
                size_t n = strcspn(text, "\n");

                fwrite(text, 1, n, stdout);
                fputs("\033[K", stdout);
                text += n;
                text += *text == '\n';
                if (*text && row + 1 < rows)
                        fputc('\n', stdout);
        }
        fputs("\033[J", stdout);
        fflush(stdout);
}

void terminal_leave(struct terminal *t) {
        if (!t->is_on)
                return;
        if (t->has_keys)
                tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
        fputs("\033[?25h\033[?1049l", stdout);
        fflush(stdout);
        t->is_on = false;
}

char *terminal_plain(const char *text, size_t bytes) { return utf8_plain(text, bytes, ""); }
