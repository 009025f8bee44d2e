/* Work that comes over the bus.
 *
 * Run and Submit read the same four arguments into one job; they part after the submission. A pool that has not had a
 * ready worker yet has no schema to read arguments by: the message then waits for the pool and the method runs again
 * from its start. The path of a Run is short on purpose (its latency is measured): one lookup, one pass over the
 * arguments, one allocation for the call. The job of a Run goes with its caller, unless it was asked to be detached or
 * has an idempotency key, by which others may wait for it: then it is as one of Submit. */
#include "daemon/bus/objects/run.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/value.h"
#include "ipc/values/priority.h"

struct option {
        const char *name;
        uint64_t minimum, maximum, factor;
        size_t offset; /* into struct job_request */
        bool is_wide;  /* u64, else u32 */
};

#define NARROW(field) 1, offsetof(struct job_request, field), false
#define USEC(field) UINT64_MAX / 1000, 1000, offsetof(struct job_request, field), true

static const struct option options[] = {
        {"max-attempts", 0, LAYOUT_MAX_ATTEMPTS, NARROW(max_attempts)},
        {"queue-timeout", 0, USEC(queue_timeout_ns)},
        {"soft-timeout", 0, USEC(soft_ns)},
        {"hard-timeout", 0, USEC(hard_ns)},
        {"not-before", 0, UINT64_MAX, 1, offsetof(struct job_request, not_before_us), true},
};

enum { MAX_KEY = 128, MAX_AFTER = 1024 };

struct wish {
        struct job_request request;
        bool is_detached; /* a Run that goes on without its caller */
};

static int read_key(sd_bus_message *m, struct job_request *q, sd_bus_error *e) {
        int r;

        r = value_enter_variant(m, "option idempotency-key", "s", e);
        if (r >= 0)
                r = sd_bus_message_read_basic(m, 's', &q->key);
        if (r >= 0 && (q->key[0] == '\0' || strlen(q->key) > MAX_KEY))
                return bus_invalid(e, "option \"idempotency-key\": 1 to %d bytes", MAX_KEY);
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_after(sd_bus_message *m, struct job_request *q, sd_bus_error *e) {
        const void *ids;
        size_t bytes;
        int r;

        r = value_enter_variant(m, "option after", "at", e);
        if (r >= 0)
                r = sd_bus_message_read_array(m, 't', &ids, &bytes);
        if (r < 0)
                return r;
        if (bytes > MAX_AFTER * sizeof(uint64_t))
                return bus_invalid(e, "option \"after\": %zu jobs, at most %d are taken", bytes / sizeof(uint64_t),
                                   MAX_AFTER);
        q->after = ids;
        q->n_after = (uint32_t)(bytes / sizeof(uint64_t));
        return sd_bus_message_exit_container(m);
}

static int read_stream(sd_bus_message *m, struct job_request *q, sd_bus_error *e) {
        int is_streamed, r;

        r = value_enter_variant(m, "option stream", "b", e);
        if (r >= 0)
                r = sd_bus_message_read_basic(m, 'b', &is_streamed);
        if (r < 0)
                return r;
        q->is_streamed = is_streamed;
        return sd_bus_message_exit_container(m);
}

static int read_priority(sd_bus_message *m, struct job_request *q, sd_bus_error *e) {
        uint64_t n;
        int r = value_read_number(m, "priority", PRIORITY_DEFAULT, PRIORITY_URGENT, &n, e);
        if (r < 0)
                return r;
        q->priority = priority_ring((uint32_t)n);
        return 0;
}

static int read_detached(sd_bus_message *m, struct wish *w, sd_bus_error *e) {
        int is_detached, r;

        r = value_enter_variant(m, "option detached", "b", e);
        if (r >= 0)
                r = sd_bus_message_read_basic(m, 'b', &is_detached);
        if (r < 0)
                return r;
        w->is_detached = is_detached;
        return sd_bus_message_exit_container(m);
}

static int read_option(sd_bus_message *m, struct wish *w, sd_bus_error *e) {
        struct job_request *q = &w->request;
        const char *name;
        uint64_t n;
        void *field;
        int r;

        r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
                if (strcmp(options[i].name, name) != 0)
                        continue;
                r = value_read_number(m, name, options[i].minimum, options[i].maximum, &n, e);
                if (r < 0)
                        return r;
                field = (char *)q + options[i].offset;
                if (options[i].is_wide)
                        *(uint64_t *)field = n * options[i].factor;
                else
                        *(uint32_t *)field = (uint32_t)n;
                return 0;
        }
        if (strcmp(name, "priority") == 0)
                return read_priority(m, q, e);
        if (strcmp(name, "idempotency-key") == 0)
                return read_key(m, q, e);
        if (strcmp(name, "after") == 0)
                return read_after(m, q, e);
        if (strcmp(name, "stream") == 0)
                return read_stream(m, q, e);
        if (strcmp(name, "detached") == 0)
                return read_detached(m, w, e);
        return bus_invalid(e,
                           "unknown option \"%.64s\"; there are priority, queue-timeout, soft-timeout, hard-timeout, "
                           "max-attempts, not-before, after, idempotency-key, stream, detached",
                           name);
}

static int read_options(sd_bus_message *m, struct wish *w, sd_bus_error *e) {
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_option(m, w, e);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* 0 and a job; 1 = the call waits for its pool; or an error. */
static int submit(struct bus *b, struct bus_peer *p, sd_bus_message *m, bus_method_fn again, bool *ret_is_kept,
                  struct job **ret, sd_bus_error *e) {
        struct wish w = {.request = {.uid = p->uid,
                                     .pid = p->pid,
                                     .connection = p->name,
                                     .priority = LAYOUT_PRIORITY_DEFAULT,
                                     .sees_all = authorize_is_root(p->uid)}};
        struct job_request *q = &w.request;
        const struct schema_job *type;
        struct fault f = {};
        const char *pool;
        bool must_wait = false;
        int r;

        r = sd_bus_message_read(m, "ss", &pool, &q->name);
        if (r >= 0)
                r = bus_find_pool(b, pool, &q->pool, e);
        if (r < 0)
                return r;
        type = pool_find_job_type(q->pool, q->name, &must_wait, &f);
        if (!type && must_wait)
                return call_wait_pool(p, m, again);
        if (!type)
                return bus_error_from_fault(e, &f);
        r = value_read_args(&b->scratch, m, type, pool_get_config(q->pool)->slot_bytes, &q->payload, &q->bytes, e);
        if (r >= 0)
                r = read_options(m, &w, e);
        if (r < 0)
                return r;
        q->fds = b->scratch.fds;
        q->n_fds = b->scratch.n_fds;
        q->payload_fd = b->scratch.payload_fd >= 0 ? &b->scratch.payload_fd : NULL;
        *ret_is_kept = w.is_detached || q->key;
        if (job_submit(q, ret, &f) == 0)
                return 0;
        if (f.code == FAULT_QUEUE_FULL && pool_get_config(q->pool)->overflow == OVERFLOW_BLOCK &&
            b->n_room_calls < BUS_MAX_ROOM_CALLS)
                return call_wait_room(p, m, again, pool);
        return bus_error_from_fault(e, &f);
}

int run_append_result(sd_bus_message *reply, const struct job_info *i, sd_bus_error *e) {
        const struct variants_fds fds = {
                .fds = i->result_fds, .n_fds = i->n_result_fds, .payload_fd = i->result_payload_fd};

        return value_append_result(reply, i->result_fields, i->result, i->result_bytes, &fds, e);
}

struct bus_weight run_result_weight(const struct job_info *i) {
        return (struct bus_weight){.n_bytes = BUS_REPLY_BYTES + 2 * i->result_bytes,
                                   .n_fds = i->n_result_fds + (i->result_payload_fd >= 0)};
}

static int answer_run(struct bus *b, sd_bus_message *m, struct job *j, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct job_info info;
        struct fault f = {};
        int r;

        job_get_fault(j, &f);
        if (f.code != FAULT_NONE)
                return bus_error_from_fault(e, &f);
        job_get_info(j, &info);
        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = run_append_result(reply, &info, e);
        return r < 0 ? r : bus_send(b, reply, run_result_weight(&info));
}

int run_method_run(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct job *j;
        bool is_kept;
        int r;

        r = call_check_room(p, e);
        if (r >= 0)
                r = submit(b, p, m, run_method_run, &is_kept, &j, e);
        if (r != 0)
                return r;
        return call_wait_verdict(p, m, is_kept ? CALL_WAIT : CALL_RUN, j, UINT64_MAX, answer_run);
}

int run_method_submit(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        char path[BUS_MAX_PATH];
        struct job_info info;
        bool is_kept;
        struct job *j;
        int r;

        r = call_check_room(p, e);
        if (r >= 0)
                r = submit(b, p, m, run_method_submit, &is_kept, &j, e);
        if (r != 0)
                return r;
        job_get_info(j, &info);
        bus_job_path(info.id, path);
        return bus_reply(b, m, "to", info.id, path);
}
