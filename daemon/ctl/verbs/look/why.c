/* why: what happened to a job, in sentences.
 *
 * Puts together what three calls know: the job's properties (where it is), its result (how it ended) and the deaths of
 * workers that held it (each attempt that was lost). Deaths come from the manager's bounded list, so of a job that died
 * long ago the last sentence stands alone; it says the reason all the same. Why a job is queued shows in its pool. The
 * bus does not tell a delay from jobs it comes after or from RateLimit=: with workers free, all are named. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/show/text.h"
#include "daemon/ctl/verbs/jobs/job.h"
#include "daemon/ctl/verbs/look/capsule-files.h"

enum { MAX_DEATHS = 1000, MAX_RESULT = 400 };

/* Deaths of workers that ran job `id`, oldest first, in *ret. Of all pools: the job's own may be gone. 0 or -errno. */
static int find_deaths(struct ctl *c, uint64_t id, struct json_object **ret) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListDeaths"};
        ctl_cleanup(json_putp) struct json_object *all = NULL;
        struct json_object *found = json_object_new_array();
        int r = remote_call(c->remote, &call, &all, "su", "", (uint32_t)MAX_DEATHS);

        for (size_t i = r < 0 ? 0 : json_length(all); i > 0; i--) {
                struct json_object *death = json_at(all, i - 1);

                if (json_number(death, "job") == id)
                        json_object_array_add(found, json_object_get(death));
        }
        *ret = found;
        return r;
}

static void say_head(struct json_object *job) {
        printf("Job %" PRIu64 " (%s of pool %s) is %s", json_number(job, "Id"), json_text(job, "Name", "?"),
               json_text(job, "Pool", "?"), json_text(job, "State", "?"));
}

static void say_waiting(struct json_object *job) {
        uint64_t started = json_number(job, "StartedUSec");
        char text[TEXT_MAX];

        say_head(job);
        if (strcmp(json_text(job, "State", ""), "queued") == 0)
                printf(", for %s so far; attempt %" PRIu64 " comes next.\n",
                       text_duration(text_since(json_number(job, "SubmittedUSec")), text), json_number(job, "Attempt"));
        else
                printf(" in attempt %" PRIu64 "%s%s%s, in the worker with pid %" PRIu64 ".\n",
                       json_number(job, "Attempt"), started ? ", for " : "",
                       started ? text_duration(text_since(started), text) : "", started ? " so far" : "",
                       json_number(job, "WorkerPid"));
}

/* The pool of a job that is queued; NULL if it is not, or the pool is gone. A job that is begun by the time its pool
 * was looked at waited for nothing. */
static struct json_object *find_pool(struct ctl *c, const char *path_of_job, struct json_object *job) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *pool = NULL, *now = NULL;

        if (strcmp(json_text(job, "State", ""), "queued") != 0 ||
            remote_call(c->remote, &find, &path, "s", json_text(job, "Pool", "")) < 0 ||
            remote_get_all(c->remote, json_string(path), "Pool", &pool) < 0)
                return NULL;
        bool is_queued = remote_get_all(c->remote, path_of_job, "Job", &now) >= 0 &&
                         strcmp(json_text(now, "State", ""), "queued") == 0;
        return is_queued ? json_object_get(pool) : NULL;
}

/* It has no result yet. A channel's job is known by these two states only: its result is its client's. */
static bool is_under_way(struct json_object *job) {
        const char *state = json_text(job, "State", "");

        return strcmp(state, "queued") == 0 || strcmp(state, "running") == 0;
}

/* What holds a queued job back, as far as its pool shows. */
static void say_reason(struct json_object *pool) {
        const char *name = json_text(pool, "Name", "?"), *state = json_text(pool, "State", "?");
        const char *problem = json_text(pool, "Problem", "");
        uint64_t n_workers = json_number(pool, "Workers"), n_running = json_number(pool, "Running");

        if (strcmp(state, "paused") == 0)
                printf("Pool %s is paused: droverctl resume %s%s lets it go on.\n", name, *name == '-' ? "-- " : "",
                       name);
        else if (strcmp(state, "running") != 0 && strcmp(state, "draining") != 0)
                printf("Pool %s is %s%s%s.\n", name, state, *problem ? ": " : "", problem);
        else if (n_workers == 0)
                printf("Pool %s has no worker at the moment.\n", name);
        else if (n_running >= n_workers)
                printf("Pool %s has %" PRIu64 " jobs running in %" PRIu64 " workers, and %" PRIu64 " queued.\n", name,
                       n_running, n_workers, json_number(pool, "Queued"));
        else
                printf("Pool %s has workers that are free: the job waits for its time (not-before, or the pause after "
                       "an "
                       "attempt), for jobs that it comes after, or for RateLimit= of the pool.\n",
                       name);
}

/* What a running job's worker waits for in an arena; NULL if in none, or if the job ended meanwhile. */
static struct json_object *find_wait(struct ctl *c, struct json_object *job) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetWorkerByPID"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *worker = NULL;
        struct json_object *wait;

        if (strcmp(json_text(job, "State", ""), "running") != 0 ||
            remote_call(c->remote, &find, &path, "u", (uint32_t)json_number(job, "WorkerPid")) < 0 ||
            remote_get_all(c->remote, json_string(path), "Worker", &worker) < 0 ||
            json_number(worker, "CurrentJob") != json_number(job, "Id") || !*json_text(worker, "WaitingFor", "") ||
            !json_object_object_get_ex(worker, "WaitingFor", &wait))
                return NULL;
        return json_object_get(wait);
}

/* The beginning says what it is; `droverctl result` has it all. */
static void say_values(struct json_object *values) {
        ctl_cleanup(ctl_freep) char *text = NULL;
        size_t bytes = 0, shown = MAX_RESULT;
        FILE *f = open_memstream(&text, &bytes);

        if (!f)
                return;
        json_print_words(f, values);
        if (fclose(f) != 0)
                return;
        if (bytes <= shown) {
                fputs(text, stdout);
                return;
        }
        while (((unsigned char)text[shown] & 0xc0) == 0x80) /* not within a character */
                shown--;
        printf("%.*s… (%zu bytes more)\n", (int)shown, text, bytes - shown - 1);
}

/* The daemon's own sentence for a failure names the job: "job 7 (…) is poisoned after 3 attempts: …". */
static void say_verdict(struct json_object *job, struct json_object *result) {
        const char *error = json_text(result, "error", "");
        struct json_object *values;

        if (strncmp(error, "job ", 4) == 0) {
                printf("J%s.\n", error + 1);
                return;
        }
        say_head(job);
        if (json_object_object_get_ex(result, "result", &values) && json_n_members(values) > 0) {
                fputs(": ", stdout);
                say_values(values);
        } else {
                printf("%s%s.\n", *error ? ": " : "", error);
        }
}

/* What became of each attempt that was lost. */
static void say_deaths(struct json_object *deaths) {
        for (size_t i = 0; i < json_length(deaths); i++) {
                struct json_object *death = json_at(deaths, i);
                const char *text = json_text(death, "text", "?"), *tail = strstr(text, " while running job");

                printf("Attempt %" PRIu64 ": worker %" PRIu64 " (pid %" PRIu64 ") died: %.*s.\n",
                       json_number(death, "attempt"), json_number(death, "worker"), json_number(death, "pid"),
                       (int)(tail ? tail - text : (long)strlen(text)), text);
        }
}

static void say_times(struct json_object *result) {
        uint64_t ran = json_number(result, "run-usec");
        char text[TEXT_MAX];

        printf("It waited %s", text_duration(json_number(result, "queue-usec"), text));
        if (ran)
                printf(" and ran %s", text_duration(ran, text));
        puts(".");
}

/* Was it asked to stop, and goes on? */
static void say_ask(struct json_object *job) {
        uint64_t asked_us = json_number(job, "CancelAskedUSec");
        char when[TEXT_MAX], since[TEXT_MAX];

        if (asked_us)
                printf("It was asked to stop at %s, %s ago, by %s.\n", text_moment(asked_us, when),
                       text_duration(text_since(asked_us), since), json_text(job, "CancelAskedBy", "?"));
}

static void say_all(struct json_object *job, struct json_object *result, struct json_object *deaths,
                    struct json_object *wait, struct json_object *pool) {
        if (result)
                say_verdict(job, result);
        else
                say_waiting(job);
        if (pool)
                say_reason(pool);
        if (wait)
                printf("It waits for %s.\n", json_plain(wait));
        say_ask(job);
        say_deaths(deaths);
        if (result)
                say_times(result);
}

/* Of a job that is not kept any more its capsule tells the end of each attempt. */
static int why_capsule(struct ctl *c, const struct capsule *capsule) {
        ctl_cleanup(json_putp) struct json_object *o = capsule_describe_all(capsule);
        struct json_object *attempts;
        char when[TEXT_MAX];

        capsule_add_attempts(o, capsule);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, o, c->json);
                return CTL_OK;
        }
        printf("Job %" PRIu64 " (%s of pool %s) is %s, since %s: its capsule says so.\n", capsule->id,
               json_text(o, "job", "?"), json_text(o, "pool", "?"), json_text(o, "state", "?"),
               text_moment(capsule->created_us, when));
        json_object_object_get_ex(o, "attempts", &attempts);
        for (size_t i = 0; i < json_length(attempts); i++) {
                struct json_object *attempt = json_at(attempts, i);

                printf("Attempt %" PRIu64 ": the worker with pid %" PRIu64 " died: %s.\n",
                       json_number(attempt, "attempt"), json_number(attempt, "pid"), json_text(attempt, "text", "?"));
        }
        printf("droverctl show-capsule %" PRIu64 " shows its input and last words.\n", capsule->id);
        return CTL_OK;
}

/* A job that the daemon has no record of: forgotten, or one of a channel, whose client has it. Its capsule or its
 * deaths may be known. */
static int why_unknown(struct ctl *c, uint64_t id, int error) {
        ctl_cleanup(ctl_freep) char *text = strdup(remote_error_text(c->remote));
        ctl_cleanup(json_putp) struct json_object *deaths = NULL;
        struct capsule capsule;

        if (strcmp(remote_error_name(c->remote), "NoSuchJob") != 0 &&
            strcmp(remote_error_name(c->remote), "ResultExpired") != 0)
                return remote_report(c->remote, error);
        if (capsule_files_look(c, id, &capsule)) {
                int code = why_capsule(c, &capsule);

                capsule_deinit(&capsule);
                return code;
        }
        error = find_deaths(c, id, &deaths);
        if (error < 0)
                return remote_report(c->remote, error);
        if (json_length(deaths) == 0) {
                ctl_error("%s", text ? text : "no such job");
                return CTL_REFUSED;
        }
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, deaths, c->json);
                return CTL_OK;
        }
        printf("Of job %" PRIu64 " the daemon knows only the workers that it lost:\n", id);
        say_deaths(deaths);
        return CTL_OK;
}

int verb_why(struct ctl *c) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetJob"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *job = NULL, *result = NULL, *deaths = NULL,
                                                  *wait = NULL, *pool = NULL;
        uint64_t id;
        int r;

        if (job_parse(c->operands[0], &id) < 0) {
                ctl_error("why %s: a job is a number, as submit and list-jobs give it", c->operands[0]);
                return CTL_USAGE;
        }
        r = remote_call(c->remote, &find, &path, "t", id);
        if (r >= 0)
                r = remote_get_all(c->remote, json_string(path), "Job", &job);
        if (r < 0)
                return why_unknown(c, id, r);
        const struct remote_call get = {.path = json_string(path), .interface = "Job", .member = "GetResult"};
        if (!is_under_way(job)) {
                r = remote_call(c->remote, &get, &result, NULL);
                if (r < 0 && strcmp(remote_error_name(c->remote), "NotFinished") != 0)
                        return remote_report(c->remote, r);
        }
        r = find_deaths(c, id, &deaths);
        if (r < 0)
                return remote_report(c->remote, r);
        wait = result ? NULL : find_wait(c, job);
        pool = result ? NULL : find_pool(c, json_string(path), job);
        if (c->json == CTL_JSON_OFF) {
                say_all(job, result, deaths, wait, pool);
        } else {
                json_object_object_add(job, "Result", json_object_get(result));
                json_object_object_add(job, "Deaths", json_object_get(deaths));
                json_object_object_add(job, "WaitingFor", json_object_get(wait));
                json_print(stdout, job, c->json);
        }
        return CTL_OK;
}
