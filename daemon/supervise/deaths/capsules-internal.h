/* What the files of capsules share. */
#pragma once

#include <sys/queue.h>

#include "daemon/loop/helper.h"
#include "daemon/supervise/deaths/capsules-disk.h"
#include "daemon/supervise/deaths/capsules.h"
#include "ipc/values/capsule.h"

struct capsule_user {
        uid_t uid;
        uint64_t n_files, n_bytes;
        uint64_t n_seen; /* capsules_find_greedy: in one pool */
        TAILQ_ENTRY(capsule_user) link;
};

struct capsule_file {
        struct capsule_user *user; /* while it stands in a list */
        uid_t uid;
        uint64_t id, bytes;
        int64_t when_ns;
        char pool[72];
        int copy_fd; /* a sealed memory file; -1: nobody has asked yet */
        uid_t copy_uid;
        TAILQ_ENTRY(capsule_file) link;
};

/* In the queue: a file to be written, or (file NULL) removed. */
struct capsule_work {
        struct capsule_file *file;
        uint32_t n_kept; /* Capsules= of its pool */
        void *data;      /* what is to be written, file->bytes */
        char name[96], part[96];
        TAILQ_ENTRY(capsule_work) link;
};

struct capsule_read {
        struct capsules *owner;
        uid_t uid;
        bool is_root;
        uint64_t id;
        char pool[72];
        capsules_open_fn fn; /* NULL: has its answer, and waits for its process */
        void *user;
        struct helper_call call;
        TAILQ_ENTRY(capsule_read) link;
};

TAILQ_HEAD(capsule_files, capsule_file);

struct capsules {
        struct loop *loop;
        char *state_dir, *dir;      /* NULL: there are none */
        bool is_open;               /* what is there is known */
        struct capsule_files files; /* oldest first */
        TAILQ_HEAD(, capsule_user) users;
        uint64_t n_bytes, n_files, n_written, n_copies;
        TAILQ_HEAD(, capsule_work) works; /* the first one is under way */
        TAILQ_HEAD(, capsule_read) reads;
        unsigned n_reads;
        struct helper_call call; /* of the scan, then of the first in the queue */
        int scan_fd;
        bool is_stuck, is_going_on;
        uint64_t last[NUMBERS_N_KINDS]; /* the largest numbers in names; 0 = none */
        bool is_incomplete;             /* there may be others */
};

struct capsule_draft {
        struct capsule capsule;
        const char *missing; /* why there will be none; NULL: there will */
        char payload[];
};

bool capsules_are_kept(const struct capsules *cs);
struct capsule_file *capsules_find(const struct capsules *cs, const char *pool, uint64_t id);
void capsules_fill_order(const struct capsules *cs, const char *name, struct capsule_order *ret);

/* ---- capsules-read.c ---- */

void capsules_drop_copy(struct capsules *cs, struct capsule_file *f);
void capsules_end_reads(struct capsules *cs);
