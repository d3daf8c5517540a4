/* check.c - a step that went wrong says so before it touches the weights. */
#include "base/buffer.h"
#include "train/trainer.h"

#include <math.h>
#include <time.h>

/* "rows 3, 17, 4, ..." of the data file, at most eight. */
static void name_rows(buffer *text, const cudpo_trainer *t, const step_batch *b)
{
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < b->n && i < 8 && status == CUDPO_OK; i++)
        status = buffer_printf(text, "%s%lld", i == 0 ? "" : ", ",
                               (long long)dataset_get(t->train.data, b->example[i]).row);
    if (b->n > 8 && status == CUDPO_OK)
        status = buffer_printf(text, ", ... (%lld in all)", (long long)b->n);
    (void)status; /* a shorter list is all that a lack of memory costs */
}

/* Of several ranks, which all see the same norm, the one whose rows they are says more: it gets a moment to do so. */
static cudpo_status hear_others(const cudpo_trainer *t)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int i = 0; i < 100; i++) {
        CUDPO_TRY(ranks_status(t->ranks));
        nanosleep(&pause, NULL);
    }
    return CUDPO_OK;
}

cudpo_status trainer_check_finite(const cudpo_trainer *t, const step_batch *b, int64_t step,
                                  double loss, double norm)
{
    if (isfinite(loss) && isfinite(norm)) return CUDPO_OK;
    buffer rows = {0};
    /* Where single units are not finite, they are the culprits. */
    step_batch culprits = *b;
    int64_t named[8];
    int64_t n = 0;
    for (int64_t i = 0; i < b->n && n < 8; i++)
        if (!isfinite(t->units[i].column[LOSS_VALUE])) named[n++] = b->example[i];
    const bool several = t->ranks->place.size > 1;
    if (n > 0) {
        culprits.example = named;
        culprits.n = n;
    } else if (several) {
        CUDPO_TRY(hear_others(t));
    }
    if (n > 0 || !several) name_rows(&rows, t, &culprits);
    const cudpo_status status =
        cudpo_fail(CUDPO_ENUMERIC, t->config->train_dataset,
                   "step %lld: loss %g, gradient norm %g, at %s%s; the weights are those before "
                   "this step: lower "
                   "learning_rate or max_grad_norm, or look at these rows",
                   (long long)(step + 1), loss, norm, rows.data == NULL ? "" : "rows ",
                   rows.data == NULL ? "no single row" : rows.data);
    buffer_free(&rows);
    return status;
}

cudpo_status trainer_check_evaluation(const cudpo_trainer *t, const int64_t *list, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double loss = t->units[i].column[LOSS_VALUE];
        if (!isfinite(loss))
            return cudpo_fail(CUDPO_ENUMERIC, t->config->eval_dataset, "row %lld: the loss is %g",
                              (long long)dataset_get(t->eval.data, list[i]).row, loss);
    }
    return CUDPO_OK;
}

cudpo_status trainer_check_weights(const cudpo_trainer *t)
{
    double norm;
    CUDPO_TRY(optimizer_norm(
        &norm, t->be, tensor_present(t->master.all) && !t->zero ? t->master.all : t->policy.all));
    if (isfinite(norm)) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, t->config->output_dir,
                      "step %lld made weights that are no numbers: lower learning_rate; they are "
                      "not saved",
                      (long long)t->step);
}

/* Nats by which the policy's score of so many rows may differ from the reference's, which are the same weights.  A
 * resident one runs the same ops on the same pack: bit for bit the same.  Cached scores may come from packs of another
 * shape, whose sums differ in the last bits: float32 rounds at 6e-5 near -1000 nats.  In bfloat16 such bits decide how
 * activations are rounded, each by up to 2^-8 of itself: a row's logits, of sizes up to some 16, by 2^-4, and rows add up
 * as the root of their number. */
static double tolerance_of(const cudpo_trainer *t, int32_t rows)
{
    if (t->train.cache == NULL) return 0.0;
    return 1e-3 + (t->type == DTYPE_BF16 ? sqrt((double)rows) / 16.0 : 0.0);
}

cudpo_status trainer_check_start(const cudpo_trainer *t, const step_batch *b, double loss)
{
    if (!t->reference_is_policy || !t->rewards) return CUDPO_OK;
    const loss_parameters p = trainer_loss_parameters(t, b->unit_scale, b->token_scale);
    double expected = 0.0; /* of rewards as they are: near 0 */
    for (int64_t i = 0; i < b->n; i++) {
        const unit_result *u = &t->units[i];
        const double reward[] = {(double)u->column[LOSS_REWARD_CHOSEN],
                                 (double)u->column[LOSS_REWARD_REJECTED]};
        loss_unit start = {.label = u->label, .kl = t->train.cache == NULL ? 0.0 : (double)u->kl};
        bool same = true;
        for (int k = 0; k < LOSS_MAX_SEQUENCES; k++) {
            start.policy[k] = start.reference[k] = u->score[k];
            start.tokens[k] = u->rows[k];
            if (k >= 2) continue;
            start.reference[k] -= reward[k] / p.beta;
            same = same && fabs(reward[k]) <= p.beta * tolerance_of(t, u->rows[k]);
        }
        loss_result r;
        loss_unit_evaluate(&r, &start, &p);
        expected += r.column[LOSS_VALUE];
        if (same) continue;
        return cudpo_fail(CUDPO_ENUMERIC, "self-check of step 0",
                          "policy and reference are the same weights, yet row %lld has rewards %g "
                          "and %g instead of 0: "
                          "the two passes differ, so no number of this run could be trusted",
                          (long long)dataset_get(t->train.data, b->example[i]).row, reward[0],
                          reward[1]);
    }
    /* A token that is not scored counts for ipo, but not here: with rewards that are not 0 that shows. */
    const double relative = t->train.cache == NULL ? 1e-5 : 1e-3;
    if (fabs(loss - expected) <= relative * fmax(1.0, fabs(expected))) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, "self-check of step 0", "loss %.9g instead of %.9g", loss,
                      expected);
}
