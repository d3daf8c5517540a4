/* test_adamw_bf16.c - AdamW with bfloat16: gradients, copies of master weights, weights that round at random. */
/* rooms: backend base */
/* backends: cuda */
#include "test_ends.h"

/* The random bits of an element: 16 of rng_bits(seed, step, e / 4), those of number e % 4. */
static uint32_t random_of(uint64_t seed, uint64_t step, uint64_t element)
{
    return (uint32_t)(rng_bits(seed, step, element / 4) >> element % 4 * 16) & 0xffffu;
}

/* Finite x between two bf16, down or up by 16 random bits. */
static float rounded_randomly(float x, uint32_t random)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) < 0x7f7f0000u) u += random;
    return bf16_value((uint16_t)(u >> 16));
}

/* A call, and what it works on; dense host arrays. */
typedef struct problem {
    dtype w_type, g_type;
    bool copy, scaled;
    int64_t rows, cols;
    int pad[5], shift[5]; /* of w, m, v, copy, gradient, in elements */
    float factor, gradient_scale;
    adamw_step step;
    uint64_t seed, number;
    int64_t first;
    float *w, *m, *v, *copied, *g; /* [rows * cols] in, and out but for g */
} problem;

static cudpo_status run(backend *be, problem *p)
{
    const float *const in[] = {p->w, p->m, p->v, NULL, p->g};
    const dtype type[] = {p->w_type, DTYPE_F32, DTYPE_F32, DTYPE_BF16, p->g_type};
    tensor t[5] = {{0}}, scale = {0};
    ops o = ops_begin(be);
    for (int i = 0; i < 5; i++) {
        if (i == 3 && !p->copy) continue;
        t[i] = ops_make_at(&o, type[i], p->rows, p->cols, p->cols + p->pad[i], p->shift[i]);
        if (in[i] != NULL) ops_put_floats(&o, t[i], in[i]);
    }
    if (p->scaled) scale = ops_floats(&o, &p->gradient_scale, 1, 1);
    const adamw_tensors a = {t[0],      t[1],  t[2],    t[3],      t[4],
                             p->factor, scale, p->seed, p->number, p->first};
    const cudpo_status status = cuda_adamw(&a, p->step, stream_of(be));
    if (status == CUDPO_OK) {
        ops_get_floats(&o, p->w, t[0]);
        ops_get_floats(&o, p->m, t[1]);
        ops_get_floats(&o, p->v, t[2]);
        if (p->copy) ops_get_floats(&o, p->copied, t[3]);
    }
    ops_end(&o);
    return status;
}

static problem make(int64_t rows, int64_t cols)
{
    const int64_t n = rows * cols;
    problem p = {.w_type = DTYPE_F32,
                 .g_type = DTYPE_BF16,
                 .rows = rows,
                 .cols = cols,
                 .factor = 1,
                 .gradient_scale = 1,
                 .step = {0.125, 0.9, 0.999, 1e-8, 0.5, 1 - 0.9 * 0.9, 1 - 0.999 * 0.999},
                 .seed = 7,
                 .number = 3};
    p.w = random_floats(1, n);
    p.m = random_floats(2, n);
    p.v = random_floats(3, n);
    p.g = random_floats(4, n);
    p.copied = zeros(n, 4);
    for (int64_t i = 0; i < n; i++) {
        p.v[i] *= p.v[i];
    }
    return p;
}

static void drop(problem *p)
{
    free(p->w);
    free(p->m);
    free(p->v);
    free(p->copied);
    free(p->g);
}

/* A step in double on what the call reads, and how far off float arithmetic may be: each operation, and each scalar made
 * a float, by EPS of its result.  The factor of 1.01 is for products of errors. */
typedef struct result {
    double w, m, v, w_error, m_error, v_error;
} result;

static result expect(const problem *p, double w, double m, double v, double gradient)
{
    const adamw_step s = p->step;
    const double g = gradient * (double)p->factor * (p->scaled ? (double)p->gradient_scale : 1);
    const double u = 1.01 * EPS, c1 = 1 - s.beta1, c2 = 1 - s.beta2; /* g: 2 roundings */
    result r = {.m = m + c1 * (g - m), .v = s.beta2 * v + c2 * g * g};
    r.m_error = u * (fabs(r.m) + c1 * (3 * fabs(g - m) + 2 * fabs(g)));
    r.v_error = u * (r.v + 2 * s.beta2 * v + 7 * c2 * g * g);
    const double root = sqrt(r.v) / sqrt(s.bias_correction2), denominator = root + s.epsilon;
    const double quotient = r.m / denominator, rate = s.learning_rate / s.bias_correction1;
    const double off = r.v > 0 ? r.v_error / r.v / 2 + 5 * u : 5 * u;
    const double quotient_error = r.m_error / denominator + fabs(quotient) * (off + u);
    const double kept = w * (1 - s.learning_rate * s.weight_decay);
    r.w = kept - rate * quotient;
    r.w_error =
        u * (2 * fabs(kept) + fabs(r.w) + 2 * fabs(rate * quotient)) + rate * quotient_error;
    return r;
}

static void check(backend *be, problem *p)
{
    const int64_t n = p->rows * p->cols;
    result *want = zeros(n, sizeof *want);
    round_to(p->w_type, p->w, n);
    round_to(p->g_type, p->g, n);
    for (int64_t i = 0; i < n; i++) {
        want[i] = expect(p, (double)p->w[i], (double)p->m[i], (double)p->v[i], (double)p->g[i]);
    }
    CHECK_OK(run(be, p));
    for (int64_t i = 0; i < n; i++) {
        const result r = want[i];
        CHECK_NEAR(p->m[i], r.m, r.m_error);
        CHECK_NEAR(p->v[i], r.v, r.v_error);
        if (p->w_type == DTYPE_F32) {
            CHECK_NEAR(p->w[i], r.w, r.w_error);
        } else { /* rounding never swaps two numbers: the ends of what float may have bound it */
            const uint32_t random = random_of(p->seed, p->number, (uint64_t)(p->first + i));
            const float low = rounded_randomly((float)(r.w - r.w_error), random);
            const float high = rounded_randomly((float)(r.w + r.w_error), random);
            if (!(p->w[i] >= low && p->w[i] <= high))
                fail_msg("w[%lld] = %.9g, not in %.9g .. %.9g", (long long)i, (double)p->w[i],
                         (double)low, (double)high);
        }
        if (p->copy) assert_true(p->copied[i] == bf16_value(bf16_bits(p->w[i])));
    }
    free(want);
}

/* Every mode, at sizes around quads, pieces of 256 threads and blocks of 512 pieces, in dense and odd layouts. */
static void modes_against_double(backend *be)
{
    static const int64_t sizes[] = {1,   3,   4,    5,    31,   32,   33,   127,  128,  129, 511,
                                    512, 513, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4100};
    for (int i = 0; i < 21; i++) {
        for (int mode = 0; mode < 6; mode++) {
            for (int rows = 1; rows <= 3; rows += 2) {
                problem p = make(rows, sizes[i]);
                p.w_type = bf16_or_f32(mode >= 4);
                p.g_type = bf16_or_f32(mode % 2 == 0);
                p.copy = mode == 2 || mode == 3;
                p.scaled = i % 2 == 0;
                p.factor = 0.3f;
                p.gradient_scale = 1.7f;
                p.first = 4 * i + mode % 2;
                check(be, &p);
                drop(&p);
            }
        }
    }
}

/* Any of the tensors strided or misaligned, by whole quads or by less, alone. */
static void layouts(backend *be)
{
    for (int mode = 0; mode < 2; mode++) {
        for (int odd = 0; odd < 5; odd++) {
            for (int by = 1; by <= 4; by += 3) {
                for (int shifted = 0; shifted < 2; shifted++) {
                    problem p = make(7, 260);
                    p.w_type = bf16_or_f32(mode == 1);
                    p.copy = mode == 0;
                    p.first = 3;
                    (shifted ? p.shift : p.pad)[odd] = by;
                    check(be, &p);
                    drop(&p);
                }
            }
        }
    }
    problem p = make(5, 8); /* one row less than whole quads, whole quads in all */
    p.cols = 7;
    p.rows = 4;
    check(be, &p);
    p.pad[0] = 1;
    check(be, &p);
    drop(&p);
}

/* First step of two numbers, weights bf16: m = 0.1 g, v = 0.001 g^2, m / (1 - 0.9) = g, sqrt(v / (1 - 0.999)) = |g|; so w
 * moves by the rate, 1/8, against the sign of g.  Sums that are bf16 do not round. */
static void by_hand(backend *be)
{
    static const float w[] = {2, 1, -0.5f}, g[] = {4, -0.25f, 0}, want[] = {1.875f, 1.125f, -0.5f};
    problem p = make(1, 3);
    p.w_type = DTYPE_BF16;
    p.step = (adamw_step){0.125, 0.9, 0.999, 0, 0, 1 - 0.9, 1 - 0.999};
    p.step.epsilon = 1e-30; /* 0 / 0 else */
    for (int i = 0; i < 3; i++) {
        p.w[i] = w[i];
        p.g[i] = g[i];
        p.m[i] = p.v[i] = 0;
    }
    CHECK_OK(run(be, &p));
    for (int i = 0; i < 3; i++) {
        /* The sum is off by a few EPS, 2^16 of which are a step of bf16: it shows for a few of 2^16 random numbers. */
        assert_true(p.w[i] == want[i]);
        CHECK_NEAR(p.m[i], 0.1 * (double)g[i], 2 * EPS * fabs((double)p.m[i]));
        CHECK_NEAR(p.v[i], 0.001 * (double)(g[i] * g[i]), 3 * EPS * (double)p.v[i]);
    }
    drop(&p);
}

/* Without gradient and moments a step multiplies by 1 - rate * decay, here 1 + 2^-9 exactly: 8 bits times 10 are a float, and
 * every bit of the result follows from the rounding. */
static problem make_growing(int64_t rows, int64_t cols)
{
    problem p = make(rows, cols);
    p.w_type = DTYPE_BF16;
    p.step.learning_rate = 1;
    p.step.weight_decay = -0x1p-9;
    for (int64_t i = 0; i < rows * cols; i++) {
        p.m[i] = p.v[i] = p.g[i] = 0;
    }
    round_to(DTYPE_BF16, p.w, rows * cols);
    return p;
}

static void every_bit_of_the_rounding(backend *be)
{
    static const int64_t firsts[] = {0, 1, 2, 3, 5, ((int64_t)1 << 33) + 7, INT64_MAX - 2000};
    static const int64_t cols[] = {1, 4, 7, 64, 300};
    for (int i = 0; i < 7; i++) {
        for (int j = 0; j < 5; j++) {
            for (int pad = 0; pad <= 4; pad++) {
                problem p = make_growing(3, cols[j]);
                float *before = random_floats(1, 3 * cols[j]);
                round_to(DTYPE_BF16, before, 3 * cols[j]);
                p.first = firsts[i];
                p.seed = (uint64_t)i;
                p.number = (uint64_t)(10 * j);
                p.pad[0] = pad;
                CHECK_OK(run(be, &p));
                for (int64_t k = 0; k < 3 * cols[j]; k++) {
                    const uint32_t random = random_of(p.seed, p.number, (uint64_t)(p.first + k));
                    assert_true(p.w[k] == rounded_randomly(before[k] * (1 + 0x1p-9f), random));
                }
                free(before);
                drop(&p);
            }
        }
    }
}

/* 1 grows to 1 + 2^-9, a quarter of the way to the next bf16, 1 + 2^-7: a quarter of n go up, within 5 standard deviations
 * sqrt(n 3/16), for many elements and for one element over many steps and seeds. */
static void the_mean_is_right(backend *be)
{
    enum { N = 65536, STEPS = 1024 };
    problem p = make_growing(1, N);
    int up = 0, other[4] = {0}, of_seed[4] = {0};
    for (int sign = 0; sign < 2; sign++) {
        const float one = sign ? -1 : 1;
        for (int i = 0; i < N; i++) {
            p.w[i] = one;
        }
        CHECK_OK(run(be, &p));
        up = 0;
        for (int i = 0; i < N; i++) {
            assert_true(p.w[i] == one || p.w[i] == one * (1 + 0x1p-7f));
            up += p.w[i] != one;
        }
        CHECK_NEAR(up, N / 4, 5 * sqrt(N * 3 / 16.0));
    }
    p.cols = 4;
    for (uint64_t t = 0; t < STEPS; t++) {
        for (int seeds = 0; seeds < 2; seeds++) {
            for (int i = 0; i < 4; i++) {
                p.w[i] = 1;
            }
            p.number = seeds ? 1 : t;
            p.seed = seeds ? t : 1;
            CHECK_OK(run(be, &p));
            for (int i = 0; i < 4; i++) {
                (seeds ? of_seed : other)[i] += p.w[i] != 1;
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(other[i], STEPS / 4, 5 * sqrt(STEPS * 3 / 16.0));
        CHECK_NEAR(of_seed[i], STEPS / 4, 5 * sqrt(STEPS * 3 / 16.0));
    }
    drop(&p);
}

/* At a rate of 0 nothing moves, whatever the random bits; what is not finite stays so, and nothing finite becomes Inf. */
static void extremes(backend *be)
{
    static const float values[] = {0,           -0.0f,        1,         -3,
                                   0x1p-133f,   -0x1p-133f,   0x1p-126f, 1e-38f,
                                   0x1.fep127f, -0x1.fep127f, INFINITY,  -INFINITY};
    problem p = make_growing(1, 4000);
    for (int i = 0; i < 4000; i++) {
        p.w[i] = values[i % 12];
    }
    round_to(DTYPE_BF16, p.w, 4000);
    p.step.learning_rate = 0;
    CHECK_OK(run(be, &p));
    for (int i = 0; i < 4000; i++) {
        const float want = bf16_value(bf16_bits(values[i % 12]));
        assert_memory_equal(&p.w[i], &want, 4);
        p.w[i] = i % 3 == 0 ? 0x1.fep127f : i % 3 == 1 ? -0x1.fep127f : NAN;
    }
    p.step.learning_rate = 1; /* 1 + 2^-9 times the largest bf16 is a float still */
    CHECK_OK(run(be, &p));
    for (int i = 0; i < 4000; i++) {
        if (i % 3 == 2)
            assert_true(isnan(p.w[i]));
        else
            assert_true(p.w[i] == (i % 3 == 0 ? 0x1.fep127f : -0x1.fep127f));
    }
    drop(&p);
}

/* All at once, or cut anywhere, where `first` says which elements a call has: the same bits. */
static void parts_are_the_whole(backend *be)
{
    static const int64_t cuts[] = {0, 1, 6, 10, 131, 132, 644, 1000};
    problem whole = make(1, 1000);
    whole.w_type = DTYPE_BF16;
    whole.first = 2;
    problem part = whole;
    part.w = random_floats(1, 1000);
    part.m = random_floats(2, 1000);
    part.v = zeros(1000, 4);
    memcpy(part.v, whole.v, 4000);
    for (int i = 0; i < 7; i++) {
        problem p = part;
        p.first = whole.first + cuts[i];
        p.cols = cuts[i + 1] - cuts[i];
        p.w += cuts[i];
        p.m += cuts[i];
        p.v += cuts[i];
        p.g += cuts[i];
        p.shift[0] = i;
        CHECK_OK(run(be, &p));
    }
    CHECK_OK(run(be, &whole));
    assert_memory_equal(part.w, whole.w, 4000);
    assert_memory_equal(part.m, whole.m, 4000);
    assert_memory_equal(part.v, whole.v, 4000);
    free(part.w);
    free(part.m);
    free(part.v);
    drop(&whole);
}

/* The factor on the device counts like the one of the call; where it is not finite, or their product is not, nothing is
 * written: weights and moments keep their bits, the copy its poison. */
static void a_bad_scale_writes_nothing(backend *be)
{
    static const float scales[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (int i = 0; i < 16; i++) {
        problem p = make(3, 700), before = make(3, 700);
        p.w_type = bf16_or_f32(i % 2 == 1);
        p.copy = i % 2 == 0;
        p.pad[1] = i / 2 % 2; /* quads and single elements */
        p.scaled = true;
        p.gradient_scale = scales[i / 4];
        p.factor = 2;
        round_to(p.w_type, before.w, 2100);
        CHECK_OK(run(be, &p));
        assert_memory_equal(p.w, before.w, 8400);
        assert_memory_equal(p.m, before.m, 8400);
        assert_memory_equal(p.v, before.v, 8400);
        for (int k = 0; k < 2100 && p.copy; k++) {
            assert_int_equal(bf16_bits(p.copied[k]), POISON & 0xffff);
        }
        drop(&p);
        drop(&before);
    }
}

/* Nothing beyond a tensor is read: whole quads, and single elements, that do not fill a block. */
static void ends_of_memory(backend *be)
{
    static const int64_t sizes[] = {1, 4, 255, 256, 1024, 2044, 2047};
    for (int i = 0; i < 7; i++) {
        problem p = make(1, sizes[i]);
        const int64_t n = sizes[i];
        const tensor w = ends_make(be, DTYPE_F32, 1, n, p.w),
                     m = ends_make(be, DTYPE_F32, 1, n, p.m);
        const tensor v = ends_make(be, DTYPE_F32, 1, n, p.v),
                     c = ends_make(be, DTYPE_BF16, 1, n, p.w);
        const tensor g = ends_make(be, DTYPE_BF16, 1, n, p.g);
        const adamw_tensors a = {.w = w, .m = m, .v = v, .copy = c, .gradient = g, .factor = 1};
        const adamw_tensors b = {.w = c, .m = m, .v = v, .gradient = g, .factor = 1};
        CHECK_OK(cuda_adamw(&a, p.step, stream_of(be)));
        CHECK_OK(cuda_adamw(&b, p.step, stream_of(be)));
        CHECK_OK(be->sync(be));
        be->free(be, w.data);
        be->free(be, m.data);
        be->free(be, v.data);
        be->free(be, c.data);
        be->free(be, g.data);
        drop(&p);
    }
}

/* Weights and moments of a mode, and the copy where there is one. */
enum { LARGE = 5003 };

static void run_mode(backend *be, bool bf16, float *bits)
{
    problem p = make(1, LARGE);
    p.w_type = bf16_or_f32(bf16);
    p.copy = !bf16;
    CHECK_OK(run(be, &p));
    memcpy(bits, p.w, LARGE * sizeof *bits);
    memcpy(bits + LARGE, p.m, LARGE * sizeof *bits);
    memcpy(bits + 2 * LARGE, p.v, LARGE * sizeof *bits);
    memcpy(bits + 3 * LARGE, p.copied, LARGE * sizeof *bits);
    drop(&p);
}

static void run_large(ops *o, float *bits)
{
    run_mode(o->be, false, bits);
    run_mode(o->be, true, bits + 4 * LARGE);
}

static void same_bits_with_any_schedule(backend *be)
{
    check_repeatable(be, run_large, 8 * LARGE);
}

static const op_case cases[] = {
    {"modes_against_double", modes_against_double},
    {"layouts", layouts},
    {"by_hand", by_hand},
    {"every_bit_of_the_rounding", every_bit_of_the_rounding},
    {"the_mean_is_right", the_mean_is_right},
    {"extremes", extremes},
    {"parts_are_the_whole", parts_are_the_whole},
    {"a_bad_scale_writes_nothing", a_bad_scale_writes_nothing},
    {"ends_of_memory", ends_of_memory},
    {"same_bits_with_any_schedule", same_bits_with_any_schedule},
};
OPS_MAIN(cases)
