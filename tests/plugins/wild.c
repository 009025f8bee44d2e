/* Writes anywhere, as a bug may, or somebody who took a worker over: it knows the host's structs, and what they point
 * to.
 *
 * - write: `value`, of 4 or 8 bytes, at `offset` of memory `where` (number `index`), and dies, or lives if `lives`;
 * - fill: `words` of 8 bytes, by chance from `seed` (0: all zero, 1: all ones), from `offset` on;
 * - for_ever: everywhere, until it is killed;
 * - work is honest: `ms` milliseconds.
 *
 * `where` is pool, line, bell or channel (its rings, slots and done bits), of numbers that this worker has. */
#include <drover/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugins/host/job/job.h"
#include "plugins/host/job/orders.h"

/* As struct serve of plugins/host/job/serve-process.c begins. */
struct serve_head {
        struct host *host;
        struct layout_worker *line;
        struct orders orders;
        struct drover_job job;
};

static struct serve_head *head_of(drover_job *job) {
        struct serve_head *s = (struct serve_head *)((char *)job - offsetof(struct serve_head, job));
        return s->host == job_host(job) && s->line == job->line ? s : NULL; /* it begins otherwise by now */
}

struct memory {
        void *at;
        size_t bytes;
};

static struct memory find(struct serve_head *s, const char *where, uint64_t index) {
        struct layout_pool *pool = s->host->pool;
        if (strcmp(where, "pool") == 0)
                return (struct memory){pool, offsetof(struct layout_pool, worker)};
        if (strcmp(where, "line") == 0 && index < LAYOUT_MAX_WORKERS)
                return (struct memory){&pool->worker[index], sizeof(struct layout_worker)};
        if (strcmp(where, "bell") == 0 && index < s->orders.n_bells && s->orders.bell[index].bell)
                return (struct memory){s->orders.bell[index].bell, LAYOUT_PAGE};
        struct orders_channel *c = index < LAYOUT_MAX_CHANNELS ? s->orders.channel[index] : NULL;
        if (strcmp(where, "channel") == 0 && c)
                return (struct memory){c->channel.maps[CHANNEL_COMMON], c->channel.geometry.bytes[CHANNEL_COMMON]};
        return (struct memory){0};
}

static uint64_t chance(uint64_t *seed) { /* splitmix64 */
        uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static int read_u64(drover_job *job, const char *const *names, uint64_t *const *values) {
        int r = 0;
        for (unsigned i = 0; names[i] && r >= 0; i++)
                r = drover_arg_u64(job, names[i], values[i]);
        return r;
}

static int write_one(drover_job *job) {
        struct serve_head *s = head_of(job);
        const char *where;
        uint64_t index, offset, bytes, value, lives;
        int r = read_u64(job, (const char *const[]){"index", "offset", "bytes", "value", "lives", NULL},
                         (uint64_t *const[]){&index, &offset, &bytes, &value, &lives});
        if (r >= 0)
                r = drover_arg_str(job, "where", &where, NULL);
        struct memory m = r >= 0 && s ? find(s, where, index) : (struct memory){0};
        if (!m.at || offset + bytes > m.bytes || bytes > sizeof value)
                return -EINVAL;
        memcpy((char *)m.at + offset, &value, bytes);
        if (!lives)
                abort();
        return 0;
}

static int fill(drover_job *job) {
        struct serve_head *s = head_of(job);
        const char *where;
        uint64_t index, offset, words, seed;
        int r = read_u64(job, (const char *const[]){"index", "offset", "words", "seed", NULL},
                         (uint64_t *const[]){&index, &offset, &words, &seed});
        if (r >= 0)
                r = drover_arg_str(job, "where", &where, NULL);
        struct memory m = r >= 0 && s ? find(s, where, index) : (struct memory){0};
        if (!m.at)
                return -EINVAL;
        for (uint64_t i = 0; i < words && offset + 8 * i + 8 <= m.bytes; i++)
                *(volatile uint64_t *)((char *)m.at + offset + 8 * i) = seed == 0   ? 0
                                                                        : seed == 1 ? UINT64_MAX
                                                                                    : chance(&seed);
        abort();
}

static int for_ever(drover_job *job) {
        static const char *const wheres[] = {"pool", "line", "bell", "channel"};
        struct serve_head *s = head_of(job);
        uint64_t seed = 4711, own = 0;
        if (!s)
                return -EINVAL;
        for (;;) {
                struct memory m = find(s, wheres[chance(&seed) % 4], chance(&seed) % 4);
                uint64_t value = chance(&seed);
                if (!m.at)
                        continue;
                *(volatile uint64_t *)((char *)m.at + chance(&seed) % (m.bytes / 8) * 8) = value % 4 == 0   ? 0
                                                                                           : value % 4 == 1 ? UINT64_MAX
                                                                                                            : value;
                if (++own % 64 == 0)
                        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
}

static int work(drover_job *job) {
        uint64_t ms;
        int r = drover_arg_u64(job, "ms", &ms);
        for (uint64_t i = 0; i < ms && r >= 0; i++) {
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                r = drover_checkpoint(job);
        }
        return r;
}

static const struct drover_job_type jobs[] = {
        {.name = "write", .args = "where:str,index:u64,offset:u64,bytes:u64,value:u64,lives:u64", .handle = write_one},
        {.name = "fill", .args = "where:str,index:u64,offset:u64,words:u64,seed:u64", .handle = fill},
        {.name = "for_ever", .handle = for_ever},
        {.name = "work", .args = "ms:u64", .handle = work},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "wild", "1.0")
