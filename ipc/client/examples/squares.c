/* The Pool example of Python's multiprocessing documentation, against a pool `squares` of four workers:
 *
 *     print(pool.map(f, range(10)))
 *     for i in pool.imap_unordered(f, range(10)): print(i)
 *     res = pool.apply_async(f, (20,)); print(res.get(timeout=1))
 *     multiple_results = [pool.apply_async(os.getpid, ()) for i in range(4)]
 *     res = pool.apply_async(time.sleep, (10,)); res.get(timeout=1) */
#include <drover/drover.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 10, N_PIDS = 4 };

#define SECOND UINT64_C(1000000000)

/* What the examples do about an error: say it and end. */
static int check(drover *d, const char *what, int r) {
        if (r < 0) {
                fprintf(stderr, "%s: %s\n", what, d && *drover_error_text(d) ? drover_error_text(d) : strerror(-r));
                exit(1);
        }
        return r;
}

static int next_number(void *user, uint64_t index, drover_args *args) {
        if (index == N)
                return 0;
        int r = drover_args_i64(args, "x", (int64_t)index);
        return r < 0 ? r : 1;
}

static void print_squares(drover *d, drover_pool *pool, enum drover_order order) {
        drover_iterator *squares;
        drover_future *future;
        check(d, "map", drover_map(pool, "square", next_number, NULL, DROVER_MAP_OPTIONS(.order = order), &squares));
        while (check(d, "next", drover_iterator_next(squares, &future, DROVER_FOREVER)) == 1) {
                int64_t square;
                check(NULL, "square", drover_future_get_i64(future, "square", &square));
                printf(" %" PRId64, square);
                drover_future_unref(future);
        }
        putchar('\n');
        drover_iterator_free(squares);
}

static void print_square_of_twenty(drover *d, drover_pool *pool) {
        drover_future *future;
        int64_t square;
        check(d, "submit", drover_submitf(pool, &future, "square", "x:i64", INT64_C(20)));
        check(d, "wait", drover_future_wait(future, drover_deadline_in(SECOND)));
        check(NULL, "square", drover_future_get_i64(future, "square", &square));
        printf("async: %" PRId64 "\n", square);
        drover_future_unref(future);
}

static void print_pids(drover *d, drover_pool *pool) {
        drover_future *futures[N_PIDS];
        for (int i = 0; i < N_PIDS; i++)
                check(d, "submit", drover_submitf(pool, &futures[i], "getpid", NULL));
        check(d, "wait", drover_wait(futures, N_PIDS, DROVER_ALL_COMPLETED, drover_deadline_in(SECOND), NULL));
        printf("pids:");
        for (int i = 0; i < N_PIDS; i++) {
                uint64_t pid;
                check(NULL, "pid", drover_future_get_u64(futures[i], "pid", &pid));
                printf(" %" PRIu64, pid);
                drover_future_unref(futures[i]);
        }
        putchar('\n');
}

static void sleep_too_long(drover *d, drover_pool *pool) {
        drover_future *future;
        check(d, "submit", drover_submitf(pool, &future, "sleep", "seconds:f64", 10.0));
        int r = drover_future_wait(future, drover_deadline_in(SECOND));
        printf("10 s in 1 s: %s, the job is %s\n", strerror(-r), drover_state_name(drover_future_state(future)));
        drover_future_unref(future); /* it goes on */
}

int main(void) {
        drover *d;
        drover_pool *pool;
        check(NULL, "no bus", drover_open(NULL, &d));
        check(d, "no pool", drover_pool_open(d, "squares", &pool));
        printf("map:");
        print_squares(d, pool, DROVER_ORDERED);
        printf("unordered:");
        print_squares(d, pool, DROVER_UNORDERED);
        print_square_of_twenty(d, pool);
        print_pids(d, pool);
        sleep_too_long(d, pool);
        drover_pool_unref(pool);
        drover_close(d);
        return 0;
}
