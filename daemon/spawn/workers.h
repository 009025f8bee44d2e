/* The table of workers, and what the broker hears of each: STARTED or FAILED once, EXITED once after STARTED. */
#pragma once

#include "daemon/spawn/spawner.h"

struct spawn_worker *workers_find(struct spawner *s, uint32_t id);
struct spawn_worker *workers_find_pid(struct spawner *s, pid_t pid); /* STARTED ones */
/* NULL when the table is full. Pointers hold until the next workers_remove. */
struct spawn_worker *workers_add(struct spawner *s, uint32_t id, uint32_t generation);
void workers_remove(struct spawner *s, struct spawn_worker *w);

struct worker_start {
        pid_t pid;
        int pidfd;           /* < 0: opened here */
        int broker_fd;       /* the broker's end of its control socket */
        const char *sandbox; /* of its template; NULL: it tells the broker itself */
};

/* It lives: tells the broker, hands over both descriptors. */
void workers_started(struct spawner *s, struct spawn_worker *w, const struct worker_start *start);
/* It came to nothing: tells the broker (`e` holds error, reason, text …) and forgets it. */
void workers_failed(struct spawner *s, struct spawn_worker *w, struct spawn_event *e);
/* The same for an errno and a sentence. */
void workers_refuse(struct spawner *s, struct spawn_worker *w, int error, bool is_permanent, const char *format, ...)
        __attribute__((format(printf, 5, 6)));
/* It is dead and its process group is gone: tells the broker what stands in `exited` and forgets it. */
void workers_exited(struct spawner *s, struct spawn_worker *w);
