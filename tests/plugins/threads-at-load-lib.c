/* A library that starts threads when it is loaded, as OpenBLAS or a logging one does: some come and go, some stay.
 * MASKED: with all signals blocked, as many do; MASKED_RAW: by a call that nobody can see to, made before it is loaded.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

void threads_at_load(void);

#ifdef MASKED_RAW
static atomic_bool is_masked;
#endif

static void *stay(void *user) {
#ifdef MASKED_RAW
        const uint64_t all = UINT64_MAX;
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
        atomic_store(&is_masked, true);
#endif
        for (;;)
                pause();
        return NULL;
}

static void *go(void *user) { return NULL; }

__attribute__((constructor)) static void start(void) {
        pthread_t t;
#ifdef MASKED
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        for (int i = 0; i < 4; i++) {
                if (pthread_create(&t, NULL, go, NULL) == 0)
                        pthread_detach(t);
                pthread_create(&t, NULL, stay, NULL);
        }
#ifdef MASKED
        pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
#ifdef MASKED_RAW
        while (!atomic_load(&is_masked))
                sched_yield();
#endif
}

__attribute__((visibility("default"))) void threads_at_load(void) {}
