/* test_model_folder.c - folders of one file and of shards, hostile indices, and what is written. */
/* rooms: model */
#include "test_weights.h"
#include "base/file.h"
#include "model/safetensors.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

static void float32_files_restore_bit_for_bit(void **state)
{
    (void)state;
    const model_config c = everything();
    model_weights a, b;
    CHECK_OK(model_weights_create(&a, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_create(&b, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&a, &c, 1));
    values(&a)[0] = NAN;
    values(&a)[1] = -0.0f;
    values(&a)[2] = 1e-45f;
    const char *file = scratch_path("moments.safetensors");
    CHECK_OK(model_weights_save(&a, file, DTYPE_F32));
    CHECK_OK(model_weights_restore(&b, file));
    assert_memory_equal(values(&a), values(&b), (size_t)a.all.rows * 4);
    values(&a)[0] = 1;
    CHECK_OK(model_weights_save(&a, file, DTYPE_BF16));
    CHECK_FAILS(model_weights_restore(&b, file), CUDPO_EDATA, "is BF16");
    values(&a)[0] = 1e6f;
    CHECK_FAILS(model_weights_save(&a, file, DTYPE_F16), CUDPO_ENUMERIC,
                "moments.safetensors: model.embed_tokens.weight: ");
    model_weights small;
    CHECK_OK(model_weights_create(&small, backend_cpu(), &llama, DTYPE_F32));
    CHECK_FAILS(model_weights_restore(&small, file), CUDPO_EDATA, "39 tensors");
    model_weights_destroy(&small);
    model_weights_destroy(&b);
    model_weights_destroy(&a);
}

/* Fill a folder below ours with a config.json for `llama` and return its path. */
static const char *model_folder(const char *name, const char *more)
{
    static char path[4300];
    snprintf(path, sizeof path, "%s/%s", scratch_folder(), name);
    CHECK_OK(file_make_folder(path));
    char text[1000], config[4400];
    const int n =
        snprintf(text, sizeof text,
                 "{\n  \"model_type\": \"llama\",\n  \"vocab_size\": 11, \"hidden_size\": 8,"
                 "\n  \"intermediate_size\": 6, \"num_hidden_layers\": 2,\n"
                 "  \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
                 "\"head_dim\": 2%s\n}\n",
                 more);
    snprintf(config, sizeof config, "%s/config.json", path);
    CHECK_OK(file_write(config, text, (size_t)n));
    return path;
}

static const char *file_in(const char *parent, const char *name)
{
    static char path[4500];
    snprintf(path, sizeof path, "%s/%s", parent, name);
    return path;
}

static void one_step_makes_a_folder_of_random_weights(void **state)
{
    (void)state;
    const char *path = model_folder("random", ", \"torch_dtype\": \"bfloat16\"");
    CHECK_OK(cudpo_model_randomise(path, 3));
    model_config c;
    model_weights w, again;
    CHECK_OK(model_config_load(&c, path));
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_create(&again, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_load(&w, &c, path));
    CHECK_OK(model_weights_randomise(&again, &c, 3));
    for (int64_t i = 0; i < w.all.rows; i++) { /* bfloat16 keeps 8 bits */
        const double want = values(&again)[i];
        CHECK_NEAR(values(&w)[i], want, fabs(want) * 0x1p-8);
    }
    model_weights_destroy(&again);
    model_weights_destroy(&w);
    CHECK_FAILS(cudpo_model_randomise(scratch_path("absent"), 3), CUDPO_ENOINPUT, "no such folder");
    CHECK_FAILS(cudpo_model_randomise(NULL, 3), CUDPO_EINVAL, "need");
}

/* The tensors of `llama`, all 1, but those of `plan` that are named in `skip`, plus `extra` [n] of -1. */
static void write_file(const char *path, const char *skip_name, const char *extra, int64_t rows)
{
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &llama, DTYPE_F32));
    safetensors_plan plan[40];
    int64_t count = 0;
    for (int64_t i = 0; i < w.count; i++) {
        const weight_name *n = &w.names[i];
        if (skip_name != NULL && strcmp(n->name, skip_name) == 0) continue;
        plan[count] = (safetensors_plan){.name = n->name, .type = DTYPE_F32, .rank = n->rank};
        plan[count].shape[0] = n->rank == 1 ? n->view.cols : n->view.rows;
        plan[count++].shape[1] = n->view.cols;
    }
    if (extra != NULL) plan[count++] = (safetensors_plan){extra, DTYPE_F32, 2, {rows, 8}};
    safetensors_writer *file = NULL;
    CHECK_OK(safetensors_create(&file, path, plan, count, NULL));
    float ones[200], minus[200];
    for (int i = 0; i < 200; i++) {
        ones[i] = 1;
        minus[i] = -1;
    }
    for (int64_t i; (i = safetensors_writer_next(file)) >= 0;) {
        const int64_t n = plan[i].shape[0] * (plan[i].rank == 2 ? plan[i].shape[1] : 1);
        const bool is_extra = extra != NULL && i == count - 1;
        CHECK_OK(safetensors_writer_put(file, is_extra ? minus : ones, n));
    }
    CHECK_OK(safetensors_writer_commit(file));
    model_weights_destroy(&w);
}

static cudpo_status load(const char *path, bool tied)
{
    model_config c = llama;
    c.tie_word_embeddings = tied;
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    memset(values(&w), 0xff, (size_t)w.all.rows * 4); /* NaN */
    const cudpo_status status = model_weights_load(&w, &c, path);
    if (status == CUDPO_OK) {
        for (int64_t i = 0; i < w.all.rows; i++)
            CHECK_NEAR(values(&w)[i], 1, 0);
    }
    model_weights_destroy(&w);
    return status;
}

static void every_parameter_must_be_there(void **state)
{
    (void)state;
    const char *path = model_folder("whole", "");
    const char *file = file_in(path, "model.safetensors");
    write_file(file, NULL, NULL, 0);
    CHECK_OK(load(path, false));
    CHECK_OK(load(path, true)); /* its head equals the embedding */
    write_file(file, "model.layers.1.mlp.up_proj.weight", NULL, 0);
    CHECK_FAILS(load(path, false), CUDPO_EDATA,
                "model.safetensors: model.layers.1.mlp.up_proj.weight: missing");
    write_file(file, "lm_head.weight", NULL, 0);
    CHECK_FAILS(load(path, false), CUDPO_EDATA, "lm_head.weight: missing; if the model shares it");
    CHECK_OK(load(path, true));
    write_file(file, "lm_head.weight", "lm_head.weight", 11); /* of other values */
    CHECK_FAILS(load(path, true), CUDPO_EDATA, "differs from model.embed_tokens.weight");
    write_file(file, "lm_head.weight", "lm_head.weight", 12);
    CHECK_FAILS(load(path, true), CUDPO_EDATA, "another shape");
    CHECK_FAILS(load(path, false), CUDPO_EDATA, "has shape [12,8]; by config.json it is [11,8]");
    write_file(file, "lm_head.weight", "lm_head.weight", 10);
    CHECK_FAILS(load(path, false), CUDPO_EDATA, "has shape [10,8]");
    write_file(file, NULL, "model.layers.0.self_attn.rotary_emb.inv_freq", 1);
    CHECK_OK(load(path, false));
    write_file(file, NULL, "model.layers.2.mlp.up_proj.weight", 1); /* a warning */
    CHECK_OK(load(path, false));
    write_file(file, "model.norm.weight", "model.norm.weight", 1);
    CHECK_FAILS(load(path, false), CUDPO_EDATA, "has shape [1,8]; by config.json it is [8]");
}

/* Values that bfloat16 rounds: what is read of a folder is known by what its files hold, in the order of the block, whatever
 * it becomes in memory.  A head that equals the embedding does so before both are rounded. */
static void a_fingerprint_is_of_what_the_files_hold(void **state)
{
    (void)state;
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16};
    const char *path = model_folder("fingerprint", "");
    model_config c = llama, tied = llama;
    tied.tie_word_embeddings = true;
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&w, &c, 7));
    memcpy(w.head.data, w.embed.data, tensor_bytes(w.embed));
    CHECK_OK(model_weights_save(&w, file_in(path, "model.safetensors"), DTYPE_F32));
    const hash128 all = hash_bytes(values(&w), (size_t)w.all.rows * 4);
    const hash128 without_head = hash_bytes(values(&w), (size_t)(w.all.rows - 11 * 8) * 4);
    model_weights_destroy(&w);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(model_weights_create(&w, backend_cpu(), &c, types[i]));
        CHECK_OK(model_weights_load(&w, &c, path));
        assert_memory_equal(&w.fingerprint, &all, sizeof all);
        model_weights_destroy(&w);
        CHECK_OK(model_weights_create(&w, backend_cpu(), &tied, types[i]));
        CHECK_OK(model_weights_load(&w, &tied, path));
        assert_memory_equal(&w.fingerprint, &without_head, sizeof all);
        model_weights_destroy(&w);
    }
}

static void pickles_are_refused_by_name(void **state)
{
    (void)state;
    const char *path = model_folder("pickle", "");
    CHECK_FAILS(load(path, false), CUDPO_ENOINPUT, "neither model.safetensors nor");
    CHECK_OK(file_write(file_in(path, "training_args.bin"), "x", 1));
    CHECK_OK(file_write(file_in(path, "pytorch_model.bin"), "x", 1));
    CHECK_FAILS(load(path, false), CUDPO_EDATA, "pytorch_model.bin: only .safetensors");
    CHECK_FAILS(load(scratch_path("absent"), false), CUDPO_ENOINPUT, "absent");
}

static cudpo_status load_index(const char *path, const char *text)
{
    CHECK_OK(file_write(file_in(path, "model.safetensors.index.json"), text, strlen(text)));
    return load(path, false);
}

/* An index that places every tensor of `llama` in `shard`, then `more`. */
static char *index_text(const char *shard, const char *skip_name, const char *more)
{
    static char text[1 << 14];
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &llama, DTYPE_F32));
    size_t n = (size_t)sprintf(text, "{\"metadata\":{},\"weight_map\":{");
    const char *comma = "";
    for (int64_t i = 0; i < w.count; i++) {
        if (skip_name != NULL && strcmp(w.names[i].name, skip_name) == 0) continue;
        n += (size_t)sprintf(text + n, "%s\"%s\":\"%s\"", comma, w.names[i].name, shard);
        comma = ",";
    }
    sprintf(text + n, "%s}}", more);
    model_weights_destroy(&w);
    return text;
}

static void an_index_must_agree_with_its_shards(void **state)
{
    (void)state;
    static const char norm[] = "model.norm.weight", shard[] = "part-1.safetensors";
    const char *path = model_folder("index", "");
    write_file(file_in(path, shard), NULL, NULL, 0);
    CHECK_OK(load_index(path, index_text(shard, NULL, "")));
    CHECK_FAILS(load_index(path, index_text(shard, NULL, ",\"x\":\"part-1.safetensors\"")),
                CUDPO_EDATA, "part-1.safetensors: x: missing, though the index places it");
    CHECK_FAILS(load_index(path, index_text(shard, norm, "")), CUDPO_EDATA,
                "part-1.safetensors: model.norm.weight: is here, but the index");
    CHECK_FAILS(
        load_index(path, index_text(shard, norm, ",\"model.norm.weight\":\"two.safetensors\"")),
        CUDPO_EDATA, "the index"); /* in the first shard, mapped to another */
    CHECK_FAILS(load_index(path, index_text("gone.safetensors", NULL, "")), CUDPO_ENOINPUT,
                "gone.safetensors: can't open");
    CHECK_FAILS(
        load_index(path, index_text(shard, NULL, ",\"model.norm.weight\":\"a.safetensors\"")),
        CUDPO_EDATA, "stands twice");
    write_file(file_in(path, shard), norm, NULL, 0);
    CHECK_FAILS(load_index(path, index_text(shard, norm, "")), CUDPO_EDATA,
                "index.json: model.norm.weight: missing");
    CHECK_FAILS(load_index(path, "{\"weight_map\":{}}"), CUDPO_EDATA, "missing");
    static const char *const odd[] = {"[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":\"a\"}",
                                      "7"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        CHECK_FAILS(load_index(path, odd[i]), CUDPO_EDATA, "weight_map");
    CHECK_FAILS(load_index(path, "{\"weight_map\":{\"a\":1}}"), CUDPO_EDATA, "a: the file must be");
    CHECK_FAILS(load_index(path, "{\"weight_map\":{\"a\":null}}"), CUDPO_EDATA, "must be a string");
}

/* A shard outside the folder exists and is valid, so that only the name's check can refuse it. */
static void an_index_can_not_leave_the_folder(void **state)
{
    (void)state;
    const char *path = model_folder("escape", "");
    write_file(scratch_path("outside.safetensors"), NULL, NULL, 0);
    write_file(file_in(path, ".hidden.safetensors"), NULL, NULL, 0);
    CHECK_OK(file_make_folder(file_in(path, "sub")));
    write_file(file_in(path, "sub/inside.safetensors"), NULL, NULL, 0);
    char absolute[4300], longest[257];
    snprintf(absolute, sizeof absolute, "%s/outside.safetensors", scratch_folder());
    memset(longest, 'a', sizeof longest - 1);
    memcpy(longest + 244, ".safetensors", 13); /* 256 bytes: no file has such a name */
    const char *const names[] = {
        "../outside.safetensors",
        absolute,
        "./../outside.safetensors",
        "sub/inside.safetensors",
        "sub/../../outside.safetensors",
        "..",
        ".",
        "",
        ".hidden.safetensors",
        "..safetensors",
        "outside.bin",
        "out side.safetensors",
        "..\\\\outside.safetensors",
        "%2e%2e%2foutside.safetensors",
        "\xe2\x88\x95outside.safetensors",
        "outside.safetensors\\n",
        "~/outside.safetensors",
        "file:outside.safetensors",
        longest,
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK_FAILS(load_index(path, index_text(names[i], NULL, "")), CUDPO_EDATA,
                    "is not the name of a .safetensors file in this folder");
    assert_int_equal(mkfifo(file_in(path, "fifo.safetensors"), 0600), 0);
    CHECK_FAILS(load_index(path, index_text("fifo.safetensors", NULL, "")), CUDPO_EDATA, "regular");
    assert_int_equal(mkdir(file_in(path, "dir.safetensors"), 0700), 0);
    CHECK_FAILS(load_index(path, index_text("dir.safetensors", NULL, "")), CUDPO_EDATA, "regular");
    /* A link is the folder's own doing, as in the Hugging Face cache. */
    assert_int_equal(symlink("../outside.safetensors", file_in(path, "link.safetensors")), 0);
    CHECK_OK(load_index(path, index_text("link.safetensors", NULL, "")));
}

static void real_folders_in_both_forms(void **state)
{
    (void)state;
    const char *data = test_data("stories260k-hf");
    if (data == NULL) skip();
    model_config c;
    model_weights f32, bf16;
    CHECK_OK(model_config_load(&c, data));
    CHECK_OK(model_weights_create(&f32, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_create(&bf16, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_load(&f32, &c, data));
    CHECK_OK(model_weights_load(&bf16, &c, test_data("stories260k-hf-bf16-sharded")));
    double moved = 0;
    for (int64_t i = 0; i < f32.all.rows; i++) { /* the shards were rounded to 8 bits */
        const double want = values(&f32)[i];
        CHECK_NEAR(values(&bf16)[i], want, fabs(want) * 0x1p-8);
        moved += fabs(values(&bf16)[i] - want);
    }
    assert_true(moved > 0);
    /* Our own rounding gives the very same bits. */
    const char *file = scratch_path("rounded.safetensors");
    CHECK_OK(model_weights_save(&f32, file, DTYPE_BF16));
    safetensors *st = NULL;
    CHECK_OK(safetensors_open(&st, file));
    for (int64_t i = 0; i < bf16.count; i++) {
        float back[64 * 512];
        const weight_name *n = &bf16.names[i];
        CHECK_OK(
            safetensors_read(st, safetensors_find(st, n->name), back, 0, tensor_elements(n->view)));
        assert_memory_equal(back, n->view.data, tensor_bytes(n->view));
    }
    safetensors_close(st);
    model_weights_destroy(&bf16);
    model_weights_destroy(&f32);
}

static void check_file(const char *parent, const char *name, const char *want)
{
    char *text = NULL;
    size_t n = 0;
    CHECK_OK(file_read(&text, &n, file_in(parent, name), 1 << 20));
    assert_string_equal(text, want);
    free(text);
}

static void a_saved_folder_is_complete(void **state)
{
    (void)state;
    char from[4200];
    snprintf(from, sizeof from, "%s",
             model_folder("source", ",\n  \"torch_dtype\": \"float32\", \"x\": 1.50e+3,\n"
                                    "  \"s\\u0041\": \"\\u00e9\"")); /* kept as they are written */
    static const char *const files[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "chat_template.jinja",
                                        "vocab.json",
                                        "merges.txt",
                                        "added_tokens.json",
                                        "tokenizer.model",
                                        "generation_config.json"};
    for (size_t i = 0; i < 9; i++) {
        if (i != 3) CHECK_OK(file_write(file_in(from, files[i]), files[i], strlen(files[i])));
    }
    CHECK_OK(file_write(file_in(from, "README.md"), "private", 7));
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &llama, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&w, &llama, 9));
    char to[4200];
    snprintf(to, sizeof to, "%s/deep/er", scratch_folder());
    CHECK_OK(model_folder_save(&w, to, from, DTYPE_F16));
    for (size_t i = 0; i < 9; i++) {
        if (i != 3) check_file(to, files[i], files[i]);
    }
    assert_int_equal(access(file_in(to, files[3]), F_OK), -1);
    assert_int_equal(access(file_in(to, "README.md"), F_OK), -1);
    check_file(to, "config.json",
               "{\n  \"model_type\": \"llama\",\n  \"vocab_size\": 11, \"hidden_size\": 8,"
               "\n  \"intermediate_size\": 6, \"num_hidden_layers\": 2,\n"
               "  \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 2,\n"
               "  \"torch_dtype\": \"float16\", \"x\": 1.50e+3,\n  \"s\\u0041\": \"\\u00e9\"\n}\n");
    assert_int_equal(unlink(file_in(to, "generation_config.json")), 0); /* it was no JSON */
    model_config c;
    CHECK_OK(model_config_load(&c, to));
    assert_int_equal(c.torch_dtype, DTYPE_F16);
    safetensors *st = NULL;
    CHECK_OK(safetensors_open(&st, file_in(to, "model.safetensors")));
    assert_string_equal(safetensors_metadata(st, "format"), "pt");
    assert_int_equal(safetensors_count(st), w.count);
    assert_string_equal(safetensors_at(st, 0)->name, "lm_head.weight"); /* by name */
    safetensors_close(st);
    model_weights_destroy(&w);
}

static void config_keeps_its_spelling(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"{\"dtype\":\"bfloat16\"}", "{\"dtype\":\"float32\"}"},
        {"{\"dtype\" : null, \"torch_dtype\":\"float16\"}",
         "{\"dtype\" : \"float32\", \"torch_dtype\":\"float32\"}"},
        {"{\n \"a\": {\"dtype\": 1, \"b\": [\"}\"]}\n}\n",
         "{\n \"a\": {\"dtype\": 1, \"b\": [\"}\"]},\n \"torch_dtype\": \"float32\"\n}\n"},
        {"{\n  \"rope_parameters\": {}\n}",
         "{\n  \"rope_parameters\": {},\n  \"dtype\": \"float32\"\n}"},
        {"{}", "{\"torch_dtype\": \"float32\"}"},
        {"{ \"a\": 1, \"b\": 2}", "{ \"a\": 1, \"b\": 2, \"torch_dtype\": \"float32\"}"},
        {"\xef\xbb\xbf{\"dt\\u0079pe\":\"float16\"}", "{\"dt\\u0079pe\":\"float32\"}"},
    };
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &llama, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&w, &llama, 9));
    char from[4200], to[4200];
    snprintf(from, sizeof from, "%s", model_folder("spelling", ""));
    snprintf(to, sizeof to, "%s/spelled", scratch_folder());
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(
            file_write(file_in(from, "config.json"), cases[i].before, strlen(cases[i].before)));
        CHECK_OK(model_folder_save(&w, to, from, DTYPE_F32));
        check_file(to, "config.json", cases[i].after);
    }
    CHECK_OK(file_write(file_in(from, "config.json"), "[1]", 3));
    CHECK_FAILS(model_folder_save(&w, to, from, DTYPE_F32), CUDPO_EDATA, "must be an object");
    model_weights_destroy(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_files_restore_bit_for_bit),
        cmocka_unit_test(one_step_makes_a_folder_of_random_weights),
        cmocka_unit_test(every_parameter_must_be_there),
        cmocka_unit_test(a_fingerprint_is_of_what_the_files_hold),
        cmocka_unit_test(pickles_are_refused_by_name),
        cmocka_unit_test(an_index_must_agree_with_its_shards),
        cmocka_unit_test(an_index_can_not_leave_the_folder),
        cmocka_unit_test(real_folders_in_both_forms),
        cmocka_unit_test(a_saved_folder_is_complete),
        cmocka_unit_test(config_keeps_its_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
