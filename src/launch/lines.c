/* lines.c - each line is one write, so that lines of several ranks do not mix. */
#include "launch/lines.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t written = write(fd, data, n);
        if (written >= 0) {
            data += written;
            n -= (size_t)written;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) { /* a terminal that others share */
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void pass_on(lines *l, const char *line, size_t n)
{
    char whole[LINES_PREFIX + LINES_LONGEST + 1];
    const size_t prefix = strlen(l->prefix);
    memcpy(whole, l->prefix, prefix);
    memcpy(whole + prefix, line, n);
    whole[prefix + n] = '\n';
    if (!l->lost) l->lost = !write_all(l->to, whole, prefix + n + 1);
}

bool lines_move(lines *l)
{
    if (l->from < 0) return false;
    const ssize_t n = read(l->from, l->data + l->held, LINES_LONGEST - l->held);
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (n <= 0) {
        close(l->from);
        l->from = -1;
        return false;
    }
    const size_t end = l->held + (size_t)n;
    size_t begin = 0;
    for (const char *stop; (stop = memchr(l->data + begin, '\n', end - begin)) != NULL;) {
        const size_t length = (size_t)(stop - (l->data + begin));
        pass_on(l, l->data + begin, length);
        begin += length + 1;
    }
    l->held = end - begin;
    memmove(l->data, l->data + begin, l->held);
    if (l->held == LINES_LONGEST) {
        pass_on(l, l->data, l->held);
        l->held = 0;
    }
    return true;
}

void lines_finish(lines *l)
{
    enum { MOST = 4096 }; /* reads: something that escaped its rank may write for ever */
    for (int i = 0; i < MOST && lines_move(l); i++) {
    }
    if (l->held > 0) pass_on(l, l->data, l->held);
    l->held = 0;
    if (l->from >= 0) close(l->from);
    l->from = -1;
}
