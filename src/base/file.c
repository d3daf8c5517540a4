/* file.c - whole files in and out.  Writes go to a temporary beside the target, are flushed to the disk and
 * become visible by rename, which POSIX makes atomic. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

cudpo_status file_fail(const char *path, const char *what, bool writing)
{
    const int error = errno;
    cudpo_status code = writing ? CUDPO_EWRITE : CUDPO_EDATA;
    if (error == EACCES || error == EPERM) code = CUDPO_EPERM;
    if (!writing && (error == ENOENT || error == ENOTDIR)) code = CUDPO_ENOINPUT;
    if (error == ENOMEM) code = CUDPO_ENOMEM;
    return cudpo_fail(code, path, "can't %s: %s", what, strerror(error));
}

char *path_join(const char *folder, const char *name)
{
    const size_t a = strlen(folder), b = strlen(name);
    const bool slash = a > 0 && folder[a - 1] != '/';
    char *path = malloc(a + b + 2);
    if (path == NULL) return NULL;
    memcpy(path, folder, a);
    if (slash) path[a] = '/';
    memcpy(path + a + slash, name, b + 1);
    return path;
}

bool file_is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

bool file_is_regular(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

cudpo_status file_read(char **out, size_t *n, const char *path, size_t max_bytes)
{
    *out = NULL;
    *n = 0;
    /* O_NONBLOCK: opening a FIFO that someone planted in a model folder must not hang. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return file_fail(path, "open", false);
    cudpo_status status = CUDPO_OK;
    char *data = NULL;
    size_t used = 0;
    struct stat s;
    if (fstat(fd, &s) != 0) {
        status = file_fail(path, "stat", false);
        goto out;
    }
    if (!S_ISREG(s.st_mode)) {
        status = cudpo_fail(CUDPO_EDATA, path, "not a regular file");
        goto out;
    }
    if ((uintmax_t)s.st_size > max_bytes) {
        status = cudpo_fail(CUDPO_EDATA, path, "%jd bytes; at most %zu are accepted",
                            (intmax_t)s.st_size, max_bytes);
        goto out;
    }
    data = malloc((size_t)s.st_size + 1);
    if (data == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "%jd bytes", (intmax_t)s.st_size);
        goto out;
    }
    while (used < (size_t)s.st_size) {
        const ssize_t got = read(fd, data + used, (size_t)s.st_size - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = file_fail(path, "read", false);
            goto out;
        }
        if (got == 0) {
            status = cudpo_fail(CUDPO_EDATA, path, "became shorter while it was read");
            goto out;
        }
        used += (size_t)got;
    }
    data[used] = '\0';
    *out = data;
    *n = used;
    data = NULL;
out:
    free(data);
    close(fd);
    return status;
}

cudpo_status file_make_folder(const char *path)
{
    char *p = strdup(path);
    if (p == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    cudpo_status status = CUDPO_OK;
    for (char *c = p + 1; status == CUDPO_OK; c++) {
        if (*c != '/' && *c != '\0') continue;
        const char end = *c;
        *c = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST) status = file_fail(p, "create folder", true);
        *c = end;
        if (end == '\0') break;
    }
    if (status == CUDPO_OK && !file_is_folder(path))
        status = cudpo_fail(CUDPO_EWRITE, path, "exists and is not a folder");
    free(p);
    return status;
}

/* Make a rename inside the folder of `path` durable. */
static cudpo_status sync_parent(const char *path)
{
    char *folder = strdup(path);
    if (folder == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    char *slash = strrchr(folder, '/');
    if (slash != NULL) slash[slash == folder] = '\0';
    const int fd = open(slash == NULL ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cudpo_status status = CUDPO_OK;
    /* EINVAL: some file systems have no fsync for folders, and there the rename is as durable as it gets. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        status = file_fail(path, "sync the folder of", true);
    if (fd >= 0) close(fd);
    free(folder);
    return status;
}

cudpo_status file_writer_open(file_writer *w, const char *path)
{
    *w = (file_writer){0};
    const size_t n = strlen(path);
    w->path = strdup(path);
    w->temporary = malloc(n + 5);
    if (w->path == NULL || w->temporary == NULL) {
        file_writer_abandon(w);
        return cudpo_fail(CUDPO_ENOMEM, path, "path");
    }
    memcpy(w->temporary, path, n);
    memcpy(w->temporary + n, ".tmp", 5);
    /* A temporary left by a run that was killed is removed, not followed: it could be a link by now. */
    unlink(w->temporary);
    const int fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) w->stream = fdopen(fd, "wb");
    if (w->stream == NULL) {
        const cudpo_status status = file_fail(path, "create", true);
        if (fd >= 0) close(fd);
        file_writer_abandon(w);
        return status;
    }
    return CUDPO_OK;
}

cudpo_status file_writer_put(file_writer *w, const void *data, size_t n)
{
    if (n > 0 && fwrite(data, 1, n, w->stream) != n) return file_fail(w->path, "write", true);
    return CUDPO_OK;
}

cudpo_status file_writer_commit(file_writer *w)
{
    CUDPO_REQUIRE(w->stream != NULL);
    cudpo_status status = CUDPO_OK;
    if (fflush(w->stream) != 0 || fsync(fileno(w->stream)) != 0)
        status = file_fail(w->path, "write", true);
    if (fclose(w->stream) != 0 && status == CUDPO_OK) status = file_fail(w->path, "write", true);
    w->stream = NULL;
    if (status == CUDPO_OK && rename(w->temporary, w->path) != 0)
        status = file_fail(w->path, "rename a new file to", true);
    if (status == CUDPO_OK) {
        free(w->temporary);
        w->temporary = NULL; /* it is the file now: abandon must not remove it */
        status = sync_parent(w->path);
    }
    file_writer_abandon(w);
    return status;
}

void file_writer_abandon(file_writer *w)
{
    if (w->stream != NULL) fclose(w->stream);
    if (w->temporary != NULL) unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    *w = (file_writer){0};
}

cudpo_status file_write(const char *path, const void *data, size_t n)
{
    file_writer w;
    CUDPO_TRY(file_writer_open(&w, path));
    cudpo_status status = file_writer_put(&w, data, n);
    if (status == CUDPO_OK) status = file_writer_commit(&w);
    file_writer_abandon(&w);
    return status;
}

cudpo_status file_copy(const char *to, const char *from)
{
    FILE *in = fopen(from, "rb");
    if (in == NULL) return file_fail(from, "open", false);
    file_writer w = {0};
    cudpo_status status = file_writer_open(&w, to);
    char chunk[1 << 14];
    size_t n = 0;
    while (status == CUDPO_OK && (n = fread(chunk, 1, sizeof chunk, in)) > 0)
        status = file_writer_put(&w, chunk, n);
    if (status == CUDPO_OK && ferror(in)) status = file_fail(from, "read", false);
    if (status == CUDPO_OK) status = file_writer_commit(&w);
    file_writer_abandon(&w);
    fclose(in);
    return status;
}

cudpo_status file_rename(const char *to, const char *from)
{
    if (rename(from, to) != 0) return file_fail(to, "rename a new folder to", true);
    return sync_parent(to);
}

cudpo_status file_remove_folder(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) return errno == ENOENT ? CUDPO_OK : file_fail(path, "open folder", true);
    cudpo_status status = CUDPO_OK;
    for (struct dirent *e; status == CUDPO_OK && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = path_join(path, e->d_name);
        struct stat s;
        if (child == NULL) {
            status = cudpo_fail(CUDPO_ENOMEM, path, "path");
        } else if (lstat(child, &s) != 0) {
            status = file_fail(child, "stat", true);
        } else if (S_ISDIR(s.st_mode)) {
            status = file_remove_folder(child);
        } else if (unlink(child) != 0) {
            status = file_fail(child, "remove", true);
        }
        free(child);
    }
    closedir(d);
    if (status == CUDPO_OK && rmdir(path) != 0) status = file_fail(path, "remove", true);
    return status;
}
