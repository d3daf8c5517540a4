/* metrics.h - from the units of a batch to TRL's metrics, and their means between two log lines. */
#ifndef CUDPO_TRAIN_METRICS_H
#define CUDPO_TRAIN_METRICS_H

#include "preference/loss.h"
#include "train/pass.h"
#include "train/sink.h"

#include <stdbool.h>
#include <stdint.h>

/* What a pass leaves of one unit. */
typedef struct unit_result {
    float column[LOSS_COLUMNS];
    float score[LOSS_MAX_SEQUENCES];
    float sums[LOSS_MAX_SEQUENCES][ROW_STATS];
    int32_t rows[LOSS_MAX_SEQUENCES]; /* score rows of each sequence */
    bool label;
    float kl; /* of its device batch (kto) */
} unit_result;

/* Copy the units of the pack that was just run; of n units whose results lie in `r`. */
void metrics_take(unit_result *units, const pass *p);
void metrics_take_results(unit_result *units, int64_t n, const pass *p, const pass_results *r);

/* What is logged.  TRL's names: metrics_names[]. */
enum {
    METRIC_LOSS,
    METRIC_REWARDS_CHOSEN,
    METRIC_REWARDS_REJECTED,
    METRIC_REWARDS_ACCURACIES,
    METRIC_REWARDS_MARGINS,
    METRIC_LOGPS_CHOSEN,
    METRIC_LOGPS_REJECTED,
    METRIC_LOGITS_CHOSEN,
    METRIC_LOGITS_REJECTED,
    METRIC_MEAN_TOKEN_ACCURACY,
    METRIC_ENTROPY,
    METRIC_KL,
    METRIC_NLL_LOSS,
    METRIC_LOG_ODDS_CHOSEN,
    METRIC_LOG_ODDS_RATIO,
    METRICS
};
extern const char *const metrics_names[METRICS];

/* NaN where a batch has no such value: a loss without rewards, a labelled batch without desirable rows. */
typedef struct batch_metrics {
    double value[METRICS];
} batch_metrics;

/* Metrics of n units, which were one batch: sums in order, so that they do not depend on how it was packed.
 * In:  completions  of a unit;  rewards  whether a reference was there. */
batch_metrics metrics_of(const unit_result *units, int64_t n, loss_kind loss, int completions,
                         bool rewards);

/* Sums of batch metrics since the last log. */
typedef struct metric_sums {
    double sum[METRICS], count[METRICS];
} metric_sums;

void metrics_add(metric_sums *s, const batch_metrics *m, double weight);

/* Add an optimizer step of n units.  As in TRL, what is a share of the step's loss counts once a step, and every other
 * metric once for each micro-batch of `size` units. */
void metrics_add_step(metric_sums *s, const batch_metrics *step, const unit_result *units,
                      int64_t n, int64_t size, loss_kind loss, int completions, bool rewards);

/* Means, left out where nothing was added, with `prefix` ("" or "eval_") before each name: names are written to `text`,
 * which must live as long as `out`. */
enum { METRIC_NAME = 48 };
int64_t metrics_mean(metric *out, char (*text)[METRIC_NAME], const metric_sums *s,
                     const char *prefix);

#endif /* CUDPO_TRAIN_METRICS_H */
