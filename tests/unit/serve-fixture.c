/* Starts a worker, gives it jobs and waits for what it does. */
#include "tests/unit/serve-fixture.h"

#include "ipc/memory/packet.h"
#include "ipc/values/args.h"
#include "tests/unit/host-fixture.h"

uint64_t serve_fixture_deadline(void) { return event_now_ns() + SECONDS * UINT64_C(1000000000); }

pid_t serve_fixture_start(struct trial *t, const char *plugin) {
        int control;
        pid_t pid = host_fixture_start("worker", plugin, &control);
        host_fixture_trial(t, control, false);
        return pid;
}

void serve_fixture_finish(struct trial *t, pid_t pid, int expected_status) {
        trial_retire(t);
        assert_int_equal(host_fixture_reap(pid), expected_status);
        trial_deinit(t);
}

void serve_fixture_submit(struct trial *t, uint32_t slot, const char *job, const char *name, uint64_t value,
                          uint32_t priority) {
        uint32_t type;
        size_t bytes;
        struct args_writer w;
        assert_non_null(schema_find(t->schema, job, &type));
        assert_int_equal(trial_begin(t, slot), 0);
        args_writer_init(&w, channel_payload(&t->channel, slot), TRIAL_SLOT_BYTES);
        args_put(&w, name, &(struct args_value){.type = SCHEMA_U64, .u64 = value});
        assert_int_equal(args_finish(&w, &bytes), 0);
        assert_int_equal(trial_commit(t, slot, type, bytes, priority), 0);
}

unsigned serve_fixture_verdict(struct trial *t, uint32_t slot) {
        uint64_t word;
        assert_int_equal(trial_wait(t, slot, serve_fixture_deadline(), &word), 0);
        return slot_state(word);
}

bool serve_fixture_is_running(struct trial *t, uint32_t slot) {
        return slot_state(channel_word(&t->channel, slot)) == SLOT_RUNNING;
}

void serve_fixture_await_dropped(struct trial *t) {
        struct pollfd p = {.fd = t->control_fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, SECONDS * 1000), 1);
        struct worker_report report;
        size_t bytes;
        assert_int_equal(packet_receive(t->control_fd, &report, sizeof report, &bytes, NULL, NULL), 0);
        assert_int_equal(report.type, REPORT_DROPPED);
        assert_int_equal(report.channel, 0);
}
