/* test_cli.c - the program as a user meets it: help, results, and what it says and returns where something is wrong. */
/* rooms: base */
#include "program.h"
#include "base/json.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define MODEL "tests/golden/models/llama"
#define REFERENCE "tests/golden/models/llama-ref"
#define PAIRS "tests/golden/data/eval.jsonl"

static const char *const commands[] = {"train",    "eval", "score", "generate",
                                       "tokenize", "demo", "plan",  "launch"};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void helps(void **state)
{
    (void)state;
    static const char *const sections[] = {"NAME\n", "\nSYNOPSIS\n", "\nDESCRIPTION\n",
                                           "\nEXIT STATUS\n", "\nEXAMPLES\n"};
    program_result r = RUN(0, "--help");
    for (int i = 0; i < COMMANDS; i++)
        has(r.out, commands[i]);
    program_free(&r);
    for (int i = 0; i < COMMANDS; i++) {
        r = RUN(0, commands[i], "--help");
        for (int j = 0; j < 5; j++)
            has(r.out, sections[j]);
        assert_string_equal(r.err, "");
        program_free(&r);
    }
    r = RUN(0, "train", "--help");
    has(r.out, "--per_device_train_batch_size (8)");
    has(r.out, "sigmoid, ");
    program_free(&r);
    r = RUN(0, "--version");
    assert_int_equal(strncmp(r.out, "cudpo ", 6), 0);
    program_free(&r);
}

static void refuses_command_lines(void **state)
{
    (void)state;
    program_result r = RUN(64, NULL);
    has(r.err, "cudpo: cudpo: needs a command");
    program_free(&r);
    SAYS(64, "trian: is no command; did you mean train?", "trian");
    SAYS(64, "xyzzy: is no command; see cudpo --help", "xyzzy");
    SAYS(64, "--dato: is no option of this command; did you mean --data?", "score", "--dato", "x");
    SAYS(64, "--model_name_or_path: is needed", "score", "--data", PAIRS);
    SAYS(64, "--beta", "score", "--model_name_or_path", MODEL, "--ref_model_name_or_path", MODEL,
         "--data", PAIRS, "--beta", "0");
    SAYS(64, "\"ten\"", "generate", "--model_name_or_path", MODEL, "--prompt", "x",
         "--max_new_tokens", "ten");
    SAYS(64, "second configuration file", "train", "a.json", "b.json");
    SAYS(78, "--betta: unknown key; did you mean beta?", "train", "--betta", "1");
    SAYS(78, "model_name_or_path: is required", "train");
    SAYS(78, "train_dataset: is required", "train", "--model_name_or_path", MODEL);
    SAYS(78, "eval_dataset: is required", "eval", "--model_name_or_path", MODEL);
    SAYS(78, "model_name_or_path: is required", "eval", "--eval_dataset", PAIRS);
    SAYS(64, "--output: is of --data", "tokenize", "--model_name_or_path", MODEL, "--text", "x",
         "--output", "y");
    SAYS(64, "--no_special_tokens: is of --text", "tokenize", "--model_name_or_path", MODEL,
         "--data", PAIRS, "--no_special_tokens");
    /* Who said it: the file, or the command line that replaced what the file says. */
    char path[640];
    snprintf(path, sizeof path, "%s",
             scratch_text("said.json", "{\"model_name_or_path\": \"" MODEL "\", \"train_dataset\": "
                                       "\"" PAIRS "\", \"max_steps\": 0}"));
    SAYS(78, "said.json: max_steps: must be 1 or more", "train", path);
    SAYS(78, "cudpo: --max_steps: must be 1 or more", "train", path, "--max_steps", "0");
    SAYS(78, "--num_train_epochs: must be at most 9007199254740991", "train", path,
         "--num_train_epochs", "1e18");
}

static void refuses_files(void **state)
{
    (void)state;
    char path[640], output[640];
    snprintf(output, sizeof output, "%s", scratch_path("refused"));
#define TRAIN(model, data)                                                                   \
    "train", "--model_name_or_path", model, "--train_dataset", data, "--output_dir", output, \
        "--max_length", "64", "--max_steps", "1"
    SAYS(66, "absent.json", "train", "absent.json");
    SAYS(66, "no-model", TRAIN("no-model", PAIRS));
    SAYS(66, "no-data.jsonl", TRAIN(MODEL, "no-data.jsonl"));
    snprintf(path, sizeof path, "%s", scratch_text("c.json", "{\"beta\": 0.1,}"));
    SAYS(78, "c.json", "train", path);
    snprintf(path, sizeof path, "%s", scratch_text("c.json", "{\"betta\": 0.1}"));
    SAYS(78, "c.json: betta: unknown key; did you mean beta?", "train", path);
    snprintf(path, sizeof path, "%s",
             scratch_text("bad.jsonl",
                          "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n"
                          "{\"prompt\": \"a\", \"chosen\": \"b\"\n"));
    SAYS(65, "bad.jsonl:2: ", TRAIN(MODEL, path));
    snprintf(path, sizeof path, "%s",
             scratch_text("chat.jsonl",
                          "{\"chosen\": [{\"role\": \"user\", \"content\": \"a\"}], \"rejected\": "
                          "[{\"role\": \"user\", \"content\": \"b\"}]}\n"));
    SAYS(65, "chat.jsonl:1: ", TRAIN(MODEL, path));
    snprintf(path, sizeof path, "%s", scratch_text("empty.jsonl", ""));
    SAYS(65, "empty.jsonl", TRAIN(MODEL, path));
    SAYS(66, "nothing is downloaded", TRAIN("meta-llama/Llama-3.2-1B", PAIRS));
    SAYS(65, "a reference must be of the same", TRAIN(MODEL, PAIRS), "--ref_model_name_or_path",
         "tests/golden/models/qwen3");
    snprintf(path, sizeof path, "%s",
             scratch_text("bad.json", "[{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": "
                                      "\"c\"}, {\"prompt\": \"a\"}]"));
    SAYS(65, "bad.json:1: row 2: ", TRAIN(MODEL, path));
    assert_int_equal(mkdir(scratch_path("gpt"), 0777), 0);
    scratch_text("gpt/config.json", "{\"model_type\": \"gpt2\", \"architectures\": "
                                    "[\"GPT2LMHeadModel\"]}");
    snprintf(path, sizeof path, "%s", scratch_path("gpt"));
    program_result r = RUN(65, "generate", "--model_name_or_path", path, "--prompt", "x");
    has(r.err, "gpt2");
    has(r.err, "LlamaForCausalLM");
    has(r.err, "Qwen3ForCausalLM");
    program_free(&r);
    scratch_text("array.json", "[\n{\"beta\": 1},\n {\"beta\" 1}]");
    snprintf(path, sizeof path, "%s", scratch_path("array.json"));
    SAYS(78, "array.json:3: not valid JSON at byte 10 of the line: expected ':'", "train", path);
    snprintf(path, sizeof path, "%s/below", scratch_text("file", "not a folder"));
    snprintf(output, sizeof output, "%s", path);
    SAYS(73, "file", TRAIN(MODEL, PAIRS));
}

static bool exists(const char *folder, const char *name)
{
    char path[1400];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &s) == 0;
}

static void trains_to_a_folder_that_others_read(void **state)
{
    (void)state;
    static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json",
                                        "metrics.jsonl",     "run.json",    "runs",
                                        "checkpoint-3"};
    char output[640], config[640], text[2048];
    snprintf(output, sizeof output, "%s", scratch_path("out"));
    snprintf(
        text, sizeof text,
        "{\"model_name_or_path\": \"%s\", \"train_dataset\": \"%s\", \"output_dir\": \"%s\", "
        "\"max_length\": 64, \"max_steps\": 99, \"learning_rate\": 1e-4, \"logging_steps\": 1}",
        MODEL, PAIRS, output);
    snprintf(config, sizeof config, "%s", scratch_text("run-config.json", text));
    /* The command line wins over the file, wherever it stands. */
    program_result r = RUN(0, "train", "--max_steps", "3", config, "--beta=0.2");
    has(r.err, "step 3/3");
    program_free(&r);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (!exists(output, files[i])) fail_msg("no %s in %s", files[i], output);
    SAYS(78, "output_dir holds a run", "train", config);
    r = RUN(0, "train", config, "--max_steps", "3", "--beta", "0.2", "--resume_from_checkpoint");
    has(r.err, "holds the trained model already");
    program_free(&r);
    r = RUN(0, "train", config, "--max_steps", "2", "--overwrite_output_dir");
    assert_true(exists(output, "checkpoint-2") && !exists(output, "checkpoint-3"));
    program_free(&r);
    r = RUN(0, "eval", "--model_name_or_path", output, "--ref_model_name_or_path", MODEL,
            "--eval_dataset", PAIRS, "--max_length", "64");
    json *tree = NULL;
    CHECK_OK(json_parse(&tree, r.out, strlen(r.out), "eval"));
    assert_true(json_number(json_get(tree, "eval_loss")) > 0.0);
    assert_true(json_number(json_get(tree, "eval_rewards/margins")) > 0.0); /* it was trained on */
    assert_true(json_number(json_get(tree, "examples")) == 10.0);
    json_free(tree);
    program_free(&r);
    r = RUN(0, "generate", "--model_name_or_path", output, "--prompt", "Human:", "--max_new_tokens",
            "8");
    assert_true(strlen(r.out) > 1);
    program_free(&r);
}

static void prints_the_configuration(void **state)
{
    (void)state;
    program_result r = RUN(0, "train", "--print_config", "--beta", "0.3", "--loss_type", "ipo");
    json *tree = NULL;
    CHECK_OK(json_parse(&tree, r.out, strlen(r.out), "printed"));
    assert_true(json_number(json_get(tree, "beta")) == 0.3);
    assert_string_equal(json_string(json_get(tree, "loss_type")), "ipo");
    json_free(tree);
    char path[640];
    snprintf(path, sizeof path, "%s", scratch_text("printed.json", r.out));
    program_result again = RUN(0, "train", path, "--print_config");
    assert_string_equal(r.out, again.out);
    program_free(&again);
    program_free(&r);
}

static double number(const json *row, const char *name)
{
    const json *v = json_get(row, name);
    if (v == NULL || json_type(v) != JSON_NUMBER) fail_msg("no number %s", name);
    return json_number(v);
}

/* Every pair, in order; rewards are beta times the log-ratios; a row that is too long has nulls. */
static void scores(void **state)
{
    (void)state;
    static const char *const names[] = {"row",
                                        "logps/chosen",
                                        "logps/rejected",
                                        "ref_logps/chosen",
                                        "ref_logps/rejected",
                                        "rewards/chosen",
                                        "rewards/rejected",
                                        "rewards/margin",
                                        "tokens/prompt",
                                        "tokens/chosen",
                                        "tokens/rejected"};
    char output[640];
    snprintf(output, sizeof output, "%s", scratch_path("scores.jsonl"));
    program_result r = RUN(0, "score", "--model_name_or_path", MODEL, "--ref_model_name_or_path",
                           REFERENCE, "--data", PAIRS, "--beta", "0.5", "--max_length", "64");
    program_result filed =
        RUN(0, "score", "--model_name_or_path", MODEL, "--ref_model_name_or_path", REFERENCE,
            "--data", PAIRS, "--beta", "0.5", "--max_length", "64", "--output", output);
    char *text = NULL;
    size_t n;
    CHECK_OK(file_read(&text, &n, output, 1 << 24));
    assert_string_equal(text, r.out);
    free(text);
    int rows = 0, dropped = 0;
    char *next = NULL;
    for (char *line = strtok_r(r.out, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next), rows++) {
        json *row = NULL;
        CHECK_OK(json_parse(&row, line, strlen(line), "row"));
        int k = 0;
        for (const json *v = json_first(row); v != NULL; v = json_next(v), k++)
            assert_string_equal(json_key(v), names[k]);
        assert_int_equal(k, 11);
        assert_true(number(row, "row") == rows);
        if (json_type(json_get(row, "logps/chosen")) == JSON_NULL) {
            dropped++;
        } else {
            const double a = number(row, "logps/chosen") - number(row, "ref_logps/chosen");
            const double b = number(row, "logps/rejected") - number(row, "ref_logps/rejected");
            CHECK_NEAR(number(row, "rewards/chosen"), 0.5 * a, 1e-4);
            CHECK_NEAR(number(row, "rewards/rejected"), 0.5 * b, 1e-4);
            CHECK_NEAR(number(row, "rewards/margin"), 0.5 * (a - b), 1e-4);
            assert_true(fabs(a) > 1e-3 && number(row, "logps/chosen") < 0.0);
            assert_true(number(row, "tokens/chosen") >= 1.0);
        }
        json_free(row);
    }
    assert_int_equal(rows, 11);
    assert_int_equal(dropped, 1);
    program_free(&filed);
    program_free(&r);
}

static void tokenizes_and_generates(void **state)
{
    (void)state;
    program_result r = RUN(0, "tokenize", "--model_name_or_path", MODEL, "--text", "Human: a");
    assert_int_equal(r.out[0], '[');
    program_free(&r);
    r = RUN(0, "tokenize", "--model_name_or_path", MODEL, "--data", PAIRS);
    int lines = 0;
    for (const char *p = r.out; *p != '\0'; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 11);
    has(r.out, "\"prompt_ids\": [");
    has(r.out, "\"rejected_ids\": [");
    program_free(&r);
    program_result a =
        RUN(0, "generate", "--model_name_or_path", MODEL, "--prompt", "x", "--prompt", "y",
            "--temperature", "1", "--seed", "4", "--max_new_tokens", "12");
    program_result b =
        RUN(0, "generate", "--model_name_or_path", MODEL, "--prompt", "x", "--prompt", "y",
            "--temperature", "1", "--seed", "4", "--max_new_tokens", "12", "--batch_size", "1");
    assert_string_equal(a.out, b.out);
    program_free(&b);
    b = RUN(0, "generate", "--model_name_or_path", MODEL, "--prompt", "x", "--prompt", "y",
            "--temperature", "1", "--seed", "5", "--max_new_tokens", "12");
    assert_string_not_equal(a.out, b.out);
    program_free(&a);
    program_free(&b);
    /* This model's likeliest text has a NUL after a few characters: it goes on behind it, as transformers' does. */
    a = RUN(0, "generate", "--model_name_or_path", "tests/golden/models/qwen2", "--prompt",
            "x  y  ", "--max_new_tokens", "60");
    assert_true(strlen(a.out) > 100);
    program_free(&a);
}

/* Prompts of a file are what its lines say, whoever wrote it. */
static void prompts_of_files(void **state)
{
    (void)state;
    char path[640];
    snprintf(path, sizeof path, "%s", scratch_text("unix", "one\n\n{\"prompt\": \"two\"}\n"));
#define PROMPTS \
    "generate", "--model_name_or_path", MODEL, "--prompts", path, "--max_new_tokens", "4"
    program_result a = RUN(0, PROMPTS);
    has(a.out, "{\"prompt\": \"one\", \"completion\": ");
    has(a.out, "{\"prompt\": \"two\", \"completion\": ");
    snprintf(path, sizeof path, "%s",
             scratch_text("windows", "\xef\xbb\xbfone\r\n\r\n{\"prompt\": \"two\"}\r\n"));
    program_result b = RUN(0, PROMPTS);
    assert_string_equal(a.out, b.out);
    program_free(&a);
    program_free(&b);
    snprintf(path, sizeof path, "%s", scratch_text("list", " [\"one\", \"two\"]"));
    SAYS(65, "list: is an array", PROMPTS);
    snprintf(path, sizeof path, "%s", scratch_text("text", "[one]\n  {\"prompt\": \"two\"}\n"));
    a = RUN(0, PROMPTS);
    has(a.out, "{\"prompt\": \"[one]\", ");
    has(a.out, "{\"prompt\": \"two\", ");
    program_free(&a);
    snprintf(path, sizeof path, "%s", scratch_text("latin", "one\ntw\xf6\n"));
    SAYS(65, "latin:2: invalid UTF-8 at byte 3", PROMPTS);
    snprintf(path, sizeof path, "%s", scratch_text("packed", "\x1f\x8b\x08"));
    SAYS(65, "packed: is gzip", PROMPTS);
}

/* A copy of MODEL whose final norm ends in, or consists of, this number in bfloat16. */
static const char *spoilt_model(const char *name, uint16_t bits, bool all)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    enum { HIDDEN = 32 }; /* model.norm.weight is the last tensor of the file */
    char to[1400], from[640], *data = NULL;
    size_t n;
    assert_int_equal(mkdir(scratch_path(name), 0777), 0);
    for (int i = 0; i < 3; i++) {
        snprintf(to, sizeof to, "%s/%s", scratch_path(name), files[i]);
        snprintf(from, sizeof from, MODEL "/%s", files[i]);
        CHECK_OK(file_copy(to, from));
    }
    CHECK_OK(file_read(&data, &n, MODEL "/model.safetensors", 1 << 20));
    for (size_t i = all ? 0 : HIDDEN - 1; i < HIDDEN; i++)
        memcpy(data + n - 2 * HIDDEN + 2 * i, &bits, 2);
    char file[64];
    snprintf(file, sizeof file, "%s/model.safetensors", name);
    scratch_write(file, data, n);
    free(data);
    return scratch_path(name);
}

/* Weights that are no numbers are refused; where computing overflows, no result is given out as one. */
static void refuses_what_is_no_number(void **state)
{
    (void)state;
    char bad[640], huge[640], output[640];
    snprintf(bad, sizeof bad, "%s", spoilt_model("bad", 0x7fc0, false));
    snprintf(huge, sizeof huge, "%s", spoilt_model("huge", 0x7f7f, true));
    snprintf(output, sizeof output, "%s", scratch_path("no-number"));
    SAYS(65, "model.norm.weight: element 31 is nan", "eval", "--model_name_or_path", bad,
         "--eval_dataset", PAIRS, "--max_length", "64");
    SAYS(65, "model.norm.weight: element 31 is nan", "score", "--model_name_or_path", MODEL,
         "--ref_model_name_or_path", bad, "--data", PAIRS);
    SAYS(79, PAIRS ": row 0: ", "eval", "--model_name_or_path", huge, "--eval_dataset", PAIRS,
         "--max_length", "64");
    SAYS(79, PAIRS ": row 0: ", "score", "--model_name_or_path", MODEL, "--ref_model_name_or_path",
         huge, "--data", PAIRS, "--output", output);
    assert_false(file_is_regular(output));
    SAYS(79, "step 1 made weights that are no numbers", "train", "--model_name_or_path", MODEL,
         "--train_dataset", PAIRS, "--max_length", "64", "--output_dir", output, "--max_steps", "1",
         "--learning_rate", "1e300");
    assert_false(exists(output, "model.safetensors") || exists(output, "checkpoint-1"));
    snprintf(output, sizeof output, "%s", scratch_path("no-number-2"));
    SAYS(79, "step 1: ", "train", "--model_name_or_path", huge, "--train_dataset", PAIRS,
         "--max_length", "64", "--output_dir", output);
}

/* Pipes and streams are written where they stand: an output that replaced one by a file would be worse than none. */
static void special_outputs(void **state)
{
    (void)state;
    char pipe[640], text[1 << 16];
    struct stat s;
    snprintf(pipe, sizeof pipe, "%s", scratch_path("pipe"));
    assert_int_equal(mkfifo(pipe, 0600), 0);
    const int reader = open(pipe, O_RDWR); /* holds what is written, up to 64 KiB */
    assert_true(reader >= 0);
    program_result r =
        RUN(0, "tokenize", "--model_name_or_path", MODEL, "--data", PAIRS, "--output", pipe);
    assert_true(lstat(pipe, &s) == 0 && S_ISFIFO(s.st_mode));
    const ssize_t n = read(reader, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(reader);
    program_free(&r);
    r = RUN(0, "tokenize", "--model_name_or_path", MODEL, "--data", PAIRS, "--output", "/dev/fd/1");
    assert_string_equal(r.out, text);
    has(text, "\"prompt_ids\"");
    program_free(&r);
}

/* Seconds of a processor that all programs waited for have taken. */
static double children_seconds(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &u), 0);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* The program is there in under 20 ms, its libraries loaded: the best of some starts, for a machine may be busy. */
static void starts_at_once(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* ASan's own start takes longer */
#endif
    double best = 1.0;
    for (int i = 0; i < 20; i++) {
        const double begin = children_seconds();
        program_result r = RUN(0, "--version");
        best = fmin(best, children_seconds() - begin);
        program_free(&r);
    }
    printf("starts in %.1f ms\n", best * 1e3);
    assert_true(best < 20e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helps),
        cmocka_unit_test(refuses_command_lines),
        cmocka_unit_test(refuses_files),
        cmocka_unit_test(trains_to_a_folder_that_others_read),
        cmocka_unit_test(prints_the_configuration),
        cmocka_unit_test(scores),
        cmocka_unit_test(tokenizes_and_generates),
        cmocka_unit_test(prompts_of_files),
        cmocka_unit_test(refuses_what_is_no_number),
        cmocka_unit_test(special_outputs),
        cmocka_unit_test(starts_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
