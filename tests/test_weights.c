/* test_weights.c - the block of parameters and its names, memory, random numbers. */
/* rooms: model */
#include "test_weights.h"

static const weight_name *find(const model_weights *w, const char *name)
{
    for (int64_t i = 0; i < w->count; i++) {
        if (strcmp(w->names[i].name, name) == 0) return &w->names[i];
    }
    return NULL;
}

static void views_tile_the_block(void **state)
{
    (void)state;
    model_config configs[3] = {llama, everything(), llama};
    configs[2].tie_word_embeddings = true;
    for (int k = 0; k < 3; k++) {
        model_weights w;
        CHECK_OK(model_weights_create(&w, backend_cpu(), &configs[k], DTYPE_F32));
        const float *at = values(&w);
        assert_int_equal(w.all.rows, model_config_parameters(&configs[k]));
        for (int64_t i = 0; i < w.count; i++) {
            assert_ptr_equal(w.names[i].view.data, at);
            assert_true(tensor_dense(w.names[i].view));
            at += tensor_elements(w.names[i].view);
        }
        assert_ptr_equal(at, values(&w) + w.all.rows);
        model_weights_destroy(&w);
        model_weights_destroy(&w); /* twice is fine */
    }
}

static void fused_matrices_hold_their_parts(void **state)
{
    (void)state;
    const model_config c = everything();
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    const layer_weights *l = &w.layer[1];
    assert_true(tensor_is(l->qkv, DTYPE_F32, 24 + 12 + 12, 8));
    assert_true(tensor_is(l->qkv_bias, DTYPE_F32, 1, 48));
    assert_true(tensor_is(l->gate_up, DTYPE_F32, 12, 8));
    assert_true(tensor_is(l->gate_up_bias, DTYPE_F32, 1, 12));
    assert_true(tensor_is(l->o, DTYPE_F32, 8, 24) && tensor_is(l->o_bias, DTYPE_F32, 1, 8));
    assert_true(tensor_is(l->down, DTYPE_F32, 8, 6) && tensor_is(l->down_bias, DTYPE_F32, 1, 8));
    assert_true(tensor_is(l->q_norm, DTYPE_F32, 1, 6) && tensor_is(l->k_norm, DTYPE_F32, 1, 6));
    assert_true(tensor_is(l->attention_norm, DTYPE_F32, 1, 8));
    static const struct {
        const char *name;
        int begin; /* row of the fused matrix, or element of the fused bias */
    } parts[] = {
        {"model.layers.1.self_attn.q_proj", 0},  {"model.layers.1.self_attn.k_proj", 24},
        {"model.layers.1.self_attn.v_proj", 36}, {"model.layers.1.mlp.gate_proj", 0},
        {"model.layers.1.mlp.up_proj", 6},
    };
    for (size_t i = 0; i < 5; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s.weight", parts[i].name);
        const tensor matrix = i < 3 ? l->qkv : l->gate_up;
        assert_ptr_equal(find(&w, name)->view.data, tensor_f32(matrix) + 8 * parts[i].begin);
        snprintf(name, sizeof name, "%s.bias", parts[i].name);
        const tensor bias = i < 3 ? l->qkv_bias : l->gate_up_bias;
        assert_ptr_equal(find(&w, name)->view.data, tensor_f32(bias) + parts[i].begin);
    }
    model_weights_destroy(&w);
}

/* Linear and embedding matrices decay; norms and biases do not, as in transformers' Trainer. */
static void decay_follows_the_kind(void **state)
{
    (void)state;
    const model_config c = everything();
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    assert_int_equal(w.count, 3 + 2 * (9 + 3 + 1 + 3 + 2));
    for (int64_t i = 0; i < w.count; i++) {
        const char *name = w.names[i].name;
        const bool want = strstr(name, "norm") != NULL || strstr(name, ".bias") != NULL;
        assert_int_equal(w.names[i].no_decay, want);
        assert_int_equal(w.names[i].rank, want ? 1 : 2);
    }
    assert_string_equal(w.names[0].name, "model.embed_tokens.weight");
    assert_string_equal(w.names[w.count - 2].name, "model.norm.weight");
    assert_string_equal(w.names[w.count - 1].name, "lm_head.weight");
    model_weights_destroy(&w);
}

static void tied_heads_are_one(void **state)
{
    (void)state;
    model_config c = llama;
    c.tie_word_embeddings = true;
    model_weights w;
    CHECK_OK(model_weights_create(&w, backend_cpu(), &c, DTYPE_F32));
    assert_ptr_equal(w.head.data, w.embed.data);
    assert_null(find(&w, "lm_head.weight"));
    assert_false(tensor_present(w.layer[0].qkv_bias) || tensor_present(w.layer[0].q_norm));
    model_weights_destroy(&w);
}

static cudpo_status no_memory(backend *be, void **out, size_t bytes)
{
    (void)be;
    *out = NULL;
    return cudpo_fail(CUDPO_ENOMEM, "device", "%zu bytes", bytes);
}

static void memory_that_is_not_there(void **state)
{
    (void)state;
    backend poor = *backend_cpu();
    poor.alloc = no_memory;
    model_weights w;
    CHECK_FAILS(model_weights_create(&w, &poor, &llama, DTYPE_F32), CUDPO_ENOMEM, "bytes");
    assert_null(w.names);
    model_weights_destroy(&w);
}

static void random_weights_depend_on_seed_and_element(void **state)
{
    (void)state;
    model_config c = everything(), wide = everything();
    wide.vocab_size =
        5000; /* moves everything behind the embedding, and spans more than one chunk */
    wide.hidden_size = 240;
    c.hidden_size = 240;
    model_weights a, b;
    CHECK_OK(model_weights_create(&a, backend_cpu(), &c, DTYPE_F32));
    CHECK_OK(model_weights_create(&b, backend_cpu(), &wide, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&a, &c, 5));
    CHECK_OK(model_weights_randomise(&b, &wide, 5));
    for (int64_t i = 0; i < a.count; i++) {
        const weight_name *other = find(&b, a.names[i].name);
        assert_memory_equal(a.names[i].view.data, other->view.data, tensor_bytes(a.names[i].view));
    }
    /* n = 1.2e6 draws of deviation 0.02: errors of mean 0.02/sqrt(n) = 1.8e-5, of the deviation 1.3e-5. */
    double sum = 0, squares = 0;
    const float *e = tensor_f32(b.embed);
    const int64_t n = tensor_elements(b.embed);
    for (int64_t i = 0; i < n; i++) {
        sum += e[i];
        squares += (double)e[i] * e[i];
    }
    assert_true(e[1 << 20] != e[0] && e[(1 << 20) + 1] != e[1]); /* pieces do not repeat */
    CHECK_NEAR(sum / (double)n, 0, 9e-5);
    CHECK_NEAR(sqrt(squares / (double)n), 0.02, 6.5e-5);
    for (int i = 0; i < 240; i++) {
        CHECK_NEAR(tensor_f32(b.norm)[i], 1, 0);
        CHECK_NEAR(tensor_f32(b.layer[0].o_bias)[i], 0, 0);
    }
    const size_t bytes = (size_t)b.all.rows * sizeof(float);
    const hash128 before = hash_bytes(values(&b), bytes);
    CHECK_OK(model_weights_save(&b, scratch_path("wide.safetensors"), DTYPE_F32));
    memset(values(&b), 0xff, bytes);
    CHECK_OK(model_weights_restore(&b, scratch_path("wide.safetensors")));
    const hash128 after =
        hash_bytes(values(&b), bytes); /* a tensor of several pieces survives a file */
    assert_memory_equal(&before, &after, sizeof before);
    CHECK_OK(model_weights_randomise(&a, &c, 6));
    assert_true(tensor_f32(a.head)[0] != tensor_f32(b.head)[0]);
    assert_true(tensor_f32(a.head)[0] != tensor_f32(a.embed)[0]);
    /* Those that repeat begin as those that do not, and norms are norms. */
    CHECK_OK(model_weights_randomise(&b, &wide, 5));
    const float first = e[7], later = e[(1 << 20) + 7];
    CHECK_OK(model_weights_repeat(&b, &wide, 5));
    assert_true(e[7] == first && e[(1 << 20) + 7] == first && later != first);
    CHECK_NEAR(tensor_f32(b.norm)[239], 1, 0);
    model_weights_destroy(&b);
    model_weights_destroy(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_tile_the_block),
        cmocka_unit_test(fused_matrices_hold_their_parts),
        cmocka_unit_test(decay_follows_the_kind),
        cmocka_unit_test(tied_heads_are_one),
        cmocka_unit_test(memory_that_is_not_there),
        cmocka_unit_test(random_weights_depend_on_seed_and_element),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
