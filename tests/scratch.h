/* scratch.h - a folder of its own for each test program that writes files, and files in it. */
#ifndef CUDPO_TESTS_SCRATCH_H
#define CUDPO_TESTS_SCRATCH_H

#include "test.h"
#include "base/file.h"

#include <unistd.h>

/* The folder, made at the first call; scratch_remove() is the group's teardown. */
static inline const char *scratch_folder(void)
{
    static char folder[512];
    if (folder[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/cudpo-test-XXXXXX",
                 base != NULL && *base != '\0' ? base : "/tmp");
        if (mkdtemp(folder) == NULL) fail_msg("can't make %s", folder);
        char
            cache[600]; /* what is cached stays here, too, and nothing of an earlier run is found */
        snprintf(cache, sizeof cache, "%s/cache", folder);
        setenv("CUDPO_CACHE", cache, 1);
    }
    return folder;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    return file_remove_folder(scratch_folder()) == CUDPO_OK ? 0 : -1;
}

/* Path of a file in the folder; one call's result lives until the fourth call after it. */
static inline const char *scratch_path(const char *name)
{
    static char paths[4][640];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_folder(), name);
    return path;
}

/* Write a file without the ceremony (and the fsync) of file_write(). */
static inline const char *scratch_write(const char *name, const void *data, size_t n)
{
    const char *path = scratch_path(name);
    unlink(
        path); /* some file systems flush a file that is cut and written again, and none a new one */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *scratch_text(const char *name, const char *text)
{
    return scratch_write(name, text, strlen(text));
}

#endif /* CUDPO_TESTS_SCRATCH_H */
