/* bench_kernels.c - the GPU kernels on the shapes of real models: time, bandwidth, and the share of what a plain copy on
 * the same GPU reaches in the same run.
 *
 *     build-cuda/bench_kernels [--json FILE] [OP ...]
 *
 * Bytes and operations are those that the formulas above the launchers give, never counters.  Inputs are random; what a
 * call overwrites is restored before each timed call, outside of the timed region; every call works on more than twice
 * the L2, or on the next of several sets.  Columns: shape, median and least time of a call, GB/s or TFLOP/s, percent of
 * the copy (memory-bound ops), and `wrong`, the words of the output that a call after the timed ones made differently
 * from the first call, which must be 0. */
#include "kernels/kernels.h"
#include "preference/loss.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARMUP = 3, RUNS = 15, TENSORS = 16 };

/* One line of the table.  The op's tensors are t[0] ..; `saved` ones are restored before each call. */
typedef struct bench bench;
struct bench {
    const char *op, *shape;
    int64_t a, b, c, d; /* sizes, as `make` reads them */
    void (*make)(bench *x);
    cudpo_status (*call)(bench *x);
    double bytes, flops; /* of a call; flops 0: bound by memory */
    tensor t[TENSORS];
    void *saved[TENSORS];
    int output; /* the tensor that is compared */
    scratch s;
    attention_shape shape_of;
    bool gradient, stats;
};

static cudaStream_t stream;
static double copy_gbps;
static FILE *json;
static int rows_written;

static void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    fprintf(stderr, "bench_kernels: %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

static void *device_bytes(size_t bytes)
{
    void *p = NULL;
    check(cudaMalloc(&p, bytes + 256), "cudaMalloc");
    return p;
}

static uint64_t next_random(void)
{
    static uint64_t x = 88172645463325252u; /* xorshift64, Marsaglia 2003 */
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

/* Random numbers of about unit variance; a block of them, repeated. */
static void fill_random(tensor t, float scale)
{
    enum { BLOCK = 1 << 20 };
    static uint32_t block[BLOCK];
    const size_t bytes = (size_t)(t.rows * t.stride) * dtype_size(t.type);
    for (int i = 0; i < BLOCK; i++) {
        float x[2];
        for (int j = 0; j < 2; j++) {
            x[j] = scale * (float)((double)(next_random() >> 40) / 4844000.0 - 1.732);
        }
        if (t.type == DTYPE_BF16) {
            uint32_t low, high;
            memcpy(&low, &x[0], 4);
            memcpy(&high, &x[1], 4);
            block[i] = low >> 16 | (high & 0xffff0000u);
        } else {
            memcpy(&block[i], &x[0], 4);
        }
    }
    for (size_t at = 0; at < bytes; at += sizeof block) {
        const size_t n = bytes - at < sizeof block ? bytes - at : sizeof block;
        check(cudaMemcpy((char *)t.data + at, block, n, cudaMemcpyHostToDevice), "fill");
    }
}

static tensor matrix(dtype type, int64_t rows, int64_t cols, float scale)
{
    const size_t bytes = (size_t)(rows * cols) * dtype_size(type);
    const tensor t = tensor_matrix(device_bytes(bytes), type, rows, cols);
    if (type != DTYPE_I32) fill_random(t, scale);
    return t;
}

static tensor indices(int64_t n, int64_t below)
{
    int32_t *host = malloc((size_t)n * sizeof *host);
    const tensor t = tensor_vector(device_bytes((size_t)n * 4), DTYPE_I32, n);
    for (int64_t i = 0; i < n; i++) {
        host[i] = (int32_t)(next_random() % (uint64_t)below);
    }
    check(cudaMemcpy(t.data, host, (size_t)n * 4, cudaMemcpyHostToDevice), "indices");
    free(host);
    return t;
}

static void save(bench *x, int i)
{
    const size_t bytes = tensor_bytes(x->t[i]);
    x->saved[i] = device_bytes(bytes);
    check(cudaMemcpy(x->saved[i], x->t[i].data, bytes, cudaMemcpyDeviceToDevice), "save");
}

static void need_scratch(bench *x, size_t bytes)
{
    x->s = (scratch){device_bytes(bytes), bytes};
}

/* --- the ops ----------------------------------------------------------------------------------------------------- */

static void make_logprob(bench *x) /* a rows, b vocabulary */
{
    x->t[0] = matrix(DTYPE_F32, x->a, x->b, 3.0f);
    x->t[1] = indices(x->a, x->b);
    x->t[2] = matrix(DTYPE_F32, x->a, 1, 1);
    x->t[3] = matrix(DTYPE_F32, x->a, 1, 1);
    if (x->stats) x->t[4] = matrix(DTYPE_F32, x->a, ROW_STATS, 1);
    if (x->gradient) save(x, 0);
    x->output = 2;
    x->bytes = (double)x->a * (double)x->b * (x->gradient ? 6 : 4);
}
static cudpo_status call_logprob(bench *x)
{
    const logprob_tensors rows = {.logp = x->t[2],
                                  .stats = x->t[4],
                                  .scale = x->gradient ? x->t[3] : (tensor){0},
                                  .logits = x->t[0],
                                  .label = x->t[1],
                                  .gradient_type = DTYPE_BF16};
    return cuda_token_logprob(&rows, x->gradient, (tensor){0}, stream);
}

static void make_norm(bench *x) /* a tokens, b width */
{
    for (int i = 0; i < 5; i++) {
        x->t[i] = matrix(DTYPE_BF16, x->a, x->b, 1);
    }
    x->t[5] = matrix(DTYPE_F32, x->a, 1, 1);
    x->t[6] = matrix(DTYPE_BF16, 1, x->b, 1);
    x->t[7] = matrix(DTYPE_F32, 1, x->b, 1);
    need_scratch(x, cuda_rmsnorm_backward_scratch(x->a, x->b));
    x->output = 0;
    x->bytes = (double)x->a * (double)x->b * 2 * 4;
}
static cudpo_status call_norm(bench *x)
{
    return cuda_add_rmsnorm(x->t[0], x->t[5], x->t[1], x->t[2], x->t[3], x->t[6], 1e-6f, stream);
}
static void make_norm_backward(bench *x)
{
    make_norm(x);
    save(x, 0);
    save(x, 7);
}
static cudpo_status call_norm_backward(bench *x)
{
    return cuda_rmsnorm_backward(x->t[0], x->t[7], x->t[1], x->t[2], x->t[5], x->t[6], x->s,
                                 stream);
}

static void make_swiglu(bench *x) /* a tokens, b width */
{
    x->t[0] = matrix(DTYPE_BF16, x->a, x->b, 1);
    x->t[1] = matrix(DTYPE_BF16, x->a, 2 * x->b, 1);
    x->t[2] = matrix(DTYPE_BF16, x->a, 2 * x->b, 1);
    x->output = 0;
    x->bytes = (double)x->a * (double)x->b * 2 * 3;
}
static cudpo_status call_swiglu(bench *x)
{
    return cuda_swiglu(x->t[0], x->t[1], stream);
}
static void make_swiglu_backward(bench *x)
{
    make_swiglu(x);
    x->output = 2;
    x->bytes = (double)x->a * (double)x->b * 2 * 5;
}
static cudpo_status call_swiglu_backward(bench *x)
{
    return cuda_swiglu_backward(x->t[2], (tensor){0}, x->t[0], x->t[1], stream);
}

static void make_adamw(bench *x) /* a parameters */
{
    for (int i = 0; i < 3; i++) {
        x->t[i] = matrix(DTYPE_F32, x->a / 1024, 1024, i == 2 ? 0.0f : 0.02f);
    }
    x->t[3] = matrix(DTYPE_BF16, x->a / 1024, 1024, 0.02f);
    x->t[4] = matrix(DTYPE_BF16, x->a / 1024, 1024, 0.02f);
    save(x, 0);
    save(x, 1);
    save(x, 2);
    x->output = 0;
    x->bytes = (double)x->a * (12 + 12 + 2 + 2);
}
static cudpo_status call_adamw(bench *x)
{
    const adamw_tensors p = {.w = x->t[0],
                             .m = x->t[1],
                             .v = x->t[2],
                             .copy = x->t[4],
                             .gradient = x->t[3],
                             .factor = 1};
    const adamw_step step = {1e-6, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001};
    return cuda_adamw(&p, step, stream);
}

static void make_squares(bench *x)
{
    x->t[0] = matrix(DTYPE_BF16, x->a / 1024, 1024, 1);
    x->t[1] = tensor_vector(device_bytes(8), DTYPE_F64, 1);
    check(cudaMemset(x->t[1].data, 0, 8), "sum");
    save(x, 1);
    need_scratch(x, cuda_sum_squares_scratch());
    x->output = 1;
    x->bytes = (double)x->a * 2;
}
static cudpo_status call_squares(bench *x)
{
    return cuda_sum_squares(x->t[1], x->t[0], x->s, stream);
}

static void make_rope(bench *x) /* a tokens, b heads, c head dim */
{
    x->t[0] = matrix(DTYPE_BF16, x->a, x->b * x->c, 1);
    x->t[1] = matrix(DTYPE_F32, 4096, x->c / 2, 1);
    x->t[2] = matrix(DTYPE_F32, 4096, x->c / 2, 1);
    x->t[3] = indices(x->a, 4096);
    save(x, 0);
    x->bytes = (double)x->a * (double)(x->b * x->c) * 4;
}
static cudpo_status call_rope(bench *x)
{
    return cuda_rope(x->t[0], x->t[1], x->t[2], x->t[3], (int)x->c, false, (tensor){0}, stream);
}

static void make_bias(bench *x) /* a tokens, b width */
{
    x->t[0] = matrix(DTYPE_F32, 1, x->b, 1);
    x->t[1] = matrix(DTYPE_BF16, x->a, x->b, 1);
    save(x, 0);
    need_scratch(x, cuda_bias_backward_scratch(x->a, x->b));
    x->bytes = (double)x->a * (double)x->b * 2;
}
static cudpo_status call_bias(bench *x)
{
    return cuda_bias_backward(x->t[0], x->t[1], x->s, stream);
}

static void make_embed(bench *x) /* a tokens, b width, c vocabulary */
{
    x->t[0] = matrix(DTYPE_BF16, x->a, x->b, 1);
    x->t[1] = matrix(DTYPE_BF16, x->c, x->b, 1);
    x->t[2] = indices(x->a, x->c);
    x->bytes = (double)x->a * (double)x->b * 4;
}
static cudpo_status call_embed(bench *x)
{
    return cuda_embed(x->t[0], x->t[1], x->t[2], (tensor){0}, stream);
}
static void make_embed_backward(bench *x)
{
    make_embed(x);
    save(x, 1);
    need_scratch(x, cuda_embed_backward_scratch(x->a));
    x->output = 1;
    x->bytes = (double)x->a * (double)x->b * 6;
}
static cudpo_status call_embed_backward(bench *x)
{
    return cuda_embed_backward(x->t[1], x->t[0], x->t[2], x->s, (tensor){0}, stream);
}

/* Groups of a prompt and two completions, `length` tokens each. */
static tensor pack_segments(int64_t groups, int64_t length)
{
    const int64_t n = 3 * groups;
    int32_t *host = calloc((size_t)(n * SEGMENT_FIELDS), sizeof *host);
    for (int64_t i = 0; i < n; i++) {
        int32_t *s = host + i * SEGMENT_FIELDS;
        s[SEGMENT_BEGIN] = (int32_t)(i * length);
        s[SEGMENT_LENGTH] = (int32_t)length;
        s[SEGMENT_PROMPT_BEGIN] = (int32_t)(i % 3 == 0 ? 0 : i / 3 * 3 * length);
        s[SEGMENT_PROMPT_LENGTH] = (int32_t)(i % 3 == 0 ? 0 : length);
    }
    const size_t bytes = (size_t)(n * SEGMENT_FIELDS) * sizeof *host;
    const tensor t = tensor_matrix(device_bytes(bytes), DTYPE_I32, n, SEGMENT_FIELDS);
    check(cudaMemcpy(t.data, host, bytes, cudaMemcpyHostToDevice), "segments");
    free(host);
    return t;
}

static void make_attention(bench *x) /* a heads, b kv heads, c head dim, d groups of 3 * 512 */
{
    const int64_t length = 512, T = 3 * length * x->d, Q = x->a * x->c;
    const double triangle = (double)length * (double)(length + 1) / 2;
    x->shape_of = (attention_shape){(int)x->a, (int)x->b, (int)x->c, 0, 1.0f / sqrtf((float)x->c)};
    x->t[0] = matrix(DTYPE_BF16, T, Q + 2 * x->b * x->c, 1);
    x->t[1] = matrix(DTYPE_BF16, T, Q, 1);
    x->t[2] = matrix(DTYPE_F32, T, x->a, 1);
    x->t[3] = pack_segments(x->d, length);
    x->t[4] = tensor_vector(device_bytes((size_t)cuda_attention_plan_words(T, 3 * x->d) * 4),
                            DTYPE_I32, cuda_attention_plan_words(T, 3 * x->d));
    x->output = 1;
    x->flops = 4.0 * (double)x->d * (3 * triangle + 2.0 * length * length) * (double)Q;
    const cudpo_status status =
        cuda_attention_plan(x->t[4], x->t[3], (tensor){0}, T, x->shape_of, (tensor){0}, stream);
    if (status != CUDPO_OK) fprintf(stderr, "plan: %s\n", cudpo_error_message());
}
static cudpo_status call_attention(bench *x)
{
    return cuda_attention(x->t[1], x->t[2], x->t[0], x->t[4], x->shape_of, (tensor){0}, stream);
}
static void make_attention_backward(bench *x)
{
    make_attention(x);
    x->t[5] = matrix(DTYPE_BF16, x->t[1].rows, x->t[1].cols, 1);
    x->t[6] = matrix(DTYPE_BF16, x->t[0].rows, x->t[0].cols, 1);
    need_scratch(x, cuda_attention_backward_scratch(x->t[0].rows, 3 * x->d, x->shape_of, DTYPE_BF16,
                                                    x->shape_of.kv_heads));
    x->output = 6;
    x->flops *= 2.5;
    if (call_attention(x) != CUDPO_OK) fprintf(stderr, "%s\n", cudpo_error_message());
}
static cudpo_status call_attention_backward(bench *x)
{
    return cuda_attention_backward(x->t[6], x->t[5], x->t[0], x->t[1], x->t[2], x->t[4],
                                   x->shape_of, x->s, (tensor){0}, stream);
}

/* --- the table --------------------------------------------------------------------------------------------------- */

#define TOKENS 16896
static bench table[] = {
    {.op = "token_logprob",
     .shape = "1023x151936 f32->bf16",
     .a = 1023,
     .b = 151936,
     .make = make_logprob,
     .call = call_logprob,
     .gradient = true},
    {.op = "token_logprob",
     .shape = "1023x151936 f32->bf16 stats",
     .a = 1023,
     .b = 151936,
     .make = make_logprob,
     .call = call_logprob,
     .gradient = true,
     .stats = true},
    {.op = "token_logprob",
     .shape = "1023x128256 f32->bf16",
     .a = 1023,
     .b = 128256,
     .make = make_logprob,
     .call = call_logprob,
     .gradient = true},
    {.op = "token_logprob",
     .shape = "1023x151936 f32 no gradient",
     .a = 1023,
     .b = 151936,
     .make = make_logprob,
     .call = call_logprob},
    {.op = "swiglu_backward",
     .shape = "16896x4864",
     .a = TOKENS,
     .b = 4864,
     .make = make_swiglu_backward,
     .call = call_swiglu_backward},
    {.op = "swiglu_backward",
     .shape = "16896x8192",
     .a = TOKENS,
     .b = 8192,
     .make = make_swiglu_backward,
     .call = call_swiglu_backward},
    {.op = "swiglu_backward",
     .shape = "16896x14336",
     .a = TOKENS,
     .b = 14336,
     .make = make_swiglu_backward,
     .call = call_swiglu_backward},
    {.op = "rmsnorm_backward",
     .shape = "16896x896",
     .a = TOKENS,
     .b = 896,
     .make = make_norm_backward,
     .call = call_norm_backward},
    {.op = "rmsnorm_backward",
     .shape = "16896x2048",
     .a = TOKENS,
     .b = 2048,
     .make = make_norm_backward,
     .call = call_norm_backward},
    {.op = "rmsnorm_backward",
     .shape = "16896x4096",
     .a = TOKENS,
     .b = 4096,
     .make = make_norm_backward,
     .call = call_norm_backward},
    {.op = "rmsnorm_backward",
     .shape = "33792x896",
     .a = 2 * TOKENS,
     .b = 896,
     .make = make_norm_backward,
     .call = call_norm_backward},
    {.op = "rmsnorm_backward",
     .shape = "33792x2048",
     .a = 2 * TOKENS,
     .b = 2048,
     .make = make_norm_backward,
     .call = call_norm_backward},
    {.op = "adamw",
     .shape = "134217728 f32, bf16 gradient and copy",
     .a = 134217728,
     .make = make_adamw,
     .call = call_adamw},
    {.op = "attention",
     .shape = "14/2 heads of 64, 11x3x512",
     .a = 14,
     .b = 2,
     .c = 64,
     .d = 11,
     .make = make_attention,
     .call = call_attention},
    {.op = "attention_backward",
     .shape = "14/2 heads of 64, 11x3x512",
     .a = 14,
     .b = 2,
     .c = 64,
     .d = 11,
     .make = make_attention_backward,
     .call = call_attention_backward},
    {.op = "attention",
     .shape = "32/8 heads of 64, 11x3x512",
     .a = 32,
     .b = 8,
     .c = 64,
     .d = 11,
     .make = make_attention,
     .call = call_attention},
    {.op = "attention_backward",
     .shape = "32/8 heads of 64, 11x3x512",
     .a = 32,
     .b = 8,
     .c = 64,
     .d = 11,
     .make = make_attention_backward,
     .call = call_attention_backward},
    {.op = "attention",
     .shape = "32/8 heads of 128, 11x3x512",
     .a = 32,
     .b = 8,
     .c = 128,
     .d = 11,
     .make = make_attention,
     .call = call_attention},
    {.op = "attention_backward",
     .shape = "32/8 heads of 128, 11x3x512",
     .a = 32,
     .b = 8,
     .c = 128,
     .d = 11,
     .make = make_attention_backward,
     .call = call_attention_backward},
    {.op = "swiglu",
     .shape = "16896x4864",
     .a = TOKENS,
     .b = 4864,
     .make = make_swiglu,
     .call = call_swiglu},
    {.op = "add_rmsnorm",
     .shape = "16896x896",
     .a = TOKENS,
     .b = 896,
     .make = make_norm,
     .call = call_norm},
    {.op = "add_rmsnorm",
     .shape = "16896x4096",
     .a = TOKENS,
     .b = 4096,
     .make = make_norm,
     .call = call_norm},
    {.op = "sum_squares",
     .shape = "134217728 bf16",
     .a = 134217728,
     .make = make_squares,
     .call = call_squares},
    {.op = "rope",
     .shape = "16896x40 heads of 64",
     .a = TOKENS,
     .b = 40,
     .c = 64,
     .make = make_rope,
     .call = call_rope},
    {.op = "bias_backward",
     .shape = "16896x1152",
     .a = TOKENS,
     .b = 1152,
     .make = make_bias,
     .call = call_bias},
    {.op = "embed",
     .shape = "16896x896 of 151936",
     .a = TOKENS,
     .b = 896,
     .c = 151936,
     .make = make_embed,
     .call = call_embed},
    {.op = "embed_backward",
     .shape = "16896x896 of 151936",
     .a = TOKENS,
     .b = 896,
     .c = 151936,
     .make = make_embed_backward,
     .call = call_embed_backward},
};

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void restore(bench *x)
{
    for (int i = 0; i < TENSORS; i++) {
        if (x->saved[i] != NULL)
            check(cudaMemcpyAsync(x->t[i].data, x->saved[i], tensor_bytes(x->t[i]),
                                  cudaMemcpyDeviceToDevice, stream),
                  "restore");
    }
}

static int64_t differing(const uint32_t *a, const uint32_t *b, size_t bytes)
{
    int64_t n = 0;
    for (size_t i = 0; i < bytes / 4; i++) {
        n += a[i] != b[i];
    }
    return n;
}

static float timed_call(bench *x, cudaEvent_t begin, cudaEvent_t end)
{
    float ms = 0;
    restore(x);
    check(cudaEventRecord(begin, stream), "event");
    if (x->call(x) != CUDPO_OK) {
        fprintf(stderr, "bench_kernels: %s: %s\n", x->op, cudpo_error_message());
        exit(1);
    }
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), x->op);
    check(cudaEventElapsedTime(&ms, begin, end), "event");
    return ms;
}

static void line(bench *x, float median, float least, int64_t wrong)
{
    const double gbps = x->bytes / (double)median * 1e-6, tflops = x->flops / (double)median * 1e-9;
    const double percent = x->bytes > 0 ? 100 * gbps / copy_gbps : 0;
    printf("%-18s %-38s %9.1f us (least %9.1f) %7.0f GB/s %5.1f %% of the copy %6.1f TFLOP/s wrong "
           "%lld\n",
           x->op, x->shape, (double)median * 1e3, (double)least * 1e3, gbps, percent, tflops,
           (long long)wrong);
    fflush(stdout);
    if (json == NULL) return;
    fprintf(json,
            "%s\n  {\"op\": \"%s\", \"shape\": \"%s\", \"median_us\": %.2f, \"min_us\": %.2f, "
            "\"bytes\": %.0f, "
            "\"flops\": %.0f, \"gbps\": %.1f, \"tflops\": %.1f, \"percent_of_copy\": %.1f, "
            "\"wrong\": %lld}",
            rows_written++ > 0 ? "," : "", x->op, x->shape, (double)median * 1e3,
            (double)least * 1e3, x->bytes, x->flops, gbps, tflops, percent, (long long)wrong);
    fflush(json);
}

static void measure(bench *x)
{
    cudaEvent_t begin, end;
    float ms[RUNS];
    x->make(x);
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    const size_t bytes = tensor_bytes(x->t[x->output]);
    uint32_t *first = malloc(bytes), *last = malloc(bytes);
    timed_call(x, begin, end);
    check(cudaMemcpy(first, x->t[x->output].data, bytes, cudaMemcpyDeviceToHost), "first");
    for (int i = 0; i < WARMUP; i++) {
        timed_call(x, begin, end);
    }
    for (int i = 0; i < RUNS; i++) {
        ms[i] = timed_call(x, begin, end);
    }
    check(cudaMemcpy(last, x->t[x->output].data, bytes, cudaMemcpyDeviceToHost), "last");
    qsort(ms, RUNS, sizeof *ms, by_value);
    line(x, ms[RUNS / 2], ms[0], differing(first, last, bytes));
    free(first);
    free(last);
    for (int i = 0; i < TENSORS; i++) {
        cudaFree(x->t[i].data);
        cudaFree(x->saved[i]);
    }
    cudaFree(x->s.data);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
}

/* What a copy of 2 GB reaches, reads and writes counted. */
static void measure_copy(void)
{
    const size_t bytes = (size_t)2 << 30;
    void *from = device_bytes(bytes), *to = device_bytes(bytes);
    cudaEvent_t begin, end;
    float ms[RUNS];
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    fill_random(tensor_matrix(from, DTYPE_F32, 1, (int64_t)(bytes / 4)), 1);
    for (int i = -WARMUP; i < RUNS; i++) {
        check(cudaEventRecord(begin, stream), "event");
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copy");
        check(cudaEventRecord(end, stream), "event");
        check(cudaEventSynchronize(end), "copy");
        if (i >= 0) check(cudaEventElapsedTime(&ms[i], begin, end), "event");
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    copy_gbps = 2 * (double)bytes / (double)ms[RUNS / 2] * 1e-6;
    cudaFree(from);
    cudaFree(to);
}

static bool chosen(const char *op, int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            i++;
            continue;
        }
        any = true;
        if (strcmp(argv[i], op) == 0) return true;
    }
    return !any;
}

int main(int argc, char **argv)
{
    struct cudaDeviceProp device;
    int driver = 0, runtime = 0;
    check(cudaGetDeviceProperties(&device, 0), "no GPU");
    check(cudaDriverGetVersion(&driver), "driver");
    check(cudaRuntimeGetVersion(&runtime), "runtime");
    check(cudaStreamCreate(&stream), "stream");
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) json = fopen(argv[i + 1], "w");
    }
    measure_copy();
    printf("%s, driver %d, runtime %d, copy %.0f GB/s\n", device.name, driver, runtime, copy_gbps);
    if (json != NULL)
        fprintf(json,
                "{\"device\": \"%s\", \"driver\": %d, \"runtime\": %d, \"copy_gbps\": %.1f, "
                "\"rows\": [",
                device.name, driver, runtime, copy_gbps);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (chosen(table[i].op, argc, argv)) measure(&table[i]);
    }
    if (json != NULL) {
        fprintf(json, "\n]}\n");
        fclose(json);
    }
    return 0;
}
