/* An account that many workers share: a mutex guards it, a condition tells of money that came in.
 *
 * The balance changes by one store, so a worker that is killed while it holds the mutex leaves it whole: the next owner
 * has nothing to repair but to say so. What a second run of a job would do, the mutex cannot know: these jobs are run
 * once or lost (DROVER_ONCE). */
#include <drover/plugin.h>
#include <drover/sync.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ACCOUNT_NAME = 40, SLICE_MS = 20 };

static drover_arena *bank;

struct account {
        drover_mutex *mutex;
        drover_condition *funds;
        drover_array *balance;
};

static void account_close(struct account *a) {
        drover_array_free(a->balance);
        drover_condition_free(a->funds);
        drover_mutex_free(a->mutex);
}

#define ACCOUNT(a) struct account a __attribute__((cleanup(account_close))) = {0}

static int account_open(const drover_job *job, struct account *a) {
        const char *name;
        char object[ACCOUNT_NAME + 16];
        int r = drover_arg_str(job, "account", &name, NULL);
        if (r < 0)
                return r;
        if (strlen(name) > ACCOUNT_NAME)
                return -ENAMETOOLONG;
        r = drover_mutex_open(bank, name, 0, &a->mutex);
        snprintf(object, sizeof object, "%s.funds", name);
        if (r == 0)
                r = drover_condition_open(bank, object, a->mutex, &a->funds);
        snprintf(object, sizeof object, "%s.balance", name);
        return r < 0 ? r : drover_array_open(bank, object, sizeof(uint64_t), 1, &a->balance);
}

static uint64_t balance_of(const struct account *a) { return *(volatile uint64_t *)drover_array_data(a->balance); }

/* The mutex is the caller's, whoever died with it. */
static int mend(struct account *a, int r) { return r == -EOWNERDEAD ? drover_mutex_consistent(a->mutex) : r; }

static int account_lock(struct account *a) { return mend(a, drover_mutex_lock(a->mutex, DROVER_FOREVER)); }

static int deposit(drover_job *job) {
        ACCOUNT(a);
        uint64_t amount;
        int r = drover_arg_u64(job, "amount", &amount);
        if (r == 0)
                r = account_open(job, &a);
        if (r == 0)
                r = account_lock(&a);
        if (r < 0)
                return r;
        uint64_t balance = balance_of(&a) + amount;
        drover_array_store(a.balance, 0, balance);
        drover_condition_notify_all(a.funds);
        drover_mutex_unlock(a.mutex);
        return drover_ret_u64(job, "balance", balance);
}

/* Waits until there is enough, or the job is to end. With the mutex held, before and after. */
static int wait_for_funds(drover_job *job, struct account *a, uint64_t amount) {
        while (balance_of(a) < amount) {
                int r = drover_checkpoint(job);
                if (r < 0)
                        return r;
                r = mend(a, drover_condition_wait(a->funds, drover_deadline_in(SLICE_MS * UINT64_C(1000000))));
                if (r < 0 && r != -ETIMEDOUT)
                        return r;
        }
        return 0;
}

static int withdraw(drover_job *job) {
        ACCOUNT(a);
        uint64_t amount;
        int r = drover_arg_u64(job, "amount", &amount);
        if (r == 0)
                r = account_open(job, &a);
        if (r == 0)
                r = account_lock(&a);
        if (r < 0)
                return r;
        r = wait_for_funds(job, &a, amount);
        uint64_t balance = balance_of(&a);
        if (r == 0)
                drover_array_store(a.balance, 0, balance -= amount);
        drover_mutex_unlock(a.mutex);
        return r < 0 ? r : drover_ret_u64(job, "balance", balance);
}

static int balance(drover_job *job) {
        ACCOUNT(a);
        int r = account_open(job, &a);
        return r < 0 ? r : drover_ret_u64(job, "balance", balance_of(&a));
}

static int open_bank(drover_worker *worker, void **state) {
        int fd, r = drover_arena_open_fd(worker, "bank", 0, &fd);
        if (r < 0)
                return r;
        r = drover_arena_attach(fd, &bank);
        close(fd);
        return r;
}

static void close_bank(drover_worker *worker, void *state) { bank = drover_arena_free(bank); }

static const struct drover_job_type jobs[] = {
        {.name = "deposit",
         .args = "account:str,amount:u64",
         .result = "balance:u64",
         .help = "Pays in.",
         .handle = deposit,
         .flags = DROVER_ONCE},
        {.name = "withdraw",
         .args = "account:str,amount:u64",
         .result = "balance:u64",
         .help = "Pays out, once there is enough.",
         .handle = withdraw,
         .flags = DROVER_ONCE},
        {.name = "balance",
         .args = "account:str",
         .result = "balance:u64",
         .help = "What is there now.",
         .handle = balance},
};

static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .description = "A bank account shared by all workers",
        .worker_init = open_bank,
        .worker_fini = close_bank,
};
DROVER_REGISTER(plugin, "bank", "1.0.0")
