/* All jobs a caller may see, page by page: those of the bus from their records, those of sessions from their slots.
 *
 * Ids order everything: bus jobs count from 1, a session's stand above its id_base, and sessions are numbered as they
 * were opened first (pool-numbers.c). So a cursor is the last id given out, whatever came and went since. Of a session
 * the broker knows what stands in the slots, queued and running, and believes little of it: the id is held within the
 * session's range, the type within the schema, the time within the past. One call looks at a bounded number of records
 * and slots. Who may not see all walks along its own only, so that no cursor tells it a foreign id. */
#include "daemon/supervise/jobs/job.h"

#include <stdlib.h>

#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/channels/session.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

enum {
        LIST_MAX_LOOKS = 20000,
        LIST_CHANNEL_LOOKS = 32, /* what it costs to find the next channel */
};

static bool list_fits(const struct job_filter *f, uid_t uid, const char *pool, const char *name, enum slot_state state,
                      uint64_t submitted_us) {
        if (state == SLOT_DELAYED)
                state = SLOT_QUEUED;
        return (f->sees_all || uid == f->viewer) && (!f->has_uid || uid == f->uid) &&
               (!f->pool || strcmp(pool, f->pool) == 0) && (!f->name || strcmp(name, f->name) == 0) &&
               (!f->states || f->states & 1u << state) && submitted_us >= f->since_us;
}

/* One call's page, as it fills. */
struct list {
        const struct job_filter *filter;
        struct job_row *rows;
        size_t n, n_max;
        uint32_t n_looks;
        uint64_t last; /* id looked at last */
};

static bool list_is_over(const struct list *l) { return l->n == l->n_max || l->n_looks >= LIST_MAX_LOOKS; }

/* ---- the bus's ---- */

/* true: there are more. */
static bool list_records(struct list *l, const struct jobs *js) {
        const struct job_filter *f = l->filter;
        struct job *j = f->sees_all ? jobs_after(js, l->last) : jobs_after_of(js, l->last, f->viewer);
        for (; j; j = f->sees_all ? TAILQ_NEXT(j, all_link) : TAILQ_NEXT(j, uid_link)) {
                if (list_is_over(l))
                        return true;
                l->n_looks++;
                l->last = j->id;
                if (j->is_released) /* of a Run: its caller has it */
                        continue;
                enum slot_state state = j->state;
                if (!j->is_finished)
                        state = job_live_state(j);
                if (list_fits(l->filter, j->uid, j->pool_name, j->name, state, j->submitted_us))
                        l->rows[l->n++] = (struct job_row){.id = j->id,
                                                           .pool = j->pool_name,
                                                           .name = j->name,
                                                           .connection = j->connection,
                                                           .state = state,
                                                           .uid = j->uid,
                                                           .pid = j->pid,
                                                           .submitted_us = j->submitted_us};
        }
        return false;
}

/* ---- sessions' ---- */

struct list_slot {
        uint64_t id;
        uint32_t slot;
};

static int list_slot_compare(const void *a, const void *b) {
        uint64_t x = ((const struct list_slot *)a)->id, y = ((const struct list_slot *)b)->id;
        return (x > y) - (x < y);
}

static bool list_is_live(uint64_t word) {
        return slot_state(word) == SLOT_QUEUED || slot_state(word) == SLOT_DELAYED || slot_state(word) == SLOT_RUNNING;
}

static uint64_t list_slot_id(const struct pool_channel *c, uint32_t slot) {
        return worker_job_id(&(struct worker_job){.channel = (struct pool_channel *)c, .slot = slot});
}

/* The channel of the session with the smallest id_base that is not below `base`; f: that this one may see. */
static struct pool_channel *list_next_channel(struct supervisor *s, uint64_t base, const struct job_filter *f) {
        struct pool_channel *best = NULL;
        for (struct pool *p = supervisor_next_pool(s, NULL); p; p = supervisor_next_pool(s, p))
                for (uint32_t i = 1; i < LAYOUT_MAX_CHANNELS; i++) {
                        struct pool_channel *c = p->channels[i];
                        if (c && !c->is_dead && c->id_base >= base && (!best || c->id_base < best->id_base) &&
                            (!f || f->sees_all || p->bells[c->bell].uid == f->viewer))
                                best = c;
                }
        return best;
}

const char *session_job_name(const struct session_job *sj, uint32_t type) {
        const struct schema *schema = sj->channel->pool->schema;
        const struct schema_job *job = schema ? schema_find_number(schema, type) : NULL;
        return job ? job->name : "?";
}

uint64_t session_job_submitted_us(const struct layout_job *line) {
        uint64_t now_ns = event_now_ns(), now_us = wall_clock_us();
        uint64_t age_us = line->queued_ns < now_ns ? (now_ns - line->queued_ns) / 1000 : 0;
        return age_us < now_us ? now_us - age_us : now_us;
}

/* Its slots in the order of their ids, from `last` on. */
static bool list_channel(struct list *l, struct pool_channel *c) {
        uint32_t n = 0, n_slots = c->channel.geometry.n_slots;
        struct list_slot *slots = calloc(n_slots, sizeof(*slots));
        uid_t uid = c->pool->bells[c->bell].uid;
        bool is_more = false;
        for (uint32_t slot = 0; slots && slot < n_slots; slot++) {
                uint64_t id = list_slot_id(c, slot); /* once: a client that changes it must not turn the cursor back */
                if (id > l->last && list_is_live(channel_word(&c->channel, slot)))
                        slots[n++] = (struct list_slot){.id = id, .slot = slot};
        }
        if (n > 1)
                qsort(slots, n, sizeof(*slots), list_slot_compare);
        l->n_looks += n_slots / 8;
        for (uint32_t i = 0; i < n && !is_more; i++) {
                struct session_job sj = {.channel = c, .slot = slots[i].slot};
                enum slot_state state = slot_state(channel_word(&c->channel, sj.slot));
                struct layout_job line;
                channel_copy(&line, channel_job(&c->channel, sj.slot), sizeof(line));
                const char *name = session_job_name(&sj, line.type);
                is_more = l->n == l->n_max;
                if (is_more || slots[i].id == l->last) /* a client that uses an id twice */
                        continue;
                l->last = slots[i].id;
                uint64_t submitted_us = session_job_submitted_us(&line);
                if (state > SLOT_FILLING && state < SLOT_N_STATES &&
                    list_fits(l->filter, uid, c->pool->config.name, name, state, submitted_us))
                        l->rows[l->n++] = (struct job_row){.id = l->last,
                                                           .pool = c->pool->config.name,
                                                           .name = name,
                                                           .connection = session_connection(c->session),
                                                           .state = state,
                                                           .uid = uid,
                                                           .pid = session_pid(c->session),
                                                           .submitted_us = submitted_us};
        }
        free(slots);
        return is_more;
}

static bool list_sessions(struct list *l, struct supervisor *s) {
        uint64_t base = l->last & ~LAYOUT_JOB_ID_MASK;
        struct pool_channel *c;
        while ((c = list_next_channel(s, base, l->filter))) {
                const struct job_filter *f = l->filter;
                uid_t uid = c->pool->bells[c->bell].uid;
                if (list_is_over(l)) {
                        if (l->last < c->id_base)
                                l->last = c->id_base; /* no job has this id */
                        return true;
                }
                if ((!f->has_uid || uid == f->uid) && list_channel(l, c))
                        return true;
                l->n_looks += LIST_CHANNEL_LOOKS;
                base = c->id_base + LAYOUT_JOB_ID_MASK + 1;
        }
        return false;
}

size_t supervisor_list_jobs(struct supervisor *s, const struct job_filter *f, uint64_t after, struct job_row *ret,
                            size_t n, uint64_t *ret_next) {
        struct list l = {.filter = f, .rows = ret, .n_max = n, .last = after};
        bool is_more = after <= LAYOUT_JOB_ID_MASK && list_records(&l, s->jobs);
        if (!is_more)
                is_more = list_sessions(&l, s);
        *ret_next = is_more ? l.last : 0;
        return l.n;
}

bool supervisor_find_session_job(struct supervisor *s, uint64_t id, struct session_job *ret) {
        if (id <= LAYOUT_JOB_ID_MASK)
                return false;
        struct pool_channel *c = list_next_channel(s, id & ~LAYOUT_JOB_ID_MASK, NULL);
        if (!c || c->id_base != (id & ~LAYOUT_JOB_ID_MASK))
                return false;
        for (uint32_t slot = 0; slot < c->channel.geometry.n_slots; slot++) {
                uint64_t word = channel_word(&c->channel, slot);
                if (list_is_live(word) && list_slot_id(c, slot) == id) {
                        *ret = (struct session_job){.channel = c, .slot = slot, .generation = slot_generation(word)};
                        return true;
                }
        }
        return false;
}
