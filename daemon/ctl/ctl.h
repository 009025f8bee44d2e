/* What the parts of droverctl share: exit codes, the options of one command line, one verb a function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct remote;

enum ctl_exit {
        CTL_OK = 0,
        CTL_JOB_FAILED = 1,   /* a job ended otherwise than done; verify found an error */
        CTL_USAGE = 2,        /* the command line or an argument makes no sense */
        CTL_UNREACHABLE = 3,  /* no bus, no daemon, or it went away */
        CTL_REFUSED = 4,      /* the daemon said no: no such pool, pool stopped, queue full … */
        CTL_BROKEN = 5,       /* droverctl's own trouble: the output cannot be written, out of memory */
        CTL_RUN_FAILED = 125, /* run: the surroundings of COMMAND could not be built */
        CTL_INTERRUPTED = 130,
};

enum ctl_json { CTL_JSON_OFF, CTL_JSON_SHORT, CTL_JSON_PRETTY };
enum ctl_scope { CTL_SCOPE_AUTO, CTL_SCOPE_USER, CTL_SCOPE_SYSTEM, CTL_SCOPE_ADDRESS };

enum { CTL_MAX_PLUGINS = 16, CTL_MAX_SETTINGS = 16, CTL_MAX_OUTPUTS = 16 };

/* An option that is passed on: by run as a key of the pool file, by call and submit as an option of the job. */
struct ctl_setting {
        const char *name; /* of the option, and of the job's */
        const char *section, *key, *value;
        char type; /* of the job's option: u number, t time, n time from now, s text, a job numbers; 0 = none */
};

struct ctl_verb;

struct ctl {
        const struct ctl_verb *verb;
        enum ctl_scope scope;
        const char *address; /* CTL_SCOPE_ADDRESS */
        enum ctl_json json;
        bool quiet, full, no_wait;
        const char *input, *arg; /* map, call */
        const char *mode;        /* cancel */
        const char *signal;      /* kill */
        const char *state;       /* list-jobs: words between commas */
        uint32_t n_lines;        /* list-jobs, list-deaths; 0 = as many as there are */
        const char *state_dir;   /* list-capsules, show-capsule, resubmit */
        bool once;               /* top */
        uint64_t interval_us;    /* top; 0 = its own */
        const char *plugins[CTL_MAX_PLUGINS];
        unsigned n_plugins;
        const char *outputs[CTL_MAX_OUTPUTS]; /* call, result: FIELD=FILE; show-capsule: FILE */
        unsigned n_outputs;
        struct ctl_setting settings[CTL_MAX_SETTINGS];
        unsigned n_settings;
        char **operands; /* after the verb */
        int n_operands;
        struct remote *remote; /* verbs with `is_remote` */
};

struct ctl_verb {
        const char *name, *operands, *help; /* operands: the words that completion and the man page know, too */
        int min_operands, max_operands;     /* max -1: any number */
        bool is_remote;
        int (*run)(struct ctl *c); /* its exit code */
        const char *group;         /* heading of the help, at the first verb of each */
};

/* verbs.c: the one table of verbs. By index; NULL behind the last. */
const struct ctl_verb *ctl_verb_at(size_t i);
const struct ctl_verb *ctl_find_verb(const char *name);
void ctl_print_help(FILE *f);

int verb_call(struct ctl *c);
int verb_cancel(struct ctl *c);
int verb_cat(struct ctl *c);
int verb_complete(struct ctl *c);
int verb_drain(struct ctl *c);
int verb_kill(struct ctl *c);
int verb_list_arenas(struct ctl *c);
int verb_list_capsules(struct ctl *c);
int verb_list_deaths(struct ctl *c);
int verb_list_jobs(struct ctl *c);
int verb_list_objects(struct ctl *c);
int verb_list_pools(struct ctl *c);
int verb_list_sessions(struct ctl *c);
int verb_list_workers(struct ctl *c);
int verb_map(struct ctl *c);
int verb_pause(struct ctl *c);
int verb_reload(struct ctl *c);
int verb_remove_arena(struct ctl *c);
int verb_requeue(struct ctl *c);
int verb_reset_failed(struct ctl *c);
int verb_resize(struct ctl *c);
int verb_restart(struct ctl *c);
int verb_resubmit(struct ctl *c);
int verb_result(struct ctl *c);
int verb_resume(struct ctl *c);
int verb_run(struct ctl *c);
int verb_schema(struct ctl *c);
int verb_show(struct ctl *c);
int verb_show_capsule(struct ctl *c);
int verb_start(struct ctl *c);
int verb_status(struct ctl *c);
int verb_stop(struct ctl *c);
int verb_submit(struct ctl *c);
int verb_top(struct ctl *c);
int verb_verify(struct ctl *c);
int verb_wait(struct ctl *c);
int verb_why(struct ctl *c);

/* "droverctl: …" on stderr, one line, without what a terminal would obey. */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says that there is no memory. CTL_BROKEN */
int ctl_no_memory(void);

/* SIGINT, SIGTERM and SIGHUP set a flag that remote_call and map look at, instead of ending the process. */
void ctl_catch_interrupts(void);
bool ctl_is_interrupted(void);

#define ctl_cleanup(function) __attribute__((cleanup(function)))
static inline void ctl_freep(void *p) { free(*(void **)p); }
static inline void ctl_closep(int *fd) {
        if (*fd >= 0)
                close(*fd);
}
