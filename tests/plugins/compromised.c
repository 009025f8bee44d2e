/* Does to other jobs of its pool what code in a worker can: it knows the host's structs, so it has every address and
 * every right that the host has. Each job says how many others it reached.
 *
 * - overwrite: writes `by` over `word` in the arguments of queued jobs, if it can make them writable;
 * - grow: makes its mapping of the result areas longer, and where verdict lines lie behind it, jobs LOST;
 * - lose: says POISONED of every queued job, with all that it can write;
 * - peek: looks for `word` in the arguments of queued jobs;
 * - answer: gives every queued job a result of its own;
 * - again: says of every job that another worker runs that it is queued;
 * - frame: says of every queued job that another worker runs it, in that one's record, too;
 * - drag: says of every queued job that it runs it itself, for the last time, and dies;
 * - foul: says that there is nonsense in every channel;
 * - echo and wait are honest. */
#include <drover/plugin.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "plugins/host/job/job.h"

enum { PAGE = 4096 };

static size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

/* The kernel looks for us: no signal where nothing is. */
static bool can_be_read(const void *at) {
        int pair[2];
        if (pipe(pair) < 0)
                return false;
        bool can = write(pair[1], at, 1) == 1;
        close(pair[0]);
        close(pair[1]);
        return can;
}

static bool can_be_written(void *at) {
        int pair[2];
        if (pipe(pair) < 0)
                return false;
        bool can = write(pair[1], at, 1) == 1 && read(pair[0], at, 1) == 1; /* what stood there */
        close(pair[0]);
        close(pair[1]);
        return can;
}

static bool is_queued(const struct channel *c, uint32_t slot) {
        return slot_state(atomic_load(&c->slots[slot].word)) == SLOT_QUEUED;
}

static void tell(const struct channel *c, uint32_t slot) {
        atomic_fetch_or(&c->done[slot / 64], UINT64_C(1) << slot % 64);
}

/* ---- what it cannot ---- */

static uint64_t write_over(const struct channel *c, uint8_t *jobs, const char *word, const char *by) {
        uint64_t n = 0;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++) {
                uint8_t *area = jobs + slot * c->geometry.job_stride;
                uint8_t *at = is_queued(c, slot) ? memmem(area, c->geometry.job_stride, word, strlen(word)) : NULL;
                if (!at || !can_be_written(at))
                        continue;
                memcpy(at, by, strlen(word));
                n++;
        }
        return n;
}

static int overwrite(drover_job *job) {
        const struct channel *c = job->channel;
        size_t bytes = whole_pages(c->geometry.n_slots * c->geometry.job_stride);
        const char *word, *by;
        int r = drover_arg_str(job, "word", &word, NULL);
        if (r >= 0)
                r = drover_arg_str(job, "by", &by, NULL);
        if (r < 0 || strlen(word) != strlen(by))
                return -EINVAL;
        uint64_t n = write_over(c, c->jobs, word, by);
        mprotect(c->jobs, bytes, PROT_READ | PROT_WRITE);
        n += write_over(c, c->jobs, word, by);
        uint8_t *copy = mremap(c->jobs, 0, bytes, MREMAP_MAYMOVE);
        if (copy != MAP_FAILED) {
                mprotect(copy, bytes, PROT_READ | PROT_WRITE);
                n += write_over(c, copy, word, by);
        }
        return drover_ret_u64(job, "n", n);
}

/* As the broker would: the line, then the word. */
static void lose_by_line(const struct channel *c, uint8_t *lines, uint32_t slot) {
        uint64_t word = atomic_load(&c->slots[slot].word);
        struct layout_verdict line = {
                .reason = REASON_SIGNAL, .signal = SIGSEGV, .pid = 1, .attempts = 1, .when_ns = UINT64_MAX / 2};
        memcpy(lines + slot * sizeof line, &line, sizeof line);
        atomic_store(&c->slots[slot].word, SLOT_WORD(SLOT_LOST, 0, 1, SLOT_OWNER_WORKER0, slot_generation(word)));
        tell(c, slot);
}

static int grow(drover_job *job) {
        struct channel *c = (struct channel *)job->channel;
        size_t bytes = whole_pages(c->geometry.n_slots * c->geometry.result_stride);
        size_t more = whole_pages(c->geometry.n_slots * sizeof(struct layout_verdict));
        uint64_t n = 0;
        job->result = NULL; /* it may move */
        uint8_t *grown = mremap(c->results, bytes, bytes + more, MREMAP_MAYMOVE);
        if (grown == MAP_FAILED)
                return -errno;
        for (unsigned i = 0; i < sizeof c->maps / sizeof *c->maps; i++)
                if (c->maps[i] == c->results)
                        c->maps[i] = grown;
        c->results = grown;
        uint8_t *result = grown + job->slot * c->geometry.result_stride + sizeof(struct layout_result);
        job->result = job->out = result;
        args_writer_init(&job->writer, result, c->geometry.slot_bytes);
        for (uint32_t slot = 0; slot < c->geometry.n_slots && can_be_read(grown + bytes); slot++)
                if (is_queued(c, slot)) {
                        lose_by_line(c, grown + bytes, slot);
                        n++;
                }
        return drover_ret_u64(job, "n", n);
}

/* ---- what it can ---- */

static int lose(drover_job *job) {
        const struct channel *c = job->channel;
        uint64_t n = 0;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++)
                if (is_queued(c, slot)) {
                        uint64_t word = atomic_load(&c->slots[slot].word);
                        atomic_store(&c->slots[slot].word,
                                     SLOT_WORD(SLOT_POISONED, 0, 3, SLOT_OWNER_WORKER0, slot_generation(word)));
                        tell(c, slot);
                        n++;
                }
        return drover_ret_u64(job, "n", n);
}

static int peek(drover_job *job) {
        const struct channel *c = job->channel;
        const char *word;
        uint64_t n = 0;
        int r = drover_arg_str(job, "word", &word, NULL);
        for (uint32_t slot = 0; slot < c->geometry.n_slots && r >= 0; slot++)
                n += is_queued(c, slot) &&
                     memmem(channel_job(c, slot), c->geometry.job_stride, word, strlen(word)) != NULL;
        return r < 0 ? r : drover_ret_u64(job, "n", n);
}

static int again(drover_job *job) {
        struct channel *c = (struct channel *)job->channel;
        uint64_t n = 0;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++) {
                uint64_t word = atomic_load(&c->slots[slot].word);
                if (slot == job->slot || slot_state(word) != SLOT_RUNNING)
                        continue;
                atomic_store(&c->slots[slot].word, SLOT_WORD(SLOT_QUEUED, 0, 1, 0, slot_generation(word)));
                n += channel_push(c, slot, slot_generation(word), LAYOUT_PRIORITY_DEFAULT) == 0;
        }
        return drover_ret_u64(job, "n", n);
}

static int frame(drover_job *job) {
        const struct channel *c = job->channel;
        const struct host *h = job_host(job);
        uint32_t other = h->index == 0;
        uint64_t n = 0;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++)
                if (is_queued(c, slot)) {
                        uint32_t generation = slot_generation(atomic_load(&c->slots[slot].word));
                        atomic_store(&c->slots[slot].word,
                                     SLOT_WORD(SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0 + other, generation));
                        atomic_store(&h->pool->worker[other].record,
                                     (uint64_t)generation << 32 | (uint64_t)job->channel_index << 16 | slot);
                        n++;
                }
        return drover_ret_u64(job, "n", n);
}

static int foul(drover_job *job) {
        uint64_t n = 0;
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++) {
                struct worker_report report = {
                        .type = REPORT_FOUL, .version = WIRE_VERSION, .channel = i, .error = EPROTO};
                n += packet_send(WIRE_CONTROL_FD, &report, sizeof report, NULL, 0) == 0;
        }
        return drover_ret_u64(job, "n", n);
}

static int answer(drover_job *job) {
        static const char forged[] = "\x81\xa4text\xa6"
                                     "forged"; /* MessagePack: {text: "forged"} */
        const struct channel *c = job->channel;
        uint64_t n = 0;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++)
                if (is_queued(c, slot)) {
                        uint64_t word = atomic_load(&c->slots[slot].word);
                        *channel_result(c, slot) = (struct layout_result){.bytes = sizeof forged - 1, .pid = 1};
                        memcpy(channel_result_data(c, slot), forged, sizeof forged - 1);
                        atomic_store(&c->slots[slot].word,
                                     SLOT_WORD(SLOT_DONE, 0, 1, SLOT_OWNER_WORKER0, slot_generation(word)));
                        tell(c, slot);
                        n++;
                }
        return drover_ret_u64(job, "n", n);
}

static int drag(drover_job *job) {
        const struct channel *c = job->channel;
        for (uint32_t slot = 0; slot < c->geometry.n_slots; slot++)
                if (is_queued(c, slot)) {
                        uint64_t word = atomic_load(&c->slots[slot].word);
                        atomic_store(&c->slots[slot].word, SLOT_WORD(SLOT_RUNNING, 0, LAYOUT_MAX_ATTEMPTS,
                                                                     slot_owner(job->claimed), slot_generation(word)));
                }
        abort();
}

static int echo(drover_job *job) {
        const char *text;
        int r = drover_arg_str(job, "text", &text, NULL);
        return r < 0 ? r : drover_ret_str(job, "text", text);
}

static int waits(drover_job *job) {
        uint64_t ms;
        int r = drover_arg_u64(job, "ms", &ms);
        if (r < 0)
                return r;
        drover_progress(job, 0, 1, NULL); /* it has begun */
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
        r = drover_arg_u64(job, "ms", &ms); /* as it is by now */
        if (r >= 0)
                r = drover_ret_u64(job, "ms", ms);
        return r < 0 ? r : drover_ret_u64(job, "pid", (uint64_t)getpid());
}

static const struct drover_job_type jobs[] = {
        {.name = "overwrite", .args = "word:str,by:str", .result = "n:u64", .handle = overwrite},
        {.name = "grow", .result = "n:u64", .handle = grow},
        {.name = "lose", .result = "n:u64", .handle = lose},
        {.name = "peek", .args = "word:str", .result = "n:u64", .handle = peek},
        {.name = "again", .result = "n:u64", .handle = again},
        {.name = "frame", .result = "n:u64", .handle = frame},
        {.name = "foul", .result = "n:u64", .handle = foul},
        {.name = "wait", .args = "ms:u64", .result = "ms:u64,pid:u64", .handle = waits},
        {.name = "answer", .result = "n:u64", .handle = answer},
        {.name = "drag", .handle = drag},
        {.name = "echo", .args = "text:str", .result = "text:str", .handle = echo},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "compromised", "1.0")
