/* torture-client POOL MAX-ATTEMPTS FIRST-ELEMENT SEED: submits jobs and checks every verdict until SIGTERM,
 * then waits for those that are left.
 *
 * Checked: one verdict a job; DONE comes with the right answer; POISONED only after all attempts; nothing else ever
 * happens. A job that ran more often than it had attempts (the plugin counts its runs in an arena) is told: only
 * whoever killed the spawner knows whether that was right.
 *
 * One job in POISON_EVERY kills whoever runs it: it must end POISONED, after all its attempts and not one more.
 *
 * The waits are watched (wait-watch.c): a wake-up that is lost is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"
#include "tests/torture/job.h"
#include "tests/torture/part.h"

enum { WINDOW = 8, COUNT_EVERY_NS = 200000000, POISON_EVERY = 1500 };

struct flight {
        uint64_t serial, answer, since_ns;
        bool is_out, kills;
};

struct client {
        struct session *session;
        drover_array *runs;
        uint32_t max_attempts, first_element;
        uint64_t random, n_jobs, n_done, n_retries, n_poisoned, n_poison, said_ns;
        struct flight flights[WINDOW];
};

static void submit(struct client *c, unsigned i) {
        uint8_t payload[TORTURE_PAYLOAD];
        struct torture_job head = {
                .element = c->first_element + i,
                .busy_ns = (uint32_t)(part_random(&c->random) % (part_random(&c->random) % 8 == 0 ? 5000000 : 100000)),
                .nonce = part_random(&c->random),
                .kills = part_random(&c->random) % POISON_EVERY == 0,
        };
        size_t bytes = sizeof head + part_random(&c->random) % (sizeof payload - sizeof head + 1);
        memcpy(payload, &head, sizeof head);
        for (size_t k = sizeof head; k < bytes; k++)
                payload[k] = (uint8_t)(head.nonce >> k % 57);
        drover_array_store(c->runs, head.element, 0);
        struct flight *f = &c->flights[i];
        *f = (struct flight){.serial = c->n_jobs,
                             .answer = torture_answer(payload, bytes),
                             .since_ns = event_now_ns(),
                             .is_out = true,
                             .kills = head.kills != 0};
        const struct session_job job = {
                .priority = (uint32_t)(part_random(&c->random) % LAYOUT_PRIORITIES),
                .payload = payload,
                .bytes = bytes,
                .user = f->serial * WINDOW + i,
        };
        uint32_t slot;
        int r = session_submit(c->session, &job, &slot);
        f->is_out = r == 0;
        if (r < 0 && r != -EAGAIN)
                part_fail("submit: %s", strerror(-r));
        c->n_jobs += r == 0;
}

/* With where the time went: in the queue (until its last run), running, and until we knew; ms. */
static void tell_slow(const struct flight *f, const struct session_result *r, uint64_t now_ns) {
        const double ms = 1e6;
        if (r->state == SLOT_POISONED && r->verdict.when_ns > 0)
                part_say("died %llu", (unsigned long long)r->verdict.when_ns);
        if (now_ns > f->since_ns + PART_SLOW_NS)
                part_say("slow %s %llu %llu attempt %u, queue %.0f, run %.0f, told %.0f", f->kills ? "poison" : "job",
                         (unsigned long long)f->since_ns, (unsigned long long)now_ns, r->attempt,
                         r->started_ns ? (double)(r->started_ns - f->since_ns) / ms : 0,
                         r->started_ns ? (double)(r->finished_ns - r->started_ns) / ms : 0,
                         (double)(now_ns - r->finished_ns) / ms);
}

static void check(struct client *c, const struct session_result *result) {
        unsigned i = (unsigned)(result->user % WINDOW);
        struct flight *f = &c->flights[i];
        unsigned long long serial = result->user / WINDOW;
        char text[300];
        if (!f->is_out || f->serial != serial)
                part_fail("a second verdict for job %llu", serial);
        f->is_out = false;
        session_describe(result, text, sizeof text);
        uint64_t n_runs = 0, answer = 0;
        drover_array_load(c->runs, c->first_element + i, &n_runs);
        if (result->state == SLOT_DONE && result->bytes == sizeof answer)
                memcpy(&answer, result->data, sizeof answer);
        if (result->state == SLOT_DONE && answer != f->answer)
                part_fail("job %llu: a wrong answer of %zu bytes", serial, result->bytes);
        if (result->attempt > c->max_attempts)
                part_fail("job %llu: attempt %u of %u", serial, result->attempt, c->max_attempts);
        if (n_runs > result->attempt)
                part_say("runs %llu %llu %llu %llu", (unsigned long long)n_runs - result->attempt, serial,
                         (unsigned long long)f->since_ns, (unsigned long long)event_now_ns());
        if (result->state == SLOT_DONE && n_runs == 0)
                part_fail("job %llu: done without a run", serial);
        if (result->state == SLOT_POISONED ? result->verdict.attempts != c->max_attempts : result->state != SLOT_DONE)
                part_fail("job %llu: %s (attempt %u)", serial, text, result->attempt);
        if (f->kills && result->state != SLOT_POISONED)
                part_fail("job %llu kills whoever runs it, and yet: %s", serial, text);
        c->n_done++;
        c->n_poison += f->kills;
        c->n_retries += result->attempt - 1;
        c->n_poisoned += result->state == SLOT_POISONED;
        tell_slow(f, result, event_now_ns());
}

static void say_counts(struct client *c, uint64_t now_ns) {
        if (now_ns < c->said_ns + COUNT_EVERY_NS)
                return;
        c->said_ns = now_ns;
        part_say("count jobs %llu", (unsigned long long)c->n_done);
        part_say("count retries %llu", (unsigned long long)c->n_retries);
        part_say("count poisoned %llu", (unsigned long long)c->n_poisoned);
        part_say("count poison %llu", (unsigned long long)c->n_poison);
        c->n_done = c->n_retries = c->n_poisoned = c->n_poison = 0;
}

/* Waits for one verdict, or until `deadline_ns`. */
static bool collect(struct client *c, uint64_t deadline_ns) {
        struct session_result result;
        int r = session_next(c->session, &result, deadline_ns);
        if (r < 0 && r != -EINTR)
                part_fail("session_next: %s", strerror(-r));
        if (r != 1)
                return false;
        check(c, &result);
        return true;
}

static void run(struct client *c) {
        while (!part_is_over()) {
                unsigned window = 1 + (unsigned)(part_random(&c->random) % WINDOW);
                for (unsigned i = 0; i < window; i++)
                        if (!c->flights[i].is_out)
                                submit(c, i);
                while (session_in_flight(c->session) > 0 && part_random(&c->random) % 4 > 0)
                        collect(c, event_now_ns() + 1000000000);
                if (part_random(&c->random) % 2 == 0) { /* workers and clients shall fall asleep, others find a CPU */
                        const struct timespec pause = {.tv_nsec = (long)(part_random(&c->random) % 6000000)};
                        nanosleep(&pause, NULL);
                }
                say_counts(c, event_now_ns());
        }
        for (uint64_t end_ns = event_now_ns() + UINT64_C(30000000000); session_in_flight(c->session) > 0;)
                if (!collect(c, end_ns) && event_now_ns() >= end_ns)
                        part_fail("%u jobs without a verdict after 30 s", session_in_flight(c->session));
        say_counts(c, UINT64_MAX);
}

int main(int argc, char *argv[]) {
        static struct client c;
        char error[400];
        if (argc != 5)
                return 2;
        part_init();
        c.max_attempts = (uint32_t)strtoul(argv[2], NULL, 10);
        c.first_element = (uint32_t)strtoul(argv[3], NULL, 10) * WINDOW % TORTURE_ELEMENTS;
        c.random = strtoull(argv[4], NULL, 10);
        sd_bus *bus = part_bus();
        if (session_open(&c.session, bus, argv[1], error, sizeof error) < 0)
                part_fail("%s", error);
        drover_arena *arena = part_arena(bus, TORTURE_ARENA, TORTURE_ARENA_BYTES);
        int r = drover_array_open(arena, "runs", sizeof(uint64_t), TORTURE_ELEMENTS, &c.runs);
        if (r < 0)
                part_fail("runs: %s", strerror(-r));
        part_say("ready");
        run(&c);
        part_end();
}
