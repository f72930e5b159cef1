/* Preloaded where valgrind counts.
 *
 * The worker's costs are counted from its first look at the clock after the first byte of the file COUNTING has become 1, to
 * its first one after that has become 0 again: then callgrind writes them. So the start and the end of the process don't count.
 *
 * Meanwhile the monotonic clock goes by the process's own CPU time, and FACTOR times more slowly, because valgrind makes a
 * program about as much slower: what is done when nothing has happened for a while, or every so often, must not come into a
 * count, however busy the machine is.
 *
 * The kernel doesn't tell where its vDSO is (PR_GET_AUXV, Linux 6.4): valgrind unmaps it, and who looks there dies. What
 * valgrind itself says of it, in /proc/self/auxv, is right.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#define SECOND 1000000000LL
#define FACTOR 50
#define GET_AUXV 0x41555856

static const volatile char *counting = "";
static char mode;
/* What the clock said when the mode last changed, and what it went by then. */
static long long said, went;

static long long read_clock(clockid_t clock) {
    struct timespec at;
    syscall(SYS_clock_gettime, clock, &at);
    return at.tv_sec * SECOND + at.tv_nsec;
}

static long long goes_by(void) {
    return mode ? read_clock(CLOCK_PROCESS_CPUTIME_ID) / FACTOR : read_clock(CLOCK_MONOTONIC);
}

static int is_worker(void) {
    char name[16];
    return !prctl(PR_GET_NAME, name) && !strncmp(name, "worker-", 7);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (clock != CLOCK_MONOTONIC) return syscall(SYS_clock_gettime, clock, at);
    long long now = said + goes_by() - went;
    if (*counting != mode && is_worker()) {
        said = now;
        mode = *counting;
        went = goes_by();
        if (mode) {
            CALLGRIND_ZERO_STATS;
        } else {
            CALLGRIND_DUMP_STATS;
        }
    }
    at->tv_sec = now / SECOND;
    at->tv_nsec = now % SECOND;
    return 0;
}

__attribute__((constructor)) static void find_out_when_counting(void) {
    const char *path = getenv("COUNTING");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(0, 1, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) counting = page;
    close(file);
}

__attribute__((constructor)) static void hide_auxv(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GET_AUXV, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    /* Where it is refused, older kernels need none of it. */
    if (!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
