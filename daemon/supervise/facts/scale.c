/* Up by half as soon as a job waits too long (with a rate, only if all are busy: else it waits for its time), one step
 * at a time: the next only when the last ones are ready. Down to what was needed at most during a whole window, so a
 * load that comes and goes within it costs no worker. From none to one for any job. */
#include "daemon/supervise/facts/scale.h"

void scale_init(struct scale *s, uint32_t target, uint64_t now_ns) {
        *s = (struct scale){.target = target, .window_ns = now_ns};
}

static uint32_t scale_clamp(uint32_t n, const struct scale_view *v) {
        return n < v->min ? v->min : n > v->max ? v->max : n;
}

static uint32_t scale_up(const struct scale *s, const struct scale_view *v) {
        if (!v->has_work)
                return s->target;
        if (s->target == 0)
                return 1;
        if (v->longest_wait_ns < SCALE_WAIT_NS || v->is_starting || (v->is_rated && v->n_held < s->target))
                return s->target;
        return s->target + (s->target + 1) / 2;
}

/* With work and a rate: those that had something to do, and one that waits for the next time. */
static uint32_t scale_needed(const struct scale *s, const struct scale_view *v) {
        if (!v->has_work)
                return v->n_busy;
        return !v->is_rated ? s->target : v->n_busy > 0 ? v->n_busy : 1;
}

bool scale_look(struct scale *s, const struct scale_view *v) {
        uint32_t before = s->target;
        uint32_t needed = scale_needed(s, v);
        if (needed > s->peak)
                s->peak = needed;
        s->target = scale_clamp(scale_up(s, v), v);
        if (s->target > s->peak && s->target > before)
                s->peak = s->target;
        if (v->now_ns - s->window_ns >= SCALE_IDLE_NS) {
                if (s->peak < s->target)
                        s->target = scale_clamp(s->peak, v);
                s->window_ns = v->now_ns;
                s->peak = needed;
        }
        return s->target != before;
}

uint64_t scale_next_ns(const struct scale *s, uint32_t min) {
        return s->target > min ? s->window_ns + SCALE_IDLE_NS : 0;
}
