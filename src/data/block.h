/* block.h - the rows of a preference file, or one part's share of them, encoded on all cores, block after block. */
#ifndef CUDPO_DATA_BLOCK_H
#define CUDPO_DATA_BLOCK_H

#include "cudpo/status.h"
#include "data/dataset.h"
#include "data/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a row of the file gives a cache: one record, two where a pair serves as labelled rows, or none. */
typedef struct built_row {
    int64_t index, line;                 /* as of preference_row */
    bool identical;                      /* a pair of two equal texts */
    bool undesired;                      /* left out of supervised training */
    bool unaligned;                      /* see encoded_row */
    bool dropped[MAX_COMPLETIONS];       /* its prompt fills max_length */
    size_t size[MAX_COMPLETIONS];        /* bytes; 0: no record */
    const char *record[MAX_COMPLETIONS]; /* as cache_writer_put() takes it */
} built_row;

typedef struct block_reader block_reader;

/** Open a file.  Its rows are dealt to `parts` readers in turns of some 16 KiB of text, so that all have as much to do; this one
 *  hands out those of part `part`.  All parse the first row, and cut the file into rows: the rest of the work is the parts' own.
 *  Returns: as row_reader_open(). */
CUDPO_MUST_USE cudpo_status block_reader_open(block_reader **out, const char *path,
                                              const tokenizer *t, const dataset_options *options,
                                              int32_t part, int32_t parts);

/** The next rows of this part in the order of the file: rows [n], the reader's until the next call.
 *  Out:     done  true at the end of the file, maybe with rows.
 *  Returns: CUDPO_OK; as row_reader_next(), dataset_check_row() and encode_row() for the first bad row of this part; with CUDPO_EDATA
 *           block_reader_progress() has its index in `rows` then.  After a failure the reader may only be closed. */
CUDPO_MUST_USE cudpo_status block_reader_next(block_reader *b, const built_row **rows, int *n,
                                              bool *done);

/* How far it is in the file, rows of other parts included. */
row_progress block_reader_progress(const block_reader *b);
void block_reader_close(block_reader *b);

/** Is the row one for those options?  A file of the wrong kind is told at its first one.
 *  Returns: CUDPO_OK; CUDPO_EDATA as "path:line: what is needed". */
CUDPO_MUST_USE cudpo_status dataset_check_row(const preference_row *row, const char *path,
                                              const dataset_options *options);

#endif /* CUDPO_DATA_BLOCK_H */
