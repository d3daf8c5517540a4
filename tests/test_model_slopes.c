/* test_model_slopes.c - the gradient of a whole model against finite differences, and the shared layout against the plain. */
/* rooms: train */
#include "test.h"
#include "base/rng.h"
#include "train/pass.h"

enum { PAIRS = 3, PROMPT = 11, LONGEST = 9, SEED = 5 };

static const char *const models[] = {"llama", "llama3",       "llama-linear", "mistral",
                                     "qwen2", "qwen2-window", "qwen3"};
enum { MODELS = sizeof models / sizeof models[0] };

typedef struct problem {
    model_config config;
    model_weights weights, gradient;
    example pair[PAIRS];
    int32_t ids[PAIRS][3][PROMPT + LONGEST];
    float reference[PAIRS * 2];
} problem;

/* beta 1 and no mean: slopes that rounding does not drown. */
static const loss_parameters loss = {
    .kind = LOSS_SIGMOID, .beta = 1.0, .unit_scale = 1.0, .token_scale = 1.0};

static void open_problem(problem *x, const char *name)
{
    char path[256];
    uint64_t drawn = 0;
    *x = (problem){0};
    snprintf(path, sizeof path, "tests/golden/models/%s", name);
    CHECK_OK(model_config_load(&x->config, path));
    CHECK_OK(model_weights_create(&x->weights, backend_cpu(), &x->config, DTYPE_F32));
    CHECK_OK(model_weights_create(&x->gradient, backend_cpu(), &x->config, DTYPE_F32));
    CHECK_OK(model_weights_load(&x->weights, &x->config, path));
    for (int i = 0; i < PAIRS; i++) {
        const int32_t length[3] = {PROMPT - i, LONGEST - 2 * i, 4 + i};
        for (int k = 0; k < 3; k++)
            for (int32_t j = 0; j < length[k]; j++)
                x->ids[i][k][j] =
                    (int32_t)(rng_bits(SEED, 1, drawn++) % (uint64_t)x->config.vocab_size);
        x->pair[i] = (example){.prompt = x->ids[i][0],
                               .prompt_length = length[0],
                               .completions = 2,
                               .completion = {x->ids[i][1], x->ids[i][2]},
                               .completion_length = {length[1], length[2]}};
    }
}

static void close_problem(problem *x)
{
    model_weights_destroy(&x->gradient);
    model_weights_destroy(&x->weights);
}

static void open_pass(pass *p, const problem *x, bool plain, workspace_kind kind)
{
    enum { TOKENS = PAIRS * 2 * (PROMPT + LONGEST) };
    const pass_limits limits = {.tokens = TOKENS,
                                .groups = PAIRS,
                                .largest_group = TOKENS,
                                .positions = PROMPT + LONGEST,
                                .completions = 2,
                                .plain = plain,
                                .kind = kind};
    CHECK_OK(pass_create(p, backend_cpu(), &x->config, &limits));
    for (int i = 0; i < PAIRS; i++)
        assert_true(pack_add(&p->pack, &x->pair[i], i));
    CHECK_OK(pass_upload(p));
}

/* The sum of all pairs' losses, and of its slopes. */
static double train(problem *x, pass *p)
{
    CHECK_OK(x->weights.be->zero(x->weights.be, x->gradient.all));
    CHECK_OK(pass_set_reference(p, x->reference));
    CHECK_OK(pass_train(p, &x->gradient, &x->weights, &loss, true, false));
    double sum = 0.0;
    for (int i = 0; i < PAIRS; i++)
        sum += p->columns[i * LOSS_COLUMNS + LOSS_VALUE];
    return sum;
}

/* The same loss from the scores, in double. */
static double loss_at(problem *x, pass *p)
{
    double sum = 0.0;
    CHECK_OK(pass_score(p, &x->weights));
    for (int i = 0; i < PAIRS; i++) {
        const double z = ((double)p->score[2 * i] - (double)x->reference[2 * i]) -
                         ((double)p->score[2 * i + 1] - (double)x->reference[2 * i + 1]);
        sum += fmax(-z, 0.0) + log1p(exp(-fabs(z)));
    }
    return sum;
}

/* A reference whose margins lie around the policy's, so that every pair's slope counts. */
static void choose_reference(problem *x, pass *p)
{
    CHECK_OK(pass_score(p, &x->weights));
    for (int s = 0; s < PAIRS * 2; s++)
        x->reference[s] = p->score[s] + 0.3f * (float)(s % 3 - 1);
}

/* Slope of the loss along a tensor's own gradient g, which is |g|: central differences of step h and h / 2, extrapolated. */
static void check_tensor(problem *x, pass *p, const weight_name *n, const float *g)
{
    float *w = tensor_f32(n->view);
    const int64_t count = tensor_elements(n->view);
    double squares = 0.0, largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        squares += (double)g[i] * (double)g[i];
        largest = fmax(largest, fabs((double)g[i]));
    }
    const double norm = sqrt(squares);
    if (!(norm > 1e-3))
        fail_msg("%s: no tensor here is without a slope, yet |g| is %g", n->name, norm);
    float *kept = malloc((size_t)count * sizeof *kept);
    assert_non_null(kept);
    memcpy(kept, w, (size_t)count * sizeof *kept);
    double slope[2];
    /* A step that changes the loss by about 0.02, while the scores' rounding changes it by about 1e-5. */
    const double h = fmin(0.01 / norm, 0.02 * norm / largest);
    for (int half = 0; half < 2; half++) {
        const double step = half == 0 ? h : h / 2;
        double at[2];
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < count; i++)
                w[i] = (float)((double)kept[i] + (side == 0 ? step : -step) * (double)g[i] / norm);
            at[side] = loss_at(x, p);
        }
        slope[half] = (at[0] - at[1]) / (2.0 * step);
    }
    memcpy(w, kept, (size_t)count * sizeof *kept);
    free(kept);
    const double found = (4.0 * slope[1] - slope[0]) / 3.0;
    /* Rounding: 1e-5 in each of four losses over 2 * h / 2, weighted 4 / 3. */
    const double tolerance = 1e-3 * norm + 4e-5 / h;
    if (!(fabs(found - norm) <= tolerance))
        fail_msg("%s: slope along the gradient is %.6g by differences, %.6g by the backward pass",
                 n->name, found, norm);
}

static void gradient_is_slope(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        problem x;
        pass p;
        open_problem(&x, models[m]);
        open_pass(&p, &x, false, WORKSPACE_TRAIN);
        choose_reference(&x, &p);
        CHECK_NEAR(train(&x, &p), loss_at(&x, &p), 1e-5);
        int64_t checked = 0;
        for (int64_t i = 0; i < x.weights.count; i++) {
            const weight_name *n = &x.weights.names[i];
            check_tensor(&x, &p, n, tensor_f32(x.gradient.names[i].view));
            checked++;
        }
        printf("%-14s %lld tensors\n", models[m], (long long)checked);
        assert_true(checked > 0);
        pass_destroy(&p);
        close_problem(&x);
    }
}

/* A prompt that stands once is read by both completions as if each had its own: the same sums, in another order. */
static void shared_layout_is_plain_layout(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        problem x;
        pass shared, plain;
        open_problem(&x, models[m]);
        open_pass(&shared, &x, false, WORKSPACE_TRAIN);
        open_pass(&plain, &x, true, WORKSPACE_TRAIN);
        assert_true(plain.pack.T > shared.pack.T);
        choose_reference(&x, &shared);
        CHECK_NEAR(train(&x, &shared), train(&x, &plain), 1e-5);
        for (int s = 0; s < PAIRS * 2; s++)
            CHECK_NEAR(shared.score[s], plain.score[s], 2e-5); /* about -50 nats in fp32 */
        const int64_t n = tensor_elements(x.gradient.all);
        float *want = malloc((size_t)n * sizeof *want);
        assert_non_null(want);
        memcpy(want, tensor_f32(x.gradient.all), (size_t)n * sizeof *want); /* of the plain */
        train(&x, &shared);
        double difference = 0.0, squares = 0.0;
        for (int64_t i = 0; i < n; i++) {
            const double d = (double)tensor_f32(x.gradient.all)[i] - (double)want[i];
            difference += d * d;
            squares += (double)want[i] * (double)want[i];
        }
        CHECK_NEAR(sqrt(difference / squares), 0.0, 1e-5);
        free(want);
        pass_destroy(&plain);
        pass_destroy(&shared);
        close_problem(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_is_slope),
        cmocka_unit_test(shared_layout_is_plain_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
