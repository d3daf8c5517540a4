/* test_cast.c - matrices from one float type to the other. */
/* rooms: backend base */
/* backends: cuda */
#include "test_contract.h"

static cudpo_status cast(backend *be, tensor out, tensor x)
{
    return cuda_cast(out, x, stream_of(be));
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* bf16 is the upper half of a float: 7 bits of the significand stay, so around 1 they are 2^-7 apart. */
static void roundings_by_hand(backend *be)
{
    static const struct {
        uint32_t from;
        uint16_t to;
    } known[] = {
        {0x3f800000, 0x3f80}, /* 1 */
        {0x80000000, 0x8000}, /* -0 */
        {0x3f808000, 0x3f80}, /* 1 + 2^-8: a tie, down to even */
        {0x3f818000, 0x3f82}, /* 1 + 3 2^-8: a tie, up to even */
        {0x3f807fff, 0x3f80}, /* just below the tie */
        {0x3f808001, 0x3f81}, /* just above it */
        {0xbf808001, 0xbf81}, /* away from 0 on the other side too */
        {0x3fffffff, 0x4000}, /* into the next power of two */
        {0x7f7f7fff, 0x7f7f}, /* the largest that stays finite */
        {0x7f7f8000, 0x7f80}, /* half a step beyond the largest: Inf */
        {0xff7fffff, 0xff80}, /* -FLT_MAX: -Inf */
        {0x7f800000, 0x7f80}, /* Inf */
        {0xff800000, 0xff80}, /* -Inf */
        {0x00008000, 0x0000}, /* subnormal: a tie, down to 0 */
        {0x00008001, 0x0001}, /* the smallest */
        {0x00018000, 0x0002}, /* subnormal: a tie, up to even */
        {0x007fffff, 0x0080}, /* the largest subnormal float: the smallest normal number */
    };
    enum { N = sizeof known / sizeof *known };
    float x[N];
    uint16_t got[N];
    for (int i = 0; i < N; i++) {
        x[i] = from_bits(known[i].from);
    }
    ops o = ops_begin(be);
    const tensor out = ops_output_as(&o, DTYPE_BF16, 1, N);
    CHECK_OK(cast(be, out, ops_floats(&o, x, 1, N)));
    ops_get(&o, got, out);
    for (int i = 0; i < N; i++) {
        if (got[i] != known[i].to)
            fail_msg("%08x became %04x, not %04x", known[i].from, got[i], known[i].to);
    }
    ops_end(&o);
}

/* Also one whose significand is in the bits that fall off: it must not become Inf. */
static void nan_stays_nan(backend *be)
{
    static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001,
                                    0x7fffffff, 0xffffffff, 0x7f808000, 0x7fbfffff};
    uint16_t got[8];
    ops o = ops_begin(be);
    const tensor x = ops_make(&o, DTYPE_F32, 1, 8, 8), out = ops_output_as(&o, DTYPE_BF16, 1, 8);
    ops_put(&o, x, nans);
    CHECK_OK(cast(be, out, x));
    ops_get(&o, got, out);
    for (int i = 0; i < 8; i++) {
        assert_true((got[i] & 0x7fffu) > 0x7f80u);
    }
    ops_end(&o);
}

/* Every bf16 is a float, and comes back as it was. */
static void all_bf16_there_and_back(backend *be)
{
    enum { N = 65536 };
    uint16_t *half = zeros(N, sizeof *half), *back = zeros(N, sizeof *back);
    float *wide = zeros(N, sizeof *wide);
    for (int i = 0; i < N; i++) {
        half[i] = (uint16_t)i;
    }
    ops o = ops_begin(be);
    const tensor x = ops_make(&o, DTYPE_BF16, 64, N / 64, N / 64), y = ops_output(&o, 64, N / 64);
    const tensor z = ops_output_as(&o, DTYPE_BF16, 64, N / 64);
    ops_put(&o, x, half);
    CHECK_OK(cast(be, y, x));
    CHECK_OK(cast(be, z, y));
    ops_get(&o, wide, y);
    ops_get(&o, back, z);
    for (int i = 0; i < N; i++) {
        if ((i & 0x7fff) > 0x7f80) {
            assert_true(isnan(wide[i]) && (back[i] & 0x7fffu) > 0x7f80u);
        } else {
            const float want = bf16_value((uint16_t)i);
            assert_memory_equal(&wide[i], &want, sizeof want);
            assert_int_equal(back[i], i);
        }
    }
    ops_end(&o);
    free(half);
    free(back);
    free(wide);
}

/* Rows `pad` elements apart, the first one `shift` elements behind a vector's boundary. */
typedef struct layout {
    int x_pad, x_shift, out_pad, out_shift;
} layout;

static void check_size(backend *be, dtype to, dtype from, int64_t rows, int64_t cols, layout l)
{
    const int64_t n = rows * cols;
    float *x = random_floats(3, n), *want = zeros(n, 4), *got = zeros(n, 4);
    round_to(from, x, n);
    memcpy(want, x, (size_t)n * 4);
    round_to(to, want, n);
    ops o = ops_begin(be);
    const tensor tx = ops_make_at(&o, from, rows, cols, cols + l.x_pad, l.x_shift);
    const tensor out = ops_make_at(&o, to, rows, cols, cols + l.out_pad, l.out_shift);
    ops_put_floats(&o, tx, x);
    CHECK_OK(cast(be, out, tx));
    ops_get_floats(&o, got, out);
    assert_memory_equal(got, want, (size_t)n * 4);
    ops_end(&o);
    free(x);
    free(want);
    free(got);
}

/* Each type to each; one side aligned and the other not; both dense with rows that are odd, of whole vectors in all; one side
 * alone dense. */
static void sizes_and_layouts(backend *be)
{
    static const int64_t tail[] = {1, 8, 31, 32, 33, 127, 128, 129, 1000, 2056};
    static const layout layouts[] = {{0, 0, 0, 0}, {4, 0, 8, 0}, {8, 0, 4, 0}, {1, 0, 0, 0},
                                     {0, 0, 3, 0}, {0, 1, 0, 0}, {0, 0, 0, 1}, {8, 4, 8, 0},
                                     {8, 0, 8, 4}, {8, 0, 0, 0}, {0, 0, 8, 0}};
    for (int k = 0; k < 11; k++) {
        for (int i = 0; i < 10; i++) {
            check_size(be, DTYPE_BF16, DTYPE_F32, 3, tail[i], layouts[k]);
            check_size(be, DTYPE_F32, DTYPE_BF16, 2, tail[i], layouts[k]);
            check_size(be, bf16_or_f32(i % 2), bf16_or_f32(i % 2), 3, tail[i], layouts[k]);
            check_size(be, bf16_or_f32(i % 2), bf16_or_f32(i % 2 == 0), 8, tail[i], layouts[k]);
            if (i > 1) continue;
            check_size(be, DTYPE_F32, DTYPE_F32, 257, tail[i], layouts[k]);
            check_size(be, DTYPE_BF16, DTYPE_F32, 257, tail[i], layouts[k]);
            check_size(be, DTYPE_F32, DTYPE_BF16, 256, tail[i], layouts[k]);
        }
    }
    check_size(be, DTYPE_BF16, DTYPE_F32, 1, 151936, layouts[0]);
    check_size(be, DTYPE_F32, DTYPE_BF16, 151936, 1, layouts[0]);
}

/* Of one type the bits are copied, a NaN's too. */
static void one_type(backend *be)
{
    static const uint16_t half[] = {0x7f81, 0xffff, 0x8000, 0x3f80, 1, 0x7fd3};
    static const uint32_t full[] = {0x7f800001, 0xffffffff, 0x80000000, 0x3f800001, 1, 0x7fa00000};
    uint16_t got[6];
    uint32_t wide[6];
    ops o = ops_begin(be);
    const tensor x = ops_make(&o, DTYPE_BF16, 2, 3, 5), y = ops_make(&o, DTYPE_BF16, 2, 3, 4);
    const tensor p = ops_make(&o, DTYPE_F32, 3, 2, 3), q = ops_make(&o, DTYPE_F32, 3, 2, 2);
    ops_put(&o, x, half);
    ops_put(&o, p, full);
    CHECK_OK(cast(be, y, x));
    CHECK_OK(cast(be, q, p));
    ops_get(&o, got, y);
    ops_get(&o, wide, q);
    assert_memory_equal(got, half, sizeof half);
    assert_memory_equal(wide, full, sizeof full);
    tensor row = ops_make(&o, DTYPE_F32, 1, 6, 6), to = ops_output(&o, 1, 6);
    row.stride = to.stride = (int64_t)1 << 40; /* one row is not apart from any other */
    ops_put(&o, row, full);
    CHECK_OK(cast(be, to, row));
    ops_get(&o, wide, to);
    assert_memory_equal(wide, full, sizeof full);
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    ops o = ops_begin(be);
    tensor x = ops_output(&o, 3, 4), out = ops_output_as(&o, DTYPE_BF16, 3, 4);
    tensor same = ops_output(&o, 3, 4);
    CHECK_BROKEN(be, x, 0, cast(be, out, x), "is_matrix(x)");
    CHECK_BROKEN(be, out, ARG_SHAPE, cast(be, out, x), "is_float(out, x.rows, x.cols)");
    CHECK_OVERLAP(x, out, cast(be, out, x), "tensor_disjoint(out, x)");
    CHECK_OVERLAP(x, same, cast(be, same, x), "tensor_disjoint(out, x)");
    CHECK_FAILS(cast(be, tensor_rows(x, 0, 2), tensor_rows(x, 1, 2)), CUDPO_EINVAL, "(out, x)");
    CHECK_OK(cast(be, tensor_rows(out, 0, 0), tensor_rows(x, 0, 0)));
    CHECK_OK(cast(be, tensor_rows(x, 1, 0), tensor_rows(x, 0, 0)));
    ops_check_untouched(&o, x);
    ops_check_untouched(&o, out);
    ops_check_untouched(&o, same);
    ops_end(&o);
}

/* A grid has 2^31 - 1 blocks at most, of 256 elements or pieces of 8; rows of a copy are at most 2^31 - 1 bytes apart. */
static void more_than_there_can_be(backend *be)
{
    for (int vectors = 0; vectors < 2; vectors++) {
        const int64_t n = (int64_t)INT32_MAX * 256 * (vectors ? 8 : 1) + 8;
        const tensor x = imagined(1, DTYPE_F32, 1, n), out = imagined(2, DTYPE_BF16, 1, n);
        CHECK_FAILS(cast(be, vectors ? out : moved(out, 2), x), CUDPO_EINVAL, "fits_grid(x.rows");
        CHECK_FAILS(cast(be, x, vectors ? out : moved(out, 2)), CUDPO_EINVAL, "fits_grid(x.rows");
    }
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const tensor near = imagined(1, bf16_or_f32(bf16), 2, 8);
        tensor far = imagined(2, bf16_or_f32(bf16), 2, 8);
        far.stride = bf16 ? (int64_t)1 << 30 : 1 << 29;
        CHECK_FAILS(cast(be, far, near), CUDPO_EINVAL, "is_pitch(out)");
        CHECK_FAILS(cast(be, near, far), CUDPO_EINVAL, "is_pitch(x)");
    }
}

static const op_case cases[] = {
    {"roundings_by_hand", roundings_by_hand},
    {"nan_stays_nan", nan_stays_nan},
    {"all_bf16_there_and_back", all_bf16_there_and_back},
    {"sizes_and_layouts", sizes_and_layouts},
    {"one_type", one_type},
    {"broken_contracts", broken_contracts},
    {"more_than_there_can_be", more_than_there_can_be},
};
OPS_MAIN(cases)
