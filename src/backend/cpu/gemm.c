/* gemm.c - matrix products: fixed tiles of the result, each one call of single-threaded OpenBLAS. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

#include <cblas.h>
#include <limits.h>

/* Edges that a tile of c is about to have.  BLAS packs both operands of a call, so a panel of 512 rows as wide as c runs
 * at 98 % of the speed of the whole product, one of 256 at 96 %; but work has to be shared out evenly. */
enum { EDGE = 512, SMALL_EDGE = 256, WIDE = 8192, WIDE_ROWS = 1024, WIDE_COLUMNS = 2048, FEW = 4 };

/* Multiplications below which waking the other threads costs more than they save: 50 us of work. */
enum { WORTH_THREADS = 1 << 20 };

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
    if (rows == 0 || cols == 0) return; /* rounding left nothing for the last tiles */
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

/* How many pieces of about `edge` to cut n into: 1, 2, 4 or a multiple of 8, which most numbers of threads share well. */
static int64_t pieces_of(int64_t n, int64_t edge)
{
    const int64_t k = (n + edge / 2) / edge;
    return k >= 6 ? (k + 4) / 8 * 8 : k >= 3 ? 4 : k == 2 ? 2 : 1;
}

/* n / pieces, rounded up to whole vectors. */
static int64_t edge_of(int64_t n, int64_t pieces)
{
    return ((n + pieces - 1) / pieces + 15) / 16 * 16;
}

static void multiply(const product *p)
{
    const bool wide = p->N >= WIDE;
    int64_t rows = pieces_of(p->M, wide ? WIDE_ROWS : EDGE);
    int64_t columns = wide ? pieces_of(p->N, WIDE_COLUMNS) : 1;
    if (rows * columns < FEW) rows = pieces_of(p->M, SMALL_EDGE);
    if (rows * columns < FEW) columns = min_i64(pieces_of(p->N, SMALL_EDGE), FEW / rows);
    const int64_t height = edge_of(p->M, rows), width = edge_of(p->N, columns);
    const bool worth = (double)p->M * (double)p->N * (double)p->K > WORTH_THREADS;
#pragma omp parallel for collapse(2) schedule(dynamic) if (worth && rows * columns > 1)
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            const int64_t m = min_i64(i * height, p->M), n = min_i64(j * width, p->N);
            multiply_tile(p, m, min_i64(height, p->M - m), n, min_i64(width, p->N - n));
        }
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
