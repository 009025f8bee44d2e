/* What the verbs about single jobs share. */
#pragma once

#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/progress.h"

/* "7" or the job's object path. -EINVAL */
int job_parse(const char *word, uint64_t *ret);
/* The path of the job that an operand names. CTL_OK or the exit code, said. */
int job_find(struct ctl *c, const char *word, struct json_object **ret_path);

/* Arguments and result of job type `type`, out of the pool's schema. CTL_OK or the exit code, said. */
int job_find_fields(struct ctl *c, const char *pool, const char *type, struct schema_fields *ret_args,
                    struct schema_fields *ret_result);

/* Waits until the job has a verdict, showing its own progress. CTL_OK, or the exit code, said; CTL_INTERRUPTED. */
int job_await(struct ctl *c, const char *path, struct progress *p);
/* Prints the result of a job that has ended and writes --output=. CTL_OK, CTL_JOB_FAILED …; `fields` NULL: unknown. */
int job_print_result(struct ctl *c, const char *path, const struct schema_fields *fields);
