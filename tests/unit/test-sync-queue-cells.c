/* A consumer of the leased queue is overtaken at one place: what the others do meanwhile happens inside kill_point(),
 * so each order of steps comes about every time. */
#include <sched.h>

#include "tests/unit/sync-fixture.h"

#include "ipc/memory/kill-point.h"
#include "ipc/sync/queue.h"

static struct {
        const char *place;
        void (*meanwhile)(drover_queue *q, uint32_t cell);
        drover_queue *queue;
        uint32_t cell;
} plan;

void kill_point(const char *name) {
        if (!plan.place || strcmp(plan.place, name) != 0)
                return;
        plan.place = NULL; /* what it does has such places too */
        plan.meanwhile(plan.queue, plan.cell);
}

static drover_queue *queue_of(drover_arena *arena) {
        drover_queue *q;
        assert_int_equal(drover_queue_open(arena, "queue", 8, 8, DROVER_QUEUE_FIFO, &q), 0);
        return q;
}

static void assert_gets(drover_queue *q, const char *text) {
        char item[8];
        size_t bytes;
        assert_int_equal(drover_queue_get(q, item, sizeof item, &bytes, 0), 0);
        assert_int_equal(bytes, strlen(text) + 1);
        assert_string_equal(item, text);
}

/* The second half of drover_queue_put. */
static void publish(drover_queue *q, uint32_t cell, const char *text) {
        uint64_t word = queue_word(q, cell);
        memcpy(queue_item(q, cell), text, strlen(text) + 1);
        atomic_store(&q->meta[cell], strlen(text) + 1);
        assert_true(queue_cas(q, cell, word, CELL_WORD(CELL_QUEUED, 0, cell_position(word))));
}

static void publish_and_put_another(drover_queue *q, uint32_t cell) {
        publish(q, cell, "first");
        assert_int_equal(drover_queue_put(q, "second", 7, 0), 0);
}

/* The consumer has passed a cell that was being written; before it looks at the next, its producer publishes it and
 * puts another. */
static void test_a_later_item_never_overtakes(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q = queue_of(arena);
        uint32_t cell;
        assert_int_equal(queue_claim(q, 0, &cell), 0);
        plan.queue = q;
        plan.cell = cell;
        plan.meanwhile = publish_and_put_another;
        plan.place = "queue-passed";
        assert_gets(q, "first");
        assert_null(plan.place);
        assert_gets(q, "second");
        drover_queue_free(q);
        drover_arena_free(arena);
}

static void return_it(drover_queue *q, uint32_t cell) {
        assert_true(queue_end_lease(q, cell, CELL_RETURNED));
        queue_mark_returned(q->shared);
}

/* The consumer has looked for returned items in vain; before it takes the mark away, one is returned. */
static void test_a_return_during_a_vain_scan_is_found(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q = queue_of(arena);
        char item[8];
        size_t bytes;
        uint32_t cell;
        assert_int_equal(drover_queue_put(q, "only", 5, 0), 0);
        assert_int_equal(queue_lease(q, 0, &cell), 0);
        queue_mark_returned(q->shared); /* for nothing */
        plan.queue = q;
        plan.cell = cell;
        plan.meanwhile = return_it;
        plan.place = "queue-scanned";
        int r = drover_queue_get(q, item, sizeof item, &bytes, 0);
        assert_null(plan.place);
        assert_true(r == 0 || r == -EAGAIN);
        if (r == -EAGAIN) /* it had looked before; but the next one must look again */
                assert_gets(q, "only");
        drover_queue_free(q);
        drover_arena_free(arena);
}

/* One more item, in the cell that the joiner looked at last, before the one before it is done: each cell is free when
 * it is looked at, and never are all of them. */
static void put_behind(drover_queue *q, uint32_t cell) {
        char item[8];
        size_t bytes;
        assert_int_equal(drover_queue_put(q, "behind", 7, 0), 0);
        assert_int_equal(drover_queue_task_done(q), 0);
        assert_int_equal(drover_queue_get(q, item, sizeof item, &bytes, 0), 0);
        if (++plan.cell < 2 * q->n_cells) /* two looks */
                plan.place = "queue-looked";
}

static void test_join_sees_what_was_put_behind_it(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q = queue_of(arena);
        for (uint32_t i = 1; i < q->n_cells; i++) { /* the last of them is in the last cell */
                assert_int_equal(drover_queue_put(q, "item", 5, 0), 0);
                assert_gets(q, "item");
                assert_int_equal(i + 1 == q->n_cells ? 0 : drover_queue_task_done(q), 0);
        }
        plan.queue = q;
        plan.cell = 0;
        plan.meanwhile = put_behind;
        plan.place = "queue-looked";
        assert_int_equal(drover_queue_join(q, 0), -EAGAIN);
        assert_null(plan.place);
        assert_int_equal(drover_queue_task_done(q), 0);
        assert_int_equal(drover_queue_join(q, 0), 0);
        drover_queue_free(q);
        drover_arena_free(arena);
}

/* ---- a lock whose owner is stopped ---- */

struct getter {
        drover_queue *queue;
        int result;
};

static void *get_one(void *user) {
        struct getter *g = user;
        char item[8];
        size_t bytes;
        g->result = drover_queue_get(g->queue, item, sizeof item, &bytes, stuck());
        return NULL;
}

/* Longer than a try waits for the lock, so that a consumer that took this for an empty queue would sleep at the gate.
 */
static void test_a_stopped_owner_of_the_lock_hides_no_item(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q;
        assert_int_equal(drover_queue_open(arena, "lifo", 8, 8, DROVER_QUEUE_LIFO, &q), 0);
        assert_int_equal(drover_queue_put(q, "item", 5, 0), 0);
        uint64_t self = arena_self(q->object.arena);
        assert_int_equal(lock_acquire(&q->shared->lock, &q->object, &q->spin_lock, 0), 0);
        struct getter getter = {.queue = q};
        pthread_t id;
        assert_int_equal(pthread_create(&id, NULL, get_one, &getter), 0);
        uint64_t held_until = in_ms(600);
        while (event_now_ns() < held_until)
                sched_yield();
        assert_int_equal(lock_release(&q->shared->lock, self), 0);
        uint64_t released = event_now_ns();
        pthread_join(id, NULL);
        assert_int_equal(getter.result, 0);
        assert_true(event_now_ns() - released < STUCK_NS / 4);
        drover_queue_free(q);
        drover_arena_free(arena);
}

/* ---- words that no honest process writes ---- */

static void test_a_position_far_ahead_costs_little(void **state) {
        drover_arena *arena = fixture_arena(1 << 16);
        drover_queue *q = queue_of(arena);
        char item[8];
        size_t bytes;
        uint32_t cell;
        assert_int_equal(queue_claim(q, 0, &cell), 0); /* is being written; so what follows is looked at with care */
        uint64_t far = (UINT64_C(1) << 42) + cell + 1, back = far - q->n_cells + 1;
        atomic_store(&q->cells[far % q->n_cells], CELL_WORD(CELL_FREE, 0, far));     /* leads … */
        atomic_store(&q->cells[back % q->n_cells], CELL_WORD(CELL_QUEUED, 0, back)); /* … there */
        uint64_t before = event_now_ns();
        (void)drover_queue_get(q, item, sizeof item, &bytes, 0);
        assert_true(event_now_ns() - before < 1000 * MS);
        drover_queue_free(q);
        drover_arena_free(arena);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_later_item_never_overtakes),
                cmocka_unit_test(test_a_return_during_a_vain_scan_is_found),
                cmocka_unit_test(test_join_sees_what_was_put_behind_it),
                cmocka_unit_test(test_a_stopped_owner_of_the_lock_hides_no_item),
                cmocka_unit_test(test_a_position_far_ahead_costs_little),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
