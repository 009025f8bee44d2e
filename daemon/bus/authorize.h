/* Who may call what: the daemon's own table, after the bus policy and before the object's owner. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum authorize_access {
        AUTHORIZE_PUBLIC, /* whoever the bus policy lets through */
        AUTHORIZE_OWNER,  /* the uid the object belongs to, or root; to others it does not exist (the method looks) */
        AUTHORIZE_ROOT,   /* uid 0, or the daemon's own */
};

struct authorize_row {
        const char *interface, *member;
        enum authorize_access access;
};

/* NULL: no row, so denied. */
const struct authorize_row *authorize_find(const char *interface, const char *member);
bool authorize_is_root(uid_t uid);
