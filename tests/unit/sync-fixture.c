/* An arena, its users and their ends. Children leave by _exit: what they hold is given back by whoever reaps them. */
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/unit/sync-fixture.h"

enum { MAX_CREW = 32, MAX_OWNED = 4096 };

static struct {
        void (*free_handle)(void);
        void *handle;
} owned[MAX_OWNED];
static _Atomic uint32_t n_owned;

void fixture_own(void (*free_handle)(void), void *handle) {
        uint32_t i = atomic_fetch_add(&n_owned, 1);
        CHECK(i < MAX_OWNED);
        owned[i].free_handle = free_handle;
        owned[i].handle = handle;
}

void fixture_free(drover_arena *arena) {
        for (uint32_t i = atomic_exchange(&n_owned, 0); i-- > 0;)
                ((void *(*)(void *))owned[i].free_handle)(owned[i].handle);
        drover_arena_free(arena);
}

drover_arena *fixture_arena(uint64_t bytes) {
        drover_arena *a;
        assert_int_equal(drover_arena_create("test", bytes, &a), 0);
        return a;
}

void *fixture_shared(size_t bytes) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(p, MAP_FAILED);
        return p;
}

void fixture_unshare(void *p, size_t bytes) { munmap(p, bytes); }

pid_t fixture_fork(drover_arena *arena, void (*fn)(drover_arena *arena, void *user), void *user) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        atomic_store(&n_owned, 0); /* our parent's */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        drover_arena *mine;
        CHECK(drover_arena_attach(drover_arena_fd(arena), &mine) == 0);
        fn(mine, user);
        _exit(0);
}

int fixture_reap(drover_arena *arena, pid_t pid) {
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        drover_arena_repair_pid(arena, pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

uint64_t fixture_kill(drover_arena *arena, pid_t pid) {
        uint64_t at = event_now_ns();
        kill(pid, SIGKILL);
        assert_int_equal(fixture_reap(arena, pid), -SIGKILL);
        return event_now_ns() - at;
}

struct thread {
        pthread_t id;
        drover_arena *arena;
        const struct fixture_crew *crew;
};

static void *run_thread(void *argument) {
        struct thread *t = argument;
        t->crew->fn(t->arena, t->crew->user);
        return NULL;
}

void fixture_run(drover_arena *arena, const struct fixture_crew *crew) {
        assert_true(crew->n <= MAX_CREW);
        if (crew->are_processes) {
                pid_t pids[MAX_CREW];
                for (unsigned i = 0; i < crew->n; i++)
                        pids[i] = fixture_fork(arena, crew->fn, crew->user);
                for (unsigned i = 0; i < crew->n; i++)
                        assert_int_equal(fixture_reap(arena, pids[i]), 0);
                return;
        }
        struct thread threads[MAX_CREW];
        for (unsigned i = 0; i < crew->n; i++) {
                threads[i] = (struct thread){.arena = arena, .crew = crew};
                assert_int_equal(pthread_create(&threads[i].id, NULL, run_thread, &threads[i]), 0);
        }
        for (unsigned i = 0; i < crew->n; i++)
                pthread_join(threads[i].id, NULL);
}

struct drover_object_info fixture_info(drover_arena *arena, const char *name) {
        struct drover_object_info infos[64];
        int n = drover_arena_list(arena, infos, 64);
        for (int i = 0; i < n && i < 64; i++)
                if (strcmp(infos[i].name, name) == 0)
                        return infos[i];
        return (struct drover_object_info){0};
}

void fixture_await_waiters(drover_arena *arena, const char *name, uint32_t n) {
        uint64_t deadline = stuck();
        while (fixture_info(arena, name).n_waiters < n) {
                assert_true(event_now_ns() < deadline);
                sched_yield();
        }
}
