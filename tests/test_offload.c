/* test_offload.c - weights whose layers come from the host's memory compute the bits of resident ones, wait for every copy
 * and are done with a slot before it is filled again. */
/* rooms: model backend */
#include "test.h"
#include "model/model.h"
#include "model/offload.h"

enum { T = 24, V = 50, PASSES = 3 };

static const int32_t segments[3][SEGMENT_FIELDS] = {{0, 9, 0, 0}, {9, 7, 0, 9}, {16, 8, 0, 9}};

/* Layers of an odd number of floats and a table of none that is a multiple of 256 bytes. */
static model_config shape_of(int64_t layers, bool everything)
{
    return (model_config){.vocab_size = V,
                          .hidden_size = 10,
                          .intermediate_size = 7,
                          .num_hidden_layers = layers,
                          .num_attention_heads = 4,
                          .num_key_value_heads = 2,
                          .head_dim = 6,
                          .max_position_embeddings = 64,
                          .rms_norm_eps = 1e-5f,
                          .qk_norm = everything,
                          .qkv_bias = everything,
                          .o_bias = everything,
                          .mlp_bias = everything,
                          .tie_word_embeddings = everything,
                          .rope_theta = 10000.0,
                          .initializer_range = 0.3};
}

/* The CPU's backend, but that a copy is made as late as arrived() allows: until then its target holds NaN. */
static struct {
    void *dst;
    const void *host;
    size_t bytes;
} pending[FETCHES];
static int fetches;

static cudpo_status late_fetch(backend *be, int slot, void *dst, const void *host, size_t bytes)
{
    (void)be;
    assert_true(slot >= 0 && slot < FETCHES);
    memset(dst, 0xff, bytes);
    pending[slot].dst = dst;
    pending[slot].host = host;
    pending[slot].bytes = bytes;
    fetches++;
    return CUDPO_OK;
}

static cudpo_status late_arrived(backend *be, int slot)
{
    (void)be;
    if (pending[slot].bytes > 0) memcpy(pending[slot].dst, pending[slot].host, pending[slot].bytes);
    pending[slot].bytes = 0;
    return CUDPO_OK;
}

static int frees, host_frees;

static void counted_free(backend *be, void *memory)
{
    frees += memory != NULL;
    backend_cpu()->free(be, memory);
}

static void counted_host_free(backend *be, void *memory)
{
    host_frees += memory != NULL;
    backend_cpu()->host_free(be, memory);
}

static backend late(void)
{
    backend be = *backend_cpu();
    be.fetch = late_fetch;
    be.arrived = late_arrived;
    be.free = counted_free;
    be.host_free = counted_host_free;
    memset(pending, 0, sizeof pending);
    fetches = frees = host_frees = 0;
    return be;
}

typedef struct fixture {
    model_config c;
    backend be;
    model_weights w, offloaded;
    model_workspace ws;
    model_batch batch;
    void *memory;
    int32_t token[T], position[T];
} fixture;

static void set_up(fixture *f, model_config c)
{
    *f = (fixture){.c = c, .be = late()};
    CHECK_OK(model_weights_create(&f->w, &f->be, &f->c, DTYPE_F32));
    CHECK_OK(model_weights_randomise(&f->w, &f->c, 1));
    CHECK_OK(model_weights_offload(&f->offloaded, &f->w, &f->c));
    for (int run = 0; run < 2; run++) {
        arena a = {.base = f->memory, .size = SIZE_MAX}; /* in the first run, which counts, NULL */
        model_workspace_free(&f->ws);
        CHECK_OK(model_workspace_cut(&f->ws, &a, &f->c, WORKSPACE_CHECKPOINT, DTYPE_F32, T, T));
        if (run == 0) CHECK_OK(f->be.alloc(&f->be, &f->memory, a.used));
    }
    CHECK_OK(model_workspace_rotations(&f->ws, &f->be, &f->c));
    for (int n = 0; n < 3; n++) {
        for (int32_t i = 0; i < segments[n][SEGMENT_LENGTH]; i++) {
            const int32_t t = segments[n][SEGMENT_BEGIN] + i;
            f->position[t] = segments[n][SEGMENT_PROMPT_LENGTH] + i;
            f->token[t] = (7 * t + 3) % V;
        }
    }
    f->batch.token = tensor_vector(f->token, DTYPE_I32, T);
    f->batch.position = tensor_vector(f->position, DTYPE_I32, T);
    f->batch.segments = tensor_matrix((void *)segments, DTYPE_I32, 3, SEGMENT_FIELDS);
}

static void tear_down(fixture *f)
{
    model_workspace_free(&f->ws);
    f->be.free(&f->be, f->memory);
    model_weights_destroy(&f->offloaded);
    model_weights_destroy(&f->w);
}

/* Another order of tokens for each pass. */
static void hidden_states(float out[], fixture *f, const model_weights *w, int pass)
{
    tensor hidden;
    for (int t = 0; t < T; t++) {
        f->token[t] = (f->token[t] + pass) % V;
    }
    CHECK_OK(model_forward(&hidden, &f->ws, w, &f->c, &f->batch));
    assert_true(hidden.rows == T && tensor_dense(hidden));
    memcpy(out, hidden.data, (size_t)tensor_elements(hidden) * sizeof *out);
    for (int t = 0; t < T; t++) {
        f->token[t] = (f->token[t] + V - pass) % V;
    }
}

/* One layer, even and odd numbers of them: where they are odd, a layer's slot is another in every pass. */
static void same_bits_as_resident(void **state)
{
    (void)state;
    int nonzero = 0;
    for (int layers = 1; layers <= 5; layers++) {
        for (int everything = 0; everything < 2; everything++) {
            fixture f;
            float want[T * 10], got[T * 10];
            set_up(&f, shape_of(layers, everything));
            for (int pass = 0; pass < PASSES; pass++) {
                hidden_states(want, &f, &f.w, pass);
                hidden_states(got, &f, &f.offloaded, pass);
                assert_memory_equal(got, want, sizeof want);
                nonzero += want[T * 10 - 1] != 0.0f;
            }
            assert_memory_equal(f.offloaded.head.data, f.w.head.data, V * 10 * sizeof(float));
            assert_int_equal(fetches, 1 + PASSES * layers); /* the first, and one for each */
            tear_down(&f);
            assert_int_equal(host_frees, 1);
            assert_int_equal(frees, 3); /* weights, the offloaded ones' few, workspace */
        }
    }
    assert_int_equal(nonzero, 5 * 2 * PASSES);
}

/* Every view stands on the device as its original does, which ops may choose their code by. */
static void alignment_is_kept(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, shape_of(3, true));
    for (int pass = 0; pass < 2; pass++) {
        for (int l = 0; l < 3; l++) {
            layer_weights w;
            CHECK_OK(model_weights_layer(&w, &f.offloaded, l));
            const layer_weights *o = &f.w.layer[l];
            const tensor pairs[][2] = {{w.qkv, o->qkv},
                                       {w.q_norm, o->q_norm},
                                       {w.o_bias, o->o_bias},
                                       {w.down, o->down},
                                       {f.offloaded.norm, f.w.norm},
                                       {f.offloaded.head, f.w.head},
                                       {w.mlp_norm, o->mlp_norm}};
            for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
                const tensor a = pairs[i][0], b = pairs[i][1];
                assert_true(((uintptr_t)a.data - (uintptr_t)b.data) % 256 == 0);
                assert_memory_equal(a.data, b.data, (size_t)tensor_elements(b) * sizeof(float));
            }
        }
    }
    tear_down(&f);
}

/* After a pass that ended early, the next begins with the first layer all the same. */
static void a_pass_that_was_left(void **state)
{
    (void)state;
    fixture f;
    float want[T * 10], got[T * 10];
    layer_weights w;
    set_up(&f, shape_of(3, false));
    hidden_states(want, &f, &f.w, 0);
    for (int left = 0; left < 3; left++) {
        for (int l = 0; l <= left; l++) {
            CHECK_OK(model_weights_layer(&w, &f.offloaded, l));
        }
        hidden_states(got, &f, &f.offloaded, 0);
        assert_memory_equal(got, want, sizeof want);
    }
    tear_down(&f);
}

/* As many bytes as were announced, and fewer than all parameters take from three layers on. */
static size_t asked;

static cudpo_status counted_alloc(backend *be, void **out, size_t bytes)
{
    asked += bytes;
    return backend_cpu()->alloc(be, out, bytes);
}

static void takes_what_it_says(void **state)
{
    (void)state;
    for (int layers = 1; layers <= 6; layers++) {
        fixture f;
        model_weights again;
        set_up(&f, shape_of(layers, layers % 2 == 0));
        asked = 0;
        f.be.alloc = counted_alloc;
        CHECK_OK(model_weights_offload(&again, &f.w, &f.c));
        assert_int_equal(asked, model_offload_bytes(&f.c, DTYPE_F32));
        const int64_t all = model_config_parameters(&f.c) * (int64_t)sizeof(float);
        const int64_t layer =
            (char *)f.w.layer[layers - 1].down.data - (char *)f.w.layer[0].down.data;
        if (layers > 1) {
            const int64_t two = 2 * layer / (layers - 1), left = all - layer - layer / (layers - 1);
            assert_true((int64_t)asked >= left + two && (int64_t)asked <= left + two + 5 * 256);
        }
        model_weights_destroy(&again);
        tear_down(&f);
    }
}

/* Nothing but forward passes. */
static void all_else_is_refused(void **state)
{
    (void)state;
    fixture f;
    model_weights again;
    set_up(&f, shape_of(2, false));
    model_weights *w = &f.offloaded;
    CHECK_FAILS(model_weights_randomise(w, &f.c, 1), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_weights_load(w, &f.c, "x"), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_weights_restore(w, "x"), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_weights_save(w, "x", DTYPE_F32), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_folder_save(w, "x", "y", DTYPE_F32), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_weights_offload(&again, w, &f.c), CUDPO_EINVAL, "offload");
    const tensor d = tensor_rows(f.ws.dy, 0, T);
    CHECK_FAILS(model_backward(&f.w, &f.ws, w, &f.c, &f.batch, d), CUDPO_EINVAL, "offload");
    CHECK_FAILS(model_backward(w, &f.ws, &f.w, &f.c, &f.batch, d), CUDPO_EINVAL, "offload");
    tear_down(&f);
}

/* Calls of the backend that fail: nothing is left behind, which ASan would report, and the message is the call's. */
static int calls_left;

static bool fails(void)
{
    return --calls_left == 0;
}
static cudpo_status failing_alloc(backend *be, void **out, size_t bytes)
{
    if (fails()) return cudpo_fail(CUDPO_ENOMEM, "test", "none left");
    return backend_cpu()->alloc(be, out, bytes);
}
static cudpo_status failing_copy_out(backend *be, void *to, const void *from, size_t bytes)
{
    if (fails()) return cudpo_fail(CUDPO_EDEVICE, "test", "none left");
    return backend_cpu()->copy_out(be, to, from, bytes);
}
static cudpo_status failing_copy(backend *be, tensor to, tensor from)
{
    if (fails()) return cudpo_fail(CUDPO_EDEVICE, "test", "none left");
    return backend_cpu()->copy(be, to, from);
}
static cudpo_status failing_fetch(backend *be, int slot, void *to, const void *from, size_t bytes)
{
    if (fails()) return cudpo_fail(CUDPO_EDEVICE, "test", "none left");
    return backend_cpu()->fetch(be, slot, to, from, bytes);
}
static cudpo_status failing_arrived(backend *be, int slot)
{
    if (fails()) return cudpo_fail(CUDPO_EDEVICE, "test", "none left");
    return backend_cpu()->arrived(be, slot);
}

static void every_call_may_fail(void **state)
{
    (void)state;
    int n = 1;
    for (bool done = false; !done; n++) {
        fixture f;
        model_weights again;
        layer_weights w;
        set_up(&f, shape_of(2, false));
        f.be.alloc = f.be.host_alloc = failing_alloc;
        f.be.copy_out = failing_copy_out;
        f.be.copy = failing_copy;
        f.be.fetch = failing_fetch;
        f.be.arrived = failing_arrived;
        calls_left = n;
        cudpo_status status = model_weights_offload(&again, &f.w, &f.c);
        const bool made = status == CUDPO_OK;
        for (int l = 0; l < 2 && status == CUDPO_OK; l++) {
            status = model_weights_layer(&w, &again, l);
        }
        done = status == CUDPO_OK;
        if (!done) assert_non_null(strstr(cudpo_error_message(), "none left"));
        if (!made) assert_true(again.layer == NULL && again.offload == NULL);
        cudpo_error_clear();
        calls_left = 0;                       /* and so none fails */
        for (int l = 0; l < 2 && made; l++) { /* and the next pass is right */
            CHECK_OK(model_weights_layer(&w, &again, l));
            assert_memory_equal(w.down.data, f.w.layer[l].down.data, 10 * 7 * sizeof(float));
        }
        model_weights_destroy(&again);
        tear_down(&f);
    }
    assert_int_equal(n - 1, 1 + 1 + 1 + 3 + 1 + 2 * 2 + 1); /* allocs, copies, fetches, arrivals */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_resident), cmocka_unit_test(alignment_is_kept),
        cmocka_unit_test(a_pass_that_was_left),  cmocka_unit_test(takes_what_it_says),
        cmocka_unit_test(all_else_is_refused),   cmocka_unit_test(every_call_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
