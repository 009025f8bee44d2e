/* What the daemon refuses, as numbers of this library: one table for every call over the bus. */
#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "ipc/client/library.h"
#include "ipc/client/session/fd-room.h"

int errors_code(const char *name, int otherwise) {
        static const struct {
                const char *name;
                int code;
        } known[] = {
                {"org.drover1.Error.NoSuchPool", -ENOENT},
                {"org.drover1.Error.NoSuchJobType", -ENXIO},
                {"org.drover1.Error.NoSuchJob", -ENOENT},
                {"org.drover1.Error.QueueFull", -EAGAIN},
                {"org.drover1.Error.ResultExpired", -ESTALE},
                {"org.drover1.Error.PoolStopped", -ESHUTDOWN},
                {"org.drover1.Error.PoolRefused", -ESHUTDOWN},
                {"org.drover1.Error.ShuttingDown", -ESHUTDOWN},
                {SD_BUS_ERROR_NO_MEMORY, -ENOMEM},
                {SD_BUS_ERROR_INVALID_ARGS, -EINVAL},
                {SD_BUS_ERROR_LIMITS_EXCEEDED, -EDQUOT},
                {SD_BUS_ERROR_ACCESS_DENIED, -EACCES},
                {SD_BUS_ERROR_SERVICE_UNKNOWN, -EHOSTUNREACH},
                {SD_BUS_ERROR_NAME_HAS_NO_OWNER, -EHOSTUNREACH},
                {SD_BUS_ERROR_NO_REPLY, -ETIMEDOUT},
        };
        for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
                if (strncmp(name, known[i].name, strlen(known[i].name)) == 0)
                        return known[i].code;
        return otherwise;
}

int errors_report(drover *d, int code, const char *noun, const char *name, const sd_bus_error *e) {
        if (!sd_bus_error_is_set(e) && (code == -EMFILE || code == -ENFILE))
                return connection_fail(d, code,
                                       "%s %s: %s: what comes over the bus may take %d descriptors (RLIMIT_NOFILE)",
                                       noun, name, strerror(-code), FD_ROOM_MOST);
        if (!sd_bus_error_is_set(e))
                return connection_fail(d, code, "%s %s: %s", noun, name, strerror(-code));
        return connection_fail(d, errors_code(e->name, code), "%s %s: %s", noun, name,
                               e->message ? e->message : e->name);
}
