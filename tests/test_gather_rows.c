/* test_gather_rows.c - rows by index, the way back, and scaled rows. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_contract.h"
#include "test_ends.h"

/* Two score rows share hidden row 1: out repeats it, and its gradient is the scaled sum. */
static void by_hand(backend *be)
{
    static const float x[] = {1, 2, 3, 4, 5, 6}, drow[] = {1, 10, 2, 20, 3, 30},
                       scale[] = {2, 1, -1};
    static const int32_t index[] = {1, 0, 1};
    static const double out[] = {3, 4, 1, 2, 3, 4}, dx[] = {2, 20, -1, -10, 0, 0},
                        scaled[] = {2, 20, 2, 20, -3, -30};
    float got[6];
    ops o = ops_begin(be);
    const tensor to = ops_output(&o, 3, 2), td = ops_output(&o, 3, 2);
    const tensor ti = ops_indices(&o, index, 3, 1), ts = ops_floats(&o, scale, 3, 1);
    const tensor tr = ops_floats(&o, drow, 3, 2);
    CHECK_OK(be->gather_rows(be, to, ops_floats(&o, x, 3, 2), ti));
    ops_get(&o, got, to);
    check_close("out", got, out, 6, 0);
    CHECK_OK(be->scatter_rows(be, td, tr, ti, ts));
    ops_get(&o, got, td);
    check_close("dx", got, dx, 6, 0);
    CHECK_OK(be->scale_rows(be, tr, ts));
    ops_get(&o, got, tr);
    check_close("scaled", got, scaled, 6, 0);
    ops_end(&o);
}

/* Of activations: their type and how they lie, rows `pad` elements apart, the first `shift` behind a boundary; all of them, or
 * those alone that have T rows, or those that have a row for each index. */
typedef enum side { BOTH, WHOLE, PICKED } side;

typedef struct layout {
    bool bf16;
    int pad, shift;
    side only;
} layout;

static const layout layouts[] = {{false, 0, 0, BOTH}, {false, 3, 0, BOTH},  {false, 4, 0, BOTH},
                                 {false, 0, 1, BOTH}, {false, 0, 1, WHOLE}, {false, 0, 1, PICKED},
                                 {true, 0, 0, BOTH},  {true, 8, 0, BOTH},   {true, 4, 4, BOTH},
                                 {true, 1, 3, BOTH},  {true, 0, 2, WHOLE},  {true, 0, 2, PICKED}};

static int layouts_of(backend *be)
{
    return be->on_device ? 12 : 6; /* the CPU has float alone */
}

static tensor make(ops *o, const layout *l, side of, const float *host, int64_t rows, int64_t cols)
{
    const bool plain = l->only != BOTH && l->only != of;
    const tensor t = ops_make_at(o, bf16_or_f32(l->bf16), rows, cols, plain ? cols : cols + l->pad,
                                 plain ? 0 : l->shift);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

/* The rows of 0 .. T-1, some many times, most of them at least once where R is much larger than T. */
static int32_t *indices_of(int64_t R, int64_t T)
{
    int32_t *index = zeros(R, sizeof *index);
    for (int64_t r = 0; r < R; r++) {
        index[r] = (int32_t)(r % 5 == 4 ? T - 1 : rng_below(4, 0, (uint64_t)r, T));
    }
    return index;
}

/* Element by element.  A sum of n products, exact but for its rounding, rounds at most 2 n times by EPS of the sum of
 * their sizes, and once more to dx's type. */
static void check_size(backend *be, const layout *l, int64_t R, int64_t T, int64_t C, bool scaled)
{
    float *x = random_floats(1, T * C), *drow = random_floats(2, R * C);
    float *scale = random_floats(3, R), *out = zeros(R * C, 4), *dx = zeros(T * C, 4);
    float *product = zeros(R * C, 4);
    double *want = zeros(T * C, 8), *size = zeros(T * C, 8);
    int64_t *rows = zeros(T, sizeof *rows);
    int32_t *index = indices_of(R, T);
    const dtype type = bf16_or_f32(l->bf16);
    round_to(type, x, T * C);
    round_to(type, drow, R * C);
    for (int64_t r = 0; r < R; r++) {
        rows[index[r]]++;
        for (int64_t i = 0; i < C; i++) {
            const double term = (scaled ? (double)scale[r] : 1) * (double)drow[r * C + i];
            want[index[r] * C + i] += term;
            size[index[r] * C + i] += fabs(term);
            product[r * C + i] = scale[r] * drow[r * C + i];
        }
    }
    round_to(type, product, R * C);
    ops o = ops_begin(be);
    const tensor ti = ops_indices(&o, index, R, 1), ts = ops_floats(&o, scale, R, 1), none = {0};
    const tensor to = make(&o, l, PICKED, NULL, R, C), td = make(&o, l, WHOLE, NULL, T, C);
    const tensor tr = make(&o, l, PICKED, drow, R, C);
    CHECK_OK(be->gather_rows(be, to, make(&o, l, WHOLE, x, T, C), ti));
    CHECK_OK(be->scatter_rows(be, td, tr, ti, scaled ? ts : none));
    CHECK_OK(be->scale_rows(be, tr, ts));
    ops_get_floats(&o, out, to);
    ops_get_floats(&o, dx, td);
    ops_get_floats(&o, drow, tr);
    for (int64_t i = 0; i < T * C; i++) {
        const double last = type == DTYPE_BF16 ? 1.01 * EPS_BF16 * fabs(want[i]) : 0;
        CHECK_NEAR(dx[i], want[i], last + 2.02 * (double)rows[i / C] * EPS * size[i]);
    }
    for (int64_t i = 0; i < R * C; i++) {
        if (out[i] != x[index[i / C] * C + i % C]) fail_msg("out[%lld]", (long long)i);
        if (drow[i] != product[i]) fail_msg("scaled[%lld]", (long long)i);
    }
    ops_end(&o);
    free(x);
    free(drow);
    free(scale);
    free(out);
    free(dx);
    free(product);
    free(want);
    free(size);
    free(rows);
    free(index);
}

/* Widths around pieces of 4, warps of 32, chunks of 128, 256 and 512 elements, and 128 vectors. */
static void widths_and_layouts(backend *be)
{
    static const int64_t widths[] = {1,   4,   31,  32,  33,  127,  128, 129,
                                     252, 256, 257, 512, 516, 1000, 1032};
    for (int l = 0; l < layouts_of(be); l++) {
        for (int i = l % 2; i < 15; i += l == 0 ? 1 : 2) {
            check_size(be, &layouts[l], 40, 17, widths[i], i % 4 < 2);
        }
    }
    check_size(be, &layouts[0], 3, 2, 151936, true);
    check_size(be, &layouts[layouts_of(be) - 1], 1, 2, 151936, true);
}

/* Rows around warps, blocks of 8 warps, 64, and tiles of 1024 entries; more of them than indices, and fewer. */
static void numbers_of_rows(backend *be)
{
    static const int64_t numbers[] = {1,   7,   8,    9,    31,   32,   33,  127,
                                      128, 129, 1000, 1023, 1024, 1025, 2100};
    for (int i = 0; i < 15; i++) {
        check_size(be, &layouts[i % layouts_of(be)], numbers[i], 5, 3, true);
        check_size(be, &layouts[(i + 3) % layouts_of(be)], numbers[i], 300, 4, i % 2 == 0);
        check_size(be, &layouts[(i + 6) % layouts_of(be)], 9, numbers[i], 8, false);
    }
}

/* Rows without a score row are zeros; without any, all of dx is. */
static void nothing_and_other_strides(backend *be)
{
    static const int32_t index[] = {2, -5, 0, -5}; /* every second one is an index */
    static const float x[] = {1, 2, 3, 4, 5, 6}, scale[] = {3, NAN, 4, NAN};
    static const double out[] = {5, 6, 1, 2}, dx[] = {4, 8, 0, 0, 15, 18}, zero[6] = {0};
    float got[6];
    ops o = ops_begin(be);
    const tensor in = ops_floats(&o, x, 3, 2), to = ops_output(&o, 2, 2), none = {0};
    const tensor ti = tensor_cols(ops_indices(&o, index, 2, 2), 0, 1), td = ops_output(&o, 3, 2);
    const tensor ts = tensor_cols(ops_floats(&o, scale, 2, 2), 0, 1);
    CHECK_OK(be->gather_rows(be, to, in, ti));
    ops_get(&o, got, to);
    check_close("out", got, out, 4, 0);
    CHECK_OK(be->scatter_rows(be, td, to, ti, ts));
    ops_get(&o, got, td);
    check_close("dx", got, dx, 6, 0);
    CHECK_OK(be->gather_rows(be, tensor_rows(to, 0, 0), in, tensor_rows(ti, 0, 0)));
    CHECK_OK(be->scale_rows(be, tensor_rows(to, 0, 0), tensor_rows(ts, 0, 0)));
    CHECK_OK(be->scatter_rows(be, tensor_rows(td, 0, 0), tensor_rows(to, 0, 0),
                              tensor_rows(ti, 0, 0), none));
    CHECK_OK(be->scale_rows(be, to, ts));
    ops_get(&o, got, to);
    CHECK_NEAR(got[0], 15, 0);
    CHECK_NEAR(got[3], 8, 0);
    CHECK_OK(be->scatter_rows(be, td, tensor_rows(to, 0, 0), tensor_rows(ti, 0, 0), none));
    ops_get(&o, got, td);
    check_close("dx of nothing", got, zero, 6, 0);
    ops_end(&o);
}

/* Nothing beyond a tensor is read, in quads, vectors or elements. */
static void there_and_back(backend *be, tensor x, tensor out, tensor index)
{
    static const float host[] = {1, -2, 3, 4, 0.5f};
    const tensor scale = ends_make(be, DTYPE_F32, 5, 1, host);
    CHECK_OK(be->gather_rows(be, out, x, index));
    CHECK_OK(be->scatter_rows(be, x, out, index, scale));
    CHECK_OK(be->scale_rows(be, x, scale));
    CHECK_OK(be->sync(be));
    be->free(be, scale.data);
}

static void ends_of_memory(backend *be)
{
    ends_by_index(be, there_and_back);
}

static void run_large(ops *o, float *result)
{
    enum { C = 256, T = 300, R = 400 };
    float *drow = random_floats(2, R * C), *scale = random_floats(3, R);
    int32_t *index = indices_of(R, T);
    const tensor dx = ops_output(o, T, C);
    CHECK_OK(o->be->scatter_rows(o->be, dx, ops_floats(o, drow, R, C), ops_indices(o, index, R, 1),
                                 ops_floats(o, scale, R, 1)));
    ops_get(o, result, dx);
    free(drow);
    free(scale);
    free(index);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, 300 * 256);
}

/* One row of dx gets all, in order: so any other order shows. */
static void the_order_of_sums(backend *be)
{
    enum { R = 200, C = 5 };
    float *drow = random_floats(2, R * C), got[2 * C], want[C] = {0};
    int32_t index[R];
    for (int r = 0; r < R; r++) {
        index[r] = 1;
        for (int i = 0; i < C; i++) {
            want[i] += drow[r * C + i];
        }
    }
    ops o = ops_begin(be);
    const tensor dx = ops_output(&o, 2, C);
    CHECK_OK(be->scatter_rows(be, dx, ops_floats(&o, drow, R, C), ops_indices(&o, index, R, 1),
                              (tensor){0}));
    ops_get(&o, got, dx);
    for (int i = 0; i < C; i++) {
        assert_true(got[i] == 0 && got[C + i] == want[i]);
    }
    ops_end(&o);
    free(drow);
}

#ifdef TEST_CUDA
/* Indices outside of x: a row of zeros, no gradient, and the bit. */
static void bad_indices_are_faults(backend *be)
{
    static const int32_t bad[] = {3, -1, INT32_MAX, INT32_MIN, -3};
    static const float x[] = {1, 2, 3, 4, 5, 6};
    static const double want[] = {5, 6, 0, 0, 1, 2}, gained[] = {5, 6, 0, 0, 1, 2};
    float got[6];
    (void)faults_of(be);
    for (int i = 0; i < 10; i++) {
        const int32_t index[] = {2, bad[i / 2], 0};
        ops o = ops_begin(be);
        const tensor in = ops_floats(&o, x, 3, 2), out = ops_output(&o, 3, 2), none = {0};
        const tensor ti = ops_indices(&o, index, 3, 1);
        if (i % 2 == 0) {
            CHECK_OK(be->gather_rows(be, out, in, ti));
            ops_get(&o, got, out);
            check_close("out", got, want, 6, 0);
        } else {
            CHECK_OK(be->scatter_rows(be, out, in, ti, none));
            ops_get(&o, got, out);
            check_close("dx", got, gained, 6, 0);
        }
        check_fault(be, FAULT_INDEX);
        CHECK_OK(cuda_gather_rows(out, in, ti, none, stream_of(be))); /* no word, no report */
        const scratch s = ops_scratch(&o, cuda_scatter_rows_scratch(3));
        CHECK_OK(cuda_scatter_rows(out, in, ti, none, s, none, stream_of(be)));
        check_fault(be, 0);
        ops_end(&o);
    }
}
#endif

static const op_case cases[] = {
    {"by_hand", by_hand},
    {"widths_and_layouts", widths_and_layouts},
    {"numbers_of_rows", numbers_of_rows},
    {"nothing_and_other_strides", nothing_and_other_strides},
    {"ends_of_memory", ends_of_memory},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
    {"the_order_of_sums", the_order_of_sums},
#ifdef TEST_CUDA
    {"bad_indices_are_faults", bad_indices_are_faults},
#endif
};
OPS_MAIN(cases)
