/* test_rope.c - rotary position embedding. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#endif

/* A quarter turn of (a, b) is (-b, a); the pairs of a head of 4 are (0, 2) and (1, 3). */
static void quarter_turn_by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4}, cosine[] = {1, 1, 0, 1}, sine[] = {0, 0, 1, 0};
    static const int32_t position[] = {1};
    static const double want[] = {-3, 2, 1, 4};
    float got[4];
    ops o = ops_begin(be);
    const tensor tx = ops_floats(&o, x, 1, 4);
    CHECK_OK(be->rope(be, tx, ops_floats(&o, cosine, 2, 2), ops_floats(&o, sine, 2, 2),
                      ops_indices(&o, position, 1, 1), 4, false));
    ops_get(&o, got, tx);
    check_close("x", got, want, 4, 0);
    ops_end(&o);
}

/* How x and the tables lie: rows `pad` elements apart, the first one `shift` elements behind a vector's boundary. */
typedef struct layout {
    bool bf16;
    int pad, shift, table_pad;
} layout;

static void near(int64_t i, float got, double want, double bound)
{
    if (!(fabs((double)got - want) <= bound))
        fail_msg("x[%lld] = %.9g, want %.9g within %g", (long long)i, (double)got, want, bound);
}

/* Against the formula in double: a result is the rounded sum of two rounded products.  Then back from there, which must
 * give what the formula with -s gives. */
static void check_size(backend *be, int64_t T, int heads, int D, layout l)
{
    enum { P = 40 };
    const dtype type = bf16_or_f32(l.bf16);
    const int64_t W = (int64_t)heads * D, half = D / 2;
    float *x = random_floats(1, T * W), *got = zeros(T * W, 4);
    float *cosine = zeros(P * half, 4), *sine = zeros(P * half, 4);
    int32_t *position = zeros(2 * T, 4);
    for (int64_t i = 0; i < P * half; i++) {
        const double angle = rng_uniform(5, 0, (uint64_t)i) * 7;
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    for (int64_t t = 0; t < T; t++) {
        position[2 * t] = (int32_t)rng_below(6, 0, (uint64_t)t, P);
        position[2 * t + 1] = -1;
    }
    round_to(type, x, T * W);
    ops o = ops_begin(be);
    const tensor tx = ops_make_at(&o, type, T, W, W + l.pad, l.shift);
    const tensor pairs = ops_indices(&o, position, T, 2), index = tensor_cols(pairs, 0, 1);
    const tensor tc = ops_strided(&o, cosine, P, half, half + l.table_pad);
    const tensor ts = ops_strided(&o, sine, P, half, half + 2 * l.table_pad);
    const double rounding = 2 * EPS + (l.bf16 ? EPS_BF16 : 0), rest = 1.01;
    ops_put_floats(&o, tx, x);
    for (int back = 0; back < 2; back++) {
        CHECK_OK(be->rope(be, tx, tc, ts, index, D, back != 0));
        ops_get_floats(&o, got, tx);
        for (int64_t at = 0; at < T * W; at++) {
            const int64_t i = at % D, row = position[at / W * 2] * half + i % half;
            const double c = (double)cosine[row], s = (double)sine[row] * (back ? -1 : 1);
            const double one = (double)x[at] * c;
            const double two = i < half ? -(double)x[at + half] * s : (double)x[at - half] * s;
            near(at, got[at], one + two, (fabs(one) + fabs(two)) * rounding * rest);
        }
        memcpy(x, got, (size_t)(T * W) * 4);
    }
    ops_end(&o);
    free(x);
    free(got);
    free(cosine);
    free(sine);
    free(position);
}

static void every_head_dim_and_layout(backend *be)
{
    static const int dims[] = {2, 8, 16, 62, 64, 66, 96, 128, 256};
    static const layout layouts[] = {
        {false, 0, 0, 0}, {false, 2, 0, 0}, {false, 4, 0, 4}, {false, 0, 1, 0}, {false, 0, 0, 1},
        {true, 0, 0, 0},  {true, 8, 0, 4},  {true, 4, 0, 0},  {true, 0, 1, 0},  {true, 0, 0, 1}};
    for (int k = 0; k < (be->on_device ? 10 : 5); k++) {
        for (int i = 0; i < 9; i++) {
            check_size(be, 9, 1 + i % 3, dims[i], layouts[k]);
        }
        check_size(be, 33, 5, 64, layouts[k]); /* pieces of several blocks */
    }
}

/* Positions before and behind the tables: those rows stay as they are, the others turn, and the fault is told. */
static void positions_out_of_range(backend *be)
{
#ifdef TEST_CUDA
    enum { T = 5, W = 32 };
    static const int32_t position[T] = {-1, 1, 2, INT32_MAX, 0};
    float x[T * W], got[T * W], cosine[2 * 8], sine[2 * 8];
    for (int i = 0; i < T * W; i++) {
        x[i] = (float)(i % 7);
    }
    for (int i = 0; i < 2 * 8; i++) {
        cosine[i] = 0;
        sine[i] = 1;
    }
    for (int shift = 0; shift < 2; shift++) {
        uint32_t faults = 0;
        ops o = ops_begin(be);
        const tensor tx = ops_make_at(&o, DTYPE_F32, T, W, W, shift);
        const tensor c = ops_floats(&o, cosine, 2, 8), s = ops_floats(&o, sine, 2, 8);
        const tensor p = ops_indices(&o, position, T, 1);
        ops_put(&o, tx, x);
        CHECK_OK(be->rope(be, tx, c, s, p, 16, false));
        CHECK_OK(be->faults(be, &faults));
        assert_int_equal(faults, FAULT_INDEX);
        ops_get(&o, got, tx);
        for (int i = 0; i < T * W; i++) {
            const float turned = i % 16 < 8 ? -x[i + 8] : x[i - 8]; /* a quarter turn */
            assert_true(got[i] == (position[i / W] == 0 || i / W == 1 ? turned : x[i]));
        }
        CHECK_OK(cuda_rope(tx, c, s, p, 16, false, (tensor){0}, NULL)); /* nowhere to tell */
        CHECK_OK(be->rope(be, tensor_rows(tx, 1, 1), c, s, tensor_rows(p, 1, 1), 16, true));
        CHECK_OK(be->faults(be, &faults));
        assert_int_equal(faults, 0);
        ops_end(&o);
    }
#else
    static const int32_t bad[] = {0, 5}, worse[] = {-1, 0};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 2, 8), c = ops_output(&o, 5, 2), s = ops_output(&o, 5, 2);
    const tensor p = ops_indices(&o, bad, 2, 1), q = ops_indices(&o, worse, 2, 1);
    CHECK_FAILS(be->rope(be, x, c, s, p, 4, false), CUDPO_EINVAL, "is_index");
    CHECK_FAILS(be->rope(be, x, c, s, q, 4, false), CUDPO_EINVAL, "is_index");
    ops_check_untouched(&o, x);
    ops_end(&o);
#endif
}

static void broken_contracts(backend *be)
{
    static const int32_t good[] = {0, 4};
    ops o = ops_begin(be);
    const tensor x = ops_output(&o, 2, 8), c = ops_output(&o, 5, 2), s = ops_output(&o, 5, 2);
    const tensor p = ops_indices(&o, good, 2, 1);
    CHECK_FAILS(be->rope(be, x, c, s, tensor_rows(p, 0, 1), 4, false), CUDPO_EINVAL, "position");
    CHECK_FAILS(be->rope(be, x, c, s, p, 3, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 0, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 6, false), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(be->rope(be, x, c, s, p, 8, false), CUDPO_EINVAL, "cosine");
    CHECK_FAILS(be->rope(be, x, c, tensor_rows(s, 0, 4), p, 4, false), CUDPO_EINVAL, "sine");
    CHECK_FAILS(be->rope(be, (tensor){0}, c, s, p, 4, false), CUDPO_EINVAL, "x");
    if (be->on_device) {
        const tensor memory = ops_output(&o, 5, 4), all = tensor_rows(memory, 0, 2);
        const tensor half = tensor_cols(memory, 0, 2);
        tensor index = tensor_vector(memory.data, DTYPE_I32, 2);
        CHECK_FAILS(be->rope(be, all, half, s, p, 4, false), CUDPO_EINVAL,
                    "tensor_disjoint(x, cos");
        CHECK_FAILS(be->rope(be, all, c, half, p, 4, false), CUDPO_EINVAL,
                    "tensor_disjoint(x, sine)");
        CHECK_FAILS(be->rope(be, all, c, s, index, 4, false), CUDPO_EINVAL,
                    "tensor_disjoint(x, position)");
        ops_check_untouched(&o, memory);
    }
    CHECK_OK(be->rope(be, tensor_rows(x, 0, 0), c, s, tensor_rows(p, 0, 0), 4, false));
    ops_check_untouched(&o, x);
    ops_end(&o);
}

static const op_case cases[] = {
    {"quarter_turn_by_hand", quarter_turn_by_hand},
    {"every_head_dim_and_layout", every_head_dim_and_layout},
    {"positions_out_of_range", positions_out_of_range},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
