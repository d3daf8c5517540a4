/* job.c - checks of what is asked for: nothing that is printed into a job file unquoted is more than a word. */
#include "launch/job.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quote.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CONFIG = 1 << 20, PATH_BYTES = 4096 };

const char job_make_secret[] = "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'";

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define WORD LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "._-"

static cudpo_status check_number(int64_t value, int64_t least, int64_t most, const char *option)
{
    if (value >= least && value <= most) return CUDPO_OK;
    return cudpo_fail(CUDPO_EUSAGE, option, "%lld is not from %lld to %lld", (long long)value,
                      (long long)least, (long long)most);
}

static cudpo_status check_word(const char *value, const char *characters, const char *option)
{
    if (value == NULL || (*value != '\0' && value[strspn(value, characters)] == '\0'))
        return CUDPO_OK;
    return cudpo_fail(CUDPO_EUSAGE, option, "\"%s\" has characters that don't belong there", value);
}

/* What only the other kinds know is a slip, not to be passed over. */
static cudpo_status check_absent(const char *value, const char *option, const char *kind)
{
    return value == NULL ? CUDPO_OK
                         : cudpo_fail(CUDPO_EUSAGE, option, "is of `cudpo launch %s`", kind);
}

/* A name that Slurm takes as it is, and Kubernetes for a host: lower-case letters, digits and hyphens, a letter first. */
static void make_name(char out[JOB_NAME], const char *config)
{
    const char *slash = strrchr(config, '/');
    const char *from = slash == NULL ? config : slash + 1;
    const char *end = strrchr(from, '.');
    if (end == NULL || end == from) end = from + strlen(from);
    size_t n = 0;
    for (; from < end && n < JOB_NAME - 1; from++) {
        const char c = (char)tolower((unsigned char)*from);
        const bool letter = strchr(LETTERS, c) != NULL, fits = letter || strchr(DIGITS, c) != NULL;
        if (n > 0 || letter) out[n++] = fits ? c : '-';
    }
    while (n > 0 && out[n - 1] == '-')
        n--;
    out[n] = '\0';
    if (n == 0) snprintf(out, JOB_NAME, "cudpo");
}

static cudpo_status check_name(const char *name, cudpo_job_kind kind)
{
    const size_t n = strlen(name);
    CUDPO_TRY(check_word(name, WORD, "--job_name"));
    if (n >= JOB_NAME)
        return cudpo_fail(CUDPO_EUSAGE, "--job_name", "is longer than %d characters", JOB_NAME - 1);
    if (kind == CUDPO_JOB_KUBERNETES && (strspn(name, LETTERS DIGITS "-") != n ||
                                         strchr(LETTERS, name[0]) == NULL || name[n - 1] == '-'))
        return cudpo_fail(CUDPO_EUSAGE, "--job_name",
                          "\"%s\" is no name of a host: lower-case letters, digits and hyphens, a "
                          "letter first and no hyphen last",
                          name);
    return CUDPO_OK;
}

static cudpo_status check_slurm(const cudpo_job *a)
{
    CUDPO_TRY(check_word(a->time, DIGITS ":-", "--time"));
    CUDPO_TRY(check_word(a->partition, WORD ",", "--partition"));
    CUDPO_TRY(check_word(a->account, WORD, "--account"));
    CUDPO_TRY(check_word(a->array, DIGITS ",:%-", "--array"));
    CUDPO_TRY(check_word(a->mpi, WORD, "--mpi"));
    CUDPO_TRY(check_absent(a->image, "--image", "kubernetes"));
    CUDPO_TRY(check_absent(a->claim, "--claim", "kubernetes"));
    if (a->array != NULL && (a->output_dir == NULL || *a->output_dir == '\0'))
        return cudpo_fail(CUDPO_EUSAGE, "--array", "needs an output_dir");
    return CUDPO_OK;
}

static cudpo_status check_others(const cudpo_job *a, cudpo_job_kind kind)
{
    const char *const values[] = {a->time, a->partition, a->account, a->array, a->mpi};
    static const char *const options[] = {"--time", "--partition", "--account", "--array", "--mpi"};
    for (int i = 0; i < 5; i++)
        CUDPO_TRY(check_absent(values[i], options[i], "slurm"));
    if (kind == CUDPO_JOB_TORCHRUN) {
        CUDPO_TRY(check_absent(a->image, "--image", "kubernetes"));
        return check_absent(a->claim, "--claim", "kubernetes");
    }
    if (a->image == NULL || *a->image == '\0')
        return cudpo_fail(CUDPO_EUSAGE, "--image", "is needed: a container image that holds cudpo");
    return check_word(a->claim, LETTERS DIGITS ".-", "--claim");
}

static cudpo_status check(job *j, cudpo_job_kind kind)
{
    cudpo_job *a = &j->ask;
    CUDPO_TRY(check_number(a->nodes, 1, 4096, "--nodes"));
    CUDPO_TRY(check_number(a->gpus_per_node, 0, 64, "--gpus_per_node"));
    if (a->ranks_per_node == 0) a->ranks_per_node = a->gpus_per_node > 0 ? a->gpus_per_node : 1;
    CUDPO_TRY(check_number(a->ranks_per_node, 1, 1024, "--ranks_per_node"));
    if (a->cpus_per_rank == 0) a->cpus_per_rank = a->gpus_per_node > 0 ? 8 : 1;
    CUDPO_TRY(check_number(a->cpus_per_rank, 1, 1024, "--cpus_per_rank"));
    CUDPO_TRY(check_name(a->name, kind));
    return kind == CUDPO_JOB_SLURM ? check_slurm(a) : check_others(a, kind);
}

cudpo_status job_command(buffer *b, const job *j)
{
    CUDPO_TRY(buffer_printf(b, " train "));
    CUDPO_TRY(quote_shell(b, j->ask.config));
    CUDPO_TRY(quote_shell_words(b, j->ask.arguments));
    return j->resumes ? CUDPO_OK : buffer_printf(b, " --resume_from_checkpoint true");
}

static bool say_resume(const char *const *arguments)
{
    static const char key[] = "--resume_from_checkpoint";
    for (; *arguments != NULL; arguments++)
        if (strncmp(*arguments, key, sizeof key - 1) == 0) return true;
    return false;
}

/* It must be an object at least: `cudpo train` says the rest. */
static cudpo_status read_config(char **text, const char *path)
{
    json *root = NULL;
    size_t n = 0;
    CUDPO_TRY(file_read(text, &n, path, MAX_CONFIG));
    cudpo_status status = json_parse(&root, *text, n, path);
    if (status == CUDPO_OK && json_type(root) != JSON_OBJECT)
        status = cudpo_fail(CUDPO_EDATA, path, "is no JSON object");
    json_free(root);
    return status;
}

/* Folder of a path, as a path. */
static cudpo_status folder_of(char out[PATH_BYTES], const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (n >= PATH_BYTES) return cudpo_fail(CUDPO_EUSAGE, "configuration file", "path is too long");
    snprintf(out, PATH_BYTES, "%.*s", n == 0 ? 1 : (int)n, n == 0 ? "." : path);
    return CUDPO_OK;
}

static cudpo_status write_job(buffer *b, cudpo_job_kind kind, job *j)
{
    CUDPO_TRY(check(j, kind));
    switch (kind) {
    case CUDPO_JOB_SLURM:
        return job_slurm(b, j);
    case CUDPO_JOB_KUBERNETES:
        return job_kubernetes(b, j);
    case CUDPO_JOB_TORCHRUN:
        return job_torchrun(b, j);
    }
    return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "kind %d", (int)kind);
}

cudpo_status cudpo_job_file(char **text, cudpo_job_kind kind, const cudpo_job *ask)
{
    CUDPO_REQUIRE(text != NULL && ask != NULL && ask->config != NULL && ask->arguments != NULL);
    job j = {.ask = *ask, .resumes = say_resume(ask->arguments)};
    char name[JOB_NAME], program[PATH_BYTES], folder[PATH_BYTES], *config = NULL;
    buffer b = {0};
    *text = NULL;
    CUDPO_TRY(folder_of(folder, ask->config));
    j.folder = folder;
    make_name(name, ask->config);
    if (j.ask.name == NULL) j.ask.name = name;
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n < 0 ? 0 : n] = '\0';
    if (j.ask.program == NULL)
        j.ask.program = n <= 0 || kind == CUDPO_JOB_KUBERNETES ? "cudpo" : program;
    cudpo_status status = read_config(&config, ask->config);
    j.text = config;
    if (status == CUDPO_OK) status = write_job(&b, kind, &j);
    free(config);
    if (status == CUDPO_OK)
        *text = b.data;
    else
        buffer_free(&b);
    return status;
}
