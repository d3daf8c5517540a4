/* file.h - every file that cudpo reads whole or writes.  A file that is written is complete or absent. */
#ifndef CUDPO_BASE_FILE_H
#define CUDPO_BASE_FILE_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** "a/b" in newly allocated memory, to be freed; NULL if memory ran out. */
char *path_join(const char *folder, const char *name);

/** True where the path exists and is a folder / is a regular file. */
bool file_is_folder(const char *path);
bool file_is_regular(const char *path);

/** True where the path is a folder that can be read and holds nothing. */
bool file_folder_is_empty(const char *path);

/** True where both paths lead to the same existing file or folder. */
bool file_is_same(const char *a, const char *b);

/** Open a regular file for reading, without hanging on anything else.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EPERM; CUDPO_EDATA if it is not a regular file. */
CUDPO_MUST_USE cudpo_status file_open(FILE **out, const char *path);

/** Read a whole regular file of at most max_bytes into new memory with a NUL behind it.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EPERM; CUDPO_EDATA if larger or not a regular file; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status file_read(char **out, size_t *n, const char *path, size_t max_bytes);

/** Make a folder and its parents, durably; not an error if it exists. */
CUDPO_MUST_USE cudpo_status file_make_folder(const char *path);

/** Write a file so that at any moment the old content, the new content or no file is seen: a temporary beside
 *  it, fsync, rename, fsync of the folder.  Of several processes that write the same file at the same time, the last
 *  one's content stays, whole. */
CUDPO_MUST_USE cudpo_status file_write(const char *path, const void *data, size_t n);

/** The same for content that comes in pieces: open, write to `stream`, then commit or abandon exactly once.
 *  Both are safe on {0}; abandon is safe after commit.  A device, a pipe or /dev/stdout is written as it stands. */
typedef struct file_writer {
    FILE *stream;
    char *path;
    char *temporary;
} file_writer;

CUDPO_MUST_USE cudpo_status file_writer_open(file_writer *w, const char *path);
CUDPO_MUST_USE cudpo_status file_writer_put(file_writer *w, const void *data, size_t n);
CUDPO_MUST_USE cudpo_status file_writer_commit(file_writer *w);
void file_writer_abandon(file_writer *w);

/** Whether file_write() will be able to create the file, as far as that can be told now: nothing that is there is changed.
 *  Returns: as file_write(). */
CUDPO_MUST_USE cudpo_status file_check_writable(const char *path);

/** Copy a regular file, as file_write() does.
 *  Returns: CUDPO_OK; of `from` as file_open(); of `to` as file_write(). */
CUDPO_MUST_USE cudpo_status file_copy(const char *to, const char *from);

/** Rename `from` to `to` (which must not exist or be an empty folder) and make the rename durable. */
CUDPO_MUST_USE cudpo_status file_rename(const char *to, const char *from);

/** Remove a folder with everything in it; not an error if absent.  Symbolic links are removed, never followed. */
CUDPO_MUST_USE cudpo_status file_remove_folder(const char *path);

/** Ask the system to drop what it keeps in memory of a file that was synced, so that reading it reads the disk.
 *  No more than a wish: nothing depends on it. */
void file_drop_cache(const char *path);

/** Status of a failed system call on `path`, from errno: ENOINPUT, EPERM, EWRITE for writes (disk full
 *  included), with strerror in the message. */
cudpo_status file_fail(const char *path, const char *what, bool writing);

#endif /* CUDPO_BASE_FILE_H */
