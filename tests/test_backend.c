/* test_backend.c - memory of a backend, and that its table of ops is complete. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_ops.h"

static void every_op_is_there(backend *be)
{
    assert_non_null(be->name);
    assert_true(
        be->alloc && be->free && be->copy_in && be->copy_out && be->copy && be->zero && be->sync &&
        be->faults && be->close && be->gemm && be->embed && be->embed_backward && be->add_rmsnorm &&
        be->rmsnorm_backward && be->rmsnorm_again && be->head_norm && be->head_norm_backward &&
        be->bias_add && be->bias_backward && be->add && be->rope && be->attention &&
        be->attention_backward && be->cache_store && be->attention_cached && be->swiglu &&
        be->swiglu_backward && be->gather_rows && be->scatter_rows && be->scale_rows &&
        be->token_logprob && be->segment_sum && be->kl_estimate && be->preference_loss &&
        be->row_coefficients && be->sum_squares && be->clip && be->adamw && be->cast && be->map &&
        be->reduce && be->available_memory && be->working_memory && be->reserve && be->host_alloc &&
        be->host_free && be->copy_out_later && be->mark && be->wait && be->fetch && be->arrived &&
        be->stamp && be->elapsed && be->range_begin && be->range_end && be->recall && be->keep);
}

static void memory_is_aligned_and_holds_bytes(backend *be)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *in = zeros((int64_t)sizes[i], 1), *out = zeros((int64_t)sizes[i], 1);
        void *memory = NULL;
        for (size_t j = 0; j < sizes[i]; j++) {
            in[j] = (unsigned char)(j * 31 + 7);
        }
        CHECK_OK(be->alloc(be, &memory, sizes[i]));
        assert_true(memory != NULL && (uintptr_t)memory % 64 == 0);
        CHECK_OK(be->copy_in(be, memory, in, sizes[i]));
        CHECK_OK(be->copy_out(be, out, memory, sizes[i]));
        assert_memory_equal(in, out, sizes[i]);
        be->free(be, memory);
        free(in);
        free(out);
    }
    be->free(be, NULL);
    CHECK_OK(be->sync(be));
}

/* Behind a volatile, or the compiler warns of a size that no memory has. */
static void too_much_memory_is_refused(backend *be)
{
    static const volatile size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    for (int i = 0; i < 3; i++) {
        int there = 0;
        void *memory = &there;
        CHECK_FAILS(be->alloc(be, &memory, sizes[i]), CUDPO_ENOMEM,
                    be->on_device ? "out of memory" : "no memory");
        assert_null(memory);
    }
}

static void copies_between_views(backend *be)
{
    static const int64_t strides[][2] = {{5, 5}, {5, 9}, {9, 5}, {8, 6}};
    for (int i = 0; i < 4; i++) {
        float *x = random_floats(1, 7 * 5), got[7 * 5];
        ops o = ops_begin(be);
        const tensor from = ops_strided(&o, x, 7, 5, strides[i][0]);
        const tensor to = ops_strided(&o, NULL, 7, 5, strides[i][1]);
        CHECK_OK(be->copy(be, to, from));
        ops_get(&o, got, to);
        assert_memory_equal(got, x, sizeof got);
        CHECK_OK(be->zero(be, tensor_cols(tensor_rows(to, 1, 3), 2, 2)));
        ops_get(&o, got, to);
        for (int r = 0; r < 7; r++) {
            for (int c = 0; c < 5; c++) {
                const bool cleared = r >= 1 && r < 4 && c >= 2 && c < 4;
                assert_true(got[r * 5 + c] == (cleared ? 0.0f : x[r * 5 + c]));
            }
        }
        CHECK_OK(be->zero(be, to));
        ops_get(&o, got, to);
        for (int j = 0; j < 35; j++) {
            assert_true(got[j] == 0.0f);
        }
        ops_end(&o);
        free(x);
    }
}

static void half_floats_are_two_bytes(backend *be)
{
    uint16_t got[6], in[6] = {1, 2, 3, 4, 5, 6};
    void *a = NULL, *b = NULL;
    CHECK_OK(be->alloc(be, &a, sizeof in));
    CHECK_OK(be->alloc(be, &b, sizeof in));
    CHECK_OK(be->copy_in(be, a, in, sizeof in));
    const tensor from = tensor_matrix(a, DTYPE_BF16, 2, 3), to = tensor_matrix(b, DTYPE_BF16, 2, 3);
    CHECK_OK(be->copy(be, to, from));
    CHECK_OK(be->zero(be, tensor_cols(to, 0, 1)));
    CHECK_OK(be->copy_out(be, got, b, sizeof got));
    const uint16_t want[6] = {0, 2, 3, 0, 5, 6};
    assert_memory_equal(got, want, sizeof want);
    be->free(be, a);
    be->free(be, b);
}

/* What was there before is an op's until the copy, which is there for the op behind arrived(). */
static void fetches_between_ops(backend *be)
{
    enum { N = 1000, ROUNDS = 5 };
    void *host[FETCHES], *slot[FETCHES];
    float got[ROUNDS][N];
    ops o = ops_begin(be);
    const tensor out = ops_output(&o, ROUNDS, N);
    for (int i = 0; i < FETCHES; i++) {
        CHECK_OK(be->alloc(be, &slot[i], sizeof got[0]));
        CHECK_OK(be->host_alloc(be, &host[i], sizeof got[0]));
        for (int j = 0; j < N; j++) {
            ((float *)host[i])[j] = (float)(i * N + j);
        }
        CHECK_OK(be->arrived(be, i)); /* of nothing */
    }
    for (int r = 0; r < ROUNDS; r++) {
        CHECK_OK(be->fetch(be, r % FETCHES, slot[r % 3 % FETCHES], host[r % 2], sizeof got[0]));
        CHECK_OK(be->arrived(be, r % FETCHES));
        CHECK_OK(be->copy(be, tensor_rows(out, r, 1),
                          tensor_matrix(slot[r % 3 % FETCHES], DTYPE_F32, 1, N)));
    }
    ops_get(&o, got[0], out);
    for (int r = 0; r < ROUNDS; r++) {
        assert_memory_equal(got[r], host[r % 2], sizeof got[r]);
    }
    CHECK_FAILS(be->fetch(be, -1, slot[0], host[0], 4), CUDPO_EINVAL, "slot");
    CHECK_FAILS(be->fetch(be, FETCHES, slot[0], host[0], 4), CUDPO_EINVAL, "slot");
    CHECK_FAILS(be->fetch(be, 0, NULL, host[0], 4), CUDPO_EINVAL, "dst");
    CHECK_FAILS(be->fetch(be, 0, slot[0], NULL, 4), CUDPO_EINVAL, "");
    CHECK_FAILS(be->fetch(be, 0, slot[0], host[0], 0), CUDPO_EINVAL, "bytes");
    CHECK_FAILS(be->arrived(be, -1), CUDPO_EINVAL, "slot");
    CHECK_FAILS(be->arrived(be, FETCHES), CUDPO_EINVAL, "slot");
    for (int i = 0; i < FETCHES; i++) {
        be->free(be, slot[i]);
        be->host_free(be, host[i]);
    }
    ops_end(&o);
}

/* A stamp that is set again counts from there; what is measured has begun and ended in between. */
static void stamps_measure_what_lies_between(backend *be)
{
    enum { N = 1 << 18 };
    double first = -1, second = -1, both = -1, zero = -1;
    ops o = ops_begin(be);
    const tensor a = ops_output(&o, 1, N), b = ops_output(&o, 1, N);
    CHECK_OK(be->zero(be, a));
    CHECK_OK(be->stamp(be, 7));
    CHECK_OK(be->stamp(be, 0));
    CHECK_OK(be->copy(be, b, a));
    CHECK_OK(be->stamp(be, STAMPS - 1));
    CHECK_OK(be->copy(be, a, b));
    CHECK_OK(be->stamp(be, 7));
    CHECK_OK(be->elapsed(be, &first, 0, STAMPS - 1));
    CHECK_OK(be->elapsed(be, &second, STAMPS - 1, 7));
    CHECK_OK(be->elapsed(be, &both, 0, 7));
    CHECK_OK(be->elapsed(be, &zero, 7, 7));
    assert_true(first > 0 && second > 0 && zero == 0);
    assert_true(fabs(first + second - both) <= 1e-5); /* an event's resolution is 0.5 us */
    CHECK_FAILS(be->stamp(be, -1), CUDPO_EINVAL, "slot");
    CHECK_FAILS(be->stamp(be, STAMPS), CUDPO_EINVAL, "slot");
    CHECK_FAILS(be->elapsed(be, &both, -1, 0), CUDPO_EINVAL, "from");
    CHECK_FAILS(be->elapsed(be, &both, 0, STAMPS), CUDPO_EINVAL, "to");
    CHECK_FAILS(be->elapsed(be, NULL, 0, 7), CUDPO_EINVAL, "seconds");
    ops_end(&o);
}

static void broken_contracts(backend *be)
{
    char bytes[4] = {0};
    ops o = ops_begin(be);
    const tensor a = ops_output(&o, 3, 4), b = ops_output(&o, 3, 5);
    const tensor ints = ops_make(&o, DTYPE_I32, 3, 4, 4);
    CHECK_FAILS(be->copy(be, a, b), CUDPO_EINVAL, "dst");
    CHECK_FAILS(be->copy(be, a, ints), CUDPO_EINVAL, "dst");
    CHECK_FAILS(be->copy(be, a, tensor_rows(a, 0, 2)), CUDPO_EINVAL, "dst");
    CHECK_FAILS(be->copy(be, a, (tensor){0}), CUDPO_EINVAL, "src");
    CHECK_FAILS(be->zero(be, (tensor){0}), CUDPO_EINVAL, "tensor_is");
    CHECK_FAILS(be->alloc(be, NULL, 4), CUDPO_EINVAL, "out");
    CHECK_FAILS(be->copy_in(be, NULL, bytes, 4), CUDPO_EINVAL, "dst");
    CHECK_FAILS(be->copy_out(be, bytes, NULL, 4), CUDPO_EINVAL, "src");
    ops_check_untouched(&o, a);
    ops_end(&o);
}

static const op_case cases[] = {
    {"every_op_is_there", every_op_is_there},
    {"memory_is_aligned_and_holds_bytes", memory_is_aligned_and_holds_bytes},
    {"too_much_memory_is_refused", too_much_memory_is_refused},
    {"copies_between_views", copies_between_views},
    {"half_floats_are_two_bytes", half_floats_are_two_bytes},
    {"fetches_between_ops", fetches_between_ops},
    {"stamps_measure_what_lies_between", stamps_measure_what_lies_between},
    {"broken_contracts", broken_contracts},
};
OPS_MAIN(cases)
