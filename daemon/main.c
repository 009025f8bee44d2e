/* droverd's command line. Everything else: daemon.c. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/log/log.h"
#include "ipc/memory/kernel.h"
#include "ipc/values/capsule.h"

enum {
        OPT_USER = 256,
        OPT_SYSTEM,
        OPT_ADDRESS,
        OPT_CONFIG,
        OPT_PLUGIN,
        OPT_RUNTIME,
        OPT_STATE,
        OPT_LIBEXEC,
        OPT_LOG,
        OPT_CHECK
};

static const struct option main_options[] = {
        {"address", required_argument, NULL, OPT_ADDRESS},
        {"check", no_argument, NULL, OPT_CHECK},
        {"config-dir", required_argument, NULL, OPT_CONFIG},
        {"help", no_argument, NULL, 'h'},
        {"libexec-dir", required_argument, NULL, OPT_LIBEXEC},
        {"log-level", required_argument, NULL, OPT_LOG},
        {"plugin-dir", required_argument, NULL, OPT_PLUGIN},
        {"runtime-dir", required_argument, NULL, OPT_RUNTIME},
        {"state-dir", required_argument, NULL, OPT_STATE},
        {"system", no_argument, NULL, OPT_SYSTEM},
        {"user", no_argument, NULL, OPT_USER},
        {"version", no_argument, NULL, 'V'},
        {0},
};

static void main_help(void) {
        puts("droverd - runs native plugins as supervised, sandboxed worker processes\n"
             "\n"
             "  --user, --system    whose bus and files (default: --system for root, else --user)\n"
             "  --address=BUS       a D-Bus address instead\n"
             "  --config-dir=DIR    drover.conf and pools.d/ from here instead of the search path\n"
             "  --plugin-dir=DIR    plugins (default " DROVER_PLUGIN_DIR ")\n"
             "  --runtime-dir=DIR   the spawner's socket (default /run/drover), a user's lock "
             "($XDG_RUNTIME_DIR/drover)\n"
             "  --state-dir=DIR     what outlives a restart (default /var/lib/drover, a user's "
             "$XDG_STATE_HOME/drover)\n"
             "  --libexec-dir=DIR   drover-spawn and drover-worker (default " DROVER_LIBEXEC_DIR ")\n"
             "  --log-level=LEVEL   error, warning, notice, info or debug\n"
             "  --check             read all files, tell every error, exit 1 if there was one\n"
             "  --help, --version\n"
             "\n"
             "Exit status: 0 after SIGTERM and a drain, 1 when it cannot run, 2 for a bad command line.");
}

/* 0 go on, 1 leave with *ret_status */
static int main_parse(int argc, char **argv, struct daemon_options *o, bool *ret_check, int *ret_status) {
        for (int c; (c = getopt_long(argc, argv, "hV", main_options, NULL)) >= 0;) {
                const char **const directory[] = {
                        [OPT_ADDRESS - OPT_USER] = &o->address,   [OPT_CONFIG - OPT_USER] = &o->config_dir,
                        [OPT_PLUGIN - OPT_USER] = &o->plugin_dir, [OPT_RUNTIME - OPT_USER] = &o->runtime_dir,
                        [OPT_STATE - OPT_USER] = &o->state_dir,   [OPT_LIBEXEC - OPT_USER] = &o->libexec_dir,
                };
                *ret_status = 0;
                if (c == 'h') {
                        main_help();
                        return 1;
                } else if (c == 'V') {
                        puts("droverd " DROVER_VERSION);
                        return 1;
                } else if (c == OPT_USER || c == OPT_SYSTEM) {
                        o->is_user = c == OPT_USER;
                } else if (c == OPT_CHECK) {
                        *ret_check = true;
                } else if (c == OPT_LOG && log_level_from_string(optarg, &o->log_level) == 0) {
                        o->has_log_level = true;
                } else if (c >= OPT_ADDRESS && c <= OPT_LIBEXEC) {
                        *directory[c - OPT_USER] = optarg;
                } else {
                        *ret_status = 2;
                        if (c == OPT_LOG)
                                fprintf(stderr, "droverd: --log-level=%s: use error, warning, notice, info or debug\n",
                                        optarg);
                        return 1;
                }
        }
        if (optind < argc) {
                fprintf(stderr, "droverd: unexpected argument \"%s\" (see --help)\n", argv[optind]);
                *ret_status = 2;
                return 1;
        }
        return 0;
}

/* 0, 1 and 2 are there: a socket of ours with number 2 would get our messages. Of what else was inherited nothing stays
 * open. False: there was no stderr. */
static bool main_take_descriptors(void) {
        int fd;
        bool has_stderr = fcntl(STDERR_FILENO, F_GETFD) >= 0;
        syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
        while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
                ;
        if (fd >= 0)
                close(fd);
        return has_stderr;
}

/* For whoever started us without a stderr: the journal is where messages are looked for. */
static int main_log_to_journal(void) {
        char stream[64];
        struct stat st;
        int fd = sd_journal_stream_fd("droverd", LOG_LEVEL_INFO, true);
        if (fd < 0)
                return fd;
        int r = dup2(fd, STDERR_FILENO) < 0 || fstat(STDERR_FILENO, &st) < 0 ? -errno : 0;
        close(fd);
        if (r < 0)
                return r;
        snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
        return setenv("JOURNAL_STREAM", stream, true) < 0 ? -errno : 0; /* log.c and drover-spawn look for it */
}

/* What the kernel, or a filter around us, refuses of what we need: told at once. */
static bool main_is_refused(void) {
        unsigned refused = kernel_find_refused(KERNEL_PIDFD_OPEN | KERNEL_PIDFD_SEND_SIGNAL | KERNEL_CLOSE_RANGE |
                                               KERNEL_MEMFD_CREATE | KERNEL_SIGNALFD | KERNEL_IO_URING);
        char text[512];
        if (!(refused & ~(unsigned)KERNEL_IO_URING)) /* of the ring alone, the loop knows more (loop.c) */
                return false;
        kernel_describe_refused(refused, text, sizeof(text));
        log_error("system calls that droverd needs are refused: %s", text);
        return true;
}

int main(int argc, char **argv) {
        struct daemon_options o = {
                .is_user = geteuid() != 0,
                .plugin_dir = DROVER_PLUGIN_DIR,
                .libexec_dir = DROVER_LIBEXEC_DIR,
                .log_level = LOG_LEVEL_INFO,
        };
        bool check = false;
        int status;
        char state_dir[512];
        bool has_stderr = main_take_descriptors();
        if (main_parse(argc, argv, &o, &check, &status))
                return status;
        if (!has_stderr && main_log_to_journal() < 0)
                return 1; /* there is nobody to tell, and so there would not be later */
        if (!o.state_dir) {
                capsule_state_dir(o.is_user, state_dir, sizeof(state_dir));
                o.state_dir = state_dir;
        }
        log_open("droverd", o.log_level);
        if (check)
                return daemon_check(&o);
        if (main_is_refused())
                return 1;
        int r = log_detach(LOG_WRITER);
        if (r < 0) {
                log_error("no process that writes the log: %s", strerror(-r));
                return 1;
        }
        status = daemon_run(&o);
        log_finish();
        return status;
}
