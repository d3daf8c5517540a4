/* test_invariance.c - what must not change a run: micro-batches, packs, recomputation, where the reference is, threads. */
/* rooms: train */
#include "scratch.h"
#include "cudpo/config.h"
#include "train/trainer.h"

#include <omp.h>

enum { STEPS = 12, SETTINGS = 6 };

/* Rounding differs where sums are cut differently, and 12 updates carry it on: 1e-5 of 1, or of the value where that is
 * larger, as log-probs of about -150 are. */
static const double tolerance = 1e-5;

typedef struct setting {
    const char *key, *value;
} setting;

/* A series of one run: what does not depend on how a step is cut into micro-batches. */
typedef struct series {
    double value[STEPS][METRICS + 1]; /* the last: grad_norm; NaN: not there */
    char weights[64];                 /* a fingerprint of the final weights */
} series;

static const setting base[] = {
    {"model_name_or_path", "tests/golden/models/llama"},
    {"train_dataset", "tests/golden/data/train.jsonl"},
    {"max_length", "64"},
    {"max_steps", "12"},
    {"learning_rate", "1e-4"},
    {"warmup_steps", "3"},
    {"gradient_checkpointing", "false"},
    {"logging_steps", "1"},
};

static void set_all(cudpo_config *c, const setting *s, size_t n)
{
    for (size_t i = 0; i < n && s[i].key != NULL; i++)
        CHECK_OK(cudpo_config_set(c, s[i].key, s[i].value));
}

static void fingerprint(char out[64], const model_weights *w)
{
    const float *v = tensor_f32(w->all);
    uint64_t hash = 1469598103934665603u; /* FNV-1a over the bits */
    for (int64_t i = 0; i < tensor_elements(w->all); i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        hash = (hash ^ bits) * 1099511628211u;
    }
    snprintf(out, 64, "%016llx", (unsigned long long)hash);
}

static void run(series *out, const setting *common, const setting *change)
{
    cudpo_config c;
    cudpo_trainer *t = NULL;
    CHECK_OK(cudpo_config_create(&c));
    set_all(&c, base, sizeof base / sizeof base[0]);
    CHECK_OK(cudpo_config_set(&c, "output_dir", scratch_folder()));
    set_all(&c, common, SETTINGS);
    set_all(&c, change, SETTINGS);
    CHECK_OK(cudpo_config_check(&c));
    CHECK_OK(cudpo_trainer_open(&t, &c));
    assert_int_equal(cudpo_trainer_steps(t), STEPS);
    for (int i = 0; i < STEPS; i++) {
        step_batch b;
        batch_metrics m;
        CHECK_OK(trainer_step(t, &b, &m));
        memcpy(out->value[i], m.value, sizeof m.value);
        out->value[i][METRICS] = t->last_grad_norm;
    }
    fingerprint(out->weights, &t->policy);
    cudpo_trainer_close(t);
    cudpo_config_free(&c);
}

/* The value of a metric of that name. */
static double value_of(const double *value, const char *name)
{
    for (int k = 0; k < METRICS; k++) {
        if (strcmp(metrics_names[k], name) == 0) return value[k];
    }
    return NAN;
}

/* While all rewards are 0 but for rounding, which completion is ahead is rounding too: a BLAS kernel need not give the same
 * bits for a row wherever it stands in a matrix, and the cached reference was computed in other packs. */
static bool is_undecided(const char *name, const double *value)
{
    return strcmp(name, "rewards/accuracies") == 0 &&
           fabs(value_of(value, "rewards/margins")) <= 1e-6 &&
           fabs(value_of(value, "rewards/chosen")) <= 1e-6;
}

/* What a value's error is relative to: kl is a difference of log-probs, and errs as they do. */
static double size_of(const char *name, const double *value, double want)
{
    const double logps = strcmp(name, "kl") == 0 ? value_of(value, "logps/chosen") : 0;
    return fmax(1.0, fmax(fabs(want), fabs(logps)));
}

static void compare(const char *what, const series *a, const series *b)
{
    double worst = 0.0;
    int64_t compared = 0;
    for (int i = 0; i < STEPS; i++) {
        for (int k = 0; k <= METRICS; k++) {
            const double want = a->value[i][k], got = b->value[i][k];
            const char *name = k == METRICS ? "grad_norm" : metrics_names[k];
            if (isnan(want) && isnan(got)) continue;
            if (is_undecided(name, a->value[i])) continue;
            const double error = fabs(got - want) / size_of(name, a->value[i], want);
            if (!(error <= tolerance))
                fail_msg("%s, step %d: %s is %.9g, not %.9g", what, i + 1, name, got, want);
            worst = fmax(worst, error);
            compared++;
        }
    }
    assert_true(compared >= STEPS * 4); /* loss, gradient norm, log-probs at least */
    printf("%-48s %.1e%s\n", what, worst, strcmp(a->weights, b->weights) == 0 ? ", same bits" : "");
}

/* How a step's eight pairs are cut. */
static const setting cuts[][SETTINGS] = {
    {{"per_device_train_batch_size", "4"}, {"gradient_accumulation_steps", "2"}},
    {{"per_device_train_batch_size", "2"}, {"gradient_accumulation_steps", "4"}},
    {{"per_device_train_batch_size", "1"}, {"gradient_accumulation_steps", "8"}},
};
static const setting packs[][SETTINGS] = {
    {{"max_tokens_per_pack", "128"}},
    {{"max_tokens_per_pack", "300"}},
    {{"max_tokens_per_pack", "4000"}},
};
static const setting checkpointing[SETTINGS] = {{"gradient_checkpointing", "true"}};
static const setting cached[SETTINGS] = {{"precompute_ref_log_probs", "true"}};
static const setting none[SETTINGS] = {{NULL, NULL}};

static void vary(const char *loss, const char *model, bool cut, bool reference)
{
    char what[128], path[128];
    const bool kto = strcmp(loss, "kto") == 0;
    snprintf(path, sizeof path, "tests/golden/models/%s", model);
    const setting common[SETTINGS] = {
        {"loss_type", loss},
        {"model_name_or_path", path},
        {"train_dataset", kto ? "tests/golden/data/kto.jsonl" : "tests/golden/data/train.jsonl"}};
    series plain, other;
    run(&plain, common, none);
    for (int i = 0; cut && i < 3; i++) {
        run(&other, common, cuts[i]);
        snprintf(what, sizeof what, "%s %s, %s x %s", loss, model, cuts[i][0].value,
                 cuts[i][1].value);
        compare(what, &plain, &other);
    }
    for (int i = 0; i < 3; i++) {
        run(&other, common, packs[i]);
        snprintf(what, sizeof what, "%s %s, packs of %s tokens", loss, model, packs[i][0].value);
        compare(what, &plain, &other);
    }
    run(&other, common, checkpointing);
    snprintf(what, sizeof what, "%s %s, layers computed twice", loss, model);
    compare(what, &plain, &other);
    assert_string_equal(plain.weights, other.weights); /* the same sums in the same order */
    for (int i = 0; reference && i < 2; i++) {
        run(&other, common, cached);
        snprintf(what, sizeof what, "%s %s, reference %s", loss, model,
                 i == 0 ? "computed before" : "read from its cache");
        compare(what, &plain, &other);
    }
}

static void sigmoid(void **state)
{
    (void)state;
    vary("sigmoid", "llama", true, true);
    vary("sigmoid", "qwen3", true, true);
    vary("sigmoid", "mistral", true, true);
}

static void other_losses(void **state)
{
    (void)state;
    vary("ipo", "llama3", true, true);
    vary("hinge", "qwen2", true, true);
    vary("orpo", "llama", true, false);
    vary("sft", "llama", true, false);
    vary("kto", "llama", false, true); /* its KL term is an estimate of the micro-batch */
}

/* The same weights that compute in another way have another reference: its cache must not serve. */
static void cache_knows_the_computation(void **state)
{
    (void)state;
    char *config = NULL, path[640];
    size_t n;
    CHECK_OK(file_make_folder(scratch_path("other")));
    CHECK_OK(file_copy(scratch_path("other/model.safetensors"),
                       "tests/golden/models/llama/model.safetensors"));
    CHECK_OK(file_copy(scratch_path("other/tokenizer.json"),
                       "tests/golden/models/llama/tokenizer.json"));
    CHECK_OK(file_copy(scratch_path("other/tokenizer_config.json"),
                       "tests/golden/models/llama/tokenizer_config.json"));
    CHECK_OK(file_read(&config, &n, "tests/golden/models/llama/config.json", 1 << 20));
    char *theta = strstr(config, "\"rope_theta\": 10000");
    assert_non_null(theta);
    theta[strlen("\"rope_theta\": ")] = '2';
    scratch_text("other/config.json", config);
    free(config);
    snprintf(path, sizeof path, "%s", scratch_path("other"));
    const setting common[SETTINGS] = {{"model_name_or_path", path}};
    series resident, other;
    run(&other, none, cached); /* leaves a cache of the model as it was */
    run(&resident, common, none);
    run(&other, common, cached);
    compare("another rope_theta, reference computed before", &resident, &other);
}

static void threads(void **state)
{
    (void)state;
    const int before = omp_get_max_threads();
    static series plain, other;
    omp_set_num_threads(1);
    run(&plain, none, none);
    for (int n = 2; n <= 3; n++) {
        char what[64];
        omp_set_num_threads(n);
        run(&other, none, none);
        snprintf(what, sizeof what, "%d threads", n);
        compare(what, &plain, &other);
        assert_string_equal(plain.weights, other.weights);
    }
    omp_set_num_threads(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmoid),
        cmocka_unit_test(other_losses),
        cmocka_unit_test(cache_knows_the_computation),
        cmocka_unit_test(threads),
    };
    /* Where a build is slow: other tests run these steps there. */
    const struct CMUnitTest part[] = {cmocka_unit_test(cache_knows_the_computation)};
    if (getenv("CUDPO_TEST_PART") != NULL)
        return cmocka_run_group_tests(part, NULL, scratch_remove);
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
