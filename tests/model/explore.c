/* The explorer. Owns the states found so far (one array, in the order of discovery, which is also the queue of the
 * breadth-first search), for each the one it was found from, and a hash table of their indices.
 *
 * A compact run, for spaces that do not fit, keeps 64 bits of each state that it found and forgets states that it
 * expanded. Two states with the same 64 bits are taken for one: of n states about n²/2^65 are missed, for 10^9 a chance
 * of one in forty. It has no traces.
 *
 * A trace is not stored: along the chain of parents each state is expanded once more, to see which step led to the
 * next. With a canonicalize() the names of exchanged processes change from step to step: a model that is expected to
 * fail goes without.
 *
 * The arrays are reserved at full size and filled by page faults: memory is used as states are found. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/model/explore.h"

enum { EXPLORE_MAX_BYTES = 256, EXPLORE_FIRST_BITS = 16, EXPLORE_CHUNK = 1 << 20 };

struct explore {
        const struct explore_model *model;
        uint8_t *states;
        uint32_t *parents;
        uint32_t *table; /* index + 1; 0 is empty */
        uint32_t *tags;  /* the hash's upper half, so that a foreign state is seldom looked at */
        unsigned table_bits;
        uint64_t *prints, n_prints; /* a compact run's table instead; 0 is empty */
        uint32_t n_states, max_states, current;
        uint64_t n_steps;
        bool is_full;
        const char *violation;
        unsigned violation_label;
        /* walking a trace: the state looked for, and the step that led to it */
        const void *wanted;
        unsigned found_label;
        bool is_found;
};

static uint64_t explore_hash(const void *state, size_t bytes) {
        const uint8_t *p = state;
        uint64_t h = UINT64_C(0x9e3779b97f4a7c15);
        for (size_t i = 0; i < bytes; i += 8) {
                uint64_t word;
                memcpy(&word, p + i, 8);
                h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
                h ^= h >> 32;
        }
        return h * UINT64_C(0xc4ceb9fe1a85ec53);
}

static void *explore_reserve(size_t bytes) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? NULL : p;
}

static void *explore_state(const struct explore *x, uint32_t i) {
        return x->states + (size_t)i * x->model->state_bytes;
}

static int explore_make_table(struct explore *x, unsigned bits) {
        size_t n = (size_t)1 << bits;
        free(x->table);
        free(x->tags);
        x->table = calloc(n, sizeof *x->table);
        x->tags = calloc(n, sizeof *x->tags);
        if (!x->table || !x->tags)
                return -ENOMEM;
        x->table_bits = bits;
        for (uint32_t i = 0; i < x->n_states; i++) {
                uint64_t h = explore_hash(explore_state(x, i), x->model->state_bytes);
                size_t at = h & (n - 1);
                while (x->table[at])
                        at = (at + 1) & (n - 1);
                x->table[at] = i + 1;
                x->tags[at] = (uint32_t)(h >> 32);
        }
        return 0;
}

/* false: a state with this fingerprint was found before. */
static bool explore_add_print(struct explore *x, uint64_t print) {
        print += print == 0;
        uint64_t at = (uint64_t)((unsigned __int128)print * x->n_prints >> 64);
        for (; x->prints[at]; at = at + 1 == x->n_prints ? 0 : at + 1)
                if (x->prints[at] == print)
                        return false;
        x->prints[at] = print;
        return true;
}

static void explore_add_compact(struct explore *x, const void *state) {
        size_t bytes = x->model->state_bytes;
        if (x->n_states == x->max_states)
                x->is_full = true;
        else if (explore_add_print(x, explore_hash(state, bytes)))
                memcpy(explore_state(x, x->n_states++), state, bytes);
}

static void explore_add(struct explore *x, const void *state) {
        size_t bytes = x->model->state_bytes, mask = ((size_t)1 << x->table_bits) - 1;
        uint64_t h = explore_hash(state, bytes);
        size_t at = h & mask;
        for (; x->table[at]; at = (at + 1) & mask)
                if (x->tags[at] == (uint32_t)(h >> 32) && memcmp(explore_state(x, x->table[at] - 1), state, bytes) == 0)
                        return;
        if (x->n_states == x->max_states) {
                x->is_full = true;
                return;
        }
        memcpy(explore_state(x, x->n_states), state, bytes);
        x->parents[x->n_states] = x->current;
        x->table[at] = ++x->n_states;
        x->tags[at] = (uint32_t)(h >> 32);
        if (x->n_states > mask / 3 * 2 && explore_make_table(x, x->table_bits + 1) < 0)
                x->is_full = true;
}

void explore_emit(struct explore *x, const void *next, unsigned label) {
        uint64_t copy[EXPLORE_MAX_BYTES / 8];
        memcpy(copy, next, x->model->state_bytes);
        if (x->model->canonicalize)
                x->model->canonicalize(copy);
        if (!x->wanted) {
                x->n_steps++;
                if (x->prints)
                        explore_add_compact(x, copy);
                else
                        explore_add(x, copy);
        } else if (!x->is_found && memcmp(copy, x->wanted, x->model->state_bytes) == 0) {
                x->found_label = label;
                x->is_found = true;
        }
}

void explore_fail(struct explore *x, const char *what, unsigned label) {
        if (x->violation)
                return;
        x->violation = what;
        x->violation_label = label;
}

/* Prints the way to the state that broke a property. */
static void explore_trace(struct explore *x, uint32_t last) {
        unsigned n = 0;
        for (uint32_t i = last; i != 0; i = x->parents[i])
                n++;
        uint32_t *chain = calloc(n + 1, sizeof *chain);
        if (!chain)
                return;
        for (uint32_t i = last, at = n; at > 0; i = x->parents[i])
                chain[at--] = i;

        for (unsigned i = 1; i <= n; i++) {
                x->wanted = explore_state(x, chain[i]);
                x->is_found = false;
                x->model->expand(x, explore_state(x, chain[i - 1]));
                printf("  %3u  ", i);
                x->model->print_step(x->found_label);
        }
        if (x->violation_label != EXPLORE_NO_STEP) {
                printf("  %3u  ", n + 1);
                x->model->print_step(x->violation_label);
        }
        x->model->print_state(explore_state(x, last));
        free(chain);
}

static unsigned explore_depth(const struct explore *x) {
        unsigned n = 0;
        for (uint32_t i = x->n_states - 1; i != 0 && x->parents; i = x->parents[i])
                n++;
        return n;
}

static void explore_deinit(struct explore *x) {
        if (x->states)
                munmap(x->states, (size_t)x->max_states * x->model->state_bytes);
        if (x->parents)
                munmap(x->parents, (size_t)x->max_states * sizeof *x->parents);
        if (x->prints)
                munmap(x->prints, x->n_prints * sizeof *x->prints);
        free(x->table);
        free(x->tags);
}

static int explore_allocate(struct explore *x, bool is_compact) {
        x->states = explore_reserve((size_t)x->max_states * x->model->state_bytes);
        if (!x->states)
                return -ENOMEM;
        if (is_compact) {
                x->n_prints = (uint64_t)x->max_states * 8 / 7;
                x->prints = explore_reserve(x->n_prints * sizeof *x->prints);
                return x->prints ? 0 : -ENOMEM;
        }
        x->parents = explore_reserve((size_t)x->max_states * sizeof *x->parents);
        return x->parents ? explore_make_table(x, EXPLORE_FIRST_BITS) : -ENOMEM;
}

/* Of a compact run: gives back the memory of states that were expanded, and says how far it is. */
static void explore_forget(struct explore *x) {
        size_t chunk = (size_t)EXPLORE_CHUNK * x->model->state_bytes;
        if (!x->prints || x->current % EXPLORE_CHUNK != 0 || x->current == 0)
                return;
        madvise(explore_state(x, x->current - EXPLORE_CHUNK), chunk, MADV_DONTNEED);
        if (x->current % (EXPLORE_CHUNK * 8) == 0) {
                printf("  %u states, %u expanded\n", x->n_states, x->current);
                fflush(stdout);
        }
}

int explore_run(const struct explore_model *m, uint64_t max_states, bool is_compact, struct explore_result *ret) {
        __attribute__((cleanup(explore_deinit))) struct explore x = {.model = m, .max_states = (uint32_t)max_states};
        if (m->state_bytes > EXPLORE_MAX_BYTES || m->state_bytes % 8 != 0 || max_states >= UINT32_MAX)
                return -EINVAL;
        if (explore_allocate(&x, is_compact) < 0)
                return -ENOMEM;

        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        uint64_t first[EXPLORE_MAX_BYTES / 8];
        m->init(first);
        explore_emit(&x, first, EXPLORE_NO_STEP);
        x.n_steps = 0;
        for (; x.current < x.n_states && !x.violation && !x.is_full; x.current++) {
                explore_forget(&x);
                m->expand(&x, explore_state(&x, x.current));
        }
        clock_gettime(CLOCK_MONOTONIC, &to);

        *ret = (struct explore_result){
                .n_states = x.n_states,
                .n_steps = x.n_steps,
                .depth = explore_depth(&x),
                .violation = x.violation,
                .seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9,
        };
        if (x.violation && x.prints)
                m->print_state(explore_state(&x, x.current - 1));
        else if (x.violation)
                explore_trace(&x, x.current - 1);
        return x.is_full && !x.violation ? -ENOBUFS : 0;
}

bool explore_case(const struct explore_model *m, const char *name, const char *expected, uint64_t max_states,
                  bool is_compact) {
        printf("%s\n", name);
        fflush(stdout);
        struct explore_result r;
        int error = explore_run(m, max_states, is_compact, &r);
        if (error < 0 && error != -ENOBUFS) {
                printf("  %s\n", strerror(-error));
                return false;
        }
        const char *outcome = r.violation ? r.violation : error < 0 ? "too large" : "whole, every property holds";
        printf("  %llu states, %llu steps, depth %u, %.1f s: %s\n\n", (unsigned long long)r.n_states,
               (unsigned long long)r.n_steps, r.depth, r.seconds, outcome);
        fflush(stdout);
        if (expected)
                return r.violation && strcmp(r.violation, expected) == 0;
        return error == 0 && !r.violation;
}
