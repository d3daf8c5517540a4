/* stage.h - what plain() is written with: an op in its single stages. */
#ifndef CUDPO_BENCH_STAGE_H
#define CUDPO_BENCH_STAGE_H

#include "bench/bench.h"

/* out = f(a, b). */
static inline cudpo_status stage(const bench_run *r, tensor out, map_function f, tensor a, tensor b)
{
    return r->be->map(r->be, out, f, a, b, 0);
}

/* out = f(a, k). */
static inline cudpo_status stage_by(const bench_run *r, tensor out, map_function f, tensor a,
                                    double k)
{
    return r->be->map(r->be, out, f, a, (tensor){0}, (float)k);
}

static inline cudpo_status stage_sum(const bench_run *r, tensor out, tensor a)
{
    return r->be->reduce(r->be, out, a, false);
}

static inline cudpo_status stage_largest(const bench_run *r, tensor out, tensor a)
{
    return r->be->reduce(r->be, out, a, true);
}

/* The same elements as rows of D: [T, n D] dense as [T n, D]. */
static inline tensor heads_as_rows(tensor t, int64_t D)
{
    return tensor_matrix(t.data, t.type, t.rows * (t.cols / D), D);
}

/* sum [1,C] += the sums of the columns of x [T,C], through partial [G,C] f32, so that a GPU has enough to do. */
static inline cudpo_status stage_column_sum(const bench_run *r, tensor sum, tensor x,
                                            tensor partial, tensor total)
{
    CUDPO_TRY(stage_sum(r, partial, x));
    CUDPO_TRY(stage_sum(r, total, partial));
    return stage(r, sum, MAP_ADD, sum, total);
}

#endif /* CUDPO_BENCH_STAGE_H */
