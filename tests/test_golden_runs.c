/* test_golden_runs.c - replays TRL's own runs (tests/golden): the same rows in the same order, the same ids, the same logits,
 * and at every one of 20 steps the same loss, gradient norm and metrics.
 *
 *   test_golden_runs            every run that the losses and options here cover; the others are named with the reason
 *   test_golden_runs NAME ...   these runs
 *
 * On the device that $CUDPO_DEVICE names. */
/* rooms: train */
/* backends: cpu plugin */
#include "plugin.h"
#include "scratch.h"
#include "base/file.h"
#include "base/json.h"
#include "model/weights_file.h"
#include "train/trainer.h"

#include <dirent.h>

static const char *const folder = "tests/golden";

/* Tolerances of the project: absolute, but for the gradient norm. */
static const double loss_tolerance = 1e-4, norm_tolerance = 1e-2, metric_tolerance = 1e-3;

static double worst_loss, worst_norm, worst_metric;
static char *const *only; /* names of runs, NULL at the end; none: all */

/* Options and losses of TRL that cudpo does not have, or has otherwise on purpose. */
static const char *reason_to_skip(const json *run, const char *name)
{
    static const char *const options[] = {"f_divergence_type", "ld_alpha",
                                          "use_weighting",     "sync_ref_model",
                                          "loss_weights",      "f_alpha_divergence_coef"};
    const json *config = json_get(run, "config"), *loss = json_get(config, "loss_type");
    loss_kind kind;
    if (json_type(loss) != JSON_STRING) return "a list of losses";
    if (loss_traits_find(json_string(loss), &kind) == NULL) return "a loss that is not there";
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (json_get(config, options[i]) != NULL) return "an option that is not there";
    if (strcmp(name, "loss_sigmoid_smoothing") == 0)
        return "label smoothing works here, TRL ignores it";
    if (strcmp(name, "batch_6x2") == 0)
        return "a short micro-batch weighs by its pairs here, not as much as a full one";
    if (strcmp(name, "chat") == 0) return "conversational rows";
    return NULL;
}

/* ORPO's mean logits cover padding in TRL, here only completions. */
static bool differs_on_purpose(const cudpo_config *c, const char *metric_name)
{
    return strncmp(metric_name, "logits/", 7) == 0 && strcmp(c->loss_type, "orpo") == 0;
}

static bool is_path(const char *key)
{
    return strstr(key, "name_or_path") != NULL || strcmp(key, "train_dataset") == 0 ||
           strcmp(key, "eval_dataset") == 0;
}

static void set_key(cudpo_config *c, const char *key, const json *value)
{
    char text[4096];
    switch (json_type(value)) {
    case JSON_STRING:
        snprintf(text, sizeof text, "%s%s%s", is_path(key) ? folder : "", is_path(key) ? "/" : "",
                 json_string(value));
        break;
    case JSON_NUMBER:
        snprintf(text, sizeof text, "%.17g", json_number(value));
        break;
    case JSON_BOOL:
        snprintf(text, sizeof text, "%s", json_bool(value) ? "true" : "false");
        break;
    case JSON_NULL:
        snprintf(text, sizeof text, "null");
        break;
    default: { /* lr_scheduler_kwargs */
        const json *member = json_first(value);
        snprintf(text, sizeof text, "{\"%s\": %.17g}", json_key(member), json_number(member));
    }
    }
    CHECK_OK(cudpo_config_set(c, key, text));
}

static void configure(cudpo_config *c, const json *run, const char *output)
{
    CHECK_OK(cudpo_config_create(c));
    for (const json *m = json_first(json_get(run, "config")); m != NULL; m = json_next(m))
        set_key(c, json_key(m), m);
    CHECK_OK(cudpo_config_set(c, "output_dir", output));
    CHECK_OK(cudpo_config_set(c, "bf16", "false"));
    /* TRL logs rewards for supervised training too, against the initial policy. */
    if (strcmp(c->loss_type, "sft") == 0)
        CHECK_OK(cudpo_config_set(c, "ref_model_name_or_path", c->model_name_or_path));
    CHECK_OK(cudpo_config_check(c));
}

static void check_ids(const json *want, const int32_t *got, int32_t n, const char *what,
                      int64_t row)
{
    if (json_count(want) != n)
        fail_msg("row %lld: %s has %d ids, not %lld", (long long)row, what, (int)n,
                 (long long)json_count(want));
    int32_t i = 0;
    for (const json *v = json_first(want); v != NULL; v = json_next(v), i++)
        if (got[i] != (int32_t)json_number(v))
            fail_msg("row %lld: id %d of %s is %d, not %g", (long long)row, (int)i, what,
                     (int)got[i], json_number(v));
}

/* The example made of a line of the file; of unpaired rows, that with the label.  -1: it was left out. */
static int64_t find_example(const dataset *d, const json *wanted)
{
    const json *label = json_get(wanted, "label");
    for (int64_t i = 0; i < dataset_count(d); i++) {
        const example e = dataset_get(d, i);
        if ((double)e.row == json_number(json_get(wanted, "row")) &&
            (label == NULL || e.label == json_bool(label)))
            return i;
    }
    return -1;
}

/* With keep_end TRL keeps rows whole until it makes a batch of them: the last max_length ids are what it trains on. */
static void check_end(const json *row, const char *name, const example *e, int c, int64_t limit)
{
    const json *const parts[] = {json_get(row, "prompt_ids"), json_get(row, name)};
    const int32_t seen = e->prompt_length - e->prompt_skip[c];
    const int64_t total = json_count(parts[0]) + json_count(parts[1]);
    int64_t at = total > limit ? limit - total : 0, checked = 0;
    for (int p = 0; p < 2; p++) {
        for (const json *v = json_first(parts[p]); v != NULL; v = json_next(v), at++) {
            if (at < 0) continue;
            assert_true(at < seen + e->completion_length[c]);
            assert_int_equal(at < seen ? e->prompt[e->prompt_skip[c] + at]
                                       : e->completion[c][at - seen],
                             (int32_t)json_number(v));
            checked++;
        }
    }
    assert_int_equal(checked, seen + e->completion_length[c]);
}

/* The ids of the first lines.  TRL's KTO and ORPO store the same under other names. */
static void check_tokens(const cudpo_trainer *t, const json *run)
{
    int64_t checked = 0;
    for (const json *r = json_first(json_get(run, "tokens")); r != NULL; r = json_next(r)) {
        const int64_t i = find_example(t->train.data, r);
        if (i < 0) fail_msg("row %g was left out", json_number(json_get(r, "row")));
        const example e = dataset_get(t->train.data, i);
        checked++;
        if (strcmp(t->config->truncation_mode, "keep_end") == 0) {
            check_end(r, "chosen_ids", &e, 0, t->config->max_length);
            check_end(r, "rejected_ids", &e, 1, t->config->max_length);
            continue;
        }
        const json *completion = json_get(r, "completion_ids");
        if (completion == NULL) completion = json_get(r, "chosen_ids");
        check_ids(json_get(r, "prompt_ids"), e.prompt, e.prompt_length, "prompt", e.row);
        check_ids(completion, e.completion[0], e.completion_length[0], "completion", e.row);
        if (e.completions == 2)
            check_ids(json_get(r, "rejected_ids"), e.completion[1], e.completion_length[1],
                      "rejected", e.row);
        if (json_get(r, "KL_completion_ids") != NULL) {
            const example kl = trainer_mismatched_example(t, t->train.data, i);
            check_ids(json_get(r, "KL_completion_ids"), kl.completion[0], kl.completion_length[0],
                      "KL completion", e.row);
        }
    }
    assert_true(checked > 0);
}

/* The share of a step's pairs whose rewards differ by rounding, if at all, because the completions are the same ids, or all
 * rewards are still 0: a BLAS kernel need not give the same bits for a row wherever it stands in a matrix.  So either
 * completion may come out ahead. */
static double tied;

static bool is_tie(const example *e)
{
    return e->completions == 2 && e->completion_length[0] == e->completion_length[1] &&
           memcmp(e->completion[0], e->completion[1],
                  (size_t)e->completion_length[0] * sizeof *e->completion[0]) == 0;
}

static void check_rows(const cudpo_trainer *t, const step_batch *b, const json *micro_batches,
                       int64_t step)
{
    int64_t i = 0;
    for (const json *batch = json_first(micro_batches); batch != NULL; batch = json_next(batch))
        for (const json *row = json_first(batch); row != NULL; row = json_next(row), i++)
            if (i >= b->n ||
                dataset_get(t->train.data, b->example[i]).row != (int64_t)json_number(row))
                fail_msg("step %lld: place %lld is not row %g", (long long)step, (long long)i,
                         json_number(row));
    assert_true(i == b->n);
    tied = 0.0;
    for (i = 0; i < b->n; i++) {
        const example e = dataset_get(t->train.data, b->example[i]);
        if (is_tie(&e)) tied += 1.0 / (double)b->n;
    }
}

static void compare(const char *name, int64_t step, double got, double want)
{
    const bool loss = strcmp(name, "loss") == 0 || strcmp(name, "eval_loss") == 0;
    const bool norm = strcmp(name, "grad_norm") == 0;
    const bool accuracy = strcmp(name, "rewards/accuracies") == 0;
    const double error = norm       ? fabs(got - want) / want
                         : accuracy ? fmax(fabs(got - want) - tied, 0.0)
                                    : fabs(got - want);
    double *worst = loss ? &worst_loss : norm ? &worst_norm : &worst_metric;
    if (!(error <= (loss ? loss_tolerance : norm ? norm_tolerance : metric_tolerance)))
        fail_msg("step %lld: %s is %.9g, TRL has %.9g", (long long)step, name, got, want);
    *worst = fmax(*worst, error);
}

/* Every metric that TRL logged, but step; `prefix` is "" or "eval_". */
static void check_metrics(const cudpo_trainer *t, const json *want, const metric_sums *sums,
                          const char *prefix)
{
    metric got[METRICS];
    char text[METRICS][METRIC_NAME];
    const int64_t n = metrics_mean(got, text, sums, prefix),
                  step = (int64_t)json_number(json_get(want, "step"));
    const json *margin = json_get(want, "rewards/margins");
    if (margin != NULL && json_number(margin) == 0.0) tied = 1.0;
    int checked = 0;
    for (const json *m = json_first(want); m != NULL; m = json_next(m)) {
        const char *name = json_key(m);
        if (strcmp(name, "step") == 0) continue;
        if (differs_on_purpose(t->config,
                               name + strlen(strncmp(name, "eval_", 5) == 0 ? "eval_" : "")))
            continue;
        double value = NAN;
        if (strcmp(name, "grad_norm") == 0) value = t->last_grad_norm;
        if (strcmp(name, "learning_rate") == 0) value = t->last_learning_rate;
        if (strcmp(name, "epoch") == 0) value = t->last_epoch;
        if (strcmp(name, "num_tokens") == 0 || strcmp(name, "eval_num_tokens") == 0)
            value = (double)t->tokens_seen;
        for (int64_t i = 0; i < n; i++)
            if (strcmp(got[i].name, name) == 0) value = got[i].value;
        compare(name, step, value, json_number(m));
        checked++;
    }
    assert_true(checked >= 5);
}

static const json *entry_of(const json *list, int64_t step)
{
    for (const json *e = json_first(list); e != NULL; e = json_next(e))
        if ((int64_t)json_number(json_get(e, "step")) == step) return e;
    return NULL;
}

static void check_final(const cudpo_trainer *t, const json *final)
{
    int64_t checked = 0;
    for (int64_t i = 0; i < t->policy.count; i++) {
        const weight_name *n = &t->policy.names[i];
        const json *want = json_get(final, n->name);
        if (want == NULL) fail_msg("the golden run has no %s", n->name);
        const int64_t elements = tensor_elements(n->view);
        float *const w = malloc((size_t)elements * sizeof *w);
        double squares = 0.0;
        assert_non_null(w);
        CHECK_OK(weights_download(&t->policy, n->view, 0, w, elements));
        for (int64_t j = 0; j < elements; j++)
            squares += (double)w[j] * (double)w[j];
        const double norm = json_number(json_get(want, "norm"));
        if (!(fabs(sqrt(squares) - norm) <= 1e-4 * norm))
            fail_msg("norm of %s is %.9g, TRL has %.9g", n->name, sqrt(squares), norm);
        const json *value = json_first(json_get(want, "value"));
        for (const json *at = json_first(json_get(want, "index")); at != NULL;
             at = json_next(at), value = json_next(value))
            if (!(fabs((double)w[(int64_t)json_number(at)] - json_number(value)) <= 1e-3))
                fail_msg("element %g of %s is %.9g, TRL has %.9g", json_number(at), n->name,
                         (double)w[(int64_t)json_number(at)], json_number(value));
        free(w);
        checked++;
    }
    assert_true(checked == json_count(final));
}

static void evaluate_if_due(cudpo_trainer *t, const json *run)
{
    const json *want = entry_of(json_get(run, "eval"), t->step);
    if (want == NULL) return;
    metric_sums sums;
    CHECK_OK(trainer_evaluate(t, &sums));
    check_metrics(t, want, &sums, "eval_");
}

static void replay(const json *run, const char *output)
{
    cudpo_config c;
    cudpo_trainer *t = NULL;
    configure(&c, run, output);
    CHECK_OK(cudpo_trainer_open(&t, &c));
    check_tokens(t, run);
    const json *rows = json_first(json_get(run, "rows"));
    evaluate_if_due(t, run);
    int64_t logged = 0;
    for (; rows != NULL; rows = json_next(rows)) {
        step_batch b;
        batch_metrics m;
        CHECK_OK(trainer_step(t, &b, &m));
        check_rows(t, &b, rows, t->step);
        const json *want = entry_of(json_get(run, "metrics"), t->step);
        if (want != NULL) {
            check_metrics(t, want, &t->sums, "");
            t->sums = (metric_sums){{0}, {0}};
            logged++;
        }
        evaluate_if_due(t, run);
    }
    assert_true(t->step == t->total_steps && logged == json_count(json_get(run, "metrics")));
    check_final(t, json_get(run, "final"));
    cudpo_trainer_close(t);
    cudpo_config_free(&c);
}

static bool is_wanted(const char *name)
{
    bool wanted = *only == NULL;
    for (char *const *o = only; *o != NULL; o++)
        wanted |= strcmp(*o, name) == 0;
    return wanted;
}

static void every_run(void **state)
{
    (void)state;
    char path[4096], output[4096];
    struct dirent **names;
    const int count = scandir("tests/golden/runs", &names, NULL, alphasort);
    int replayed = 0;
    assert_true(count > 0);
    snprintf(output, sizeof output, "%s", scratch_folder());
    for (int i = 0; i < count; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s", names[i]->d_name);
        free(names[i]);
        char *dot = strrchr(name, '.');
        if (dot == NULL || strcmp(dot, ".json") != 0) continue;
        *dot = '\0';
        if (!is_wanted(name)) continue;
        json *run = NULL;
        snprintf(path, sizeof path, "tests/golden/runs/%s.json", name);
        CHECK_OK(json_load(&run, path, 1 << 22));
        const char *reason = reason_to_skip(run, name);
        worst_loss = worst_norm = worst_metric = 0.0;
        if (reason != NULL) {
            printf("%-24s not replayed: %s\n", name, reason);
        } else {
            printf("%-24s ", name);
            fflush(stdout);
            replay(run, output);
            printf("loss %.1e  grad_norm %.1e relative  metrics %.1e\n", worst_loss, worst_norm,
                   worst_metric);
            replayed++;
        }
        json_free(run);
    }
    free(names);
    int names_given = 0;
    while (only[names_given] != NULL)
        names_given++;
    assert_int_equal(replayed, names_given > 0 ? names_given : 40);
}

/* Log-probs of every next token of a sequence, and all logits at two positions, of the initial models. */
static void check_logits(const char *name, const json *golden)
{
    char path[4096];
    model_config c;
    model_weights w;
    pass p;
    int32_t ids[512];
    int64_t n = 0;
    snprintf(path, sizeof path, "%s/%s", folder,
             json_string(json_get(golden, "model_name_or_path")));
    for (const json *v = json_first(json_get(golden, "input_ids")); v != NULL && n < 512;
         v = json_next(v))
        ids[n++] = (int32_t)json_number(v);
    CHECK_OK(model_config_load(&c, path));
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_load(&w, &c, path));
    const pass_limits limits = {
        .tokens = n, .groups = 1, .largest_group = n, .positions = n, .completions = 1};
    const example e = {.prompt = ids,
                       .prompt_length = 1,
                       .completions = 1,
                       .completion = {ids + 1},
                       .completion_length = {(int32_t)n - 1}};
    CHECK_OK(pass_create(&p, backend_cpu(), &c, &limits));
    assert_true(pack_add(&p.pack, &e, 0));
    CHECK_OK(pass_upload(&p));
    CHECK_OK(pass_score(&p, &w));
    double worst = 0.0;
    int64_t i = 0;
    for (const json *v = json_first(json_get(golden, "logps")); v != NULL; v = json_next(v), i++) {
        CHECK_NEAR(p.logp[i], json_number(v), 1e-4);
        worst = fmax(worst, fabs((double)p.logp[i] - json_number(v)));
    }
    assert_true(i == n - 1);
    /* Scoring leaves the logits of the last chunk, here the only one: row r predicts token r + 1. */
    const json *row = json_first(json_get(golden, "logits"));
    for (const json *at = json_first(json_get(golden, "positions")); at != NULL;
         at = json_next(at), row = json_next(row)) {
        if ((int64_t)json_number(at) >= n - 1) continue;
        const float *logits = tensor_f32(p.head.logits) + (int64_t)json_number(at) * c.vocab_size;
        int64_t j = 0;
        for (const json *v = json_first(row); v != NULL; v = json_next(v), j++) {
            CHECK_NEAR(logits[j], json_number(v), 1e-4);
            worst = fmax(worst, fabs((double)logits[j] - json_number(v)));
        }
        assert_true(j == c.vocab_size);
    }
    printf("%-24s logits %.1e\n", name, worst);
    pass_destroy(&p);
    model_weights_destroy(&w);
}

static void logits_of_every_architecture(void **state)
{
    (void)state;
    struct dirent **names;
    const int count = scandir("tests/golden/logits", &names, NULL, alphasort);
    int checked = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        json *golden = NULL;
        snprintf(path, sizeof path, "tests/golden/logits/%s", names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            CHECK_OK(json_load(&golden, path, 1 << 20));
            check_logits(names[i]->d_name, golden);
            json_free(golden);
            checked++;
        }
        free(names[i]);
    }
    free(names);
    assert_true(checked >= 7);
}

int main(int argc, char **argv)
{
    if (plugin_asked() && plugin_missing()) return TEST_SKIPPED;
    only = argv + (argc > 1 ? 1 : argc);
    setenv("CUDPO_CACHE", scratch_folder(), 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_every_architecture),
        cmocka_unit_test(every_run),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
