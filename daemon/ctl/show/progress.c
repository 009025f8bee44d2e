/* The progress bar.
 *
 * One line on stderr, redrawn in place and taken away before anything else is printed, so it never mixes with results
 * when both go to one terminal. Off unless stderr is a terminal. The rate is smoothed over about two seconds; the time
 * left comes from the whole run, which jumps less. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "daemon/ctl/show/progress.h"
#include "daemon/ctl/show/terminal.h"

enum { EVERY_NS = 100 * 1000 * 1000, SMOOTH_NS = 2000 * 1000 * 1000, MAX_BAR = 40 };

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void progress_init(struct progress *p, bool is_wanted, const char *what) {
        *p = (struct progress){.is_on = is_wanted && isatty(STDERR_FILENO), .what = what};
        if (p->is_on)
                p->started_ns = p->drawn_ns = now_ns();
}

/* "[#####.....]  45%  " or nothing when the total is not known or the terminal is narrow. */
static void draw_bar(FILE *f, unsigned columns, double fraction) {
        unsigned width = columns > 56 ? columns - 56 : 0;
        char bar[MAX_BAR + 1];

        if (width > MAX_BAR)
                width = MAX_BAR;
        for (unsigned i = 0; i < width; i++)
                bar[i] = i < (unsigned)(fraction * width + 0.5) ? '#' : '.';
        bar[width] = 0;
        if (width > 0)
                fprintf(f, "[%s] ", bar);
        fprintf(f, "%3.0f%%  ", fraction * 100);
}

/* What does not fit is cut: a line that wraps cannot be taken away again. The last column stays empty, as some
 * terminals wrap behind it. */
static void draw(struct progress *p, uint64_t done, uint64_t failed, double fraction, uint64_t elapsed_ns) {
        unsigned columns = terminal_columns(stderr);
        char line[256] = "";
        FILE *f = fmemopen(line, sizeof line, "w");

        if (!f)
                return;
        if (fraction >= 0)
                draw_bar(f, columns, fraction > 1 ? 1 : fraction);
        fprintf(f, "%" PRIu64 " %s", done, p->what);
        if (failed > 0)
                fprintf(f, ", %" PRIu64 " failed", failed);
        fprintf(f, "  %.0f/s", p->rate);
        if (fraction > 0.001) {
                unsigned left = (unsigned)((double)elapsed_ns / 1e9 * (1 - fraction) / fraction + 0.5);

                if (left >= 3600)
                        fprintf(f, "  %u:%02u:%02u left", left / 3600, left / 60 % 60, left % 60);
                else
                        fprintf(f, "  %02u:%02u left", left / 60, left % 60);
        }
        fclose(f);
        fprintf(stderr, "\r\033[K%.*s", columns > 0 ? (int)columns - 1 : (int)sizeof line, line);
        fflush(stderr);
        p->is_drawn = true;
}

void progress_update(struct progress *p, uint64_t done, uint64_t failed, double fraction) {
        uint64_t now, passed;

        if (!p->is_on)
                return;
        now = now_ns();
        passed = now - p->drawn_ns;
        if (passed < EVERY_NS)
                return;
        double rate = (double)(done - p->drawn_done) * 1e9 / (double)passed;
        double weight = (double)passed / ((double)passed + SMOOTH_NS);
        p->rate += (rate - p->rate) * (p->rate > 0 ? weight : 1);
        p->drawn_ns = now;
        p->drawn_done = done;
        draw(p, done, failed, fraction, now - p->started_ns);
}

void progress_clear(struct progress *p) {
        if (!p->is_drawn)
                return;
        fputs("\r\033[K", stderr);
        fflush(stderr);
        p->is_drawn = false;
}
