/* What a worker prints: read from a socket, cut into lines, logged at a bounded rate.
 *
 * It is a socket and no pipe, because whoever writes into a pipe holds it locked while the kernel fetches what is to be
 * written, which takes for ever if that is a mapping of a file whose reads hang; whoever reads the pipe waits for the
 * lock, whatever its flags say. Nothing of a socket is locked meanwhile.
 *
 * A capsule has the newest lines of its job, and none of another's, who may be another user. Jobs are told apart by how
 * many ended before them in the worker, which its line in pool memory counts. At the end of a job the worker looks
 * whether something is still unread, and if so writes a mark behind it, a number between two zero bytes: all before it
 * was printed by jobs up to that one. Hence what is read without a mark behind it was printed by a job that had not
 * ended when we began to read. Each line has the first and the last job that may have printed it; where these differ
 * (it ended while we read; a mark found no room) the log has the line, and no capsule.
 *
 * The worker's end never blocks: what finds the socket full is lost there, and nobody counts it. So it is emptied as
 * fast as the loop can afford (OUTPUT_TURN), and what is too much for the log is dropped here: of the lines that
 * exceed the budget of a second, the newest are logged when it is over, and how many bytes were lost before them. A
 * line costs far more than its bytes when it has few, so lines count, too; and of much that comes at once, only what
 * the log or a capsule can have is cut into lines. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/loop/closer.h"
#include "daemon/supervise/supervisor-internal.h"
#include "daemon/supervise/workers/worker.h"
#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/values/utf8.h"

enum {
        OUTPUT_BUDGET = WORKER_OUTPUT_KEPT, /* bytes that are logged in a second */
        OUTPUT_BUFFER = 1 << 20,            /* or what the system allows: some hundred lines */
        OUTPUT_CHUNK = 1 << 20,             /* all that there is, in one: so it is known what no mark stands behind */
        OUTPUT_TURN = 2 << 20,              /* bytes that are read in OUTPUT_TURN_NS, and of all workers together */
        OUTPUT_TURN_OF_ALL = 2 * OUTPUT_TURN,
        OUTPUT_LEAST = 4096,     /* what a worker gets in such a turn, though others took all that there is */
        OUTPUT_PRICE = 16384,    /* of a read, in bytes: few bytes may be many packets */
        OUTPUT_LINE_PRICE = 256, /* of a line */
        OUTPUT_ZERO_PRICE = 16,  /* of a zero byte, where a mark may begin */
        OUTPUT_LINE = 512,       /* bytes of one, with its end; longer ones are cut */
        OUTPUT_LINES = 256,      /* that are logged in a second */
        OUTPUT_PART = WORKER_OUTPUT_KEPT + OUTPUT_LINE, /* of what comes at once: the first and the last are read */
        OUTPUT_LAST_READS = 4,                          /* of a dead one: more than the buffer can hold */
};
#define OUTPUT_WINDOW_NS UINT64_C(1000000000)
#define OUTPUT_TURN_NS UINT64_C(100000000)

/* The newest lines, whole ones, at most WORKER_OUTPUT_KEPT bytes of them. They wander through twice as much, and are
 * moved to its beginning when they come to its end: not at each line. */
struct output_tail {
        char text[2 * WORKER_OUTPUT_KEPT + 1];
        size_t start, bytes, n_lines;
        uint64_t lost; /* bytes of those that went */
};

struct worker_output {
        char line[OUTPUT_LINE];
        size_t line_bytes;
        uint64_t line_first, line_last;            /* who may have printed it */
        uint64_t first;                            /* who may print what comes next, at the earliest */
        uint32_t n_unmarked;                       /* marks that found no room, as last seen */
        uint64_t window_ns, turn;                  /* the second of `n_logged`, the turn of `n_read` */
        uint64_t n_logged, n_lines_logged, n_read; /* the latter with what else costs as much as so many bytes */
        struct output_tail job, held;              /* of job number `owner`; not logged yet */
        uint64_t owner;
        struct loop_timer log_timer, read_timer;
};

static uint64_t output_count_ended(const struct worker *w) {
        uint64_t n = 0;
        for (unsigned state = 0; state < SLOT_N_STATES; state++)
                n += atomic_load(&worker_line(w)->counts[state]);
        return n;
}

const char *worker_output_last(const struct worker *w, uint64_t *ret_lost) {
        const struct worker_output *o = w->output;
        bool is_its = o && o->owner == output_count_ended(w);
        *ret_lost = is_its ? o->job.lost : 0;
        return is_its ? o->job.text + o->job.start : "";
}

/* ---- keeping ---- */

static void tail_drop_first(struct output_tail *t) {
        const char *first = t->text + t->start;
        size_t gone = (size_t)((char *)memchr(first, '\n', t->bytes) + 1 - first);
        t->start += gone;
        t->bytes -= gone;
        t->n_lines--;
        t->lost += gone;
}

static void tail_add(struct output_tail *t, const char *line, size_t bytes, size_t max_lines) {
        while (t->bytes + bytes + 1 > WORKER_OUTPUT_KEPT || t->n_lines >= max_lines)
                tail_drop_first(t);
        if (t->start + t->bytes + bytes + 1 >= sizeof(t->text)) {
                memmove(t->text, t->text + t->start, t->bytes);
                t->start = 0;
        }
        char *end = t->text + t->start + t->bytes;
        memcpy(end, line, bytes);
        memcpy(end + bytes, "\n", 2);
        t->bytes += bytes + 1;
        t->n_lines++;
}

static void tail_clear(struct output_tail *t) {
        t->text[0] = 0;
        t->start = t->bytes = t->n_lines = 0;
        t->lost = 0;
}

/* So many bytes come next that nobody looks at: the lines before them are not the newest any more. */
static void tail_skip(struct output_tail *t, size_t bytes) {
        uint64_t lost = t->lost + t->bytes + bytes;
        tail_clear(t);
        t->lost = lost;
}

/* ---- the log ---- */

static void output_log(const struct worker *w, const char *text, size_t bytes) {
        enum log_level level = LOG_LEVEL_INFO;
        if (bytes > 2 && text[0] == '<' && text[1] >= '0' && text[1] <= '7' && text[2] == '>') {
                /* drover_log, in the journal's way */
                level = text[1] - '0' < LOG_LEVEL_ERROR ? LOG_LEVEL_ERROR : text[1] - '0';
                text += 3;
                bytes -= 3;
        }
        log_write(level, "pool %s, worker %llu (pid %d): %.*s", w->pool->config.name, (unsigned long long)w->id,
                  (int)w->pid, (int)bytes, text);
}

/* What was too much for the second, as far as it is kept. */
static void output_log_held(struct worker *w) {
        struct worker_output *o = w->output;
        if (o->held.lost)
                log_warning("pool %s, worker %llu (pid %d) prints too much: %llu bytes are lost here",
                            w->pool->config.name, (unsigned long long)w->id, (int)w->pid,
                            (unsigned long long)o->held.lost);
        for (size_t at = 0; at < o->held.bytes;) {
                const char *line = o->held.text + o->held.start + at;
                size_t bytes = strcspn(line, "\n");
                output_log(w, line, bytes);
                at += bytes + 1;
        }
        o->n_logged = o->held.bytes;
        o->n_lines_logged = o->held.n_lines;
        o->window_ns = event_now_ns();
        tail_clear(&o->held);
}

static void output_on_log_timer(struct loop_timer *t) { output_log_held(t->user); }

static bool output_is_holding(const struct worker_output *o) { return o->held.bytes > 0 || o->held.lost > 0; }

static void output_arm_log(struct worker *w) {
        struct worker_output *o = w->output;
        if (!o->log_timer.heap_index)
                loop_timer_set(w->pool->supervisor->loop, &o->log_timer, o->window_ns + OUTPUT_WINDOW_NS,
                               output_on_log_timer, w);
}

static bool output_may_log(struct worker_output *o, size_t bytes) {
        if (output_is_holding(o))
                return false;
        uint64_t now = event_now_ns();
        if (now - o->window_ns > OUTPUT_WINDOW_NS) {
                o->window_ns = now;
                o->n_logged = o->n_lines_logged = 0;
        }
        return o->n_logged + bytes <= OUTPUT_BUDGET && o->n_lines_logged < OUTPUT_LINES;
}

static void output_log_or_hold(struct worker *w, const char *line, size_t bytes) {
        struct worker_output *o = w->output;
        if (output_may_log(o, bytes)) {
                o->n_logged += bytes + 1;
                o->n_lines_logged++;
                output_log(w, line, bytes);
                return;
        }
        tail_add(&o->held, line, bytes, OUTPUT_LINES);
        output_arm_log(w);
}

/* ---- lines ---- */

static void output_charge(struct worker *w, uint64_t bytes) {
        w->output->n_read += bytes;
        w->pool->supervisor->output.n_read += bytes;
}

/* What the job in hand printed comes next, if it is one job that did. */
static bool output_is_of_one(struct worker_output *o, uint64_t first, uint64_t last) {
        if (first != last)
                return false;
        if (o->owner != first)
                tail_clear(&o->job);
        o->owner = first;
        return true;
}

static void output_flush_line(struct worker *w) {
        struct worker_output *o = w->output;
        output_charge(w, OUTPUT_LINE_PRICE);
        if (o->line_bytes == 0)
                return;
        o->line_bytes = utf8_make_plain(o->line, o->line, o->line_bytes, "\t", '?'); /* terminals get no orders */
        if (output_is_of_one(o, o->line_first, o->line_last))
                tail_add(&o->job, o->line, o->line_bytes, SIZE_MAX);
        output_log_or_hold(w, o->line, o->line_bytes);
        o->line_bytes = 0;
}

/* One that is too long: of what there is all but the character that goes on. */
static void output_cut_line(struct worker *w) {
        struct worker_output *o = w->output;
        char rest[4];
        size_t whole = utf8_cut(o->line, o->line_bytes), n_rest = o->line_bytes - whole;
        memcpy(rest, o->line + whole, n_rest);
        o->line_bytes = whole;
        output_flush_line(w);
        memcpy(o->line, rest, n_rest);
        o->line_bytes = n_rest;
}

/* Printed by a job from `first` to `last`. A line has no end that its job did not give it. */
static void output_add(struct worker *w, char c, uint64_t first, uint64_t last) {
        struct worker_output *o = w->output;
        if (c == '\n' || o->line_last < first)
                output_flush_line(w);
        else if (o->line_bytes == sizeof(o->line) - 1)
                output_cut_line(w);
        if (c == '\n')
                return;
        if (o->line_bytes == 0)
                o->line_first = first;
        o->line_last = last;
        o->line[o->line_bytes++] = c;
}

/* How long the mark is that begins here; 0 = it is none of the host's. A job's number is within what can be. */
static size_t output_mark(const struct worker_output *o, const char *data, size_t bytes, uint64_t most,
                          uint64_t *ret_job) {
        uint64_t job = 0;
        size_t n = 1;
        while (n < bytes && n < WORKER_OUTPUT_DIGITS && data[n] >= '0' && data[n] <= '9')
                job = job * 10 + (uint64_t)(data[n++] - '0');
        *ret_job = job;
        return n > 1 && n < bytes && data[n] == 0 && job >= o->first && job <= most ? n + 1 : 0;
}

/* The next mark, and where; NULL = there is none. */
static const char *output_find_mark(struct worker *w, const char *data, size_t bytes, uint64_t most, size_t *ret_bytes,
                                    uint64_t *ret_job) {
        const char *end = data + bytes;
        for (const char *p = data; (p = memchr(p, 0, (size_t)(end - p))); p++) {
                output_charge(w, OUTPUT_ZERO_PRICE);
                if ((*ret_bytes = output_mark(w->output, p, (size_t)(end - p), most, ret_job)))
                        return p;
        }
        return NULL;
}

static void output_add_part(struct worker *w, const char *data, size_t bytes, uint64_t last) {
        for (size_t i = 0; i < bytes; i++)
                output_add(w, data[i], w->output->first, last);
}

/* Nobody looks at these: they are counted. */
static void output_skip(struct worker *w, size_t bytes, uint64_t last) {
        struct worker_output *o = w->output;
        output_flush_line(w);
        if (output_is_of_one(o, o->first, last))
                tail_skip(&o->job, bytes);
        tail_skip(&o->held, bytes);
        output_arm_log(w);
}

/* Where a line begins, `at` or up to a line's length behind it; if none does, in the middle of one. */
static size_t output_line_start(const char *data, size_t at) {
        const char *end = memchr(data + at, '\n', OUTPUT_LINE);
        return end ? (size_t)(end + 1 - data) : at;
}

static void output_add_all(struct worker *w, const char *data, size_t bytes, uint64_t last) {
        if (bytes > 2 * (OUTPUT_PART + OUTPUT_LINE)) {
                size_t head = output_line_start(data, OUTPUT_PART);
                size_t tail = output_line_start(data, bytes - OUTPUT_PART);
                output_add_part(w, data, head, last);
                output_skip(w, tail - head, last);
                data += tail;
                bytes -= tail;
        }
        output_add_part(w, data, bytes, last);
}

/* ---- reading ---- */

/* `ended` is how many had ended before it was read; was it all that there was? */
static void output_take(struct worker *w, const char *data, size_t bytes, bool is_all, uint64_t ended) {
        struct worker_output *o = w->output;
        uint64_t job, now = output_count_ended(w);
        uint32_t n_unmarked = atomic_load(&worker_line(w)->n_unmarked);
        size_t mark_bytes;
        const char *mark;
        while ((mark = output_find_mark(w, data, bytes, now, &mark_bytes, &job))) {
                size_t before = (size_t)(mark - data);
                output_add_all(w, data, before, job);
                output_flush_line(w);
                o->first = job + 1;
                data += before + mark_bytes;
                bytes -= before + mark_bytes;
        }
        if (is_all && n_unmarked == o->n_unmarked && o->first < ended)
                o->first = ended; /* who printed this had not ended then */
        output_add_all(w, data, bytes, now > o->first ? now : o->first);
        if (is_all && o->first < ended)
                o->first = ended; /* and who will print the next had not, either */
        if (is_all)
                o->n_unmarked = n_unmarked;
}

/* 1: some came, 0: there is none now, -EPIPE: nor will there ever be, -EPROTO: nor is any to be read. */
static int output_read(struct worker *w, size_t most) {
        static char chunk[OUTPUT_CHUNK]; /* one thread, one worker at a time */
        size_t n = 0;
        uint64_t ended = output_count_ended(w);
        closer_blame(CLOSER_WORKERS);
        int r = packet_receive(w->output_fd, chunk, most, &n, NULL, NULL);
        if (r < 0 && r != -EAGAIN)
                return r;
        if (r == 0 && n == 0)
                return -EPIPE;
        output_charge(w, OUTPUT_PRICE + n);
        output_take(w, chunk, n, n < most, ended);
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

static void output_on_read_timer(struct loop_timer *t) {
        struct worker *w = t->user;
        loop_poll_change(&w->output_poll, POLLIN);
}

static void output_look(struct worker *w) {
        struct worker_output *o = w->output;
        struct supervisor *s = w->pool->supervisor;
        uint64_t turn = event_now_ns() / OUTPUT_TURN_NS;
        if (o->turn != turn)
                o->n_read = 0;
        if (s->output.turn != turn)
                s->output.n_read = 0;
        int r = output_read(w, s->output.n_read < OUTPUT_TURN_OF_ALL ? OUTPUT_CHUNK : OUTPUT_LEAST);
        o->turn = s->output.turn = turn = event_now_ns() / OUTPUT_TURN_NS; /* however long that took, it counts now */
        if (r < 0)
                output_refuse(w, r);
        if (r < 0 || (o->n_read < OUTPUT_TURN && s->output.n_read < OUTPUT_TURN_OF_ALL))
                return;
        uint64_t n_turns = o->n_read > OUTPUT_TURN ? o->n_read / OUTPUT_TURN : 1; /* that it used up */
        loop_poll_change(&w->output_poll, 0);
        loop_timer_set(s->loop, &o->read_timer, (turn + n_turns) * OUTPUT_TURN_NS, output_on_read_timer, w);
}

static void output_on_socket(struct loop_poll *p, uint32_t revents) { output_look(p->user); }

void worker_output_look(struct worker *w) {
        if (w->output_fd >= 0 && !w->output->read_timer.heap_index && w->output->first != output_count_ended(w))
                output_look(w);
}

int worker_output_start(struct worker *w, int *ret_write_fd) {
        int fds[2], bytes = OUTPUT_BUFFER;
        w->output = calloc(1, sizeof(*w->output));
        if (!w->output)
                return -ENOMEM;
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
        for (unsigned i = 0; i < OUTPUT_LAST_READS && output_read(w, OUTPUT_CHUNK) > 0; i++) /* its last words */
                ;
        output_flush_line(w);
        output_log_held(w);
        loop_timer_stop(&w->output->log_timer);
        loop_timer_stop(&w->output->read_timer);
        loop_poll_stop(&w->output_poll);
        closer_close(w->output_fd, CLOSER_WORKERS);
        w->output_fd = -1;
}

void worker_output_free(struct worker *w) {
        worker_output_stop(w);
        free(w->output);
        w->output = NULL;
}
