/* test_kl_estimate.c - KTO's estimate of the KL divergence of each device batch. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

/* Batches of three: means 2 and -1; a last one of a single unit. */
static void batches_by_hand(backend *be)
{
    static const float policy[] = {-10, -20, -30, -1, -2, -3, -7};
    static const float reference[] = {-11, -22, -33, -2, -2, 1, -7.5f};
    static const double want[] = {2, 2, 2, 0, 0, 0, 0.5};
    float got[7];
    ops o = ops_begin(be);
    const tensor kl = ops_output(&o, 7, 1);
    CHECK_OK(
        be->kl_estimate(be, kl, ops_floats(&o, policy, 7, 1), ops_floats(&o, reference, 7, 1), 3));
    ops_get(&o, got, kl);
    check_close("kl", got, want, 7, 0);
    ops_end(&o);
}

/* In nats as large as those of long completions: -1000.25 + 1000 is exact in float, 1e8 + 0.25 - 1e8 in a double sum. */
static void sums_are_in_double(backend *be)
{
    static const float policy[] = {1e8f, -1000, 0}, reference[] = {0, -1000.25f, 1e8f};
    float got[3];
    ops o = ops_begin(be);
    const tensor kl = ops_output(&o, 3, 1);
    CHECK_OK(be->kl_estimate(be, kl, ops_floats(&o, policy, 3, 1), ops_floats(&o, reference, 3, 1),
                             INT64_MAX));
    ops_get(&o, got, kl);
    for (int i = 0; i < 3; i++) {
        assert_true(got[i] == (float)(0.25 / 3.0));
    }
    ops_end(&o);
}

/* Any number of units in batches of any size, in strided vectors: bit for bit what the definition says. */
static void check_tails(backend *be, int64_t n, int64_t batch)
{
    float *policy = random_floats(1, n), *reference = random_floats(2, n), *got = zeros(n, 4);
    ops o = ops_begin(be);
    const tensor kl = ops_make(&o, DTYPE_F32, n, 1, 3);
    CHECK_OK(be->kl_estimate(be, kl, ops_strided(&o, policy, n, 1, 2),
                             ops_strided(&o, reference, n, 1, 4), batch));
    ops_get(&o, got, kl);
    for (int64_t i = 0; i < n; i++) {
        const int64_t begin = i - i % batch;
        double sum = 0.0;
        int64_t count = 0;
        for (; count < batch && begin + count < n; count++) {
            const float ratio = policy[begin + count] - reference[begin + count];
            sum += (double)ratio;
        }
        assert_true(got[i] == (float)fmax(0.0, sum / (double)count));
    }
    ops_end(&o);
    free(policy);
    free(reference);
    free(got);
}

static void tails(backend *be)
{
    static const int64_t sizes[] = {1, 31, 32, 33, 63, 64, 65, 127, 129, 255, 256, 257};
    for (int i = 0; i < 12; i++) {
        check_tails(be, sizes[i], 1);
        check_tails(be, sizes[i], 7);
        check_tails(be, sizes[i], 64);
        check_tails(be, sizes[i], 1000);
    }
}

/* What is no number spoils its own batch, and shows; infinities are clamped as numbers are. */
static void no_numbers(backend *be)
{
    static const float policy[] = {NAN, 1, 2, 3, INFINITY, 1, -INFINITY, 1, INFINITY, 9};
    static const float reference[] = {0, 0, 0, NAN, 0, 0, 0, 0, INFINITY, 0};
    float got[10];
    ops o = ops_begin(be);
    const tensor kl = ops_output(&o, 10, 1);
    CHECK_OK(be->kl_estimate(be, kl, ops_floats(&o, policy, 10, 1),
                             ops_floats(&o, reference, 10, 1), 2));
    ops_get(&o, got, kl);
    for (int i = 0; i < 10; i++) {
        if (i < 4 || i >= 8)
            assert_true(isnan(got[i]));
        else
            assert_true(got[i] == (i < 6 ? INFINITY : 0.0f));
    }
    ops_end(&o);
}

/* A mean of 0, from below too, is 0 without a sign. */
static void zero_has_no_sign(backend *be)
{
    static const float policy[] = {-0.0f, 1, -1}, reference[] = {0, 0, 0};
    float got[3];
    ops o = ops_begin(be);
    const tensor kl = ops_output(&o, 3, 1);
    CHECK_OK(
        be->kl_estimate(be, kl, ops_floats(&o, policy, 3, 1), ops_floats(&o, reference, 3, 1), 1));
    ops_get(&o, got, kl);
    assert_true(got[0] == 0.0f && !signbit(got[0]) && got[1] == 1.0f);
    assert_true(got[2] == 0.0f && !signbit(got[2]));
    ops_end(&o);
}

typedef struct call {
    tensor kl, policy, reference;
    int64_t batch;
} call;

static cudpo_status estimate(backend *be, const void *arguments)
{
    const call *c = arguments;
    return be->kl_estimate(be, c->kl, c->policy, c->reference, c->batch);
}

static call good_call(ops *o)
{
    return (call){ops_output(o, 3, 1), ops_output(o, 3, 1), ops_output(o, 3, 1), 2};
}

static void refusals_of_operands(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const operand operands[] = {{"kl", &c.kl, "is_f32(kl, ", OUTPUT | ANY_ROWS},
                                {"policy", &c.policy, "is_f32(policy, ", 0},
                                {"reference", &c.reference, "is_f32(reference, ", 0}};
    const refusals r = {&o, estimate, &c, operands, 3};
    check_refusals(&r);
    ops_end(&o);
}

static void refusals_of_batches(backend *be)
{
    static const int64_t bad[] = {0, -1, INT64_MIN};
    ops o = ops_begin(be);
    call c = good_call(&o);
    for (int i = 0; i < 3; i++) {
        c.batch = bad[i];
        CHECK_FAILS(estimate(be, &c), CUDPO_EINVAL, "batch >= 1");
    }
    ops_check_untouched(&o, c.kl);
    ops_end(&o);
}

static void no_units(backend *be)
{
    ops o = ops_begin(be);
    const call good = good_call(&o);
    call c = good;
    c.kl = tensor_rows(good.kl, 0, 0), c.policy = tensor_rows(good.policy, 0, 0);
    c.reference = tensor_rows(good.reference, 0, 0);
    CHECK_OK(estimate(be, &c));
    ops_check_untouched(&o, good.kl);
    ops_end(&o);
}

#ifdef TEST_CUDA
/* More units than a grid can number: the contract comes before any is looked at. */
static void too_many_units(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const tensor kl = c.kl;
    c.kl.rows = ((int64_t)1 << 37) - 63;
    CHECK_FAILS(estimate(be, &c), CUDPO_EINVAL, "fits_grid(kl.rows");
    c.kl.rows--;
    CHECK_FAILS(estimate(be, &c), CUDPO_EINVAL, "is_f32(policy, ");
    ops_check_untouched(&o, kl);
    ops_end(&o);
}
#endif

enum { MANY = 1000 };

static void run_large(ops *o, float *to)
{
    float *policy = random_floats(1, MANY), *reference = random_floats(2, MANY);
    const tensor kl = ops_output(o, MANY, 1);
    CHECK_OK(o->be->kl_estimate(o->be, kl, ops_floats(o, policy, MANY, 1),
                                ops_floats(o, reference, MANY, 1), 48));
    ops_get(o, to, kl);
    free(policy);
    free(reference);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_large, MANY);
}

static const op_case cases[] = {
    {"batches_by_hand", batches_by_hand},
    {"sums_are_in_double", sums_are_in_double},
    {"tails", tails},
    {"no_numbers", no_numbers},
    {"zero_has_no_sign", zero_has_no_sign},
    {"refusals_of_operands", refusals_of_operands},
    {"refusals_of_batches", refusals_of_batches},
    {"no_units", no_units},
#ifdef TEST_CUDA
    {"too_many_units", too_many_units},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
