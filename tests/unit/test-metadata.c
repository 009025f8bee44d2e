/* The reader of plugin files: right on real ones, never outside its bytes on cut, changed and forged ones. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <drover/plugin.h>

#include "plugins/host/load/metadata.h"

struct file {
        uint8_t *bytes;
        size_t n;
};

/* In a block of exactly its size, so that a sanitizer sees every step outside. */
static struct file read_file(const char *path) {
        struct file f = {0};
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(fstat(fd, &st), 0);
        f.n = (size_t)st.st_size;
        f.bytes = malloc(f.n);
        assert_non_null(f.bytes);
        assert_int_equal(read(fd, f.bytes, f.n), f.n);
        close(fd);
        return f;
}

static struct file read_plugin(const char *name) {
        char path[512];
        snprintf(path, sizeof path, TEST_PLUGINS "/%s.so", name);
        return read_file(path);
}

static int read_copy(const uint8_t *bytes, size_t n, struct metadata *m, char *error) {
        uint8_t *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        error[0] = 0;
        int r = metadata_read(copy, n, m, error, 256);
        free(copy);
        if (r < 0)
                assert_true(error[0] != 0); /* never a refusal without a word */
        return r;
}

static void reads_a_real_plugin(void **state) {
        struct file f = read_plugin("typed");
        struct metadata m;
        char error[256];
        assert_int_equal(read_copy(f.bytes, f.n, &m, error), 0);
        assert_string_equal(m.name, "typed");
        assert_string_equal(m.version, "1.0");
        assert_int_equal(m.abi_major, 1);
        bool has_libc = false;
        for (unsigned i = 0; i < m.n_needed; i++)
                has_libc |= strncmp(m.needed[i], "libc.so", 7) == 0;
        assert_true(has_libc);
        assert_int_equal(metadata_check(&m, error, sizeof error), 0);
        free(f.bytes);
}

static void expect(const uint8_t *bytes, size_t n, int error_number, const char *word) {
        struct metadata m;
        char error[256];
        assert_int_equal(read_copy(bytes, n, &m, error), -error_number);
        if (!strstr(error, word))
                fail_msg("no \"%s\" in \"%s\"", word, error);
}

static void refuses_what_is_no_plugin(void **state) {
        expect((const uint8_t *)"", 0, ENOEXEC, "not an ELF file");
        expect((const uint8_t *)"#!/bin/sh\n", 10, ENOEXEC, "not an ELF file");
        struct file f = read_plugin("nometa");
        expect(f.bytes, f.n, ENODATA, ".drover.info");
        free(f.bytes);
        f = read_file("/proc/self/exe"); /* position-independent, but not a plugin */
        expect(f.bytes, f.n, ENODATA, ".drover.info");

        Elf64_Ehdr *h = (Elf64_Ehdr *)f.bytes;
        h->e_machine = EM_S390;
        expect(f.bytes, f.n, ENOEXEC, "another machine");
        free(f.bytes);
}

static void refuses_another_abi_and_a_foreign_sanitizer(void **state) {
        struct file f = read_plugin("badabi");
        struct metadata m;
        char error[256];
        assert_int_equal(read_copy(f.bytes, f.n, &m, error), 0);
        assert_int_equal(metadata_check(&m, error, sizeof error), -ENOTSUP);
        assert_non_null(strstr(error, "99.0"));
        assert_non_null(strstr(error, "1.1"));
        free(f.bytes);

        f = read_plugin("typed");
        assert_int_equal(read_copy(f.bytes, f.n, &m, error), 0);
        m.is_sanitized = true;
        assert_int_equal(metadata_check(&m, error, sizeof error), DROVER__SANITIZED ? 0 : -ELIBACC);
        m.is_sanitized = false;
        assert_int_equal(metadata_check(&m, error, sizeof error), 0);
        free(f.bytes);
}

static void survives_every_cut(void **state) {
        struct file f = read_plugin("typed");
        struct metadata m;
        char error[256];
        for (size_t n = 0; n < f.n; n += n < 8192 ? 1 : 97)
                assert_true(read_copy(f.bytes, n, &m, error) < 0);
        free(f.bytes);
}

/* xorshift: the same files in every run. */
static uint32_t next_random(uint32_t *seed) {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 17;
        *seed ^= *seed << 5;
        return *seed;
}

static void survives_every_change(void **state) {
        struct file f = read_plugin("typed");
        struct metadata m;
        char error[256];
        Elf64_Ehdr h;
        memcpy(&h, f.bytes, sizeof h);
        uint32_t seed = 20261121;
        uint8_t *copy = malloc(f.n);
        assert_non_null(copy);
        for (unsigned round = 0; round < 20000; round++) {
                memcpy(copy, f.bytes, f.n);
                /* Where it matters: file header, program headers, section headers, or anywhere. */
                const size_t starts[] = {0, h.e_phoff, h.e_shoff, 0};
                const size_t lengths[] = {sizeof h, sizeof(Elf64_Phdr) * h.e_phnum, sizeof(Elf64_Shdr) * h.e_shnum,
                                          f.n};
                unsigned where = next_random(&seed) % 4;
                for (unsigned i = 0, n = 1 + next_random(&seed) % 4; i < n; i++) {
                        size_t at = starts[where] + next_random(&seed) % lengths[where];
                        copy[at] = next_random(&seed) % 4 == 0 ? 0xff : (uint8_t)next_random(&seed);
                }
                if (metadata_read(copy, f.n, &m, error, sizeof error) == 0) {
                        assert_true(memchr(m.name, 0, sizeof m.name) != NULL);
                        assert_true(m.n_needed <= METADATA_MAX_NEEDED);
                        for (unsigned i = 0; i < m.n_needed; i++)
                                assert_true(m.needed[i][0] && !strchr(m.needed[i], '/'));
                }
        }
        free(copy);
        free(f.bytes);
}

/* The section's text, replaced by one of the same length. */
static void expect_info(const char *old, const char *new, size_t n, int error_number, const char *word) {
        struct file f = read_plugin("typed");
        uint8_t *at = memmem(f.bytes, f.n, "abi=1.0", 8);
        assert_non_null(at);
        at = memmem(at, 64, old, n);
        assert_non_null(at);
        memcpy(at, new, n);
        expect(f.bytes, f.n, error_number, word);
        free(f.bytes);
}

static void refuses_nonsense_in_the_section(void **state) {
        expect_info("abi=1.0", "abi=one", 7, EINVAL, "abi makes no sense");
        expect_info("abi=1.0", "abi=1. ", 7, EINVAL, "abi makes no sense");
        expect_info("abi=1.0", "oops=10", 7, EINVAL, "without abi=");
        expect_info("name=typed", "name=typ d", 10, EINVAL, "name makes no sense");
        expect_info("name=typed", "name=typ\377d", 10, EINVAL, "name makes no sense");
        expect_info("sanitizer=", "sanitizer:", 10, EINVAL, "without sanitizer=");
        expect_info("version=1.0", "abi=1.0\0\0\0\0", 11, EINVAL, "something else");
}

/* Program header `n` of this type, changed by `forge`. */
static void expect_forged(uint32_t type, unsigned n, void (*forge)(Elf64_Phdr *p, Elf64_Phdr *first),
                          const char *word) {
        struct file f = read_plugin("typed");
        Elf64_Ehdr *h = (Elf64_Ehdr *)f.bytes;
        Elf64_Phdr *all = (Elf64_Phdr *)(f.bytes + h->e_phoff), *first = NULL, *found = NULL;
        for (unsigned i = 0; i < h->e_phnum; i++) {
                if (!first && all[i].p_type == PT_LOAD)
                        first = &all[i];
                if (!found && all[i].p_type == type && n-- == 0)
                        found = &all[i];
        }
        assert_non_null(found);
        forge(found, first);
        expect(f.bytes, f.n, EINVAL, word);
        free(f.bytes);
}

static void forge_over(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_vaddr = p->p_offset = first->p_vaddr; }
static void forge_before(Elf64_Phdr *p, Elf64_Phdr *first) {
        first->p_vaddr += 1 << 20; /* the others would be mapped before it, over what is there */
}
static void forge_far(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_vaddr += UINT64_C(1) << 47; }
static void forge_wrap(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_memsz = UINT64_MAX - p->p_vaddr; }
static void forge_long(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_filesz = p->p_memsz = 1 << 30; }
static void forge_small(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_memsz = p->p_filesz - 1; }
static void forge_askew(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_vaddr += 8; }
static void forge_align(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_align = UINT64_C(1) << 63; }
static void forge_address(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_vaddr += 1 << 24; }
static void forge_second(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_type = PT_DYNAMIC; }
static void forge_phdr(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_type = PT_PHDR; }
static void forge_end(Elf64_Phdr *p, Elf64_Phdr *first) { p->p_filesz = p->p_memsz = sizeof(Elf64_Dyn); }

static void refuses_segments_that_map_over_others(void **state) {
        expect_forged(PT_LOAD, 1, forge_over, "no linker makes");
        expect_forged(PT_LOAD, 0, forge_before, "no linker makes");
        expect_forged(PT_LOAD, 2, forge_far, "no linker makes");
        expect_forged(PT_LOAD, 2, forge_wrap, "no linker makes");
        expect_forged(PT_LOAD, 2, forge_long, "no linker makes");
        expect_forged(PT_LOAD, 0, forge_small, "no linker makes");
        expect_forged(PT_LOAD, 0, forge_askew, "no linker makes");
        expect_forged(PT_LOAD, 0, forge_align, "no linker makes");
        expect_forged(PT_DYNAMIC, 0, forge_address, "a dynamic section that no segment maps");
        expect_forged(PT_DYNAMIC, 0, forge_end, "without an end");
        expect_forged(PT_NOTE, 0, forge_second, "2 dynamic sections");
        expect_forged(PT_NOTE, 0, forge_phdr, "program headers that no segment maps");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_a_real_plugin),
                cmocka_unit_test(refuses_what_is_no_plugin),
                cmocka_unit_test(refuses_another_abi_and_a_foreign_sanitizer),
                cmocka_unit_test(survives_every_cut),
                cmocka_unit_test(survives_every_change),
                cmocka_unit_test(refuses_nonsense_in_the_section),
                cmocka_unit_test(refuses_segments_that_map_over_others),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
