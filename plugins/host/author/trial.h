/* A broker for one worker and a few jobs: what --run and the host's own tests stand on. Trusts the worker as little as
 * the real one. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "ipc/channel/bell.h"
#include "ipc/channel/channel.h"
#include "ipc/memory/doorbell.h"
#include "ipc/sync/include/drover/sync.h"
#include "ipc/values/schema.h"
#include "ipc/wire.h"

enum { TRIAL_SLOTS = 64, TRIAL_SLOT_BYTES = LAYOUT_MAX_SLOT_BYTES, TRIAL_ARENAS = 16 };

struct trial {
        int pool_fd, bell_fd;
        struct doorbell doorbell, done; /* both ends are ours: the worker has copies of what it rings */
        int channel_fds[CHANNEL_PARTS]; /* what a worker gets */
        int control_fd;                 /* of the worker; -1: none */
        int items_fd;                   /* what its jobs emit comes here; -1: none */
        void (*on_item)(void *user, const void *data, size_t bytes); /* from trial_wait; NULL: nobody wants them */
        void *on_item_user;
        struct layout_pool *pool;
        struct layout_worker *line; /* the worker's: number 0 */
        struct layout_bell *bell;
        struct channel channel;
        int room_fd;           /* -1, or what the worker wrote a large result into: result_bytes, once it is whole */
        uint64_t result_bytes; /* 0: the result is in the slot */
        struct schema *schema; /* after trial_await_ready */
        char sandbox[64];      /* once it is closed; a worker of a template does not say it: set it then */
        char build_id[48];
        struct {
                char name[72];
                drover_arena *arena;
        } arenas[TRIAL_ARENAS]; /* private ones, made as the worker asks for them */
};

/* Memory and doorbells. 0 or -errno; trial_deinit is due in either case. */
int trial_init(struct trial *t);
void trial_deinit(struct trial *t);

/* A sealed copy of the plugin file. -ENOEXEC if it is no regular file or empty, -EFBIG over 64 MiB. */
int trial_open_plugin(const char *path, int *ret_fd);

/* Takes over a worker by its control socket: ORDER_SETUP, with `output_fd` as its stdout and stderr. */
int trial_set_up(struct trial *t, int control_fd, int output_fd);

/* Waits for READY and reads the schema. -ECONNRESET: the worker is dead or dying, -ETIMEDOUT: it hangs, and `text` (of
 * WIRE_TEXT bytes) says where; else the worker's own word in `text`, as a negative errno, -EPROTO if it made no sense.
 * The deadline as in trial_wait. */
int trial_await_ready(struct trial *t, uint64_t deadline_ns, char *text);

/* Bell and channel; the worker may claim. */
int trial_open(struct trial *t);

/* Submits the job whose payload was written to channel_payload(&t->channel, slot); trial_begin first. */
int trial_begin(struct trial *t, uint32_t slot);
int trial_commit(struct trial *t, uint32_t slot, uint32_t type, size_t bytes, uint32_t priority);
/* Of a job that was committed before trial_open, so that nobody claims it meanwhile. */
void trial_set_attempt(struct trial *t, uint32_t slot, uint32_t attempt);

/* Its verdict word. -ECONNRESET: the worker died first. -ETIMEDOUT at the deadline (CLOCK_MONOTONIC ns, EVENT_FOREVER).
 */
int trial_wait(struct trial *t, uint32_t slot, uint64_t deadline_ns, uint64_t *ret_word);

/* Tells it to end after the job in hand. */
void trial_retire(struct trial *t);
/* -ETIMEDOUT: it lives on. */
int trial_await_end(struct trial *t, uint64_t deadline_ns);
