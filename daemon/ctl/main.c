/* droverctl: what an operator and a shell script use to talk to droverd.
 *
 * Owns errors, the interrupt flag and what the exit code is when the output is lost. An ordinary client: everything it
 * does goes over the bus interface (remote.c) or a channel (ipc/client/session/session.h), so whatever it can do, any
 * program can. Each verb (verbs.c) returns its exit code; what each code means stands in ctl.h, in --help and in the
 * man page.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/options.h"
#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/terminal.h"

void ctl_error(const char *format, ...) {
        ctl_cleanup(ctl_freep) char *text = NULL, *plain = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;
        else
                plain = terminal_plain(text, (size_t)n);
        fflush(stdout);
        fprintf(stderr, "droverctl: %s\n", plain ? plain : "out of memory");
}

int ctl_no_memory(void) {
        ctl_error("out of memory");
        return CTL_BROKEN;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) { interrupted = signal; }

/* What the caller wants ignored (nohup, a job in the background of a script) stays ignored. */
void ctl_catch_interrupts(void) {
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        struct sigaction action = {.sa_handler = on_interrupt}, before;

        sigemptyset(&action.sa_mask);
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
                if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
                        sigaction(signals[i], &action, NULL);
}

bool ctl_is_interrupted(void) { return interrupted != 0; }

/* A closed standard stream stays one that cannot be used: else the connection to the bus would get its number, and the
 * output would go there. */
static void occupy_closed_streams(void) {
        for (int fd = 0; fd <= STDERR_FILENO; fd++)
                if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
                        open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char *argv[]) {
        struct ctl c = {0};
        int r;

        occupy_closed_streams();
        r = options_parse(&c, argc, argv);
        if (r < 0) {
                if (c.verb->is_remote && remote_open(&c.remote, c.scope, c.address) < 0)
                        return CTL_UNREACHABLE; /* remote_open said why */
                r = c.verb->run(&c);
                remote_free(c.remote);
        }
        if ((fflush(stdout) != 0 || ferror(stdout)) && r == CTL_OK) {
                ctl_error("cannot write the output: %s", strerror(errno));
                r = CTL_BROKEN;
        }
        return r;
}
