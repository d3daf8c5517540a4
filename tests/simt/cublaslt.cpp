/* cublaslt.cpp - the functions of cublasLt.h: linked in place of libcublasLt.
 *
 * Its algorithms split the sum over k into 1, 2, 3 .. parts, so that each gives other bits, as the real library's do: a host
 * that takes another algorithm by chance shows.  Sums are in fp32; what is stored is rounded once.  An algorithm is valid
 * for the alignment that was asked for, and refuses other memory. */
#include "cublasLt.h"
#include "device_memory.h"
#include "internal.h"
#include "products.h"
#include "stream.h"

#include <cblas.h>

#include <cstdio>
#include <cstring>
#include <vector>

struct cublasLtContext {
    int unused;
};
struct simtMatmulDesc {
    bool transpose_a, transpose_b;
};
struct simtMatrixLayout {
    cudaDataType_t type;
    int64_t rows, cols, ld; /* column-major */
};
struct simtMatmulPreference {
    size_t workspace;
    uint32_t reductions, alignment[4];
};

namespace
{

enum { MAX_PARTS = 4 };

/* Of simt_refuse_products(), simt_last_product(). */
unsigned refused_by_state, refused_at_launch;
int last_parts;

bool refuses(unsigned set, uint64_t parts)
{
    return (set >> parts & 1u) != 0;
}

/* What the 64 bytes of an algorithm hold. */
struct Algorithm {
    uint64_t parts, alignment[3]; /* bytes of A, B, C and D */
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm's room");

Algorithm algorithm_of(const cublasLtMatmulAlgo_t &algo)
{
    Algorithm a;
    memcpy(&a, &algo, sizeof a);
    return a;
}

cublasStatus_t invalid(const char *function, const char *what)
{
    fprintf(stderr, "SIMT ERROR: %s: %s\n", function, what);
    return CUBLAS_STATUS_INVALID_VALUE;
}

size_t size_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

float bf16_value(uint16_t bits)
{
    const uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

uint16_t bf16_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff; /* the hardware's NaN */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

float load(const simtMatrixLayout &m, const void *data, int64_t row, int64_t col)
{
    const int64_t i = row + col * m.ld;
    return m.type == CUDA_R_32F ? static_cast<const float *>(data)[i]
                                : bf16_value(static_cast<const uint16_t *>(data)[i]);
}

void store(const simtMatrixLayout &m, void *data, int64_t row, int64_t col, float x)
{
    const int64_t i = row + col * m.ld;
    if (m.type == CUDA_R_32F)
        static_cast<float *>(data)[i] = x;
    else
        static_cast<uint16_t *>(data)[i] = bf16_bits(x);
}

std::vector<float> dense(const simtMatrixLayout &m, const void *data)
{
    std::vector<float> x((size_t)(m.rows * m.cols));
    for (int64_t c = 0; c < m.cols; c++) {
        for (int64_t r = 0; r < m.rows; r++) {
            x[(size_t)(r + c * m.rows)] = load(m, data, r, c);
        }
    }
    return x;
}

/* m x n x k of a product, or -1 where the layouts do not fit each other. */
struct Sizes {
    int64_t m, n, k;
};
bool sizes_of(Sizes *s, const simtMatmulDesc &p, const simtMatrixLayout &a,
              const simtMatrixLayout &b, const simtMatrixLayout &c, const simtMatrixLayout &d)
{
    s->m = p.transpose_a ? a.cols : a.rows;
    s->k = p.transpose_a ? a.rows : a.cols;
    s->n = p.transpose_b ? b.rows : b.cols;
    return (p.transpose_b ? b.cols : b.rows) == s->k && c.rows == s->m && c.cols == s->n &&
           d.rows == s->m && d.cols == s->n && a.type == b.type && c.type == d.type &&
           (c.type == a.type || c.type == CUDA_R_32F) && a.ld >= a.rows && b.ld >= b.rows &&
           c.ld >= c.rows && d.ld >= d.rows && s->m > 0 && s->n > 0 && s->k > 0;
}

/* The allocation that a matrix lies in; false where it leaves it. */
bool inside(simt::Allocation *allocation, const simtMatrixLayout &m, const void *data)
{
    *allocation = simt::device_allocation(data);
    const size_t end = (size_t)((m.cols - 1) * m.ld + m.rows) * size_of(m.type);
    return allocation->data != nullptr &&
           (size_t)(static_cast<const char *>(data) - allocation->data) + end <= allocation->bytes;
}

/* A product with everything that it needs, copied: the host may destroy its descriptors before the stream gets to it. */
struct Product {
    simtMatmulDesc desc;
    simtMatrixLayout a, b, c, d;
    Sizes size;
    const void *a_data, *b_data, *c_data;
    void *d_data;
    float alpha, beta;
    int64_t parts;
};

void multiply(const Product &p)
{
    simt::Allocation where[4];
    inside(&where[0], p.a, p.a_data);
    inside(&where[1], p.b, p.b_data);
    inside(&where[2], p.c, p.c_data);
    inside(&where[3], p.d, p.d_data);
    for (const simt::Allocation &w : where) {
        simt::allow(w.data, w.bytes);
    }
    const std::vector<float> a = dense(p.a, p.a_data), b = dense(p.b, p.b_data);
    const int64_t m = p.size.m, n = p.size.n, k = p.size.k;
    std::vector<float> sum((size_t)(m * n), 0.0f), part((size_t)(m * n));
    for (int64_t i = 0; i < p.parts; i++) {
        const int64_t first = k * i / p.parts, count = k * (i + 1) / p.parts - first;
        if (count == 0) continue;
        const float *from_a = a.data() + (p.desc.transpose_a ? first : first * p.a.rows);
        const float *from_b = b.data() + (p.desc.transpose_b ? first * p.b.rows : first);
        cblas_sgemm(CblasColMajor, p.desc.transpose_a ? CblasTrans : CblasNoTrans,
                    p.desc.transpose_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
                    (blasint)count, p.alpha, from_a, (blasint)p.a.rows, from_b, (blasint)p.b.rows,
                    0.0f, part.data(), (blasint)m);
        for (size_t j = 0; j < sum.size(); j++) {
            sum[j] += part[j];
        }
    }
    for (int64_t col = 0; col < n; col++) {
        for (int64_t row = 0; row < m; row++) {
            float x = sum[(size_t)(row + col * m)];
            if (p.beta != 0.0f) x += p.beta * load(p.c, p.c_data, row, col);
            store(p.d, p.d_data, row, col, x);
        }
        simt::race_written(static_cast<char *>(p.d_data) +
                               (size_t)(col * p.d.ld) * size_of(p.d.type),
                           (size_t)m * size_of(p.d.type));
    }
    for (const simt::Allocation &w : where) {
        simt::forbid(w.data, w.bytes);
    }
}

} // namespace

extern "C" {

void simt_refuse_products(unsigned by_state, unsigned at_launch)
{
    refused_by_state = by_state;
    refused_at_launch = at_launch;
}
int simt_last_product(void)
{
    return last_parts;
}

size_t cublasLtGetVersion(void)
{
    return 0;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    *out = nullptr;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
    openblas_set_num_threads(1); /* the same bits on every machine */
    *out = new cublasLtContext{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t,
                                        cudaDataType_t scale)
{
    *out = nullptr;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_ALLOC_FAILED;
    if (scale != CUDA_R_32F) return invalid(__func__, "alpha and beta are fp32 here");
    *out = new simtMatmulDesc{false, false};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    int32_t operation;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes != sizeof operation) return invalid(__func__, "an operation has 4 bytes");
    memcpy(&operation, value, sizeof operation);
    (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? product->transpose_a : product->transpose_b) =
        operation == CUBLAS_OP_T;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product)
{
    delete product;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *out = nullptr;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_ALLOC_FAILED;
    *out = new simtMatrixLayout{type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = nullptr;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_ALLOC_FAILED;
    *out = new simtMatmulPreference{0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_INVALID_VALUE;
    const bool workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (bytes != (workspace ? sizeof(size_t) : sizeof(uint32_t)))
        return invalid(__func__, "a value of another size");
    if (workspace)
        memcpy(&p->workspace, value, bytes);
    else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        memcpy(&p->reductions, value, bytes);
    else
        memcpy(&p->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    Sizes s;
    *count = 0;
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!sizes_of(&s, *product, *a, *b, *c, *d))
        return invalid(__func__, "layouts that do not fit each other");
    for (uint64_t parts = 1; parts <= MAX_PARTS && *count < wanted; parts++) {
        const size_t bytes = parts == 1 ? 0 : (size_t)(s.m * s.n) * parts * sizeof(float);
        const bool allowed = (p->reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0;
        if (bytes > p->workspace || (parts > 1 && !allowed)) continue;
        const Algorithm algorithm = {
            parts,
            {p->alignment[0], p->alignment[1],
             p->alignment[2] < p->alignment[3] ? p->alignment[2] : p->alignment[3]}};
        cublasLtMatmulHeuristicResult_t *r = &results[(*count)++];
        memset(r, 0, sizeof *r);
        memcpy(&r->algo, &algorithm, sizeof algorithm);
        r->workspaceSize = bytes;
        if (refuses(refused_by_state, parts)) r->state = CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    Sizes s;
    const Algorithm algorithm = algorithm_of(*algo);
    if (!sizes_of(&s, *product, *a, *b, *c, *d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm.parts < 1 || algorithm.parts > MAX_PARTS) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    result->algo = *algo;
    result->workspaceSize =
        algorithm.parts == 1 ? 0 : (size_t)(s.m * s.n) * algorithm.parts * sizeof(float);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    Product p = {*product, *a_layout, *b_layout, *c_layout, *d_layout, {0, 0, 0}, a,
                 b,        c,         d,         0.0f,      0.0f,      0};
    simt::Allocation where;
    simt::count(simt::LAUNCH);
    if (simt::call_fails(__func__)) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!sizes_of(&p.size, p.desc, p.a, p.b, p.c, p.d))
        return invalid(__func__, "layouts that do not fit each other");
    const Algorithm algorithm = algorithm_of(*algo);
    p.parts = (int64_t)algorithm.parts;
    if (p.parts < 1 || p.parts > MAX_PARTS) return invalid(__func__, "no algorithm");
    if (refuses(refused_at_launch, algorithm.parts)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!inside(&where, p.a, a) || !inside(&where, p.b, b) || !inside(&where, p.c, c) ||
        !inside(&where, p.d, d))
        return invalid(__func__, "a matrix that leaves its device allocation");
    if ((uintptr_t)a % algorithm.alignment[0] != 0 || (uintptr_t)b % algorithm.alignment[1] != 0 ||
        (uintptr_t)c % algorithm.alignment[2] != 0 || (uintptr_t)d % algorithm.alignment[2] != 0)
        return invalid(__func__, "less aligned than the algorithm was asked for");
    if (p.parts > 1 && (workspace == nullptr ||
                        workspace_bytes < (size_t)(p.size.m * p.size.n * p.parts) * sizeof(float)))
        return invalid(__func__, "less workspace than the algorithm needs");
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    last_parts = (int)p.parts;
    simt::submit(stream, [p] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}
}
