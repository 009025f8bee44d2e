/* System calls that wait for another process's word (seccomp user notification): the listener's side. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct notified_call {
        uint64_t id;
        pid_t pid; /* of the calling thread, by the kernel's word; 0: of another pid namespace */
        int number;
        uint64_t args[6];
};

/* The next one that waits; to be called when `listener` is readable only, else it may wait for one. -ENOENT: it is gone
 * again. Nothing else is a fault of the caller's. */
int notified_receive(int listener, struct notified_call *ret);

/* The answer, once a call: it is made after all, with the arguments it was checked with (they stand in registers, and
 * its thread is in the kernel); or it fails with `error`. -ENOENT: nobody waits for it any more, so it is not made. */
int notified_allow(int listener, uint64_t id);
int notified_refuse(int listener, uint64_t id, int error);

/* Before the answer: puts a duplicate of `fd` at number `number` of the caller's, in the place of what is there. The
 * caller does that itself, inside the kernel, and is waited for. -ENOENT, -ESRCH: it is gone. */
int notified_put(int listener, uint64_t id, int fd, int number);
