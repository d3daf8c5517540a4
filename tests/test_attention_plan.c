/* test_attention_plan.c - attention by plans, in little scratch, and on devices that have less. */
/* rooms: backend base */
/* backends: cuda */
#include "test_attention_call.h"
#ifdef TEST_SIMT
#include "simt/shared_limit.h"
#endif

/* The end of a prompt of more than one tile of keys, and what follows it, ask. */
static problem long_enough(int H, int K, int D)
{
    problem x = problem_begin(H, K, D, 0);
    problem_add(&x, 140, 2, (const int[]){20, 10});
    problem_fill(&x, 46, NORMAL);
    want_range(&x, 120, x.T, 1, 1);
    hide_unwanted(&x);
    return x;
}

/* Scratch for all kv heads at a time and for fewer, down to 1, `step` less each time: the same bits. */
static void check_chunks(backend *be, problem *x, dtype type, int step)
{
    const int64_t n = x->T * x->W;
    const int all = x->shape.kv_heads;
    float *first = zeros(n, 4), *again = zeros(n, 4);
    for (int kv = all; kv >= 1; kv -= step) {
        ops o = ops_begin(be);
        const call c = call_create(&o, x, type, scratch_bytes(x, type, kv));
        CHECK_OK(plan(&c));
        CHECK_OK(forward(&c));
        CHECK_OK(backward(&c));
        ops_get_floats(&o, kv == all ? first : again, c.dqkv);
        if (kv < all) assert_memory_equal(first, again, (size_t)n * 4);
        ops_end(&o);
    }
    free(first);
    free(again);
    problem_free(x);
}

/* With shares of dk and dv and without; and so many heads that their statistics are larger than a head's share of scratch. */
static void chunks_of_scratch(backend *be)
{
    static const int heads[][2] = {{3, 3}, {9, 3}};
    for (int i = 0; i < 4; i++) {
        problem x = long_enough(heads[i / 2][0], heads[i / 2][1], 64);
        check_chunks(be, &x, bf16_or_f32(i % 2 == 1), 1);
    }
    problem x = problem_begin(32, 32, 64, 0);
    problem_add(&x, 10, 2, (const int[]){4, 3});
    problem_fill(&x, 48, NORMAL);
    check_chunks(be, &x, DTYPE_BF16, 31);
}

/* The backend asks for no more than it may have, so for one kv head at a time if that is nothing: the same bits. */
static void little_scratch(backend *be)
{
    problem x = long_enough(3, 3, 64);
    const int64_t n = x.T * x.W;
    float *got[2] = {zeros(n, 4), zeros(n, 4)};
    x.type = DTYPE_BF16;
    for (int i = 0; i < 2; i++) {
        backend *own;
        CHECK_OK(backend_cuda_open(&own, NULL));
        cuda_backend *cuda = (cuda_backend *)own;
        assert_true(cuda->large_scratch > 0 && cuda->large_scratch <= (size_t)3 << 30);
        if (i == 1) cuda->large_scratch = 0;
        ops o = ops_begin(own);
        run(&o, NULL, NULL, got[i], &x);
        ops_end(&o);
        assert_true(cuda->memory.bytes >= scratch_bytes(&x, x.type, i == 1 ? 1 : 3));
        if (i == 1) assert_true(cuda->memory.bytes < scratch_bytes(&x, x.type, 2));
        own->close(own);
    }
    assert_memory_equal(got[0], got[1], (size_t)n * 4);
    free(got[0]);
    free(got[1]);
    problem_free(&x);
    (void)be;
}

/* What was reserved for a larger pack is enough for a smaller one, whatever a smaller one would take if it could. */
static void reserved_scratch_is_enough(backend *be)
{
    problem x = long_enough(3, 3, 64);
    static const size_t large[] = {0, 1 << 20, (size_t)3 << 30};
    const workload most = {.tokens = x.T + 64,
                           .segments = x.N + 8,
                           .rows = x.T,
                           .width = x.W,
                           .attention = x.shape,
                           .type = DTYPE_BF16,
                           .backward = true};
    x.type = DTYPE_BF16;
    float *got = zeros(x.T * x.W, 4);
    for (int i = 0; i < 3; i++) {
        backend *own;
        CHECK_OK(backend_cuda_open(&own, NULL));
        cuda_backend *cuda = (cuda_backend *)own;
        cuda->large_scratch = large[i];
        CHECK_OK(own->reserve(own, &most));
        const size_t before = cuda->memory.bytes;
        assert_int_equal(before, own->working_memory(own, &most));
        ops o = ops_begin(own);
        run(&o, NULL, NULL, got, &x);
        ops_end(&o);
        assert_int_equal(cuda->memory.bytes, before);
        own->close(own);
    }
    free(got);
    problem_free(&x);
    (void)be;
}

/* The working memory of a workload is enough for every pack within it, of a 0.5 B, a 1 B and an 8 B model. */
static void reserved_scratch_is_enough_for_all(backend *be)
{
    static const attention_shape shapes[] = {
        {14, 2, 64, 0, 0.125f}, {32, 8, 64, 0, 0.125f}, {32, 8, 128, 0, 0.088f}};
    static const int64_t segments[] = {1, 33, 110};
    for (int i = 0; i < 6; i++) {
        const workload most = {.tokens = 16896,
                               .segments = 110,
                               .attention = shapes[i / 2],
                               .type = bf16_or_f32(i % 2 == 1),
                               .backward = true};
        const size_t reserved = cuda_attention_memory((cuda_backend *)be, &most);
        for (int64_t T = 64; T <= most.tokens; T += 64) {
            for (int k = 0; k < 3; k++) {
                const size_t plan =
                    (size_t)cuda_attention_plan_words(T, segments[k]) * sizeof(int32_t) + 15;
                const size_t bytes =
                    cuda_attention_backward_scratch(T, segments[k], most.attention, most.type, 1);
                assert_true(bytes > 0 && plan / 16 * 16 + bytes <= reserved);
            }
        }
    }
}

/* It asks for none for a shape that is not qkv's, which may need more than any device has. */
static void no_scratch_for_other_shapes(backend *be)
{
    problem x = problem_create(&small, 57);
    ops o = ops_begin(be);
    const call c = call_create(&o, &x, DTYPE_BF16, 16);
    const attention_shape wide = {1 << 25, 1 << 25, 8, 0, 1.0f};
    assert_true(cuda_attention_backward_scratch(x.T, x.N, wide, DTYPE_BF16, 1) > 0);
    CHECK_FAILS(
        be->attention_backward(be, c.dqkv, c.dout, c.qkv, c.out, c.lse, c.segments, c.wanted, wide),
        CUDPO_EINVAL, "is_float(qkv, T");
    ops_end(&o);
    problem_free(&x);
}

/* What nobody asks for keeps what it held: out and lse before the first and after the last asking token. */
static void unasked_rows_stay(backend *be)
{
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        problem x = problem_begin(2, 1, 64, 0);
        problem_add(&x, 100, 1, (const int[]){200});
        problem_fill(&x, 47, NORMAL);
        want_range(&x, 150, 260, 1, 1);
        ops o = ops_begin(be);
        const call c = call_create(&o, &x, bf16_or_f32(bf16), 16);
        CHECK_OK(plan(&c));
        CHECK_OK(forward(&c));
        ops_check_untouched(&o, tensor_rows(c.out, 0, 150));
        ops_check_untouched(&o, tensor_rows(c.out, 260, 40));
        ops_check_untouched(&o, tensor_rows(c.lse, 0, 150));
        ops_check_untouched(&o, tensor_rows(c.lse, 260, 40));
        ops_end(&o);
        problem_free(&x);
    }
}

/* The plan is made for y and a shape; x is what attention is asked of.  Where `fault` is no fault, it is of use. */
static void check_plan_for(backend *be, dtype type, const problem *x, const problem *y,
                           attention_shape shape, uint32_t fault)
{
    ops o = ops_begin(be);
    call c = call_create(&o, x, type, scratch_bytes(x, type, 1));
    call other = call_create(&o, y, type, 16);
    other.plan.data = c.plan.data;
    other.shape = shape;
    c.fault = other.fault = ((cuda_backend *)be)->fault;
    if (y != x || memcmp(&shape, &x->shape, sizeof shape) != 0) CHECK_OK(plan(&other));
    for (int pass = 0; pass < 4; pass++) {
        if (pass == 2) c.fault = (tensor){0}; /* no word is needed */
        CHECK_OK(pass % 2 == 0 ? forward(&c) : backward(&c));
        check_fault(be, pass < 2 ? fault : 0);
    }
    if (fault != 0) {
        ops_check_untouched(&o, c.out);
        ops_check_untouched(&o, c.lse);
        ops_check_untouched(&o, c.dqkv);
    }
    ops_end(&o);
}

/* A plan for another tile of keys, window, number of tokens (in as many words) or segments, and none at all: a fault, and
 * nothing is written.  A window that hides nothing is none. */
static void plans_for_others(backend *be)
{
    const pack_shape shorter = {2, 1, 8, 0, 2, 1, {5, 4}, {{3}, {0}}};
    problem x = problem_create(&small, 54), y = problem_create(&shorter, 55);
    problem fewer = problem_begin(2, 1, 8, 0);
    problem_add(&fewer, 5, 2, (const int[]){3, 6});
    problem_fill(&fewer, 56, NORMAL);
    assert_int_equal(cuda_attention_plan_words(x.T, x.N), cuda_attention_plan_words(y.T, y.N));
    assert_true(fewer.T == x.T && fewer.N == x.N - 1);
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype type = bf16_or_f32(bf16);
        attention_shape wide = x.shape, seen = x.shape, hidden = x.shape;
        wide.head_dim = 136;
        hidden.window = 13;
        seen.window = 14;
        check_plan_for(be, type, &x, &x, wide, FAULT_PLAN);
        check_plan_for(be, type, &x, &x, hidden, FAULT_PLAN);
        check_plan_for(be, type, &x, &y, x.shape, FAULT_PLAN);
        check_plan_for(be, type, &x, &fewer, x.shape, FAULT_PLAN);
        check_plan_for(be, type, &x, &x, x.shape, FAULT_PLAN);
        check_plan_for(be, type, &x, &x, seen, 0);
    }
    problem_free(&x);
    problem_free(&y);
    problem_free(&fewer);
}

/* A fault word is not needed for plans either. */
static void faults_without_a_word(backend *be)
{
    problem x = problem_create(&small, 51);
    x.segments[0] = 1;
    ops o = ops_begin(be);
    const call c = call_create(&o, &x, DTYPE_F32, 16);
    CHECK_OK(plan(&c));
    CHECK_OK(forward(&c));
    ops_check_untouched(&o, c.out);
    ops_end(&o);
    problem_free(&x);
}

#ifdef TEST_SIMT
/* Where a block has 99 KiB of shared memory, the backward pass of head_dim 128 has shorter stages; all others fit. */
static void little_shared_memory(backend *be)
{
    static const int D[] = {64, 96, 128, 256};
    simt_set_shared_limit(99 << 10);
    for (int i = 0; i < 4; i++) {
        problem x = long_enough(2, 1, D[i]);
        check_as(be, &x, DTYPE_BF16);
        if (D[i] == 256) check_as(be, &x, DTYPE_F32);
        problem_free(&x);
    }
    simt_set_shared_limit(227 << 10);
}

cudpo_status cuda_attention_backward_sm100(tensor dqkv, tensor dout, tensor qkv, tensor out,
                                           tensor lse, tensor plan, attention_shape shape,
                                           scratch s, tensor fault, cudpo_stream stream);

/* From compute capability 10.0 on, head_dim 128 takes 16 queries at a time: tests/simt/attention_sm100.cu. */
static void fewer_registers(backend *be)
{
    problem x = long_enough(2, 1, 128);
    answer a = answer_create(&x);
    float *dqkv = zeros(x.T * x.W, 4);
    x.r = rounding_of(x.type = DTYPE_BF16);
    round_to(x.type, x.qkv, x.T * x.W);
    round_to(x.type, x.dout, x.T * x.Q);
    double *qkv = doubles(x.qkv, x.T * x.W);
    ops o = ops_begin(be);
    const call c = call_create(&o, &x, x.type, scratch_bytes(&x, x.type, 1));
    CHECK_OK(plan(&c));
    CHECK_OK(forward(&c));
    CHECK_OK(cuda_attention_backward_sm100(c.dqkv, c.dout, c.qkv, c.out, c.lse, c.plan, c.shape,
                                           c.memory, c.fault, c.stream));
    ops_get_floats(&o, dqkv, c.dqkv);
    plain(&a, &x, qkv);
    check_rows("dqkv", &x, dqkv, a.dqkv, a.dqkv_tolerance, x.W, true);
    ops_end(&o);
    answer_free(&a);
    free(dqkv);
    free(qkv);
    problem_free(&x);
}
#endif

static const op_case cases[] = {
    {"chunks_of_scratch", chunks_of_scratch},
    {"little_scratch", little_scratch},
    {"reserved_scratch_is_enough", reserved_scratch_is_enough},
    {"reserved_scratch_is_enough_for_all", reserved_scratch_is_enough_for_all},
    {"no_scratch_for_other_shapes", no_scratch_for_other_shapes},
    {"unasked_rows_stay", unasked_rows_stay},
    {"plans_for_others", plans_for_others},
    {"faults_without_a_word", faults_without_a_word},
#ifdef TEST_SIMT
    {"little_shared_memory", little_shared_memory},
    {"fewer_registers", fewer_registers},
#endif
};
OPS_MAIN(cases)
