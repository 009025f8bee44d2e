/* top: pools and workers, looked at again and again.
 *
 * One look is the properties that the bus has for everybody, what /proc says of the workers' processes, and the job
 * that each runs; rates are differences to the look before. On a terminal the looks replace each other on a screen of
 * their own, and a last line says what found no room there; elsewhere each is a block of plain lines, with --json an
 * object. Keeps two looks, nothing else, so it may run for weeks. The age of a job that came through a channel is known
 * from when it was first seen: only its client knows more. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/show/usage.h"
#include "daemon/ctl/verbs/look/view.h"

enum {
        INTERVAL_US = 1000 * 1000,
        AROUND = 5 /* lines that are no pool and no worker */
};

struct look {
        uint64_t realtime_us;
        struct json_object *manager, *pools, *workers;
};

struct top {
        struct ctl *c;
        struct terminal terminal;
        struct look now, before;
};

static void look_deinit(struct look *l) {
        json_object_put(l->manager);
        json_object_put(l->pools);
        json_object_put(l->workers);
        *l = (struct look){0};
}

/* The object of the look before that has the same `key`; NULL if there was none. */
static struct json_object *same_of(struct json_object *list, const char *key, struct json_object *o) {
        for (size_t i = 0; list && i < json_length(list); i++) {
                struct json_object *other = json_at(list, i);

                if (strcmp(json_text(other, key, ""), json_text(o, key, "")) == 0)
                        return other;
        }
        return NULL;
}

/* ---- looking ---- */

static void add_number(struct json_object *o, const char *key, uint64_t n) {
        json_object_object_add(o, key, json_object_new_uint64(n));
}

/* How often a second something happened between the two looks. */
static void add_rate(const struct top *t, struct json_object *o, struct json_object *before, const char *counter,
                     const char *key) {
        uint64_t passed = t->now.realtime_us - t->before.realtime_us;
        uint64_t n = json_number(o, counter), n_before = json_number(before, counter);

        if (before && passed > 0 && n >= n_before)
                json_object_object_add(o, key, json_object_new_double((double)(n - n_before) * 1e6 / (double)passed));
}

static void look_at_job(const struct top *t, struct json_object *worker, struct json_object *before) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetJob"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *job = NULL;
        uint64_t id = json_number(worker, "CurrentJob"), since = t->now.realtime_us;

        if (id == 0)
                return;
        if (remote_call(t->c->remote, &find, &path, "t", id) >= 0 &&
            remote_get_all(t->c->remote, json_string(path), "Job", &job) >= 0) {
                json_object_object_add(worker, "job-type", json_object_new_string(json_text(job, "Name", "?")));
                since = json_number(job, "StartedUSec");
        } else if (before && json_number(before, "CurrentJob") == id) {
                since = json_number(before, "job-since-usec");
        }
        add_number(worker, "job-since-usec", since ? since : t->now.realtime_us);
}

static void look_at_worker(const struct top *t, struct json_object *worker) {
        struct json_object *before = same_of(t->before.workers, "Id", worker);
        struct usage usage;

        if (usage_of((uint32_t)json_number(worker, "Pid"), &usage) == 0) {
                add_number(worker, "cpu-usec", usage.cpu_us);
                add_number(worker, "memory-bytes", usage.memory_bytes);
                add_rate(t, worker, before, "cpu-usec", "cpu-usec-per-second");
        }
        add_rate(t, worker, before, "JobsDone", "done-per-second");
        look_at_job(t, worker, before);
}

static void look_at_pool(const struct top *t, struct json_object *pool) {
        struct json_object *before = same_of(t->before.pools, "Name", pool);

        add_rate(t, pool, before, "Completed", "done-per-second");
        add_rate(t, pool, before, "Failed", "failed-per-second");
        add_rate(t, pool, before, "WorkerDeaths", "deaths-per-second");
}

/* Everything anew. CTL_OK or the exit code, said on a terminal that is its own again. */
static int take_look(struct top *t) {
        struct timespec now;
        int r, code;

        look_deinit(&t->before);
        t->before = t->now;
        t->now = (struct look){0};
        clock_gettime(CLOCK_REALTIME, &now);
        t->now.realtime_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
        r = remote_get_all(t->c->remote, REMOTE_MANAGER, "Manager", &t->now.manager);
        if (r < 0) {
                terminal_leave(&t->terminal);
                return remote_report(t->c->remote, r);
        }
        code = view_gather(t->c, "ListPools", "Pool", 1, NULL, &t->now.pools);
        if (code == CTL_OK)
                code = view_gather(t->c, "ListWorkers", "Worker", 2, NULL, &t->now.workers);
        for (size_t i = 0; code == CTL_OK && i < json_length(t->now.pools); i++)
                look_at_pool(t, json_at(t->now.pools, i));
        for (size_t i = 0; code == CTL_OK && i < json_length(t->now.workers); i++)
                look_at_worker(t, json_at(t->now.workers, i));
        return code;
}

/* ---- showing ---- */

static const struct table_column pool_columns[] = {{"POOL"},
                                                   {"STATE", .is_state = true},
                                                   {"WORKERS", true},
                                                   {"QUEUED", true},
                                                   {"RUNNING", true},
                                                   {"DONE/S", true},
                                                   {"FAILED/S", true, .rank = 2},
                                                   {"DEATHS", true, .rank = 4},
                                                   {"WAIT P50", true, .rank = 3},
                                                   {"P99", true},
                                                   {"RUN P50", true},
                                                   {"P90", true, .rank = 1},
                                                   {"P99", true},
                                                   {"MAX", true, .rank = 5}};

/* "1234", "0.5", "-" */
static const char *rate_text(struct json_object *o, const char *key, char text[TEXT_MAX]) {
        struct json_object *rate;

        if (!json_object_object_get_ex(o, key, &rate))
                return "-";
        double n = json_object_get_double(rate);
        snprintf(text, TEXT_MAX, n > 0 && n < 10 ? "%.1f" : "%.0f", n);
        return text;
}

static int add_pool(struct table *t, struct json_object *pool) {
        struct json_object *latency = NULL, *all = NULL;
        char text[8][TEXT_MAX];

        if (json_object_object_get_ex(pool, "Latency", &latency))
                json_object_object_get_ex(latency, "all", &all);
        return table_add(
                t, (const char *const[]){
                           json_text(pool, "Name", "?"), json_text(pool, "State", "?"), json_text(pool, "Workers", "?"),
                           json_text(pool, "Queued", "?"), json_text(pool, "Running", "?"),
                           rate_text(pool, "done-per-second", text[0]), rate_text(pool, "failed-per-second", text[1]),
                           json_text(pool, "WorkerDeaths", "?"), view_latency(all, "queue-p50-usec", text[2]),
                           view_latency(all, "queue-p99-usec", text[3]), view_latency(all, "run-p50-usec", text[4]),
                           view_latency(all, "run-p90-usec", text[5]), view_latency(all, "run-p99-usec", text[6]),
                           view_latency(all, "run-max-usec", text[7])});
}

static const struct table_column worker_columns[] = {{"WORKER", true},
                                                     {"POOL"},
                                                     {"PID", true, .rank = 2},
                                                     {"STATE", .is_state = true},
                                                     {"JOB", true},
                                                     {"TYPE", .rank = 1},
                                                     {"AGE", true},
                                                     {"DONE/S", true},
                                                     {"CPU", true},
                                                     {"MEMORY", true},
                                                     {"WAITS FOR, OR SAYS", .rank = 3}};

static int add_worker(struct table *t, const struct look *l, struct json_object *worker) {
        const char *waits = json_text(worker, "WaitingFor", ""), *memory = "-", *cpu = "-", *job = "-", *age = "-";
        char text[4][TEXT_MAX];
        struct json_object *rate;

        if (json_object_object_get_ex(worker, "memory-bytes", NULL))
                memory = text_bytes(json_number(worker, "memory-bytes"), text[0]);
        if (json_object_object_get_ex(worker, "cpu-usec-per-second", &rate)) {
                snprintf(text[1], TEXT_MAX, "%.0f%%", json_object_get_double(rate) / 1e4);
                cpu = text[1];
        }
        if (json_number(worker, "CurrentJob") > 0) {
                uint64_t since = json_number(worker, "job-since-usec");

                job = json_text(worker, "CurrentJob", "-");
                age = text_duration(since < l->realtime_us ? l->realtime_us - since : 0, text[2]);
        }
        return table_add(t, (const char *const[]){json_text(worker, "Id", "?"), json_text(worker, "Pool", "?"),
                                                  json_text(worker, "Pid", "?"), json_text(worker, "State", "?"), job,
                                                  json_text(worker, "job-type", "-"), age,
                                                  rate_text(worker, "done-per-second", text[3]), cpu, memory,
                                                  *waits ? waits : json_text(worker, "Status", "")});
}

/* A table of one cell, so that it is cut as the others are. */
static int print_line(FILE *f, const struct table_look *look, const char *text) {
        static const struct table_column column = {""};
        ctl_cleanup(table_freep) struct table *line = NULL;
        struct table_look plain = {.max_width = look->max_width};

        if (table_new(&line, &column, 1) < 0 || table_add(line, (const char *const[]){text}) < 0)
                return -ENOMEM;
        table_print(line, f, &plain);
        return 0;
}

static int print_heading(const struct top *t, FILE *f, const struct table_look *look) {
        char moment[TEXT_MAX], text[256];

        snprintf(text, sizeof text, "%s  droverd %s: %" PRIu64 " pools, %" PRIu64 " workers, %" PRIu64 " sessions%s",
                 text_moment(t->now.realtime_us, moment), json_text(t->now.manager, "Version", "?"),
                 json_number(t->now.manager, "NPools"), json_number(t->now.manager, "NWorkers"),
                 json_number(t->now.manager, "NSessions"), t->terminal.has_keys ? "   (q ends)" : "");
        return print_line(f, look, text);
}

/* Neither table takes more than half of the rows while the other one needs them. */
static void share_rows(size_t rows, size_t *n_pools, size_t *n_workers) {
        size_t half = rows / 2, workers = *n_workers < half ? *n_workers : half;

        if (*n_pools + *n_workers <= rows)
                return;
        *n_pools = *n_pools < rows - workers ? *n_pools : rows - workers;
        *n_workers = *n_workers < rows - *n_pools ? *n_workers : rows - *n_pools;
}

static int print_hidden(FILE *f, const struct table_look *look, size_t n_pools, size_t n_workers) {
        char text[120];

        snprintf(text, sizeof text, "not shown: %zu pool%s and %zu worker%s, for which the terminal has no rows",
                 n_pools, n_pools == 1 ? "" : "s", n_workers, n_workers == 1 ? "" : "s");
        return print_line(f, look, text);
}

static int print_tables(const struct top *t, FILE *f) {
        ctl_cleanup(table_freep) struct table *pools = NULL, *workers = NULL;
        const size_t all_pools = json_length(t->now.pools);
        const size_t all_workers = json_length(t->now.workers);
        size_t n_pools = all_pools, n_workers = all_workers, rows = terminal_rows(stdout);
        struct table_look look = view_look(t->c);
        int r = 0;

        look.with_headings = true;
        if (t->terminal.is_on && n_pools + n_workers + AROUND > rows)
                share_rows(rows > AROUND + 1 ? rows - AROUND - 1 : 0, &n_pools, &n_workers);
        if (print_heading(t, f, &look) < 0 ||
            table_new(&pools, pool_columns, sizeof pool_columns / sizeof *pool_columns) < 0 ||
            table_new(&workers, worker_columns, sizeof worker_columns / sizeof *worker_columns) < 0)
                return -ENOMEM;
        for (size_t i = 0; r >= 0 && i < n_pools; i++)
                r = add_pool(pools, json_at(t->now.pools, i));
        for (size_t i = 0; r >= 0 && i < n_workers; i++)
                r = add_worker(workers, &t->now, json_at(t->now.workers, i));
        if (r < 0)
                return r;
        if (n_pools + n_workers > 0 || all_pools + all_workers == 0) {
                fputc('\n', f);
                table_print(pools, f, &look);
                fputc('\n', f);
                table_print(workers, f, &look);
        }
        if (n_pools == all_pools && n_workers == all_workers)
                return 0;
        return print_hidden(f, &look, all_pools - n_pools, all_workers - n_workers);
}

static void print_json(const struct top *t) {
        ctl_cleanup(json_putp) struct json_object *o = json_object_new_object();

        add_number(o, "time-usec", t->now.realtime_us);
        json_object_object_add(o, "Manager", json_object_get(t->now.manager));
        json_object_object_add(o, "Pools", json_object_get(t->now.pools));
        json_object_object_add(o, "Workers", json_object_get(t->now.workers));
        json_print(stdout, o, t->c->json);
}

static int show_look(const struct top *t) {
        ctl_cleanup(ctl_freep) char *text = NULL;
        size_t bytes;
        FILE *f;
        int r;

        if (t->c->json != CTL_JSON_OFF) {
                print_json(t);
        } else {
                f = open_memstream(&text, &bytes);
                r = f ? print_tables(t, f) : -ENOMEM;
                if (f && fclose(f) != 0)
                        r = -ENOMEM;
                if (r < 0)
                        return ctl_no_memory();
                if (t->terminal.is_on)
                        terminal_draw(&t->terminal, text);
                else
                        fputs(text, stdout);
        }
        if (!t->terminal.is_on && !t->c->once && t->c->json == CTL_JSON_OFF)
                putchar('\n'); /* between two blocks */
        fflush(stdout);
        return CTL_OK;
}

/* Until the next look. 1 = the user wants no more. */
static int await_next(const struct top *t) {
        uint64_t us = t->c->interval_us ? t->c->interval_us : INTERVAL_US;
        int r = remote_pause((unsigned)(us / 1000), t->terminal.has_keys ? STDIN_FILENO : -1);
        char key;

        if (r < 0)
                return 1;
        return r > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q' || key == 3);
}

int verb_top(struct ctl *c) {
        struct top t = {.c = c};
        int code;

        ctl_catch_interrupts();
        if (c->json == CTL_JSON_OFF && !c->once)
                terminal_enter(&t.terminal);
        code = take_look(&t);
        if (c->once && code == CTL_OK) /* a rate needs two looks */
                code = await_next(&t) == 0 ? take_look(&t) : CTL_INTERRUPTED;
        while (code == CTL_OK) {
                code = show_look(&t);
                if (code != CTL_OK || c->once || ferror(stdout) || await_next(&t) != 0)
                        break;
                code = take_look(&t);
        }
        terminal_leave(&t.terminal);
        look_deinit(&t.now);
        look_deinit(&t.before);
        return code == CTL_INTERRUPTED ? CTL_OK : code; /* Ctrl-C is how one ends it */
}
