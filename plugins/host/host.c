/* A worker's life in chapters, each a function below, in the order of host.h. Owns their order, and what is
 * told to whom when one fails. The first, what becomes of the process itself, is in become.c.
 *
 * The order is that of safety: whatever the plugin's code could abuse is gone before the first instruction of it runs,
 * and constructors run in dlopen, so the sandbox is closed in the middle of that (sandbox.c). Only the system libraries
 * that the plugin names run outside, because nothing can be opened later.
 *
 * Every failure before READY is told in one sentence, by REPORT_FAILED to the broker or TEMPLATE_FAILED to the spawner,
 * and ends the process with HOST_EXIT_FAILED. A call that the filter stopped is told by number, path, place
 * and phase: in pool memory, or by the template's socket.
 *
 * What it does not do: decide. It never restarts, never counts; that is the broker's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include "ipc/memory/kernel.h"
#include "ipc/memory/packet.h"
#include "ipc/memory/segment.h"
#include "plugins/host/become.h"
#include "plugins/host/host.h"
#include "plugins/host/job/job.h"
#include "plugins/host/job/serve-process.h"
#include "plugins/host/sandbox/forbidden.h"
#include "plugins/host/sandbox/place.h"
#include "plugins/host/sandbox/threads.h"
#include "plugins/host/template.h"

int host_prepare(void) {
        const struct filter *f;
        return filter_get(FILTER_WORKER, &f);
}

/* ---- telling ---- */

int host_wait_readable(void) {
        struct pollfd p = {.fd = WIRE_CONTROL_FD, .events = POLLIN};
        return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

int host_send(const struct host *h, const void *data, size_t bytes) { return host_send_fds(h, data, bytes, NULL, 0); }

int host_send_fds(const struct host *h, const void *data, size_t bytes, const int *fds, unsigned n_fds) {
        int r;
        while ((r = packet_send(WIRE_CONTROL_FD, data, bytes, fds, n_fds)) == -EAGAIN) {
                struct pollfd p = {.fd = WIRE_CONTROL_FD, .events = POLLOUT};
                if (poll(&p, 1, -1) < 0 && errno != EINTR)
                        return -errno;
        }
        return r;
}

/* A template has no line to write it to, but a socket; CLOSED says that constructors are next. */
static void host_begin(struct host *h, enum life_phase phase, uintptr_t function) {
        const struct template_event loaded = {.type = TEMPLATE_LOADED, .version = WIRE_VERSION};
        host_enter(h, phase, function);
        if (h->line)
                atomic_store_explicit(&h->line->start_phase, phase, memory_order_relaxed);
        else if (phase == LIFE_PRELOAD && function)
                host_send(h, &loaded, sizeof loaded);
}

/* Before a call that does not return a sanitizer reads about the stack in /proc; from the signal handler it may not. */
__attribute__((no_sanitize("address"))) void host_fail(struct host *h, enum death_reason reason, int error,
                                                       bool is_permanent, const char *format, ...) {
        char text[WIRE_TEXT];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        if (h->config.role == HOST_TEMPLATE) {
                struct template_event e = {.type = TEMPLATE_FAILED,
                                           .version = WIRE_VERSION,
                                           .error = error,
                                           .reason = reason,
                                           .is_permanent = is_permanent};
                memcpy(e.text, text, sizeof text);
                host_send(h, &e, sizeof e);
        } else {
                struct worker_report r = {.type = REPORT_FAILED,
                                          .version = WIRE_VERSION,
                                          .error = error,
                                          .reason = reason,
                                          .is_permanent = is_permanent};
                memcpy(r.text, text, sizeof text);
                host_send(h, &r, sizeof r);
        }
        _exit(HOST_EXIT_FAILED);
}

/* From the signal handler: a system call breaks the filter. Its number is told before anything else of it is looked at,
 * since that may not be sound. */
__attribute__((no_sanitize("address"))) static void host_on_breach(void *user, const struct sandbox_breach *b) {
        struct host *h = user;
        struct layout_worker *w = h->line;
        struct place place = {.module = ""};
        char path[LAYOUT_PATH] = "";
        enum life_phase phase = syscall(SYS_gettid) == getpid() ? h->phase : LIFE_OWN_THREAD;
        if (w) {
                atomic_store_explicit(&w->fault_phase, phase, memory_order_relaxed);
                atomic_store_explicit(&w->fault_syscall, (uint32_t)b->number + 1, memory_order_release);
        }
        if (b->path && !forbidden_copy_path(b->path, path, sizeof path))
                path[0] = 0;
        if (b->is_unsound)
                place_find(b->instruction, &place);
        else
                place_find_caller(b->instruction, h->callback, &place);
        if (w) {
                memcpy(w->fault_path, path, sizeof w->fault_path);
                memcpy(w->fault_module, place.module, sizeof w->fault_module);
                atomic_store_explicit(&w->fault_offset, place.offset, memory_order_release);
                return;
        }
        struct template_event e = {
                .type = TEMPLATE_FAILED,
                .version = WIRE_VERSION,
                .error = EPERM,
                .reason = REASON_SYSCALL,
                .breach = {.syscall = (uint32_t)b->number + 1, .phase = phase, .offset = place.offset},
        };
        memcpy(e.breach.module, place.module, sizeof e.breach.module);
        memcpy(e.breach.path, path, sizeof e.breach.path);
        packet_send(WIRE_CONTROL_FD, &e, sizeof e, NULL, 0);
}

/* From the signal handler. */
static void host_on_crash(void *user, int signal, uintptr_t address, uintptr_t instruction) {
        struct host *h = user;
        if (!h->line)
                return;
        struct place place;
        if (place_find(instruction, &place)) {
                memcpy(h->line->fault_module, place.module, sizeof h->line->fault_module);
                atomic_store_explicit(&h->line->fault_offset, place.offset, memory_order_relaxed);
        }
        atomic_store_explicit(&h->line->fault_address, address, memory_order_relaxed);
        atomic_store_explicit(&h->line->fault_signal, (uint32_t)signal, memory_order_release);
}

/* ---- set up ---- */

static int receive_setup(struct worker_order *order, int *fds, unsigned *n_fds) {
        size_t bytes;
        for (;;) {
                unsigned room = *n_fds;
                int r = packet_await(WIRE_CONTROL_FD, order, sizeof *order, &bytes, fds, &room);
                if (r == -EAGAIN && (r = host_wait_readable()) >= 0)
                        continue;
                if (r < 0)
                        return r;
                *n_fds = room;
                if (bytes == 0)
                        return -EPIPE;
                return bytes == sizeof *order && order->type == ORDER_SETUP && order->version == WIRE_VERSION ? 0
                                                                                                              : -EPROTO;
        }
}

int host_set_up(struct host *h) {
        struct worker_order order;
        int fds[4] = {-1, -1, -1, -1};
        unsigned n_fds = 4;
        int r = receive_setup(&order, fds, &n_fds);
        if (r == -EPIPE)
                return r;
        if (r < 0 || n_fds != 4 || order.index >= LAYOUT_MAX_WORKERS)
                host_fail(h, REASON_INIT, EPROTO, true,
                          "the first order was no ORDER_SETUP: broker and worker are of different builds");
        if (order.model != DROVER_MODEL_PROCESS)
                host_fail(h, REASON_INIT, EOPNOTSUPP, true, "Model= other than process is not built yet");

        void *pool;
        r = segment_check(fds[0], LAYOUT_POOL_BYTES);
        if (r >= 0)
                r = segment_map(fds[0], 0, LAYOUT_POOL_BYTES, true, &pool);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "the pool memory cannot be mapped: %s", strerrordesc_np(-r));
        h->pool = pool;
        h->line = &h->pool->worker[order.index];
        h->index = order.index;
        h->id = order.id;
        h->doorbell_fd = fds[1];
        h->items_fd = fds[3];
        memcpy(h->name, order.pool, sizeof h->name);
        h->name[sizeof h->name - 1] = 0;
        if (dup3(fds[2], STDOUT_FILENO, 0) < 0 || dup3(fds[2], STDERR_FILENO, 0) < 0)
                host_fail(h, REASON_INIT, errno, false, "the output cannot be put in place: %s",
                          strerrordesc_np(errno));
        close(fds[0]);
        h->output_fd = order.marks_output == 1 ? fds[2] : -1;
        if (h->output_fd < 0)
                close(fds[2]);
        return 0;
}

/* ---- enclose ---- */

struct enclosure {
        struct host *host;
        int stat_fd;
        long n_threads;
};

/* A fork takes only the calling thread along, so a template must not have others. Names who started them. */
static int refuse_threads(struct enclosure *e, const char *who, char *error, size_t error_bytes) {
        e->n_threads = threads_count(e->stat_fd);
        if (e->host->config.role != HOST_TEMPLATE || e->n_threads == 1)
                return 0;
        snprintf(error, error_bytes,
                 "plugin %s cannot be forked: %s left %ld %s running; keep it from that with Environment= (as in "
                 "OPENBLAS_NUM_THREADS=1), "
                 "or use StartMethod=spawn",
                 e->host->plugin.metadata.name, who, e->n_threads - 1, e->n_threads == 2 ? "thread" : "threads");
        return -EBUSY;
}

static int on_needed_loaded(void *user, const char *soname, char *error, size_t error_bytes) {
        struct enclosure *e = user;
        long before = e->n_threads;
        int r = refuse_threads(e, soname, error, error_bytes);
        if (e->n_threads > before)
                snprintf(e->host->threads_by, sizeof e->host->threads_by, "%s", soname);
        return r;
}

/* Before the filter comes, and with it Landlock, which the kernel has for the calling thread only. */
static void settle_threads(struct host *h, struct enclosure *e) {
        char error[WIRE_TEXT];
        e->n_threads = threads_count(e->stat_fd);
        int r = e->n_threads == 1 ? 0 : threads_await_traps(error, sizeof error);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "plugin %s: %s%s%s", h->plugin.metadata.name, h->threads_by,
                          h->threads_by[0] ? ": " : "", error);
        e->n_threads = threads_count(e->stat_fd);
}

static _Unwind_Reason_Code stop_at_once(struct _Unwind_Context *context, void *user) { return _URC_NORMAL_STOP; }

/* What glibc would otherwise open in the middle of a job. */
static void prewarm(void) {
        _Unwind_Backtrace(stop_at_once,
                          NULL); /* links libgcc_s.so.1, which pthread_cancel and backtrace would dlopen */
        tzset();
        setvbuf(stdout, NULL, _IOLBF, 0); /* a line of output is a line in the journal, not lost with the process */
}

static void host_enclose(struct host *h, struct enclosure *e) {
        char error[WIRE_TEXT];
        *e = (struct enclosure){.host = h, .n_threads = 1};
        int r = load_metadata(&h->plugin, WIRE_PLUGIN_FD, error, sizeof error);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "%s", error);
        bool is_template = h->config.role == HOST_TEMPLATE;
        if (is_template && template_prepare(h) < 0)
                host_fail(h, REASON_INIT, ENOTSUP, true,
                          "this kernel lacks what a template needs (PR_GET_TID_ADDRESS, F_SETSIG): use "
                          "StartMethod=spawn");
        r = sandbox_prepare(&h->sandbox, is_template);
        if (r >= 0 && (e->stat_fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC)) < 0)
                r = -errno;
        h->config.limits.is_template = is_template;
        if (r >= 0)
                r = sandbox_limit(&h->sandbox, &h->config.limits);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "the sandbox cannot be set up: %s", strerrordesc_np(-r));
        prewarm();
        r = load_needed(&h->plugin, on_needed_loaded, e, error, sizeof error);
        if (r < 0)
                host_fail(h, is_template ? REASON_PRELOAD : REASON_INIT, -r, true, "%s", error);
        place_name_plugin(h->plugin.metadata.name);
        sandbox_on_breach(host_on_breach, h);
        sandbox_on_crash(host_on_crash, h);
        settle_threads(h, e);
        r = sandbox_enter(&h->sandbox, e->n_threads == 1);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "the sandbox cannot be closed: %s", strerrordesc_np(-r));
}

/* ---- load ---- */

static const char *describe_descriptor(int fd) {
        struct stat st;
        if (fstat(fd, &st) < 0)
                return "a descriptor";
        return S_ISSOCK(st.st_mode)   ? "a socket"
               : S_ISFIFO(st.st_mode) ? "a pipe"
               : S_ISREG(st.st_mode)  ? "a file"
               : S_ISCHR(st.st_mode)  ? "a device"
                                      : "an event or timer descriptor";
}

/* Workers would share it, or not know whose it is. */
static void refuse_descriptors(struct host *h) {
        for (int fd = BECOME_FIRST_FREE_FD; fd < LIMITS_MAX_FDS; fd++)
                if (fcntl(fd, F_GETFD) >= 0)
                        host_fail(h, REASON_PRELOAD, EBUSY, true,
                                  "plugin %s cannot be forked: preload left descriptor %d (%s) open; open it in "
                                  "worker_open, or use "
                                  "StartMethod=spawn",
                                  h->plugin.metadata.name, fd, describe_descriptor(fd));
}

/* The layers, told while all that is in this process is ours: what it says later may be the plugin's word. */
static int tell_closed(const struct host *h) {
        if (h->config.role == HOST_TEMPLATE) {
                struct template_event e = {.type = TEMPLATE_CLOSED, .version = WIRE_VERSION};
                sandbox_describe(&h->sandbox, e.text, sizeof e.text);
                int r = host_send_fds(h, &e, sizeof e, &h->sandbox.listener_fd, 1);
                close(h->sandbox.listener_fd);
                return r;
        }
        struct worker_report r = {.type = REPORT_CLOSED, .version = WIRE_VERSION};
        sandbox_describe(&h->sandbox, r.sandbox, sizeof r.sandbox);
        memcpy(r.text, h->threads_by, sizeof h->threads_by);
        return host_send(h, &r, sizeof r);
}

/* From the signal handler: the plugin is mapped, and nothing of it has run. */
__attribute__((no_sanitize("address"))) static void host_on_mapped(void *user) {
        struct host *h = user;
        int r = sandbox_close(&h->sandbox);
        if (r == -EBUSY && h->config.role == HOST_TEMPLATE)
                host_fail(h, REASON_INIT, EBUSY, true,
                          "a template's system calls are answered by the spawner (seccomp user notification), and "
                          "something else, of this container's runtime, answers ours: use StartMethod=spawn");
        if (r >= 0)
                r = tell_closed(h);
        if (r == -EPIPE)
                _exit(HOST_EXIT_DONE);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "the sandbox cannot be closed: %s", strerrordesc_np(-r));
}

static void host_load(struct host *h, struct enclosure *e) {
        char error[WIRE_TEXT];
        bool is_template = h->config.role == HOST_TEMPLATE;
        host_begin(h, LIFE_CONSTRUCTOR, 0);
        sandbox_admit_plugin(host_on_mapped, h);
        int r = load_plugin(&h->plugin, &job_table, error, sizeof error);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "%s", error);
        if (!(h->sandbox.layers & SANDBOX_SECCOMP)) /* a loader that does it in another way than all we know */
                host_fail(h, REASON_INIT, ENOTSUP, true,
                          "the sandbox could not be closed in time: the loader of this C library kept the file of "
                          "plugin %s open",
                          h->plugin.metadata.name);
        if (refuse_threads(e, "a constructor", error, sizeof error) < 0)
                host_fail(h, REASON_PRELOAD, EBUSY, true, "%s", error);
        host_begin(h, LIFE_PRELOAD, (uintptr_t)h->plugin.declared.preload);
        if (h->plugin.declared.preload) {
                r = h->plugin.declared.preload(&h->preload, &h->plugin.shared);
                if (r != 0)
                        host_fail(h, REASON_PRELOAD, abs(r), false, "plugin %s: preload failed: %s",
                                  h->plugin.metadata.name, strerrordesc_np(abs(r)) ?: "unknown error");
                if (refuse_threads(e, "preload", error, sizeof error) < 0)
                        host_fail(h, REASON_PRELOAD, EBUSY, true, "%s", error);
        }
        close(e->stat_fd);
        if (is_template)
                refuse_descriptors(h);
}

/* ---- open ---- */

static void check_init(struct host *h, const char *callback, int r) {
        if (r != 0)
                host_fail(h, REASON_INIT, abs(r), false, "plugin %s: %s failed: %s", h->plugin.metadata.name, callback,
                          strerrordesc_np(abs(r)) ?: "unknown error");
}

static int report_ready(struct host *h) {
        struct {
                struct worker_report report;
                char schema[WIRE_MAX_REPORT - sizeof(struct worker_report)];
        } *m = malloc(sizeof *m); /* 40 KiB that nobody touches are not even there */
        if (!m)
                return -ENOMEM;
        size_t bytes;
        int r = schema_write(&h->plugin.schema, m->schema, sizeof m->schema, &bytes);
        if (r >= 0) {
                m->report = (struct worker_report){
                        .type = REPORT_READY, .version = WIRE_VERSION, .text_bytes = (uint32_t)bytes};
                memcpy(m->report.build_id, h->plugin.metadata.build_id, sizeof m->report.build_id);
                r = host_send(h, m, sizeof m->report + bytes);
        }
        free(m);
        return r;
}

static void *host_open(struct host *h) {
        const struct drover_plugin *p = &h->plugin.declared;
        void *thread_state = NULL;
        host_begin(h, LIFE_WORKER_OPEN, (uintptr_t)p->worker_open);
        if (p->worker_open)
                check_init(h, "worker_open", p->worker_open(&h->worker));
        host_begin(h, LIFE_WORKER_INIT, (uintptr_t)p->worker_init);
        if (p->worker_init)
                check_init(h, "worker_init", p->worker_init(&h->worker, &h->state));
        host_begin(h, LIFE_THREAD_INIT, (uintptr_t)p->thread_init);
        if (p->thread_init)
                check_init(h, "thread_init", p->thread_init(&h->worker, &thread_state));
        host_begin(h, LIFE_BETWEEN_JOBS, 0);
        int r = report_ready(h);
        if (r < 0)
                host_fail(h, REASON_INIT, -r, true, "READY cannot be told: %s", strerrordesc_np(-r));
        return thread_state;
}

/* ---- serve ---- */

void host_serve(struct host *h) {
        const struct drover_plugin *p = &h->plugin.declared;
        void *thread_state = host_open(h);
        int r = serve_process(h, thread_state);
        if (r == 0) {
                host_enter(h, LIFE_THREAD_FINI, (uintptr_t)p->thread_fini);
                if (p->thread_fini)
                        p->thread_fini(&h->worker, thread_state);
                host_enter(h, LIFE_WORKER_FINI, (uintptr_t)p->worker_fini);
                if (p->worker_fini)
                        p->worker_fini(&h->worker, h->state);
        }
        fflush(NULL);
        if (r == -EMFILE)
                host_fail(h, REASON_EXIT, EMFILE, false,
                          "plugin %s has left no descriptor free in its worker (of %d): it leaks them",
                          h->plugin.metadata.name, LIMITS_MAX_FDS);
        _exit(r == 0 || r == -EPIPE ? HOST_EXIT_DONE : HOST_EXIT_STALE);
}

/* It cannot become what it should be, for want of `refused` system calls or because of `error`. A worker is heard once
 * it was spoken to, and our socket may not stand in its place yet. */
_Noreturn static void give_up(struct host *h, unsigned refused, int error) {
        char text[WIRE_TEXT - 64];
        if (error < 0)
                dup2(h->config.control_fd, WIRE_CONTROL_FD);
        if (h->config.role == HOST_WORKER && host_set_up(h) < 0)
                _exit(HOST_EXIT_DONE);
        if (!refused)
                host_fail(h, REASON_INIT, -error, false, "the process cannot be set up: %s", strerrordesc_np(-error));
        kernel_describe_refused(refused, text, sizeof text);
        host_fail(h, REASON_INIT, ENOSYS, true, "system calls that a worker needs are refused: %s", text);
}

void host_main(const struct host_config *c) {
        static struct host host; /* one process, one host; in a template, the copy every worker starts from */
        struct host *h = &host;
        struct enclosure enclosure;
        h->config = *c;
        snprintf(h->name, sizeof h->name, "%s", c->name ? c->name : "");
        h->worker.object = (struct host_object){.sdk = {.host = &job_table}, .host = h};
        h->preload.object = h->worker.object;

        unsigned refused =
                kernel_find_refused(KERNEL_FUTEX_WAITV | KERNEL_CLOSE_RANGE | KERNEL_MEMFD_CREATE | KERNEL_SECCOMP);
        int r = become_host(c);
        if (r == -ESRCH)
                _exit(HOST_EXIT_DONE);
        if (refused || r < 0)
                give_up(h, refused, r);
        if (c->role == HOST_WORKER && host_set_up(h) < 0)
                _exit(HOST_EXIT_DONE);
        host_enclose(h, &enclosure);
        host_load(h, &enclosure);
        if (c->role == HOST_TEMPLATE)
                template_serve(h);
        host_serve(h);
}
