/* block.c - a block is read in order by one thread and encoded by all.  It is bounded in rows and in text, so memory is too. */
#include "data/block.h"
#include "base/buffer.h"
#include "base/failure.h"
#include "data/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 4096,
    BLOCK_BYTES = 4 << 20, /* a block is full when its text exceeds this */
    TURN_BYTES =
        16
        << 10, /* of text that goes to one part before the next part's turn: many rows, so that a file in which
                            * long and short ones alternate is dealt evenly, too */
};

/* A row of the block, its text copied from the reader: prompt, chosen, rejected with their NULs. */
typedef struct block_row {
    preference_row row;
    size_t prompt, chosen, rejected; /* offsets in the block's text */
    bool undesired;
    encoded_row encoded;
    cudpo_status status;
} block_row;

struct block_reader {
    char *path;
    const tokenizer *tokenizer;
    const dataset_options *options;
    row_reader *reader;
    int32_t part, parts, turn; /* turn: the part that the next row belongs to */
    int64_t turn_begin;        /* bytes of text before it */
    int64_t failed;            /* index of a row that was read and then refused; -1: none */
    buffer text;
    block_row *block; /* [BLOCK_ROWS] */
    built_row *built; /* [BLOCK_ROWS] */
    int rows;         /* of the block in use */
};

cudpo_status dataset_check_row(const preference_row *row, const char *path,
                               const dataset_options *o)
{
    char where[1100];
    snprintf(where, sizeof where, "%.1000s:%lld", path, (long long)row->line);
    if (o->chosen_only) return CUDPO_OK;
    if (o->kind == ROW_PAIR && row->kind == ROW_LABEL)
        return cudpo_fail(CUDPO_EDATA, where,
                          "rows have a completion, and pairs of chosen and rejected are needed (in "
                          "training, loss_type \"kto\" takes rows with labels, \"sft\" any "
                          "completions)");
    if (o->kind == ROW_LABEL && row->kind == ROW_LABEL && !row->labelled)
        return cudpo_fail(
            CUDPO_EDATA, where,
            "a completion without label: \"kto\" needs \"label\": true or false in every "
            "row, \"sft\" does not");
    return CUDPO_OK;
}

cudpo_status block_reader_open(block_reader **out, const char *path, const tokenizer *t,
                               const dataset_options *options, int32_t part, int32_t parts)
{
    *out = NULL;
    CUDPO_REQUIRE(part >= 0 && part < parts);
    block_reader *b = calloc(1, sizeof *b);
    if (b == NULL) return cudpo_fail(CUDPO_ENOMEM, path, "block of rows");
    b->tokenizer = t;
    b->options = options;
    b->part = part;
    b->parts = parts;
    b->failed = -1;
    b->path = strdup(path);
    b->block = calloc(BLOCK_ROWS, sizeof *b->block);
    b->built = calloc(BLOCK_ROWS, sizeof *b->built);
    cudpo_status status = CUDPO_OK;
    if (b->path == NULL || b->block == NULL || b->built == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, path, "block of rows");
    if (status == CUDPO_OK) status = row_reader_open(&b->reader, path);
    if (status == CUDPO_OK) {
        *out = b;
        return CUDPO_OK;
    }
    block_reader_close(b);
    return status;
}

void block_reader_close(block_reader *b)
{
    if (b == NULL) return;
    for (int i = 0; b->block != NULL && i < BLOCK_ROWS; i++)
        encoded_row_free(&b->block[i].encoded);
    free(b->built);
    free(b->block);
    buffer_free(&b->text);
    row_reader_close(b->reader);
    free(b->path);
    free(b);
}

row_progress block_reader_progress(const block_reader *b)
{
    row_progress p = row_reader_progress(b->reader);
    if (b->failed >= 0) p.rows = b->failed;
    return p;
}

static cudpo_status copy_text(buffer *text, size_t *offset, const char *s)
{
    *offset = text->size;
    return s != NULL ? buffer_append(text, s, strlen(s) + 1) : CUDPO_OK;
}

static cudpo_status keep_row(block_reader *b, const preference_row *row)
{
    block_row *to = &b->block[b->rows];
    const cudpo_status status = dataset_check_row(row, b->path, b->options);
    if (status != CUDPO_OK) b->failed = row->index;
    CUDPO_TRY(status);
    CUDPO_TRY(copy_text(&b->text, &to->prompt, row->prompt));
    CUDPO_TRY(copy_text(&b->text, &to->chosen, row->chosen));
    CUDPO_TRY(copy_text(&b->text, &to->rejected, row->rejected));
    to->row = *row;
    to->undesired = b->options->chosen_only && row->labelled && !row->label;
    b->rows++;
    return CUDPO_OK;
}

/* Is the next row of the file this part's? */
static bool is_own(block_reader *b, row_progress p)
{
    if (p.bytes - b->turn_begin >= TURN_BYTES) {
        b->turn = (b->turn + 1) % b->parts;
        b->turn_begin = p.bytes;
    }
    return b->turn == b->part;
}

/* Fill the block; *done at the end of the file, with what there still was in it.  After a failure, what there was before. */
static cudpo_status read_rows(block_reader *b, bool *done)
{
    while (b->rows < BLOCK_ROWS && b->text.size < BLOCK_BYTES) {
        preference_row row;
        const row_progress p = row_reader_progress(b->reader);
        const bool own = is_own(b, p);
        CUDPO_TRY(own || p.rows == 0 ? row_reader_next(b->reader, &row, done)
                                     : row_reader_skip(b->reader, done));
        if (*done) return CUDPO_OK;
        if (own) CUDPO_TRY(keep_row(b, &row));
    }
    return CUDPO_OK;
}

static cudpo_status read_block(block_reader *b, bool *done)
{
    b->rows = 0;
    *done = false;
    buffer_clear(&b->text);
    const cudpo_status status = read_rows(b, done);
    for (int i = 0; i < b->rows; i++) { /* the text no longer moves */
        block_row *r = &b->block[i];
        r->row.prompt = b->text.data + r->prompt;
        r->row.chosen = b->text.data + r->chosen;
        if (r->row.rejected != NULL) r->row.rejected = b->text.data + r->rejected;
    }
    return status;
}

static cudpo_status encode_one(block_row *r, encode_scratch *scratch, const block_reader *b)
{
    char where[1100];
    if (r->undesired) return CUDPO_OK;
    snprintf(where, sizeof where, "%.1000s:%lld", b->path, (long long)r->row.line);
    return encode_row(&r->encoded, scratch, &r->row, b->tokenizer, b->options, where);
}

/* A message stays in the thread where it arose, so a row that failed is encoded again in ours. */
static cudpo_status encode_block(block_reader *b)
{
#pragma omp parallel
    {
        encode_scratch scratch = {0};
#pragma omp for schedule(dynamic, 4)
        for (int i = 0; i < b->rows; i++)
            b->block[i].status = encode_one(&b->block[i], &scratch, b);
        encode_scratch_free(&scratch);
    }
    for (int i = 0; i < b->rows; i++) {
        if (b->block[i].status == CUDPO_OK) continue;
        encode_scratch scratch = {0};
        cudpo_error_clear(); /* this thread's share of the block was encoded in any order */
        const cudpo_status status = encode_one(&b->block[i], &scratch, b);
        encode_scratch_free(&scratch);
        if (status != CUDPO_OK) b->failed = b->block[i].row.index;
        CUDPO_TRY(status);
    }
    return CUDPO_OK;
}

static built_row built_of(const block_row *r)
{
    const encoded_row *e = &r->encoded;
    const preference_row *row = &r->row;
    built_row out = {.index = row->index,
                     .line = row->line,
                     .identical = row->rejected != NULL && strcmp(row->chosen, row->rejected) == 0,
                     .undesired = r->undesired};
    if (r->undesired) return out;
    out.unaligned = e->unaligned;
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        out.dropped[c] = e->dropped[c];
        out.size[c] = e->record[c].size;
        out.record[c] = e->record[c].data;
    }
    return out;
}

cudpo_status block_reader_next(block_reader *b, const built_row **rows, int *n, bool *done)
{
    *rows = b->built;
    *n = 0;
    for (int i = 0; i < b->rows; i++) /* one long row must not hold its memory */
        encoded_row_free(&b->block[i].encoded);
    const cudpo_status status = read_block(b, done);
    if (status != CUDPO_OK && status != CUDPO_EDATA) return status;
    /* Rows before one that can't be read may be bad, too, and the first one is what is told. */
    const failure unread = failure_take(status);
    CUDPO_TRY(encode_block(b));
    CUDPO_TRY(failure_give(&unread));
    for (int i = 0; i < b->rows; i++)
        b->built[i] = built_of(&b->block[i]);
    *n = b->rows;
    return CUDPO_OK;
}
