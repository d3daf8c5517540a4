/* plots.h - which pictures there are. */
#ifndef CUDPO_BENCH_PLOTS_H
#define CUDPO_BENCH_PLOTS_H

#include "base/buffer.h"
#include "base/json.h"

/** The roofline of a file of `cudpo bench`, and a bar for each row.
 *  Returns: CUDPO_OK; CUDPO_EDATA naming the file, which is `path`. */
CUDPO_MUST_USE cudpo_status plot_ops(buffer *out, const json *tree, const char *path);

/** Scaling, of a file of `cudpo plan --json`: examples a second and efficiency against the number of GPUs.
 *  Returns: as plot_ops(). */
CUDPO_MUST_USE cudpo_status plot_scaling(buffer *out, const json *tree, const char *path);

/** Is a number of the file one that a picture has a place for?  One that is not there is.
 *  In:  what  where it stands, for the message.
 *  Returns: CUDPO_OK; CUDPO_EDATA. */
CUDPO_MUST_USE cudpo_status plot_check(const json *object, const char *key, double least,
                                       double most, const char *path, const char *what);

#endif /* CUDPO_BENCH_PLOTS_H */
