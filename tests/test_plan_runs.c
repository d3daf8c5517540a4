/* test_plan_runs.c - plans of runs: what the command says of them, that its numbers agree with one another, and where something
 * is wrong. */
/* rooms: plan */
#include "program.h"
#include "base/json.h"
#include "plan/plan.h"

#include <ctype.h>
#include <sys/stat.h>

#define MODEL "tests/golden/models/llama"
#define PAIRS "tests/golden/data/train.jsonl"

/* ---- the command ---- */

static double number(const json *object, const char *a, const char *b)
{
    const json *v = json_get(object, a);
    if (v != NULL && b != NULL) v = json_get(v, b);
    if (v == NULL || json_type(v) != JSON_NUMBER)
        fail_msg("no number %s %s", a, b == NULL ? "" : b);
    return json_number(v);
}

static const char *big_model(void)
{
    static char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("8b"));
    if (mkdir(folder, 0777) != 0) return folder;
    char *tokens = NULL;
    size_t n;
    CHECK_OK(file_read(&tokens, &n, MODEL "/tokenizer.json", (size_t)1 << 26));
    (void)scratch_write("8b/tokenizer.json", tokens, n);
    free(tokens);
    CHECK_OK(file_read(&tokens, &n, MODEL "/tokenizer_config.json", (size_t)1 << 26));
    (void)scratch_write("8b/tokenizer_config.json", tokens, n);
    free(tokens);
    (void)scratch_text(
        "8b/config.json",
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": "
        "4096, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, "
        "\"intermediate_size\": 14336, \"vocab_size\": 128256, \"max_position_embeddings\": 8192, "
        "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"hidden_act\": \"silu\", "
        "\"tie_word_embeddings\": false, \"dtype\": \"bfloat16\"}");
    return folder;
}

static void plans_a_run(void **state)
{
    (void)state;
    char file[640], out[640];
    snprintf(file, sizeof file, "%s", scratch_path("plan.json"));
    snprintf(out, sizeof out, "%s", scratch_path("never"));
    program_result r = RUN(0, "plan", "--model_name_or_path", MODEL, "--train_dataset", PAIRS,
                           "--gpus", "8", "--gpu", "H200", "--output_dir", out, "--json", file);
    has(r.out, "GB of each");
    has(r.out, ": fits");
    has(r.out, "4096 |");
    has(r.out, "assumed:");
    has(r.out, ", efficiency ");
    program_free(&r);
    assert_false(file_is_folder(out)); /* nothing is written there */
    json *j = NULL;
    CHECK_OK(json_load(&j, file, (size_t)1 << 22));
    CHECK_NEAR(number(j, "gpu_hours", NULL), number(j, "total_seconds", NULL) * 8 / 3600, 1e-12);
    CHECK_NEAR(number(j, "step", "examples"), number(j, "examples", NULL), 0); /* 44 of 64 */
    const double run = number(j, "step", "steps") * number(j, "step", "step_seconds");
    CHECK_NEAR(number(j, "step", "run_seconds"), run, 1e-9 * run);
    double bytes = 0;
    static const char *const parts[] = {"weights", "master_weights", "reference",     "gradients",
                                        "moments", "packs",          "working_memory"};
    for (int i = 0; i < 7; i++)
        bytes += number(j, "memory", parts[i]);
    CHECK_NEAR(bytes, number(j, "memory", "total"), 0);
    double seconds = 0;
    const json *step = json_get(json_get(j, "step"), "parts");
    for (const json *v = json_first(step); v != NULL; v = json_next(v))
        seconds += json_number(v);
    CHECK_NEAR(seconds, number(j, "step", "step_seconds"), 1e-9 * seconds);
    int64_t gpus = 1;
    const json *list = json_get(j, "same_batch");
    assert_int_equal(json_count(list), PLAN_SIZES);
    for (const json *v = json_first(list); v != NULL; v = json_next(v), gpus *= 2) {
        CHECK_NEAR(number(v, "gpus", NULL), (double)gpus, 0);
        const double e = number(v, "efficiency", NULL);
        assert_true(e > 0 && e <= 1 + 1e-9);
        assert_true(number(v, "imbalance", NULL) >= 1);
    }
    json_free(j);
}

/* Fine-tuning an 8 B model on 80 GB: what does not fit, and what makes it fit on eight of them. */
static void names_remedies(void **state)
{
    (void)state;
    program_result r = RUN(0, "plan", "--model_name_or_path", big_model(), "--train_dataset", PAIRS,
                           "--gpus", "8");
    has(r.out, "DOES NOT FIT");
    has(r.out, "too much: ");
    has(r.out, "--gradient_dtype bfloat16");
    has(r.out, "--zero_stage 1");
    has(r.out, " memory");
    program_free(&r);
    r = RUN(0, "plan", "--model_name_or_path", big_model(), "--train_dataset", PAIRS, "--gpus", "8",
            "--gradient_dtype", "bfloat16", "--zero_stage", "1", "--precompute_ref_log_probs");
    has(r.out, ": fits");
    /* 8.030e9 parameters, in bytes: 2 of the gradient; an eighth of 4 of master weights and of 8 of moments. */
    has(r.out, "master weights 4.02, gradients 16.06, moments 8.03");
    has(r.out, "log-probs once");
    program_free(&r);
}

/* Every loss can be planned, and so can other devices. */
static void plans_all_losses(void **state)
{
    (void)state;
    static const char *const losses[] = {"sigmoid", "ipo", "hinge", "kto", "orpo", "sft"};
    for (int i = 0; i < 6; i++) {
        program_result r =
            RUN(0, "plan", "--model_name_or_path", MODEL, "--train_dataset", PAIRS, "--loss_type",
                losses[i], "--eval_dataset", "tests/golden/data/eval.jsonl", "--eval_strategy",
                "epoch", "--gpus=2", "--gpu", i % 2 == 0 ? "cpu" : "a100");
        has(r.out, "evaluations");
        program_free(&r);
    }
}

static void refuses(void **state)
{
    (void)state;
#define RUN_OF "plan", "--model_name_or_path", MODEL, "--train_dataset", PAIRS
    SAYS(64, "did you mean h100?", RUN_OF, "--gpu", "h10");
    SAYS(64, "cpu, h100, h200, b200, a100, a100-40gb, l40s and rtx4090 are", RUN_OF, "--gpu", "x");
    SAYS(64, "--gpus: 0 is not from 1 to 4096", RUN_OF, "--gpus", "0");
    SAYS(64, "--gpus: 4097 is not from 1 to 4096", RUN_OF, "--gpus", "4097");
    SAYS(64, "\"-1\" is no whole number", RUN_OF, "--gpus=-1");
    SAYS(64, "12 GPUs do not fill nodes of 8", RUN_OF, "--gpus", "12");
    SAYS(64, "8 GPUs can't be shared out evenly to 3", RUN_OF, "--gpus", "8", "--nodes", "3");
    SAYS(78, "must be an integer 0 or 1, not 2", RUN_OF, "--zero_stage", "2");
    SAYS(78, "--betta: unknown key; did you mean beta?", RUN_OF, "--betta", "1");
    SAYS(78, "model_name_or_path: is required", "plan", "--gpus", "8");
    SAYS(78, "bf16: the CPU computes in float32", RUN_OF, "--gpu", "cpu", "--bf16", "true");
    SAYS(66, "nowhere", RUN_OF, "--calibration", "nowhere.json");
    program_result r = RUN(0, RUN_OF, "--gpus", "12", "--nodes", "2");
    program_free(&r);
    SAYS(78, "45 examples are less than one batch of 512", RUN_OF, "--gpus", "64",
         "--dataloader_drop_last", "true");
    r = RUN(0, "plan", "--help");
    has(r.out, "--calibration FILE");
    has(r.out, "--per_device_train_batch_size (8)");
    program_free(&r);
}

/* ---- numbers that hang together ---- */

static int occurrences(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)) != NULL; text++)
        n++;
    return n;
}

/* Pairs of 60 to 600 characters in a file. */
static const char *long_pairs(void)
{
    enum { ROWS = 29 };
    static char text[ROWS * 2048];
    char *at = text;
    for (int i = 0; i < ROWS; i++) {
        static const char *const keys[3] = {"{\"prompt\": \"", "\", \"chosen\": \" ",
                                            "\", \"rejected\": \" "};
        for (int k = 0; k < 3; k++) {
            at += sprintf(at, "%s", keys[k]);
            const int n = 20 + (i * i * 37 + k * 53) % 180;
            for (int j = 0; j < n; j++)
                *at++ = (char)('a' + (i * 7 + j * j + k) % 26);
        }
        at += sprintf(at, "\"}\n");
    }
    return scratch_text("long.jsonl", text);
}

typedef struct planned {
    cudpo_config config;
    plan p;
} planned;

/* In: settings  key, value, .., NULL. */
static cudpo_status open_planned(planned *of, const cudpo_plan_options *o, const char *model,
                                 const char *const *settings)
{
    CHECK_OK(cudpo_config_create(&of->config));
    CHECK_OK(cudpo_config_set(&of->config, "model_name_or_path", model));
    CHECK_OK(cudpo_config_set(&of->config, "train_dataset", long_pairs()));
    for (; *settings != NULL; settings += 2)
        CHECK_OK(cudpo_config_set(&of->config, settings[0], settings[1]));
    CHECK_OK(cudpo_config_check(&of->config));
    return plan_open(&of->p, &of->config, o);
}

static void close_planned(planned *of)
{
    plan_free(&of->p);
    cudpo_config_free(&of->config);
}

#define OPEN(of, model, options, ...)                              \
    CHECK_OK(open_planned(of, &(cudpo_plan_options)options, model, \
                          (const char *const[]){__VA_ARGS__, NULL}))
#define WITH(...)   \
    {               \
        __VA_ARGS__ \
    }

/* 29 pairs in steps of 16: two an epoch, of which the second has 13.  It takes less by its tokens, but the update and the network
 * take as long; 5 steps are two epochs and a whole step. */
static void short_steps_take_less(void **state)
{
    (void)state;
    planned of;
    static const double epochs[2] = {3, 2};
    static const char *const most[2] = {"-1", "5"};
    for (int i = 0; i < 2; i++) {
        OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 2), "max_steps", most[i]);
        const plan_point *now = &of.p.now;
        const double always =
            now->slowest.pass[WORK_OPTIMIZER] + now->network.exposed + now->network.tax;
        const double examples = 29 * epochs[i] + 16 * i;
        assert_int_equal(now->steps, 6 - i);
        assert_int_equal(now->taken, 16);
        assert_true(always > 0 && always < now->step);
        const double tokens = of.p.tokens / 29 * examples / now->tokens;
        const double want = (double)now->steps * always + (now->step - always) * tokens;
        CHECK_NEAR(now->seconds, want, 1e-9 * want);
        close_planned(&of);
    }
}

/* All of an epoch is looked at: only which pairs share a step hangs on the seed. */
static void the_seed_changes_little(void **state)
{
    (void)state;
    double least = 0, most = 0;
    for (int seed = 1; seed <= 4; seed++) {
        planned of;
        char text[8];
        snprintf(text, sizeof text, "%d", seed);
        OPEN(&of, big_model(), WITH(.gpu = "cpu", .gpus = 1), "seed", text, "device", "cpu",
             "per_device_train_batch_size", "1");
        const double seconds = of.p.now.seconds;
        least = seed == 1 || seconds < least ? seconds : least;
        most = seconds > most ? seconds : most;
        close_planned(&of);
    }
    printf("  runs of four seeds take %.0f .. %.0f s\n", least, most);
    CHECK_NEAR(least, most, 1e-9 * most);
}

/* Ranks of a machine do not make it faster, nor its memory larger; machines do. */
static void ranks_of_a_cpu_share_it(void **state)
{
    (void)state;
    planned one, eight, nodes;
    OPEN(&one, big_model(), WITH(.gpu = "cpu", .gpus = 1), "device", "cpu");
    OPEN(&eight, big_model(), WITH(.gpu = "cpu", .gpus = 8), "device", "cpu");
    OPEN(&nodes, big_model(), WITH(.gpu = "cpu", .gpus = 8, .nodes = 8), "device", "cpu");
    const double machine = (double)(one.p.now.memory.available + one.p.program);
    CHECK_NEAR((double)(eight.p.now.memory.available + eight.p.program), machine / 8, 1);
    CHECK_NEAR((double)(nodes.p.now.memory.available + nodes.p.program), machine, 1);
    const plan_point *same = eight.p.same, *apart = nodes.p.same;
    assert_true(same[3].step > 0.99 * same[0].step && same[3].efficiency < 0.13);
    assert_true(apart[3].step < 0.3 * apart[0].step);
    close_planned(&nodes);
    close_planned(&eight);
    close_planned(&one);
    OPEN(&one, MODEL, WITH(.gpu = "cpu", .gpus = 2), "device", "cpu"); /* which fits */
    assert_string_equal(plan_limit_name(one.p.now.limit), "cores");
    close_planned(&one);
}

/* What fits is what the sum that is printed says: with the program, and to the byte. */
static void fits_counts_the_program(void **state)
{
    (void)state;
    planned of;
    plan_point point;
    OPEN(&of, MODEL, WITH(.gpu = "cpu", .gpus = 1), "device", "cpu", "max_tokens_per_pack", "512");
    const size_t all = of.p.now.memory.bytes + of.p.program;
    const network alone = {1, 1};
    assert_true(of.p.program > 0);
    of.p.machine = all;
    CHECK_OK(plan_step(&point, &of.p, 8, alone));
    assert_true(point.fits);
    of.p.machine = all - 1;
    CHECK_OK(plan_step(&point, &of.p, 8, alone));
    assert_false(point.fits);
    assert_string_equal(cudpo_error_message(), "");
    close_planned(&of);
}

/* A GPU of which so much is left: a context takes 1e9, and 1/32 stays free. */
static size_t gpu_memory(size_t left)
{
    return ((left + 1000000000) / 31 + 1) * 32;
}

/* Less memory of a GPU makes for smaller packs, and so for more of them, in the step that is looked at. */
static void packs_follow_memory(void **state)
{
    (void)state;
    planned of;
    plan_point all, point;
    OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 1), "per_device_train_batch_size", "29");
    const network alone = {1, 1};
    of.p.be.memory = gpu_memory(of.p.now.memory.bytes); /* of which ops that sum take less, too */
    CHECK_OK(plan_step(&all, &of.p, 29, alone));
    const memory_forecast *m = &all.memory;
    assert_int_equal(m->limits.tokens, of.p.now.memory.limits.tokens);
    of.p.be.memory = gpu_memory(m->bytes - (m->parts.pack + m->parts.backend) / 2);
    CHECK_OK(plan_step(&point, &of.p, 29, alone));
    assert_true(point.fits && point.memory.limits.tokens < m->limits.tokens);
    assert_true(point.packs > all.packs);
    close_planned(&of);
}

/* That of a CPU does not: training does not ask how much there is. */
static void packs_of_a_cpu_do_not(void **state)
{
    (void)state;
    planned of;
    plan_point point;
    OPEN(&of, MODEL, WITH(.gpu = "cpu", .gpus = 1), "device", "cpu", "per_device_train_batch_size",
         "29");
    const memory_forecast *m = &of.p.now.memory;
    cudpo_trainer *t = NULL;
    run_ranks ranks = ranks_alone(&of.config);
    const network alone = {1, 1}, many = {512, 1};
    CHECK_OK(cudpo_config_set(&of.config, "output_dir", scratch_path("packs")));
    CHECK_OK(trainer_open(&t, &of.config, &ranks, true));
    assert_int_equal(m->limits.tokens, t->memory.limits.tokens);
    cudpo_trainer_close(t);
    of.p.machine = m->bytes - m->parts.pack / 3 + of.p.program;
    CHECK_OK(plan_step(&point, &of.p, 29, alone));
    assert_false(point.fits);
    CHECK_NEAR((double)point.memory.bytes, (double)m->bytes, 0);
    CHECK_NEAR(point.packs, of.p.now.packs, 0);
    CHECK_OK(plan_step(&point, &of.p, 512 * 29, many));
    assert_false(point.fits);
    assert_true(point.memory.limits.tokens >= m->limits.tokens);
    close_planned(&of);
}

/* What the host's memory gives is an assumption of runs, or rows, whose reference comes from there, and of no other. */
static void streaming_is_assumed_where_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *gpu, *offload, *loss;
        int rows, said;
    } cases[] = {{"h100", "false", "sigmoid", 0, 0},
                 {"h100", "true", "sigmoid", 27, 1},
                 {"h100", "false", "sft", 0, 0},
                 {"cpu", "true", "sigmoid", 27, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        planned of;
        int rows = 0, said = 0;
        OPEN(&of, MODEL, WITH(.gpu = cases[i].gpu, .gpus = 1), "ref_model_offload",
             cases[i].offload, "loss_type", cases[i].loss);
        rows += of.p.now.memory.offload;
        for (int k = 0; k < PLAN_SIZES; k++)
            rows += of.p.same[k].memory.offload + of.p.growing[k].memory.offload;
        for (int k = 0; k < of.p.assumptions; k++)
            said += strstr(of.p.assumption[k], "streamed reference") != NULL;
        assert_int_equal(rows, cases[i].rows);
        assert_int_equal(said, cases[i].said);
        close_planned(&of);
    }
    planned few; /* alone it fits only where it is streamed, and many share the moments */
    OPEN(&few, big_model(), WITH(.gpu = "h100", .gpus = 64), "zero_stage", "1");
    assert_true(!few.p.now.memory.offload && few.p.same[2].memory.offload);
    assert_non_null(strstr(few.p.assumption[few.p.assumptions - 1], "streamed reference"));
    close_planned(&few);
}

/* A row of the table is the plan of that number of GPUs: its packs, whether its reference is streamed, its nodes. */
static void rows_are_plans(void **state)
{
    (void)state;
    planned few, many;
    OPEN(&few, big_model(), WITH(.gpu = "h100", .gpus = 4), "zero_stage", "1");
    OPEN(&many, big_model(), WITH(.gpu = "h100", .gpus = 64), "zero_stage", "1");
    const plan_point *row = &few.p.growing[6], *now = &many.p.now;
    assert_true(few.p.now.memory.offload && !now->memory.offload);
    CHECK_NEAR(row->step, now->step, 0);
    CHECK_NEAR((double)row->memory.bytes, (double)now->memory.bytes, 0);
    CHECK_NEAR(row->fill, now->fill, 0);
    CHECK_NEAR(few.p.growing[2].step, few.p.now.step, 0);
    close_planned(&many);
    close_planned(&few);
    OPEN(&few, MODEL, WITH(.gpu = "h100", .gpus = 8, .nodes = 4), "seed", "1");
    now = &few.p.now;
    CHECK_NEAR(few.p.same[3].step, now->step, 0);
    CHECK_NEAR(few.p.growing[3].step, now->step, 0);
    assert_int_equal(few.p.growing[12].net.nodes, 2048);
    close_planned(&few);
}

/* Nodes are of 8 where nobody says otherwise, also where the run does not fill one; the page says so. */
static void nodes_of_the_table(void **state)
{
    (void)state;
    program_result r = RUN(0, RUN_OF, "--gpus", "2");
    has(r.out, "on 2 h100 in a node of 2");
    has(r.out, "scaling, nodes of 8;");
    program_free(&r);
    r = RUN(0, RUN_OF, "--gpus", "2", "--nodes", "1");
    has(r.out, "on 2 h100 in a node of 2");
    has(r.out, "scaling, nodes of 2;");
    program_free(&r);
    r = RUN(0, "plan", "--help");
    has(r.out, "of 8 GPUs where it is not");
    program_free(&r);
}

/* So it is of what is not a step: the reference's log-probs, and evaluations.  Small steps fill packs less than large ones. */
static void rows_have_whole_runs(void **state)
{
    (void)state;
    static const char *const settings[] = {"precompute_ref_log_probs",
                                           "true",
                                           "eval_dataset",
                                           "tests/golden/data/eval.jsonl",
                                           "eval_strategy",
                                           "epoch",
                                           NULL};
    planned few, many;
    CHECK_OK(
        open_planned(&many, &(cudpo_plan_options){.gpu = "h100", .gpus = 16}, MODEL, settings));
    CHECK_OK(open_planned(&few, &(cudpo_plan_options){.gpu = "h100", .gpus = 1}, MODEL, settings));
    const plan_point *row = &many.p.growing[0], *now = &few.p.now;
    const double scaled = 16 * many.p.now.precompute;
    assert_true(fabs(scaled - now->precompute) > 0.05 * scaled);
    assert_true(now->precompute > 0 && now->evaluation > 0);
    CHECK_NEAR(row->precompute, now->precompute, 0);
    CHECK_NEAR(row->evaluation, now->evaluation, 0);
    CHECK_NEAR(row->total, now->seconds + now->precompute + now->evaluation, 1e-12 * now->total);
    CHECK_NEAR(few.p.same[0].total, now->total, 0);
    const double once = now->reference / (double)now->taken * 29 + now->evaluation / 3;
    CHECK_NEAR(now->precompute, once, 1e-9 * once); /* of both data sets; there are 3 epochs */
    buffer text = {0};
    char wanted[32];
    CHECK_OK(plan_text(&text, &few.p)); /* the run time is that of the row of one GPU */
    const char *time = strstr(text.data, "run time "), *first = strstr(text.data, "\n   1 | ");
    assert_true(time != NULL && first != NULL);
    const int n = (int)strcspn(time + 9, ",");
    snprintf(wanted, sizeof wanted, " %.*s  100 %%", n, time + 9);
    assert_int_equal(occurrences(first, wanted), 2);
    buffer_free(&text);
    close_planned(&few);
    close_planned(&many);
}

/* A batch that the data does not fill is refused where it is asked for, and said to be impossible where it is not. */
static void dropped_batches(void **state)
{
    (void)state;
    planned of;
    OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 2), "dataloader_drop_last", "true");
    assert_int_equal(of.p.now.steps, 3); /* 16 of 29 in each of 3 epochs */
    assert_int_equal(of.p.now.taken, 16);
    CHECK_NEAR(of.p.growing[1].seconds, of.p.now.seconds, 0);
    assert_int_equal(of.p.growing[2].steps, 0);
    assert_string_equal(plan_limit_name(of.p.growing[2].limit), "data");
    close_planned(&of);
    const char *const drop[] = {"dataloader_drop_last", "true", NULL};
    CHECK_FAILS(open_planned(&of, &(cudpo_plan_options){.gpu = "h100", .gpus = 4}, MODEL, drop),
                CUDPO_ECONFIG, "29 examples are less than one batch of 32");
    close_planned(&of);
}

/* More ranks than a checkpoint has files for are refused with zero_stage 1, have no row, and are not told to set it. */
static void too_many_to_share(void **state)
{
    (void)state;
    planned of;
    const char *const zero[] = {"zero_stage", "1", NULL};
    CHECK_FAILS(open_planned(&of, &(cudpo_plan_options){.gpu = "h100", .gpus = 4096}, MODEL, zero),
                CUDPO_ECONFIG, "1 is for at most 4000 ranks, and these are 4096");
    close_planned(&of);
    OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 8), "zero_stage", "1");
    assert_true(of.p.same[11].steps > 0 && of.p.growing[11].steps > 0);
    assert_true(of.p.same[12].steps == 0 && of.p.growing[12].steps == 0);
    assert_string_equal(plan_limit_name(of.p.growing[12].limit), "ranks");
    buffer text = {0};
    CHECK_OK(plan_text(&text, &of.p));
    has(text.data, "\nranks: more than can share out moments");
    has(text.data, "(16,384 for 2048 GPUs)");
    buffer_free(&text);
    close_planned(&of);
    OPEN(&of, big_model(), WITH(.gpu = "a100-40gb", .gpus = 4096), "seed", "1");
    assert_true(!of.p.now.fits && of.p.remedies > 0);
    for (int i = 0; i < of.p.remedies; i++)
        assert_null(strstr(of.p.remedy[i].settings, "zero_stage"));
    close_planned(&of);
}

/* Evaluations are as many as there are ends of epochs, however long the run is said to be. */
static void evaluations_follow_steps(void **state)
{
    (void)state;
    static const char *const steps[][2] = {{"1", "1"}, {"4", "1"}, {"5", "2"}, {"40", "10"}};
    double once = 0;
    for (int i = 0; i < 4; i++) {
        planned of;
        OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 1), "max_steps", steps[i][0], "eval_dataset",
             "tests/golden/data/eval.jsonl", "eval_strategy", "epoch"); /* 4 steps an epoch */
        if (i == 0) once = of.p.now.evaluation;
        assert_true(once > 0);
        CHECK_NEAR(of.p.now.evaluation, strtod(steps[i][1], NULL) * once,
                   1e-9 * of.p.now.evaluation);
        close_planned(&of);
    }
}

/* Where memory or launches bound every op, sums of seconds in two orders may differ in their last bits. */
static void no_share_is_negative(void **state)
{
    (void)state;
    planned of;
    buffer text = {0};
    OPEN(&of, MODEL, WITH(.gpu = "h100", .gpus = 1), "seed", "1");
    of.p.now.slowest.memory = cost_total(&of.p.now.slowest) * (1 + 1e-15);
    assert_true(of.p.now.slowest.memory > cost_total(&of.p.now.slowest));
    CHECK_OK(plan_text(&text, &of.p));
    has(text.data, " 0 % in products and attention");
    buffer_free(&text);
    close_planned(&of);
}

/* ---- settings that make it fit ---- */

/* zero_stage is one of the settings that are combined; no line is there twice. */
static void combines_remedies(void **state)
{
    (void)state;
    program_result r = RUN(0, "plan", "--model_name_or_path", big_model(), "--train_dataset", PAIRS,
                           "--gpus", "64", "--gpu", "a100-40gb");
    has(r.out, "with --zero_stage 1 --precompute_ref_log_probs true --gradient_dtype bfloat16\n");
    has(r.out, "fits: ");
    program_free(&r);
    r = RUN(0, "plan", "--model_name_or_path", MODEL, "--train_dataset", PAIRS, "--gpu", "h100",
            "--gpus", "2");
    assert_null(strstr(r.out, "--zero_stage")); /* it fits */
    program_free(&r);
}

/* On a CPU the layers of a reference that is streamed are in the same memory. */
static void nothing_is_streamed_on_a_cpu(void **state)
{
    (void)state;
    planned resident, streamed;
    OPEN(&resident, big_model(), WITH(.gpu = "cpu", .gpus = 4096, .nodes = 1), "device", "cpu");
    assert_false(resident.p.now.fits);
    for (int i = 0; i < resident.p.remedies; i++)
        assert_null(strstr(resident.p.remedy[i].settings, "ref_model_offload"));
    OPEN(&streamed, big_model(), WITH(.gpu = "cpu", .gpus = 1), "device", "cpu",
         "ref_model_offload", "true");
    assert_true(streamed.p.now.memory.parts.reference > resident.p.now.memory.parts.reference);
    close_planned(&streamed);
    close_planned(&resident);
    program_result r = RUN(0, "plan", "--model_name_or_path", big_model(), "--train_dataset", PAIRS,
                           "--gpu", "cpu", "--gpus", "2048", "--nodes", "1", "--zero_stage", "1",
                           "--max_tokens_per_pack", "1");
    assert_int_equal(occurrences(r.out, "--precompute_ref_log_probs true\n"), 1);
    program_free(&r);
    OPEN(&resident, big_model(), WITH(.gpu = "h100", .gpus = 1), "ref_model_offload", "false");
    bool offered = false;
    for (int i = 0; i < resident.p.remedies; i++)
        offered = offered || strstr(resident.p.remedy[i].settings, "ref_model_offload true");
    assert_true(offered);
    close_planned(&resident);
}

/* ---- the manual page ---- */

static bool is_word(const char *text, const char *word)
{
    const size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
        const char before = at == text ? ' ' : at[-1], behind = at[n];
        if (!isalnum((unsigned char)before) && before != '_' && !isalnum((unsigned char)behind) &&
            behind != '_')
            return true;
    }
    return false;
}

static int look_up(const json *value, const char *page)
{
    int n = 0;
    const bool object = json_type(value) == JSON_OBJECT;
    if (!object && json_type(value) != JSON_ARRAY) return 0;
    for (const json *v = json_first(value); v != NULL; v = json_next(v)) {
        if (object && !is_word(page, json_key(v))) fail_msg("not in --help: %s", json_key(v));
        n += (object ? 1 : 0) + look_up(v, page);
    }
    return n;
}

static void the_page_names_all_keys(void **state)
{
    (void)state;
    char file[640];
    json *j = NULL;
    snprintf(file, sizeof file, "%s", scratch_path("keys.json"));
    program_result r = RUN(0, "plan", "--model_name_or_path", big_model(), "--train_dataset", PAIRS,
                           "--json", file); /* it does not fit, so there are remedies */
    program_free(&r);
    r = RUN(0, "plan", "--help");
    const char *list = strstr(r.out, "The JSON object has");
    assert_non_null(list);
    CHECK_OK(json_load(&j, file, (size_t)1 << 22));
    assert_true(look_up(j, list) > 600);
    json_free(j);
    program_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_a_run),
        cmocka_unit_test(names_remedies),
        cmocka_unit_test(plans_all_losses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(short_steps_take_less),
        cmocka_unit_test(the_seed_changes_little),
        cmocka_unit_test(ranks_of_a_cpu_share_it),
        cmocka_unit_test(fits_counts_the_program),
        cmocka_unit_test(packs_follow_memory),
        cmocka_unit_test(packs_of_a_cpu_do_not),
        cmocka_unit_test(streaming_is_assumed_where_it_is),
        cmocka_unit_test(rows_are_plans),
        cmocka_unit_test(nodes_of_the_table),
        cmocka_unit_test(rows_have_whole_runs),
        cmocka_unit_test(dropped_batches),
        cmocka_unit_test(too_many_to_share),
        cmocka_unit_test(evaluations_follow_steps),
        cmocka_unit_test(no_share_is_negative),
        cmocka_unit_test(combines_remedies),
        cmocka_unit_test(nothing_is_streamed_on_a_cpu),
        cmocka_unit_test(the_page_names_all_keys),
    };
    (void)scratch_folder();
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
