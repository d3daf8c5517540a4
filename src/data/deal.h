/* deal.h - which rank gets which examples of a step. */
#ifndef CUDPO_DATA_DEAL_H
#define CUDPO_DATA_DEAL_H

#include "cudpo/status.h"
#include "data/dataset.h"

#include <stdint.h>

/* What work is, in any unit: of a token in the layers, a score row in the head, a query that sees a key. */
typedef struct deal_work {
    double token, row, pair;
} deal_work;

/* The examples of a step, rank after rank: rank r has those at place[begin[r]] .. place[begin[r+1]-1] of the list, ascending. */
typedef struct deal {
    int64_t *place;   /* [n] */
    int64_t *begin;   /* [ranks+1] */
    double *load;     /* [ranks] work */
    int64_t ranks, n; /* n of at most `capacity` */
    int64_t capacity;
    struct deal_item *item; /* [capacity] */
    int64_t *heap;          /* [ranks] */
} deal;

/** Room to deal lists of at most so many.  Returns: CUDPO_OK; CUDPO_ENOMEM, *out is {0}. */
CUDPO_MUST_USE cudpo_status deal_create(deal *out, int64_t capacity, int64_t ranks);
void deal_free(deal *d);

/* Deal a list of n: what takes most work goes first, to the rank that has least (Graham 1969).  The same on every rank. */
void deal_out(deal *d, const dataset *data, const int64_t *list, int64_t n, const deal_work *work);

/* The largest load as a multiple of the mean; 1 is even. */
double deal_imbalance(const deal *d);

#endif /* CUDPO_DATA_DEAL_H */
