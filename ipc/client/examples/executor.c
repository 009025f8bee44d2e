/* The Executor of Python's concurrent.futures: submit, map, add_done_callback, as_completed and shutdown. Against any
 * pool that runs the plugin squares, by name, for instance one of each start method: what is printed is the same.
 *
 *     executor POOL */
#include <drover/drover.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 20 };

static drover *d;

/* What the examples do about an error: say it and end. */
static int check(const char *what, int r) {
        if (r < 0) {
                fprintf(stderr, "executor: %s: %s\n", what,
                        d && *drover_error_text(d) ? drover_error_text(d) : strerror(-r));
                exit(1);
        }
        return r;
}

static int64_t square_of(const drover_future *future) {
        int64_t square;
        check("a result", drover_future_get_i64(future, "square", &square));
        return square;
}

static int next_number(void *user, uint64_t index, drover_args *args) {
        if (index == N)
                return 0;
        int r = drover_args_i64(args, "x", (int64_t)index);
        return r < 0 ? r : 1;
}

static void print_map(drover_pool *pool) {
        drover_iterator *squares;
        drover_future *future;
        check("map", drover_map(pool, "square", next_number, NULL, NULL, &squares));
        printf("map:");
        while (check("next", drover_iterator_next(squares, &future, DROVER_FOREVER)) == 1) {
                printf(" %" PRId64, square_of(future));
                drover_future_unref(future);
        }
        putchar('\n');
        drover_iterator_free(squares);
}

/* A job that cannot do what it is told is no exception here either: its future says so. */
static void print_exception(drover_pool *pool) {
        drover_future *future;
        check("submit", drover_submitf(pool, &future, "square", "x:i64", INT64_MAX));
        check("wait", drover_future_wait(future, DROVER_FOREVER));
        const drover_error *e = drover_future_error(future);
        printf("exception: %s: %s\n", strerror(-e->code), e->message);
        drover_future_unref(future);
}

static void add(drover_future *future, void *user) { *(int64_t *)user += square_of(future); }

static void print_callbacks(drover_pool *pool, drover_future *futures[static N]) {
        int64_t sum = 0, all = 0;
        drover_iterator *completed;
        drover_future *future;
        for (int64_t x = 0; x < N; x++) {
                check("submit", drover_submitf(pool, &futures[x], "square", "x:i64", x));
                check("on_done", drover_future_on_done(futures[x], add, &sum));
        }
        check("as_completed", drover_as_completed(futures, N, &completed));
        while (check("next", drover_iterator_next(completed, &future, DROVER_FOREVER)) == 1) {
                all += square_of(future);
                drover_future_unref(future);
        }
        drover_iterator_free(completed);
        while (check("process", drover_process(d)) > 0)
                ;
        printf("callbacks: %" PRId64 ", completed: %" PRId64 "\n", sum, all);
}

/* Lets everything end that was submitted, and takes nothing more. */
static void print_shutdown(drover_pool *pool) {
        drover_future *last, *late;
        check("submit", drover_submitf(pool, &last, "sleep", "seconds:f64", 0.05));
        check("drain", drover_pool_drain(pool, DROVER_FOREVER));
        printf("shutdown: the last job is %s", drover_state_name(drover_future_state(last)));
        printf(", another one: %s\n", strerror(-drover_submitf(pool, &late, "getpid", NULL)));
        drover_future_unref(last);
}

int main(int argc, char *argv[]) {
        drover_pool *pool;
        drover_future *futures[N];
        check("no bus", drover_open(NULL, &d));
        check("no pool", drover_pool_open(d, argc > 1 ? argv[1] : "squares", &pool));
        print_map(pool);
        print_exception(pool);
        print_callbacks(pool, futures);
        print_shutdown(pool);
        for (int i = 0; i < N; i++)
                drover_future_unref(futures[i]);
        drover_pool_unref(pool);
        drover_close(d);
        return 0;
}
