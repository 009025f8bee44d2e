/* Reads an ELF file that nobody has checked yet. Owns the knowledge of where .drover.info and DT_NEEDED stand.
 *
 * Invariants: every access to the file goes through view_get, which copies a struct out of [0, bytes) or says no; every
 * count is capped; text is copied only if its 0 lies inside the section it belongs to. Offsets are added in a way that
 * cannot wrap. Works on the file's bytes, not on a loaded image, so nothing of the plugin runs and ld.so, which trusts
 * the files it is given, only ever sees a plugin that passed here.
 *
 * Until the plugin is mapped, the sandbox of the process is not quite closed (sandbox.c), so ld.so must not be made to
 * do anything else than mapping by then: read_segments refuses headers that no linker writes, by which it would map
 * over what is there, or write somewhere else. What ld.so does later, relocating, is the plugin's own code as far as we
 * are concerned, and happens inside. */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <drover/plugin.h>

#include "plugins/host/load/metadata.h"

#if defined(__x86_64__)
#define METADATA_MACHINE EM_X86_64
#define METADATA_MACHINE_NAME "x86-64"
#elif defined(__aarch64__)
#define METADATA_MACHINE EM_AARCH64
#define METADATA_MACHINE_NAME "aarch64"
#else
#error "Teach metadata.c this machine"
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define METADATA_DATA ELFDATA2LSB
#else
#define METADATA_DATA ELFDATA2MSB
#endif

enum {
        MAX_SECTIONS = 4096,
        MAX_SEGMENTS = 128,
        MAX_DYNAMIC = 1024,
        MAX_NOTES = 16,
        MAX_INFO_BYTES = 4096,
};

struct view {
        const uint8_t *file;
        uint64_t bytes;
        char *error;
        size_t error_bytes;
};

__attribute__((format(printf, 3, 4))) static int view_fail(const struct view *v, int error, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(v->error, v->error_bytes, format, ap);
        va_end(ap);
        return -error;
}

static const uint8_t *view_at(const struct view *v, uint64_t offset, uint64_t bytes) {
        if (offset > v->bytes || bytes > v->bytes - offset)
                return NULL;
        return v->file + offset;
}

static bool view_get(const struct view *v, uint64_t offset, void *ret, size_t bytes) {
        const uint8_t *p = view_at(v, offset, bytes);
        if (p)
                memcpy(ret, p, bytes);
        return p != NULL;
}

/* Entry i of a table of `bytes`-sized structs at `table`. */
static bool view_get_entry(const struct view *v, uint64_t table, uint64_t i, void *ret, size_t bytes) {
        uint64_t offset;
        if (__builtin_add_overflow(table, i * bytes, &offset))
                return false;
        return view_get(v, offset, ret, bytes);
}

static int read_header(const struct view *v, Elf64_Ehdr *ret) {
        if (!view_get(v, 0, ret, sizeof *ret) || memcmp(ret->e_ident, ELFMAG, SELFMAG) != 0)
                return view_fail(v, ENOEXEC, "is not an ELF file");
        if (ret->e_ident[EI_CLASS] != ELFCLASS64 || ret->e_ident[EI_DATA] != METADATA_DATA ||
            ret->e_machine != METADATA_MACHINE)
                return view_fail(v, ENOEXEC, "is an ELF file of another machine, not of " METADATA_MACHINE_NAME);
        if (ret->e_type != ET_DYN)
                return view_fail(v, ENOEXEC, "is an ELF file, but no shared object (link it with -shared)");
        if (ret->e_phentsize != sizeof(Elf64_Phdr) || ret->e_phnum == 0 || ret->e_phnum > MAX_SEGMENTS)
                return view_fail(v, ENOEXEC, "is an ELF file with %u program headers of %u bytes, which makes no sense",
                                 ret->e_phnum, ret->e_phentsize);
        return 0;
}

/* ---- .drover.info ---- */

static bool section_is_named(const struct view *v, const Elf64_Shdr *names, const Elf64_Shdr *s, const char *name) {
        size_t n = strlen(name) + 1;
        uint64_t offset;
        if (s->sh_name >= names->sh_size || n > names->sh_size - s->sh_name ||
            __builtin_add_overflow(names->sh_offset, s->sh_name, &offset))
                return false;
        const uint8_t *p = view_at(v, offset, n);
        return p && memcmp(p, name, n) == 0;
}

static int find_section(const struct view *v, const Elf64_Ehdr *h, const char *name, Elf64_Shdr *ret) {
        Elf64_Shdr names;
        if (h->e_shentsize != sizeof(Elf64_Shdr) || h->e_shnum > MAX_SECTIONS || h->e_shstrndx >= h->e_shnum ||
            !view_get_entry(v, h->e_shoff, h->e_shstrndx, &names, sizeof names))
                return -ENODATA;
        for (unsigned i = 0; i < h->e_shnum; i++) {
                if (!view_get_entry(v, h->e_shoff, i, ret, sizeof *ret))
                        return -ENODATA;
                if (ret->sh_type == SHT_PROGBITS && section_is_named(v, &names, ret, name))
                        return 0;
        }
        return -ENODATA;
}

static bool is_plain_word(const char *s) {
        for (; *s; s++)
                if (*s < 0x21 || *s > 0x7e)
                        return false;
        return true;
}

/* Copies the value if it is a printable word that fits. */
static bool take_word(char *ret, size_t ret_bytes, const char *value) {
        size_t n = strlen(value);
        if (n == 0 || n >= ret_bytes || !is_plain_word(value))
                return false;
        memcpy(ret, value, n + 1);
        return true;
}

static bool take_number(const char **text, unsigned *ret) {
        unsigned n = 0, digits = 0;
        for (; **text >= '0' && **text <= '9' && digits < 5; (*text)++, digits++)
                n = n * 10 + (unsigned)(**text - '0');
        *ret = n;
        return digits > 0;
}

static bool take_abi(struct metadata *m, const char *value) {
        return take_number(&value, &m->abi_major) && *value++ == '.' && take_number(&value, &m->abi_minor) &&
               *value == 0;
}

enum info_key { INFO_ABI = 1, INFO_NAME = 2, INFO_VERSION = 4, INFO_SANITIZER = 8, INFO_ALL = 15 };

/* One "key=value". Unknown keys are those of a later release: fine. Returns the bit of the key, 0, or -EINVAL. */
static int read_info_pair(const struct view *v, const char *pair, struct metadata *ret) {
        if (strncmp(pair, "abi=", 4) == 0 && take_abi(ret, pair + 4))
                return INFO_ABI;
        if (strncmp(pair, "name=", 5) == 0 && take_word(ret->name, sizeof ret->name, pair + 5))
                return INFO_NAME;
        if (strncmp(pair, "version=", 8) == 0 && take_word(ret->version, sizeof ret->version, pair + 8))
                return INFO_VERSION;
        if (strcmp(pair, "sanitizer=0") == 0 || strcmp(pair, "sanitizer=1") == 0) {
                ret->is_sanitized = pair[10] == '1';
                return INFO_SANITIZER;
        }
        for (const char *const *key = (const char *const[]){"abi=", "name=", "version=", "sanitizer=", NULL}; *key;
             key++)
                if (strncmp(pair, *key, strlen(*key)) == 0)
                        return view_fail(v, EINVAL, "has a section .drover.info whose %.*s makes no sense",
                                         (int)strlen(*key) - 1, *key);
        return 0;
}

static int read_info(const struct view *v, const Elf64_Ehdr *h, struct metadata *ret) {
        Elf64_Shdr s;
        const uint8_t *info = NULL;
        if (find_section(v, h, ".drover.info", &s) >= 0 && s.sh_size <= MAX_INFO_BYTES)
                info = view_at(v, s.sh_offset, s.sh_size);
        if (!info)
                return view_fail(v, ENODATA, "has no section .drover.info: it was built without DROVER_REGISTER");

        char text[MAX_INFO_BYTES + 1];
        memcpy(text, info, s.sh_size);
        text[s.sh_size] = 0;
        int seen = 0;
        for (const char *p = text, *end = text + s.sh_size; p < end; p += strlen(p) + 1) {
                int r = read_info_pair(v, p, ret);
                if (r < 0)
                        return r;
                if (seen & r)
                        return view_fail(v, EINVAL,
                                         "has a section .drover.info that says \"%.40s\" and something else, too", p);
                seen |= r;
        }
        if (seen != INFO_ALL)
                return view_fail(v, EINVAL, "has a section .drover.info without%s%s%s%s",
                                 seen & INFO_ABI ? "" : " abi=", seen & INFO_NAME ? "" : " name=",
                                 seen & INFO_VERSION ? "" : " version=", seen & INFO_SANITIZER ? "" : " sanitizer=");
        return 0;
}

/* ---- what ld.so will map ---- */

static const uint64_t max_address = UINT64_C(1) << 46, max_align = UINT64_C(1) << 30, page = 4096;

/* The part of a file that is mapped, whole, with this one: at the same distance in memory as in the file. */
static bool segment_is_in(const Elf64_Phdr *p, const Elf64_Phdr *load) {
        return p->p_offset >= load->p_offset && p->p_offset - load->p_offset <= load->p_filesz &&
               p->p_filesz <= load->p_filesz - (p->p_offset - load->p_offset) && p->p_memsz == p->p_filesz &&
               p->p_vaddr >= load->p_vaddr && p->p_vaddr - load->p_vaddr == p->p_offset - load->p_offset;
}

/* Behind the one before, no page shared: ld.so maps the first with room for all, and each of the others into that. */
static int check_load(const struct view *v, const Elf64_Phdr *p, uint64_t *end) {
        if (p->p_memsz == 0 || p->p_filesz > p->p_memsz || p->p_memsz > max_address || p->p_vaddr > max_address ||
            !view_at(v, p->p_offset, p->p_filesz) || p->p_align > max_align || (p->p_align & (p->p_align - 1)) ||
            (p->p_vaddr - p->p_offset) % page != 0 || p->p_vaddr / page * page < *end)
                return view_fail(v, EINVAL, "has segments that no linker makes: they overlap, or lie outside the file");
        *end = (p->p_vaddr + p->p_memsz + page - 1) / page * page;
        return 0;
}

/* ld.so reads the program headers and the dynamic section where they are mapped, and writes into the latter. */
static int check_mapped(const struct view *v, const Elf64_Ehdr *h, const Elf64_Phdr *p) {
        bool is_dynamic = p->p_type == PT_DYNAMIC;
        for (unsigned i = 0; i < h->e_phnum; i++) {
                Elf64_Phdr load;
                if (view_get_entry(v, h->e_phoff, i, &load, sizeof load) && load.p_type == PT_LOAD &&
                    segment_is_in(p, &load) &&
                    (is_dynamic || (p->p_offset == h->e_phoff && p->p_filesz == h->e_phnum * sizeof *p)))
                        return 0;
        }
        return view_fail(v, EINVAL, "has %s that no segment maps",
                         is_dynamic ? "a dynamic section" : "program headers");
}

static int read_segments(const struct view *v, const Elf64_Ehdr *h) {
        unsigned n_loads = 0, n_dynamic = 0;
        uint64_t end = 0;
        for (unsigned i = 0; i < h->e_phnum; i++) {
                Elf64_Phdr p;
                int r = 0;
                if (!view_get_entry(v, h->e_phoff, i, &p, sizeof p))
                        return view_fail(v, EINVAL, "is cut off: its program headers lie outside the file");
                n_loads += p.p_type == PT_LOAD;
                n_dynamic += p.p_type == PT_DYNAMIC;
                if (p.p_type == PT_LOAD)
                        r = check_load(v, &p, &end);
                else if (p.p_type == PT_DYNAMIC || p.p_type == PT_PHDR)
                        r = check_mapped(v, h, &p);
                if (r < 0)
                        return r;
        }
        if (n_loads == 0 || n_dynamic > 1)
                return view_fail(v, EINVAL, "has %u segments and %u dynamic sections", n_loads, n_dynamic);
        return 0;
}

/* ---- DT_NEEDED ---- */

/* Where the bytes that will be loaded at `address` stand in the file. */
static bool find_offset(const struct view *v, const Elf64_Ehdr *h, uint64_t address, uint64_t *ret) {
        for (unsigned i = 0; i < h->e_phnum; i++) {
                Elf64_Phdr p;
                if (!view_get_entry(v, h->e_phoff, i, &p, sizeof p))
                        return false;
                if (p.p_type == PT_LOAD && address >= p.p_vaddr && address - p.p_vaddr < p.p_filesz)
                        return !__builtin_add_overflow(p.p_offset, address - p.p_vaddr, ret);
        }
        return false;
}

static int read_needed_name(const struct view *v, uint64_t strings, uint64_t strings_bytes, uint64_t name,
                            struct metadata *ret) {
        uint64_t offset;
        if (name >= strings_bytes || __builtin_add_overflow(strings, name, &offset))
                return view_fail(v, EINVAL, "needs a library whose name lies outside the file");
        uint64_t room = strings_bytes - name;
        if (room > METADATA_MAX_SONAME)
                room = METADATA_MAX_SONAME;
        const char *text = (const char *)view_at(v, offset, room);
        if (!text || !memchr(text, 0, room))
                return view_fail(v, EINVAL, "needs a library whose name lies outside the file");
        if (!take_word(ret->needed[ret->n_needed], METADATA_MAX_SONAME, text) || strchr(text, '/'))
                return view_fail(v, EINVAL, "needs the library \"%.60s\": only plain names are loaded", text);
        ret->n_needed++;
        return 0;
}

static int read_needed(const struct view *v, const Elf64_Ehdr *h, struct metadata *ret) {
        Elf64_Phdr p = {0};
        bool found = false;
        for (unsigned i = 0; i < h->e_phnum && !found; i++) {
                if (!view_get_entry(v, h->e_phoff, i, &p, sizeof p))
                        return view_fail(v, EINVAL, "is cut off: its program headers lie outside the file");
                found = p.p_type == PT_DYNAMIC;
        }
        if (!found)
                return view_fail(v, EINVAL, "has no dynamic section");

        uint64_t names[METADATA_MAX_NEEDED], strings = 0, strings_bytes = 0;
        unsigned n = 0;
        for (unsigned i = 0;; i++) {
                Elf64_Dyn d;
                if (i == MAX_DYNAMIC || (i + 1) * sizeof d > p.p_filesz ||
                    !view_get_entry(v, p.p_offset, i, &d, sizeof d))
                        return view_fail(v, EINVAL, "has a dynamic section without an end");
                if (d.d_tag == DT_NULL)
                        break;
                if (d.d_tag == DT_STRTAB)
                        strings = d.d_un.d_ptr;
                else if (d.d_tag == DT_STRSZ)
                        strings_bytes = d.d_un.d_val;
                else if (d.d_tag == DT_NEEDED && n == METADATA_MAX_NEEDED)
                        return view_fail(v, EINVAL, "needs more than %d libraries", METADATA_MAX_NEEDED);
                else if (d.d_tag == DT_NEEDED)
                        names[n++] = d.d_un.d_val;
        }
        if (n > 0 && !find_offset(v, h, strings, &strings))
                return view_fail(v, EINVAL, "has a string table outside the file");
        for (unsigned i = 0; i < n; i++) {
                int r = read_needed_name(v, strings, strings_bytes, names[i], ret);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- the build id: a note that linkers leave ---- */

static void take_build_id(const struct view *v, const Elf64_Phdr *s, struct metadata *m) {
        uint64_t at = 0;
        Elf64_Nhdr note;
        for (unsigned i = 0; i < MAX_NOTES && at < s->p_filesz && s->p_filesz - at > sizeof note; i++) {
                if (!view_get(v, s->p_offset + at, &note, sizeof note))
                        return;
                at += sizeof note;
                uint64_t name_bytes = (note.n_namesz + UINT64_C(3)) & ~UINT64_C(3), bytes = note.n_descsz;
                const uint8_t *name = view_at(v, s->p_offset + at, 4),
                              *id = view_at(v, s->p_offset + at + name_bytes, bytes);
                if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && name && memcmp(name, "GNU", 4) == 0 && id &&
                    bytes < sizeof m->build_id / 2) {
                        for (uint64_t k = 0; k < bytes; k++)
                                snprintf(m->build_id + 2 * k, 3, "%02x", id[k]);
                        return;
                }
                at += name_bytes + ((bytes + 3) & ~UINT64_C(3));
        }
}

static void read_build_id(const struct view *v, const Elf64_Ehdr *h, struct metadata *m) {
        Elf64_Phdr s;
        for (unsigned i = 0; i < h->e_phnum && !m->build_id[0]; i++)
                if (view_get_entry(v, h->e_phoff, i, &s, sizeof s) && s.p_type == PT_NOTE && s.p_offset < v->bytes &&
                    s.p_filesz <= v->bytes)
                        take_build_id(v, &s, m);
}

int metadata_read(const void *file, size_t bytes, struct metadata *ret, char *error, size_t error_bytes) {
        const struct view v = {.file = file, .bytes = bytes, .error = error, .error_bytes = error_bytes};
        struct metadata m = {0};
        Elf64_Ehdr h;
        int r = read_header(&v, &h);
        if (r >= 0)
                r = read_info(&v, &h, &m);
        if (r >= 0)
                r = read_segments(&v, &h);
        if (r >= 0)
                r = read_needed(&v, &h, &m);
        if (r < 0)
                return r;
        read_build_id(&v, &h, &m);
        *ret = m;
        return 0;
}

int metadata_check(const struct metadata *m, char *error, size_t error_bytes) {
        if (m->abi_major != DROVER_ABI_MAJOR) {
                snprintf(error, error_bytes,
                         "speaks plugin ABI %u.%u, this host speaks %d.%d: rebuild it against this release's "
                         "<drover/plugin.h>",
                         m->abi_major, m->abi_minor, DROVER_ABI_MAJOR, DROVER_ABI_NEWEST_MINOR);
                return -ENOTSUP;
        }
        /* The other way round is harmless: a sanitizer's runtime in the host does not mind a plugin without. */
        if (m->is_sanitized && !DROVER__SANITIZED) {
                snprintf(error, error_bytes,
                         "is built with a sanitizer, this host is not: build both with -Db_sanitize= or neither");
                return -ELIBACC;
        }
        return 0;
}
