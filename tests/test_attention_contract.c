/* test_attention_contract.c - what attention refuses, reports and leaves alone. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_attention.h"
#ifdef TEST_CUDA
#include "kernels/kernels.h"
#endif

/* Neither pass writes anything.  The CPU says what is wrong with segments and wanted; a device can't see them before it
 * works on them, and reports a fault instead: FAULT_SEGMENT 8, FAULT_INDEX 4. */
static void check_refused(backend *be, const problem *x, const int32_t *segments, int64_t N,
                          attention_shape shape, const char *what, uint32_t fault)
{
    for (int bf16 = 0; bf16 <= be->on_device; bf16++) {
        const dtype type = bf16_or_f32(bf16);
        ops o = ops_begin(be);
        const tensor qkv = gapped(&o, type, x->qkv, x->T, x->W, 0);
        const tensor dqkv = ops_output_as(&o, type, x->T, x->W);
        const tensor out = ops_output_as(&o, type, x->T, x->Q);
        const tensor lse = ops_output(&o, x->T, x->shape.heads);
        const tensor table = ops_indices(&o, segments, N, SEGMENT_FIELDS);
        const tensor wanted = x->wanted != NULL ? ops_indices(&o, x->wanted, x->U, 1) : (tensor){0};
        if (fault == 0 || !be->on_device) {
            CHECK_FAILS(be->attention(be, out, lse, qkv, table, wanted, shape), CUDPO_EINVAL, what);
            CHECK_FAILS(be->attention_backward(be, dqkv, out, qkv, out, lse, table, wanted, shape),
                        CUDPO_EINVAL, what);
        }
#ifdef TEST_CUDA
        else {
            uint32_t bits = 0;
            CHECK_OK(be->attention(be, out, lse, qkv, table, wanted, shape));
            CHECK_OK(be->faults(be, &bits));
            assert_int_equal(bits, fault);
            CHECK_OK(be->attention_backward(be, dqkv, out, qkv, out, lse, table, wanted, shape));
            CHECK_OK(be->faults(be, &bits));
            assert_int_equal(bits, fault);
        }
#endif
        ops_check_untouched(&o, out);
        ops_check_untouched(&o, lse);
        ops_check_untouched(&o, dqkv);
        ops_end(&o);
    }
}

static const pack_shape small = {2, 1, 8, 0, 2, 1, {5, 4}, {{3}, {2}}}; /* begins 0 5 8 12, of 14 */

static void broken_packs(backend *be)
{
    problem x = problem_create(&small, 41);
    static const struct {
        int row, field, value;
    } wrong[] = {
        {0, SEGMENT_BEGIN, 1},
        {0, SEGMENT_BEGIN, -1},
        {1, SEGMENT_BEGIN, 6},
        {1, SEGMENT_BEGIN, 4},
        {3, SEGMENT_LENGTH, 3},
        {3, SEGMENT_LENGTH, 1},
        {3, SEGMENT_LENGTH, -1},
        {3, SEGMENT_LENGTH, INT32_MAX},
        {0, SEGMENT_LENGTH, INT32_MAX},
        {1, SEGMENT_PROMPT_LENGTH, 4},
        {1, SEGMENT_PROMPT_LENGTH, -5},
        {1, SEGMENT_PROMPT_BEGIN, 1},
        {3, SEGMENT_PROMPT_BEGIN, 0},
        {0, SEGMENT_PROMPT_LENGTH, 5},
        {3, SEGMENT_PROMPT_LENGTH, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int32_t segments[16];
        memcpy(segments, x.segments, sizeof segments);
        segments[wrong[i].row * SEGMENT_FIELDS + wrong[i].field] = wrong[i].value;
        check_refused(be, &x, segments, 4, x.shape, "is_pack", 8);
    }
    check_refused(be, &x, x.segments, 3, x.shape, "is_pack", 8);
    check_refused(be, &x, x.segments, 0, x.shape, "is_pack", 8);
    problem_free(&x);
}

/* Of more segments than a block of the plan's kernel has threads: each is looked at. */
static void broken_among_many(backend *be)
{
    problem x = problem_begin(1, 1, 8, 0);
    for (int g = 0; g < 85; g++) {
        problem_add(&x, 1, 2, (const int[]){1, 1});
    }
    problem_fill(&x, 42, NORMAL);
    for (int64_t n = 2; n < x.N; n += 42) {
        int32_t *prompt = x.segments + n * SEGMENT_FIELDS + SEGMENT_PROMPT_BEGIN;
        *prompt -= 1;
        check_refused(be, &x, x.segments, x.N, x.shape, "is_pack", 8);
        *prompt += 1;
    }
    check_problem(be, &x);
    problem_free(&x);
}

static void broken_shapes(backend *be)
{
    problem x = problem_create(&small, 43);
    const attention_shape bad[] = {
        {2, 0, 8, 0, 1.0f},  {3, 2, 8, 0, 1.0f}, {0, 1, 8, 0, 1.0f},
        {2, 1, 8, -1, 1.0f}, {2, 1, 8, 0, NAN},  {2, 1, 0, 0, 1.0f},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_refused(be, &x, x.segments, 4, bad[i], "attention_shape_valid", 0);
    }
    const char *width = be->on_device ? "is_float" : "is_f32";
    check_refused(be, &x, x.segments, 4, (attention_shape){2, 1, 6, 0, 1.0f}, width, 0);
    problem_free(&x);
}

static void broken_wanted(backend *be)
{
    problem x = problem_create(&small, 44);
    static const int32_t unwanted[][3] = {{3, 2, 4}, {3, 4, 4}, {-1, 2, 3}, {1, 2, 14}};
    x.wanted = zeros(3, sizeof *x.wanted);
    x.U = 3;
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
        memcpy(x.wanted, unwanted[i], sizeof unwanted[i]);
        check_refused(be, &x, x.segments, 4, x.shape, "are_wanted", 4);
    }
    problem_free(&x);
}

/* No tokens: nothing to do. */
static void no_tokens(backend *be)
{
    problem x = problem_begin(2, 1, 8, 0);
    problem_add(&x, 0, 1, (const int[]){0});
    problem_fill(&x, 45, NORMAL);
    check_problem(be, &x);
    problem_free(&x);
}

#ifdef TEST_CUDA
/* All tensors of both launchers, dense. */
typedef struct call {
    tensor dqkv, dout, qkv, out, lse, plan, segments, wanted, fault;
    scratch memory;
    attention_shape shape;
    int64_t T;
} call;

static call call_create(ops *o, const problem *x, dtype type, size_t bytes)
{
    call c = {.shape = x->shape, .T = x->T};
    c.qkv = gapped(o, type, x->qkv, x->T, x->W, 0);
    c.dout = gapped(o, type, x->dout, x->T, x->Q, 0);
    c.out = ops_output_as(o, type, x->T, x->Q);
    c.dqkv = ops_output_as(o, type, x->T, x->W);
    c.lse = ops_output(o, x->T, x->shape.heads);
    c.plan = ops_make(o, DTYPE_I32, cuda_attention_plan_words(x->T, x->N), 1, 1);
    c.segments = ops_indices(o, x->segments, x->N, SEGMENT_FIELDS);
    if (x->wanted != NULL) c.wanted = ops_indices(o, x->wanted, x->U, 1);
    const tensor memory = ops_make(o, DTYPE_F32, 1, (int64_t)(bytes / 4), (int64_t)(bytes / 4));
    c.memory = (scratch){memory.data, bytes};
    return c;
}

static cudpo_status plan(const call *c)
{
    return cuda_attention_plan(c->plan, c->segments, c->wanted, c->T, c->shape, c->fault, NULL);
}

static cudpo_status forward(const call *c)
{
    return cuda_attention(c->out, c->lse, c->qkv, c->plan, c->shape, NULL);
}

static cudpo_status backward(const call *c)
{
    return cuda_attention_backward(c->dqkv, c->dout, c->qkv, c->out, c->lse, c->plan, c->shape,
                                   c->memory, NULL);
}

/* Scratch for 1, 2 and all kv heads at a time, and with shares of dk and dv or without: the same bits. */
static void chunks_of_scratch(backend *be)
{
    static const int heads[][2] = {{3, 3}, {9, 3}};
    for (int i = 0; i < 2; i++) {
        for (int bf16 = 0; bf16 <= 1; bf16++) {
            const dtype type = bf16_or_f32(bf16);
            const pack_shape p = {heads[i][0], heads[i][1], 64, 0, 1, 2, {140}, {{70, 30}}};
            problem x = problem_create(&p, 46);
            const int64_t n = x.T * x.W;
            float *first = zeros(n, 4), *again = zeros(n, 4);
            for (int kv = 3; kv >= 1; kv--) {
                const size_t bytes = cuda_attention_backward_scratch(x.T, x.N, x.shape, type, kv);
                ops o = ops_begin(be);
                const call c = call_create(&o, &x, type, bytes);
                CHECK_OK(plan(&c));
                CHECK_OK(forward(&c));
                CHECK_OK(backward(&c));
                ops_get_floats(&o, kv == 3 ? first : again, c.dqkv);
                if (kv < 3) assert_memory_equal(first, again, (size_t)n * 4);
                ops_end(&o);
            }
            free(first);
            free(again);
            problem_free(&x);
        }
    }
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

static void broken_contracts(backend *be)
{
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const dtype type = bf16_or_f32(bf16), other = bf16_or_f32(!bf16);
        problem x = problem_create(&small, 48);
        ops o = ops_begin(be);
        const size_t bytes = cuda_attention_backward_scratch(x.T, x.N, x.shape, type, 1);
        call good = call_create(&o, &x, type, bytes);
        REFUSED(plan, "MAX_TOKENS", c.T = -1);
        REFUSED(plan, "MAX_TOKENS", c.T = (1 << 19) + 1);
        REFUSED(plan, "SEGMENT_FIELDS", c.segments.cols = 3);
        REFUSED(plan, "SEGMENT_FIELDS", c.segments.type = DTYPE_F32);
        REFUSED(plan, "SEGMENT_FIELDS", c.segments.data = NULL);
        REFUSED(plan, "plan_segments", c.plan.rows--);
        REFUSED(plan, "plan_segments", c.plan = moved(c.plan, 4));
        REFUSED(plan, "plan_segments", c.segments.rows = 3);
        REFUSED(plan, "wanted", c.wanted = good.lse);
        REFUSED(plan, "is_fault", c.fault = good.lse);
        REFUSED(plan, "attention_shape_valid", c.shape.head_dim = 257);
        REFUSED(plan, "attention_shape_valid", c.shape.scale = 0.0f);
        CHECK_OK(plan(&good));
        REFUSED(forward, "attention_shape_valid", c.shape.kv_heads = 0);
        REFUSED(forward, "qkv", c.qkv.cols--);
        REFUSED(forward, "qkv", c.qkv.type = DTYPE_F16);
        REFUSED(forward, "out", c.out.type = other);
        REFUSED(forward, "out", c.out.rows--);
        REFUSED(forward, "lse", c.lse.cols--);
        REFUSED(forward, "lse", c.lse.type = DTYPE_BF16);
        REFUSED(forward, "plan_segments", c.plan.rows++);
        REFUSED(forward, "plan_segments", c.plan.data = NULL);
        REFUSED(forward, "tensor_disjoint(out, qkv)", c.out.data = c.qkv.data);
        REFUSED(forward, "tensor_disjoint(lse, qkv)", c.lse.data = c.qkv.data);
        REFUSED(forward, "tensor_disjoint(out, lse)", c.lse.data = c.out.data);
        REFUSED(forward, "tensor_disjoint(plan, out)", c.out.data = c.plan.data);
        REFUSED(forward, "tensor_disjoint(plan, lse)", c.lse.data = c.plan.data);
        REFUSED(backward, "attention_shape_valid", c.shape.window = -1);
        REFUSED(backward, "qkv", c.qkv.type = DTYPE_I32);
        REFUSED(backward, "dqkv", c.dqkv.cols--);
        REFUSED(backward, "dqkv", c.dqkv.type = other);
        REFUSED(backward, "out", c.out.type = other);
        REFUSED(backward, "dout", c.dout.rows--);
        REFUSED(backward, "dout", c.dout.type = other);
        REFUSED(backward, "lse", c.lse.rows--);
        REFUSED(backward, "plan_segments", c.plan.rows++);
        REFUSED(backward, "tensor_disjoint(dqkv, qkv)", c.qkv.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, dout)", c.dout.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, out)", c.out.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, lse)", c.lse.data = c.dqkv.data);
        REFUSED(backward, "tensor_disjoint(dqkv, plan)", c.plan.data = c.dqkv.data);
        REFUSED(backward, "s.data", c.memory.data = NULL);
        REFUSED(backward, "s.data", c.memory.data = (char *)c.memory.data + 4);
        REFUSED(backward, "s.bytes", c.memory.bytes--);
        ops_end(&o);
        problem_free(&x);
    }
}

/* bf16 wants 16-byte rows and whole 16-byte heads. */
static void broken_alignment(backend *be)
{
    problem x = problem_create(&small, 49);
    ops o = ops_begin(be);
    const size_t bytes = cuda_attention_backward_scratch(x.T, x.N, x.shape, DTYPE_BF16, 1);
    call good = call_create(&o, &x, DTYPE_BF16, bytes);
    good.qkv.rows = good.dqkv.rows = good.out.rows = good.dout.rows = good.lse.rows = good.T = 13;
    good.plan.rows = cuda_attention_plan_words(13, x.N); /* so that the last row can be moved */
    REFUSED(forward, "is_vectorisable(qkv)", c.qkv = moved(c.qkv, 2));
    REFUSED(forward, "is_vectorisable(qkv)", c.qkv.stride++);
    REFUSED(forward, "is_vectorisable(out)", c.out = moved(c.out, 8));
    REFUSED(backward, "is_vectorisable(qkv)", c.qkv = moved(c.qkv, 4));
    REFUSED(backward, "is_vectorisable(dqkv)", c.dqkv = moved(c.dqkv, 8));
    REFUSED(backward, "is_vectorisable(out)", c.out = moved(c.out, 2));
    REFUSED(backward, "is_vectorisable(dout)", c.dout = moved(c.dout, 2));
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
    const call c = call_create(&p, &y, DTYPE_BF16,
                               cuda_attention_backward_scratch(y.T, y.N, y.shape, DTYPE_BF16, 1));
    CHECK_FAILS(forward(&c), CUDPO_EINVAL, "head_dim");
    CHECK_FAILS(backward(&c), CUDPO_EINVAL, "head_dim");
    ops_check_untouched(&p, c.out);
    ops_check_untouched(&p, c.dqkv);
    ops_end(&p);
    problem_free(&y);
}

/* A fault word is not needed. */
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
#endif

static const op_case cases[] = {
    {"broken_packs", broken_packs},
    {"broken_among_many", broken_among_many},
    {"broken_shapes", broken_shapes},
    {"broken_wanted", broken_wanted},
    {"no_tokens", no_tokens},
#ifdef TEST_CUDA
    {"chunks_of_scratch", chunks_of_scratch},
    {"unasked_rows_stay", unasked_rows_stay},
    {"broken_contracts", broken_contracts},
    {"broken_alignment", broken_alignment},
    {"faults_without_a_word", faults_without_a_word},
#endif
};
OPS_MAIN(cases)
