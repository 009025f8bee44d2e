/* An error told to a caller: a code that the bus face turns into a name, and a sentence that names the thing. */
#pragma once

#include <stdint.h>

enum fault_code {
        FAULT_NONE = 0,
        FAULT_NO_SUCH_POOL,
        FAULT_NO_SUCH_JOB_TYPE,
        FAULT_NO_SUCH_JOB,
        FAULT_NO_SUCH_WORKER,
        FAULT_QUEUE_FULL,
        FAULT_POOL_STOPPED,
        FAULT_POOL_REFUSED,
        FAULT_FAILED,
        FAULT_CANCELLED,
        FAULT_EXPIRED,
        FAULT_TIMED_OUT,
        FAULT_POISONED,
        FAULT_LOST,
        FAULT_NOT_FINISHED,
        FAULT_RESULT_EXPIRED,
        FAULT_SHUTTING_DOWN,
        FAULT_INVALID_ARGS,
        FAULT_ACCESS_DENIED,
        FAULT_LIMITS_EXCEEDED,
        FAULT_NOT_SUPPORTED, /* known, not built yet */
        FAULT_INTERNAL,      /* out of memory and the like */
        FAULT_N,
};

enum { FAULT_MAX_MESSAGE = 4095, FAULT_TEXT = FAULT_MAX_MESSAGE + 257 }; /* a job's own words, and whose they are */

struct fault {
        enum fault_code code;
        char text[FAULT_TEXT];
};

/* Fills in and returns -1, so `return fault_set(f, …)` reads well. */
int fault_set(struct fault *f, enum fault_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
