/* A sealed memory file: made by one process, read by others, changed by nobody any more. What does not fit into a slot
 * travels in one. */
#pragma once

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>

#define SEALED_MAX_BYTES (UINT64_C(1) << 30)
#define SEALED_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

/* A sealed copy of these bytes (at least 1). -EMSGSIZE over SEALED_MAX_BYTES. `name` shows in /proc/PID/maps. */
int sealed_create(const char *name, const void *data, size_t bytes, int *ret_fd);
/* One of all that `from` still gives, a pipe or file, behind the `bytes` that were read from it before. -EMSGSIZE over
 * SEALED_MAX_BYTES and for nothing at all; -EINTR if a signal came before it was complete. */
int sealed_read(const char *name, const void *data, size_t bytes, int from, int *ret_fd);
/* An empty one of this size, for somebody else to write into, who then calls sealed_close. */
int sealed_open(const char *name, size_t bytes, int *ret_fd);
/* Nobody writes into it any more. -EBUSY: somebody has it mapped for writing. Waits for a write() that is under way, so
 * it is for those who trust whoever may be writing. */
int sealed_close(int fd);

/* -EPROTO unless `fd` is a memory file that is sealed against writing, shrinking and growing, of 1 to SEALED_MAX_BYTES,
 * exactly *ret_bytes. Safe with any descriptor: nothing that its file system could keep waiting is asked. */
int sealed_check(int fd, uint64_t *ret_bytes);
/* Nor of huge pages, which can be missing when they are looked at. Not in the worker's sandbox. */
int sealed_check_pages(int fd);

/* Maps all of it, read-only. sealed_check was passed. */
int sealed_map(int fd, size_t bytes, const void **ret);
void sealed_unmap(const void *data, size_t bytes);
