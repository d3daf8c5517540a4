/* kl_estimate.cu - KTO's estimate of the KL divergence, from the scores of mismatched completions. */
#include "check.h"
#include "kernels.h"

enum { THREADS = 64 };

/* One thread per unit, which sums its whole device batch: neighbours read the same, and none waits for another.
 * Few units, so bound by latency. */
static __global__ void __launch_bounds__(THREADS)
    kl_estimate_kernel(tensor kl, tensor policy, tensor reference, int64_t batch)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= kl.rows) return;
    const int64_t begin = i / batch * batch;
    const int64_t count = kl.rows - begin < batch ? kl.rows - begin : batch;
    double sum = 0.0;
    for (int64_t j = begin; j < begin + count; j++) {
        sum += (double)(((const float *)policy.data)[j * policy.stride] -
                        ((const float *)reference.data)[j * reference.stride]);
    }
    const double mean = sum / (double)count;
    ((float *)kl.data)[i * kl.stride] = (float)(mean <= 0.0 ? 0.0 : mean); /* NaN stays NaN */
}

/* kl[i] = max(0, mean of policy[j] - reference[j]) over the `batch` units j that i stands among: [0, batch), [batch, 2 batch)
 * and so on, the last of which may be fewer.
 * Source: Ethayarajh et al. 2024, arXiv:2402.01306, as TRL has it: of each device batch.
 *  Out:     kl         [n] f32, nats.  Differences are rounded to f32, their sum is double, in order: the CPU's bits.
 *                      A NaN among the differences makes NaN of its whole batch.
 *  In:      policy, reference  [n] f32 scores of the mismatched completions, nats.        batch  >= 1.
 *           All may be strided.  Nothing overlaps kl.  n up to 2^37 - 64.
 *  Returns: CUDPO_OK; CUDPO_EINVAL, kl untouched; CUDPO_EDEVICE.
 *  Moves 12 bytes a unit, where a batch stays in cache. */
extern "C" cudpo_status cuda_kl_estimate(tensor kl, tensor policy, tensor reference, int64_t batch,
                                         cudpo_stream stream)
{
    CUDPO_REQUIRE(is_f32(kl, kl.rows, 1) && fits_grid(kl.rows, THREADS));
    CUDPO_REQUIRE(is_f32(policy, kl.rows, 1));
    CUDPO_REQUIRE(is_f32(reference, kl.rows, 1));
    CUDPO_REQUIRE(batch >= 1);
    CUDPO_REQUIRE(tensor_disjoint(kl, policy) && tensor_disjoint(kl, reference));
    if (kl.rows == 0) return CUDPO_OK;
    LAUNCH(kl_estimate_kernel, blocks_for(kl.rows, THREADS), THREADS, 0, stream, kl, policy,
           reference, batch);
    return LAUNCHED();
}
