/* test_checkpoint_short.c - the system writes or reads less than it was asked for: the rest follows, or the save says why not.
 *
 * What stdio calls inside no function of ours can take the place of.  So the kernel hands these calls of a process to a handler
 * (seccomp), which asks for less by another call.  As that can't be taken back, each try is a process of its own. */
/* rooms: train */
#define _GNU_SOURCE /* names of registers */
#include "test_checkpoint.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>

enum { SAVED = 0, REFUSED = 1, WRONG = 2, NOT_HERE = 3, PART = 3 };

static struct {
    int64_t calls, cuts;
    int64_t
        fill_at; /* the disk has no room for all of this write, nor for any byte of its file after it; 0: it has */
    int full; /* that file */
} disk = {.full = -1};

/* What the kernel returns: a length, or an errno with a minus. */
static int64_t serve(long call, int fd, void *data, size_t n, int64_t offset)
{
    const bool cut = n > 1 && (disk.fill_at == 0 || ++disk.calls == disk.fill_at);
    if (disk.fill_at > 0 && fd == disk.full) return -ENOSPC;
    if (cut && disk.fill_at > 0) disk.full = fd;
    disk.cuts += cut;
    const struct iovec part = {data, cut ? (n + PART - 1) / PART : n};
    const long got = call == SYS_write  ? syscall(SYS_writev, fd, &part, 1)
                     : call == SYS_read ? syscall(SYS_readv, fd, &part, 1)
                                        : syscall(SYS_preadv, fd, &part, 1, offset, 0);
    return got < 0 ? -errno : got;
}

static void handle(int number, siginfo_t *info, void *context)
{
    const int error = errno;
    ucontext_t *const u = context;
    (void)number;
#if defined __x86_64__
    greg_t *const r = u->uc_mcontext.gregs;
    r[REG_RAX] = serve(info->si_syscall, (int)r[REG_RDI], (void *)r[REG_RSI], (size_t)r[REG_RDX],
                       r[REG_R10]);
#elif defined __aarch64__
    unsigned long long *const r = u->uc_mcontext.regs;
    r[0] = (unsigned long long)serve(info->si_syscall, (int)r[0], (void *)r[1], (size_t)r[2],
                                     (int64_t)r[3]);
#else
    (void)info;
    (void)u;
    (void)serve;
#endif
    errno = error;
}

/* From now on these two calls are served by us. */
static bool take_over(long first, long second)
{
#if !defined __x86_64__ && !defined __aarch64__
    return false;
#endif
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)first, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)second, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {sizeof lines / sizeof lines[0], lines};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Save step 2, in a process whose writes are short: all of them, or the one after which the disk is full. */
static int save(fixture *f, int64_t fill_at)
{
    fixture_fill(f, 2);
    const checkpoint_state s = fixture_state(2);
    disk.fill_at = fill_at;
    if (!take_over(SYS_write, SYS_write)) return NOT_HERE;
    const cudpo_status status = fixture_save_state(f, &s, 0);
    if (status == CUDPO_OK) return disk.full < 0 && disk.cuts + disk.calls > 6 ? SAVED : WRONG;
    const char *message = cudpo_error_message();
    const bool named =
        strstr(message, f->output) != NULL && strstr(message, strerror(ENOSPC)) != NULL;
    if (disk.full >= 0 && named && cudpo_exit_code(status) == 73) return REFUSED;
    fprintf(stderr, "write %lld: \"%s\"\n", (long long)fill_at, message);
    return WRONG;
}

/* Find step 1 and read it, in a process whose reads are short. */
static int resume(fixture *f)
{
    const model_weights *const all[] = {&f->weights, &f->first, &f->second};
    checkpoint_state s;
    char *path = NULL;
    fixture_fill(f, 1);
    if (!take_over(SYS_read, SYS_pread64)) return NOT_HERE;
    cudpo_status status = checkpoint_newest(&path, f->output);
    if (status == CUDPO_OK && path == NULL) return WRONG;
    if (status == CUDPO_OK) status = checkpoint_read(&s, path);
    for (int i = 0; i < 3 && status == CUDPO_OK; i++) {
        const size_t n = (size_t)all[i]->all.rows * sizeof(float);
        model_weights got;
        status = model_weights_create(&got, backend_cpu(), &f->config, DTYPE_F32);
        if (status == CUDPO_OK)
            status = checkpoint_restore(got.all, 0, &got, (checkpoint_tensors)i, path, s.shards);
        if (status == CUDPO_OK && memcmp(got.all.data, all[i]->all.data, n) != 0) return WRONG;
        model_weights_destroy(&got);
    }
    free(path);
    if (status != CUDPO_OK) fprintf(stderr, "reads: \"%s\"\n", cudpo_error_message());
    return status == CUDPO_OK && disk.cuts > 6 && s.step == 1 ? SAVED : WRONG;
}

/* How a process ends that does one of them.  fill_at < 0: it resumes. */
static int try(fixture *f, int64_t fill_at)
{
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(fill_at < 0 ? resume(f) : save(f, fill_at));
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) fail_msg("ended by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == NOT_HERE) {
        print_message("skipped: no seccomp here, or registers that are not known\n");
        fixture_close(f);
        skip();
    }
    return WEXITSTATUS(status);
}

static void short_writes_are_continued(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    assert_int_equal(try(&f, 0), SAVED);
    assert_int_equal(fixture_newest(&f), 2);
    fixture_close(&f);
}

static void short_reads_are_continued(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    assert_int_equal(try(&f, -1), SAVED);
    fixture_close(&f);
}

/* The k-th write is short and what should follow fails, for every k. */
static void the_disk_fills_up(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    int64_t k = 1;
    CHECK_OK(fixture_save(&f, 1, 0));
    for (int end = REFUSED; end == REFUSED; k++) {
        end = try(&f, k);
        if (end != SAVED && end != REFUSED) fail_msg("write %lld: %d", (long long)k, end);
        assert_int_equal(fixture_newest(&f), end == SAVED ? 2 : 1);
    }
    printf("%lld writes, each cut short before a full disk\n", (long long)k - 2);
    assert_true(k - 2 > 6);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_writes_are_continued),
        cmocka_unit_test(short_reads_are_continued),
        cmocka_unit_test(the_disk_fills_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
