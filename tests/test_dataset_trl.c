/* test_dataset_trl.c - ids, order and dropped rows of TRL's own trainers: tests/golden/runs, and the 120 rows of
 * trl-golden where the folder of real inputs is at hand. */
/* rooms: data base */
#include "test.h"
#include "scratch.h"
#include "base/buffer.h"
#include "base/json.h"
#include "data/dataset.h"
#include "data/order.h"

#include <dirent.h>

#define GOLDEN "tests/golden/"

static const char *text_of(const json *config, const char *key, const char *absent)
{
    const json *v = json_get(config, key);
    return v != NULL && json_type(v) == JSON_STRING ? json_string(v) : absent;
}

static int64_t number_of(const json *config, const char *key, int64_t absent)
{
    int64_t n = absent;
    const json *v = json_get(config, key);
    if (v != NULL && json_type(v) == JSON_NUMBER) assert_true(json_integer(v, &n));
    return n;
}

static void check_ids(const char *run, int64_t row, const char *what, const json *want,
                      const int32_t *ids, int64_t n)
{
    int64_t k = 0;
    assert_non_null(want);
    if (json_count(want) != n)
        fail_msg("%s row %d: %s has %d ids, not %d", run, (int)row, what, (int)n,
                 (int)json_count(want));
    for (const json *v = json_first(want); v != NULL; v = json_next(v), k++) {
        if (json_number(v) != ids[k])
            fail_msg("%s row %d: id %d of %s", run, (int)row, (int)k, what);
    }
}

/* TRL rotates the completions inside each block of the batch size. */
static int64_t rotated(int64_t i, int64_t count, int64_t block)
{
    const int64_t begin = i / block * block, end = begin + block < count ? begin + block : count;
    return i > begin ? i - 1 : end - 1;
}

/* The first rows as the trainer sees them. */
static void check_tokens(const char *name, const json *tokens, const dataset *d, bool kto,
                         int64_t batch)
{
    int64_t i = 0;
    for (const json *want = json_first(tokens); want != NULL; want = json_next(want), i++) {
        while (dataset_get(d, i).row != number_of(want, "row", -1))
            i++; /* kto_from_pairs lists the first rows' chosen, then their rejected */
        const example e = dataset_get(d, i);
        check_ids(name, e.row, "prompt", json_get(want, "prompt_ids"), e.prompt, e.prompt_length);
        const char *const first = kto ? "completion_ids" : "chosen_ids";
        check_ids(name, e.row, first, json_get(want, first), e.completion[0],
                  e.completion_length[0]);
        if (!kto) {
            assert_int_equal(e.completions, 2);
            check_ids(name, e.row, "rejected", json_get(want, "rejected_ids"), e.completion[1],
                      e.completion_length[1]);
            continue;
        }
        assert_true(e.completions == 1 && e.label == json_bool(json_get(want, "label")));
        if (json_get(want, "KL_completion_ids") == NULL) continue;
        const example m = dataset_mismatch(d, i, rotated(i, dataset_count(d), batch));
        check_ids(name, e.row, "mismatch", json_get(want, "KL_completion_ids"), m.completion[1],
                  m.completion_length[1]);
    }
}

/* The rows of every micro-batch: batch after batch of the first `used` of an epoch's order, windows ending with the epoch. */
static void check_order(const char *name, const json *rows, const dataset *d, int64_t used,
                        bool shuffled, uint64_t seed)
{
    const int64_t count = dataset_count(d);
    int64_t *order = malloc((size_t)count * sizeof *order), epoch = 0, at = used;
    assert_non_null(order);
    for (const json *step = json_first(rows); step != NULL; step = json_next(step)) {
        for (const json *batch = json_first(step); batch != NULL; batch = json_next(batch)) {
            for (const json *v = json_first(batch); v != NULL; v = json_next(v), at++) {
                if (at == used) {
                    at = 0;
                    if (shuffled) order_shuffle(order, count, seed, epoch);
                    for (int64_t i = 0; i < count && !shuffled; i++)
                        order[i] = i;
                    epoch++;
                }
                if (json_number(v) != (double)dataset_get(d, order[at]).row)
                    fail_msg("%s: epoch %d, place %d", name, (int)epoch, (int)at);
            }
        }
    }
    assert_true(epoch >= 1);
    free(order);
}

static bool check_run(const char *path)
{
    json *run = NULL;
    CHECK_OK(json_load(&run, path, 64 << 20));
    const json *config = json_get(run, "config");
    const char *name = json_string(json_get(run, "name")), *trainer = text_of(run, "trainer", "");
    const bool kto = strcmp(trainer, "KTOTrainer") == 0, orpo = strcmp(trainer, "ORPOTrainer") == 0;
    /* With keep_end the file has rows before they are cut. */
    const bool whole = strcmp(text_of(config, "truncation_mode", ""), "keep_end") == 0;
    const dataset_options o = {.kind = kto ? ROW_LABEL : ROW_PAIR,
                               .max_length = whole ? 0 : number_of(config, "max_length", 0),
                               .rules = orpo ? RULES_ORPO : RULES_JOINED};
    char model[256], file[256];
    snprintf(model, sizeof model, GOLDEN "%s", text_of(config, "model_name_or_path", ""));
    snprintf(file, sizeof file, GOLDEN "%s", text_of(config, "train_dataset", ""));
    tokenizer *t = NULL;
    dataset *d = NULL;
    CHECK_OK(tokenizer_load(&t, model));
    const bool strings = strcmp(name, "chat") != 0; /* the one of conversational rows */
    if (strings) {
        const int64_t seed = number_of(config, "data_seed", number_of(config, "seed", 42));
        CHECK_OK(dataset_open(&d, file, t, &o));
        const int64_t batch = number_of(config, "per_device_train_batch_size", 8);
        const json *drop = json_get(config, "dataloader_drop_last");
        const int64_t count = dataset_count(d);
        check_tokens(name, json_get(run, "tokens"), d, kto, batch);
        check_order(name, json_get(run, "rows"), d,
                    drop != NULL && json_bool(drop) ? count / batch * batch : count, !kto,
                    (uint64_t)seed);
    }
    dataset_close(d);
    tokenizer_free(t);
    json_free(run);
    return strings;
}

static void golden_runs(void **state)
{
    (void)state;
    int runs = 0;
    DIR *folder = opendir(GOLDEN "runs");
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder)) != NULL;) {
        char path[512];
        if (strstr(e->d_name, ".json") == NULL) continue;
        snprintf(path, sizeof path, GOLDEN "runs/%.300s", e->d_name);
        runs += check_run(path);
    }
    closedir(folder);
    assert_true(runs >= 50);
}

/* Rows of trl-golden hold the texts with eos at their end; the file of rows is made from them without. */
static void write_rows(const char *name, const char *golden, const char *eos)
{
    buffer text = {0}, out = {0};
    CHECK_OK(file_read(&text.data, &text.size, golden, 64 << 20));
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        static const char *const keys[] = {"prompt_text", "prompt_chosen_text",
                                           "prompt_rejected_text"};
        static const char *const names[] = {"{\"prompt\":", ",\"chosen\":", ",\"rejected\":"};
        json *row = NULL;
        size_t prompt = 0;
        CHECK_OK(json_parse(&row, line, (size_t)(end - line), golden));
        for (int i = 0; i < 3; i++) {
            const char *s = json_string(json_get(row, keys[i]));
            const size_t n = strlen(s) - (i > 0 ? strlen(eos) : 0);
            if (i > 0) assert_string_equal(s + n, eos);
            CHECK_OK(buffer_append(&out, names[i], strlen(names[i])));
            CHECK_OK(buffer_json_string(&out, s + prompt, n - prompt));
            if (i == 0) prompt = n;
        }
        CHECK_OK(buffer_append(&out, "}\n", 2));
        json_free(row);
    }
    scratch_write(name, out.data, out.size);
    buffer_free(&text);
    buffer_free(&out);
}

static int check_golden_rows(const char *golden, const tokenizer *t)
{
    buffer text = {0};
    dataset *d = NULL;
    write_rows("rows.jsonl", golden, tokenizer_eos_text(t));
    CHECK_OK(dataset_open(&d, scratch_path("rows.jsonl"), t, &(dataset_options){.kind = ROW_PAIR}));
    CHECK_OK(file_read(&text.data, &text.size, golden, 64 << 20));
    int64_t i = 0;
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, i++) {
        json *row = NULL;
        CHECK_OK(json_parse(&row, line, (size_t)(end - line), golden));
        const example e = dataset_get(d, i);
        check_ids(golden, i, "prompt", json_get(row, "prompt_ids"), e.prompt, e.prompt_length);
        check_ids(golden, i, "chosen", json_get(row, "chosen_ids"), e.completion[0],
                  e.completion_length[0]);
        check_ids(golden, i, "rejected", json_get(row, "rejected_ids"), e.completion[1],
                  e.completion_length[1]);
        json_free(row);
    }
    assert_int_equal(i, dataset_count(d));
    dataset_close(d);
    buffer_free(&text);
    return (int)i;
}

static void real_rows(void **state)
{
    (void)state;
    const char *data = test_data("trl-golden/gpt2.standard.jsonl");
    if (data == NULL) skip();
    char gpt2[4096];
    snprintf(gpt2, sizeof gpt2, "%s", data);

    /* A folder for GPT-2, whose tokenizer.json came without its config. */
    const char *model = scratch_path("gpt2");
    CHECK_OK(file_make_folder(model));
    CHECK_OK(file_copy(scratch_path("gpt2/tokenizer.json"),
                       test_data("tokenizers/gpt-2.tokenizer.json")));
    scratch_text("gpt2/tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_load(&t, model));
    assert_int_equal(check_golden_rows(gpt2, t), 60);
    tokenizer_free(t);

    char stories[4096];
    snprintf(stories, sizeof stories, "%s", test_data("trl-golden/stories260k.standard.jsonl"));
    CHECK_OK(tokenizer_load(&t, test_data("stories260k-hf")));
    assert_int_equal(check_golden_rows(stories, t), 60);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_runs),
        cmocka_unit_test(real_rows),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
