/* map.c - stages of an expression, one after another: what a program does that fuses nothing. */
#include "backend/cpu/check.h"
#include "backend/cpu/ops.h"

static bool is_operand(tensor t, tensor out)
{
    return is_matrix(t) && (t.cols == out.cols || t.cols == 1) && t.rows >= 1 &&
           out.rows % t.rows == 0;
}

static bool is_in_place(tensor t, tensor out)
{
    return tensor_disjoint(t, out) || (is_same(t, out) && t.rows == out.rows && t.cols == out.cols);
}

/* A row of an operand: `step` is 0 where its one element stands for all. */
typedef struct operand_row {
    const float *x;
    int64_t step;
} operand_row;

static operand_row operand_row_of(tensor t, tensor out, int64_t r)
{
    if (!tensor_present(t)) return (operand_row){0};
    return (operand_row){row_of(t, r / (out.rows / t.rows)), t.cols == out.cols};
}

#define EACH(value)                      \
    for (int64_t c = 0; c < n; c++) {    \
        const float x = a.x[c * a.step]; \
        to[c] = (value);                 \
    }                                    \
    break
#define EACH_TWO(value)                                       \
    for (int64_t c = 0; c < n; c++) {                         \
        const float x = a.x[c * a.step], y = b.x[c * b.step]; \
        to[c] = (value);                                      \
    }                                                         \
    break

static void map_row(float *to, int64_t n, map_function f, operand_row a, operand_row b, float k)
{
    switch (f) {
    case MAP_ADD:
        EACH_TWO(x + y);
    case MAP_SUBTRACT:
        EACH_TWO(x - y);
    case MAP_MULTIPLY:
        EACH_TWO(x * y);
    case MAP_DIVIDE:
        EACH_TWO(x / y);
    case MAP_SCALE:
        EACH(k * x);
    case MAP_SHIFT:
        EACH(x + k);
    case MAP_EXP:
        EACH(expf(x));
    case MAP_LOG:
        EACH(logf(x));
    case MAP_SQRT:
        EACH(sqrtf(x));
    case MAP_SIGMOID:
        EACH(1.0f / (1.0f + expf(-x)));
    default:
        EACH(x);
    }
}

/* The functions that look at where an element is. */
static void map_place(float *to, int64_t n, map_function f, operand_row a, int64_t place, int64_t k)
{
    for (int64_t c = 0; c < n; c++) {
        const float x = a.x[c * a.step];
        if (f == MAP_ONEHOT)
            to[c] = x - (c == place ? 1.0f : 0.0f);
        else
            to[c] = c - place <= k ? x : -INFINITY;
    }
}

cudpo_status cpu_map(backend *be, tensor out, map_function f, tensor a, tensor b, float k)
{
    (void)be;
    CUDPO_REQUIRE(is_matrix(out));
    CUDPO_REQUIRE(f < MAP_FUNCTIONS);
    CUDPO_REQUIRE(isfinite(k) && (f != MAP_CAUSAL || fabsf(k) < 0x1p62f));
    if (out.rows == 0) return CUDPO_OK;
    CUDPO_REQUIRE(is_operand(a, out) && is_in_place(a, out));
    if (map_takes_two(f))
        CUDPO_REQUIRE(is_operand(b, out) && is_in_place(b, out));
    else if (f == MAP_ONEHOT)
        CUDPO_REQUIRE(is_i32(b, out.rows, 1) && tensor_disjoint(b, out));
    else
        CUDPO_REQUIRE(!tensor_present(b));
    const bool placed = f == MAP_ONEHOT || f == MAP_CAUSAL;
#pragma omp parallel for if (out.rows * out.cols > 65536)
    for (int64_t r = 0; r < out.rows; r++) {
        const operand_row first = operand_row_of(a, out, r);
        if (placed)
            map_place(row_of(out, r), out.cols, f, first, f == MAP_ONEHOT ? index_of(b, r) : r,
                      (int64_t)k);
        else
            map_row(row_of(out, r), out.cols, f, first, operand_row_of(b, out, r), k);
    }
    return CUDPO_OK;
}
