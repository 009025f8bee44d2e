/* The model of bells that change places (ipc/PROTOCOL.md, 4.3): plugins/host/job/serve-process.c, orders.c,
 * ipc/channel/bell.c and daemon/supervise/channels/pool-places.c. Two workers, which wait on the broker's own bell and
 * on one more; two clients, each with a bell of its own, of which one has that place; the broker, which gives it to the
 * other one whenever it likes, or does not. A worker may be killed anywhere.
 *
 * A step is one access to a shared word, one futex call or one claim; a sequence and the call after it are one step
 * where the waker cannot be killed between them, and so is the broker's passing on, which only adds wake-ups. A ring is
 * the number of hints in it. Whether a sequence or a control word changed since a worker read it is a bit of that
 * worker's. Left out: spinning, priorities, and that a wake-up is spared while another is on its way: the model of jobs
 * has what of that is about bells with a place. All accesses are seq_cst, so there are no store buffers.
 *
 * Property. At rest, that is when nothing moves but jobs, which may run for ever: no worker sleeps beside a queued job.
 */
#include <stdio.h>
#include <string.h>

#include "tests/model/places.h"

static const struct places_config configs[] = {
        {"one job each", {1, 1}, 0, RIGHT, false},
        {"two jobs without a place", {0, 2}, 0, RIGHT, false},
        {"one job without a place, a kill", {0, 1}, 1, RIGHT, false},
        {"one job each, a kill", {1, 1}, 1, RIGHT, false},
        {"one job, and two without a place", {1, 2}, 0, RIGHT, false, true},
        {"a place changes hands and nobody is told", {0, 1}, 0, NOT_TOLD, true},
        {"told before the modes change", {0, 2}, 0, TOLD_FIRST, true},
        {"who gets no place is left alone", {0, 1}, 0, NOBODY_WOKEN, true},
        {"no baton for bells without a place", {0, 2}, 0, NO_BATON, true},
        {"a baton by an old list", {1, 1}, 0, OLD_LIST, true},
        {"the table, then the control word", {1, 2}, 0, TABLE_FIRST, true, true},
        {"bells without a place are not looked at", {1, 1}, 0, PLACED_ONLY, true},
        {"work bits stay as they are after a death", {0, 1}, 1, NO_DEATH_MARK, true},
};
const struct places_config *config;

#define LOST "a lost wake-up: somebody sleeps beside a queued job"

static const char *const texts[] = {
        [TOP] = "reads its control word",
        [READ] = "reads whether a bell has a place",
        [SCAN_BIT] = "reads a work bit",
        [SCAN_CLAIM] = "claims, if there is something",
        [SETTLE_BIT] = "settles: reads a work bit",
        [SETTLE_CLEAR] = "settles: clears it",
        [SETTLE_LOOK] = "settles: looks into the ring",
        [SETTLE_MARK] = "settles: sets it again",
        [LIE_SET] = "sets its sleeper bit",
        [LIE_READ] = "reads the sequence",
        [REASON_LYING] = "looks a last time",
        [WAIT] = "futex_waitv",
        [RISE] = "clears its sleeper bit",
        [BATON_SLEEPERS] = "baton: reads the sleepers",
        [BATON_LOOK] = "baton: looks into the ring",
        [BATON_WORK] = "baton: reads the work bit",
        [BATON_SEQ] = "baton: sequence + 1",
        [BATON_WAKE] = "baton: FUTEX_WAKE(1)",
        [OTHERS_SLEEPERS] = "baton for others: reads the sleepers of the first bell",
        [OTHERS_AWAKE] = "baton for others: reads the sleepers of a bell that it waits on",
        [OTHERS_NEXT] = "baton for others: the next",
        [OTHERS_LOOK] = "baton for others: looks into the ring",
        [OTHERS_WORK] = "baton for others: reads a work bit",
        [OTHERS_SEQ] = "baton for others: sequence + 1 of the first bell",
        [OTHERS_WAKE] = "baton for others: FUTEX_WAKE(1)",
        [RUN] = "its job ends",
        [PUSH] = "pushes a job",
        [RING_BIT] = "reads its work bit",
        [RING_SET] = "sets its work bit",
        [RING_MODE] = "reads the mode",
        [RING_BROKER] = "rings the doorbell",
        [RING_SLEEPERS] = "reads the sleepers",
        [RING_WAKE] = "sequence + 1, FUTEX_WAKE(1)",
        [HEAR] = "clears the doorbell",
        [PASS] = "passes on, if there is work and a sleeper",
        [LOOK] = "looks into the ring of the bell without a place",
        [MODE_OLD] = "the old holder: mode BROKER",
        [BIT_OLD] = "the old holder: placeless",
        [MODE_NEW] = "the new holder: mode FUTEX",
        [BIT_NEW] = "the new holder: has a place",
        [TELL] = "tells a worker: control + 1, FUTEX_WAKE",
        [ROUSE] = "makes a sleeper look: control + 1, FUTEX_WAKE",
        [DEATH_PUSH] = "death: gives the job back",
        [DEATH_FORGET] = "death: clears a sleeper bit",
        [DEATH_MARK] = "death: sets a work bit, if there is work",
        [DEATH_SEQ] = "death: sequence + 1",
        [DEATH_WAKE] = "death: FUTEX_WAKE(all)",
        [KILL] = "    SIGKILL",
};

/* ---- the model ---- */

static void check(struct explore *x, const struct state *s) {
        bool has_sleeper = false;
        if (s->broker_pc != IDLE || s->is_rung || s->dead)
                return;
        for (unsigned i = 0; i < CLIENTS; i++)
                if (s->client[i].pc != FINISHED)
                        return;
        for (unsigned i = 0; i < WORKERS; i++) {
                const struct worker *w = &s->worker[i];
                if (w->is_alive && w->pc != RUN && w->pc != ASLEEP)
                        return;
                has_sleeper |= w->is_asleep;
        }
        if (has_sleeper && (s->queued[ONE] || s->queued[TWO]))
                explore_fail(x, LOST, EXPLORE_NO_STEP);
}

static void places_init(void *state) {
        struct state *s = state;
        memset(s, 0, sizeof *s);
        for (unsigned i = 0; i < WORKERS; i++)
                s->worker[i] = (struct worker){.is_alive = 1, .waited = ONE};
        for (unsigned i = 0; i < CLIENTS; i++)
                s->client[i] = (struct client){
                        .pc = config->n_jobs[i] ? PUSH : FINISHED,
                        .left = (uint8_t)config->n_jobs[i],
                };
        s->placed = ONE;
        s->futex = 1u << OWN | 1u << ONE;
        s->placeless = 1u << TWO;
        s->broker_pc = IDLE;
        s->n_kills = (uint8_t)config->n_kills;
}

static void places_expand(struct explore *x, const void *state) {
        const struct state *s = state;
        for (unsigned i = 0; i < WORKERS; i++) {
                step_worker(x, s, i);
                kill_worker(x, s, i);
        }
        for (unsigned i = 0; i < CLIENTS; i++)
                step_client(x, s, i);
        step_broker(x, s);
        check(x, s);
}

/* The workers are alike, but while the broker goes through them. */
static void places_canonicalize(void *state) {
        struct state *s = state;
        struct worker *w = s->worker, one = w[0];
        if (s->dead || s->broker_pc == TELL || s->broker_pc == ROUSE || memcmp(&w[0], &w[1], sizeof one) <= 0)
                return;
        w[0] = w[1];
        w[1] = one;
        for (unsigned i = 0; i < BELLS; i++)
                s->sleepers[i] = (uint8_t)((s->sleepers[i] & 1u) << 1 | s->sleepers[i] >> 1);
}

static void places_print_step(unsigned label) {
        static const char *const names[] = {"worker 0", "worker 1", "client 1", "client 2", "broker"};
        if (label == EXPLORE_NO_STEP)
                printf("(nothing more happens)\n");
        else
                printf("%-9s %s\n", names[label >> 8], texts[label & 0xff]);
}

static void places_print_state(const void *state) {
        const struct state *s = state;
        printf("  then: queued %u %u, bell %u has the place\n", s->queued[ONE], s->queued[TWO], s->placed);
}

int main(int argc, char *argv[]) {
        const struct explore_model model = {
                .state_bytes = sizeof(struct state),
                .init = places_init,
                .expand = places_expand,
                .canonicalize = places_canonicalize,
                .print_step = places_print_step,
                .print_state = places_print_state,
        };
        unsigned n_wrong = 0;
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
                config = &configs[i];
                if (config->is_long && (argc < 2 || strcmp(argv[1], "long") != 0))
                        continue;
                n_wrong += !explore_case(&model, config->name, config->is_violated ? LOST : NULL, MAX_STATES, false);
        }
        printf("%u wrong\n", n_wrong);
        return n_wrong > 0;
}
