/* Uses pipes of <drover/sync.h> in a worker: an end that came with the job, and a pair of its own.
 *
 *   echo   sends each message of `end` back, until the other end is closed, and counts them.
 *   plain  reads one message of `end` with read().
 *   pair   makes a pair, sends `text` by one end and gives the other back.
 *   pass   says what comes of sending a descriptor by `end`, of receiving one, and of a message that is too long. */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 64 };

/* The descriptor of the argument is the host's: a pipe of its own duplicate. */
static int take_end(drover_job *job, drover_pipe **ret) {
        int fd, r = drover_arg_fd(job, "end", &fd);
        if (r < 0)
                return r;
        fd = dup(fd);
        r = fd < 0 ? -errno : drover_pipe_new_from_fd(fd, ret);
        return r < 0 ? drover_fail(job, -r, "drover_pipe_new_from_fd") : 0;
}

static int echo(drover_job *job) {
        drover_pipe *pipe;
        char text[ROOM];
        size_t bytes;
        uint64_t n = 0;
        int r = take_end(job, &pipe);
        while (r == 0 && (r = drover_pipe_receive(pipe, text, sizeof text, &bytes, NULL, NULL, DROVER_FOREVER)) == 0) {
                r = drover_pipe_send(pipe, text, bytes, NULL, 0, DROVER_FOREVER);
                n++;
        }
        if (r != -EPIPE)
                return drover_fail(job, -r, "echo: %s", strerrordesc_np(-r));
        drover_pipe_free(pipe);
        return drover_ret_u64(job, "n", n);
}

static int plain(drover_job *job) {
        char text[ROOM];
        int fd, r = drover_arg_fd(job, "end", &fd);
        if (r < 0)
                return r;
        ssize_t n = read(fd, text, sizeof text - 1);
        if (n < 0)
                return drover_fail(job, errno, "read");
        text[n] = 0;
        return drover_ret_str(job, "text", text);
}

static int pair(drover_job *job) {
        drover_pipe *a, *b;
        const char *text;
        size_t bytes;
        int r = drover_arg_str(job, "text", &text, &bytes);
        if (r < 0)
                return r;
        r = drover_pipe_new(&a, &b);
        if (r < 0)
                return drover_fail(job, -r, "drover_pipe_new");
        r = drover_pipe_send(a, text, bytes, NULL, 0, 0);
        if (r == 0)
                r = drover_ret_fd(job, "end", drover_pipe_fd(b));
        drover_pipe_free(a);
        drover_pipe_free(b);
        return r < 0 ? drover_fail(job, -r, "pair") : 0;
}

static int pass(drover_job *job) {
        drover_pipe *pipe;
        char text[ROOM];
        size_t bytes;
        int fd = STDERR_FILENO, came[2], r = take_end(job, &pipe);
        unsigned n = 2;
        if (r < 0)
                return r;
        int64_t sent = drover_pipe_send(pipe, "x", 1, &fd, 1, DROVER_FOREVER);
        int64_t received = drover_pipe_receive(pipe, text, sizeof text, &bytes, came, &n, DROVER_FOREVER);
        int64_t too_long = drover_pipe_receive(pipe, text, 1, &bytes, NULL, NULL, DROVER_FOREVER);
        int64_t late = drover_pipe_receive(pipe, text, 1, &bytes, NULL, NULL, drover_deadline_in(1000000));
        drover_pipe_free(pipe);
        r = drover_ret_i64(job, "sent", sent);
        if (r == 0)
                r = drover_ret_i64(job, "received", received);
        if (r == 0)
                r = drover_ret_u64(job, "n", n);
        if (r == 0)
                r = drover_ret_i64(job, "too_long", too_long);
        return r < 0 ? r : drover_ret_i64(job, "late", late);
}

static const struct drover_job_type jobs[] = {
        {.name = "echo", .args = "end:fd", .result = "n:u64", .handle = echo},
        {.name = "plain", .args = "end:fd", .result = "text:str", .handle = plain},
        {.name = "pair", .args = "text:str", .result = "end:fd", .handle = pair},
        {.name = "pass",
         .args = "end:fd",
         .result = "sent:i64,received:i64,n:u64,too_long:i64,late:i64",
         .handle = pass},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "pipes", "1.0")
