/* bench_gemm.c - the matrix products of a layer and of the head: forward, gradient of the input, gradient of the weight. */
#include "base/rng.h"
#include "bench/judge.h"

#include <stdio.h>

enum { QKV, O, GATE_UP, DOWN, HEAD, WEIGHTS };
enum { OUT, A, B };

static const char *const names[WEIGHTS] = {"qkv", "o", "gate_up", "down", "head"};

/* A weight is [N,K]: K in, N out.  M rows: the tokens of the pack, or the score rows of a group. */
static void sizes(int64_t *M, int64_t *N, int64_t *K, const bench_shape *s, int weight)
{
    const model_config *m = &s->model;
    const int64_t C = m->hidden_size, F = m->intermediate_size;
    const int64_t Q = m->num_attention_heads * m->head_dim;
    const int64_t KV = m->num_key_value_heads * m->head_dim;
    const int64_t out[WEIGHTS] = {Q + 2 * KV, C, 2 * F, C, m->vocab_size};
    const int64_t in[WEIGHTS] = {C, Q, C, F, C};
    *M = weight == HEAD ? s->rows : s->tokens;
    *N = out[weight];
    *K = in[weight];
}

static void describe(bench_case *c, const bench_shape *s, int64_t M, int64_t N, int64_t K)
{
    c->type = s->type;
    c->flops = 2.0 * (double)M * (double)N * (double)K;
    c->number[0] = (double)K;
    snprintf(c->text, sizeof c->text, "%s %lldx%lldx%lld", names[c->op->variant], (long long)M,
             (long long)N, (long long)K);
    for (int i = 0; i < c->count; i++) {
        const bench_operand *o = &c->operand[i];
        c->bytes +=
            (double)(o->rows * o->cols) * bench_element(o->type) * (o->role == BENCH_INOUT ? 2 : 1);
    }
}

/* y [M,N] = x [M,K] W^T; logits are float32. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    int64_t M, N, K;
    sizes(&M, &N, &K, s, c->op->variant);
    bench_add(c, BENCH_OUT, c->op->variant == HEAD ? DTYPE_F32 : s->type, M, N, 1);
    bench_add(c, BENCH_IN, s->type, M, K, 1);
    bench_add(c, BENCH_IN, s->type, N, K, 1);
    describe(c, s, M, N, K);
    return CUDPO_OK;
}
static cudpo_status call_forward(bench_run *r)
{
    return r->be->gemm(r->be, r->t[OUT], r->t[A], false, r->t[B], true, 0);
}

/* dx [M,K] = dy [M,N] W. */
static cudpo_status make_input(bench_case *c, const bench_shape *s)
{
    int64_t M, N, K;
    sizes(&M, &N, &K, s, c->op->variant);
    bench_add(c, BENCH_OUT, s->type, M, K, 1);
    bench_add(c, BENCH_IN, s->type, M, N, 1);
    bench_add(c, BENCH_IN, s->type, N, K, 1);
    describe(c, s, M, K, N);
    return CUDPO_OK;
}
static cudpo_status call_input(bench_run *r)
{
    return r->be->gemm(r->be, r->t[OUT], r->t[A], false, r->t[B], false, 0);
}

/* dW [N,K] += dy^T x. */
static cudpo_status make_weight(bench_case *c, const bench_shape *s)
{
    int64_t M, N, K;
    sizes(&M, &N, &K, s, c->op->variant);
    bench_add(c, BENCH_INOUT, DTYPE_F32, N, K, 1);
    bench_add(c, BENCH_IN, s->type, M, N, 1);
    bench_add(c, BENCH_IN, s->type, M, K, 1);
    describe(c, s, N, K, M);
    return CUDPO_OK;
}
static cudpo_status call_weight(bench_run *r)
{
    return r->be->gemm(r->be, r->t[OUT], r->t[A], true, r->t[B], false, 1);
}

/* Element (i, k) of op(a), and (k, j) of op(b). */
static double first_of(const bench_case *c, int64_t i, int64_t k)
{
    const bench_operand *a = &c->operand[A];
    return (double)(c->op->call == call_weight ? a->value[k * a->cols + i]
                                               : a->value[i * a->cols + k]);
}
static double second_of(const bench_case *c, int64_t k, int64_t j)
{
    const bench_operand *b = &c->operand[B];
    return (double)(c->op->call == call_forward ? b->value[j * b->cols + k]
                                                : b->value[k * b->cols + j]);
}

/* A thousand elements, the corners among them: all of them would be a second product.  Terms are of size 1, so that a sum
 * of K of them is of size sqrt(K), and its float32 sum is off by as many roundings as it has terms at most. */
static int64_t wrong(const bench_case *c, float *const *got, double value)
{
    enum { SAMPLES = 1000 };
    const bench_operand *out = &c->operand[OUT];
    const int64_t K = (int64_t)c->number[0], n = out->rows * out->cols;
    int64_t count = 0;
    (void)value;
    for (int64_t s = 0; s < SAMPLES; s++) {
        const int64_t at = s == 0   ? 0
                           : s == 1 ? out->cols - 1
                           : s == 2 ? n - out->cols
                           : s == 3 ? n - 1
                                    : rng_below(5, 6, (uint64_t)s, n);
        double want = out->role == BENCH_INOUT ? (double)out->value[at] : 0;
        for (int64_t k = 0; k < K; k++)
            want += first_of(c, at / out->cols, k) * second_of(c, k, at % out->cols);
        count += is_off((double)got[OUT][at], want, out->type, 1, 0) &&
                 !(fabs((double)got[OUT][at] - want) <= 0x1p-24 * (double)K * sqrt((double)K));
    }
    return count;
}

#define PRODUCTS(weight, name)                                                               \
    const bench_op bench_gemm_##name = {"gemm",       "forward", weight, make_forward,       \
                                        call_forward, NULL,      wrong};                     \
    const bench_op bench_gemm_##name##_input = {"gemm",     "input", weight, make_input,     \
                                                call_input, NULL,    wrong};                 \
    const bench_op bench_gemm_##name##_weight = {"gemm",      "weight", weight, make_weight, \
                                                 call_weight, NULL,     wrong};
PRODUCTS(QKV, qkv)
PRODUCTS(O, o)
PRODUCTS(GATE_UP, gate_up)
PRODUCTS(DOWN, down)
PRODUCTS(HEAD, head)
