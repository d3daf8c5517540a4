/* bench_adamw.c - AdamW on the weights of one layer, float32, with a gradient and a copy in the type of activations. */
#include "bench/stage.h"

#include <math.h>
#include <stdio.h>

enum { W, M, V, GRADIENT, COPY, G, X };

static const adamw_step step = {1e-3, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001};

static bool has_copy(const bench_run *r)
{
    return r->t[COPY].type == DTYPE_BF16;
}

/* w, m and v are read and written, the gradient is read, the copy written: 28 bytes a parameter, of float32 alone too. */
static cudpo_status make(bench_case *c, const bench_shape *s)
{
    const model_config *m = &s->model;
    const int64_t C = m->hidden_size, Q = m->num_attention_heads * m->head_dim;
    const int64_t KV = m->num_key_value_heads * m->head_dim;
    const int64_t rows = 2 * Q + 2 * KV + 3 * m->intermediate_size;
    const double copy = s->type == DTYPE_BF16 ? 2 : 0;
    c->type = s->type;
    c->bytes = (double)(rows * C) * (24 + bench_element(s->type) + copy);
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)rows, (long long)C);
    bench_add(c, BENCH_INOUT, DTYPE_F32, rows, C, 0.02f);
    bench_add(c, BENCH_INOUT, DTYPE_F32, rows, C, 0.02f);
    bench_add(c, BENCH_INOUT, DTYPE_F32, rows, C, 0.01f);
    bench_add(c, BENCH_IN, s->type, rows, C, 0.02f);
    /* Second moments are above 0. */
    for (int64_t i = 0; c->operand[V].value != NULL && i < rows * C; i++)
        c->operand[V].value[i] = fabsf(c->operand[V].value[i]) + 1e-4f;
    bench_add(c, copy > 0 ? BENCH_OUT : BENCH_WORK, s->type, rows, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, rows, C, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, rows, C, 1);
    return CUDPO_OK;
}
static cudpo_status call(bench_run *r)
{
    const adamw_tensors p = {.w = r->t[W],
                             .m = r->t[M],
                             .v = r->t[V],
                             .copy = has_copy(r) ? r->t[COPY] : (tensor){0},
                             .gradient = r->t[GRADIENT],
                             .factor = 1};
    CUDPO_TRY(r->be->adamw(r->be, &p, step));
    /* The CPU has no copy: what a device's is compared with. */
    if (r->be->on_device || r->c->operand[COPY].role == BENCH_WORK) return CUDPO_OK;
    return r->be->copy(r->be, r->t[COPY], r->t[W]);
}
static cudpo_status plain(bench_run *r)
{
    const tensor w = r->t[W], m = r->t[M], v = r->t[V], g = r->t[G], x = r->t[X];
    CUDPO_TRY(stage(r, g, MAP_COPY, r->t[GRADIENT], (tensor){0}));
    CUDPO_TRY(stage_by(r, w, MAP_SCALE, w, 1 - step.learning_rate * step.weight_decay));
    CUDPO_TRY(stage_by(r, m, MAP_SCALE, m, step.beta1));
    CUDPO_TRY(stage_by(r, x, MAP_SCALE, g, 1 - step.beta1));
    CUDPO_TRY(stage(r, m, MAP_ADD, m, x));
    CUDPO_TRY(stage_by(r, v, MAP_SCALE, v, step.beta2));
    CUDPO_TRY(stage(r, x, MAP_MULTIPLY, g, g));
    CUDPO_TRY(stage_by(r, x, MAP_SCALE, x, 1 - step.beta2));
    CUDPO_TRY(stage(r, v, MAP_ADD, v, x));
    CUDPO_TRY(stage(r, x, MAP_SQRT, v, (tensor){0}));
    CUDPO_TRY(stage_by(r, x, MAP_SCALE, x, 1 / sqrt(step.bias_correction2)));
    CUDPO_TRY(stage_by(r, x, MAP_SHIFT, x, step.epsilon));
    CUDPO_TRY(stage(r, x, MAP_DIVIDE, m, x));
    CUDPO_TRY(stage_by(r, x, MAP_SCALE, x, step.learning_rate / step.bias_correction1));
    CUDPO_TRY(stage(r, w, MAP_SUBTRACT, w, x));
    return has_copy(r) ? stage(r, r->t[COPY], MAP_COPY, w, (tensor){0}) : CUDPO_OK;
}

const bench_op bench_adamw = {"adamw", "", 0, make, call, plain, NULL};
