/* joblib's shared input: an array that stands in memory once, and jobs that each add up a part of it. Each job gets the
 * descriptor of the same memory file and maps its part, so nothing is copied, however many workers there are. Against a
 * pool `squares`; the argument is the array's size in MiB, 16 unless given.
 *
 * Prints the sum, and what it must be. */
#include <drover/drover.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PARTS = 64 };

struct parts {
        int fd;
        uint64_t n_elements;
};

/* Part `index` of PARTS. */
static int next_part(void *user, uint64_t index, drover_args *args) {
        const struct parts *p = user;
        if (index == PARTS)
                return 0;
        uint64_t first = p->n_elements * index / PARTS, last = p->n_elements * (index + 1) / PARTS;
        drover_args_fd(args, "in", p->fd);
        drover_args_u64(args, "first", first);
        int r = drover_args_u64(args, "n", last - first);
        return r < 0 ? r : 1;
}

static int add_up(drover_pool *pool, struct parts *parts, uint64_t *ret_sum) {
        drover_iterator *sums;
        drover_future *future;
        int r = drover_map(pool, "sum", next_part, parts, DROVER_MAP_OPTIONS(.order = DROVER_UNORDERED), &sums);
        if (r < 0)
                return r;
        *ret_sum = 0;
        while (r >= 0 && (r = drover_iterator_next(sums, &future, DROVER_FOREVER)) == 1) {
                uint64_t sum;
                r = drover_future_get_u64(future, "sum", &sum);
                if (r >= 0)
                        *ret_sum += sum;
                else
                        fprintf(stderr, "array-sum: %s\n", drover_future_error(future)->message);
                drover_future_unref(future);
        }
        drover_iterator_free(sums);
        return r;
}

/* 0, 1, 2, … in a memory file. */
static int make_array(uint64_t n, int *ret_fd) {
        int fd = memfd_create("array-sum", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, (off_t)(n * sizeof n)) < 0)
                return -errno;
        uint64_t *data = mmap(NULL, n * sizeof n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
                return -errno;
        for (uint64_t i = 0; i < n; i++)
                data[i] = i;
        munmap(data, n * sizeof n);
        *ret_fd = fd;
        return 0;
}

int main(int argc, char *argv[]) {
        uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 16, n = mib * (1 << 20) / sizeof(uint64_t), sum = 0;
        struct parts parts = {.n_elements = n};
        drover *d = NULL;
        drover_pool *pool = NULL;
        int r = drover_open(NULL, &d);
        if (r >= 0)
                r = drover_pool_open(d, "squares", &pool);
        if (r >= 0)
                r = make_array(n, &parts.fd);
        if (r >= 0)
                r = add_up(pool, &parts, &sum);
        if (r < 0)
                fprintf(stderr, "array-sum: %s\n", d && *drover_error_text(d) ? drover_error_text(d) : strerror(-r));
        else
                printf("sum %" PRIu64 ", expected %" PRIu64 "\n", sum, n * (n - 1) / 2);
        drover_pool_unref(pool);
        drover_close(d);
        return r < 0;
}
