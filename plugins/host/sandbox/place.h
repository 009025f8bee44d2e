/* Where an instruction is: in which file, and how far in it. For signal handlers of a process that is about to die. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct place {
        char module[24]; /* the file's name; of the plugin its own, of the host "drover-worker" */
        uint64_t offset; /* as addr2line takes it */
};

/* The plugin's name, which its file in memory does not have. Kept, not copied. */
void place_name_plugin(const char *name);

/* Of this instruction. false: it is in no file. Async-signal-safe. */
bool place_find(uintptr_t instruction, struct place *ret);

/* Of the code that is to blame for a call made at `instruction`, a signal handler's own interrupted one: the nearest
 * frame of the plugin, else the nearest outside the C library, else the instruction itself. Where the host's is the
 * nearest, the plugin ended by a jump: then it is `callback`, which the host called, or if that is 0 a constructor;
 * with offset 0 if there are several. Walks the stack, and crashes if that is not sound. */
bool place_find_caller(uintptr_t instruction, uintptr_t callback, struct place *ret);
