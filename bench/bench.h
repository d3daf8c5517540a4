/* bench.h - how one op is measured: its operands, its call, what the call moves and computes, and the obvious way to do it.
 *
 * A case is an op at one shape, filled by make(); its operands exist once on the host, and on the device as often as it
 * takes for more than twice the largest cache.  One file an op, bench_<op>.c; bench_ops.c lists them. */
#ifndef CUDPO_BENCH_BENCH_H
#define CUDPO_BENCH_BENCH_H

#include "backend/backend.h"
#include "model/config.h"

/* What shapes follow from: a model, and a pack of `groups` prompts with two completions each, all of `length` tokens. */
typedef struct bench_shape {
    const char *name; /* of the model */
    model_config model;
    int64_t groups, length;
    int64_t tokens; /* T = 3 groups length */
    int64_t rows;   /* score rows of one group: 2 length - 1 hidden rows, 2 length scores */
    dtype type;     /* of activations and weights */
} bench_shape;

typedef enum bench_role {
    BENCH_IN,
    BENCH_OUT,
    BENCH_INOUT, /* as it was before each call */
    BENCH_WORK   /* of plain() alone */
} bench_role;

enum { BENCH_OPERANDS = 24, BENCH_TEXT = 96 };

typedef struct bench_operand {
    bench_role role;
    dtype type; /* on a device; a CPU has bf16 as f32 */
    int64_t rows, cols;
    float *value;   /* [rows,cols] on the host, rounded to the type; NULL of what is not read */
    int32_t *index; /* the same of i32 */
    double terms;   /* of an output: how many terms each element is a sum of, for its rounding */
} bench_operand;

typedef struct bench_op bench_op;

/* An op at a shape. */
typedef struct bench_case {
    const bench_op *op;
    const bench_shape *shape;
    char text[BENCH_TEXT]; /* the shape, for people and as a key */
    dtype type;
    double bytes, flops; /* of a call, by formula; flops 0: bound by memory */
    bench_operand operand[BENCH_OPERANDS];
    int count;
    attention_shape attention;
    double number[4]; /* what make() leaves for call() */
    int32_t ranks;    /* that do it together, for collective.h; 0: it is an op of one */
    int64_t elements; /* of such a collective's tensor */
    bool rounded;     /* in between to the type of activations, as attention's probabilities are */
} bench_case;

/* The operands of a case in a backend's memory: one of the sets. */
typedef struct bench_run {
    backend *be;
    const bench_case *c;
    tensor t[BENCH_OPERANDS];
    double value; /* of an op that gives a number to the host */
} bench_run;

/* A line of the table.  make() leaves text empty where a model has no such op. */
struct bench_op {
    const char *op, *pass; /* pass: "forward", "backward", or "" */
    int variant;
    cudpo_status (*make)(bench_case *c, const bench_shape *s);
    cudpo_status (*call)(bench_run *r);
    /* The op in single stages: same outputs, each of its intermediate results through memory; NULL: it is one stage. */
    cudpo_status (*plain)(bench_run *r);
    /* How many elements of the outputs got [count] are wrong, in double from the operands; NULL: the CPU's op is the judge of
     * a device, and plain() of the CPU. */
    int64_t (*wrong)(const bench_case *c, float *const *got, double value);
};

extern const bench_op *const bench_ops[];
extern const int bench_op_count;

/** Add an operand of random numbers of about that deviation, rounded to the type; of BENCH_OUT and BENCH_WORK nothing is
 *  there to be read.  Returns: its index; a case that has too many, or no memory, fails in bench_case_check(). */
int bench_add(bench_case *c, bench_role role, dtype type, int64_t rows, int64_t cols, float scale);
/** The same of whole numbers 0 .. below - 1. */
int bench_add_index(bench_case *c, int64_t n, int64_t below);
/** An output of sums of that many terms. */
int bench_add_sum(bench_case *c, bench_role role, dtype type, int64_t rows, int64_t cols,
                  double terms);
/** The segments of the shape's pack, or positions of its tokens. */
int bench_add_segments(bench_case *c, const bench_shape *s);
int bench_add_positions(bench_case *c, const bench_shape *s);

cudpo_status bench_case_check(const bench_case *c);
void bench_case_free(bench_case *c);

static inline double bench_element(dtype type)
{
    return (double)dtype_size(type);
}

#endif /* CUDPO_BENCH_BENCH_H */
