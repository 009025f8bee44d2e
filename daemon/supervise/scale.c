/* Up by half as soon as a job waits too long, one step at a time: the next only when the last ones are ready. Down to
 * what was needed at most during a whole window, so a load that comes and goes within it costs no worker. From none to
 * one for any job. */
#include "daemon/supervise/scale.h"

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
        if (v->longest_wait_ns < SCALE_WAIT_NS || v->is_starting)
                return s->target;
        return s->target + (s->target + 1) / 2;
}

bool scale_look(struct scale *s, const struct scale_view *v) {
        uint32_t before = s->target;
        uint32_t needed = v->has_work ? s->target : v->n_busy;
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
