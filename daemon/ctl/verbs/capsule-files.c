/* Where droverctl finds capsules: in the directory where droverd keeps them, or through the bus.
 *
 * --state-dir= says the directory and then nothing else is asked. Without it the usual one of droverd serves who may
 * read it (the daemon's user), and needs no daemon. When nothing is there, or with --address= (whose daemon may keep
 * its files anywhere), the bus is asked, which gives everybody his own: of the jobs whose verdicts are still kept that
 * ended badly, and, by number, of any job. Names and bytes in the directory are taken for anybody's. */
#include "daemon/ctl/verbs/capsule-files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/ctl/terminal.h"
#include "daemon/ctl/verbs/job.h"

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

int capsule_files_load(const char *path, struct capsule *ret) {
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
        unsigned n_found;
        int code; /* CTL_OK, CTL_USAGE if one was passed over */
};

/* "" = there is none to look into. */
static void find_dir(const struct ctl *c, char *path, size_t bytes) {
        char state[256];
        *path = 0;
        if (!c->state_dir && c->scope == CTL_SCOPE_ADDRESS)
                return;
        capsule_state_dir(c->scope == CTL_SCOPE_USER || (c->scope == CTL_SCOPE_AUTO && geteuid() != 0), state,
                          sizeof state);
        int n = snprintf(path, bytes, "%s/capsules", c->state_dir ? c->state_dir : state);
        if (n < 0 || (size_t)n >= bytes)
                *path = 0;
}

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
        s->n_found++;
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

/* CTL_OK, an exit code, said, or -errno: the directory cannot be read. */
static int search_dir(const char *path, struct search *s) {
        const struct dirent *e;
        DIR *d = *path ? opendir(path) : NULL;
        int code = CTL_OK;
        if (!d)
                return *path ? -errno : -ENOENT;
        for (unsigned i = 0; i < MAX_FILES && code == CTL_OK; i++) {
                errno = 0;
                e = readdir(d);
                if (!e) {
                        code = -errno;
                        break;
                }
                code = look_at(dirfd(d), e->d_name, s);
        }
        closedir(d);
        return code;
}

/* ---- the bus ---- */

static int connect_bus(struct ctl *c) {
        return c->remote || remote_open(&c->remote, c->scope, c->address) >= 0 ? CTL_OK : CTL_UNREACHABLE;
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
        if (r < 0 && strcmp(remote_error_name(c->remote), "NoSuchJob") == 0)
                return CTL_OK;
        if (r < 0)
                return remote_report(c->remote, r);
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
        ctl_cleanup(json_putp) struct json_object *jobs = json_object_new_array();
        int code = connect_bus(c);
        struct ctl list = *c;
        list.state = "poisoned,lost,timed-out";
        list.n_lines = 0;
        if (code == CTL_OK)
                code = list_jobs_gather(&list, jobs);
        for (size_t i = 0; code == CTL_OK && i < json_object_array_length(jobs); i++)
                code = ask_for(c, json_number(json_object_array_get_idx(jobs, i), "id"), s);
        return code;
}

/* ---- both ---- */

/* It is not for us, or there is none: the bus may know more. Any other failure is one to tell. */
static bool may_ask_bus(const struct ctl *c, int error) {
        return !c->state_dir && (error == -ENOENT || error == -ENOTDIR || error == -EACCES);
}

static int no_dir(const char *path, int error) {
        ctl_error("%s: %s", path, strerror(-error));
        return CTL_USAGE;
}

int capsule_files_each(struct ctl *c, const char *pool, int (*on_capsule)(const struct capsule *, void *), void *user) {
        struct search s = {.pool = pool, .on_capsule = on_capsule, .user = user};
        char path[512];
        find_dir(c, path, sizeof path);
        int code = search_dir(path, &s);
        if (code < 0 && !may_ask_bus(c, code))
                return no_dir(path, code);
        if (code < 0 || (code == CTL_OK && s.n_found == 0 && !c->state_dir))
                code = search_bus(c, &s);
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
        return r < 0 ? remote_report(c->remote, r) : load(fd, name, ret);
}

int capsule_files_find(struct ctl *c, uint64_t id, struct capsule *ret) {
        struct capsule found = {0};
        struct search s = {.id = id, .on_capsule = keep_newest, .user = &found};
        char path[512];
        find_dir(c, path, sizeof path);
        int code = search_dir(path, &s);
        if (found.buffer && code == CTL_OK) {
                *ret = found;
                return CTL_OK;
        }
        capsule_deinit(&found);
        if (code > CTL_OK || s.code != CTL_OK)
                return code > CTL_OK ? code : s.code;
        if (code < 0 && !may_ask_bus(c, code))
                return no_dir(path, code);
        if (!c->state_dir)
                return find_on_bus(c, id, ret);
        ctl_error("there is no capsule of job %" PRIu64 " in %s", id, path);
        return CTL_REFUSED;
}
