/* A capsule: the job that killed its worker, as a file. Written by the broker, read by drover-worker --replay and
 * droverctl. A head of 16 bytes: "DRCAPSUL", version u32, bytes of the body u32 (both little-endian), then one
 * MessagePack map. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        CAPSULE_VERSION = 1,
        CAPSULE_MAX_ATTEMPTS = 16, /* the newest, if there were more */
        CAPSULE_MAX_PAYLOAD = 1 << 20,
        CAPSULE_KEPT_LOG = 16384, /* bytes of lines that its job printed; the newest */
        CAPSULE_MAX_LOG = CAPSULE_KEPT_LOG + 128,
        CAPSULE_MAX_BYTES = CAPSULE_MAX_PAYLOAD + CAPSULE_MAX_LOG + 16384,
};

struct capsule_attempt {
        uint64_t when_us; /* CLOCK_REALTIME */
        uint32_t attempt, pid;
        char reason[24]; /* a word of the bus */
        uint32_t signal, status;
        char syscall[32]; /* "" = none */
        char module[24];  /* where it crashed: file name, "" = not known; and how far in it */
        uint64_t offset;
};

struct capsule {
        uint64_t id, created_us;
        uint32_t uid;
        char state[16]; /* poisoned, lost, timed-out */
        char pool[72], plugin[128], plugin_dir[256], build_id[48], job[64];
        uint64_t hard_ns; /* of a job past its time limit; 0 = none */
        uint32_t n_attempts;
        struct capsule_attempt attempts[CAPSULE_MAX_ATTEMPTS];
        char log[CAPSULE_MAX_LOG]; /* what the last worker printed last, lines; the first may say how much came before
                                    */
        const void *payload;       /* as the job has it: a MessagePack map, or raw bytes */
        size_t payload_bytes;
        void *buffer; /* of capsule_load: the whole file; the payload points into it */
        size_t buffer_bytes;
};

/* malloc'd bytes of the file. -ENOMEM, -EMSGSIZE. */
int capsule_encode(const struct capsule *c, void **ret, size_t *ret_bytes);
/* From bytes nobody vouches for; the payload points into them. -EPROTO, -EPROTONOSUPPORT (another version). */
int capsule_decode(const void *data, size_t bytes, struct capsule *ret);
/* The whole file behind `fd`. -EFBIG; as capsule_decode; or -errno: it cannot be read. */
int capsule_load(int fd, struct capsule *ret);
void capsule_deinit(struct capsule *c);

/* The same end? By signal, system call, module and offset of the last attempts. */
bool capsule_attempt_is_alike(const struct capsule_attempt *a, const struct capsule_attempt *b);
/* "signal 11 (SIGSEGV) at crash+0x1139", "signal 31 (SIGSYS): system call socket", "exit status 7" */
void capsule_describe(const struct capsule_attempt *a, char *text, size_t bytes);

/* The name of its file in STATE/capsules: POOL.ID */
void capsule_name(const char *pool, uint64_t id, char *ret, size_t bytes);
bool capsule_parse_name(const char *name, char pool[static 72], uint64_t *ret_id);

/* Where droverd keeps what outlives it, if no --state-dir= says: the system's, or the user's by his environment. */
void capsule_state_dir(bool is_user, char *ret, size_t bytes);
