/* test_check_finite.c - NaN and Inf are told. */
/* rooms: backend base */
/* backends: cuda */
#include "test_contract.h"

static uint32_t faults_in(backend *be, tensor x)
{
    CHECK_OK(cuda_check_finite(x, ((cuda_backend *)be)->fault, stream_of(be)));
    return faults_of(be);
}

static void put(ops *o, tensor x, int64_t at, float value)
{
    const tensor one = tensor_cols(tensor_rows(x, at / x.cols, 1), at % x.cols, 1);
    const uint16_t half = bf16_bits(value);
    ops_put(o, one, x.type == DTYPE_F32 ? (const void *)&value : &half);
}

/* One bad element, anywhere: the first, the last, and some between.  Rows are `pad` elements apart, the first one `shift`
 * elements behind a vector's boundary; what lies around them is NaN, and nobody's business. */
static void check_size(backend *be, bool half, int64_t rows, int64_t cols, int pad, int shift)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const int64_t n = rows * cols;
    float *host = random_floats(1, n);
    ops o = ops_begin(be);
    const tensor x = ops_make_at(&o, bf16_or_f32(half), rows, cols, cols + pad, shift);
    ops_put_floats(&o, x, host);
    assert_int_equal(faults_in(be, x), 0);
    for (int64_t i = 0; i < 12; i++) {
        const int64_t at = i == 0   ? 0
                           : i == 1 ? n - 1
                           : i == 2 ? cols - 1
                                    : rng_below(2, 0, (uint64_t)(i + n), n);
        put(&o, x, at, i % 4 == 3 ? -NAN : bad[i % 3]);
        assert_int_equal(faults_in(be, x), FAULT_NONFINITE);
        put(&o, x, at, 1.0f);
    }
    assert_int_equal(faults_in(be, x), 0);
    ops_end(&o);
    free(host);
}

/* Pieces around the 1024 that a block looks at; rows of whole vectors and of elements; dense matrices whose rows are odd, of
 * whole vectors in all or not. */
static void one_bad_element(backend *be)
{
    static const int64_t tail[] = {1, 8, 31, 32, 33, 127, 128, 129, 1000, 1024, 1025};
    for (int i = 0; i < 11; i++) {
        check_size(be, false, 1 + i % 3, tail[i], 0, 1);
        check_size(be, false, 2, tail[i], 4, 0);
        check_size(be, true, 1 + i % 2, tail[i], 1, 0);
        check_size(be, true, 3, tail[i], 8, 0);
        check_size(be, false, 4, tail[i], 0, 0);
        check_size(be, true, 8, tail[i], 0, 0);
        check_size(be, true, 8, tail[i], 0, 3);
    }
    check_size(be, false, 8, 516, 4, 0);
    check_size(be, true, 9, 1032, 0, 0);
    check_size(be, false, 1025, 1, 3, 0);
    check_size(be, false, 1028, 1, 0, 0);
    check_size(be, true, 1, 151936, 0, 0);
    check_size(be, false, 2, 151936, 4, 0);
}

/* The bits of each float that is finite, however large or small, and of each that is not. */
static void extremes(backend *be)
{
    static const uint32_t finite[] = {0x7f7fffff, 0xff7fffff, 0x00000001, 0x80000001,
                                      0x00800000, 0x80000000, 0x00000000, 0x7f000000};
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7f800001,
                                   0xff800001, 0x7fffffff, 0xffffffff};
    ops o = ops_begin(be);
    const tensor x = ops_make(&o, DTYPE_F32, 1, 8, 8);
    ops_put(&o, x, finite);
    assert_int_equal(faults_in(be, x), 0);
    for (int i = 0; i < 6; i++) {
        ops_put(&o, x, finite);
        ops_put(&o, tensor_cols(x, i, 1), &bad[i]);
        assert_int_equal(faults_in(be, x), FAULT_NONFINITE);
    }
    const tensor h = ops_make(&o, DTYPE_BF16, 1, 8, 8);
    static const uint16_t half[] = {0x7f7f, 0xff7f, 0x0001, 0x8001, 0x0080, 0x8000, 0, 0x7f00};
    for (int i = 0; i < 8; i++) {
        static const uint16_t worse[] = {0x7f80, 0xff80, 0x7f81, 0xffff};
        ops_put(&o, h, half);
        assert_int_equal(faults_in(be, h), 0);
        ops_put(&o, tensor_cols(h, i, 1), &worse[i % 4]);
        assert_int_equal(faults_in(be, h), FAULT_NONFINITE);
    }
    ops_end(&o);
}

/* Other faults stay in the word, with and without this one. */
static void other_bits_stay(backend *be)
{
    static const float good[] = {1, 2}, bad[] = {1, NAN};
    int32_t word = FAULT_TOKEN | FAULT_INDEX;
    ops o = ops_begin(be);
    const tensor fault = ops_indices(&o, &word, 1, 1), x = ops_floats(&o, good, 1, 2);
    const cudpo_stream stream = ((cuda_backend *)be)->stream;
    CHECK_OK(cuda_check_finite(x, fault, stream));
    ops_get(&o, &word, fault);
    assert_int_equal(word, FAULT_TOKEN | FAULT_INDEX);
    CHECK_OK(cuda_check_finite(ops_floats(&o, bad, 1, 2), fault, stream));
    ops_get(&o, &word, fault);
    assert_int_equal(word, FAULT_TOKEN | FAULT_INDEX | FAULT_NONFINITE);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    tensor x = ops_output(&o, 3, 4), fault = ops_make(&o, DTYPE_I32, 1, 1, 1);
#define CALL cuda_check_finite(x, fault, stream_of(be))
    CHECK_BROKEN(be, x, 0, CALL, "is_matrix(x)");
    CHECK_BROKEN(be, fault, ARG_SHAPE, CALL, "is_i32(fault, 1, 1)");
    CHECK_OVERLAP(x, fault, CALL, "tensor_disjoint(x, fault)");
    CHECK_CHANGED(tensor, fault, tensor_vector((char *)x.data + 44, DTYPE_I32, 1), CALL,
                  "tensor_disjoint(x, fault)");
    for (int vectors = 0; vectors < 2; vectors++) { /* a block looks at 1024 elements or vectors */
        const int64_t n = (int64_t)INT32_MAX * 1024 * (vectors ? 4 : 1) + 4;
        const tensor large = imagined(1, DTYPE_F32, 2, n / 2);
        CHECK_CHANGED(tensor, x, vectors ? large : moved(large, 4), CALL, "fits_grid(x.rows");
    }
    CHECK_OK(cuda_check_finite(tensor_rows(x, 0, 0), fault, stream_of(be)));
#undef CALL
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, fault);
    ops_end(&o);
}

static const op_case cases[] = {
    {"one_bad_element", one_bad_element},
    {"extremes", extremes},
    {"other_bits_stay", other_bits_stay},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
