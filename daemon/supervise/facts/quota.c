/* Owns counts by uid, so that no uid gets all of a thing that many share: slots for jobs over the bus, sessions, their
 * memory, calls that wait. Who has nothing costs nothing: its entry goes with the last that it gives back.
 *
 * Root and the daemon's own uid are not counted: the one could take everything anyway, and a user's own daemon serves
 * nobody else. How much a uid may have is the caller's to say, at each taking. */
#include "daemon/supervise/facts/quota.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <sys/auxv.h>

struct quota_user {
        uid_t uid;
        uint64_t n;
};

static int quota_compare(const void *a, const void *b) {
        uid_t x = ((const struct quota_user *)a)->uid, y = ((const struct quota_user *)b)->uid;
        return (x > y) - (x < y);
}

static struct quota_user *quota_find(const struct quota *q, uid_t uid) {
        struct quota_user key = {.uid = uid}, **found = tfind(&key, &q->users, quota_compare);
        return found ? *found : NULL;
}

bool quota_is_free(uid_t uid) { return uid == 0 || uid == getauxval(AT_EUID); } /* geteuid() without a call */

bool quota_has_room(const struct quota *q, uid_t uid, uint64_t max) {
        const struct quota_user *u = quota_find(q, uid);
        return quota_is_free(uid) || (u ? u->n : 0) < max;
}

int quota_take(struct quota *q, uid_t uid, uint64_t n, uint64_t max) {
        struct quota_user *u = quota_find(q, uid);
        if (quota_is_free(uid))
                return 0;
        if (n > max || (u && u->n > max - n))
                return -EDQUOT;
        if (!u) {
                u = calloc(1, sizeof(*u));
                if (!u)
                        return -ENOMEM;
                u->uid = uid;
                if (!tsearch(u, &q->users, quota_compare)) {
                        free(u);
                        return -ENOMEM;
                }
        }
        u->n += n;
        return 0;
}

void quota_give(struct quota *q, uid_t uid, uint64_t n) {
        if (quota_is_free(uid))
                return;
        struct quota_user *u = quota_find(q, uid);
        assert(u && u->n >= n);
        u->n -= n;
        if (u->n > 0)
                return;
        tdelete(u, &q->users, quota_compare);
        free(u);
}

void quota_deinit(struct quota *q) {
        tdestroy(q->users, free);
        *q = (struct quota){0};
}
