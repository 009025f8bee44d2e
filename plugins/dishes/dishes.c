/* Washing up in three stages: wash → dry → put away, each handing its dishes to the next over a queue.
 *
 * The stages are jobs on three workers, or (together) three threads of one. A dish is leased to whoever has it: it is
 * only done after the next queue has it, so if a worker is killed with a dish in its hands, the dish is back in the
 * queue. It may then come twice to the shelf, which does not mind. Each stage waits until everything it gave was done
 * before it closes the queue, so nothing comes back to a closed one. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DISHES = 1000, RACK = 4, RUN_NAME = 32, SLICE_MS = 20 };

static drover_arena *kitchen;

/* One run of the dishwashing, as one stage of it sees it. */
struct run {
        drover_job *job;
        uint64_t n;
        drover_queue *washed, *dried;
        drover_array *shelf; /* 1 for each dish that is there */
        uint64_t slow_ms;    /* that a dish takes in this stage */
};

static void run_close(struct run *r) {
        drover_queue_free(r->washed);
        drover_queue_free(r->dried);
        drover_array_free(r->shelf);
}

#define RUN(r) struct run r __attribute__((cleanup(run_close))) = {0}

static int run_open(drover_job *job, struct run *r) {
        const char *name;
        char object[RUN_NAME + 16];
        int e = drover_arg_str(job, "run", &name, NULL);
        if (e == 0)
                e = drover_arg_u64(job, "n", &r->n);
        if (e == 0)
                e = drover_arg_u64(job, "slow_ms", &r->slow_ms);
        if (e < 0)
                return e;
        if (strlen(name) > RUN_NAME || r->n > MAX_DISHES)
                return drover_fail(job, EINVAL, "a run has at most %d dishes and a name of %d bytes", MAX_DISHES,
                                   RUN_NAME);
        r->job = job;
        snprintf(object, sizeof object, "%s.washed", name);
        e = drover_queue_open(kitchen, object, RACK, sizeof(uint64_t), DROVER_QUEUE_FIFO, &r->washed);
        snprintf(object, sizeof object, "%s.dried", name);
        if (e == 0)
                e = drover_queue_open(kitchen, object, RACK, sizeof(uint64_t), DROVER_QUEUE_FIFO, &r->dried);
        snprintf(object, sizeof object, "%s.shelf", name);
        return e < 0 ? e : drover_array_open(kitchen, object, sizeof(uint64_t), MAX_DISHES, &r->shelf);
}

/* Repeats a wait, a slice at a time, until it comes to something or the job is to end. */
#define WAIT(run, call)                                                                                                \
        ({                                                                                                             \
                int wait_r, stop = 0;                                                                                  \
                do {                                                                                                   \
                        uint64_t deadline_ns = drover_deadline_in(SLICE_MS * UINT64_C(1000000));                       \
                        wait_r = (call);                                                                               \
                } while (wait_r == -ETIMEDOUT && !(stop = drover_job_cancelled((run)->job)));                          \
                stop ? -ECANCELED : wait_r;                                                                            \
        })

static int put(const struct run *r, drover_queue *q, uint64_t dish) {
        return WAIT(r, drover_queue_put(q, &dish, sizeof dish, deadline_ns));
}

static int get(const struct run *r, drover_queue *q, uint64_t *ret_dish) {
        size_t bytes;
        int e = WAIT(r, drover_queue_get(q, ret_dish, sizeof *ret_dish, &bytes, deadline_ns));
        return e < 0 ? e : bytes == sizeof *ret_dish && *ret_dish < MAX_DISHES ? 0 : -EPROTO;
}

static int finish(const struct run *r, drover_queue *q) {
        int e = WAIT(r, drover_queue_join(q, deadline_ns));
        return e < 0 ? e : drover_queue_close(q);
}

static void work(const struct run *r) {
        nanosleep(&(struct timespec){.tv_sec = (time_t)(r->slow_ms / 1000),
                                     .tv_nsec = (long)(r->slow_ms % 1000) * 1000000},
                  NULL);
}

/* ---- the stages ---- */

static int run_wash(const struct run *r) {
        for (uint64_t dish = 0; dish < r->n; dish++) {
                work(r);
                int e = put(r, r->washed, dish);
                if (e < 0)
                        return e;
        }
        return finish(r, r->washed);
}

static int run_dry(const struct run *r) {
        uint64_t dish;
        int e;
        while ((e = get(r, r->washed, &dish)) == 0) {
                work(r);
                e = put(r, r->dried, dish);
                if (e < 0)
                        return e;
                drover_queue_task_done(r->washed);
        }
        return e == -ESHUTDOWN ? finish(r, r->dried) : e;
}

static int run_put_away(const struct run *r) {
        uint64_t dish;
        int e;
        while ((e = get(r, r->dried, &dish)) == 0) {
                work(r);
                drover_array_store(r->shelf, (uint32_t)dish, 1);
                drover_queue_task_done(r->dried);
        }
        return e == -ESHUTDOWN ? 0 : e;
}

static uint64_t count_shelf(const struct run *r) {
        uint64_t n = 0, is_there;
        for (uint32_t i = 0; i < MAX_DISHES; i++)
                if (drover_array_load(r->shelf, i, &is_there) == 0)
                        n += is_there;
        return n;
}

/* ---- as jobs ---- */

static int stage(drover_job *job, int (*fn)(const struct run *r)) {
        RUN(r);
        int e = run_open(job, &r);
        if (e == 0)
                e = fn(&r);
        if (e == -ECANCELED)
                return drover_checkpoint(job) < 0 ? drover_checkpoint(job) : e;
        return e < 0 ? e : drover_ret_u64(job, "shelf", count_shelf(&r));
}

static int wash(drover_job *job) { return stage(job, run_wash); }
static int dry(drover_job *job) { return stage(job, run_dry); }
static int put_away(drover_job *job) { return stage(job, run_put_away); }

/* ---- as threads ---- */

static void *wash_thread(void *r) { return (void *)(intptr_t)run_wash(r); }
static void *dry_thread(void *r) { return (void *)(intptr_t)run_dry(r); }
static void *put_away_thread(void *r) { return (void *)(intptr_t)run_put_away(r); }

static int run_together(const struct run *r) {
        static void *(*const stages[])(void *) = {wash_thread, dry_thread, put_away_thread};
        pthread_t threads[DROVER_COUNT(stages)];
        uint32_t n = 0;
        int e = 0;
        while (n < DROVER_COUNT(stages) && e == 0)
                if ((e = -pthread_create(&threads[n], NULL, stages[n], (void *)r)) == 0)
                        n++;
        if (e < 0) { /* those that run come to an end */
                drover_queue_close(r->washed);
                drover_queue_close(r->dried);
        }
        while (n > 0) {
                void *result;
                pthread_join(threads[--n], &result);
                if (e == 0)
                        e = (int)(intptr_t)result;
        }
        return e;
}

static int together(drover_job *job) { return stage(job, run_together); }

static int open_kitchen(drover_worker *worker, void **state) {
        int fd, r = drover_arena_open_fd(worker, "kitchen", 0, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, &kitchen);
        close(fd);
        return r;
}

static void close_kitchen(drover_worker *worker, void *state) { kitchen = drover_arena_free(kitchen); }

#define STAGE(job, text)                                                                                               \
        { .name = #job, .args = "run:str,n:u64,slow_ms:u64", .result = "shelf:u64", .help = text, .handle = job }

static const struct drover_job_type jobs[] = {
        STAGE(wash, "First stage: n dishes into the rack."),
        STAGE(dry, "Second stage: from the rack to the table."),
        STAGE(put_away, "Third stage: from the table to the shelf; how many are there."),
        STAGE(together, "All three, as threads of one worker."),
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "Three stages over leased queues, as processes and as threads",
        .worker_init = open_kitchen,
        .worker_fini = close_kitchen,
};
DROVER_REGISTER(plugin, "dishes", "1.0.0")
