/* program.h - runs the program as a user does: arguments, standard output and error, exit status, signals. */
#ifndef CUDPO_TESTS_PROGRAM_H
#define CUDPO_TESTS_PROGRAM_H

#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { PROGRAM_ARGUMENTS = 64 };

/* What a finished run left.  Texts are owned; program_free(). */
typedef struct program_result {
    int status; /* exit status; 128 + signal where one ended it */
    char *out, *err;
} program_result;

/* Start `cudpo` with arguments that NULL ends; output goes to two files in the scratch folder. */
static inline pid_t program_start_to(const char *out_name, const char *err_name,
                                     const char *const *arguments)
{
    const char *program = getenv("CUDPO_PROGRAM");
    const char *argv[PROGRAM_ARGUMENTS + 2];
    int n = 0;
    if (program == NULL || *program == '\0') program = "build/cudpo";
    argv[n++] = program;
    for (; arguments[n - 1] != NULL; n++) {
        assert_true(n <= PROGRAM_ARGUMENTS);
        argv[n] = arguments[n - 1];
    }
    argv[n] = NULL;
    char out[640], err[640];
    snprintf(out, sizeof out, "%s", scratch_path(out_name));
    snprintf(err, sizeof err, "%s", scratch_path(err_name));
    fflush(stdout);
    fflush(stderr);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    const int in = open("/dev/null", O_RDONLY);
    const int to = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int errors = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (in < 0 || to < 0 || errors < 0 || dup2(in, 0) < 0 || dup2(to, 1) < 0 || dup2(errors, 2) < 0)
        _exit(126);
    execv(program, (char *const *)argv);
    _exit(127);
}

static inline pid_t program_start(const char *const *arguments)
{
    return program_start_to("OUT", "ERR", arguments);
}

static inline int program_wait(pid_t pid)
{
    int status;
    assert_true(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline program_result program_read(int status)
{
    program_result r = {.status = status};
    size_t n;
    CHECK_OK(file_read(&r.out, &n, scratch_path("OUT"), (size_t)1 << 26));
    CHECK_OK(file_read(&r.err, &n, scratch_path("ERR"), (size_t)1 << 26));
    return r;
}

static inline void program_free(program_result *r)
{
    free(r->out);
    free(r->err);
    *r = (program_result){0};
}

static inline program_result program_run(const char *const *arguments)
{
    return program_read(program_wait(program_start(arguments)));
}

/* Run it and demand its exit status; standard error is shown where it is another. */
static inline program_result program_expect(int status, const char *const *arguments)
{
    const program_result r = program_run(arguments);
    if (r.status != status)
        fail_msg("cudpo %s ...: status %d, not %d: %s", arguments[0] == NULL ? "" : arguments[0],
                 r.status, status, r.err);
    return r;
}

#define RUN(status, ...) program_expect(status, (const char *const[]){__VA_ARGS__, NULL})

static inline void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) fail_msg("no \"%s\" in: %s", part, text);
}

/* One line on standard error that holds `message`, nothing on standard output, and that status. */
static inline void says(int status, const char *message, const char *const *arguments)
{
    program_result r = program_expect(status, arguments);
    const char *last = strstr(r.err, "cudpo: ");
    if (last == NULL || strchr(last, '\n') == NULL || strchr(last, '\n')[1] != '\0')
        fail_msg("not one line: %s", r.err);
    has(last, message);
    assert_string_equal(r.out, "");
    program_free(&r);
}
#define SAYS(status, message, ...) says(status, message, (const char *const[]){__VA_ARGS__, NULL})

static inline void program_sleep(double seconds)
{
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static inline double program_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Wait for a program, which must end in this status. */
static inline void program_finish(pid_t pid, int status)
{
    program_result r = program_read(program_wait(pid));
    if (r.status != status) fail_msg("status %d, not %d: %s", r.status, status, r.err);
    program_free(&r);
}

/* A file of a folder in the scratch folder, in new memory. */
static inline char *program_file(const char *folder, const char *name, size_t *n)
{
    char path[1400], *data = NULL;
    snprintf(path, sizeof path, "%s/%s", scratch_path(folder), name);
    CHECK_OK(file_read(&data, n, path, (size_t)1 << 26));
    return data;
}

/* Do the same files of two such folders hold the same bytes? */
static inline bool program_is_same_file(const char *a, const char *b, const char *name)
{
    static char x[1 << 16], y[1 << 16];
    char path[1400];
    size_t n, m, total = 0;
    bool same;
    snprintf(path, sizeof path, "%s/%s", scratch_path(a), name);
    FILE *f = fopen(path, "rb");
    snprintf(path, sizeof path, "%s/%s", scratch_path(b), name);
    FILE *g = fopen(path, "rb");
    assert_true(f != NULL && g != NULL);
    do {
        n = fread(x, 1, sizeof x, f);
        m = fread(y, 1, sizeof y, g);
        same = n == m && memcmp(x, y, n) == 0;
        total += n;
    } while (same && n > 0);
    assert_true(total > 0 && !ferror(f) && !ferror(g));
    fclose(f);
    fclose(g);
    return same;
}

/* They do. */
static inline void program_same_file(const char *a, const char *b, const char *name)
{
    if (!program_is_same_file(a, b, name)) fail_msg("%s of %s and of %s differ", name, a, b);
}

/* A line of metrics without what depends on the clock. */
static inline void program_timeless(char *line)
{
    static const char *const names[] = {", \"units_per_second\": ", ", \"time\": "};
    for (int i = 0; i < 2; i++) {
        char *at = strstr(line, names[i]);
        if (at == NULL) continue;
        char *end = at + strlen(names[i]) + strcspn(at + strlen(names[i]), ",}");
        memmove(at, end, strlen(end) + 1);
    }
}

/* Two runs logged the same, to the last digit; but when. */
static inline void program_same_metrics(const char *a, const char *b)
{
    size_t n, m;
    char *x = program_file(a, "metrics.jsonl", &n), *y = program_file(b, "metrics.jsonl", &m);
    char *in_x = NULL, *in_y = NULL;
    char *p = strtok_r(x, "\n", &in_x), *q = strtok_r(y, "\n", &in_y);
    int lines = 0;
    for (; p != NULL && q != NULL; lines++) {
        program_timeless(p);
        program_timeless(q);
        assert_non_null(strstr(p, "loss\": "));
        assert_null(strstr(p, "time"));
        if (strcmp(p, q) != 0) fail_msg("metrics of %s and %s differ:\n%s\n%s", a, b, p, q);
        p = strtok_r(NULL, "\n", &in_x);
        q = strtok_r(NULL, "\n", &in_y);
    }
    if (p != NULL || q != NULL) fail_msg("%s and %s have not as many lines of metrics", a, b);
    assert_true(lines > 0);
    free(x);
    free(y);
}

/* Did two runs end in the same bits? */
static inline bool program_equal_weights(const char *a, const char *b)
{
    return program_is_same_file(a, b, "model.safetensors");
}

/* Remove what a run left behind a checkpoint's step, as if it had been killed after it. */
static inline void program_cut_back(const char *output, int step, int last)
{
    char path[1400];
    while (step++ < last) {
        snprintf(path, sizeof path, "%s/checkpoint-%d", scratch_path(output), step);
        CHECK_OK(file_remove_folder(path));
    }
    snprintf(path, sizeof path, "%s/model.safetensors", scratch_path(output));
    assert_true(unlink(path) == 0 || errno == ENOENT);
}

#endif /* CUDPO_TESTS_PROGRAM_H */
