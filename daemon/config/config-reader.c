/* Owns the readings of the configuration.
 *
 * One at a time, in a process of its own (helper.h); what it found comes back in a memory file, whose first page tells
 * all the while which path it is at. Whoever asks meanwhile waits for a reading of his own. One that takes longer than
 * HELPER_PATIENCE_NS fails for all who wait, with that path; until the process that hangs there ends, and nobody can
 * end it but the disk, others fail at once. What it finds after all is thrown away. */
#include "daemon/config/config-reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config/config-file.h"
#include "daemon/log/log.h"
#include "daemon/loop/helper.h"
#include "ipc/memory/event.h"

struct config_question {
        config_read_fn fn;
        void *user;
        TAILQ_ENTRY(config_question) link;
};

/* The memory file. */
struct config_found {
        char path[400]; /* cut, if need be */
        struct daemon_config daemon;
        size_t n_pools;
        struct pool_file pools[];
};

struct config_order {
        enum log_level level;
        unsigned n_dirs;
        char dirs[HELPER_MAX_ORDER - 2 * sizeof(unsigned)]; /* one after the other, each with its end */
};

struct config_reader {
        struct loop *loop;
        const struct config_paths *paths;
        struct helper_call call;
        int fd;                     /* of the reading under way */
        struct config_found *found; /* its first part */
        bool is_stuck;
        char stuck_at[400];
        uint64_t begun_ns;
        TAILQ_HEAD(, config_question) questions; /* the first one's reading is under way */
};

/* ---- in the other process ---- */

static void config_unpack(struct config_order *o, struct config_paths *ret) {
        char *dir = o->dirs;
        *ret = (struct config_paths){.n_config_dirs = o->n_dirs};
        for (unsigned i = 0; i < o->n_dirs; i++, dir += strlen(dir) + 1)
                ret->config_dirs[i] = dir;
}

static int config_store(int fd, const struct config_files *f) {
        size_t bytes = sizeof(struct config_found) + f->n_pools * sizeof(*f->pools);
        if (ftruncate(fd, (off_t)bytes) < 0)
                return -errno;
        struct config_found *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (found == MAP_FAILED)
                return -errno;
        found->daemon = f->daemon;
        found->n_pools = f->n_pools;
        memcpy(found->pools, f->pools, f->n_pools * sizeof(*f->pools));
        munmap(found, bytes);
        return 0;
}

static void config_read(const void *order, int fd, struct helper_answer *ret) {
        struct config_order o = *(const struct config_order *)order;
        struct config_paths paths;
        struct config_files files;
        struct config_found *found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (found == MAP_FAILED) {
                *ret = (struct helper_answer){.error = -errno, .fd = -1, .text = "out of memory"};
                return;
        }
        log_open("droverd", o.level);
        config_file_show_path(found->path, sizeof(found->path));
        config_unpack(&o, &paths);
        ret->error = config_load(&paths, &files, ret->text, sizeof(ret->text));
        config_file_show_path(NULL, 0);
        munmap(found, sizeof(*found));
        if (ret->error < 0)
                return;
        ret->error = config_store(fd, &files);
        if (ret->error < 0)
                strcpy(ret->text, "out of memory");
        config_files_deinit(&files);
}

/* ---- beginning ---- */

static int config_pack(const struct config_paths *p, struct config_order *ret) {
        size_t n = 0;
        ret->level = log_get_level();
        ret->n_dirs = p->n_config_dirs;
        for (unsigned i = 0; i < p->n_config_dirs; i++) {
                size_t bytes = strlen(p->config_dirs[i]) + 1;
                if (bytes > sizeof(ret->dirs) - n)
                        return -ENAMETOOLONG;
                memcpy(ret->dirs + n, p->config_dirs[i], bytes);
                n += bytes;
        }
        return 0;
}

static int config_make_room(struct config_reader *r) {
        r->fd = memfd_create("drover-config", MFD_CLOEXEC);
        if (r->fd < 0)
                return -errno;
        int e = ftruncate(r->fd, sizeof(*r->found)) < 0 ? -errno : 0;
        void *found = e < 0 ? NULL : mmap(NULL, sizeof(*r->found), PROT_READ, MAP_SHARED, r->fd, 0);
        if (found == MAP_FAILED)
                e = -errno;
        if (e < 0) {
                close(r->fd);
                return e;
        }
        r->found = found;
        return 0;
}

static void config_let_go(struct config_reader *r) {
        if (r->found) {
                munmap(r->found, sizeof(*r->found));
                close(r->fd);
        }
        r->found = NULL;
        r->is_stuck = false;
}

static void config_tell(struct config_reader *r, const struct config_files *files, int error, const char *text) {
        struct config_question q = *TAILQ_FIRST(&r->questions), *first = TAILQ_FIRST(&r->questions);
        TAILQ_REMOVE(&r->questions, first, link);
        free(first);
        q.fn(q.user, files, error, text);
}

static void config_next(struct config_reader *r) {
        struct config_order o;
        while (!TAILQ_EMPTY(&r->questions) && !r->found) {
                int e = config_pack(r->paths, &o);
                if (e >= 0)
                        e = config_make_room(r);
                if (e >= 0) {
                        r->begun_ns = event_now_ns();
                        e = helper_begin(&r->call, r->loop, config_read, &o, sizeof(o), r->fd);
                        if (e < 0)
                                config_let_go(r);
                }
                if (e < 0)
                        config_tell(r, NULL, e, "no process that reads the configuration");
        }
}

/* ---- what came of it ---- */

static int config_take(struct config_reader *r) {
        struct stat st;
        if (fstat(r->fd, &st) < 0)
                return -errno;
        struct config_found *found = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, r->fd, 0);
        if (found == MAP_FAILED)
                return -errno;
        struct config_files files = {.daemon = found->daemon, .pools = found->pools, .n_pools = found->n_pools};
        config_let_go(r);
        config_tell(r, &files, 0, "");
        munmap(found, (size_t)st.st_size);
        return 0;
}

static void config_on_answer(struct helper_call *c, const struct helper_answer *a) {
        struct config_reader *r = c->user;
        int e = a->error;
        if (r->is_stuck) {
                log_notice("%s answers again, after %llu s: reload to read the configuration", r->stuck_at,
                           (unsigned long long)((event_now_ns() - r->begun_ns) / 1000000000));
                config_let_go(r);
        } else if (e < 0 || (e = config_take(r)) < 0) {
                config_let_go(r);
                config_tell(r, NULL, e, a->error < 0 ? a->text : "out of memory");
        }
        config_next(r);
}

static void config_describe_stuck(const struct config_reader *r, char text[static 512]) {
        snprintf(text, 512, "%s: no answer, for %llu s: the disk or server that it lies on hangs", r->stuck_at,
                 (unsigned long long)((event_now_ns() - r->begun_ns) / 1000000000));
}

static void config_on_late(struct helper_call *c) {
        struct config_reader *r = c->user;
        char text[512];
        r->is_stuck = true;
        snprintf(r->stuck_at, sizeof(r->stuck_at), "%s", r->found->path);
        config_describe_stuck(r, text);
        while (!TAILQ_EMPTY(&r->questions))
                config_tell(r, NULL, -ETIMEDOUT, text);
}

/* ---- the calls ---- */

void config_reader_ask(struct config_reader *r, config_read_fn fn, void *user) {
        struct config_question *q;
        char text[512];
        if (r->is_stuck) {
                config_describe_stuck(r, text);
                fn(user, NULL, -ETIMEDOUT, text);
                return;
        }
        q = calloc(1, sizeof(*q));
        if (!q) {
                fn(user, NULL, -ENOMEM, "out of memory");
                return;
        }
        *q = (struct config_question){.fn = fn, .user = user};
        TAILQ_INSERT_TAIL(&r->questions, q, link);
        config_next(r);
}

void config_reader_wait(struct config_reader *r) {
        if (!helper_wait(&r->call, r->begun_ns + HELPER_PATIENCE_NS))
                config_on_late(&r->call);
}

int config_reader_new(struct config_reader **ret, struct loop *l, const struct config_paths *p) {
        struct config_reader *r = calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        *r = (struct config_reader){
                .loop = l,
                .paths = p,
                .call = {.on_answer = config_on_answer, .on_late = config_on_late, .user = r},
        };
        TAILQ_INIT(&r->questions);
        *ret = r;
        return 0;
}

struct config_reader *config_reader_free(struct config_reader *r) {
        if (!r)
                return NULL;
        helper_forget(&r->call);
        while (!TAILQ_EMPTY(&r->questions))
                config_tell(r, NULL, -ESHUTDOWN, "droverd is shutting down");
        config_let_go(r);
        free(r);
        return NULL;
}
