/* Makes threads until it gets no more, holds them for `ms` milliseconds and says how many there were. */
#include <drover/plugin.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static void *wait_for_ever(void *user) {
        for (;;)
                pause();
        return user;
}

static int make(drover_job *job) {
        uint64_t ms, n = 0;
        pthread_attr_t attributes;
        pthread_t thread;
        int r = drover_arg_u64(job, "ms", &ms);
        if (r < 0)
                return r;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 64 * 1024);
        while (n < 100000 && pthread_create(&thread, &attributes, wait_for_ever, NULL) == 0)
                n++;
        drover_progress(job, n, n, "holds them");
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000)}, NULL);
        return drover_ret_u64(job, "threads", n);
}

static const struct drover_job_type jobs[] = {
        {.name = "make", .args = "ms:u64", .result = "threads:u64", .handle = make}};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "many-threads", "1.0")
