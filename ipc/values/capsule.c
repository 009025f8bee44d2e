/* The bytes of a capsule. Owns the format and the names: which files there are and who may read them is the broker's.
 *
 * Written with libmsgpack into one growing buffer, read token by token with every length checked, because a file may be
 * anybody's. Keys that a reader does not know are passed over, so later releases may add some; a wrong type is -EPROTO.
 */
#include "ipc/values/capsule.h"

#include <endian.h>
#include <errno.h>
#include <msgpack/pack.h>
#include <msgpack/sbuffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/values/token.h"
#include "ipc/values/words.h"

static const char capsule_magic[8] = "DRCAPSUL";
enum { CAPSULE_HEAD = 16, CAPSULE_MAX_DEPTH = 4 };

enum capsule_kind { KIND_U64, KIND_U32, KIND_TEXT };

struct capsule_field {
        const char *name;
        enum capsule_kind kind;
        size_t offset, bytes;
};

#define FIELD(struct_, name, kind, field)                                                                              \
        { name, kind, offsetof(struct struct_, field), sizeof(((struct struct_ *)0)->field) }

static const struct capsule_field capsule_fields[] = {
        FIELD(capsule, "id", KIND_U64, id),
        FIELD(capsule, "created-usec", KIND_U64, created_us),
        FIELD(capsule, "uid", KIND_U32, uid),
        FIELD(capsule, "state", KIND_TEXT, state),
        FIELD(capsule, "pool", KIND_TEXT, pool),
        FIELD(capsule, "plugin", KIND_TEXT, plugin),
        FIELD(capsule, "plugin-dir", KIND_TEXT, plugin_dir),
        FIELD(capsule, "build-id", KIND_TEXT, build_id),
        FIELD(capsule, "job", KIND_TEXT, job),
        FIELD(capsule, "hard-nsec", KIND_U64, hard_ns),
        FIELD(capsule, "log", KIND_TEXT, log),
};
static const struct capsule_field attempt_fields[] = {
        FIELD(capsule_attempt, "when-usec", KIND_U64, when_us), FIELD(capsule_attempt, "attempt", KIND_U32, attempt),
        FIELD(capsule_attempt, "pid", KIND_U32, pid),           FIELD(capsule_attempt, "reason", KIND_TEXT, reason),
        FIELD(capsule_attempt, "signal", KIND_U32, signal),     FIELD(capsule_attempt, "status", KIND_U32, status),
        FIELD(capsule_attempt, "syscall", KIND_TEXT, syscall),  FIELD(capsule_attempt, "module", KIND_TEXT, module),
        FIELD(capsule_attempt, "offset", KIND_U64, offset),
};
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* ---- writing ---- */

static void capsule_pack_text(msgpack_packer *pk, const char *text, size_t capacity) {
        size_t n = strnlen(text, capacity);
        msgpack_pack_str(pk, n);
        msgpack_pack_str_body(pk, text, n);
}

static void capsule_pack_fields(msgpack_packer *pk, const void *object, const struct capsule_field *f, size_t n) {
        for (size_t i = 0; i < n; i++) {
                const void *field = (const char *)object + f[i].offset;
                capsule_pack_text(pk, f[i].name, SIZE_MAX);
                if (f[i].kind == KIND_TEXT)
                        capsule_pack_text(pk, field, f[i].bytes);
                else
                        msgpack_pack_uint64(pk, f[i].kind == KIND_U64 ? *(const uint64_t *)field
                                                                      : *(const uint32_t *)field);
        }
}

static void capsule_pack(msgpack_packer *pk, const struct capsule *c) {
        msgpack_pack_map(pk, COUNT(capsule_fields) + 2);
        capsule_pack_fields(pk, c, capsule_fields, COUNT(capsule_fields));
        capsule_pack_text(pk, "attempts", SIZE_MAX);
        msgpack_pack_array(pk, c->n_attempts);
        for (uint32_t i = 0; i < c->n_attempts; i++) {
                msgpack_pack_map(pk, COUNT(attempt_fields));
                capsule_pack_fields(pk, &c->attempts[i], attempt_fields, COUNT(attempt_fields));
        }
        capsule_pack_text(pk, "payload", SIZE_MAX);
        msgpack_pack_bin(pk, c->payload_bytes);
        msgpack_pack_bin_body(pk, c->payload, c->payload_bytes);
}

int capsule_encode(const struct capsule *c, void **ret, size_t *ret_bytes) {
        msgpack_sbuffer buffer;
        msgpack_packer pk;
        char head[CAPSULE_HEAD] = {0};
        if (c->payload_bytes > CAPSULE_MAX_PAYLOAD || c->n_attempts > CAPSULE_MAX_ATTEMPTS)
                return -EMSGSIZE;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&pk, &buffer, msgpack_sbuffer_write);
        if (msgpack_sbuffer_write(&buffer, head, sizeof(head)) < 0)
                return -ENOMEM;
        capsule_pack(&pk, c);
        if (buffer.size > CAPSULE_MAX_BYTES) {
                msgpack_sbuffer_destroy(&buffer);
                return -EMSGSIZE;
        }
        memcpy(buffer.data, capsule_magic, sizeof(capsule_magic));
        memcpy(buffer.data + 8, &(uint32_t){htole32(CAPSULE_VERSION)}, 4);
        memcpy(buffer.data + 12, &(uint32_t){htole32((uint32_t)(buffer.size - CAPSULE_HEAD))}, 4);
        *ret = buffer.data;
        *ret_bytes = buffer.size;
        return 0;
}

/* ---- reading ---- */

struct capsule_reader {
        const uint8_t *p, *end;
};

static int capsule_skip(struct capsule_reader *r, unsigned depth) {
        struct token t;
        int e = token_next(&r->p, r->end, &t);
        if (e < 0 || (t.type != TOKEN_ARRAY && t.type != TOKEN_MAP))
                return e;
        if (depth == CAPSULE_MAX_DEPTH)
                return -EPROTO;
        for (uint64_t n = t.type == TOKEN_MAP ? 2 * (uint64_t)t.n : t.n; n > 0 && e >= 0; n--)
                e = capsule_skip(r, depth + 1); /* each takes a byte at least: bounded by the file */
        return e;
}

static int capsule_take_field(struct capsule_reader *r, void *object, const struct capsule_field *f) {
        struct token t;
        void *field = (char *)object + f->offset;
        int e = token_next(&r->p, r->end, &t);
        if (e < 0)
                return e;
        if (f->kind != KIND_TEXT) {
                if (t.type != TOKEN_UINT || (f->kind == KIND_U32 && t.u64 > UINT32_MAX))
                        return -EPROTO;
                if (f->kind == KIND_U64)
                        *(uint64_t *)field = t.u64;
                else
                        *(uint32_t *)field = (uint32_t)t.u64;
                return 0;
        }
        if (t.type != TOKEN_STR || t.n >= f->bytes || memchr(t.data, 0, t.n))
                return -EPROTO;
        memcpy(field, t.data, t.n);
        ((char *)field)[t.n] = 0;
        return 0;
}

static bool token_is(const struct token *t, const char *word) {
        return t->n == strlen(word) && memcmp(t->data, word, t->n) == 0;
}

/* One pair whose key was read: 1 = it was one of `f`, 0 = it was not. */
static int capsule_take_known(struct capsule_reader *r, const struct token *key, void *object,
                              const struct capsule_field *f, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (token_is(key, f[i].name)) {
                        int e = capsule_take_field(r, object, &f[i]);
                        return e < 0 ? e : 1;
                }
        return 0;
}

static int capsule_take_attempts(struct capsule_reader *r, struct capsule *c) {
        struct token t, key;
        int e = token_next(&r->p, r->end, &t);
        if (e < 0 || t.type != TOKEN_ARRAY || t.n > CAPSULE_MAX_ATTEMPTS)
                return -EPROTO;
        c->n_attempts = t.n;
        for (uint32_t i = 0; i < c->n_attempts; i++) {
                if (token_next(&r->p, r->end, &t) < 0 || t.type != TOKEN_MAP)
                        return -EPROTO;
                for (uint32_t n = t.n; n > 0; n--) {
                        if (token_next(&r->p, r->end, &key) < 0 || key.type != TOKEN_STR)
                                return -EPROTO;
                        e = capsule_take_known(r, &key, &c->attempts[i], attempt_fields, COUNT(attempt_fields));
                        if (e == 0)
                                e = capsule_skip(r, 0);
                        if (e < 0)
                                return e;
                }
        }
        return 0;
}

static int capsule_take_payload(struct capsule_reader *r, struct capsule *c) {
        struct token t;
        if (token_next(&r->p, r->end, &t) < 0 || t.type != TOKEN_BIN || t.n > CAPSULE_MAX_PAYLOAD)
                return -EPROTO;
        c->payload = t.data;
        c->payload_bytes = t.n;
        return 0;
}

static int capsule_take_pair(struct capsule_reader *r, struct capsule *c) {
        struct token key;
        if (token_next(&r->p, r->end, &key) < 0 || key.type != TOKEN_STR)
                return -EPROTO;
        if (token_is(&key, "attempts"))
                return capsule_take_attempts(r, c);
        if (token_is(&key, "payload"))
                return capsule_take_payload(r, c);
        int e = capsule_take_known(r, &key, c, capsule_fields, COUNT(capsule_fields));
        return e == 0 ? capsule_skip(r, 0) : e;
}

int capsule_decode(const void *data, size_t bytes, struct capsule *ret) {
        uint32_t version, body;
        struct token map;
        if (bytes < CAPSULE_HEAD || memcmp(data, capsule_magic, sizeof(capsule_magic)) != 0)
                return -EPROTO;
        memcpy(&version, (const char *)data + 8, 4);
        memcpy(&body, (const char *)data + 12, 4);
        if (le32toh(version) != CAPSULE_VERSION)
                return -EPROTONOSUPPORT;
        if (le32toh(body) != bytes - CAPSULE_HEAD)
                return -EPROTO;
        struct capsule_reader r = {(const uint8_t *)data + CAPSULE_HEAD, (const uint8_t *)data + bytes};
        *ret = (struct capsule){0};
        if (token_next(&r.p, r.end, &map) < 0 || map.type != TOKEN_MAP)
                return -EPROTO;
        for (uint32_t n = map.n; n > 0; n--) {
                int e = capsule_take_pair(&r, ret);
                if (e < 0)
                        return e;
        }
        return ret->payload && ret->job[0] && r.p == r.end ? 0 : -EPROTO;
}

int capsule_load(int fd, struct capsule *ret) {
        struct stat st;
        size_t n = 0;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size > CAPSULE_MAX_BYTES)
                return -EFBIG;
        char *buffer = malloc((size_t)st.st_size + 1);
        if (!buffer)
                return -ENOMEM;
        ssize_t got = 1;
        while (n < (size_t)st.st_size && got > 0) {
                got = pread(fd, buffer + n, (size_t)st.st_size - n, (off_t)n);
                n += got > 0 ? (size_t)got : 0;
        }
        struct capsule c;
        int r = got < 0 ? -errno : capsule_decode(buffer, n, &c);
        if (r < 0) {
                free(buffer);
                return r;
        }
        *ret = c;
        ret->buffer = buffer;
        ret->buffer_bytes = n;
        return 0;
}

void capsule_deinit(struct capsule *c) {
        free(c->buffer);
        *c = (struct capsule){0};
}

/* ---- for people ---- */

bool capsule_attempt_is_alike(const struct capsule_attempt *a, const struct capsule_attempt *b) {
        return a->signal == b->signal && a->status == b->status && a->offset == b->offset &&
               strcmp(a->syscall, b->syscall) == 0 && strcmp(a->module, b->module) == 0;
}

void capsule_describe(const struct capsule_attempt *a, char *text, size_t bytes) {
        int n;
        if (a->signal)
                n = snprintf(text, bytes, "signal %u (%s)", a->signal, words_signal((int)a->signal));
        else
                n = snprintf(text, bytes, "exit status %u", a->status);
        if (n < 0 || (size_t)n >= bytes)
                return;
        char place[sizeof a->module + 32] = "";
        if (a->module[0])
                snprintf(place, sizeof place, " at %s+0x%llx", a->module, (unsigned long long)a->offset);
        if (a->syscall[0])
                snprintf(text + n, bytes - (size_t)n, ": system call %s%s", a->syscall, place);
        else if (a->module[0])
                snprintf(text + n, bytes - (size_t)n, "%s", place);
        else if (strcmp(a->reason, "time-limit") == 0)
                snprintf(text + n, bytes - (size_t)n, ", its time limit passed");
}

void capsule_name(const char *pool, uint64_t id, char *ret, size_t bytes) {
        snprintf(ret, bytes, "%s.%llu", pool, (unsigned long long)id);
}

void capsule_state_dir(bool is_user, char *ret, size_t bytes) {
        const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
        if (!is_user)
                snprintf(ret, bytes, "/var/lib/drover");
        else if (state && *state == '/')
                snprintf(ret, bytes, "%s/drover", state);
        else
                snprintf(ret, bytes, "%s/.local/state/drover", home ? home : "");
}

bool capsule_parse_name(const char *name, char pool[static 72], uint64_t *ret_id) {
        const char *dot = strrchr(name, '.');
        char *end;
        if (!dot || dot == name || dot - name >= 72 || dot[1] < '1' || dot[1] > '9')
                return false;
        errno = 0;
        *ret_id = strtoull(dot + 1, &end, 10);
        if (errno || *end)
                return false;
        memcpy(pool, name, (size_t)(dot - name));
        pool[dot - name] = 0;
        return true;
}
