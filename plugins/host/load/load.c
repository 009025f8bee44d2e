/* Gets the plugin into memory. Owns dlopen, dlsym and the step from "what the plugin declares, in the sizes of the ABI
 * it was built against" to "struct plugin, in the sizes of this host".
 *
 * Invariants: nothing is loaded before its metadata was read and found good; the plugin is opened by one name,
 * /proc/self/fd/4, once (dlopen caches by name, so that number is never used for anything else); its text is read from
 * the plugin's memory once, validated, and copied. What the plugin declares is checked as strictly as a message from a
 * peer: by then its code has run in this process, but the schema travels on to the broker.
 *
 * It never closes a plugin: threads, atexit handlers and thread-local storage would dangle. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "ipc/values/args.h"
#include "ipc/wire.h"
#include "plugins/host/load/load.h"
#include "plugins/host/sandbox/sandbox.h"

__attribute__((format(printf, 4, 5))) static int load_fail(char *error, size_t error_bytes, int number,
                                                           const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(error, error_bytes, format, ap);
        va_end(ap);
        return -number;
}

int load_metadata(struct plugin *p, int fd, char *error, size_t error_bytes) {
        const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & wanted) != wanted || fstat(fd, &st) < 0 || st.st_size <= 0)
                return load_fail(error, error_bytes, EBADF, "the plugin file is not a sealed memory file");

        void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file == MAP_FAILED)
                return load_fail(error, error_bytes, errno, "the plugin file cannot be mapped: %s",
                                 strerrordesc_np(errno));
        char why[256];
        int r = metadata_read(file, (size_t)st.st_size, &p->metadata, why, sizeof why);
        munmap(file, (size_t)st.st_size);
        if (r < 0)
                return load_fail(error, error_bytes, -r, "the plugin %s", why);
        r = metadata_check(&p->metadata, why, sizeof why);
        if (r < 0)
                return load_fail(error, error_bytes, -r, "plugin %s %s", p->metadata.name, why);
        return 0;
}

int load_needed(struct plugin *p, int (*on_loaded)(void *user, const char *soname, char *error, size_t error_bytes),
                void *user, char *error, size_t error_bytes) {
        for (unsigned i = 0; i < p->metadata.n_needed; i++) {
                const char *soname = p->metadata.needed[i];
                if (!dlopen(soname, RTLD_NOW | RTLD_LOCAL))
                        return load_fail(error, error_bytes, ELIBACC, "plugin %s needs %s, which cannot be loaded: %s",
                                         p->metadata.name, soname, dlerror());
                int r = on_loaded ? on_loaded(user, soname, error, error_bytes) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- what the plugin declares ---- */

/* Copies a 0-terminated text of the plugin. An absent one counts as "". */
static bool copy_text(char *ret, size_t ret_bytes, const char *text) {
        if (!text)
                text = "";
        size_t n = strnlen(text, ret_bytes);
        if (n == ret_bytes || !args_is_utf8(text, n))
                return false;
        for (size_t i = 0; i < n; i++)
                if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
                        return false;
        memcpy(ret, text, n);
        ret[n] = 0;
        return true;
}

static bool is_name(const char *s) {
        if (!*s || strchr("0123456789.-", *s))
                return false;
        return s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")] == 0;
}

static int copy_job(struct plugin *p, uint32_t i, char *error, size_t error_bytes) {
        const struct drover_job_type *job = &p->jobs[i];
        struct schema_job *s = &p->schema_jobs[i];
        const char *name = p->metadata.name;
        if (!copy_text(s->name, sizeof s->name, job->name) || !is_name(s->name))
                return load_fail(error, error_bytes, EINVAL, "plugin %s: job type %u has no valid name", name, i);
        for (uint32_t k = 0; k < i; k++)
                if (strcmp(p->schema_jobs[k].name, s->name) == 0)
                        return load_fail(error, error_bytes, EINVAL, "plugin %s declares job type %s twice", name,
                                         s->name);
        if (!job->handle)
                return load_fail(error, error_bytes, EINVAL, "plugin %s: job type %s has no handler", name, s->name);

        const struct {
                const char *what, *signature;
                struct schema_fields *ret;
        } sides[] = {{"args", job->args ? job->args : "", &s->args},
                     {"result", job->result ? job->result : "", &s->result}};
        for (unsigned k = 0; k < 2; k++) {
                char why[160];
                if (schema_parse_fields(sides[k].signature, sides[k].ret, why, sizeof why) < 0)
                        return load_fail(error, error_bytes, EINVAL, "plugin %s: %s of job type %s: %s", name,
                                         sides[k].what, s->name, why);
        }

        const uint32_t known = DROVER_MODEL_PROCESS | DROVER_MODEL_THREADS | DROVER_MODEL_FIBERS;
        s->models = job->models ? job->models & known : DROVER_MODEL_PROCESS;
        s->is_once = job->flags & DROVER_ONCE;
        s->result.is_result = true;
        if (!copy_text(s->help, sizeof s->help, job->help))
                return load_fail(error, error_bytes, EINVAL,
                                 "plugin %s: the help of job type %s is not one line of at most 255 bytes of UTF-8",
                                 name, s->name);
        s->number = p->numbers[i] = schema_number(s);
        for (uint32_t k = 0; k < i; k++)
                if (p->numbers[k] == s->number)
                        return load_fail(error, error_bytes, EINVAL,
                                         "plugin %s: job types %s and %s happen to have the same number: rename one",
                                         name, p->schema_jobs[k].name, s->name);
        return 0;
}

/* What is older than this stands at the end of the struct; no release ever had less. */
static const size_t oldest_plugin = offsetof(struct drover_plugin, get_extension) + sizeof(void *);
static const size_t oldest_job = offsetof(struct drover_job_type, flags) + sizeof(uint32_t);

static int copy_declared(struct plugin *p, const struct drover_plugin *theirs, char *error, size_t error_bytes) {
        const char *name = p->metadata.name;
        struct drover_plugin *d = &p->declared;
        uint32_t size = theirs->struct_size;
        if (size < oldest_plugin)
                return load_fail(error, error_bytes, EINVAL, "plugin %s: struct drover_plugin of %u bytes is too small",
                                 name, size);
        memcpy(d, theirs, size < sizeof *d ? size : sizeof *d);
        if (d->abi_major != p->metadata.abi_major || d->job_size < oldest_job || d->job_size > 4096)
                return load_fail(error, error_bytes, EINVAL, "plugin %s does not declare what its .drover.info says",
                                 name);
        if (d->n_jobs == 0 || d->n_jobs > SCHEMA_MAX_TYPES || !d->jobs)
                return load_fail(error, error_bytes, EINVAL, "plugin %s declares %u job types: 1 to %d are possible",
                                 name, d->n_jobs, SCHEMA_MAX_TYPES);

        for (uint32_t i = 0; i < d->n_jobs; i++) {
                const char *job = (const char *)d->jobs + (size_t)i * d->job_size;
                memcpy(&p->jobs[i], job, d->job_size < sizeof p->jobs[i] ? d->job_size : sizeof p->jobs[i]);
                int r = copy_job(p, i, error, error_bytes);
                if (r < 0)
                        return r;
        }
        if (!copy_text(p->schema.plugin, sizeof p->schema.plugin, d->name) ||
            !copy_text(p->schema.version, sizeof p->schema.version, d->version) || strcmp(p->schema.plugin, name) != 0)
                return load_fail(error, error_bytes, EINVAL, "plugin %s calls itself something else once it is loaded",
                                 name);
        p->schema.n_jobs = d->n_jobs;
        p->schema.jobs = p->schema_jobs;
        return 0;
}

int load_plugin(struct plugin *p, const struct drover_host *table, char *error, size_t error_bytes) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", WIRE_PLUGIN_FD);
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle)
                return load_fail(error, error_bytes, ELIBBAD, "plugin %s cannot be loaded: %s", p->metadata.name,
                                 dlerror());

        const struct drover_plugin *(*entry)(const struct drover_host *);
        *(void **)&entry = dlsym(handle, "drover_plugin_entry");
        if (!entry)
                return load_fail(error, error_bytes, ELIBBAD, "plugin %s does not export drover_plugin_entry",
                                 p->metadata.name);
        const struct drover_plugin *theirs = entry(table);
        if (!theirs)
                return load_fail(error, error_bytes, ENOTSUP, "plugin %s refuses this host (ABI %d.%d)",
                                 p->metadata.name, DROVER_ABI_MAJOR, DROVER_ABI_NEWEST_MINOR);
        return copy_declared(p, theirs, error, error_bytes);
}
