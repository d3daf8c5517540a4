/* row.h - preference files row by row: .jsonl, .jsonl.gz and .json arrays, in constant memory. */
#ifndef CUDPO_DATA_ROW_H
#define CUDPO_DATA_ROW_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum row_kind {
    ROW_PAIR,  /* prompt, chosen, rejected */
    ROW_LABEL, /* prompt, completion, and a label unless the rows are for supervised training */
} row_kind;

/* One row as text, UTF-8, owned by the reader until the next call.  Implicit prompts are extracted already. */
typedef struct preference_row {
    row_kind kind;
    const char *prompt, *chosen;
    const char *rejected; /* of ROW_LABEL: NULL, and chosen is the completion */
    bool labelled, label; /* of ROW_LABEL: whether there is a label; desirable */
    int64_t index;        /* 0-based among the rows of the file */
    int64_t line;         /* 1-based line where the row begins */
} preference_row;

typedef struct row_reader row_reader;

/** Open a file.  All its rows have the form of the first one: prompt, chosen, rejected; or chosen and rejected with the
 *  prompt inside; or prompt, completion, label; or prompt, completion.  Other members are ignored.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EPERM; CUDPO_EDATA for a format that is not read, with how to convert it. */
CUDPO_MUST_USE cudpo_status row_reader_open(row_reader **out, const char *path);

/** Read the next row.
 *  Out:     row   the row; done  true, and no row, at the end of the file.
 *  Returns: CUDPO_OK; CUDPO_EDATA as "path:line: reason" for malformed JSON, rows over 16 MiB, wrong or missing fields,
 *           and conversational rows, and as "path: reason" for a file without rows; CUDPO_ENOMEM.  After a failure
 *           the reader may only be closed. */
CUDPO_MUST_USE cudpo_status row_reader_next(row_reader *r, preference_row *row, bool *done);

/** Pass over the next row, whatever stands in it.  Not the first one: it decides on the form of the others.
 *  Out:     done  true at the end of the file.
 *  Returns: CUDPO_OK; as row_reader_next() for a file that can't be cut into rows. */
CUDPO_MUST_USE cudpo_status row_reader_skip(row_reader *r, bool *done);

/* How far it is: rows that were read or passed over, which after a failure is the index of the row that failed; bytes of their
 * text; and how much of the file that is, 0 .. 1. */
typedef struct row_progress {
    int64_t rows, bytes;
    double share;
} row_progress;
row_progress row_reader_progress(const row_reader *r);

void row_reader_close(row_reader *r);

#endif /* CUDPO_DATA_ROW_H */
