/* as_completed of concurrent.futures: three jobs that sleep 3, 1 and 2 seconds come back as 1, 2, 3. Against a pool
 * `squares` of at least three workers. */
#include <drover/drover.h>
#include <stdio.h>
#include <string.h>

enum { N = 3 };

int main(void) {
        static const double seconds[N] = {3, 1, 2};
        drover *d = NULL;
        drover_pool *pool = NULL;
        drover_future *futures[N] = {0}, *future;
        drover_iterator *completed = NULL;
        int r = drover_open(NULL, &d);
        if (r >= 0)
                r = drover_pool_open(d, "squares", &pool);
        for (int i = 0; i < N && r >= 0; i++)
                r = drover_submitf(pool, &futures[i], "sleep", "seconds:f64", seconds[i]);
        if (r >= 0)
                r = drover_as_completed(futures, N, &completed);
        while (r >= 0 && (r = drover_iterator_next(completed, &future, drover_deadline_in(10000000000))) == 1) {
                double slept;
                r = drover_future_get_f64(future, "seconds", &slept);
                if (r >= 0)
                        printf("slept %g s\n", slept);
                drover_future_unref(future);
        }
        if (r < 0)
                fprintf(stderr, "as-completed: %s\n", d && *drover_error_text(d) ? drover_error_text(d) : strerror(-r));
        drover_iterator_free(completed);
        for (int i = 0; i < N; i++)
                drover_future_unref(futures[i]);
        drover_pool_unref(pool);
        drover_close(d);
        return r < 0;
}
