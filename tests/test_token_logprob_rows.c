/* test_token_logprob_rows.c - many rows, the reference's beside the policy's, labels out of range, broken contracts. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_token_logprob.h"
#ifdef TEST_CUDA
#include "kernels/kernels.h"
#endif

enum { R = 128 };

/* 64 groups of two completions: scores, and of the reference, in one call, each as alone. */
static void policy_and_reference(backend *be)
{
    enum { V = 131 };
    static const layout at[][2] = {{{-1, 0}, {-1, 0}},
                                   {{3, 0}, {-1, 0}},
                                   {{-1, 0}, {0, 0}},
                                   {{-1, 0}, {-1, 1}},
                                   {{-1, 1}, {2, 3}}};
    float *z = random_floats(1, R * V), *reference = random_floats(2, R * V);
    int32_t *label = zeros(R, 4);
    for (int r = 0; r < R; r++) {
        label[r] = (int32_t)rng_below(3, 1, (uint64_t)r, V);
    }
    for (int n = 0; n < 5 * score_kinds_of(be); n++) {
        score_call c = {.kind = score_kinds[n / 5],
                        .at = at[n % 5][0],
                        .reference_at = at[n % 5][1],
                        .logits = z,
                        .reference = reference,
                        .label = label,
                        .R = R,
                        .V = V,
                        .stats = n % 2 == 0,
                        .gradient = n % 3 > 0};
        scores both = score(be, &c);
        for (int r = n; r < R; r += 7) {
            check_row(&c, &both, r, be->on_device);
        }
        if (n % 5 > 1) { /* one pair of layouts of either kind is enough for what follows */
            scores_free(&both);
            continue;
        }
        score_call alone = c;
        alone.reference = NULL;
        scores policy = score(be, &alone);
        alone = (score_call){
            .kind = c.kind, .at = {-1, 0}, .logits = reference, .label = label, .R = R, .V = V};
        scores frozen = score(be, &alone);
        assert_memory_equal(both.logp, policy.logp, R * sizeof(float));
        assert_memory_equal(both.gradient, policy.gradient, R * V * sizeof(float));
        assert_memory_equal(both.stats, policy.stats, R * ROW_STATS * sizeof(float));
        assert_memory_equal(both.reference_logp, frozen.logp, R * sizeof(float));
        scores_free(&both);
        scores_free(&policy);
        scores_free(&frozen);
    }
    free(z);
    free(reference);
    free(label);
}

/* Rows of several chunks, whose blocks run at the same time: what one stores is no other's. */
static void long_rows_side_by_side(backend *be)
{
    enum { ROWS = 6, V = 2 * CHUNK_F32 + 52 };
    float *z = random_floats(1, ROWS * V), *reference = random_floats(2, ROWS * V);
    static const int32_t label[ROWS] = {0, 3000, 3071, 3072, 6000, V - 1};
    for (int n = 0; n < 2 * score_kinds_of(be); n++) {
        score_call c = {
            .kind = score_kinds[n / 2],
            .at = {n % 2 == 0 ? 0 : 1, 0}, /* without a gap, on boundaries: V is 4 times 1549 */
            .reference_at = {-1, 0},
            .logits = z,
            .reference = reference,
            .label = label,
            .R = ROWS,
            .V = V,
            .stats = true,
            .gradient = true};
        check_scores(be, &c);
    }
    free(z);
    free(reference);
}

/* Vectors that are columns of a matrix. */
static void strided_vectors(backend *be)
{
    enum { V = 37, N = 9 };
    float *z = random_floats(1, N * V), dense[N], strided[N], scale[2][N];
    int32_t label[N * 2];
    ops o = ops_begin(be);
    for (int r = 0; r < N; r++) {
        label[2 * r] = r * 4, label[2 * r + 1] = 1000;
    }
    const tensor labels = tensor_cols(ops_indices(&o, label, N, 2), 0, 1);
    const tensor wide = ops_output(&o, N, 4), stats = ops_make(&o, DTYPE_F32, N, ROW_STATS, 7);
    logprob_tensors rows = {.logp = tensor_cols(wide, 1, 1),
                            .scale = tensor_cols(wide, 3, 1),
                            .stats = stats,
                            .logits = ops_floats(&o, z, N, V),
                            .label = labels};
    CHECK_OK(be->token_logprob(be, &rows, true));
    ops_get(&o, strided, rows.logp);
    ops_get(&o, scale[0], rows.scale);
    ops_check_untouched(&o, tensor_cols(wide, 0, 1));
    ops_check_untouched(&o, tensor_cols(wide, 2, 1));
    rows.logp = ops_output(&o, N, 1);
    rows.scale = ops_output(&o, N, 1);
    rows.logits = ops_floats(&o, z, N, V);
    CHECK_OK(be->token_logprob(be, &rows, true));
    ops_get(&o, dense, rows.logp);
    ops_get(&o, scale[1], rows.scale);
    assert_memory_equal(strided, dense, sizeof dense);
    assert_memory_equal(scale[0], scale[1], sizeof scale[0]);
    ops_end(&o);
    free(z);
}

#ifdef TEST_CUDA
/* A label out of range: no log-prob, a gradient without a onehot, a fault; and the other rows are as ever. */
static void labels_out_of_range(backend *be)
{
    enum { V = 200, N = 5 };
    static const int32_t bad[] = {V, -1, INT32_MIN, INT32_MAX};
    static const int32_t fine[N] = {3, 3, 3, 3, 3};
    float *z = random_floats(1, N * V), *reference = random_floats(2, N * V);
    (void)faults_of(be);
    for (int n = 0; n < 4 * 3; n++) {
        int32_t label[N] = {3, 3, bad[n % 4], 3, 3};
        score_call c = {.kind = score_kinds[n / 4],
                        .at = {n % 2 == 0 ? -1 : 1, 0},
                        .reference_at = {-1, 0},
                        .logits = z,
                        .reference = reference,
                        .label = label,
                        .R = N,
                        .V = V,
                        .stats = true,
                        .gradient = true};
        scores s = score(be, &c);
        assert_int_equal(faults_of(be), FAULT_LABEL);
        assert_int_equal(faults_of(be), 0);
        assert_true(isnan(s.logp[2]) && isnan(s.reference_logp[2]));
        const float *stats = s.stats + 2 * ROW_STATS;
        exact x = exactly(z + 2 * V, V, 3, c.kind.logits);
        assert_true(stats[STAT_HIT] == 0.0f);
        CHECK_NEAR(stats[STAT_ENTROPY], x.entropy, x.entropy_error * EPS);
        CHECK_NEAR(stats[STAT_SUM_P2], x.sum_p2, x.p2_error * EPS);
        double sum = 0;
        for (int i = 0; i < V; i++) {
            sum += (double)s.gradient[2 * V + i] * (double)s.scale[2];
            assert_true(s.gradient[2 * V + i] > 0);
        }
        CHECK_NEAR(sum, 1, c.kind.gradient == DTYPE_F32 ? 100 * EPS : EPS_BF16);
        for (int r = 0; r < N; r++) {
            if (r != 2) check_row(&c, &s, r, true);
        }
        exact_free(&x);
        scores_free(&s);
        c.label = fine;
        c.gradient = c.stats = false;
        s = score(be, &c);
        assert_int_equal(faults_of(be), 0);
        scores_free(&s);
    }
    free(z);
    free(reference);
}

/* Without a fault word, in silence. */
static void faults_may_be_absent(backend *be)
{
    static const int32_t label[] = {9};
    float logp;
    ops o = ops_begin(be);
    const logprob_tensors rows = {.logp = ops_output(&o, 1, 1),
                                  .logits = ops_floats(&o, (float[]){1, 2, 3}, 1, 3),
                                  .label = ops_indices(&o, label, 1, 1)};
    CHECK_OK(cuda_token_logprob(&rows, false, (tensor){0}, NULL));
    ops_get(&o, &logp, rows.logp);
    assert_true(isnan(logp));
    assert_int_equal(faults_of(be), 0);
    ops_end(&o);
}
#endif

/* What a call of two rows of five may be; `fine` of both. */
static logprob_tensors good_call(ops *o)
{
    static const int32_t fine[] = {0, 4};
    return (logprob_tensors){.logp = ops_output(o, 2, 1),
                             .stats = ops_output(o, 2, ROW_STATS),
                             .scale = ops_output(o, 2, 1),
                             .logits = ops_output(o, 2, 5),
                             .label = ops_indices(o, fine, 2, 1),
                             .reference_logp = ops_output(o, 2, 1),
                             .reference_logits = ops_output(o, 2, 5),
                             .gradient_type = DTYPE_F32};
}

static void check_untouched(ops *o, const logprob_tensors *t)
{
    ops_check_untouched(o, t->logits);
    ops_check_untouched(o, t->logp);
    ops_check_untouched(o, t->stats);
    ops_check_untouched(o, t->scale);
    ops_check_untouched(o, t->reference_logp);
    ops_check_untouched(o, t->reference_logits);
}

static void broken_contracts(backend *be)
{
    static const int32_t bad[][2] = {{0, 5}, {-1, 0}};
    ops o = ops_begin(be);
    const logprob_tensors good = good_call(&o);
    logprob_tensors rows = good;
    for (int i = 0; i < 2 && !be->on_device; i++) {
        rows.label = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "label");
    }
#define REFUSED(change, name)                                                \
    do {                                                                     \
        rows = good;                                                         \
        change;                                                              \
        CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, name); \
    } while (0)
    REFUSED(rows.logp = good.logits, "logp");
    REFUSED(rows.logp = (tensor){0}, "logp");
    REFUSED(rows.logp = tensor_rows(good.logp, 0, 1), "logp");
    REFUSED(rows.stats = good.logits, "stats");
    REFUSED(rows.stats = tensor_rows(good.stats, 0, 1), "stats");
    REFUSED(rows.scale = (tensor){0}, "scale");
    REFUSED(rows.scale = tensor_rows(good.scale, 0, 1), "scale");
    CHECK_FAILS(be->token_logprob(be, &good, false), CUDPO_EINVAL, "scale");
    REFUSED(rows.label = tensor_rows(good.label, 0, 1), "label");
    REFUSED(rows.label = good.logp, "label");
    REFUSED(rows.logits = good.label, "logits");
    REFUSED(rows.logits = (tensor){0}, "logits");
    REFUSED(rows.gradient_type = DTYPE_F16, "gradient_type");
    REFUSED(rows.gradient_type = DTYPE_I32, "gradient_type");
    REFUSED(rows.reference_logits = (tensor){0}, "reference");
    REFUSED(rows.reference_logp = (tensor){0}, "reference");
    REFUSED(rows.reference_logp = tensor_rows(good.reference_logp, 0, 1), "reference_logp");
    REFUSED(rows.reference_logits = tensor_cols(good.reference_logits, 0, 4), "reference_logits");
    REFUSED(rows.reference_logits = tensor_rows(good.reference_logits, 0, 1), "reference_logits");
    check_untouched(&o, &good);
    rows = good;
    rows.logits = tensor_rows(good.logits, 0, 0), rows.logp = tensor_rows(good.logp, 0, 0);
    rows.scale = tensor_rows(good.scale, 0, 0), rows.label = tensor_rows(good.label, 0, 0);
    rows.stats = rows.reference_logits = rows.reference_logp = (tensor){0};
    CHECK_OK(be->token_logprob(be, &rows, true)); /* no rows */
    check_untouched(&o, &good);
    ops_end(&o);
}

/* What only the device asks: types that it has no kernel for, addresses, and operands that overlap. */
static void broken_contracts_of_the_device(backend *be)
{
    if (!be->on_device) return;
    ops o = ops_begin(be);
    const logprob_tensors good = good_call(&o);
    const tensor half = ops_make(&o, DTYPE_BF16, 2, 5, 8);
    const tensor wide = ops_output(&o, 4, 8), indices = ops_make(&o, DTYPE_I32, 2, 1, 1);
    logprob_tensors rows = good;
    REFUSED(rows.logits = half, "gradient_type"); /* bf16 logits, f32 gradient */
    REFUSED((rows.logits = half, rows.gradient_type = DTYPE_BF16), "is_like(reference_logits");
    REFUSED(rows.reference_logits = half, "is_like(reference_logits");
    REFUSED(rows.logits = moved(good.logits, 2), "logits");
    REFUSED(rows.reference_logits = moved(good.reference_logits, 2), "reference_logits");
    REFUSED(rows.logp = moved(good.logp, 1), "logp");
    REFUSED(rows.scale = moved(good.scale, 2), "scale");
    REFUSED(rows.stats = moved(good.stats, 2), "stats");
    REFUSED(rows.label = moved(good.label, 2), "label");
    REFUSED(rows.logits.cols = rows.reference_logits.cols = (int64_t)1 << 31, "V <=");
    REFUSED(rows.logits.rows = (int64_t)1 << 31, "R <=");
    REFUSED(rows.logp = good.scale, "are_apart");
    REFUSED(rows.reference_logp = good.logp, "are_apart");
    REFUSED(rows.reference_logp = good.scale, "are_apart");
    REFUSED(rows.reference_logits = good.logits, "are_apart");
    REFUSED((rows.logp = tensor_cols(wide, 0, 1), rows.logp.rows = 2,
             rows.logits = tensor_cols(tensor_rows(wide, 1, 2), 0, 5)),
            "are_apart");
    rows = good, rows.logits = tensor_rows(tensor_cols(wide, 0, 5), 0, 2);
    rows.reference_logits = tensor_rows(tensor_cols(wide, 0, 5), 1, 2); /* one row in common */
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "are_apart");
    REFUSED((rows.stats = tensor_rows(tensor_cols(wide, 0, 4), 0, 2),
             rows.scale = tensor_rows(tensor_cols(wide, 3, 1), 0, 2)),
            "are_apart");
    rows = good, rows.label = indices, rows.logp = indices, rows.logp.type = DTYPE_F32;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "are_apart");
    rows = good, rows.label = tensor_rows(good.logits, 0, 2), rows.label.type = DTYPE_I32;
    rows.label.cols = 1;
    CHECK_FAILS(be->token_logprob(be, &rows, true), CUDPO_EINVAL, "are_apart");
    ops_check_untouched(&o, wide);
    ops_check_untouched(&o, half);
    ops_check_untouched(&o, indices);
    check_untouched(&o, &good);
    ops_end(&o);
}

static const op_case cases[] = {
    {"policy_and_reference", policy_and_reference},
    {"long_rows_side_by_side", long_rows_side_by_side},
    {"strided_vectors", strided_vectors},
#ifdef TEST_CUDA
    {"labels_out_of_range", labels_out_of_range},
    {"faults_may_be_absent", faults_may_be_absent},
#endif
    {"broken_contracts", broken_contracts},
    {"broken_contracts_of_the_device", broken_contracts_of_the_device},
};
OPS_MAIN(cases)
