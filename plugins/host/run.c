/* A broker for one plugin, one worker and one job. Owns its side of everything a worker needs: pool memory, bell,
 * channel, orders.
 *
 * The worker is a fork that becomes host_main, exactly as StartMethod=fork does it, so what passes here has been
 * through the sandbox, the claim loop and the checks of a real worker; what a plugin author sees is what an operator
 * will see. It is killed with us (PDEATHSIG), whatever happens here.
 *
 * What the worker says and writes is taken as the broker takes it: bounded, checked, copied before use. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/args.h"
#include "ipc/bell.h"
#include "ipc/channel.h"
#include "ipc/event.h"
#include "ipc/packet.h"
#include "ipc/schema.h"
#include "ipc/segment.h"
#include "ipc/words.h"
#include "plugins/host/host.h"
#include "plugins/host/run.h"

enum { RUN_MAX_FILE = 64 << 20, RUN_SLOTS = 2, RUN_SLOT_BYTES = LAYOUT_MAX_SLOT_BYTES };

struct run {
        const struct run_config *config;
        int plugin_fd, control_fd, pool_fd, bell_fd, channel_fd, doorbell_fd, done_fd;
        pid_t pid;
        struct layout_pool *pool;
        struct layout_bell *bell;
        struct channel channel;
        struct schema *schema;
        char sandbox[64];
};

__attribute__((format(printf, 2, 3))) static int say(int code, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        fputs("drover-worker: ", stderr);
        vfprintf(stderr, format, ap);
        fputc('\n', stderr);
        va_end(ap);
        return code;
}

static int say_errno(const char *what, int r) { return say(RUN_EXIT_REFUSED, "%s: %s", what, strerrordesc_np(-r)); }

/* ---- the plugin's sealed copy ---- */

static int copy_and_seal(int from, off_t bytes, int *ret_fd) {
        int fd = memfd_create("drover-plugin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        off_t at = 0;
        while (at < bytes) {
                ssize_t n = sendfile(fd, from, &at, (size_t)(bytes - at));
                if (n <= 0) {
                        int r = n < 0 ? -errno : -EIO;
                        close(fd);
                        return r;
                }
        }
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

static int open_plugin(const char *path, int *ret_fd) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;
        struct stat st;
        int r = fstat(fd, &st) < 0 ? -errno : 0;
        if (r >= 0 && !S_ISREG(st.st_mode))
                r = -ENOEXEC;
        if (r >= 0 && (st.st_size == 0 || st.st_size > RUN_MAX_FILE))
                r = st.st_size == 0 ? -ENOEXEC : -EFBIG;
        if (r >= 0)
                r = copy_and_seal(fd, st.st_size, ret_fd);
        close(fd);
        return r;
}

/* ---- the worker ---- */

static int make_memory(struct run *r) {
        struct channel_geometry g;
        void *pool;
        int e = segment_create("drover-run-pool", LAYOUT_POOL_BYTES, &r->pool_fd);
        if (e >= 0)
                e = segment_map(r->pool_fd, 0, LAYOUT_POOL_BYTES, true, &pool);
        if (e < 0)
                return e;
        r->pool = pool;
        r->pool->armed = 1; /* nobody ticks here */
        e = bell_create("drover-run-bell", &r->bell, &r->bell_fd);
        if (e >= 0)
                e = channel_geometry_init(&g, RUN_SLOTS, RUN_SLOT_BYTES);
        if (e >= 0)
                e = channel_create(&r->channel, &g, "drover-run-channel", &r->channel_fd);
        if (e < 0)
                return e;
        bell_set_mode(r->bell, BELL_FUTEX);
        r->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return r->doorbell_fd < 0 || r->done_fd < 0 ? -errno : 0;
}

static int give_order(struct run *r, const struct worker_order *order, const int *fds, unsigned n_fds) {
        int e = packet_send(r->control_fd, order, sizeof *order, fds, n_fds);
        if (e >= 0)
                event_broadcast(&r->pool->worker[0].control);
        return e;
}

static int start_worker(struct run *r) {
        int pair[2];
        int e = packet_pair(pair);
        if (e < 0)
                return e;
        pid_t parent = getpid();
        fflush(NULL);
        r->pid = fork();
        if (r->pid < 0) {
                e = -errno;
                close(pair[0]);
                close(pair[1]);
                return e;
        }
        if (r->pid == 0)
                host_main(&(struct host_config){
                        .role = HOST_WORKER,
                        .parent = parent,
                        .control_fd = pair[1],
                        .plugin_fd = r->plugin_fd,
                        .name = "run",
                });
        close(pair[1]);
        r->control_fd = pair[0];
        struct worker_order setup = {
                .type = ORDER_SETUP, .version = WIRE_VERSION, .model = DROVER_MODEL_PROCESS, .id = 1, .pool = "run"};
        return give_order(r, &setup, (const int[]){r->pool_fd, r->doorbell_fd, STDERR_FILENO}, 3);
}

/* It is dead, or will be in a moment: why? */
static int explain_death(struct run *r, const char *doing) {
        int status = 0;
        while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
                ;
        r->pid = 0;
        const struct layout_worker *w = &r->pool->worker[0];
        uint32_t call = atomic_load_explicit(&w->fault_syscall, memory_order_acquire);
        char name[32];
        if (call > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
                return say(RUN_EXIT_DIED, "the sandbox does not allow the system call %s: the worker was stopped %s",
                           filter_call_name((int)call - 1, name, sizeof name), doing);
        if (WIFSIGNALED(status) && atomic_load_explicit(&w->fault_signal, memory_order_acquire))
                return say(RUN_EXIT_DIED, "the worker died %s: %s at address 0x%llx", doing,
                           words_signal(WTERMSIG(status)),
                           (unsigned long long)atomic_load_explicit(&w->fault_address, memory_order_relaxed));
        if (WIFSIGNALED(status))
                return say(RUN_EXIT_DIED, "the worker died %s: %s", doing, words_signal(WTERMSIG(status)));
        return say(RUN_EXIT_DIED, "the worker ended %s: exit code %d", doing, WEXITSTATUS(status));
}

/* READY, or the reason why not. */
static int await_ready(struct run *r) {
        char text[WIRE_TEXT];
        struct {
                struct worker_report report;
                char schema[WIRE_MAX_REPORT - sizeof(struct worker_report)];
        } *m = calloc(1, sizeof *m);
        if (!m)
                return say_errno("drover-worker", -ENOMEM);
        size_t bytes = 0;
        struct pollfd p = {.fd = r->control_fd, .events = POLLIN};
        while (poll(&p, 1, -1) < 0 && errno == EINTR)
                ;
        int e = packet_receive(r->control_fd, m, sizeof *m, &bytes, NULL, NULL), code = RUN_EXIT_DONE;
        if (e < 0 || bytes == 0)
                code = explain_death(r, "while the plugin was loaded");
        else if (bytes < sizeof m->report || m->report.version != WIRE_VERSION)
                code = say(RUN_EXIT_REFUSED, "the worker reports nonsense");
        else if (m->report.type == REPORT_FAILED) {
                m->report.text[sizeof m->report.text - 1] = 0;
                code = say(RUN_EXIT_REFUSED, "%s", m->report.text);
        } else if (m->report.type != REPORT_READY || m->report.text_bytes != bytes - sizeof m->report)
                code = say(RUN_EXIT_REFUSED, "the worker reports nonsense");
        else if (schema_parse(m->schema, m->report.text_bytes, &r->schema, text, sizeof text) < 0)
                code = say(RUN_EXIT_REFUSED, "the worker's schema makes no sense: %s", text);
        else
                memcpy(r->sandbox, m->report.sandbox, sizeof r->sandbox - 1);
        free(m);
        return code;
}

static void retire_worker(struct run *r) {
        if (r->pid <= 0)
                return;
        atomic_store_explicit(&r->pool->worker[0].command, WORKER_RETIRE, memory_order_release);
        event_broadcast(&r->pool->worker[0].control);
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

/* ---- the job ---- */

static int write_payload(const struct run *r, const struct schema_job *job, void *payload, size_t *ret_bytes) {
        char *const *words = r->config->words;
        char why[256];
        if (job->args.is_raw) {
                const char *text = words[0] && strncmp(words[0], "payload=", 8) == 0 && !words[1] ? words[0] + 8 : NULL;
                if (!text || strlen(text) > RUN_SLOT_BYTES)
                        return say(RUN_EXIT_USAGE, "job %s is raw: it takes payload=TEXT and nothing else", job->name);
                *ret_bytes = strlen(text);
                memcpy(payload, text, *ret_bytes);
                return RUN_EXIT_DONE;
        }
        struct args_writer w;
        args_writer_init(&w, payload, RUN_SLOT_BYTES);
        for (; *words; words++) {
                char *equals = strchr(*words, '='), name[SCHEMA_MAX_NAME];
                if (!equals || (size_t)(equals - *words) >= sizeof name)
                        return say(RUN_EXIT_USAGE, "\"%s\" is not NAME=VALUE", *words);
                memcpy(name, *words, (size_t)(equals - *words));
                name[equals - *words] = 0;
                if (args_put_text(&w, &job->args, name, equals + 1, why, sizeof why) < 0)
                        return say(RUN_EXIT_USAGE, "job %s: %s", job->name, why);
        }
        if (args_finish(&w, ret_bytes) < 0 || args_check(&job->args, payload, *ret_bytes, why, sizeof why) < 0)
                return say(RUN_EXIT_USAGE, "job %s: %s", job->name, w.error == 0 ? why : "the arguments are too large");
        return RUN_EXIT_DONE;
}

static int submit(struct run *r, uint32_t type) {
        const struct schema_job *job = &r->schema->jobs[type];
        int e = channel_begin(&r->channel, 0);
        size_t bytes = 0;
        int code = write_payload(r, job, channel_payload(&r->channel, 0), &bytes);
        if (code != RUN_EXIT_DONE)
                return code;
        *channel_job(&r->channel, 0) = (struct layout_job){.type = type,
                                                           .bytes = (uint32_t)bytes,
                                                           .priority = LAYOUT_PRIORITY_DEFAULT,
                                                           .id = 1,
                                                           .queued_ns = event_now_ns()};

        struct worker_order bell = {.type = ORDER_BELL, .version = WIRE_VERSION};
        struct worker_order channel = {
                .type = ORDER_CHANNEL, .version = WIRE_VERSION, .n_slots = RUN_SLOTS, .slot_bytes = RUN_SLOT_BYTES};
        atomic_store_explicit(&r->pool->worker[0].command, WORKER_RUN, memory_order_release);
        if (e >= 0)
                e = give_order(r, &bell, &r->bell_fd, 1);
        if (e >= 0)
                e = give_order(r, &channel, (const int[]){r->channel_fd, r->done_fd}, 2);
        channel_wait_begin(&r->channel, DONE_DOORBELL);
        if (e >= 0)
                e = channel_commit(&r->channel, 0, LAYOUT_PRIORITY_DEFAULT);
        if (e < 0)
                return say_errno("the job cannot be submitted", e);
        bell_ring(r->bell, 0, r->doorbell_fd);
        return RUN_EXIT_DONE;
}

static int print_result(const struct run *r, const struct schema_job *job, const void *data, size_t bytes) {
        char why[256], *text = NULL;
        int e = args_check(&job->result, data, bytes, why, sizeof why);
        if (e < 0)
                return say(RUN_EXIT_FAILED, "job %s: %s", job->name, why);
        e = r->config->is_json ? args_to_json(&job->result, data, bytes, &text)
                               : args_to_text(&job->result, data, bytes, &text);
        if (e < 0)
                return say_errno("the result cannot be printed", e);
        if (*text) /* a job without results says nothing */
                puts(text);
        free(text);
        return RUN_EXIT_DONE;
}

static int print_verdict(const struct run *r, const struct schema_job *job, uint64_t word) {
        const struct layout_result *area = channel_result(&r->channel, 0);
        size_t bytes = area->bytes;
        int error = area->error;
        char *copy = bytes <= RUN_SLOT_BYTES ? malloc(bytes + 1) : NULL;
        if (!copy)
                return say(RUN_EXIT_FAILED, "the result makes no sense");
        memcpy(copy, channel_result_data(&r->channel, 0), bytes);
        copy[bytes] = 0;
        int code;
        if (slot_state(word) == SLOT_DONE)
                code = print_result(r, job, copy, bytes);
        else if (slot_state(word) == SLOT_FAILED)
                code = say(RUN_EXIT_FAILED, "job %s failed: %s (%s)", job->name, copy,
                           strerrorname_np(error) ?: "no error number");
        else
                code = say(RUN_EXIT_FAILED, "job %s: %s", job->name, words_slot_state(slot_state(word)));
        free(copy);
        return code;
}

static int run_job(struct run *r) {
        uint32_t type;
        const struct schema_job *job = schema_find(r->schema, r->config->job, &type);
        if (!job)
                return say(RUN_EXIT_USAGE, "plugin %s has no job %s", r->schema->plugin, r->config->job);
        int code = submit(r, type);
        while (code == RUN_EXIT_DONE) {
                uint64_t word = channel_word(&r->channel, 0);
                if (slot_is_verdict(word))
                        return print_verdict(r, job, word);
                struct pollfd p[2] = {{.fd = r->done_fd, .events = POLLIN}, {.fd = r->control_fd, .events = POLLIN}};
                if (poll(p, 2, -1) > 0 && p[1].revents && !slot_is_verdict(channel_word(&r->channel, 0)))
                        code = explain_death(r, "in the job");
        }
        return code;
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
        const struct schema *s = r->schema;
        if (r->config->is_json) {
                char *text;
                int e = schema_to_json(s, &text);
                if (e < 0)
                        return say_errno("the schema cannot be printed", e);
                puts(text);
                free(text);
                return RUN_EXIT_DONE;
        }
        printf("%s %s: fine (sandbox: %s)\n", s->plugin, s->version, r->sandbox);
        for (uint32_t i = 0; i < s->n_jobs; i++) {
                const struct schema_job *j = &s->jobs[i];
                printf("  %s(", j->name);
                print_fields(&j->args);
                printf(") -> ");
                print_fields(&j->result);
                printf("%s%s%s\n", j->is_once ? " [once]" : "", *j->help ? "  " : "", j->help);
        }
        return RUN_EXIT_DONE;
}

int run_plugin(const struct run_config *c) {
        static struct run run = {.plugin_fd = -1, .control_fd = -1}; /* the process is its life */
        struct run *r = &run;
        r->config = c;
        int e = open_plugin(c->plugin, &r->plugin_fd);
        if (e < 0)
                return say(RUN_EXIT_REFUSED, "%s: %s", c->plugin, strerrordesc_np(-e));
        e = make_memory(r);
        if (e >= 0)
                e = host_prepare();
        if (e >= 0)
                e = start_worker(r);
        if (e < 0)
                return say_errno("the worker cannot be started", e);
        int code = await_ready(r);
        if (code == RUN_EXIT_DONE)
                code = c->job ? run_job(r) : print_schema(r);
        retire_worker(r);
        schema_free(r->schema);
        return code;
}
