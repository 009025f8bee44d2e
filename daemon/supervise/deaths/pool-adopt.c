/* A channel that a client hands back after the daemon that made it died.
 *
 * The client may hand back anything, so everything is checked that could hurt others, of each memory: that it is a
 * memory file of the size it says and sealed, not one of huge pages (which can vanish under a mapping), that a daemon
 * of our uid made it as that part of a channel (else its client may write what workers write, too), and that no channel
 * of ours has it already, for its jobs would be given back while they run. What stands in it is as trustworthy as that
 * of any channel, and it is only the client's own.
 *
 * Nothing is adopted before all workers of the daemon before us are dead (spawner_is_alone): whatever says RUNNING then
 * is run by nobody. The jobs are put in order (recovery_adopt) before the first worker of ours hears of the channel. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "daemon/supervise/deaths/recovery.h"
#include "daemon/supervise/supervisor-internal.h"

#define ADOPT_MAX_BYTES (UINT64_C(4) << 30)

/* Is it one of ours already? */
static bool adopt_is_known(struct supervisor *s, const struct stat *memory) {
        struct pool *p;
        TAILQ_FOREACH(p, &s->pools, link)
                for (uint32_t i = 0; i < LAYOUT_MAX_CHANNELS; i++)
                        for (unsigned k = 0; p->channels[i] && k < CHANNEL_PARTS; k++)
                                if (p->channels[i]->memories[k].inode == memory->st_ino &&
                                    p->channels[i]->memories[k].device == memory->st_dev)
                                        return true;
        return false;
}

static int adopt_check_memory(struct supervisor *s, int fd) {
        struct statfs fs;
        struct stat st;
        if (fcntl(fd, F_GET_SEALS) < 0) /* first: only of memory files all else is known at once */
                return -EPROTO;
        if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
                return -errno;
        if (fs.f_type != TMPFS_MAGIC)
                return -EPROTO;
        return adopt_is_known(s, &st) ? -EALREADY : 0;
}

static bool adopt_is_for_writing(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
}

static int adopt_check(const struct session_request *q, const struct channel_geometry *g) {
        const struct pool *p = q->pool;
        int r = 0;
        if (g->total > ADOPT_MAX_BYTES || q->schema_bytes != p->schema_bytes ||
            memcmp(q->schema_text, p->schema_text, p->schema_bytes) != 0)
                return -EPROTO;
        for (unsigned i = 0; i < CHANNEL_PARTS && r >= 0; i++)
                r = adopt_check_memory(p->supervisor, q->back[i]);
        if (r < 0)
                return r;
        /* We open them for writing ourselves; who hands them back must be able to write what a client writes. */
        if (!pool_numbers_are_ours(q->back) || !adopt_is_for_writing(q->back[CHANNEL_COMMON]) ||
            !adopt_is_for_writing(q->back[CHANNEL_JOBS]))
                return -EPROTO;
        return spawner_is_alone(p->supervisor->spawner) ? 0 : -EBUSY;
}

int pool_channel_adopt(const struct session_request *q, struct pool_channel **ret) {
        struct channel_geometry g;
        struct pool_channel *c;
        if (channel_geometry_init(&g, q->n_slots, q->slot_bytes) < 0)
                return -EPROTO;
        int r = adopt_check(q, &g);
        if (r >= 0)
                r = pool_channel_make(q->pool, q->uid, &g, q->back, &c);
        if (r < 0)
                return r == -EACCES || r == -EPERM ? -EPROTO
                                                   : r; /* of a mode that keeps us out, or sealed against writing */
        struct layout_header header;
        channel_copy(&header, &c->channel.head->header, sizeof(header));
        if (header.magic != LAYOUT_MAGIC_CHANNEL || header.version != LAYOUT_VERSION || header.n_slots != g.n_slots ||
            header.slot_bytes != g.slot_bytes) {
                pool_channel_free(c);
                pool_bells_collect(q->pool);
                return -EPROTO;
        }
        recovery_adopt(c);
        pool_channel_publish(c);
        if (!pool_is_over(q->pool))
                pool_settle(q->pool); /* whoever its jobs rang is gone */
        *ret = c;
        return 0;
}
