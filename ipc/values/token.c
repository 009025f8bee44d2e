/* A MessagePack reader that allocates nothing and believes no length: a string must lie inside the input, and of an
 * array or map only the header is read, so a claimed count costs nothing. libmsgpack's unpacker builds a tree whose
 * size the input chooses; its packer writes what is read here. */
#include <errno.h>
#include <string.h>

#include "ipc/values/token.h"

struct token_input {
        const uint8_t *p, *end;
};

static int token_take_uint(struct token_input *in, unsigned bytes, uint64_t *ret) {
        if ((size_t)(in->end - in->p) < bytes)
                return -EPROTO;
        uint64_t v = 0;
        for (unsigned i = 0; i < bytes; i++)
                v = v << 8 | in->p[i];
        in->p += bytes;
        *ret = v;
        return 0;
}

static int token_take_data(struct token_input *in, struct token *t, enum token_type type, uint64_t bytes) {
        if ((uint64_t)(in->end - in->p) < bytes)
                return -EPROTO;
        *t = (struct token){.type = type, .n = (uint32_t)bytes, .data = (const char *)in->p};
        in->p += bytes;
        return 0;
}

/* A length of `width` bytes, then as many bytes (and one for the type of an EXT). */
static int token_sized(struct token_input *in, struct token *t, enum token_type type, unsigned width) {
        uint64_t n;
        int r = token_take_uint(in, width, &n);
        return r < 0 ? r : token_take_data(in, t, type, n + (type == TOKEN_EXT));
}

static int token_counted(struct token_input *in, struct token *t, enum token_type type, unsigned width) {
        uint64_t n = 0;
        int r = token_take_uint(in, width, &n);
        *t = (struct token){.type = type, .n = (uint32_t)n};
        return r;
}

static int token_unsigned(struct token_input *in, struct token *t, unsigned width) {
        *t = (struct token){.type = TOKEN_UINT};
        return token_take_uint(in, width, &t->u64);
}

static int token_signed(struct token_input *in, struct token *t, unsigned width) {
        uint64_t v;
        int r = token_take_uint(in, width, &v);
        if (r < 0)
                return r;
        unsigned shift = 64 - 8 * width;
        int64_t i = (int64_t)(v << shift) >> shift;
        if (i < 0)
                *t = (struct token){.type = TOKEN_INT, .i64 = i};
        else
                *t = (struct token){.type = TOKEN_UINT, .u64 = (uint64_t)i};
        return 0;
}

static int token_float(struct token_input *in, struct token *t, unsigned width) {
        uint64_t v;
        int r = token_take_uint(in, width, &v);
        if (r < 0)
                return r;
        *t = (struct token){.type = TOKEN_FLOAT};
        if (width == 8)
                memcpy(&t->f64, &v, sizeof t->f64);
        else {
                uint32_t low = (uint32_t)v;
                float f;
                memcpy(&f, &low, sizeof f);
                t->f64 = (double)f;
        }
        return 0;
}

/* The heads that stand alone, 0xc0 to 0xdf: what follows and how wide its number is. */
static const struct {
        int (*take)(struct token_input *in, struct token *t, enum token_type type, unsigned width);
        int (*take_number)(struct token_input *in, struct token *t, unsigned width);
        enum token_type type;
        uint8_t width;
} token_heads[32] = {
        [0xc4 - 0xc0] = {.take = token_sized, .type = TOKEN_BIN, .width = 1},
        [0xc5 - 0xc0] = {.take = token_sized, .type = TOKEN_BIN, .width = 2},
        [0xc6 - 0xc0] = {.take = token_sized, .type = TOKEN_BIN, .width = 4},
        [0xc7 - 0xc0] = {.take = token_sized, .type = TOKEN_EXT, .width = 1},
        [0xc8 - 0xc0] = {.take = token_sized, .type = TOKEN_EXT, .width = 2},
        [0xc9 - 0xc0] = {.take = token_sized, .type = TOKEN_EXT, .width = 4},
        [0xca - 0xc0] = {.take_number = token_float, .width = 4},
        [0xcb - 0xc0] = {.take_number = token_float, .width = 8},
        [0xcc - 0xc0] = {.take_number = token_unsigned, .width = 1},
        [0xcd - 0xc0] = {.take_number = token_unsigned, .width = 2},
        [0xce - 0xc0] = {.take_number = token_unsigned, .width = 4},
        [0xcf - 0xc0] = {.take_number = token_unsigned, .width = 8},
        [0xd0 - 0xc0] = {.take_number = token_signed, .width = 1},
        [0xd1 - 0xc0] = {.take_number = token_signed, .width = 2},
        [0xd2 - 0xc0] = {.take_number = token_signed, .width = 4},
        [0xd3 - 0xc0] = {.take_number = token_signed, .width = 8},
        [0xd9 - 0xc0] = {.take = token_sized, .type = TOKEN_STR, .width = 1},
        [0xda - 0xc0] = {.take = token_sized, .type = TOKEN_STR, .width = 2},
        [0xdb - 0xc0] = {.take = token_sized, .type = TOKEN_STR, .width = 4},
        [0xdc - 0xc0] = {.take = token_counted, .type = TOKEN_ARRAY, .width = 2},
        [0xdd - 0xc0] = {.take = token_counted, .type = TOKEN_ARRAY, .width = 4},
        [0xde - 0xc0] = {.take = token_counted, .type = TOKEN_MAP, .width = 2},
        [0xdf - 0xc0] = {.take = token_counted, .type = TOKEN_MAP, .width = 4},
};

static int token_take(struct token_input *in, uint8_t head, struct token *t) {
        if (head <= 0x7f) {
                *t = (struct token){.type = TOKEN_UINT, .u64 = head};
                return 0;
        }
        if (head >= 0xe0) {
                *t = (struct token){.type = TOKEN_INT, .i64 = (int8_t)head};
                return 0;
        }
        if (head <= 0x9f) {
                *t = (struct token){.type = head <= 0x8f ? TOKEN_MAP : TOKEN_ARRAY, .n = head & 0xf};
                return 0;
        }
        if (head <= 0xbf)
                return token_take_data(in, t, TOKEN_STR, head & 0x1f);
        if (head == 0xc0) {
                *t = (struct token){.type = TOKEN_NIL};
                return 0;
        }
        if (head == 0xc2 || head == 0xc3) {
                *t = (struct token){.type = TOKEN_BOOL, .boolean = head == 0xc3};
                return 0;
        }
        if (head >= 0xd4 && head <= 0xd8)
                return token_take_data(in, t, TOKEN_EXT, 1 + (UINT64_C(1) << (head - 0xd4)));

        unsigned i = head - 0xc0u;
        if (token_heads[i].take)
                return token_heads[i].take(in, t, token_heads[i].type, token_heads[i].width);
        if (token_heads[i].take_number)
                return token_heads[i].take_number(in, t, token_heads[i].width);
        return -EPROTO;
}

int token_next(const uint8_t **p, const uint8_t *end, struct token *ret) {
        if (*p >= end)
                return -EPROTO;
        struct token_input in = {.p = *p + 1, .end = end};
        struct token t = {0};
        int r = token_take(&in, **p, &t);
        if (r < 0)
                return r;
        *p = in.p;
        *ret = t;
        return 0;
}

const char *token_name(enum token_type type) {
        switch (type) {
        case TOKEN_NIL:
                return "nil";
        case TOKEN_BOOL:
                return "bool";
        case TOKEN_UINT:
        case TOKEN_INT:
                return "an integer";
        case TOKEN_FLOAT:
                return "f64";
        case TOKEN_STR:
                return "str";
        case TOKEN_BIN:
                return "bytes";
        case TOKEN_ARRAY:
                return "an array";
        case TOKEN_MAP:
                return "a map";
        case TOKEN_EXT:
                return "an extension type";
        }
        return "?";
}
