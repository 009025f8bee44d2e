/* What a job emits: a stream belongs to whoever has the slot. */
#include "tests/unit/supervise-fixture.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervise/job.h"
#include "daemon/supervise/stream.h"
#include "daemon/supervise/streams.h"

/* A worker emits for a job that nobody submitted, in a slot that a real one gets then. */
static void test_a_stream_of_an_invented_job_gives_way(void **state) {
        static const char nothing[] = {(char)0x80};
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        struct worker *worker = supervisor_find_worker(supervisor, w.id);
        struct pool_channel *c = p->channels[0];
        const struct job_request r = {.pool = p, .name = "work", .payload = nothing, .bytes = 1, .priority = 1};
        const struct worker_item item = {.version = WIRE_VERSION,
                                         .slot = p->free_slots[p->n_free_slots - 1],
                                         .generation = 5,
                                         .attempt = 1,
                                         .bytes = 1};
        struct job *j;
        struct fault f;
        int fd;
        atomic_store(&c->channel.slots[item.slot].word,
                     SLOT_WORD(SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0, item.generation));
        stream_take(worker, &item, "x");
        struct stream *invented = stream_at(c, item.slot);
        assert_non_null(invented);
        assert_null(invented->job);
        assert_int_equal(job_submit(&r, &j, &f), 0);
        assert_int_equal(j->slot, item.slot);
        assert_int_equal(job_open_stream(j, &fd, &f), 0);
        assert_ptr_equal(stream_at(c, j->slot), j->stream);
        assert_ptr_equal(TAILQ_FIRST(&supervisor->streams->list), j->stream); /* and no other */
        assert_null(TAILQ_NEXT(j->stream, link));
        assert_null(worker->feeds);
        close(fd);
        end(&w, CLD_KILLED, SIGKILL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_a_stream_of_an_invented_job_gives_way, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
