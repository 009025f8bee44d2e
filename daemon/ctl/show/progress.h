/* The progress bar of long work: on stderr, on a terminal only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
        bool is_on, is_drawn;
        const char *what; /* is counted: "jobs" */
        uint64_t started_ns, drawn_ns;
        uint64_t drawn_done; /* jobs at the last drawing */
        double rate;         /* jobs per second, smoothed */
};

void progress_init(struct progress *p, bool is_wanted, const char *what);
/* Draws at most ten times a second. `fraction` 0…1, or < 0: the total is not known. */
void progress_update(struct progress *p, uint64_t done, uint64_t failed, double fraction);
/* Takes the bar away, before other output to the terminal and at the end. */
void progress_clear(struct progress *p);
