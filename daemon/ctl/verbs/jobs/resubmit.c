/* resubmit: the job of a capsule as a new one.
 *
 * Requeue runs a job again under its number, if it came over the bus and its daemon has the capsule. This asks for
 * nothing but the bytes, so it is for a job of a channel, too, and for the file of another machine. What its arguments
 * are is what the pool of that name says now: they are checked by its schema, as words of a command line are. */
#include "daemon/ctl/verbs/jobs/job.h"
#include "daemon/ctl/verbs/look/capsule-files.h"
#include "daemon/ctl/words/submit.h"
#include "ipc/values/args.h"

static int resubmit(struct ctl *c, const struct capsule *capsule) {
        ctl_cleanup(json_putp) struct json_object *submitted = NULL;
        struct schema_fields fields, result;
        struct arguments_fds fds = {0};
        char why[ARGUMENTS_MAX_ERROR];
        int code = job_find_fields(c, capsule->pool, capsule->job, &fields, &result);

        if (code != CTL_OK)
                return code;
        const struct submit_args args = {.fields = &fields,
                                         .args = capsule->payload,
                                         .bytes = capsule->payload_bytes,
                                         .fds = &fds,
                                         .payload_fd = -1};
        if (args_check(&fields, args.args, args.bytes, why, sizeof why) < 0 ||
            args_check_fds(&fields, args.args, args.bytes, 0, why, sizeof why) < 0) {
                ctl_error("resubmit %s: these are no arguments of job type %s of pool %s: %s", c->operands[0],
                          capsule->job, capsule->pool, why);
                return CTL_USAGE;
        }
        int r = submit_job(c, capsule->pool, capsule->job, &args, &submitted);
        if (r < 0)
                return remote_report(c->remote, r);
        submit_print(c, submitted);
        return CTL_OK;
}

int verb_resubmit(struct ctl *c) {
        struct capsule capsule;
        int code = submit_check_options(c);

        if (code == CTL_OK)
                code = capsule_files_get(c, c->operands[0], &capsule);
        if (code != CTL_OK)
                return code;
        code = resubmit(c, &capsule);
        capsule_deinit(&capsule);
        return code;
}
