/* Descriptors of others are closed in the background: a close can take as long as whoever made the file likes. */
#pragma once

#include <sys/types.h>

struct loop;

/* Who is none of the users: whoever sent a message, or what made no sense; workers. */
#define CLOSER_BUS ((uid_t)-1)
#define CLOSER_WORKERS ((uid_t)-2)

int closer_start(struct loop *l); /* once */
void closer_stop(void);           /* before the loop's end; what waits is left to the end of the process */
void closer_close(int fd, uid_t uid); /* the number stays taken until it is closed. At once if nothing was started */
