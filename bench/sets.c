/* sets.c - the operands of a case in a backend's memory, more of them than a cache holds. */
#include "base/arena.h"
#include "bench/measure.h"
#include "model/half.h"

#include <stdlib.h>
#include <string.h>

/* A CPU computes in float32 alone. */
static dtype type_of(const bench_operand *o, bool on_device)
{
    return o->type == DTYPE_BF16 && !on_device ? DTYPE_F32 : o->type;
}

static size_t bytes_of(const bench_operand *o, bool on_device)
{
    return (size_t)(o->rows * o->cols) * dtype_size(type_of(o, on_device));
}

size_t bench_set_bytes(const bench_case *c, bool on_device)
{
    size_t bytes = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->operand[i].role != BENCH_WORK) bytes += bytes_of(&c->operand[i], on_device);
    }
    return bytes;
}

/* Which operands an allocation is for. */
typedef bool (*choice)(bench_role role);
static bool is_of_set(bench_role role)
{
    return role != BENCH_WORK;
}
static bool is_changed(bench_role role)
{
    return role == BENCH_INOUT;
}
static bool is_work(bench_role role)
{
    return role == BENCH_WORK;
}

static void cut(tensor *t, arena *a, const bench_sets *s, choice chosen)
{
    for (int i = 0; i < s->c->count; i++) {
        const bench_operand *o = &s->c->operand[i];
        if (!chosen(o->role)) continue;
        void *data = arena_take(a, bytes_of(o, s->be->on_device));
        const dtype type = type_of(o, s->be->on_device);
        t[i] = o->cols == 1 ? tensor_vector(data, type, o->rows)
                            : tensor_matrix(data, type, o->rows, o->cols);
    }
}

static cudpo_status allocate(tensor *t, void **memory, bench_sets *s, choice chosen)
{
    arena a = {0};
    cut(t, &a, s, chosen);
    if (a.used == 0) return CUDPO_OK;
    CUDPO_TRY(s->be->alloc(s->be, memory, a.used));
    a = (arena){.base = *memory, .size = a.used};
    cut(t, &a, s, chosen);
    return CUDPO_OK;
}

/* Host numbers into a tensor; what nothing is there for becomes NaN, so that an output that is never written shows. */
static cudpo_status upload(backend *be, tensor t, const bench_operand *o)
{
    const int64_t n = o->rows * o->cols;
    if (o->index != NULL) return be->copy_in(be, t.data, o->index, (size_t)n * sizeof *o->index);
    if (o->value != NULL && t.type == DTYPE_F32)
        return be->copy_in(be, t.data, o->value, (size_t)n * sizeof *o->value);
    const size_t size = dtype_size(t.type);
    char *host = malloc((size_t)n * size + 1);
    if (host == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld numbers", (long long)n);
    memset(host, 0xff, (size_t)n * size);
    for (int64_t i = 0; o->value != NULL && i < n; i++) {
        const uint16_t half = bf16_from_float(o->value[i]);
        memcpy(host + (size_t)i * size, &half, size);
    }
    cudpo_status status = be->copy_in(be, t.data, host, (size_t)n * size);
    if (status == CUDPO_OK) status = be->sync(be); /* host goes away */
    free(host);
    return status;
}

static int64_t sets_wanted(const backend *be, const bench_case *c, int64_t most)
{
    const size_t bytes = bench_set_bytes(c, be->on_device), wanted = 2 * be->cache + 1;
    const int64_t n = bytes > 0 ? (int64_t)((wanted + bytes - 1) / bytes) : 1;
    if (most > BENCH_SETS) most = BENCH_SETS;
    return n < 1 ? 1 : n > most ? most : n;
}

static cudpo_status fill(bench_sets *s)
{
    for (int i = 0; i < s->c->count; i++) {
        const bench_operand *o = &s->c->operand[i];
        const tensor first = s->run[0].t[i];
        if (o->role == BENCH_WORK || o->rows * o->cols == 0) continue;
        CUDPO_TRY(upload(s->be, first, o));
        if (o->role == BENCH_INOUT) CUDPO_TRY(s->be->copy(s->be, s->before[i], first));
        for (int64_t set = 1; set < s->count; set++)
            CUDPO_TRY(s->be->copy(s->be, s->run[set].t[i], first));
    }
    return s->be->sync(s->be);
}

cudpo_status bench_sets_open(bench_sets *s, backend *be, const bench_case *c, int64_t most)
{
    *s = (bench_sets){.be = be, .c = c, .count = sets_wanted(be, c, most)};
    for (int64_t i = 0; i < s->count; i++) {
        s->run[i].be = be;
        s->run[i].c = c;
        CUDPO_TRY(allocate(s->run[i].t, &s->memory[i], s, is_of_set));
    }
    CUDPO_TRY(allocate(s->before, &s->memory[BENCH_SETS], s, is_changed));
    tensor work[BENCH_OPERANDS] = {{0}};
    CUDPO_TRY(allocate(work, &s->memory[BENCH_SETS + 1], s, is_work));
    for (int64_t set = 0; set < s->count; set++) {
        for (int i = 0; i < c->count; i++) {
            if (is_work(c->operand[i].role)) s->run[set].t[i] = work[i];
        }
    }
    return fill(s);
}

void bench_sets_close(bench_sets *s)
{
    for (int i = 0; s->be != NULL && i < BENCH_SETS + 2; i++)
        s->be->free(s->be, s->memory[i]);
    *s = (bench_sets){0};
}

cudpo_status bench_sets_restore(bench_sets *s)
{
    for (int i = 0; i < s->c->count; i++) {
        if (!is_changed(s->c->operand[i].role)) continue;
        for (int64_t set = 0; set < s->count; set++)
            CUDPO_TRY(s->be->copy(s->be, s->run[set].t[i], s->before[i]));
    }
    return CUDPO_OK;
}

cudpo_status bench_sets_read(float **out, const bench_sets *s, int64_t set, int operand)
{
    const tensor t = s->run[set].t[operand];
    const int64_t n = t.rows * t.cols;
    *out = malloc((size_t)n * sizeof(double) + 1);
    if (*out == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld numbers", (long long)n);
    void *raw = malloc((size_t)n * dtype_size(t.type) + 1);
    cudpo_status status = raw == NULL
                              ? cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld numbers", (long long)n)
                              : s->be->copy_out(s->be, raw, t.data, (size_t)n * dtype_size(t.type));
    for (int64_t i = 0; status == CUDPO_OK && i < n; i++) {
        switch (t.type) {
        case DTYPE_BF16:
            (*out)[i] = float_from_bf16(((const uint16_t *)raw)[i]);
            break;
        case DTYPE_F64:
            (*out)[i] = (float)((const double *)raw)[i];
            break;
        default:
            (*out)[i] = ((const float *)raw)[i];
        }
    }
    free(raw);
    if (status != CUDPO_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}
