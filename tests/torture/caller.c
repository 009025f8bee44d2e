/* torture-caller SEED MAX-ATTEMPTS [CHILD]: jobs for two pools, "fast" (plugin echo) and "slow" (plugin sleep, a few ms
 * each), some in flight in both at any time, until SIGTERM; then it waits for what is left and leaves as a good client
 * does. With CHILD a child of it keeps all of its descriptors open, also when it is gone.
 *
 * Checked: one verdict a job, DONE with the right answer, or POISONED after MAX-ATTEMPTS attempts. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/client/session/session.h"
#include "ipc/memory/event.h"
#include "tests/torture/part.h"

enum { WINDOW = 6, PAYLOAD = 100, SLEEP_MS = 8 };

#define PATIENCE_NS UINT64_C(60000000000)

struct pool {
        struct session *session;
        uint64_t expected[WINDOW]; /* 0 = nothing in flight there */
        unsigned n_in_flight;
        bool is_typed;
};

struct caller {
        struct pool pools[2];
        uint64_t random, n_jobs, n_poisoned;
        uint32_t max_attempts;
};

static size_t fill(const struct pool *p, uint64_t value, uint8_t payload[PAYLOAD]) {
        struct args_writer w;
        size_t bytes;
        if (!p->is_typed) {
                for (size_t i = 0; i < PAYLOAD / sizeof value; i++)
                        memcpy(payload + i * sizeof value, &value, sizeof value);
                return PAYLOAD / sizeof value * sizeof value;
        }
        args_writer_init(&w, payload, PAYLOAD);
        args_put(&w, "ms", &(struct args_value){.type = SCHEMA_U64, .u64 = value});
        return args_finish(&w, &bytes) < 0 ? 0 : bytes;
}

static void submit(struct caller *c, struct pool *p) {
        uint8_t payload[PAYLOAD];
        uint32_t slot;
        unsigned i = 0;
        while (p->expected[i])
                i++;
        uint64_t random = part_random(&c->random), value = p->is_typed ? 1 + random % SLEEP_MS : random | 1;
        const struct session_job job = {
                .priority = LAYOUT_PRIORITY_DEFAULT, .payload = payload, .bytes = fill(p, value, payload), .user = i};
        int r = session_submit(p->session, &job, &slot);
        if (r == -EAGAIN)
                return; /* slots are held back for workers that have to die first */
        if (r < 0)
                part_fail("submit: %s", strerror(-r));
        p->expected[i] = value;
        p->n_in_flight++;
}

static void check(struct caller *c, struct pool *p, const struct session_result *result) {
        uint8_t answer[PAYLOAD];
        if (result->user >= WINDOW || !p->expected[result->user])
                part_fail("a verdict for nothing, or a second one");
        size_t bytes = fill(p, p->expected[result->user], answer);
        p->expected[result->user] = 0;
        p->n_in_flight--;
        c->n_jobs++;
        if (result->state == SLOT_POISONED && result->attempt >= c->max_attempts)
                c->n_poisoned++;
        else if (result->state != SLOT_DONE || result->bytes != bytes || memcmp(result->data, answer, bytes) != 0) {
                char text[200];
                session_describe(result, text, sizeof text);
                part_fail("a wrong answer: %s, %zu bytes, %zu expected", text, result->bytes, bytes);
        }
}

/* Everything that is there. */
static void collect(struct caller *c, struct pool *p, uint64_t deadline_ns) {
        struct session_result result;
        int r = 1;
        while (p->n_in_flight > 0 && (r = session_next(p->session, &result, deadline_ns)) == 1) {
                check(c, p, &result);
                deadline_ns = 0;
        }
        if (r < 0 && r != -EINTR)
                part_fail("no answer: %s", strerror(-r));
}

static void drain(struct caller *c, struct pool *p) {
        uint64_t deadline_ns = event_now_ns() + PATIENCE_NS;
        while (p->n_in_flight > 0) {
                if (event_now_ns() >= deadline_ns)
                        part_fail("%u jobs without a verdict", p->n_in_flight);
                collect(c, p, event_now_ns() + 100000000);
        }
}

static void run(struct caller *c) {
        while (!part_is_over()) {
                struct pool *fast = &c->pools[0], *slow = &c->pools[1];
                for (struct pool *p = fast; p <= slow; p++)
                        while (p->n_in_flight < WINDOW) {
                                unsigned before = p->n_in_flight;
                                submit(c, p);
                                if (p->n_in_flight == before)
                                        break;
                        }
                collect(c, fast, event_now_ns() + 1000000);
                collect(c, slow, 0);
                if (part_random(&c->random) % 4 == 0) /* leave a CPU to others */
                        poll(NULL, 0, 1);
        }
        for (unsigned i = 0; i < 2; i++)
                drain(c, &c->pools[i]);
}

int main(int argc, char *argv[]) {
        static const char *const names[] = {"fast", "slow"};
        struct caller c = {0};
        char error[400];
        if (argc != 3 && argc != 4)
                return 2;
        part_init();
        c.random = strtoull(argv[1], NULL, 10);
        c.max_attempts = (uint32_t)strtoul(argv[2], NULL, 10);
        sd_bus *bus = part_bus();
        for (unsigned i = 0; i < 2; i++) {
                if (session_open(&c.pools[i].session, bus, names[i], error, sizeof error) < 0)
                        part_fail("%s", error);
                c.pools[i].is_typed = i == 1;
        }
        if (argc == 4 && fork() == 0)
                for (;;)
                        pause();
        part_say("ready");
        run(&c);
        part_say("count jobs %llu", (unsigned long long)c.n_jobs);
        part_say("count poisoned %llu", (unsigned long long)c.n_poisoned);
        for (unsigned i = 0; i < 2; i++)
                session_free(c.pools[i].session);
        sd_bus_flush_close_unref(bus);
        part_end();
}
