/* What a job emits: a stream belongs to whoever has the slot. */
#include "tests/unit/supervise-fixture.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/jobs/job.h"
#include "daemon/supervise/streams/stream.h"
#include "daemon/supervise/streams/streams.h"

static const struct worker_item head = {.version = WIRE_VERSION, .attempt = 1};

static void says(struct pool_channel *c, const struct worker_item *item, enum slot_state state) {
        atomic_store(&c->channel.slots[item->slot].word, SLOT_WORD(state, 0, 1, SLOT_OWNER_WORKER0, item->generation));
}

static struct job *submit(struct pool *p) {
        static const char nothing[] = {(char)0x80};
        const struct job_request r = {
                .pool = p, .name = "work", .payload = nothing, .bytes = 1, .priority = 1, .is_streamed = true};
        struct job *j;
        struct fault f;
        assert_int_equal(job_submit(&r, &j, &f), 0);
        return j;
}

/* One a job, which each knows of the other. */
static void assert_only(const struct job *j) {
        assert_ptr_equal(TAILQ_FIRST(&supervisor->streams->list), j->stream);
        assert_non_null(j->stream);
        assert_ptr_equal(j->stream->job, j);
        assert_null(TAILQ_NEXT(j->stream, link));
}

/* A worker emits for a job that nobody submitted, in a slot that a real one gets then. */
static void test_an_invented_job_has_no_stream(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        struct pool_channel *c = p->channels[0];
        struct worker_item item = head;
        item.slot = p->free_slots[p->n_free_slots - 1];
        item.generation = 5;
        item.bytes = 1;
        says(c, &item, SLOT_RUNNING);
        assert_int_equal(stream_take(worker, &item, "x"), 0);
        assert_null(stream_at(c, item.slot));
        assert_null(worker->feeds);
        struct job *j = submit(p);
        assert_int_equal(j->slot, item.slot);
        assert_only(j);
        end(&w, CLD_KILLED, SIGKILL);
}

/* It runs one with a stream that nobody reads, and says that its slot has the next job by now. */
static void test_a_job_has_one_stream_whatever_its_worker_makes_of_the_slot(void **state) {
        static char data[60000];
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        struct pool_channel *c = p->channels[0];
        struct job *j = submit(p);
        struct worker_item item = head;
        item.slot = j->slot;
        item.generation = j->generation;
        item.bytes = sizeof(data);
        says(c, &item, SLOT_RUNNING);
        while (stream_take(worker, &item, data) == 0)
                ;
        assert_true(stream_is_behind(j->stream));
        struct stream *first = j->stream;
        item.generation++;
        for (enum slot_state s = SLOT_RUNNING; s < SLOT_N_STATES; s++) {
                says(c, &item, s);
                assert_int_equal(stream_take(worker, &item, data), 0);
                assert_ptr_equal(j->stream, first);
                assert_ptr_equal(stream_at(c, j->slot), first);
                assert_false(first->is_over);
                assert_only(j);
        }
        end(&w, CLD_KILLED, SIGKILL);
}

/* It says so just before somebody opens the stream. */
static void test_a_stream_is_of_its_job_whatever_the_slot_says(void **state) {
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct pool_channel *c = p->channels[0];
        struct job *j = submit(p);
        struct worker_item item = head;
        struct fault f;
        int fd;
        item.slot = j->slot;
        item.generation = j->generation + 1;
        stream_free(j->stream);
        says(c, &item, SLOT_RUNNING);
        assert_int_equal(job_open_stream(j, &fd, &f), 0);
        assert_only(j);
        assert_int_equal(j->stream->generation, j->generation);
        assert_int_equal(j->stream->attempt, 1);
        close(fd);
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_an_invented_job_has_no_stream, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_job_has_one_stream_whatever_its_worker_makes_of_the_slot, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_a_stream_is_of_its_job_whatever_the_slot_says, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
