/* adamw.c - one step of AdamW, in the order of operations of torch.optim.AdamW:
 *
 *     w -= lr wd w;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
 *     w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon) */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

enum { PIECE = 16384 }; /* elements that one thread updates at a time */

/* The scalars of a step as the loop wants them. */
typedef struct update {
    float gradient_scale, decay, one_minus_beta1, beta2, one_minus_beta2, root_correction2, epsilon,
        step_size;
} update;

VECTORISED(update_weights,
           (float *restrict w, float *restrict m, float *restrict v, const float *restrict gradient,
            const update *u, int64_t n),
           (w, m, v, gradient, u, n))
{
    const update k = *u;
    for (int64_t i = 0; i < n; i++) {
        const float g = gradient[i] * k.gradient_scale;
        m[i] += k.one_minus_beta1 * (g - m[i]);
        v[i] = v[i] * k.beta2 + k.one_minus_beta2 * g * g;
        const float denominator = sqrtf(v[i]) / k.root_correction2 + k.epsilon;
        w[i] = w[i] * k.decay - k.step_size * (m[i] / denominator);
    }
}

static cudpo_status check_step(adamw_step step)
{
    CUDPO_REQUIRE(isfinite(step.learning_rate));
    CUDPO_REQUIRE(isfinite(step.weight_decay));
    CUDPO_REQUIRE(isfinite(step.epsilon));
    CUDPO_REQUIRE(step.epsilon >= 0.0);
    CUDPO_REQUIRE(step.beta1 >= 0.0 && step.beta1 < 1.0);
    CUDPO_REQUIRE(step.beta2 >= 0.0 && step.beta2 < 1.0);
    CUDPO_REQUIRE(step.bias_correction1 > 0.0 && step.bias_correction1 <= 1.0);
    CUDPO_REQUIRE(step.bias_correction2 > 0.0 && step.bias_correction2 <= 1.0);
    return CUDPO_OK;
}

static cudpo_status update_all(tensor w, tensor m, tensor v, tensor gradient, float gradient_scale,
                               adamw_step step)
{
    CUDPO_REQUIRE(is_matrix(w));
    const int64_t R = w.rows, C = w.cols;
    CUDPO_REQUIRE(is_f32(m, R, C));
    CUDPO_REQUIRE(is_f32(v, R, C));
    CUDPO_REQUIRE(is_f32(gradient, R, C));
    CUDPO_REQUIRE(tensor_disjoint(w, m));
    CUDPO_REQUIRE(tensor_disjoint(w, v));
    CUDPO_REQUIRE(tensor_disjoint(w, gradient));
    CUDPO_REQUIRE(tensor_disjoint(m, v));
    CUDPO_REQUIRE(tensor_disjoint(m, gradient));
    CUDPO_REQUIRE(tensor_disjoint(v, gradient));
    CUDPO_REQUIRE(isfinite(gradient_scale));
    CUDPO_TRY(check_step(step));
    const update u = {
        .gradient_scale = gradient_scale,
        .decay = (float)(1.0 - step.learning_rate * step.weight_decay),
        .one_minus_beta1 = (float)(1.0 - step.beta1),
        .beta2 = (float)step.beta2,
        .one_minus_beta2 = (float)(1.0 - step.beta2),
        .root_correction2 = (float)sqrt(step.bias_correction2),
        .epsilon = (float)step.epsilon,
        .step_size = (float)(step.learning_rate / step.bias_correction1),
    };
    /* Pieces of rows: of all dense memory at once where nothing is strided. */
    const bool dense =
        tensor_dense(w) && tensor_dense(m) && tensor_dense(v) && tensor_dense(gradient);
    const int64_t rows = dense ? 1 : w.rows, cols = dense ? w.rows * w.cols : w.cols;
    const int64_t pieces = (cols + PIECE - 1) / PIECE;
#pragma omp parallel for if (rows * cols > PIECE)
    for (int64_t i = 0; i < rows * pieces; i++) {
        const int64_t r = i / pieces, begin = i % pieces * PIECE;
        update_weights(row_of(w, r) + begin, row_of(m, r) + begin, row_of(v, r) + begin,
                       row_of(gradient, r) + begin, &u, min_i64(PIECE, cols - begin));
    }
    return CUDPO_OK;
}

cudpo_status cpu_adamw(backend *be, const adamw_tensors *tensors, adamw_step step)
{
    (void)be;
    CUDPO_REQUIRE(tensors != NULL);
    CUDPO_REQUIRE(!tensor_present(tensors->copy));
    const tensor scale = tensors->gradient_scale;
    float factor = tensors->factor;
    if (tensor_present(scale)) {
        CUDPO_REQUIRE(is_f32(scale, 1, 1));
        if (!isfinite(*tensor_f32(scale))) return CUDPO_OK;
        factor *= *tensor_f32(scale);
    }
    return update_all(tensors->w, tensors->m, tensors->v, tensors->gradient, factor, step);
}
