/* test_bench_step.c - `cudpo bench step`: what it says is what was done.  On the device that $CUDPO_DEVICE names. */
/* rooms: bench */
/* backends: cpu plugin */
#include "bench/models.h"
#include "plugin.h"
#include "ranks.h"
#include "base/json.h"
#include "cudpo/bench_step.h"
#include "data/dataset.h"

#define MODEL "tests/golden/models/llama3"
#define TRAIN "tests/golden/data/train.jsonl"
#define LABELLED "tests/golden/data/kto.jsonl"

/* Slack of a scheduler that takes the processor away, in seconds. */
static const double slack = 0.5;

typedef struct settings {
    const char *keys[20]; /* key, value, ..., NULL */
} settings;

static const settings few = {{"per_device_train_batch_size", "3", "bf16", "false"}};

static cudpo_status run(char **table, json **root, const cudpo_bench_step *what, const settings *s)
{
    cudpo_config c;
    char *text = NULL;
    CHECK_OK(cudpo_config_create(&c));
    for (int i = 0; s->keys[i] != NULL; i += 2)
        CHECK_OK(cudpo_config_set(&c, s->keys[i], s->keys[i + 1]));
    (void)scratch_folder(); /* the cache folder is there */
    *root = NULL;
    const cudpo_status status = cudpo_bench_step_run(table, &text, &c, what);
    if (status == CUDPO_OK) CHECK_OK(json_parse(root, text, strlen(text), "results"));
    assert_true((status == CUDPO_OK) == (*table != NULL) && (status == CUDPO_OK) == (text != NULL));
    free(text);
    cudpo_config_free(&c);
    return status;
}

static json *results(const cudpo_bench_step *what, const settings *s)
{
    char *table = NULL;
    json *root = NULL;
    CHECK_OK(run(&table, &root, what, s));
    has(table, "pairs/s");
    has(table, "useful");
    free(table);
    return root;
}

/* The value of "a" or, of the object "a", "b". */
static const json *get(const json *root, const char *a, const char *b)
{
    const json *v = json_get(root, a);
    if (v != NULL && b != NULL) v = json_get(v, b);
    if (v == NULL) fail_msg("no %s %s", a, b != NULL ? b : "");
    return v;
}

static double number(const json *root, const char *a, const char *b)
{
    return json_number(get(root, a, b));
}

static void models_have_their_published_sizes(void **state)
{
    (void)state;
    static const int64_t parameters[] = {494032768, 1235814400, 8030261248};
    for (int i = 0; i < 3; i++) {
        model_config c;
        CHECK_OK(bench_model(&c, bench_model_name(i)));
        assert_int_equal(model_config_parameters(&c), parameters[i]);
        assert_string_equal(cudpo_bench_model(i), bench_model_name(i));
    }
    assert_null(cudpo_bench_model(3));
}

/* Sums of the parts, and what is known of each. */
static void check_parts(const json *root, bool reference)
{
    static const char *const names[] = {"data", "forward", "head", "loss", "backward", "optimizer"};
    const json *parts = get(root, "parts", NULL);
    double sum = 0.0;
    for (const json *p = json_first(parts); p != NULL; p = json_next(p)) {
        assert_true(json_number(p) >= 0.0);
        sum += json_number(p);
    }
    assert_int_equal(json_count(parts), 9);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!(number(root, "parts", names[i]) > 0.0)) fail_msg("no time in %s", names[i]);
    assert_true((number(root, "parts", "reference forward") > 0.0) == reference);
    CHECK_NEAR(number(root, "parts", "all-reduce"), 0.0, 0.0); /* one device */
    assert_true(json_bool(get(root, "reference_forward", NULL)) == reference);

    /* Times of each step are sums of the same stretches, so only rounding is between them. */
    const double steps = number(root, "steps", NULL), total = number(root, "seconds", "total");
    double each = 0.0, least = INFINITY;
    for (const json *v = json_first(get(root, "seconds", "each")); v != NULL; v = json_next(v)) {
        each += json_number(v);
        least = fmin(least, json_number(v));
    }
    CHECK_NEAR(sum * steps, total, 1e-9 * total);
    CHECK_NEAR(each, total, 1e-9 * total);
    CHECK_NEAR(number(root, "seconds", "least"), least, 0.0);
    assert_true(number(root, "seconds", "median") >= least);
    /* The host's clock runs from before the first stamp to behind the last, and what is enqueued and looked at there is a
     * step's smaller part.  A device's clock is read to half a microsecond, at two stamps a stretch. */
    const double wall = number(root, "seconds", "wall");
    assert_true(total <= wall * (1.0 + 1e-3) + 1e-6 * steps * 100.0);
    assert_true(wall - total <= total / steps + slack);
}

/* By the formula for one prompt of P tokens and two completions of C: T = P + 2 (C - 1) tokens, R = 2 C rows, and A pairs of
 * query and key. */
static double useful(const model_config *c, double P, double C, double reference)
{
    const double d = (double)c->hidden_size, f = (double)c->intermediate_size,
                 L = (double)c->num_hidden_layers;
    const double q = (double)(c->num_attention_heads * c->head_dim),
                 kv = (double)(c->num_key_value_heads * c->head_dim);
    const double trunk = L * (d * (q + 2 * kv) + q * d + 3 * d * f),
                 head = d * (double)c->vocab_size;
    const double T = P + 2 * (C - 1), R = 2 * C;
    const double A = P * (P + 1) / 2 + 2 * (P * (C - 1) + (C - 1) * C / 2);
    return 2 * trunk * T * (3 + reference) + 2 * head * R * (3 + reference) +
           4 * A * q * L * (3.5 + reference);
}

static void check_rates(const json *root, double pairs, double P, double C, double reference)
{
    model_config c;
    CHECK_OK(bench_model(&c, MODEL));
    const double step = number(root, "seconds", "total") / number(root, "steps", NULL);
    const double work = pairs * useful(&c, P, C, reference);
    CHECK_NEAR(number(root, "pairs_per_step", NULL), pairs, 0.0);
    CHECK_NEAR(number(root, "pairs_per_second", NULL) * step, pairs, 1e-9);
    CHECK_NEAR(number(root, "tokens_per_step", NULL), pairs * 2 * (P + C), 0.0);
    CHECK_NEAR(number(root, "tokens_per_second", NULL) * step, pairs * 2 * (P + C), 1e-6);
    CHECK_NEAR(number(root, "pack_tokens_per_step", NULL), pairs * (P + 2 * C - 2), 0.0);
    CHECK_NEAR(number(root, "score_rows_per_step", NULL), pairs * 2 * C, 0.0);
    CHECK_NEAR(number(root, "useful_flop_per_step", NULL), work, 1e-9 * work);
    const double peak = number(root, "peak_flop_per_second", NULL);
    const double mfu = number(root, "mfu", NULL);
    assert_string_equal(json_string(get(root, "peak_source", NULL)), "product");
    CHECK_NEAR(number(root, "product_flop_per_second", NULL), peak, 0.0);
    assert_true(peak > 0.0 && mfu > 0.0 && mfu <= 1.1);
    CHECK_NEAR(mfu * peak * step, work, 1e-9 * work);
}

static void a_step_and_its_parts(void **state)
{
    (void)state;
    const cudpo_bench_step what = {.model = MODEL, .prompt = 9, .completion = 7, .steps = 6};
    json *root = results(&what, &few);
    check_parts(root, true);
    check_rates(root, 3, 9, 7, 1);
    assert_string_equal(json_string(get(root, "benchmark", NULL)), "step");
    assert_string_equal(json_string(get(root, "dtype", NULL)), "float32");
    assert_true(json_type(get(root, "lengths", "file")) == JSON_NULL);
    CHECK_NEAR(number(root, "model", "parameters"), 34464, 0.0);
    assert_int_equal((int)number(root, "steps", NULL), 6);
    assert_true(number(root, "warm_up", NULL) >= 2 && number(root, "warm_up", NULL) <= 10);
    double memory = 0.0;
    for (const json *p = json_first(get(root, "memory", NULL)); p != NULL; p = json_next(p))
        if (strcmp(json_key(p), "forecast") != 0 && strcmp(json_key(p), "measured") != 0)
            memory += json_number(p);
    CHECK_NEAR(memory, number(root, "memory", "forecast"), 0.0);
    CHECK_NEAR(number(root, "memory", "reference"), 34464 * 4, 0.0);
    CHECK_NEAR(number(root, "memory", "moments"), 34464 * 8, 0.0);
    assert_true(number(root, "memory", "measured") >= 34464 * 4 * 5);
    assert_string_equal(json_string(get(root, "versions", "cudpo")), CUDPO_VERSION);
    assert_string_equal(json_string(get(root, "config", "loss_type")), "sigmoid");
    /* ln 2 in the first step, as policy and reference are the same weights; then it moves. */
    const json *losses = get(root, "losses", NULL);
    CHECK_NEAR(json_number(json_first(losses)), log(2.0), 1e-6);
    assert_int_equal(json_count(losses), 8);
    json_free(root);
}

/* No reference in the step; the same first loss. */
static void a_cached_reference_is_no_part(void **state)
{
    (void)state;
    const settings s = {{"per_device_train_batch_size", "2", "gradient_accumulation_steps", "2",
                         "bf16", "false", "precompute_ref_log_probs", "true"}};
    const cudpo_bench_step what = {.model = MODEL, .prompt = 5, .completion = 8, .steps = 5};
    json *root = results(&what, &s);
    check_parts(root, false);
    check_rates(root, 4, 5, 8, 0);
    CHECK_NEAR(json_number(json_first(get(root, "losses", NULL))), log(2.0), 1e-4);
    CHECK_NEAR(number(root, "memory", "reference"), 0.0, 0.0);
    json_free(root);
}

/* More packs to a step than there are stamps: a pair each. */
static void more_packs_than_stamps(void **state)
{
    (void)state;
    const settings s = {
        {"per_device_train_batch_size", "100", "bf16", "false", "max_tokens_per_pack", "1"}};
    const cudpo_bench_step what = {.model = MODEL, .prompt = 2, .completion = 2, .steps = 1};
    if (plugin_asked() && plugin_emulated()) return; /* minutes; test_parts has the arithmetic */
    json *root = results(&what, &s);
    check_parts(root, true);
    check_rates(root, 100, 2, 2, 1);
    json_free(root);
}

static void every_loss_has_a_step(void **state)
{
    (void)state;
    static const struct {
        const char *loss;
        bool pairs;
    } losses[] = {{"ipo", true}, {"hinge", true}, {"orpo", true}, {"kto", false}, {"sft", false}};
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        const settings s = {
            {"per_device_train_batch_size", "2", "bf16", "false", "loss_type", losses[i].loss}};
        const cudpo_bench_step what = {.model = MODEL, .prompt = 4, .completion = 4, .steps = 1};
        char *table = NULL;
        json *root = NULL;
        CHECK_OK(run(&table, &root, &what, &s));
        const double units =
            number(root, losses[i].pairs ? "pairs_per_step" : "completions_per_step", NULL);
        CHECK_NEAR(units, 2, 0.0);
        assert_true(number(root, "mfu", NULL) > 0.0);
        json_free(root);
        free(table);
    }
}

/* Means of the lengths that a file has, by either rule; and a step takes them all where it has as many pairs. */
static void lengths_are_those_of_the_file(void **state)
{
    (void)state;
    static const char text[] =
        "{\"prompt\": \"12345678\", \"chosen\": \"1234\", \"rejected\": \"12345\"}\n"
        "{\"prompt\": \"123\", \"chosen\": \"123456789\", \"rejected\": \"1\"}\n";
    char file[640];
    snprintf(file, sizeof file, "%s", scratch_text("lengths.jsonl", text));
    const settings s = {{"per_device_train_batch_size", "2", "bf16", "false"}};
    cudpo_bench_step what = {
        .model = MODEL "/config.json", .lengths = file, .prompt = 1, .completion = 1, .steps = 1};
    /* Prompts 2 and 1; completions 1 + 1, 2 + 1, 3 + 1, 1 + 1. */
    json *root = results(&what, &s);
    assert_string_equal(json_string(get(root, "lengths", "counted_by")), "bytes/4");
    assert_string_equal(json_string(get(root, "lengths", "file")), file);
    CHECK_NEAR(number(root, "lengths", "examples"), 2, 0.0);
    CHECK_NEAR(number(root, "lengths", "prompt_mean"), 1.5, 0.0);
    CHECK_NEAR(number(root, "lengths", "completion_mean"), 11 / 4.0, 0.0);
    CHECK_NEAR(number(root, "tokens_per_step", NULL), 2 * 3 + 11, 0.0);
    CHECK_NEAR(number(root, "pack_tokens_per_step", NULL), 3 + 11 - 4, 0.0);
    json_free(root);

    /* By the model's tokenizer: as the program counts them, the prompt once. */
    what.model = MODEL;
    what.lengths = TRAIN;
    tokenizer *t = NULL;
    dataset *d = NULL;
    CHECK_OK(tokenizer_load(&t, MODEL));
    CHECK_OK(dataset_open(&d, TRAIN, t, &(dataset_options){.max_length = 1024}));
    const int64_t rows = dataset_count(d);
    double prompts = 0.0, completions = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        const example e = dataset_get(d, i);
        prompts += e.prompt_length;
        completions += e.completion_length[0] + e.completion_length[1];
    }
    char all[32];
    snprintf(all, sizeof all, "%lld", (long long)rows);
    const settings whole = {{"per_device_train_batch_size", all, "bf16", "false"}};
    root = results(&what, &whole);
    assert_string_equal(json_string(get(root, "lengths", "counted_by")), MODEL);
    CHECK_NEAR(number(root, "lengths", "examples_of_file"), (double)rows, 0.0);
    CHECK_NEAR(number(root, "lengths", "prompt_mean"), prompts / (double)rows, 1e-12);
    CHECK_NEAR(number(root, "tokens_per_step", NULL), 2 * prompts + completions, 0.0);
    json_free(root);
    dataset_close(d);
    tokenizer_free(t);
}

static void refuse(cudpo_status status, const char *message, cudpo_bench_step what,
                   const settings *s)
{
    char *table = NULL;
    json *root = NULL;
    if (what.model == NULL) what.model = MODEL;
    if (what.prompt == 0) what.prompt = 4;
    if (what.completion == 0) what.completion = 4;
    CHECK_FAILS(run(&table, &root, &what, s), status, message);
}

static void bad_input_is_told(void **state)
{
    (void)state;
    const settings none = {{NULL}}, half = {{"bf16", "true", "device", "cpu"}},
                   other = {{"ref_model_name_or_path", "elsewhere"}},
                   impossible = {{"loss_type", "orpo", "precompute_ref_log_probs", "true"}};
    char broken[640], wrong[640];
    snprintf(broken, sizeof broken, "%s", scratch_text("broken.json", "{\"hidden_size\": "));
    snprintf(wrong, sizeof wrong, "%s",
             scratch_text("wrong.json", "{\"model_type\": \"llama\", \"hidden_size\": -3}"));
    refuse(CUDPO_EUSAGE, "Qwen2.5-0.5B, Llama-3.2-1B, Llama-3.1-8B",
           (cudpo_bench_step){.model = "GPT-9"}, &none);
    refuse(CUDPO_EUSAGE, "did you mean Llama-3.1-8B?", (cudpo_bench_step){.model = "llama-3.1-8b"},
           &none);
    refuse(CUDPO_EDATA, "broken.json", (cudpo_bench_step){.model = broken}, &none);
    refuse(CUDPO_EDATA, "wrong.json", (cudpo_bench_step){.model = wrong}, &none);
    refuse(CUDPO_ENOINPUT, "config.json", (cudpo_bench_step){.model = scratch_folder()}, &none);
    refuse(CUDPO_EUSAGE, "--prompt: -1", (cudpo_bench_step){.prompt = -1}, &none);
    refuse(CUDPO_EUSAGE, "--completion", (cudpo_bench_step){.completion = -5}, &none);
    refuse(CUDPO_EUSAGE, "--prompt", (cudpo_bench_step){.prompt = INT64_MAX}, &none);
    refuse(CUDPO_EUSAGE, "--steps", (cudpo_bench_step){.steps = 1001}, &none);
    refuse(CUDPO_EUSAGE, "--lengths", (cudpo_bench_step){.tokenizer = MODEL}, &none);
    refuse(CUDPO_ENOINPUT, "absent", (cudpo_bench_step){.lengths = "absent"}, &none);
    refuse(CUDPO_EWRITE, "nowhere/a.json", (cudpo_bench_step){.file = "nowhere/a.json"}, &none);
    refuse(CUDPO_EDATA, "kto.jsonl:1: rows have a completion, and pairs",
           (cudpo_bench_step){.lengths = LABELLED}, &none);
    refuse(CUDPO_ENOINPUT, "no-folder",
           (cudpo_bench_step){.lengths = TRAIN, .tokenizer = "no-folder"}, &none);
    refuse(CUDPO_ECONFIG, "ref_model_name_or_path", (cudpo_bench_step){0}, &other);
    refuse(CUDPO_ECONFIG, "bf16", (cudpo_bench_step){0}, &half);
    refuse(CUDPO_ECONFIG, "precompute_ref_log_probs", (cudpo_bench_step){0}, &impossible);
}

/* Options, keys and words in any order; a file of keys; what stands where nothing is written. */
static void the_command_line(void **state)
{
    (void)state;
    char out[640], keys[640];
    snprintf(out, sizeof out, "%s", scratch_path("step.json"));
    snprintf(keys, sizeof keys, "%s",
             scratch_text("keys.json", "{\"per_device_train_batch_size\": 7, \"bf16\": false, "
                                       "\"beta\": 0.3, \"eval_strategy\": \"no\"}"));
    program_result r =
        RUN(0, "bench", "step", MODEL, "--per_device_train_batch_size", "2", "--prompt=3", keys,
            "--steps", "2", "--json", out, "--completion", "3", "--gradient_checkpointing=false");
    has(r.out, ": 3 tokens of prompt, 3 of each completion");
    has(r.out, "reference forward");
    program_free(&r);
    json *root = NULL;
    CHECK_OK(json_load(&root, out, 1 << 20));
    CHECK_NEAR(number(root, "config", "per_device_train_batch_size"), 2, 0.0);
    CHECK_NEAR(number(root, "config", "beta"), 0.3, 0.0);
    assert_false(json_bool(get(root, "config", "gradient_checkpointing")));
    json_free(root);
    assert_false(file_is_folder("trainer_output"));
    SAYS(64, "needs a MODEL", "bench", "step");
    SAYS(64, "did you mean Qwen2.5-0.5B?", "bench", "step", "qwen2.5-0.5b");
    SAYS(64, "second configuration file", "bench", "step", MODEL, keys, "more");
    SAYS(66, "more", "bench", "step", MODEL, "more");
    SAYS(78, "beta", "bench", "step", MODEL, "--bet", "1");
    SAYS(64, "no whole number", "bench", "step", MODEL, "--prompt", "many");
    r = RUN(0, "bench", "step", "--help");
    has(r.out, "--completion N (512)");
    program_free(&r);
}

/* Every range that begins ends, and each step has at least one of each part. */
static void ranges_balance(void **state)
{
    (void)state;
    char path[640], *text = NULL;
    size_t size;
    long ranges = 0, ended = 0;
    if (!plugin_asked() || !plugin_emulated()) return;
    snprintf(path, sizeof path, "%s", scratch_path("COUNTS"));
    assert_int_equal(setenv("SIMT_COUNT", path, 1), 0);
    program_result r = RUN(0, "bench", "step", MODEL, "--prompt", "3", "--completion", "3",
                           "--per_device_train_batch_size", "1", "--steps", "1", "--bf16", "false");
    assert_int_equal(unsetenv("SIMT_COUNT"), 0);
    program_free(&r);
    CHECK_OK(file_read(&text, &size, path, 1 << 10));
    const char *line = strstr(text, "ranges ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "ranges %ld ended %ld", &ranges, &ended), 2);
    /* A step of one pack: itself, data, optimizer, data, reference, forward, head, loss, head, backward, optimizer. */
    assert_true(ranges >= 3 * 11 && ranges % 11 == 0);
    assert_int_equal(ranges, ended);
    free(text);
}

/* Two ranks: rank 0 says what both did. */
static void of_several_ranks(void **state)
{
    (void)state;
    char path[640], *text = NULL;
    size_t n;
    json *root = NULL;
    snprintf(path, sizeof path, "%s", scratch_path("ranks.json"));
    rank_group g = ranks_start(
        2, (const char *const[]){"bench", "step", MODEL, "--prompt", "9", "--completion", "7",
                                 "--per_device_train_batch_size", "3", "--steps", "2", "--bf16",
                                 "false", "--json", path, NULL});
    ranks_expect(&g, 0);
    CHECK_OK(file_read(&text, &n, scratch_path("OUT.1"), 1 << 20));
    assert_string_equal(text, "");
    free(text);
    CHECK_OK(file_read(&text, &n, path, 1 << 20));
    CHECK_OK(json_parse(&root, text, n, "results"));
    assert_true(json_number(get(root, "ranks", NULL)) == 2);
    assert_true(json_number(get(root, "pairs_per_step", NULL)) == 6);
    /* Shares of both: the loss of a policy that is its reference. */
    CHECK_NEAR(json_number(json_first(get(root, "losses", NULL))), log(2.0), 1e-5);
    json_free(root);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_several_ranks),
        cmocka_unit_test(models_have_their_published_sizes),
        cmocka_unit_test(a_step_and_its_parts),
        cmocka_unit_test(a_cached_reference_is_no_part),
        cmocka_unit_test(more_packs_than_stamps),
        cmocka_unit_test(every_loss_has_a_step),
        cmocka_unit_test(lengths_are_those_of_the_file),
        cmocka_unit_test(bad_input_is_told),
        cmocka_unit_test(the_command_line),
        cmocka_unit_test(ranges_balance),
    };
    const struct CMUnitTest part[] = {
        cmocka_unit_test(of_several_ranks),
        cmocka_unit_test(models_have_their_published_sizes),
        cmocka_unit_test(bad_input_is_told),
        cmocka_unit_test(the_command_line),
    };
    if (plugin_asked() && plugin_missing()) return TEST_SKIPPED;
    if (getenv("CUDPO_TEST_PART") != NULL) /* where a build is slow */
        return cmocka_run_group_tests(part, NULL, scratch_remove);
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
