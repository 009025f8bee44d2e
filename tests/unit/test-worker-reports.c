/* Job types that change with the plugin file: who may still run what. And who is believed to be READY. */
#include "tests/unit/supervise-fixture.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "ipc/memory/packet.h"

static const char old_types[] = "fake\t1.0\nwork\t\t\t1\t0\t\n",
                  new_types[] = "fake\t2.0\nplay\t\t\t1\t0\t\nwork\t\t\t1\t0\t\n",
                  fewer_types[] = "fake\t3.0\nwork\t\t\t1\t0\t\n";

/* FNV-1a makes the same number of these two words. */
static const char liquid[] = "fake\t1.0\nliquid\t\t\t1\t0\t\n", costarring[] = "fake\t2.0\ncostarring\t\t\t1\t0\t\n",
                  both[] = "fake\t3.0\nliquid\t\t\t1\t0\t\ncostarring\t\t\t1\t0\t\n";

static void three_workers(struct pool_config *c) { c->n_workers = 3; }

static enum worker_phase phase(const struct stand_in *w) { return supervisor_find_worker(supervisor, w->id)->phase; }

/* Of three workers one is ready, one takes its time, one waits for its process, when the file is another one. */
static struct stand_in replace_file(struct pool *p, const char *types) {
        struct fault f;
        worker_schema = types;
        assert_int_equal(pool_restart(p, &f), 0);
        load();
        return ready();
}

static void test_who_lacks_a_type_ends(void **state) {
        struct pool *p = add_pool(three_workers);
        load();
        struct stand_in first = ready(), late = started(expect(SPAWN_START).worker);
        struct stand_in third = started(expect(SPAWN_START).worker);
        struct stand_in newer = replace_file(p, new_types);
        assert_int_equal(phase(&first), PHASE_STOPPING); /* it would claim jobs of type play */
        assert_int_equal(phase(&newer), PHASE_READY);
        assert_string_equal(p->schema->version, "2.0");
        end(&first, CLD_EXITED, 0);
        end(&late, CLD_KILLED, SIGKILL);
        end(&third, CLD_KILLED, SIGKILL);
        end(&newer, CLD_KILLED, SIGKILL);
}

static void test_who_comes_late_with_an_older_list(void **state) {
        struct pool *p = add_pool(three_workers);
        load();
        struct stand_in first = ready();
        worker_schema = fewer_types;
        struct stand_in late = started(expect(SPAWN_START).worker), third = started(expect(SPAWN_START).worker);
        struct stand_in newer = replace_file(p, fewer_types);
        assert_int_equal(phase(&first), PHASE_READY); /* it knows every type there is */
        const struct schema *before = p->schema;
        worker_schema = old_types;
        report(&late, REPORT_READY, 0);
        UNTIL(phase(&late) == PHASE_STOPPING);
        assert_ptr_equal(p->schema, before);
        /* It did nothing wrong. */
        assert_int_equal(supervisor_find_worker(supervisor, late.id)->doom, REASON_RECYCLED);
        end(&first, CLD_KILLED, SIGKILL);
        end(&late, CLD_KILLED, SIGKILL);
        end(&third, CLD_KILLED, SIGKILL);
        end(&newer, CLD_KILLED, SIGKILL);
}

/* A job of the one would run as one of the other. */
static void check_refused(struct pool *p, const char *types, const char *why) {
        struct fault f;
        const struct schema *before = p->schema;
        worker_schema = types;
        assert_int_equal(pool_restart(p, &f), 0);
        load();
        struct stand_in w = started(expect(SPAWN_START).worker);
        report(&w, REPORT_READY, 0);
        UNTIL(phase(&w) == PHASE_STOPPING);
        assert_non_null(strstr(supervisor_find_worker(supervisor, w.id)->text, why));
        assert_ptr_equal(p->schema, before);
        end(&w, CLD_KILLED, SIGKILL);
}

static void test_two_types_of_one_number(void **state) {
        worker_schema = liquid;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in first = ready();
        check_refused(p, costarring, "costarring happens to have the number of liquid before it");
        assert_int_equal(phase(&first), PHASE_READY);
        end(&first, CLD_KILLED, SIGKILL);
}

static void test_two_types_of_one_number_in_one_list(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in first = ready();
        check_refused(p, both, "\"liquid\" and \"costarring\" happen to have the same number");
        assert_int_equal(phase(&first), PHASE_READY);
        end(&first, CLD_KILLED, SIGKILL);
}

/* Whose sandbox nobody told of is not ready, whatever it says, and who tells of it twice is not the host. */
static void test_ready_only_after_closed(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = started(expect(SPAWN_START).worker);
        supervisor_find_worker(supervisor, w.id)->sandbox[0] = 0;
        report(&w, REPORT_READY, 0);
        UNTIL(phase(&w) == PHASE_STOPPING);
        assert_null(p->schema);
        end(&w, CLD_KILLED, SIGKILL);

        w = started(expect(SPAWN_START).worker);
        supervisor_find_worker(supervisor, w.id)->sandbox[0] = 0;
        report(&w, REPORT_CLOSED, 0);
        UNTIL(strcmp(supervisor_find_worker(supervisor, w.id)->sandbox, "seccomp,of-its-own") == 0);
        report(&w, REPORT_READY, 0);
        UNTIL(phase(&w) == PHASE_READY);
        report(&w, REPORT_CLOSED, 0);
        UNTIL(phase(&w) == PHASE_STOPPING);
        end(&w, CLD_KILLED, SIGKILL);
}

static bool is_answered(const struct stand_in *w) {
        struct worker_order order;
        size_t bytes;
        return packet_receive(w->fd, &order, sizeof(order), &bytes, NULL, NULL) == 0 && order.type == ORDER_ARENA;
}

/* A worker that is refused again and again is answered each time, and does not fill the log. */
static void test_refusals_do_not_fill_the_log(void **state) {
        enum { N = 100 };
        char log[N * 200];
        int stderr_fd = dup(STDERR_FILENO), log_fd = memfd_create("log", MFD_CLOEXEC);
        add_pool(NULL);
        load();
        struct stand_in w = ready();
        log_open("test", LOG_LEVEL_NOTICE);
        dup2(log_fd, STDERR_FILENO);
        time_t since = time(NULL);
        for (unsigned i = 0; i < N; i++) {
                report(&w, REPORT_ARENA, 0); /* of no name */
                UNTIL(is_answered(&w));
        }
        dup2(stderr_fd, STDERR_FILENO);
        ssize_t bytes = pread(log_fd, log, sizeof(log), 0);
        unsigned n_lines = 0;
        for (ssize_t i = 0; i < bytes; i++)
                n_lines += log[i] == '\n';
        assert_in_range(n_lines, 1, 2 + (uintmax_t)(time(NULL) - since));
        close(stderr_fd);
        close(log_fd);
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_who_lacks_a_type_ends, setup, teardown),
                cmocka_unit_test_setup_teardown(test_who_comes_late_with_an_older_list, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_types_of_one_number, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_types_of_one_number_in_one_list, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ready_only_after_closed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refusals_do_not_fill_the_log, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
