/* What a root's child may do that others may not: a worker may nothing of it. */
#pragma once

/* No capability in any set and no way to one, no supplementary group. What only root can give away (the bounding set,
 * groups, securebits) is given away by root; for others it is worth nothing. −errno: the process still has some. */
int privileges_drop(void);
/* What whoever starts workers can give away for them, once: groups, and what a program that it runs could gain. It
 * keeps its own capabilities. */
int privileges_keep_from_children(void);
