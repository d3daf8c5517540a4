/* source.c - read(2) and zlib's inflate, member by member, so that a cut or damaged archive is an error and never
 * a shorter file.  Sources: RFC 1952 (gzip), zlib.h. */
#include "data/source.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 1 << 17, GZIP_ONLY = 16 /* of inflateInit2's window bits */ };

struct byte_source {
    int fd;
    int64_t size, taken; /* bytes of the file, and those that were read */
    bool gzip;
    bool inflating; /* z is initialised */
    bool in_member; /* a gzip member has begun and not ended */
    size_t
        raw_size; /* bytes in raw that nobody has taken yet; of gzip: z.avail_in counts instead */
    z_stream z;
    char raw[CHUNK], text[CHUNK];
};

/* Formats that users have and we don't read, told by their first bytes. */
static const struct {
    const char *magic, *name, *cure;
} foreign[] = {
    {"PAR1", "Parquet",
     "convert it first: python3 -c \"import pandas, sys; pandas.read_parquet(sys.argv[1])"
     ".to_json(sys.argv[2], orient='records', lines=True)\" IN.parquet OUT.jsonl"},
    {"ARROW1", "Arrow", "convert it first: datasets.load_from_disk(FOLDER).to_json(\"OUT.jsonl\")"},
    {"\x28\xb5\x2f\xfd", "zstd", "unpack it first: zstd -d FILE"},
    {"BZh", "bzip2", "unpack it first: bunzip2 FILE"},
    {"\xfd"
     "7zXZ",
     "xz", "unpack it first: unxz FILE"},
    {"PK\x03\x04", "zip", "unpack it first: unzip FILE"},
    {"\xff\xfe", "UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 IN > OUT.jsonl"},
    {"\xfe\xff", "UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 IN > OUT.jsonl"},
};

static cudpo_status check_magic(const char *head, size_t n, const char *path)
{
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        const size_t length = strlen(foreign[i].magic);
        if (n >= length && memcmp(head, foreign[i].magic, length) == 0)
            return cudpo_fail(CUDPO_EDATA, path, "%s is not read here, only JSONL and JSON: %s",
                              foreign[i].name, foreign[i].cure);
    }
    return CUDPO_OK;
}

/* Refill raw from the file; *n = 0 at its end. */
static cudpo_status read_raw(byte_source *s, size_t *n, const char *where)
{
    for (;;) {
        const ssize_t got = read(s->fd, s->raw, sizeof s->raw);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_fail(where, "read", false);
        s->taken += got;
        *n = (size_t)got;
        return CUDPO_OK;
    }
}

static cudpo_status open_regular(int *fd, int64_t *size, const char *path)
{
    /* O_NONBLOCK: opening a FIFO must not hang. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return file_fail(path, "open", false);
    struct stat s;
    if (fstat(*fd, &s) != 0) return file_fail(path, "stat", false);
    if (!S_ISREG(s.st_mode))
        return cudpo_fail(CUDPO_EDATA, path, "%s, not a file of preferences",
                          S_ISDIR(s.st_mode) ? "a folder" : "not a regular file");
    *size = s.st_size;
    return CUDPO_OK;
}

cudpo_status byte_source_open(byte_source **out, const char *path)
{
    *out = NULL;
    byte_source *s = malloc(sizeof *s);
    if (s == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "%zu bytes", sizeof *s);
    s->fd = -1;
    s->gzip = s->inflating = s->in_member = false;
    s->raw_size = 0;
    s->size = s->taken = 0;
    memset(&s->z, 0, sizeof s->z);

    cudpo_status status = open_regular(&s->fd, &s->size, path);
    if (status == CUDPO_OK) status = read_raw(s, &s->raw_size, path);
    if (status == CUDPO_OK) status = check_magic(s->raw, s->raw_size, path);
    if (status != CUDPO_OK) goto out;
    if (s->raw_size >= 2 && memcmp(s->raw, "\x1f\x8b", 2) == 0) {
        s->gzip = s->in_member = true;
        s->z.next_in = (Bytef *)s->raw;
        s->z.avail_in = (uInt)s->raw_size;
        if (inflateInit2(&s->z, MAX_WBITS + GZIP_ONLY) != Z_OK) {
            status = cudpo_fail(CUDPO_ENOMEM, path, "no memory to unpack");
            goto out;
        }
        s->inflating = true;
    }
    *out = s;
    s = NULL;
out:
    byte_source_close(s);
    return status;
}

/* One call of inflate, with what is in raw; starts a further member where one ended. */
static cudpo_status inflate_step(byte_source *s, const char *where)
{
    if (!s->in_member) {
        /* Some writers fill the last block with zeros (tape, rsync): no data, as gzip itself treats them. */
        while (s->z.avail_in > 0 && *s->z.next_in == 0) {
            s->z.next_in++;
            s->z.avail_in--;
        }
        if (s->z.avail_in == 0) return CUDPO_OK;
        if (inflateReset(&s->z) != Z_OK) return cudpo_fail(CUDPO_EDATA, where, "inflateReset");
        s->in_member = true;
    }
    const int result = inflate(&s->z, Z_NO_FLUSH);
    switch (result) {
    case Z_OK:
    case Z_BUF_ERROR: /* no progress was possible without more input: the caller refills */
        return CUDPO_OK;
    case Z_STREAM_END:
        s->in_member = false;
        return CUDPO_OK;
    case Z_MEM_ERROR:
        return cudpo_fail(CUDPO_ENOMEM, where, "no memory to unpack");
    default:
        return cudpo_fail(CUDPO_EDATA, where, "the gzip data are damaged (%s): copy the file again",
                          s->z.msg != NULL ? s->z.msg : "no reason given");
    }
}

static cudpo_status next_inflated(byte_source *s, const char **data, size_t *n, const char *where)
{
    s->z.next_out = (Bytef *)s->text;
    s->z.avail_out = sizeof s->text;
    while (s->z.avail_out == sizeof s->text) {
        if (s->z.avail_in == 0) {
            size_t got = 0;
            CUDPO_TRY(read_raw(s, &got, where));
            if (got == 0) {
                if (!s->in_member) break;
                return cudpo_fail(
                    CUDPO_EDATA, where,
                    "the gzip data end too early: the file is cut off, copy it again");
            }
            s->z.next_in = (Bytef *)s->raw;
            s->z.avail_in = (uInt)got;
        }
        CUDPO_TRY(inflate_step(s, where));
    }
    *data = s->text;
    *n = sizeof s->text - s->z.avail_out;
    return CUDPO_OK;
}

cudpo_status byte_source_next(byte_source *s, const char **data, size_t *n, const char *where)
{
    *n = 0;
    if (s->gzip) return next_inflated(s, data, n, where);
    *data = s->raw;
    if (s->raw_size > 0) { /* the chunk that told the format */
        *n = s->raw_size;
        s->raw_size = 0;
        return CUDPO_OK;
    }
    return read_raw(s, n, where);
}

double byte_source_share(const byte_source *s)
{
    return s->taken < s->size ? (double)s->taken / (double)s->size : 1.0;
}

void byte_source_close(byte_source *s)
{
    if (s == NULL) return;
    if (s->inflating) inflateEnd(&s->z);
    if (s->fd >= 0) close(s->fd);
    free(s);
}
