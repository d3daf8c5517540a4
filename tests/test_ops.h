/* test_ops.h - what the tests of ops share.  The same source runs on the CPU backend and, built with TEST_CUDA, on the
 * CUDA backend, whose kernels are on the emulator (tests/simt/) or, with TEST_GPU, on the device.  Outputs start as NaN,
 * and what lies before, behind and between their rows is guarded. */
#ifndef CUDPO_TEST_OPS_H
#define CUDPO_TEST_OPS_H

#include "test.h"
#include "backend/backend.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#ifndef TEST_GPU
#define TEST_SIMT /* on the emulator */
#include "simt/schedule.h"
#endif
#endif
#include "base/rng.h"

#include <omp.h>

/* A NaN whose bits no arithmetic makes, also as two bf16: fills guards and outputs. */
#define POISON 0x7fd37fd3u
enum { GUARD = 64, OPS_TENSORS = 96 };
#define EPS 0x1p-24 /* half the distance of floats around 1: the relative error of one rounding */
#define EPS_BF16 0x1p-8 /* of bf16 */

/* Under a checker that knows where memory ends, it ends with the last element: no guard hides who reads behind it. */
#if defined(__SANITIZE_ADDRESS__) || defined(TEST_RACE)
enum { CHECKED_END = true };
#else
enum { CHECKED_END = false };
#endif

/* The tensors of one case. */
typedef struct ops {
    backend *be;
    int count;
    struct {
        tensor t;      /* all of the memory but the guards */
        void *memory;  /* with the guards */
        size_t offset; /* bytes of the guard in front */
        size_t bytes;  /* of all */
    } made[OPS_TENSORS];
} ops;

static inline ops ops_begin(backend *be)
{
    return (ops){.be = be};
}

static inline dtype bf16_or_f32(bool bf16)
{
    return bf16 ? DTYPE_BF16 : DTYPE_F32;
}

/* A tensor of that stride, filled with poison; so are the guards around it.  Its data is `shift` elements behind a
 * 256-byte boundary. */
static inline tensor ops_make_at(ops *o, dtype type, int64_t rows, int64_t cols, int64_t stride,
                                 int shift)
{
    const size_t size = dtype_size(type), offset = 256 + (size_t)shift * size;
    const size_t used = rows > 0 ? (size_t)((rows - 1) * stride + cols) * size : 0;
    const size_t guarded = (offset + (size_t)(rows * stride) * size + GUARD * 4 + 3) / 4 * 4;
    const size_t bytes = CHECKED_END ? offset + used : guarded;
    uint32_t *host = malloc(bytes + 4);
    void *memory = NULL;
    assert_non_null(host);
    assert_true(o->count < OPS_TENSORS);
    for (size_t i = 0; i < (bytes + 3) / 4; i++) {
        host[i] = POISON;
    }
    CHECK_OK(o->be->alloc(o->be, &memory, bytes));
    CHECK_OK(o->be->copy_in(o->be, memory, host, bytes));
    CHECK_OK(o->be->sync(o->be)); /* host goes away */
    free(host);
    tensor t = tensor_matrix((char *)memory + offset, type, rows, cols);
    t.stride = stride;
    o->made[o->count].memory = memory;
    o->made[o->count].offset = offset;
    o->made[o->count].bytes = bytes;
    o->made[o->count++].t = t;
    return t;
}

static inline tensor ops_make(ops *o, dtype type, int64_t rows, int64_t cols, int64_t stride)
{
    return ops_make_at(o, type, rows, cols, stride, 0);
}

static inline tensor ops_output(ops *o, int64_t rows, int64_t cols)
{
    return ops_make(o, DTYPE_F32, rows, cols, cols);
}

static inline tensor ops_output_as(ops *o, dtype type, int64_t rows, int64_t cols)
{
    return ops_make(o, type, rows, cols, cols);
}

/* Host memory for all of a view, gaps between its rows too. */
static inline char *ops_image(tensor t, size_t *bytes)
{
    *bytes = t.rows > 0 ? (size_t)((t.rows - 1) * t.stride + t.cols) * dtype_size(t.type) : 0;
    char *image = malloc(*bytes + 1);
    assert_non_null(image);
    return image;
}

/* Dense host elements of the tensor's type into a view, whose gaps stay; out of a view. */
static inline void ops_put(ops *o, tensor t, const void *host)
{
    const size_t size = dtype_size(t.type), row = (size_t)t.cols * size;
    size_t bytes;
    char *image = ops_image(t, &bytes);
    if (!tensor_dense(t)) CHECK_OK(o->be->copy_out(o->be, image, t.data, bytes));
    for (int64_t r = 0; r < t.rows; r++) {
        memcpy(image + (size_t)(r * t.stride) * size, (const char *)host + (size_t)r * row, row);
    }
    CHECK_OK(o->be->copy_in(o->be, t.data, image, bytes));
    CHECK_OK(o->be->sync(o->be)); /* the image goes away */
    free(image);
}

static inline void ops_get(ops *o, void *host, tensor t)
{
    const size_t size = dtype_size(t.type), row = (size_t)t.cols * size;
    size_t bytes;
    char *image = ops_image(t, &bytes);
    CHECK_OK(o->be->copy_out(o->be, image, t.data, bytes));
    for (int64_t r = 0; r < t.rows; r++) {
        memcpy((char *)host + (size_t)r * row, image + (size_t)(r * t.stride) * size, row);
    }
    free(image);
}

static inline uint16_t bf16_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16); /* to nearest, ties to even */
}

static inline float bf16_value(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* x [n] as a tensor of that type holds it. */
static inline void round_to(dtype type, float *x, int64_t n)
{
    for (int64_t i = 0; type == DTYPE_BF16 && i < n; i++) {
        x[i] = bf16_value(bf16_bits(x[i]));
    }
}

/* Dense host floats into a float tensor, rounded to its type; out of one. */
static inline void ops_put_floats(ops *o, tensor t, const float *host)
{
    if (t.type == DTYPE_F32) {
        ops_put(o, t, host);
        return;
    }
    const int64_t n = t.rows * t.cols;
    uint16_t *half = malloc((size_t)n * sizeof *half + 1);
    assert_non_null(half);
    for (int64_t i = 0; i < n; i++) {
        half[i] = bf16_bits(host[i]);
    }
    ops_put(o, t, half);
    free(half);
}

static inline void ops_get_floats(ops *o, float *host, tensor t)
{
    if (t.type == DTYPE_F32) {
        ops_get(o, host, t);
        return;
    }
    const int64_t n = t.rows * t.cols;
    uint16_t *half = malloc((size_t)n * sizeof *half + 1);
    assert_non_null(half);
    ops_get(o, half, t);
    for (int64_t i = 0; i < n; i++) {
        host[i] = bf16_value(half[i]);
    }
    free(half);
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

static inline tensor ops_floats_as(ops *o, dtype type, const float *host, int64_t rows,
                                   int64_t cols)
{
    const tensor t = ops_make(o, type, rows, cols, cols);
    ops_put_floats(o, t, host);
    return t;
}

static inline tensor ops_indices(ops *o, const int32_t *host, int64_t rows, int64_t cols)
{
    const tensor t = ops_make(o, DTYPE_I32, rows, cols, cols);
    ops_put(o, t, host);
    return t;
}

/* No element of the view was written since it was made as an output. */
static inline void ops_check_untouched(ops *o, tensor t)
{
    const size_t bytes = (size_t)(t.rows * t.cols) * dtype_size(t.type);
    uint16_t *host = malloc(bytes + 1);
    assert_non_null(host);
    ops_get(o, host, t);
    for (size_t i = 0; i < bytes / 2; i++) {
        if (host[i] != (uint16_t)POISON) fail_msg("half word %zu was written", i);
    }
    free(host);
}

/* Guards, and gaps between rows, still hold poison; then everything is freed. */
static inline void ops_end(ops *o)
{
    for (int n = 0; n < o->count; n++) {
        const tensor t = o->made[n].t;
        const size_t bytes = o->made[n].bytes, row = (size_t)t.stride * dtype_size(t.type);
        const size_t begin = o->made[n].offset;
        const size_t width = (size_t)t.cols * dtype_size(t.type);
        uint16_t *host = malloc(bytes);
        assert_non_null(host);
        CHECK_OK(o->be->copy_out(o->be, host, o->made[n].memory, bytes));
        for (int64_t r = -1; r < t.rows; r++) { /* what lies before the rows, and behind each */
            size_t i = r < 0 ? 0 : begin + (size_t)r * row + width;
            const size_t next = r + 1 < t.rows ? begin + (size_t)(r + 1) * row : bytes;
            for (; i < next; i += 2) {
                if (host[i / 2] != (uint16_t)POISON)
                    fail_msg("tensor %d: byte %zd outside of it was written", n,
                             (ptrdiff_t)(i - begin));
            }
        }
        free(host);
        o->be->free(o->be, o->made[n].memory);
    }
    o->count = 0;
}

/* The bits that ops have set since the last look. */
static inline uint32_t faults_of(backend *be)
{
    uint32_t bits = 77;
    CHECK_OK(be->faults(be, &bits));
    return bits;
}

static inline void check_fault(backend *be, uint32_t want)
{
    assert_int_equal(faults_of(be), want);
}

#ifdef TEST_CUDA
static inline cudpo_stream stream_of(backend *be)
{
    return ((cuda_backend *)be)->stream;
}
#endif

/* A view that begins that many bytes further on. */
static inline tensor moved(tensor t, ptrdiff_t bytes)
{
    t.data = (char *)t.data + bytes;
    return t;
}

/* AdamW with nothing but these. */
static inline cudpo_status plain_adamw(backend *be, tensor w, tensor m, tensor v, tensor gradient,
                                       float factor, adamw_step step)
{
    const adamw_tensors t = {.w = w, .m = m, .v = v, .gradient = gradient, .factor = factor};
    return be->adamw(be, &t, step);
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

/* The same bits with 1, 2 and 3 threads, and again; on the emulator in every schedule. */
static inline void check_repeatable(backend *be, op_run run, int64_t n)
{
    static const int threads[] = {1, 2, 3, 3, 1};
    const int before = omp_get_max_threads();
    float *first = zeros(n, sizeof *first), *again = zeros(n, sizeof *again);
    for (int i = 0; i < 5; i++) {
        ops o = ops_begin(be);
        omp_set_num_threads(threads[i]);
#ifdef TEST_SIMT
        static const char *const schedules[] = {"fwd", "rev", "rand:1", "rand:2", "rand:3"};
        simt_set_schedule(schedules[i]);
#endif
        run(&o, i == 0 ? first : again);
        ops_end(&o);
        if (i > 0 && memcmp(first, again, (size_t)n * sizeof *first) != 0)
            fail_msg("other bits with %d threads, run %d", threads[i], i);
    }
#ifdef TEST_SIMT
    simt_set_schedule(NULL);
#endif
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
#ifdef TEST_CUDA
    backend *present[1] = {NULL};
    if (backend_cuda_open(&present[0], NULL) != CUDPO_OK) {
#ifdef TEST_SIMT
        printf("failed: %s\n", cudpo_error_message());
        return 1; /* the emulator is always there */
#else
        printf("skipped: %s\n", cudpo_error_message());
        return TEST_SKIPPED;
#endif
    }
#else
    backend *const present[] = {backend_cpu()};
#endif
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
    const int failed = _cmocka_run_group_tests("ops", tests, (size_t)n, NULL, NULL);
#ifdef TEST_CUDA
    present[0]->close(present[0]);
#endif
    return failed;
}

#define OPS_MAIN(cases)                                              \
    int main(void)                                                   \
    {                                                                \
        return ops_main(cases, (int)(sizeof cases / sizeof *cases)); \
    }

#endif /* CUDPO_TEST_OPS_H */
