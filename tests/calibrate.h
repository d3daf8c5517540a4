/* calibrate.h - rates of the CPU at the ops of a model, measured for a moment: what a calibration file says. */
#ifndef CUDPO_TESTS_CALIBRATE_H
#define CUDPO_TESTS_CALIBRATE_H

#include "test.h"
#include "backend/backend.h"
#include "model/config.h"
#include "plan/cost.h"

#include <time.h>

static inline double calibrate_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline int calibrate_order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline double calibrate_median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, calibrate_order);
    return x[n / 2];
}

/* Ops that are timed, and the sums that their rates come from. */
enum { CALIBRATE_OPS = 9, CALIBRATE_RUNS = 5 };
typedef struct calibrate_sum {
    double operations[WORK_KINDS], bytes[WORK_KINDS], seconds[WORK_KINDS];
} calibrate_sum;

static inline tensor calibrate_tensor(int64_t rows, int64_t cols)
{
    float *data = malloc((size_t)(rows * cols) * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < rows * cols; i++)
        data[i] = (float)((i * 2654435761u >> 8) % 2001) * 1e-3f - 1.0f;
    return tensor_matrix(data, DTYPE_F32, rows, cols);
}

/* Time `call`, which does so many operations on so many bytes. */
#define CALIBRATE(kind, work, moved, call)                          \
    do {                                                            \
        double runs_[CALIBRATE_RUNS];                               \
        CHECK_OK(call);                                             \
        for (int run_ = 0; run_ < CALIBRATE_RUNS; run_++) {         \
            const double begin_ = calibrate_clock();                \
            CHECK_OK(call);                                         \
            runs_[run_] = calibrate_clock() - begin_;               \
        }                                                           \
        s.operations[kind] += (work);                               \
        s.bytes[kind] += (moved);                                   \
        s.seconds[kind] += calibrate_median(runs_, CALIBRATE_RUNS); \
    } while (0)

/* Rates at the shapes of a model, for packs of T tokens in groups of a third of `group` each.  Memory is as good as new between
 * ops, as it is in a step: what one wrote is not what the next reads. */
static inline device_rates calibrate_cpu(const model_config *c, int64_t T, int64_t group, int64_t R)
{
    backend *be = backend_cpu();
    calibrate_sum s = {{0}, {0}, {0}};
    const int64_t C = c->hidden_size, F = c->intermediate_size, V = c->vocab_size;
    const int64_t Q = c->num_attention_heads * c->head_dim,
                  KV = c->num_key_value_heads * c->head_dim, W = Q + 2 * KV;
    const int64_t H = c->num_attention_heads, third = group / 3, groups = T / (3 * third);
    const double e = 4;
    T = groups * 3 * third;
    tensor x = calibrate_tensor(T, C), y = calibrate_tensor(T, C), z = calibrate_tensor(T, C);
    tensor branch = calibrate_tensor(T, C);
    tensor wide = calibrate_tensor(T, 2 * F), wide2 = calibrate_tensor(T, 2 * F);
    tensor act = calibrate_tensor(T, F), w = calibrate_tensor(2 * F, C),
           norm = calibrate_tensor(1, C);
    tensor dw = calibrate_tensor(2 * F, C), rstd = calibrate_tensor(T, 1),
           dnorm = calibrate_tensor(1, C);
    tensor qkv = calibrate_tensor(T, W), dqkv = calibrate_tensor(T, W);
    tensor out = calibrate_tensor(T, Q), dout = calibrate_tensor(T, Q),
           lse = calibrate_tensor(T, H);
    tensor logits = calibrate_tensor(R, V), logp = calibrate_tensor(R, 1),
           scale = calibrate_tensor(R, 1);
    tensor stats = calibrate_tensor(R, ROW_STATS);
    int32_t *label = calloc((size_t)R, sizeof *label);
    int32_t *segment = malloc((size_t)(groups * 3) * 4 * sizeof *segment);
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t k = 0; k < 3; k++) {
            int32_t *n = segment + 4 * (3 * g + k);
            n[0] = (int32_t)((3 * g + k) * third);
            n[1] = (int32_t)third;
            n[2] = (int32_t)(3 * g * third);
            n[3] = k == 0 ? 0 : (int32_t)third;
        }
    }
    const tensor segments = tensor_matrix(segment, DTYPE_I32, 3 * groups, 4), none = {0};
    const double triangle = (double)third * (double)(third + 1) / 2;
    const double A = (double)groups * (3 * triangle + 2.0 * (double)third * (double)third);
    const attention_shape shape = {(int)H, (int)c->num_key_value_heads, (int)c->head_dim, 0,
                                   0.125f};
    const logprob_tensors rows = {.logp = logp,
                                  .stats = stats,
                                  .scale = scale,
                                  .logits = logits,
                                  .label = tensor_vector(label, DTYPE_I32, R),
                                  .gradient_type = DTYPE_F32};
    const double product = 2.0 * (double)T * (double)C * (double)(2 * F);

    CALIBRATE(WORK_GEMM, product, 0, be->gemm(be, wide, x, false, w, true, 0));
    CALIBRATE(WORK_GEMM, product, 0, be->gemm(be, y, wide, false, w, false, 0));
    CALIBRATE(WORK_GEMM, product, 0, be->gemm(be, dw, wide, true, x, false, 1));
    CALIBRATE(WORK_ATTENTION, 4 * A * (double)Q, 0,
              be->attention(be, out, lse, qkv, segments, none, shape));
    CALIBRATE(WORK_ATTENTION_BACKWARD, 10 * A * (double)Q, 0,
              be->attention_backward(be, dqkv, dout, qkv, out, lse, segments, none, shape));
    CALIBRATE(WORK_ELEMENTWISE, 0, e * 3 * (double)(T * F), be->swiglu(be, act, wide2));
    CALIBRATE(WORK_ELEMENTWISE, 0, e * 6 * (double)(T * F),
              be->swiglu_backward(be, wide, act, act, wide2));
    CALIBRATE(WORK_ELEMENTWISE, 0, e * 4 * (double)(T * C),
              be->add_rmsnorm(be, y, rstd, z, x, branch, norm, 1e-5f));
    CALIBRATE(WORK_ELEMENTWISE, 0, e * 4 * (double)(T * C),
              be->rmsnorm_backward(be, z, dnorm, y, x, rstd, norm));
    CALIBRATE(WORK_LOGITS, 0, e * 2 * (double)(R * V), be->token_logprob(be, &rows, true));
    const int64_t n = 2 * F * C;
    const tensor flat[5] = {tensor_matrix(w.data, DTYPE_F32, 1, n),
                            tensor_matrix(dw.data, DTYPE_F32, 1, n), calibrate_tensor(1, n),
                            calibrate_tensor(1, n), none};
    memset(flat[3].data, 0, (size_t)n * sizeof(float)); /* a second moment is not negative */
    const adamw_tensors adam = {
        .w = flat[0], .m = flat[2], .v = flat[3], .gradient = flat[1], .factor = 1};
    const adamw_step step = {1e-6, 0.9, 0.999, 1e-8, 0, 0.1, 0.001};
    CALIBRATE(WORK_ADAMW, 0, e * 7 * (double)n, be->adamw(be, &adam, step));
    device_rates r = {.launch = 1e-6};
    r.gemm_f32 = s.operations[WORK_GEMM] / s.seconds[WORK_GEMM];
    const int column = rates_column(c->head_dim);
    r.attention[column] = s.operations[WORK_ATTENTION] / s.seconds[WORK_ATTENTION];
    r.attention_backward[column] =
        s.operations[WORK_ATTENTION_BACKWARD] / s.seconds[WORK_ATTENTION_BACKWARD];
    r.elementwise = s.bytes[WORK_ELEMENTWISE] / s.seconds[WORK_ELEMENTWISE];
    r.head = s.bytes[WORK_LOGITS] / s.seconds[WORK_LOGITS];
    r.adamw = s.bytes[WORK_ADAMW] / s.seconds[WORK_ADAMW];
    CALIBRATE(WORK_HEAD_GEMM, 0, 2 * e * (double)(T * 2 * F), be->copy(be, wide, wide2));
    r.copy = s.bytes[WORK_HEAD_GEMM] / s.seconds[WORK_HEAD_GEMM];
    const tensor all[] = {branch, x,      y,    z,     wide,  wide2,   act,    w,
                          norm,   dw,     rstd, dnorm, qkv,   dqkv,    out,    dout,
                          lse,    logits, logp, scale, stats, flat[2], flat[3]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i].data);
    free(label);
    free(segment);
    return r;
}

#endif /* CUDPO_TESTS_CALIBRATE_H */
