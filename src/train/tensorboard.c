/* tensorboard.c - TFRecord framing around hand-coded protobuf.
 *
 * Record: u64 length, u32 masked CRC-32C of the length, data, u32 masked CRC-32C of the data, all little-endian.
 * Data: message Event {1: double wall_time; 2: int64 step; 3: string file_version; 5: Summary}, Summary {1: Value},
 * Value {1: string tag; 2: float simple_value}.  Source: tensorflow/core/lib/io/record_writer.h, core/util/event.proto. */
#include "train/tensorboard.h"
#include "base/buffer.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* TensorBoard asks for the first; the second tells our files from those of others. */
#define PREFIX "events.out.tfevents."
#define SUFFIX ".cudpo"

struct event_file {
    FILE *stream;
    char *path;
    uint32_t crc_table[256];
};

static void fill_crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0x82f63b78u ^ (c >> 1) : c >> 1; /* Castagnoli's polynomial, reflected */
        table[i] = c;
    }
}

static uint32_t masked_crc(const uint32_t table[256], const void *data, size_t n)
{
    const unsigned char *bytes = data;
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++)
        c = table[(c ^ bytes[i]) & 255] ^ (c >> 8);
    c = ~c;
    return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

static cudpo_status put_integer(buffer *b, uint64_t value, int bytes)
{
    unsigned char little[8];
    for (int i = 0; i < bytes; i++)
        little[i] = (unsigned char)(value >> (8 * i));
    return buffer_append(b, little, (size_t)bytes);
}

static cudpo_status put_varint(buffer *b, uint64_t value)
{
    unsigned char text[10];
    size_t n = 0;
    for (; value > 127; value >>= 7)
        text[n++] = (unsigned char)(value | 128);
    text[n++] = (unsigned char)value;
    return buffer_append(b, text, n);
}

/* A protobuf field of wire type 2: bytes. */
static cudpo_status put_bytes(buffer *b, int field, const void *data, size_t n)
{
    CUDPO_TRY(put_varint(b, (uint64_t)field << 3 | 2));
    CUDPO_TRY(put_varint(b, n));
    return buffer_append(b, data, n);
}

static cudpo_status put_time(buffer *b)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const double seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    CUDPO_TRY(put_varint(b, 1 << 3 | 1));
    return put_integer(b, bits, 8);
}

static cudpo_status put_record(event_file *f, const buffer *event)
{
    buffer record = {0};
    cudpo_status status = put_integer(&record, event->size, 8);
    if (status == CUDPO_OK)
        status = put_integer(&record, masked_crc(f->crc_table, record.data, 8), 4);
    if (status == CUDPO_OK) status = buffer_append(&record, event->data, event->size);
    if (status == CUDPO_OK)
        status = put_integer(&record, masked_crc(f->crc_table, event->data, event->size), 4);
    if (status == CUDPO_OK && fwrite(record.data, 1, record.size, f->stream) != record.size)
        status = file_fail(f->path, "write", true);
    buffer_free(&record);
    return status;
}

static cudpo_status put_version(event_file *f)
{
    static const char version[] = "brain.Event:2";
    buffer event = {0};
    cudpo_status status = put_time(&event);
    if (status == CUDPO_OK) status = put_bytes(&event, 3, version, sizeof version - 1);
    if (status == CUDPO_OK) status = put_record(f, &event);
    buffer_free(&event);
    return status;
}

cudpo_status event_file_open(event_file **out, const char *folder)
{
    enum { NAMES = 100 };
    *out = NULL;
    event_file *f = calloc(1, sizeof *f);
    buffer path = {0};
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    cudpo_status status = file_make_folder(folder);
    if (status == CUDPO_OK && f == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "event file");
    /* Two runs of one second and one process number have different last numbers. */
    for (int i = 0; status == CUDPO_OK && i < NAMES && f->stream == NULL; i++) {
        buffer_clear(&path);
        status = buffer_printf(&path, "%s/" PREFIX "%lld.%s.%ld.%d" SUFFIX, folder,
                               (long long)time(NULL), host, (long)getpid(), i);
        if (status == CUDPO_OK) f->stream = fopen(path.data, "wbx");
        if (status == CUDPO_OK && f->stream == NULL && (errno != EEXIST || i + 1 == NAMES))
            status = file_fail(path.data, "create", true);
    }
    if (status == CUDPO_OK) {
        f->path = path.data;
        path = (buffer){0};
        fill_crc_table(f->crc_table);
        status = put_version(f);
    }
    buffer_free(&path);
    if (status != CUDPO_OK) {
        event_file_close(f);
        return status;
    }
    *out = f;
    return CUDPO_OK;
}

static bool is_ours(const char *name)
{
    const size_t n = strlen(name), end = sizeof SUFFIX - 1;
    return n > sizeof PREFIX - 1 + end && strncmp(name, PREFIX, sizeof PREFIX - 1) == 0 &&
           strcmp(name + n - end, SUFFIX) == 0;
}

cudpo_status event_files_remove(const char *folder)
{
    DIR *d = opendir(folder);
    if (d == NULL) return errno == ENOENT ? CUDPO_OK : file_fail(folder, "open folder", true);
    cudpo_status status = CUDPO_OK;
    for (struct dirent *e; status == CUDPO_OK && (e = readdir(d)) != NULL;) {
        if (!is_ours(e->d_name)) continue;
        char *path = path_join(folder, e->d_name);
        if (path == NULL)
            status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
        else if (unlink(path) != 0 && errno != ENOENT)
            status = file_fail(path, "remove", true);
        free(path);
    }
    closedir(d);
    return status;
}

cudpo_status event_file_scalar(event_file *f, int64_t step, const char *tag, double value)
{
    buffer scalar = {0}, summary = {0}, event = {0};
    const float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    cudpo_status status = put_bytes(&scalar, 1, tag, strlen(tag));
    if (status == CUDPO_OK) status = put_varint(&scalar, 2 << 3 | 5);
    if (status == CUDPO_OK) status = put_integer(&scalar, bits, 4);
    if (status == CUDPO_OK) status = put_bytes(&summary, 1, scalar.data, scalar.size);
    if (status == CUDPO_OK) status = put_time(&event);
    if (status == CUDPO_OK) status = put_varint(&event, 2 << 3 | 0);
    if (status == CUDPO_OK) status = put_varint(&event, (uint64_t)step);
    if (status == CUDPO_OK) status = put_bytes(&event, 5, summary.data, summary.size);
    if (status == CUDPO_OK) status = put_record(f, &event);
    buffer_free(&event);
    buffer_free(&summary);
    buffer_free(&scalar);
    return status;
}

cudpo_status event_file_flush(event_file *f)
{
    if (fflush(f->stream) != 0) return file_fail(f->path, "write", true);
    return CUDPO_OK;
}

void event_file_close(event_file *f)
{
    if (f == NULL) return;
    if (f->stream != NULL) fclose(f->stream);
    free(f->path);
    free(f);
}
