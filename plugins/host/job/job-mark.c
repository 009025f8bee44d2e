/* Marks in a worker's output where the words of a job end, so that nobody takes them for the next one's.
 *
 * A mark is the number of jobs that ended before this one, in digits, between two zero bytes. It is needed only behind
 * what the broker has not read yet: what it has, it knows the job of. A job that is over sooner than a system call can
 * print anything costs nothing, any other the question how much is unread. A mark that finds no room is counted in the
 * worker's line: the broker is not sure then, and says so. */
#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "plugins/host/job/job.h"

/* From the claim, which alone takes half of it. */
#define MARK_SOONEST_NS UINT64_C(500)

static uint64_t count_ended(const struct layout_worker *line) {
        uint64_t n = 0;
        for (unsigned state = 0; state < SLOT_N_STATES; state++)
                n += atomic_load_explicit(&line->counts[state], memory_order_relaxed);
        return n;
}

void job_mark_output(const struct drover_job *j, uint64_t ran_ns) {
        int unread = 0, fd = job_host(j)->output_fd;
        char mark[24];
        if (ran_ns < MARK_SOONEST_NS || fd < 0)
                return;
        int r = ioctl(fd, SIOCOUTQ, &unread); /* fails if the plugin has closed it */
        if (r == 0 && unread == 0)
                return;
        int n = snprintf(mark + 1, sizeof mark - 1, "%llu", (unsigned long long)count_ended(j->line));
        mark[0] = 0; /* and snprintf's own behind it */
        if (r < 0 || write(fd, mark, (size_t)n + 2) != n + 2)
                atomic_fetch_add_explicit(&j->line->n_unmarked, 1, memory_order_release);
}
