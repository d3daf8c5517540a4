/* safetensors.h - tensors in files: one strict reader, one writer.
 * Source: the format's README and checks of huggingface/safetensors. */
#ifndef CUDPO_MODEL_SAFETENSORS_H
#define CUDPO_MODEL_SAFETENSORS_H

#include "cudpo/status.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MAX_RANK = 8 };

/* One tensor of an open file.  `type_name` is the file's own ("F32", "I64", ...); `type` is set, and supported true,
 * for the types that we can load. */
typedef struct safetensors_entry {
    const char *name;
    const char *type_name;
    bool supported;
    dtype type;
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t begin, end; /* bytes of the file */
} safetensors_entry;

typedef struct safetensors safetensors;

/** Open a file and check every claim of its header against the format and the file's size.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT; CUDPO_EDATA as "file: tensor: reason". */
CUDPO_MUST_USE cudpo_status safetensors_open(safetensors **out, const char *path);
void safetensors_close(safetensors *st);

int64_t safetensors_count(const safetensors *st);
const safetensors_entry *safetensors_at(const safetensors *st, int64_t i); /* in file order */
const safetensors_entry *safetensors_find(const safetensors *st,
                                          const char *name);              /* NULL if absent */
const char *safetensors_metadata(const safetensors *st, const char *key); /* NULL if absent */

const char *safetensors_path(const safetensors *st);
int64_t safetensors_elements(const safetensors_entry *e);

/** Read elements first .. first+n-1 of a tensor as float32, whatever float type the file holds.
 *  Returns: CUDPO_OK; CUDPO_EDATA for a type that can't be loaded, or a file that changed. */
CUDPO_MUST_USE cudpo_status safetensors_read(const safetensors *st, const safetensors_entry *e,
                                             float *out, int64_t first, int64_t n);

/* Writing: list the tensors, then give the elements of each, in pieces of any size, in the order of
 * safetensors_writer_next(). */
typedef struct safetensors_plan {
    const char *name;
    dtype type; /* F32, BF16 or F16 in the file: converted from float32 to nearest even */
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
} safetensors_plan;

typedef struct safetensors_writer safetensors_writer;

/** Begin a file that appears complete, at commit, or not at all.
 *  In:      tensors   must live until commit or abandon; names unique.
 *           metadata  pairs of key and value, NULL-terminated; {"format","pt",NULL} for transformers. */
CUDPO_MUST_USE cudpo_status safetensors_create(safetensors_writer **out, const char *path,
                                               const safetensors_plan *tensors, int64_t count,
                                               const char *const *metadata);
int64_t safetensors_writer_next(
    const safetensors_writer *w); /* index into `tensors`, -1 when all are written */

/** Append elements to the next tensor, at most as many as it lacks.
 *  Returns: CUDPO_OK; CUDPO_EWRITE; CUDPO_ENUMERIC naming a tensor with a finite value that the file's type can't hold. */
CUDPO_MUST_USE cudpo_status safetensors_writer_put(safetensors_writer *w, const float *data,
                                                   int64_t n);
CUDPO_MUST_USE cudpo_status safetensors_writer_commit(safetensors_writer *w); /* frees w */
void safetensors_writer_abandon(safetensors_writer *w); /* frees w; NULL is fine */

#endif /* CUDPO_MODEL_SAFETENSORS_H */
