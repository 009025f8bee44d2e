/* What root gives away, it cannot get back, not by a program either. */
#include "plugins/host/sandbox/privileges.h"
#include "skip.h"

#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/capability.h>
#include <linux/securebits.h>

static int raise_one(void) {
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        const struct __user_cap_data_struct data[2] = {{.effective = 1, .permitted = 1}};
        return (int)syscall(SYS_capset, &head, data);
}

/* In the child: which step is not as it should be; 0 = none. */
static int look(void) {
        gid_t groups[] = {4, 24};
        if (setgroups(2, groups) < 0 || privileges_drop() != 0)
                return 1;
        if (getgroups(0, NULL) != 0)
                return 2;
        if (raise_one() == 0 || errno != EPERM)
                return 3;
        if (prctl(PR_CAPBSET_READ, CAP_CHOWN) != 0 || prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 0)
                return 4;
        int locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
        if ((prctl(PR_GET_SECUREBITS) & locked) != locked || prctl(PR_SET_SECUREBITS, 0) == 0)
                return 5;
        if (privileges_drop() != 0) /* again: nothing to do */
                return 6;
        execl("/bin/sh", "sh", "-c",
              "grep -qE '^CapEff:.0+$' /proc/self/status && grep -qE '^Groups:[[:space:]]*$' /proc/self/status", NULL);
        return 7;
}

static int status_of(int (*fn)(void)) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                _exit(fn());
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void test_root(void **state) {
        if (geteuid() != 0)
                SKIP("only root has privileges to lose");
        assert_int_equal(status_of(look), 0);
}

/* Nothing to give away, and what only root could give is no fault. */
static int look_as_nobody(void) {
        if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresuid(65534, 65534, 65534) < 0))
                return 1;
        return privileges_drop() == 0 && raise_one() < 0 ? 0 : 2;
}

static void test_nobody(void **state) { assert_int_equal(status_of(look_as_nobody), 0); }

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_root),
                cmocka_unit_test(test_nobody),
        };
        return cmocka_run_group_tests_name("privileges", tests, NULL, NULL);
}
