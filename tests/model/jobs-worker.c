/* A worker: the claim loop of serve-process.c over channel_claim, settle, the baton, the handler, channel_finish, and
 * the way into sleep and out of it. */
#include "tests/model/jobs.h"

/* What proc.own says in a worker. */
enum { HAS_CLAIMED = 1, HAS_CLEARED = 2, HAS_SEEN_WORK = 4 };

static unsigned bell_now(const struct proc *p) { return p->ctx & 1; }
static unsigned bell_next(const struct proc *p) { return p->ctx >> 1; }
static void bell_go(struct proc *p, unsigned now, unsigned next) { p->ctx = (now | next << 1) & 3; }

static unsigned ring_now(const struct proc *p) { return ring_of(bell_now(p), p->ring); }

static unsigned worker_of(const struct turn *t) { return t->who - CLIENTS; }

static void forget_hint(struct proc *p) { p->pos = p->slot = p->generation = p->seen = 0; }

static void scan_begin(struct proc *p) {
        forget_hint(p);
        p->own = p->left = p->ring = 0;
        bell_go(p, bell_next(p), bell_next(p));
        p->pc = WORKER_SCAN;
}

void worker_start(struct proc *p) {
        *p = (struct proc){.is_alive = 1};
        scan_begin(p);
}

/* ---- serve_one and channel_claim ---- */

static void sleep_begin(struct proc *p) {
        bell_go(p, 0, bell_next(p));
        p->own = p->left = 0;
        p->pc = WORKER_SLEEPER_SET;
}

/* Nothing (more) in this bell. */
static void scan_on(struct turn *t) {
        struct proc *p = t->p;
        forget_hint(p);
        p->own = p->ring = 0;
        unsigned next = (bell_now(p) + 1) % config->n_bells;
        if (next != bell_next(p)) {
                bell_go(p, next, bell_next(p));
                p->pc = WORKER_SCAN;
                return;
        }
        if (config->may_spin) { /* by what the recent past says: both are possible */
                const struct state before = t->s;
                bell_go(p, 0, bell_next(p));
                p->left = 0;
                p->pc = WORKER_SPIN_SET;
                turn_emit(t);
                t->s = before;
        }
        sleep_begin(p);
}

static void worker_scan(struct turn *t) {
        if (jobs_load(t, var_work(bell_now(t->p))))
                t->p->pc = WORKER_HEAD;
        else
                scan_on(t);
}

static void worker_head(struct turn *t) {
        t->p->pos = t->s.ring[ring_now(t->p)].head;
        t->p->pc = WORKER_CELL;
}

static void settle_begin(struct proc *p) {
        p->pos = p->ring = 0;
        p->pc = WORKER_CLEAR;
}

/* false: that was the last. */
static bool next_ring(struct proc *p) {
        if (p->ring + 1u == n_rings())
                return false;
        p->ring++;
        return true;
}

static void worker_cell(struct turn *t) {
        struct proc *p = t->p;
        unsigned cell = jobs_load(t, var_cell(ring_now(p), p->pos));
        if (cell_cycle(cell) == cycle_of(p->pos)) {
                p->slot = cell_slot(cell) & 3;
                p->generation = cell_generation(cell) & 3;
                p->pc = config->fault == HEAD_FIRST ? WORKER_ADVANCE : WORKER_WORD;
        } else {
                bool is_empty = cell_cycle(cell) == cycle_of(p->pos) - 1;
                p->pos = 0;
                p->pc = WORKER_HEAD;
                if (is_empty && !next_ring(p))
                        settle_begin(p);
        }
}

static void peek_again(struct proc *p) {
        forget_hint(p);
        p->pc = WORKER_HEAD;
}

/* The load of the word, and the record: a private matter until this worker dies. */
static void worker_word(struct turn *t) {
        struct proc *p = t->p;
        uint8_t record = (uint8_t)(p->slot | p->generation << 2 | 1u << 4);
        if (slot_is_live(&t->s, p->slot, p->generation)) {
                t->s.record[worker_of(t)] = record;
                p->seen = t->s.slot[p->slot].attempt;
                p->pc = WORKER_CLAIM;
        } else if (config->fault == HEAD_FIRST)
                peek_again(p);
        else {
                p->pc = WORKER_SKIP;
                /* Joined with its CAS, this is also the claim that came too late: it leaves a record. */
                if (config->is_coarse && t->s.n_kills > 0 && t->s.slot[p->slot].generation == p->generation &&
                    t->s.record[worker_of(t)] != record) {
                        turn_emit(t);
                        t->s.record[worker_of(t)] = record;
                }
        }
}

static void advance_head(struct turn *t) {
        struct ring *r = &t->s.ring[ring_now(t->p)];
        if (r->head == t->p->pos)
                r->head++;
}

static void worker_skip(struct turn *t) {
        advance_head(t);
        peek_again(t->p);
}

static void claimed(struct proc *p) {
        p->pos = p->seen = p->ring = 0;
        p->own = HAS_CLAIMED;
        bell_go(p, bell_now(p), (bell_now(p) + 1) % config->n_bells);
        p->pc = WORKER_MORE_HEAD;
}

static void worker_claim(struct turn *t) {
        struct proc *p = t->p;
        struct slot word = t->s.slot[p->slot];
        bool has_won = slot_is_live(&t->s, p->slot, p->generation) && word.attempt == p->seen;
        if (has_won) {
                word.state = RUNNING;
                word.owner = (worker_of(t) + 1) & 3;
                jobs_slot_set(t, p->slot, word);
        }
        p->seen = 0;
        p->own = has_won ? HAS_CLAIMED : 0;
        p->pc = WORKER_ADVANCE;
        if (config->fault == HEAD_FIRST) {
                if (has_won)
                        claimed(p);
                else
                        peek_again(p);
        }
}

static void worker_advance(struct turn *t) {
        struct proc *p = t->p;
        bool is_mine = t->s.ring[ring_now(p)].head == p->pos;
        advance_head(t);
        if (config->fault == HEAD_FIRST) {
                p->pos = 0;
                p->pc = WORKER_WORD;
                if (!is_mine)
                        peek_again(p);
        } else if (p->own & HAS_CLAIMED)
                claimed(p);
        else
                peek_again(p);
}

/* ---- settle, after a claim that emptied the ring or a scan that found nothing ---- */

static void baton_begin(struct turn *t);

static void settled(struct turn *t) {
        t->p->pos = t->p->ring = 0;
        if (t->p->own & HAS_CLAIMED)
                baton_begin(t);
        else
                scan_on(t);
}

static void worker_more_head(struct turn *t) {
        t->p->pos = t->s.ring[ring_now(t->p)].head;
        t->p->pc = WORKER_MORE_CELL;
}

static void worker_more_cell(struct turn *t) {
        struct proc *p = t->p;
        unsigned cycle = cell_cycle(jobs_load(t, var_cell(ring_now(p), p->pos)));
        bool is_written = cycle == cycle_of(p->pos), is_empty = cycle == cycle_of(p->pos) - 1;
        p->pos = 0;
        if ((!is_written && !is_empty) || (is_empty && next_ring(p)))
                p->pc = WORKER_MORE_HEAD;
        else if (is_written && p->own & HAS_CLEARED)
                p->pc = WORKER_MARK;
        else if (is_written || p->own & HAS_CLEARED)
                settled(t);
        else
                settle_begin(p);
}

static void worker_clear(struct turn *t) {
        jobs_store(t, var_work(bell_now(t->p)), 0);
        t->p->own |= HAS_CLEARED;
        t->p->pc = WORKER_MORE_HEAD;
        if (config->fault == NO_SECOND_LOOK)
                settled(t);
}

static void worker_mark(struct turn *t) {
        jobs_store(t, var_work(bell_now(t->p)), 1);
        settled(t);
}

/* ---- the baton: bell by bell in p->left ---- */

static void baton_next(struct turn *t) {
        struct proc *p = t->p;
        if (p->left < config->n_bells && config->fault != NO_BATON) {
                p->pc = WORKER_BATON_SLEEPERS;
                return;
        }
        p->left = 0;
        p->pc = WORKER_HANDLER;
}

static void baton_begin(struct turn *t) {
        t->p->own = t->p->left = 0;
        baton_next(t);
}

void worker_after_wake(struct turn *t) {
        t->p->left++;
        baton_next(t);
}

static void worker_baton_sleepers(struct turn *t) {
        if (jobs_load_bits(t, var_sleeper(0, t->p->left), WORKERS, BELLS))
                t->p->pc = WORKER_BATON_WORK;
        else
                worker_after_wake(t);
}

static void worker_baton_work(struct turn *t) {
        if (jobs_load(t, var_work(t->p->left)))
                wake_begin(t);
        else
                worker_after_wake(t);
}

/* ---- job_run ---- */

static void worker_handler(struct turn *t) {
        struct slot *slot = &t->s.slot[t->p->slot];
        if (slot->is_spoiled)
                turn_fail(t, "a job saw an input that its client did not write");
        slot->has_result = 1;
        slot->result = slot->generation;
        if (config->fault == RESULT_IN_PLACE)
                slot->is_spoiled = 1;
        t->p->pc = WORKER_FINISH;
}

static void worker_finish(struct turn *t) {
        struct proc *p = t->p;
        struct slot word = t->s.slot[p->slot];
        if (word.state != RUNNING || word.owner != worker_of(t) + 1 || word.generation != p->generation) {
                turn_fail(t, "a live worker's job was taken from it");
                return;
        }
        word.state = DONE;
        word.owner = 0;
        jobs_slot_set(t, p->slot, word);
        announce_begin(t);
}

void worker_after_announce(struct turn *t) { scan_begin(t->p); }

/* ---- spin ---- */

static void worker_spin_set(struct turn *t) {
        struct proc *p = t->p;
        jobs_store(t, var_spinner(worker_of(t), p->left), 1);
        if (++p->left < config->n_bells)
                return;
        p->left = 0;
        p->pc = WORKER_SPIN_LOOK;
}

/* Looking again is the same state; giving up is a choice. */
static void worker_spin_look(struct turn *t) {
        struct proc *p = t->p;
        if (jobs_load(t, var_work(p->left)))
                p->own = HAS_SEEN_WORK;
        else if (++p->left < config->n_bells)
                return;
        p->left = 0;
        if (!p->own)
                turn_emit(t);
        p->pc = WORKER_SPIN_CLEAR;
}

static void worker_spin_clear(struct turn *t) {
        struct proc *p = t->p;
        jobs_store(t, var_spinner(worker_of(t), p->left), 0);
        if (++p->left < config->n_bells)
                return;
        p->left = 0;
        if (p->own & HAS_SEEN_WORK)
                scan_begin(p);
        else
                p->pc = WORKER_SPIN_RELOOK;
}

static void worker_spin_relook(struct turn *t) {
        struct proc *p = t->p;
        if (jobs_load(t, var_work(p->left)))
                scan_begin(p);
        else if (++p->left == config->n_bells)
                sleep_begin(p);
}

/* ---- sleep_on_all ---- */

static void worker_sleeper_set(struct turn *t) {
        jobs_store(t, var_sleeper(worker_of(t), t->p->left), 1);
        t->p->pc = WORKER_SEQ;
}

static void worker_seq(struct turn *t) {
        struct proc *p = t->p;
        p->stale &= ~(1u << p->left) & 3;
        p->pc = WORKER_SLEEPER_SET;
        if (++p->left < config->n_bells)
                return;
        p->left = 0;
        p->pc = WORKER_RELOOK;
}

static void sleep_end(struct proc *p) {
        p->stale = p->queued = p->left = 0;
        p->pc = WORKER_SLEEPER_CLEAR;
}

static void worker_relook(struct turn *t) {
        struct proc *p = t->p;
        if (jobs_load(t, var_work(p->left)))
                sleep_end(p);
        else if (++p->left == config->n_bells) {
                p->left = 0;
                p->pc = WORKER_SLEEP;
        }
}

/* futex_waitv compares and queues word by word. */
static void worker_sleep(struct turn *t) {
        struct proc *p = t->p;
        if (p->stale >> p->left & 1) {
                sleep_end(p);
                return;
        }
        p->queued |= 1u << p->left & 3;
        if (++p->left < config->n_bells)
                return;
        p->left = p->stale = 0;
        p->pc = WORKER_SLEEPING;
}

static void worker_sleeping(struct turn *t) {
        t->is_disabled = t->p->queued == bells_mask();
        sleep_end(t->p);
}

static void worker_sleeper_clear(struct turn *t) {
        jobs_store(t, var_sleeper(worker_of(t), t->p->left), 0);
        t->p->pc = WORKER_RISE;
}

static void worker_rise(struct turn *t) {
        if (config->fault != NO_RISE)
                bell_rise(&t->s, t->p->left);
        t->p->pc = WORKER_SLEEPER_CLEAR;
        if (++t->p->left == config->n_bells)
                scan_begin(t->p);
}

const struct jobs_op jobs_worker_ops[N_PCS] = {
        [WORKER_SCAN] = {worker_scan, "scan: read the work bit", LOAD},
        [WORKER_HEAD] = {worker_head, "claim: read the head", LOAD},
        [WORKER_CELL] = {worker_cell, "claim: read the head's cell", LOAD, .joins = true},
        [WORKER_WORD] = {worker_word, "claim: read the slot, write the record", LOAD},
        [WORKER_SKIP] = {worker_skip, "claim: advance the head past a stale hint", LOCKED},
        [WORKER_CLAIM] = {worker_claim, "claim: QUEUED -> RUNNING", LOCKED, .joins = true},
        [WORKER_ADVANCE] = {worker_advance, "claim: advance the head", LOCKED},
        [WORKER_MORE_HEAD] = {worker_more_head, "look: read the head", LOAD},
        [WORKER_MORE_CELL] = {worker_more_cell, "look: read the head's cell", LOAD, .joins = true},
        [WORKER_CLEAR] = {worker_clear, "settle: clear the work bit", LOCKED, FENCE_S5},
        [WORKER_MARK] = {worker_mark, "settle: set the work bit again", LOCKED, FENCE_S6},
        [WORKER_BATON_SLEEPERS] = {worker_baton_sleepers, "baton: read the sleeper bits", LOAD},
        [WORKER_BATON_WORK] = {worker_baton_work, "baton: read the work bit", LOAD},
        [WORKER_HANDLER] = {worker_handler, "run the job, write its result", STORE},
        [WORKER_FINISH] = {worker_finish, "RUNNING -> DONE", LOCKED, .joins = true},
        [WORKER_SPIN_SET] = {worker_spin_set, "spin: set the spinner bit", LOCKED},
        [WORKER_SPIN_LOOK] = {worker_spin_look, "spin: read the work bit", LOAD},
        [WORKER_SPIN_CLEAR] = {worker_spin_clear, "spin: clear the spinner bit", LOCKED, FENCE_S4},
        [WORKER_SPIN_RELOOK] = {worker_spin_relook, "spin: read the work bit once more", LOAD},
        [WORKER_SLEEPER_SET] = {worker_sleeper_set, "sleep: set the sleeper bit", LOCKED, FENCE_S3},
        [WORKER_SEQ] = {worker_seq, "sleep: read seq", LOAD},
        [WORKER_RELOOK] = {worker_relook, "sleep: read the work bit", LOAD},
        [WORKER_SLEEP] = {worker_sleep, "sleep: FUTEX_WAIT", LOCKED},
        [WORKER_SLEEPING] = {worker_sleeping, "sleep: woken", LOAD},
        [WORKER_SLEEPER_CLEAR] = {worker_sleeper_clear, "sleep: clear the sleeper bit", LOCKED},
        [WORKER_RISE] = {worker_rise, "sleep: rises + 1", LOCKED, .joins = true},
};
