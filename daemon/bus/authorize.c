/* The table {member → who}. Default deny: a member without a row is refused, and a test holds the table against the
 * vtables in both directions. Ownership itself is checked where the object is looked up, because a foreign object must
 * look like a missing one. */
#include "daemon/bus/authorize.h"

#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>

static const struct authorize_row rows[] = {
        {"org.drover1.Manager", "Run", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "Submit", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "OpenChannel", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "ListPools", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "GetPool", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "ListWorkers", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "GetWorkerByPID", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "ListJobs", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "DescribeJobs", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "ListSessions", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "ListDeaths", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "ListCapsules", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "OpenArena", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "RemoveArena", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "ListArenas", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "ListObjects", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "ListObjectsFrom", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "GetJob", AUTHORIZE_OWNER},
        {"org.drover1.Manager", "CreatePool", AUTHORIZE_ROOT},
        {"org.drover1.Manager", "RemovePool", AUTHORIZE_ROOT},
        {"org.drover1.Manager", "Reload", AUTHORIZE_ROOT},
        {"org.drover1.Manager", "Subscribe", AUTHORIZE_PUBLIC},
        {"org.drover1.Manager", "Unsubscribe", AUTHORIZE_PUBLIC},

        {"org.drover1.Pool", "Start", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Stop", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Pause", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Resume", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Drain", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Restart", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Resize", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "ResetFailed", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "RequeuePoisoned", AUTHORIZE_ROOT},
        {"org.drover1.Pool", "Schema", AUTHORIZE_PUBLIC},

        {"org.drover1.Worker", "Kill", AUTHORIZE_ROOT},
        {"org.drover1.Worker", "GetPidFD", AUTHORIZE_ROOT},
        {"org.drover1.Worker", "ListTasks", AUTHORIZE_OWNER},

        {"org.drover1.Job", "Cancel", AUTHORIZE_OWNER},
        {"org.drover1.Job", "Wait", AUTHORIZE_OWNER},
        {"org.drover1.Job", "GetResult", AUTHORIZE_OWNER},
        {"org.drover1.Job", "OpenStream", AUTHORIZE_OWNER},
        {"org.drover1.Job", "Requeue", AUTHORIZE_OWNER},
        {"org.drover1.Job", "GetCapsule", AUTHORIZE_OWNER},
};

const struct authorize_row *authorize_find(const char *interface, const char *member) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                if (strcmp(rows[i].member, member) == 0 && strcmp(rows[i].interface, interface) == 0)
                        return &rows[i];
        return NULL;
}

bool authorize_is_root(uid_t uid) { return uid == 0 || uid == getauxval(AT_EUID); } /* geteuid() without a call */
