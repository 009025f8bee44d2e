/* A descriptor of the library's in a program that may close what it does not know. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct own_fd {
        int fd; /* -1: none */
        uint64_t device, inode;
};

/* Only for files that have an inode of their own: sockets, memory files; not eventfd or epoll. */
void own_fd_init(struct own_fd *o, int fd);
/* false: it was closed, and its number may be that of something else by now. */
bool own_fd_is_there(const struct own_fd *o);
/* If it is there. */
void own_fd_close(struct own_fd *o);
