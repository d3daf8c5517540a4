/* ranks.h - which rank gets which examples of a step. */
#ifndef CUDPO_PLAN_RANKS_H
#define CUDPO_PLAN_RANKS_H

#include "data/dataset.h"

/* The examples of a step, rank after rank: rank r has example[begin[r]] .. example[begin[r+1]-1]. */
typedef struct deal {
    int64_t *example; /* [n] */
    int64_t *begin;   /* [ranks+1] */
    int64_t *tokens;  /* [ranks] */
    int64_t ranks;
} deal;

/** Deal a list by tokens: the longest group goes to the rank that has least (Graham 1969).  One rank keeps the list's order.
 *  Returns: CUDPO_OK; CUDPO_ENOMEM, *out is {0}. */
CUDPO_MUST_USE cudpo_status deal_create(deal *out, const dataset *d, const int64_t *list, int64_t n,
                                        int64_t ranks);
void deal_free(deal *d);

#endif /* CUDPO_PLAN_RANKS_H */
