/* A worker writes anything into what it shares with its pool, and dies: the pool serves again, within a second. Word by
 * word of each struct, with values that say something; and much at once. DROVER_SCRIBBLE_SECONDS=: more of the latter.
 */
#include "tests/unit/heal-fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_u32(void *word) { atomic_store((_Atomic uint32_t *)word, (uint32_t)value); }
static void write_u64(void *word) { atomic_store((_Atomic uint64_t *)word, value); }

struct word {
        const char *name;
        size_t offset, bytes; /* of one word: 4 or 8 */
        unsigned n;
};

#define SIZE_OF(type, field) sizeof(((struct type *)0)->field)
#define WORD(type, field)                                                                                              \
        { #type "." #field, offsetof(struct type, field), SIZE_OF(type, field), 1 }
#define WORDS(type, field)                                                                                             \
        {                                                                                                              \
#type "." #field, offsetof(struct type, field), SIZE_OF(type, field[0]),                               \
                        SIZE_OF(type, field) / SIZE_OF(type, field[0])                                                 \
        }

/* 0, 1, all ones, the top bit, one by chance; and what stands there, changed a little. */
static void try_word(const char *name, void *(*memory)(void), size_t offset, size_t bytes) {
        void *word = (char *)memory() + offset;
        uint64_t now = bytes == 4 ? atomic_load((_Atomic uint32_t *)word) : atomic_load((_Atomic uint64_t *)word);
        const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << (8 * bytes - 1), some(), now + 1, now - 1};
        for (unsigned i = 0; i < COUNT(values); i++)
                try(name, values[i], bytes == 4 ? write_u32 : write_u64, (char *)memory() + offset);
}

static void try_words(const struct word *words, unsigned n_words, void *(*memory)(void)) {
        char name[64];
        for (unsigned i = 0; i < n_words; i++)
                for (unsigned k = 0; k < words[i].n; k++) {
                        snprintf(name, sizeof(name), "%s[%u]", words[i].name, k);
                        try_word(name, memory, words[i].offset + k * words[i].bytes, words[i].bytes);
                }
}

static void test_words_of_the_pool(void **state) {
        static const struct word words[] = {
                WORD(layout_pool, header.magic), WORD(layout_pool, header.version), WORD(layout_pool, rate_ns),
                WORD(layout_pool, rate_next_ns), WORDS(layout_pool, placeless),     WORD(layout_pool, armed),
                WORD(layout_pool, has_timer),    WORDS(layout_pool, muted),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_pool);
        finish();
}

static void a_rate(struct pool_config *c) {
        two_workers(c);
        c->rate_ns = MS;
}

static void test_words_of_a_rate(void **state) {
        static const struct word words[] = {WORD(layout_pool, rate_ns), WORD(layout_pool, rate_next_ns)};
        begin_with(a_rate);
        try_words(words, COUNT(words), in_pool);
        finish();
}

static void test_words_of_a_line(void **state) {
        static const struct word words[] = {
                WORD(layout_worker, control),
                WORD(layout_worker, command),
                WORD(layout_worker, soft_hit),
                WORD(layout_worker, max_claims),
                WORD(layout_worker, pad0),
                WORD(layout_worker, last_job),
                WORD(layout_worker, last_started_ns),
                WORD(layout_worker, last_finished_ns),
                WORD(layout_worker, last_type),
                WORD(layout_worker, last_end),
                WORD(layout_worker, record),
                WORD(layout_worker, claims),
                WORD(layout_worker, fault_signal),
                WORD(layout_worker, fault_syscall),
                WORD(layout_worker, fault_address),
                WORD(layout_worker, fault_offset),
                WORDS(layout_worker, counts),
                WORD(layout_worker, progress_done),
                WORD(layout_worker, progress_total),
                WORD(layout_worker, status_seq),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_line_0); /* numbers 0 and 1 are taken by either, as they die */
        try_words(words, COUNT(words), in_line_1);
        finish();
}

static void test_words_of_a_bell(void **state) {
        static const struct word words[] = {
                WORD(layout_bell, header.magic), WORD(layout_bell, header.version), WORDS(layout_bell, seq),
                WORD(layout_bell, mode),         WORD(layout_bell, rises),          WORD(layout_bell, woken),
                WORD(layout_bell, front),        WORDS(layout_bell, sleepers),      WORDS(layout_bell, spinners),
                WORDS(layout_bell, work),
        };
        begin_with(two_workers);
        try_words(words, COUNT(words), in_own_bell);
        try_words(words, COUNT(words), in_clients_bell);
        finish();
}

static void try_channel(const char *name, void *(*memory)(void)) {
        static const struct word words[] = {
                WORD(layout_channel, header.magic),   WORD(layout_channel, header.version),
                WORD(layout_channel, header.n_slots), WORD(layout_channel, header.slot_bytes),
                WORD(layout_channel, done_seq),       WORD(layout_channel, done_wait),
                WORD(layout_channel, closed),         WORD(layout_channel, submitted),
                WORD(layout_channel, cancelled),      WORD(layout_channel, expired),
                WORD(layout_channel, delayed),        WORD(layout_channel, queue_timeout_ns),
                WORD(layout_channel, ring[0].head),   WORD(layout_channel, ring[0].tail),
                WORD(layout_channel, ring[1].head),   WORD(layout_channel, ring[1].tail),
                WORD(layout_channel, ring[2].head),   WORD(layout_channel, ring[2].tail),
                WORD(layout_channel, ring[3].head),   WORD(layout_channel, ring[3].tail),
        };
        struct channel_geometry g = own()->geometry; /* all have the same */
        char text[64];
        try_words(words, COUNT(words), memory);
        for (uint32_t slot = 0; slot < g.n_slots; slot += 5) {
                snprintf(text, sizeof(text), "%s: slot %u", name, slot);
                try_word(text, memory, g.slots + slot * sizeof(struct layout_slot), 8);
        }
        for (uint32_t cell = LAYOUT_PRIORITY_DEFAULT * g.n_cells; cell < 2 * g.n_cells; cell += 31) {
                snprintf(text, sizeof(text), "%s: cell %u", name, cell);
                try_word(text, memory, g.cells + cell * sizeof(uint64_t), 8);
        }
        snprintf(text, sizeof(text), "%s: done bits", name);
        try_word(text, memory, g.done, 8);
}

static void test_our_own_channel(void **state) {
        begin_with(two_workers);
        all_are_done = false;
        try_channel("own", in_own);
        finish();
}

static void test_a_clients_channel(void **state) {
        begin_with(two_workers);
        all_are_done = false;
        try_channel("client's", in_clients);
        finish();
}

static void scribble_live_slots(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++)
                if (slot_state(channel_word(spoilt, slot)) != SLOT_FREE)
                        atomic_store(&spoilt->slots[slot].word, value);
}

/* `value`: state, flags and owner; the generation is the one that stands there. */
static void scribble_live_states(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++) {
                uint64_t word = channel_word(spoilt, slot);
                if (slot_state(word) != SLOT_FREE)
                        atomic_store(&spoilt->slots[slot].word,
                                     (uint64_t)slot_generation(word) << 32 | (uint32_t)value);
        }
}

static void test_slots_of_jobs(void **state) {
        static const unsigned owners[] = {0, 1, 2, 3, 257, SLOT_OWNER_CLIENT, SLOT_OWNER_BROKER};
        begin_with(two_workers);
        all_are_done = false;
        for (unsigned k = 0; k < 2; k++) {
                for (unsigned i = 0; i < 4; i++) {
                        spoilt = k ? clients() : own();
                        try("words of jobs", (uint64_t[]){0, UINT64_MAX, 1, some()}[i], scribble_live_slots, NULL);
                }
                for (unsigned state_of = 0; state_of < 16; state_of++) {
                        spoilt = k ? clients() : own();
                        try("states of jobs", SLOT_WORD(state_of, 0, 1, owners[state_of % COUNT(owners)], 0),
                            scribble_live_states, NULL);
                        spoilt = k ? clients() : own();
                        try("states of jobs", SLOT_WORD(state_of, SLOT_QUARANTINE, 2, SLOT_OWNER_NONE, 0),
                            scribble_live_states, NULL);
                }
                for (unsigned i = 0; i < COUNT(owners); i++) {
                        spoilt = k ? clients() : own();
                        try("owners of jobs", SLOT_WORD(SLOT_RUNNING, 0, 1, owners[i], 0), scribble_live_states, NULL);
                }
        }
        finish();
}

/* ---- much at once ---- */

static void scribble_rings(void *unused) {
        fill(spoilt->head->ring, sizeof(spoilt->head->ring));
        fill((char *)spoilt->head + spoilt->geometry.cells, spoilt->geometry.slots - spoilt->geometry.cells);
}

static void scribble_slots(void *unused) { fill(spoilt->slots, spoilt->geometry.n_slots * sizeof(*spoilt->slots)); }

/* Words that can be, at places where they are not. */
static void scribble_states(void *unused) {
        for (uint32_t slot = 0; slot < spoilt->geometry.n_slots; slot++) {
                uint64_t word = channel_word(spoilt, slot), chance = some();
                atomic_store(&spoilt->slots[slot].word,
                             SLOT_WORD(chance % SLOT_N_STATES, chance >> 8 & 0xf, chance >> 16 & 1, chance >> 24 & 3,
                                       slot_generation(word) + (chance >> 32 & 1)));
        }
}

/* Every cell names the same job, in its turn. */
static void scribble_hints(void *unused) {
        for (unsigned i = 0; i < LAYOUT_PRIORITIES; i++) {
                const struct ring *r = &spoilt->ring[i];
                atomic_store(&r->shared->head, 0);
                atomic_store(&r->shared->tail, r->n_cells);
                for (uint32_t k = 0; k < r->n_cells; k++)
                        atomic_store(&r->cells[k], UINT64_C(1) << 32 | value);
        }
}

static void scribble_all(void *unused) {
        fill(pool->memory, offsetof(struct layout_pool, worker[4]));
        for (uint32_t i = 0; i < pool->n_bells; i++)
                if (pool->bells[i].memory)
                        fill(pool->bells[i].memory, LAYOUT_PAGE);
        for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                if (pool->channels[i]) {
                        spoilt = &pool->channels[i]->channel;
                        scribble_common(NULL);
                }
}

static void test_much_at_once(void **state) {
        static void (*const ways[])(void *) = {scribble_common, scribble_rings, scribble_slots, scribble_states,
                                               scribble_hints};
        static void *(*const pages[])(void) = {in_own, in_clients, in_own_bell, in_clients_bell, in_pool, in_line_0};
        begin_with(two_workers);
        all_are_done = false;
        for (unsigned k = 0; k < COUNT(ways); k++)
                for (unsigned i = 0; i < 6; i++) {
                        uint64_t filler = (uint64_t[]){0, UINT64_MAX, 2, 1, 2, 2}[i];
                        spoilt = own();
                        try("our own channel", filler, ways[k], NULL);
                        spoilt = clients();
                        try("a client's channel", filler, ways[k], NULL);
                }
        for (unsigned i = 0; i < 12 * COUNT(pages); i++)
                try("bytes", i, scribble_some_bytes, pages[i % COUNT(pages)]());
        for (unsigned i = 0; i < 12; i++)
                try("all", i % 4, scribble_all, NULL);
        finish();
}

/* Somewhere, something. */
static void scribble_anywhere(void *unused) {
        static void *(*const memories[])(void) = {in_own, in_clients, in_own_bell, in_clients_bell, in_pool};
        for (uint64_t n = 1 + some() % 100; n > 0; n--) {
                unsigned i = some() % COUNT(memories);
                size_t bytes = i < 2 ? own()->geometry.bytes[CHANNEL_COMMON] : LAYOUT_PAGE;
                static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63};
                uint64_t *word = (uint64_t *)memories[i]() + some() % (bytes / 8), chance = some() % 8;
                *word = chance < COUNT(values) ? values[chance]
                        : chance < 6           ? some()
                                               : *word ^ UINT64_C(1) << some() % 64;
        }
}

static void test_for_long(void **state) {
        const char *seconds = getenv("DROVER_SCRIBBLE_SECONDS");
        uint64_t until_ns = event_now_ns() + (seconds ? strtoull(seconds, NULL, 10) : 2) * SECOND;
        begin_with(two_workers);
        all_are_done = false;
        for (uint64_t i = 0; event_now_ns() < until_ns; i++)
                try("anywhere", i, scribble_anywhere, NULL);
        print_message("%u times\n", n_tries);
        finish();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_words_of_the_pool, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_rate, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_line, setup, teardown),
                cmocka_unit_test_setup_teardown(test_words_of_a_bell, setup, teardown),
                cmocka_unit_test_setup_teardown(test_our_own_channel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_clients_channel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slots_of_jobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_much_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_for_long, setup, teardown),
        };
        return heal_main(tests, COUNT(tests));
}
