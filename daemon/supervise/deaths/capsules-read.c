/* The copies that others get of capsules.
 *
 * A capsule has one, a sealed memory file, however often it is asked for; who asks for it gets a description of his
 * own. It is made by another process (capsules-disk.h), which may hang with its disk: then whoever asked is told so,
 * and its place is taken until it ends. There are CAPSULES_MAX_READS of them, half of them for one uid, and
 * CAPSULES_MAX_COPIES copies at a time: those of the oldest capsules go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/supervise/deaths/capsules-internal.h"
#include "ipc/memory/segment.h"

enum { CAPSULES_MAX_READS = 16, CAPSULES_MAX_COPIES = 64 };

void capsules_drop_copy(struct capsules *cs, struct capsule_file *f) {
        if (f->copy_fd < 0)
                return;
        close(f->copy_fd);
        f->copy_fd = -1;
        cs->n_copies--;
}

static void capsules_answer_read(struct capsule_read *r, int error, int fd) {
        capsules_open_fn fn = r->fn;
        r->fn = NULL;
        if (fn)
                fn(r->user, error, fd);
        else if (fd >= 0)
                close(fd);
}

static void capsules_end_read(struct capsule_read *r, int error, int fd) {
        TAILQ_REMOVE(&r->owner->reads, r, link);
        r->owner->n_reads--;
        helper_forget(&r->call);
        capsules_answer_read(r, error, fd);
        free(r);
}

/* It is kept, and another one that came meanwhile is dropped. */
static void capsules_keep_copy(struct capsules *cs, struct capsule_file *f, int fd, uid_t uid) {
        struct capsule_file *oldest;
        if (f->copy_fd >= 0) {
                close(fd);
                return;
        }
        f->copy_fd = fd;
        f->copy_uid = uid;
        cs->n_copies++;
        for (oldest = TAILQ_FIRST(&cs->files); cs->n_copies > CAPSULES_MAX_COPIES; oldest = TAILQ_NEXT(oldest, link))
                if (oldest != f)
                        capsules_drop_copy(cs, oldest);
}

/* A description of its own, for reading. */
static int capsules_open_copy(const struct capsule_file *f, uid_t uid, bool is_root, int *ret_fd) {
        return is_root || f->copy_uid == uid ? segment_open(f->copy_fd, false, ret_fd) : -ENOENT;
}

static void capsules_on_read(struct helper_call *c, const struct helper_answer *a) {
        struct capsule_read *r = c->user;
        struct capsule_file *f = capsules_find(r->owner, r->pool, r->id);
        int fd = -1, e = a->error;
        if (e >= 0 && !f) { /* it went meanwhile */
                close(a->fd);
                e = -ENOENT;
        }
        if (e >= 0) {
                capsules_keep_copy(r->owner, f, a->fd, (uid_t)strtoul(a->text, NULL, 10));
                e = capsules_open_copy(f, r->uid, r->is_root, &fd);
        }
        capsules_end_read(r, e, fd);
}

static void capsules_on_read_late(struct helper_call *c) { capsules_answer_read(c->user, -ETIMEDOUT, -1); }

static bool capsules_may_read(const struct capsules *cs, uid_t uid, bool is_root) {
        const struct capsule_read *r;
        unsigned n = 0;
        TAILQ_FOREACH(r, &cs->reads, link)
                n += r->uid == uid;
        return cs->n_reads < CAPSULES_MAX_READS && (is_root || n < CAPSULES_MAX_READS / 2);
}

/* The newest, if pools had jobs of the same number. */
static struct capsule_file *capsules_find_theirs(const struct capsules *cs, uint64_t id, uid_t uid, bool is_root) {
        struct capsule_file *f, *found = NULL;
        TAILQ_FOREACH(f, &cs->files, link)
                if (f->id == id && (is_root || f->uid == uid))
                        found = f;
        return found;
}

static void capsules_begin_read(struct capsules *cs, const struct capsule_file *f, struct capsule_read *r) {
        struct capsule_order o;
        char name[96];
        capsule_name(f->pool, f->id, name, sizeof(name));
        capsules_fill_order(cs, name, &o);
        TAILQ_INSERT_TAIL(&cs->reads, r, link);
        cs->n_reads++;
        int e = helper_begin(&r->call, cs->loop, capsules_disk_read, &o, sizeof(o), -1);
        if (e < 0)
                capsules_end_read(r, e, -1);
}

void capsules_open(struct capsules *cs, uint64_t id, uid_t uid, bool is_root, capsules_open_fn fn, void *user) {
        struct capsule_file *f = capsules_find_theirs(cs, id, uid, is_root);
        struct capsule_read *r;
        int fd = -1, e = f ? 0 : -ENOENT;
        if (f && f->copy_fd >= 0)
                e = capsules_open_copy(f, uid, is_root, &fd);
        else if (f && !capsules_may_read(cs, uid, is_root))
                e = -EBUSY;
        else if (f && (r = calloc(1, sizeof(*r)))) {
                *r = (struct capsule_read){
                        .owner = cs, .uid = uid, .is_root = is_root, .id = id, .fn = fn, .user = user};
                memcpy(r->pool, f->pool, sizeof(r->pool));
                r->call = (struct helper_call){
                        .on_answer = capsules_on_read, .on_late = capsules_on_read_late, .user = r};
                capsules_begin_read(cs, f, r);
                return;
        } else if (f)
                e = -ENOMEM;
        fn(user, e, fd);
}

void capsules_end_reads(struct capsules *cs) {
        struct capsule_read *r;
        while ((r = TAILQ_FIRST(&cs->reads)))
                capsules_end_read(r, -ESHUTDOWN, -1);
}
