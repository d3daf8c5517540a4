/* cache_folder.c - the XDG base directory rules. */
#include "train/cache_folder.h"
#include "base/file.h"

#include <stdlib.h>

cudpo_status cache_folder(char **out, const char *fallback)
{
    const struct {
        const char *base, *name;
    } choices[] = {{getenv("CUDPO_CACHE"), ""},
                   {getenv("XDG_CACHE_HOME"), "cudpo"},
                   {getenv("HOME"), ".cache/cudpo"},
                   {fallback, "cache"}};
    *out = NULL;
    for (int i = 0; i < 4; i++) {
        if (choices[i].base == NULL || choices[i].base[0] == '\0') continue;
        *out = path_join(choices[i].base, choices[i].name);
        if (*out == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
        const cudpo_status status = file_make_folder(*out);
        if (status == CUDPO_OK) return CUDPO_OK;
        free(*out);
        *out = NULL;
        if (i == 0 || i == 3) return status; /* asked for by name, or the last choice */
        cudpo_error_clear();                 /* a home that can't be written: go on */
    }
    return cudpo_fail(CUDPO_EWRITE, "cache", "no folder for caches: set CUDPO_CACHE");
}
