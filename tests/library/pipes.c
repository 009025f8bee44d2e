/* Pipes between this program and a job: an end as an argument, an end as a result. */
#include <unistd.h>

#include "tests/library/cases.h"

static void check_text(drover_pipe *pipe, const char *text) {
        char buffer[64];
        size_t bytes;
        EXPECT(0,
               drover_pipe_receive(pipe, buffer, sizeof buffer, &bytes, NULL, NULL, drover_deadline_in(20 * SECOND)));
        EXPECT(strlen(text), bytes);
        EXPECT(0, memcmp(buffer, text, bytes));
}

static void send_text(drover_pipe *pipe, const char *text) {
        EXPECT(0, drover_pipe_send(pipe, text, strlen(text), NULL, 0, DROVER_FOREVER));
}

/* A job with the other end of *ret_mine, which only the job has then. */
static drover_future *submit_end(drover_pool *p, const char *job, drover_pipe **ret_mine) {
        drover_pipe *theirs;
        drover_future *f;
        EXPECT(0, drover_pipe_new(ret_mine, &theirs));
        EXPECT(0, drover_submitf(p, &f, job, "end:fd", drover_pipe_fd(theirs)));
        drover_pipe_free(theirs);
        return f;
}

static void finish(drover_future *f) {
        EXPECT(0, drover_future_wait(f, drover_deadline_in(20 * SECOND)));
        const drover_error *e = drover_future_error(f);
        if (e)
                fprintf(stderr, "%s: %s\n", e->where, e->message);
        EXPECT(DROVER_DONE, drover_future_state(f));
}

static void check_echo(drover_pool *p) {
        drover_pipe *mine;
        uint64_t n;
        drover_future *f = submit_end(p, "echo", &mine);
        send_text(mine, "one");
        send_text(mine, "another");
        check_text(mine, "one"); /* boundaries are kept, there and back */
        check_text(mine, "another");
        drover_pipe_free(mine);
        finish(f);
        EXPECT(0, drover_future_get_u64(f, "n", &n));
        EXPECT(2, n);
        drover_future_unref(f);
}

/* read() of a given end waits for what this process sends later. */
static void check_plain(drover_pool *p) {
        drover_pipe *mine;
        const char *text;
        drover_future *f = submit_end(p, "plain", &mine);
        wait_running(f);
        send_text(mine, "plain");
        finish(f);
        EXPECT(0, drover_future_get_str(f, "text", &text, NULL));
        EXPECT_TEXT("plain", text);
        drover_future_unref(f);
        drover_pipe_free(mine);
}

static void check_pair(drover_pool *p) {
        drover_pipe *pipe;
        drover_future *f;
        char buffer[8];
        size_t bytes;
        int fd;
        EXPECT(0, drover_submitf(p, &f, "pair", "text:str", "made there"));
        finish(f);
        EXPECT(0, drover_future_get_fd(f, "end", &fd));
        EXPECT(0, drover_pipe_new_from_fd(dup(fd), &pipe));
        drover_future_unref(f);
        check_text(pipe, "made there");
        EXPECT(-EPIPE, drover_pipe_receive(pipe, buffer, sizeof buffer, &bytes, NULL, NULL, DROVER_FOREVER));
        drover_pipe_free(pipe);
}

/* None goes out or in. */
static void check_descriptors(drover_pool *p) {
        drover_pipe *mine;
        char buffer[8];
        size_t bytes;
        int64_t sent, received, too_long, late;
        uint64_t n;
        int ends[2];
        EXPECT(0, pipe(ends));
        drover_future *f = submit_end(p, "pass", &mine);
        EXPECT(0, drover_pipe_send(mine, "x", 1, &ends[1], 1, DROVER_FOREVER));
        send_text(mine, "long");
        finish(f);
        EXPECT(0, drover_future_get_i64(f, "sent", &sent));
        EXPECT(0, drover_future_get_i64(f, "received", &received));
        EXPECT(0, drover_future_get_u64(f, "n", &n));
        EXPECT(0, drover_future_get_i64(f, "too_long", &too_long));
        EXPECT(0, drover_future_get_i64(f, "late", &late));
        EXPECT(-EPERM, sent);
        EXPECT(0, received);
        EXPECT(0, n);
        EXPECT(-EPROTO, too_long);
        EXPECT(-ETIMEDOUT, late);
        EXPECT(-EPIPE, drover_pipe_receive(mine, buffer, sizeof buffer, &bytes, NULL, NULL, DROVER_FOREVER));
        close(ends[1]);
        EXPECT(0, read(ends[0], buffer, 1)); /* nobody has it */
        close(ends[0]);
        drover_future_unref(f);
        drover_pipe_free(mine);
}

void case_pipes(void) {
        static const char *const pools[] = {"pipes", "spawn-pipes"}; /* each has a filter of its own */
        for (unsigned i = 0; i < 2; i++) {
                drover_pool *p = pool(pools[i]);
                check_echo(p);
                check_plain(p);
                check_pair(p);
                check_descriptors(p);
                drover_pool_unref(p);
        }
}
