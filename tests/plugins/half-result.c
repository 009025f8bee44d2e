/* Dies on its first attempt when half of the result is written; the second must see the input as it was, and gives the
 * right answer: the payload in capitals. */
#include <ctype.h>
#include <drover/plugin.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static void die_once(drover_job *job) {
        if (drover_job_attempt(job) == 1)
                raise(SIGKILL);
}

static int raw(drover_job *job) {
        size_t size;
        const char *payload = drover_payload(job, &size);
        char *result = drover_reserve(job, size);
        if (!result)
                return -EMSGSIZE;
        for (size_t i = 0; i < size; i++) {
                if (i == size / 2)
                        die_once(job);
                result[i] = (char)toupper((unsigned char)payload[i]);
        }
        return drover_commit(job, size);
}

static int typed(drover_job *job) {
        const char *text;
        int r = drover_arg_str(job, "text", &text, NULL);
        if (r >= 0)
                r = drover_ret_u64(job, "length", strlen(text));
        if (r < 0)
                return r;
        die_once(job);
        return drover_ret_str(job, "text", text);
}

static const struct drover_job_type jobs[] = {
        {.name = "raw", .args = "raw", .result = "raw", .handle = raw},
        {.name = "typed", .args = "text:str", .result = "length:u64,text:str", .handle = typed},
};
static struct drover_plugin plugin = {.jobs = jobs, .n_jobs = DROVER_COUNT(jobs)};
DROVER_REGISTER(plugin, "half-result", "1.0")
