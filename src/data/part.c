/* part.c - what comes back of a part is checked before it is used: other machines wrote it. */
#include "data/part.h"
#include "base/buffer.h"
#include "base/file.h"
#include "data/cache.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct part_row {
    int64_t index; /* -1: the end */
    int64_t line;  /* there: rows of the whole file */
    int64_t size[MAX_COMPLETIONS];
    uint8_t identical, undesired, unaligned, dropped[MAX_COMPLETIONS], zero[3];
} part_row;

enum { LEFT_SECONDS = 3600 }; /* after its last write nobody misses a part */

static_assert(sizeof(part_row) == 40, "the file has no padding of the compiler's");

/* Is the open file still the one of that name? */
static bool is_named(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static bool lock_part(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_SETLK, &whole) == 0;
}

/* Between its creation and its lock a sweep may take it for a leftover: then it is made once more. */
static int create_locked(const char *path)
{
    enum { TRIES = 100 };
    for (int i = 0; i < TRIES; i++) {
        const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (fd < 0 && i > 0 && errno == EEXIST) { /* the sweep has not removed it yet */
            const struct timespec pause = {.tv_nsec = 10000000};
            nanosleep(&pause, NULL);
            continue;
        }
        if (fd < 0) return -1;
        const bool locked = lock_part(fd);
        if ((locked || (errno != EACCES && errno != EAGAIN)) && is_named(fd, path)) return fd;
        close(fd);
    }
    errno = EBUSY;
    return -1;
}

cudpo_status part_create(part_file *p, const char *path)
{
    *p = (part_file){.path = strdup(path)};
    if (p->path == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    const int fd = create_locked(path);
    if (fd >= 0) p->stream = fdopen(fd, "w+b");
    if (p->stream == NULL) {
        const cudpo_status status = file_fail(path, "create", true);
        if (fd >= 0) {
            unlink(path);
            close(fd);
        }
        free(p->path);
        p->path = NULL;
        return status;
    }
    const cudpo_status status = hash_begin(&p->checksum);
    if (status != CUDPO_OK) part_remove(p);
    return status;
}

static cudpo_status put(part_file *p, const void *data, size_t n)
{
    if (p->checksum != NULL) hash_add(p->checksum, data, n);
    if (n > 0 && fwrite(data, 1, n, p->stream) != n) return file_fail(p->path, "write", true);
    return CUDPO_OK;
}

cudpo_status part_put(part_file *p, const built_row *row)
{
    part_row r = {.index = row->index,
                  .line = row->line,
                  .identical = row->identical,
                  .undesired = row->undesired,
                  .unaligned = row->unaligned};
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        r.size[c] = (int64_t)row->size[c];
        r.dropped[c] = row->dropped[c];
    }
    CUDPO_TRY(put(p, &r, sizeof r));
    for (int c = 0; c < MAX_COMPLETIONS; c++)
        CUDPO_TRY(put(p, row->record[c], row->size[c]));
    return CUDPO_OK;
}

/* Closing it would take its lock; fsync() shows it to other machines just as well. */
cudpo_status part_finish(part_file *p, int64_t rows)
{
    const part_row end = {.index = -1, .line = rows};
    CUDPO_TRY(put(p, &end, sizeof end));
    const hash128 sum = hash_end(p->checksum);
    p->checksum = NULL;
    CUDPO_TRY(put(p, &sum, sizeof sum));
    if (fflush(p->stream) != 0 || fsync(fileno(p->stream)) != 0)
        return file_fail(p->path, "write", true);
    return CUDPO_OK;
}

void part_remove(part_file *p)
{
    if (p->path != NULL) unlink(p->path);
    if (p->stream != NULL) fclose(p->stream);
    hash_abandon(p->checksum);
    free(p->path);
    *p = (part_file){0};
}

typedef struct part_reader {
    const char *path;
    FILE *stream;
    int64_t left; /* bytes */
    hash_state *checksum;
    part_row next;
    bool ended;
} part_reader;

struct part_join {
    part_reader *part; /* [n] */
    char **path;       /* [n] */
    int32_t n, at;     /* at: the part whose turn it is */
    int64_t rows;      /* that were handed out */
    int64_t vocabulary;
    buffer record;
};

static cudpo_status refuse(const part_reader *p, const char *reason)
{
    return cudpo_fail(CUDPO_EWRITE, p->path, "reads back other than it was written: %s", reason);
}

static cudpo_status get(part_reader *p, void *data, size_t n)
{
    if (p->left < 0 || n > (uint64_t)p->left || fread(data, 1, n, p->stream) != n)
        return refuse(p, "it is cut off");
    p->left -= (int64_t)n;
    if (p->checksum != NULL) hash_add(p->checksum, data, n);
    return CUDPO_OK;
}

/* The header of the next row; at the end the whole part must be what its checksum says. */
static cudpo_status get_next(part_reader *p)
{
    hash128 sum;
    CUDPO_TRY(get(p, &p->next, sizeof p->next));
    if (p->next.index >= 0) return CUDPO_OK;
    const hash128 own = hash_end(p->checksum);
    p->checksum = NULL;
    CUDPO_TRY(get(p, &sum, sizeof sum));
    if (p->left != 0 || sum.high != own.high || sum.low != own.low)
        return refuse(p, "its checksum is wrong");
    p->ended = true;
    return CUDPO_OK;
}

static cudpo_status open_part(part_reader *p)
{
    struct stat s;
    CUDPO_TRY(file_open(&p->stream, p->path));
    if (fstat(fileno(p->stream), &s) != 0) return file_fail(p->path, "stat", false);
    p->left = s.st_size;
    CUDPO_TRY(hash_begin(&p->checksum));
    return get_next(p);
}

cudpo_status part_join_open(part_join **out, char *const *path, int32_t n, int64_t vocabulary)
{
    *out = NULL;
    CUDPO_REQUIRE(n >= 1);
    part_join *j = calloc(1, sizeof *j);
    if (j == NULL) return cudpo_fail(CUDPO_ENOMEM, path[0], "parts");
    j->n = n;
    j->vocabulary = vocabulary;
    j->part = calloc((size_t)n, sizeof *j->part);
    j->path = calloc((size_t)n, sizeof *j->path);
    cudpo_status status = CUDPO_OK;
    if (j->part == NULL || j->path == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, path[0], "%d parts", (int)n);
    for (int32_t i = 0; i < n && status == CUDPO_OK; i++) {
        j->part[i].path = j->path[i] = strdup(path[i]);
        status =
            j->path[i] == NULL ? cudpo_fail(CUDPO_ENOMEM, path[i], "path") : open_part(&j->part[i]);
    }
    if (status == CUDPO_OK)
        *out = j;
    else
        part_join_close(j);
    return status;
}

void part_join_close(part_join *j)
{
    if (j == NULL) return;
    for (int32_t i = 0; i < j->n; i++) {
        if (j->part != NULL) {
            hash_abandon(j->part[i].checksum);
            if (j->part[i].stream != NULL) fclose(j->part[i].stream);
        }
        if (j->path != NULL) free(j->path[i]);
    }
    free(j->part);
    free(j->path);
    buffer_free(&j->record);
    free(j);
}

/* The records of a row into j->record. */
static cudpo_status get_records(part_join *j, part_reader *p)
{
    buffer_clear(&j->record);
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        const int64_t n = p->next.size[c];
        if (n == 0) continue;
        if (n < (int64_t)sizeof(cache_record) || n % 8 != 0 || n > p->left)
            return refuse(p, "a size is out of range");
        CUDPO_TRY(buffer_reserve(&j->record, (size_t)n));
        char *to = j->record.data + j->record.size;
        CUDPO_TRY(get(p, to, (size_t)n));
        const cache_record *r = (const cache_record *)(const void *)to;
        const char *reason = cache_record_check(r, (size_t)n, j->vocabulary);
        if (reason == NULL && cache_record_size(r) != (size_t)n) reason = "a record is cut off";
        if (reason != NULL) return refuse(p, reason);
        j->record.size += (size_t)n;
    }
    return CUDPO_OK;
}

static built_row row_of(const part_row *r, const buffer *record)
{
    const char *at = record->data;
    built_row out = {.index = r->index,
                     .line = r->line,
                     .identical = r->identical != 0,
                     .undesired = r->undesired != 0,
                     .unaligned = r->unaligned != 0};
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        out.dropped[c] = r->dropped[c] != 0;
        out.size[c] = (size_t)r->size[c];
        if (r->size[c] == 0) continue;
        out.record[c] = at;
        at += r->size[c];
    }
    return out;
}

/* All parts have ended: does each know of as many rows as there were? */
static cudpo_status check_end(const part_join *j)
{
    for (int32_t i = 0; i < j->n; i++) {
        if (!j->part[i].ended || j->part[i].next.line != j->rows)
            return refuse(&j->part[i], "rows are missing");
    }
    return CUDPO_OK;
}

cudpo_status part_join_next(part_join *j, built_row *row, bool *done)
{
    *done = false;
    for (int32_t i = 0; i < j->n; i++, j->at = (j->at + 1) % j->n) {
        part_reader *p = &j->part[j->at];
        if (p->ended || p->next.index != j->rows) continue;
        CUDPO_TRY(get_records(j, p));
        *row = row_of(&p->next, &j->record);
        j->rows++;
        return get_next(p);
    }
    *done = true;
    return check_end(j);
}

/* Remove a file where its name is a part's and nobody has it locked, or wrote to it lately: not all mounts know of the locks of
 * other machines. */
static void sweep(const char *path, const char *name)
{
    struct stat s;
    if (strncmp(name, "tokens-", 7) != 0 || strstr(name, ".part-") == NULL) return;
    if (lstat(path, &s) != 0 || !S_ISREG(s.st_mode)) return;
    if (time(NULL) - s.st_mtime < LEFT_SECONDS) return;
    const int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    if (lock_part(fd) && is_named(fd, path)) unlink(path);
    close(fd);
}

void part_sweep(const char *folder, const char *own)
{
    DIR *d = opendir(folder);
    if (d == NULL) return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (own != NULL && strstr(e->d_name, own) != NULL) continue;
        char *path = path_join(folder, e->d_name);
        if (path != NULL) sweep(path, e->d_name);
        free(path);
    }
    closedir(d);
}
