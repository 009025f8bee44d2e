/* Owns the words for a forbidden system call, and what is let through of what a process says of its own: printable
 * ASCII and known numbers. */
#include "ipc/values/breach.h"

#include <stdio.h>
#include <string.h>

#include "ipc/values/words.h"

void breach_clean_text(char *text, size_t bytes) {
        text[bytes - 1] = 0;
        for (char *c = text; *c; c++)
                if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
                        *c = '?';
}

void breach_clean(struct layout_breach *b) {
        breach_clean_text(b->module, sizeof b->module);
        breach_clean_text(b->path, sizeof b->path);
        if (b->phase >= LIFE_N)
                b->phase = LIFE_NONE;
        if (!b->module[0])
                b->offset = 0;
}

void breach_read(const struct layout_worker *line, struct layout_breach *ret) {
        ret->syscall = atomic_load_explicit(&line->fault_syscall, memory_order_acquire);
        ret->phase = atomic_load_explicit(&line->fault_phase, memory_order_relaxed);
        ret->offset = atomic_load_explicit(&line->fault_offset, memory_order_relaxed);
        memcpy(ret->module, line->fault_module, sizeof ret->module);
        memcpy(ret->path, line->fault_path, sizeof ret->path);
        __asm__ volatile("" ::: "memory"); /* from here on only the copy counts */
        breach_clean(ret);
}

void breach_describe(const struct layout_breach *b, const char *call, char *text, size_t bytes) {
        char place[sizeof b->module + 32] = "";
        if (b->module[0] && b->offset == 0)
                snprintf(place, sizeof place, " in %s", b->module);
        else if (b->module[0])
                snprintf(place, sizeof place, " at %s+0x%llx", b->module, (unsigned long long)b->offset);
        const char *phase = words_phase(b->phase);
        snprintf(text, bytes, "%s%s%s%s%s%s%s", call, b->path[0] ? "(\"" : "", b->path, b->path[0] ? "\")" : "", place,
                 *phase ? ", " : "", phase);
}
