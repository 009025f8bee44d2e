/* What a worker and a client of the test of kills do: as libdrover and drover-worker, without all that is not under
 * test. They never return: they exit with 0, with 1 where a CHECK fails, or die. */
#include "kill-fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "ipc/channel/bell.h"
#include "ipc/client/session/session-internal.h"
#include "ipc/memory/event.h"
#include "ipc/memory/kill-point.h"

enum {
        WINDOW = 8,
        CRASH_ATTEMPTS = 3,
        AGAIN_EVERY = 37, /* a job that asks for another attempt in its first */
        LATER_EVERY = 41, /* a job that begins delayed */
        NEVER_POISONED = LAYOUT_MAX_ATTEMPTS,
};

#define STUCK_NS UINT64_C(20000000000)

const char *const worker_points[N_WORKER_POINTS] = {
        "claim-record",  "claim-slot",    "claim-head", "finish-word",     "announce-bit",
        "announce-wait", "announce-seq",  "bell-seq",   "bell-sleeper",    "bell-woken",
        "bell-awake",    "bell-spinner",  "bell-spun",  "bell-clear-work", "handler",
        "handler-half",  "postpone-word", "bell-wake",  "bell-risen",
};
const char *const client_points[N_CLIENT_POINTS] = {
        "slot-filling", "slot-queued", "ring-cell", "bell-work-before", "bell-work-after", "bell-seq",
        "done-taken",   "wait-seen",   "wait-set",  "slot-delayed",     "bell-wake",
};

enum job_type { JOB_PLAIN, JOB_CRASH, JOB_AGAIN };
#define NUMBER(type) (1000u + (type)) /* as it stands in the job's line */

/* ---- dying at a named place ---- */

struct kill_plan kill_plan;

void kill_point(const char *name) {
        bool is_here = kill_plan.name && strcmp(kill_plan.name, name) == 0 && --kill_plan.n_left == 0;
        if (is_here && kill_plan.n_deaths)
                atomic_fetch_add(kill_plan.n_deaths, 1);
        if (is_here || (kill_plan.n_any_left > 0 && --kill_plan.n_any_left == 0))
                kill(getpid(), SIGKILL);
}

void child_begin(void) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- a worker ---- */

struct worker {
        struct shared *shared;
        struct layout_bell *bell;
        struct channel channels[CHANNELS];
        const struct doorbell *dones;
        int n_channels;
        uint32_t index, next;
};

static void worker_settle(struct worker *w, uint32_t channel) {
        bell_clear_work(w->bell, channel);
        if (channel_has_work(&w->channels[channel]))
                bell_mark_work(w->bell, channel);
}

static bool worker_run_one(struct worker *w, uint32_t index) {
        struct channel *c = &w->channels[index];
        uint32_t slot;
        uint64_t word;
        int r = channel_claim(c, index, w->index, false, event_now_ns(), &w->shared->record[w->index],
                              w->dones[index].ring_fd, &slot, &word);
        CHECK(r >= 0);
        if (r == CHANNEL_EMPTY) {
                worker_settle(w, index);
                return false;
        }
        if (!channel_has_work(c))
                worker_settle(w, index);
        bell_pass_on(w->bell);

        const uint64_t *in = channel_payload(c, slot);
        struct layout_result *line = channel_result(c, slot);
        uint64_t *out = channel_result_data(c, slot);
        KILL_POINT("handler");
        uint32_t type = channel_job(c, slot)->type;
        if (type == NUMBER(JOB_CRASH))
                kill(getpid(), SIGKILL);
        if (type == NUMBER(JOB_AGAIN) && slot_attempt(word) == 1) {
                CHECK(channel_postpone(c, slot, word) == 0);
                return true;
        }
        out[0] = in[0] * 3 + 1;
        KILL_POINT("handler-half");
        out[1] = ~in[0];
        *line = (struct layout_result){.bytes = 16, .pid = (uint32_t)getpid(), .generation = slot_generation(word)};
        CHECK(channel_finish(c, slot, word, SLOT_DONE, w->dones[index].ring_fd) ==
              0); /* nobody judges the living here */
        return true;
}

static bool worker_has_reason(const struct worker *w) {
        return bell_has_work(w->bell) || atomic_load(&w->shared->stop);
}

static void worker_rest(struct worker *w) {
        bell_spin_begin(w->bell, w->index);
        for (unsigned i = 0; i < 20 && !worker_has_reason(w); i++)
                event_pause();
        bell_spin_end(w->bell, w->index);
        if (worker_has_reason(w))
                return;
        struct event_wait wait = bell_sleep_begin(w->bell, w->index);
        if (!worker_has_reason(w))
                event_wait(wait.word, wait.seen, EVENT_FOREVER);
        bell_sleep_end(w->bell, w->index);
}

void worker_main(struct broker *b, uint32_t index) {
        static struct worker w;
        child_begin();
        w = (struct worker){.shared = b->shared, .dones = b->dones, .n_channels = b->n_channels, .index = index};
        CHECK(bell_map(b->bell_fd, &w.bell) == 0);
        for (int i = 0; i < b->n_channels; i++)
                CHECK(channel_map(&w.channels[i], &b->channels[i].geometry, b->channel_fds[i], CHANNEL_WORKER) == 0);
        while (!atomic_load(&w.shared->stop)) {
                bool ran = false;
                for (int i = 0; i < w.n_channels && !ran; i++) {
                        uint32_t channel = (w.next + (uint32_t)i) % (uint32_t)w.n_channels;
                        if (!bell_channel_has_work(w.bell, channel))
                                continue;
                        ran = worker_run_one(&w, channel);
                        w.next = channel + 1;
                }
                if (!ran)
                        worker_rest(&w);
        }
        _exit(0);
}

/* ---- a client ---- */

static struct session *client_open(struct broker *b, int index) {
        static struct schema_job jobs[] = {
                [JOB_PLAIN] = {.number = NUMBER(JOB_PLAIN), .result.is_raw = true},
                [JOB_CRASH] = {.number = NUMBER(JOB_CRASH), .result.is_raw = true},
                [JOB_AGAIN] = {.number = NUMBER(JOB_AGAIN), .result.is_raw = true},
        };
        static struct schema schema = {.n_jobs = sizeof jobs / sizeof *jobs, .jobs = jobs};
        int pair[2];
        struct session *s = calloc(1, sizeof *s);
        CHECK(s && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        CHECK(channel_map(&s->channel, &b->channels[index].geometry, b->channel_fds[index], CHANNEL_CLIENT) == 0);
        CHECK(bell_map(b->bell_fd, &s->bell) == 0 && session_init_slots(s) == 0);
        s->schema = &schema;
        s->index = (uint32_t)index;
        s->doorbell_fd = b->doorbell.ring_fd;
        s->done_fd = b->dones[index].hear_fd;
        s->socket_fd = pair[0];
        return s;
}

static enum job_type type_of(uint64_t n) {
        return n % CRASH_EVERY == CRASH_EVERY - 1 ? JOB_CRASH : n % AGAIN_EVERY == 3 ? JOB_AGAIN : JOB_PLAIN;
}

static void client_submit(struct session *s, uint64_t n, enum job_type type) {
        const uint64_t payload[2] = {n, 0};
        bool crashes = type == JOB_CRASH;
        const struct session_job job = {
                .type = type,
                .not_before_ns = n % LATER_EVERY == 5 ? event_now_ns() + 1000000 : 0,
                .priority = (uint32_t)(n % LAYOUT_PRIORITIES),
                .max_attempts = crashes ? CRASH_ATTEMPTS : NEVER_POISONED,
                .payload = payload,
                .bytes = sizeof payload,
                .user = n,
        };
        uint32_t slot;
        CHECK(session_submit(s, &job, &slot) == 0);
}

void client_main(struct broker *b) {
        child_begin();
        struct session *s = client_open(b, 0);
        static bool is_finished[JOBS];
        unsigned seed = b->seed;
        for (uint64_t sent = 0, got = 0; got < JOBS;) {
                /* Now many at once, now one by one, now everything drained: then all fall asleep. */
                unsigned window = sent % 500 < 200 ? 1 : WINDOW;
                session_set_spin(s, (unsigned)rand_r(&seed) % 2 == 0);
                for (; sent < JOBS && session_in_flight(s) < window; sent++)
                        client_submit(s, sent, type_of(sent));

                struct session_result r;
                CHECK(session_next(s, &r, event_now_ns() + STUCK_NS) == 1);
                CHECK(r.user < sent && !is_finished[r.user]);
                is_finished[r.user] = true;
                got++;
                bool crashes = type_of(r.user) == JOB_CRASH;
                CHECK(r.state == (crashes ? SLOT_POISONED : SLOT_DONE));
                if (crashes)
                        CHECK(r.attempt == CRASH_ATTEMPTS && r.verdict.attempts == CRASH_ATTEMPTS);
                else {
                        uint64_t out[2];
                        CHECK(r.bytes == sizeof out);
                        memcpy(out, r.data, sizeof out);
                        CHECK(out[0] == r.user * 3 + 1 && out[1] == ~r.user);
                }
                atomic_fetch_add(&b->shared->n_verdicts, 1);
                atomic_fetch_add(&b->shared->n_retries, r.attempt - 1);
                atomic_fetch_add(&b->shared->n_poisoned, crashes);
        }
        _exit(0);
}

void victim_main(struct broker *b, int index, const struct kill_plan *plan) {
        child_begin();
        struct session *s = client_open(b, index);
        kill_plan = *plan;
        for (uint64_t n = 0;; n++) {
                struct session_result r;
                while (session_in_flight(s) == SLOTS / 2)
                        CHECK(session_next(s, &r, event_now_ns() + STUCK_NS) == 1);
                client_submit(s, n, JOB_PLAIN);
                if (n > 5000) /* this place was not met in time */
                        kill(getpid(), SIGKILL);
        }
}
