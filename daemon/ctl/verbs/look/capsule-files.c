/* Where droverctl finds capsules: through the bus, or in a directory.
 *
 * The daemon on the bus knows which ones it keeps, wherever that is, and gives everybody his own. Only --state-dir= is
 * read as a directory: which daemon's it is nobody can tell from its place. It needs no daemon, and then nothing else
 * is asked. Names and bytes in it are taken for anybody's. */
#include "daemon/ctl/verbs/look/capsule-files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/terminal.h"
#include "daemon/ctl/verbs/look/view.h"

enum { MAX_FILES = 65536 };

static int load(int fd, const char *name, struct capsule *ret) {
        int r = capsule_load(fd, ret);
        if (r >= 0)
                return CTL_OK;
        if (r == -ENOMEM)
                return ctl_no_memory();
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(name, strlen(name));
        ctl_error("%s: %s", plain ? plain : "?",
                  r == -EPROTONOSUPPORT ? "a capsule of another release, which this one cannot read"
                  : r == -EFBIG         ? "not a capsule: too large, or no regular file"
                  : r == -EPROTO        ? "not a capsule, or a damaged one"
                                        : strerror(-r));
        return CTL_USAGE;
}

static int load_file(const char *path, struct capsule *ret) {
        ctl_cleanup(ctl_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0)
                return load(fd, path, ret);
        int error = errno;
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(path, strlen(path));
        ctl_error("%s: %s", plain ? plain : "?", strerror(error));
        return CTL_USAGE;
}

/* ---- the directory ---- */

struct search {
        const char *pool; /* NULL = any */
        uint64_t id;      /* 0 = any */
        int (*on_capsule)(const struct capsule *capsule, void *user);
        void *user;
        int code; /* CTL_OK, CTL_USAGE if one was passed over */
};

static int look_at(int dir, const char *name, struct search *s) {
        struct capsule capsule;
        char pool[72];
        uint64_t id;
        if (*name == '.' || !capsule_parse_name(name, pool, &id) || (s->id && s->id != id) ||
            (s->pool && strcmp(s->pool, pool) != 0))
                return CTL_OK;
        ctl_cleanup(ctl_closep) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
        if (fd < 0 && errno == ENOENT) /* just went */
                return CTL_OK;
        if (fd < 0) {
                ctl_cleanup(ctl_freep) char *plain = terminal_plain(name, strlen(name));
                ctl_error("%s: %s", plain ? plain : "?", strerror(errno));
                s->code = CTL_USAGE;
                return CTL_OK;
        }
        if (load(fd, name, &capsule) != CTL_OK) {
                s->code = CTL_USAGE;
                return CTL_OK;
        }
        int code = CTL_OK;
        if (capsule.id == id && strcmp(capsule.pool, pool) == 0)
                code = s->on_capsule(&capsule, s->user);
        else {
                ctl_cleanup(ctl_freep) char *plain = terminal_plain(name, strlen(name));
                ctl_error("%s: the capsule of another job than its name says", plain ? plain : "?");
                s->code = CTL_USAGE;
        }
        capsule_deinit(&capsule);
        return code;
}

static int no_dir(const char *path, int error) {
        ctl_error("%s: %s", path, strerror(error));
        return CTL_USAGE;
}

/* CTL_OK or an exit code, said. */
static int search_dir(const char *state_dir, struct search *s) {
        ctl_cleanup(ctl_freep) char *path = NULL;
        const struct dirent *e;
        int code = CTL_OK;
        if (asprintf(&path, "%s/capsules", state_dir) < 0)
                return ctl_no_memory();
        DIR *d = opendir(path);
        if (!d)
                return no_dir(path, errno);
        for (unsigned i = 0; i < MAX_FILES && code == CTL_OK; i++) {
                errno = 0;
                e = readdir(d);
                if (!e) {
                        code = errno ? no_dir(path, errno) : CTL_OK;
                        break;
                }
                code = look_at(dirfd(d), e->d_name, s);
        }
        closedir(d);
        return code;
}

/* ---- the bus ---- */

/* Without a daemon its files can still be read, by who knows where they are. */
static void advise_dir(const struct ctl *c) {
        char state[256];
        capsule_state_dir(c->scope == CTL_SCOPE_USER || (c->scope != CTL_SCOPE_SYSTEM && geteuid() != 0), state,
                          sizeof state);
        ctl_error("without a daemon, --state-dir=DIR reads what one left in DIR (usually %s)", state);
}

static int connect_bus(struct ctl *c) {
        if (c->remote || remote_open(&c->remote, c->scope, c->address) >= 0)
                return CTL_OK;
        advise_dir(c);
        return CTL_UNREACHABLE;
}

static int report(struct ctl *c, int error) {
        int code = remote_report(c->remote, error);
        if (code == CTL_UNREACHABLE)
                advise_dir(c);
        return code;
}

/* 0, or -errno for remote_report. */
static int ask(struct ctl *c, uint64_t id, int *ret_fd) {
        char path[64];
        const struct remote_call get = {.path = path, .interface = "Job", .member = "GetCapsule"};
        snprintf(path, sizeof path, REMOTE_MANAGER "/job/%" PRIu64, id);
        return remote_call_fd(c->remote, &get, ret_fd);
}

static int ask_for(struct ctl *c, uint64_t id, struct search *s) {
        ctl_cleanup(ctl_closep) int fd = -1;
        struct capsule capsule;
        char name[32];
        int r = ask(c, id, &fd);
        if (r < 0 && strcmp(remote_error_name(c->remote), "NoSuchJob") == 0) /* just went */
                return CTL_OK;
        if (r < 0) { /* one that is damaged, or too many are read: the others may be had */
                int code = report(c, r);
                s->code = CTL_USAGE;
                return code == CTL_REFUSED ? CTL_OK : code;
        }
        snprintf(name, sizeof name, "job %" PRIu64, id);
        if (load(fd, name, &capsule) != CTL_OK) {
                s->code = CTL_USAGE;
                return CTL_OK;
        }
        int code = s->on_capsule(&capsule, s->user);
        capsule_deinit(&capsule);
        return code;
}

static int search_bus(struct ctl *c, struct search *s) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListCapsules"};
        ctl_cleanup(json_putp) struct json_object *rows = NULL;
        int code = connect_bus(c);
        if (code != CTL_OK)
                return code;
        int r = remote_call(c->remote, &list, &rows, "su", s->pool ? s->pool : "", (uint32_t)0);
        if (r < 0)
                return report(c, r);
        if (json_length(rows) == 0 && s->pool) /* one that is gone may have some */
                return view_check_pool(c, s->pool);
        for (size_t i = 0; code == CTL_OK && i < json_length(rows); i++)
                code = ask_for(c, json_number(json_at(rows, i), "id"), s);
        return code;
}

/* ---- both ---- */

int capsule_files_each(struct ctl *c, const char *pool, int (*on_capsule)(const struct capsule *, void *), void *user) {
        struct search s = {.pool = pool, .on_capsule = on_capsule, .user = user};
        int code = c->state_dir ? search_dir(c->state_dir, &s) : search_bus(c, &s);
        return code == CTL_OK ? s.code : code;
}

/* The newest, if pools of the same number have one each. */
static int keep_newest(const struct capsule *capsule, void *user) {
        struct capsule *kept = user, copy = *capsule;
        if (kept->buffer && kept->created_us >= capsule->created_us)
                return CTL_OK;
        copy.buffer = malloc(capsule->buffer_bytes);
        if (!copy.buffer)
                return ctl_no_memory();
        memcpy(copy.buffer, capsule->buffer, capsule->buffer_bytes);
        copy.payload = (char *)copy.buffer + ((const char *)capsule->payload - (const char *)capsule->buffer);
        capsule_deinit(kept);
        *kept = copy;
        return CTL_OK;
}

static int find_on_bus(struct ctl *c, uint64_t id, struct capsule *ret) {
        ctl_cleanup(ctl_closep) int fd = -1;
        char name[32];
        int code = connect_bus(c);
        if (code != CTL_OK)
                return code;
        int r = ask(c, id, &fd);
        snprintf(name, sizeof name, "job %" PRIu64, id);
        return r < 0 ? report(c, r) : load(fd, name, ret);
}

bool capsule_files_look(struct ctl *c, uint64_t id, struct capsule *ret) {
        ctl_cleanup(ctl_closep) int fd = -1;
        return ask(c, id, &fd) >= 0 && capsule_load(fd, ret) >= 0;
}

static int find(struct ctl *c, uint64_t id, struct capsule *ret) {
        struct capsule found = {0};
        struct search s = {.id = id, .on_capsule = keep_newest, .user = &found};
        if (!c->state_dir)
                return find_on_bus(c, id, ret);
        int code = search_dir(c->state_dir, &s);
        if (found.buffer && code == CTL_OK) {
                *ret = found;
                return CTL_OK;
        }
        capsule_deinit(&found);
        if (code != CTL_OK || s.code != CTL_OK)
                return code != CTL_OK ? code : s.code;
        ctl_error("there is no capsule of job %" PRIu64 " in %s/capsules", id, c->state_dir);
        return CTL_REFUSED;
}

int capsule_files_get(struct ctl *c, const char *what, struct capsule *ret) {
        if (!*what || what[strspn(what, "0123456789")] != 0)
                return load_file(what, ret);
        errno = 0;
        uint64_t id = strtoull(what, NULL, 10);
        if (!errno && id != 0)
                return find(c, id, ret);
        ctl_error("%s %s: jobs have numbers from 1, of 64 bits", c->verb->name, what);
        return CTL_USAGE;
}
