/* test_plan_cpu.c - a plan for this CPU, calibrated a moment ago, against steps that are measured: time and memory. */
/* rooms: bench */
#include "program.h"
#include "base/json.h"
#include "cudpo/bench.h"
#include "cudpo/model.h"
#include "plan/plan.h"

#include <omp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { PAIRS = 48, STEPS = 3, ROUNDS = 3 };

/* A model of a small one's proportions whose head matters; random weights. */
static void write_model(const char *name, int hidden, int ffn, int layers, int vocabulary)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    char path[128], config[1024];
    assert_int_equal(mkdir(scratch_path(name), 0777), 0);
    for (int i = 0; i < 2; i++) {
        char *data = NULL;
        size_t n;
        snprintf(path, sizeof path, "tests/golden/models/llama/%s", files[i]);
        CHECK_OK(file_read(&data, &n, path, (size_t)1 << 26));
        snprintf(path, sizeof path, "%s/%s", name, files[i]);
        (void)scratch_write(path, data, n);
        free(data);
    }
    snprintf(config, sizeof config,
             "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
             "\"hidden_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
             "\"num_key_value_heads\": %d, \"intermediate_size\": %d, \"vocab_size\": %d, "
             "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
             "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false, \"dtype\": \"float32\"}",
             hidden, layers, hidden / 64, hidden / 128, ffn, vocabulary);
    snprintf(path, sizeof path, "%s/config.json", name);
    (void)scratch_text(path, config);
    CHECK_OK(cudpo_model_randomise(scratch_path(name), 1));
}

/* Pairs of different lengths, some 250 tokens a group. */
static void write_data(void)
{
    static char text[PAIRS * 2048];
    char *at = text;
    for (int i = 0; i < PAIRS; i++) {
        static const char *const keys[3] = {"{\"prompt\": \"", "\", \"chosen\": \" ",
                                            "\", \"rejected\": \" "};
        for (int k = 0; k < 3; k++) {
            at += sprintf(at, "%s", keys[k]);
            const int n = 60 + (i * 37 + k * 53) % 140;
            for (int j = 0; j < n; j++)
                *at++ = (char)('a' + (i * 7 + j * j + k) % 26);
        }
        at += sprintf(at, "\"}\n");
    }
    (void)scratch_text("pairs.jsonl", text);
}

static void configure(cudpo_config *c, const char *model, const char *checkpointing)
{
    CHECK_OK(cudpo_config_create(c));
    CHECK_OK(cudpo_config_set(c, "model_name_or_path", scratch_path(model)));
    CHECK_OK(cudpo_config_set(c, "train_dataset", scratch_path("pairs.jsonl")));
    CHECK_OK(cudpo_config_set(c, "output_dir", scratch_path("out")));
    CHECK_OK(cudpo_config_set(c, "device", "cpu"));
    CHECK_OK(cudpo_config_set(c, "gradient_checkpointing", checkpointing));
    CHECK_OK(cudpo_config_check(c));
}

/* What was allocated at the most. */
static backend original;
static size_t now, most;

static cudpo_status counted_alloc(backend *be, void **out, size_t bytes)
{
    void *block = NULL;
    *out = NULL;
    CUDPO_TRY(original.alloc(be, &block, bytes + 64)); /* its size stands before it */
    *(size_t *)block = bytes;
    *out = (char *)block + 64;
    now += bytes;
    most = now > most ? now : most;
    return CUDPO_OK;
}

static void counted_free(backend *be, void *memory)
{
    if (memory == NULL) return;
    char *block = (char *)memory - 64;
    now -= *(size_t *)block;
    original.free(be, block);
}

static void ignore_line(void *context, const char *text)
{
    (void)context;
    (void)text;
}

/* What `cudpo bench --calibrate` says of the ops that a plan tells apart, in packs as large as those of the steps. */
static void calibrate(const char *path)
{
    const char *ops[] = {"gemm", "attention",     "add_rmsnorm", "rmsnorm",
                         "rope", "token_logprob", "swiglu",      "adamw"};
    const char *shapes[] = {scratch_path("small")};
    const cudpo_bench_options o = {.ops = ops,
                                   .op_count = sizeof ops / sizeof *ops,
                                   .shapes = shapes,
                                   .shape_count = 1,
                                   .device = "cpu",
                                   .calibration = path,
                                   .seconds = 0.03,
                                   .groups = 3,
                                   .length = 100,
                                   .no_baseline = true,
                                   .no_check = true};
    CHECK_OK(cudpo_bench(&o, ignore_line, NULL));
}

static double clock_now(void)
{
    struct timespec now_;
    clock_gettime(CLOCK_MONOTONIC, &now_);
    return (double)now_.tv_sec + (double)now_.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

/* What three steps take, relative to what is planned for them. */
static double ratio_of_steps(const char *checkpointing, const char *calibration)
{
    double planned[STEPS], measured[STEPS], each[STEPS];
    cudpo_config c;
    cudpo_trainer *t = NULL;
    plan p;
    configure(&c, "small", checkpointing);
    CHECK_OK(cudpo_config_set(&c, "per_device_train_batch_size", "4"));
    CHECK_OK(cudpo_trainer_open(&t, &c));
    CHECK_OK(cudpo_trainer_step(t, NULL)); /* memory is touched for the first time */
    for (int i = 0; i < STEPS; i++) {
        const double begin = clock_now();
        CHECK_OK(cudpo_trainer_step(t, NULL));
        measured[i] = clock_now() - begin;
    }
    cudpo_trainer_close(t);
    const cudpo_plan_options o = {.gpu = "cpu", .calibration = calibration};
    CHECK_OK(plan_open(&p, &c, &o));
    CHECK_OK(plan_steps_exactly(planned, &p, 1, STEPS));
    for (int i = 0; i < STEPS; i++)
        each[i] = measured[i] / planned[i];
    const double ratio = median(each, STEPS);
    printf("  checkpointing %s: %.0f GFLOP/s, copy %.1f GB/s, elementwise %.1f; step %.0f ms, "
           "planned %.0f: %.3f\n",
           checkpointing, p.rates.gemm_f32 * 1e-9, p.rates.copy * 1e-9, p.rates.elementwise * 1e-9,
           measured[0] * 1e3, planned[0] * 1e3, ratio);
    plan_free(&p);
    cudpo_config_free(&c);
    return ratio;
}

/* The ratio of a step's time to the plan's, in rounds of calibration and steps, because what else the machine does changes:
 * their median.  One thread, so that none waits for another that the system has put aside.  25 % is what is asked of a plan. */
static void time_of_steps(void **state)
{
    (void)state;
    double ratio[2 * ROUNDS];
    char path[640];
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* whose ops take other times than those of a library that was built without */
#endif
    omp_set_num_threads(1);
    snprintf(path, sizeof path, "%s", scratch_path("here.json"));
    for (int round = 0; round < ROUNDS; round++) {
        calibrate(path);
        ratio[2 * round] = ratio_of_steps("false", path);
        ratio[2 * round + 1] = ratio_of_steps("true", path);
    }
    const double middle = median(ratio, 2 * ROUNDS);
    if (!(middle >= 0.75 && middle <= 1.25)) fail_msg("steps take %.2f of what is planned", middle);
}

/* What is asked of the backend: but for two scalars and their alignment, exactly what was planned. */
static void memory_of_the_backend(void **state)
{
    (void)state;
    for (int checkpointing = 0; checkpointing < 2; checkpointing++) {
        cudpo_config c;
        cudpo_trainer *t = NULL;
        plan p;
        const cudpo_plan_options o = {.gpu = "cpu"};
        configure(&c, "small", checkpointing ? "true" : "false");
        CHECK_OK(cudpo_config_set(&c, "per_device_train_batch_size", "3"));
        CHECK_OK(plan_open(&p, &c, &o));
        original = *backend_cpu();
        backend_cpu()->alloc = counted_alloc;
        backend_cpu()->free = counted_free;
        now = most = 0;
        CHECK_OK(cudpo_trainer_open(&t, &c));
        CHECK_OK(cudpo_trainer_step(t, NULL));
        cudpo_trainer_close(t);
        *backend_cpu() = original;
        printf("  checkpointing %d: planned %zu bytes, at most %zu were taken\n", checkpointing,
               p.now.memory.bytes, most);
        CHECK_NEAR((double)most, (double)p.now.memory.bytes, 0.05 * (double)most);
        plan_free(&p);
        cudpo_config_free(&c);
    }
}

/* Of the program, as the system counts it, for a run of some hundred megabytes whose packs are nearly full: memory that is never
 * touched does not count. */
static void memory_of_the_program(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* which takes memory of its own */
#endif
    char file[640], out[640];
    json *j = NULL;
    snprintf(file, sizeof file, "%s", scratch_path("memory.json"));
    snprintf(out, sizeof out, "%s", scratch_path("trained"));
    program_result r =
        RUN(0, "plan", "--model_name_or_path", scratch_path("large"), "--train_dataset",
            scratch_path("pairs.jsonl"), "--device", "cpu", "--per_device_train_batch_size", "2",
            "--per_device_eval_batch_size", "2", "--gpu", "cpu", "--json", file);
    program_free(&r);
    CHECK_OK(json_load(&j, file, (size_t)1 << 22));
    const double planned = json_number(json_get(json_get(j, "memory"), "total"));
    json_free(j);
    r = RUN(0, "train", "--model_name_or_path", scratch_path("large"), "--train_dataset",
            scratch_path("pairs.jsonl"), "--device", "cpu", "--output_dir", out, "--max_steps", "2",
            "--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2",
            "--save_strategy", "no");
    program_free(&r);
    struct rusage usage; /* of the largest child, which is this one */
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &usage), 0);
    const double measured = (double)usage.ru_maxrss * 1024;
    printf("  planned %.1f MB, measured %.1f: %+.1f %%\n", planned * 1e-6, measured * 1e-6,
           100 * (planned / measured - 1));
    CHECK_NEAR(planned, measured, 0.05 * measured);
}

static int set_up(void **state)
{
    (void)state;
    write_model("small", 256, 704, 2, 2048);
    write_model("large", 512, 1408, 6, 8192);
    write_data();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_the_backend),
        cmocka_unit_test(memory_of_the_program),
        cmocka_unit_test(time_of_steps),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_remove);
}
