/* What a process costs, as /proc tells everybody. */
#pragma once

#include <stdint.h>

struct usage {
        uint64_t cpu_us;       /* user and system time since it began */
        uint64_t memory_bytes; /* resident */
};

/* 0 or -errno: no such process, or hidden from us. */
int usage_of(uint32_t pid, struct usage *ret);
