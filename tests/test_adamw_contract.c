/* test_adamw_contract.c - what AdamW refuses, and what it takes at the ends of its ranges. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"

static const adamw_step sound = {0.125, 0.9, 0.999, 1e-8, 0.5, 0.1, 0.001};

static void broken_tensors(backend *be)
{
    ops o = ops_begin(be);
    tensor w = ops_output(&o, 3, 4), m = ops_output(&o, 3, 4), v = ops_output(&o, 3, 4);
    tensor gradient = ops_output(&o, 3, 4);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 3, 4);
    const int float_alone = be->on_device ? 0 : ARG_TYPE;
#define CALL plain_adamw(be, w, m, v, gradient, 1.0f, sound)
    CHECK_BROKEN(be, w, 0, CALL, "is_matrix(w)");
    if (!be->on_device) CHECK_CHANGED(tensor, w, half, CALL, "is_matrix(w)");
    CHECK_BROKEN(be, m, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(m, R, C)");
    CHECK_BROKEN(be, v, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(v, R, C)");
    CHECK_BROKEN(be, gradient, ARG_SHAPE | float_alone, CALL, "(gradient, R, C)");
    CHECK_OVERLAP(w, m, CALL, "tensor_disjoint(w, m)");
    CHECK_OVERLAP(w, v, CALL, "tensor_disjoint(w, v)");
    CHECK_OVERLAP(w, gradient, CALL, "tensor_disjoint(w, gradient)");
    CHECK_OVERLAP(m, v, CALL, "tensor_disjoint(m, v)");
    CHECK_OVERLAP(m, gradient, CALL, "tensor_disjoint(m, gradient)");
    CHECK_OVERLAP(v, gradient, CALL, "tensor_disjoint(v, gradient)");
#undef CALL
    ops_check_untouched(&o, w);
    ops_check_untouched(&o, m);
    ops_check_untouched(&o, v);
    ops_check_untouched(&o, gradient);
    ops_end(&o);
}

static void broken_numbers(backend *be)
{
    ops o = ops_begin(be);
    const tensor w = ops_output(&o, 3, 4), m = ops_output(&o, 3, 4), v = ops_output(&o, 3, 4);
    const tensor gradient = ops_output(&o, 3, 4);
    adamw_step s = sound;
    float scale = 1;
#define CALL plain_adamw(be, w, m, v, gradient, scale, s)
    CHECK_CHANGED(float, scale, NAN, CALL,
                  be->on_device ? "isfinite(p->factor)" : "isfinite(gradient_scale)");
    CHECK_CHANGED(float, scale, -INFINITY, CALL,
                  be->on_device ? "isfinite(p->factor)" : "isfinite(gradient_scale)");
    CHECK_CHANGED(double, s.learning_rate, NAN, CALL, "step.learning_rate");
    CHECK_CHANGED(double, s.learning_rate, INFINITY, CALL, "step.learning_rate");
    CHECK_CHANGED(double, s.weight_decay, NAN, CALL, "step.weight_decay");
    CHECK_CHANGED(double, s.weight_decay, INFINITY, CALL, "step.weight_decay");
    CHECK_CHANGED(double, s.epsilon, INFINITY, CALL, "isfinite(step.epsilon)");
    CHECK_CHANGED(double, s.epsilon, NAN, CALL, "isfinite(step.epsilon)");
    CHECK_CHANGED(double, s.epsilon, -1e-8, CALL, "step.epsilon >= 0.0");
    CHECK_CHANGED(double, s.beta1, -0.1, CALL, "step.beta1");
    CHECK_CHANGED(double, s.beta1, 1.0, CALL, "step.beta1");
    CHECK_CHANGED(double, s.beta1, NAN, CALL, "step.beta1");
    CHECK_CHANGED(double, s.beta2, -0.1, CALL, "step.beta2");
    CHECK_CHANGED(double, s.beta2, 1.0, CALL, "step.beta2");
    CHECK_CHANGED(double, s.beta2, NAN, CALL, "step.beta2");
    CHECK_CHANGED(double, s.bias_correction1, 0.0, CALL, "step.bias_correction1");
    CHECK_CHANGED(double, s.bias_correction1, 1.5, CALL, "step.bias_correction1");
    CHECK_CHANGED(double, s.bias_correction1, NAN, CALL, "step.bias_correction1");
    CHECK_CHANGED(double, s.bias_correction2, 0.0, CALL, "step.bias_correction2");
    CHECK_CHANGED(double, s.bias_correction2, 1.5, CALL, "step.bias_correction2");
    CHECK_CHANGED(double, s.bias_correction2, NAN, CALL, "step.bias_correction2");
#undef CALL
    ops_check_untouched(&o, w);
    ops_check_untouched(&o, m);
    ops_check_untouched(&o, v);
    ops_end(&o);
}

/* Without memory of earlier gradients (beta 0, no correction) m = g, v = g^2, and w moves by the rate. */
static void ends_of_ranges(backend *be)
{
    static const float two = 2, three = 3;
    static const adamw_step s = {
        .learning_rate = 0.125, .bias_correction1 = 1, .bias_correction2 = 1};
    float got[3];
    ops o = ops_begin(be);
    const tensor w = ops_floats(&o, &two, 1, 1), m = ops_floats(&o, &two, 1, 1);
    const tensor v = ops_floats(&o, &two, 1, 1), g = ops_floats(&o, &three, 1, 1);
    CHECK_OK(plain_adamw(be, w, m, v, g, 1.0f, s));
    ops_get(&o, &got[0], w);
    ops_get(&o, &got[1], m);
    ops_get(&o, &got[2], v);
    assert_true(got[0] == 1.875f && got[1] == 3 && got[2] == 9);
    ops_end(&o);
}

static void no_rows(backend *be)
{
    ops o = ops_begin(be);
    const tensor t = ops_output(&o, 4, 4), w = tensor_rows(t, 0, 0), m = tensor_rows(t, 1, 0);
    CHECK_OK(plain_adamw(be, w, m, tensor_rows(t, 2, 0), tensor_rows(t, 3, 0), 1.0f, sound));
    CHECK_OK(plain_adamw(be, w, w, w, w, 1.0f, sound)); /* nothing overlaps nothing */
    ops_check_untouched(&o, t);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* What the launcher takes beside what every backend does. */
static void broken_arguments_of_the_launcher(backend *be)
{
    ops o = ops_begin(be);
    const tensor half = ops_output_as(&o, DTYPE_BF16, 3, 4);
    adamw_tensors p = {.w = ops_output(&o, 3, 4),
                       .m = ops_output(&o, 3, 4),
                       .v = ops_output(&o, 3, 4),
                       .copy = ops_output_as(&o, DTYPE_BF16, 3, 4),
                       .gradient = ops_output(&o, 3, 4),
                       .gradient_scale = ops_output(&o, 1, 1),
                       .factor = 1};
    const adamw_tensors good = p;
#define CALL cuda_adamw(&p, sound, stream_of(be))
    CHECK_FAILS(cuda_adamw(NULL, sound, stream_of(be)), CUDPO_EINVAL, "p != nullptr");
    CHECK_BROKEN(be, p.w, 0, CALL, "is_matrix(w)");
    CHECK_CHANGED(tensor, p.w, half, CALL, "w.type == DTYPE_F32"); /* bf16 weights with a copy */
    CHECK_BROKEN(be, p.m, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(m, R, C)");
    CHECK_BROKEN(be, p.v, ARG_SHAPE | ARG_TYPE, CALL, "is_f32(v, R, C)");
    CHECK_BROKEN(be, p.copy, ARG_SHAPE | ARG_TYPE | ARG_OPTIONAL, CALL,
                 "is_typed(copy, DTYPE_BF16");
    CHECK_BROKEN(be, p.gradient, ARG_SHAPE, CALL, "is_float(gradient, R, C)");
    CHECK_BROKEN(be, p.gradient_scale, ARG_SHAPE | ARG_TYPE | ARG_OPTIONAL, CALL,
                 "is_f32(gradient_scale, 1, 1)");
    CHECK_CHANGED(float, p.factor, NAN, CALL, "p->factor");
    CHECK_CHANGED(float, p.factor, INFINITY, CALL, "p->factor");
    CHECK_CHANGED(int64_t, p.first, -1, CALL, "p->first");
    CHECK_OVERLAP(p.w, p.m, CALL, "tensor_disjoint(w, m)");
    CHECK_OVERLAP(p.w, p.v, CALL, "tensor_disjoint(w, v)");
    CHECK_OVERLAP(p.w, p.copy, CALL, "tensor_disjoint(w, copy)");
    CHECK_OVERLAP(p.w, p.gradient, CALL, "tensor_disjoint(w, gradient)");
    CHECK_OVERLAP(p.w, p.gradient_scale, CALL, "tensor_disjoint(w, gradient_scale)");
    CHECK_OVERLAP(p.m, p.v, CALL, "tensor_disjoint(m, v)");
    CHECK_OVERLAP(p.m, p.copy, CALL, "tensor_disjoint(m, copy)");
    CHECK_OVERLAP(p.m, p.gradient, CALL, "tensor_disjoint(m, gradient)");
    CHECK_OVERLAP(p.m, p.gradient_scale, CALL, "tensor_disjoint(m, gradient_scale)");
    CHECK_OVERLAP(p.v, p.copy, CALL, "tensor_disjoint(v, copy)");
    CHECK_OVERLAP(p.v, p.gradient, CALL, "tensor_disjoint(v, gradient)");
    CHECK_OVERLAP(p.v, p.gradient_scale, CALL, "tensor_disjoint(v, gradient_scale)");
    CHECK_OVERLAP(p.copy, p.gradient, CALL, "tensor_disjoint(copy, gradient)");
    CHECK_OVERLAP(p.copy, p.gradient_scale, CALL, "tensor_disjoint(copy, gradient_scale)");
    ops_check_untouched(&o, good.w);
    ops_check_untouched(&o, good.m);
    ops_check_untouched(&o, good.v);
    ops_check_untouched(&o, good.copy);
    ops_check_untouched(&o, good.gradient);
    ops_check_untouched(&o, good.gradient_scale);
    ops_end(&o);
}

/* A grid has 2^31 - 1 blocks at most, of 512 elements or 512 quads each. */
static void more_than_a_grid(backend *be)
{
    for (int quads = 0; quads < 2; quads++) {
        const int64_t n = quads ? (int64_t)INT32_MAX * 2048 + 4 : (int64_t)INT32_MAX * 512 + 1;
        const adamw_tensors p = {.w = imagined(1, DTYPE_F32, 1, n),
                                 .m = imagined(2, DTYPE_F32, 1, n),
                                 .v = imagined(3, DTYPE_F32, 1, n),
                                 .gradient = imagined(4, DTYPE_F32, 1, n),
                                 .factor = 1};
        CHECK_FAILS(CALL, CUDPO_EINVAL, "fits_grid(tensor_elements(p->w)");
    }
#undef CALL
}
#endif

static const op_case cases[] = {
    {"broken_tensors", broken_tensors},
    {"broken_numbers", broken_numbers},
    {"ends_of_ranges", ends_of_ranges},
    {"no_rows", no_rows},
#ifdef TEST_CUDA
    {"broken_arguments_of_the_launcher", broken_arguments_of_the_launcher},
    {"more_than_a_grid", more_than_a_grid},
#endif
};
OPS_MAIN(cases)
