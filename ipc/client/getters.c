/* Reading a typed result, field by field. Arrays and text are handed out as C has them, so they are copied once; the
 * copies live as long as the future. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/client/library.h"

static int getters_fail(const drover_future *f, const char *name, const char *type, int error) {
        unsigned long long id = f->id;
        if (!name)
                return connection_fail(f->drover, error, "job %llu: the name of a field is NULL", id);
        if (error == -ENOENT)
                return connection_fail(f->drover, error, "job %llu: its result has no field \"%.64s\"", id, name);
        if (error == -ENOMEM)
                return connection_fail(f->drover, error, "job %llu: no memory for field \"%.64s\"", id, name);
        return connection_fail(f->drover, error, "job %llu: field \"%.64s\" of its result is not of type %s", id, name,
                               type);
}

static int getters_get(const drover_future *f, const char *name, enum schema_type type, struct args_value *ret) {
        const void *data;
        size_t bytes;
        int r = drover_future_result(f, &data, &bytes);
        if (r < 0)
                return r;
        r = name ? args_get(data, bytes, name, type, ret) : -EINVAL;
        return r < 0 ? getters_fail(f, name, schema_type_name(type, false), r == -ERANGE ? -EINVAL : r) : 0;
}

int drover_future_get_u64(const drover_future *future, const char *name, uint64_t *ret_value) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_U64, &v);
        if (r == 0 && ret_value)
                *ret_value = v.u64;
        return r;
}

int drover_future_get_i64(const drover_future *future, const char *name, int64_t *ret_value) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_I64, &v);
        if (r == 0 && ret_value)
                *ret_value = v.i64;
        return r;
}

int drover_future_get_f64(const drover_future *future, const char *name, double *ret_value) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_F64, &v);
        if (r == 0 && ret_value)
                *ret_value = v.f64;
        return r;
}

int drover_future_get_bool(const drover_future *future, const char *name, bool *ret_value) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_BOOL, &v);
        if (r == 0 && ret_value)
                *ret_value = v.boolean;
        return r;
}

int drover_future_get_fd(const drover_future *future, const char *name, int *ret_fd) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_FD, &v);
        if (r == 0 && (!future->fds || v.u64 >= future->fds->n_fds))
                r = getters_fail(future, name, "fd", -EINVAL); /* a number that is no descriptor */
        if (r == 0 && ret_fd)
                *ret_fd = future->fds->fds[v.u64];
        return r;
}

/* Memory that lives as long as the future. */
static void *getters_keep(drover_future *f, size_t bytes) {
        struct future_copy *c = bytes < SIZE_MAX - sizeof *c ? malloc(sizeof *c + bytes) : NULL;
        if (!c)
                return NULL;
        c->next = f->copies;
        f->copies = c;
        return c->data;
}

int drover_future_get_str(drover_future *future, const char *name, const char **ret_text, size_t *ret_bytes) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_STR, &v);
        char *text = r == 0 ? getters_keep(future, v.bytes + 1) : NULL;
        if (!text)
                return r < 0 ? r : getters_fail(future, name, "str", -ENOMEM);
        memcpy(text, v.data, v.bytes);
        text[v.bytes] = 0;
        if (ret_text)
                *ret_text = text;
        if (ret_bytes)
                *ret_bytes = v.bytes;
        return 0;
}

int drover_future_get_bytes(drover_future *future, const char *name, const void **ret_data, size_t *ret_bytes) {
        struct args_value v;
        int r = getters_get(future, name, SCHEMA_BYTES, &v);
        if (r < 0)
                return r;
        if (ret_data)
                *ret_data = v.data;
        if (ret_bytes)
                *ret_bytes = v.bytes;
        return 0;
}

/* ---- arrays ---- */

static size_t getters_element_bytes(enum schema_type type) {
        return type == SCHEMA_BOOL ? sizeof(bool) : type == SCHEMA_STR ? sizeof(char *) : sizeof(uint64_t);
}

/* Room for the array, and for str the text behind it, from a first pass; then the second pass fills it. */
static int getters_measure(const struct args_list *list, enum schema_type type, size_t *ret_bytes) {
        struct args_list l = *list;
        struct args_value v;
        size_t bytes = ((size_t)l.n + 1) * getters_element_bytes(type);
        int r;
        while ((r = args_next(&l, type, &v)) == 0)
                bytes += type == SCHEMA_STR ? v.bytes + 1 : 0;
        *ret_bytes = bytes;
        return r == -ENOENT ? 0 : -EINVAL;
}

static void getters_fill(struct args_list list, enum schema_type type, void *array) {
        struct args_value v;
        char *text = (char *)array + ((size_t)list.n + 1) * sizeof(char *);
        for (size_t i = 0; args_next(&list, type, &v) == 0; i++)
                if (type == SCHEMA_STR) {
                        ((char **)array)[i] = text;
                        memcpy(text, v.data, v.bytes);
                        text[v.bytes] = 0;
                        text += v.bytes + 1;
                } else if (type == SCHEMA_BOOL)
                        ((bool *)array)[i] = v.boolean;
                else if (type == SCHEMA_F64)
                        ((double *)array)[i] = v.f64;
                else
                        ((uint64_t *)array)[i] = v.u64; /* i64 has the same place */
}

static int getters_get_array(drover_future *f, const char *name, enum schema_type type, void *ret_values,
                             size_t *ret_n) {
        const void *data;
        size_t bytes;
        struct args_list list;
        int r = drover_future_result(f, &data, &bytes);
        if (r < 0)
                return r;
        r = name ? args_open_array(data, bytes, name, &list) : -EINVAL;
        if (r >= 0)
                r = getters_measure(&list, type, &bytes);
        void *array = r >= 0 ? getters_keep(f, bytes) : NULL;
        if (!array)
                return getters_fail(f, name, schema_type_name(type, true), r < 0 ? r : -ENOMEM);
        getters_fill(list, type, array);
        if (ret_values)
                memcpy(ret_values, &array, sizeof array);
        if (ret_n)
                *ret_n = list.n;
        return 0;
}

int drover_future_get_u64_array(drover_future *future, const char *name, const uint64_t **ret_values, size_t *ret_n) {
        return getters_get_array(future, name, SCHEMA_U64, ret_values, ret_n);
}

int drover_future_get_i64_array(drover_future *future, const char *name, const int64_t **ret_values, size_t *ret_n) {
        return getters_get_array(future, name, SCHEMA_I64, ret_values, ret_n);
}

int drover_future_get_f64_array(drover_future *future, const char *name, const double **ret_values, size_t *ret_n) {
        return getters_get_array(future, name, SCHEMA_F64, ret_values, ret_n);
}

int drover_future_get_bool_array(drover_future *future, const char *name, const bool **ret_values, size_t *ret_n) {
        return getters_get_array(future, name, SCHEMA_BOOL, ret_values, ret_n);
}

int drover_future_get_str_array(drover_future *future, const char *name, const char *const **ret_texts, size_t *ret_n) {
        return getters_get_array(future, name, SCHEMA_STR, ret_texts, ret_n);
}
