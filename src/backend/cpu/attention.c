/* attention.c - attention over a pack: of each segment to its prompt and to itself.
 *
 * With p = e^(scale q k^T - lse) and delta = sum(dout * out) of each query:
 *     dv = p^T dout,   ds = scale p (dout v^T - delta),   dq = ds k,   dk = ds^T q.
 * Source: Dao et al. 2022, appendix B.  The scores are computed again, tile by tile.  A task of the backward pass is a
 * kv head of a whole group, because a prompt's dk and dv are sums over all who see it. */
#include "backend/cpu/attention.h"
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

#include <cblas.h>
#include <limits.h>
#include <string.h>

/* One row of the segments tensor. */
typedef struct segment {
    int64_t begin, length, prompt_begin, prompt_length;
} segment;

static segment segment_at(tensor segments, int64_t n)
{
    const int32_t *s = tensor_i32(segments) + n * segments.stride;
    return (segment){s[SEGMENT_BEGIN], s[SEGMENT_LENGTH], s[SEGMENT_PROMPT_BEGIN],
                     s[SEGMENT_PROMPT_LENGTH]};
}

/* Segments cover tokens 0 .. T-1 in order, and a completion's prompt is the last segment that has none itself. */
static bool is_pack(tensor segments, int64_t T)
{
    if (segments.rows < 0 || !is_i32(segments, segments.rows, SEGMENT_FIELDS)) return false;
    segment prompt = {0}; /* of length 0, so nobody's */
    int64_t end = 0;
    for (int64_t n = 0; n < segments.rows; n++) {
        const segment s = segment_at(segments, n);
        if (s.begin != end || s.length < 0) return false;
        end += s.length;
        if (s.prompt_length == 0) {
            prompt = s;
        } else if (s.prompt_begin != prompt.begin || s.prompt_length != prompt.length) {
            return false;
        }
    }
    return end == T;
}

/* A segment that starts a group: a prompt, or a completion without one. */
static bool leads_group(tensor segments, int64_t n)
{
    return segment_at(segments, n).prompt_length == 0;
}

/* Is this a list of rising tokens of the pack, or absent? */
static bool are_wanted(tensor wanted, int64_t T)
{
    if (!tensor_present(wanted)) return true;
    if (wanted.rows < 0 || !is_index(wanted, wanted.rows, T)) return false;
    for (int64_t u = 1; u < wanted.rows; u++) {
        if (index_of(wanted, u) <= index_of(wanted, u - 1)) return false;
    }
    return true;
}

/* How many of the wanted tokens come before token t. */
static int64_t wanted_before(tensor wanted, int64_t t)
{
    int64_t low = 0, high = wanted.rows;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (index_of(wanted, middle) < t) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Queries begin .. end-1 of a segment: from the first that asks to the last. */
typedef struct query_range {
    int64_t begin, end;
} query_range;

static query_range asking(tensor wanted, segment s)
{
    if (!tensor_present(wanted)) return (query_range){0, s.length};
    const int64_t first = wanted_before(wanted, s.begin);
    const int64_t end = wanted_before(wanted, s.begin + s.length);
    if (first == end) return (query_range){0, 0};
    return (query_range){index_of(wanted, first) - s.begin,
                         index_of(wanted, end - 1) + 1 - s.begin};
}

/* Where a kv head's keys and values stand in qkv, and a head's queries. */
typedef struct layout {
    int64_t H, K, D, ratio; /* ratio: heads that share a kv head */
} layout;

static layout layout_of(const attention_shape *s)
{
    return (layout){s->heads, s->kv_heads, s->head_dim, s->heads / s->kv_heads};
}

static int64_t width_of(const attention_shape *s)
{
    return ((int64_t)s->heads + 2 * (int64_t)s->kv_heads) * s->head_dim;
}

static int64_t k_column(const layout *l, int64_t kv_head)
{
    return (l->H + kv_head) * l->D;
}

static int64_t v_column(const layout *l, int64_t kv_head)
{
    return (l->H + l->K + kv_head) * l->D;
}

static key_run run_of(tensor qkv, const layout *l, int64_t kv_head, int64_t begin, int64_t length,
                      int64_t position)
{
    return (key_run){.k = row_of(qkv, begin) + k_column(l, kv_head),
                     .v = row_of(qkv, begin) + v_column(l, kv_head),
                     .k_stride = qkv.stride,
                     .v_stride = qkv.stride,
                     .length = length,
                     .position = position};
}

static void forward_head(tensor out, tensor lse, tensor qkv, segment s, query_range ask,
                         int64_t head, const attention_shape *shape)
{
    const layout l = layout_of(shape);
    const key_run runs[2] = {
        run_of(qkv, &l, head / l.ratio, s.prompt_length > 0 ? s.prompt_begin : 0, s.prompt_length,
               0),
        run_of(qkv, &l, head / l.ratio, s.begin, s.length, s.prompt_length),
    };
    for (int64_t i = ask.begin; i < ask.end; i += QUERIES) {
        const query_tile tile = {
            .out = row_of(out, s.begin + i) + head * l.D,
            .lse = row_of(lse, s.begin + i) + head,
            .q = row_of(qkv, s.begin + i) + head * l.D,
            .out_stride = out.stride,
            .lse_stride = lse.stride,
            .q_stride = qkv.stride,
            .rows = min_i64(QUERIES, ask.end - i),
            .position = s.prompt_length + i,
            .position_step = 1,
        };
        attention_forward_tile(&tile, runs, 2, shape);
    }
}

cudpo_status cpu_attention(backend *be, tensor out, tensor lse, tensor qkv, tensor segments,
                           tensor wanted, attention_shape shape)
{
    (void)be;
    const int64_t T = qkv.rows;
    CUDPO_REQUIRE(attention_shape_valid(&shape));
    CUDPO_REQUIRE(qkv.rows >= 0 && is_f32(qkv, T, width_of(&shape)));
    CUDPO_REQUIRE(is_f32(out, T, (int64_t)shape.heads * shape.head_dim));
    CUDPO_REQUIRE(is_f32(lse, T, shape.heads));
    CUDPO_REQUIRE(qkv.stride <= INT_MAX && out.stride <= INT_MAX);
    CUDPO_REQUIRE(is_pack(segments, T));
    CUDPO_REQUIRE(are_wanted(wanted, T));
    CUDPO_REQUIRE(tensor_disjoint(out, qkv) && tensor_disjoint(lse, qkv));
    CUDPO_REQUIRE(tensor_disjoint(out, segments) && tensor_disjoint(out, wanted));
    CUDPO_REQUIRE(tensor_disjoint(lse, segments) && tensor_disjoint(lse, wanted));
    CUDPO_REQUIRE(tensor_disjoint(out, lse));
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t n = 0; n < segments.rows; n++) {
        for (int64_t head = 0; head < shape.heads; head++) {
            const segment s = segment_at(segments, n);
            forward_head(out, lse, qkv, s, asking(wanted, s), head, &shape);
        }
    }
    return CUDPO_OK;
}

/* What the backward pass of a tile of queries reads and writes, beside the keys. */
typedef struct backward_tile {
    float *dq;                       /* [rows, D] += */
    const float *q, *dout;           /* [rows, D] */
    int64_t qkv_stride, dout_stride; /* dq, dk, dv have dqkv's stride */
    int64_t dqkv_stride;
    int64_t rows, position;
    float lse[QUERIES], delta[QUERIES];
} backward_tile;

VECTORISED_VALUE(float, dot, (const float *a, const float *b, int64_t n), (a, b, n))
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return (float)sum;
}

/* ds = scale p (dp - delta), in place of dp. */
VECTORISED(score_slope,
           (float *restrict dp, const float *restrict p, float delta, float scale, int64_t n),
           (dp, p, delta, scale, n))
{
    for (int64_t i = 0; i < n; i++) {
        dp[i] = scale * p[i] * (dp[i] - delta);
    }
}

/* Keys begin .. begin+n-1 of a run; dk and dv are the gradients of its first key and value. */
static void backward_keys(const backward_tile *t, const key_run *run, float *dk, float *dv,
                          int64_t begin, int64_t n, const attention_shape *shape)
{
    float p[QUERIES * KEYS], ds[QUERIES * KEYS];
    const blasint rows = (blasint)t->rows, cols = (blasint)n, D = shape->head_dim;
    const blasint ld = (blasint)t->qkv_stride, ldd = (blasint)t->dqkv_stride;
    const float *k = run->k + begin * run->k_stride, *v = run->v + begin * run->v_stride;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, D, shape->scale, t->q, ld, k,
                ld, 0.0f, p, KEYS);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, D, 1.0f, t->dout,
                (blasint)t->dout_stride, v, ld, 0.0f, ds, KEYS);
    for (int64_t i = 0; i < t->rows; i++) {
        const key_range visible =
            attention_visible(t->position + i, run->position + begin, n, shape->window);
        const int64_t padded = attention_mask(p + i * KEYS, visible, n);
        attention_exponentials(p + i * KEYS, t->lse[i], padded);
        score_slope(ds + i * KEYS, p + i * KEYS, t->delta[i], shape->scale, n);
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, cols, D, rows, 1.0f, p, KEYS, t->dout,
                (blasint)t->dout_stride, 1.0f, dv + begin * t->dqkv_stride, ldd);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, cols, D, rows, 1.0f, ds, KEYS, t->q, ld,
                1.0f, dk + begin * t->dqkv_stride, ldd);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, D, cols, 1.0f, ds, KEYS, k, ld,
                1.0f, t->dq, ldd);
}

/* The tensors of the backward pass. */
typedef struct backward {
    tensor dqkv, dout, qkv, out, lse, segments, wanted;
    attention_shape shape;
} backward;

/* Queries i .. i+rows-1 of a segment. */
static void backward_queries(const backward *b, segment s, int64_t head, int64_t i, int64_t rows)
{
    const layout l = layout_of(&b->shape);
    const int64_t t0 = s.begin + i, column = head * l.D, kv_head = head / l.ratio;
    backward_tile tile = {
        .dq = row_of(b->dqkv, t0) + column,
        .q = row_of(b->qkv, t0) + column,
        .dout = row_of(b->dout, t0) + column,
        .qkv_stride = b->qkv.stride,
        .dout_stride = b->dout.stride,
        .dqkv_stride = b->dqkv.stride,
        .rows = rows,
        .position = s.prompt_length + i,
    };
    for (int64_t r = 0; r < tile.rows; r++) {
        tile.lse[r] = row_of(b->lse, t0 + r)[head];
        tile.delta[r] = dot(row_of(b->dout, t0 + r) + column, row_of(b->out, t0 + r) + column, l.D);
    }
    const int64_t begins[2] = {s.prompt_length > 0 ? s.prompt_begin : 0, s.begin};
    const int64_t lengths[2] = {s.prompt_length, s.length}, positions[2] = {0, s.prompt_length};
    for (int j = 0; j < 2; j++) {
        const key_run run = run_of(b->qkv, &l, kv_head, begins[j], lengths[j], positions[j]);
        float *dk = row_of(b->dqkv, begins[j]) + k_column(&l, kv_head);
        float *dv = row_of(b->dqkv, begins[j]) + v_column(&l, kv_head);
        const int64_t last = tile.position + tile.rows - 1, window = b->shape.window;
        const int64_t end = attention_visible(last, run.position, run.length, window).end;
        int64_t key = attention_visible(tile.position, run.position, run.length, window).begin;
        for (; key < end; key += KEYS) {
            backward_keys(&tile, &run, dk, dv, key, min_i64(KEYS, end - key), &b->shape);
        }
    }
}

static void zero_columns(tensor t, segment s, int64_t column, int64_t n)
{
    for (int64_t i = 0; i < s.length; i++) {
        memset(row_of(t, s.begin + i) + column, 0, (size_t)n * sizeof(float));
    }
}

/* The group that segment n leads. */
static void backward_group(const backward *b, int64_t leader, int64_t kv_head)
{
    const layout l = layout_of(&b->shape);
    for (int64_t n = leader; n < b->segments.rows; n++) {
        if (n > leader && leads_group(b->segments, n)) break;
        const segment s = segment_at(b->segments, n);
        const query_range ask = asking(b->wanted, s);
        zero_columns(b->dqkv, s, kv_head * l.ratio * l.D, l.ratio * l.D);
        zero_columns(b->dqkv, s, k_column(&l, kv_head), l.D);
        zero_columns(b->dqkv, s, v_column(&l, kv_head), l.D);
        for (int64_t head = kv_head * l.ratio; head < (kv_head + 1) * l.ratio; head++) {
            for (int64_t i = ask.begin; i < ask.end; i += QUERIES) {
                backward_queries(b, s, head, i, min_i64(QUERIES, ask.end - i));
            }
        }
    }
}

cudpo_status cpu_attention_backward(backend *be, tensor dqkv, tensor dout, tensor qkv, tensor out,
                                    tensor lse, tensor segments, tensor wanted,
                                    attention_shape shape)
{
    (void)be;
    const int64_t T = qkv.rows;
    CUDPO_REQUIRE(attention_shape_valid(&shape));
    const int64_t Q = (int64_t)shape.heads * shape.head_dim;
    CUDPO_REQUIRE(qkv.rows >= 0 && is_f32(qkv, T, width_of(&shape)));
    CUDPO_REQUIRE(is_f32(dqkv, T, width_of(&shape)));
    CUDPO_REQUIRE(is_f32(out, T, Q));
    CUDPO_REQUIRE(is_f32(dout, T, Q));
    CUDPO_REQUIRE(is_f32(lse, T, shape.heads));
    CUDPO_REQUIRE(qkv.stride <= INT_MAX && dqkv.stride <= INT_MAX && dout.stride <= INT_MAX);
    CUDPO_REQUIRE(is_pack(segments, T));
    CUDPO_REQUIRE(are_wanted(wanted, T));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, qkv) && tensor_disjoint(dqkv, dout));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, out) && tensor_disjoint(dqkv, lse));
    CUDPO_REQUIRE(tensor_disjoint(dqkv, segments) && tensor_disjoint(dqkv, wanted));
    const backward b = {dqkv, dout, qkv, out, lse, segments, wanted, shape};
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t n = 0; n < segments.rows; n++) {
        for (int64_t kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
            if (leads_group(segments, n)) backward_group(&b, n, kv_head);
        }
    }
    return CUDPO_OK;
}
