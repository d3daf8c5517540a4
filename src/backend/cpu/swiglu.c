/* swiglu.c - the gated activation of Llama's feed-forward layer (Shazeer 2020).
 *
 * With s = sigmoid(gate):  act = gate s up,  dup = dact gate s,  dgate = dact up s (1 + gate (1 - s)). */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

/* exp(-x) is inf below -88, whose reciprocal is the 0 that is meant. */
VECTOR_INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + vector_exp(-x));
}

VECTORISED(forward_row,
           (float *restrict act, const float *restrict gate, const float *restrict up, int64_t F),
           (act, gate, up, F))
{
    for (int64_t i = 0; i < F; i++) {
        act[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
}

/* dgate, dup and act may be gate, up and dact: an element is read before it is written.  act is the same expression as in
 * the forward pass, so that it is the same to the last bit. */
VECTORISED(backward_row,
           (float *dgate, float *dup, float *act, const float *dact, const float *gate,
            const float *up, int64_t F),
           (dgate, dup, act, dact, gate, up, F))
{
#pragma omp simd
    for (int64_t i = 0; i < F; i++) {
        const float slope = dact[i], x = gate[i], y = up[i];
        const float s = sigmoid(x), silu = x * s;
        dgate[i] = slope * y * (s + silu * (1.0f - s));
        dup[i] = slope * silu;
        if (act != NULL) act[i] = silu * y;
    }
}

cudpo_status cpu_swiglu(backend *be, tensor act, tensor gate_up)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(act));
    CUDPO_REQUIRE(is_f32(gate_up, act.rows, 2 * act.cols));
    CUDPO_REQUIRE(tensor_disjoint(act, gate_up));
    const int64_t F = act.cols;
#pragma omp parallel for if (act.rows * F > 4096)
    for (int64_t t = 0; t < act.rows; t++) {
        forward_row(row_of(act, t), row_of(gate_up, t), row_of(gate_up, t) + F, F);
    }
    return CUDPO_OK;
}

cudpo_status cpu_swiglu_backward(backend *be, tensor dgate_up, tensor act, tensor dact,
                                 tensor gate_up)
{
    (void)be;
    const int64_t F = dact.cols;
    CUDPO_REQUIRE(is_matrix(dact));
    CUDPO_REQUIRE(is_f32(gate_up, dact.rows, 2 * F));
    CUDPO_REQUIRE(is_like(dgate_up, gate_up));
    CUDPO_REQUIRE(!tensor_present(act) || is_like(act, dact));
    CUDPO_REQUIRE(is_same(dgate_up, gate_up) || tensor_disjoint(dgate_up, gate_up));
    CUDPO_REQUIRE(is_same(act, dact) || tensor_disjoint(act, dact));
    CUDPO_REQUIRE(tensor_disjoint(dgate_up, dact) && tensor_disjoint(dgate_up, act));
    CUDPO_REQUIRE(tensor_disjoint(act, gate_up));
#pragma omp parallel for if (dact.rows * F > 4096)
    for (int64_t t = 0; t < dact.rows; t++) {
        const float *gate = row_of(gate_up, t);
        float *dgate = row_of(dgate_up, t);
        float *again = tensor_present(act) ? row_of(act, t) : NULL;
        backward_row(dgate, dgate + F, again, row_of(dact, t), gate, gate + F, F);
    }
    return CUDPO_OK;
}
