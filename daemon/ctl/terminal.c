/* The terminal: its width, whether it has colours, and which state has which.
 *
 * Green is at work, yellow asks for a look, red has gone wrong; what is merely over or idle stays plain. Colours only
 * repeat what a word says already, so nothing is lost without them. */
#include <string.h>
#include <sys/ioctl.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/terminal.h"

enum { ASSUMED_COLUMNS = 80 };

unsigned terminal_columns(FILE *f) {
        struct winsize w;

        if (!isatty(fileno(f)))
                return 0;
        return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : ASSUMED_COLUMNS;
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
