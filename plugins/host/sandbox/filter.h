/* The programs the kernel runs: seccomp filters (libseccomp) and the Landlock ruleset. Nobody else uses either. */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum filter_kind {
        FILTER_WORKER,   /* what plugin code and the host need, and the loader */
        FILTER_TEMPLATE, /* and the host's own fork */
        FILTER_N,
};

/* A call with this number and first argument is killed without a signal handler: how a process dies of its breach. */
#define FILTER_DEATH_SYSCALL SYS_reboot
#define FILTER_DEATH_ARGUMENT 0x64726f76u

/* The loader gets the plugin's file by this number, and the close of it is trapped: then all of it is mapped, and
 * nothing of it has run. */
#define FILTER_LOADER_FD 63

/* A `seccomp` call that nobody has a use for: the last filter answers it with this error, the kernel with EINVAL. */
#define FILTER_PROBE_OPERATION 0x64726f76u
#define FILTER_PROBE_ERROR ELNRNG

/* The flags of the template's fork, to the letter. */
#define FILTER_FORK_FLAGS (CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)

struct filter {
        struct sock_filter *code;
        unsigned short n_code;
};

/* The compiled program of `kind`, the same for every process: the pid stands in it as a placeholder. Needs descriptors
 * and memory the first time, nothing later. Never freed. */
int filter_get(enum filter_kind kind, const struct filter **ret);

/* A copy with the placeholder replaced, into `code` (room for f->n_code). */
void filter_fill_in(const struct filter *f, uint32_t pid, struct sock_filter *code);

/* Loads it on every thread of the process, and proves by a call that it must refuse that it is there. -errno; -ESRCH: a
 * thread could not be brought in; -ENOTRECOVERABLE: the kernel says that it is there, and it is not. */
int filter_load(const struct filter *f, uint32_t pid);

/* The last one, on top of it, the same way: no code can be mapped any more, no filter added, and the control socket
 * keeps its number. Of a template: *ret_listener is the descriptor by which the spawner answers the calls that wait for
 * its word, else -1. -EBUSY: somebody listens already. Async-signal-safe. */
int filter_load_last(enum filter_kind kind, int *ret_listener);

enum { FILTER_LAST_CODE = 23 };
unsigned short filter_get_last(enum filter_kind kind, struct sock_filter code[FILTER_LAST_CODE]);

/* Denies all that this kernel's Landlock knows, for the calling thread and what it makes. *ret_abi = 0: the kernel has
 * none. */
int filter_landlock(int *ret_abi);

/* The name of a system call, "?" if it has none. */
const char *filter_call_name(int number, char *text, size_t text_bytes);
