/* test_refusals.h - an op must refuse each of its operands that is wrong in type, shape, address or place, by a message that
 * names it.  Broken one at a time, so that a condition which is missing from the contract shows: then the op succeeds. */
#ifndef CUDPO_TEST_REFUSALS_H
#define CUDPO_TEST_REFUSALS_H

#include "test_ops.h"
#ifdef TEST_CUDA
#include "backend/cuda/ops.h"
#endif

/* What an operand is, and what is not wrong with it. */
enum {
    OUTPUT = 1,    /* written: nothing else may overlap it */
    OPTIONAL = 2,  /* may be absent */
    ANY_ROWS = 4,  /* others follow it; less than none are wrong */
    ANY_COLS = 8,  /* others follow it; none are wrong */
    ANY_FLOAT = 16 /* bf16 too */
};

typedef struct operand {
    const char *name;  /* in the contract */
    tensor *t;         /* where the call takes it from */
    const char *check; /* what the message holds where its type or shape is wrong */
    unsigned traits;
} operand;

typedef struct refusals {
    ops *o;
    cudpo_status (*call)(backend *be, const void *arguments);
    const void *arguments;
    const operand *operands;
    int count;
} refusals;

/* The call is refused with one of the texts. */
static inline void refusals_check(const refusals *r, const char *name, const char *how,
                                  const char *text, const char *other)
{
    cudpo_error_clear();
    const cudpo_status status = r->call(r->o->be, r->arguments);
    const char *message = cudpo_error_message();
    if (status != CUDPO_EINVAL || (strstr(message, text) == NULL && strstr(message, other) == NULL))
        fail_msg("%s: %s: status %d, \"%s\", not refused with \"%s\"", name, how, (int)status,
                 message, text);
    cudpo_error_clear();
}

static inline void refusals_of_types(const refusals *r, const operand *p)
{
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_F64};
    const tensor old = *p->t;
    for (int i = 0; i < 5; i++) {
        if (types[i] == old.type || (types[i] == DTYPE_BF16 && p->traits & ANY_FLOAT)) continue;
        p->t->type = types[i];
        refusals_check(r, p->name, dtype_name(types[i]), p->check, p->check);
        *p->t = old;
    }
}

static inline void refusals_of_shapes(const refusals *r, const operand *p)
{
    const tensor old = *p->t;
    p->t->rows = p->traits & ANY_ROWS ? -1 : old.rows + 1;
    refusals_check(r, p->name, "rows", p->check, p->check);
    *p->t = old;
    p->t->cols = p->traits & ANY_COLS ? 0 : old.cols + 1;
    p->t->stride = old.stride + 1;
    refusals_check(r, p->name, "columns", p->check, p->check);
    *p->t = old;
    p->t->stride = old.cols - 1;
    refusals_check(r, p->name, "stride", p->check, p->check);
    *p->t = old;
    if (p->traits & OPTIONAL) return;
    p->t->data = NULL;
    refusals_check(r, p->name, "absent", p->check, p->check);
    *p->t = old;
}

/* What only the kernels mind: elements off their boundaries, more of them than 64 bits count. */
static inline void refusals_of_addresses(const refusals *r, const operand *p)
{
    const tensor old = *p->t;
    if (!r->o->be->on_device) return;
    for (int shift = 1; shift < (int)dtype_size(old.type); shift++) {
        p->t->data = (char *)old.data + shift;
        refusals_check(r, p->name, "address", p->check, p->check);
    }
    *p->t = old;
    p->t->stride = INT64_MAX / 8;
    refusals_check(r, p->name, "bytes", p->check, p->check);
    *p->t = old;
}

/* Each output overlaps each other operand, by one element less than all: not even where they may be the same. */
static inline void refusals_of_overlaps(const refusals *r)
{
    for (int i = 0; i < r->count; i++) {
        for (int j = 0; j < r->count; j++) {
            const operand *p = &r->operands[i], *q = &r->operands[j];
            const bool both = p->traits & q->traits & OUTPUT;
            char text[160], other[160];
            if (!(p->traits & OUTPUT) || i == j || (both && j < i)) continue;
            if (!tensor_present(*p->t) || !tensor_present(*q->t)) continue;
            const tensor old = *p->t;
            const size_t shift = tensor_elements(*q->t) > 1 ? dtype_size(q->t->type) : 0;
            p->t->data = (char *)q->t->data + shift;
            snprintf(text, sizeof text, "tensor_disjoint(%s, %s)", p->name, q->name);
            snprintf(other, sizeof other, "tensor_disjoint(%s, %s)", q->name, p->name);
            refusals_check(r, p->name, "overlap", text, other);
            *p->t = old;
        }
    }
}

/* All of it, and that no output was written. */
static inline void check_refusals(const refusals *r)
{
    for (int i = 0; i < r->count; i++) {
        if (!tensor_present(*r->operands[i].t)) continue;
        refusals_of_types(r, &r->operands[i]);
        refusals_of_shapes(r, &r->operands[i]);
        refusals_of_addresses(r, &r->operands[i]);
    }
    refusals_of_overlaps(r);
    for (int i = 0; i < r->count; i++) {
        const operand *p = &r->operands[i];
        if (p->traits & OUTPUT && tensor_present(*p->t)) ops_check_untouched(r->o, *p->t);
    }
}

#endif /* CUDPO_TEST_REFUSALS_H */
