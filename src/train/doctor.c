/* doctor.c - facts about the machine and the limits that apply to this process. */
#include "cudpo/doctor.h"
#include "backend/open.h"
#include "base/file.h"
#include "train/cache_folder.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct report {
    void (*line)(void *context, const char *name, const char *value);
    void *context;
} report;

static void CUDPO_PRINTF(3, 4) say(const report *r, const char *name, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->line(r->context, name, text);
}

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
    say(r, "memory", "%.1f of %.1f GB are available%s", (double)available * 1024e-9,
        (double)total * 1024e-9, group > 0 ? "" : ", and no control group limits them");
    if (group > 0) say(r, "memory limit", "%.1f GB, of the control group", (double)group * 1e-9);
}

static void say_limit(const report *r, const char *name, int resource, double unit,
                      const char *units)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) return;
    if (limit.rlim_cur == RLIM_INFINITY)
        say(r, name, "unlimited");
    else
        say(r, name, "%.0f%s", (double)limit.rlim_cur / unit, units);
}

static void say_cache(const report *r)
{
    char *folder = NULL;
    if (cache_folder(&folder, ".") == CUDPO_OK)
        say(r, "cache", "%s", folder);
    else
        say(r, "cache", "%s", cudpo_error_message());
    cudpo_error_clear();
    free(folder);
}

static void say_visible(const report *r)
{
    static const char *const names[] = {"CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
                                        "CUDPO_DEVICE", "CUDPO_PLUGIN", "OMP_NUM_THREADS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL) say(r, names[i], "%s", value);
    }
}

void cudpo_doctor(void (*line)(void *context, const char *name, const char *value), void *context)
{
    const report r = {line, context};
    say(&r, "cudpo", "%s", CUDPO_VERSION);
    say_memory(&r);
    say_limit(&r, "locked memory", RLIMIT_MEMLOCK, 1e6, " MB");
    say_limit(&r, "open files", RLIMIT_NOFILE, 1, "");
    say_limit(&r, "address space", RLIMIT_AS, 1e9, " GB");
    say_cache(&r);
    say_visible(&r);
    backend_report(line, context);
    say(&r, "NCCL", "not used: this cudpo trains on one device");
}
