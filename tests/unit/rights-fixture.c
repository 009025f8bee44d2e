/* Tries to change what it may only read: by every way into a mapping, a description and a file that there is. Each
 * attempt is judged by its effect, which an own second mapping shows, never by what a call returned. */
#include "tests/unit/rights-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGE = 4096 };

struct rights {
        int fd, seals;
        mode_t mode;
        size_t bytes;
        uint8_t *map;       /* what the attempts are made on: mapped read-only */
        const uint8_t *see; /* the same memory */
        pid_t parent;
        bool is_owner;
        bool is_certain; /* the attempt has got what leads to a change */
};

static sigjmp_buf fault;

static void on_fault(int signal) { siglongjmp(fault, signal); }

static void poke(void *at) {
        if (sigsetjmp(fault, 1) == 0)
                *(volatile uint8_t *)at = 0;
}

static uint8_t *map_more(const struct rights *r, size_t bytes) {
        uint8_t *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, r->fd, 0);
        return p == MAP_FAILED ? NULL : p;
}

/* ---- the mapping ---- */

static void try_store(struct rights *r) { poke(r->map); }

static void try_mprotect(struct rights *r) {
        static const int ways[] = {PROT_READ | PROT_WRITE, PROT_WRITE, PROT_READ | PROT_WRITE | PROT_EXEC};
        for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
                if (mprotect(r->map, r->bytes, ways[i]) == 0)
                        poke(r->map + r->bytes - 1);
                mprotect(r->map, r->bytes, PROT_READ);
        }
}

/* As far as the file goes, and beyond it. */
static void try_mremap(struct rights *r) {
        const struct { size_t from, to; } ways[] = {{PAGE, r->bytes}, {r->bytes, r->bytes + PAGE}, {0, r->bytes}};
        for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
                uint8_t *p = map_more(r, ways[i].from ? ways[i].from : PAGE);
                uint8_t *grown = p ? mremap(p, ways[i].from, ways[i].to, MREMAP_MAYMOVE) : MAP_FAILED;
                if (grown == MAP_FAILED)
                        continue;
                mprotect(grown, ways[i].to, PROT_READ | PROT_WRITE);
                poke(grown + ways[i].to - 1);
                munmap(grown, ways[i].to);
        }
}

static void try_remap_file_pages(struct rights *r) {
        uint8_t *p = map_more(r, r->bytes);
        if (p && syscall(SYS_remap_file_pages, p, (size_t)PAGE, 0, 0, 0) == 0) {
                mprotect(p, PAGE, PROT_READ | PROT_WRITE);
                poke(p);
        }
}

static void try_madvise(struct rights *r) {
        static const int ways[] = {MADV_REMOVE,
                                   MADV_DONTNEED,
                                   MADV_FREE,
                                   20 /* COLD */,
                                   21 /* PAGEOUT */,
                                   23 /* POPULATE_WRITE */,
                                   24 /* DONTNEED_LOCKED */,
                                   102 /* GUARD_INSTALL */};
        for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
                uint8_t *p = map_more(r, r->bytes);
                if (p && madvise(p, r->bytes, ways[i]) == 0)
                        poke(p);
        }
}

/* The kernel writes for us. */
static void try_calls_that_write(struct rights *r) {
        uint8_t data[16] = {0};
        struct iovec from = {data, sizeof data}, to = {r->map, sizeof data};
        int pair[2];
        process_vm_writev(getpid(), &from, 1, &to, 1, 0);
        if (pipe(pair) == 0 && write(pair[1], data, sizeof data) == sizeof data)
                r->is_certain |= read(pair[0], r->map, sizeof data) > 0;
        r->is_certain |= getrandom(r->map, 16, 0) > 0;
        uint32_t own = 0;
        syscall(SYS_futex, &own, FUTEX_WAKE_OP, 1, 1, r->map, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 0));
}

static void try_proc_mem(struct rights *r) {
        uint8_t zero = 0;
        int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
        if (fd >= 0 && pwrite(fd, &zero, 1, (off_t)(uintptr_t)r->map) == 1)
                r->is_certain = true;
        if (fd >= 0)
                close(fd);
}

static void try_ptrace(struct rights *r) {
        pid_t pid = fork();
        if (pid == 0) {
                ptrace(PTRACE_TRACEME, 0, NULL, NULL);
                raise(SIGSTOP);
                _exit(0);
        }
        waitpid(pid, NULL, 0);
        r->is_certain = ptrace(PTRACE_POKEDATA, pid, r->map, 0) == 0;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

static void try_userfaultfd(struct rights *r) {
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register range = {.range = {(uintptr_t)r->map, r->bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */);
        if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
                r->is_certain = ioctl(fd, UFFDIO_REGISTER, &range) == 0; /* holes can be filled */
        if (fd >= 0)
                close(fd);
}

/* ---- the description ---- */

static void try_mmap(struct rights *r) {
        static const int ways[] = {MAP_SHARED, MAP_SHARED_VALIDATE, MAP_SHARED | MAP_POPULATE};
        for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
                uint8_t *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, ways[i], r->fd, 0);
                if (p != MAP_FAILED)
                        poke(p);
        }
}

/* Its own, not the file's. */
static void try_private(struct rights *r) {
        uint8_t *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, r->fd, 0);
        if (p != MAP_FAILED)
                poke(p);
}

static void write_by(struct rights *r, int fd) {
        uint8_t zero[2] = {0};
        struct iovec v = {zero, sizeof zero};
        int from = open("/dev/zero", O_RDONLY | O_CLOEXEC), zeros = memfd_create("zeros", MFD_CLOEXEC), pair[2];
        off_t at = 0;
        if (write(fd, zero, sizeof zero) < 0 && pwrite(fd, zero, sizeof zero, 0) < 0 && writev(fd, &v, 1) < 0)
                (void)!pwritev2(fd, &v, 1, 0, 0);
        (void)!sendfile(fd, from, NULL, sizeof zero);
        if (pipe(pair) == 0 && write(pair[1], zero, sizeof zero) > 0)
                (void)!splice(pair[0], NULL, fd, &at, sizeof zero, 0);
        off_t to = 0, source = 0;
        if (ftruncate(zeros, sizeof zero) == 0)
                (void)!copy_file_range(zeros, &source, fd, &to, sizeof zero, 0);
        close(zeros);
        if (from >= 0)
                close(from);
}

static void try_write(struct rights *r) { write_by(r, r->fd); }

static void try_sizes(struct rights *r) {
        fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE);
        fallocate(r->fd, FALLOC_FL_ZERO_RANGE, 0, PAGE);
        fallocate(r->fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE);
        fallocate(r->fd, 0, 0, (off_t)r->bytes + PAGE);
        (void)!ftruncate(r->fd, 0);
        (void)!ftruncate(r->fd, (off_t)r->bytes * 2);
}

static void try_seals(struct rights *r) {
        static const int seals[] = {F_SEAL_WRITE, 0x10 /* F_SEAL_FUTURE_WRITE */, 0x20 /* F_SEAL_EXEC */, F_SEAL_SEAL};
        for (unsigned i = 0; i < sizeof seals / sizeof *seals; i++)
                fcntl(r->fd, F_ADD_SEALS, seals[i]);
}

static void try_mode(struct rights *r) {
        if (r->is_owner)
                return;
        (void)!fchmod(r->fd, 0666);
        (void)!fchown(r->fd, getuid(), getgid());
}

/* ---- the file ---- */

static void open_by(struct rights *r, pid_t pid, int number) {
        static const int ways[] = {O_RDWR, O_WRONLY, O_RDWR | O_TRUNC, O_WRONLY | O_APPEND};
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, number);
        for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
                int fd = open(path, ways[i] | O_CLOEXEC | O_NONBLOCK);
                if (fd >= 0)
                        write_by(r, fd);
                if (fd >= 0)
                        close(fd);
        }
}

static void try_open(struct rights *r) {
        if (!r->is_owner)
                open_by(r, getpid(), r->fd);
}

/* Of whoever made it, its descriptors: the test's own process stands for the broker. */
static void try_others_descriptors(struct rights *r) {
        if (r->is_owner)
                return;
        int pidfd = (int)syscall(SYS_pidfd_open, r->parent, 0);
        for (int number = 0; number < 64; number++) {
                open_by(r, r->parent, number);
                if (pidfd >= 0 && syscall(SYS_pidfd_getfd, pidfd, number, 0) >= 0)
                        r->is_certain = true;
        }
}

static const struct {
        const char *name;
        void (*fn)(struct rights *r);
} attempts[] = {
        {"store", try_store},
        {"mprotect", try_mprotect},
        {"mremap", try_mremap},
        {"remap_file_pages", try_remap_file_pages},
        {"madvise", try_madvise},
        {"calls-that-write", try_calls_that_write},
        {"proc-mem", try_proc_mem},
        {"ptrace", try_ptrace},
        {"userfaultfd", try_userfaultfd},
        {"mmap", try_mmap},
        {"private", try_private},
        {"write", try_write},
        {"sizes", try_sizes},
        {"seals", try_seals},
        {"mode", try_mode},
        {"open", try_open},
        {"others-descriptors", try_others_descriptors},
};

/* ---- the child ---- */

static bool has_changed(const struct rights *r) {
        struct stat st;
        if (fstat(r->fd, &st) < 0 || (size_t)st.st_size != r->bytes || st.st_mode != r->mode ||
            fcntl(r->fd, F_GET_SEALS) != r->seals)
                return true;
        for (size_t i = 0; i < r->bytes; i++)
                if (r->see[i] != RIGHTS_BYTE)
                        return true;
        return false;
}

static void put_right(struct rights *r) {
        char path[64];
        (void)!ftruncate(r->fd, (off_t)r->bytes);
        snprintf(path, sizeof path, "/proc/self/fd/%d", r->fd);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        void *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd < 0 ? r->fd : fd, 0);
        if (p != MAP_FAILED) {
                memset(p, RIGHTS_BYTE, r->bytes);
                munmap(p, r->bytes);
        }
        if (fd >= 0)
                close(fd);
}

static void become(uid_t uid) {
        if (uid != geteuid() && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
                _exit(2);
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* its own /proc/self is open to it, as to any program */
        const struct sigaction action = {.sa_handler = on_fault};
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGBUS, &action, NULL);
}

static void child(int fd, size_t bytes, uid_t uid, pid_t parent, int to) {
        struct stat st;
        become(uid);
        struct rights r = {.fd = fd, .bytes = bytes, .parent = parent, .seals = fcntl(fd, F_GET_SEALS)};
        if (fstat(fd, &st) < 0)
                _exit(2);
        r.mode = st.st_mode;
        r.is_owner = st.st_uid == uid;
        r.map = map_more(&r, bytes);
        r.see = map_more(&r, bytes);
        if (!r.map || !r.see || has_changed(&r))
                _exit(2);
        for (unsigned i = 0; i < sizeof attempts / sizeof *attempts; i++) {
                r.is_certain = false;
                attempts[i].fn(&r);
                bool changed = has_changed(&r);
                if ((changed || r.is_certain) && dprintf(to, "%s ", attempts[i].name) < 0)
                        _exit(2);
                if (changed)
                        put_right(&r);
        }
        _exit(0);
}

void rights_try(int fd, size_t bytes, uid_t uid, char names[static RIGHTS_TEXT]) {
        int pair[2], status;
        size_t n = 0;
        ssize_t got;
        pid_t parent = getpid();
        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        pid_t pid = fork();
        if (pid == 0)
                child(fd, bytes, uid, parent, pair[1]);
        close(pair[1]);
        while (n < RIGHTS_TEXT - 1 && (got = read(pair[0], names + n, RIGHTS_TEXT - 1 - n)) > 0)
                n += (size_t)got;
        names[n] = 0;
        close(pair[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}
