/* What plugin authors see: a plugin checked, or one job run, on the command line. Owns the words for people and the
 * exit codes.
 *
 * The worker is a fork that becomes host_main, exactly as StartMethod=fork does it, so what passes here has been
 * through the sandbox, the claim loop and the checks of a real worker, and what its author reads is what an operator
 * would read. It is killed with us (PDEATHSIG), whatever happens here. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memory/event.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/args.h"
#include "ipc/values/breach.h"
#include "ipc/values/json.h"
#include "ipc/values/words.h"
#include "plugins/host/author/run.h"
#include "plugins/host/author/say.h"
#include "plugins/host/author/trial.h"
#include "plugins/host/host.h"

#define RUN_END_NS UINT64_C(5000000000) /* as KillGraceSec= of a pool */

struct run {
        const struct run_config *config;
        struct trial trial;
        pid_t pid;
};

/* Why there is no result: for people on stderr, with --json also in the result's place. */
__attribute__((format(printf, 3, 4))) static int say(const struct run *r, int code, const char *format, ...) {
        static const char *const states[] = {[RUN_EXIT_FAILED] = "failed",
                                             [RUN_EXIT_USAGE] = "usage",
                                             [RUN_EXIT_REFUSED] = "refused",
                                             [RUN_EXIT_DIED] = "died"};
        char *text = NULL;
        va_list ap;
        va_start(ap, format);
        int n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                return say_error(code, "out of memory");
        if (r->config->is_json) {
                printf("{\"state\":\"%s\",\"error\":", states[code]);
                json_write_string(stdout, text, (size_t)n);
                puts("}");
        }
        say_error(code, "%s", text);
        free(text);
        return code;
}

static int say_errno(const struct run *r, const char *what, int e) {
        return say(r, RUN_EXIT_REFUSED, "%s: %s", what, strerrordesc_np(-e));
}

/* ---- the worker ---- */

static int start_worker(struct run *r, int plugin_fd) {
        int pair[2];
        int e = packet_pair(pair);
        if (e < 0)
                return e;
        pid_t parent = getpid();
        fflush(NULL);
        r->pid = fork();
        if (r->pid == 0)
                host_main(&(struct host_config){
                        .role = HOST_WORKER,
                        .parent = parent,
                        .control_fd = pair[1],
                        .plugin_fd = plugin_fd,
                        .name = "run",
                        .limits = {.memory_bytes = r->config->memory_bytes},
                });
        e = r->pid < 0 ? -errno : trial_set_up(&r->trial, pair[0], STDERR_FILENO);
        close(pair[1]);
        return e;
}

/* It is dead, or will be in a moment: why? */
static int explain_death(struct run *r, const char *doing) {
        int status = 0;
        while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
                ;
        r->pid = 0;
        const struct layout_worker *w = r->trial.line;
        struct layout_breach breach;
        char name[32], what[256];
        breach_read(w, &breach);
        if (breach.syscall > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
                filter_call_name((int)breach.syscall - 1, name, sizeof name);
                breach_describe(&breach, name, what, sizeof what);
                return say(r, RUN_EXIT_DIED, "the sandbox does not allow the system call %s: the worker was stopped %s",
                           what, doing);
        }
        if (WIFSIGNALED(status) && atomic_load_explicit(&w->fault_signal, memory_order_acquire))
                return say(r, RUN_EXIT_DIED, "the worker died %s: %s at address 0x%llx", doing,
                           words_signal(WTERMSIG(status)),
                           (unsigned long long)atomic_load_explicit(&w->fault_address, memory_order_relaxed));
        if (WIFSIGNALED(status))
                return say(r, RUN_EXIT_DIED, "the worker died %s: %s", doing, words_signal(WTERMSIG(status)));
        return say(r, RUN_EXIT_DIED, "the worker ended %s: exit code %d", doing, WEXITSTATUS(status));
}

uint64_t run_start_deadline(uint64_t start_ns) { return start_ns == 0 ? EVENT_FOREVER : event_now_ns() + start_ns; }

static int await_ready(struct run *r) {
        char text[WIRE_TEXT];
        int e = trial_await_ready(&r->trial, run_start_deadline(r->config->start_ns), text);
        if (e == -ETIMEDOUT)
                kill(r->pid, SIGKILL);
        if (e == -ECONNRESET)
                return explain_death(r, "while the plugin was loaded");
        return e < 0 ? say(r, RUN_EXIT_REFUSED, "%s", text) : RUN_EXIT_DONE;
}

static void retire_worker(struct run *r) {
        if (r->pid <= 0)
                return;
        trial_retire(&r->trial);
        if (trial_await_end(&r->trial, event_now_ns() + RUN_END_NS) < 0) {
                say_error(0, "the worker does not end: it hangs in thread_fini, worker_fini or a destructor");
                kill(r->pid, SIGKILL);
        }
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

/* ---- the job ---- */

static int write_raw_payload(const struct run *r, const struct schema_job *job, void *payload, size_t *ret_bytes) {
        const char *word = r->config->words[0];
        if (!word || strncmp(word, "payload=", 8) != 0 || r->config->words[1])
                return say(r, RUN_EXIT_USAGE, "job %s is raw: it takes payload=TEXT and nothing else", job->name);
        size_t n = strlen(word + 8);
        if (n > TRIAL_SLOT_BYTES)
                return say(r, RUN_EXIT_USAGE, "job %s: a payload of %zu bytes is too large", job->name, n);
        memcpy(payload, word + 8, n);
        *ret_bytes = n;
        return RUN_EXIT_DONE;
}

static int write_payload(const struct run *r, const struct schema_job *job, void *payload, size_t *ret_bytes) {
        char why[256] = "the arguments are too large";
        if (job->args.is_raw)
                return write_raw_payload(r, job, payload, ret_bytes);
        struct args_writer w;
        args_writer_init(&w, payload, TRIAL_SLOT_BYTES);
        for (char *const *word = r->config->words; *word; word++) {
                char *equals = strchr(*word, '='), name[SCHEMA_MAX_NAME];
                if (!equals || (size_t)(equals - *word) >= sizeof name)
                        return say(r, RUN_EXIT_USAGE, "\"%s\" is not NAME=VALUE", *word);
                memcpy(name, *word, (size_t)(equals - *word));
                name[equals - *word] = 0;
                if (args_put_text(&w, &job->args, name, equals + 1, why, sizeof why) < 0)
                        return say(r, RUN_EXIT_USAGE, "job %s: %s", job->name, why);
        }
        if (args_finish(&w, ret_bytes) < 0 || args_check(&job->args, payload, *ret_bytes, why, sizeof why) < 0)
                return say(r, RUN_EXIT_USAGE, "job %s: %s", job->name, why);
        return RUN_EXIT_DONE;
}

static int print_result(const struct run *r, const struct schema_job *job, const void *data, size_t bytes) {
        char why[256], *text = NULL;
        int e = args_check(&job->result, data, bytes, why, sizeof why);
        if (e < 0)
                return say(r, RUN_EXIT_FAILED, "job %s: %s", job->name, why);
        e = r->config->is_json ? args_to_json(&job->result, data, bytes, &text)
                               : args_to_text(&job->result, data, bytes, &text);
        if (e < 0)
                return say_errno(r, "the result cannot be printed", e);
        if (*text) /* a job without results says nothing */
                puts(text);
        free(text);
        return RUN_EXIT_DONE;
}

/* As a field of a result would be shown: text if it is some, else bytes. */
static void print_item(void *user, const void *data, size_t bytes) {
        const struct run *r = user;
        struct args_value v = {
                .type = args_is_utf8(data, bytes) ? SCHEMA_STR : SCHEMA_BYTES, .data = data, .bytes = bytes};
        struct schema_fields fields = {.n_fields = 1, .field = {{.name = "item", .type = v.type}}};
        const size_t capacity = bytes + 64;
        void *map = malloc(capacity);
        char *text = NULL;
        struct args_writer w;
        size_t map_bytes;
        args_writer_init(&w, map, map ? capacity : 0);
        args_put(&w, "item", &v);
        if (args_finish(&w, &map_bytes) >= 0 &&
            (r->config->is_json ? args_to_json : args_to_text)(&fields, map, map_bytes, &text) >= 0)
                puts(text);
        free(text);
        free(map);
}

static int print_verdict(const struct run *r, const struct schema_job *job, uint64_t word) {
        const struct channel *c = &r->trial.channel;
        size_t bytes = channel_result(c, 0)->bytes;
        int error = channel_result(c, 0)->error;
        char *copy = bytes <= TRIAL_SLOT_BYTES ? malloc(bytes + 1) : NULL;
        if (!copy)
                return say(r, RUN_EXIT_FAILED, "the result makes no sense");
        memcpy(copy, channel_result_data(c, 0), bytes);
        copy[bytes] = 0;
        const void *data = copy;
        int code = RUN_EXIT_DONE, e = 0;
        if (slot_state(word) == SLOT_DONE && r->trial.result_bytes > 0) {
                bytes = r->trial.result_bytes;
                e = sealed_map(r->trial.room_fd, bytes, &data);
        }
        if (e < 0)
                code = say_errno(r, "the result cannot be mapped", e);
        else if (slot_state(word) == SLOT_DONE)
                code = print_result(r, job, data, bytes);
        else if (slot_state(word) == SLOT_FAILED)
                code = say(r, RUN_EXIT_FAILED, "job %s failed: %s (%s)", job->name, copy,
                           strerrorname_np(error) ?: "no error number");
        else
                code = say(r, RUN_EXIT_FAILED, "job %s: %s", job->name, words_slot_state(slot_state(word)));
        if (data != copy && e >= 0)
                sealed_unmap(data, bytes);
        free(copy);
        return code;
}

static int run_job(struct run *r) {
        uint32_t type;
        struct trial *t = &r->trial;
        const struct schema_job *job = schema_find(t->schema, r->config->job, &type);
        if (!job)
                return say(r, RUN_EXIT_USAGE, "plugin %s has no job %s", t->schema->plugin, r->config->job);
        size_t bytes;
        int e = trial_begin(t, 0);
        if (e >= 0) {
                int code = write_payload(r, job, channel_payload(&t->channel, 0), &bytes);
                if (code != RUN_EXIT_DONE)
                        return code;
                e = trial_open(t);
        }
        if (e >= 0)
                e = trial_commit(t, 0, type, bytes, LAYOUT_PRIORITY_DEFAULT);
        if (e < 0)
                return say_errno(r, "the job cannot be submitted", e);
        uint64_t word;
        t->on_item = print_item;
        t->on_item_user = r;
        if (trial_wait(t, 0, EVENT_FOREVER, &word) < 0)
                return explain_death(r, "in the job");
        return print_verdict(r, job, word);
}

/* ---- what is asked for ---- */

static void print_fields(const struct schema_fields *f) {
        if (f->is_raw)
                fputs("raw", stdout);
        for (uint32_t i = 0; i < f->n_fields; i++)
                printf("%s%s:%s", i ? "," : "", f->field[i].name,
                       schema_type_name(f->field[i].type, f->field[i].is_array));
}

static int print_schema(const struct run *r) {
        const struct schema *s = r->trial.schema;
        if (r->config->is_json) {
                char *text;
                int e = schema_to_json(s, &text);
                if (e < 0)
                        return say_errno(r, "the schema cannot be printed", e);
                puts(text);
                free(text);
                return RUN_EXIT_DONE;
        }
        say_text(stdout, "%s %s: fine (sandbox: %s)\n", s->plugin, s->version, r->trial.sandbox);
        for (uint32_t i = 0; i < s->n_jobs; i++) {
                const struct schema_job *j = &s->jobs[i];
                say_text(stdout, "  %s(", j->name);
                print_fields(&j->args);
                printf(") -> ");
                print_fields(&j->result);
                say_text(stdout, "%s%s%s\n", j->is_once ? " [once]" : "", *j->help ? "  " : "", j->help);
        }
        return RUN_EXIT_DONE;
}

int run_plugin(const struct run_config *c) {
        struct run r = {.config = c};
        int plugin_fd, e = trial_open_plugin(c->plugin, &plugin_fd);
        if (e < 0)
                return say(&r, RUN_EXIT_REFUSED, "%s: %s", c->plugin, strerrordesc_np(-e));
        e = trial_init(&r.trial);
        if (e >= 0)
                e = host_prepare();
        if (e >= 0)
                e = start_worker(&r, plugin_fd);
        close(plugin_fd);
        int code = e < 0 ? say_errno(&r, "the worker cannot be started", e) : await_ready(&r);
        if (code == RUN_EXIT_DONE)
                code = c->job ? run_job(&r) : print_schema(&r);
        retire_worker(&r);
        trial_deinit(&r.trial);
        return code;
}
