/* flight_read.c - nothing of a file is believed before it was looked at; a damaged one is named. */
#include "dist/flight_read.h"
#include "base/file.h"
#include "dist/placement.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A time of this century or none: sums and differences of such do not overflow. */
static bool is_time(int64_t t)
{
    return t >= 0 && t < INT64_MAX / 2;
}

/* A text that ends within its field; what could move a terminal's cursor becomes '?'. */
static bool take_text(char *to, const char *from, size_t room)
{
    if (memchr(from, '\0', room) == NULL) return false;
    snprintf(to, room, "%s", from);
    for (char *c = to; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return true;
}

/* A name as op and type have: not empty, of a-z, 0-9 and _. */
static bool is_name(const char *text, size_t room)
{
    const size_t n = strnlen(text, room);
    return n > 0 && n < room && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static cudpo_status damaged(const char *path, const char *what)
{
    return cudpo_fail(CUDPO_EDATA, path, "is no whole flight record: %s", what);
}

static cudpo_status check_header(const flight_header *h, size_t bytes, const char *path)
{
    if (bytes < sizeof *h || memcmp(h->magic, FLIGHT_MAGIC, sizeof h->magic) != 0)
        return cudpo_fail(CUDPO_EDATA, path, "is no flight record");
    if (h->version != FLIGHT_VERSION)
        return cudpo_fail(CUDPO_EDATA, path, "is a flight record of version %u, not %d",
                          (unsigned)h->version, FLIGHT_VERSION);
    if (h->entries != FLIGHT_ENTRIES || h->entry_bytes != sizeof(flight_entry))
        return damaged(path, "its entries are of another number or size");
    if (bytes != sizeof(flight_file)) return damaged(path, "it is cut off");
    if (h->size < 1 || h->size > MAX_RANKS || h->rank < 0 || h->rank >= h->size)
        return damaged(path, "there is no such rank");
    if (h->begun == 0 || !is_time(h->begun) || !is_time(h->ended) ||
        (h->noted != -1 && !is_time(h->noted)))
        return damaged(path, "a time makes no sense");
    return CUDPO_OK;
}

/* The header's part of a record; of the first record also what is of the run. */
static cudpo_status take_header(flight_records *all, flight_record *r, const flight_header *h,
                                const char *path)
{
    char run_id[FLIGHT_TEXT];
    r->rank = h->rank;
    r->pid = h->pid;
    r->begun = h->begun;
    r->ended = h->ended;
    r->noted = h->noted == -1 ? 0 : h->noted; /* -1: killed while it wrote it */
    if (!take_text(run_id, h->run_id, sizeof run_id) ||
        !take_text(r->host, h->host, sizeof r->host))
        return damaged(path, "a text has no end");
    if (r->noted != 0 && !take_text(r->note, h->note, sizeof r->note))
        return damaged(path, "a text has no end");
    if (all->n == 0) {
        all->size = h->size;
        memcpy(all->run_id, run_id, sizeof run_id);
    } else if (h->size != all->size || strcmp(run_id, all->run_id) != 0) {
        return cudpo_fail(
            CUDPO_EDATA, path,
            "is of run \"%s\" of %d ranks, rank %d's record of run \"%s\" of %d: move "
            "the records of one of them elsewhere",
            run_id, (int)h->size, (int)all->ranks[0].rank, all->run_id, (int)all->size);
    }
    return CUDPO_OK;
}

static cudpo_status take_kind(flight_records *all, int32_t *kind, const flight_entry *e,
                              const char *path)
{
    if (!is_name(e->op, sizeof e->op) || !is_name(e->type, sizeof e->type))
        return damaged(path, "an operation or a type has no name");
    for (*kind = 0; *kind < all->kind_count; ++*kind)
        if (strcmp(all->kinds[*kind].op, e->op) == 0 &&
            strcmp(all->kinds[*kind].type, e->type) == 0)
            return CUDPO_OK;
    if (all->kind_count == FLIGHT_KINDS)
        return damaged(path, "more kinds of collectives than there are");
    flight_kind *k = &all->kinds[all->kind_count++];
    memcpy(k->op, e->op, sizeof k->op);
    memcpy(k->type, e->type, sizeof k->type);
    return CUDPO_OK;
}

static cudpo_status take_event(flight_records *all, flight_event *event, const flight_entry *e,
                               const char *path)
{
    if (e->elements < 0 || e->state < FLIGHT_SCHEDULED || e->state > FLIGHT_COMPLETED)
        return damaged(path, "elements or state of a collective make no sense");
    if (e->scheduled == 0 || !is_time(e->scheduled) || !is_time(e->started) ||
        !is_time(e->completed))
        return damaged(path, "a time makes no sense");
    *event = (flight_event){.elements = e->elements,
                            .step = e->step,
                            .scheduled = e->scheduled,
                            .started = e->started,
                            .completed = e->completed,
                            .state = (int32_t)e->state};
    return take_kind(all, &event->kind, e, path);
}

/* Sequence of entry i; 0: there is none, or its writer was killed or read while it wrote it. */
static int64_t sequence_of(const flight_file *f, int64_t i)
{
    const int64_t sequence = f->entries[i].sequence;
    return sequence == f->entries[i].again ? sequence : 0;
}

static cudpo_status take_events(flight_records *all, flight_record *r, const flight_file *f,
                                const char *path)
{
    for (int64_t i = 0; i < FLIGHT_ENTRIES; i++) {
        const int64_t sequence = sequence_of(f, i);
        if (sequence == 0) continue;
        if (sequence < 0 || sequence > INT64_MAX / 2 || (sequence - 1) % FLIGHT_ENTRIES != i)
            return damaged(path, "a collective is not in its place");
        if (sequence > r->newest) r->newest = sequence;
    }
    if (r->newest == 0) return CUDPO_OK;
    /* What is older than a whole ring was read just before it was written anew. */
    r->oldest = r->newest;
    for (int64_t i = 0; i < FLIGHT_ENTRIES; i++) {
        const int64_t sequence = sequence_of(f, i);
        if (sequence > r->newest - FLIGHT_ENTRIES && sequence > 0 && sequence < r->oldest)
            r->oldest = sequence;
    }
    r->events = calloc((size_t)(r->newest - r->oldest + 1), sizeof *r->events);
    if (r->events == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "flight record");
    for (int64_t i = 0; i < FLIGHT_ENTRIES; i++) {
        const int64_t sequence = sequence_of(f, i);
        if (sequence >= r->oldest && sequence > 0)
            CUDPO_TRY(take_event(all, &r->events[sequence - r->oldest], &f->entries[i], path));
    }
    return CUDPO_OK;
}

/* One file to all->ranks[all->n]; `rank` is that of its name. */
static cudpo_status read_one(flight_records *all, int32_t rank, const char *path)
{
    char *data = NULL;
    size_t bytes;
    flight_record *r = &all->ranks[all->n];
    CUDPO_TRY(file_read(&data, &bytes, path, sizeof(flight_file)));
    const flight_file *f = (const flight_file *)(void *)data;
    cudpo_status status = check_header(&f->header, bytes, path);
    if (status == CUDPO_OK && f->header.rank != rank)
        status = damaged(path, "its name is another rank's");
    if (status == CUDPO_OK) status = take_header(all, r, &f->header, path);
    if (status == CUDPO_OK) status = take_events(all, r, f, path);
    if (status == CUDPO_OK) {
        all->n++;
    } else {
        free(r->events);
        *r = (flight_record){0};
    }
    free(data);
    return status;
}

/* Rank of a record's file name; -1: it is none. */
static int32_t rank_of(const char *name)
{
    char again[32];
    int rank;
    if (sscanf(name, "rank-%5d.bin", &rank) != 1 || rank < 0) return -1;
    snprintf(again, sizeof again, "rank-%05d.bin", rank);
    return strcmp(again, name) == 0 ? rank : -1;
}

static int by_number(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The ranks whose records are in a folder, ascending. */
static cudpo_status list(int32_t **ranks, int32_t *n, const char *folder)
{
    *ranks = malloc(MAX_RANKS * sizeof **ranks);
    *n = 0;
    if (*ranks == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "list of files");
    DIR *d = opendir(folder);
    if (d == NULL) return file_fail(folder, "open folder", false);
    for (struct dirent *e; *n < MAX_RANKS && (e = readdir(d)) != NULL;) {
        const int32_t rank = rank_of(e->d_name);
        if (rank >= 0) (*ranks)[(*n)++] = rank;
    }
    closedir(d);
    qsort(*ranks, (size_t)*n, sizeof **ranks, by_number);
    if (*n > 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENOINPUT, folder, "holds no flight record (rank-NNNNN.bin)");
}

cudpo_status flight_read(flight_records *r, const char *folder)
{
    *r = (flight_records){0};
    int32_t *ranks = NULL, n = 0;
    cudpo_status status = list(&ranks, &n, folder);
    if (status == CUDPO_OK) {
        r->ranks = calloc((size_t)n, sizeof *r->ranks);
        if (r->ranks == NULL) status = cudpo_fail(CUDPO_ENOMEM, folder, "flight records");
    }
    for (int32_t i = 0; status == CUDPO_OK && i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "rank-%05d.bin", (int)ranks[i]);
        char *path = path_join(folder, name);
        status =
            path == NULL ? cudpo_fail(CUDPO_ENOMEM, folder, "path") : read_one(r, ranks[i], path);
        free(path);
    }
    free(ranks);
    return status;
}

void flight_records_free(flight_records *r)
{
    for (int32_t i = 0; i < r->n; i++)
        free(r->ranks[i].events);
    free(r->ranks);
    *r = (flight_records){0};
}

const flight_event *flight_event_of(const flight_record *r, int64_t sequence)
{
    if (r->newest == 0 || sequence < r->oldest || sequence > r->newest) return NULL;
    const flight_event *e = &r->events[sequence - r->oldest];
    return e->state == 0 ? NULL : e;
}
