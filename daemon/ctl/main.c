/* droverctl: what an operator and a shell script use to talk to droverd.
 *
 * Owns the table of verbs, the help text made of it, and the interrupt flag. An ordinary client: everything it does
 * goes over the bus interface (remote.c) or a channel (ipc/client/session.h), so whatever it can do, any program can.
 * Each verb returns its exit code; what each code means stands in ctl.h, in --help and in the man page. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/options.h"
#include "daemon/ctl/remote.h"

static int verb_help(struct ctl *c) {
        ctl_print_help(stdout);
        return CTL_OK;
}

static const struct ctl_verb verbs[] = {
        {"status", "", "the daemon and its pools at a glance", 0, 0, true, verb_status},
        {"list-pools", "", "every pool with its state and counters", 0, 0, true, verb_list_pools},
        {"list-workers", "", "every worker with its pid, state and job", 0, 0, true, verb_list_workers},
        {"list-objects", "ARENA", "what is in an arena: locks, queues, who holds them", 1, 1, true, verb_list_objects},
        {"show", "POOL", "all properties of one pool, its job types and its last deaths", 1, 1, true, verb_show},
        {"call", "POOL JOB [KEY=VALUE...]", "run one job and print its result", 2, -1, true, verb_call},
        {"map", "POOL JOB", "run one job per input line, results in input order", 2, 2, true, verb_map},
        {"why", "JOB", "what happened to a job, in sentences", 1, 1, true, verb_why},
        {"run", "-- COMMAND [ARG...]", "run COMMAND with a private bus, daemon and pools", 1, -1, false, verb_run},
        {"help", "", "this text", 0, 0, false, verb_help},
};

const struct ctl_verb *ctl_find_verb(const char *name) {
        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return &verbs[i];
        return NULL;
}

void ctl_print_help(FILE *f) {
        fputs("droverctl VERB [OPTION...]   talk to droverd\n\nVerbs:\n", f);
        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
                int n = fprintf(f, "  %s %s", verbs[i].name, verbs[i].operands);
                fprintf(f, "%*s%s\n", n < 38 ? 38 - n : 1, "", verbs[i].help);
        }
        options_print_help(f);
        fputs("\nExit codes:\n"
              "  0    fine\n"
              "  1    a job failed (or was cancelled, expired, timed out, poisoned or lost)\n"
              "  2    the command line or an argument makes no sense\n"
              "  3    the bus or the daemon cannot be reached\n"
              "  4    the daemon refused: no such pool, pool stopped, queue full, ...\n"
              "  125  run: the bus, the daemon or a pool did not start\n"
              "  130  interrupted; jobs that were under way are cancelled\n"
              "  run otherwise ends with COMMAND's own code (128 + N if signal N ended it).\n",
              f);
}

void ctl_error(const char *format, ...) {
        va_list ap;

        fflush(stdout);
        fputs("droverctl: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fputc('\n', stderr);
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) { interrupted = signal; }

void ctl_catch_interrupts(void) {
        struct sigaction action = {.sa_handler = on_interrupt};

        sigemptyset(&action.sa_mask);
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
}

bool ctl_is_interrupted(void) { return interrupted != 0; }

int main(int argc, char *argv[]) {
        struct ctl c = {0};
        int r;

        r = options_parse(&c, argc, argv);
        if (r >= 0)
                return r;
        if (c.verb->is_remote) {
                r = remote_open(&c.remote, c.scope, c.address);
                if (r < 0)
                        return CTL_UNREACHABLE; /* remote_open said why */
        }
        r = c.verb->run(&c);
        remote_free(c.remote);
        if (fflush(stdout) != 0 && r == CTL_OK) {
                ctl_error("cannot write the output: %s", strerror(errno));
                r = CTL_REFUSED;
        }
        return r;
}
