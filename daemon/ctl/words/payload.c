/* Arguments of a job whose schema is not at hand, because its plugin may be gone: what their own bytes say.
 *
 * MessagePack tells types, so a map of arguments describes itself, but for the width of numbers. What is found is held
 * against args_check, so that ipc/args can print it as it prints everything; what fails there is bytes. */
#include "daemon/ctl/words/payload.h"

#include <errno.h>
#include <string.h>

#include "ipc/values/args.h"
#include "ipc/values/token.h"

static int payload_type(const struct token *t, enum schema_type *ret) {
        static const enum schema_type types[] = {
                [TOKEN_BOOL] = SCHEMA_BOOL, [TOKEN_UINT] = SCHEMA_U64, [TOKEN_INT] = SCHEMA_I64,
                [TOKEN_FLOAT] = SCHEMA_F64, [TOKEN_STR] = SCHEMA_STR,  [TOKEN_BIN] = SCHEMA_BYTES};
        if (t->type >= sizeof types / sizeof *types || !types[t->type])
                return -EINVAL;
        *ret = types[t->type];
        return 0;
}

/* Of two elements: numbers are as wide as the widest of them. */
static enum schema_type payload_common(enum schema_type a, enum schema_type b) {
        if (a == SCHEMA_F64 || b == SCHEMA_F64)
                return SCHEMA_F64;
        return a == SCHEMA_I64 || b == SCHEMA_I64 ? SCHEMA_I64 : a;
}

static int payload_array(const uint8_t **p, const uint8_t *end, uint32_t n, struct schema_field *f) {
        f->is_array = true;
        f->type = SCHEMA_U64;
        for (uint32_t i = 0; i < n; i++) { /* each takes a byte at least */
                enum schema_type type;
                struct token t;
                int r = token_next(p, end, &t);
                if (r >= 0)
                        r = payload_type(&t, &type);
                if (r < 0)
                        return r;
                f->type = i == 0 ? type : payload_common(f->type, type);
        }
        return 0;
}

static bool payload_is_name(const struct token *t) {
        static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", more[] = "0123456789.-";
        if (t->type != TOKEN_STR || t->n == 0 || t->n >= SCHEMA_MAX_NAME)
                return false;
        for (uint32_t i = 0; i < t->n; i++)
                if (!t->data[i] || (!strchr(letters, t->data[i]) && (i == 0 || !strchr(more, t->data[i]))))
                        return false;
        return true;
}

static int payload_map(const uint8_t *p, const uint8_t *end, struct schema_fields *ret) {
        struct token t;
        int r = token_next(&p, end, &t);
        if (r < 0 || t.type != TOKEN_MAP || t.n > SCHEMA_MAX_FIELDS)
                return -EINVAL;
        ret->n_fields = t.n;
        for (uint32_t i = 0; i < ret->n_fields; i++) {
                struct schema_field *f = &ret->field[i];
                if (token_next(&p, end, &t) < 0 || !payload_is_name(&t))
                        return -EINVAL;
                memcpy(f->name, t.data, t.n);
                r = token_next(&p, end, &t);
                if (r >= 0)
                        r = t.type == TOKEN_ARRAY ? payload_array(&p, end, t.n, f) : payload_type(&t, &f->type);
                if (r < 0)
                        return r;
        }
        return 0;
}

void payload_guess(const void *data, size_t bytes, struct schema_fields *ret) {
        char error[128];
        *ret = (struct schema_fields){0};
        if (bytes == 0)
                return;
        if (payload_map(data, (const uint8_t *)data + bytes, ret) < 0 ||
            args_check(ret, data, bytes, error, sizeof error) < 0)
                *ret = (struct schema_fields){.is_raw = true};
}
