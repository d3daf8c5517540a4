/* test_token_logprob_rows.c - many rows, the reference's beside the policy's, labels out of range, broken contracts. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_refusals.h"
#include "test_token_logprob.h"

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

typedef struct contract_call {
    logprob_tensors rows;
    bool gradient;
    tensor fault;
} contract_call;

static cudpo_status call(backend *be, const void *arguments)
{
    const contract_call *c = arguments;
#ifdef TEST_CUDA
    return cuda_token_logprob(&c->rows, c->gradient, c->fault, ((cuda_backend *)be)->stream);
#else
    return be->token_logprob(be, &c->rows, c->gradient);
#endif
}

/* Two rows of five. */
static contract_call good_call(ops *o)
{
    static const int32_t fine[] = {0, 4};
    return (contract_call){.rows = {.logp = ops_output(o, 2, 1),
                                    .stats = ops_output(o, 2, ROW_STATS),
                                    .scale = ops_output(o, 2, 1),
                                    .logits = ops_output(o, 2, 5),
                                    .label = ops_indices(o, fine, 2, 1),
                                    .reference_logp = ops_output(o, 2, 1),
                                    .reference_logits = ops_output(o, 2, 5),
                                    .gradient_type = DTYPE_F32},
                           .gradient = true,
                           .fault = ops_output_as(o, DTYPE_I32, 1, 1)};
}

static void refusals_of_operands(backend *be)
{
    enum { FREE = ANY_ROWS | ANY_COLS | ANY_FLOAT };
    ops o = ops_begin(be);
    contract_call c = good_call(&o);
    logprob_tensors *t = &c.rows;
    const char *const label = be->on_device ? "is_i32(label, " : "is_index(label, ";
    const operand operands[] = {
        {"logp", &t->logp, "is_f32(logp, ", OUTPUT},
        {"stats", &t->stats, "is_f32(stats, ", OUTPUT | OPTIONAL},
        {"scale", &t->scale, "is_f32(scale, ", OUTPUT},
        {"logits", &t->logits, "is_matrix(logits)", OUTPUT | FREE},
        {"label", &t->label, label, 0},
        {"reference_logp", &t->reference_logp, "is_f32(reference_logp, ", OUTPUT | OPTIONAL},
        {"reference_logits", &t->reference_logits, "is_like(reference_logits, ", OPTIONAL},
        {"fault", &c.fault, "is_fault(fault)", OUTPUT | OPTIONAL}};
    const refusals r = {&o, call, &c, operands, be->on_device ? 8 : 7};
    check_refusals(&r);
    ops_check_untouched(&o, t->reference_logits);
    ops_check_untouched(&o, c.fault);
    const contract_call good = c;
    t->reference_logits = (tensor){0};
    refusals_check(&r, "reference_logits", "alone", "reference == tensor_present", "?");
    c = good, t->reference_logp = (tensor){0};
    refusals_check(&r, "reference_logp", "alone", "reference == tensor_present", "?");
    c = good, c.gradient = false;
    refusals_check(&r, "scale", "not wanted", "!tensor_present(scale)", "?");
    t->scale =
        (tensor){0}; /* without a gradient the logits are read alone, and overlap nothing either */
    refusals_of_overlaps(&r);
    ops_check_untouched(&o, good.rows.logits);
    ops_check_untouched(&o, good.rows.logp);
    t->gradient_type = DTYPE_F64; /* of none */
    CHECK_OK(call(be, &c));
    ops_end(&o);
}

static void refusals_of_types_and_sizes(backend *be)
{
    static const dtype wrong[] = {DTYPE_F16, DTYPE_I32, DTYPE_F64, DTYPE_BF16};
    ops o = ops_begin(be);
    contract_call c = good_call(&o);
    const contract_call good = c;
    for (int i = 0; i < (be->on_device ? 3 : 4); i++) {
        c.rows.gradient_type = wrong[i];
        CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "gradient_type == DTYPE_");
    }
    c = good;
    c.rows.logits.cols = c.rows.logits.stride = (int64_t)INT32_MAX + 1;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, be->on_device ? "logits.cols <= MAX" : "V <= INT32");
    CHECK_FAILS(be->token_logprob(be, NULL, true), CUDPO_EINVAL, "rows != NULL");
#ifdef TEST_CUDA
    CHECK_FAILS(cuda_token_logprob(NULL, true, c.fault, NULL), CUDPO_EINVAL, "rows != NULL");
    c.rows.logits.cols = ((int64_t)1 << 30) + 1;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "logits.cols <= MAX_VOCABULARY");
    c.rows.logits.cols--;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "is_like(reference_logits, ");
    c = good;
    c.rows.logits.rows = (int64_t)1 << 30;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "logits.rows <= INT32_MAX / 2");
    c.rows.logits.rows--;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "is_f32(logp, ");
    c = good;
    c.rows.logits = ops_output_as(&o, DTYPE_BF16, 2, 5);
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "logits.type == DTYPE_F32"); /* f32 gradient of bf16 */
    c.rows.gradient_type = DTYPE_BF16;
    CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "is_like(reference_logits, ");
    ops_check_untouched(&o, c.rows.logits);
#endif
    ops_check_untouched(&o, good.rows.logits);
    ops_check_untouched(&o, good.rows.logp);
    ops_end(&o);
}

#ifndef TEST_CUDA
static void labels_are_refused(backend *be)
{
    static const int32_t bad[][2] = {{0, 5}, {-1, 0}};
    ops o = ops_begin(be);
    contract_call c = good_call(&o);
    for (int i = 0; i < 2; i++) {
        c.rows.label = ops_indices(&o, bad[i], 2, 1);
        CHECK_FAILS(call(be, &c), CUDPO_EINVAL, "is_index(label");
    }
    ops_check_untouched(&o, c.rows.logits);
    ops_end(&o);
}
#endif

static void no_rows(backend *be)
{
    ops o = ops_begin(be);
    const contract_call good = good_call(&o);
    contract_call c = good;
    c.rows.logp.rows = c.rows.stats.rows = c.rows.scale.rows = c.rows.logits.rows = 0;
    c.rows.label.rows = c.rows.reference_logp.rows = c.rows.reference_logits.rows = 0;
    CHECK_OK(call(be, &c));
    ops_check_untouched(&o, good.rows.logits);
    ops_check_untouched(&o, good.rows.logp);
    ops_end(&o);
}

static const op_case cases[] = {
    {"policy_and_reference", policy_and_reference},
    {"long_rows_side_by_side", long_rows_side_by_side},
    {"strided_vectors", strided_vectors},
#ifdef TEST_CUDA
    {"labels_out_of_range", labels_out_of_range},
    {"faults_may_be_absent", faults_may_be_absent},
#else
    {"labels_are_refused", labels_are_refused},
#endif
    {"refusals_of_operands", refusals_of_operands},
    {"refusals_of_types_and_sizes", refusals_of_types_and_sizes},
    {"no_rows", no_rows},
};
OPS_MAIN(cases)
