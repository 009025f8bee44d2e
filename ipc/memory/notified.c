/* Owns the listener's ioctls of seccomp.
 *
 * What is allowed here is decided by numbers in the caller's registers, which nobody can change meanwhile: not by its
 * memory, which its other threads can. An id is never used twice by one listener, so an answer that comes too late
 * meets nobody. */
#include "ipc/memory/notified.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>

int notified_receive(int listener, struct notified_call *ret) {
        union { /* a kernel may have more to say than the header knows */
                struct seccomp_notif notif;
                char room[512];
        } n;
        memset(&n, 0, sizeof n); /* it insists */
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
                return -errno;
        *ret = (struct notified_call){.id = n.notif.id, .pid = (pid_t)n.notif.pid, .number = n.notif.data.nr};
        for (unsigned i = 0; i < 6; i++)
                ret->args[i] = n.notif.data.args[i];
        return 0;
}

static int answer(int listener, const struct seccomp_notif_resp *response) {
        union {
                struct seccomp_notif_resp response;
                char room[256];
        } r;
        memset(&r, 0, sizeof r);
        r.response = *response;
        return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r) < 0 ? -errno : 0;
}

int notified_allow(int listener, uint64_t id) {
        return answer(listener, &(struct seccomp_notif_resp){.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
}

int notified_refuse(int listener, uint64_t id, int error) {
        return answer(listener, &(struct seccomp_notif_resp){.id = id, .error = -error});
}

int notified_put(int listener, uint64_t id, int fd, int number) {
        struct seccomp_notif_addfd a = {
                .id = id,
                .flags = SECCOMP_ADDFD_FLAG_SETFD,
                .srcfd = (uint32_t)fd,
                .newfd = (uint32_t)number,
        };
        return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &a) < 0 ? -errno : 0;
}
