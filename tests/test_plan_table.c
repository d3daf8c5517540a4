/* test_plan_table.c - a plan of one number of GPUs beside those of others: what its rows have, and what is said of them. */
/* rooms: plan */
#include "test_plan.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_is_assumed_where_it_is),
        cmocka_unit_test(rows_are_plans),
        cmocka_unit_test(nodes_of_the_table),
        cmocka_unit_test(rows_have_whole_runs),
        cmocka_unit_test(dropped_batches),
        cmocka_unit_test(too_many_to_share),
        cmocka_unit_test(evaluations_follow_steps),
        cmocka_unit_test(no_share_is_negative),
    };
    (void)scratch_folder();
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
