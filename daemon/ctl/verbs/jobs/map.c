/* map: one job per input line through a channel, results in the order of the lines.
 *
 * A window of at most MAP_WINDOW lines, and no more behind MAX_HELD bytes of them, is in memory: read, submitted, or
 * finished and waiting for an earlier one to be printed. So memory stays the same for any input, and one slow job holds
 * back at most a window of results. Input is pulled only while the window has room. The channel cannot be waited for
 * together with a descriptor, so while input is slow and jobs run, both are looked at in turn every INPUT_PAUSE_MS;
 * with nothing under way only the input is waited for. A line that makes no arguments is a failed job of that line, not
 * the end of the run. Does not retry, reorder or buffer on disk: attempts are the pool's business. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/progress.h"
#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/words/arguments.h"
#include "daemon/ctl/words/lines.h"
#include "ipc/client/session/session.h"
#include "ipc/values/utf8.h"
#include "ipc/values/words.h"

enum { MAP_WINDOW = 256, INPUT_PAUSE_MS = 5, SLICE_MS = 100, MAP_ERROR = 512, MAX_SHOWN = 60, MAX_HELD = 8 << 20 };

enum entry_phase { ENTRY_READY, ENTRY_SUBMITTED, ENTRY_FINISHED };

struct entry {
        enum entry_phase phase;
        uint32_t slot;
        char *input; /* the line, which may hold bytes of 0 */
        size_t input_bytes;
        char *output; /* what to print for it, complete */
};

struct map {
        struct ctl *c;
        struct session *session;
        const struct schema_job *job;
        uint32_t type, n_window;
        struct lines lines;
        struct progress progress;
        struct entry window[MAP_WINDOW]; /* line i is entry i % n_window, n_printed <= i < n_read */
        uint64_t n_read, n_printed, n_failed;
        size_t n_held; /* bytes of input in the window */
        bool is_tty;
        int end;          /* why no more is taken in before the input's end: -errno */
        uint8_t *payload; /* of the line read last; kept while the channel is full */
        size_t payload_bytes;
};

static struct entry *entry_of(struct map *m, uint64_t line) { return &m->window[line % m->n_window]; }

static uint64_t after_ms(unsigned ms) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec + ms * UINT64_C(1000000);
}

/* ---- what is printed for a line ---- */

static char *plain_line(const struct entry *e, const char *text) {
        ctl_cleanup(ctl_freep) char *input = utf8_plain(e->input, e->input_bytes, "\t");
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(text, strlen(text));
        char *s;

        return !input || !plain || asprintf(&s, "%s\t%s\n", input, plain) < 0 ? NULL : s;
}

static char *json_line(const struct map *m, const struct entry *e, const char *state, unsigned attempt,
                       const char *result, const char *error) {
        ctl_cleanup(json_putp) struct json_object *o = json_object_new_object();
        char *s = NULL;
        size_t bytes;
        FILE *f = open_memstream(&s, &bytes);

        if (!f)
                return NULL;
        json_object_object_add(o, "input", json_text_new(e->input, e->input_bytes));
        json_object_object_add(o, "state", json_object_new_string(state));
        json_object_object_add(o, "attempt", json_object_new_int((int)attempt));
        if (result)
                json_object_object_add(o, "result", json_tokener_parse(result));
        if (error)
                json_object_object_add(o, "error", json_text_new(error, strlen(error)));
        json_print(f, o, m->c->json);
        if (fclose(f) == 0)
                return s;
        free(s);
        return NULL;
}

/* Sets the entry's output to a failure. */
static void fail_entry(struct map *m, struct entry *e, const char *state, unsigned attempt, const char *error) {
        m->n_failed++;
        e->phase = ENTRY_FINISHED;
        e->output = m->c->json != CTL_JSON_OFF ? json_line(m, e, state, attempt, NULL, error) : plain_line(e, error);
}

static void finish_entry(struct map *m, struct entry *e, const struct session_result *r) {
        ctl_cleanup(ctl_freep) char *text = NULL;
        char error[MAP_ERROR] = "";
        int code;

        if (r->state != SLOT_DONE) {
                session_describe(r, error, sizeof error);
                fail_entry(m, e, words_slot_state(r->state), r->attempt, error);
                return;
        }
        code = m->c->json != CTL_JSON_OFF ? args_to_json(&m->job->result, r->data, r->bytes, &text)
                                          : args_to_text(&m->job->result, r->data, r->bytes, &text);
        if (code < 0) {
                fail_entry(m, e, "failed", r->attempt, "the result does not fit the plugin's own schema");
                return;
        }
        e->phase = ENTRY_FINISHED;
        e->output = m->c->json != CTL_JSON_OFF ? json_line(m, e, "done", r->attempt, text, NULL) : plain_line(e, text);
}

/* ---- lines in ---- */

/* Hands the payload of the line read last to the channel. 0 or -errno, -EAGAIN: the channel is full. */
static int submit(struct map *m) {
        struct entry *e = entry_of(m, m->n_read - 1);
        const struct session_job job = {.type = m->type,
                                        .priority = LAYOUT_PRIORITY_DEFAULT,
                                        .payload = m->payload,
                                        .bytes = m->payload_bytes,
                                        .user = m->n_read - 1};
        int r = session_submit(m->session, &job, &e->slot);

        if (r == -EMSGSIZE) {
                fail_entry(m, e, "failed", 0, "the arguments do not fit into a slot");
                return 0;
        }
        if (r == 0)
                e->phase = ENTRY_SUBMITTED;
        return r;
}

/* Of a line that is too long: what is shown of it. Cuts no character of UTF-8 in two. */
static size_t cut(char *line) {
        size_t n = MAX_SHOWN;

        while (n > 0 && ((unsigned char)line[n] & 0xc0) == 0x80)
                n--;
        memcpy(line + n, "…", sizeof "…");
        return n + strlen("…");
}

/* Reads one line into the window. 1, 0 = nothing now, -ENODATA the end, -errno. */
static int read_line(struct map *m) {
        char error[ARGUMENTS_MAX_ERROR], text[ARGUMENTS_MAX_ERROR + 32], *line;
        struct entry *e;
        size_t bytes;
        int r = lines_next(&m->lines, &line, &bytes);
        bool is_too_long = r == -EMSGSIZE;

        if (r <= 0 && !is_too_long)
                return r;
        if (is_too_long)
                bytes = cut(line);
        e = entry_of(m, m->n_read++);
        *e = (struct entry){.phase = ENTRY_READY, .input = malloc(bytes + 1), .input_bytes = bytes};
        if (!e->input)
                return -ENOMEM;
        memcpy(e->input, line, bytes);
        m->n_held += bytes;
        if (is_too_long)
                snprintf(error, sizeof error, "longer than %d bytes", LINES_MAX);
        else
                r = arguments_from_line(&m->job->args, m->c->arg, line, bytes, m->payload,
                                        session_slot_bytes(m->session), &m->payload_bytes, error);
        if (r < 0) {
                snprintf(text, sizeof text, "line %" PRIu64 ": %s", m->lines.n_lines, error);
                fail_entry(m, e, "failed", 0, text);
        }
        return 1;
}

enum taken { TAKEN_UP_TO_FULL, TAKEN_WHAT_IS_THERE, TAKEN_ALL };

/* Nothing more is taken in; what is out is still waited for and printed. */
static int stop_taking(struct map *m, int why) {
        struct entry *tail = entry_of(m, m->n_read - 1);

        m->end = why;
        if (m->n_read > m->n_printed && tail->phase == ENTRY_READY) {
                free(tail->input);
                *tail = (struct entry){0};
                m->n_read--;
        }
        return TAKEN_ALL;
}

/* Fills the window as far as input and channel allow. enum taken, or -errno. */
static int take_in(struct map *m) {
        while (!m->end) {
                int r;

                if (m->n_read > m->n_printed && entry_of(m, m->n_read - 1)->phase == ENTRY_READY) {
                        r = submit(m);
                        if (r == -EAGAIN)
                                return TAKEN_UP_TO_FULL;
                        if (r < 0)
                                return r == -ESHUTDOWN || r == -EPIPE ? stop_taking(m, r) : r;
                }
                if (m->n_read - m->n_printed == m->n_window || m->n_held > MAX_HELD)
                        return TAKEN_UP_TO_FULL;
                r = read_line(m);
                if (r <= 0)
                        return r == 0 ? TAKEN_WHAT_IS_THERE : r == -ENODATA ? TAKEN_ALL : stop_taking(m, r);
        }
        return TAKEN_ALL;
}

/* ---- results out ---- */

static void print_ready(struct map *m) {
        if (m->is_tty)
                progress_clear(&m->progress);
        while (m->n_printed < m->n_read && entry_of(m, m->n_printed)->phase == ENTRY_FINISHED) {
                struct entry *e = entry_of(m, m->n_printed++);

                fputs(e->output ? e->output : "out of memory\n", stdout);
                m->n_held -= e->input_bytes;
                free(e->output);
                free(e->input);
                *e = (struct entry){0};
        }
}

/* The part of the whole that is printed; < 0: not known. */
static double fraction(const struct map *m) {
        if (m->lines.at_end)
                return m->n_read ? (double)m->n_printed / (double)m->n_read : 1;
        if (m->lines.total_bytes == 0 || m->n_read == 0)
                return -1;
        return (double)m->lines.n_bytes / (double)m->lines.total_bytes * (double)m->n_printed / (double)m->n_read;
}

/* Takes every verdict there is, waiting for the first at most `ms`. How many, or -errno. */
static int take_out(struct map *m, unsigned ms) {
        uint64_t deadline = ms > 0 ? after_ms(ms) : 0;
        struct session_result result;
        int r, n = 0;

        while ((r = session_next(m->session, &result, deadline)) == 1) {
                if (result.user < m->n_printed || result.user >= m->n_read)
                        return -EPROTO;
                finish_entry(m, entry_of(m, result.user), &result);
                deadline = 0;
                n++;
        }
        print_ready(m);
        progress_update(&m->progress, m->n_printed, m->n_failed, fraction(m));
        return r < 0 && r != -EINTR ? r : n;
}

/* One turn: take in what fits, take out what is there, else wait for whichever side can go on. 1 = all done, 0, -errno.
 */
static int turn(struct map *m) {
        int in = take_in(m), n;

        if (in < 0)
                return in;
        print_ready(m);
        if (in == TAKEN_ALL && m->n_printed == m->n_read)
                return 1;
        if (session_in_flight(m->session) > 0) {
                n = take_out(m, 0);
                if (n != 0)
                        return n < 0 ? n : 0;
                fflush(stdout);
                n = take_out(m, in == TAKEN_WHAT_IS_THERE ? INPUT_PAUSE_MS : SLICE_MS);
                return n < 0 ? n : 0;
        }
        fflush(stdout);
        if (in == TAKEN_WHAT_IS_THERE)
                lines_wait(&m->lines, SLICE_MS);
        else if (m->n_printed < m->n_read) /* none is out: slots in quarantine come back, and so does a daemon */
                poll(NULL, 0, INPUT_PAUSE_MS);
        return 0;
}

static bool is_pool_gone(const struct map *m) {
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};

        return remote_call(m->c->remote, &get, NULL, "s", m->c->operands[0]) < 0 &&
               strcmp(remote_error_name(m->c->remote), "NoSuchPool") == 0;
}

static int report(struct map *m, int error) {
        bool is_ended = error == -ESHUTDOWN || error == -EPIPE;

        progress_clear(&m->progress);
        if (m->lines.error) {
                ctl_error("--input=%s: %s; %" PRIu64 " lines are answered", m->c->input ? m->c->input : "-",
                          strerror(-m->lines.error), m->n_printed);
                return CTL_USAGE;
        }
        if (is_ended && is_pool_gone(m)) {
                ctl_error("pool %s was removed; %" PRIu64 " lines are answered", m->c->operands[0], m->n_printed);
                return CTL_REFUSED;
        }
        switch (error) {
        case -ESHUTDOWN:
                ctl_error("pool %s takes no more jobs: it is stopped or draining; %" PRIu64 " lines are answered",
                          m->c->operands[0], m->n_printed);
                return CTL_REFUSED;
        case -EPIPE:
                ctl_error("droverd went away; %" PRIu64 " lines are answered", m->n_printed);
                return CTL_UNREACHABLE;
        default:
                ctl_error("%s", strerror(-error));
                return CTL_REFUSED;
        }
}

/* Every line that is still out: queued jobs end now, running ones are asked to. */
static void cancel_all(struct map *m) {
        for (uint64_t line = m->n_printed; line < m->n_read; line++)
                if (entry_of(m, line)->phase == ENTRY_SUBMITTED)
                        session_cancel(m->session, entry_of(m, line)->slot);
}

static int map_run(struct map *m) {
        int r = 0;

        while (r == 0 && !ctl_is_interrupted() && !ferror(stdout))
                r = turn(m);
        if (ctl_is_interrupted() || ferror(stdout)) { /* nobody takes the results */
                cancel_all(m);
                progress_clear(&m->progress);
                return ctl_is_interrupted() ? CTL_INTERRUPTED : CTL_OK; /* main says what is wrong with the output */
        }
        if (r < 0 || m->end)
                return report(m, r < 0 ? r : m->end);
        progress_clear(&m->progress);
        return m->n_failed > 0 ? CTL_JOB_FAILED : CTL_OK;
}

/* session_open tells an error of the bus as "NAME: TEXT"; every verb says it as "TEXT (NAME)". */
static int say_unopened(const char *error, int code) {
        const char *text = strncmp(error, "org.", 4) == 0 ? strstr(error, ": ") : NULL;

        if (text)
                ctl_error("%s (%.*s)", text + 2, (int)(text - error), error);
        else
                ctl_error("%s", *error ? error : strerror(-code));
        return CTL_REFUSED;
}

/* Opens the session and settles what stays the same for all lines. CTL_OK or the exit code, said. */
static int map_open(struct map *m) {
        struct ctl *c = m->c;
        const struct remote_call get = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        char error[MAP_ERROR] = "";
        int r = remote_call(c->remote, &get, NULL, "s", c->operands[0]);

        if (r < 0)
                return remote_report(c->remote, r);
        r = session_open(&m->session, remote_bus(c->remote), c->operands[0], error, sizeof error);
        if (r < 0)
                return say_unopened(error, r);
        m->job = schema_find(session_schema(m->session), c->operands[1], &m->type);
        if (!m->job) {
                ctl_error("plugin %s of pool %s has no job '%s': droverctl schema lists those it has",
                          session_schema(m->session)->plugin, c->operands[0], c->operands[1]);
                return CTL_REFUSED;
        }
        if (c->arg && !schema_find_field(&m->job->args, c->arg)) {
                ctl_error("--arg=%s: job %s has no argument '%s'", c->arg, m->job->name, c->arg);
                return CTL_USAGE;
        }
        m->n_window = session_slots(m->session) < MAP_WINDOW ? session_slots(m->session) : MAP_WINDOW;
        m->payload = malloc(session_slot_bytes(m->session) + 1);
        if (!m->payload)
                return ctl_no_memory();
        r = lines_open(&m->lines, c->input);
        if (r < 0) {
                ctl_error("--input=%s: %s", c->input ? c->input : "-", strerror(-r));
                return CTL_USAGE;
        }
        m->is_tty = isatty(STDOUT_FILENO);
        progress_init(&m->progress, !c->quiet, "jobs");
        return CTL_OK;
}

static void map_closep(struct map **m) {
        if (!*m)
                return;
        for (unsigned i = 0; i < MAP_WINDOW; i++) {
                free((*m)->window[i].input);
                free((*m)->window[i].output);
        }
        lines_close(&(*m)->lines);
        session_free((*m)->session);
        free((*m)->payload);
        free(*m);
}

int verb_map(struct ctl *c) {
        ctl_cleanup(map_closep) struct map *m = calloc(1, sizeof *m);
        int code;

        if (!m)
                return ctl_no_memory();
        m->c = c;
        m->lines.fd = -1;
        ctl_catch_interrupts();
        code = map_open(m);
        return code == CTL_OK ? map_run(m) : code;
}
