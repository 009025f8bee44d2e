/* Owns STATE/capsules: one file a job, POOL.ID, whole or absent, for our eyes only (0700, 0600); others get a copy of
 * theirs from us, in memory, after a look at the uid in it. Not the file: who has a descriptor of it can keep it locked
 * for as long as he likes (a read of it, past the page cache, into a mapping of a file that hangs), and whoever removes
 * it or renames another one over it waits for that. A capsule has one copy, however often it is asked for.
 *
 * A capsule is written under a name that starts with a dot, synced by the kernel in the background (the loop waits for
 * no disk), then renamed; what a kill leaves half written is removed at the next start. A pool keeps Capsules= of them,
 * all pools together 64 MiB: the oldest go of the uid that has most there, so that nobody pushes others' out. A job
 * that was queued again and killed again has one capsule, the newest. */
#include "daemon/supervise/capsules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/supervise/death.h"
#include "daemon/supervise/jobs.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/capsule.h"
#include "ipc/sealed.h"
#include "ipc/segment.h"
#include "ipc/words.h"

#define CAPSULES_MAX_BYTES (UINT64_C(64) << 20)
enum { CAPSULES_MAX_FILES = 65536, CAPSULES_MAX_WRITES = 16, CAPSULES_MAX_COPIES = 64 };

struct capsule_user {
        uid_t uid;
        uint64_t n_files, n_bytes;
        uint64_t n_seen; /* capsules_find_greedy: in one pool */
        TAILQ_ENTRY(capsule_user) link;
};

struct capsule_file {
        struct capsule_user *user; /* while it stands in a list */
        uid_t uid;
        uint64_t id, bytes;
        int64_t when_ns;
        char pool[72];
        int copy_fd; /* a sealed memory file; -1: nobody has asked yet */
        uid_t copy_uid;
        TAILQ_ENTRY(capsule_file) link;
};

struct capsule_write {
        struct capsules *owner;
        struct capsule_file *file;
        uint32_t n_kept; /* Capsules= of its pool */
        int fd;
        char name[96]; /* until it is whole */
        struct loop_poll sync;
        TAILQ_ENTRY(capsule_write) link;
};

TAILQ_HEAD(capsule_files, capsule_file);

struct capsules {
        struct loop *loop;
        int dir; /* -1: there are none */
        char *state_dir;
        struct capsule_files files; /* oldest first */
        TAILQ_HEAD(, capsule_user) users;
        uint64_t n_bytes, n_files, n_written, n_copies;
        TAILQ_HEAD(, capsule_write) writes;
        unsigned n_writes;
        struct loop_poll dir_sync;
        uint64_t last[NUMBERS_N_KINDS]; /* the largest numbers in names; 0 = none */
        bool is_incomplete;             /* the directory could not be read to its end: there may be others */
};

/* ---- the files there are ---- */

static struct capsule_user *capsules_get_user(struct capsules *cs, uid_t uid) {
        struct capsule_user *u;
        TAILQ_FOREACH(u, &cs->users, link)
        if (u->uid == uid)
                return u;
        u = calloc(1, sizeof(*u));
        if (!u)
                return NULL;
        u->uid = uid;
        TAILQ_INSERT_TAIL(&cs->users, u, link);
        return u;
}

static void capsules_drop_copy(struct capsules *cs, struct capsule_file *f) {
        if (f->copy_fd < 0)
                return;
        close(f->copy_fd);
        f->copy_fd = -1;
        cs->n_copies--;
}

static void capsules_forget(struct capsules *cs, struct capsule_file *f) {
        struct capsule_user *u = f->user;
        capsules_drop_copy(cs, f);
        TAILQ_REMOVE(&cs->files, f, link);
        cs->n_bytes -= f->bytes;
        cs->n_files--;
        u->n_bytes -= f->bytes;
        if (--u->n_files == 0) {
                TAILQ_REMOVE(&cs->users, u, link);
                free(u);
        }
        free(f);
}

static void capsules_remove(struct capsules *cs, struct capsule_file *f) {
        char name[96];
        capsule_name(f->pool, f->id, name, sizeof(name));
        unlinkat(cs->dir, name, 0);
        capsules_forget(cs, f);
}

static int capsules_insert(struct capsules *cs, struct capsule_file *f) {
        f->user = capsules_get_user(cs, f->uid);
        if (!f->user)
                return -ENOMEM;
        f->user->n_files++;
        f->user->n_bytes += f->bytes;
        struct capsule_file *after = TAILQ_LAST(&cs->files, capsule_files);
        while (after && after->when_ns > f->when_ns)
                after = TAILQ_PREV(after, capsule_files, link);
        if (after)
                TAILQ_INSERT_AFTER(&cs->files, after, f, link);
        else
                TAILQ_INSERT_HEAD(&cs->files, f, link);
        cs->n_bytes += f->bytes;
        cs->n_files++;
        return 0;
}

static uint64_t capsules_count(struct capsules *cs, const char *pool) {
        struct capsule_user *u;
        struct capsule_file *f;
        uint64_t n = 0;
        TAILQ_FOREACH(u, &cs->users, link)
        u->n_seen = 0;
        TAILQ_FOREACH(f, &cs->files, link)
        if (strcmp(f->pool, pool) == 0) {
                f->user->n_seen++;
                n++;
        }
        return n;
}

/* The oldest file in the pool, of the uid that has most there; pool NULL: in all, by bytes. */
static struct capsule_file *capsules_find_greedy(struct capsules *cs, const char *pool) {
        struct capsule_file *f, *best = NULL;
        TAILQ_FOREACH(f, &cs->files, link)
        if ((!pool || strcmp(f->pool, pool) == 0) &&
            (!best || (pool ? f->user->n_seen > best->user->n_seen : f->user->n_bytes > best->user->n_bytes)))
                best = f;
        return best;
}

static void capsules_make_room(struct capsules *cs, const char *pool, uint32_t n_kept) {
        while (capsules_count(cs, pool) > n_kept)
                capsules_remove(cs, capsules_find_greedy(cs, pool));
        while (cs->n_bytes > CAPSULES_MAX_BYTES)
                capsules_remove(cs, capsules_find_greedy(cs, NULL));
}

static struct capsule_file *capsules_find(const struct capsules *cs, const char *pool, uint64_t id) {
        struct capsule_file *f;
        TAILQ_FOREACH(f, &cs->files, link)
        if (f->id == id && strcmp(f->pool, pool) == 0)
                return f;
        return NULL;
}

/* Whose it is stands in it. One that cannot be read is nobody's but ours. */
static uid_t capsules_read_uid(const struct capsules *cs, const char *name) {
        struct capsule c = {0};
        int fd = openat(cs->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        uid_t uid = fd >= 0 && capsule_load(fd, &c) >= 0 ? c.uid : geteuid();
        capsule_deinit(&c);
        if (fd >= 0)
                close(fd);
        return uid;
}

/* Whatever else is wrong with the file: a job had that number. */
static void capsules_note_number(struct capsules *cs, uint64_t id) {
        enum numbers_kind kind = id > LAYOUT_JOB_ID_MASK ? NUMBERS_CHANNEL : NUMBERS_JOB;
        uint64_t number = kind == NUMBERS_CHANNEL ? id / (LAYOUT_JOB_ID_MASK + 1) : id;
        if (number > cs->last[kind])
                cs->last[kind] = number;
}

static void capsules_scan_one(struct capsules *cs, const char *name) {
        struct capsule_file found = {.copy_fd = -1}, *f;
        struct stat st;
        if (strncmp(name, ".new-", 5) == 0) {
                unlinkat(cs->dir, name, 0);
                return;
        }
        if (!capsule_parse_name(name, found.pool, &found.id))
                return;
        capsules_note_number(cs, found.id);
        if (fstatat(cs->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) || !(f = malloc(sizeof(*f))))
                return;
        found.uid = capsules_read_uid(cs, name);
        found.bytes = (uint64_t)st.st_size;
        found.when_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        *f = found;
        if (capsules_insert(cs, f) < 0)
                free(f);
}

static void capsules_scan(struct capsules *cs) {
        int fd = openat(cs->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *e;
        int error = d ? 0 : errno;
        if (!d && fd >= 0)
                close(fd);
        while (d && cs->n_files < CAPSULES_MAX_FILES) {
                errno = 0;
                if (!(e = readdir(d))) {
                        error = errno;
                        break;
                }
                capsules_scan_one(cs, e->d_name);
        }
        cs->is_incomplete = error || cs->n_files == CAPSULES_MAX_FILES;
        if (error)
                log_warning("%s/capsules cannot be read to its end: %s: numbers of jobs begin from the clock, so that "
                            "none is used twice",
                            cs->state_dir, strerror(error));
        if (d)
                closedir(d);
}

static int capsules_open_dir(const char *state_dir, int *ret) {
        char path[PATH_MAX];
        if ((size_t)snprintf(path, sizeof(path), "%s/capsules", state_dir) >= sizeof(path))
                return -ENAMETOOLONG;
        for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
                if (slash)
                        *slash = 0;
                if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
                        return -errno;
                if (!slash)
                        break;
                *slash = '/';
        }
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret = fd;
        return 0;
}

int capsules_new(struct capsules **ret, struct loop *l, const char *state_dir) {
        struct capsules *cs = calloc(1, sizeof(*cs));
        if (!cs)
                return -ENOMEM;
        cs->loop = l;
        cs->dir = -1;
        cs->state_dir = strdup(state_dir ? state_dir : "");
        if (!cs->state_dir) {
                free(cs);
                return -ENOMEM;
        }
        TAILQ_INIT(&cs->files);
        TAILQ_INIT(&cs->users);
        TAILQ_INIT(&cs->writes);
        int r = state_dir ? capsules_open_dir(state_dir, &cs->dir) : 0;
        cs->is_incomplete = r < 0 && r != -ENOENT;
        if (r < 0)
                log_warning("no capsules are kept: %s/capsules: %s", state_dir, strerror(-r));
        else if (state_dir)
                capsules_scan(cs);
        *ret = cs;
        return 0;
}

/* ---- writing one ---- */

static void capsule_write_end(struct capsule_write *w) {
        struct capsules *cs = w->owner;
        loop_poll_stop(&w->sync);
        if (w->fd >= 0)
                close(w->fd);
        unlinkat(cs->dir, w->name, 0); /* it has another name by now, or is not whole */
        TAILQ_REMOVE(&cs->writes, w, link);
        cs->n_writes--;
        free(w->file);
        free(w);
}

struct capsules *capsules_free(struct capsules *cs) {
        struct capsule_file *f;
        struct capsule_write *w;
        if (!cs)
                return NULL;
        while ((w = TAILQ_FIRST(&cs->writes)))
                capsule_write_end(w);
        while ((f = TAILQ_FIRST(&cs->files)))
                capsules_forget(cs, f);
        loop_poll_stop(&cs->dir_sync);
        if (cs->dir >= 0)
                close(cs->dir);
        free(cs->state_dir);
        free(cs);
        return NULL;
}

static void capsules_on_dir_synced(struct loop_poll *p, uint32_t revents) {
        if (revents)
                log_warning("capsules: their directory cannot be synced to the disk");
}

static void capsule_write_on_synced(struct loop_poll *p, uint32_t revents) {
        struct capsule_write *w = p->user;
        struct capsules *cs = w->owner;
        struct capsule_file *f = w->file, *old;
        char name[96];
        capsule_name(f->pool, f->id, name, sizeof(name));
        if (revents || renameat(cs->dir, w->name, cs->dir, name) < 0) {
                log_warning("pool %s: the capsule of job %llu cannot be kept", f->pool, (unsigned long long)f->id);
        } else {
                if ((old = capsules_find(cs, f->pool, f->id)))
                        capsules_forget(cs, old);
                if (capsules_insert(cs, f) < 0) { /* found again by the next daemon */
                        capsule_write_end(w);
                        return;
                }
                w->file = NULL;
                log_notice("pool %s: job %llu is kept as a capsule: drover-worker --replay %llu --state-dir=%s",
                           f->pool, (unsigned long long)f->id, (unsigned long long)f->id, cs->state_dir);
                capsules_make_room(cs, f->pool, w->n_kept);
                if (!cs->dir_sync.slot)
                        loop_sync_start(cs->loop, &cs->dir_sync, cs->dir, capsules_on_dir_synced, cs);
        }
        capsule_write_end(w);
}

static int capsule_write_all(int fd, const char *data, size_t bytes) {
        for (size_t n = 0; n < bytes;) {
                ssize_t wrote = write(fd, data + n, bytes - n);
                if (wrote <= 0)
                        return wrote < 0 ? -errno : -EIO;
                n += (size_t)wrote;
        }
        return 0;
}

static int capsules_write(struct capsules *cs, const struct capsule *c, uint32_t n_kept) {
        size_t bytes;
        void *data;
        int r = capsule_encode(c, &data, &bytes);
        if (r < 0)
                return r;
        struct capsule_write *w = calloc(1, sizeof(*w));
        struct capsule_file *f = calloc(1, sizeof(*f));
        if (!w || !f) {
                free(w);
                free(f);
                free(data);
                return -ENOMEM;
        }
        *f = (struct capsule_file){
                .uid = c->uid, .id = c->id, .bytes = bytes, .when_ns = (int64_t)c->created_us * 1000, .copy_fd = -1};
        memcpy(f->pool, c->pool, sizeof(f->pool));
        *w = (struct capsule_write){.owner = cs, .file = f, .n_kept = n_kept, .fd = -1};
        snprintf(w->name, sizeof(w->name), ".new-%llu", (unsigned long long)++cs->n_written);
        TAILQ_INSERT_TAIL(&cs->writes, w, link);
        cs->n_writes++;
        w->fd = openat(cs->dir, w->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        r = w->fd < 0 ? -errno : capsule_write_all(w->fd, data, bytes);
        free(data);
        if (r >= 0)
                r = loop_sync_start(cs->loop, &w->sync, w->fd, capsule_write_on_synced, w);
        if (r < 0)
                capsule_write_end(w);
        return r;
}

/* ---- drafts ---- */

struct capsule_draft {
        struct capsule capsule;
        const char *missing; /* why there will be none; NULL: there will */
        char payload[];
};

static uint64_t capsule_now_us(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

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
                .syscall = line->syscall,
                .attempt = slot_attempt(job->word),
                .realtime_us = c->created_us,
        };
        death_take_fault(&last, w);
        capsule_add_attempt(c, &last);
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
        if (p->supervisor->capsules->dir < 0 || p->config.n_capsules == 0 || job->channel->is_dead || !type)
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
        c->created_us = capsule_now_us();
        c->uid = worker_job_uid(job);
        c->hard_ns = verdict == SLOT_TIMED_OUT ? w->hard_ns : 0;
        snprintf(c->state, sizeof(c->state), "%s", words_slot_state(verdict));
        snprintf(c->pool, sizeof(c->pool), "%s", p->config.name);
        snprintf(c->plugin, sizeof(c->plugin), "%s", p->config.plugin);
        snprintf(c->plugin_dir, sizeof(c->plugin_dir), "%s", p->supervisor->plugin_dir);
        snprintf(c->build_id, sizeof(c->build_id), "%s", w->build_id);
        snprintf(c->job, sizeof(c->job), "%s", type->name);
        snprintf(c->log, sizeof(c->log), "%s", worker_output_last(w));
        capsule_add_attempts(c, w, job, line);
        return d;
}

struct capsule_draft *capsules_discard(struct capsule_draft *d) {
        free(d);
        return NULL;
}

/* Half of what is written at a time is for others. */
static bool capsules_may_write(const struct capsules *cs, uid_t uid) {
        const struct capsule_write *w;
        unsigned n = 0;
        TAILQ_FOREACH(w, &cs->writes, link)
        n += w->file->uid == uid;
        return cs->n_writes < CAPSULES_MAX_WRITES && n < CAPSULES_MAX_WRITES / 2;
}

void capsules_keep(struct pool *p, struct capsule_draft *d) {
        struct capsules *cs = p->supervisor->capsules;
        if (!d)
                return;
        if (d->missing) {
                log_notice("pool %s: job %llu leaves no capsule: %s", p->config.name, (unsigned long long)d->capsule.id,
                           d->missing);
                free(d);
                return;
        }
        int r = capsules_may_write(cs, d->capsule.uid) ? capsules_write(cs, &d->capsule, p->config.n_capsules) : -EBUSY;
        if (r < 0)
                log_warning("pool %s: no capsule of job %llu is kept: %s", p->config.name,
                            (unsigned long long)d->capsule.id, strerror(-r));
        free(d);
}

/* ---- reading ---- */

bool capsules_last_numbers(const struct capsules *cs, uint64_t ret[NUMBERS_N_KINDS]) {
        memcpy(ret, cs->last, sizeof(cs->last));
        return !cs->is_incomplete;
}

static int capsules_copy(struct capsules *cs, struct capsule_file *f) {
        struct capsule_file *oldest;
        struct capsule c = {0};
        char name[96];
        if (f->copy_fd >= 0)
                return 0;
        capsule_name(f->pool, f->id, name, sizeof(name));
        int fd = openat(cs->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        int r = fd < 0 ? -errno : capsule_load(fd, &c);
        if (r >= 0)
                r = sealed_create("drover-capsule", c.buffer, c.buffer_bytes, &f->copy_fd);
        if (r >= 0) {
                f->copy_uid = c.uid;
                cs->n_copies++;
        }
        capsule_deinit(&c);
        if (fd >= 0)
                close(fd);
        for (oldest = TAILQ_FIRST(&cs->files); cs->n_copies > CAPSULES_MAX_COPIES; oldest = TAILQ_NEXT(oldest, link))
                if (oldest != f)
                        capsules_drop_copy(cs, oldest);
        return r;
}

int capsules_open(struct capsules *cs, uint64_t id, uid_t uid, bool is_root, int *ret_fd) {
        struct capsule_file *f;
        int r = -ENOENT;
        TAILQ_FOREACH(f, &cs->files, link) {
                if (f->id != id || (!is_root && f->uid != uid))
                        continue;
                int e = capsules_copy(cs, f);
                if (e >= 0 && (is_root || f->copy_uid == uid))
                        return segment_open(f->copy_fd, false, ret_fd);
                if (e < 0)
                        r = e;
        }
        return r;
}
