/* Giving objects back where a program does it at an odd moment: in the child of a fork, at exit, with all descriptors
 * closed under the library, in callbacks, after a longjmp out of one. */
#include <fcntl.h>
#include <setjmp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/library/cases.h"

enum { PARTIES = 2, FIRST_FD = 3, N_FDS = 256 };

/* One of each. */
static struct {
        drover *drover;
        drover_pool *pool;
        drover_future *future, *ended, *streamed;
        drover_iterator *map, *completed;
        drover_args *args;
        drover_arena *arena, *own_arena;
        drover_mutex *mutex;
        drover_condition *condition;
        drover_semaphore *semaphore;
        drover_permits *permits;
        drover_event *event;
        drover_barrier *barrier;
        drover_rwlock *rwlock;
        drover_array *array;
        drover_dictionary *dictionary;
        drover_queue *queue;
        drover_pipe *pipe, *other_pipe;
} all;

static int one_sleep(void *user, uint64_t index, drover_args *args) {
        return index < 4 ? drover_args_f64(args, "seconds", 0) == 0 : 0;
}

static void open_objects(void) {
        EXPECT(0, drover_arena_open(all.drover, "ends", 0, &all.arena));
        EXPECT(0, drover_arena_create("own", 1 << 16, &all.own_arena));
        EXPECT(0, drover_mutex_open(all.arena, "mutex", 0, &all.mutex));
        EXPECT(0, drover_condition_open(all.arena, "condition", all.mutex, &all.condition));
        EXPECT(0, drover_semaphore_open(all.arena, "semaphore", 1, &all.semaphore));
        EXPECT(0, drover_permits_open(all.arena, "permits", 2, &all.permits));
        EXPECT(0, drover_event_open(all.arena, "event", &all.event));
        EXPECT(0, drover_barrier_open(all.arena, "barrier", PARTIES, &all.barrier));
        EXPECT(0, drover_rwlock_open(all.arena, "rwlock", &all.rwlock));
        EXPECT(0, drover_array_open(all.arena, "array", 8, 8, &all.array));
        EXPECT(0, drover_dictionary_open(all.arena, "dictionary", 8, 16, 16, &all.dictionary));
        EXPECT(0, drover_queue_open(all.arena, "queue", 8, 64, DROVER_QUEUE_FIFO, &all.queue));
        EXPECT(0, drover_pipe_new(&all.pipe, &all.other_pipe));
}

static void open_all(void) {
        EXPECT(0, drover_open(NULL, &all.drover));
        EXPECT(0, drover_pool_open(all.drover, "squares", &all.pool));
        EXPECT(0, drover_submitf(all.pool, &all.ended, "getpid", NULL));
        EXPECT(0, drover_future_wait(all.ended, DROVER_FOREVER));
        EXPECT(0, drover_submitf(all.pool, &all.future, "sleep", "seconds:f64", 0.2));
        EXPECT(0, drover_as_completed(&all.future, 1, &all.completed));
        EXPECT(0, drover_map(all.pool, "sleep", one_sleep, NULL, NULL, &all.map));
        EXPECT(0, drover_args_new(&all.args));
        EXPECT(0, drover_args_fd(all.args, "fd", STDERR_FILENO));
        EXPECT(0, drover_submit(all.pool, "getpid", NULL, DROVER_OPTIONS(.flags = DROVER_STREAMED), &all.streamed));
        open_objects();
}

static void free_objects(void) {
        drover_mutex_free(all.mutex);
        drover_condition_free(all.condition);
        drover_semaphore_free(all.semaphore);
        drover_permits_free(all.permits);
        drover_event_free(all.event);
        drover_barrier_free(all.barrier);
        drover_rwlock_free(all.rwlock);
        drover_array_free(all.array);
        drover_dictionary_free(all.dictionary);
        drover_queue_free(all.queue);
        drover_pipe_free(all.pipe);
        drover_pipe_free(all.other_pipe);
        drover_arena_free(all.arena);
        drover_arena_free(all.own_arena);
}

static void free_rest(void) {
        drover_iterator_free(all.map);
        drover_iterator_free(all.completed);
        drover_args_free(all.args);
        drover_future_unref(all.future);
        drover_future_unref(all.ended);
        drover_future_unref(all.streamed);
        drover_pool_unref(all.pool);
}

static void free_all(void) {
        free_objects();
        free_rest();
        drover_close(all.drover);
}

/* The connection first. */
static void close_then_free(void) {
        drover_close(all.drover);
        free_rest();
        free_objects();
}

static void free_when_the_program_ends(void) { free_all(); }

static void pass(void) {}

static void close_descriptors(void) { closefrom(FIRST_FD); }

static bool are_open[N_FDS];

/* Every number is somebody else's. */
static void take_descriptors(void) {
        closefrom(FIRST_FD);
        for (int fd = FIRST_FD; fd < N_FDS; fd++)
                EXPECT(fd, open("/dev/null", O_RDONLY | O_CLOEXEC));
}

static void note_descriptors(void) {
        for (int fd = FIRST_FD; fd < N_FDS; fd++)
                are_open[fd] = fcntl(fd, F_GETFD) >= 0;
}

/* In a child of its own; its exit status. */
static int in_child(void (*before)(void), void (*give_back)(void), int (*count)(void)) {
        int status;
        pid_t pid = fork();
        EXPECT_TRUE(pid >= 0);
        if (pid == 0) {
                before();
                if (give_back == free_when_the_program_ends) {
                        EXPECT(0, atexit(give_back));
                        exit(0);
                }
                give_back();
                _exit(count());
        }
        EXPECT(pid, waitpid(pid, &status, 0));
        return status;
}

/* Those that were not open before the objects were, or were and are not. */
static int count_differences(void) {
        int n = 0;
        for (int fd = FIRST_FD; fd < N_FDS; fd++)
                n += (fcntl(fd, F_GETFD) >= 0) != are_open[fd];
        return n;
}

static int count_closed(void) {
        int n = 0;
        for (int fd = FIRST_FD; fd < N_FDS; fd++)
                n += fcntl(fd, F_GETFD) < 0;
        return n;
}

static int no_count(void) { return 0; }

/* The parent goes on with all of it. */
static void check_parent(void) {
        drover_future *f;
        EXPECT(1, drover_iterator_next(all.completed, &f, DROVER_FOREVER));
        EXPECT(DROVER_DONE, drover_future_state(f));
        drover_future_unref(f);
        for (unsigned i = 0; i < 4; i++) {
                EXPECT(1, drover_iterator_next(all.map, &f, DROVER_FOREVER));
                drover_future_unref(f);
        }
        EXPECT(0, drover_mutex_lock(all.mutex, DROVER_FOREVER));
        EXPECT(0, drover_mutex_unlock(all.mutex));
}

void case_ends_in_children(void) {
        static void (*const give_back[])(void) = {free_all, close_then_free, free_when_the_program_ends};
        note_descriptors();
        open_all();
        for (unsigned i = 0; i < sizeof give_back / sizeof *give_back; i++) {
                EXPECT(0, in_child(pass, give_back[i], count_differences));
                EXPECT(0, in_child(close_descriptors, give_back[i], no_count));
                EXPECT(0, in_child(take_descriptors, give_back[i], count_closed));
        }
        check_parent();
        free_all();
        EXPECT(0, count_differences());
}

/* The process that opened it all, with and without its descriptors. The shared connection is lost, too: it is closed
 * when the case is over. */
void case_ends_without_descriptors(void) {
        static void (*const give_back[])(void) = {free_all, close_then_free};
        for (unsigned i = 0; i < 2; i++) {
                open_all();
                take_descriptors();
                give_back[i]();
                EXPECT(0, count_closed());
                closefrom(FIRST_FD);
        }
        open_all();
        close_descriptors();
        EXPECT(0, atexit(free_when_the_program_ends));
}

/* ---- callbacks ---- */

static jmp_buf back;

enum act { CLOSE, FREE_ITERATOR, FREE_ARGS, NEXT, LEAVE, CLOSE_AND_FREE };

static struct {
        enum act act;
        drover *drover;
        drover_pool *pool;
        drover_iterator *map;
        uint64_t at;
        int r;
} plan;

static void act(drover_args *args) {
        drover_future *f;
        switch (plan.act) {
        case CLOSE_AND_FREE:
                drover_iterator_free(plan.map);
                drover_pool_unref(plan.pool);
                drover_close(plan.drover);
                break;
        case CLOSE:
                drover_close(plan.drover);
                break;
        case FREE_ITERATOR:
                drover_iterator_free(plan.map);
                break;
        case FREE_ARGS:
                drover_args_free(args);
                break;
        case NEXT:
                plan.r = drover_iterator_next(plan.map, &f, 0);
                EXPECT_TEXT("input function", drover_error_text(plan.drover));
                break;
        case LEAVE:
                longjmp(back, 1);
        }
}

static int acting_input(void *user, uint64_t index, drover_args *args) {
        if (index == plan.at)
                act(args);
        return drover_args_f64(args, "seconds", 0) == 0;
}

/* A map of one job at a time, whose second input does it. What iterator_next says then. */
static int map_that(enum act what) {
        drover_future *f;
        plan.act = what;
        plan.at = 1;
        plan.r = 0;
        EXPECT(0, drover_open(NULL, &plan.drover));
        EXPECT(0, drover_pool_open(plan.drover, "squares", &plan.pool));
        EXPECT(0, drover_map(plan.pool, "sleep", acting_input, NULL, DROVER_MAP_OPTIONS(.window = 1), &plan.map));
        EXPECT(1, drover_iterator_next(plan.map, &f, DROVER_FOREVER));
        drover_future_unref(f);
        int r = setjmp(back) == 0 ? drover_iterator_next(plan.map, &f, DROVER_FOREVER)
                                  : drover_iterator_next(plan.map, &f, 0);
        if (r == 1)
                drover_future_unref(f);
        return r;
}

static void end_map(void) {
        drover_iterator_free(plan.map);
        drover_pool_unref(plan.pool);
        drover_close(plan.drover);
}

static void check_inputs(void) {
        EXPECT(-ECONNABORTED, map_that(CLOSE));
        drover_iterator_free(plan.map);
        drover_pool_unref(plan.pool);

        EXPECT(-ECANCELED, map_that(FREE_ITERATOR));
        EXPECT_TEXT("drover_iterator_free", drover_error_text(plan.drover));
        drover_pool_unref(plan.pool);
        drover_close(plan.drover);

        EXPECT(-ECANCELED, map_that(CLOSE_AND_FREE));

        EXPECT(1, map_that(FREE_ARGS));
        end_map();

        EXPECT(1, map_that(NEXT));
        EXPECT(-EBUSY, plan.r);
        end_map();

        EXPECT(-EBUSY, map_that(LEAVE));
        EXPECT_TEXT("longjmp", drover_error_text(plan.drover));
        end_map();
}

/* The first input, while drover_map itself pulls. */
static void check_first_input(void) {
        drover_future *f;
        plan.act = CLOSE;
        plan.at = 0;
        EXPECT(0, drover_open(NULL, &plan.drover));
        EXPECT(0, drover_pool_open(plan.drover, "squares", &plan.pool));
        EXPECT(0, drover_map(plan.pool, "sleep", acting_input, NULL, NULL, &plan.map));
        EXPECT(-ECONNABORTED, drover_iterator_next(plan.map, &f, DROVER_FOREVER));
        drover_iterator_free(plan.map);
        drover_pool_unref(plan.pool);
}

static void done_that_closes(drover_future *f, void *user) {
        drover_future_unref(user);
        drover_pool_unref(plan.pool);
        drover_close(plan.drover);
}

static void done_that_leaves(drover_future *f, void *user) { longjmp(back, 1); }

static int process_with(drover_done_fn done) {
        drover_future *f;
        EXPECT(0, drover_open(NULL, &plan.drover));
        EXPECT(0, drover_pool_open(plan.drover, "squares", &plan.pool));
        EXPECT(0, drover_submitf(plan.pool, &f, "getpid", NULL));
        EXPECT(0, drover_future_on_done(f, done, f));
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        return setjmp(back) == 0 ? drover_process(plan.drover) : drover_process(plan.drover);
}

static void free_arena(void) {
        all.condition = drover_condition_free(all.condition);
        all.mutex = drover_mutex_free(all.mutex);
        all.barrier = drover_barrier_free(all.barrier);
        all.own_arena = drover_arena_free(all.own_arena);
}

/* At the second look. */
static bool is_true_that_frees(void *user) {
        unsigned *n = user;
        if (++*n == 2)
                free_arena();
        return false;
}

static int action_that_frees(void *user) {
        free_arena();
        return 0;
}

static void open_arena(void) {
        EXPECT(0, drover_arena_create("callbacks", 4096, &all.own_arena));
        EXPECT(0, drover_mutex_open(all.own_arena, "mutex", 0, &all.mutex));
        EXPECT(0, drover_condition_open(all.own_arena, "condition", all.mutex, &all.condition));
        EXPECT(0, drover_barrier_open(all.own_arena, "barrier", 1, &all.barrier));
}

/* The arena goes at once, and the call that is in the callback says so. Another process goes on with what it held. */
static void check_arenas(void) {
        drover_arena *other;
        drover_mutex *mutex;
        unsigned n = 0;
        open_arena();
        EXPECT(0, drover_arena_attach(drover_arena_fd(all.own_arena), &other));
        EXPECT(0, drover_mutex_open(other, "mutex", 0, &mutex));
        EXPECT(0, drover_mutex_lock(all.mutex, DROVER_FOREVER));
        EXPECT(-EBUSY, drover_condition_wait_for(all.condition, is_true_that_frees, &n, drover_deadline_in(50 * MS)));
        EXPECT(2, n);
        EXPECT(-EOWNERDEAD, drover_mutex_lock(mutex, drover_deadline_in(10 * SECOND)));
        drover_mutex_free(mutex);
        drover_arena_free(other);

        open_arena();
        drover_barrier_set_action(all.barrier, action_that_frees, NULL);
        EXPECT(-EBUSY, drover_barrier_wait(all.barrier, DROVER_FOREVER));
}

void case_ends_in_callbacks(void) {
        drover_future *f;
        check_arenas();
        check_inputs();
        check_first_input();
        EXPECT(-ECONNABORTED, process_with(done_that_closes));

        EXPECT(-EBUSY, process_with(done_that_leaves));
        EXPECT_TEXT("longjmp", drover_error_text(plan.drover));
        EXPECT(0, drover_submitf(plan.pool, &f, "getpid", NULL)); /* all else works */
        EXPECT(0, drover_future_wait(f, DROVER_FOREVER));
        drover_future_unref(f);
        drover_pool_unref(plan.pool);
        drover_close(plan.drover);
}
