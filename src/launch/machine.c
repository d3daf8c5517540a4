/* machine.c - GPUs without a driver's help, and cores by affinity. */
#define _GNU_SOURCE /* sched_getaffinity: a job often owns fewer cores than are online */
#include "launch/machine.h"

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static bool is_number(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)s[i])) return false;
    return n > 0;
}

/* As CUDA reads it: what stands behind an entry that names no device does not count. */
static int64_t count_visible(const char *list)
{
    int64_t n = 0;
    for (;;) {
        list += strspn(list, " ");
        const size_t length = strcspn(list, ", ");
        const bool named = strncmp(list, "GPU-", 4) == 0 || strncmp(list, "MIG-", 4) == 0;
        if (!named && !is_number(list, length)) return n;
        n++;
        list += length;
        list += strspn(list, " ");
        if (*list != ',') return n;
        list++;
    }
}

int64_t machine_gpus(const char *visible, const char *folder)
{
    if (visible != NULL) return count_visible(visible);
    DIR *d = opendir(folder);
    if (d == NULL) return 0;
    int64_t n = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, "nvidia", 6) == 0 && is_number(e->d_name + 6, strlen(e->d_name + 6)))
            n++;
    closedir(d);
    return n;
}

int64_t machine_cores(void)
{
    cpu_set_t mine;
    const int n = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 0;
    const long online = sysconf(_SC_NPROCESSORS_ONLN); /* of a machine with more than a set holds */
    return n > 0 ? n : online > 0 ? online : 1;
}
