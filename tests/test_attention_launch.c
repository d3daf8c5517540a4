/* test_attention_launch.c - what attention's launchers refuse, condition by condition. */
/* rooms: backend base */
/* backends: cuda */
#include "test_attention_call.h"

/* One argument of a call that would succeed is changed; everything is refused and nothing written. */
#define REFUSED(pass, text, ...)                   \
    do {                                           \
        call c = good;                             \
        __VA_ARGS__;                               \
        CHECK_FAILS(pass(&c), CUDPO_EINVAL, text); \
        ops_check_untouched(&o, good.out);         \
        ops_check_untouched(&o, good.lse);         \
        ops_check_untouched(&o, good.dqkv);        \
    } while (0)

static tensor moved_by(tensor t, int64_t elements)
{
    t.data = (char *)t.data + (size_t)elements * dtype_size(t.type);
    return t;
}

/* Words of a plan that there can't be, because it has too many segments. */
static int64_t plan_words_of(int64_t T, int64_t N)
{
    const int64_t none = cuda_attention_plan_words(T, 0);
    return none + N * (cuda_attention_plan_words(T, 1) - none);
}

enum { MOST = 1 << 19 }; /* tokens and segments */

static void broken_plans(backend *be)
{
    problem x = problem_create(&small, 48);
    x.wanted = zeros(2, sizeof *x.wanted);
    x.wanted[1] = 3, x.U = 2;
    ops o = ops_begin(be);
    const call good = call_create(&o, &x, DTYPE_F32, 16);
    const tensor word = tensor_vector(good.plan.data, DTYPE_I32, 1);
    static const attention_shape shapes[] = {
        {0, 1, 8, 0, 1},  {2, 0, 8, 0, 1},   {2, -1, 8, 0, 1},      {3, 2, 8, 0, 1},
        {2, 1, 0, 0, 1},  {2, 1, 257, 0, 1}, {2, 1, 8, -1, 1},      {2, 1, 8, 0, 0},
        {2, 1, 8, 0, -1}, {2, 1, 8, 0, NAN}, {2, 1, 8, 0, INFINITY}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        REFUSED(plan, "attention_shape_valid", c.shape = shapes[i]);
        REFUSED(forward, "attention_shape_valid", c.shape = shapes[i]);
        REFUSED(backward, "attention_shape_valid", c.shape = shapes[i]);
    }
    REFUSED(plan, "T >= 0 && T <= MAX_TOKENS", c.T = -1);
    REFUSED(plan, "T >= 0 && T <= MAX_TOKENS", c.T = MOST + 1;
            c.plan.rows = plan_words_of(MOST + 1, x.N));
    REFUSED(plan, "is_i32(segments", c.segments.cols = 3);
    REFUSED(plan, "is_i32(segments", c.segments.type = DTYPE_F32);
    REFUSED(plan, "is_i32(segments", c.segments.data = NULL);
    REFUSED(plan, "is_i32(segments", c.segments.rows = -1; c.plan.data = NULL);
    REFUSED(plan, "is_i32(wanted", c.wanted = good.lse);
    REFUSED(plan, "is_i32(wanted", c.wanted.cols = c.wanted.stride = 2);
    REFUSED(plan, "is_i32(wanted", c.wanted.rows = -3);
    REFUSED(plan, "wanted.stride == 1", c.wanted.stride = 2);
    REFUSED(plan, "plan_segments(plan, T) == segments.rows", c.plan.rows--);
    REFUSED(plan, "plan_segments(plan, T) == segments.rows", c.plan = moved_by(c.plan, 1));
    REFUSED(plan, "plan_segments(plan, T) == segments.rows", c.plan.type = DTYPE_F32);
    REFUSED(plan, "plan_segments(plan, T) == segments.rows", c.segments.rows = 3);
    REFUSED(plan, "plan_segments(plan, T) == segments.rows", c.segments.rows = MOST + 1;
            c.plan.rows = plan_words_of(c.T, MOST + 1));
    REFUSED(plan, "is_fault(fault)", c.fault = good.lse);
    REFUSED(plan, "is_fault(fault)", c.fault = good.wanted);
    REFUSED(plan, "tensor_disjoint(plan, segments)", c.segments.data = (char *)c.plan.data + 64);
    REFUSED(plan, "tensor_disjoint(plan, wanted)", c.wanted.data = (char *)c.plan.data + 4);
    REFUSED(plan, "tensor_disjoint(fault, plan)", c.fault = word);
    REFUSED(plan, "tensor_disjoint(fault, segments)", c.fault = word;
            c.fault.data = c.segments.data);
    REFUSED(plan, "tensor_disjoint(fault, wanted)", c.fault = word; c.fault.data = c.wanted.data);
    ops_check_untouched(&o, good.plan);
    CHECK_OK(plan(&good));
    ops_end(&o);
    problem_free(&x);
}

static void broken_forwards(backend *be)
{
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype type = bf16_or_f32(bf16), other = bf16_or_f32(!bf16);
        problem x = problem_create(&small, 48);
        ops o = ops_begin(be);
        const call good = call_create(&o, &x, type, 16);
        CHECK_OK(plan(&good));
        REFUSED(forward, "is_float(qkv, T", c.qkv.cols--);
        REFUSED(forward, "is_float(qkv, T", c.qkv.type = DTYPE_F16);
        REFUSED(forward, "is_float(qkv, T", c.qkv.rows = -1);
        REFUSED(forward, "qkv.rows <= MAX_TOKENS", c.qkv.rows = MOST + 1);
        REFUSED(forward, "is_float(out, T", c.out.rows--);
        REFUSED(forward, "is_float(out, T", c.out.cols--);
        REFUSED(forward, "out.type == qkv.type", c.out.type = other);
        REFUSED(forward, "is_f32(lse, T", c.lse.cols--);
        REFUSED(forward, "is_f32(lse, T", c.lse.type = DTYPE_BF16);
        REFUSED(forward, "plan_segments(plan, T) >= 0", c.plan.rows++);
        REFUSED(forward, "plan_segments(plan, T) >= 0", c.plan.data = NULL);
        REFUSED(forward, "plan_segments(plan, T) >= 0", c.plan.rows = plan_words_of(x.T, MOST + 1));
        REFUSED(forward, "is_fault(fault)", c.fault = good.lse);
        REFUSED(forward, "tensor_disjoint(out, qkv)", c.out.data = c.qkv.data);
        REFUSED(forward, "tensor_disjoint(lse, qkv)", c.lse.data = c.qkv.data);
        REFUSED(forward, "tensor_disjoint(out, lse)", c.lse.data = c.out.data);
        REFUSED(forward, "tensor_disjoint(out, plan)", c.out.data = c.plan.data);
        REFUSED(forward, "tensor_disjoint(lse, plan)", c.lse.data = c.plan.data);
        const tensor *const all[] = {&good.out, &good.lse, &good.qkv, &good.plan};
        static const char *const text[] = {
            "tensor_disjoint(fault, out)", "tensor_disjoint(fault, lse)",
            "tensor_disjoint(fault, qkv)", "tensor_disjoint(fault, plan)"};
        for (int i = 0; i < 4; i++) {
            REFUSED(forward, text[i], c.fault = tensor_vector(all[i]->data, DTYPE_I32, 1));
        }
        CHECK_OK(forward(&good));
        ops_end(&o);
        problem_free(&x);
    }
}

static void broken_backwards(backend *be)
{
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype type = bf16_or_f32(bf16), other = bf16_or_f32(!bf16);
        problem x = problem_create(&small, 48);
        ops o = ops_begin(be);
        const call good = call_create(&o, &x, type, scratch_bytes(&x, type, 1));
        CHECK_OK(plan(&good));
        REFUSED(backward, "is_float(qkv, T", c.qkv.type = DTYPE_I32);
        REFUSED(backward, "is_float(qkv, T", c.qkv.cols--);
        REFUSED(backward, "qkv.rows <= MAX_TOKENS", c.qkv.rows = MOST + 1);
        REFUSED(backward, "is_like(dqkv, qkv)", c.dqkv.cols--);
        REFUSED(backward, "is_like(dqkv, qkv)", c.dqkv.type = other);
        REFUSED(backward, "is_float(out, T", c.out.cols--);
        REFUSED(backward, "is_float(out, T", c.out.rows--);
        REFUSED(backward, "out.type == qkv.type", c.out.type = other);
        REFUSED(backward, "is_like(dout, out)", c.dout.rows--);
        REFUSED(backward, "is_like(dout, out)", c.dout.type = other);
        REFUSED(backward, "is_f32(lse, T", c.lse.rows--);
        REFUSED(backward, "is_f32(lse, T", c.lse.type = DTYPE_I32);
        REFUSED(backward, "plan_segments(plan, T) >= 0", c.plan.rows++);
        REFUSED(backward, "is_fault(fault)", c.fault = good.lse);
        REFUSED(backward, "is_scratch(s, ", c.memory.data = NULL);
        REFUSED(backward, "is_scratch(s, ", c.memory.data = (char *)c.memory.data + 4);
        REFUSED(backward, "is_scratch(s, ", c.memory.bytes--);
        REFUSED(backward, "tensor_disjoint(dqkv, qkv)", c.qkv.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, dout)", c.dout.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, out)", c.out.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, lse)", c.lse.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, plan)", c.plan.data = c.dqkv.data);
        REFUSED(backward, "is_apart(s, s.bytes, dqkv)", c.dqkv.data = c.memory.data);
        REFUSED(backward, "is_apart(s, s.bytes, qkv)", c.qkv.data = c.memory.data);
        REFUSED(backward, "is_apart(s, s.bytes, dout)", c.dout.data = c.memory.data);
        REFUSED(backward, "is_apart(s, s.bytes, out)", c.out.data = c.memory.data);
        REFUSED(backward, "is_apart(s, s.bytes, lse)", c.lse.data = c.memory.data);
        REFUSED(backward, "is_apart(s, s.bytes, plan)", c.plan.data = c.memory.data);
        const void *const all[] = {good.memory.data, good.dqkv.data, good.plan.data, good.qkv.data,
                                   good.dout.data,   good.out.data,  good.lse.data};
        static const char *const text[] = {
            "is_apart(s, s.bytes, fault)",  "tensor_disjoint(dqkv, fault)",
            "tensor_disjoint(fault, plan)", "tensor_disjoint(fault, qkv)",
            "tensor_disjoint(fault, dout)", "tensor_disjoint(fault, out)",
            "tensor_disjoint(fault, lse)"};
        for (int i = 0; i < 7; i++) {
            REFUSED(backward, text[i], c.fault = tensor_vector((void *)all[i], DTYPE_I32, 1));
        }
        ops_end(&o);
        problem_free(&x);
    }
}

/* bf16 wants 16-byte rows and whole 16-byte heads. */
static void broken_alignment(backend *be)
{
    problem x = problem_create(&small, 49);
    ops o = ops_begin(be);
    call good = call_create(&o, &x, DTYPE_BF16, scratch_bytes(&x, DTYPE_BF16, 1));
    good.qkv.rows = good.dqkv.rows = good.out.rows = good.dout.rows = good.lse.rows = good.T = 13;
    good.plan.rows = cuda_attention_plan_words(13, x.N); /* so that the last row can be moved */
    REFUSED(forward, "is_vectorisable(qkv)", c.qkv = moved_by(c.qkv, 1));
    REFUSED(forward, "is_vectorisable(qkv)", c.qkv.stride++);
    REFUSED(forward, "is_vectorisable(out)", c.out = moved_by(c.out, 4));
    REFUSED(backward, "is_vectorisable(qkv)", c.qkv = moved_by(c.qkv, 2));
    REFUSED(backward, "is_vectorisable(dqkv)", c.dqkv = moved_by(c.dqkv, 4));
    REFUSED(backward, "is_vectorisable(out)", c.out = moved_by(c.out, 1));
    REFUSED(backward, "is_vectorisable(dout)", c.dout = moved_by(c.dout, 1));
    REFUSED(forward, "is_near(qkv)", c.qkv.stride = 1 << 24);
    REFUSED(forward, "is_near(out)", c.out.stride = 1 << 24);
    REFUSED(backward, "is_near(qkv)", c.qkv.stride = 1 << 24);
    REFUSED(backward, "is_near(dqkv)", c.dqkv.stride = 1 << 24);
    REFUSED(backward, "is_near(dout)", c.dout.stride = 1 << 24);
    ops_end(&o);
    problem_free(&x);

    const pack_shape odd = {2, 1, 12, 0, 1, 1, {5}, {{3}}};
    problem y = problem_create(&odd, 50);
    ops p = ops_begin(be);
    const call c = call_create(&p, &y, DTYPE_BF16, scratch_bytes(&y, DTYPE_BF16, 1));
    CHECK_FAILS(forward(&c), CUDPO_EINVAL, "shape.head_dim % 8 == 0");
    CHECK_FAILS(backward(&c), CUDPO_EINVAL, "shape.head_dim % 8 == 0");
    ops_check_untouched(&p, c.out);
    ops_check_untouched(&p, c.dqkv);
    ops_end(&p);
    problem_free(&y);
}

/* dqkv of x from rows as call_create() places them, or qkv's `stride` elements apart. */
static void gradients(backend *be, float *got, const problem *x, int64_t stride)
{
    ops o = ops_begin(be);
    call c = call_create(&o, x, DTYPE_BF16, scratch_bytes(x, DTYPE_BF16, 1));
    if (stride > 0) {
        c.qkv = ops_make(&o, DTYPE_BF16, x->T, x->W, stride);
        ops_put_floats(&o, c.qkv, x->qkv);
    }
    CHECK_OK(plan(&c));
    CHECK_OK(forward(&c));
    CHECK_OK(backward(&c));
    ops_get_floats(&o, got, c.dqkv);
    ops_end(&o);
}

/* The stride of a single row says nothing: it may be of any size, and no multiple of anything.  Others may be as long as
 * they are near. */
static void strides_of_any_length(backend *be)
{
    static const int64_t strides[] = {(1 << 24) - 8, (1 << 24) - 1, 33};
    for (int T = 1; T <= 2; T++) {
        problem x = problem_begin(2, 1, 8, 0);
        problem_add(&x, T - 1, 1, (const int[]){1});
        problem_fill(&x, 52, NORMAL);
        float *want = zeros(x.T * x.W, 4), *got = zeros(x.T * x.W, 4);
        assert_int_equal(x.T, T);
        gradients(be, want, &x, 0);
        for (int i = 0; i < (T == 1 ? 3 : 1); i++) {
            gradients(be, got, &x, strides[i]);
            assert_memory_equal(got, want, (size_t)(x.T * x.W) * 4);
        }
        free(want);
        free(got);
        problem_free(&x);
    }
}

/* As many blocks as a grid may have, and one more: heads of so many segments that none of them has a tensor in memory. */
static void most_blocks(backend *be)
{
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        problem x = problem_create(&small, 51);
        ops o = ops_begin(be);
        call good = call_create(&o, &x, bf16_or_f32(bf16), 16);
        good.shape.heads = 1 << 20;
        good.qkv.cols = good.qkv.stride = good.dqkv.cols = good.dqkv.stride = (2 + (1 << 20)) * 8;
        good.lse.cols = good.lse.stride = 1 << 20;
        good.out.cols = good.out.stride = good.dout.cols = good.dout.stride = 8 << 20;
        good.plan.rows = cuda_attention_plan_words(x.T, 255);
        const int64_t more = cuda_attention_plan_words(x.T, 256);
        good.out.data = good.qkv.data; /* so that it is refused in any case */
        CHECK_FAILS(forward(&good), CUDPO_EINVAL, "tensor_disjoint(out, qkv)");
        CHECK_FAILS(backward(&good), CUDPO_EINVAL, "is_scratch(s, ");
        good.plan.rows = more;
        CHECK_FAILS(forward(&good), CUDPO_EINVAL, "are_blocks(p.most_forward, shape.heads)");
        CHECK_FAILS(backward(&good), CUDPO_EINVAL, "are_blocks(most_queries(T, p.N), shape.heads)");
        ops_end(&o);
        problem_free(&x);
    }
}

/* Sizes that launchers refuse need no memory; the largest that they take need more than there is, and can be counted. */
static void sizes_of_memory(backend *be)
{
    const attention_shape fine = {4, 2, 64, 0, 1.0f};
    static const attention_shape bad[] = {
        {4, 0, 64, 0, 1},  {4, 3, 64, 0, 1}, {0, 2, 64, 0, 1},
        {4, -2, 64, 0, 1}, {4, 2, 0, 0, 1},  {4, 2, 257, 0, 1},
        {4, 2, 64, -1, 1}, {4, 2, 64, 0, 0}, {1 << 28, 2, 64, 0, 1}};
    static const int64_t none[] = {-1, MOST + 1, INT64_MAX, INT64_MIN};
    attention_shape endless = fine;
    endless.window = INT32_MAX;
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype type = bf16_or_f32(bf16);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(cuda_attention_plan_words(none[i], 1), 0);
            assert_int_equal(cuda_attention_plan_words(1, none[i]), 0);
            assert_int_equal(cuda_attention_backward_scratch(none[i], 1, fine, type, 1), 0);
            assert_int_equal(cuda_attention_backward_scratch(1, none[i], fine, type, 1), 0);
        }
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            assert_int_equal(cuda_attention_backward_scratch(100, 3, bad[i], type, 1), 0);
        }
        for (int kv_heads = -1; kv_heads <= 3; kv_heads++) {
            const size_t bytes = cuda_attention_backward_scratch(100, 3, fine, type, kv_heads);
            assert_int_equal(bytes > 0, kv_heads >= 1 && kv_heads <= 2);
        }
        assert_int_equal(cuda_attention_backward_scratch(0, 3, fine, type, 1), 0);
        assert_true(cuda_attention_backward_scratch(MOST, MOST, fine, type, 2) > (size_t)1 << 30);
        assert_int_equal(cuda_attention_backward_scratch(5000, 3, endless, type, 2),
                         cuda_attention_backward_scratch(5000, 3, fine, type, 2));
    }
    (void)be;
}

static const op_case cases[] = {
    {"broken_plans", broken_plans},
    {"broken_forwards", broken_forwards},
    {"broken_backwards", broken_backwards},
    {"broken_alignment", broken_alignment},
    {"strides_of_any_length", strides_of_any_length},
    {"most_blocks", most_blocks},
    {"sizes_of_memory", sizes_of_memory},
};
OPS_MAIN(cases)
