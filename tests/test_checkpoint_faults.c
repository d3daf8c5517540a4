/* test_checkpoint_faults.c - every call to the system that a save makes fails once: no checkpoint is lost by it.
 *
 * The calls are defined here, in the program itself, so the linker prefers them to the C library's; each counts, and the
 * one that is asked for fails without having happened.  What stdio does inside is not seen: its entries are. */
/* rooms: train */
#undef _FORTIFY_SOURCE /* its inline versions of the calls would be in the way of ours */
#define _GNU_SOURCE    /* RTLD_NEXT */
#include "test_checkpoint.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    int64_t calls, fail_at; /* fail_at 0: no fault */
    int error;
    const char *fired; /* the call that failed */
} fault;

static bool fails(const char *call)
{
    if (fault.fail_at == 0 || ++fault.calls != fault.fail_at) return false;
    fault.fired = call;
    errno = fault.error;
    return true;
}

/* The C library's function of that name, into a pointer to a function. */
static void next(void *pointer, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL) abort();
    memcpy(pointer, &symbol, sizeof symbol);
}

int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...);
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    next(&real, "open");
    return fails("open") ? -1 : real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    int (*real)(int, const char *, int, ...);
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    next(&real, "openat");
    return fails("openat") ? -1 : real(folder, path, flags, mode);
}

FILE *fdopen(int fd, const char *mode)
{
    FILE *(*real)(int, const char *);
    next(&real, "fdopen");
    return fails("fdopen") ? NULL : real(fd, mode);
}

/* Half of it is written before it fails, as on a disk that fills up. */
size_t fwrite(const void *data, size_t size, size_t n, FILE *stream)
{
    size_t (*real)(const void *, size_t, size_t, FILE *);
    next(&real, "fwrite");
    if (!fails("fwrite")) return real(data, size, n, stream);
    const size_t half = real(data, size, n / 2, stream);
    errno = fault.error;
    return half < n ? half : 0;
}

int fflush(FILE *stream)
{
    int (*real)(FILE *);
    next(&real, "fflush");
    return fails("fflush") ? EOF : real(stream);
}

int fsync(int fd)
{
    int (*real)(int);
    next(&real, "fsync");
    return fails("fsync") ? -1 : real(fd);
}

int ftruncate(int fd, off_t length)
{
    int (*real)(int, off_t);
    next(&real, "ftruncate");
    return fails("ftruncate") ? -1 : real(fd, length);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    next(&real, "rename");
    return fails("rename") ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    int (*real)(const char *, mode_t);
    next(&real, "mkdir");
    return fails("mkdir") ? -1 : real(path, mode);
}

int unlink(const char *path)
{
    int (*real)(const char *);
    next(&real, "unlink");
    return fails("unlink") ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    int (*real)(int, const char *, int);
    next(&real, "unlinkat");
    return fails("unlinkat") ? -1 : real(folder, path, flags);
}

DIR *opendir(const char *path)
{
    DIR *(*real)(const char *);
    next(&real, "opendir");
    return fails("opendir") ? NULL : real(path);
}

DIR *fdopendir(int fd)
{
    DIR *(*real)(int);
    next(&real, "fdopendir");
    return fails("fdopendir") ? NULL : real(fd);
}

struct dirent *readdir(DIR *d)
{
    struct dirent *(*real)(DIR *);
    next(&real, "readdir");
    return fails("readdir") ? NULL : real(d);
}

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* stderr goes to /dev/null: a thousand warnings are right here. */
static int silence(void)
{
    const int saved = dup(2), null = open("/dev/null", O_WRONLY);
    assert_true(saved >= 0 && null >= 0);
    dup2(null, 2);
    close(null);
    return saved;
}

static void restore_stderr(int saved)
{
    dup2(saved, 2);
    close(saved);
}

static const int errors[] = {EIO, ENOSPC, EDQUOT, EROFS, EMFILE, EACCES, EINTR, ENOMEM};
enum { ERRORS = sizeof errors / sizeof errors[0] };

/* The message of a failed save names a file of the run, and what the system said. */
static void check_message(const fixture *f, int64_t k)
{
    const char *message = cudpo_error_message();
    if (strstr(message, f->folder) == NULL || strstr(message, strerror(fault.error)) == NULL)
        fail_msg("call %lld (%s): \"%s\" lacks the file or \"%s\"", (long long)k, fault.fired,
                 message, strerror(fault.error));
}

/* Save step `step` over an output folder that already holds `before`, with the k-th call failing, for every k.  Returns
 * how many calls there are. */
static int64_t fail_every_call(int64_t before, int64_t step, int64_t keep, int shards)
{
    fixture f;
    fixture_open(&f);
    f.shards = shards;
    int64_t k = 1, failures = 0;
    for (;; k++) {
        CHECK_OK(file_remove_folder(f.output));
        CHECK_OK(fixture_save(&f, before, 0));
        fixture_fill(&f, step);
        const checkpoint_state s = fixture_state(step);
        const int files = open_files();
        fault.calls = 0;
        fault.fired = NULL;
        fault.error = errors[k % ERRORS];
        fault.fail_at = k;
        const cudpo_status status = fixture_save_state(&f, &s, keep);
        fault.fail_at = 0;
        if (status != CUDPO_OK) {
            assert_non_null(fault.fired);
            check_message(&f, k);
            assert_true(cudpo_exit_code(status) == 73 || cudpo_exit_code(status) == 77 ||
                        cudpo_exit_code(status) == 71 || cudpo_exit_code(status) == 65);
            failures++;
        }
        cudpo_error_clear();
        if (open_files() != files)
            fail_msg("call %lld (%s): open files", (long long)k, fault.fired);
        /* The old one or the new one, whole. */
        const int64_t newest = fixture_newest(&f);
        if (newest != step && (status == CUDPO_OK || newest != before))
            fail_msg("call %lld (%s): newest is %lld", (long long)k, fault.fired,
                     (long long)newest);
        /* The next try succeeds and leaves nothing behind. */
        CHECK_OK(fixture_save(&f, step, 1));
        CHECK_OK(checkpoint_clean(f.output, step));
        assert_int_equal(fixture_newest(&f), step);
        DIR *d = opendir(f.output);
        assert_non_null(d);
        int entries = 0;
        while (readdir(d) != NULL)
            entries++;
        closedir(d);
        assert_int_equal(entries, 3); /* ., .. and the checkpoint */
        if (fault.fired == NULL) break;
    }
    printf("%lld calls, %lld of them fatal to the save\n", (long long)k - 1, (long long)failures);
    assert_true(failures > 60);
    fixture_close(&f);
    return k - 1;
}

static void any_call_may_fail(void **state)
{
    (void)state;
    const int saved = silence();
    const int64_t calls = fail_every_call(1, 2, 1, 0);
    restore_stderr(saved);
    assert_true(calls > 80);
}

static void any_call_may_fail_of_a_replacement(void **state)
{
    (void)state;
    const int saved = silence();
    const int64_t calls = fail_every_call(2, 2, 0, 0);
    restore_stderr(saved);
    assert_true(calls > 80);
}

static void any_call_may_fail_of_shards(void **state)
{
    (void)state;
    const int saved = silence();
    const int64_t calls = fail_every_call(1, 2, 1, 2);
    restore_stderr(saved);
    assert_true(calls > 80);
}

/* Finding the newest one: what can't be read is no reason to crash, nor to take half of one. */
static void fail_every_call_of_a_resume(int shards)
{
    fixture f;
    fixture_open(&f);
    f.shards = shards;
    const int saved = silence();
    for (int64_t k = 1;; k++) {
        CHECK_OK(file_remove_folder(f.output));
        CHECK_OK(fixture_save(&f, 1, 0));
        CHECK_OK(fixture_save(&f, 2, 0));
        char path[700], temporary[700], *newest = NULL;
        snprintf(path, sizeof path, "%s/checkpoint-2", f.output);
        snprintf(temporary, sizeof temporary, "%s/.checkpoint-2.tmp", f.output);
        CHECK_OK(file_rename(temporary, path));
        const int files = open_files();
        fault.calls = 0;
        fault.fired = NULL;
        fault.error = errors[k % ERRORS];
        fault.fail_at = k;
        const cudpo_status status = checkpoint_newest(&newest, f.output);
        fault.fail_at = 0;
        if (open_files() != files)
            fail_msg("call %lld (%s): open files", (long long)k, fault.fired);
        if (status != CUDPO_OK) {
            assert_null(newest);
            check_message(&f, k);
        } else {
            assert_non_null(newest);
            fixture_check(&f, newest, newest[strlen(newest) - 1] - '0');
        }
        cudpo_error_clear();
        free(newest);
        assert_int_equal(fixture_newest(&f), 2);
        if (fault.fired == NULL) break;
    }
    restore_stderr(saved);
    fixture_close(&f);
}

static void any_call_may_fail_of_a_resume(void **state)
{
    (void)state;
    fail_every_call_of_a_resume(0);
    fail_every_call_of_a_resume(2);
}

/* A disk that is full after so many bytes of a file: the kernel itself refuses the rest. */
static void a_file_size_limit(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    CHECK_OK(fixture_save(&f, 1, 0));
    static const rlim_t limits[] = {0, 1, 100, 1000, 2000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const struct rlimit limit = {limits[i], limits[i]};
            signal(SIGXFSZ, SIG_IGN);
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(1);
            const cudpo_status status = fixture_save(&f, 2, 1);
            const bool named = strstr(cudpo_error_message(), "File too large") != NULL &&
                               strstr(cudpo_error_message(), f.output) != NULL;
            _exit(status == CUDPO_EWRITE && named ? 0 : 2);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(fixture_newest(&f), 1);
    }
    CHECK_OK(fixture_save(&f, 2, 1));
    assert_int_equal(fixture_newest(&f), 2);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_may_fail),
        cmocka_unit_test(any_call_may_fail_of_a_replacement),
        cmocka_unit_test(any_call_may_fail_of_shards),
        cmocka_unit_test(any_call_may_fail_of_a_resume),
        cmocka_unit_test(a_file_size_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
