/* bench_rope.c - rotary embedding of the query heads, in place.  The backward pass is the same with -s. */
#include "bench/stage.h"

#include <math.h>
#include <stdio.h>

enum { X, COSINE, SINE, POSITION, OF_TOKEN_C, OF_TOKEN_S, FIRST, SECOND, OTHER };

/* Reads x, writes it: 2 T Q elements; the tables are small and stay in the cache. */
static cudpo_status make(bench_case *c, const bench_shape *s)
{
    const int64_t T = s->tokens, H = s->model.num_attention_heads, D = s->model.head_dim;
    const int64_t positions = 2 * s->length;
    c->type = s->type;
    c->bytes = 2.0 * (double)(T * H * D) * bench_element(s->type);
    c->number[0] = (double)D;
    snprintf(c->text, sizeof c->text, "%lldx%lld heads of %lld", (long long)T, (long long)H,
             (long long)D);
    bench_add(c, BENCH_INOUT, s->type, T, H * D, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, positions, D / 2, 1);
    bench_add(c, BENCH_IN, DTYPE_F32, positions, D / 2, 1);
    for (int64_t i = 0; i < positions * (D / 2); i++) {
        const double angle =
            (double)(i / (D / 2)) * pow(10000.0, -2.0 * (double)(i % (D / 2)) / (double)D);
        if (c->operand[COSINE].value != NULL) c->operand[COSINE].value[i] = (float)cos(angle);
        if (c->operand[SINE].value != NULL) c->operand[SINE].value[i] = (float)sin(angle);
    }
    bench_add_positions(c, s);
    bench_add(c, BENCH_WORK, DTYPE_F32, T, D / 2, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, T, D / 2, 1);
    for (int i = FIRST; i <= OTHER; i++)
        bench_add(c, BENCH_WORK, s->type, T * H, D / 2, 1);
    return CUDPO_OK;
}
static cudpo_status call(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->rope(r->be, t[X], t[COSINE], t[SINE], t[POSITION], (int)r->c->number[0], false);
}
static cudpo_status plain(bench_run *r)
{
    const tensor *t = r->t, cosine = t[OF_TOKEN_C], sine = t[OF_TOKEN_S];
    const int64_t D = (int64_t)r->c->number[0];
    const tensor heads = heads_as_rows(t[X], D);
    const tensor a = tensor_cols(heads, 0, D / 2), b = tensor_cols(heads, D / 2, D / 2);
    CUDPO_TRY(r->be->gather_rows(r->be, cosine, t[COSINE], t[POSITION]));
    CUDPO_TRY(r->be->gather_rows(r->be, sine, t[SINE], t[POSITION]));
    CUDPO_TRY(stage(r, t[FIRST], MAP_MULTIPLY, a, cosine));
    CUDPO_TRY(stage(r, t[OTHER], MAP_MULTIPLY, b, sine));
    CUDPO_TRY(stage(r, t[FIRST], MAP_SUBTRACT, t[FIRST], t[OTHER]));
    CUDPO_TRY(stage(r, t[SECOND], MAP_MULTIPLY, b, cosine));
    CUDPO_TRY(stage(r, t[OTHER], MAP_MULTIPLY, a, sine));
    CUDPO_TRY(stage(r, b, MAP_ADD, t[SECOND], t[OTHER]));
    return stage(r, a, MAP_COPY, t[FIRST], (tensor){0});
}

const bench_op bench_rope = {"rope", "forward", 0, make, call, plain, NULL};
