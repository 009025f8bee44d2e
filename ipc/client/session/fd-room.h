/* Room in the table of descriptors. */
#pragma once

/* May `n` more descriptors be opened, n at most FD_ROOM_MOST? Tries it with duplicates of `fd`, which are closed again:
 * another thread may take the room at once. 0, -EMFILE, -ENFILE; -EBADF: fd is none. */
enum { FD_ROOM_MOST = 16 };
int fd_room(int fd, unsigned n);
