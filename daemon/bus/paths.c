/* Object paths and the objects behind them, and the errors that name what was looked for. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/peers/peer.h"

/* Letters and digits as they are, the rest as _XX: what sd_bus_path_encode does, without its allocation. */
void bus_pool_path(const char *name, char ret[static BUS_MAX_PATH]) {
        char *p = stpcpy(ret, BUS_POOLS "/");

        for (size_t i = 0; name[i]; i++) {
                if ((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
                    (i > 0 && name[i] >= '0' && name[i] <= '9'))
                        *p++ = name[i];
                else
                        p += sprintf(p, "_%02x", (unsigned char)name[i]);
        }
        *p = '\0';
}

void bus_worker_path(uint64_t id, char ret[static BUS_MAX_PATH]) { sprintf(ret, BUS_WORKERS "/%" PRIu64, id); }

void bus_job_path(uint64_t id, char ret[static BUS_MAX_PATH]) { sprintf(ret, BUS_JOBS "/%" PRIu64, id); }

int bus_path_add(char ***paths, size_t *n, const char *path) {
        char **more = reallocarray(*paths, *n + 2, sizeof(*more)), *copy = strdup(path);

        if (more) {
                *paths = more;
                more[*n] = copy;
                more[*n + 1] = NULL;
        }
        if (more && copy) {
                (*n)++;
                return 0;
        }
        if (!more)
                free(copy);
        for (size_t i = 0; i < *n; i++)
                free((*paths)[i]);
        free(*paths);
        *paths = NULL;
        return -ENOMEM;
}

struct pool *bus_pool_at(struct bus *b, const char *path) {
        char *name = NULL;
        struct pool *p = NULL;

        if (sd_bus_path_decode(path, BUS_POOLS, &name) > 0)
                p = supervisor_find_pool(b->supervisor, name);
        free(name);
        return p;
}

/* The one spelling of a number: no sign, no leading zero. */
int bus_parse_id(const char *path, const char *prefix, uint64_t *ret) {
        size_t n = strlen(prefix);
        uint64_t id = 0;
        const char *p;

        if (strncmp(path, prefix, n) != 0 || path[n] != '/' || path[n + 1] == '0' || path[n + 1] == '\0')
                return -EINVAL;
        for (p = path + n + 1; *p; p++)
                if (*p < '0' || *p > '9' || __builtin_mul_overflow(id, 10, &id) ||
                    __builtin_add_overflow(id, (uint64_t)(*p - '0'), &id))
                        return -EINVAL;
        *ret = id;
        return 0;
}

struct worker *bus_worker_at(struct bus *b, const char *path) {
        uint64_t id;

        return bus_parse_id(path, BUS_WORKERS, &id) < 0 ? NULL : supervisor_find_worker(b->supervisor, id);
}

int bus_find_pool(struct bus *b, const char *name, struct pool **ret, sd_bus_error *e) {
        struct fault f = {.code = FAULT_NO_SUCH_POOL};
        size_t n;

        *ret = supervisor_find_pool(b->supervisor, name);
        if (*ret)
                return 0;
        n = (size_t)snprintf(f.text, sizeof(f.text), "no pool is named \"%.80s\"; there %s", name,
                             supervisor_next_pool(b->supervisor, NULL) ? "are: " : "is none");
        for (struct pool *p = supervisor_next_pool(b->supervisor, NULL); p;
             p = supervisor_next_pool(b->supervisor, p)) {
                const char *other = pool_get_config(p)->name;
                if (n + strlen(other) + sizeof(", …") >= sizeof(f.text)) {
                        strcpy(f.text + n, "…");
                        break;
                }
                n += (size_t)sprintf(f.text + n, "%s%s", f.text[n - 1] == ' ' ? "" : ", ", other);
        }
        return bus_error_from_fault(e, &f);
}

int bus_find_pool_at(struct bus *b, const char *path, struct pool **ret, sd_bus_error *e) {
        char *name = NULL;
        int r;

        *ret = NULL;
        if (strcmp(path, BUS_POOLS) == 0 || sd_bus_path_decode(path, BUS_POOLS, &name) <= 0)
                return 0;
        r = bus_find_pool(b, name, ret, e);
        free(name);
        return r < 0 ? r : 1;
}

void bus_job_get_info(const struct bus_job *j, struct job_info *ret) {
        if (j->job)
                job_get_info(j->job, ret);
        else
                session_job_get_info(&j->session, ret);
}

static int bus_say_evicted(const struct job_evicted *gone, sd_bus_error *e) {
        if (gone->bytes > 0)
                return sd_bus_error_setf(e, "org.drover1.Error.ResultExpired",
                                         "the result of job %" PRIu64 ", %" PRIu64 " bytes, was not kept: all that is "
                                         "kept of a uid is %d bytes; %s",
                                         gone->id, gone->bytes, JOBS_MAX_KEPT_BYTES_OF_UID,
                                         gone->is_raw ? "Run hands over a larger one at once, and so does a channel"
                                                      : "a channel hands over a larger one");
        return sd_bus_error_setf(e, "org.drover1.Error.ResultExpired",
                                 "the result of job %" PRIu64 " was dropped before ResultTTL= was over: too many "
                                 "finished jobs, or too large ones, were kept",
                                 gone->id);
}

int bus_find_job(struct bus *b, const struct bus_peer *peer, uint64_t id, struct bus_job *ret, sd_bus_error *e) {
        const struct job_evicted *gone;
        struct job_info info;

        *ret = (struct bus_job){.job = supervisor_find_job(b->supervisor, id)};
        if (ret->job || supervisor_find_session_job(b->supervisor, id, &ret->session)) {
                bus_job_get_info(ret, &info);
                if (peer_may_see(peer, info.uid))
                        return 0;
        } else if ((gone = supervisor_find_evicted(b->supervisor, id)) && peer_may_see(peer, gone->uid)) {
                return bus_say_evicted(gone, e);
        }
        return sd_bus_error_setf(
                e, "org.drover1.Error.NoSuchJob",
                "there is no job %" PRIu64 " of yours: never submitted, or finished longer than ResultTTL= ago", id);
}
