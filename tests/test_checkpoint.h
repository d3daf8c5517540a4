/* test_checkpoint.h - what the tests of checkpoints share: a tiny model whose weights and moments are a function of the
 * step, in a folder of its own. */
#ifndef CUDPO_TEST_CHECKPOINT_H
#define CUDPO_TEST_CHECKPOINT_H

#include "test.h"
#include "base/file.h"
#include "model/config.h"
#include "model/weights.h"
#include "train/checkpoint_shards.h"

#include <stdint.h>
#include <unistd.h>

typedef struct fixture {
    char folder[512]; /* holds both others */
    char source[600], output[600];
    model_config config;
    model_weights weights, first, second;
    int shards; /* of moments and master weights; 0: they are whole */
} fixture;

static inline void fixture_open(fixture *f)
{
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": "
        "17, "
        "\"hidden_size\": 8, \"intermediate_size\": 12, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"max_position_embeddings\": 32, "
        "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": false, \"hidden_act\": \"silu\"}\n";
    static const char tokenizer[] = "{\"version\": \"1.0\", \"model\": {}}\n";
    /* In memory where possible: thousands of syncs would wait for a disk, and show nothing more. */
    const char *base = getenv("TMPDIR");
    if (base == NULL && access("/dev/shm", W_OK) == 0) base = "/dev/shm";
    f->shards = 0;
    snprintf(f->folder, sizeof f->folder, "%s/cudpo-test-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->source, sizeof f->source, "%s/source", f->folder);
    snprintf(f->output, sizeof f->output, "%s/output", f->folder);
    char path[700];
    CHECK_OK(file_make_folder(f->source));
    snprintf(path, sizeof path, "%s/config.json", f->source);
    CHECK_OK(file_write(path, config, strlen(config)));
    snprintf(path, sizeof path, "%s/tokenizer.json", f->source);
    CHECK_OK(file_write(path, tokenizer, strlen(tokenizer)));
    CHECK_OK(model_config_load(&f->config, f->source));
    CHECK_OK(model_weights_create(&f->weights, backend_cpu(), &f->config, DTYPE_F32));
    CHECK_OK(model_weights_create(&f->first, backend_cpu(), &f->config, DTYPE_F32));
    CHECK_OK(model_weights_create(&f->second, backend_cpu(), &f->config, DTYPE_F32));
}

static inline void fixture_close(fixture *f)
{
    model_weights_destroy(&f->second);
    model_weights_destroy(&f->first);
    model_weights_destroy(&f->weights);
    CHECK_OK(file_remove_folder(f->folder));
}

/* Numbers that any bit of damage shows in: NaN, -0 and subnormals are among the sums. */
static inline checkpoint_state fixture_state(int64_t step)
{
    checkpoint_state s = {
        .step = step,
        .tokens = 1000 * step + 7,
        .sum_count = CHECKPOINT_SUMS,
        .parts = {{"beta", 0x0123456789abcdefu ^ (uint64_t)step},
                  {"a \"name\" of 47 characters, as long as can be ..", (uint64_t)step}},
        .part_count = 2};
    for (int i = 0; i < CHECKPOINT_SUMS; i++)
        s.sums[i] = 1.0 / (double)(step + 3 + i);
    s.sums[0] = -0.0;
    s.sums[1] = (double)NAN;
    s.sums[2] = 4.9406564584124654e-324;
    s.sums[3] = (double)INFINITY;
    return s;
}

static inline void fixture_fill(fixture *f, int64_t step)
{
    CHECK_OK(model_weights_randomise(&f->weights, &f->config, (uint64_t)(3 * step)));
    CHECK_OK(model_weights_randomise(&f->first, &f->config, (uint64_t)(3 * step + 1)));
    CHECK_OK(model_weights_randomise(&f->second, &f->config, (uint64_t)(3 * step + 2)));
}

/* What `shards` ranks write, one after another. */
static inline cudpo_status fixture_shards(void *context, manifest_entry *entries,
                                          const char *folder)
{
    const fixture *f = context;
    const int64_t all = tensor_elements(f->weights.all);
    for (int r = 0; r < f->shards; r++) {
        const int64_t begin = all * r / f->shards, n = all * (r + 1) / f->shards - begin;
        checkpoint_shard s = {
            .be = backend_cpu(), .rank = r, .ranks = f->shards, .begin = begin, .all = all};
        const model_weights *const of[CHECKPOINT_TENSORS] = {&f->weights, &f->first, &f->second};
        for (int i = 0; i < CHECKPOINT_TENSORS; i++)
            s.run[i] = tensor_vector((float *)of[i]->all.data + begin, DTYPE_F32, n);
        CUDPO_TRY(shard_write(&entries[r], &s, folder));
    }
    return CUDPO_OK;
}

static inline CUDPO_MUST_USE cudpo_status fixture_save_state(fixture *f, const checkpoint_state *s,
                                                             int64_t keep)
{
    const checkpoint_source tensors = {.weights = &f->weights,
                                       .type = f->shards > 0 ? DTYPE_BF16 : DTYPE_F32,
                                       .first = &f->first,
                                       .second = &f->second,
                                       .shards = fixture_shards,
                                       .context = f};
    checkpoint_state state = *s;
    state.shards = f->shards;
    return checkpoint_save(f->output, &state, &tensors, f->source, keep);
}

static inline CUDPO_MUST_USE cudpo_status fixture_save(fixture *f, int64_t step, int64_t keep)
{
    fixture_fill(f, step);
    const checkpoint_state s = fixture_state(step);
    return fixture_save_state(f, &s, keep);
}

static inline void fixture_same(const model_weights *a, const float *want)
{
    if (memcmp(tensor_f32(a->all), want, (size_t)a->all.rows * sizeof *want) != 0)
        fail_msg("other weights came back");
}

/* The checkpoint at `path` holds `step`, bit for bit. */
static inline void fixture_check(fixture *f, const char *path, int64_t step)
{
    checkpoint_state got, want = fixture_state(step);
    CHECK_OK(checkpoint_read(&got, path));
    assert_int_equal(got.step, want.step);
    assert_int_equal(got.tokens, want.tokens);
    assert_int_equal(got.sum_count, want.sum_count);
    assert_int_equal(got.part_count, want.part_count);
    assert_memory_equal(got.parts, want.parts, sizeof want.parts);
    assert_memory_equal(got.sums, want.sums, sizeof want.sums);

    const size_t bytes = (size_t)f->weights.all.rows * sizeof(float);
    model_weights *const all[3] = {&f->weights, &f->first, &f->second};
    float *expected[3];
    fixture_fill(f, step);
    for (int i = 0; i < 3; i++) {
        expected[i] = malloc(bytes);
        assert_non_null(expected[i]);
        memcpy(expected[i], all[i]->all.data, bytes);
        memset(all[i]->all.data, 0xff, bytes);
    }
    for (int i = 0; i < 3; i++)
        CHECK_OK(
            checkpoint_restore(all[i]->all, 0, all[i], (checkpoint_tensors)i, path, got.shards));
    for (int i = 0; i < 3; i++) {
        fixture_same(all[i], expected[i]);
        free(expected[i]);
    }
}

/* The step of the newest checkpoint, after a check of all that it holds; -1 where there is none. */
static inline int64_t fixture_newest(fixture *f)
{
    char *path = NULL;
    checkpoint_state s;
    CHECK_OK(checkpoint_newest(&path, f->output));
    if (path == NULL) return -1;
    CHECK_OK(checkpoint_read(&s, path));
    fixture_check(f, path, s.step);
    free(path);
    return s.step;
}

#endif /* CUDPO_TEST_CHECKPOINT_H */
