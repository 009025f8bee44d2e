/* Owns the way from an address to a file: the only user of _dl_find_object and of the unwinder's frames.
 *
 * Both may be used in a signal handler: the first by its contract, and libgcc's unwinder finds its tables by it. The
 * stack that is walked is the plugin's, so what is found is its word, and of a broken one the walk crashes: whoever
 * asks has to be ready for that (sandbox.c). */
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <string.h>
#include <unwind.h>

#include "plugins/host/sandbox/place.h"

enum { PLACE_MAX_FRAMES = 256 };

static const char *plugin_name = "?";
static const char own_file[] = "/proc/self/fd/";

void place_name_plugin(const char *name) { plugin_name = name; }

static const struct link_map *find_map(uintptr_t instruction) {
        struct dl_find_object found;
        return _dl_find_object((void *)instruction, &found) == 0 ? found.dlfo_link_map : NULL;
}

static bool is_plugin(const struct link_map *m) { return strncmp(m->l_name, own_file, sizeof own_file - 1) == 0; }

static const char *name_of(const struct link_map *m) {
        const char *slash = strrchr(m->l_name, '/');
        if (is_plugin(m))
                return plugin_name;
        return !m->l_name[0] ? "drover-worker" : slash ? slash + 1 : m->l_name;
}

static bool is_c_library(const struct link_map *m) {
        const char *name = name_of(m);
        return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "ld-linux", 8) == 0;
}

static void fill_in(const struct link_map *m, uintptr_t instruction, struct place *ret) {
        const char *name = name_of(m);
        size_t n = strnlen(name, sizeof ret->module - 1);
        *ret = (struct place){.offset = instruction - m->l_addr};
        memcpy(ret->module, name, n);
}

bool place_find(uintptr_t instruction, struct place *ret) {
        const struct link_map *m = find_map(instruction);
        if (m)
                fill_in(m, instruction, ret);
        return m;
}

struct walk {
        uintptr_t from;
        bool has_begun, is_found, is_host;
        const struct link_map *map; /* of what was found */
        unsigned n_frames;
        struct place *ret;
};

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *user) {
        struct walk *w = user;
        int is_exact = 0; /* else the address of what follows the call */
        uintptr_t instruction = _Unwind_GetIPInfo(context, &is_exact);
        w->has_begun |= instruction == w->from; /* the handler's own frames come first */
        if (++w->n_frames > PLACE_MAX_FRAMES)
                return _URC_END_OF_STACK;
        if (!w->has_begun)
                return _URC_NO_REASON;
        instruction -= !is_exact;
        const struct link_map *m = find_map(instruction);
        if (!m || is_c_library(m) || (w->is_found && !is_plugin(m)))
                return _URC_NO_REASON;
        fill_in(m, instruction, w->ret);
        w->is_found = true;
        w->is_host = !m->l_name[0];
        w->map = m;
        return is_plugin(m) ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* The first is of the compiler's own startup files. 0: there are several. */
static uintptr_t only_constructor(const struct link_map *m) {
        const uintptr_t *entry = NULL;
        size_t n = 0;
        for (const ElfW(Dyn) *d = m->l_ld; d->d_tag != DT_NULL; d++) {
                if (d->d_tag == DT_INIT_ARRAY)
                        entry = (const uintptr_t *)(m->l_addr + d->d_un.d_ptr);
                if (d->d_tag == DT_INIT_ARRAYSZ)
                        n = d->d_un.d_val / sizeof *entry;
        }
        return entry && (n == 1 || n == 2) ? entry[n - 1] : 0;
}

/* `host` is the map of the host's program, and the thread is its own: the list of maps stands still. */
static void blame_constructor(const struct link_map *host, struct place *ret) {
        const struct link_map *m = host;
        while (m && !is_plugin(m))
                m = m->l_next;
        if (m) {
                uintptr_t entry = only_constructor(m);
                fill_in(m, entry ? entry : m->l_addr, ret);
        }
}

bool place_find_caller(uintptr_t instruction, uintptr_t callback, struct place *ret) {
        struct walk w = {.from = instruction, .ret = ret};
        _Unwind_Backtrace(on_frame, &w);
        if (!w.is_found)
                return place_find(instruction, ret);
        if (w.is_host && callback)
                return place_find(callback, ret);
        if (w.is_host)
                blame_constructor(w.map, ret);
        return true;
}
