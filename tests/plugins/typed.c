/* Gives back what it gets: every type, arrays, raw bytes. Also shows what a job knows of itself, and every callback's
 * work. */
#include <drover/plugin.h>
#include <errno.h>
#include <string.h>

#define FIELDS "u:u64,i:i64,f:f64,b:bool,s:str,y:bytes,us:u64[],is:i64[],fs:f64[],bs:bool[],ss:str[]"

static int echo_scalars(drover_job *job) {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        const char *s;
        const void *y;
        size_t s_size, y_size;
        int r;
        if ((r = drover_arg_u64(job, "u", &u)) < 0 || (r = drover_arg_i64(job, "i", &i)) < 0 ||
            (r = drover_arg_f64(job, "f", &f)) < 0 || (r = drover_arg_bool(job, "b", &b)) < 0 ||
            (r = drover_arg_str(job, "s", &s, &s_size)) < 0 || (r = drover_arg_bytes(job, "y", &y, &y_size)) < 0)
                return r;
        if (s[s_size] != 0)
                return drover_fail(job, EPROTO, "a string without its 0");
        drover_ret_u64(job, "u", u);
        drover_ret_i64(job, "i", i);
        drover_ret_f64(job, "f", f);
        drover_ret_bool(job, "b", b);
        drover_ret_str_sized(job, "s", s, s_size);
        return drover_ret_bytes(job, "y", y, y_size);
}

static int echo_arrays(drover_job *job) {
        const uint64_t *u;
        const int64_t *i;
        const double *f;
        const bool *b;
        const char *const *s;
        size_t n_u, n_i, n_f, n_b, n_s;
        int r;
        if ((r = drover_arg_u64_array(job, "us", &u, &n_u)) < 0 ||
            (r = drover_arg_i64_array(job, "is", &i, &n_i)) < 0 ||
            (r = drover_arg_f64_array(job, "fs", &f, &n_f)) < 0 ||
            (r = drover_arg_bool_array(job, "bs", &b, &n_b)) < 0 || (r = drover_arg_str_array(job, "ss", &s, &n_s)) < 0)
                return r;
        drover_ret_u64_array(job, "us", u, n_u);
        drover_ret_i64_array(job, "is", i, n_i);
        drover_ret_f64_array(job, "fs", f, n_f);
        drover_ret_bool_array(job, "bs", b, n_b);
        return drover_ret_str_array(job, "ss", s, n_s);
}

static int echo(drover_job *job) {
        uint64_t u;
        if (drover_arg_u64(job, "nope", &u) != -ENOENT || drover_arg_u64(job, "i", &u) != -EINVAL ||
            drover_payload(job, NULL))
                return drover_fail(job, EPROTO, "a getter answers what it should not");
        int r = echo_scalars(job);
        return r < 0 ? r : echo_arrays(job);
}

static int raw(drover_job *job) {
        size_t size;
        const void *payload = drover_payload(job, &size);
        return drover_reply(job, payload, size);
}

/* Without the copy: reversed, in place. */
static int reserve(drover_job *job) {
        size_t size;
        const char *payload = drover_payload(job, &size);
        char *room = drover_reserve(job, size);
        if (!room)
                return -EMSGSIZE;
        for (size_t i = 0; i < size; i++)
                room[i] = payload[size - 1 - i];
        return drover_commit(job, size);
}

static int self(drover_job *job) {
        drover_ret_u64(job, "id", drover_job_id(job));
        drover_ret_u64(job, "attempt", drover_job_attempt(job));
        drover_ret_bool(job, "cancelled", drover_job_cancelled(job));
        drover_ret_str(job, "name", drover_job_name(job));
        drover_ret_str(job, "pool", drover_worker_pool(job));
        const char *life = drover_state(job);
        return drover_ret_str(job, "life", life && drover_shared(job) && drover_thread_state(job) ? life : "");
}

static char life[64];

static void note(const char *word) { strncat(life, word, sizeof life - strlen(life) - 1); }

static int preload(drover_preload_ctx *ctx, void **shared) {
        note("preload");
        *shared = life;
        return 0;
}
static int worker_open(drover_worker *worker) {
        note(" open");
        return 0;
}
static int worker_init(drover_worker *worker, void **state) {
        note(drover_shared(worker) == life ? " init" : " lost");
        *state = life;
        return 0;
}
static int thread_init(drover_worker *worker, void **state) {
        note(drover_state(worker) == life ? " thread" : " lost");
        *state = life;
        return 0;
}
static void thread_fini(drover_worker *worker, void *state) { drover_log(worker, 6, "thread_fini"); }
static void worker_fini(drover_worker *worker, void *state) { drover_log(worker, 6, "worker_fini"); }

static const struct drover_job_type jobs[] = {
        {.name = "echo", .args = FIELDS, .result = FIELDS, .handle = echo},
        {.name = "raw", .args = "raw", .result = "raw", .handle = raw},
        {.name = "reserve", .args = "raw", .result = "raw", .handle = reserve},
        {.name = "self", .result = "id:u64,attempt:u64,cancelled:bool,name:str,pool:str,life:str", .handle = self},
};
static struct drover_plugin plugin = {
        .jobs = jobs,
        .n_jobs = DROVER_COUNT(jobs),
        .preload = preload,
        .worker_open = worker_open,
        .worker_init = worker_init,
        .thread_init = thread_init,
        .thread_fini = thread_fini,
        .worker_fini = worker_fini,
};
DROVER_REGISTER(plugin, "typed", "1.0")
