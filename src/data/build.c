/* build.c - rows come in blocks: read in order by one thread, encoded by all, written in order by one.  A block is
 * bounded in rows and in text, so memory is too. */
#include "data/build.h"
#include "data/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 4096,
    BLOCK_BYTES = 4 << 20, /* a block is full when its text exceeds this */
    UNPAIR_ROWS = 1000,    /* datasets.map's batch, in which TRL puts chosen before rejected */
};

/* A row of the block, its text copied from the reader: prompt, chosen, rejected with their NULs. */
typedef struct block_row {
    preference_row row;
    size_t prompt, chosen, rejected; /* offsets in the block's text */
    encoded_row encoded;
    cudpo_status status;
} block_row;

typedef struct builder {
    const char *path;
    const tokenizer *tokenizer;
    const dataset_options *options;
    row_reader *reader;
    cache_writer writer;
    cache_totals totals;
    buffer text;
    block_row *block; /* [BLOCK_ROWS] */
    int rows;         /* of the block in use */
    buffer held; /* records of rejected completions that wait for the chosen ones before them */
    int held_rows;
} builder;

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

static cudpo_status copy_text(buffer *text, size_t *offset, const char *s)
{
    *offset = text->size;
    return s != NULL ? buffer_append(text, s, strlen(s) + 1) : CUDPO_OK;
}

static void count_row(builder *b, const preference_row *row)
{
    b->totals.rows++;
    if (row->rejected == NULL || strcmp(row->chosen, row->rejected) != 0) return;
    if (b->totals.identical++ == 0) b->totals.identical_line = row->line;
}

/* Fill the block; *done at the end of the file, with what there still was in it. */
static cudpo_status read_block(builder *b, bool *done)
{
    b->rows = 0;
    buffer_clear(&b->text);
    while (b->rows < BLOCK_ROWS && b->text.size < BLOCK_BYTES) {
        preference_row row;
        CUDPO_TRY(row_reader_next(b->reader, &row, done));
        if (*done) break;
        CUDPO_TRY(dataset_check_row(&row, b->path, b->options));
        count_row(b, &row);
        if (b->options->chosen_only && row.labelled && !row.label) {
            b->totals.undesired++;
            continue;
        }
        block_row *to = &b->block[b->rows];
        CUDPO_TRY(copy_text(&b->text, &to->prompt, row.prompt));
        CUDPO_TRY(copy_text(&b->text, &to->chosen, row.chosen));
        CUDPO_TRY(copy_text(&b->text, &to->rejected, row.rejected));
        to->row = row;
        b->rows++;
    }
    for (int i = 0; i < b->rows; i++) { /* the text no longer moves */
        block_row *r = &b->block[i];
        r->row.prompt = b->text.data + r->prompt;
        r->row.chosen = b->text.data + r->chosen;
        if (r->row.rejected != NULL) r->row.rejected = b->text.data + r->rejected;
    }
    return CUDPO_OK;
}

static cudpo_status encode_one(block_row *r, encode_scratch *scratch, const builder *b)
{
    char where[1100];
    snprintf(where, sizeof where, "%.1000s:%lld", b->path, (long long)r->row.line);
    return encode_row(&r->encoded, scratch, &r->row, b->tokenizer, b->options, where);
}

/* A message stays in the thread where it arose, so a row that failed is encoded again in ours. */
static cudpo_status encode_block(builder *b)
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
        const cudpo_status status = encode_one(&b->block[i], &scratch, b);
        encode_scratch_free(&scratch);
        if (status != CUDPO_OK) return status;
    }
    return CUDPO_OK;
}

static cudpo_status write_held(builder *b)
{
    for (size_t at = 0; at < b->held.size;) {
        cache_record r;
        memcpy(&r, b->held.data + at, sizeof r);
        size_t n = sizeof r + (size_t)cache_record_ids_count(&r) * sizeof(int32_t);
        n += n % 8;
        CUDPO_TRY(cache_writer_put(&b->writer, b->held.data + at, n));
        at += n;
    }
    buffer_clear(&b->held);
    b->held_rows = 0;
    return CUDPO_OK;
}

static cudpo_status write_row(builder *b, block_row *r)
{
    encoded_row *e = &r->encoded;
    if (e->unaligned && b->totals.unaligned++ == 0) b->totals.unaligned_line = r->row.line;
    for (int c = 0; c < MAX_COMPLETIONS; c++) {
        b->totals.dropped += e->dropped[c];
        b->totals.examples += e->record[c].size > 0;
    }
    if (e->record[0].size > 0)
        CUDPO_TRY(cache_writer_put(&b->writer, e->record[0].data, e->record[0].size));
    if (e->record[1].size > 0)
        CUDPO_TRY(buffer_append(&b->held, e->record[1].data, e->record[1].size));
    if (++b->held_rows == UNPAIR_ROWS) CUDPO_TRY(write_held(b));
    return CUDPO_OK;
}

static cudpo_status build(builder *b, hash128 key)
{
    for (bool done = false; !done;) {
        CUDPO_TRY(read_block(b, &done));
        CUDPO_TRY(encode_block(b));
        for (int i = 0; i < b->rows; i++) {
            CUDPO_TRY(write_row(b, &b->block[i]));
            encoded_row_free(&b->block[i].encoded); /* one long row must not hold its memory */
        }
    }
    CUDPO_TRY(write_held(b));
    if (b->totals.examples == 0)
        return cudpo_fail(
            CUDPO_EDATA, b->path,
            "no example is left of %lld rows: %lld have a prompt that fills max_length %lld%s",
            (long long)b->totals.rows, (long long)b->totals.dropped,
            (long long)b->options->max_length,
            b->totals.undesired > 0 ? ", the others are labelled false" : "");
    return cache_writer_finish(&b->writer, &b->totals, key);
}

cudpo_status dataset_build(FILE *stream, const char *path, const tokenizer *t,
                           const dataset_options *options, const char *where, hash128 key)
{
    builder b = {.path = path, .tokenizer = t, .options = options};
    cudpo_status status = row_reader_open(&b.reader, path);
    if (status != CUDPO_OK) goto out;
    b.block = calloc(BLOCK_ROWS, sizeof *b.block);
    if (b.block == NULL) {
        status = cudpo_fail(CUDPO_ENOMEM, path, "block of rows");
        goto out;
    }
    status = cache_writer_begin(&b.writer, stream, where);
    if (status == CUDPO_OK) status = build(&b, key);
out:
    for (int i = 0; b.block != NULL && i < BLOCK_ROWS; i++)
        encoded_row_free(&b.block[i].encoded);
    free(b.block);
    cache_writer_abandon(&b.writer);
    buffer_free(&b.text);
    buffer_free(&b.held);
    row_reader_close(b.reader);
    return status;
}
