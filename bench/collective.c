/* collective.c - time of collectives, and their results, element by element.
 *
 * Operands are small whole numbers, drawn anew by any rank for any other, whose sums are exact in float32 and in bfloat16 alike,
 * in whatever order ranks are added: a wrong element is one that differs at all.
 *
 * The bandwidth is the bus bandwidth of nccl-tests, which says how fast every link is at least, whatever the number of ranks n: bytes
 * of the tensor by time, times 2 (n-1)/n for an all-reduce, (n-1)/n for an all-gather, 1 for a reduce and a broadcast.
 * Source: NVIDIA/nccl-tests, doc/PERFORMANCE.md, "Bus bandwidth". */
#include "bench/collective.h"
#include "base/rng.h"
#include "model/half.h"
#include "train/reduce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PERIOD = 65537,  /* after which operands repeat: a prime, so that no share looks like another */
    SHIFT = 7919,    /* of one set's operands against the one before */
    LATENCY = 1024,  /* elements that take no time but that of the way */
    CHUNK = 1 << 20, /* elements that are looked at together */
    LEAST_ROUNDS = 5, /* timed */
    MOST_ROUNDS = 4096,
    SEED = 11
};

enum { ALL_REDUCE, REDUCE, ALL_GATHER, BROADCAST };

const bench_op bench_collectives[] = {{.op = "all_reduce", .pass = "", .variant = ALL_REDUCE},
                                      {.op = "reduce_to_one", .pass = "", .variant = REDUCE},
                                      {.op = "all_gather", .pass = "", .variant = ALL_GATHER},
                                      {.op = "broadcast", .pass = "", .variant = BROADCAST}};
const int bench_collective_count = sizeof bench_collectives / sizeof *bench_collectives;

int bench_collective_sizes(int64_t *size, dtype type, int64_t parameters)
{
    const int64_t bucket = (int64_t)(REDUCER_MEGABYTES * 1e6 / (double)dtype_size(type));
    const int64_t wanted[COLLECTIVE_SIZES] = {LATENCY, bucket, parameters};
    int n = 0;
    for (int i = 0; i < COLLECTIVE_SIZES; i++) {
        const int64_t fits = wanted[i] < parameters ? wanted[i] : parameters;
        if (n == 0 || fits > size[n - 1]) size[n++] = fits;
    }
    return n;
}

bench_case bench_collective_case(const bench_op *op, const bench_shape *s, const communicator *c,
                                 dtype type, int64_t n)
{
    const double size = (double)c->size, once = (size - 1) / size;
    const double factor = op->variant == ALL_REDUCE   ? 2 * once
                          : op->variant == ALL_GATHER ? once
                                                      : 1;
    bench_case what = {.op = op,
                       .shape = s,
                       .type = type,
                       .ranks = c->size,
                       .elements = n,
                       .bytes = factor * (double)n * bench_element(type)};
    snprintf(what.text, sizeof what.text, "%lld %s, %d ranks, %s", (long long)n, dtype_name(type),
             (int)c->size, c->name);
    return what;
}

/* ---- operands ---- */

/* Element i of a rank's operand, for i below PERIOD.  bfloat16 has whole numbers to 256: of so many ranks each has a part of that;
 * those behind them have zeros. */
static float value(dtype type, int32_t size, int32_t rank, int64_t i)
{
    const int64_t room = type == DTYPE_BF16 ? 256 : (int64_t)1 << 24;
    const int64_t most = room / size < 1 ? 1 : room / size > 127 ? 127 : room / size;
    if (rank >= room) return 0;
    return (float)(rng_below(SEED, (uint64_t)rank, (uint64_t)i, 2 * most + 1) - most);
}

typedef struct trial {
    communicator *c;
    const bench_case *what;
    int64_t sets;
    void *memory; /* of all sets, and of a period */
    tensor x[BENCH_SETS];
    tensor period; /* [1,PERIOD] of this rank's operand */
    double *times; /* [ranks] seconds of a round */
    float *want;   /* [PERIOD] */
    void *chunk;   /* [CHUNK] of the type, on the host */
} trial;

static tensor part_of(tensor t, int64_t begin, int64_t n)
{
    return tensor_matrix((char *)t.data + (size_t)begin * dtype_size(t.type), t.type, 1, n);
}

/* Every set as it is before a call. */
static cudpo_status fill(trial *t)
{
    backend *be = t->c->be;
    for (int64_t k = 0; k < t->sets; k++) {
        const int64_t n = t->what->elements;
        for (int64_t i = 0, at = k * SHIFT % PERIOD; i < n; at = 0) {
            const int64_t m = n - i < PERIOD - at ? n - i : PERIOD - at;
            CUDPO_TRY(be->copy(be, part_of(t->x[k], i, m), part_of(t->period, at, m)));
            i += m;
        }
    }
    return be->sync(be);
}

static cudpo_status draw_period(trial *t)
{
    const dtype type = t->what->type;
    float *const as_float = t->chunk;
    uint16_t *const as_bf16 = t->chunk;
    for (int64_t i = 0; i < PERIOD; i++) {
        const float v = value(type, t->c->size, t->c->rank, i);
        if (type == DTYPE_BF16)
            as_bf16[i] = bf16_from_float(v);
        else
            as_float[i] = v;
    }
    backend *be = t->c->be;
    CUDPO_TRY(be->copy_in(be, t->period.data, t->chunk, PERIOD * dtype_size(type)));
    return be->sync(be);
}

/* ---- time ---- */

static cudpo_status call(communicator *c, int variant, tensor x)
{
    CUDPO_TRY(variant == ALL_REDUCE   ? communicator_all_reduce(c, x)
              : variant == REDUCE     ? communicator_reduce(c, x, 0)
              : variant == ALL_GATHER ? communicator_all_gather(c, x)
                                      : communicator_broadcast(c, x));
    return communicator_join(c);
}

/* Every set once, one call behind the other.  Out: seconds  of a call, on the slowest rank: the same on all. */
static cudpo_status run_round(double *seconds, trial *t)
{
    communicator *c = t->c;
    double mine = 0;
    CUDPO_TRY(fill(t));
    CUDPO_TRY(control_barrier(c->company, "round of a benchmark"));
    CUDPO_TRY(c->be->stamp(c->be, 0));
    for (int64_t k = 0; k < t->sets; k++)
        CUDPO_TRY(call(c, t->what->op->variant, t->x[k]));
    CUDPO_TRY(c->be->stamp(c->be, 1));
    CUDPO_TRY(c->be->elapsed(c->be, &mine, 0, 1));
    CUDPO_TRY(control_exchange(c->company, t->times, &mine, sizeof mine, "time of a round"));
    *seconds = 0;
    for (int32_t r = 0; r < c->size; r++)
        *seconds = fmax(*seconds, t->times[r] / (double)t->sets);
    return CUDPO_OK;
}

/* Ranks go on for as long as what they all know of says, not their own clocks. */
static cudpo_status take_time(bench_time *out, trial *t, double seconds)
{
    double sample[MOST_ROUNDS], before = 0, spent = 0, now = 0;
    for (int agree = 0; agree < 2 && spent <= seconds;) {
        CUDPO_TRY(run_round(&now, t));
        agree = fabs(now - before) <= BENCH_SETTLED * before ? agree + 1 : 0;
        before = now;
        spent += now * (double)t->sets;
    }
    int64_t n = 0;
    for (spent = 0; n < LEAST_ROUNDS || (spent < seconds && n < MOST_ROUNDS); n++) {
        CUDPO_TRY(run_round(&sample[n], t));
        spent += sample[n] * (double)t->sets;
    }
    bench_summarise(out, sample, n);
    return CUDPO_OK;
}

/* ---- results ---- */

/* A period of what comes out: sums, or what one rank had. */
static void draw_sum(trial *t)
{
    for (int64_t i = 0; i < PERIOD; i++) {
        t->want[i] = 0;
        for (int32_t r = 0; r < t->c->size; r++)
            t->want[i] += value(t->what->type, t->c->size, r, i);
    }
}

static void draw_operand(trial *t, int32_t rank)
{
    for (int64_t i = 0; i < PERIOD; i++)
        t->want[i] = value(t->what->type, t->c->size, rank, i);
}

/* Of the elements begin .. end - 1 of every set. */
static cudpo_status look_at(int64_t *wrong, trial *t, int64_t begin, int64_t end)
{
    backend *be = t->c->be;
    const dtype type = t->what->type;
    const float *const as_float = t->chunk;
    const uint16_t *const as_bf16 = t->chunk;
    for (int64_t k = 0; k < t->sets; k++) {
        for (int64_t i = begin; i < end; i += CHUNK) {
            const int64_t m = end - i < CHUNK ? end - i : CHUNK;
            const tensor part = part_of(t->x[k], i, m);
            CUDPO_TRY(be->copy_out(be, t->chunk, part.data, tensor_bytes(part)));
            for (int64_t j = 0, at = (i + k * SHIFT) % PERIOD; j < m; j++) {
                const float got = type == DTYPE_BF16 ? float_from_bf16(as_bf16[j]) : as_float[j];
                *wrong += !(got == t->want[at]);
                if (++at == PERIOD) at = 0;
            }
        }
    }
    return CUDPO_OK;
}

/* What the last round left, on this rank. */
static cudpo_status look(int64_t *wrong, trial *t)
{
    const int64_t n = t->what->elements;
    const int variant = t->what->op->variant;
    *wrong = 0;
    if (variant == REDUCE && t->c->rank != 0) return CUDPO_OK; /* undefined there */
    if (variant == ALL_GATHER) {
        for (int32_t r = 0; r < t->c->size; r++) {
            const rank_share share = communicator_share(n, t->c->size, r);
            if (share.begin == share.end) continue;
            draw_operand(t, r);
            CUDPO_TRY(look_at(wrong, t, share.begin, share.end));
        }
        return CUDPO_OK;
    }
    if (variant == BROADCAST)
        draw_operand(t, 0);
    else
        draw_sum(t);
    return look_at(wrong, t, 0, n);
}

/* Of all ranks. */
static cudpo_status count_wrong(int64_t *wrong, trial *t)
{
    int64_t mine, *all = calloc((size_t)t->c->size, sizeof *all);
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)t->c->size);
    cudpo_status status = look(&mine, t);
    if (status == CUDPO_OK)
        status = control_exchange(t->c->company, all, &mine, sizeof mine, "wrong elements");
    *wrong = 0;
    for (int32_t r = 0; r < t->c->size; r++)
        *wrong += all[r];
    free(all);
    return status;
}

/* ---- the whole ---- */

/* As many sets as take more than twice rank 0's largest cache, BENCH_SETS at most. */
static cudpo_status open_trial(trial *t, double memory)
{
    backend *be = t->c->be;
    const size_t size = dtype_size(t->what->type);
    const size_t bytes = (size_t)t->what->elements * size;
    const int64_t enough = (int64_t)(2 * be->cache / bytes) + 1;
    t->sets = enough < BENCH_SETS ? enough : BENCH_SETS;
    CUDPO_TRY(control_broadcast(t->c->company, &t->sets, sizeof t->sets, "sets of a benchmark"));
    const size_t stride = (bytes + 63) / 64 * 64;
    t->times = calloc((size_t)t->c->size, sizeof *t->times);
    t->want = malloc(PERIOD * sizeof *t->want);
    t->chunk = malloc(CHUNK * sizeof(float));
    if (t->times == NULL || t->want == NULL || t->chunk == NULL)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "operands");
    const size_t all = (size_t)t->sets * stride + PERIOD * size;
    if (memory > 0 && (double)all > memory)
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%zu bytes", all);
    CUDPO_TRY(be->alloc(be, &t->memory, all));
    for (int64_t k = 0; k < t->sets; k++)
        t->x[k] = tensor_matrix((char *)t->memory + (size_t)k * stride, t->what->type, 1,
                                t->what->elements);
    t->period =
        tensor_matrix((char *)t->memory + (size_t)t->sets * stride, t->what->type, 1, PERIOD);
    return draw_period(t);
}

/* After a failure something may be under way for ever: then the memory stays, and is not waited for. */
static void close_trial(trial *t)
{
    backend *be = t->c->be;
    if (t->memory != NULL) (void)be->sync(be);
    be->free(be, t->memory);
    free(t->chunk);
    free(t->want);
    free(t->times);
}

/* Whether all ranks have got their memory; a rank that failed otherwise ends with that. */
static cudpo_status agree(bool *fits, cudpo_status opened, control *company)
{
    bool *all;
    const bool mine = opened == CUDPO_OK;
    if (!mine && opened != CUDPO_ENOMEM) return opened;
    all = calloc((size_t)control_size(company), sizeof *all);
    if (all == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "ranks");
    if (!mine) cudpo_error_clear();
    const cudpo_status status =
        control_exchange(company, all, &mine, sizeof mine, "memory of a benchmark");
    *fits = true;
    for (int32_t r = 0; r < control_size(company); r++)
        *fits = *fits && all[r];
    free(all);
    return status;
}

static cudpo_status measure(bench_result *r, trial *t, const bench_settings *settings)
{
    const double bytes = (double)t->what->elements * bench_element(t->what->type);
    r->sets = t->sets;
    r->cached = (double)t->sets * bytes < 2.0 * (double)t->c->be->cache;
    CUDPO_TRY(take_time(&r->time, t, settings->seconds));
    return settings->check ? count_wrong(&r->wrong, t) : CUDPO_OK;
}

cudpo_status bench_collective_measure(bench_result *r, bool *fits, void **left, communicator *c,
                                      const bench_case *what, const bench_settings *settings)
{
    trial t = {.c = c, .what = what};
    *r = (bench_result){.wrong = -1};
    *fits = false;
    *left = NULL;
    CUDPO_REQUIRE(c->size > 1 && what->elements > 0);
    cudpo_status status = agree(fits, open_trial(&t, settings->memory), c->company);
    if (status == CUDPO_OK && *fits) status = measure(r, &t, settings);
    if (status != CUDPO_OK) {
        *left = t.memory;
        t.memory = NULL;
    }
    close_trial(&t);
    return status;
}
