/* What each row of the matrix does. A job's truth is to be had in any case: with what is missing, or, if a call says
 * that it is, without. Jobs of raw carry a number, by which the plugin says in the log that they ran; what was told of
 * each stands on stdout: `refused NUMBER`, or `done NUMBER ATTEMPTS`. */
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "tests/library/matrix.h"

drover_pool *p;
unsigned n_accepted;
bool is_killing;
struct live live;

/* ---- jobs ---- */

static int took(int r, drover_future **f) {
        n_accepted += r == 0;
        live.future = r == 0 ? *f : NULL;
        return r;
}

static void drop(drover_future *f) {
        live.future = NULL;
        drover_future_unref(f);
}

/* A worker has so many lines a second in the log: each job says there that it ran, and none of it is to be dropped. */
enum { JOBS_A_SECOND = 200 };

static void keep_pace(void) {
        static uint64_t next_ns;
        uint64_t now = now_ns();
        while (now < next_ns) {
                nanosleep(&(struct timespec){.tv_nsec = (long)(next_ns - now)}, NULL);
                now = now_ns();
        }
        next_ns = now + SECOND / JOBS_A_SECOND;
}

/* The payload of the next job. */
static const char *numbered(size_t bytes, unsigned *ret_number) {
        static unsigned n_jobs;
        static char text[9000];
        char number[16];
        keep_pace();
        *ret_number = ++n_jobs;
        memset(text, 'x', bytes);
        memcpy(text, number, (size_t)snprintf(number, sizeof number, "#%u ", n_jobs));
        text[bytes] = 0;
        return text;
}

static int submit_text(size_t bytes, const struct drover_options *o, drover_future **f) {
        unsigned number;
        const char *text = numbered(bytes, &number);
        int r = took(drover_submit_raw(p, "raw", text, bytes, o, f), f);
        if (r < 0 && r != -ETIMEDOUT) /* which leaves it open over the bus */
                printf("refused %u\n", number);
        return r;
}

static int settle(drover_future *f) {
        int r = drover_future_wait(f, drover_deadline_in(SECOND));
        if (r < 0) {
                calm();
                EXPECT(0, drover_future_wait(f, drover_deadline_in(30 * SECOND)));
        }
        return r;
}

/* With a droverd that was killed: the job, or what belongs to it or to its result. */
static int lost(drover_future *f) {
        const drover_error *e = is_killing ? drover_future_error(f) : NULL;
        return e && (e->code == -EPIPE || e->code == -ENODATA || e->code == -EBADF) ? e->code : 0;
}

/* Its verdict, its result as it was submitted, and its end. */
static int check_text(drover_future *f, size_t bytes) {
        struct drover_run run;
        const void *data;
        size_t n;
        int r = settle(f), gone = lost(f);
        if (gone == 0) {
                EXPECT(0, drover_future_result(f, &data, &n));
                EXPECT(bytes, n);
                const char *text = data;
                unsigned number = (unsigned)strtoul(text + 1, NULL, 10);
                for (n = strcspn(text, " ") + 1; n < bytes; n++)
                        EXPECT('x', text[n]);
                EXPECT(0, drover_future_get_run(f, &run, sizeof run));
                printf("done %u %u\n", number, run.attempt);
        }
        drop(f);
        return gone < 0 ? gone : r;
}

/* ---- the calls ---- */

static int run_open(void) {
        int r = drover_open(NULL, &live.drover);
        if (r == 0)
                live.drover = drover_close(live.drover);
        return r;
}

static int run_pool_open(void) {
        int r = drover_pool_open(d, "emits", &live.pool);
        if (r == 0)
                live.pool = drover_pool_unref(live.pool);
        return r;
}

static int run_arena_open(void) {
        int r = drover_arena_open(d, "matrix", 4096, &live.arena);
        if (r == 0)
                live.arena = drover_arena_free(live.arena);
        return r;
}

static int run_args(void) {
        static const char *const texts[] = {"a", "b"};
        static const uint64_t numbers[100];
        int r = drover_args_new(&live.args);
        if (r < 0)
                return r;
        drover_args_str_array(live.args, "texts", texts, 2);
        drover_args_u64_array(live.args, "numbers", numbers, 100);
        r = drover_args_fd(live.args, "fd", 0); /* the first error stays */
        live.args = drover_args_free(live.args);
        return r;
}

static int run_text(size_t bytes, const struct drover_options *o) {
        drover_future *f;
        int r = submit_text(bytes, o, &f);
        return r < 0 ? r : check_text(f, bytes);
}

static int run_submit_raw(void) { return run_text(16, NULL); }
static int run_submit_medium(void) { return run_text(1000, NULL); }
static int run_submit_large(void) { return run_text(8999, NULL); } /* more than a slot, and than a future holds */
static int run_submit_bus(void) { return run_text(16, DROVER_OPTIONS(.flags = DROVER_DETACHED)); }

static int run_after(void) {
        drover_future *first, *second;
        int r = submit_text(16, NULL, &first);
        if (r < 0)
                return r;
        const uint64_t ids[] = {drover_future_id(first)};
        r = submit_text(16, DROVER_OPTIONS(.after = ids, .n_after = 1), &second);
        int s = check_text(first, 16);
        if (r < 0)
                return r;
        r = settle(second);
        if (drover_future_state(second) == DROVER_CANCELLED && s == -EPIPE) { /* the first one was lost */
                drop(second);
                return s;
        }
        s = check_text(second, 16);
        return r < 0 ? r : s;
}

/* With a descriptor there, and two back. */
static int run_submitf_fds(void) {
        drover_future *f;
        char text[8] = "";
        int fd, r = took(drover_submitf(p, &f, "make", "in:fd,text:str", STDIN_FILENO, "made"), &f);
        if (r < 0)
                return r;
        r = settle(f);
        int gone = lost(f);
        if (gone == 0) {
                EXPECT(0, drover_future_get_fd(f, "pipe", &fd));
                EXPECT(1, poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10000));
                EXPECT(4, read(fd, text, sizeof text));
                EXPECT_TEXT("made", text);
        }
        drop(f);
        return gone < 0 ? gone : r;
}

static int run_failure(void) {
        drover_future *f;
        int r = took(drover_submitf(p, &f, "sum", "in:fd,from:u64,n:u64", STDIN_FILENO, UINT64_C(0), UINT64_C(100)),
                     &f);
        if (r < 0)
                return r;
        r = settle(f);
        int gone = lost(f);
        if (gone == 0) {
                EXPECT(DROVER_FAILED, drover_future_state(f));
                EXPECT_TRUE(drover_future_error(f)->state == DROVER_FAILED && *drover_future_error(f)->message);
        }
        drop(f);
        return gone < 0 ? gone : r;
}

static int run_getters(void) {
        drover_future *f;
        const uint64_t *numbers;
        size_t n;
        int r = took(drover_submitf(p, &f, "count", "n:u64", UINT64_C(50)), &f);
        if (r < 0)
                return r;
        int waited = settle(f), gone = lost(f);
        r = gone == 0 ? drover_future_get_u64_array(f, "numbers", &numbers, &n) : gone;
        if (r < 0 && gone == 0) {
                calm();
                EXPECT(0, drover_future_get_u64_array(f, "numbers", &numbers, &n));
        }
        EXPECT_TRUE(gone < 0 || (n == 50 && numbers[49] == 0));
        drop(f);
        return r < 0 ? r : waited;
}

static int run_wait(void) {
        drover_future *f[3];
        unsigned n = 0, n_ended = 0;
        int r = 0, gone = 0;
        while (n < 3 && (r = submit_text(16, NULL, &f[n])) == 0)
                n++;
        if (n > 0 && r == 0)
                r = drover_wait(f, n, DROVER_ALL_COMPLETED, drover_deadline_in(SECOND), NULL);
        int s = n > 0 ? drover_as_completed(f, n, &live.iterator) : -ENOMEM;
        if (s == 0) {
                drover_future *ended;
                while ((s = drover_iterator_next(live.iterator, &ended, drover_deadline_in(SECOND))) == 1) {
                        drover_future_unref(ended);
                        n_ended++;
                }
                EXPECT_TRUE(s < 0 || n_ended == n);
                live.iterator = drover_iterator_free(live.iterator);
        }
        for (unsigned i = 0; i < n; i++) {
                int t = check_text(f[i], 16);
                gone = is_killing && t < 0 ? t : gone;
        }
        return r < 0 ? r : s < 0 ? s : gone;
}

static int input(void *user, uint64_t i, drover_args *a) {
        unsigned number;
        int r = i < 10 ? drover_args_raw(a, numbered(16, &number), 16) : 0;
        return i == 10 ? 0 : r < 0 ? r : 1;
}

/* One that found no memory is a future all the same. */
static int map_take(drover_future *f) {
        if (drover_future_state(f) == DROVER_DONE || lost(f) < 0) {
                n_accepted++;
                return check_text(f, 16);
        }
        EXPECT(-ENOMEM, drover_future_result(f, NULL, NULL));
        drover_future_unref(f);
        return 0;
}

static int map(enum drover_order order) {
        drover_future *f;
        unsigned n = 0;
        int first = 0, r = drover_map(p, "raw", input, NULL, DROVER_MAP_OPTIONS(.order = order), &live.iterator);
        if (r < 0)
                return r;
        while (n < 10 && (r = drover_iterator_next(live.iterator, &f, drover_deadline_in(10 * SECOND))) != 0) {
                if (r < 0 && first < 0) /* the input function's own */
                        break;
                if (r < 0)
                        calm();
                else {
                        n++;
                        r = map_take(f);
                        r = is_killing && r < 0 ? r : 0;
                }
                first = first < 0 ? first : r;
        }
        live.iterator = drover_iterator_free(live.iterator);
        return first;
}

static int run_map(void) { return map(DROVER_ORDERED); }
static int run_map_unordered(void) { return map(DROVER_UNORDERED); }

static void count_call(drover_future *f, void *user) { ++*(unsigned *)user; }

static int run_callbacks(void) {
        drover_future *f;
        unsigned n = 0;
        uint64_t end_ns = now_ns() + 30 * SECOND;
        int first = 0, r = submit_text(16, NULL, &f);
        if (r < 0)
                return r;
        int asked = drover_future_on_done(f, count_call, &n);
        while (asked == 0 && n == 0 && now_ns() < end_ns) {
                while ((r = drover_process(d)) > 0)
                        ;
                if (r < 0)
                        first = r, calm();
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 20);
        }
        EXPECT_TRUE(asked < 0 || n == 1);
        r = check_text(f, 16);
        return asked < 0 ? asked : first < 0 ? first : r;
}

/* A job `count` of pool emits. */
static int submit_count(uint32_t flags, drover_future **f) {
        int r = drover_args_new(&live.args);
        if (r < 0)
                return r;
        drover_args_u64(live.args, "n", 5);
        drover_args_u64(live.args, "bytes", 0);
        drover_args_u64(live.args, "pause_ms", 0);
        r = drover_submit(live.pool, "count", live.args, DROVER_OPTIONS(.flags = flags), f);
        live.args = drover_args_free(live.args);
        live.future = r == 0 ? *f : NULL;
        return r;
}

static int read_items(drover_future *f) {
        struct drover_item item;
        unsigned n = 0;
        int r, first = 0;
        while ((r = drover_future_next_item(f, &item, sizeof item, drover_deadline_in(10 * SECOND))) != 0) {
                EXPECT_TRUE(r == 1 || first == 0 || is_killing);
                n += r == 1;
                if (r < 0 && first < 0) /* what cannot be had stays so */
                        break;
                if (r < 0)
                        first = r, calm();
        }
        int s = settle(f), gone = lost(f);
        EXPECT_TRUE(n == 5 || (is_killing && first < 0) || gone < 0);
        EXPECT_TRUE(drover_future_state(f) == DROVER_DONE || gone < 0);
        drop(f);
        return first < 0 ? first : gone < 0 ? gone : s;
}

static int run_items(void) {
        drover_future *f;
        int r = drover_pool_open(d, "emits", &live.pool);
        if (r < 0)
                return r;
        r = submit_count(DROVER_STREAMED, &f);
        if (r == 0)
                r = read_items(f);
        live.pool = drover_pool_unref(live.pool);
        return r;
}

static int run_drain(void) {
        drover_future *f;
        int r = drover_pool_open(d, "emits", &live.pool);
        if (r < 0)
                return r;
        int s = submit_count(0, &f);
        r = drover_pool_drain(live.pool, drover_deadline_in(SECOND));
        if (r < 0) {
                calm();
                EXPECT(0, drover_pool_cancel(live.pool, drover_deadline_in(30 * SECOND)));
        }
        if (s == 0) {
                EXPECT_TRUE(drover_future_state(f) >= DROVER_DONE);
                calm();
                EXPECT(-ESHUTDOWN, drover_submitf(live.pool, NULL, "slowly", "n:u64", UINT64_C(1)));
                s = lost(f);
                drop(f);
        }
        live.pool = drover_pool_unref(live.pool);
        return s < 0 ? s : r;
}

static int submit_late(drover_future **f) {
        const struct drover_options *o = DROVER_OPTIONS(.not_before_ns = drover_deadline_in(60 * SECOND));
        return took(drover_submit(p, "raw", NULL, o, f), f);
}

static int run_cancel(void) {
        drover_future *f;
        int r = submit_late(&f);
        if (r < 0)
                return r;
        r = drover_future_cancel(f, DROVER_CANCEL_QUEUED);
        if (r < 0) {
                calm();
                EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        }
        int s = settle(f);
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        drop(f);
        return r < 0 ? r : s;
}

static int run_progress(void) {
        drover_future *f;
        struct drover_progress progress;
        int r = submit_late(&f);
        if (r < 0)
                return r;
        r = drover_future_get_progress(f, &progress, sizeof progress);
        calm();
        EXPECT(DROVER_CANCEL_DONE, drover_future_cancel(f, DROVER_CANCEL_QUEUED));
        settle(f);
        drop(f);
        return r;
}

const struct matrix_row matrix_rows[] = {
        {"drover_open, _close", run_open, .is_local = true},
        {"drover_pool_open, _unref", run_pool_open},
        {"drover_arena_open", run_arena_open},
        {"drover_args_*", run_args, .is_local = true},
        {"drover_submit_raw", run_submit_raw},
        {"drover_submit_raw (1 KB)", run_submit_medium},
        {"drover_submit_raw (9 KB)", run_submit_large},
        {"drover_submit_raw (bus)", run_submit_bus},
        {"drover_submit_raw (after)", run_after},
        {"drover_submitf (fds)", run_submitf_fds},
        {"drover_future_error", run_failure},
        {"drover_future_get_*_array", run_getters},
        {"drover_wait, _as_completed", run_wait},
        {"drover_map", run_map},
        {"drover_map (unordered)", run_map_unordered},
        {"drover_process, _on_done", run_callbacks},
        {"drover_future_next_item", run_items},
        {"drover_pool_drain, _cancel", run_drain},
        {"drover_future_cancel", run_cancel},
        {"drover_future_get_progress", run_progress},
        {0},
};
