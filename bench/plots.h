/* plots.h - which pictures there are. */
#ifndef CUDPO_BENCH_PLOTS_H
#define CUDPO_BENCH_PLOTS_H

#include "base/buffer.h"
#include "base/json.h"

/** The roofline of a file of `cudpo bench`, and a bar for each row. */
CUDPO_MUST_USE cudpo_status plot_ops(buffer *out, const json *tree);

/** Scaling, of a file of `cudpo plan --json`: examples a second and efficiency against the number of GPUs. */
CUDPO_MUST_USE cudpo_status plot_scaling(buffer *out, const json *tree);

#endif /* CUDPO_BENCH_PLOTS_H */
