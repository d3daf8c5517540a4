/* test_dpo_golden.c - one exact DPO step of a really trained model, against float64: scores, loss, every gradient, AdamW.
 * The shared layout and the plain one, whole and in packs. */
/* rooms: train */
#include "test.h"
#include "base/json.h"
#include "model/safetensors.h"
#include "optim/optimizer.h"
#include "train/pass.h"

enum { PAIRS = 8 };

typedef struct fixture {
    json *golden;
    model_config config;
    model_weights policy, reference, gradient, first, second;
    example pair[PAIRS];
    int32_t *ids[PAIRS][2];
} fixture;

static fixture f;

static int64_t read_ids(int32_t **out, const json *list)
{
    int64_t n = 0;
    *out = malloc((size_t)json_count(list) * sizeof **out);
    for (const json *v = json_first(list); v != NULL; v = json_next(v)) {
        int64_t id;
        assert_true(json_integer(v, &id));
        (*out)[n++] = (int32_t)id;
    }
    return n;
}

static void load_pairs(void)
{
    int i = 0;
    for (const json *p = json_first(json_get(f.golden, "pairs")); p != NULL;
         p = json_next(p), i++) {
        example *e = &f.pair[i];
        const int32_t prompt = (int32_t)json_number(json_get(p, "prompt_len"));
        const int64_t chosen = read_ids(&f.ids[i][0], json_get(p, "chosen"));
        const int64_t rejected = read_ids(&f.ids[i][1], json_get(p, "rejected"));
        *e = (example){.row = i, .prompt = f.ids[i][0], .prompt_length = prompt, .completions = 2};
        e->completion[0] = f.ids[i][0] + prompt;
        e->completion[1] = f.ids[i][1] + prompt;
        e->completion_length[0] = (int32_t)chosen - prompt;
        e->completion_length[1] = (int32_t)rejected - prompt;
    }
    assert_int_equal(i, PAIRS);
}

static void load_weights(model_weights *w, const char *folder)
{
    CHECK_OK(model_weights_create(w, backend_cpu(), &f.config, DTYPE_F32));
    if (folder != NULL) CHECK_OK(model_weights_load(w, &f.config, test_data(folder)));
}

static int set_up(void **state)
{
    (void)state;
    CHECK_OK(json_load(&f.golden, test_data("dpo-golden/dpo_step.json"), 1 << 24));
    CHECK_OK(model_config_load(&f.config, test_data("stories260k-hf")));
    load_weights(&f.policy, "stories260k-hf");
    load_weights(&f.reference, "stories260k-hf-bf16-sharded");
    load_weights(&f.gradient, NULL);
    load_weights(&f.first, NULL);
    load_weights(&f.second, NULL);
    load_pairs();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        free(f.ids[i][0]);
        free(f.ids[i][1]);
    }
    model_weights_destroy(&f.second);
    model_weights_destroy(&f.first);
    model_weights_destroy(&f.gradient);
    model_weights_destroy(&f.reference);
    model_weights_destroy(&f.policy);
    json_free(f.golden);
    return 0;
}

/* fp32 rounds at 1.2e-4 near -1100 nats. */
static void check_scores(const pass *p, const float *reference, int64_t first)
{
    static const char *const scores[2] = {"chosen_logps", "rejected_logps"};
    static const char *const references[2] = {"ref_chosen_logps", "ref_rejected_logps"};
    static const char *const rewards[2] = {"chosen_reward", "rejected_reward"};
    const json *pair = json_first(json_get(f.golden, "pairs"));
    for (int64_t i = 0; i < first; i++)
        pair = json_next(pair);
    for (int64_t g = 0; g < p->pack.G; g++, pair = json_next(pair)) {
        for (int k = 0; k < 2; k++) {
            CHECK_NEAR(p->score[2 * g + k], json_number(json_get(pair, scores[k])), 5e-4);
            CHECK_NEAR(reference[2 * g + k], json_number(json_get(pair, references[k])), 5e-4);
            CHECK_NEAR(p->columns[g * LOSS_COLUMNS + LOSS_REWARD_CHOSEN + k],
                       json_number(json_get(pair, rewards[k])), 1e-4);
        }
    }
}

/* Every gradient tensor within 1e-4 in the Frobenius norm, relative to its own. */
static void check_gradients(void)
{
    safetensors *st = NULL;
    CHECK_OK(safetensors_open(&st, test_data("dpo-golden/grads.safetensors")));
    assert_true(f.gradient.count > 0 && safetensors_count(st) == f.gradient.count);
    double worst = 0.0;
    for (int64_t i = 0; i < f.gradient.count; i++) {
        const weight_name *n = &f.gradient.names[i];
        const safetensors_entry *e = safetensors_find(st, n->name);
        assert_non_null(e);
        const int64_t count = tensor_elements(n->view);
        float *want = malloc((size_t)count * sizeof *want);
        CHECK_OK(safetensors_read(st, e, want, 0, count));
        double error = 0.0, norm = 0.0;
        for (int64_t j = 0; j < count; j++) {
            const double d = (double)tensor_f32(n->view)[j] - (double)want[j];
            error += d * d;
            norm += (double)want[j] * (double)want[j];
        }
        free(want);
        if (!(sqrt(error) <= 1e-4 * sqrt(norm)))
            fail_msg("%s: error %g of norm %g", n->name, sqrt(error), sqrt(norm));
        worst = fmax(worst, sqrt(error / norm));
    }
    printf("worst relative error of a gradient tensor: %.2e\n", worst);
    safetensors_close(st);
}

/* Gradients of all pairs, in packs of at most `groups` groups. */
static void accumulate(int64_t groups, bool plain, workspace_kind kind)
{
    const pass_limits limits = {.tokens = 4096,
                                .groups = groups,
                                .largest_group = 512,
                                .positions = 256,
                                .completions = 2,
                                .plain = plain,
                                .kind = kind};
    const loss_parameters loss = {
        .kind = LOSS_SIGMOID, .beta = 0.1, .unit_scale = 1.0 / PAIRS, .token_scale = 0.0};
    pass p;
    double total = 0.0;
    CHECK_OK(pass_create(&p, backend_cpu(), &f.config, &limits));
    CHECK_OK(p.be->zero(p.be, f.gradient.all));
    for (int64_t i = 0; i < PAIRS;) {
        float reference[2 * PAIRS];
        const int64_t first = i;
        pack_clear(&p.pack);
        while (i < PAIRS && pack_add(&p.pack, &f.pair[i], i))
            i++;
        CHECK_OK(pass_upload(&p));
        CHECK_OK(pass_score(&p, &f.reference));
        memcpy(reference, p.score, (size_t)p.pack.S * sizeof(float));
        CHECK_OK(pass_set_reference(&p, reference));
        CHECK_OK(pass_train(&p, &f.gradient, &f.policy, &loss, true, false));
        check_scores(&p, reference, first);
        for (int64_t g = 0; g < p.pack.G; g++)
            total += (double)p.columns[g * LOSS_COLUMNS + LOSS_VALUE];
    }
    double norm;
    CHECK_NEAR(total, json_number(json_get(f.golden, "mean_loss")), 5e-5);
    CHECK_OK(optimizer_norm(&norm, p.be, f.gradient.all));
    CHECK_NEAR(norm, json_number(json_get(f.golden, "grad_norm")), 35.0 * 1e-4);
    check_gradients();
    pass_destroy(&p);
}

static void shared_layout(void **state)
{
    (void)state;
    accumulate(PAIRS, false, WORKSPACE_TRAIN);
}

static void plain_layout(void **state)
{
    (void)state;
    accumulate(PAIRS, true, WORKSPACE_TRAIN);
}

static void packs_of_three(void **state)
{
    (void)state;
    accumulate(3, false, WORKSPACE_TRAIN);
}

static void checkpointing_gives_the_same_bits(void **state)
{
    (void)state;
    accumulate(3, false, WORKSPACE_TRAIN);
    const size_t bytes = tensor_bytes(f.gradient.all);
    float *kept = malloc(bytes);
    memcpy(kept, f.gradient.all.data, bytes);
    accumulate(3, false, WORKSPACE_CHECKPOINT);
    assert_memory_equal(kept, f.gradient.all.data, bytes);
    free(kept);
}

/* Where a gradient is all but zero, Adam's first step is its sign: so 99.9 % of the weights, not all. */
static void adamw_step_gives_the_same_weights(void **state)
{
    (void)state;
    accumulate(PAIRS, false, WORKSPACE_TRAIN);
    backend *be = backend_cpu();
    const optimizer_settings settings = {
        .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
    safetensors *st = NULL;
    int64_t far = 0, all = 0;
    CHECK_OK(be->zero(be, f.first.all));
    CHECK_OK(be->zero(be, f.second.all));
    CHECK_OK(safetensors_open(&st, test_data("dpo-golden/weights_after_adamw_step.safetensors")));
    for (int64_t i = 0; i < f.policy.count; i++) {
        const optimizer_parameter parameter = {.weight = f.policy.names[i].view,
                                               .gradient = f.gradient.names[i].view,
                                               .first_moment = f.first.names[i].view,
                                               .second_moment = f.second.names[i].view};
        CHECK_OK(optimizer_step(be, &parameter, 1, &settings, (tensor){0}, 1));
        const safetensors_entry *e = safetensors_find(st, f.policy.names[i].name);
        assert_non_null(e);
        const int64_t count = tensor_elements(parameter.weight);
        float *want = malloc((size_t)count * sizeof *want);
        CHECK_OK(safetensors_read(st, e, want, 0, count));
        for (int64_t j = 0; j < count; j++)
            far += !(fabs((double)tensor_f32(parameter.weight)[j] - (double)want[j]) <= 1e-5);
        all += count;
        free(want);
    }
    safetensors_close(st);
    printf("%lld of %lld weights differ by more than 1e-5\n", (long long)far, (long long)all);
    assert_true(all == 260032 && far <= all / 1000);
}

int main(void)
{
    if (test_data("dpo-golden/dpo_step.json") == NULL) return TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_layout),
        cmocka_unit_test(plain_layout),
        cmocka_unit_test(packs_of_three),
        cmocka_unit_test(checkpointing_gives_the_same_bits),
        cmocka_unit_test(adamw_step_gives_the_same_weights),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
