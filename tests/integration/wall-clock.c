/* For a droverd (LD_PRELOAD): its wall clock is as many seconds ahead as the file $DROVER_TEST_CLOCK says. A timer that
 * the kernel would cancel when that clock is set comes fifty times a second instead: a test may not set a machine's. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>

static long long seconds_ahead(void) {
        long long seconds = 0;
        const char *path = getenv("DROVER_TEST_CLOCK");
        FILE *f = path ? fopen(path, "re") : NULL;
        if (f && fscanf(f, "%lld", &seconds) != 1)
                seconds = 0;
        if (f)
                fclose(f);
        return seconds;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ret) {
        int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
        int r = real(clock, ret);
        if (r == 0 && clock == CLOCK_REALTIME)
                ret->tv_sec += seconds_ahead();
        return r;
}

__attribute__((visibility("default"))) int timerfd_settime(int fd, int flags, const struct itimerspec *value,
                                                           struct itimerspec *ret_old) {
        int (*real)(int, int, const struct itimerspec *, struct itimerspec *) = dlsym(RTLD_NEXT, "timerfd_settime");
        const struct itimerspec often = {{.tv_nsec = 20000000}, {.tv_nsec = 20000000}};
        return flags & TFD_TIMER_CANCEL_ON_SET ? real(fd, 0, &often, ret_old) : real(fd, flags, value, ret_old);
}
