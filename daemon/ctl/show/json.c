/* D-Bus values as json-c objects.
 *
 * Every reply of the daemon becomes one tree, from which --json prints and the tables read: one path for both, so they
 * cannot disagree. The tree keeps the text as it came; whoever shows it to people reads it by json_text and json_plain,
 * so that no job, plugin or file gives orders to a terminal. Numbers keep their 64 bits, text is what the bus delivered
 * (UTF-8 by its rules). Nesting is bounded by D-Bus itself (64 levels). Does not build messages: remote.c does. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "daemon/ctl/show/json.h"
#include "daemon/ctl/show/terminal.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/json.h"
#include "ipc/values/utf8.h"

enum { MAX_FILE = 64 << 20 };

static int value_from_message(sd_bus_message *m, enum json_bytes bytes, struct json_object **ret);

static struct json_object *base64(const uint8_t *p, size_t n) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        ctl_cleanup(ctl_freep) char *text = malloc((n + 2) / 3 * 4 + 1);
        char *t = text;

        if (!text)
                return NULL;
        for (size_t i = 0; i < n; i += 3) {
                uint32_t three = (uint32_t)p[i] << 16 | (i + 1 < n ? p[i + 1] : 0u) << 8 | (i + 2 < n ? p[i + 2] : 0u);

                *t++ = digits[three >> 18];
                *t++ = digits[three >> 12 & 63];
                *t++ = i + 1 < n ? digits[three >> 6 & 63] : '=';
                *t++ = i + 2 < n ? digits[three & 63] : '=';
        }
        return json_object_new_string_len(text, (int)(t - text));
}

/* An integer of any width. */
static int integer_from_message(sd_bus_message *m, char type, struct json_object **ret) {
        static const char types[] = "ynqiuxt", bytes[] = "\1\2\2\4\4\10\10";
        unsigned shift = 64 - 8 * (unsigned)bytes[strchr(types, type) - types];
        uint64_t v = 0;
        int r = sd_bus_message_read_basic(m, type, &v);

        if (r < 0)
                return r;
        if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
                v >>= shift;
        /* To the top and back: the sign fills up. */
        *ret = strchr("nix", type) ? json_object_new_int64((int64_t)(v << shift) >> shift) : json_object_new_uint64(v);
        return *ret ? 0 : -ENOMEM;
}

/* What hangs on a string beside its text, and goes with it. */
struct note {
        char *plain; /* for people */
        int fd;      /* the descriptor it stands for */
        bool is_hex; /* bytes: never quoted */
};

static void free_note(struct json_object *o, void *user) {
        struct note *n = user;

        free(n->plain);
        ctl_closep(&n->fd);
        free(n);
}

static struct note *note_of(struct json_object *o) {
        struct note *n = json_object_get_userdata(o);

        if (n || !(n = malloc(sizeof *n)))
                return n;
        *n = (struct note){.fd = -1};
        json_object_set_userdata(o, n, free_note);
        return n;
}

int json_descriptor(struct json_object *o) {
        struct note *n = json_object_is_type(o, json_type_string) ? json_object_get_userdata(o) : NULL;

        return n ? n->fd : -1;
}

static struct json_object *hex(const uint8_t *p, size_t n) {
        ctl_cleanup(ctl_freep) char *text = malloc(2 * n + 1);
        struct json_object *o;
        struct note *note;

        if (!text)
                return NULL;
        for (size_t i = 0; i < n; i++)
                snprintf(text + 2 * i, 3, "%02x", p[i]);
        o = json_object_new_string_len(text, (int)(2 * n));
        note = o ? note_of(o) : NULL;
        if (note)
                note->is_hex = true;
        return o;
}

/* A sealed memory file is the bytes in it, any other descriptor a word. */
static struct json_object *descriptor_text(int fd, enum json_bytes as) {
        struct json_object *o;
        const void *data;
        uint64_t n;

        if (sealed_check(fd, &n) < 0 || n > MAX_FILE || sealed_map(fd, n, &data) < 0)
                return json_object_new_string("fd");
        o = as == JSON_BYTES_HEX ? hex(data, n) : base64(data, n);
        sealed_unmap(data, n);
        return o;
}

static struct json_object *descriptor(int fd, enum json_bytes as) {
        struct json_object *o = descriptor_text(fd, as);
        struct note *n = o ? note_of(o) : NULL;

        if (n)
                n->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message's own goes with it */
        return o;
}

/* As ipc/json writes it: json-c's own way has 17 digits. */
static struct json_object *floating(double v) {
        char text[JSON_MAX_F64];

        return json_object_new_double_s(v, json_format_f64(v, text));
}

static int basic_from_message(sd_bus_message *m, enum json_bytes bytes, char type, struct json_object **ret) {
        union {
                int boolean, fd;
                double number;
                const char *text;
        } v;
        int r;

        if (strchr("ynqiuxt", type))
                return integer_from_message(m, type, ret);
        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        *ret = type == 'b'   ? json_object_new_boolean(v.boolean)
               : type == 'd' ? floating(v.number)
               : type == 'h' ? descriptor(v.fd, bytes)
                             : json_object_new_string(v.text); /* s o g */
        return *ret ? 0 : -ENOMEM;
}

/* The elements of an opened container, into an array, or into an object by their first, a string. */
static int elements_from_message(sd_bus_message *m, enum json_bytes bytes, bool is_dict, struct json_object *into) {
        int r;

        while ((r = sd_bus_message_at_end(m, false)) == 0) {
                struct json_object *o = NULL;
                const char *key = NULL;

                if (is_dict) {
                        r = sd_bus_message_enter_container(m, SD_BUS_TYPE_DICT_ENTRY, NULL);
                        if (r >= 0)
                                r = sd_bus_message_read_basic(m, 's', &key);
                        if (r < 0)
                                return r;
                }
                r = value_from_message(m, bytes, &o);
                if (r < 0)
                        return r;
                r = is_dict ? json_object_object_add(into, key, o) : json_object_array_add(into, o);
                if (r < 0) {
                        json_object_put(o);
                        return -ENOMEM;
                }
                if (is_dict && (r = sd_bus_message_exit_container(m)) < 0)
                        return r;
        }
        return r < 0 ? r : 0;
}

static int container_from_message(sd_bus_message *m, enum json_bytes bytes, char type, const char *contents,
                                  struct json_object **ret) {
        bool is_dict = type == 'a' && strncmp(contents, "{s", 2) == 0;
        ctl_cleanup(json_putp) struct json_object *o = NULL;
        int r;

        if (type == 'a' && strcmp(contents, "y") == 0) {
                const void *p;
                size_t n;

                r = sd_bus_message_read_array(m, 'y', &p, &n);
                if (r < 0)
                        return r;
                *ret = bytes == JSON_BYTES_HEX ? hex(p, n) : base64(p, n);
                return *ret ? 0 : -ENOMEM;
        }
        r = sd_bus_message_enter_container(m, type, contents);
        if (r < 0)
                return r;
        if (type == 'v')
                r = value_from_message(m, bytes, &o);
        else if (!(o = is_dict ? json_object_new_object() : json_object_new_array()))
                r = -ENOMEM;
        else
                r = elements_from_message(m, bytes, is_dict, o);
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        *ret = json_object_get(o);
        return 0;
}

static int value_from_message(sd_bus_message *m, enum json_bytes bytes, struct json_object **ret) {
        const char *contents;
        char type;
        int r = sd_bus_message_peek_type(m, &type, &contents);

        if (r < 0)
                return r;
        if (r == 0)
                return -ENODATA;
        return contents ? container_from_message(m, bytes, type, contents, ret)
                        : basic_from_message(m, bytes, type, ret);
}

int json_from_message(sd_bus_message *m, enum json_bytes bytes, struct json_object **ret) {
        ctl_cleanup(json_putp) struct json_object *all = json_object_new_array();
        int r;

        if (!all)
                return -ENOMEM;
        r = elements_from_message(m, bytes, false, all);
        if (r < 0)
                return r;
        *ret = json_object_array_length(all) == 0   ? NULL
               : json_object_array_length(all) == 1 ? json_object_get(json_object_array_get_idx(all, 0))
                                                    : json_object_get(all);
        return 0;
}

struct json_object *json_text_new(const char *text, size_t bytes) {
        static const char replacement[] = "\xef\xbf\xbd";
        size_t left = bytes, n = 0;
        ctl_cleanup(ctl_freep) char *copy = malloc(3 * left + 1); /* each byte may become three */

        while (copy && left > 0) {
                size_t length = utf8_length(text, left), taken = length ? length : 1;

                memcpy(copy + n, length ? text : replacement, length ? length : sizeof replacement - 1);
                n += length ? length : sizeof replacement - 1;
                text += taken;
                left -= taken;
        }
        return copy ? json_object_new_string_len(copy, (int)n) : NULL;
}

const char *json_format(struct json_object *o, enum ctl_json mode) {
        int flags =
                mode == CTL_JSON_PRETTY ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : JSON_C_TO_STRING_PLAIN;

        return json_object_to_json_string_ext(o, flags | JSON_C_TO_STRING_NOSLASHESCAPE);
}

/* JSON's text. json-c escapes control characters of one byte; a terminal obeys DEL and those of two bytes (U+0080 to
 * U+009F), too. Such bytes stand inside of strings only. */
static void print_escaped(FILE *f, const char *text) {
        for (size_t n; *text; text += n) {
                n = strcspn(text, "\x7f\xc2");
                fwrite(text, 1, n, f);
                if (!text[n])
                        break;
                uint8_t second = text[n] == 0x7f ? 0 : (uint8_t)text[n + 1];

                if (text[n] == 0x7f || (second >= 0x80 && second < 0xa0))
                        fprintf(f, "\\u%04x", second ? second : 0x7f);
                else
                        fwrite(text + n, 1, second ? 2 : 1, f);
                n += second ? 2 : 1;
        }
}

void json_print(FILE *f, struct json_object *o, enum ctl_json mode) {
        print_escaped(f, json_format(o, mode));
        fputc('\n', f);
}

/* The copy hangs on the string, which keeps its own text: for --json, and for files. */
const char *json_plain(struct json_object *o) {
        const char *text = o ? json_object_get_string(o) : "";

        if (!json_object_is_type(o, json_type_string))
                return text; /* numbers and words; the strings in an array go through a table */
        struct note *n = note_of(o);

        if (n && n->plain)
                return n->plain;
        size_t bytes = (size_t)json_object_get_string_len(o);
        char *plain = terminal_plain(text, bytes);

        if (!n || !plain) {
                free(plain);
                return "?";
        }
        return n->plain = plain;
}

void json_write_value(FILE *f, struct json_object *o) {
        double v = json_object_is_type(o, json_type_double) ? json_object_get_double(o) : 0;

        if (isfinite(v))
                fputs(json_object_get_string(o), f);
        else
                fprintf(f, "%f", v); /* nan, inf */
}

bool json_is_hex(struct json_object *o) {
        struct note *n = json_object_is_type(o, json_type_string) ? json_object_get_userdata(o) : NULL;

        return n && n->is_hex;
}

static void print_word(FILE *f, struct json_object *o) {
        if (json_object_is_type(o, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(o); i++) {
                        if (i > 0)
                                fputc(',', f);
                        print_word(f, json_object_array_get_idx(o, i));
                }
                return;
        }
        const char *text = json_object_get_string(o);
        bool is_plain = !json_object_is_type(o, json_type_string) || json_is_hex(o) ||
                        (*text && !strpbrk(text, " \"'\\") && strcmp(json_plain(o), text) == 0);

        if (is_plain)
                json_write_value(f, o);
        else
                json_write_string(f, text, strlen(text));
}

void json_order_fields(struct json_object *o, const struct schema_fields *fields) {
        for (uint32_t i = 0; i < fields->n_fields; i++) {
                const char *name = fields->field[i].name;
                struct json_object *value;

                if (!json_object_object_get_ex(o, name, &value))
                        continue;
                json_object_get(value);
                json_object_object_del(o, name); /* what is added anew stands last */
                json_object_object_add(o, name, value);
        }
}

void json_print_words(FILE *f, struct json_object *o) {
        const char *between = "";

        if (json_n_members(o) == 0)
                return;
        json_object_object_foreach(o, key, value) {
                fprintf(f, "%s%s=", between, key);
                print_word(f, value);
                between = " ";
        }
        fputc('\n', f);
}

const char *json_text(struct json_object *o, const char *key, const char *otherwise) {
        struct json_object *v;

        return json_object_object_get_ex(o, key, &v) && v ? json_plain(v) : otherwise;
}

uint64_t json_number(struct json_object *o, const char *key) {
        struct json_object *v;

        return json_object_object_get_ex(o, key, &v) ? json_object_get_uint64(v) : 0;
}

size_t json_length(struct json_object *o) {
        return json_object_is_type(o, json_type_array) ? json_object_array_length(o) : 0;
}

struct json_object *json_at(struct json_object *o, size_t i) {
        return i < json_length(o) ? json_object_array_get_idx(o, i) : NULL;
}

size_t json_n_members(struct json_object *o) {
        return json_object_is_type(o, json_type_object) ? (size_t)json_object_object_length(o) : 0;
}

const char *json_string(struct json_object *o) {
        const char *text = o ? json_object_get_string(o) : NULL;

        return text ? text : "";
}
