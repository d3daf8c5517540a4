/* gemm.c - matrix products by cuBLASLt, with algorithms that were timed, or, with $CUDPO_GEMM=first, with its own choice.
 *
 * cuBLASLt sees columns where we see rows: a row-major matrix is its own transpose to it.  c = op(a) op(b) is therefore
 * asked for as c' = op(b)' op(a)', with the operands swapped and nothing moved. */
#include "backend/cuda/gemm.h"
#include "backend/cuda/runtime.h"
#include "base/file.h"
#include "base/log.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORKSPACE = 32 << 20, /* bytes; what NVIDIA recommends for Hopper */
    PLANS = 1024,         /* shapes that are kept at a time */
    NEAR = 4,             /* slots that a shape may stand in */
    CANDIDATES = 8,       /* algorithms that are timed for a shape */
    REPEATS = 3           /* of each, after one to warm up */
};

/* A shape and what cuBLASLt needs for it. */
typedef struct plan {
    gemm_shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool used;
} plan;

struct cuda_gemm {
    cublasLtHandle_t handle;
    void *workspace;
    gemm_table *own, *shared; /* of this run, of all on such a GPU; neither where `first` */
    bool first;               /* $CUDPO_GEMM=first: nothing is timed */
    bool wait;                /* $CUDPO_SYNC: an error is that of the product that made it */
    plan plans[PLANS];
};

typedef struct operands {
    const void *a, *b;
    void *c;
} operands;

static cudpo_status failed(const char *where, const char *what, cublasStatus_t error)
{
    const cudpo_status code = error == CUBLAS_STATUS_ALLOC_FAILED ? CUDPO_ENOMEM : CUDPO_EDEVICE;
    return cudpo_fail(code, where, "%.*s: %s%s", (int)strcspn(what, "("), what,
                      cublasLtGetStatusString(error),
                      error == CUBLAS_STATUS_EXECUTION_FAILED ? cuda_device_remedy() : "");
}

#define LT_TRY(call)                                                                   \
    do {                                                                               \
        const cublasStatus_t error_ = (call);                                          \
        if (error_ != CUBLAS_STATUS_SUCCESS) return failed(CUDPO_HERE, #call, error_); \
    } while (0)

static cudaDataType_t type_of(dtype type)
{
    return type == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The largest power of two, 256 at most, that divides the address. */
static uint32_t alignment_of(const void *p)
{
    const uintptr_t bits = (uintptr_t)p | 256;
    return (uint32_t)(bits & (~bits + 1));
}

static cudpo_status layout(cublasLtMatrixLayout_t *out, dtype type, int64_t rows, int64_t cols,
                           int64_t stride)
{
    LT_TRY(cublasLtMatrixLayoutCreate(out, type_of(type), (uint64_t)cols, (uint64_t)rows, stride));
    return CUDPO_OK;
}

static cudpo_status describe(plan *p)
{
    const gemm_shape *s = &p->shape;
    const int32_t op_a = s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N; /* our b is its A */
    const int32_t op_b = s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    /* Sums in fp32; without TF32 where the inputs are fp32. */
    LT_TRY(cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_TRY(cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                          sizeof op_a));
    LT_TRY(cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                          sizeof op_b));
    CUDPO_TRY(layout(&p->a, s->type, s->transpose_b ? s->N : s->K, s->transpose_b ? s->K : s->N,
                     s->b_stride));
    CUDPO_TRY(layout(&p->b, s->type, s->transpose_a ? s->K : s->M, s->transpose_a ? s->M : s->K,
                     s->a_stride));
    return layout(&p->c, s->c_type, s->M, s->N, s->c_stride);
}

static void plan_free(plan *p)
{
    if (p->c != NULL) (void)cublasLtMatrixLayoutDestroy(p->c);
    if (p->b != NULL) (void)cublasLtMatrixLayoutDestroy(p->b);
    if (p->a != NULL) (void)cublasLtMatrixLayoutDestroy(p->a);
    if (p->product != NULL) (void)cublasLtMatmulDescDestroy(p->product);
    *p = (plan){0};
}

static cudpo_status no_algorithm(const gemm_shape *s)
{
    return cudpo_fail(CUDPO_EDEVICE, CUDPO_HERE,
                      "cuBLASLt has no algorithm for a product of %lld x %lld x %lld",
                      (long long)s->M, (long long)s->N, (long long)s->K);
}

/* Algorithms for a shape, the likely best first.  None that sums in an order of chance: partial sums of a split K are
 * kept in fp32 and added by a second kernel. */
static cudpo_status ask_into(cublasLtMatmulHeuristicResult_t *results, int *count,
                             const cuda_gemm *g, const plan *p, cublasLtMatmulPreference_t wish)
{
    const size_t workspace = WORKSPACE;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const gemm_shape *s = &p->shape;
    int found = 0;
#define SET(attribute, value) \
    LT_TRY(cublasLtMatmulPreferenceSetAttribute(wish, attribute, &(value), sizeof(value)))
    SET(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    SET(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s->b_alignment);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s->a_alignment);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s->c_alignment);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s->c_alignment);
#undef SET
    LT_TRY(cublasLtMatmulAlgoGetHeuristic(g->handle, p->product, p->a, p->b, p->c, p->c, wish,
                                          CANDIDATES, results, &found));
    *count = 0;
    for (int i = 0; i < found; i++) { /* what is no algorithm says so in its state */
        if (results[i].state == CUBLAS_STATUS_SUCCESS) results[(*count)++] = results[i];
    }
    return *count > 0 ? CUDPO_OK : no_algorithm(s);
}

static cudpo_status ask(cublasLtMatmulHeuristicResult_t *results, int *count, const cuda_gemm *g,
                        const plan *p)
{
    cublasLtMatmulPreference_t wish;
    LT_TRY(cublasLtMatmulPreferenceCreate(&wish));
    const cudpo_status status = ask_into(results, count, g, p, wish);
    (void)cublasLtMatmulPreferenceDestroy(wish);
    return status;
}

/* d = op(a) op(b) + beta c, enqueued. */
static cublasStatus_t enqueue(const cuda_gemm *g, const plan *p,
                              const cublasLtMatmulAlgo_t *algorithm, void *d, const operands *o,
                              cudaStream_t stream)
{
    const float one = 1.0f, beta = p->shape.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(g->handle, p->product, &one, o->b, p->a, o->a, p->b, &beta, o->c, p->c, d,
                          p->c, algorithm, g->workspace, WORKSPACE, stream);
}

static cudpo_status multiply(const cuda_gemm *g, const plan *p,
                             const cublasLtMatmulAlgo_t *algorithm, void *d, const operands *o,
                             cudaStream_t stream)
{
    const cublasStatus_t error = enqueue(g, p, algorithm, d, o, stream);
    if (error != CUBLAS_STATUS_SUCCESS) return failed(CUDPO_HERE, "cublasLtMatmul", error);
    if (g->wait) CUDA_TRY(cudaStreamSynchronize(stream));
    return CUDPO_OK;
}

/* *milliseconds stays as it is where the algorithm turns out not to be for such a product. */
static cudpo_status time_one(float *milliseconds, const cuda_gemm *g, const plan *p,
                             const cublasLtMatmulAlgo_t *algorithm, void *d, const operands *o,
                             cudaStream_t stream, const cudaEvent_t event[2])
{
    const cublasStatus_t error = enqueue(g, p, algorithm, d, o, stream);
    if (error == CUBLAS_STATUS_NOT_SUPPORTED || error == CUBLAS_STATUS_INVALID_VALUE)
        return CUDPO_OK;
    if (error != CUBLAS_STATUS_SUCCESS) return failed(CUDPO_HERE, "cublasLtMatmul", error);
    CUDA_TRY(cudaEventRecord(event[0], stream));
    for (int i = 0; i < REPEATS; i++) {
        CUDPO_TRY(multiply(g, p, algorithm, d, o, stream));
    }
    CUDA_TRY(cudaEventRecord(event[1], stream));
    CUDA_TRY(cudaEventSynchronize(event[1]));
    CUDA_TRY(cudaEventElapsedTime(milliseconds, event[0], event[1]));
    return CUDPO_OK;
}

/* The fastest of the candidates.  d is overwritten. */
static cudpo_status time_all(int *best, const cuda_gemm *g, const plan *p,
                             const cublasLtMatmulHeuristicResult_t *candidates, int count, void *d,
                             const operands *o, cudaStream_t stream)
{
    cudaEvent_t event[2] = {NULL, NULL};
    float least = INFINITY;
    cudpo_status status = CUDPO_OK;
    for (int i = 0; i < 2 && status == CUDPO_OK; i++) {
        const cudaError_t error = cudaEventCreate(&event[i]);
        if (error != cudaSuccess) status = cuda_failed(CUDPO_HERE, "cudaEventCreate", error);
    }
    for (int i = 0; i < count && status == CUDPO_OK; i++) {
        float milliseconds = INFINITY;
        status = time_one(&milliseconds, g, p, &candidates[i].algo, d, o, stream, event);
        if (!(milliseconds < least)) continue;
        least = milliseconds;
        *best = i;
    }
    for (int i = 0; i < 2; i++) {
        if (event[i] != NULL) (void)cudaEventDestroy(event[i]);
    }
    if (status == CUDPO_OK && least == INFINITY) return no_algorithm(&p->shape);
    return status;
}

/* An algorithm for p by the clock.  Where c is added to, products are timed into memory of their own; where there is none,
 * cuBLASLt's own first choice must do, and *settled is false: with more memory it might be another. */
static cudpo_status choose(bool *settled, const cuda_gemm *g, plan *p, const operands *o,
                           cudaStream_t stream)
{
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES];
    int count = 0, best = 0;
    const gemm_shape *s = &p->shape;
    void *d = o->c;
    CUDPO_TRY(ask(candidates, &count, g, p));
    p->algorithm = candidates[0].algo;
    *settled = true;
    if (count == 1) return CUDPO_OK;
    if (s->accumulate) {
        const size_t bytes = (size_t)(s->M * s->c_stride) * dtype_size(s->c_type);
        const cudaError_t error = cudaMalloc(&d, bytes);
        if (error == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            *settled = false;
            return CUDPO_OK;
        }
        if (error != cudaSuccess) return cuda_failed(CUDPO_HERE, "cudaMalloc", error);
    }
    const cudpo_status status = time_all(&best, g, p, candidates, count, d, o, stream);
    if (s->accumulate) (void)cudaFree(d);
    p->algorithm = candidates[best].algo;
    return status;
}

static cudpo_status take_first(const cuda_gemm *g, plan *p)
{
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES];
    int count = 0;
    CUDPO_TRY(ask(candidates, &count, g, p));
    p->algorithm = candidates[0].algo;
    return CUDPO_OK;
}

/* An algorithm of a table fits this very shape: it was timed for one like it.  If not, cuBLASLt's first choice. */
static cudpo_status fit(const cuda_gemm *g, plan *p)
{
    cublasLtMatmulHeuristicResult_t result;
    if (cublasLtMatmulAlgoCheck(g->handle, p->product, p->a, p->b, p->c, p->c, &p->algorithm,
                                &result) == CUBLAS_STATUS_SUCCESS &&
        result.workspaceSize <= WORKSPACE)
        return CUDPO_OK;
    return take_first(g, p);
}

/* The algorithm of p: that which the run took before, else that of all runs on such a GPU, else the fastest, which is that of
 * all runs from now on. */
static cudpo_status find_or_choose(cuda_gemm *g, plan *p, const operands *o, cudaStream_t stream)
{
    const gemm_shape *s = &p->shape;
    if (g->first) return take_first(g, p);
    if (gemm_table_find(g->own, s, &p->algorithm)) return fit(g, p);
    if (!gemm_table_find(g->shared, s, &p->algorithm)) {
        bool settled;
        CUDPO_TRY(choose(&settled, g, p, o, stream));
        if (settled) CUDPO_TRY(gemm_table_add(g->shared, s, &p->algorithm));
        /* Another process may have been first. */
        (void)gemm_table_find(g->shared, s, &p->algorithm);
    }
    CUDPO_TRY(gemm_table_add(g->own, s, &p->algorithm));
    return fit(g, p);
}

static cudpo_status make_plan(cuda_gemm *g, plan *p, const gemm_shape *shape, const operands *o,
                              cudaStream_t stream)
{
    p->shape = *shape;
    CUDPO_TRY(describe(p));
    CUDPO_TRY(find_or_choose(g, p, o, stream));
    p->used = true;
    return CUDPO_OK;
}

static size_t slot_of(const gemm_shape *s)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over words */
    const int64_t words[] = {s->M,           s->N,           s->K,           s->a_stride,
                             s->b_stride,    s->c_stride,    s->a_alignment, s->b_alignment,
                             s->c_alignment, s->transpose_a, s->transpose_b, s->accumulate,
                             s->type,        s->c_type};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        hash = (hash ^ (uint64_t)words[i]) * 0x100000001b3u;
    }
    return (size_t)(hash >> 32) % PLANS;
}

static bool same_shape(const gemm_shape *a, const gemm_shape *b)
{
    return a->M == b->M && a->N == b->N && a->K == b->K && a->a_stride == b->a_stride &&
           a->b_stride == b->b_stride && a->c_stride == b->c_stride &&
           a->a_alignment == b->a_alignment && a->b_alignment == b->b_alignment &&
           a->c_alignment == b->c_alignment && a->type == b->type && a->c_type == b->c_type &&
           a->transpose_a == b->transpose_a && a->transpose_b == b->transpose_b &&
           a->accumulate == b->accumulate;
}

/* The plan of a shape.  One that is new takes a free slot near its own, or else its own. */
static cudpo_status plan_for(plan **out, cuda_gemm *g, const gemm_shape *shape, const operands *o,
                             cudaStream_t stream)
{
    const size_t own = slot_of(shape);
    plan *p = &g->plans[own];
    for (size_t i = NEAR; i-- > 0;) {
        plan *near = &g->plans[(own + i) % PLANS];
        if (near->used && same_shape(&near->shape, shape)) {
            *out = near;
            return CUDPO_OK;
        }
        if (!near->used) p = near;
    }
    plan_free(p);
    const cudpo_status status = make_plan(g, p, shape, o, stream);
    if (status != CUDPO_OK) plan_free(p);
    *out = p;
    return status;
}

static bool is_matrix(tensor t)
{
    return t.cols >= 1 && (t.type == DTYPE_F32 || t.type == DTYPE_BF16) &&
           tensor_is(t, t.type, t.rows, t.cols) && (uintptr_t)t.data % dtype_size(t.type) == 0;
}

cudpo_status cuda_gemm_run(cuda_gemm *g, tensor c, tensor a, bool transpose_a, tensor b,
                           bool transpose_b, float beta, cudaStream_t stream)
{
    const int64_t M = transpose_a ? a.cols : a.rows, K = transpose_a ? a.rows : a.cols;
    const int64_t N = transpose_b ? b.rows : b.cols;
    CUDPO_REQUIRE(is_matrix(a) && is_matrix(b) && is_matrix(c));
    CUDPO_REQUIRE(b.type == a.type && (c.type == a.type || c.type == DTYPE_F32));
    CUDPO_REQUIRE((transpose_b ? b.cols : b.rows) == K);
    CUDPO_REQUIRE(c.rows == M && c.cols == N);
    CUDPO_REQUIRE(beta == 0.0f || beta == 1.0f);
    if (M == 0 || N == 0) return CUDPO_OK;
    if (K == 0) { /* an empty sum */
        const size_t size = dtype_size(c.type);
        if (beta == 0.0f)
            CUDA_TRY(cudaMemset2DAsync(c.data, (size_t)c.stride * size, 0, (size_t)N * size,
                                       (size_t)M, stream));
        return CUDPO_OK;
    }
    const gemm_shape shape = {.M = M,
                              .N = N,
                              .K = K,
                              .a_stride = a.stride,
                              .b_stride = b.stride,
                              .c_stride = c.stride,
                              .a_alignment = alignment_of(a.data),
                              .b_alignment = alignment_of(b.data),
                              .c_alignment = alignment_of(c.data),
                              .type = a.type,
                              .c_type = c.type,
                              .transpose_a = transpose_a,
                              .transpose_b = transpose_b,
                              .accumulate = beta != 0.0f};
    const operands o = {.a = a.data, .b = b.data, .c = c.data};
    plan *p;
    CUDPO_TRY(plan_for(&p, g, &shape, &o, stream));
    return multiply(g, p, &p->algorithm, c.data, &o, stream);
}

/* GPU-VERSION: for which an algorithm is valid. */
static cudpo_status name_device(char out[GEMM_DEVICE])
{
    struct cudaDeviceProp properties;
    int device = 0;
    CUDA_TRY(cudaGetDevice(&device));
    CUDA_TRY(cudaGetDeviceProperties(&properties, device));
    snprintf(out, GEMM_DEVICE, "%s-%zu", properties.name, cublasLtGetVersion());
    for (char *c = out; *c != '\0'; c++) {
        if (*c == ' ' || *c == '/') *c = '-';
    }
    return CUDPO_OK;
}

static cudpo_status open_tables(cuda_gemm *g, const char *folder)
{
    char device[GEMM_DEVICE], name[GEMM_DEVICE + 16];
    CUDPO_TRY(name_device(device));
    CUDPO_TRY(gemm_table_open(&g->own, device));
    CUDPO_TRY(gemm_table_open(&g->shared, ""));
    if (folder == NULL) return CUDPO_OK;
    snprintf(name, sizeof name, "gemm-%s.txt", device);
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = gemm_table_keep(g->shared, path);
    free(path);
    return status;
}

static bool wants_first(void)
{
    const char *wish = getenv("CUDPO_GEMM");
    if (wish == NULL || *wish == '\0') return false;
    if (strcmp(wish, "first") == 0) return true;
    log_warn("CUDPO_GEMM is %s, which is not first: it has no effect", wish);
    return false;
}

static cudpo_status start(cuda_gemm *g, const char *folder)
{
    g->wait = getenv("CUDPO_SYNC") != NULL;
    g->first = wants_first();
    LT_TRY(cublasLtCreate(&g->handle));
    CUDA_TRY(cudaMalloc(&g->workspace, WORKSPACE));
    return g->first ? CUDPO_OK : open_tables(g, folder);
}

cudpo_status cuda_gemm_open(cuda_gemm **out, const char *folder)
{
    cuda_gemm *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "plans of products");
    const cudpo_status status = start(g, folder);
    if (status == CUDPO_OK)
        *out = g;
    else
        cuda_gemm_close(g);
    return status;
}

cudpo_status cuda_gemm_recall(cuda_gemm *g, const char *run)
{
    return g->first ? CUDPO_OK : gemm_table_read(g->own, run);
}

cudpo_status cuda_gemm_keep(cuda_gemm *g, const char *run)
{
    return g->first ? CUDPO_OK : gemm_table_keep(g->own, run);
}

void cuda_gemm_close(cuda_gemm *g)
{
    if (g == NULL) return;
    for (int i = 0; i < PLANS; i++) {
        plan_free(&g->plans[i]);
    }
    gemm_table_close(g->shared);
    gemm_table_close(g->own);
    if (g->workspace != NULL) (void)cudaFree(g->workspace);
    if (g->handle != NULL) (void)cublasLtDestroy(g->handle);
    free(g);
}
