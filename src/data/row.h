/* row.h - preference files row by row: .jsonl, .jsonl.gz and .json arrays, in constant memory. */
#ifndef CUDPO_DATA_ROW_H
#define CUDPO_DATA_ROW_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum row_kind {
    ROW_PAIR,  /* prompt, chosen, rejected */
    ROW_LABEL, /* prompt, completion, label */
} row_kind;

/* One row as text, UTF-8, owned by the reader until the next call.  Implicit prompts are extracted already. */
typedef struct preference_row {
    row_kind kind;
    const char *prompt, *chosen,
        *rejected; /* of ROW_LABEL: chosen is the completion, rejected NULL */
    bool label;    /* of ROW_LABEL: desirable */
    int64_t index; /* 0-based among the rows of the file */
    int64_t line;  /* 1-based line where the row begins */
} preference_row;

typedef struct row_reader row_reader;

CUDPO_MUST_USE cudpo_status row_reader_open(row_reader **out, const char *path);

/** Read the next row.
 *  Out:     row   the row; done  true, and no row, at the end of the file.
 *  Returns: CUDPO_OK; CUDPO_EDATA as "path:line: reason" for malformed JSON, wrong or missing fields, and
 *           conversational rows; the reader may only be closed then. */
CUDPO_MUST_USE cudpo_status row_reader_next(row_reader *r, preference_row *row, bool *done);
void row_reader_close(row_reader *r);

#endif /* CUDPO_DATA_ROW_H */
