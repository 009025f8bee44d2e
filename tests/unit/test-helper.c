/* Work that is done by a process of its own: its answer, its end without one, and the end of who waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/loop/helper.h"
#include "ipc/memory/event.h"

struct heard {
        unsigned n;
        int error;
        char text[512], content[64];
        struct loop *loop;
};

static void on_answer(struct helper_call *c, const struct helper_answer *a) {
        struct heard *h = c->user;

        h->n++;
        h->error = a->error;
        snprintf(h->text, sizeof(h->text), "%s", a->text);
        if (a->fd >= 0) {
                assert_true(pread(a->fd, h->content, sizeof(h->content) - 1, 0) > 0);
                close(a->fd);
        }
        if (h->loop)
                loop_exit(h->loop, 0);
}

/* What it was sent, and by whom. */
static void echo(const void *order, int fd, struct helper_answer *ret) {
        char content[32] = "";

        snprintf(ret->text, sizeof(ret->text), "%s %d", (const char *)order, (int)getpid());
        if (fd < 0)
                return;
        assert_true(pread(fd, content, sizeof(content) - 1, 0) > 0);
        ret->fd = memfd_create("answer", MFD_CLOEXEC);
        dprintf(ret->fd, "%s, too", content);
        ret->error = -EDOM;
}

static void crash(const void *order, int fd, struct helper_answer *ret) { abort(); }

static void hang(const void *order, int fd, struct helper_answer *ret) {
        pid_t pid = getpid();

        assert_int_equal(pwrite(fd, &pid, sizeof(pid), 0), sizeof(pid));
        for (;;)
                pause();
}

static struct loop *new_loop(void) {
        const char *why;
        struct loop *l;

        assert_int_equal(loop_new(&l, &why), 0);
        return l;
}

static void check_echo(bool is_other) {
        struct loop *l = new_loop();
        struct heard h = {0};
        struct helper_call c = {.on_answer = on_answer, .user = &h};
        int fd = memfd_create("question", MFD_CLOEXEC);

        assert_int_equal(dprintf(fd, "this"), 4);
        assert_int_equal(helper_begin(&c, l, echo, "hello", sizeof("hello"), fd), 0);
        assert_true(helper_wait(&c, event_now_ns() + 10 * UINT64_C(1000000000)));
        assert_int_equal(h.n, 1);
        assert_int_equal(h.error, -EDOM);
        assert_string_equal(h.content, "this, too");
        assert_int_equal(strncmp(h.text, "hello ", 6), 0);
        assert_int_equal(atoi(h.text + 6) != getpid(), is_other);
        assert_false(c.is_busy);
        close(fd);
        loop_free(l);
}

static void test_without_a_process(void **state) { check_echo(false); }

static void test_with_one(void **state) {
        assert_int_equal(helper_start(), 0);
        check_echo(true);
        assert_int_equal(helper_begin(&(struct helper_call){0}, NULL, echo, "", HELPER_MAX_ORDER + 1, -1), -EMSGSIZE);
}

static void test_in_the_loop(void **state) {
        struct loop *l = new_loop();
        struct heard h = {.loop = l};
        struct helper_call c = {.on_answer = on_answer, .user = &h};

        for (unsigned i = 0; i < 20; i++) {
                assert_int_equal(helper_begin(&c, l, i % 2 ? crash : echo, "hello", sizeof("hello"), -1), 0);
                assert_int_equal(loop_run(l), 0);
                assert_int_equal(h.n, i + 1);
                assert_int_equal(h.error, i % 2 ? -EIO : 0);
        }
        loop_free(l);
}

/* Nobody waits for it longer than he likes, and it does not outlive us. */
static void test_that_hangs(void **state) {
        struct loop *l = new_loop();
        struct heard h = {0};
        struct helper_call c = {.on_answer = on_answer, .user = &h};
        int fd = memfd_create("pid", MFD_CLOEXEC);
        pid_t pid = 0;

        assert_int_equal(helper_begin(&c, l, hang, "", 0, fd), 0);
        assert_false(helper_wait(&c, event_now_ns() + 50 * UINT64_C(1000000)));
        assert_int_equal(h.n, 0);
        helper_forget(&c);
        helper_forget(&c);
        check_echo(true);
        for (unsigned i = 0; i < 5000 && pread(fd, &pid, sizeof(pid), 0) != sizeof(pid); i++)
                usleep(2000);
        assert_true(pid > 0);
        assert_int_equal(kill(pid, 0), 0);
        helper_stop();
        for (unsigned i = 0; i < 5000 && kill(pid, 0) == 0; i++)
                usleep(2000);
        assert_int_equal(kill(pid, 0), -1);
        close(fd);
        loop_free(l);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_without_a_process), cmocka_unit_test(test_with_one),
                cmocka_unit_test(test_in_the_loop), cmocka_unit_test(test_that_hangs), /* in this order */
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
