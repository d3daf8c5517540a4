/* test_map.c - elementwise stages, with operands that are broadcast. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"

/* In double, of the operands as the op reads them. */
static double reference(map_function f, double a, double b, double k, int64_t r, int64_t c)
{
    switch (f) {
    case MAP_ADD:
        return a + b;
    case MAP_SUBTRACT:
        return a - b;
    case MAP_MULTIPLY:
        return a * b;
    case MAP_DIVIDE:
        return a / b;
    case MAP_SCALE:
        return k * a;
    case MAP_SHIFT:
        return a + k;
    case MAP_EXP:
        return exp(a);
    case MAP_LOG:
        return log(a);
    case MAP_SQRT:
        return sqrt(a);
    case MAP_SIGMOID:
        return 1 / (1 + exp(-a));
    case MAP_ONEHOT:
        return c == (int64_t)b ? a - 1 : a;
    case MAP_CAUSAL:
        return (double)(c - r) <= k ? a : (double)-INFINITY;
    default:
        return a;
    }
}

typedef struct shape {
    int64_t rows, cols, a_rows, a_cols, b_rows, b_cols;
    int pad, shift; /* of rows; of the first one from its boundary */
} shape;

static tensor laid_out(ops *o, dtype type, const float *host, int64_t rows, int64_t cols, shape s)
{
    const tensor t = ops_make_at(o, type, rows, cols, cols + s.pad, s.shift);
    if (host != NULL) ops_put_floats(o, t, host);
    return t;
}

/* Functions are smooth and operands within 0.1 .. 4: a float function is off by a few roundings of its result, and the
 * result is rounded to the type of out. */
static void check(backend *be, map_function f, dtype out_type, dtype a_type, dtype b_type, shape s)
{
    const int64_t n = s.rows * s.cols, na = s.a_rows * s.a_cols, nb = s.b_rows * s.b_cols;
    float *a = random_floats(1, na), *b = random_floats(2, nb), *got = zeros(n, 4);
    int32_t *index = zeros(s.rows, sizeof *index);
    const float k = f == MAP_CAUSAL ? 2.0f : 0.75f;
    for (int64_t i = 0; i < na; i++) {
        a[i] = fminf(fabsf(a[i]) + 0.1f, 4.0f);
    }
    for (int64_t i = 0; i < nb; i++) {
        b[i] = fminf(fabsf(b[i]) + 0.1f, 4.0f);
    }
    for (int64_t r = 0; r < s.rows; r++) {
        index[r] = (int32_t)(r * 7 % (s.cols + 2) - 1); /* some in no column */
    }
    round_to(a_type, a, na);
    round_to(b_type, b, nb);
    ops o = ops_begin(be);
    const tensor out = laid_out(&o, out_type, NULL, s.rows, s.cols, s);
    const tensor x = laid_out(&o, a_type, a, s.a_rows, s.a_cols, s);
    const tensor y = map_takes_two(f)  ? laid_out(&o, b_type, b, s.b_rows, s.b_cols, s)
                     : f == MAP_ONEHOT ? ops_indices(&o, index, s.rows, 1)
                                       : (tensor){0};
    CHECK_OK(be->map(be, out, f, x, y, k));
    ops_get_floats(&o, got, out);
    const double unit = out_type == DTYPE_BF16 ? 2 * EPS_BF16 : 8 * EPS;
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = i / s.cols, c = i % s.cols;
        const double first = a[r / (s.rows / s.a_rows) * s.a_cols + (s.a_cols > 1 ? c : 0)];
        const double second = f == MAP_ONEHOT
                                  ? index[r]
                                  : b[r / (s.rows / s.b_rows) * s.b_cols + (s.b_cols > 1 ? c : 0)];
        const double want = reference(f, first, second, (double)k, r, c);
        const double of = fmax(fabs(want), 1.0); /* a difference loses what its operands had */
        if (isinf(want) ? (double)got[i] != want : !(fabs((double)got[i] - want) <= unit * of))
            fail_msg("function %d, [%lld,%lld]: element %lld is %g, want %g", (int)f,
                     (long long)s.rows, (long long)s.cols, (long long)i, (double)got[i], want);
    }
    ops_end(&o);
    free(a);
    free(b);
    free(got);
    free(index);
}

static const shape shapes[] = {
    {1, 1, 1, 1, 1, 1, 0, 0},       {5, 4, 5, 4, 5, 4, 0, 0},     {3, 31, 3, 31, 1, 31, 0, 0},
    {6, 32, 1, 32, 6, 1, 0, 0},     {6, 33, 2, 33, 3, 1, 5, 0},   {12, 64, 4, 1, 2, 64, 8, 0},
    {4, 128, 4, 128, 4, 128, 0, 1}, {2, 260, 2, 260, 2, 1, 4, 0}, {7, 129, 7, 1, 1, 1, 3, 1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void every_function_and_layout(backend *be)
{
    for (int f = 0; f < MAP_FUNCTIONS; f++) {
        for (int i = 0; i < SHAPES; i++) {
            check(be, (map_function)f, DTYPE_F32, DTYPE_F32, DTYPE_F32, shapes[i]);
            if (!be->on_device) continue;
            check(be, (map_function)f, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, shapes[i]);
            check(be, (map_function)f, DTYPE_F32, DTYPE_BF16, DTYPE_F32, shapes[i]);
            check(be, (map_function)f, DTYPE_BF16, DTYPE_F32, DTYPE_BF16, shapes[i]);
        }
    }
}

/* One operand off its boundary, or with rows of no whole quads, and the others on it: single elements serve. */
static void one_operand_out_of_line(backend *be)
{
    enum { R = 3, C = 8 };
    float *a = random_floats(1, R * C), *b = random_floats(2, R * C), got[R * C];
    for (int odd = 0; odd < 3; odd++) {
        ops o = ops_begin(be);
        tensor t[3];
        for (int i = 0; i < 3; i++) {
            t[i] = ops_make_at(&o, DTYPE_F32, R, C, C, i == odd);
        }
        ops_put(&o, t[1], a);
        ops_put(&o, t[2], b);
        CHECK_OK(be->map(be, t[0], MAP_ADD, t[1], t[2], 0));
        ops_get(&o, got, t[0]);
        for (int i = 0; i < R * C; i++) {
            assert_true(got[i] == a[i] + b[i]);
        }
        ops_end(&o);
    }
    free(a);
    free(b);
}

static void in_place(backend *be)
{
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {6, 5, 4, 3, 2, 1};
    static const double want[] = {7, 7, 7, 7, 7, 7}, twice[] = {14, 14, 14, 14, 14, 14};
    float got[6];
    ops o = ops_begin(be);
    const tensor x = ops_floats(&o, a, 2, 3), y = ops_floats(&o, b, 2, 3);
    CHECK_OK(be->map(be, x, MAP_ADD, x, y, 0));
    ops_get(&o, got, x);
    check_close("a + b in a", got, want, 6, 0);
    CHECK_OK(be->map(be, y, MAP_ADD, x, x, 0));
    ops_get(&o, got, y);
    check_close("a + a", got, twice, 6, 0);
    ops_end(&o);
}

typedef struct call {
    tensor out, a, b;
    map_function f;
    float k;
} call;

static cudpo_status map(backend *be, const void *arguments)
{
    const call *c = arguments;
    return be->map(be, c->out, c->f, c->a, c->b, c->k);
}

static void refused(backend *be)
{
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, 4, 6), like = ops_output(&o, 4, 6),
                 index = ops_output(&o, 4, 1);
    const call good = {out, like, ops_output(&o, 4, 6), MAP_ADD, 0};
    call c = good;
#define REFUSED(change, text)                         \
    do {                                              \
        c = good;                                     \
        change;                                       \
        CHECK_FAILS(map(be, &c), CUDPO_EINVAL, text); \
    } while (0)
    REFUSED(c.out.data = NULL, "is_matrix(out)");
    REFUSED(c.out.type = DTYPE_I32, "is_matrix(out)");
    REFUSED(c.out.cols = 0, "is_matrix(out)");
    REFUSED(c.f = MAP_FUNCTIONS, "f < MAP_FUNCTIONS");
    REFUSED(c.k = NAN, "isfinite(k)");
    REFUSED(c.k = INFINITY, "isfinite(k)");
    REFUSED((c.f = MAP_CAUSAL, c.k = -0x1p62f), "f != MAP_CAUSAL");
    REFUSED(c.a.data = NULL, "is_operand(a, out)");
    REFUSED(c.a.type = DTYPE_I32, "is_operand(a, out)");
    REFUSED(c.a.rows = 3, "is_operand(a, out)");
    REFUSED(c.a.rows = 0, "is_operand(a, out)");
    REFUSED(c.a = tensor_cols(like, 0, 5), "is_operand(a, out)");
    REFUSED(c.a = moved(out, 4), "is_operand(a, out)"); /* overlaps, not in place */
    REFUSED(c.a = tensor_rows(out, 0, 1), "is_operand(a, out)");
    REFUSED(c.a = tensor_cols(out, 0, 1), "is_operand(a, out)");
    REFUSED(c.b.data = NULL, "is_operand(b, out)");
    REFUSED(c.b.rows = 3, "is_operand(b, out)");
    REFUSED(c.b.cols = 5, "is_operand(b, out)");
    REFUSED(c.b = tensor_rows(out, 0, 2), "is_operand(b, out)");
    REFUSED((c.f = MAP_ONEHOT), "is_i32(b, out.rows, 1)");
    REFUSED((c.f = MAP_ONEHOT, c.b = index), "is_i32(b, out.rows, 1)");
    REFUSED((c.f = MAP_ONEHOT, c.b = tensor_cols(out, 0, 1), c.b.type = DTYPE_I32), "is_i32(b");
    REFUSED((c.f = MAP_EXP), "tensor_present(b)");
    ops_check_untouched(&o, out);
    c = good;
    c.out = tensor_rows(out, 0, 0);
    CHECK_OK(map(be, &c));
    ops_check_untouched(&o, out);
    ops_end(&o);
}

#ifdef TEST_CUDA
static void too_many_for_a_grid(backend *be)
{
    enum { THREADS = 256 };
    const int64_t most = (int64_t)INT32_MAX * THREADS;
    ops o = ops_begin(be);
    tensor out = ops_output(&o, 1, 1);
    out.rows = most + 1;
    const tensor one = tensor_matrix((void *)((uintptr_t)1 << 50), DTYPE_F32, 1, 1);
    CHECK_FAILS(be->map(be, out, MAP_COPY, one, (tensor){0}, 0), CUDPO_EINVAL, "fits_grid");
    ops_end(&o);
}
#endif

static void run_large(ops *o, float *to)
{
    enum { R = 300, C = 301 };
    float *a = random_floats(1, R * C), *b = random_floats(2, R);
    const tensor out = ops_output(o, R, C);
    CHECK_OK(
        o->be->map(o->be, out, MAP_MULTIPLY, ops_floats(o, a, R, C), ops_floats(o, b, R, 1), 0));
    ops_get(o, to, out);
    free(a);
    free(b);
}

static void the_same_bits_again(backend *be)
{
    check_repeatable(be, run_large, 300 * 301);
}

static const op_case cases[] = {
    {"every_function_and_layout", every_function_and_layout},
    {"one_operand_out_of_line", one_operand_out_of_line},
    {"in_place", in_place},
    {"refused", refused},
#ifdef TEST_CUDA
    {"too_many_for_a_grid", too_many_for_a_grid},
#endif
    {"the_same_bits_again", the_same_bits_again},
};
OPS_MAIN(cases)
