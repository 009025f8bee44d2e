/* What a worker prints: read from a socket, cut into lines, logged at a bounded rate.
 *
 * It is a socket and no pipe, because whoever writes into a pipe holds it locked while the kernel fetches what is to be
 * written, which takes for ever if that is a mapping of a file whose reads hang; whoever reads the pipe waits for the
 * lock, whatever its flags say. Nothing of a socket is locked meanwhile.
 *
 * A capsule has the newest lines of its job, and none of another's, who may be another user. A socket does not tell
 * when something was written into it; the worker's line in pool memory tells how many jobs came to their end there. So
 * a line is put down to that number as it was when the socket was last empty before the line was read: if it is the
 * same still, no other job can have written it. When jobs end faster than the broker looks that is not sure, and the
 * capsule has no lines then; the log has them all.
 *
 * The worker's end never blocks (a flood is lost there), and ours is read a little at a time: past the budget of a
 * second the socket is left alone until the second is over, so a plugin that floods its output costs the broker
 * nothing. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/log.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/worker.h"
#include "ipc/event.h"
#include "ipc/packet.h"

enum {
        OUTPUT_BUDGET = 16384, /* bytes a second */
        OUTPUT_CHUNK = 4096,
        OUTPUT_BUFFER = 1 << 20, /* or what the system allows: some hundred lines */
};
#define OUTPUT_WINDOW_NS UINT64_C(1000000000)

static uint64_t output_count_ended(const struct worker *w) {
        uint64_t n = 0;
        for (unsigned state = 0; state < SLOT_N_STATES; state++)
                n += atomic_load(&worker_line(w)->counts[state]);
        return n;
}

const char *worker_output_last(const struct worker *w) {
        return w->lines_ended == output_count_ended(w) ? w->last_lines : "";
}

/* Keeps the newest lines that fit, whole ones. */
static void output_remember(struct worker *w) {
        if (w->lines_ended != w->line_ended)
                w->last_lines[0] = 0;
        w->lines_ended = w->line_ended;
        size_t used = strlen(w->last_lines), more = w->output_line_bytes + 1;
        while (used + more >= sizeof(w->last_lines)) {
                const char *second = strchr(w->last_lines, '\n');
                size_t gone = second ? (size_t)(second + 1 - w->last_lines) : used;
                memmove(w->last_lines, w->last_lines + gone, used - gone + 1);
                used -= gone;
        }
        memcpy(w->last_lines + used, w->output_line, more - 1);
        memcpy(w->last_lines + used + more - 1, "\n", 2);
}

static void output_flush_line(struct worker *w) {
        if (w->output_line_bytes == 0)
                return;
        for (size_t i = 0; i < w->output_line_bytes; i++)
                if ((unsigned char)w->output_line[i] < 0x20 && w->output_line[i] != '\t')
                        w->output_line[i] = '?'; /* no escape sequences of a plugin reach a terminal */
        w->output_line[w->output_line_bytes] = 0;
        output_remember(w);
        const char *text = w->output_line;
        enum log_level level = LOG_LEVEL_INFO;
        if (text[0] == '<' && text[1] >= '0' && text[1] <= '7' &&
            text[2] == '>') { /* drover_log, in the journal's way */
                level = text[1] - '0' < LOG_LEVEL_ERROR ? LOG_LEVEL_ERROR : text[1] - '0';
                text += 3;
        }
        log_write(level, "pool %s, worker %llu (pid %d): %s", w->pool->config.name, (unsigned long long)w->id,
                  (int)w->pid, text);
        w->output_line_bytes = 0;
}

static void output_add(struct worker *w, const char *data, size_t bytes) {
        if (w->line_ended != w->output_ended) /* a line has no end that its job did not give it */
                output_flush_line(w);
        w->line_ended = w->output_ended;
        for (size_t i = 0; i < bytes; i++) {
                if (data[i] == '\n' || w->output_line_bytes == sizeof(w->output_line) - 1)
                        output_flush_line(w);
                if (data[i] != '\n')
                        w->output_line[w->output_line_bytes++] = data[i];
        }
}

/* 1: some came, 0: there is none now, -EPIPE: nor will there ever be, -EPROTO: nor is any to be read. */
static int output_read(struct worker *w) {
        char chunk[OUTPUT_CHUNK];
        size_t n = 0;
        uint64_t ended = output_count_ended(w);
        closer_blame(CLOSER_WORKERS);
        int r = packet_receive(w->output_fd, chunk, sizeof(chunk), &n, NULL, NULL);
        if (r < 0 && r != -EAGAIN)
                return r;
        if (r == 0 && n == 0)
                return -EPIPE;
        output_add(w, chunk, n);
        if (n < sizeof(chunk))
                w->output_ended = ended; /* it is empty: what comes, comes from the job after these */
        w->output_bytes += n;
        return n > 0;
}

static void output_refuse(struct worker *w, int error) {
        loop_poll_change(&w->output_poll, 0);
        if (error != -EPROTO)
                return; /* its death follows, or it does without */
        log_error("pool %s, worker %llu: it sends descriptors as its output", w->pool->config.name,
                  (unsigned long long)w->id);
        worker_kill_now(w, REASON_INIT);
}

static void output_on_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        loop_poll_change(&w->output_poll, POLLIN);
}

static void output_look(struct worker *w) {
        uint64_t now = event_now_ns();
        if (now - w->output_window_ns > OUTPUT_WINDOW_NS) {
                w->output_window_ns = now;
                w->output_bytes = 0;
        }
        int r = output_read(w);
        if (r < 0)
                output_refuse(w, r);
        if (w->output_bytes < OUTPUT_BUDGET)
                return;
        log_warning("pool %s, worker %llu (pid %d) prints too much: the rest of this second is lost",
                    w->pool->config.name, (unsigned long long)w->id, (int)w->pid);
        loop_poll_change(&w->output_poll, 0);
        loop_timer_set(w->pool->supervisor->loop, &w->output_timer, w->output_window_ns + OUTPUT_WINDOW_NS,
                       output_on_timer, w);
}

static void output_on_socket(struct loop_poll *p, uint32_t revents) { output_look(p->user); }

void worker_output_look(struct worker *w) {
        if (w->output_fd >= 0 && !w->output_timer.heap_index && w->output_ended != output_count_ended(w))
                output_look(w);
}

int worker_output_start(struct worker *w, int *ret_write_fd) {
        int fds[2], bytes = OUTPUT_BUFFER;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return -errno;
        w->output_fd = fds[0];
        *ret_write_fd = fds[1];
        if (shutdown(fds[1], SHUT_RD) < 0 || setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0)
                return -errno;
        return loop_poll_start(w->pool->supervisor->loop, &w->output_poll, w->output_fd, POLLIN, output_on_socket, w);
}

void worker_output_stop(struct worker *w) {
        if (w->output_fd < 0)
                return;
        for (unsigned i = 0; i < OUTPUT_BUDGET / OUTPUT_CHUNK && output_read(w) > 0; i++) /* its last words */
                ;
        output_flush_line(w);
        loop_timer_stop(&w->output_timer);
        loop_poll_stop(&w->output_poll);
        closer_close(w->output_fd, CLOSER_WORKERS);
        w->output_fd = -1;
}
