/* map over N inputs (a million, unless the command line says otherwise) in constant memory: the inputs are made when
 * they are wanted, the results come in order, and nothing of either is kept. Against a pool `squares`.
 *
 * Prints the sum of the squares and the most memory that this process ever used. */
#include <drover/drover.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int next_number(void *user, uint64_t index, drover_args *args) {
        if (index == *(const uint64_t *)user)
                return 0;
        int r = drover_args_i64(args, "x", (int64_t)index);
        return r < 0 ? r : 1;
}

/* Adds up what comes; each must be the square of its place. */
static int add_up(drover_iterator *squares, uint64_t *ret_n, uint64_t *ret_sum) {
        drover_future *future;
        int r;
        *ret_n = *ret_sum = 0;
        while ((r = drover_iterator_next(squares, &future, DROVER_FOREVER)) == 1) {
                int64_t square;
                r = drover_future_get_i64(future, "square", &square);
                drover_future_unref(future);
                if (r < 0 || (uint64_t)square != *ret_n * *ret_n)
                        return r < 0 ? r : -1;
                *ret_sum += (uint64_t)square;
                ++*ret_n;
        }
        return r;
}

int main(int argc, char *argv[]) {
        uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000, n_done, sum;
        drover *d = NULL;
        drover_pool *pool = NULL;
        drover_iterator *squares = NULL;
        struct rusage usage;
        int r = drover_open(NULL, &d);
        if (r >= 0)
                r = drover_pool_open(d, "squares", &pool);
        if (r >= 0)
                r = drover_map(pool, "square", next_number, &n, NULL, &squares);
        if (r >= 0)
                r = add_up(squares, &n_done, &sum);
        if (r < 0)
                fprintf(stderr, "map: %s\n", d && *drover_error_text(d) ? drover_error_text(d) : strerror(-r));
        else {
                getrusage(RUSAGE_SELF, &usage);
                printf("%" PRIu64 " squares, sum %" PRIu64 ", %ld KiB\n", n_done, sum, usage.ru_maxrss);
        }
        drover_iterator_free(squares);
        drover_pool_unref(pool);
        drover_close(d);
        return r < 0;
}
