/* What a plugin file says of itself without being run: the section .drover.info and its needed libraries. Reads
 * untrusted bytes: bounded, no allocation, nothing outside [file, file + bytes). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { METADATA_MAX_NEEDED = 32, METADATA_MAX_SONAME = 128 };

struct metadata {
        unsigned abi_major, abi_minor;
        char name[64], version[32];
        bool is_sanitized;
        char build_id[48]; /* of its linker, in hex; "" = none */
        unsigned n_needed;
        char needed[METADATA_MAX_NEEDED][METADATA_MAX_SONAME]; /* DT_NEEDED, plain sonames */
};

/* 0; -ENOEXEC not an ELF shared object of this machine; -ENODATA no .drover.info; -EINVAL nonsense in it, or in what
 * ld.so would map. `error` says
 * what, without the plugin's name ("is not an ELF file"). */
int metadata_read(const void *file, size_t bytes, struct metadata *ret, char *error, size_t error_bytes);

/* Would this host load it? -ENOTSUP (another ABI), -ELIBACC (a sanitizer the host lacks) with one sentence. */
int metadata_check(const struct metadata *m, char *error, size_t error_bytes);
