/* The process that writes what a program says, for the program itself must not wait. */
#pragma once

/* The other end of a stream: all that is written to it goes to what stderr is now. It ends at end of file. */
int log_writer_start(int *ret_fd);
