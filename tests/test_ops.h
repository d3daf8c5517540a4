/* test_ops.h - what the tests of ops share: every case runs on every backend present, outputs start as NaN, and what
 * lies behind and between their rows is guarded. */
#ifndef CUDPO_TEST_OPS_H
#define CUDPO_TEST_OPS_H

#include "test.h"
#include "backend/backend.h"
#include "base/rng.h"

#include <omp.h>

/* A NaN whose bits no arithmetic makes: fills guards and outputs. */
enum { POISON = 0x7fc0beef, GUARD = 64, OPS_TENSORS = 96 };
#define EPS 0x1p-24 /* half the distance of floats around 1: the relative error of one rounding */

/* The tensors of one case. */
typedef struct ops {
    backend *be;
    int count;
    struct {
        tensor t; /* all of the memory but the guard */
        int64_t words;
    } made[OPS_TENSORS];
} ops;

static inline ops ops_begin(backend *be)
{
    return (ops){.be = be};
}

/* A tensor of that stride, filled with poison up to and including the guard. */
static inline tensor ops_make(ops *o, dtype type, int64_t rows, int64_t cols, int64_t stride)
{
    const int64_t words = rows * stride + GUARD;
    uint32_t *host = malloc((size_t)words * 4);
    void *memory = NULL;
    assert_non_null(host);
    assert_true(o->count < OPS_TENSORS);
    for (int64_t i = 0; i < words; i++) {
        host[i] = POISON;
    }
    CHECK_OK(o->be->alloc(o->be, &memory, (size_t)words * 4));
    CHECK_OK(o->be->copy_in(o->be, memory, host, (size_t)words * 4));
    free(host);
    tensor t = tensor_matrix(memory, type, rows, cols);
    t.stride = stride;
    o->made[o->count].words = words;
    o->made[o->count++].t = t;
    return t;
}

static inline tensor ops_output(ops *o, int64_t rows, int64_t cols)
{
    return ops_make(o, DTYPE_F32, rows, cols, cols);
}

/* Dense host elements into a view; out of a view. */
static inline void ops_put(ops *o, tensor t, const void *host)
{
    for (int64_t r = 0; r < t.rows; r++) {
        CHECK_OK(o->be->copy_in(o->be, (char *)t.data + r * t.stride * 4,
                                (const char *)host + r * t.cols * 4, (size_t)t.cols * 4));
    }
}

static inline void ops_get(ops *o, void *host, tensor t)
{
    for (int64_t r = 0; r < t.rows; r++) {
        CHECK_OK(o->be->copy_out(o->be, (char *)host + r * t.cols * 4,
                                 (const char *)t.data + r * t.stride * 4, (size_t)t.cols * 4));
    }
}

static inline tensor ops_strided(ops *o, const float *host, int64_t rows, int64_t cols,
                                 int64_t stride)
{
    const tensor t = ops_make(o, DTYPE_F32, rows, cols, stride);
    if (host != NULL) ops_put(o, t, host);
    return t;
}

static inline tensor ops_floats(ops *o, const float *host, int64_t rows, int64_t cols)
{
    return ops_strided(o, host, rows, cols, cols);
}

static inline tensor ops_indices(ops *o, const int32_t *host, int64_t rows, int64_t cols)
{
    const tensor t = ops_make(o, DTYPE_I32, rows, cols, cols);
    ops_put(o, t, host);
    return t;
}

/* No word of the view was written since it was made as an output. */
static inline void ops_check_untouched(ops *o, tensor t)
{
    uint32_t *host = malloc((size_t)(t.rows * t.cols) * 4 + 4);
    assert_non_null(host);
    ops_get(o, host, t);
    for (int64_t i = 0; i < t.rows * t.cols; i++) {
        if (host[i] != POISON) fail_msg("element %lld was written", (long long)i);
    }
    free(host);
}

/* Gaps between rows, and the guard, still hold poison; then everything is freed. */
static inline void ops_end(ops *o)
{
    for (int n = 0; n < o->count; n++) {
        const tensor t = o->made[n].t;
        uint32_t *host = malloc((size_t)o->made[n].words * 4);
        assert_non_null(host);
        CHECK_OK(o->be->copy_out(o->be, host, t.data, (size_t)o->made[n].words * 4));
        for (int64_t i = 0; i < o->made[n].words; i++) {
            const bool inside = i < t.rows * t.stride && i % t.stride < t.cols;
            if (!inside && host[i] != POISON)
                fail_msg("tensor %d: word %lld outside of it was written", n, (long long)i);
        }
        free(host);
        o->be->free(o->be, t.data);
    }
    o->count = 0;
}

/* n normal numbers, a function of the seed. */
static inline float *random_floats(uint64_t seed, int64_t n)
{
    float *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)rng_normal(seed, 1, (uint64_t)i);
    }
    return x;
}

static inline void *zeros(int64_t n, size_t size)
{
    void *x = calloc((size_t)(n > 0 ? n : 1), size);
    assert_non_null(x);
    return x;
}

/* Every element within `tolerance` of its expected value, NaN never. */
static inline void check_close(const char *what, const float *got, const double *want, int64_t n,
                               double tolerance)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)got[i] - want[i]) <= tolerance))
            fail_msg("%s[%lld] = %.9g, want %.9g within %g", what, (long long)i, (double)got[i],
                     want[i], tolerance);
    }
}

/* Slope of f in x[i] by central differences in double: with h = 1e-5 the error is about 1e-10 of f's third derivative
 * and 1e-11 of f, far below float rounding. */
static inline double slope(double (*f)(const double *x, const void *context), double *x, int64_t i,
                           const void *context)
{
    const double h = 1e-5, old = x[i];
    x[i] = old + h;
    const double above = f(x, context);
    x[i] = old - h;
    const double below = f(x, context);
    x[i] = old;
    return (above - below) / (2 * h);
}

/* A run of an op on fixed inputs, large enough to be split over threads, that leaves n floats. */
typedef void (*op_run)(ops *o, float *result);

/* The same bits with 1, 2 and 3 threads, and again. */
static inline void check_repeatable(backend *be, op_run run, int64_t n)
{
    static const int threads[] = {1, 2, 3, 3, 1};
    const int before = omp_get_max_threads();
    float *first = zeros(n, sizeof *first), *again = zeros(n, sizeof *again);
    for (int i = 0; i < 5; i++) {
        ops o = ops_begin(be);
        omp_set_num_threads(threads[i]);
        run(&o, i == 0 ? first : again);
        ops_end(&o);
        if (i > 0 && memcmp(first, again, (size_t)n * sizeof *first) != 0)
            fail_msg("other bits with %d threads, run %d", threads[i], i);
    }
    omp_set_num_threads(before);
    free(first);
    free(again);
}

/* A case, and the program that runs all of them on every backend. */
typedef struct op_case {
    const char *name;
    void (*run)(backend *be);
} op_case;

typedef struct op_case_on {
    const op_case *c;
    backend *be;
} op_case_on;

static inline void op_case_run(void **state)
{
    const op_case_on *on = *state;
    cudpo_error_clear();
    on->c->run(on->be);
}

static inline int ops_main(const op_case *cases, int count)
{
    enum { MAX = 128 };
    static struct CMUnitTest tests[MAX];
    static op_case_on on[MAX];
    static char names[MAX][96];
    backend *const present[] = {backend_cpu()};
    int n = 0;
    for (size_t b = 0; b < sizeof present / sizeof present[0]; b++) {
        for (int i = 0; i < count && n < MAX; i++, n++) {
            on[n] = (op_case_on){&cases[i], present[b]};
            snprintf(names[n], sizeof names[n], "%s: %s", present[b]->name, cases[i].name);
            tests[n] = (struct CMUnitTest){
                .name = names[n], .test_func = op_case_run, .initial_state = &on[n]};
        }
    }
    if (n == 0) return 1; /* nothing run is nothing shown */
    return _cmocka_run_group_tests("ops", tests, (size_t)n, NULL, NULL);
}

#define OPS_MAIN(cases)                                              \
    int main(void)                                                   \
    {                                                                \
        return ops_main(cases, (int)(sizeof cases / sizeof *cases)); \
    }

#endif /* CUDPO_TEST_OPS_H */
