/* test_output.c - the output folder: whatever a run is told, what it may not replace stays. */
/* rooms: base */
#include "program.h"
#include "base/hash.h"
#include "base/rng.h"

#include <dirent.h>
#include <sys/stat.h>

#define MODEL "tests/golden/models/llama"
#define REFERENCE "tests/golden/models/llama-ref"
#define PAIRS "tests/golden/data/eval.jsonl"

static char out[640]; /* the folder of a finished run of four steps with checkpoints at 2 and 4 */

#define TRAIN(folder)                                                                         \
    "train", "--model_name_or_path", MODEL, "--train_dataset", PAIRS, "--output_dir", folder, \
        "--max_length", "64", "--max_steps", "4", "--save_steps", "2", "--logging_steps", "1"

static const char *inside(const char *folder, const char *name)
{
    static char path[2100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static hash128 hash_of(const char *folder, const char *name)
{
    hash128 h;
    CHECK_OK(hash_file(&h, inside(folder, name)));
    return h;
}

static void copy(char to[640], const char *name, const char *from)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    snprintf(to, 640, "%s", scratch_path(name));
    CHECK_OK(file_make_folder(to));
    for (int i = 0; i < 4; i++) {
        char source[1400];
        snprintf(source, sizeof source, "%s/%s", from, files[i]);
        CHECK_OK(file_copy(inside(to, files[i]), source));
    }
}

static void new_run(char to[640], const char *name)
{
    snprintf(to, 640, "%s", scratch_path(name));
    program_result r = RUN(0, TRAIN(to));
    has(r.err, "holds the trained model");
    program_free(&r);
}

static bool same(const char *a, const char *b)
{
    const hash128 x = hash_of(a, "model.safetensors"), y = hash_of(b, "model.safetensors");
    return x.high == y.high && x.low == y.low;
}

/* Run it in vain, and see that the weights in the folder are what they were. */
#define KEEPS(folder, status, message, ...)                                \
    do {                                                                   \
        const hash128 before = hash_of(folder, "model.safetensors");       \
        SAYS(status, message, __VA_ARGS__);                                \
        const hash128 after = hash_of(folder, "model.safetensors");        \
        assert_true(before.high == after.high && before.low == after.low); \
    } while (0)

static void keeps_models(void **state)
{
    (void)state;
    char model[640], checkpoint[1400];
    copy(model, "model", MODEL);
    KEEPS(model, 78, "output_dir is the folder of model_name_or_path", TRAIN(model),
          "--model_name_or_path", model, "--overwrite_output_dir");
    KEEPS(model, 78, "output_dir is the folder of ref_model_name_or_path", TRAIN(model),
          "--ref_model_name_or_path", model);
    KEEPS(model, 78, "holds config.json, which no run of cudpo made", TRAIN(model));
    KEEPS(model, 78, "holds config.json, which no run of cudpo made", TRAIN(model),
          "--overwrite_output_dir");
    KEEPS(model, 78, "holds config.json, which no run of cudpo made", TRAIN(model),
          "--resume_from_checkpoint");
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint-4", out);
    KEEPS(out, 78, "model_name_or_path is a checkpoint in output_dir", TRAIN(out),
          "--model_name_or_path", checkpoint, "--overwrite_output_dir");
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Files of its user stay in the folder, and those that a run would replace keep it away. */
static void keeps_files(void **state)
{
    (void)state;
    char folder[640], *text = NULL;
    size_t n;
    snprintf(folder, sizeof folder, "%s", scratch_path("shared"));
    CHECK_OK(file_make_folder(inside(folder, "runs")));
    scratch_text("shared/notes.txt", "mine");
    scratch_text("shared/runs/events.out.tfevents.1", "mine");
    scratch_text("shared/adapter.safetensors", "mine");
    program_result r = RUN(0, TRAIN(folder));
    program_free(&r);
    r = RUN(0, TRAIN(folder), "--overwrite_output_dir");
    program_free(&r);
    static const char *const files[] = {"notes.txt", "adapter.safetensors",
                                        "runs/events.out.tfevents.1"};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(file_read(&text, &n, inside(folder, files[i]), 100));
        assert_string_equal(text, "mine");
        free(text);
    }
    /* Mine, and that of the second run alone. */
    assert_int_equal(entries(inside(folder, "runs")), 2);
    snprintf(folder, sizeof folder, "%s", scratch_path("taken"));
    CHECK_OK(file_make_folder(folder));
    scratch_text("taken/tokenizer.json", "mine");
    scratch_text("taken/metrics.jsonl", "mine");
    scratch_text("taken/run.json", "{\"mine\": 1}");
    SAYS(78, "which no run of cudpo made", TRAIN(folder), "--resume_from_checkpoint",
         "--overwrite_output_dir");
    assert_int_equal(unlink(inside(folder, "metrics.jsonl")), 0);
    assert_int_equal(unlink(inside(folder, "run.json")), 0);
    SAYS(78, "holds tokenizer.json, which no run of cudpo made", TRAIN(folder));
    CHECK_OK(file_read(&text, &n, inside(folder, "tokenizer.json"), 100));
    assert_string_equal(text, "mine");
    free(text);
    snprintf(folder, sizeof folder, "%s", scratch_path("products"));
    CHECK_OK(file_make_folder(folder));
    scratch_text("products/gemm.txt", "mine");
    SAYS(78, "holds gemm.txt, which no run of cudpo made", TRAIN(folder), "--overwrite_output_dir");
}

/* The algorithms that a run took on a GPU stay while it is that run, from the start too, and go with it. */
static void keeps_what_a_run_chose(void **state)
{
    (void)state;
    char folder[640], chosen[2100];
    new_run(folder, "chose");
    snprintf(chosen, sizeof chosen, "%s", inside(folder, "gemm.txt"));
    assert_false(file_is_regular(chosen)); /* the CPU chooses nothing */
    scratch_text("chose/gemm.txt", "algorithms");
    SAYS(78, "output_dir holds a run", TRAIN(folder));
    for (int step = 2; step >= 0; step -= 2) {
        CHECK_OK(file_remove_folder(inside(folder, step == 2 ? "checkpoint-4" : "checkpoint-2")));
        if (step == 0) CHECK_OK(file_remove_folder(inside(folder, "checkpoint-4")));
        assert_int_equal(unlink(inside(folder, "model.safetensors")), 0);
        program_result r = RUN(0, TRAIN(folder), "--resume_from_checkpoint");
        program_free(&r);
        assert_true(file_is_regular(chosen));
    }
    program_result r = RUN(0, TRAIN(folder), "--seed", "7", "--overwrite_output_dir");
    program_free(&r);
    assert_false(file_is_regular(chosen));
}

static void keeps_runs(void **state)
{
    (void)state;
    char other[640], checkpoint[1400], fresh[640];
    snprintf(other, sizeof other, "%s", scratch_path("other"));
    program_result r = RUN(0, TRAIN(other), "--seed", "7");
    program_free(&r);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint-2", other);
    KEEPS(out, 78, "output_dir holds a run", TRAIN(out));
    KEEPS(out, 78, "output_dir holds another run", TRAIN(out), "--seed", "7",
          "--resume_from_checkpoint", checkpoint);
    /* Checkpoints alone are a run, too. */
    assert_int_equal(unlink(inside(other, "metrics.jsonl")), 0);
    assert_int_equal(unlink(inside(other, "run.json")), 0);
    KEEPS(other, 78, "output_dir holds a run", TRAIN(other));
    assert_true(file_is_regular(inside(checkpoint, "model.safetensors")));
    /* A new folder takes a checkpoint from anywhere, as often as it is asked to. */
    snprintf(fresh, sizeof fresh, "%s", scratch_path("fresh"));
    for (int i = 0; i < 2; i++) {
        r = RUN(0, TRAIN(fresh), "--seed", "7", "--resume_from_checkpoint", checkpoint);
        has(r.err, "going on from");
        program_free(&r);
        assert_true(same(fresh, other));
    }
}

/* A finished run without checkpoints is finished; with other settings it is another run. */
static void knows_what_is_finished(void **state)
{
    (void)state;
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("finished"));
    program_result r = RUN(0, TRAIN(folder), "--save_strategy", "no");
    program_free(&r);
    r = RUN(0, TRAIN(folder), "--save_strategy", "no", "--resume_from_checkpoint");
    has(r.err, "holds the trained model already");
    program_free(&r);
    assert_true(same(folder, out));
    KEEPS(folder, 78, "output_dir holds another run", TRAIN(folder), "--resume_from_checkpoint",
          "--seed", "7");
    r = RUN(0, TRAIN(folder), "--resume_from_checkpoint", "--seed", "7", "--overwrite_output_dir");
    program_free(&r);
    assert_false(same(folder, out));
    assert_true(file_is_folder(inside(folder, "checkpoint-4")));
    /* So it is where a checkpoint on the way was left; and a record alone belongs to its run. */
    new_run(folder, "left");
    CHECK_OK(file_remove_folder(inside(folder, "checkpoint-4")));
    r = RUN(0, TRAIN(folder), "--resume_from_checkpoint");
    has(r.err, "holds the trained model already");
    program_free(&r);
    CHECK_OK(file_remove_folder(inside(folder, "checkpoint-2")));
    assert_int_equal(unlink(inside(folder, "model.safetensors")), 0);
    SAYS(78, "output_dir holds another run", TRAIN(folder), "--resume_from_checkpoint", "--seed",
         "7");
    r = RUN(0, TRAIN(folder), "--resume_from_checkpoint");
    program_free(&r);
    assert_true(same(folder, out));
    /* What the run records is a configuration. */
    char record[1400], again[640];
    snprintf(record, sizeof record, "%s/run.json", out);
    snprintf(again, sizeof again, "%s", scratch_path("again"));
    r = RUN(0, "train", record, "--output_dir", again);
    program_free(&r);
    assert_true(same(again, out));
}

/* A run that replaces another one, killed at random, and the same command again: never refused, and in the end the weights
 * of a run that nothing disturbed. */
static void replaces_whatever_kills_it(void **state)
{
    (void)state;
    enum { TRIALS = 30, SEED = 5 };
    char want[640], folder[640];
    snprintf(want, sizeof want, "%s", scratch_path("want"));
    program_result r = RUN(0, TRAIN(want), "--seed", "7");
    program_free(&r);
    const double begin = program_clock();
    new_run(folder, "replaced");
    double length = program_clock() - begin;
    int killed = 0;
    for (int i = 0; i < TRIALS; i++) {
        const char *seed = i % 2 == 0 ? "7" : "42"; /* each replaces the one before */
#define REPLACE                                                                    \
    TRAIN(folder), "--seed", seed, "--save_strategy", i % 3 == 0 ? "no" : "steps", \
        "--overwrite_output_dir", "--resume_from_checkpoint"
        const pid_t pid = program_start((const char *const[]){REPLACE, NULL});
        program_sleep(length * rng_uniform(SEED, (uint64_t)i, 0));
        kill(pid, SIGKILL);
        const bool in_time = program_wait(pid) == 128 + SIGKILL;
        /* Busy neighbours make runs longer or shorter. */
        killed += in_time;
        length *= in_time ? 1.1 : 0.7;
        r = RUN(0, REPLACE);
        program_free(&r);
        assert_true(same(folder, i % 2 == 0 ? want : out));
    }
    printf("killed %d of %d times\n", killed, TRIALS);
    assert_true(killed > TRIALS / 4);
}

/* Every setting that decides the result, by its name. */
static void names_what_differs(void **state)
{
    (void)state;
    static const char *const others[][2] = {
        {"ref_model_name_or_path", REFERENCE},
        {"seed", "7"},
        {"beta", "0.2"},
        {"loss_type", "ipo"},
        {"learning_rate", "2e-6"},
        {"max_steps", "5"},
        {"lr_scheduler_type", "cosine"},
        {"warmup_steps", "2"},
        {"label_smoothing", "0.1"},
        {"weight_decay", "0.1"},
        {"adam_beta2", "0.99"},
        {"max_grad_norm", "2"},
        {"per_device_train_batch_size", "4"},
        {"train_dataset", "tests/golden/data/train.jsonl"},
        {"dataloader_drop_last", "true"},
        {"train_sampling_strategy", "sequential"},
        {"desirable_weight", "2"},
        {"model_name_or_path", REFERENCE},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char option[64], message[96];
        const char *name = others[i][0];
        snprintf(option, sizeof option, "--%s", name);
        snprintf(message, sizeof message, "%s", name);
        program_result r = RUN(78, TRAIN(out), "--resume_from_checkpoint", option, others[i][1]);
        has(r.err, "was made with other values of: ");
        has(strstr(r.err, "other values of: "), message);
        program_free(&r);
    }
    /* Where the same rows make the same steps, batches may be cut otherwise. */
    program_result r =
        RUN(0, TRAIN(out), "--resume_from_checkpoint", "--per_device_train_batch_size", "4",
            "--gradient_accumulation_steps", "2", "--gradient_checkpointing", "false");
    program_free(&r);
}

static void notices_obstacles_at_once(void **state)
{
    (void)state;
    char folder[640];
    snprintf(folder, sizeof folder, "%s", scratch_path("obstacles"));
    CHECK_OK(file_make_folder(inside(folder, "checkpoint-2/mine")));
    SAYS(73, "checkpoint-2: stands where a checkpoint has to go", TRAIN(folder));
    assert_false(file_is_regular(inside(folder, "metrics.jsonl")));
    program_result r = RUN(0, TRAIN(folder), "--save_strategy", "no");
    program_free(&r);
    assert_true(file_is_folder(inside(folder, "checkpoint-2/mine")));
    snprintf(folder, sizeof folder, "%s", scratch_path("names"));
    CHECK_OK(file_make_folder(inside(folder, "model.safetensors")));
    SAYS(73, "model.safetensors is a folder", TRAIN(folder));
    snprintf(folder, sizeof folder, "%s", scratch_path("events"));
    CHECK_OK(file_make_folder(folder));
    scratch_text("events/runs", "");
    SAYS(73, "runs is a file", TRAIN(folder));
    assert_false(file_is_regular(inside(folder, "run.json")));
}

static void wait_for(const char *path)
{
    const double limit = program_clock() + 60.0;
    while (!file_is_regular(path) && !file_is_folder(path)) {
        if (program_clock() > limit) fail_msg("no %s within a minute", path);
        program_sleep(0.01);
    }
}

/* One run at a time; and a run that replaces another says how to go on when it is stopped. */
static void one_at_a_time(void **state)
{
    (void)state;
    char folder[640];
    new_run(folder, "busy");
    CHECK_OK(file_remove_folder(inside(folder, "checkpoint-4")));
#define LONG TRAIN(folder), "--max_steps", "100000", "--save_steps", "100000"
    const pid_t pid =
        program_start((const char *const[]){LONG, "--overwrite_output_dir", "true", NULL});
    const double limit = program_clock() + 60.0;
    while (file_is_regular(inside(folder, "model.safetensors")) && program_clock() < limit)
        program_sleep(0.01);
    /* The second one's words go to other files. */
    char first[640];
    snprintf(first, sizeof first, "%s", scratch_path("FIRST"));
    assert_int_equal(rename(scratch_path("ERR"), first), 0);
    SAYS(73, "another process is training into this output_dir", LONG, "--resume_from_checkpoint");
    kill(pid, SIGTERM);
    assert_int_equal(program_wait(pid), 75);
    char *text = NULL;
    size_t n;
    CHECK_OK(file_read(&text, &n, first, 1 << 24));
    has(text, "the same command with --resume_from_checkpoint true");
    has(text, "checkpoint-2 is removed: this run begins anew");
    free(text);
    assert_false(file_is_regular(inside(folder, "model.safetensors"))); /* it is not finished */
    const pid_t again = program_start((const char *const[]){
        LONG, "--overwrite_output_dir", "true", "--resume_from_checkpoint", "true", NULL});
    program_sleep(0.2);
    kill(again, SIGTERM);
    assert_int_equal(program_wait(again), 75);
}

/* Before the first step, too, a signal ends a run in order: nothing half made stays behind. */
static void stopped_before_the_first_step(void **state)
{
    (void)state;
    enum { ROWS = 20000 };
    static char rows[ROWS * 64];
    size_t used = 0;
    for (int i = 0; i < ROWS; i++)
        used += (size_t)snprintf(
            rows + used, sizeof rows - used,
            "{\"prompt\": \"%d\", \"chosen\": \"yes\", \"rejected\": \"no\"}\n", i);
    char folder[640], data[640];
    snprintf(data, sizeof data, "%s", scratch_write("many.jsonl", rows, used));
    snprintf(folder, sizeof folder, "%s", scratch_path("stopped"));
    const pid_t pid = program_start((const char *const[]){
        TRAIN(folder), "--train_dataset", data, "--precompute_ref_log_probs", "true", NULL});
    wait_for(folder);
    program_sleep(0.1);
    kill(pid, SIGTERM);
    program_result r = program_read(program_wait(pid));
    assert_int_equal(r.status, 75);
    has(r.err, "before the first step of this run: run the same command again");
    program_free(&r);
    assert_false(file_is_regular(inside(folder, "metrics.jsonl")));
}

static void keeps_other_files(void **state)
{
    (void)state;
    char data[640], folder[640];
    snprintf(data, sizeof data, "%s", scratch_path("pairs.jsonl"));
    CHECK_OK(file_copy(data, PAIRS));
    SAYS(78, "pairs.jsonl: is the file that is read", "score", "--model_name_or_path", MODEL,
         "--ref_model_name_or_path", MODEL, "--data", data, "--output", data);
    SAYS(78, "pairs.jsonl: is the file that is read", "tokenize", "--model_name_or_path", MODEL,
         "--data", data, "--output", data);
    hash128 a, b;
    CHECK_OK(hash_file(&a, PAIRS));
    CHECK_OK(hash_file(&b, data));
    assert_true(a.high == b.high && a.low == b.low);
    snprintf(folder, sizeof folder, "%s", scratch_path("mine"));
    CHECK_OK(file_make_folder(folder));
    scratch_text("mine/dpo.jsonl", "mine");
    SAYS(73, "mine: holds other things than a demo", "demo", "--output_dir", folder);
    char *text = NULL;
    size_t n;
    CHECK_OK(file_read(&text, &n, inside(folder, "dpo.jsonl"), 100));
    assert_string_equal(text, "mine");
    free(text);
}

static int make_run(void **state)
{
    (void)state;
    new_run(out, "out");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_models),           cmocka_unit_test(keeps_files),
        cmocka_unit_test(keeps_what_a_run_chose), cmocka_unit_test(keeps_runs),
        cmocka_unit_test(knows_what_is_finished), cmocka_unit_test(replaces_whatever_kills_it),
        cmocka_unit_test(names_what_differs),     cmocka_unit_test(notices_obstacles_at_once),
        cmocka_unit_test(one_at_a_time),          cmocka_unit_test(stopped_before_the_first_step),
        cmocka_unit_test(keeps_other_files),
    };
    return cmocka_run_group_tests(tests, make_run, scratch_remove);
}
