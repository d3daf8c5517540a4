/* bench_token_logprob.c - from logits to log-probs of labels, alone and with softmax - onehot over the logits. */
#include "bench/judge.h"
#include "bench/stage.h"
#include "model/half.h"

#include <stdio.h>
#include <string.h>

enum { LOGP, SCALE, LOGITS, LABEL, PLACE, LARGEST, SUM, WORK };

/* Score rows of one group, at the vocabulary's width. */
static void add_operands(bench_case *c, const bench_shape *s, bool gradient)
{
    const int64_t R = s->rows, V = s->model.vocab_size;
    c->type = s->type;
    snprintf(c->text, sizeof c->text, "%lldx%lld", (long long)R, (long long)V);
    bench_add_sum(c, BENCH_OUT, DTYPE_F32, R, 1, (double)V);
    bench_add(c, gradient ? BENCH_OUT : BENCH_WORK, DTYPE_F32, R, 1, 1);
    bench_add(c, gradient ? BENCH_INOUT : BENCH_IN, DTYPE_F32, R, V, 3);
    bench_add_index(c, R, V);
    bench_add_index(c, R, 1);
    for (int64_t r = 0; c->operand[PLACE].index != NULL && c->operand[LABEL].index != NULL && r < R;
         r++)
        c->operand[PLACE].index[r] = (int32_t)(r * V + c->operand[LABEL].index[r]);
    bench_add(c, BENCH_WORK, DTYPE_F32, R, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, R, 1, 1);
    bench_add(c, BENCH_WORK, DTYPE_F32, R, V, 1);
}

/* Reads R V logits. */
static cudpo_status make_forward(bench_case *c, const bench_shape *s)
{
    add_operands(c, s, false);
    c->bytes = 4.0 * (double)(s->rows * s->model.vocab_size);
    return CUDPO_OK;
}
/* Reads R V logits, writes as many numbers of the type of activations. */
static cudpo_status make_backward(bench_case *c, const bench_shape *s)
{
    add_operands(c, s, true);
    c->bytes = (4.0 + bench_element(s->type)) * (double)(s->rows * s->model.vocab_size);
    return CUDPO_OK;
}

static cudpo_status call(const bench_run *r, bool gradient)
{
    const bool half = r->be->on_device && r->c->type == DTYPE_BF16;
    const logprob_tensors rows = {.logp = r->t[LOGP],
                                  .scale = gradient ? r->t[SCALE] : (tensor){0},
                                  .logits = r->t[LOGITS],
                                  .label = r->t[LABEL],
                                  .gradient_type = half ? DTYPE_BF16 : DTYPE_F32};
    return r->be->token_logprob(r->be, &rows, gradient);
}
static cudpo_status call_forward(bench_run *r)
{
    return call(r, false);
}
static cudpo_status call_backward(bench_run *r)
{
    return call(r, true);
}

/* logp = logit of the label - log of the sum of exp, with the largest taken out; what is left in `work` is exp. */
static cudpo_status plain_logp(const bench_run *r, tensor work)
{
    const tensor *t = r->t, logits = t[LOGITS];
    const tensor column = tensor_vector(logits.data, DTYPE_F32, logits.rows * logits.cols);
    CUDPO_TRY(r->be->gather_rows(r->be, t[LOGP], column, t[PLACE]));
    CUDPO_TRY(stage_largest(r, t[LARGEST], logits));
    CUDPO_TRY(stage(r, work, MAP_SUBTRACT, logits, t[LARGEST]));
    CUDPO_TRY(stage(r, work, MAP_EXP, work, (tensor){0}));
    CUDPO_TRY(stage_sum(r, t[SUM], work));
    CUDPO_TRY(stage(r, t[LOGP], MAP_SUBTRACT, t[LOGP], t[LARGEST]));
    CUDPO_TRY(stage(r, t[LARGEST], MAP_LOG, t[SUM], (tensor){0}));
    return stage(r, t[LOGP], MAP_SUBTRACT, t[LOGP], t[LARGEST]);
}
static cudpo_status plain_forward(bench_run *r)
{
    return plain_logp(r, r->t[WORK]);
}
/* The gradient in the type of activations, in the first half of its logits' row where that is bf16. */
static cudpo_status plain_backward(bench_run *r)
{
    const tensor *t = r->t, work = t[WORK];
    tensor gradient = t[LOGITS];
    if (r->be->on_device && r->c->type == DTYPE_BF16) {
        gradient.type = DTYPE_BF16;
        gradient.stride *= 2;
    }
    CUDPO_TRY(plain_logp(r, work));
    CUDPO_TRY(stage(r, work, MAP_DIVIDE, work, t[SUM]));
    return stage(r, gradient, MAP_ONEHOT, work, t[LABEL]);
}

/* Largest logit, and the log of the sum of exp, in double. */
static double log_sum(const float *z, int64_t V)
{
    double largest = (double)z[0], sum = 0;
    for (int64_t i = 1; i < V; i++)
        largest = fmax(largest, (double)z[i]);
    for (int64_t i = 0; i < V; i++)
        sum += exp((double)z[i] - largest);
    return largest + log(sum);
}

static double gradient_of(const bench_case *c, const float *row, int64_t i, bool half)
{
    uint16_t bits;
    (void)c;
    if (!half) return (double)row[i];
    memcpy(&bits, (const char *)row + 2 * i, sizeof bits);
    return (double)float_from_bf16(bits);
}

/* Log-probs are of size 20, and sums of V terms in float32.  A gradient is softmax - onehot times the factor of its row. */
static int64_t wrong(const bench_case *c, float *const *got, bool gradient)
{
    const bench_operand *logits = &c->operand[LOGITS];
    const int64_t V = logits->cols;
    const bool half = c->type == DTYPE_BF16;
    int64_t count = 0;
    for (int64_t r = 0; r < logits->rows; r++) {
        const float *z = logits->value + r * V, label = z[c->operand[LABEL].index[r]];
        const double total = log_sum(z, V);
        count += is_off((double)got[LOGP][r], (double)label - total, DTYPE_F32, 8, 16);
        for (int64_t i = 0; gradient && i < V; i++) {
            const double p = exp((double)z[i] - total);
            const double want = i == c->operand[LABEL].index[r] ? p - 1 : p;
            const double g = gradient_of(c, got[LOGITS] + r * V, i, half);
            count += is_off(g * (double)got[SCALE][r], want, half ? DTYPE_BF16 : DTYPE_F32,
                            half ? 2 : 64, 1e-30);
        }
    }
    return count;
}
static int64_t wrong_forward(const bench_case *c, float *const *got, double value)
{
    (void)value;
    return wrong(c, got, false);
}
static int64_t wrong_backward(const bench_case *c, float *const *got, double value)
{
    (void)value;
    return wrong(c, got, true);
}

const bench_op bench_token_logprob = {"token_logprob", "forward",    0, make_forward, call_forward,
                                      plain_forward,   wrong_forward};
const bench_op bench_token_logprob_backward = {
    "token_logprob", "backward", 0, make_backward, call_backward, plain_backward, wrong_backward};
