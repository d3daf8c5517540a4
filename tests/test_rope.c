/* test_rope.c - rotary position embedding. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

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
    int cosine_shift, sine_shift;
} layout;

static void near(int64_t i, float got, double want, double bound)
{
    if (!(fabs((double)got - want) <= bound))
        fail_msg("x[%lld] = %.9g, want %.9g within %g", (long long)i, (double)got, want, bound);
}

/* Against the formula in double: a result is the rounded sum of two rounded products.  Then back from there, which must
 * give what the formula with -s gives. */
static void check_size(backend *be, int64_t T, int heads, int D, int64_t P, layout l)
{
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
        position[2 * t] = (int32_t)rng_below(6, 0, (uint64_t)t, (uint64_t)P);
        position[2 * t + 1] = -1;
    }
    position[2 * (T - 1)] = (int32_t)P - 1;
    round_to(type, x, T * W);
    ops o = ops_begin(be);
    const tensor tx = ops_make_at(&o, type, T, W, W + l.pad, l.shift);
    const tensor pairs = ops_indices(&o, position, T, 2), index = tensor_cols(pairs, 0, 1);
    const tensor tc = ops_make_at(&o, DTYPE_F32, P, half, half + l.table_pad, l.cosine_shift);
    const tensor ts = ops_make_at(&o, DTYPE_F32, P, half, half + 2 * l.table_pad, l.sine_shift);
    ops_put(&o, tc, cosine);
    ops_put(&o, ts, sine);
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
    static const layout layouts[] = {{false, 0, 0, 0, 0, 0}, {false, 2, 0, 0, 0, 0},
                                     {false, 4, 0, 4, 0, 0}, {false, 0, 1, 0, 0, 0},
                                     {false, 0, 0, 1, 0, 0}, {true, 0, 0, 0, 0, 0},
                                     {true, 8, 0, 4, 0, 0},  {true, 4, 0, 0, 0, 0},
                                     {true, 0, 1, 0, 0, 0},  {true, 0, 0, 1, 0, 0}};
    for (int k = 0; k < (be->on_device ? 10 : 5); k++) {
        for (int i = 0; i < 9; i++) {
            check_size(be, 9, 1 + i % 3, dims[i], 40, layouts[k]);
        }
        check_size(be, 33, 5, 64, 40, layouts[k]); /* pieces of several blocks */
    }
}

/* x or one of the tables begins off a vector's boundary, and each is read as it lies. */
static void any_operand_may_be_unaligned(backend *be)
{
    for (int n = 0; n < (be->on_device ? 6 : 3); n++) {
        const layout l = {.bf16 = n / 3 == 1,
                          .shift = n % 3 == 0,
                          .cosine_shift = n % 3 == 1,
                          .sine_shift = n % 3 == 2};
        check_size(be, 5, 2, 32, 40, l);
    }
}

/* Positions up to 4000, and packs whose pieces end before, at and behind a block's end. */
static void numbers_of_tokens(backend *be)
{
    static const int64_t T[] = {1, 31, 32, 127, 128, 129, 1000};
    for (int n = 0; n < (be->on_device ? 14 : 7); n++) {
        const layout l = {.bf16 = n / 7 == 1, .pad = n % 2};
        check_size(be, T[n % 7], 1 + n % 2, 16, 4001, l);
    }
}

/* Sum of dy times the turned x [3,8], in heads of 4. */
typedef struct problem {
    const float *dy, *cosine, *sine;
    const int32_t *position;
} problem;
enum { SLOPE_T = 3, SLOPE_W = 8, SLOPE_D = 4 };

static double objective(const double *x, const void *context)
{
    const problem *p = context;
    double sum = 0;
    for (int i = 0; i < SLOPE_T * SLOPE_W; i++) {
        const int j = i % SLOPE_D, row = p->position[i / SLOPE_W] * 2 + j % 2;
        const double c = (double)p->cosine[row], s = (double)p->sine[row];
        sum += (double)p->dy[i] * (x[i] * c + (j < 2 ? -x[i + 2] : x[i - 2]) * s);
    }
    return sum;
}

/* d(sum of dy y)/dx is dy turned back, of tables that need be no cosines and sines: two products and a sum, rounded. */
static void the_inverse_is_the_slope(backend *be)
{
    static const int32_t position[SLOPE_T] = {2, 0, 3};
    float *dy = random_floats(1, SLOPE_T * SLOPE_W), *x = random_floats(2, SLOPE_T * SLOPE_W);
    float *cosine = random_floats(3, 4 * 2), *sine = random_floats(4, 4 * 2);
    float dx[SLOPE_T * SLOPE_W];
    const problem p = {dy, cosine, sine, position};
    double v[SLOPE_T * SLOPE_W];
    ops o = ops_begin(be);
    const tensor t = ops_floats(&o, dy, SLOPE_T, SLOPE_W);
    CHECK_OK(be->rope(be, t, ops_floats(&o, cosine, 4, 2), ops_floats(&o, sine, 4, 2),
                      ops_indices(&o, position, SLOPE_T, 1), SLOPE_D, true));
    ops_get(&o, dx, t);
    for (int i = 0; i < SLOPE_T * SLOPE_W; i++) {
        v[i] = (double)x[i];
    }
    for (int i = 0; i < SLOPE_T * SLOPE_W; i++) {
        const int j = i % SLOPE_D, row = position[i / SLOPE_W] * 2 + j % 2;
        const double size = fabs((double)dy[i] * (double)cosine[row]) +
                            fabs((double)dy[j < 2 ? i + 2 : i - 2] * (double)sine[row]);
        CHECK_NEAR(dx[i], slope(objective, v, i, &p), size * 2 * EPS * 1.01 + 1e-9);
    }
    ops_end(&o);
    free(dy);
    free(x);
    free(cosine);
    free(sine);
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

enum { LT = 200, LW = 96 };

static void run_large(ops *o, float *result)
{
    float *x = random_floats(1, LT * LW), *table = random_floats(2, 2 * 50 * 16);
    int32_t position[LT];
    for (int t = 0; t < LT; t++) {
        position[t] = t * 7 % 50;
    }
    const tensor tx = ops_floats(o, x, LT, LW);
    CHECK_OK(o->be->rope(o->be, tx, ops_floats(o, table, 50, 16),
                         ops_floats(o, table + 50 * 16, 50, 16), ops_indices(o, position, LT, 1),
                         32, false));
    ops_get(o, result, tx);
    free(x);
    free(table);
}

static void same_bits_with_any_threads(backend *be)
{
    check_repeatable(be, run_large, LT * LW);
}

typedef struct call {
    tensor x, cosine, sine, position, fault;
    int head_dim;
} call;

static cudpo_status turn(backend *be, const void *arguments)
{
    const call *c = arguments;
#ifdef TEST_CUDA
    return cuda_rope(c->x, c->cosine, c->sine, c->position, c->head_dim, false, c->fault,
                     ((cuda_backend *)be)->stream);
#else
    return be->rope(be, c->x, c->cosine, c->sine, c->position, c->head_dim, false);
#endif
}

static call good_call(ops *o)
{
    static const int32_t position[] = {0, 4};
    return (call){.x = ops_output(o, 2, 12),
                  .cosine = ops_output(o, 5, 2),
                  .sine = ops_output(o, 5, 2),
                  .position = ops_indices(o, position, 2, 1),
                  .fault = ops_output_as(o, DTYPE_I32, 1, 1),
                  .head_dim = 4};
}

static void refusals_of_operands(backend *be)
{
    ops o = ops_begin(be);
    call c = good_call(&o);
    const operand operands[] = {
        {"x", &c.x, "is_matrix(x)", OUTPUT | ANY_ROWS | ANY_COLS | ANY_FLOAT},
        {"cosine", &c.cosine, "is_f32(cosine, ", ANY_ROWS},
        {"sine", &c.sine, "is_f32(sine, ", 0},
        {"position", &c.position, "(position, x.rows", 0},
        {"fault", &c.fault, "is_fault(fault)", OUTPUT | OPTIONAL}};
    const refusals r = {&o, turn, &c, operands, be->on_device ? 5 : 4};
    check_refusals(&r);
    ops_check_untouched(&o, c.fault);
    ops_end(&o);
}

/* Each in a call that is right but for it. */
static void refusals_of_sizes(backend *be)
{
    static const struct {
        int head_dim;
        int64_t width; /* of x */
        const char *text;
    } bad[] = {{0, 12, "head_dim >= 2"},
               {-4, 12, "head_dim >= 2"},
               {1, 12, "head_dim % 2"},
               {3, 12, "head_dim % 2"},
               {8, 12, "x.cols % head_dim"}};
    ops o = ops_begin(be);
    for (int i = 0; i < 5; i++) {
        call c = good_call(&o);
        c.x.cols = bad[i].width, c.head_dim = bad[i].head_dim;
        c.cosine.cols = c.cosine.stride = c.sine.cols = c.sine.stride = c.head_dim / 2;
        CHECK_FAILS(turn(be, &c), CUDPO_EINVAL, bad[i].text);
        ops_check_untouched(&o, c.x);
    }
    /* No tokens are right, whatever the tables; fewer positions than none are not. */
    call c = good_call(&o);
    const tensor all = c.x;
    c.x = tensor_rows(c.x, 0, 0), c.position = tensor_rows(c.position, 0, 0);
    CHECK_OK(turn(be, &c));
    c.cosine.rows = c.sine.rows = 0;
    CHECK_OK(turn(be, &c));
    c.cosine.rows = c.sine.rows = -1;
    CHECK_FAILS(turn(be, &c), CUDPO_EINVAL, "is_f32(cosine, ");
    ops_check_untouched(&o, all);
#ifdef TEST_CUDA
    c = good_call(&o);
    c.x.rows = ((int64_t)1 << 37) - 63; /* 2^39 - 256 elements, and a row more */
    c.x.cols = 4;
    CHECK_FAILS(turn(be, &c), CUDPO_EINVAL, "fits_grid(x.rows");
    c.x.rows--;
    CHECK_FAILS(turn(be, &c), CUDPO_EINVAL, "is_i32(position, ");
    ops_check_untouched(&o, c.cosine);
#endif
    ops_end(&o);
}

static const op_case cases[] = {
    {"quarter_turn_by_hand", quarter_turn_by_hand},
    {"every_head_dim_and_layout", every_head_dim_and_layout},
    {"any_operand_may_be_unaligned", any_operand_may_be_unaligned},
    {"numbers_of_tokens", numbers_of_tokens},
    {"the_inverse_is_the_slope", the_inverse_is_the_slope},
    {"positions_out_of_range", positions_out_of_range},
    {"refusals_of_operands", refusals_of_operands},
    {"refusals_of_sizes", refusals_of_sizes},
    {"same_bits_with_any_threads", same_bits_with_any_threads},
};
OPS_MAIN(cases)
