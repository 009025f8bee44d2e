/* Owns STATE/capsules: one file a job, POOL.ID, whole or absent, for our eyes only (0700, 0600); others get a copy of
 * theirs from us, in memory, after a look at the uid in it. Not the file: who has a descriptor of it can keep it locked
 * for as long as he likes (a read of it, past the page cache, into a mapping of a file that hangs), and whoever removes
 * it or renames another one over it waits for that.
 *
 * Here stands which files there are and who may have them; what is done to the files is done by other processes
 * (capsules-disk.h), since their disk may not answer. Writing and removing are one queue, one piece of work at a time,
 * so that their order is ours; reading is not kept waiting by that. What waits for a disk is bounded: 256 capsules or
 * 16 MiB to be written, 16 that are read, of one uid half of each; files are removed only for one that was written. A
 * pool keeps Capsules= of them, all pools together 64 MiB: the oldest go of the uid that has most there, so that nobody
 * pushes others' out. A job that was queued again and killed again has one capsule, the newest. */
#include "daemon/supervise/deaths/capsules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log/log.h"
#include "daemon/supervise/deaths/capsules-disk.h"
#include "daemon/supervise/deaths/capsules-internal.h"
#include "daemon/supervise/sorted.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/values/capsule.h"

#define CAPSULES_MAX_BYTES (UINT64_C(64) << 20)
enum {
        CAPSULES_MAX_WRITES = 256,
        CAPSULES_MAX_WRITE_BYTES = 16 << 20,
        CAPSULES_MAX_READS = 16,
        CAPSULES_MAX_COPIES = 64
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

static struct capsule_work *capsules_add_work(struct capsules *cs);

/* Without memory for it the file stays, until the next daemon finds it. */
static void capsules_remove(struct capsules *cs, struct capsule_file *f) {
        struct capsule_work *w = capsules_add_work(cs);
        if (w)
                capsule_name(f->pool, f->id, w->name, sizeof(w->name));
        capsules_forget(cs, f);
}

static int capsules_insert(struct capsules *cs, struct capsule_file *f) {
        f->user = capsules_get_user(cs, f->uid);
        if (!f->user)
                return -ENOMEM;
        f->user->n_files++;
        f->user->n_bytes += f->bytes;
        SORTED_INSERT(&cs->files, capsule_files, f, when_ns, link);
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

struct capsule_file *capsules_find(const struct capsules *cs, const char *pool, uint64_t id) {
        struct capsule_file *f;
        TAILQ_FOREACH(f, &cs->files, link)
                if (f->id == id && strcmp(f->pool, pool) == 0)
                        return f;
        return NULL;
}

bool capsules_has(const struct capsules *cs, const char *pool, uint64_t id) { return capsules_find(cs, pool, id); }

/* ---- the queue ---- */

static struct capsule_work *capsules_add_work(struct capsules *cs) {
        struct capsule_work *w = calloc(1, sizeof(*w));
        if (!w)
                return NULL;
        TAILQ_INSERT_TAIL(&cs->works, w, link);
        return w;
}

static void capsules_end_work(struct capsules *cs, struct capsule_work *w) {
        TAILQ_REMOVE(&cs->works, w, link);
        free(w->data);
        free(w->file);
        free(w);
}

static void capsules_written(struct capsules *cs, struct capsule_work *w, const struct helper_answer *a) {
        struct capsule_file *f = w->file, *old;
        if (a->error < 0) {
                log_warning("pool %s: the capsule of job %llu cannot be kept: %s", f->pool, (unsigned long long)f->id,
                            strerror(-a->error));
                return;
        }
        if (a->text[0])
                log_warning("%s: %s", cs->dir, a->text);
        if ((old = capsules_find(cs, f->pool, f->id)))
                capsules_forget(cs, old);
        if (capsules_insert(cs, f) < 0) /* found again by the next daemon */
                return;
        w->file = NULL;
        log_notice("pool %s: job %llu is kept as a capsule: drover-worker --replay %llu --state-dir=%s", f->pool,
                   (unsigned long long)f->id, (unsigned long long)f->id, cs->state_dir);
        capsules_make_room(cs, f->pool, w->n_kept);
}

static void capsules_on_late(struct helper_call *c) {
        struct capsules *cs = c->user;
        if (cs->is_stuck)
                return;
        cs->is_stuck = true;
        log_warning("%s: its disk or server does not answer: capsules wait, or are not kept", cs->dir);
}

static void capsules_heard(struct capsules *cs) {
        if (cs->is_stuck)
                log_notice("%s answers again", cs->dir);
        cs->is_stuck = false;
}

static void capsules_go_on(struct capsules *cs);

static void capsules_on_done(struct helper_call *c, const struct helper_answer *a) {
        struct capsules *cs = c->user;
        struct capsule_work *w = TAILQ_FIRST(&cs->works);
        capsules_heard(cs);
        if (w->file)
                capsules_written(cs, w, a);
        capsules_end_work(cs, w);
        capsules_go_on(cs);
}

void capsules_fill_order(const struct capsules *cs, const char *name, struct capsule_order *ret) {
        *ret = (struct capsule_order){0};
        strcpy(ret->dir, cs->dir);
        strcpy(ret->name, name);
}

static int capsules_store(const void *data, size_t bytes, int *ret_fd) {
        int fd = memfd_create("drover-capsule", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = write(fd, data, bytes);
        if (n != (ssize_t)bytes) {
                int r = n < 0 ? -errno : -ENOMEM;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

static int capsules_begin_work(struct capsules *cs, const struct capsule_work *w) {
        struct capsule_order o;
        int fd = -1, r = w->file ? capsules_store(w->data, w->file->bytes, &fd) : 0;
        if (r < 0)
                return r;
        capsules_fill_order(cs, w->name, &o);
        strcpy(o.part, w->part);
        cs->call.on_answer = capsules_on_done;
        r = helper_begin(&cs->call, cs->loop, w->file ? capsules_disk_write : capsules_disk_remove, &o, sizeof(o), fd);
        if (fd >= 0)
                close(fd);
        return r;
}

/* What has its answer at once is no reason to go deeper. */
static void capsules_go_on(struct capsules *cs) {
        struct capsule_work *w;
        if (cs->is_going_on)
                return;
        cs->is_going_on = true;
        while ((w = TAILQ_FIRST(&cs->works)) && !cs->call.is_busy) {
                int r = capsules_begin_work(cs, w);
                if (r < 0)
                        capsules_on_done(&cs->call, &(struct helper_answer){.error = r, .fd = -1});
        }
        cs->is_going_on = false;
}

/* ---- writing one ---- */

static int capsules_write(struct capsules *cs, const struct capsule *c, uint32_t n_kept) {
        size_t bytes;
        void *data;
        int r = capsule_encode(c, &data, &bytes);
        if (r < 0)
                return r;
        struct capsule_file *f = calloc(1, sizeof(*f));
        struct capsule_work *w = f ? capsules_add_work(cs) : NULL;
        if (!w) {
                free(data);
                free(f);
                return -ENOMEM;
        }
        *f = (struct capsule_file){
                .uid = c->uid, .id = c->id, .bytes = bytes, .when_ns = (int64_t)c->created_us * 1000, .copy_fd = -1};
        memcpy(f->pool, c->pool, sizeof(f->pool));
        w->file = f;
        w->n_kept = n_kept;
        w->data = data;
        capsule_name(f->pool, f->id, w->name, sizeof(w->name));
        snprintf(w->part, sizeof(w->part), ".new-%llu", (unsigned long long)++cs->n_written);
        capsules_go_on(cs);
        return 0;
}

/* ---- the first and the last ---- */

static void capsules_take(struct capsules *cs, const struct capsules_found *found, size_t bytes) {
        size_t n = (bytes - sizeof(*found)) / sizeof(found->files[0]);
        memcpy(cs->last, found->last, sizeof(cs->last));
        cs->is_incomplete = found->incomplete != 0;
        if (cs->is_incomplete)
                log_warning("%s cannot be read to its end: %s: numbers of jobs begin from the clock, so that none is "
                            "used twice",
                            cs->dir, strerror(found->incomplete));
        for (size_t i = 0; i < n && i < found->n_files; i++) {
                const struct capsule_found *from = &found->files[i];
                struct capsule_file *f = malloc(sizeof(*f));
                if (!f)
                        return;
                *f = (struct capsule_file){.uid = from->uid,
                                           .id = from->id,
                                           .bytes = from->bytes,
                                           .when_ns = from->when_ns,
                                           .copy_fd = -1};
                memcpy(f->pool, from->pool, sizeof(f->pool));
                if (capsules_insert(cs, f) < 0)
                        free(f);
        }
}

static int capsules_map(struct capsules *cs) {
        struct stat st;
        if (fstat(cs->scan_fd, &st) < 0)
                return -errno;
        if (st.st_size < (off_t)sizeof(struct capsules_found))
                return -EIO;
        void *found = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, cs->scan_fd, 0);
        if (found == MAP_FAILED)
                return -errno;
        capsules_take(cs, found, (size_t)st.st_size);
        munmap(found, (size_t)st.st_size);
        return 0;
}

static void capsules_on_scanned(struct helper_call *c, const struct helper_answer *a) {
        struct capsules *cs = c->user;
        int r = a->error < 0 ? a->error : capsules_map(cs);
        close(cs->scan_fd);
        cs->scan_fd = -1;
        capsules_heard(cs);
        cs->is_open = r >= 0;
        if (r < 0) {
                log_warning("no capsules are kept: %s: %s", cs->dir, strerror(-r));
                cs->is_incomplete = r != -ENOENT;
        }
}

static int capsules_scan(struct capsules *cs, uint64_t deadline_ns) {
        struct capsule_order o;
        cs->scan_fd = memfd_create("drover-capsules", MFD_CLOEXEC);
        if (cs->scan_fd < 0)
                return -errno;
        cs->is_incomplete = true;
        capsules_fill_order(cs, "", &o);
        int r = helper_begin(&cs->call, cs->loop, capsules_disk_scan, &o, sizeof(o), cs->scan_fd);
        if (r >= 0 && !helper_wait(&cs->call, deadline_ns))
                capsules_on_late(&cs->call);
        return r;
}

int capsules_new(struct capsules **ret, struct loop *l, const char *state_dir, uint64_t deadline_ns) {
        struct capsules *cs = calloc(1, sizeof(*cs));
        if (!cs)
                return -ENOMEM;
        *cs = (struct capsules){.loop = l, .scan_fd = -1};
        cs->call = (struct helper_call){.on_answer = capsules_on_scanned, .on_late = capsules_on_late, .user = cs};
        TAILQ_INIT(&cs->files);
        TAILQ_INIT(&cs->users);
        TAILQ_INIT(&cs->works);
        TAILQ_INIT(&cs->reads);
        int r = 0;
        if (state_dir && (!(cs->state_dir = strdup(state_dir)) || asprintf(&cs->dir, "%s/capsules", state_dir) < 0))
                r = -ENOMEM;
        else if (cs->dir && strlen(cs->dir) >= CAPSULES_MAX_PATH)
                r = -ENAMETOOLONG;
        else if (cs->dir)
                r = capsules_scan(cs, deadline_ns);
        if (r < 0)
                capsules_free(cs, deadline_ns);
        else
                *ret = cs;
        return r;
}

struct capsules *capsules_free(struct capsules *cs, uint64_t deadline_ns) {
        struct capsule_file *f;
        struct capsule_work *w;
        if (!cs)
                return NULL;
        while (cs->call.is_busy && helper_wait(&cs->call, deadline_ns))
                ;
        helper_forget(&cs->call);
        if (cs->scan_fd >= 0)
                close(cs->scan_fd);
        capsules_end_reads(cs);
        while ((w = TAILQ_FIRST(&cs->works)))
                capsules_end_work(cs, w);
        while ((f = TAILQ_FIRST(&cs->files)))
                capsules_forget(cs, f);
        free(cs->state_dir);
        free(cs->dir);
        free(cs);
        return NULL;
}

/* ---- what is kept ---- */

/* Half of what waits to be written is for others. */
static bool capsules_may_write(const struct capsules *cs, const struct capsule *c) {
        const struct capsule_work *w;
        uint64_t n = 0, n_theirs = 0, bytes = c->payload_bytes, bytes_theirs = c->payload_bytes;
        TAILQ_FOREACH(w, &cs->works, link)
                if (w->file) {
                        bool is_theirs = w->file->uid == c->uid;
                        n++;
                        bytes += w->file->bytes;
                        n_theirs += is_theirs;
                        bytes_theirs += is_theirs ? w->file->bytes : 0;
                }
        return n < CAPSULES_MAX_WRITES && n_theirs < CAPSULES_MAX_WRITES / 2 && bytes <= CAPSULES_MAX_WRITE_BYTES &&
               bytes_theirs <= CAPSULES_MAX_WRITE_BYTES / 2;
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
        int r = capsules_may_write(cs, &d->capsule) ? capsules_write(cs, &d->capsule, p->config.n_capsules) : -EBUSY;
        if (r < 0)
                log_warning("pool %s: no capsule of job %llu is kept: %s", p->config.name,
                            (unsigned long long)d->capsule.id, strerror(-r));
        free(d);
}

/* ---- reading ---- */

bool capsules_are_kept(const struct capsules *cs) { return cs->is_open; }

bool capsules_last_numbers(const struct capsules *cs, uint64_t ret[NUMBERS_N_KINDS]) {
        memcpy(ret, cs->last, sizeof(cs->last));
        return !cs->is_incomplete;
}

size_t capsules_list(const struct capsules *cs, const struct capsule_filter *filter, struct capsule_row *ret,
                     size_t n) {
        const struct capsule_file *f;
        size_t n_found = 0;
        TAILQ_FOREACH_REVERSE(f, &cs->files, capsule_files, link)
                if ((filter->sees_all || f->uid == filter->viewer) &&
                    (!filter->pool || strcmp(f->pool, filter->pool) == 0)) {
                        if (n_found == n)
                                break;
                        ret[n_found++] = (struct capsule_row){.id = f->id,
                                                              .bytes = f->bytes,
                                                              .created_us = (uint64_t)f->when_ns / 1000,
                                                              .uid = f->uid,
                                                              .pool = f->pool};
                }
        return n_found;
}
