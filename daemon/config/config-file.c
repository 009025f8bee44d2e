/* One configuration file through libinih, and the search for files.
 *
 * Debian's libinih tells no line numbers and silently cuts lines at a length that can be set, so it reads through a
 * reader of ours that counts lines and ends the parse at the first line that would be cut; comments are of any length.
 * The same reader keeps out what could not be repeated in a message on the bus: bytes that are not UTF-8. And it takes
 * blanks off a line's start, which say nothing here: libinih would take the line for a part of the value above. Only
 * regular files are opened, never waited for, and no more than MAX_FILE bytes are read of one, whatever its size is
 * said to be.
 *
 * Nothing that is there and cannot be read counts as missing: what we do not know is not "no pools". So a name is
 * missing only if lstat says so (is_absent); every other failure, also one in the middle of a file or folder, is an
 * error with its path. A link that leads nowhere is there. */
#include "daemon/config/config-file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "ipc/values/args.h"

enum { MAX_LINE = 4096, MAX_FILE = 1 << 20, MAX_FILES = 4096 };

struct reading {
        FILE *file;
        const char *path;
        unsigned line;
        size_t n_bytes;
        int error;            /* the file could not be read to its end: -errno */
        const char *bad_line; /* what is wrong with the line at which the reader gave up */
        config_setting_fn fn;
        void *user;
        int result;
};

static struct {
        char *text;
        size_t bytes;
} shown;

void config_file_show_path(char *where, size_t bytes) {
        shown.text = where;
        shown.bytes = bytes;
}

static void show_path(const char *path) {
        if (shown.text)
                snprintf(shown.text, shown.bytes, "%s", path);
}

static int read_char(struct reading *r) {
        int c = getc_unlocked(r->file);

        if (c == EOF && ferror(r->file))
                r->error = errno ? -errno : -EIO;
        else if (c != EOF && ++r->n_bytes > MAX_FILE)
                r->error = -EFBIG;
        return r->error ? EOF : c;
}

/* libinih's reader: one line without blanks at its start, of a comment nothing. */
static char *read_line(char *line, int bytes, void *user) {
        struct reading *r = user;
        bool is_comment = false;
        int c, n = 0;

        if (r->bad_line || r->error < 0 || r->result < 0)
                return NULL;
        while ((c = read_char(r)) != EOF && c != '\n') {
                if (n == 0 && (c == ' ' || c == '\t'))
                        continue;
                is_comment |= n == 0 && (c == '#' || c == ';');
                if (!is_comment && (n == MAX_LINE || n + 1 >= bytes)) {
                        r->line++;
                        r->bad_line = "a line of more than 4096 bytes";
                        return NULL;
                }
                if (!is_comment)
                        line[n++] = (char)c;
        }
        if (r->error < 0 || (c == EOF && n == 0))
                return NULL;
        line[n] = '\0';
        r->line++;
        if (strlen(line) != (size_t)n)
                r->bad_line = "a line with a zero byte in it";
        else if (!args_is_utf8(line, (size_t)n))
                r->bad_line = "a line that is not UTF-8";
        return r->bad_line ? NULL : line;
}

static int on_setting(void *user, const char *section, const char *name, const char *value) {
        struct reading *r = user;

        if (r->result < 0)
                return 0;
        r->result = r->fn(r->user, r->path, r->line, section, name, value);
        return r->result >= 0;
}

static bool is_absent(const char *path) {
        struct stat st;

        return lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR);
}

static int open_regular(const char *path, FILE **ret) {
        struct stat st;
        int fd, r = 0;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                r = -errno;
        else if (!S_ISREG(st.st_mode))
                r = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
        else if (st.st_size > MAX_FILE)
                r = -EFBIG;
        else if (!(*ret = fdopen(fd, "re")))
                r = -errno;
        if (r < 0)
                close(fd);
        return r;
}

static bool leads_nowhere(const char *link) {
        struct stat st;

        return lstat(link, &st) == 0 && S_ISLNK(st.st_mode);
}

/* -ENOENT stays only if it is gone, or has just come back. */
static int tell_unreadable(const char *path, int error, char *text, size_t text_bytes) {
        const char *why = strerror(-error);

        if (error == -EINVAL)
                why = "not a regular file";
        else if (error == -EFBIG)
                why = "larger than 1 MiB";
        else if (error == -ENOENT && leads_nowhere(path)) {
                error = -ENXIO;
                why = "a link that leads nowhere";
        }
        snprintf(text, text_bytes, "%s: %s", path, why);
        return error;
}

int config_file_read(const char *path, config_setting_fn fn, void *user, char *error, size_t error_bytes) {
        struct reading reading = {.path = path, .fn = fn, .user = user};
        int r;

        show_path(path);
        r = open_regular(path, &reading.file);
        if (r < 0)
                return tell_unreadable(path, r, error, error_bytes);
        ini_max_line = MAX_LINE + 3;
        ini_allow_inline_comments = false; /* unit files have none */
        r = ini_parse_stream(read_line, &reading, on_setting, &reading);
        fclose(reading.file);
        if (reading.result < 0)
                return reading.result;
        if (reading.error < 0)
                return tell_unreadable(path, reading.error, error, error_bytes);
        if (r > 0)
                snprintf(error, error_bytes, "%s:%d: neither a [section], a KEY=VALUE nor a comment", path, r);
        else if (reading.bad_line)
                snprintf(error, error_bytes, "%s:%u: %s", path, reading.line, reading.bad_line);
        return r > 0 || reading.bad_line ? -EINVAL : 0;
}

/* ---- search ---- */

const char *config_base_name(const char *path) {
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

void config_list_free(struct config_list *l) {
        for (size_t i = 0; i < l->n; i++)
                free(l->paths[i]);
        free(l->paths);
        *l = (struct config_list){};
}

static int list_fail(struct config_list *l, const char *path, int error) {
        snprintf(l->error, sizeof(l->error), "%s: %s", path, strerror(error));
        return -error;
}

/* Takes `path`; an entry of the same base name gives way. */
static int list_put(struct config_list *l, char *path) {
        char **paths;

        for (size_t i = 0; i < l->n; i++)
                if (strcmp(config_base_name(l->paths[i]), config_base_name(path)) == 0) {
                        free(l->paths[i]);
                        l->paths[i] = path;
                        return 0;
                }
        paths = l->n < MAX_FILES ? reallocarray(l->paths, l->n + 1, sizeof(*paths)) : NULL;
        if (!paths) {
                int r = list_fail(l, path, l->n < MAX_FILES ? ENOMEM : E2BIG);

                free(path);
                return r;
        }
        l->paths = paths;
        l->paths[l->n++] = path;
        return 0;
}

static int list_directory(const char *dir, const char *suffix, struct config_list *l) {
        struct dirent *entry;
        size_t length, suffix_length = strlen(suffix);
        char *path;
        DIR *d;
        int r = 0;

        show_path(dir);
        d = opendir(dir);
        if (!d) {
                r = -errno;
                if (is_absent(dir) || config_is_masked(dir))
                        return 0;
                return tell_unreadable(dir, r, l->error, sizeof(l->error));
        }
        while (r >= 0 && (errno = 0, entry = readdir(d))) {
                length = strlen(entry->d_name);
                if (entry->d_name[0] == '.' || length <= suffix_length ||
                    strcmp(entry->d_name + length - suffix_length, suffix) != 0)
                        continue;
                r = asprintf(&path, "%s/%s", dir, entry->d_name) < 0 ? list_fail(l, dir, ENOMEM) : list_put(l, path);
        }
        if (r >= 0 && errno)
                r = list_fail(l, dir, errno);
        closedir(d);
        return r;
}

/* The link itself counts, too: in a root without /dev it leads nowhere. */
bool config_is_masked(const char *path) {
        char target[sizeof("/dev/null")];
        struct stat st;
        ssize_t n = readlink(path, target, sizeof(target));

        if (n == (ssize_t)strlen("/dev/null") && memcmp(target, "/dev/null", (size_t)n) == 0)
                return true;
        return stat(path, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

int config_find_last(char *const *dirs, unsigned n_dirs, const char *name, struct config_list *ret) {
        struct stat st;
        char *path;

        *ret = (struct config_list){};
        for (unsigned i = n_dirs; i-- > 0;) {
                if (asprintf(&path, "%s/%s", dirs[i], name) < 0)
                        return list_fail(ret, dirs[i], ENOMEM);
                show_path(path);
                int error = lstat(path, &st) < 0 ? errno : 0;
                if (error == 0 && !config_is_masked(path))
                        return list_put(ret, path);
                int r = error == 0 || error == ENOENT || error == ENOTDIR ? 0 : list_fail(ret, path, error);
                free(path);
                if (error == 0 || r < 0)
                        return r;
        }
        return 0;
}

static int compare_base_names(const void *a, const void *b) {
        return strcmp(config_base_name(*(char *const *)a), config_base_name(*(char *const *)b));
}

int config_list_find(char *const *dirs, unsigned n_dirs, const char *subdir, const char *suffix,
                     struct config_list *ret) {
        struct config_list l = {};
        size_t n = 0;
        char *dir;
        int r = 0;

        for (unsigned i = 0; i < n_dirs && r >= 0; i++) {
                if (asprintf(&dir, "%s/%s", dirs[i], subdir) < 0) {
                        r = list_fail(&l, dirs[i], ENOMEM);
                        break;
                }
                r = list_directory(dir, suffix, &l);
                free(dir);
        }
        if (r < 0) {
                memcpy(ret->error, l.error, sizeof(ret->error));
                config_list_free(&l);
                return r;
        }
        for (size_t i = 0; i < l.n; i++) {
                show_path(l.paths[i]);
                if (config_is_masked(l.paths[i]))
                        free(l.paths[i]);
                else
                        l.paths[n++] = l.paths[i];
        }
        l.n = n;
        if (n)
                qsort(l.paths, n, sizeof(*l.paths), compare_base_names);
        *ret = l;
        return 0;
}
