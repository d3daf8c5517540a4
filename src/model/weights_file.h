/* weights_file.h - moving parameters between files and a backend's memory, a chunk at a time. */
#ifndef CUDPO_MODEL_WEIGHTS_FILE_H
#define CUDPO_MODEL_WEIGHTS_FILE_H

#include "model/safetensors.h"
#include "model/weights.h"

enum { WEIGHTS_CHUNK = 1 << 20 }; /* elements in host memory at a time */

/* Elements first .. first+n-1 of a dense view, to and from host memory; both are done when they return. */
CUDPO_MUST_USE cudpo_status weights_upload(const model_weights *w, tensor view, int64_t first,
                                           const float *host, int64_t n);
CUDPO_MUST_USE cudpo_status weights_download(const model_weights *w, tensor view, int64_t first,
                                             float *host, int64_t n);

/* Read one tensor of a file into a parameter of the same shape; `finite`: NaN and Inf in it are CUDPO_EDATA; `fingerprint`, or
 * NULL: its values, as float32, are added. */
CUDPO_MUST_USE cudpo_status weights_read(model_weights *w, const weight_name *to,
                                         const safetensors *st, const safetensors_entry *from,
                                         bool finite, hash_state *fingerprint);

/* Elements first .. first+n-1 of a tensor of a file to elements `at` and following of a dense run. */
CUDPO_MUST_USE cudpo_status weights_read_run(backend *be, tensor run, int64_t at,
                                             const safetensors *st, const safetensors_entry *from,
                                             int64_t first, int64_t n);

/* CUDPO_EDATA naming file and parameter. */
cudpo_status weights_bad(const char *path, const char *name, const char *fmt, ...)
    CUDPO_PRINTF(3, 4);

/* The parameter names of `w`, sorted, to be searched; freed by the caller. */
CUDPO_MUST_USE cudpo_status weights_sorted(const weight_name ***out, const model_weights *w);
const weight_name *weights_find(const weight_name *const *sorted, int64_t count, const char *name);

#endif /* CUDPO_MODEL_WEIGHTS_FILE_H */
