/* test_plan_runs.c - plans of runs: what the command says of them, that its numbers agree with one another, and where something
 * is wrong. */
/* rooms: plan */
#include "test_plan.h"
#include "base/json.h"

#include <ctype.h>

/* ---- the command ---- */

static double number(const json *object, const char *a, const char *b)
{
    const json *v = json_get(object, a);
    if (v != NULL && b != NULL) v = json_get(v, b);
    if (v == NULL || json_type(v) != JSON_NUMBER)
        fail_msg("no number %s %s", a, b == NULL ? "" : b);
    return json_number(v);
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
        cmocka_unit_test(combines_remedies),
        cmocka_unit_test(nothing_is_streamed_on_a_cpu),
        cmocka_unit_test(the_page_names_all_keys),
    };
    (void)scratch_folder();
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
