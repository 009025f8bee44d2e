/* Everything that a process may try to change a memory with, of which it has a descriptor. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RIGHTS_BYTE = 0xa5, RIGHTS_TEXT = 512 };

/* In a child of uid `uid`: maps `fd`, whose `bytes` are all RIGHTS_BYTE, read-only, and tries all it can. `names`: of
 * what has changed something, each with a space behind it; "" = nothing did. What was changed is put right in between,
 * if that can be. Opening the file anew is left out for the uid that owns it. */
void rights_try(int fd, size_t bytes, uid_t uid, char names[static RIGHTS_TEXT]);
