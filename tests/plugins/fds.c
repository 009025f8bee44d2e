/* Descriptors in and out, and arguments and results larger than a slot. */
#include <drover/plugin.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The sum of n u64 from number `from` on, of a memory file that is mapped. */
static int sum(drover_job *job) {
        int fd;
        uint64_t from, n, total = 0;
        int r = drover_arg_fd(job, "in", &fd);
        if (r < 0 || (r = drover_arg_u64(job, "from", &from)) < 0 || (r = drover_arg_u64(job, "n", &n)) < 0)
                return r;
        struct stat st;
        if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < (from + n) * sizeof total)
                return drover_fail(job, EINVAL, "the file is shorter than that");
        const uint64_t *array = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (array == MAP_FAILED)
                return drover_fail(job, errno, "mmap");
        for (uint64_t i = from; i < from + n; i++)
                total += array[i];
        munmap((void *)array, (size_t)st.st_size);
        return drover_ret_u64(job, "sum", total);
}

/* Maps and adds up all of `in`, says so by a byte to `ready`, and keeps it mapped until `go` is at its end. */
static int share(drover_job *job) {
        int in, ready, go, r = drover_arg_fd(job, "in", &in);
        uint64_t total = 0;
        struct stat st;
        char byte = 'x';
        if (r < 0 || (r = drover_arg_fd(job, "ready", &ready)) < 0 || (r = drover_arg_fd(job, "go", &go)) < 0)
                return r;
        if (fstat(in, &st) < 0)
                return drover_fail(job, errno, "fstat");
        const uint64_t *array = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, in, 0);
        if (array == MAP_FAILED)
                return drover_fail(job, errno, "mmap");
        for (size_t i = 0; i < (size_t)st.st_size / sizeof total; i++)
                total += array[i];
        if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0)
                return drover_fail(job, EIO, "the pipes are not what they should be");
        munmap((void *)array, (size_t)st.st_size);
        return drover_ret_u64(job, "sum", total);
}

/* What `in` holds; dies first if it is an attempt before `attempt`. */
static int cat(drover_job *job) {
        char text[256];
        uint64_t attempt;
        int fd, r = drover_arg_fd(job, "in", &fd);
        if (r < 0 || (r = drover_arg_u64(job, "attempt", &attempt)) < 0)
                return r;
        ssize_t n = pread(fd, text, sizeof text, 0);
        if (n < 0)
                return drover_fail(job, errno, "pread");
        if (drover_job_attempt(job) < attempt)
                __builtin_trap();
        return drover_ret_str_sized(job, "text", text, (size_t)n);
}

/* Writes `text` to `out`, then waits for an early end if `waits`. */
static int print(drover_job *job) {
        const char *text;
        size_t size;
        bool waits;
        int fd, r = drover_arg_fd(job, "out", &fd);
        if (r < 0 || (r = drover_arg_str(job, "text", &text, &size)) < 0 ||
            (r = drover_arg_bool(job, "waits", &waits)) < 0)
                return r;
        if (write(fd, text, size) != (ssize_t)size)
                return drover_fail(job, errno, "write");
        while (waits && (r = drover_checkpoint(job)) == 0)
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        return r;
}

/* A pipe that says `text`, and the descriptor that came. */
static int make(drover_job *job) {
        const char *text;
        size_t size;
        int fd, pair[2], r = drover_arg_fd(job, "in", &fd);
        if (r < 0 || (r = drover_arg_str(job, "text", &text, &size)) < 0)
                return r;
        if (pipe(pair) < 0 || write(pair[1], text, size) != (ssize_t)size)
                return drover_fail(job, errno, "pipe");
        drover_ret_fd(job, "pipe", pair[0]);
        r = drover_ret_fd(job, "back", fd);
        close(pair[0]);
        close(pair[1]);
        return r;
}

/* `n` bytes i * 7, twice: as one of the fields and with the rest of them. */
static int large(drover_job *job) {
        uint64_t n;
        int r = drover_arg_u64(job, "n", &n);
        if (r < 0)
                return r;
        uint8_t *data = mmap(NULL, n + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED)
                return drover_fail(job, errno, "mmap");
        for (uint64_t i = 0; i < n; i++)
                data[i] = (uint8_t)(i * 7);
        drover_ret_u64(job, "n", n);
        drover_ret_bytes(job, "data", data, n);
        r = drover_ret_str(job, "end", "end");
        munmap(data, n + 1);
        return r;
}

/* So many numbers of one byte each, which are eight in a message on the bus. */
static int count(drover_job *job) {
        uint64_t n;
        int r = drover_arg_u64(job, "n", &n);
        if (r < 0)
                return r;
        uint64_t *numbers =
                mmap(NULL, n * sizeof *numbers + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (numbers == MAP_FAILED)
                return drover_fail(job, errno, "mmap");
        r = drover_ret_u64_array(job, "numbers", numbers, n);
        munmap(numbers, n * sizeof *numbers + 1);
        return r;
}

static int echo(drover_job *job) {
        const void *data;
        size_t size, n;
        const uint64_t *numbers;
        int r = drover_arg_bytes(job, "data", &data, &size);
        if (r < 0 || (r = drover_arg_u64_array(job, "numbers", &numbers, &n)) < 0)
                return r;
        drover_ret_u64_array(job, "numbers", numbers, n);
        return drover_ret_bytes(job, "data", data, size);
}

/* What came. If it begins with # and a number, it is said that this one ran. */
static int raw(drover_job *job) {
        size_t size;
        const char *payload = drover_payload(job, &size);
        if (size > 0 && *payload == '#') {
                printf("ran %.*s\n", (int)strcspn(payload, " "), payload);
                fflush(stdout);
        }
        return drover_reply(job, payload, size);
}

/* Reversed, in room that is reserved; replied from there once more, without its first byte. */
static int reserve(drover_job *job) {
        size_t size;
        const char *payload = drover_payload(job, &size);
        char *room = drover_reserve(job, size);
        if (!room)
                return drover_fail(job, ENOMEM, "no room");
        for (size_t i = 0; i < size; i++)
                room[i] = payload[size - 1 - i];
        return drover_reply(job, room + 1, size - 1);
}

/* The memory file that came is the result. */
static int pass(drover_job *job) {
        int fd, r = drover_arg_fd(job, "in", &fd);
        if (r >= 0)
                r = drover_reply_fd(job, fd);
        return r < 0 ? drover_fail(job, -r, "drover_reply_fd") : 0;
}

/* Dies if the last byte is an x. */
static int die(drover_job *job) {
        size_t size;
        const char *payload = drover_payload(job, &size);
        if (size > 0 && payload[size - 1] == 'x')
                __builtin_trap();
        return 0;
}

/* Wrong on purpose: a number that is no descriptor. */
static int bad(drover_job *job) {
        int r = drover_ret_fd(job, "pipe", 9999);
        if (r != -EBADF)
                return drover_fail(job, EPROTO, "drover_ret_fd took 9999");
        return drover_fail(job, EBADF, "as it should");
}

static const struct drover_job_type jobs[] = {
        {.name = "sum", .args = "in:fd,from:u64,n:u64", .result = "sum:u64", .handle = sum},
        {.name = "share", .args = "in:fd,ready:fd,go:fd", .result = "sum:u64", .handle = share},
        {.name = "cat", .args = "in:fd,attempt:u64", .result = "text:str", .handle = cat},
        {.name = "print", .args = "text:str,out:fd,waits:bool", .handle = print},
        {.name = "make", .args = "in:fd,text:str", .result = "pipe:fd,back:fd", .handle = make},
        {.name = "large", .args = "n:u64", .result = "n:u64,data:bytes,end:str", .handle = large},
        {.name = "count", .args = "n:u64", .result = "numbers:u64[]", .handle = count},
        {.name = "echo", .args = "data:bytes,numbers:u64[]", .result = "data:bytes,numbers:u64[]", .handle = echo},
        {.name = "raw", .args = "raw", .result = "raw", .handle = raw},
        {.name = "reserve", .args = "raw", .result = "raw", .handle = reserve},
        {.name = "pass", .args = "in:fd", .result = "raw", .handle = pass},
        {.name = "die", .args = "raw", .handle = die},
        {.name = "bad", .result = "pipe:fd", .handle = bad},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "fds", "1.0")
