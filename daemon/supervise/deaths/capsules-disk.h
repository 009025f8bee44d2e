/* STATE/capsules as files: what other processes do for capsules.c (daemon/loop/helper.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/loop/helper.h"
#include "daemon/supervise/facts/numbers.h"

enum { CAPSULES_MAX_FILES = 65536, CAPSULES_MAX_PATH = 4096 };

struct capsule_order {
        char dir[CAPSULES_MAX_PATH]; /* STATE/capsules */
        char name[96];               /* of the file */
        char part[96];               /* write: until it is whole */
};

/* What capsules_disk_scan puts into the memory file that comes with the order. */
struct capsule_found {
        uint64_t id, bytes;
        int64_t when_ns;
        uid_t uid;
        char pool[72];
};

struct capsules_found {
        uint64_t last[NUMBERS_N_KINDS]; /* the largest numbers in names; 0 = none */
        uint32_t n_files, reserved;
        int32_t incomplete; /* 0, or why there may be others: errno */
        int32_t reserved_2;
        struct capsule_found files[];
};

/* Makes the directory, removes what was left half written, lists the rest. -errno: no capsules can be kept. */
void capsules_disk_scan(const void *order, int fd, struct helper_answer *ret);
/* A file with the content of `fd`, whole and on the disk. */
void capsules_disk_write(const void *order, int fd, struct helper_answer *ret);
void capsules_disk_remove(const void *order, int unused, struct helper_answer *ret);
/* A sealed copy; `text` is the number of the uid whose it is. */
void capsules_disk_read(const void *order, int unused, struct helper_answer *ret);
