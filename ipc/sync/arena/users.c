/* Who uses an entry of the directory.
 *
 * A bit for each participant says that it has the object open. The handles of one process are counted privately, and
 * the bit goes with the last. What was removed is taken back when no bit is set; a bit of the dead goes with its
 * repair.
 *
 *   U1 users_enter    bit set    | the entry's word read: has it a name?    ~ U2
 *   U2 who takes back removed    | bits read
 *
 * Both pairs are seq_cst: whoever finds a name after U1 has set a bit that U2 sees. So nobody who may take it back
 * misses a user, and a user that comes too late finds that the object is removed, and leaves.
 *
 * A broker has one bit for itself, for the moments in which it writes into an object of which nobody is dead. */
#include "ipc/sync/arena/arena.h"

static _Atomic uint64_t *users_word(const struct drover_arena *a, uint32_t index, uint32_t participant) {
        return &a->users[(uint64_t)index * a->n_user_words + participant / 64];
}

static uint64_t users_bit(uint32_t participant) { return UINT64_C(1) << participant % 64; }

void users_enter_for(struct drover_arena *a, uint32_t index, uint32_t participant) {
        atomic_fetch_or_explicit(users_word(a, index, participant), users_bit(participant), memory_order_seq_cst);
}

static void users_leave_for(struct drover_arena *a, uint32_t index, uint32_t participant) {
        atomic_fetch_and_explicit(users_word(a, index, participant), ~users_bit(participant), memory_order_seq_cst);
}

void users_leave_dead(struct drover_arena *a, uint32_t index, const struct dead *dead) {
        for (uint32_t i = 0; i < a->n_participants; i += 64) {
                _Atomic uint64_t *word = users_word(a, index, i);
                if ((atomic_load_explicit(word, memory_order_seq_cst) & dead->bits[i / 64]) != 0)
                        atomic_fetch_and_explicit(word, ~dead->bits[i / 64], memory_order_seq_cst);
        }
}

bool users_has_any(const struct drover_arena *a, uint32_t index) {
        for (uint32_t i = 0; i < a->n_user_words; i++)
                if (atomic_load_explicit(users_word(a, index, i * 64), memory_order_seq_cst) != 0)
                        return true;
        return false;
}

void users_enter(struct drover_arena *a, uint32_t index) {
        pthread_mutex_lock(&a->mutex);
        if (!a->n_handles || a->n_handles[index]++ == 0)
                users_enter_for(a, index, a->participant);
        pthread_mutex_unlock(&a->mutex);
}

void users_leave(struct drover_arena *a, uint32_t index) {
        pthread_mutex_lock(&a->mutex);
        if (!a->n_handles || --a->n_handles[index] == 0)
                users_leave_for(a, index, a->participant);
        pthread_mutex_unlock(&a->mutex);
}
