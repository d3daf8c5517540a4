/* plan.h - a run, planned: what it takes, how long its steps are, and how that changes with the number of GPUs. */
#ifndef CUDPO_PLAN_PLAN_H
#define CUDPO_PLAN_PLAN_H

#include "base/buffer.h"
#include "cudpo/plan.h"
#include "plan/cost.h"
#include "plan/network.h"
#include "train/memory.h"

enum {
    PLAN_GPUS = 4096, /* most */
    PLAN_SIZES = 13,  /* 1, 2, 4, .. 4096 */
    PLAN_NODE = 8,    /* GPUs of a node, where nobody says otherwise */
    PLAN_REMEDIES = MEMORY_REMEDIES + 1,
    PLAN_ASSUMPTIONS = 16
};

/* What keeps a number of GPUs from being that many times as fast as one. */
typedef enum plan_limit {
    LIMIT_NONE, /* 95 % or more */
    LIMIT_BATCH, /* too few pairs for each: packs that are small, ranks without any, the update of all weights */
    LIMIT_NETWORK, /* gradients that computation does not hide */
    LIMIT_CORES,   /* ranks of a CPU that share those of a machine */
    LIMIT_DATA, /* less than a batch of it, which dataloader_drop_last drops: such a run is refused */
    LIMIT_RANKS, /* more than can share out moments (zero_stage 1): refused, too */
    LIMIT_MEMORY /* it does not fit */
} plan_limit;

const char *plan_limit_name(plan_limit limit);

/* Steps of some number of pairs on some number of GPUs: means over the steps that were looked at. */
typedef struct plan_point {
    network net;
    int64_t pairs; /* of a step; KTO and SFT: rows */
    int64_t taken; /* of them, what the data has */
    int64_t
        steps; /* of the whole run; 0: `limit` says why, and of the rest memory alone is known */
    device_rates rates; /* of each rank */
    cost slowest; /* of the rank that the others wait for; its update is in pass[WORK_OPTIMIZER] */
    network_time network;
    double step;                          /* seconds */
    double seconds;                       /* of all steps */
    double precompute, evaluation, total; /* seconds: once, of all evaluations, of everything */
    double imbalance;                     /* most tokens of a rank over the mean, 1 at best */
    double packs;                         /* of a step, over all ranks */
    double tokens;                        /* of a step through the trunk, over all ranks */
    double fill;                          /* tokens of a pack over what it could hold */
    double useful;                        /* operations of a step: work_useful(), over all ranks */
    double reference; /* seconds that the reference's pass over the pairs of a step takes one GPU */
    double efficiency; /* pairs a second over those of as many single GPUs */
    memory_forecast memory;
    bool fits;
    plan_limit limit;
} plan_point;

/* Settings, and what the run takes with them. */
typedef struct plan_remedy {
    char settings[256]; /* as on a command line */
    size_t bytes;       /* with the program's */
    bool fits;
} plan_remedy;

typedef struct plan {
    const cudpo_config *config;
    cudpo_plan_options options; /* with defaults filled in */
    const gpu_facts *gpu;
    device_rates rates;
    bool calibrated;
    char assumption[PLAN_ASSUMPTIONS][RATE_SENTENCE];
    int assumptions;
    backend be;
    cudpo_trainer *t;
    int64_t *order; /* [count] of the first epoch */
    double tokens;  /* of all examples through the trunk */
    work_types types;
    bool reference;                 /* is computed in each step */
    int64_t node;                   /* GPUs of each */
    size_t machine;                 /* bytes of a CPU's */
    size_t program;                 /* of them, of each process beside what is forecast */
    plan_point now;                 /* as asked for */
    plan_point same[PLAN_SIZES];    /* the step's pairs as asked for, on 1, 2, 4, .. GPUs */
    plan_point growing[PLAN_SIZES]; /* the pairs of each GPU as asked for */
    plan_remedy remedy[PLAN_REMEDIES];
    int remedies;
} plan;

/** Plan a run.  Free with plan_free(), also where this failed.  Returns: see cudpo_plan(). */
CUDPO_MUST_USE cudpo_status plan_open(plan *p, const cudpo_config *config,
                                      const cudpo_plan_options *o);
void plan_free(plan *p);

/* ---- point.c ---- */

/** Steps of batches of so many pairs, of all GPUs together.  In: p  up to its order.  Out: all of `point` but its efficiency and,
 *  where there is such a run, limit; the trainer's pack is as large as on a GPU of these. */
CUDPO_MUST_USE cudpo_status plan_step(plan_point *point, plan *p, int64_t batch, network net);

/** What the run of p's trainer takes beside the program.  Out: fits.  Returns: CUDPO_OK, also where it does not fit. */
CUDPO_MUST_USE cudpo_status plan_memory(memory_forecast *m, bool *fits, const plan *p);

/** Mean cost of the steps first .. first+n-1 of the run on one device, one by one, as they are: for tests. */
CUDPO_MUST_USE cudpo_status plan_steps_exactly(double seconds[], plan *p, int64_t first, int64_t n);

/* GPUs that cost money: of a CPU, machines. */
int64_t plan_devices(const plan *p, const network *net);

/* ---- report.c ---- */

CUDPO_MUST_USE cudpo_status plan_text(buffer *b, const plan *p);
CUDPO_MUST_USE cudpo_status plan_json(buffer *b, const plan *p);

#endif /* CUDPO_PLAN_PLAN_H */
