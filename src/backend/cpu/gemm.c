/* gemm.c - matrix products: fixed tiles of the result, each one call of single-threaded OpenBLAS. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <cblas.h>
#include <limits.h>

/* Edges of a tile of c.  A call packs its two operands, which costs about as much as 16 multiplications of each of
 * their elements, so a tile wants to be large; but a small result still has to keep some threads busy. */
enum { TILE_LARGE = 512, TILE_SMALL = 256, TILES_WANTED = 12 };

typedef struct product {
    float *c;
    const float *a, *b;
    int64_t c_stride, a_stride, b_stride;
    int64_t M, N, K;
    CBLAS_TRANSPOSE transpose_a, transpose_b;
    float beta;
} product;

/* Rows m .. m+rows-1 and columns n .. n+cols-1 of the result. */
static void multiply_tile(const product *p, int64_t m, int64_t rows, int64_t n, int64_t cols)
{
    const float *a = p->a + (p->transpose_a == CblasTrans ? m : m * p->a_stride);
    const float *b = p->b + (p->transpose_b == CblasTrans ? n * p->b_stride : n);
    float *c = p->c + m * p->c_stride + n;
    if (rows == 1 && p->transpose_b == CblasTrans && p->transpose_a == CblasNoTrans) {
        /* One token through a linear layer, as in decoding: every weight is used once. */
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)cols, (blasint)p->K, 1.0f, b,
                    (blasint)p->b_stride, a, 1, p->beta, c, 1);
        return;
    }
    cblas_sgemm(CblasRowMajor, p->transpose_a, p->transpose_b, (blasint)rows, (blasint)cols,
                (blasint)p->K, 1.0f, a, (blasint)p->a_stride, b, (blasint)p->b_stride, p->beta, c,
                (blasint)p->c_stride);
}

static int64_t tiles_of(int64_t n, int64_t edge)
{
    return (n + edge - 1) / edge;
}

static void multiply(const product *p)
{
    const bool large = tiles_of(p->M, TILE_LARGE) * tiles_of(p->N, TILE_LARGE) >= TILES_WANTED;
    const int64_t edge = large ? TILE_LARGE : TILE_SMALL;
    const int64_t columns = tiles_of(p->N, edge), tiles = tiles_of(p->M, edge) * columns;
#pragma omp parallel for schedule(dynamic) if (tiles > 1)
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t m = tile / columns * edge, n = tile % columns * edge;
        multiply_tile(p, m, min_i64(edge, p->M - m), n, min_i64(edge, p->N - n));
    }
}

static bool fits_blas(tensor t)
{
    return t.rows <= INT_MAX && t.cols <= INT_MAX && t.stride <= INT_MAX;
}

cudpo_status cpu_gemm(backend *be, tensor c, tensor a, bool transpose_a, tensor b, bool transpose_b,
                      float beta)
{
    const int64_t M = transpose_a ? a.cols : a.rows, K = transpose_a ? a.rows : a.cols;
    const int64_t N = transpose_b ? b.rows : b.cols;
    CUDPO_REQUIRE(is_matrix(a) && is_matrix(b) && is_matrix(c));
    CUDPO_REQUIRE((transpose_b ? b.cols : b.rows) == K);
    CUDPO_REQUIRE(c.rows == M && c.cols == N);
    CUDPO_REQUIRE(beta == 0.0f || beta == 1.0f);
    CUDPO_REQUIRE(fits_blas(a) && fits_blas(b) && fits_blas(c));
    if (M == 0 || N == 0) return CUDPO_OK;
    if (K == 0) return beta == 0.0f ? be->zero(be, c) : CUDPO_OK; /* an empty sum */
    const product p = {
        .c = tensor_f32(c),
        .a = tensor_f32(a),
        .b = tensor_f32(b),
        .c_stride = c.stride,
        .a_stride = a.stride,
        .b_stride = b.stride,
        .M = M,
        .N = N,
        .K = K,
        .transpose_a = transpose_a ? CblasTrans : CblasNoTrans,
        .transpose_b = transpose_b ? CblasTrans : CblasNoTrans,
        .beta = beta,
    };
    multiply(&p);
    return CUDPO_OK;
}
