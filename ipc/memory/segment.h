/* A shared memory file: made and sealed by one process, checked and mapped by others. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes a memfd of `bytes` (zero-filled, CLOEXEC, NOEXEC where the kernel has it), sealed SHRINK|GROW|SEAL, that only
 * our uid can open again. `name` shows in /proc/PID/maps. 0 or -errno. */
int segment_create(const char *name, size_t bytes, int *ret_fd);

/* Opens the memory of `fd` once more: a description of its own, for reading only or for both. Never waits. -EACCES: it
 * is another uid's; -EPROTO: somebody has a lease on it. */
int segment_open(int fd, bool writable, int *ret_fd);

/* -EPROTO if `fd` is no memfd of exactly `bytes` that is sealed against SHRINK, GROW and SEAL. */
int segment_check(int fd, size_t bytes);

/* Maps [offset, offset + bytes) shared, MADV_DONTFORK. Page-aligned. 0 or -errno. */
int segment_map(int fd, size_t offset, size_t bytes, bool writable, void **ret);
void segment_unmap(void *address, size_t bytes);
