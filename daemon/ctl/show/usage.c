/* CPU time and memory of one process, out of /proc/PID/stat.
 *
 * The kernel's numbers at this moment, nothing is kept. The process's name stands in the line and may hold anything, so
 * the fields are counted from the last parenthesis. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/show/usage.h"

int usage_of(uint32_t pid, struct usage *ret) {
        char path[32], line[1024];
        uint64_t user, system, pages;
        FILE *f;
        char *p;

        snprintf(path, sizeof path, "/proc/%" PRIu32 "/stat", pid);
        f = fopen(path, "re");
        if (!f)
                return -errno;
        p = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
        fclose(f);
        /* state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt UTIME STIME cutime cstime priority nice
         * threads itrealvalue starttime vsize RSS */
        if (!p || sscanf(p + 1,
                         " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                         " %*d %*d %*d %*d %*d %*d %*u %*u %" SCNu64,
                         &user, &system, &pages) != 3)
                return -ENODATA;
        *ret = (struct usage){.cpu_us = (user + system) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK),
                              .memory_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE)};
        return 0;
}
