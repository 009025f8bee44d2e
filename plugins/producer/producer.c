/* Producer and consumer: a few items through a queue, the producer waits until all of them are done, and the consumer,
 * which would wait for ever, is cancelled. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <errno.h>
#include <unistd.h>

enum { CAPACITY = 2, SLICE_MS = 20 };

static drover_arena *arena;
static drover_queue *queue;
static drover_array *sum; /* of what was consumed */

static uint64_t slice(void) { return drover_deadline_in(SLICE_MS * UINT64_C(1000000)); }

static int put_one(drover_job *job, uint64_t item) {
        int r;
        while ((r = drover_queue_put(queue, &item, sizeof item, slice())) == -ETIMEDOUT)
                if ((r = drover_checkpoint(job)) < 0)
                        break;
        return r;
}

static int produce(drover_job *job) {
        uint64_t n, total;
        int r = drover_arg_u64(job, "n", &n);
        for (uint64_t item = 1; item <= n && r == 0; item++)
                r = put_one(job, item);
        while (r == 0 && (r = drover_queue_join(queue, slice())) == -ETIMEDOUT)
                r = drover_checkpoint(job);
        if (r == 0)
                r = drover_array_load(sum, 0, &total);
        return r < 0 ? r : drover_ret_u64(job, "sum", total);
}

static int consume(drover_job *job) {
        uint64_t item;
        size_t bytes;
        for (;;) {
                int r = drover_queue_get(queue, &item, sizeof item, &bytes, slice());
                if (r == 0) {
                        drover_array_add(sum, 0, item, NULL);
                        drover_queue_task_done(queue);
                } else if (r != -ETIMEDOUT) {
                        return r;
                }
                r = drover_checkpoint(job);
                if (r < 0)
                        return r;
        }
}

static int on_init(drover_worker *worker, void **state) {
        int fd, r = drover_arena_open_fd(worker, "producer", 0, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, &arena);
        close(fd);
        if (r == 0)
                r = drover_queue_open(arena, "items", CAPACITY, sizeof(uint64_t), DROVER_QUEUE_FIFO, &queue);
        return r < 0 ? r : drover_array_open(arena, "sum", sizeof(uint64_t), 1, &sum);
}

static void on_fini(drover_worker *worker, void *state) {
        drover_array_free(sum);
        drover_queue_free(queue);
        drover_arena_free(arena);
}

static const struct drover_job_type jobs[] = {
        {.name = "produce",
         .args = "n:u64",
         .result = "sum:u64",
         .help = "Puts 1 to n, waits until all are done; their sum so far.",
         .handle = produce},
        {.name = "consume", .help = "Takes items until it is cancelled.", .handle = consume},
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "Producer and consumer over a bounded queue",
        .worker_init = on_init,
        .worker_fini = on_fini,
};
DROVER_REGISTER(plugin, "producer", "1.0.0")
