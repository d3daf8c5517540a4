/* preference_loss.c - one unit after another through the scalar maths of preference/loss.h. */
#include "backend/cpu/ops.h"
#include "preference/loss.h"

/* A vector without gaps: what follows reads it as an array. */
static bool is_array(tensor t, dtype type, int64_t n)
{
    return tensor_is(t, type, n, 1) && tensor_dense(t);
}

static bool is_array_or_absent(tensor t, dtype type, int64_t n)
{
    return !tensor_present(t) || is_array(t, type, n);
}

static cudpo_status check_parameters(const loss_parameters *p)
{
    CUDPO_REQUIRE(p->kind < LOSS_KINDS && isfinite(p->beta) && p->beta > 0.0);
    CUDPO_REQUIRE(p->label_smoothing >= 0.0 && p->label_smoothing <= 1.0);
    CUDPO_REQUIRE(isfinite(p->desirable_weight) && isfinite(p->undesirable_weight));
    CUDPO_REQUIRE(isfinite(p->unit_scale) && isfinite(p->token_scale));
    return CUDPO_OK;
}

cudpo_status cpu_preference_loss(backend *be, const loss_outputs *out, const loss_inputs *in,
                                 const loss_parameters *parameters)
{
    (void)be;
    const int n = in->sequences;
    const int64_t S = in->policy.rows, G = n > 0 ? S / n : 0;
    CUDPO_REQUIRE(in->completions >= 1 && in->completions <= 2);
    CUDPO_REQUIRE((n == in->completions || n == in->completions + 1) && S == G * n && G >= 1);
    CUDPO_REQUIRE(is_array(in->policy, DTYPE_F32, S) && is_array(in->tokens, DTYPE_I32, S));
    CUDPO_REQUIRE(is_array_or_absent(in->reference, DTYPE_F32, S));
    CUDPO_REQUIRE(is_array_or_absent(in->label, DTYPE_I32, G));
    CUDPO_REQUIRE(is_array_or_absent(in->kl, DTYPE_F32, G));
    CUDPO_REQUIRE(is_array(out->coefficient, DTYPE_F32, S));
    CUDPO_REQUIRE(tensor_is(out->columns, DTYPE_F32, G, LOSS_COLUMNS));
    CUDPO_TRY(check_parameters(parameters));

    const float *policy = tensor_f32(in->policy);
    const float *reference = tensor_present(in->reference) ? tensor_f32(in->reference) : NULL;
    const int32_t *tokens = tensor_i32(in->tokens);
    const int32_t *label = tensor_present(in->label) ? tensor_i32(in->label) : NULL;
    const float *kl = tensor_present(in->kl) ? tensor_f32(in->kl) : NULL;
    float *coefficient = tensor_f32(out->coefficient), *columns = tensor_f32(out->columns);

    for (int64_t g = 0; g < G; g++) {
        loss_unit u = {.label = label == NULL || label[g] != 0,
                       .kl = kl == NULL ? 0.0 : (double)kl[g]};
        for (int i = 0; i < n; i++) {
            /* A scored prompt is always the third, so that losses can count on its place. */
            const int place = i < in->completions ? i : LOSS_MAX_SEQUENCES - 1;
            u.policy[place] = (double)policy[g * n + i];
            u.reference[place] = reference == NULL ? 0.0 : (double)reference[g * n + i];
            u.tokens[place] = tokens[g * n + i];
        }
        loss_result r;
        loss_unit_evaluate(&r, &u, parameters);
        for (int i = 0; i < n; i++)
            coefficient[g * n + i] =
                (float)r.coefficient[i < in->completions ? i : LOSS_MAX_SEQUENCES - 1];
        for (int i = 0; i < LOSS_COLUMNS; i++)
            columns[g * out->columns.stride + i] = (float)r.column[i];
    }
    return CUDPO_OK;
}
