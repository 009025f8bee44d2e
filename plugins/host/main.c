/* drover-worker's command line: the two roles that the spawner starts, and the two helpers for plugin authors. Owns
 * nothing else. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/host/author/replay.h"
#include "plugins/host/author/run.h"
#include "plugins/host/host.h"

static const char usage[] =
        "Usage: drover-worker --check PLUGIN [OPTION...]\n"
        "       drover-worker --run PLUGIN JOB [NAME=VALUE ...] [OPTION...]\n"
        "       drover-worker --replay JOB|FILE [--gdb] [--plugin=FILE] [--state-dir=DIR] [OPTION...]\n"
        "\n"
        "Loads a plugin the way the service does, sandbox included, without a daemon.\n"
        "\n"
        "  --check    load it, say what it offers\n"
        "  --run      run one job: the result on stdout, all else on stderr\n"
        "  --replay   run the job that killed its worker once more: by its number, or the file of its capsule;\n"
        "             0 if it ends in the same way, 1 if not\n"
        "  --gdb      under the debugger\n"
        "  --plugin   the plugin file, if it is not where it was\n"
        "  --state-dir  droverd's, for --replay JOB\n"
        "  --memory-max  what the worker may have for itself, as MemoryMax= of a pool\n"
        "  --timeout-start  seconds that its start may take, as TimeoutStartSec= of a pool: 30, 0 for any\n"
        "  --json     print JSON\n"
        "  --version\n"
        "\n"
        "Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 the plugin is refused, 4 its process died.\n"
        "(--role=worker|template --parent=PID --name=POOL is how drover-spawn starts it.)\n";

enum option_key {
        OPTION_ROLE = 256,
        OPTION_PARENT,
        OPTION_NAME,
        OPTION_MEMORY,
        OPTION_OOM,
        OPTION_START,
        OPTION_CHECK,
        OPTION_RUN,
        OPTION_REPLAY,
        OPTION_GDB,
        OPTION_PLUGIN,
        OPTION_STATE,
        OPTION_JSON,
        OPTION_HELP,
        OPTION_VERSION
};

static const struct option options[] = {
        {"role", required_argument, NULL, OPTION_ROLE},
        {"parent", required_argument, NULL, OPTION_PARENT},
        {"name", required_argument, NULL, OPTION_NAME},
        {"memory-max", required_argument, NULL, OPTION_MEMORY},
        {"oom-score-adj", required_argument, NULL, OPTION_OOM},
        {"timeout-start", required_argument, NULL, OPTION_START},
        {"check", no_argument, NULL, OPTION_CHECK},
        {"run", no_argument, NULL, OPTION_RUN},
        {"replay", required_argument, NULL, OPTION_REPLAY},
        {"gdb", no_argument, NULL, OPTION_GDB},
        {"plugin", required_argument, NULL, OPTION_PLUGIN},
        {"state-dir", required_argument, NULL, OPTION_STATE},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {0},
};

static int refuse(const char *why) {
        fprintf(stderr, "drover-worker: %s\n%s", why, usage);
        return RUN_EXIT_USAGE;
}

static int start_role(const char *role, const struct host_config *config) {
        struct host_config c = *config;
        if (strcmp(role, "worker") == 0)
                c.role = HOST_WORKER;
        else if (strcmp(role, "template") == 0)
                c.role = HOST_TEMPLATE;
        else
                return refuse("--role= is worker or template");
        if (c.parent <= 0)
                return refuse("--role= needs --parent=PID");
        host_main(&c);
}

int main(int argc, char **argv) {
        struct host_config host = {.control_fd = WIRE_CONTROL_FD, .plugin_fd = WIRE_PLUGIN_FD, .name = ""};
        struct run_config run = {.start_ns = RUN_START_NS};
        struct replay_config replay = {.start_ns = RUN_START_NS};
        const char *role = NULL;
        int helper = 0;
        for (int key; (key = getopt_long(argc, argv, "h", options, NULL)) != -1;)
                switch (key) {
                case OPTION_ROLE:
                        role = optarg;
                        break;
                case OPTION_PARENT:
                        host.parent = (pid_t)strtol(optarg, NULL, 10);
                        break;
                case OPTION_NAME:
                        host.name = optarg;
                        break;
                case OPTION_MEMORY:
                        if (!optarg[0] || optarg[strspn(optarg, "0123456789")])
                                return refuse("--memory-max= is a number of bytes");
                        host.limits.memory_bytes = run.memory_bytes = replay.memory_bytes = strtoull(optarg, NULL, 10);
                        break;
                case OPTION_OOM:
                        host.limits.oom_score_adj = (int)strtol(optarg, NULL, 10);
                        break;
                case OPTION_START:
                        if (!optarg[0] || strlen(optarg) > 9 || optarg[strspn(optarg, "0123456789")])
                                return refuse("--timeout-start= is a whole number of seconds, 999999999 at most");
                        run.start_ns = replay.start_ns = strtoull(optarg, NULL, 10) * UINT64_C(1000000000);
                        break;
                case OPTION_CHECK:
                case OPTION_RUN:
                        if (helper)
                                return refuse("--check and --run are given once");
                        helper = key;
                        break;
                case OPTION_REPLAY:
                        replay.what = optarg;
                        break;
                case OPTION_GDB:
                        replay.is_gdb = true;
                        break;
                case OPTION_PLUGIN:
                        replay.plugin = optarg;
                        break;
                case OPTION_STATE:
                        replay.state_dir = optarg;
                        break;
                case OPTION_JSON:
                        run.is_json = true;
                        break;
                case OPTION_VERSION:
                        puts("drover-worker " DROVER_VERSION);
                        return RUN_EXIT_DONE;
                case 'h':
                case OPTION_HELP:
                        fputs(usage, stdout);
                        return RUN_EXIT_DONE;
                default:
                        return refuse("unknown option");
                }
        char **words = argv + optind;
        int n_words = argc - optind;
        if (role)
                return helper || n_words > 0 ? refuse("--role= takes nothing else") : start_role(role, &host);
        if (replay.what && run.is_json)
                return refuse("--json is for --check and --run");
        if (replay.what)
                return helper || n_words > 0 ? refuse("--replay takes nothing else") : replay_capsule(&replay);
        if (helper == OPTION_CHECK ? n_words != 1 : n_words < 2)
                return refuse(helper ? "what is missing, or too much, is below" : "what shall it do?");
        if (!helper)
                return refuse("what shall it do?");
        run.plugin = words[0];
        run.job = helper == OPTION_RUN ? words[1] : NULL;
        run.words = words + 2;
        return run_plugin(&run);
}
