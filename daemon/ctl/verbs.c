/* The one table of verbs.
 *
 * The command line, --help and completion read it; a test holds the man page against it. The words of `operands` say
 * what stands there: POOL and TYPE of its jobs, JOB (its number), WORKER (its number or pid), and so on. */
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/options.h"

static int verb_help(struct ctl *c) {
        ctl_print_help(stdout);
        return CTL_OK;
}

static const struct ctl_verb verbs[] = {
        {"status", "", "the daemon and its pools at a glance", 0, 0, true, verb_status, "What there is"},
        {"list-pools", "", "every pool with its state and counters", 0, 0, true, verb_list_pools},
        {"list-workers", "[POOL]", "every worker with its pid, state and job", 0, 1, true, verb_list_workers},
        {"list-jobs", "[POOL]", "jobs with their states", 0, 1, true, verb_list_jobs},
        {"list-sessions", "[POOL]", "channels that programs have open, and whose they are", 0, 1, true,
         verb_list_sessions},
        {"list-arenas", "", "memories that programs and plugins share by name, and how full they are", 0, 0, true,
         verb_list_arenas},
        {"list-objects", "ARENA", "what is in an arena: locks, queues, who holds them", 1, 1, true, verb_list_objects},
        {"list-deaths", "[POOL]", "the newest deaths of workers, with the reasons", 0, 1, true, verb_list_deaths},
        {"show", "POOL|worker/ID|job/ID", "all about one of them", 1, 1, true, verb_show},
        {"cat", "POOL", "the settings of a pool, and the file and line of each", 1, 1, true, verb_cat},
        {"schema", "POOL", "the job types of a pool and their arguments", 1, 1, true, verb_schema},
        {"why", "JOB", "what happened to a job, in sentences", 1, 1, true, verb_why},
        {"list-capsules", "[POOL]", "jobs that killed their workers, kept as files", 0, 1, false, verb_list_capsules},
        {"show-capsule", "JOB|FILE", "what such a job was, and how each attempt ended", 1, 1, false, verb_show_capsule},
        {"top", "", "pools and workers, live: rates, times, jobs", 0, 0, true, verb_top},

        {"call", "POOL TYPE [KEY=VALUE...]", "run one job and print its result", 2, -1, true, verb_call, "Jobs"},
        {"submit", "POOL TYPE [KEY=VALUE...]", "start one job and print its number", 2, -1, true, verb_submit},
        {"wait", "JOB...", "until the jobs have ended", 1, -1, true, verb_wait},
        {"result", "JOB", "the result of a job that has ended", 1, 1, true, verb_result},
        {"cancel", "JOB...", "cancel jobs and say what happened", 1, -1, true, verb_cancel},
        {"requeue", "JOB|POOL...", "run a job that ended once more, or the poisoned ones of a pool", 1, -1, true,
         verb_requeue},
        {"resubmit", "JOB|FILE", "submit the job of a capsule as a new one", 1, 1, true, verb_resubmit},
        {"map", "POOL TYPE", "run one job per input line, results in input order", 2, 2, true, verb_map},

        {"start", "POOL...", "start stopped or refused pools", 1, -1, true, verb_start, "Pools and workers"},
        {"stop", "POOL...", "end the workers; queued jobs are cancelled", 1, -1, true, verb_stop},
        {"restart", "POOL...", "replace every worker, each after its job", 1, -1, true, verb_restart},
        {"drain", "POOL...", "take no more jobs, finish the accepted ones, stop", 1, -1, true, verb_drain},
        {"pause", "POOL...", "begin no more jobs", 1, -1, true, verb_pause},
        {"resume", "POOL...", "the opposite of pause", 1, -1, true, verb_resume},
        {"resize", "POOL N", "change the number of workers", 2, 2, true, verb_resize},
        {"reset-failed", "POOL...", "forget failed starts and try again at once", 1, -1, true, verb_reset_failed},
        {"kill", "WORKER...", "send a signal to workers", 1, -1, true, verb_kill},
        {"remove-arena", "ARENA...", "forget arenas; who has one keeps its memory", 1, -1, true, verb_remove_arena},
        {"reload", "", "read the configuration again, and say what changed", 0, 0, true, verb_reload},

        {"run", "-- COMMAND [ARG...]", "run COMMAND with a private bus, daemon and pools", 1, -1, false, verb_run,
         "Without a daemon"},
        {"verify", "FILE...", "look for errors in pool files and drover.conf", 1, -1, false, verb_verify},
        {"complete", "-- WORD...", "what may stand in the place of the last word; for the shell", 1, -1, false,
         verb_complete},
        {"help", "", "this text", 0, 0, false, verb_help},
};

enum { N_VERBS = sizeof verbs / sizeof *verbs };

const struct ctl_verb *ctl_verb_at(size_t i) { return i < N_VERBS ? &verbs[i] : NULL; }

const struct ctl_verb *ctl_find_verb(const char *name) {
        for (size_t i = 0; i < N_VERBS; i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return &verbs[i];
        return NULL;
}

void ctl_print_help(FILE *f) {
        fputs("droverctl VERB [OPTION...]   talk to droverd\n", f);
        for (size_t i = 0; i < N_VERBS; i++) {
                if (verbs[i].group)
                        fprintf(f, "\n%s:\n", verbs[i].group);
                int n = fprintf(f, "  %s %s", verbs[i].name, verbs[i].operands);
                fprintf(f, "%*s%s\n", n < 38 ? 38 - n : 1, "", verbs[i].help);
        }
        options_print_help(f);
        fputs("\nExit codes:\n"
              "  0    fine\n"
              "  1    a job failed (or was cancelled, expired, timed out, poisoned or lost); verify found an error\n"
              "  2    the command line or an argument makes no sense\n"
              "  3    the bus or the daemon cannot be reached\n"
              "  4    the daemon refused: no such pool, pool stopped, queue full, ...;\n"
              "       or its answer makes no sense here\n"
              "  5    the output cannot be written, or there is no memory\n"
              "  125  run: the bus, the daemon or a pool did not start\n"
              "  130  interrupted; call and map cancel the jobs that were under way\n"
              "  run otherwise ends with COMMAND's own code (128 + N if signal N ended it).\n",
              f);
}
