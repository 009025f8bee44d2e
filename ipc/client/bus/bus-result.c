/* The answer to GetResult, as a verdict: what a channel's job leaves in its slot comes in a dictionary here, and the
 * result's fields as D-Bus variants. They go through the builder of arguments, so that a future holds the same bytes
 * whichever way its job went. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/bus/bus-job.h"
#include "ipc/memory/event.h"
#include "ipc/memory/sealed.h"

/* ---- the result ---- */

static int bus_result_read_texts(sd_bus_message *m, drover_args *to, const char *name) {
        char **texts = NULL;
        int r = sd_bus_message_read_strv(m, &texts);
        size_t n = 0;
        while (texts && texts[n])
                n++;
        if (r >= 0)
                r = drover_args_str_array(to, name, (const char *const *)texts, n);
        for (size_t i = 0; i < n; i++)
                free(texts[i]);
        free(texts);
        return r;
}

static int bus_result_read_bools(sd_bus_message *m, drover_args *to, const char *name) {
        const void *data;
        size_t bytes;
        int r = sd_bus_message_read_array(m, 'b', &data, &bytes);
        size_t n = r > 0 ? bytes / sizeof(int) : 0;
        bool *values = calloc(n + 1, sizeof *values);
        if (!values)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                values[i] = ((const int *)data)[i];
        if (r >= 0)
                r = drover_args_bool_array(to, name, values, n);
        free(values);
        return r;
}

static int bus_result_read_array(sd_bus_message *m, char type, drover_args *to, const char *name) {
        const void *data = NULL;
        size_t bytes = 0;
        if (type == 's')
                return bus_result_read_texts(m, to, name);
        if (type == 'b')
                return bus_result_read_bools(m, to, name);
        int r = strchr("ytxd", type) ? sd_bus_message_read_array(m, type, &data, &bytes) : -EPROTO;
        if (r < 0)
                return r;
        switch (type) {
        case 'y':
                return drover_args_bytes(to, name, data, bytes);
        case 't':
                return drover_args_u64_array(to, name, data, bytes / sizeof(uint64_t));
        case 'x':
                return drover_args_i64_array(to, name, data, bytes / sizeof(int64_t));
        default:
                return drover_args_f64_array(to, name, data, bytes / sizeof(double));
        }
}

static int bus_result_read_fd(sd_bus_message *m, bool is_raw, drover_args *to, const char *name) {
        int fd, r = sd_bus_message_read_basic(m, 'h', &fd);
        if (r < 0)
                return r;
        return is_raw ? drover_args_raw_fd(to, fd) : drover_args_fd(to, name, fd);
}

static int bus_result_read_basic(sd_bus_message *m, char type, drover_args *to, const char *name) {
        union {
                uint64_t t;
                int64_t x;
                double d;
                int b;
                const char *s;
        } v;
        int r = strchr("txdbs", type) ? sd_bus_message_read_basic(m, type, &v) : -EPROTO;
        if (r < 0)
                return r;
        switch (type) {
        case 't':
                return drover_args_u64(to, name, v.t);
        case 'x':
                return drover_args_i64(to, name, v.x);
        case 'd':
                return drover_args_f64(to, name, v.d);
        case 'b':
                return drover_args_bool(to, name, v.b);
        default:
                return drover_args_str(to, name, v.s);
        }
}

/* The name and its variant. */
static int bus_result_read_field(sd_bus_message *m, bool is_raw, drover_args *to) {
        const char *name, *contents;
        const void *data;
        size_t bytes;
        char type;
        int r = sd_bus_message_read_basic(m, 's', &name);
        if (r >= 0)
                r = sd_bus_message_peek_type(m, &type, &contents);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'v', contents);
        if (r < 0)
                return r;
        if (strcmp(contents, "h") == 0)
                r = bus_result_read_fd(m, is_raw, to, name);
        else if (is_raw) {
                r = strcmp(contents, "ay") == 0 ? sd_bus_message_read_array(m, 'y', &data, &bytes) : -EPROTO;
                if (r >= 0)
                        r = drover_args_raw(to, data, bytes);
        } else
                r = contents[0] == 'a' ? bus_result_read_array(m, contents[1], to, name)
                                       : bus_result_read_basic(m, contents[0], to, name);
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int bus_result_read_fields(sd_bus_message *m, bool is_raw, drover_args *to) {
        int r = sd_bus_message_enter_container(m, 'v', "a{sv}");
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = bus_result_read_field(m, is_raw, to);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* What the builder collected besides bytes goes over to the future. */
static int bus_result_take_fds(drover_args *from, struct future_verdict *v) {
        if (from->n_fds == 0 && !from->has_payload_fd)
                return 0;
        struct session_fds *f = calloc(1, sizeof *f);
        uint64_t bytes;
        int r = f ? 0 : -ENOMEM;
        if (r >= 0 && from->has_payload_fd)
                r = sealed_check(from->payload_fd, &bytes);
        if (r >= 0 && from->has_payload_fd)
                r = sealed_map(from->payload_fd, bytes, &f->mapped);
        if (r < 0) {
                free(f);
                return r;
        }
        if (f->mapped) {
                f->mapped_bytes = bytes;
                v->data = f->mapped;
                v->bytes = bytes;
        }
        memcpy(f->fds, from->fds, from->n_fds * sizeof *f->fds);
        f->n_fds = from->n_fds;
        from->n_fds = 0;
        v->fds = f;
        return 0;
}

/* ---- the rest ---- */

enum drover_state bus_result_state(const char *word) {
        for (enum drover_state state = DROVER_DONE; state < DROVER_LOST; state++)
                if (strcmp(drover_state_name(state), word) == 0)
                        return state;
        return DROVER_LOST;
}

/* What a dictionary of GetResult holds, as far as a future tells it. */
struct bus_result {
        const char *state, *error, *reason;
        int32_t error_number, signal, status;
        uint32_t attempts, worker_pid;
        uint64_t queue_us, run_us;
};

static int bus_result_read_entry(sd_bus_message *m, bool is_raw, drover_args *to, struct bus_result *b) {
        const struct {
                const char *key, *type;
                void *value;
        } known[] = {
                {"state", "s", &b->state},         {"error", "s", &b->error},
                {"reason", "s", &b->reason},       {"errno", "i", &b->error_number},
                {"signal", "i", &b->signal},       {"status", "i", &b->status},
                {"attempts", "u", &b->attempts},   {"worker-pid", "u", &b->worker_pid},
                {"queue-usec", "t", &b->queue_us}, {"run-usec", "t", &b->run_us},
        };
        const char *key;
        int r = sd_bus_message_read(m, "s", &key);
        if (r < 0)
                return r;
        if (strcmp(key, "result") == 0)
                return bus_result_read_fields(m, is_raw, to);
        for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
                if (strcmp(key, known[i].key) == 0)
                        return sd_bus_message_read(m, "v", known[i].type, known[i].value);
        return sd_bus_message_skip(m, "v");
}

/* The broker tells how long it waited and ran, the future's submission is when we heard that it is accepted. Nothing is
 * in the future for that: all is as much earlier. */
static void bus_result_set_times(const struct bus_result *b, struct future_verdict *v) {
        uint64_t queue_ns, run_ns, end_ns, now_ns = event_now_ns();
        if (b->attempts == 0 || __builtin_mul_overflow(b->queue_us, UINT64_C(1000), &queue_ns) ||
            __builtin_mul_overflow(b->run_us, UINT64_C(1000), &run_ns) ||
            __builtin_add_overflow(queue_ns, run_ns, &end_ns) || end_ns > now_ns)
                return;
        if (v->submitted_ns > now_ns - end_ns)
                v->submitted_ns = now_ns - end_ns;
        v->started_ns = v->submitted_ns + queue_ns;
        v->finished_ns = v->started_ns + run_ns;
}

int bus_result_read(sd_bus_message *m, bool is_raw, drover_args *result, struct future_verdict *v) {
        struct bus_result b = {.reason = ""};
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = bus_result_read_entry(m, is_raw, result, &b);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = b.state ? builder_complete(result, &v->data, &v->bytes) : -EPROTO;
        if (r >= 0)
                r = bus_result_take_fds(result, v);
        if (r < 0)
                return r;
        v->state = bus_result_state(b.state);
        v->code = future_code(v->state, b.error_number);
        if (v->state != DROVER_DONE) {
                v->data = b.error ? b.error : "";
                v->bytes = strlen(v->data);
        }
        v->attempt = b.attempts;
        v->worker_pid = (int32_t)b.worker_pid;
        bus_result_set_times(&b, v);
        v->signal = b.signal;
        v->status = b.status;
        v->reason = b.reason;
        return 0;
}
