/* machine.c - names of processor and device.
 * Sources: arch/(x86, powerpc, mips, riscv, arm64)/kernel of Linux, which each write /proc/cpuinfo in their own way. */
#include "bench/machine.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LINE = 256 };

/* What stands behind "key : ", without the end of the line. */
static bool value_of(char *value, const char *line, const char *key)
{
    const size_t n = strlen(key);
    if (strncmp(line, key, n) != 0) return false;
    line += n + strspn(line + n, " \t");
    if (*line++ != ':') return false;
    line += strspn(line, " \t");
    snprintf(value, LINE, "%.*s", (int)strcspn(line, "\n"), line);
    return *value != '\0';
}

void bench_processor(char *out, size_t size, const char *file)
{
    /* ARM says who made it and a number for which part it is. */
    static const char *const names[] = {"model name", "cpu model", "cpu", "uarch"};
    char line[LINE], value[LINE], maker[LINE] = "";
    *out = '\0';
    FILE *f = fopen(file, "r");
    while (f != NULL && *out == '\0' && fgets(line, sizeof line, f) != NULL) {
        for (size_t i = 0; *out == '\0' && i < sizeof names / sizeof *names; i++)
            if (value_of(value, line, names[i])) snprintf(out, size, "%s", value);
        if (value_of(value, line, "CPU implementer")) snprintf(maker, sizeof maker, "%s", value);
        if (value_of(value, line, "CPU part"))
            snprintf(out, size, "ARM part %s of implementer %s", value, maker);
    }
    if (f != NULL) fclose(f);
}

/* "cuda:0, NVIDIA H200, 150.8 GB" -> "NVIDIA H200". */
void bench_device_name(char *out, size_t size, const backend *be)
{
    const char *begin = strstr(be->description, ", ");
    if (!be->on_device || begin == NULL) {
        snprintf(out, size, "%s", be->name);
        return;
    }
    begin += 2;
    const char *end = strstr(begin, ", ");
    snprintf(out, size, "%.*s", end == NULL ? (int)strlen(begin) : (int)(end - begin), begin);
}
