/* cache.h - the file of token ids behind a data set: written once front to back, verified and mapped ever after.
 *
 *   record 0 | record 1 | ... | footer
 *   record: cache_record, then ids [prompt_length + stored_length[0] + stored_length[1]] i32, zeros up to 8 bytes
 *
 * It is a cache of this machine: byte order and sizes are the host's. */
#ifndef CUDPO_DATA_CACHE_H
#define CUDPO_DATA_CACHE_H

#include "base/hash.h"
#include "cudpo/status.h"
#include "data/dataset.h"

#include <stdint.h>
#include <stdio.h>

typedef struct cache_record {
    int64_t row; /* 0-based row of the preference file */
    int32_t prompt_length, completions;
    int32_t completion_length[MAX_COMPLETIONS]; /* after truncation */
    int32_t stored_length[MAX_COMPLETIONS];     /* >= completion_length: see dataset_mismatch() */
    int32_t prompt_skip[MAX_COMPLETIONS];
    int32_t unscored[MAX_COMPLETIONS];
    int32_t label, zero;
} cache_record;

/* What is known of the whole file beside its examples.  Lines are 1-based, 0 where there is none. */
typedef struct cache_totals {
    int64_t examples;
    int64_t rows;                      /* rows of the preference file */
    int64_t dropped;                   /* examples left out because the prompt fills max_length */
    int64_t undesired;                 /* labelled rows left out of supervised training */
    int64_t unaligned, unaligned_line; /* examples whose prompt is no token prefix; the first one */
    int64_t identical, identical_line; /* pairs of two equal texts; the first one */
    hash128 fingerprint;               /* of all records but their rows */
} cache_totals;

/* Writing.  {0} is safe to abandon. */
typedef struct cache_writer {
    FILE *stream;      /* the caller's */
    const char *where; /* the caller's: names the file in messages */
    int64_t bytes;
    hash_state *checksum, *fingerprint;
} cache_writer;

CUDPO_MUST_USE cudpo_status cache_writer_begin(cache_writer *w, FILE *stream, const char *where);

/* Records as they stand in the file, each padded to a multiple of 8 bytes. */
CUDPO_MUST_USE cudpo_status cache_writer_put(cache_writer *w, const void *record, size_t n);

/* The footer; fills in totals->fingerprint.  The stream is flushed, not closed. */
CUDPO_MUST_USE cudpo_status cache_writer_finish(cache_writer *w, cache_totals *totals, hash128 key);
void cache_writer_abandon(cache_writer *w);

/* Reading.  {0} is safe to close. */
typedef struct cache_map {
    void *memory;
    size_t size;
    int64_t *offset; /* [examples] where each record begins */
    cache_totals totals;
} cache_map;

/** Map the file and check all of it: footer, checksum, key, lengths of every record, and that ids are in
 *  0 .. vocabulary-1.
 *  Out:     reason  NULL, or why the file can't be trusted; *out is {0} then, and the call succeeded.
 *  Returns: CUDPO_OK; CUDPO_EDATA, CUDPO_EPERM if the file can't be mapped; CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status cache_map_open(cache_map *out, const char **reason, int fd,
                                           const char *where, hash128 key, int64_t vocabulary);
void cache_map_close(cache_map *m);

const cache_record *cache_map_record(const cache_map *m, int64_t i);
const int32_t *cache_record_ids(const cache_record *r);
int64_t cache_record_ids_count(const cache_record *r); /* as the record claims */
size_t cache_record_size(const cache_record *r);       /* bytes in the file, as it claims */

/* NULL, or what is wrong with a record of which `left` bytes are there; no id may reach `vocabulary`. */
const char *cache_record_check(const cache_record *r, size_t left, int64_t vocabulary);

#endif /* CUDPO_DATA_CACHE_H */
