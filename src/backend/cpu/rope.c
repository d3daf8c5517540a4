/* rope.c - rotary position embedding (Su et al. 2021), in the "rotate half" order of transformers. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/vector.h"

VECTORISED(rotate,
           (float *restrict a, float *restrict b, const float *restrict c, const float *restrict s,
            float sign, int64_t half),
           (a, b, c, s, sign, half))
{
    for (int64_t j = 0; j < half; j++) {
        const float x = a[j], y = b[j], sine = sign * s[j];
        a[j] = x * c[j] - y * sine;
        b[j] = y * c[j] + x * sine;
    }
}

cudpo_status cpu_rope(backend *be, tensor x, tensor cosine, tensor sine, tensor position,
                      int head_dim, bool inverse)
{
    (void)be;
    CUDPO_REQUIRE(head_dim >= 2 && head_dim % 2 == 0);
    CUDPO_REQUIRE(is_matrix(x));
    CUDPO_REQUIRE(x.cols % head_dim == 0);
    CUDPO_REQUIRE(cosine.rows >= 0 && is_f32(cosine, cosine.rows, head_dim / 2));
    CUDPO_REQUIRE(is_f32(sine, cosine.rows, head_dim / 2));
    CUDPO_REQUIRE(is_index(position, x.rows, cosine.rows));
    CUDPO_REQUIRE(tensor_disjoint(x, cosine) && tensor_disjoint(x, sine) &&
                  tensor_disjoint(x, position));
    const float sign = inverse ? -1.0f : 1.0f;
    const int64_t half = head_dim / 2;
#pragma omp parallel for if (x.rows * x.cols > 16384)
    for (int64_t t = 0; t < x.rows; t++) {
        const int64_t p = index_of(position, t);
        for (int64_t begin = 0; begin < x.cols; begin += head_dim) {
            float *head = row_of(x, t) + begin;
            rotate(head, head + half, row_of(cosine, p), row_of(sine, p), sign, half);
        }
    }
    return CUDPO_OK;
}
