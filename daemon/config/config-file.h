/* Reading one unit-style file, and finding the files of a kind in several directories. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* 0, or -errno: the reading stops there and config_file_read returns it. */
typedef int (*config_setting_fn)(void *user, const char *path, unsigned line, const char *section, const char *key,
                                 const char *value);

/* Calls fn for each setting. -EINVAL with "FILE:LINE: …" for what is not an INI file (a line over the parser's limit,
 * not UTF-8 …), -errno with "FILE: …" if it cannot be read to its end; -ENOENT only if there is nothing of that name,
 * or was not a moment ago. */
int config_file_read(const char *path, config_setting_fn fn, void *user, char *error, size_t error_bytes);

/* From now on the path that is being read stands there, for who wants to know why it takes so long. */
void config_file_show_path(char *where, size_t bytes);

struct config_list {
        char **paths; /* sorted by base name */
        size_t n;
        char error[512]; /* "PATH: …" when it could not be made: the rest is of no use then */
};

/* Files DIR/subdir/…suffix of all directories, lowest priority first: of one base name the last directory's counts, and
 * a link to /dev/null removes it. A directory that is not there counts as empty; one that cannot be read is -errno,
 * -ENOENT if it came only now. */
int config_list_find(char *const *dirs, unsigned n_dirs, const char *subdir, const char *suffix,
                     struct config_list *ret);
/* DIR/name of the last directory that has it; none if none has or that one is a link to /dev/null. -errno if that
 * cannot be told. */
int config_find_last(char *const *dirs, unsigned n_dirs, const char *name, struct config_list *ret);
void config_list_free(struct config_list *l);
const char *config_base_name(const char *path);
/* A link to /dev/null, or that itself. */
bool config_is_masked(const char *path);
