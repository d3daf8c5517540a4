/* bench_attention.c - attention over a pack of prompts with two completions each, forward and backward. */
#include "bench/stage.h"

#include <math.h>
#include <stdio.h>

enum { OUT, LSE, QKV, SEGMENTS, SCORES, LARGEST, SUM, ROUNDED };

/* The pairs of query and key that see each other, of all groups: a triangle of the prompt, and for each completion all of
 * the prompt and a triangle of its own. */
static double visible(const bench_shape *s)
{
    const double n = (double)s->length, triangle = n * (n + 1) / 2;
    return (double)s->groups * (3 * triangle + 2 * n * n);
}

static void describe(bench_case *c, const bench_shape *s, double products)
{
    const model_config *m = &s->model;
    const double Q = (double)(m->num_attention_heads * m->head_dim);
    c->type = s->type;
    c->rounded = s->type == DTYPE_BF16;
    c->flops = products * 2 * visible(s) * Q; /* each product: a multiplication and an addition */
    c->attention = (attention_shape){.heads = (int)m->num_attention_heads,
                                     .kv_heads = (int)m->num_key_value_heads,
                                     .head_dim = (int)m->head_dim,
                                     .scale = 1.0f / sqrtf((float)m->head_dim)};
    c->number[0] = (double)s->length;
    snprintf(c->text, sizeof c->text, "%lld/%lld heads of %lld, %lldx3x%lld",
             (long long)m->num_attention_heads, (long long)m->num_key_value_heads,
             (long long)m->head_dim, (long long)s->groups, (long long)s->length);
}

/* Two products: 4 A Q operations of A visible pairs; q, k and v are read, out is written. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    const model_config *m = &s->model;
    const int64_t T = s->tokens, H = m->num_attention_heads, Q = H * m->head_dim;
    const int64_t KV = m->num_key_value_heads * m->head_dim, n = s->length;
    describe(c, s, 2);
    c->bytes = (double)(T * (2 * Q + 2 * KV)) * bench_element(s->type) + 4.0 * (double)(T * H);
    bench_add_sum(c, BENCH_OUT, s->type, T, Q, 2.0 * (double)n);
    bench_add_sum(c, BENCH_OUT, DTYPE_F32, T, H, 2.0 * (double)n);
    bench_add(c, BENCH_IN, s->type, T, Q + 2 * KV, 1);
    bench_add_segments(c, s);
    bench_add(c, BENCH_WORK, DTYPE_F32, n, 2 * n, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, n, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, n, 1, 1);
    bench_add(c, BENCH_WORK, s->type, n, 2 * n, 1);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->attention(r->be, t[OUT], t[LSE], t[QKV], t[SEGMENTS], (tensor){0},
                            r->c->attention);
}

/* Where a head of a segment finds its queries, its keys and values, and those of its prompt, if it has one. */
typedef struct place {
    int64_t begin, prompt, n, columns; /* prompt -1: none; columns of scores */
    int64_t q, k, v;                   /* first columns in qkv */
} place;

static place place_of(const bench_run *r, int64_t segment, int64_t head)
{
    const attention_shape *a = &r->c->attention;
    const int64_t n = (int64_t)r->c->number[0], D = a->head_dim;
    const int64_t kv = head / (a->heads / a->kv_heads);
    return (place){.begin = segment * n,
                   .prompt = segment % 3 == 0 ? -1 : segment / 3 * 3 * n,
                   .n = n,
                   .columns = segment % 3 == 0 ? n : 2 * n,
                   .q = head * D,
                   .k = (a->heads + kv) * D,
                   .v = (a->heads + a->kv_heads + kv) * D};
}

static tensor part(tensor t, int64_t row, int64_t n, int64_t column, int64_t D)
{
    return tensor_cols(tensor_rows(t, row, n), column, D);
}

/* The columns of a matrix of scores that belong to the prompt, which come first, and to the segment itself. */
static tensor of_prompt(tensor scores, const place *p)
{
    return tensor_cols(scores, 0, p->n);
}
static tensor of_own(tensor scores, const place *p)
{
    return tensor_cols(scores, p->columns - p->n, p->n);
}

/* scores [n,columns] = x y^T, x [n,D] a head's queries (or their gradients), y the keys or values that they see. */
static cudpo_status against(const bench_run *r, tensor scores, tensor x, tensor y, int64_t column,
                            const place *p)
{
    const int64_t D = x.cols;
    if (p->prompt >= 0)
        CUDPO_TRY(r->be->gemm(r->be, of_prompt(scores, p), x, false,
                              part(y, p->prompt, p->n, column, D), true, 0));
    return r->be->gemm(r->be, of_own(scores, p), x, false, part(y, p->begin, p->n, column, D), true,
                       0);
}

/* Scaled scores of a head, what it may not see at -Inf. */
static cudpo_status score(const bench_run *r, tensor scores, tensor qkv, const place *p)
{
    const attention_shape *a = &r->c->attention;
    CUDPO_TRY(against(r, scores, part(qkv, p->begin, p->n, p->q, a->head_dim), qkv, p->k, p));
    CUDPO_TRY(stage_by(r, scores, MAP_SCALE, scores, (double)a->scale));
    return stage_by(r, of_own(scores, p), MAP_CAUSAL, of_own(scores, p), 0);
}

static cudpo_status plain_head(const bench_run *r, const place *p, int64_t head)
{
    const tensor *t = r->t, scores = tensor_cols(t[SCORES], 0, p->columns);
    const tensor rounded = tensor_cols(t[ROUNDED], 0, p->columns);
    const tensor lse = part(t[LSE], p->begin, p->n, head, 1);
    const int64_t D = r->c->attention.head_dim;
    const tensor out = part(t[OUT], p->begin, p->n, p->q, D);
    CUDPO_TRY(score(r, scores, t[QKV], p));
    CUDPO_TRY(stage_largest(r, t[LARGEST], scores));
    CUDPO_TRY(stage(r, scores, MAP_SUBTRACT, scores, t[LARGEST]));
    CUDPO_TRY(stage(r, scores, MAP_EXP, scores, (tensor){0}));
    CUDPO_TRY(stage_sum(r, t[SUM], scores));
    CUDPO_TRY(stage(r, scores, MAP_DIVIDE, scores, t[SUM]));
    CUDPO_TRY(stage(r, rounded, MAP_COPY, scores, (tensor){0}));
    CUDPO_TRY(stage(r, t[SUM], MAP_LOG, t[SUM], (tensor){0}));
    CUDPO_TRY(stage(r, lse, MAP_ADD, t[SUM], t[LARGEST]));
    if (p->prompt >= 0)
        CUDPO_TRY(r->be->gemm(r->be, out, of_prompt(rounded, p), false,
                              part(t[QKV], p->prompt, p->n, p->v, D), false, 0));
    return r->be->gemm(r->be, out, of_own(rounded, p), false, part(t[QKV], p->begin, p->n, p->v, D),
                       false, p->prompt >= 0);
}

typedef cudpo_status (*of_head)(const bench_run *r, const place *p, int64_t head);

static cudpo_status each_head(const bench_run *r, of_head run)
{
    for (int64_t segment = 0; segment < r->t[SEGMENTS].rows; segment++) {
        for (int64_t head = 0; head < r->c->attention.heads; head++) {
            const place p = place_of(r, segment, head);
            CUDPO_TRY(run(r, &p, head));
        }
    }
    return CUDPO_OK;
}
static cudpo_status plain_forward(bench_run *r)
{
    return each_head(r, plain_head);
}

/* Operands of the backward pass, as far as they are others. */
enum { DQKV = 8, DOUT, SLOPES, PRODUCT, OPERANDS_FORWARD = 8 };

/* Five products: 10 A Q operations; dout, out, q, k and v are read, dq, dk and dv written. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    const model_config *m = &s->model;
    const int64_t T = s->tokens, H = m->num_attention_heads, Q = H * m->head_dim;
    const int64_t KV = m->num_key_value_heads * m->head_dim, n = s->length;
    CUDPO_TRY(make_forward(c, s));
    describe(c, s, 5);
    c->bytes = (double)(T * (4 * Q + 4 * KV)) * bench_element(s->type) + 4.0 * (double)(T * H);
    /* What the forward pass has left: of random numbers, but lse as large as it would be. */
    c->count = OUT;
    bench_add(c, BENCH_IN, s->type, T, Q, 0.1f);
    c->count = LSE;
    bench_add(c, BENCH_IN, DTYPE_F32, T, H, 0.01f);
    for (int64_t i = 0; c->operand[LSE].value != NULL && i < T * H; i++)
        c->operand[LSE].value[i] += logf((float)(2 * n)) + 0.5f;
    c->count = OPERANDS_FORWARD;
    bench_add_sum(c, BENCH_OUT, s->type, T, Q + 2 * KV, 2.0 * (double)(n * H));
    bench_add(c, BENCH_IN, s->type, T, Q, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, n, 2 * n, 1);
    bench_add(c, BENCH_WORK, s->type, n, m->head_dim, 1);
    return CUDPO_OK;
}
static cudpo_status call_backward(bench_run *r)
{
    const tensor *t = r->t;
    return r->be->attention_backward(r->be, t[DQKV], t[DOUT], t[QKV], t[OUT], t[LSE], t[SEGMENTS],
                                     (tensor){0}, r->c->attention);
}

/* to [rows of keys] += rounded^T x: the gradient of keys or values from the queries of a segment. */
static cudpo_status from_queries(const bench_run *r, tensor to, int64_t column, tensor rounded,
                                 tensor x, const place *p)
{
    if (p->prompt >= 0)
        CUDPO_TRY(r->be->gemm(r->be, part(to, p->prompt, p->n, column, x.cols),
                              of_prompt(rounded, p), true, x, false, 1));
    return r->be->gemm(r->be, part(to, p->begin, p->n, column, x.cols), of_own(rounded, p), true, x,
                       false, 1);
}

/* p = exp(scores - lse); dv += p^T dout; ds = p (dout v^T - sum(dout out)) scale; dq = ds k; dk += ds^T q. */
static cudpo_status plain_head_backward(const bench_run *r, const place *p, int64_t head)
{
    const attention_shape *a = &r->c->attention;
    const int64_t D = a->head_dim;
    const tensor *t = r->t, scores = tensor_cols(t[SCORES], 0, p->columns);
    const tensor rounded = tensor_cols(t[ROUNDED], 0, p->columns);
    const tensor slopes = tensor_cols(t[SLOPES], 0, p->columns);
    const tensor dout = part(t[DOUT], p->begin, p->n, p->q, D);
    const tensor q = part(t[QKV], p->begin, p->n, p->q, D);
    const tensor dq = part(t[DQKV], p->begin, p->n, p->q, D);
    CUDPO_TRY(score(r, scores, t[QKV], p));
    CUDPO_TRY(stage(r, scores, MAP_SUBTRACT, scores, part(t[LSE], p->begin, p->n, head, 1)));
    CUDPO_TRY(stage(r, scores, MAP_EXP, scores, (tensor){0}));
    CUDPO_TRY(stage(r, rounded, MAP_COPY, scores, (tensor){0}));
    CUDPO_TRY(from_queries(r, t[DQKV], p->v, rounded, dout, p));
    CUDPO_TRY(against(r, slopes, dout, t[QKV], p->v, p));
    CUDPO_TRY(stage(r, t[PRODUCT], MAP_MULTIPLY, dout, part(t[OUT], p->begin, p->n, p->q, D)));
    CUDPO_TRY(stage_sum(r, t[SUM], t[PRODUCT]));
    CUDPO_TRY(stage(r, slopes, MAP_SUBTRACT, slopes, t[SUM]));
    CUDPO_TRY(stage(r, slopes, MAP_MULTIPLY, slopes, scores));
    CUDPO_TRY(stage_by(r, rounded, MAP_SCALE, slopes, (double)a->scale));
    if (p->prompt >= 0)
        CUDPO_TRY(r->be->gemm(r->be, dq, of_prompt(rounded, p), false,
                              part(t[QKV], p->prompt, p->n, p->k, D), false, 0));
    CUDPO_TRY(r->be->gemm(r->be, dq, of_own(rounded, p), false,
                          part(t[QKV], p->begin, p->n, p->k, D), false, p->prompt >= 0));
    return from_queries(r, t[DQKV], p->k, rounded, q, p);
}
static cudpo_status plain_backward(bench_run *r)
{
    CUDPO_TRY(r->be->zero(r->be, r->t[DQKV]));
    return each_head(r, plain_head_backward);
}

const bench_op bench_attention = {"attention",  "forward",     0,   make_forward,
                                  call_forward, plain_forward, NULL};
const bench_op bench_attention_backward = {"attention",   "backward",     0,   make_backward,
                                           call_backward, plain_backward, NULL};
