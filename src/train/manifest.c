/* manifest.c - the text is JSON for people and tools; the machine trusts it only after its own checksum, in the last
 * line, so that a flipped bit in the list can't turn into a wrong claim about a file. */
#include "train/manifest.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VERSION = 1, MAX_MANIFEST_BYTES = 1 << 20, MAX_FILES = 4096 };

/* The end of every manifest, around 32 hex digits: the hash of all that stands before it. */
static const char seal_before[] = ",\n  \"xxh3\": \"", seal_behind[] = "\"\n}\n";
enum { SEAL = sizeof seal_before - 1 + HASH_TEXT - 1 + sizeof seal_behind - 1 };

static cudpo_status append_seal(buffer *b)
{
    char digits[HASH_TEXT];
    hash_text(digits, hash_bytes(b->data, b->size));
    return buffer_printf(b, "%s%s%s", seal_before, digits, seal_behind);
}

static bool sealed(const char *text, size_t n)
{
    char digits[HASH_TEXT], seal[SEAL + 1];
    if (n < SEAL) return false;
    hash_text(digits, hash_bytes(text, n - SEAL));
    snprintf(seal, sizeof seal, "%s%s%s", seal_before, digits, seal_behind);
    return memcmp(text + n - SEAL, seal, SEAL) == 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void free_names(char **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* Names of a folder's entries but the manifest, sorted, so that equal folders have equal manifests. */
static cudpo_status list(char ***out, int *count, const char *folder)
{
    *out = NULL;
    *count = 0;
    DIR *d = opendir(folder);
    if (d == NULL) return file_fail(folder, "open folder", true);
    cudpo_status status = CUDPO_OK;
    int n = 0;
    char **names = calloc(MAX_FILES, sizeof *names);
    if (names == NULL) status = cudpo_fail(CUDPO_ENOMEM, folder, "%d names", MAX_FILES);
    while (status == CUDPO_OK) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL) {
            if (errno != 0) status = file_fail(folder, "read folder", true);
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strcmp(e->d_name, MANIFEST_NAME) == 0)
            continue;
        if (n == MAX_FILES) {
            status = cudpo_fail(CUDPO_EINVAL, folder, "holds more than %d files", MAX_FILES);
        } else if ((names[n] = strdup(e->d_name)) == NULL) {
            status = cudpo_fail(CUDPO_ENOMEM, folder, "name");
        } else {
            n++;
        }
    }
    closedir(d);
    if (status != CUDPO_OK) {
        free_names(names, n);
        return status;
    }
    qsort(names, (size_t)n, sizeof *names, by_text);
    *out = names;
    *count = n;
    return CUDPO_OK;
}

/* Size and hash of a regular file. */
static cudpo_status measure(int64_t *bytes, hash128 *hash, const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0) return file_fail(path, "stat", false);
    *bytes = (int64_t)s.st_size;
    return hash_file(hash, path);
}

static cudpo_status measure_in(int64_t *bytes, hash128 *hash, const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status = measure(bytes, hash, path);
    free(path);
    return status;
}

cudpo_status manifest_measure(manifest_entry *out, const char *folder, const char *name)
{
    memset(out, 0, sizeof *out);
    CUDPO_REQUIRE(strlen(name) < sizeof out->name);
    memcpy(out->name, name, strlen(name));
    return measure_in(&out->bytes, &out->hash, folder, name);
}

static cudpo_status append_file(buffer *b, const char *folder, const char *name,
                                const manifest_entry *known, int64_t n, bool last)
{
    int64_t bytes = 0;
    hash128 hash = {0};
    char digits[HASH_TEXT];
    while (n > 0 && strcmp(known[n - 1].name, name) != 0)
        n--;
    if (n > 0) {
        bytes = known[n - 1].bytes;
        hash = known[n - 1].hash;
    } else {
        CUDPO_TRY(measure_in(&bytes, &hash, folder, name));
    }
    hash_text(digits, hash);
    CUDPO_TRY(buffer_printf(b, "    {\"name\": "));
    CUDPO_TRY(buffer_json_string(b, name, strlen(name)));
    return buffer_printf(b, ", \"bytes\": %lld, \"xxh3\": \"%s\"}%s\n", (long long)bytes, digits,
                         last ? "" : ",");
}

cudpo_status manifest_write(const char *folder, int64_t step, const manifest_entry *known,
                            int64_t known_count)
{
    char **names = NULL;
    int n = 0;
    buffer b = {0};
    CUDPO_TRY(list(&names, &n, folder));
    char *path = path_join(folder, MANIFEST_NAME);
    cudpo_status status =
        path == NULL
            ? cudpo_fail(CUDPO_ENOMEM, folder, "path")
            : buffer_printf(&b, "{\n  \"version\": %d,\n  \"step\": %lld,\n  \"files\": [\n",
                            VERSION, (long long)step);
    for (int i = 0; i < n && status == CUDPO_OK; i++)
        status = append_file(&b, folder, names[i], known, known_count, i + 1 == n);
    if (status == CUDPO_OK) status = buffer_append(&b, "  ]", 3);
    if (status == CUDPO_OK) status = append_seal(&b);
    if (status == CUDPO_OK) status = file_write(path, b.data, b.size);
    buffer_free(&b);
    free(path);
    free_names(names, n);
    return status;
}

/* What the manifest says of one file, and whether it is so.  The seal vouches for the kinds of values only as far as
 * it was us who wrote it, so they are checked all the same: nothing outside of the folder is read. */
static cudpo_status check_file(const json *entry, const char *folder, const char *manifest,
                               bool from_disk)
{
    const json *name = NULL, *size = NULL, *hash = NULL;
    if (json_type(entry) == JSON_OBJECT) {
        name = json_get(entry, "name");
        size = json_get(entry, "bytes");
        hash = json_get(entry, "xxh3");
    }
    int64_t want = 0, bytes = 0;
    if (name == NULL || json_type(name) != JSON_STRING || size == NULL ||
        !json_integer(size, &want) || hash == NULL || json_type(hash) != JSON_STRING)
        return cudpo_fail(CUDPO_EDATA, manifest, "an entry lacks name, bytes or xxh3");
    const char *text = json_string(name);
    if (text[0] == '\0' || strchr(text, '/') != NULL || strcmp(text, "..") == 0)
        return cudpo_fail(CUDPO_EDATA, manifest, "\"%.60s\" is not a file's name", text);

    char *path = path_join(folder, text);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    cudpo_status status = CUDPO_OK;
    hash128 is = {0};
    struct stat s;
    if (stat(path, &s) != 0) {
        status = errno == ENOENT ? cudpo_fail(CUDPO_EDATA, path, "is missing")
                                 : file_fail(path, "stat", false);
    } else if (S_ISREG(s.st_mode) && s.st_size != want) { /* told before much is read */
        status = cudpo_fail(CUDPO_EDATA, path, "has %lld bytes; %lld were written",
                            (long long)s.st_size, (long long)want);
    }
    if (status == CUDPO_OK && from_disk) file_drop_cache(path);
    if (status == CUDPO_OK) status = measure(&bytes, &is, path);
    if (status == CUDPO_OK) {
        char digits[HASH_TEXT];
        hash_text(digits, is);
        if (strcmp(digits, json_string(hash)) != 0)
            status = cudpo_fail(CUDPO_EDATA, path,
                                "is damaged: its checksum is not the one it was "
                                "written with");
    }
    free(path);
    return status;
}

static bool lists(const json *files, const char *name)
{
    for (const json *f = json_first(files); f != NULL; f = json_next(f))
        if (strcmp(json_string(json_get(f, "name")), name) == 0) return true;
    return false;
}

static cudpo_status check_needed(const json *root, const char *path, const char *const *needed)
{
    for (; *needed != NULL; needed++)
        if (!lists(json_get(root, "files"), *needed))
            return cudpo_fail(CUDPO_EDATA, path, "does not list %s", *needed);
    return CUDPO_OK;
}

static cudpo_status check_all(int64_t *step, const json *root, const char *folder, const char *path,
                              bool from_disk)
{
    int64_t version = 0;
    const json *v = NULL, *s = NULL, *files = NULL;
    if (json_type(root) == JSON_OBJECT) {
        v = json_get(root, "version");
        s = json_get(root, "step");
        files = json_get(root, "files");
    }
    if (v == NULL || !json_integer(v, &version) || version != VERSION)
        return cudpo_fail(CUDPO_EDATA, path, "was written by another version of cudpo");
    if (s == NULL || !json_integer(s, step) || files == NULL || json_type(files) != JSON_ARRAY)
        return cudpo_fail(CUDPO_EDATA, path, "lacks step or files");
    for (const json *f = json_first(files); f != NULL; f = json_next(f))
        CUDPO_TRY(check_file(f, folder, path, from_disk));
    return CUDPO_OK;
}

/* The text of a manifest, whose seal is whole. */
static cudpo_status open_manifest(json **root, const char *path, bool from_disk)
{
    char *text = NULL;
    size_t n = 0;
    struct stat s;
    *root = NULL;
    if (stat(path, &s) != 0 && errno == ENOENT)
        return cudpo_fail(CUDPO_EDATA, path, "is missing: the folder is incomplete");
    if (from_disk) file_drop_cache(path);
    CUDPO_TRY(file_read(&text, &n, path, MAX_MANIFEST_BYTES));
    const cudpo_status status =
        sealed(text, n) ? json_parse(root, text, n, path)
                        : cudpo_fail(CUDPO_EDATA, path, "is damaged: its checksum is wrong");
    free(text);
    return status;
}

cudpo_status manifest_verify(int64_t *step, const char *folder, const char *const *needed,
                             bool from_disk)
{
    *step = 0;
    json *root = NULL;
    char *path = path_join(folder, MANIFEST_NAME);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    cudpo_status status = open_manifest(&root, path, from_disk);
    if (status == CUDPO_OK) status = check_all(step, root, folder, path, from_disk);
    if (status == CUDPO_OK) status = check_needed(root, path, needed);
    json_free(root);
    free(path);
    return status;
}

cudpo_status manifest_lists(const char *folder, const char *const *needed)
{
    json *root = NULL;
    char *path = path_join(folder, MANIFEST_NAME);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    cudpo_status status = open_manifest(&root, path, false);
    if (status == CUDPO_OK) status = check_needed(root, path, needed);
    json_free(root);
    free(path);
    return status;
}
