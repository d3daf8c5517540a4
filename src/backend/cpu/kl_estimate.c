/* kl_estimate.c - KTO's estimate of the KL divergence, from the scores of mismatched completions. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

/* max(0, mean of policy - reference) over rows begin .. end-1. */
static float estimate(tensor policy, tensor reference, int64_t begin, int64_t end)
{
    double sum = 0.0;
    for (int64_t j = begin; j < end; j++) {
        const float ratio = *row_of(policy, j) - *row_of(reference, j);
        sum += (double)ratio;
    }
    const double mean = sum / (double)(end - begin);
    return (float)(mean <= 0.0 ? 0.0 : mean); /* NaN stays NaN */
}

cudpo_status cpu_kl_estimate(backend *be, tensor kl, tensor policy, tensor reference, int64_t batch)
{
    (void)be;
    CUDPO_REQUIRE(kl.rows >= 0 && is_f32(kl, kl.rows, 1));
    CUDPO_REQUIRE(is_f32(policy, kl.rows, 1));
    CUDPO_REQUIRE(is_f32(reference, kl.rows, 1));
    CUDPO_REQUIRE(batch >= 1);
    CUDPO_REQUIRE(tensor_disjoint(kl, policy) && tensor_disjoint(kl, reference));
    for (int64_t begin = 0; begin < kl.rows;) {
        const int64_t end = begin + min_i64(batch, kl.rows - begin);
        const float value = estimate(policy, reference, begin, end);
        for (; begin < end; begin++) {
            *row_of(kl, begin) = value;
        }
    }
    return CUDPO_OK;
}
