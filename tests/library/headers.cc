/* All headers in one C++ program, and every macro of theirs: compiled as C++11 to C++20, and run. */
#include <drover/drover.h>
#include <drover/plugin.h>
#include <drover/sync.h>

#include <cstdio>

static bool is_read(const struct drover_options *o, const struct drover_map_options *m) {
        return o->struct_size == sizeof *o && o->priority == DROVER_HIGH && o->max_attempts == 2 && !o->after &&
               m->struct_size == sizeof *m && m->order == DROVER_UNORDERED && m->window == 7 &&
               m->job->flags == DROVER_DETACHED && m->job->priority == 0;
}

static int hello(drover_job *job) {
        const char *who;
        int r = drover_arg_str(job, "who", &who, NULL);
        if (r < 0)
                return drover_fail(job, r, "no \"%s\"", "who");
        drover_log(job, 6, "hello from %s", drover_worker_pool(job));
        return drover_ret_str(job, "greeting", who);
}

static const struct drover_job_type jobs[] = {
        {.name = "hello", .args = "who:str", .result = "greeting:str", .help = NULL, .handle = hello, .models = 0, .flags = 0},
};
static struct drover_plugin plugin; /* fields by name would have to be all of them, for -Wextra */
DROVER_REGISTER(plugin, "hello", "1.0.0")

int main() {
        drover_arena *arena;
        drover_mutex *mutex;
        drover_rwlock *rwlock;
        drover_semaphore *semaphore;
        drover_permits *permits;
        if (!is_read(DROVER_OPTIONS(.priority = DROVER_HIGH, .max_attempts = 2),
                     DROVER_MAP_OPTIONS(.order = DROVER_UNORDERED, .window = 7,
                                        .job = DROVER_OPTIONS(.flags = DROVER_DETACHED))))
                return 1;
        plugin.jobs = jobs;
        plugin.n_jobs = DROVER_COUNT(jobs);
        if (drover_plugin_entry(NULL)->n_jobs != 1 || drover_arena_create("headers", 1 << 20, &arena) < 0 ||
            drover_mutex_open(arena, "m", 0, &mutex) < 0 || drover_rwlock_open(arena, "r", &rwlock) < 0 ||
            drover_semaphore_open(arena, "s", 1, &semaphore) < 0 || drover_permits_open(arena, "p", 1, &permits) < 0)
                return 2;
        {
                DROVER_LOCKED(a, mutex, DROVER_FOREVER);
                DROVER_COUNTED(b, semaphore, DROVER_FOREVER);
                DROVER_PERMITTED(c, permits, DROVER_FOREVER);
                DROVER_READING(r, rwlock, DROVER_FOREVER);
                if (a.result < 0 || b.result < 0 || c.result < 0 || r.result < 0)
                        return 3;
        }
        {
                DROVER_WRITING(w, rwlock, 0);
                if (w.result < 0)
                        return 4;
        }
        drover_arena_free(arena);
        std::puts("fine");
        return 0;
}
