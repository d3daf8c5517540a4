/* test_wanted.c - a pass over the wanted tokens alone gives the hidden states and gradients of a pass over all. */
/* rooms: model backend */
#include "test.h"
#include "model/model.h"

enum { T = 40, U = 15, C = 16, MAX_WEIGHTS = 1 << 14 };

/* Two groups of a prompt and two completions; wanted are the last of each prompt and all but the last of completions
 * (as for pairs), and one token in the middle of a prompt. */
static const int32_t segments[6][SEGMENT_FIELDS] = {
    {0, 9, 0, 0}, {9, 4, 0, 9}, {13, 5, 0, 9}, {18, 14, 0, 0}, {32, 3, 18, 14}, {35, 5, 18, 14}};
static const int32_t wanted[U] = {8, 9, 10, 11, 13, 14, 15, 16, 20, 31, 32, 33, 35, 36, 37};

static model_config shape_of(bool qk_norm, bool bias)
{
    model_config c = {.vocab_size = 50,
                      .hidden_size = C,
                      .intermediate_size = 24,
                      .num_hidden_layers = 3,
                      .num_attention_heads = 4,
                      .num_key_value_heads = 2,
                      .head_dim = 6, /* so that Q is not C */
                      .max_position_embeddings = 64,
                      .rms_norm_eps = 1e-5f,
                      .qk_norm = qk_norm,
                      .qkv_bias = bias,
                      .o_bias = bias,
                      .mlp_bias = bias,
                      .rope_theta = 10000.0,
                      .initializer_range = 0.3};
    return c;
}

typedef struct fixture {
    model_config c;
    model_weights w, dw;
    model_workspace ws;
    model_batch batch;
    void *memory;
    int32_t token[T], position[T];
} fixture;

static void cut(fixture *f, arena *a, workspace_kind kind)
{
    model_workspace_free(&f->ws);
    CHECK_OK(model_workspace_cut(&f->ws, a, &f->c, kind, DTYPE_F32, T, T));
}

static void set_up(fixture *f, const model_config *c, workspace_kind kind)
{
    backend *be = backend_cpu();
    *f = (fixture){.c = *c};
    CHECK_OK(model_weights_create(&f->w, be, c, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&f->w, c, 1));
    CHECK_OK(model_weights_create(&f->dw, be, c, DTYPE_F32));
    arena a = {0};
    cut(f, &a, kind);
    CHECK_OK(be->alloc(be, &f->memory, a.used));
    memset(f->memory, 0xff, a.used); /* NaN: nothing may be read that was not written */
    a = (arena){.base = f->memory, .size = a.used};
    cut(f, &a, kind);
    CHECK_OK(model_workspace_rotations(&f->ws, be, c));
    for (int n = 0; n < 6; n++) {
        const int32_t *s = segments[n];
        for (int32_t i = 0; i < s[SEGMENT_LENGTH]; i++) {
            const int32_t t = s[SEGMENT_BEGIN] + i;
            f->position[t] = s[SEGMENT_PROMPT_LENGTH] + i;
            f->token[t] = (7 * t + 3) % 50;
        }
    }
    f->batch.token = tensor_vector(f->token, DTYPE_I32, T);
    f->batch.position = tensor_vector(f->position, DTYPE_I32, T);
    f->batch.segments = tensor_matrix((void *)segments, DTYPE_I32, 6, SEGMENT_FIELDS);
}

static void tear_down(fixture *f)
{
    model_workspace_free(&f->ws);
    backend_cpu()->free(backend_cpu(), f->memory);
    model_weights_destroy(&f->dw);
    model_weights_destroy(&f->w);
}

/* Hidden states of the wanted tokens, and the gradient of sum(hidden * r) over them with r fixed. */
static void run(float *hidden, float *gradient, const model_config *c, workspace_kind kind,
                bool only_wanted)
{
    backend *be = backend_cpu();
    fixture f;
    set_up(&f, c, kind);
    if (only_wanted) f.batch.wanted = tensor_vector((void *)wanted, DTYPE_I32, U);
    tensor out;
    CHECK_OK(model_forward(&out, &f.ws, &f.w, &f.c, &f.batch));
    assert_int_equal(out.rows, only_wanted ? U : T);
    for (int u = 0; u < U; u++)
        memcpy(hidden + u * C, tensor_f32(out) + (only_wanted ? u : wanted[u]) * out.stride,
               C * sizeof(float));
    if (kind != WORKSPACE_SCORE) {
        const tensor dhidden = tensor_rows(f.ws.dy, 0, out.rows);
        CHECK_OK(be->zero(be, f.dw.all));
        CHECK_OK(be->zero(be, dhidden));
        for (int u = 0; u < U; u++) {
            float *row = tensor_f32(dhidden) + (only_wanted ? u : wanted[u]) * dhidden.stride;
            for (int i = 0; i < C; i++)
                row[i] = (float)((u * 5 + i * 3) % 11) - 5.0f;
        }
        CHECK_OK(model_backward(&f.dw, &f.ws, &f.w, &f.c, &f.batch, dhidden));
        const int64_t n = tensor_elements(f.dw.all);
        assert_true(n <= MAX_WEIGHTS);
        memcpy(gradient, f.dw.all.data, (size_t)n * sizeof(float));
    }
    tear_down(&f);
}

/* Sums over rows of zeros are left out, and a row may meet another micro-kernel of the BLAS: that is all that differs. */
static void check(const char *what, const float *got, const float *want, int64_t n)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)want[i]));
    assert_true(largest > 0.0);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= 1e-5 * largest))
            fail_msg("%s[%lld] = %.9g, want %.9g", what, (long long)i, (double)got[i],
                     (double)want[i]);
}

static void same_as_all(bool qk_norm, bool bias)
{
    const model_config c = shape_of(qk_norm, bias);
    const int64_t n = model_config_parameters(&c);
    static float want_hidden[U * C], hidden[U * C];
    static float want[MAX_WEIGHTS], gradient[MAX_WEIGHTS];
    run(want_hidden, want, &c, WORKSPACE_TRAIN, false);
    const workspace_kind kinds[] = {WORKSPACE_TRAIN, WORKSPACE_CHECKPOINT, WORKSPACE_SCORE};
    for (int k = 0; k < 3; k++) {
        run(hidden, gradient, &c, kinds[k], true);
        check("hidden", hidden, want_hidden, U * C);
        if (kinds[k] != WORKSPACE_SCORE)
            check("gradient", gradient, want, n - 50 * C); /* no head */
    }
}

static void wanted_tokens_alone(void **state)
{
    (void)state;
    same_as_all(false, false);
}

static void wanted_tokens_alone_with_norms_and_biases(void **state)
{
    (void)state;
    same_as_all(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wanted_tokens_alone),
        cmocka_unit_test(wanted_tokens_alone_with_norms_and_biases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
