/* Owns capabilities, securebits and supplementary groups: gives all away, once, before anything of a plugin is looked
 * at. A template's workers inherit the result.
 *
 * The uid stays the service's own; a root service's workers are root without what makes root mighty. They own root's
 * files all the same: what keeps them from those is the sandbox, which lets nothing be opened. */
#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/securebits.h>

#include "plugins/host/sandbox/privileges.h"

enum {
        PRIVILEGES_BITS = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                          SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                          SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
};

struct privileges {
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int privileges_get(struct privileges *ret) {
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        return syscall(SYS_capget, &head, ret->data) < 0 ? -errno : 0;
}

static int privileges_clear(void) {
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        const struct privileges none = {0};
        return syscall(SYS_capset, &head, none.data) < 0 ? -errno : 0;
}

static bool privileges_has(const struct privileges *p, int capability) {
        return p->data[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability);
}

static bool privileges_is_empty(const struct privileges *p) {
        unsigned all = 0;
        for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
                all |= p->data[i].effective | p->data[i].permitted | p->data[i].inheritable;
        return all == 0;
}

/* What no program that it could ever run would get, as root or by its file. */
static int privileges_bound(void) {
        int is_there;
        for (int capability = 0; (is_there = prctl(PR_CAPBSET_READ, capability)) >= 0; capability++)
                if (is_there && prctl(PR_CAPBSET_DROP, capability) < 0)
                        return -errno;
        return prctl(PR_SET_SECUREBITS, PRIVILEGES_BITS) < 0 ? -errno : 0;
}

static int privileges_keep_back(const struct privileges *p) {
        int r = privileges_has(p, CAP_SETPCAP) ? privileges_bound() : 0;
        if (r < 0)
                return r;
        /* -EPERM: a user namespace that lets nobody change groups */
        if (privileges_has(p, CAP_SETGID) && setgroups(0, NULL) < 0 && errno != EPERM)
                return -errno;
        return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ? -errno : 0;
}

int privileges_keep_from_children(void) {
        struct privileges p;
        int r = privileges_get(&p);
        return r < 0 ? r : privileges_keep_back(&p);
}

int privileges_drop(void) {
        struct privileges p;
        int r = privileges_get(&p);
        if (r < 0 || privileges_is_empty(&p)) /* an ambient one would be permitted, too */
                return r;
        r = privileges_keep_back(&p);
        if (r >= 0)
                r = privileges_clear();
        if (r >= 0)
                r = privileges_get(&p);
        return r < 0 ? r : privileges_is_empty(&p) ? 0 : -EPERM;
}
