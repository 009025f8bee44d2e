/* Starts threads in a job, which is allowed, joins some and cancels one; sorts and formats on the way, as libraries do.
 */
#include <drover/plugin.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { N_THREADS = 4, N_NUMBERS = 100000 };

static int compare(const void *a, const void *b) {
        int x = *(const int *)a, y = *(const int *)b;
        return (x > y) - (x < y);
}

static void *sort(void *user) {
        int *numbers = malloc(N_NUMBERS * sizeof *numbers);
        if (!numbers)
                return NULL;
        for (int i = 0; i < N_NUMBERS; i++)
                numbers[i] = (int)((unsigned)i * 7919u % 1000003u);
        qsort(numbers, N_NUMBERS, sizeof *numbers, compare);
        free(numbers);
        return user;
}

static void *wait_for_ever(void *user) {
        for (;;)
                pause();
        return user;
}

static int run(drover_job *job) {
        pthread_t threads[N_THREADS], waiter;
        uint64_t n = 0;
        for (int i = 0; i < N_THREADS; i++) {
                int r = pthread_create(&threads[i], NULL, sort, job);
                if (r != 0)
                        return drover_fail(job, r, "thread %d cannot be made", i);
        }
        if (pthread_create(&waiter, NULL, wait_for_ever, NULL) != 0 || pthread_cancel(waiter) != 0)
                return drover_fail(job, EPROTO, "a thread cannot be cancelled");
        pthread_join(waiter, NULL);
        for (int i = 0; i < N_THREADS; i++) {
                void *result;
                pthread_join(threads[i], &result);
                n += result != NULL;
        }
        char text[64];
        time_t now = time(NULL);
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(text, sizeof text, "%Y", &tm);
        printf("a year: %s\n", text);
        return drover_ret_u64(job, "threads", n);
}

static const struct drover_job_type jobs[] = {{.name = "run", .result = "threads:u64", .handle = run}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "threads", "1.0")
