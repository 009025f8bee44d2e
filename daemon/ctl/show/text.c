/* Times and sizes as people read them: two figures that matter, never a row of digits. Programs get the raw numbers, by
 * --json. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "daemon/ctl/show/text.h"

const char *text_duration(uint64_t us, char text[TEXT_MAX]) {
        uint64_t s = us / 1000000;

        if (us < 1000)
                snprintf(text, TEXT_MAX, "%" PRIu64 " µs", us);
        else if (s < 1)
                snprintf(text, TEXT_MAX, "%.1f ms", (double)us / 1e3);
        else if (s < 60)
                snprintf(text, TEXT_MAX, "%.1f s", (double)us / 1e6);
        else if (s < 3600)
                snprintf(text, TEXT_MAX, "%" PRIu64 "min %" PRIu64 "s", s / 60, s % 60);
        else if (s < 86400)
                snprintf(text, TEXT_MAX, "%" PRIu64 "h %" PRIu64 "min", s / 3600, s / 60 % 60);
        else
                snprintf(text, TEXT_MAX, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
        return text;
}

const char *text_bytes(uint64_t bytes, char text[TEXT_MAX]) {
        static const char units[] = "KMGTPE";
        double n = (double)bytes;
        const char *unit = units;

        if (bytes < 1024) {
                snprintf(text, TEXT_MAX, "%" PRIu64, bytes);
                return text;
        }
        for (n /= 1024; n >= 1024 && unit[1]; unit++)
                n /= 1024;
        snprintf(text, TEXT_MAX, "%.*f%c", n < 10 ? 1 : 0, n, *unit);
        return text;
}

const char *text_moment(uint64_t realtime_us, char text[TEXT_MAX]) {
        time_t seconds = (time_t)(realtime_us / 1000000);
        struct tm broken;

        if (!localtime_r(&seconds, &broken) || strftime(text, TEXT_MAX, "%Y-%m-%d %H:%M:%S", &broken) == 0)
                snprintf(text, TEXT_MAX, "?");
        return text;
}

uint64_t text_since(uint64_t realtime_us) {
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
        return realtime_us > 0 && realtime_us < now ? now - realtime_us : 0;
}
