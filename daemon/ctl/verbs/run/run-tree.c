/* run's temporary directory:
 *
 *   bus.conf bus            dbus-daemon's configuration and socket
 *   config/pools.d/NAME.pool one pool a --plugin, with the settings of the command line
 *   plugins/NAME.so         copies: the originals may stand in different directories, or be writable for others
 *   libexec/ bin/           links to the programs, so an installed Drover and a build tree look the same
 *   runtime/ state/         droverd's own
 *
 * Mode 0700 and named by mkdtemp; removed by whichever of run's two processes is left at the end (run.c). The programs
 * are found beside droverctl itself, never through PATH: run never mixes two versions. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/ctl/verbs/run/run-tree.h"

/* Where a program stands, seen from droverctl's directory: installed, then in a build tree. */
struct program {
        const char *name, *directory;
        const char *places[3];
};

static const struct program programs[] = {
        {"droverctl", "bin", {"droverctl"}},
        {"droverd", "bin", {"droverd", "../sbin/droverd", "../droverd"}},
        {"drover-spawn", "libexec", {"../libexec/drover/drover-spawn", "../spawn/drover-spawn"}},
        {"drover-worker", "libexec", {"../libexec/drover/drover-worker", "../../plugins/host/drover-worker"}},
};

static const char bus_config[] = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\"\n"
                                 " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
                                 "<busconfig>\n"
                                 "  <type>session</type>\n"
                                 "  <listen>unix:path=%s/bus</listen>\n"
                                 "  <auth>EXTERNAL</auth>\n"
                                 "  <policy context=\"default\">\n"
                                 "    <allow send_destination=\"*\" eavesdrop=\"true\"/>\n"
                                 "    <allow eavesdrop=\"true\"/>\n"
                                 "    <allow own=\"*\"/>\n"
                                 "  </policy>\n"
                                 "  <limit name=\"max_replies_per_connection\">50000</limit>\n"
                                 "  <limit name=\"max_match_rules_per_connection\">50000</limit>\n"
                                 "  <limit name=\"max_incoming_unix_fds\">1000</limit>\n"
                                 "  <limit name=\"max_outgoing_unix_fds\">1000</limit>\n"
                                 "</busconfig>\n";

static int make_path(char path[RUN_PATH], const char *format, ...) __attribute__((format(printf, 2, 3)));
static int make_path(char path[RUN_PATH], const char *format, ...) {
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(path, RUN_PATH, format, ap);
        va_end(ap);
        return n < 0 || n >= RUN_PATH ? -ENAMETOOLONG : 0;
}

static int fail(const char *what, int error) {
        ctl_error("run: %s: %s", what, strerror(-error));
        return CTL_RUN_FAILED;
}

static int link_program(struct run_tree *t, const char *own_directory, const struct program *p) {
        char target[RUN_PATH], link[RUN_PATH];

        for (size_t i = 0; i < sizeof p->places / sizeof *p->places && p->places[i]; i++) {
                ctl_cleanup(ctl_freep) char *real = NULL;

                if (make_path(target, "%s/%s", own_directory, p->places[i]) < 0 || !(real = realpath(target, NULL)))
                        continue;
                if (make_path(link, "%s/%s/%s", t->path, p->directory, p->name) < 0 || symlink(real, link) < 0)
                        return fail(link, -errno);
                return CTL_OK;
        }
        ctl_error("run: %s is not where it belongs, beside %s/droverctl", p->name, own_directory);
        return CTL_RUN_FAILED;
}

static int link_programs(struct run_tree *t) {
        char own[RUN_PATH];
        ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
        char *slash;

        if (n < 0)
                return fail("/proc/self/exe", -errno);
        own[n] = 0;
        slash = strrchr(own, '/');
        if (slash)
                *slash = 0;
        for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
                int code = link_program(t, own, &programs[i]);

                if (code != CTL_OK)
                        return code;
        }
        return CTL_OK;
}

static int copy_file(const char *from, const char *to) {
        ctl_cleanup(ctl_closep) int in = open(from, O_RDONLY | O_CLOEXEC);
        ctl_cleanup(ctl_closep) int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
        struct stat st;
        char buffer[65536];
        ssize_t n;

        if (in < 0 || out < 0 || fstat(in, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        while ((n = read(in, buffer, sizeof buffer)) > 0)
                if (write(out, buffer, (size_t)n) != n)
                        return errno ? -errno : -ENOSPC;
        return n < 0 ? -errno : 0;
}

/* "primes" from "/x/primes.so", with what a pool name does not allow made '_'. */
static void name_pool(char name[RUN_POOL_NAME], const char *file) {
        const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
        size_t n = strlen(base);

        if (n > 3 && strcmp(base + n - 3, ".so") == 0)
                n -= 3;
        if (n > RUN_POOL_NAME - 1)
                n = RUN_POOL_NAME - 1;
        for (size_t i = 0; i < n; i++)
                name[i] = strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", base[i]) ? base[i]
                                                                                                               : '_';
        name[n] = 0;
}

static void write_settings(FILE *f, const struct ctl *c, const char *section) {
        for (unsigned i = 0; i < c->n_settings; i++)
                if (strcmp(c->settings[i].section, section) == 0)
                        fprintf(f, "%s=%s\n", c->settings[i].key, c->settings[i].value);
}

static int write_pool(const char *path, const char *pool, const struct ctl *c) {
        FILE *f = fopen(path, "we");

        if (!f)
                return -errno;
        fprintf(f, "[Pool]\nPlugin=%s.so\n", pool);
        write_settings(f, c, "Pool");
        fputs("[Job]\n", f);
        write_settings(f, c, "Job");
        fputs("[Worker]\n", f);
        write_settings(f, c, "Worker");
        return fclose(f) == 0 ? 0 : -errno;
}

static int add_pool(struct run_tree *t, const struct ctl *c, const char *plugin) {
        char *name = t->pools[t->n_pools];
        char path[RUN_PATH];
        int r;

        name_pool(name, plugin);
        r = make_path(path, "%s/plugins/%s.so", t->path, name);
        if (r >= 0)
                r = copy_file(plugin, path);
        if (r < 0) {
                ctl_error("run: --plugin=%s: %s", plugin,
                          r == -EEXIST   ? "a second plugin of that name"
                          : r == -EINVAL ? "not a file"
                                         : strerror(-r));
                return r == -ENOENT || r == -EEXIST || r == -EINVAL ? CTL_USAGE : CTL_RUN_FAILED;
        }
        r = make_path(path, "%s/config/pools.d/%s.pool", t->path, name);
        if (r >= 0)
                r = write_pool(path, name, c);
        if (r < 0)
                return fail(path, r);
        t->n_pools++;
        return CTL_OK;
}

static int make_directories(struct run_tree *t) {
        static const char *const names[] = {"config", "config/pools.d", "plugins", "libexec",
                                            "bin",    "runtime",        "state"};
        const char *tmp = getenv("TMPDIR");
        char path[RUN_PATH];

        /* A socket's address has 107 bytes: a long TMPDIR is not used. */
        if (!tmp || *tmp != '/' || strlen(tmp) > 32)
                tmp = "/tmp";
        snprintf(t->path, sizeof t->path, "%s/drover-run-XXXXXX", tmp);
        if (!mkdtemp(t->path)) {
                int error = -errno;

                t->path[0] = 0;
                return fail(tmp, error);
        }
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (make_path(path, "%s/%s", t->path, names[i]) < 0 || mkdir(path, 0700) < 0)
                        return fail(path, -errno);
        return CTL_OK;
}

static int write_bus_config(struct run_tree *t) {
        char path[RUN_PATH];
        FILE *f;

        make_path(path, "%s/bus.conf", t->path);
        f = fopen(path, "we");
        if (!f)
                return fail(path, -errno);
        fprintf(f, bus_config, t->path);
        return fclose(f) == 0 ? CTL_OK : fail(path, -errno);
}

int run_tree_make(struct run_tree *t, const struct ctl *c) {
        int code = make_directories(t);

        if (code == CTL_OK)
                code = write_bus_config(t);
        if (code == CTL_OK)
                code = link_programs(t);
        for (unsigned i = 0; code == CTL_OK && i < c->n_plugins; i++)
                code = add_pool(t, c, c->plugins[i]);
        if (code != CTL_OK)
                run_tree_remove(t);
        return code;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        remove(path);
        return 0; /* what cannot go stays: the rest goes */
}

void run_tree_remove(struct run_tree *t) {
        if (t->path[0])
                nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        t->path[0] = 0;
}
