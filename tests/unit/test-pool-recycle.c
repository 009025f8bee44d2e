/* What is said when the memory of workers cannot be looked at. */
#include "tests/unit/supervise-fixture.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

static void large(struct pool_config *c) { c->recycle_bytes = UINT64_C(1) << 40; }

static void test_hidden_processes_are_told(void **state) {
        enum { NO_PID = 1 << 30 };
        struct pool *p = add_pool(large);
        load();
        struct stand_in w = ready();
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        assert_false(pool_look_at_memory(p));
        assert_string_equal(p->problem, "");

        worker->pid = NO_PID; /* what the pidfd says and /proc does not */
        p->memory_look_ns = 0;
        assert_false(pool_look_at_memory(p));
        assert_non_null(strstr(p->problem, "RecycleMemory= has no effect: /proc/1073741824/statm"));
        assert_non_null(strstr(p->problem, "ProtectProc="));

        p->problem[0] = 0;
        kill(w.pid, SIGKILL);
        assert_int_equal(waitid(P_PID, (id_t)w.pid, NULL, WEXITED | WNOWAIT), 0);
        p->memory_look_ns = 0;
        assert_false(pool_look_at_memory(p));
        assert_string_equal(p->problem, ""); /* it is only about to be replaced */
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_hidden_processes_are_told, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
