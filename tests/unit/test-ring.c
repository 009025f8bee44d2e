/* The ready ring by one thread: order, fullness, stale hints, wrapping, and words that make no sense. Kills and threads
 * have their own tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/channel/ring.h"

enum { CELLS = 8 };

struct fixture {
        struct layout_ring shared;
        _Atomic uint64_t cells[CELLS];
        struct ring ring;
        bool live[65536]; /* by slot */
};

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof *f);
        f->ring = (struct ring){.shared = &f->shared,
                                .cells = f->cells,
                                .n_cells = CELLS,
                                .cells_shift = (uint32_t)__builtin_ctz(CELLS)};
        memset(f->live, 1, sizeof f->live);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        free(*state);
        return 0;
}

static bool is_live(const void *user, uint32_t slot, uint16_t generation) {
        return ((const struct fixture *)user)->live[slot];
}

static int push(struct fixture *f, uint32_t slot, uint32_t generation) {
        return ring_push(&f->ring, slot, generation, is_live, f);
}

static void assert_pops(struct fixture *f, uint32_t slot, uint32_t generation) {
        struct ring_hint h;
        assert_true(ring_peek(&f->ring, &h));
        assert_int_equal(h.slot, slot);
        assert_int_equal(h.generation, generation & 0xffff);
        ring_advance(&f->ring, &h);
        ring_advance(&f->ring, &h); /* by a second consumer of the same hint: nothing */
}

static void test_first_in_first_out(void **state) {
        struct fixture *f = *state;
        assert_true(ring_is_empty(&f->ring));
        for (uint32_t round = 0; round < 100; round++) {
                for (uint32_t i = 0; i < 5; i++)
                        assert_int_equal(push(f, i, round * 70001 + i), 0);
                assert_false(ring_is_empty(&f->ring));
                for (uint32_t i = 0; i < 5; i++)
                        assert_pops(f, i, round * 70001 + i);
                assert_true(ring_is_empty(&f->ring));
        }
}

static void test_full_of_live_hints(void **state) {
        struct fixture *f = *state;
        for (uint32_t i = 0; i < CELLS; i++)
                assert_int_equal(push(f, i, 1), 0);
        assert_int_equal(push(f, 99, 1), -EAGAIN);
        assert_pops(f, 0, 1);
        assert_int_equal(push(f, 99, 1), 0);
        assert_int_equal(push(f, 100, 1), -EAGAIN);
}

static void test_full_of_stale_hints(void **state) {
        struct fixture *f = *state;
        for (uint32_t i = 0; i < CELLS; i++)
                assert_int_equal(push(f, i, 1), 0);
        f->live[0] = f->live[1] = false;
        assert_int_equal(push(f, 50, 1), 0);
        assert_int_equal(push(f, 51, 1), 0);
        assert_int_equal(push(f, 52, 1), -EAGAIN);
        assert_pops(f, 2, 1);
}

static void test_a_push_that_died_before_the_tail_is_finished(void **state) {
        struct fixture *f = *state;
        assert_int_equal(push(f, 7, 3), 0);
        atomic_store(&f->shared.tail, 0); /* as if killed behind the cell */
        assert_false(ring_is_empty(&f->ring));
        assert_int_equal(push(f, 8, 3), 0);
        assert_int_equal(atomic_load(&f->shared.tail), 2);
        assert_pops(f, 7, 3);
        assert_pops(f, 8, 3);

        /* The same with the head already past it. */
        assert_int_equal(push(f, 9, 3), 0);
        atomic_store(&f->shared.tail, 2);
        assert_pops(f, 9, 3);
        assert_int_equal(push(f, 10, 3), 0);
        assert_pops(f, 10, 3);
        assert_true(ring_is_empty(&f->ring));
}

static void test_cycles_wrap(void **state) {
        struct fixture *f = *state;
        const uint64_t at = (UINT64_C(0xffffffff) * CELLS) - 3;
        atomic_store(&f->shared.head, at);
        atomic_store(&f->shared.tail, at);
        for (uint64_t p = at - CELLS; p < at; p++)
                atomic_store(&f->cells[p % CELLS], (p / CELLS + 1) << 32);
        for (uint32_t i = 0; i < 5 * CELLS; i++) {
                assert_int_equal(push(f, i, i), 0);
                assert_pops(f, i, i);
        }
        assert_true(ring_is_empty(&f->ring));
        for (uint32_t i = 0; i < CELLS; i++)
                assert_int_equal(push(f, i, i), 0);
        assert_int_equal(push(f, 0, 0), -EAGAIN);
}

/* Any words: every call ends, and gives an answer or an error. */
static void test_hostile_words(void **state) {
        struct fixture *f = *state;
        unsigned seed = 2;
        const uint64_t odd[] = {0, 1, CELLS, CELLS - 1, UINT64_MAX, UINT64_MAX - CELLS, UINT64_C(1) << 35, 12345};
        for (unsigned round = 0; round < 3000; round++) {
                for (unsigned i = 0; i < CELLS; i++)
                        f->cells[i] = (uint64_t)rand_r(&seed) << 32 | (unsigned)rand_r(&seed);
                f->shared.head = odd[(unsigned)rand_r(&seed) % 8] + (unsigned)rand_r(&seed) % 3;
                f->shared.tail = odd[(unsigned)rand_r(&seed) % 8] + (unsigned)rand_r(&seed) % 3;
                if (round % 2)
                        f->cells[f->shared.tail % CELLS] = (f->shared.tail / CELLS) << 32;
                for (unsigned i = 0; i < 8; i++)
                        f->live[i] = rand_r(&seed) % 2;
                int r = push(f, 1, 1);
                assert_true(r == 0 || r == -EAGAIN || r == -EPROTO);
                struct ring_hint h;
                if (ring_peek(&f->ring, &h))
                        ring_advance(&f->ring, &h);
        }
}

/* What is sane serves: what stands there can be taken, and new hints come in order. So does what has begun anew. */
static void test_sane_or_begun_anew(void **state) {
        struct fixture *f = *state;
        unsigned seed = 7, n_sane = 0;
        for (uint32_t round = 0; round < 20000; round++) {
                struct ring_hint h;
                for (unsigned i = 0; i < (unsigned)rand_r(&seed) % 30; i++) { /* as it may be at any moment */
                        if (rand_r(&seed) % 2)
                                push(f, i, round);
                        else if (ring_peek(&f->ring, &h))
                                ring_advance(&f->ring, &h);
                }
                assert_true(ring_is_sane(&f->ring, 64));
                for (unsigned i = 0; i < 1 + round % 3; i++) { /* as somebody may leave it */
                        uint64_t word = rand_r(&seed) % 2 ? (uint64_t)rand_r(&seed) << 33 | (unsigned)rand_r(&seed) : 0;
                        switch (rand_r(&seed) % 4) {
                        case 0:
                                f->shared.head = rand_r(&seed) % 2 ? word : f->shared.head + (word & 7);
                                break;
                        case 1:
                                f->shared.tail = rand_r(&seed) % 2 ? word : f->shared.tail - (word & 7);
                                break;
                        default:
                                f->cells[rand_r(&seed) % CELLS] ^= rand_r(&seed) % 2 ? word : UINT64_C(1) << word % 64;
                        }
                }
                bool is_sane = ring_is_sane(&f->ring, 64);
                n_sane += is_sane;
                if (!is_sane)
                        ring_reset(&f->ring, round);
                for (unsigned i = 0; i <= CELLS && ring_peek(&f->ring, &h); i++) {
                        assert_true(h.slot < 64);
                        ring_advance(&f->ring, &h);
                }
                for (uint32_t i = 0; i < CELLS; i++)
                        assert_int_equal(push(f, i, round), 0);
                assert_int_equal(push(f, 9, round), -EAGAIN);
                for (uint32_t i = 0; i < CELLS; i++)
                        assert_pops(f, i, round);
                assert_true(ring_is_empty(&f->ring));
        }
        assert_true(n_sane > 100 && n_sane < 19900);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_first_in_first_out, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full_of_live_hints, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full_of_stale_hints, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_push_that_died_before_the_tail_is_finished, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cycles_wrap, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hostile_words, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sane_or_begun_anew, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
