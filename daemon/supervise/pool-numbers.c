/* Which numbers the jobs of a channel have: above its id_base, which no other channel ever had.
 *
 * The base outlives the daemon in the one place that is the channel's own and that nobody can write to: the name of its
 * memory file, which stands from its making on. A client that hands the memory back says nothing of numbers, and it
 * cannot forge that name: the file's owner is who made it, and only files of our own uid count. If a channel has the
 * base all the same (a forger of our own uid), the one that comes later gets a fresh one, and its client does without
 * names for the jobs it had. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/supervise/supervisor-internal.h"

#define POOL_NUMBERS_LINK "/memfd:" POOL_NUMBERS_PREFIX
enum { POOL_NUMBERS_SHIFT = 40 };

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

void pool_numbers_name(uint64_t id_base, char name[static POOL_NUMBERS_NAME]) {
        snprintf(name, POOL_NUMBERS_NAME, POOL_NUMBERS_PREFIX "%" PRIu64, id_base >> POOL_NUMBERS_SHIFT);
}

/* What the kernel calls it: "/memfd:NAME (deleted)". */
static uint64_t pool_numbers_read(int fd) {
        char path[64], link[128], wanted[sizeof("/memfd: (deleted)") + POOL_NUMBERS_NAME], name[POOL_NUMBERS_NAME];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof(link) - 1);
        if (n < 0)
                return 0;
        link[n] = 0;
        if (strncmp(link, POOL_NUMBERS_LINK, strlen(POOL_NUMBERS_LINK)) != 0)
                return 0;
        uint64_t channel = strtoull(link + strlen(POOL_NUMBERS_LINK), NULL, 10);
        if (channel == 0 || channel > NUMBERS_MAX_CHANNEL)
                return 0;
        pool_numbers_name(channel << POOL_NUMBERS_SHIFT, name);
        snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name); /* no other way to write the number */
        return strcmp(link, wanted) == 0 ? channel << POOL_NUMBERS_SHIFT : 0;
}

uint64_t pool_numbers_of(struct supervisor *s, int fd) {
        struct stat st;
        uint64_t id_base = fstat(fd, &st) == 0 && st.st_uid == geteuid() ? pool_numbers_read(fd) : 0;
        return id_base && !pool_numbers_are_used(s, id_base) ? id_base : pool_numbers_new(s);
}
