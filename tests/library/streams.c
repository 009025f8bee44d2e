/* Items of jobs: pulled one by one, called back, of a second attempt, lost, and let alone. */
#include <poll.h>

#include "tests/library/cases.h"

static const struct drover_options *streamed(void) {
        static const struct drover_options o = {.struct_size = sizeof o, .flags = DROVER_STREAMED};
        return &o;
}

static drover_future *emit_numbers(uint64_t n, uint64_t pause_ms) {
        drover_pool *p = pool("emits");
        drover_future *f;
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        drover_args_u64(a, "n", n);
        drover_args_u64(a, "bytes", 0);
        drover_args_u64(a, "pause_ms", pause_ms);
        EXPECT(0, drover_submit(p, "count", a, streamed(), &f));
        drover_args_free(a);
        drover_pool_unref(p);
        return f;
}

static drover_future *emit_twice(uint64_t first, uint64_t second) {
        drover_pool *p = pool("emits");
        drover_future *f;
        drover_args *a;
        EXPECT(0, drover_args_new(&a));
        drover_args_u64(a, "first", first);
        drover_args_u64(a, "second", second);
        drover_args_bool(a, "asks", false);
        EXPECT(0, drover_submit(p, "twice", a, streamed(), &f));
        drover_args_free(a);
        drover_pool_unref(p);
        return f;
}

static uint64_t number(const struct drover_item *item) {
        char text[24] = "";
        EXPECT_TRUE(item->bytes < sizeof text);
        memcpy(text, item->data, item->bytes);
        return strtoull(text, NULL, 10);
}

static int next(drover_future *f, struct drover_item *item) {
        return drover_future_next_item(f, item, sizeof *item, drover_deadline_in(10 * SECOND));
}

static void expect_numbers(drover_future *f, uint64_t from, uint64_t to) {
        struct drover_item item;
        for (uint64_t i = from; i < to; i++) {
                EXPECT(1, next(f, &item));
                EXPECT(i, number(&item));
        }
        EXPECT(0, next(f, &item));
        EXPECT(0, next(f, &item));
}

void case_items(void) {
        struct drover_item item;
        uint64_t n;
        drover_future *f = emit_numbers(5000, 0); /* far more than fits: the job waits for us */
        expect_numbers(f, 0, 5000);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(0, drover_future_get_u64(f, "n", &n));
        EXPECT(5000, n);
        drover_future_unref(f);

        f = emit_numbers(3, 200);
        EXPECT(1, next(f, &item));
        EXPECT(-EAGAIN, drover_future_next_item(f, &item, sizeof item, 0));
        EXPECT(-ETIMEDOUT, drover_future_next_item(f, &item, sizeof item, drover_deadline_in(20 * MS)));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND))); /* what is left is still there then */
        expect_numbers(f, 1, 3);
        drover_future_unref(f);

        f = emit_numbers(100000, 1); /* nobody reads to the end, and it can be cancelled */
        EXPECT(1, next(f, &item));
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(f, DROVER_CANCEL_ASK));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_CANCELLED, drover_future_state(f));
        drover_future_unref(f);

        drover_pool *p = pool("emits");
        EXPECT(0, drover_submitf(p, &f, "slowly", "n:u64", UINT64_C(1)));
        EXPECT(-EINVAL, next(f, &item));
        EXPECT_TEXT("DROVER_STREAMED", drover_error_text(d));
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        drover_future_unref(f);
        drover_pool_unref(p);
}

void case_items_of_a_second_attempt(void) {
        struct drover_item item;
        uint32_t attempt = 1;
        drover_future *f = emit_twice(3, 2);
        uint64_t seen = 0;
        int r;
        while ((r = next(f, &item)) == 1) {
                EXPECT_TRUE(item.attempt >= attempt);
                seen = item.attempt > attempt ? 0 : seen;
                attempt = item.attempt;
                EXPECT(seen + (attempt == 2 ? 100 : 0), number(&item)); /* from its first on */
                seen++;
        }
        EXPECT(0, r);
        EXPECT(2, attempt);
        EXPECT(2, seen);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
        f = emit_twice(3, 0); /* what the first attempt emitted counts for nothing */
        while ((r = next(f, &item)) == 1)
                EXPECT(1, item.attempt);
        EXPECT(0, r);
        drover_future_unref(f);
}

/* Called back: in order, and the verdict's callback after the last one. */
struct heard {
        uint64_t n, stop_at;
        bool is_done;
};

static int on_item(drover_future *f, const struct drover_item *item, void *user) {
        struct heard *h = user;
        EXPECT_TRUE(!h->is_done);
        EXPECT(h->n, number(item));
        h->n++;
        EXPECT(-EBUSY, drover_process(d));
        return h->n == h->stop_at;
}

static void on_done(drover_future *f, void *user) { ((struct heard *)user)->is_done = true; }

static void process_until_done(const struct heard *h) {
        uint64_t end_ns = now_ns() + 20 * SECOND, deadline_ns;
        while (!h->is_done) {
                EXPECT_TRUE(now_ns() < end_ns);
                if (drover_process(d) > 0)
                        continue;
                EXPECT(0, drover_get_timeout(d, &deadline_ns));
                uint64_t now = now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
                poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1,
                     left > SECOND ? 1000 : (int)(left / MS) + 1);
        }
}

void case_item_callbacks(void) {
        struct heard heard = {.stop_at = UINT64_MAX}, few = {.stop_at = 3};
        struct drover_item item;
        drover_future *f = emit_numbers(3000, 0), *g = emit_numbers(10, 1);
        EXPECT(0, drover_future_on_done(f, on_done, &heard));
        EXPECT(0, drover_future_on_item(f, on_item, &heard));
        EXPECT(0, drover_future_on_item(g, on_item, &few));
        EXPECT(0, drover_future_on_done(g, on_done, &few));
        EXPECT(-EBUSY, drover_future_on_item(f, on_item, &heard));
        EXPECT(-EBUSY, next(f, &item));
        process_until_done(&heard);
        EXPECT(3000, heard.n);
        process_until_done(&few);
        EXPECT(3, few.n);
        EXPECT(DROVER_DONE, drover_future_state(g));
        drover_future_unref(f);
        drover_future_unref(g);
        few = (struct heard){.stop_at = UINT64_MAX};
        f = emit_numbers(100, 1); /* let go: what was asked for still comes */
        EXPECT(0, drover_future_on_item(f, on_item, &few));
        EXPECT(0, drover_future_on_done(f, on_done, &few));
        drover_future_unref(f);
        process_until_done(&few);
        EXPECT(100, few.n);
        few = (struct heard){.stop_at = UINT64_MAX};
        f = emit_numbers(200, 1);
        EXPECT(0, drover_future_on_item(f, on_item, &few));
        drover_future_unref(f); /* and drover_close() ends it */
}

/* Its first items went to the reader who came before: it gets the others, and is told. */
void case_items_second_reader(void) {
        const struct drover_options *o = DROVER_OPTIONS(.flags = DROVER_STREAMED, .idempotency_key = "a second reader");
        drover_pool *p = pool("emits");
        drover_future *f, *g;
        drover_args *a;
        struct drover_item item;
        EXPECT(0, drover_args_new(&a));
        drover_args_u64(a, "n", 60);
        EXPECT(0, drover_submit(p, "slowly", a, o, &f));
        for (uint64_t i = 0; i < 30; i++) {
                EXPECT(1, next(f, &item));
                EXPECT(i, number(&item));
        }
        EXPECT(0, drover_submit(p, "slowly", a, o, &g));
        EXPECT(drover_future_id(f), drover_future_id(g));
        expect_numbers(f, 30, 60);
        uint64_t n = 0, last = 0;
        int r;
        for (; (r = next(g, &item)) == 1; n++) {
                EXPECT_TRUE(n == 0 || number(&item) == last + 1);
                last = number(&item);
        }
        EXPECT(-EOVERFLOW, r);
        EXPECT_TEXT("lost", drover_error_text(d));
        EXPECT_TRUE(n == 0 || last == 59); /* all that came after it did */
        drover_args_free(a);
        drover_future_unref(f);
        drover_future_unref(g);
        drover_pool_unref(p);
}

/* Who gives the future back reads no more: the job is not held up until its reader is given up. */
void case_items_let_go(void) {
        struct drover_item item;
        drover_future *f = emit_numbers(5000, 0);
        EXPECT(1, next(f, &item));
        unsigned n_fds = open_fds();
        drover_future_ref(f);
        drover_future_unref(f);
        EXPECT(1, next(f, &item)); /* somebody still has it */
        EXPECT(n_fds, open_fds());
        drover_pool *p = pool("emits");
        drover_future_unref(f);
        EXPECT(n_fds - 1, open_fds());
        EXPECT(0, drover_pool_drain(p, drover_deadline_in(60 * SECOND)));
        drover_pool_unref(p);

        drover_iterator *it;
        uint64_t n;
        f = emit_numbers(3, 0);
        EXPECT(0, drover_as_completed(&f, 1, &it));
        drover_future_unref(f);
        EXPECT(1, drover_iterator_next(it, &f, drover_deadline_in(60 * SECOND))); /* and comes back from there */
        expect_numbers(f, 0, 3);
        EXPECT(0, drover_future_get_u64(f, "n", &n));
        drover_future_unref(f);
        drover_iterator_free(it);
}

/* Five seconds without a look, and then the truth. */
void case_items_lost(void) {
        struct drover_item item;
        drover_future *f = emit_numbers(5000, 0);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(15 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        int r;
        while ((r = next(f, &item)) == 1)
                ;
        EXPECT(-EOVERFLOW, r);
        EXPECT(-EOVERFLOW, next(f, &item));
        EXPECT_TEXT("lost", drover_error_text(d));
        drover_future_unref(f);
}

static int note_item(drover_future *f, const struct drover_item *item, void *user) {
        EXPECT(*(uint64_t *)user, number(item));
        ++*(uint64_t *)user;
        return 0;
}

/* Without descriptors a stream is opened later, at first and after a cut, and a loop of the program's own wakes up for
 * it then. */
void case_items_short(void) {
        struct drover_item item;
        uint64_t n = 0, end_ns = now_ns() + 20 * SECOND;
        drover_pool *p = pool("emits");
        leave_free(0);
        drover_future *f = emit_numbers(100000, 1000);
        EXPECT(0, drover_future_on_item(f, note_item, &n));
        EXPECT(0, drover_process(d));
        leave_all_free();
        for (uint64_t seen = 0; seen < 5; seen = n) {
                while (drover_process(d) > 0)
                        EXPECT_TRUE(now_ns() < end_ns);
                if (n == 0)
                        poll(NULL, 0, 10);
                else if (n == seen) /* that the bus is looked at every few seconds does not count */
                        EXPECT(1, poll(&(struct pollfd){.fd = drover_get_fd(d), .events = POLLIN}, 1, 5000));
                EXPECT_TRUE(now_ns() < end_ns);
        }
        EXPECT(DROVER_CANCEL_ASKED, drover_future_cancel(f, DROVER_CANCEL_ASK));
        drover_future_unref(f);

        int r;
        for (;;) {
                f = emit_twice(3, 2);
                leave_free(0);
                while ((r = next(f, &item)) == 1 && item.attempt == 1)
                        ;
                if (r != 1)
                        break;
                leave_all_free(); /* a stream that was opened when the second attempt ran already: nothing is cut */
                drover_future_unref(f);
                EXPECT_TRUE(now_ns() < end_ns);
        }
        EXPECT(-EMFILE, r);
        EXPECT(-EMFILE, next(f, &item));
        leave_all_free();
        expect_numbers(f, 100, 102);
        EXPECT(0, drover_future_wait(f, drover_deadline_in(10 * SECOND)));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
        drover_pool_unref(p);
}
