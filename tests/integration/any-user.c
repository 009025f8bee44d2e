/* For a dbus-daemon (LD_PRELOAD): a uid that no user has is a user, too. It hangs up on others, and a test needs more
 * users than a machine has. */
#include <dlfcn.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>

__attribute__((visibility("default"))) int getpwuid_r(uid_t uid, struct passwd *p, char *buffer, size_t bytes,
                                                      struct passwd **ret) {
        static char nowhere[] = "/nonexistent", nothing[] = "";
        int (*real)(uid_t, struct passwd *, char *, size_t, struct passwd **) = dlsym(RTLD_NEXT, "getpwuid_r");
        int r = real(uid, p, buffer, bytes, ret);
        if (*ret)
                return r;
        if (snprintf(buffer, bytes, "u%u", (unsigned)uid) >= (int)bytes)
                return ERANGE;
        *p = (struct passwd){.pw_name = buffer,
                             .pw_passwd = nothing,
                             .pw_uid = uid,
                             .pw_gid = uid,
                             .pw_gecos = nothing,
                             .pw_dir = nowhere,
                             .pw_shell = nowhere};
        *ret = p;
        return 0;
}
