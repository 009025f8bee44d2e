/* torture-honest POOL SECONDS SEED: one round trip after the other through pool POOL (plugin echo), with a pause
 * between them, each answer compared; says how many and how long the slowest hundredth took.
 *
 * The pause makes it one that waits, as most clients are: without it, it competes for a CPU with whoever else never
 * rests, and the slowest hundredth tells of the scheduler's slices alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/client/session/session.h"
#include "ipc/memory/event.h"
#include "tests/torture/part.h"

enum { PAYLOAD = 200, SAMPLES = 1 << 20, PAUSE_NS = 200000 };

static int compare(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
        return (x > y) - (x < y);
}

static uint64_t round_trip(struct session *s, uint64_t *random) {
        uint8_t payload[PAYLOAD];
        uint32_t bytes = 1 + (uint32_t)(part_random(random) % sizeof payload);
        for (uint32_t i = 0; i < bytes; i++)
                payload[i] = (uint8_t)part_random(random);
        const struct session_job job = {.priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = bytes};
        struct session_result result;
        uint32_t slot;
        uint64_t since_ns = event_now_ns();
        int r = session_submit(s, &job, &slot);
        if (r < 0)
                part_fail("submit: %s", strerror(-r));
        while ((r = session_next(s, &result, since_ns + UINT64_C(30000000000))) == -EINTR)
                ;
        if (r != 1)
                part_fail("no answer: %s", strerror(r < 0 ? -r : ETIMEDOUT));
        if (result.state != SLOT_DONE || result.attempt != 1 || result.bytes != bytes ||
            memcmp(result.data, payload, bytes) != 0)
                part_fail("a wrong answer: state %d, attempt %u, %zu of %u bytes", (int)result.state, result.attempt,
                          result.bytes, bytes);
        return event_now_ns() - since_ns;
}

int main(int argc, char *argv[]) {
        static uint32_t samples[SAMPLES];
        struct session *s;
        char error[400];
        if (argc != 4)
                return 2;
        part_init();
        uint64_t random = strtoull(argv[3], NULL, 10);
        if (session_open(&s, part_bus(), argv[1], error, sizeof error) < 0)
                part_fail("%s", error);
        part_say("ready");
        uint64_t end_ns = event_now_ns() + (uint64_t)(strtod(argv[2], NULL) * 1e9);
        size_t n = 0;
        const struct timespec pause = {.tv_nsec = PAUSE_NS};
        while (n < SAMPLES && event_now_ns() < end_ns) {
                uint64_t took_ns = round_trip(s, &random);
                samples[n++] = took_ns < UINT32_MAX ? (uint32_t)took_ns : UINT32_MAX;
                nanosleep(&pause, NULL);
        }
        qsort(samples, n, sizeof *samples, compare);
        part_say("count jobs %zu", n);
        part_say("count p50 %u", samples[n / 2]);
        part_say("count p99 %u", samples[n * 99 / 100]);
        session_free(s);
        part_end();
}
