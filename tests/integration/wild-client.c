/* wild-client POOL OTHER SECONDS: has workers of POOL (plugin wild) write over each word that they share, one after the
 * other, and die; then anything anywhere, for so many seconds. Each time jobs run and wait in POOL, in this client's
 * channel and over the bus, and in pool OTHER. All of them must have a verdict, those of OTHER must be done, and then
 * new ones of each kind must be. Says what went wrong, and "TIMES n LATE m": how often, and when that took more than a
 * second. */
#include <drover/drover.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/channel/channel.h"
#include "ipc/layout.h"

#define SECOND UINT64_C(1000000000)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

enum { PATIENCE_S = 20, SLOTS = 16, MANY_WRONG = 5 };

static drover *d;
static drover_pool *pool, *other;
static const char *pool_name;
static char what[200];
static unsigned n_times, n_late, n_wrong, n_missed;
static uint64_t seed;

static uint64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t chance(void) { /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static void wrong(const char *why) {
        printf("WRONG %s: %s\n", what, why);
        fflush(stdout);
        if (++n_wrong == MANY_WRONG)
                exit(1);
}

static void check(const char *step, int r) {
        if (r >= 0)
                return;
        printf("FAILED %s: %s: %s\n", what, step, drover_error_text(d));
        exit(1);
}

static drover_args *args_of(const char *where, const char *const *names, const uint64_t *values) {
        drover_args *args;
        check("args", drover_args_new(&args));
        if (where)
                check("where", drover_args_str(args, "where", where));
        for (unsigned i = 0; names[i]; i++)
                check(names[i], drover_args_u64(args, names[i], values[i]));
        return args;
}

static void reopen(void) {
        drover_pool_unref(pool);
        check("the pool", drover_pool_open(d, pool_name, &pool));
}

/* A session whose channel was written over is over, and the pool is opened anew. What else is refused for what stands
 * in shared memory is taken a moment later. */
static drover_future *submit(drover_pool *p, const char *job, drover_args *args, const struct drover_options *options) {
        drover_future *f = NULL;
        bool is_other = p == other;
        uint64_t until_ns = now_ns() + PATIENCE_S * SECOND;
        int r;
        while ((r = drover_submit(is_other ? other : pool, job, args, options, &f)) < 0 && !is_other &&
               now_ns() < until_ns) {
                if (r == -EPIPE)
                        reopen();
                else if (r != -ESHUTDOWN && r != -EAGAIN && r != -EPROTO)
                        break;
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        drover_args_free(args);
        check(job, r);
        return f;
}

static drover_future *work(drover_pool *p, uint64_t ms, uint64_t ahead_ms, bool by_bus) {
        return submit(p, "work", args_of(NULL, (const char *const[]){"ms", NULL}, &ms),
                      DROVER_OPTIONS(.flags = by_bus ? DROVER_DETACHED : 0,
                                     .not_before_ns = ahead_ms ? now_ns() + ahead_ms * 1000000 : 0));
}

static int state_of(drover_future *f) {
        int r = drover_future_wait(f, now_ns() + PATIENCE_S * SECOND);
        if (r == -ETIMEDOUT)
                wrong("a job has no verdict");
        int state = (int)drover_future_state(f);
        drover_future_unref(f);
        return state;
}

/* New jobs are done. The first one of the client may meet the end of its session, or a deadline that stands there. */
static void expect_service(void) {
        uint64_t until_ns = now_ns() + PATIENCE_S * SECOND;
        bool is_done = false;
        if (state_of(work(pool, 0, 0, true)) != DROVER_DONE)
                wrong("a new job over the bus is not done");
        while (!is_done && now_ns() < until_ns)
                is_done = state_of(work(pool, 0, 0, false)) == DROVER_DONE;
        if (!is_done)
                wrong("no new job of the client is done");
}

static void attack(const char *job, drover_args *args) {
        drover_future *f = submit(pool, job, args, DROVER_OPTIONS(.flags = DROVER_DETACHED, .max_attempts = 1));
        if (state_of(f) == DROVER_FAILED)
                n_missed++; /* it has no such memory: our channel is another one by now */
}

static void beside(const char *job, drover_args *args) {
        drover_future *futures[] = {work(pool, 3, 0, false), work(pool, 0, 0, false), work(pool, 0, 0, true),
                                    work(pool, 0, 10, true), work(pool, 0, 10, false)};
        uint64_t began_ns = now_ns();
        drover_future *elsewhere = work(other, 0, 0, n_times % 2);
        attack(job, args);
        if (state_of(elsewhere) != DROVER_DONE)
                wrong("a job of another pool is not done");
        for (unsigned i = 0; i < COUNT(futures); i++)
                state_of(futures[i]);
        expect_service();
        n_late += now_ns() - began_ns > SECOND;
        n_times++;
}

/* ---- word by word ---- */

struct word {
        const char *where, *name;
        size_t offset, bytes, n;
};

#define SIZE_OF(type, field) sizeof(((struct type *)0)->field)
#define WORD(where, type, field)                                                                                       \
        { where, #field, offsetof(struct type, field), SIZE_OF(type, field), 1 }
#define WORDS(where, type, field)                                                                                      \
        {                                                                                                              \
                where, #field, offsetof(struct type, field), SIZE_OF(type, field[0]),                                  \
                        SIZE_OF(type, field) / SIZE_OF(type, field[0])                                                 \
        }

static const struct word words[] = {
        WORD("pool", layout_pool, header.magic),
        WORD("pool", layout_pool, rate_ns),
        WORD("pool", layout_pool, rate_next_ns),
        WORD("pool", layout_pool, placeless[0]),
        WORD("pool", layout_pool, armed),
        WORD("pool", layout_pool, has_timer),
        WORD("pool", layout_pool, muted[0]),
        WORD("line", layout_worker, control),
        WORD("line", layout_worker, command),
        WORD("line", layout_worker, soft_hit),
        WORD("line", layout_worker, max_claims),
        WORD("line", layout_worker, record),
        WORD("line", layout_worker, claims),
        WORD("bell", layout_bell, header.magic),
        WORDS("bell", layout_bell, seq),
        WORD("bell", layout_bell, mode),
        WORD("bell", layout_bell, rises),
        WORD("bell", layout_bell, woken),
        WORD("bell", layout_bell, front),
        WORD("bell", layout_bell, sleepers[0]),
        WORD("bell", layout_bell, spinners[0]),
        WORD("bell", layout_bell, work[0]),
        WORD("channel", layout_channel, header.magic),
        WORD("channel", layout_channel, done_seq),
        WORD("channel", layout_channel, done_wait),
        WORD("channel", layout_channel, closed),
        WORD("channel", layout_channel, delayed),
        WORD("channel", layout_channel, queue_timeout_ns),
        WORD("channel", layout_channel, ring[1].head),
        WORD("channel", layout_channel, ring[1].tail),
};

static void write_word(const struct word *w, size_t i, uint64_t index, uint64_t value) {
        static const char *const names[] = {"index", "offset", "bytes", "value", "lives", NULL};
        const uint64_t values[] = {index, w->offset + i * w->bytes, w->bytes, value, 0};
        snprintf(what, sizeof what, "%s %" PRIu64 ", %s[%zu] = %" PRIx64, w->where, index, w->name, i, value);
        beside("write", args_of(w->where, names, values));
}

static void write_words(void) {
        for (unsigned k = 0; k < COUNT(words); k++)
                for (size_t i = 0; i < words[k].n; i++) {
                        uint64_t top = UINT64_C(1) << (8 * words[k].bytes - 1);
                        bool is_channel = strcmp(words[k].where, "channel") == 0;
                        for (uint64_t index = 0; index <= is_channel; index++) { /* the broker's, and ours */
                                write_word(&words[k], i, index, 0);
                                write_word(&words[k], i, index, 1);
                                write_word(&words[k], i, index, UINT64_MAX);
                                write_word(&words[k], i, index, top);
                                write_word(&words[k], i, index, chance());
                        }
                }
}

static void fill(const char *where, uint64_t index, uint64_t offset, uint64_t n, uint64_t by) {
        static const char *const names[] = {"index", "offset", "words", "seed", NULL};
        const uint64_t values[] = {index, offset, n, by};
        snprintf(what, sizeof what, "%s %" PRIu64 ", %" PRIu64 " words from %" PRIu64 " by %" PRIx64, where, index, n,
                 offset, by);
        beside("fill", args_of(where, names, values));
}

static void fill_areas(void) {
        struct channel_geometry g;
        if (channel_geometry_init(&g, SLOTS, LAYOUT_PAGE) < 0)
                exit(1);
        for (uint64_t by = 0; by < 3; by++)
                for (uint64_t index = 0; index < 2; index++) {
                        fill("channel", index, 0, g.bytes[CHANNEL_COMMON] / 8, by);
                        fill("channel", index, offsetof(struct layout_channel, ring), sizeof(struct layout_ring) / 2,
                             by);
                        fill("channel", index, g.cells, (g.slots - g.cells) / 8, by);
                        fill("channel", index, g.slots, SLOTS * sizeof(struct layout_slot) / 8, by);
                        fill("channel", index, g.done, 8, by);
                        fill("pool", 0, 0, sizeof(struct layout_pool) / 8, by);
                        fill("line", index, 0, sizeof(struct layout_worker) / 8, by);
                        fill("bell", 0, 0, LAYOUT_PAGE / 8, by);
                }
}

static void fill_anything(uint64_t until_ns) {
        static const char *const wheres[] = {"pool", "line", "bell", "channel", "channel"};
        while (now_ns() < until_ns) {
                const char *where = wheres[chance() % COUNT(wheres)];
                fill(where, chance() % 2, chance() % LAYOUT_PAGE / 8 * 8, 1 + chance() % 64,
                     chance() % 4 ? chance() : 0);
        }
}

int main(int argc, char **argv) {
        const char *given = getenv("DROVER_TEST_SEED");
        if (argc != 4)
                return 2;
        seed = given ? strtoull(given, NULL, 0) : now_ns();
        printf("DROVER_TEST_SEED=%" PRIu64 "\n", seed);
        pool_name = argv[1];
        if (drover_open(NULL, &d) < 0)
                return 1;
        check("the pool", drover_pool_open(d, pool_name, &pool));
        check("the other pool", drover_pool_open(d, argv[2], &other));
        write_words();
        fill_areas();
        fill_anything(now_ns() + strtoull(argv[3], NULL, 10) * SECOND);
        printf("TIMES %u LATE %u\n", n_times - n_missed, n_late);
        drover_pool_unref(pool);
        drover_pool_unref(other);
        drover_close(d);
        return n_wrong > 0;
}
