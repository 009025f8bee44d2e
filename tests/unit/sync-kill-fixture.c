/* Dying at a named place, and the broker's part in it. */
#include "tests/unit/sync-kill-fixture.h"

#include <sys/wait.h>

#include "ipc/memory/kill-point.h"

enum { DEFAULT_SEEDS = 20 };

struct sync_kill_plan sync_kill_plan;

void kill_point(const char *name) {
        struct sync_kill_plan *plan = &sync_kill_plan;
        if (!plan->name || strcmp(plan->name, name) != 0)
                return;
        if (plan->n_left > 1) {
                plan->n_left--;
                return;
        }
        plan->name = NULL; /* who is only stopped goes on */
        if (plan->n_deaths)
                atomic_fetch_add(plan->n_deaths, 1);
        kill(getpid(), plan->signal ? plan->signal : SIGKILL);
}

unsigned sync_kill_seeds(void) {
        const char *text = getenv("DROVER_KILL_SEEDS");
        return text ? (unsigned)atoi(text) : DEFAULT_SEEDS;
}

void sync_kill_open(drover_arena *a, struct sync_kill_objects *o) {
        CHECK(drover_mutex_open(a, "mutex", 0, &o->mutex) == 0);
        OWN(mutex, o->mutex);
        CHECK(drover_mutex_open(a, "bank", DROVER_RECURSIVE, &o->bank) == 0);
        OWN(mutex, o->bank);
        CHECK(drover_condition_open(a, "tokens", o->bank, &o->tokens) == 0);
        OWN(condition, o->tokens);
        CHECK(drover_semaphore_open(a, "semaphore", 0, &o->semaphore) == 0);
        OWN(semaphore, o->semaphore);
        CHECK(drover_permits_open(a, "permits", PERMITS, &o->permits) == 0);
        OWN(permits, o->permits);
        CHECK(drover_event_open(a, "event", &o->event) == 0);
        OWN(event, o->event);
        CHECK(drover_rwlock_open(a, "rwlock", &o->rwlock) == 0);
        OWN(rwlock, o->rwlock);
        CHECK(drover_dictionary_open(a, "dictionary", 8, 8, 64, &o->dictionary) == 0);
        OWN(dictionary, o->dictionary);
        CHECK(drover_queue_open(a, "queue", CAPACITY, 64, DROVER_QUEUE_FIFO, &o->queue) == 0);
        OWN(queue, o->queue);
        CHECK(drover_queue_open(a, "simple", CAPACITY, 64, DROVER_QUEUE_SIMPLE, &o->simple) == 0);
        OWN(queue, o->simple);
        CHECK(drover_queue_open(a, "lifo", CAPACITY, 64, DROVER_QUEUE_LIFO, &o->lifo) == 0);
        OWN(queue, o->lifo);
}

void sync_kill_reap_any(drover_arena *arena) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        assert_true(pid > 0);
        drover_arena_repair_pid(arena, pid);
        assert_true((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                    (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}
