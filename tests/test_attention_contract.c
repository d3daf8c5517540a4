/* test_attention_contract.c - what attention refuses, reports and leaves alone. */
/* rooms: backend base */
/* backends: cpu cuda */
#include "test_attention.h"

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
        check_refused(be, &x, segments, 4, x.shape, "is_pack(segments, T)", 8);
    }
    static const int32_t backwards[] = {0, 5, 0, 0, 5, -2, 0, 0, 3, 11, 0, 0}; /* and 14 in all */
    check_refused(be, &x, backwards, 3, x.shape, "is_pack(segments, T)", 8);
    check_refused(be, &x, x.segments, 3, x.shape, "is_pack(segments, T)", 8);
    check_refused(be, &x, x.segments, 0, x.shape, "is_pack(segments, T)", 8);
    problem_free(&x);
}

/* Of more segments than a block of the plan's kernel has threads: each is looked at. */
static void broken_among_many(backend *be)
{
    problem x = problem_begin(1, 1, 8, 0);
    for (int g = 0; g < 100; g++) {
        problem_add(&x, 1, 2, (const int[]){1, 1});
    }
    problem_fill(&x, 42, NORMAL);
    for (int64_t n = 2; n < x.N; n += 42) {
        int32_t *prompt = x.segments + n * SEGMENT_FIELDS + SEGMENT_PROMPT_BEGIN;
        *prompt -= 1;
        check_refused(be, &x, x.segments, x.N, x.shape, "is_pack(segments, T)", 8);
        *prompt += 1;
    }
    check_as(be, &x, DTYPE_F32);
    problem_free(&x);
}

static void broken_shapes(backend *be)
{
    problem x = problem_create(&small, 43);
    const attention_shape bad[] = {
        {2, 0, 8, 0, 1.0f},  {2, -1, 8, 0, 1.0f}, {3, 2, 8, 0, 1.0f}, {0, 1, 8, 0, 1.0f},
        {2, 1, 8, -1, 1.0f}, {2, 1, 8, 0, NAN},   {2, 1, 0, 0, 1.0f},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_refused(be, &x, x.segments, 4, bad[i], "attention_shape_valid", 0);
    }
    /* Another shape than qkv's; the second has more heads than a grid has blocks. */
    const char *width = be->on_device ? "is_float(qkv, T" : "is_f32(qkv, T";
    check_refused(be, &x, x.segments, 4, (attention_shape){2, 1, 6, 0, 1.0f}, width, 0);
    check_refused(be, &x, x.segments, 4, (attention_shape){1 << 26, 1 << 26, 1, 0, 1.0f}, width, 0);
    if (!be->on_device) /* more columns than BLAS counts */
        check_refused(be, &x, x.segments, 4, (attention_shape){1 << 30, 1, 2, 0, 1.0f},
                      "attention_shape_valid", 0);
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
        check_refused(be, &x, x.segments, 4, x.shape, "are_wanted(wanted, T)", 4);
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

/* What both passes take. */
typedef struct operands {
    tensor dqkv, dout, qkv, out, lse, segments, wanted;
    attention_shape shape;
} operands;

static operands operands_create(ops *o, const problem *x)
{
    static const int32_t wanted[] = {1, 4, 9};
    return (operands){.dqkv = ops_output(o, x->T, x->W),
                      .dout = ops_floats(o, x->dout, x->T, x->Q),
                      .qkv = ops_floats(o, x->qkv, x->T, x->W),
                      .out = ops_output(o, x->T, x->Q),
                      .lse = ops_output(o, x->T, x->shape.heads),
                      .segments = ops_indices(o, x->segments, x->N, SEGMENT_FIELDS),
                      .wanted = ops_indices(o, wanted, 3, 1),
                      .shape = x->shape};
}

static cudpo_status forward(backend *be, const operands *x)
{
    return be->attention(be, x->out, x->lse, x->qkv, x->segments, x->wanted, x->shape);
}

static cudpo_status backward(backend *be, const operands *x)
{
    return be->attention_backward(be, x->dqkv, x->dout, x->qkv, x->out, x->lse, x->segments,
                                  x->wanted, x->shape);
}

/* One operand of a call that would succeed is changed; it is refused and nothing written. */
#define REFUSED(pass, text, ...)                       \
    do {                                               \
        operands c = good;                             \
        __VA_ARGS__;                                   \
        CHECK_FAILS(pass(be, &c), CUDPO_EINVAL, text); \
        ops_check_untouched(&o, good.out);             \
        ops_check_untouched(&o, good.lse);             \
        ops_check_untouched(&o, good.dqkv);            \
    } while (0)

/* No output overlaps anything.  Tables that outputs are to overlap stand at the beginning of room for the largest. */
static void overlaps(backend *be)
{
    problem x = problem_create(&small, 52);
    ops o = ops_begin(be);
    const operands good = operands_create(&o, &x);
    const tensor room = ops_make(&o, DTYPE_I32, x.T, x.W, x.W);
    const tensor more = ops_make(&o, DTYPE_I32, x.T, x.W, x.W);
    const tensor segments = tensor_matrix(room.data, DTYPE_I32, x.N, SEGMENT_FIELDS);
    const tensor wanted = tensor_vector(more.data, DTYPE_I32, 3);
    ops_put(&o, segments, x.segments);
    ops_put(&o, wanted, (const int32_t[]){1, 4, 9});
    REFUSED(forward, "tensor_disjoint(out, qkv)", c.out.data = c.qkv.data);
    REFUSED(forward, "tensor_disjoint(lse, qkv)", c.lse.data = c.qkv.data);
    REFUSED(forward, "tensor_disjoint(out, lse)", c.lse.data = c.out.data);
    REFUSED(backward, "tensor_disjoint(dqkv, qkv)", c.qkv.data = c.dqkv.data);
    REFUSED(backward, "tensor_disjoint(dqkv, dout)", c.dout.data = c.dqkv.data);
    REFUSED(backward, "tensor_disjoint(dqkv, out)", c.out.data = c.dqkv.data);
    REFUSED(backward, "tensor_disjoint(dqkv, lse)", c.lse.data = c.dqkv.data);
    REFUSED(forward, "tensor_disjoint(out, segments)", c.segments = segments;
            c.out.data = segments.data);
    REFUSED(forward, "tensor_disjoint(lse, segments)", c.segments = segments;
            c.lse.data = segments.data);
    REFUSED(backward, "tensor_disjoint(dqkv, segments)", c.segments = segments;
            c.dqkv.data = segments.data);
    REFUSED(forward, "tensor_disjoint(out, wanted)", c.wanted = wanted; c.out.data = wanted.data);
    REFUSED(forward, "tensor_disjoint(lse, wanted)", c.wanted = wanted; c.lse.data = wanted.data);
    REFUSED(backward, "tensor_disjoint(dqkv, wanted)", c.wanted = wanted;
            c.dqkv.data = wanted.data);
    ops_end(&o);
    problem_free(&x);
}

/* Operands of another shape or type, also of fewer rows than none.  A device's launchers are asked themselves in
 * test_attention_launch.c: here, that scratch for impossible sizes is no reason to run out of memory. */
static void broken_operands(backend *be)
{
    problem x = problem_create(&small, 53);
    ops o = ops_begin(be);
    const operands good = operands_create(&o, &x);
    const bool cpu = !be->on_device;
    const char *no_pack = cpu ? "is_pack(segments, T)" : "is_i32(segments";
    const char *no_rows = cpu ? "qkv.rows >= 0" : "T >= 0 && T <= MAX_TOKENS";
    REFUSED(forward, no_rows, c.qkv.rows = -1);
    REFUSED(backward, no_rows, c.qkv.rows = -1);
    REFUSED(forward, no_pack, c.segments.rows = -1);
    REFUSED(backward, no_pack, c.segments.rows = -1);
    REFUSED(forward, no_pack, c.segments.rows = -1;
            c.qkv.rows = c.out.rows = c.lse.rows = c.wanted.rows = 0);
    REFUSED(forward, no_pack, c.segments.cols = 3);
    REFUSED(forward, no_pack, c.segments.type = DTYPE_F32);
    REFUSED(forward, cpu ? "are_wanted(wanted, T)" : "is_i32(wanted", c.wanted.rows = -3);
    REFUSED(backward, cpu ? "are_wanted(wanted, T)" : "is_i32(wanted", c.wanted.rows = -3);
    if (be->on_device) {
        REFUSED(forward, "T <= MAX_TOKENS", c.qkv.rows = INT64_MAX / 1024);
        REFUSED(backward, "T <= MAX_TOKENS", c.qkv.rows = INT64_MAX / 1024);
        REFUSED(backward, "plan_segments(plan, T) == segments.rows",
                c.segments = tensor_matrix((void *)((uintptr_t)1 << 46), DTYPE_I32, (1 << 19) + 1,
                                           SEGMENT_FIELDS)); /* where nothing else is */
    } else {
        REFUSED(forward, "is_f32(qkv, T", c.qkv.type = DTYPE_BF16);
        REFUSED(forward, "is_f32(out, T", c.out.rows--);
        REFUSED(forward, "is_f32(lse, T", c.lse.cols--);
        REFUSED(forward, "qkv.stride <= INT_MAX", c.qkv.stride = (int64_t)1 << 31);
        REFUSED(forward, "out.stride <= INT_MAX", c.out.stride = (int64_t)1 << 31);
        REFUSED(backward, "is_f32(qkv, T", c.qkv.type = DTYPE_I32);
        REFUSED(backward, "is_f32(dqkv, T", c.dqkv.cols--);
        REFUSED(backward, "is_f32(out, T", c.out.cols--);
        REFUSED(backward, "is_f32(dout, T", c.dout.rows--);
        REFUSED(backward, "is_f32(lse, T", c.lse.rows--);
        REFUSED(backward, "qkv.stride <= INT_MAX", c.qkv.stride = (int64_t)1 << 31);
        REFUSED(backward, "dqkv.stride <= INT_MAX", c.dqkv.stride = (int64_t)1 << 31);
        REFUSED(backward, "dout.stride <= INT_MAX", c.dout.stride = (int64_t)1 << 31);
        REFUSED(backward, "is_pack(segments, T)", c.segments.cols = 5);
        REFUSED(backward, "are_wanted(wanted, T)", c.wanted.type = DTYPE_F32);
    }
    CHECK_OK(forward(be, &good)); /* nothing of it was wrong before it was changed */
    CHECK_OK(backward(be, &good));
    ops_end(&o);
    problem_free(&x);
}

static const op_case cases[] = {
    {"broken_packs", broken_packs},
    {"broken_among_many", broken_among_many},
    {"broken_shapes", broken_shapes},
    {"broken_wanted", broken_wanted},
    {"no_tokens", no_tokens},
    {"overlaps", overlaps},
    {"broken_operands", broken_operands},
};
OPS_MAIN(cases)
