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

bool file_folder_is_empty(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) return false;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d)) != NULL;)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return empty;
}

bool file_is_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

cudpo_status file_open(FILE **out, const char *path)
{
    *out = NULL;
    /* O_NONBLOCK: opening a FIFO that someone planted in a model folder must not hang. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return file_fail(path, "open", false);
    cudpo_status status = CUDPO_OK;
    struct stat s;
    if (fstat(fd, &s) != 0) {
        status = file_fail(path, "stat", false);
    } else if (!S_ISREG(s.st_mode)) {
        status = cudpo_fail(CUDPO_EDATA, path, "not a regular file");
    } else if ((*out = fdopen(fd, "rb")) == NULL) {
        status = file_fail(path, "open", false);
    }
    if (status != CUDPO_OK) close(fd);
    return status;
}

cudpo_status file_read(char **out, size_t *n, const char *path, size_t max_bytes)
{
    *out = NULL;
    *n = 0;
    FILE *f = NULL;
    CUDPO_TRY(file_open(&f, path));
    setvbuf(f, NULL, _IONBF, 0); /* one read straight into place */
    cudpo_status status = CUDPO_OK;
    char *data = NULL;
    struct stat s;
    if (fstat(fileno(f), &s) != 0) {
        status = file_fail(path, "stat", false);
        goto out;
    }
    if ((uintmax_t)s.st_size > max_bytes || (uintmax_t)s.st_size >= SIZE_MAX) {
        status = cudpo_fail(CUDPO_EDATA, path, "%jd bytes; at most %zu are accepted",
                            (intmax_t)s.st_size, max_bytes);
        goto out;
    }
    const size_t size = (size_t)s.st_size;
    data = malloc(size + 1);
    if (data == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "%zu bytes", size);
        goto out;
    }
    if (fread(data, 1, size, f) != size) {
        status = ferror(f) ? file_fail(path, "read", false)
                           : cudpo_fail(CUDPO_EDATA, path, "became shorter while it was read");
        goto out;
    }
    data[size] = '\0';
    *out = data;
    *n = size;
    data = NULL;
out:
    free(data);
    fclose(f);
    return status;
}

/* Make a change of the entries of the folder of `path` durable: its creation, removal or rename. */
static cudpo_status sync_parent(const char *path)
{
    char *folder = strdup(path);
    if (folder == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') /* "a/b/" is in "a" too */
        folder[--n] = '\0';
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

cudpo_status file_make_folder(const char *path)
{
    if (path[0] == '\0') return cudpo_fail(CUDPO_EWRITE, "folder", "has no name");
    char *p = strdup(path);
    if (p == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    cudpo_status status = CUDPO_OK;
    for (char *c = p + 1; status == CUDPO_OK; c++) {
        if (*c != '/' && *c != '\0') continue;
        const char end = *c;
        *c = '\0';
        if (file_is_folder(p)) {
            /* Nothing to do, and nothing to ask of a parent that we may not write to. */
        } else if (mkdir(p, 0777) == 0) {
            status = sync_parent(p);
        } else if (errno != EEXIST) {
            status = file_fail(p, "create folder", true);
        }
        *c = end;
        if (end == '\0') break;
    }
    if (status == CUDPO_OK && !file_is_folder(path))
        status = cudpo_fail(CUDPO_EWRITE, path, "exists and is not a folder");
    free(p);
    return status;
}

/* Is the open file, which must be regular, still the one of that name, and of no other? */
static bool is_named(int fd, const char *name)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(name, &b) == 0 && S_ISREG(a.st_mode) &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_nlink == 1;
}

/* Create or take over the temporary of that name: -1 where it can't be opened, -2 where it is another process's.
 * A writer keeps its temporary locked until it is renamed, so one without a lock is the leftover of a writer that was
 * killed; anything but a plain file of that name, such as a link that would lead the content elsewhere, is removed. */
static int open_temporary(const char *name)
{
    struct stat s;
    if (lstat(name, &s) == 0 && (!S_ISREG(s.st_mode) || s.st_nlink != 1)) unlink(name);
    const int fd = open(name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const bool locked = fcntl(fd, F_SETLK, &lock) == 0;
    const bool taken = !locked && (errno == EACCES || errno == EAGAIN);
    /* Other errors: a file system without locks, where the last writer wins as it did before there were any. */
    if (taken || !is_named(fd, name)) {
        close(fd);
        return -2;
    }
    if (ftruncate(fd, 0) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A device, a pipe or an open stream by its name (/dev/stdout is a link), which no file may take the place of: it is
 * written as it stands. */
static bool is_special(const char *path)
{
    struct stat s;
    if (lstat(path, &s) != 0) return false;
    if (S_ISLNK(s.st_mode) && (strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0))
        return true;
    return stat(path, &s) == 0 && !S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode);
}

static cudpo_status open_special(file_writer *w, const char *path)
{
    w->path = strdup(path);
    if (w->path != NULL) w->stream = fopen(path, "wb");
    if (w->stream != NULL) return CUDPO_OK;
    const cudpo_status status = file_fail(path, "open", true);
    file_writer_abandon(w);
    return status;
}

cudpo_status file_writer_open(file_writer *w, const char *path)
{
    enum { WRITERS = 64 }; /* of one file at the same time */
    *w = (file_writer){0};
    if (is_special(path)) return open_special(w, path);
    const size_t n = strlen(path) + 16;
    w->path = strdup(path);
    w->temporary = malloc(n);
    if (w->path == NULL || w->temporary == NULL) {
        free(w->temporary);
        w->temporary = NULL;
        file_writer_abandon(w);
        return cudpo_fail(CUDPO_ENOMEM, path, "path");
    }
    int fd = -2;
    for (int i = 0; i < WRITERS && fd == -2; i++) {
        errno = EBUSY; /* unless something else fails */
        if (i == 0) {
            snprintf(w->temporary, n, "%s.tmp", path);
        } else {
            snprintf(w->temporary, n, "%s.tmp%d", path, i);
        }
        fd = open_temporary(w->temporary);
    }
    if (fd >= 0) w->stream = fdopen(fd, "wb");
    if (w->stream == NULL) {
        const cudpo_status status = file_fail(path, "create", true);
        if (fd >= 0) close(fd);
        if (fd < 0) { /* nothing of ours has that name */
            free(w->temporary);
            w->temporary = NULL;
        }
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
    if (fflush(w->stream) != 0 || (w->temporary != NULL && fsync(fileno(w->stream)) != 0))
        status = file_fail(w->path, "write", true);
    if (w->temporary == NULL) { /* a device or a pipe has its name, and nothing to sync */
        file_writer_abandon(w);
        return status;
    }
    /* The stream stays open, and with it the lock, until the temporary has its name. */
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
    if (w->temporary != NULL) unlink(w->temporary);
    if (w->stream != NULL) fclose(w->stream); /* what matters of it was synced by commit */
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

cudpo_status file_check_writable(const char *path)
{
    file_writer w;
    if (file_is_folder(path)) return cudpo_fail(CUDPO_EWRITE, path, "is a folder");
    if (is_special(path)) return CUDPO_OK; /* who reads a pipe would see its end */
    CUDPO_TRY(file_writer_open(&w, path));
    file_writer_abandon(&w);
    return CUDPO_OK;
}

cudpo_status file_copy(const char *to, const char *from)
{
    FILE *in = NULL;
    CUDPO_TRY(file_open(&in, from));
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

/* Remove an entry of an open folder.  Everything is done relative to folders that were opened as folders, so that no
 * link put in their place meanwhile leads outside.  `path` is for messages. */
static cudpo_status remove_entry(int parent, const char *name, const char *path)
{
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT) return CUDPO_OK;
        if (errno != ENOTDIR && errno != ELOOP) return file_fail(path, "open folder", true);
        return unlinkat(parent, name, 0) == 0 ? CUDPO_OK : file_fail(path, "remove", true);
    }
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        const cudpo_status status = file_fail(path, "open folder", true);
        close(fd);
        return status;
    }
    cudpo_status status = CUDPO_OK;
    while (status == CUDPO_OK) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL) {
            if (errno != 0) status = file_fail(path, "read folder", true);
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = path_join(path, e->d_name);
        status = child == NULL ? cudpo_fail(CUDPO_ENOMEM, path, "path")
                               : remove_entry(fd, e->d_name, child);
        free(child);
    }
    closedir(d);
    if (status == CUDPO_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0)
        status = file_fail(path, "remove", true);
    return status;
}

cudpo_status file_remove_folder(const char *path)
{
    return remove_entry(AT_FDCWD, path, path);
}

void file_drop_cache(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return;
    const int ignored = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)ignored;
    close(fd);
}
