/* The programs the kernel runs: seccomp filters (libseccomp) and the Landlock ruleset. Nobody else uses either. */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum filter_kind {
        FILTER_WORKER_LOAD,   /* stage 1 of a worker: what dlopen and the host's start need */
        FILTER_TEMPLATE_LOAD, /* stage 1 of a template: and the host's own fork */
        FILTER_SERVE,         /* stage 2 */
        FILTER_N,
};

/* A call with this number and first argument is killed without a signal handler: how a process dies of its breach. */
#define FILTER_DEATH_SYSCALL SYS_reboot
#define FILTER_DEATH_ARGUMENT 0x64726f76u

/* The flags of the template's fork, to the letter. */
#define FILTER_FORK_FLAGS (CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)

struct filter {
        struct sock_filter *code;
        unsigned short n_code;
};

/* The compiled program of `kind`, the same for every process: pid and cookie stand in it as placeholders. Needs
 * descriptors and memory the first time, nothing later. Never freed. */
int filter_get(enum filter_kind kind, const struct filter **ret);

/* A copy with the placeholders replaced, into `code` (room for f->n_code). */
void filter_fill_in(const struct filter *f, uint32_t pid, uint64_t cookie, struct sock_filter *code);

/* Loads it on every thread of the process. -errno; -ESRCH names no thread: one could not be brought in. */
int filter_load(const struct filter *f, uint32_t pid, uint64_t cookie);

/* Denies all that this kernel's Landlock knows, for the calling thread and what it makes. *ret_abi = 0: the kernel has
 * none. */
int filter_landlock(int *ret_abi);

/* The name of a system call, "?" if it has none. */
const char *filter_call_name(int number, char *text, size_t text_bytes);
