/* Which numbers the jobs of a channel have: above its id_base, which no other channel ever had.
 *
 * The base outlives the daemon in the one place that is the channel's own and that nobody can write to: the names of
 * its memory files, which stand from their making on. A client that hands the memories back says nothing of numbers,
 * and it cannot forge a name: the file's owner is who made it, and only files of our own uid count. The name also says
 * which part of a channel the memory is, and so who was given which right to it: what comes back as result areas is
 * nothing that its client can write. If a channel has the base all the same (a forger of our own uid), the one that
 * comes later gets a fresh one, and its client does without names for the jobs it had. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/supervise/supervisor-internal.h"

enum { POOL_NUMBERS_SHIFT = 40, POOL_NUMBERS_LINK = 128 };

static bool pool_numbers_are_used(const struct supervisor *s, uint64_t id_base) {
        const struct pool *p;
        TAILQ_FOREACH(p, &s->pools, link)
                for (uint32_t i = 1; i < LAYOUT_MAX_CHANNELS; i++)
                        if (p->channels[i] && p->channels[i]->id_base == id_base)
                                return true;
        return false;
}

uint64_t pool_numbers_new(struct supervisor *s) {
        uint64_t id_base;
        do
                id_base = numbers_next(s->numbers, NUMBERS_CHANNEL) << POOL_NUMBERS_SHIFT;
        while (pool_numbers_are_used(s, id_base));
        return id_base;
}

void pool_numbers_suffix(uint64_t id_base, char text[static POOL_NUMBERS_SUFFIX]) {
        snprintf(text, POOL_NUMBERS_SUFFIX, "%" PRIu64, id_base >> POOL_NUMBERS_SHIFT);
}

/* 0 if a daemon of our uid did not make it as this part of a channel. The kernel calls it "/memfd:NAME (deleted)". */
static uint64_t pool_numbers_read(int fd, enum channel_part part) {
        char path[64], link[POOL_NUMBERS_LINK], wanted[POOL_NUMBERS_LINK];
        struct stat st;
        if (fstat(fd, &st) < 0 || st.st_uid != geteuid())
                return 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof(link) - 1);
        if (n < 0)
                return 0;
        link[n] = 0;
        int prefix = snprintf(wanted, sizeof(wanted), "/memfd:%s", channel_part_name(part));
        if (strncmp(link, wanted, (size_t)prefix) != 0)
                return 0;
        uint64_t channel = strtoull(link + prefix, NULL, 10);
        if (channel == 0 || channel > NUMBERS_MAX_CHANNEL)
                return 0;
        snprintf(wanted + prefix, sizeof(wanted) - (size_t)prefix, "%" PRIu64 " (deleted)", channel);
        return strcmp(link, wanted) == 0 ? channel << POOL_NUMBERS_SHIFT : 0; /* no other way to write the number */
}

uint64_t pool_numbers_of(struct supervisor *s, int fd) {
        uint64_t id_base = pool_numbers_read(fd, CHANNEL_COMMON);
        return id_base && !pool_numbers_are_used(s, id_base) ? id_base : pool_numbers_new(s);
}

bool pool_numbers_are_ours(const int fds[CHANNEL_PARTS]) {
        uint64_t id_base = pool_numbers_read(fds[0], 0);
        for (unsigned i = 1; i < CHANNEL_PARTS && id_base; i++)
                if (pool_numbers_read(fds[i], i) != id_base)
                        return false;
        return id_base != 0;
}
