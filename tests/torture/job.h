/* What the clients of a torture run and their plugin (tests/plugins/torture.c) say to each other. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TORTURE_ARENA "torture-runs"

enum {
        TORTURE_ELEMENTS = 32768, /* of the array "runs" in that arena: how often a job ran */
        TORTURE_ARENA_BYTES = 1 << 20,
        TORTURE_PAYLOAD = 256,
};

struct torture_job {
        uint32_t element;
        uint32_t busy_ns;
        uint64_t nonce;
        uint32_t kills; /* != 0: whoever runs it dies */
        uint32_t reserved;
};

/* FNV-1a */
static inline uint64_t torture_answer(const void *data, size_t bytes) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);
        for (size_t i = 0; i < bytes; i++)
                hash = (hash ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001b3);
        return hash;
}
