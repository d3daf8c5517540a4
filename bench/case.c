/* case.c - operands of a case, with random numbers in them. */
#include "base/rng.h"
#include "bench/bench.h"
#include "model/half.h"

#include <stdlib.h>
#include <string.h>

/* A block of random numbers, repeated: of a prime number of elements, so that no two rows are alike. */
enum { BLOCK = 1048583 };

static bench_operand *add(bench_case *c, bench_role role, dtype type, int64_t rows, int64_t cols)
{
    /* One too many is counted, and found by bench_case_check(). */
    bench_operand *o = &c->operand[c->count < BENCH_OPERANDS ? c->count : BENCH_OPERANDS - 1];
    c->count++;
    free(o->value);
    free(o->index);
    *o = (bench_operand){.role = role, .type = type, .rows = rows, .cols = cols, .terms = 1};
    return o;
}

/* Uniform with a deviation of 1, rounded to the type. */
static float *random_block(dtype type, float scale)
{
    float *block = malloc(BLOCK * sizeof *block);
    for (int64_t i = 0; block != NULL && i < BLOCK; i++) {
        block[i] = scale * (float)((rng_uniform(1, 2, (uint64_t)i) - 0.5) * 3.4641016151377544);
        if (type == DTYPE_BF16) block[i] = float_from_bf16(bf16_from_float(block[i]));
    }
    return block;
}

static void fill(bench_operand *o, int64_t offset, float scale)
{
    const int64_t n = o->rows * o->cols;
    float *block = random_block(o->type, scale);
    o->value = malloc((size_t)(n > 0 ? n : 1) * sizeof *o->value);
    for (int64_t i = 0, at = offset * 7919 % BLOCK; block != NULL && o->value != NULL && i < n;) {
        const int64_t m = n - i < BLOCK - at ? n - i : BLOCK - at;
        memcpy(o->value + i, block + at, (size_t)m * sizeof *block);
        i += m;
        at = 0;
    }
    if (block == NULL) {
        free(o->value);
        o->value = NULL;
    }
    free(block);
}

int bench_add(bench_case *c, bench_role role, dtype type, int64_t rows, int64_t cols, float scale)
{
    bench_operand *o = add(c, role, type, rows, cols);
    if (role == BENCH_IN || role == BENCH_INOUT) fill(o, c->count, scale);
    return c->count - 1;
}

int bench_add_sum(bench_case *c, bench_role role, dtype type, int64_t rows, int64_t cols,
                  double terms)
{
    const int i = bench_add(c, role, type, rows, cols, 1);
    if (i < BENCH_OPERANDS) c->operand[i].terms = terms;
    return i;
}

static bench_operand *add_ints(bench_case *c, int64_t rows, int64_t cols)
{
    bench_operand *o = add(c, BENCH_IN, DTYPE_I32, rows, cols);
    o->index = calloc((size_t)(rows * cols), sizeof *o->index);
    return o;
}

int bench_add_index(bench_case *c, int64_t n, int64_t below)
{
    const bench_operand *o = add_ints(c, n, 1);
    for (int64_t i = 0; o->index != NULL && i < n; i++) {
        o->index[i] = (int32_t)rng_below(3, (uint64_t)c->count, (uint64_t)i, below);
    }
    return c->count - 1;
}

int bench_add_segments(bench_case *c, const bench_shape *s)
{
    const bench_operand *o = add_ints(c, 3 * s->groups, SEGMENT_FIELDS);
    for (int64_t i = 0; o->index != NULL && i < 3 * s->groups; i++) {
        int32_t *segment = o->index + i * SEGMENT_FIELDS;
        segment[SEGMENT_BEGIN] = (int32_t)(i * s->length);
        segment[SEGMENT_LENGTH] = (int32_t)s->length;
        if (i % 3 == 0) continue;
        segment[SEGMENT_PROMPT_BEGIN] = (int32_t)(i / 3 * 3 * s->length);
        segment[SEGMENT_PROMPT_LENGTH] = (int32_t)s->length;
    }
    return c->count - 1;
}

int bench_add_positions(bench_case *c, const bench_shape *s)
{
    const bench_operand *o = add_ints(c, s->tokens, 1);
    for (int64_t i = 0; o->index != NULL && i < s->tokens; i++) {
        const int64_t in_group = i % (3 * s->length);
        o->index[i] = (int32_t)(in_group < 2 * s->length ? in_group : in_group - s->length);
    }
    return c->count - 1;
}

cudpo_status bench_case_check(const bench_case *c)
{
    CUDPO_REQUIRE(c->count <= BENCH_OPERANDS);
    for (int i = 0; i < c->count; i++) {
        const bench_operand *o = &c->operand[i];
        const bool read = o->role == BENCH_IN || o->role == BENCH_INOUT;
        if (read && o->value == NULL && o->index == NULL)
            return cudpo_fail(CUDPO_ENOMEM, c->op->op, "no memory for %lld x %lld numbers",
                              (long long)o->rows, (long long)o->cols);
    }
    return CUDPO_OK;
}

void bench_case_free(bench_case *c)
{
    for (int i = 0; i < BENCH_OPERANDS; i++) {
        free(c->operand[i].value);
        free(c->operand[i].index);
    }
    *c = (bench_case){0};
}
