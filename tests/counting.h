/* counting.h - the CPU's ops, each of which adds up what the tensors that it is called with say, and goes on. */
#ifndef CUDPO_TESTS_COUNTING_H
#define CUDPO_TESTS_COUNTING_H

#include "test.h"
#include "plan/work.h"
#include "backend/backend.h"

static backend cpu; /* as it was */
static work_table counted;
static bool of_head; /* whose head weights these are: */
static int64_t vocabulary;

static double bytes_of(tensor t)
{
    return tensor_present(t) ? (double)tensor_elements(t) * (double)dtype_size(t.type) : 0;
}

static void add(work_kind kind, double operations, double bytes)
{
    const work_item item = {.kind = kind, .times = 1, .operations = operations, .bytes = bytes};
    work_add(&counted, &item);
}

static cudpo_status gemm(backend *be, tensor c, tensor a, bool ta, tensor b, bool tb, float beta)
{
    const double K = (double)(ta ? a.rows : a.cols);
    of_head = c.cols == vocabulary || c.rows == vocabulary ||
              (ta ? a.rows : a.cols) == vocabulary; /* no other width of these models is that */
    add(of_head ? WORK_HEAD_GEMM : WORK_GEMM, 2 * (double)c.rows * (double)c.cols * K,
        bytes_of(a) + bytes_of(b) + bytes_of(c) * (1 + (double)beta));
    return cpu.gemm(be, c, a, ta, b, tb, beta);
}

/* Pairs that the mask allows, one query at a time. */
static double count_pairs(tensor segments, tensor wanted, int64_t T, int64_t window,
                          double *queries)
{
    const int32_t *s = segments.data, *w = wanted.data;
    double pairs = 0;
    char *asks = calloc((size_t)T, 1);
    *queries = 0;
    for (int64_t i = 0; i < wanted.rows; i++)
        asks[w[i]] = 1;
    for (int64_t n = 0; n < segments.rows; n++, s += 4) {
        for (int64_t i = 0; i < s[1]; i++) {
            if (tensor_present(wanted) && !asks[s[0] + i]) continue;
            const int64_t all = s[3] + i + 1;
            pairs += (double)(window > 0 && window < all ? window : all);
            ++*queries;
        }
    }
    free(asks);
    return pairs;
}

static cudpo_status attention(backend *be, tensor out, tensor lse, tensor qkv, tensor segments,
                              tensor wanted, attention_shape s)
{
    double queries;
    const double Q = out.cols, KV = (double)(qkv.cols - out.cols),
                 A = count_pairs(segments, wanted, qkv.rows, s.window, &queries);
    add(WORK_ATTENTION, 4 * A * Q, 4 * (2 * queries * Q + qkv.rows * KV + queries * lse.cols));
    return cpu.attention(be, out, lse, qkv, segments, wanted, s);
}

static cudpo_status attention_backward(backend *be, tensor dqkv, tensor dout, tensor qkv,
                                       tensor out, tensor lse, tensor segments, tensor wanted,
                                       attention_shape s)
{
    double queries;
    const double Q = out.cols, KV = (double)(qkv.cols - out.cols),
                 A = count_pairs(segments, wanted, qkv.rows, s.window, &queries);
    add(WORK_ATTENTION_BACKWARD, 10 * A * Q,
        bytes_of(dqkv) + 4 * (3 * queries * Q + qkv.rows * KV + queries * lse.cols));
    return cpu.attention_backward(be, dqkv, dout, qkv, out, lse, segments, wanted, s);
}

#define MOVES(bytes) add(WORK_ELEMENTWISE, 0, bytes)

static cudpo_status embed(backend *be, tensor x, tensor table, tensor token)
{
    MOVES(2 * bytes_of(x));
    return cpu.embed(be, x, table, token);
}
static cudpo_status embed_backward(backend *be, tensor dtable, tensor dx, tensor token)
{
    MOVES(bytes_of(dx) + 2 * (double)tensor_elements(dx) * (double)dtype_size(dtable.type));
    return cpu.embed_backward(be, dtable, dx, token);
}
static cudpo_status add_rmsnorm(backend *be, tensor y, tensor rstd, tensor sum, tensor x,
                                tensor branch, tensor w, float epsilon)
{
    MOVES(bytes_of(y) + bytes_of(rstd) + bytes_of(x) + bytes_of(branch) +
          (tensor_present(branch) ? bytes_of(sum) : 0));
    if (!tensor_present(branch)) assert_ptr_equal(sum.data, x.data);
    return cpu.add_rmsnorm(be, y, rstd, sum, x, branch, w, epsilon);
}
static cudpo_status rmsnorm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                     tensor rstd, tensor w)
{
    MOVES(2 * bytes_of(dx) + bytes_of(dy) + bytes_of(x) + bytes_of(rstd));
    return cpu.rmsnorm_backward(be, dx, dw, dy, x, rstd, w);
}
static cudpo_status rmsnorm_again(backend *be, tensor y, tensor x, tensor rstd, tensor w)
{
    MOVES(bytes_of(y) + bytes_of(x) + bytes_of(rstd));
    return cpu.rmsnorm_again(be, y, x, rstd, w);
}
static cudpo_status head_norm(backend *be, tensor y, tensor rstd, tensor x, tensor w, float epsilon)
{
    MOVES(bytes_of(y) + bytes_of(x) + bytes_of(rstd));
    return cpu.head_norm(be, y, rstd, x, w, epsilon);
}
static cudpo_status head_norm_backward(backend *be, tensor dx, tensor dw, tensor dy, tensor x,
                                       tensor rstd, tensor w)
{
    MOVES(bytes_of(dx) + bytes_of(dy) + bytes_of(x) + bytes_of(rstd));
    return cpu.head_norm_backward(be, dx, dw, dy, x, rstd, w);
}
static cudpo_status bias_add(backend *be, tensor x, tensor bias)
{
    MOVES(2 * bytes_of(x));
    return cpu.bias_add(be, x, bias);
}
static cudpo_status bias_backward(backend *be, tensor dbias, tensor dx)
{
    MOVES(bytes_of(dx));
    return cpu.bias_backward(be, dbias, dx);
}
static cudpo_status rope(backend *be, tensor x, tensor cosine, tensor sine, tensor position, int D,
                         bool inverse)
{
    MOVES(2 * bytes_of(x));
    return cpu.rope(be, x, cosine, sine, position, D, inverse);
}
static cudpo_status swiglu(backend *be, tensor act, tensor gate_up)
{
    MOVES(bytes_of(act) + bytes_of(gate_up));
    return cpu.swiglu(be, act, gate_up);
}
static cudpo_status swiglu_backward(backend *be, tensor dgate_up, tensor act, tensor dact,
                                    tensor gate_up)
{
    MOVES(bytes_of(dgate_up) + bytes_of(act) + bytes_of(dact) + bytes_of(gate_up));
    return cpu.swiglu_backward(be, dgate_up, act, dact, gate_up);
}
static cudpo_status gather_rows(backend *be, tensor out, tensor x, tensor index)
{
    MOVES(2 * bytes_of(out));
    return cpu.gather_rows(be, out, x, index);
}
static cudpo_status scatter_rows(backend *be, tensor dx, tensor drow, tensor index, tensor scale)
{
    MOVES(bytes_of(dx) + bytes_of(drow));
    return cpu.scatter_rows(be, dx, drow, index, scale);
}
static cudpo_status scale_rows(backend *be, tensor x, tensor scale)
{
    MOVES(2 * bytes_of(x));
    return cpu.scale_rows(be, x, scale);
}
/* Copies and zeros of what a pack has: those of a few scores are as good as nothing, and are left out. */
static cudpo_status copy(backend *be, tensor dst, tensor src)
{
    if (src.cols > 1) MOVES(bytes_of(dst) + bytes_of(src));
    return cpu.copy(be, dst, src);
}
static cudpo_status zero(backend *be, tensor t)
{
    MOVES(bytes_of(t));
    return cpu.zero(be, t);
}
static cudpo_status token_logprob(backend *be, const logprob_tensors *r, bool gradient)
{
    add(WORK_LOGITS, 0, bytes_of(r->logits) * (gradient ? 2 : 1));
    return cpu.token_logprob(be, r, gradient);
}
/* Of rows that are in sequences, not of all that there is room for. */
static cudpo_status segment_sum(backend *be, tensor out, tensor x, tensor begin)
{
    const int32_t *b = begin.data;
    MOVES((double)(b[begin.rows - 1] - b[0]) * (double)x.cols * 4);
    return cpu.segment_sum(be, out, x, begin);
}
static cudpo_status clip(backend *be, tensor norm, tensor factor, tensor gradient, float most)
{
    MOVES(bytes_of(gradient));
    return cpu.clip(be, norm, factor, gradient, most);
}
static cudpo_status adamw(backend *be, const adamw_tensors *t, adamw_step step)
{
    add(WORK_ADAMW, 0,
        2 * (bytes_of(t->w) + bytes_of(t->m) + bytes_of(t->v)) + bytes_of(t->copy) +
            bytes_of(t->gradient));
    return cpu.adamw(be, t, step);
}

static void install(backend *be)
{
    cpu = *be;
    be->gemm = gemm;
    be->attention = attention;
    be->attention_backward = attention_backward;
    be->embed = embed;
    be->embed_backward = embed_backward;
    be->add_rmsnorm = add_rmsnorm;
    be->rmsnorm_backward = rmsnorm_backward;
    be->rmsnorm_again = rmsnorm_again;
    be->head_norm = head_norm;
    be->head_norm_backward = head_norm_backward;
    be->bias_add = bias_add;
    be->bias_backward = bias_backward;
    be->rope = rope;
    be->swiglu = swiglu;
    be->swiglu_backward = swiglu_backward;
    be->gather_rows = gather_rows;
    be->scatter_rows = scatter_rows;
    be->scale_rows = scale_rows;
    be->copy = copy;
    be->zero = zero;
    be->token_logprob = token_logprob;
    be->segment_sum = segment_sum;
    be->clip = clip;
    be->adamw = adamw;
}

#endif /* CUDPO_TESTS_COUNTING_H */
