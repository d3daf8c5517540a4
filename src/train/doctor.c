/* doctor.c - facts about the machine and the limits that apply to this process. */
#include "cudpo/doctor.h"
#include "backend/open.h"
#include "base/file.h"
#include "base/report.h"
#include "dist/communicator.h"
#include "dist/placement.h"
#include "train/cache_folder.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The number behind a word of a small system file; -1: there is none. */
static int64_t number_in(const char *path, const char *word)
{
    char line[256];
    int64_t value = -1;
    FILE *f = fopen(path, "re");
    if (f == NULL) return -1;
    while (value < 0 && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, word, strlen(word)) == 0)
            (void)sscanf(line + strlen(word), "%" SCNd64, &value);
    }
    fclose(f);
    return value;
}

static void say_memory(const report *r)
{
    const int64_t total = number_in("/proc/meminfo", "MemTotal:");
    const int64_t available = number_in("/proc/meminfo", "MemAvailable:");
    const int64_t group = number_in("/sys/fs/cgroup/memory.max", "");
    report_say(r, "memory", "%.1f of %.1f GB are available%s", (double)available * 1024e-9,
               (double)total * 1024e-9, group > 0 ? "" : ", and no control group limits them");
    if (group > 0)
        report_say(r, "memory limit", "%.1f GB, of the control group", (double)group * 1e-9);
}

static void say_limit(const report *r, const char *name, int resource, double unit,
                      const char *units)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) return;
    if (limit.rlim_cur == RLIM_INFINITY)
        report_say(r, name, "unlimited");
    else
        report_say(r, name, "%.0f%s", (double)limit.rlim_cur / unit, units);
}

static void say_cache(const report *r)
{
    char *folder = NULL;
    if (cache_folder(&folder, ".") == CUDPO_OK)
        report_say(r, "cache", "%s", folder);
    else
        report_say(r, "cache", "%s", cudpo_error_message());
    cudpo_error_clear();
    free(folder);
}

static void say_visible(const report *r)
{
    static const char *const names[] = {
        "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "CUDPO_DEVICE", "CUDPO_PLUGIN",
        "CUDPO_NCCL",           "CUDPO_GEMM",           "CUDPO_SYNC",   "OMP_NUM_THREADS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL) report_say(r, names[i], "%s", value);
    }
}

/* The kernel module's version, which is not that of the CUDA that it is for. */
static void say_kernel_module(const report *r)
{
    char line[256];
    FILE *f = fopen("/proc/driver/nvidia/version", "re");
    if (f == NULL) return;
    if (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        report_say(r, "kernel module", "%s", line);
    }
    fclose(f);
}

static void say_nccl(const report *r)
{
    static const char use[] = "for several GPUs";
    int (*version_of)(int *version) = NULL;
    int version = 0;
    void *library = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
    void *address = library != NULL ? dlsym(library, "ncclGetVersion") : NULL;
    memcpy(&version_of, &address, sizeof address); /* as POSIX has it of functions */
    if (version_of != NULL && version_of(&version) == 0)
        report_say(r, "NCCL", "%d.%d.%d (%s)", version / 10000, version / 100 % 100, version % 100,
                   use);
    else
        report_say(r, "NCCL", "none (%s)", use);
    if (library != NULL) (void)dlclose(library);
}

/* Lines of a report, passed on, and the GPUs that they were of. */
typedef struct gpu_lines {
    report to;
    int32_t gpus;
} gpu_lines;

static void pass_line(void *context, const char *name, const char *value)
{
    gpu_lines *lines = context;
    char number[16];
    snprintf(number, sizeof number, "GPU %d", (int)lines->gpus);
    lines->gpus += strcmp(name, number) == 0; /* "GPU 0 memory" is another one's */
    lines->to.line(lines->to.context, name, value);
}

/* Which rank `cudpo train` would be, started as this was, and where it would compute. */
static void say_ranks(const report *r, int32_t gpus)
{
    placement p;
    char sentence[PLACEMENT_SENTENCE];
    placement_wish wish = placement_wish_of(NULL);
    if (gpus > 0) wish.gpus = gpus;
    if (placement_find(&p, &wish, placement_getenv, NULL) != CUDPO_OK) {
        report_say(r, "ranks", "%s", cudpo_error_message());
        cudpo_error_clear();
        return;
    }
    placement_sentence(sentence, &p);
    report_say(r, "ranks", "%s", sentence);
    if (gpus == 0)
        report_say(r, "device of the rank", "CPU");
    else if (p.local_rank < 0)
        report_say(r, "device of the rank", "one of %d GPUs, by the local rank that PMIx says",
                   (int)gpus);
    else
        report_say(r, "device of the rank", "GPU %d of %d: local rank %d, counted round",
                   (int)(p.local_rank % gpus), (int)gpus, (int)p.local_rank);
}

void cudpo_doctor(void (*line)(void *context, const char *name, const char *value), void *context)
{
    const report r = {line, context};
    gpu_lines lines = {r, 0};
    report_say(&r, "cudpo", "%s", CUDPO_VERSION);
    say_memory(&r);
    say_limit(&r, "locked memory", RLIMIT_MEMLOCK, 1e6, " MB");
    say_limit(&r, "open files", RLIMIT_NOFILE, 1, "");
    say_limit(&r, "address space", RLIMIT_AS, 1e9, " GB");
    say_cache(&r);
    say_visible(&r);
    say_kernel_module(&r);
    backend_report(pass_line, &lines);
    say_nccl(&r);
    communicator_mpi_report(line, context);
    say_ranks(&r, lines.gpus);
}
