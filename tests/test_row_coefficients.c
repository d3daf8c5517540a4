/* test_row_coefficients.c - the slopes of the loss, from sequences to their rows. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

static void coefficients_by_hand(backend *be)
{
    static const float coefficient[] = {0.5f, -2, 3};
    static const int32_t sequence[] = {0, 0, 2, 1};
    static const float scale[] = {1, 2, 1, 0.5f};
    static const double want[] = {-0.5, -1, -3, 1};
    float got[4];
    ops o = ops_begin(be);
    const tensor row = ops_output(&o, 4, 1);
    CHECK_OK(be->row_coefficients(be, row, ops_floats(&o, coefficient, 3, 1),
                                  ops_indices(&o, sequence, 4, 1), ops_floats(&o, scale, 4, 1)));
    ops_get(&o, got, row);
    check_close("row", got, want, 4, 0);
    ops_end(&o);
}

/* More rows than a block has threads; each by its own sequence and scale, in strided vectors. */
static void coefficients_of_many_rows(backend *be)
{
    static const int64_t rows[] = {1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1000};
    enum { S = 7 };
    for (int n = 0; n < 11; n++) {
        const int64_t R = rows[n];
        float *scale = random_floats(1, R), *coefficient = random_floats(2, S), *got = zeros(R, 4);
        int32_t *sequence = zeros(2 * R, 4);
        for (int64_t r = 0; r < R; r++) {
            sequence[2 * r] = (int32_t)(r * r % S);
            sequence[2 * r + 1] = -1;
        }
        ops o = ops_begin(be);
        const tensor row = ops_make(&o, DTYPE_F32, R, 1, 3);
        CHECK_OK(be->row_coefficients(be, row, ops_strided(&o, coefficient, S, 1, 4),
                                      tensor_cols(ops_indices(&o, sequence, R, 2), 0, 1),
                                      ops_strided(&o, scale, R, 1, 2)));
        ops_get(&o, got, row);
        for (int64_t r = 0; r < R; r++) { /* one product, whatever rounds it */
            assert_true(got[r] == -coefficient[r * r % S] * scale[r]);
        }
        ops_end(&o);
        free(scale);
        free(coefficient);
        free(sequence);
        free(got);
    }
}

typedef struct call {
    tensor row, coefficient, sequence, scale, fault;
} call;

static cudpo_status spread(backend *be, const void *arguments)
{
    const call *c = arguments;
#ifdef TEST_CUDA
    return cuda_row_coefficients(c->row, c->coefficient, c->sequence, c->scale, c->fault,
                                 ((cuda_backend *)be)->stream);
#else
    return be->row_coefficients(be, c->row, c->coefficient, c->sequence, c->scale);
#endif
}

/* Three rows of two sequences. */
static call good_call(ops *o)
{
    static const int32_t sequence[] = {0, 1, 1};
    return (call){ops_output(o, 3, 1), ops_output(o, 2, 1), ops_indices(o, sequence, 3, 1),
                  ops_output(o, 3, 1), ops_output_as(o, DTYPE_I32, 1, 1)};
}

static void refusals_of_operands(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const char *const sequence = be->on_device ? "is_i32(sequence, " : "is_index(sequence, ";
    const operand operands[] = {{"row", &c.row, "is_f32(row, ", OUTPUT | ANY_ROWS},
                                {"coefficient", &c.coefficient, "is_f32(coefficient, ", ANY_ROWS},
                                {"sequence", &c.sequence, sequence, 0},
                                {"scale", &c.scale, "is_f32(scale, ", 0},
                                {"fault", &c.fault, "is_fault(fault)", OUTPUT | OPTIONAL}};
    const refusals r = {&o, spread, &c, operands, be->on_device ? 5 : 4};
    check_refusals(&r);
    ops_check_untouched(&o, c.fault);
    ops_end(&o);
}

/* No rows, whatever the sequences: but fewer of them than none are wrong. */
static void no_rows(backend *be)
{
    ops o = ops_begin(be);
    const call good = good_call(&o);
    call c = good;
    c.row = tensor_rows(good.row, 0, 0), c.sequence = tensor_rows(good.sequence, 0, 0);
    c.scale = tensor_rows(good.scale, 0, 0);
    CHECK_OK(spread(be, &c));
    c.coefficient.rows = 0;
    CHECK_OK(spread(be, &c));
    c.coefficient.rows = -1;
    CHECK_FAILS(spread(be, &c), CUDPO_EINVAL, "is_f32(coefficient, ");
    ops_check_untouched(&o, good.row);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void sequences_out_of_range(backend *be)
{
    static const int32_t bad[] = {2, 3, -1, INT32_MAX, INT32_MIN};
    static const float coefficient[] = {3, 5}, scale[] = {1, 1, 2};
    float got[3];
    ops o = ops_begin(be);
    const tensor row = ops_output(&o, 3, 1), slope = ops_floats(&o, coefficient, 2, 1);
    const tensor factor = ops_floats(&o, scale, 3, 1);
    tensor index = {0};
    for (int n = 0; n < 5; n++) {
        index = ops_indices(&o, (int32_t[]){0, bad[n], 1}, 3, 1);
        CHECK_OK(be->row_coefficients(be, row, slope, index, factor));
        ops_get(&o, got, row);
        assert_int_equal(faults_of(be), FAULT_INDEX);
        assert_true(got[0] == -3 && isnan(got[1]) && got[2] == -10);
    }
    /* Without a fault word, in silence. */
    CHECK_OK(cuda_row_coefficients(row, slope, index, factor, (tensor){0}, NULL));
    assert_int_equal(faults_of(be), 0);
    ops_end(&o);
}

/* More rows than a grid can number: the contract comes before any is looked at. */
static void too_many_rows(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const tensor row = c.row;
    c.row.rows = ((int64_t)1 << 39) - 255;
    CHECK_FAILS(spread(be, &c), CUDPO_EINVAL, "row.rows <= (int64_t)INT32_MAX");
    c.row.rows--;
    CHECK_FAILS(spread(be, &c), CUDPO_EINVAL, "is_i32(sequence, ");
    ops_check_untouched(&o, row);
    ops_end(&o);
}
#else
static void sequences_are_refused(backend *be)
{
    static const int32_t bad[] = {2, -1, INT32_MAX, INT32_MIN};
    ops o = ops_begin(be);
    call c = good_call(&o);
    for (int i = 0; i < 4; i++) {
        c.sequence = ops_indices(&o, (int32_t[]){0, bad[i], 1}, 3, 1);
        CHECK_FAILS(spread(be, &c), CUDPO_EINVAL, "is_index(sequence");
    }
    ops_check_untouched(&o, c.row);
    ops_end(&o);
}
#endif

enum { MANY = 5000, SEQUENCES = 40 };

static void run_large(ops *o, float *to)
{
    float *scale = random_floats(1, MANY), *coefficient = random_floats(2, SEQUENCES);
    int32_t sequence[MANY];
    for (int r = 0; r < MANY; r++) {
        sequence[r] = r * SEQUENCES / MANY;
    }
    const tensor row = ops_output(o, MANY, 1);
    CHECK_OK(o->be->row_coefficients(o->be, row, ops_floats(o, coefficient, SEQUENCES, 1),
                                     ops_indices(o, sequence, MANY, 1),
                                     ops_floats(o, scale, MANY, 1)));
    ops_get(o, to, row);
    free(scale);
    free(coefficient);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_large, MANY);
}

static const op_case cases[] = {
    {"coefficients_by_hand", coefficients_by_hand},
    {"coefficients_of_many_rows", coefficients_of_many_rows},
    {"refusals_of_operands", refusals_of_operands},
    {"no_rows", no_rows},
#ifdef TEST_CUDA
    {"sequences_out_of_range", sequences_out_of_range},
    {"too_many_rows", too_many_rows},
#else
    {"sequences_are_refused", sequences_are_refused},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
