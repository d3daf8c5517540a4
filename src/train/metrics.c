/* metrics.c - TRL's definitions of its metrics.  Source: trl/trainer/dpo_trainer.py, kto_trainer.py,
 * trl/experimental/orpo/orpo_trainer.py of TRL 1.16. */
#include "train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const metrics_names[METRICS] = {
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
    "mean_token_accuracy",
    "entropy",
    "kl",
    "nll_loss",
    "log_odds_chosen",
    "log_odds_ratio",
};

/* Unit g of results whose sequences have that many score rows. */
static void take(unit_result *u, int64_t g, const pass *p, const float *columns, const float *score,
                 const float *sums)
{
    const int n = p->sequences, completions = p->limits.completions;
    memcpy(u->column, columns + g * LOSS_COLUMNS, sizeof u->column);
    for (int i = 0; i < n; i++) {
        const int place = i < completions ? i : LOSS_MAX_SEQUENCES - 1; /* as in loss_unit */
        const int64_t s = g * n + i;
        u->score[place] = score[s];
        memcpy(u->sums[place], sums + s * ROW_STATS, sizeof u->sums[place]);
    }
}

static void take_rows(unit_result *u, const pass *p, int i, int32_t rows)
{
    u->rows[i < p->limits.completions ? i : LOSS_MAX_SEQUENCES - 1] = rows;
}

void metrics_take(unit_result *units, const pass *p)
{
    const int32_t *begin = p->pack.sequence_begin;
    for (int64_t g = 0; g < p->pack.G; g++) {
        take(&units[g], g, p, p->columns, p->score, p->sums);
        for (int64_t i = 0, s = g * p->sequences; i < p->sequences; i++, s++)
            take_rows(&units[g], p, (int)i, begin[s + 1] - begin[s]);
    }
}

void metrics_take_results(unit_result *units, int64_t n, const pass *p, const pass_results *r)
{
    for (int64_t g = 0; g < n; g++) {
        take(&units[g], g, p, r->columns, r->score, r->sums);
        for (int i = 0; i < p->sequences; i++)
            take_rows(&units[g], p, i, r->rows[g * p->sequences + i]);
    }
}

/* A running mean. */
typedef struct mean {
    double sum, count;
} mean;

static void add(mean *m, double value, double count)
{
    m->sum += value;
    m->count += count;
}

static double result(const mean *m)
{
    return m->count > 0.0 ? m->sum / m->count : NAN;
}

/* Pairs: everything is known of both completions. */
static void pair_metrics(mean *m, const unit_result *u, bool rewards)
{
    const double chosen = u->column[LOSS_REWARD_CHOSEN], rejected = u->column[LOSS_REWARD_REJECTED];
    if (rewards) {
        add(&m[METRIC_REWARDS_CHOSEN], chosen, 1);
        add(&m[METRIC_REWARDS_REJECTED], rejected, 1);
        add(&m[METRIC_REWARDS_ACCURACIES], chosen > rejected, 1);
        add(&m[METRIC_REWARDS_MARGINS], chosen - rejected, 1);
    }
    add(&m[METRIC_LOGPS_REJECTED], u->score[1], 1);
    add(&m[METRIC_LOGITS_REJECTED], u->sums[1][STAT_MEAN_LOGIT], u->rows[1]);
    add(&m[METRIC_ENTROPY], u->sums[1][STAT_ENTROPY], u->rows[1]);
}

/* Labelled rows: each counts as chosen or as rejected. */
static void label_metrics(mean *m, const unit_result *u)
{
    const bool chosen = u->label;
    add(&m[chosen ? METRIC_REWARDS_CHOSEN : METRIC_REWARDS_REJECTED], u->column[LOSS_REWARD_CHOSEN],
        1);
    add(&m[chosen ? METRIC_LOGPS_CHOSEN : METRIC_LOGPS_REJECTED], u->score[0], 1);
    add(&m[chosen ? METRIC_LOGITS_CHOSEN : METRIC_LOGITS_REJECTED], u->sums[0][STAT_MEAN_LOGIT],
        u->rows[0]);
    add(&m[METRIC_KL], u->kl, 1);
}

batch_metrics metrics_of(const unit_result *units, int64_t n, loss_kind loss, int completions,
                         bool rewards)
{
    mean m[METRICS] = {{0}};
    double loss_sum = 0.0, nll = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const unit_result *u = &units[i];
        loss_sum += u->column[LOSS_VALUE];
        nll += u->column[LOSS_NLL];
        add(&m[METRIC_ENTROPY], u->sums[0][STAT_ENTROPY], u->rows[0]);
        if (loss == LOSS_KTO) {
            label_metrics(m, u);
            continue;
        }
        /* ORPO reports log-probs per token, the others sums. */
        const double tokens = loss == LOSS_ORPO ? u->rows[0] : 1,
                     other = loss == LOSS_ORPO ? u->rows[1] : 1;
        add(&m[METRIC_LOGPS_CHOSEN], u->score[0] / tokens, 1);
        add(&m[METRIC_LOGITS_CHOSEN], u->sums[0][STAT_MEAN_LOGIT], u->rows[0]);
        add(&m[METRIC_MEAN_TOKEN_ACCURACY], u->sums[0][STAT_HIT], u->rows[0]);
        if (completions == 2) {
            pair_metrics(m, u, rewards || loss == LOSS_ORPO); /* its rewards need no reference */
            if (loss == LOSS_ORPO)
                m[METRIC_LOGPS_REJECTED].sum += u->score[1] / other - u->score[1];
        }
        if (loss == LOSS_ORPO) {
            add(&m[METRIC_LOG_ODDS_CHOSEN], u->column[LOSS_LOG_ODDS], 1);
            add(&m[METRIC_LOG_ODDS_RATIO], u->column[LOSS_LOG_ODDS_RATIO], 1);
        }
    }
    batch_metrics b;
    for (int i = 0; i < METRICS; i++)
        b.value[i] = result(&m[i]);
    b.value[METRIC_LOSS] = loss_sum; /* the units' shares hold their weights */
    if (loss == LOSS_ORPO) b.value[METRIC_NLL_LOSS] = nll;
    if (loss == LOSS_KTO)
        b.value[METRIC_REWARDS_MARGINS] =
            b.value[METRIC_REWARDS_CHOSEN] - b.value[METRIC_REWARDS_REJECTED];
    return b;
}

void metrics_add(metric_sums *s, const batch_metrics *m, double weight)
{
    for (int i = 0; i < METRICS; i++) {
        /* A NaN loss must show; elsewhere NaN means that there is no value. */
        if (isnan(m->value[i]) && i != METRIC_LOSS) continue;
        s->sum[i] += weight * m->value[i];
        s->count[i] += weight;
    }
}

void metrics_add_step(metric_sums *s, const batch_metrics *step, const unit_result *units,
                      int64_t n, int64_t size, loss_kind loss, int completions, bool rewards)
{
    batch_metrics shares;
    for (int i = 0; i < METRICS; i++)
        shares.value[i] = i == METRIC_LOSS || i == METRIC_NLL_LOSS ? step->value[i] : NAN;
    metrics_add(s, &shares, 1.0);
    for (int64_t first = 0; first < n; first += size) {
        const int64_t rest = n - first;
        const batch_metrics b =
            metrics_of(units + first, rest < size ? rest : size, loss, completions, rewards);
        for (int i = 0; i < METRICS; i++) {
            if (i == METRIC_LOSS || i == METRIC_NLL_LOSS || isnan(b.value[i])) continue;
            s->sum[i] += b.value[i];
            s->count[i] += 1.0;
        }
    }
}

int64_t metrics_mean(metric *out, char (*text)[METRIC_NAME], const metric_sums *s,
                     const char *prefix)
{
    int64_t n = 0;
    for (int i = 0; i < METRICS; i++) {
        if (s->count[i] <= 0.0) continue;
        snprintf(text[n], METRIC_NAME, "%s%s", prefix, metrics_names[i]);
        out[n] = (metric){text[n], s->sum[i] / s->count[i]};
        n++;
    }
    return n;
}
