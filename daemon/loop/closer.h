/* Descriptors of others are closed in the background: a close can take as long as whoever made the file likes. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct loop;

/* Who is none of the users: who sent a message and was never asked who he is; workers; ourselves, with what is in
 * replies; and memory files that we made, whose last close gives their pages back: 0.3 s for 1 GiB. */
#define CLOSER_STRANGERS ((uid_t)-1)
#define CLOSER_WORKERS ((uid_t)-2)
#define CLOSER_OURS ((uid_t)-3)
#define CLOSER_MEMORY ((uid_t)-4)

enum { CLOSER_MAX_OF_USER = 256 }; /* that are not closed yet, and none moves: then no more of him are taken */

int closer_start(struct loop *l);     /* once */
void closer_stop(void);               /* before the loop's end; what waits is left to the end of the process */
void closer_close(int fd, uid_t uid); /* the number stays taken until it is closed. At once if nothing was started */
unsigned closer_count(uid_t uid);     /* of his that are not closed yet */
bool closer_has_room(uid_t uid);      /* false: take no more descriptors of his */
bool closer_is_short(void);           /* numbers that wait are above FD_SHARE_MESSAGES: read no more messages */
void closer_blame(uid_t uid);         /* whose it is, from now on, what is closed without a name */
void closer_close_blamed(int fd);
