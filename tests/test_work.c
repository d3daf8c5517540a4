/* test_work.c - operations and bytes by formula: against what is published, against the mask, and against ops that count
 * what a training step really calls them with. */
/* rooms: plan */
#include "counting.h"
#include "scratch.h"
#include "cudpo/config.h"
#include "plan/work.h"
#include "train/trainer.h"

/* Shapes of public models. */
static model_config shape(int64_t V, int64_t C, int64_t F, int64_t L, int64_t H, int64_t K,
                          int64_t D)
{
    return (model_config){.vocab_size = V,
                          .hidden_size = C,
                          .intermediate_size = F,
                          .num_hidden_layers = L,
                          .num_attention_heads = H,
                          .num_key_value_heads = K,
                          .head_dim = D};
}

static model_config qwen_half(void)
{
    model_config c = shape(151936, 896, 4864, 24, 14, 2, 64);
    c.tie_word_embeddings = c.qkv_bias = true;
    return c;
}

static model_config llama_1b(void)
{
    model_config c = shape(128256, 2048, 8192, 16, 32, 8, 64);
    c.tie_word_embeddings = true;
    return c;
}

static model_config llama_8b(void)
{
    return shape(128256, 4096, 14336, 32, 32, 8, 128);
}

static model_config llama_70b(void)
{
    return shape(128256, 8192, 28672, 80, 64, 8, 128);
}

/* What transformers counts in the published weights. */
static void parameters_as_published(void **state)
{
    (void)state;
    const model_config models[] = {qwen_half(), llama_1b(), llama_8b(), llama_70b()};
    const int64_t want[] = {494032768, 1235814400, 8030261248, 70553706496};
    for (int i = 0; i < 4; i++)
        assert_true(model_config_parameters(&models[i]) == want[i]);
    /* 24 (896 * 1152 + 896 * 896 + 896 * 9728 + 4864 * 896) */
    assert_true(work_trunk_weights(&models[0]) == INT64_C(357826560));
    assert_true(work_head_weights(&models[0]) == INT64_C(136134656));
}

static int64_t triangle(int64_t n)
{
    return n * (n + 1) / 2;
}

/* A pair whose two sequences are apart, and one that shares its prompt; `all`: every token is scored. */
static work_counts apart(int64_t P, int64_t C, bool all)
{
    return (work_counts){
        .tokens = 2 * (P + C), .rows = all ? 2 * (P + C) : 2 * C, .visible = {2 * triangle(P + C)}};
}

static work_counts together(int64_t P, int64_t C)
{
    return (work_counts){.tokens = P + 2 * C,
                         .rows = 2 * C - 1,
                         .visible = {triangle(P) + 2 * (P * C + triangle(C))}};
}

/* Milliseconds at 790 TFLOP/s of the layouts A+ (A, and the trunk computed again), A (padded, logits of all tokens), B
 * (completions through the head alone), B with a cached reference, C (B, the prompt shared), D (C with a cached reference), for
 * Qwen2.5-0.5B, Llama-3.2-1B and Llama-3.1-8B and pairs of 512 + 512 and 1024 + 256: worked out independently of this code,
 * and rounded to 0.01, above 50 once more to 0.1. */
static void layouts_in_milliseconds(void **state)
{
    (void)state;
    enum { LAYOUTS = 6, MODELS = 3, LENGTHS = 2 };
    static const double want[LAYOUTS][MODELS][LENGTHS] = {
        {{12.73, 16.11}, {31.63, 39.84}, {195.7, 245.8}},
        {{10.76, 13.61}, {26.41, 33.26}, {158.8, 199.5}},
        {{9.35, 10.79}, {23.69, 27.81}, {153.3, 188.6}},
        {{7.02, 8.11}, {17.79, 20.89}, {115.1, 141.6}},
        {{7.43, 6.82}, {18.54, 17.33}, {116.7, 114.6}},
        {{5.58, 5.13}, {13.93, 13.02}, {87.6, 86.1}}};
    const model_config models[MODELS] = {qwen_half(), llama_1b(), llama_8b()};
    static const int64_t P[LENGTHS] = {512, 1024}, C[LENGTHS] = {512, 256};
    for (int m = 0; m < MODELS; m++) {
        for (int i = 0; i < LENGTHS; i++) {
            const model_config *c = &models[m];
            const work_counts all = apart(P[i], C[i], true), some = apart(P[i], C[i], false);
            const work_counts shared = together(P[i], C[i]);
            work_counts trunk = all;
            trunk.rows = 0;
            const double again = work_useful(c, &trunk, 1) - work_useful(c, &trunk, 0);
            const double got[LAYOUTS] = {
                work_useful(c, &all, 1) + again, work_useful(c, &all, 1),
                work_useful(c, &some, 1),        work_useful(c, &some, 0),
                work_useful(c, &shared, 1),      work_useful(c, &shared, 0)};
            for (int k = 0; k < LAYOUTS; k++) {
                const double half = want[k][m][i] < 50 ? 0.00501 : 0.05501;
                CHECK_NEAR(got[k] / 790e12 * 1e3, want[k][m][i], half);
            }
        }
    }
    const model_config q = qwen_half();
    const work_counts a = apart(512, 512, true), c = together(512, 512);
    CHECK_NEAR(work_useful(&q, &a, 1), 8.499e12, 0.0005e12);
    CHECK_NEAR(work_useful(&q, &c, 1), 5.867e12, 0.0005e12);
    CHECK_NEAR(work_useful(&q, &c, 0), 4.410e12, 0.0005e12);
}

/* Megatron-Bridge, Llama-3-8B, 8,192 tokens: 14,451 tokens/s on a GPU are 744 TFLOP/s, where attention's backward pass counts
 * 4 products, not the 5 of which one is done again. */
static void operations_as_published(void **state)
{
    (void)state;
    const model_config c = llama_8b();
    const work_counts n = {.tokens = 8192, .rows = 8192, .visible = {triangle(8192)}};
    const double fifth = 2.0 * (double)n.visible[0] * 4096 * 32;
    CHECK_NEAR((work_useful(&c, &n, 0) - fifth) / 8192 * 14451 * 1e-12, 744, 0.5);
}

/* Layers with and without a window. */
static model_config windowed(int64_t window)
{
    model_config c = shape(64, 16, 24, 3, 4, 2, 4);
    c.sliding_window = window;
    c.first_window_layer = 1;
    return c;
}

/* May query q of a pack see key k?  From positions and segments, one pair at a time. */
static bool sees(const pack *p, int64_t q, int64_t k, int64_t window)
{
    if (window > 0 && p->position[q] - p->position[k] >= window) return false;
    for (int64_t s = 0; s < p->N; s++) {
        const int32_t *g = p->segment + 4 * s;
        if (q < g[0] || q >= g[0] + g[1]) continue;
        if (k >= g[0] && k <= q) return true;
        return g[3] > 0 && k >= g[2] && k < g[2] + g[3];
    }
    return false;
}

static void enumerate(work_counts *out, const pack *p, int64_t window)
{
    const int64_t windows[WORK_VIEWS] = {0, window};
    for (int64_t q = 0; q < p->T; q++) {
        bool wanted = false;
        for (int64_t r = 0; r < p->R; r++)
            wanted = wanted || p->row_hidden[r] == q;
        out->wanted += wanted;
        for (int v = 0; v < WORK_VIEWS; v++) {
            for (int64_t k = 0; k < p->T; k++) {
                out->visible[v] += sees(p, q, k, windows[v]);
                out->visible_wanted[v] += wanted && sees(p, q, k, windows[v]);
            }
        }
    }
}

enum { LONGEST = 40 };
static int32_t ids[LONGEST];

static example group_of(int32_t P, int32_t a, int32_t b)
{
    return (example){.prompt = ids,
                     .prompt_length = P,
                     .completions = b > 0 ? 2 : 1,
                     .completion = {ids, ids},
                     .completion_length = {a, b}};
}

static void counts_equal(const work_counts *got, const work_counts *want)
{
    assert_true(got->wanted == want->wanted);
    for (int v = 0; v < WORK_VIEWS; v++) {
        assert_true(got->visible[v] == want->visible[v]);
        assert_true(got->visible_wanted[v] == want->visible_wanted[v]);
    }
}

static void pairs_by_enumeration(void **state)
{
    (void)state;
    static const int32_t lengths[][3] = {{1, 1, 1},  {1, 2, 3},  {5, 1, 9},  {8, 8, 8},
                                         {31, 7, 1}, {3, 40, 2}, {40, 1, 1}, {17, 16, 15},
                                         {9, 12, 0}, {1, 1, 0}};
    static const int64_t windows[] = {0, 1, 2, 5, 8, 16, 17, 31, 80};
    int64_t cases = 0;
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        for (int plain = 0; plain < 2; plain++) {
            const model_config c = windowed(windows[w]);
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                const int32_t *n = lengths[i];
                const int64_t completion[2] = {n[1], n[2]};
                const example e = group_of(n[0], n[1], n[2]);
                work_counts one = {0}, pack_counts = {0}, want = {0};
                pack p;
                CHECK_OK(pack_create(&p, 2, 500, plain, false));
                assert_true(pack_add(&p, &e, 0));
                work_count_group(&one, &c, n[0], completion, e.completions, plain);
                CHECK_OK(work_count_pack(&pack_counts, &p, &c, INT64_MAX));
                enumerate(&want, &p, windows[w]);
                counts_equal(&one, &want);
                counts_equal(&pack_counts, &want);
                assert_true(one.tokens == p.T && one.rows == p.R && one.sequences == p.S);
                assert_memory_equal(&one, &pack_counts, sizeof one);
                if (e.completions == 2) { /* a second group sees nothing of the first */
                    const example more = group_of(7, 5, 6);
                    const int64_t more_completion[2] = {5, 6};
                    assert_true(pack_add(&p, &more, 1));
                    work_count_group(&one, &c, 7, more_completion, 2, plain);
                    want = pack_counts = (work_counts){0};
                    enumerate(&want, &p, windows[w]);
                    CHECK_OK(work_count_pack(&pack_counts, &p, &c, 1));
                    counts_equal(&one, &want);
                    assert_memory_equal(&one, &pack_counts, sizeof one);
                }
                pack_free(&p);
                cases++;
            }
        }
    }
    assert_int_equal(cases, 9 * 2 * 10);
}

/* A data set is its examples, group by group. */
static void counts_of_a_data_set(void **state)
{
    (void)state;
    tokenizer *t;
    dataset *d;
    const model_config c = windowed(9);
    const dataset_options options = {.kind = ROW_PAIR, .max_length = 64, .rules = RULES_JOINED};
    CHECK_OK(tokenizer_load(&t, "tests/golden/models/llama"));
    CHECK_OK(dataset_open(&d, "tests/golden/data/train.jsonl", t, &options));
    for (int plain = 0; plain < 2; plain++) {
        work_counts got = {0}, want = {0};
        CHECK_OK(work_count_dataset(&got, d, &c, plain, false));
        for (int64_t i = 0; i < dataset_count(d); i++) {
            const example e = dataset_get(d, i);
            const int64_t n[2] = {e.completion_length[0], e.completion_length[1]};
            work_count_group(&want, &c, e.prompt_length, n, 2, plain);
        }
        assert_true(want.groups == dataset_count(d) && want.tokens > 0);
        assert_memory_equal(&got, &want, sizeof got);
    }
    dataset_close(d);
    tokenizer_free(t);
}

/* A step of a small model, by formula and as it was called. */

typedef struct job {
    const char *model, *data, *loss;
    bool checkpoint, cached;
} job;

static cudpo_trainer *open_job(cudpo_config *c, const job *j)
{
    cudpo_trainer *t = NULL;
    char model[64], data[64];
    snprintf(model, sizeof model, "tests/golden/models/%s", j->model);
    snprintf(data, sizeof data, "tests/golden/data/%s", j->data);
    CHECK_OK(cudpo_config_create(c));
    CHECK_OK(cudpo_config_set(c, "model_name_or_path", model));
    CHECK_OK(cudpo_config_set(c, "train_dataset", data));
    CHECK_OK(cudpo_config_set(c, "loss_type", j->loss));
    CHECK_OK(cudpo_config_set(c, "output_dir", scratch_folder()));
    CHECK_OK(cudpo_config_set(c, "device", "cpu"));
    CHECK_OK(cudpo_config_set(c, "max_length", "64"));
    CHECK_OK(cudpo_config_set(c, "max_tokens_per_pack", "256")); /* several packs a step */
    CHECK_OK(cudpo_config_set(c, "per_device_train_batch_size", "12"));
    CHECK_OK(cudpo_config_set(c, "gradient_checkpointing", j->checkpoint ? "true" : "false"));
    CHECK_OK(cudpo_config_set(c, "precompute_ref_log_probs", j->cached ? "true" : "false"));
    CHECK_OK(cudpo_config_check(c));
    CHECK_OK(cudpo_trainer_open(&t, c));
    return t;
}

/* The forward passes of KTO's mismatched completions. */
static void add_mismatched(work_table *sum, cudpo_trainer *t, const step_batch *b,
                           const work_types *types, bool reference, int64_t rows)
{
    for (int64_t done = 0; done < b->n;) {
        work_counts n = {0};
        pack_clear(&t->pass.pack);
        for (; done < b->n; done++) {
            const example e = trainer_mismatched_example(t, t->train.data, b->example[done]);
            if (!pack_add(&t->pass.pack, &e, 0)) break;
        }
        CHECK_OK(work_count_pack(&n, &t->pass.pack, &t->model, rows));
        work_score(&t->model, &n, types, work_add, sum);
        if (reference) work_score(&t->model, &n, types, work_add, sum);
    }
}

static work_table by_formula(cudpo_trainer *t, const job *j, int64_t *packs)
{
    work_table sum = {0};
    step_batch b;
    int64_t order[64];
    const work_types types = {.activation = 4, .gradient = 4, .checkpoint = j->checkpoint};
    const int64_t rows = t->pass.head.logits.rows;
    const bool reference = t->rewards && !j->cached;
    CHECK_OK(trainer_batch(t, &b, order, NULL, 0));
    if (t->traits->kl) add_mismatched(&sum, t, &b, &types, reference, rows);
    for (int64_t done = 0; done < b.n; ++*packs) {
        work_counts n = {0};
        done += trainer_fill(t, t->train.data, b.example + done, b.n - done);
        CHECK_OK(work_count_pack(&n, &t->pass.pack, &t->model, rows));
        work_train(&t->model, &n, &types, reference, work_add, &sum);
    }
    work_update(&t->model, &types, 1, work_add, &sum);
    return sum;
}

static void a_step_calls_what_the_formula_says(void **state)
{
    (void)state;
    static const job jobs[] = {
        {"llama", "train.jsonl", "sigmoid", false, false},
        {"llama", "train.jsonl", "sigmoid", true, false},
        {"llama", "train.jsonl", "sigmoid", false, true},
        {"qwen2", "train.jsonl", "sigmoid", true, false},
        {"qwen2-window", "train.jsonl", "sigmoid", true, false},
        {"qwen2-window", "train.jsonl", "ipo", false, false},
        {"qwen3", "train.jsonl", "sigmoid", true, false},
        {"mistral", "train.jsonl", "orpo", false, false},
        {"llama3", "train.jsonl", "sft", true, false},
        {"llama", "train.jsonl", "kto", true, false},
    };
    int64_t packs = 0;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        cudpo_config c;
        work_sum got[WORK_KINDS] = {{0}}, want[WORK_KINDS] = {{0}};
        cudpo_trainer *t = open_job(&c, &jobs[i]);
        if (i % 2 == 0) { /* several chunks of logits a pack */
            const pass_limits *l = &t->pass.limits;
            t->pass.head.logits = tensor_rows(t->pass.head.logits, 0, l->largest_group + 3);
        }
        const work_table formula = by_formula(t, &jobs[i], &packs);
        vocabulary = t->model.vocab_size;
        counted = (work_table){0};
        CHECK_OK(cudpo_trainer_step(t, NULL));
        for (int p = 0; p < WORK_PASSES; p++) {
            for (int k = 0; k < WORK_KINDS; k++) {
                got[k].operations += counted.total[p][k].operations;
                got[k].bytes += counted.total[p][k].bytes;
                want[k].operations += formula.total[p][k].operations;
                want[k].bytes += formula.total[p][k].bytes;
            }
        }
        for (int k = 0; k < WORK_KINDS; k++) {
            /* Sums of whole numbers below 2^53, but for the rows of a chunk, which are a mean. */
            const double slack = k == WORK_HEAD_GEMM ? 1e-12 : 0;
            if (!(fabs(got[k].operations - want[k].operations) <= slack * want[k].operations) ||
                !(fabs(got[k].bytes - want[k].bytes) <= 1e-12 * want[k].bytes))
                fail_msg("%s %s %s, kind %d: %.0f operations, by formula %.0f; %.0f bytes, %.0f",
                         jobs[i].model, jobs[i].loss, jobs[i].checkpoint ? "checkpointing" : "", k,
                         got[k].operations, want[k].operations, got[k].bytes, want[k].bytes);
            assert_true(want[k].bytes > 0);
        }
        cudpo_trainer_close(t);
        cudpo_config_free(&c);
    }
    assert_true(packs > 20); /* most steps took several */
}

int main(void)
{
    install(backend_cpu());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_as_published),
        cmocka_unit_test(layouts_in_milliseconds),
        cmocka_unit_test(operations_as_published),
        cmocka_unit_test(pairs_by_enumeration),
        cmocka_unit_test(counts_of_a_data_set),
        cmocka_unit_test(a_step_calls_what_the_formula_says),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
