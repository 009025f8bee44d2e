/* What keeps plugin code in: limits, no new privileges, Landlock, two seccomp filters (filter.h), and the handler that
 * answers or names the calls that the filters stop. One per process. All of it is there before the plugin's first
 * instruction. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plugins/host/sandbox/filter.h"
#include "plugins/host/sandbox/limits.h"

enum sandbox_layer {
        SANDBOX_SECCOMP = 1u << 0,
        SANDBOX_LANDLOCK = 1u << 1,
        SANDBOX_NO_NEW_PRIVS = 1u << 2,
        SANDBOX_RLIMITS = 1u << 3,
        SANDBOX_LANDLOCK_PARTLY = 1u << 4, /* not for the threads that libraries had started */
};

struct sandbox {
        unsigned layers; /* that are on */
        int landlock_abi;
        enum filter_kind kind;
        const struct filter *filter;
        int listener_fd; /* of a template, once it is closed: for the spawner (filter.h) */
};

/* Compiles the filters (once a process and its children), reads what cannot be read later. */
int sandbox_prepare(struct sandbox *s, bool is_template);

/* Resource limits, no_new_privs, not dumpable. Fails closed. */
int sandbox_limit(struct sandbox *s, const struct limits *l);

/* Landlock (if the kernel has it) and the first filter. From here on nothing can be opened, no process made. Fails
 * closed but for Landlock. `is_alone`: no other thread runs yet; else Landlock cannot cover all and is not called on.
 */
int sandbox_enter(struct sandbox *s, bool is_alone);

/* Lets the next open of WIRE_PLUGIN_FD's path through, once: that is how dlopen gets at the plugin. When the loader
 * closes what it got, the plugin is mapped and nothing of it has run: `on_mapped` is called, from the signal handler.
 */
void sandbox_admit_plugin(void (*on_mapped)(void *user), void *user);

/* The last filter, on all threads: for on_mapped to call. Nothing changes after it. */
int sandbox_close(struct sandbox *s);

/* A system call that the process dies of. */
struct sandbox_breach {
        int number;
        const char *path; /* as the caller gave it: not to be followed; NULL = it takes none */
        uintptr_t instruction;
        bool is_unsound; /* a look at the stack, or at whatever else is the plugin's, has crashed: tell it without */
};

/* Called from the signal handler, before the process dies; if that crashes, once more, with `is_unsound`. */
void sandbox_on_breach(void (*fn)(void *user, const struct sandbox_breach *b), void *user);

/* Called from the signal handler on a crash (SIGSEGV, SIGBUS, SIGILL, SIGFPE), before the process dies of it. */
void sandbox_on_crash(void (*fn)(void *user, int signal, uintptr_t address, uintptr_t instruction), void *user);

/* "seccomp,landlock:7,no-new-privs,rlimits": the layers that are on; "no-landlock:threads" in the place of Landlock if
 * it does not hold for all threads; and "sanitizer" if the filters are wider for one.
 */
void sandbox_describe(const struct sandbox *s, char *text, size_t text_bytes);
