/* bench_ops.c - random tensors, and for each op how they are made and how it is called. */
#include "bench/bench_ops.h"
#include "preference/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cudaStream_t stream;

void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    fprintf(stderr, "bench_kernels: %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

void *device_bytes(size_t bytes)
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
void fill_random(tensor t, float scale)
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

tensor matrix(dtype type, int64_t rows, int64_t cols, float scale)
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
    x->outputs = x->gradient ? 1u << 0 | 1u << 2 | 1u << 3 : 1u << 2;
    if (x->stats) x->outputs |= 1u << 4;
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
    x->outputs = 1u << 0 | 1u << 1 | 1u << 5;
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
    x->outputs = 1u << 0 | 1u << 7;
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
    x->outputs = 1u << 0;
    x->bytes = (double)x->a * (double)x->b * 2 * 3;
}
static cudpo_status call_swiglu(bench *x)
{
    return cuda_swiglu(x->t[0], x->t[1], stream);
}
static void make_swiglu_backward(bench *x)
{
    make_swiglu(x);
    x->outputs = 1u << 2;
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
    x->outputs = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 4;
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
    x->outputs = 1u << 1;
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
    x->outputs = 1u << 0;
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
    x->outputs = 1u << 0;
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
    x->outputs = 1u << 0;
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
    x->outputs = 1u << 1;
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
    x->outputs = 1u << 1 | 1u << 2;
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
    x->outputs = 1u << 6;
    x->flops *= 2.5;
    if (call_attention(x) != CUDPO_OK) fprintf(stderr, "%s\n", cudpo_error_message());
}
static cudpo_status call_attention_backward(bench *x)
{
    return cuda_attention_backward(x->t[6], x->t[5], x->t[0], x->t[1], x->t[2], x->t[4],
                                   x->shape_of, x->s, (tensor){0}, stream);
}

/* --- the table --------------------------------------------------------------------------------------------------- */

/* An op by its pair of functions above, the sizes that they read, and of the head whether with gradient and statistics. */
#define ROW(name, functions, shape_text, A, B, C, D, with_gradient, with_stats)                    \
    {                                                                                              \
        .op = name, .shape = shape_text, .a = A, .b = B, .c = C, .d = D, .make = make_##functions, \
        .call = call_##functions, .gradient = with_gradient, .stats = with_stats                   \
    }

enum { TOKENS = 16896, PARAMETERS = 134217728 };
/* clang-format off */
bench table[] = {
    ROW("token_logprob", logprob, "1023x151936 f32->bf16", 1023, 151936, 0, 0, true, false),
    ROW("token_logprob", logprob, "1023x151936 f32->bf16 stats", 1023, 151936, 0, 0, true, true),
    ROW("token_logprob", logprob, "1023x128256 f32->bf16", 1023, 128256, 0, 0, true, false),
    ROW("token_logprob", logprob, "1023x151936 f32 no gradient", 1023, 151936, 0, 0, false, false),
    ROW("swiglu_backward", swiglu_backward, "16896x4864", TOKENS, 4864, 0, 0, false, false),
    ROW("swiglu_backward", swiglu_backward, "16896x8192", TOKENS, 8192, 0, 0, false, false),
    ROW("swiglu_backward", swiglu_backward, "16896x14336", TOKENS, 14336, 0, 0, false, false),
    ROW("rmsnorm_backward", norm_backward, "16896x896", TOKENS, 896, 0, 0, false, false),
    ROW("rmsnorm_backward", norm_backward, "16896x2048", TOKENS, 2048, 0, 0, false, false),
    ROW("rmsnorm_backward", norm_backward, "16896x4096", TOKENS, 4096, 0, 0, false, false),
    ROW("rmsnorm_backward", norm_backward, "33792x896", 2 * TOKENS, 896, 0, 0, false, false),
    ROW("rmsnorm_backward", norm_backward, "33792x2048", 2 * TOKENS, 2048, 0, 0, false, false),
    ROW("adamw", adamw, "134217728 f32, bf16 gradient and copy", PARAMETERS, 0, 0, 0, false, false),
    ROW("attention", attention, "14/2 heads of 64, 11x3x512", 14, 2, 64, 11, false, false),
    ROW("attention_backward", attention_backward, "14/2 heads of 64, 11x3x512", 14, 2, 64, 11, false, false),
    ROW("attention", attention, "32/8 heads of 64, 11x3x512", 32, 8, 64, 11, false, false),
    ROW("attention_backward", attention_backward, "32/8 heads of 64, 11x3x512", 32, 8, 64, 11, false, false),
    ROW("attention", attention, "32/8 heads of 128, 11x3x512", 32, 8, 128, 11, false, false),
    ROW("attention_backward", attention_backward, "32/8 heads of 128, 11x3x512", 32, 8, 128, 11, false, false),
    ROW("swiglu", swiglu, "16896x4864", TOKENS, 4864, 0, 0, false, false),
    ROW("add_rmsnorm", norm, "16896x896", TOKENS, 896, 0, 0, false, false),
    ROW("add_rmsnorm", norm, "16896x4096", TOKENS, 4096, 0, 0, false, false),
    ROW("sum_squares", squares, "134217728 bf16", PARAMETERS, 0, 0, 0, false, false),
    ROW("rope", rope, "16896x40 heads of 64", TOKENS, 40, 64, 0, false, false),
    ROW("bias_backward", bias, "16896x1152", TOKENS, 1152, 0, 0, false, false),
    ROW("embed", embed, "16896x896 of 151936", TOKENS, 896, 151936, 0, false, false),
    ROW("embed_backward", embed_backward, "16896x896 of 151936", TOKENS, 896, 151936, 0, false, false),
};
/* clang-format on */

const int table_rows = sizeof table / sizeof *table;
