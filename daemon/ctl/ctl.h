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
        CTL_JOB_FAILED = 1,   /* a job ended otherwise than done */
        CTL_USAGE = 2,        /* the command line or an argument makes no sense */
        CTL_UNREACHABLE = 3,  /* no bus, no daemon, or it went away */
        CTL_REFUSED = 4,      /* the daemon said no: no such pool, pool stopped, queue full … */
        CTL_RUN_FAILED = 125, /* run: the surroundings of COMMAND could not be built */
        CTL_INTERRUPTED = 130,
};

enum ctl_json { CTL_JSON_OFF, CTL_JSON_SHORT, CTL_JSON_PRETTY };
enum ctl_scope { CTL_SCOPE_AUTO, CTL_SCOPE_USER, CTL_SCOPE_SYSTEM, CTL_SCOPE_ADDRESS };

enum { CTL_MAX_PLUGINS = 16, CTL_MAX_SETTINGS = 16 };

struct ctl_setting {
        const char *section, *key, *value;
};

struct ctl_verb;

struct ctl {
        const struct ctl_verb *verb;
        enum ctl_scope scope;
        const char *address; /* CTL_SCOPE_ADDRESS */
        enum ctl_json json;
        bool quiet;
        const char *input, *arg; /* map, call */
        const char *plugins[CTL_MAX_PLUGINS];
        unsigned n_plugins;
        struct ctl_setting settings[CTL_MAX_SETTINGS]; /* run: keys of the pool file */
        unsigned n_settings;
        char **operands; /* after the verb */
        int n_operands;
        struct remote *remote; /* verbs with `is_remote` */
};

struct ctl_verb {
        const char *name, *operands, *help;
        int min_operands, max_operands; /* max -1: any number */
        bool is_remote;
        int (*run)(struct ctl *c); /* its exit code */
};

const struct ctl_verb *ctl_find_verb(const char *name);
void ctl_print_help(FILE *f);

int verb_status(struct ctl *c);
int verb_list_pools(struct ctl *c);
int verb_list_workers(struct ctl *c);
int verb_list_objects(struct ctl *c);
int verb_show(struct ctl *c);
int verb_call(struct ctl *c);
int verb_map(struct ctl *c);
int verb_why(struct ctl *c);
int verb_run(struct ctl *c);

/* "droverctl: …" on stderr. */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* SIGINT and SIGTERM set a flag that remote_call and map look at, instead of ending the process. */
void ctl_catch_interrupts(void);
bool ctl_is_interrupted(void);

#define ctl_cleanup(function) __attribute__((cleanup(function)))
static inline void ctl_freep(void *p) { free(*(void **)p); }
static inline void ctl_closep(int *fd) {
        if (*fd >= 0)
                close(*fd);
}
