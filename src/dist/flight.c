/* flight.c - writes a rank's record of collectives: stores to a mapped file, no system call but the clock. */
#include "dist/flight.h"
#include "base/file.h"
#include "dist/flight_format.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct flight {
    flight_file *file;
};

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME,
                  &t); /* the same for all ranks of a host, and near enough for others */
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* As much of a text as there is room for; what was there before is gone. */
static void put_text(char *to, size_t room, const char *text)
{
    const size_t n = strnlen(text, room - 1);
    memcpy(to, text, n);
    memset(to + n, 0, room - n);
}

/* A file of full size under a name of its own: a disk that is full must show here, because a store to a mapped page that can't
 * be had ends the process. */
static cudpo_status create(flight_file **out, const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT) return file_fail(path, "remove", true);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return file_fail(path, "create", true);
    cudpo_status status = CUDPO_OK;
    void *memory = MAP_FAILED;
    const int error = posix_fallocate(fd, 0, sizeof(flight_file));
    if (error != 0) {
        errno = error;
        status = file_fail(path, "write a flight record of 1 MiB to", true);
    } else if ((memory = mmap(NULL, sizeof(flight_file), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                              0)) == MAP_FAILED) {
        status = file_fail(path, "map", true);
    }
    close(fd);
    if (status != CUDPO_OK) unlink(path);
    *out = status == CUDPO_OK ? memory : NULL;
    return status;
}

static void fill_header(flight_header *h, int32_t rank, int32_t size, const char *run_id)
{
    memcpy(h->magic, FLIGHT_MAGIC, sizeof h->magic);
    h->version = FLIGHT_VERSION;
    h->entries = FLIGHT_ENTRIES;
    h->entry_bytes = sizeof(flight_entry);
    h->rank = rank;
    h->size = size;
    h->pid = (int32_t)getpid();
    h->begun = now();
    put_text(h->run_id, sizeof h->run_id, run_id);
    if (gethostname(h->host, sizeof h->host - 1) != 0) h->host[0] = '\0';
}

/* The record's file, which appears under its name with its header complete. */
static cudpo_status create_named(flight *f, const char *path, int32_t rank, int32_t size,
                                 const char *run_id)
{
    const size_t n = strlen(path) + 8;
    char *temporary = malloc(n);
    if (temporary == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "path");
    snprintf(temporary, n, "%s.tmp", path);
    cudpo_status status = create(&f->file, temporary);
    if (status == CUDPO_OK) {
        fill_header(&f->file->header, rank, size, run_id);
        if (rename(temporary, path) != 0) {
            status = file_fail(path, "rename a new file to", true);
            unlink(temporary);
        }
    }
    free(temporary);
    return status;
}

cudpo_status flight_open(flight **out, const char *folder, int32_t rank, int32_t size,
                         const char *run_id)
{
    *out = NULL;
    CUDPO_REQUIRE(folder != NULL && run_id != NULL && rank >= 0 && rank < size);
    CUDPO_TRY(file_make_folder(folder));
    char name[32];
    snprintf(name, sizeof name, "rank-%05d.bin", (int)rank);
    flight *f = calloc(1, sizeof *f);
    char *path = path_join(folder, name);
    const cudpo_status status = f == NULL || path == NULL
                                    ? cudpo_fail(CUDPO_ENOMEM, folder, "flight record")
                                    : create_named(f, path, rank, size, run_id);
    free(path);
    if (status == CUDPO_OK) {
        *out = f;
        return CUDPO_OK;
    }
    if (f != NULL && f->file != NULL) munmap(f->file, sizeof *f->file);
    free(f);
    return status;
}

void flight_close(flight *f)
{
    if (f == NULL) return;
    atomic_store_explicit(&f->file->header.ended, now(), memory_order_release);
    munmap(f->file, sizeof *f->file);
    free(f);
}

static flight_entry *entry_of(flight *f, int64_t sequence)
{
    assert(sequence >= 1);
    return &f->file->entries[(sequence - 1) % FLIGHT_ENTRIES];
}

void flight_schedule(flight *f, int64_t sequence, const char *op, int64_t elements,
                     const char *type, int64_t step)
{
    if (f == NULL) return;
    flight_entry *e = entry_of(f, sequence);
    atomic_store_explicit(&e->sequence, 0, memory_order_relaxed);
    atomic_exchange(&e->again,
                    0); /* an exchange, because nothing that follows may come before it */
    e->elements = elements;
    e->step = step;
    e->scheduled = now();
    atomic_store_explicit(&e->started, 0, memory_order_relaxed);
    atomic_store_explicit(&e->completed, 0, memory_order_relaxed);
    atomic_store_explicit(&e->state, FLIGHT_SCHEDULED, memory_order_relaxed);
    put_text(e->op, sizeof e->op, op);
    put_text(e->type, sizeof e->type, type);
    atomic_store_explicit(&e->sequence, sequence, memory_order_release);
    atomic_store_explicit(&e->again, sequence, memory_order_release);
}

void flight_mark(flight *f, int64_t sequence, flight_state state)
{
    if (f == NULL) return;
    flight_entry *e = entry_of(f, sequence);
    if (atomic_load_explicit(&e->again, memory_order_acquire) != sequence) return; /* overtaken */
    atomic_store_explicit(state == FLIGHT_COMPLETED ? &e->completed : &e->started, now(),
                          memory_order_relaxed);
    atomic_store_explicit(&e->state, state, memory_order_release);
}

void flight_note(flight *f, const char *text)
{
    if (f == NULL) return;
    flight_header *h = &f->file->header;
    long long none = 0;
    if (!atomic_compare_exchange_strong(&h->noted, &none, -1)) return; /* the first reason counts */
    put_text(h->note, sizeof h->note, text);
    atomic_store_explicit(&h->noted, now(), memory_order_release);
}
