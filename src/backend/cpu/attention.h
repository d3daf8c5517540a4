/* attention.h - attention of a few queries of one head to runs of keys: what a pack and a cache have in common. */
#ifndef CUDPO_BACKEND_CPU_ATTENTION_H
#define CUDPO_BACKEND_CPU_ATTENTION_H

#include "backend/backend.h"

/* QUERIES x KEYS scores stay in the second cache, and are what one BLAS call works on. */
enum { QUERIES = 64, KEYS = 256 };

/* Consecutive keys and values of one head; the position of key i is position + i. */
typedef struct key_run {
    const float *k, *v; /* [length, head_dim], rows k_stride and v_stride apart */
    int64_t k_stride, v_stride, length, position;
} key_run;

/* Queries of one head or, with position_step 0, of several heads at one position. */
typedef struct query_tile {
    float *out;     /* [rows, head_dim] */
    float *lse;     /* [rows] log-sum-exp of the scaled scores; NULL: not wanted */
    const float *q; /* [rows, head_dim] */
    int64_t out_stride, lse_stride, q_stride;
    int64_t rows; /* at most QUERIES */
    int64_t position, position_step;
} query_tile;

/* A range of keys of a run, as offsets from its first: begin <= end. */
typedef struct key_range {
    int64_t begin, end;
} key_range;

/* The keys, out of `length` from position `position` on, that a query at `query` sees: those 0 <= d < window positions
 * back, or all before it where window is 0. */
key_range attention_visible(int64_t query, int64_t position, int64_t length, int64_t window);

/* out = softmax(scale * q k^T) v over the visible keys of all runs; every query must see one. */
void attention_forward_tile(const query_tile *tile, const key_run *run, int runs,
                            const attention_shape *shape);

/* Scores s [n] outside of the range become -inf, and so do those behind it up to a whole number of vectors, which is
 * returned: KEYS of room is enough. */
int64_t attention_mask(float *s, key_range visible, int64_t n);

/* s [n] = e^(s - m); returns the sum, in double. */
double attention_exponentials(float *s, float m, int64_t n);

bool attention_shape_valid(const attention_shape *shape);

#endif /* CUDPO_BACKEND_CPU_ATTENTION_H */
