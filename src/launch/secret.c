/* secret.c - a file that is removed before anything is written to it: whatever ends this process, nothing is left behind. */
#include "launch/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static cudpo_status random_digits(char *out, size_t bytes)
{
    uint8_t raw[SECRET_BYTES];
    if (getrandom(raw, bytes, 0) != (ssize_t)bytes) /* up to 256 bytes come at once */
        return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "no random numbers: %s", strerror(errno));
    for (size_t i = 0; i < bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", raw[i]);
    return CUDPO_OK;
}

cudpo_status secret_id(char id[SECRET_ID])
{
    return random_digits(id, (SECRET_ID - 1) / 2);
}

/* In memory where there is such a file system; only this user can open it, while it has a name. */
static int open_unnamed(void)
{
    const char *temporary = getenv("TMPDIR");
    const char *const folders[] = {"/dev/shm", temporary == NULL ? "/var/tmp" : temporary, "/tmp"};
    char name[4096];
    for (int i = 0; i < 3; i++) {
        const int n = snprintf(name, sizeof name, "%s/cudpo-XXXXXX", folders[i]);
        const int fd = n < (int)sizeof name ? mkstemp(name) : -1;
        if (fd < 0) continue;
        if (unlink(name) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) return fd;
        close(fd);
    }
    return -1;
}

cudpo_status secret_create(int *fd, char path[SECRET_PATH])
{
    char digits[2 * SECRET_BYTES + 1];
    CUDPO_TRY(random_digits(digits, SECRET_BYTES));
    *fd = open_unnamed();
    if (*fd < 0)
        return cudpo_fail(CUDPO_EWRITE, "rendezvous token",
                          "can't create a file in /dev/shm, $TMPDIR or /tmp: %s", strerror(errno));
    if (write(*fd, digits, sizeof digits - 1) != (ssize_t)sizeof digits - 1) {
        const int error = errno;
        close(*fd);
        *fd = -1;
        return cudpo_fail(CUDPO_EWRITE, "rendezvous token", "can't write: %s", strerror(error));
    }
    snprintf(path, SECRET_PATH, "/proc/%ld/fd/%d", (long)getpid(), *fd);
    return CUDPO_OK;
}
