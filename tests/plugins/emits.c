/* Emits: as many items as it is told, as large, as fast; an attempt that dies in the middle of it; what drover_emit
 * refuses; and packets that no host ever sends. */
#include <drover/plugin.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/wire.h"

static void sleep_ms(uint64_t ms) {
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

/* Items from..to - 1: a number each, filled with dots up to `bytes`. */
static int emit_numbers(drover_job *job, uint64_t from, uint64_t to, uint64_t bytes, uint64_t pause_ms) {
        char *item = malloc(bytes + 24);
        int r = item ? 0 : -ENOMEM;
        for (uint64_t i = from; i < to && r >= 0; i++) {
                size_t n = (size_t)sprintf(item, "%" PRIu64, i);
                if (bytes > n) {
                        memset(item + n, '.', bytes - n);
                        n = bytes;
                }
                r = drover_emit(job, item, n);
                if (pause_ms)
                        sleep_ms(pause_ms);
        }
        free(item);
        return r;
}

static int count(drover_job *job) {
        uint64_t n = 0, bytes = 0, pause_ms = 0;
        drover_arg_u64(job, "n", &n);
        drover_arg_u64(job, "bytes", &bytes);
        drover_arg_u64(job, "pause_ms", &pause_ms);
        int r = emit_numbers(job, 0, n, bytes, pause_ms);
        return r < 0 ? r : drover_ret_u64(job, "n", n);
}

/* One item each ten milliseconds. */
static int slowly(drover_job *job) {
        uint64_t n = 0;
        drover_arg_u64(job, "n", &n);
        return emit_numbers(job, 0, n, 0, 10);
}

/* The first attempt emits `first` items and dies, the second emits `second` and is done. */
static int twice(drover_job *job) {
        uint64_t first = 0, second = 0;
        bool asks = false;
        drover_arg_u64(job, "first", &first);
        drover_arg_u64(job, "second", &second);
        drover_arg_bool(job, "asks", &asks);
        if (drover_job_attempt(job) > 1)
                return emit_numbers(job, 100, 100 + second, 0, 0);
        int r = emit_numbers(job, 0, first, 0, 0);
        if (asks && r >= 0)
                return drover_retry(job, 0, "once more");
        if (r >= 0)
                abort();
        return r;
}

static int refused(drover_job *job) {
        static char item[DROVER_EMIT_MAX + 1];
        drover_ret_i64(job, "empty", drover_emit(job, item, 0));
        drover_ret_i64(job, "largest", drover_emit(job, item, DROVER_EMIT_MAX));
        return drover_ret_i64(job, "larger", drover_emit(job, item, DROVER_EMIT_MAX + 1));
}

/* The socket for items: it comes with the doorbell, behind it. The host has what we print to at a number of its own,
 * too. */
static int find_socket(void) {
        struct stat st, out;
        unsigned n = 0;
        if (fstat(STDOUT_FILENO, &out) < 0)
                return -1;
        for (int fd = WIRE_PLUGIN_FD + 1; fd < 64; fd++)
                if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino != out.st_ino && ++n == 2)
                        return fd;
        return -1;
}

/* Packets of a kind, without end for `n` 0; then works on for two seconds. */
static int garbage(drover_job *job) {
        static struct {
                struct worker_item head;
                char data[WIRE_MAX_ITEM + 64];
        } packet;
        const char *kind;
        uint64_t n = 0;
        drover_arg_str(job, "kind", &kind, NULL);
        drover_arg_u64(job, "n", &n);
        packet.head = (struct worker_item){.version = WIRE_VERSION, .generation = 1, .attempt = 1, .bytes = 8};
        size_t bytes = sizeof packet.head + 8;
        if (strcmp(kind, "short") == 0)
                bytes = 3;
        else if (strcmp(kind, "empty") == 0)
                bytes = sizeof packet.head;
        else if (strcmp(kind, "length") == 0)
                packet.head.bytes = 1u << 31;
        else if (strcmp(kind, "version") == 0)
                packet.head.version = 77;
        else if (strcmp(kind, "large") == 0)
                bytes = sizeof packet;
        int fd = find_socket();
        for (uint64_t i = 0; n == 0 || i < n; i++) {
                if (strcmp(kind, "foreign") == 0) {
                        packet.head.channel = (uint32_t)(i * 7 % 70000);
                        packet.head.slot = (uint32_t)(i * 31 % 70000);
                        packet.head.generation = (uint32_t)i % 5;
                        packet.head.attempt = (uint32_t)i;
                }
                if (write(fd, &packet, bytes) < 0 && errno == EAGAIN)
                        sleep_ms(1);
                if (drover_checkpoint(job) < 0)
                        return -ECANCELED;
        }
        for (int i = 0; i < 200 && drover_checkpoint(job) >= 0; i++)
                sleep_ms(10);
        return 0;
}

static const struct drover_job_type jobs[] = {
        {.name = "count", .args = "n:u64,bytes:u64,pause_ms:u64", .result = "n:u64", .handle = count},
        {.name = "slowly", .args = "n:u64", .handle = slowly},
        {.name = "twice", .args = "first:u64,second:u64,asks:bool", .handle = twice},
        {.name = "refused", .result = "empty:i64,largest:i64,larger:i64", .handle = refused},
        {.name = "garbage", .args = "kind:str,n:u64", .handle = garbage},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "emits", "1.0")
