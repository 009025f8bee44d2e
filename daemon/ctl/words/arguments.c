/* KEY=VALUE words and input lines as the arguments of a job.
 *
 * ipc/args judges names, types and ranges; this file only cuts words and checks the finished map, so a command line and
 * a line of map's input are wrong in the same words. Files are read for the command line only: a line of input comes
 * from who knows where. Holds nothing between calls. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/words/arguments.h"
#include "ipc/values/args.h"

/* Writes "WHAT: WHY" or WHY alone. */
static int say(char *error, const char *what, const char *why, int code) {
        snprintf(error, ARGUMENTS_MAX_ERROR, "%s%s%s", what ? what : "", what ? ": " : "", why);
        return code;
}

static int say_too_large(char *error, const char *what, size_t capacity) {
        snprintf(error, ARGUMENTS_MAX_ERROR, "%s: does not fit into a slot of %zu bytes", what, capacity);
        return -EMSGSIZE;
}

/* NAME=@FILE: the bytes of FILE. */
static int put_file(struct args_writer *w, const char *name, const char *path, char *error) {
        size_t room = w->capacity + 1, bytes = 0;
        char *data = malloc(room);
        FILE *f = fopen(path, "re");
        int r;

        if (data && f)
                bytes = fread(data, 1, room, f);
        if (!data || !f || ferror(f))
                r = say(error, path, strerror(errno), -EINVAL);
        else if (bytes == room)
                r = say_too_large(error, path, w->capacity);
        else
                r = args_put(w, name, &(struct args_value){.type = SCHEMA_BYTES, .data = data, .bytes = bytes});
        if (f)
                fclose(f);
        free(data);
        return r;
}

void arguments_close(struct arguments_fds *fds) {
        while (fds->n_fds > 0)
                close(fds->fds[--fds->n_fds]);
}

/* NAME=<FILE, NAME=>FILE: the file itself. */
static int put_open_file(struct args_writer *w, const char *name, const char *word, struct arguments_fds *fds,
                         char *error) {
        int flags = word[0] == '<' ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, fd;

        if (word[0] != '<' && word[0] != '>')
                return say(error, name, "a descriptor is <FILE or >FILE", -EINVAL);
        if (fds->n_fds == SCHEMA_MAX_FDS)
                return say(error, name, "stands twice", -EINVAL);
        fd = open(word + 1, flags | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd < 0)
                return say(error, word + 1, strerror(errno), -EINVAL);
        fds->fds[fds->n_fds] = fd;
        return args_put(w, name, &(struct args_value){.type = SCHEMA_FD, .u64 = fds->n_fds++});
}

/* `fds` NULL: no files. */
static int put_word(struct args_writer *w, const struct schema_fields *f, char *word, struct arguments_fds *fds,
                    char *error) {
        char *equals = strchr(word, '=');
        const struct schema_field *field;
        int r;

        if (!equals)
                return say(error, word, "not KEY=VALUE", -EINVAL);
        *equals = 0;
        field = schema_find_field(f, word);
        if (fds && field && field->type == SCHEMA_FD)
                r = put_open_file(w, field->name, equals + 1, fds, error);
        else if (fds && equals[1] == '@' && field && field->type == SCHEMA_BYTES && !field->is_array)
                r = put_file(w, field->name, equals + 2, error);
        else
                r = args_put_text(w, f, word, equals + 1, error, ARGUMENTS_MAX_ERROR);
        *equals = '=';
        return r;
}

static int finish(struct args_writer *w, const struct schema_fields *f, size_t *ret_bytes, char *error) {
        size_t bytes;
        int r = args_finish(w, &bytes);

        if (r == -EMSGSIZE)
                return say_too_large(error, "the arguments", w->capacity);
        if (r < 0)
                return say(error, NULL, strerror(-r), r);
        r = args_check(f, w->buffer, bytes, error, ARGUMENTS_MAX_ERROR);
        if (r < 0)
                return r;
        *ret_bytes = bytes;
        return 0;
}

static int copy_raw(const char *text, size_t bytes, void *buffer, size_t capacity, size_t *ret_bytes, char *error) {
        if (bytes > capacity)
                return say_too_large(error, "the payload", capacity);
        memcpy(buffer, text, bytes);
        *ret_bytes = bytes;
        return 0;
}

int arguments_from_words(const struct schema_fields *f, char *const *words, int n_words, void *buffer, size_t capacity,
                         size_t *ret_bytes, struct arguments_fds *fds, char *error) {
        struct args_writer w;

        *error = 0;
        if (f->is_raw) {
                if (n_words == 0)
                        return copy_raw("", 0, buffer, capacity, ret_bytes, error);
                if (n_words > 1 || strncmp(words[0], "payload=", 8) != 0)
                        return say(error, words[n_words - 1], "a raw job takes payload=TEXT only, or --input", -EINVAL);
                return copy_raw(words[0] + 8, strlen(words[0] + 8), buffer, capacity, ret_bytes, error);
        }
        args_writer_init(&w, buffer, capacity);
        for (int i = 0; i < n_words; i++) {
                int r = put_word(&w, f, words[i], fds, error);

                if (r < 0)
                        return r;
        }
        return finish(&w, f, ret_bytes, error);
}

/* Cuts the next word off *line in place, quotes taken away. NULL: no more. */
static char *next_word(char **line) {
        char *from = *line + strspn(*line, " \t"), *to = from, *word = from;
        bool is_quoted = false;

        if (*from == 0)
                return NULL;
        for (; *from && (is_quoted || (*from != ' ' && *from != '\t')); from++) {
                if (*from == '"') {
                        is_quoted = !is_quoted;
                        continue;
                }
                if (is_quoted && *from == '\\' && from[1])
                        from++;
                *to++ = *from;
        }
        *line = *from ? from + 1 : from;
        *to = 0;
        return word;
}

int arguments_from_line(const struct schema_fields *f, const char *name, char *line, size_t line_bytes, void *buffer,
                        size_t capacity, size_t *ret_bytes, char *error) {
        struct args_writer w;
        char *word;
        int r = 0;

        *error = 0;
        if (f->is_raw)
                return copy_raw(line, line_bytes, buffer, capacity, ret_bytes, error);
        if (strlen(line) != line_bytes)
                return say(error, NULL, "the line holds a zero byte", -EINVAL);
        if (!name && f->n_fields == 1)
                name = f->field[0].name;
        args_writer_init(&w, buffer, capacity);
        if (name)
                r = args_put_text(&w, f, name, line, error, ARGUMENTS_MAX_ERROR);
        else
                while (r >= 0 && (word = next_word(&line)))
                        r = put_word(&w, f, word, NULL, error);
        return r < 0 ? r : finish(&w, f, ret_bytes, error);
}
