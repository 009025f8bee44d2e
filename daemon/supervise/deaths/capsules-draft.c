/* The copy of a job that is made before its verdict is told: after that the slot is its client's again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/loop/wall-clock.h"
#include "daemon/supervise/deaths/capsules-internal.h"
#include "daemon/supervise/deaths/death.h"
#include "daemon/supervise/jobs/jobs.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/values/breach.h"
#include "ipc/values/words.h"

static struct capsule_attempt capsule_attempt_of(const struct death *d) {
        struct capsule_attempt a = {
                .when_us = d->realtime_us,
                .attempt = d->attempt,
                .pid = (uint32_t)d->pid,
                .signal = d->is_signal ? (uint32_t)d->status : 0,
                .status = d->is_signal ? 0 : (uint32_t)d->status,
                .offset = d->fault_offset,
        };
        snprintf(a.reason, sizeof(a.reason), "%s", words_reason(d->reason));
        snprintf(a.module, sizeof(a.module), "%s", d->fault_module);
        death_syscall_name(d->syscall, a.syscall, sizeof(a.syscall));
        return a;
}

static void capsule_add_attempt(struct capsule *c, const struct death *d) {
        if (c->n_attempts == CAPSULE_MAX_ATTEMPTS) {
                memmove(c->attempts, c->attempts + 1, sizeof(c->attempts) - sizeof(*c->attempts));
                c->n_attempts--;
        }
        c->attempts[c->n_attempts++] = capsule_attempt_of(d);
}

static void capsule_add_attempts(struct capsule *c, const struct worker *w, const struct worker_job *job,
                                 const struct layout_verdict *line) {
        const struct pool *p = w->pool;
        uint64_t oldest = p->n_deaths > POOL_DEATHS ? p->n_deaths - POOL_DEATHS : 0;
        for (uint64_t i = oldest; i < p->n_deaths; i++)
                if (p->deaths[i % POOL_DEATHS].job_id == c->id)
                        capsule_add_attempt(c, &p->deaths[i % POOL_DEATHS]);
        struct death last = {
                .pid = (pid_t)line->pid,
                .reason = line->reason,
                .is_signal = line->signal != 0,
                .status = (int32_t)(line->signal ? line->signal : line->status),
                .attempt = slot_attempt(job->word),
                .realtime_us = c->created_us,
        };
        struct layout_breach breach;
        breach_read(worker_line(w), &breach);
        death_take_fault(&last, w, &breach);
        capsule_add_attempt(c, &last);
}

static void capsule_add_words(struct capsule *c, const struct worker *w) {
        uint64_t lost;
        const char *words = worker_output_last(w, &lost);
        size_t used = 0;
        if (lost)
                used = (size_t)snprintf(c->log, sizeof(c->log), "(%llu bytes before these lines are lost)\n",
                                        (unsigned long long)lost);
        snprintf(c->log + used, sizeof(c->log) - used, "%s", words);
}

/* How long the input is, and the sealed file that it is in; -1: in the slot. NULL, or why no file can hold it. */
static const char *capsule_find_input(const struct worker_job *job, const struct layout_job *wanted, size_t *ret_bytes,
                                      int *ret_fd) {
        *ret_bytes = wanted->bytes;
        *ret_fd = -1;
        if (!(slot_flags(job->word) & SLOT_HAS_FDS))
                return wanted->bytes <= job->channel->channel.geometry.slot_bytes ? NULL : "its input makes no sense";
        const struct descriptors *d = descriptors_get(job->channel, DESCRIPTORS_OF_JOB, job->slot, job->generation);
        if (!d || d->n_fds != 1 || d->payload_bytes == 0)
                return "it came with descriptors";
        if (d->payload_bytes > CAPSULE_MAX_PAYLOAD)
                return "its input is longer than 1 MiB";
        *ret_bytes = d->payload_bytes;
        *ret_fd = d->fds[0];
        return NULL;
}

struct capsule_draft *capsules_draft(const struct worker *w, const struct worker_job *job, enum slot_state verdict,
                                     const struct layout_verdict *line) {
        const struct pool *p = w->pool;
        const struct channel *channel = &job->channel->channel;
        struct layout_job wanted;
        channel_copy(&wanted, channel_job(channel, job->slot), sizeof(wanted));
        const struct schema_job *type = p->schema ? schema_find_number(p->schema, wanted.type) : NULL;
        size_t bytes;
        int fd;
        if (!capsules_are_kept(p->supervisor->capsules) || p->config.n_capsules == 0 || job->channel->is_dead || !type)
                return NULL;
        const char *missing = capsule_find_input(job, &wanted, &bytes, &fd);
        struct capsule_draft *d = calloc(1, sizeof(*d) + (missing ? 0 : bytes));
        if (!d)
                return NULL;
        struct capsule *c = &d->capsule;
        c->id = worker_job_id(job);
        d->missing = missing;
        if (missing)
                return d;
        if (fd < 0)
                channel_copy(d->payload, channel_payload(channel, job->slot), bytes);
        else if (pread(fd, d->payload, bytes, 0) != (ssize_t)bytes)
                return capsules_discard(d);
        c->payload = d->payload;
        c->payload_bytes = bytes;
        c->created_us = wall_clock_us();
        c->uid = worker_job_uid(job);
        c->hard_ns = verdict == SLOT_TIMED_OUT ? w->hard_ns : 0;
        snprintf(c->state, sizeof(c->state), "%s", words_slot_state(verdict));
        snprintf(c->pool, sizeof(c->pool), "%s", p->config.name);
        snprintf(c->plugin, sizeof(c->plugin), "%s", p->config.plugin);
        snprintf(c->plugin_dir, sizeof(c->plugin_dir), "%s", p->supervisor->plugin_dir);
        snprintf(c->build_id, sizeof(c->build_id), "%s", w->build_id);
        snprintf(c->job, sizeof(c->job), "%s", type->name);
        capsule_add_words(c, w);
        capsule_add_attempts(c, w, job, line);
        return d;
}

struct capsule_draft *capsules_discard(struct capsule_draft *d) {
        free(d);
        return NULL;
}
