/* From a job's arguments or result, a checked MessagePack map, to D-Bus variants.
 *
 * Somebody checked it against the schema; here it is walked once, token by token, so that a long array costs its
 * length and not its square. What still does not fit the schema is -EPROTO, never a guess. */
#include <errno.h>
#include <string.h>

#include "ipc/values/token.h"
#include "ipc/values/variants.h"

static const char *const variants_types[] = {
        [SCHEMA_U64] = "t", [SCHEMA_I64] = "x",    [SCHEMA_F64] = "d", [SCHEMA_BOOL] = "b",
        [SCHEMA_STR] = "s", [SCHEMA_BYTES] = "ay", [SCHEMA_FD] = "h",
};

static int variants_append_string(sd_bus_message *m, const struct token *t) {
        char *space;
        int r;

        if (memchr(t->data, '\0', t->n))
                return -EILSEQ;
        r = sd_bus_message_append_string_space(m, t->n, &space);
        if (r < 0)
                return r;
        memcpy(space, t->data, t->n);
        return 0;
}

static int variants_append_token(sd_bus_message *m, enum schema_type type, const struct token *t,
                                 const struct variants_fds *fds) {
        int64_t i = t->type == TOKEN_UINT ? (int64_t)t->u64 : t->i64;
        double d;
        int b;

        switch (type) {
        case SCHEMA_U64:
                return t->type == TOKEN_UINT ? sd_bus_message_append_basic(m, 't', &t->u64) : -EPROTO;
        case SCHEMA_I64:
                return t->type == TOKEN_UINT || t->type == TOKEN_INT ? sd_bus_message_append_basic(m, 'x', &i)
                                                                     : -EPROTO;
        case SCHEMA_F64:
                d = t->type == TOKEN_FLOAT ? t->f64 : t->type == TOKEN_UINT ? (double)t->u64 : (double)t->i64;
                return sd_bus_message_append_basic(m, 'd', &d);
        case SCHEMA_BOOL:
                b = t->boolean;
                return t->type == TOKEN_BOOL ? sd_bus_message_append_basic(m, 'b', &b) : -EPROTO;
        case SCHEMA_STR:
                return t->type == TOKEN_STR ? variants_append_string(m, t) : -EPROTO;
        case SCHEMA_BYTES:
                return t->type == TOKEN_BIN ? sd_bus_message_append_array(m, 'y', t->data, t->n) : -EPROTO;
        case SCHEMA_FD:
                return t->type == TOKEN_UINT && fds && t->u64 < fds->n_fds
                               ? sd_bus_message_append_basic(m, 'h', &fds->fds[t->u64])
                               : -EPROTO;
        }
        return -EPROTO;
}

static int variants_append_array(sd_bus_message *m, const struct schema_field *f, uint32_t n, const uint8_t **p,
                                 const uint8_t *end) {
        struct token t;
        int r;

        r = sd_bus_message_open_container(m, 'a', variants_types[f->type]);
        for (uint32_t i = 0; i < n && r >= 0; i++) {
                r = token_next(p, end, &t);
                if (r >= 0)
                        r = variants_append_token(m, f->type, &t, NULL);
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* `t` is the value's first token. */
static int variants_append_field(sd_bus_message *m, const struct schema_field *f, const struct token *t,
                                 const uint8_t **p, const uint8_t *end, const struct variants_fds *fds) {
        char contents[4] = "a";
        int r;

        if (f->is_array && t->type != TOKEN_ARRAY)
                return -EPROTO;
        strcpy(contents + f->is_array, variants_types[f->type]);
        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', f->name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', contents);
        if (r >= 0)
                r = f->is_array ? variants_append_array(m, f, t->n, p, end) : variants_append_token(m, f->type, t, fds);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int variants_append_map(sd_bus_message *m, const struct schema_fields *fields, const uint8_t *p,
                               const uint8_t *end, const struct variants_fds *fds, const char **ret_bad) {
        const struct schema_field *f = NULL;
        struct token map, t;
        int r;

        r = token_next(&p, end, &map);
        if (r < 0 || map.type != TOKEN_MAP)
                return -EPROTO;
        for (uint32_t i = 0; i < map.n; i++) {
                r = token_next(&p, end, &t);
                if (r < 0 || t.type != TOKEN_STR)
                        return -EPROTO;
                f = NULL;
                for (uint32_t k = 0; k < fields->n_fields && !f; k++)
                        if (strlen(fields->field[k].name) == t.n && memcmp(fields->field[k].name, t.data, t.n) == 0)
                                f = &fields->field[k];
                if (!f || token_next(&p, end, &t) < 0)
                        return -EPROTO;
                *ret_bad = f->name;
                r = variants_append_field(m, f, &t, &p, end, fds);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int variants_append_raw(sd_bus_message *m, const void *data, size_t bytes, const struct variants_fds *fds) {
        bool is_file = fds && fds->payload_fd >= 0;
        int r;

        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "payload");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', is_file ? "h" : "ay");
        if (r >= 0)
                r = is_file ? sd_bus_message_append_basic(m, 'h', &fds->payload_fd)
                            : sd_bus_message_append_array(m, 'y', data, bytes);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

int variants_append(sd_bus_message *m, const struct schema_fields *fields, const void *map, size_t bytes,
                    const struct variants_fds *fds, const char **ret_bad) {
        int r;

        *ret_bad = "?";
        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0 && (!fields || fields->is_raw))
                r = variants_append_raw(m, map, bytes, fds);
        else if (r >= 0 && bytes > 0)
                r = variants_append_map(m, fields, map, (const uint8_t *)map + bytes, fds, ret_bad);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

size_t variants_length(const void *map, size_t bytes) {
        const uint8_t *p = map, *end = p + bytes;
        struct token t;
        size_t length = 0;

        while (p < end && token_next(&p, end, &t) >= 0)
                switch (t.type) {
                case TOKEN_STR:
                case TOKEN_BIN:
                        length += t.n + 16;
                        break;
                case TOKEN_BOOL:
                        length += 4;
                        break;
                case TOKEN_NIL:
                case TOKEN_UINT:
                case TOKEN_INT:
                case TOKEN_FLOAT:
                        length += 8;
                        break;
                case TOKEN_ARRAY:
                case TOKEN_MAP:
                case TOKEN_EXT:
                        length += 16;
                        break;
                }
        return length;
}
