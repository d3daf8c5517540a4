/* check.c - a step that went wrong says so before it touches the weights. */
#include "base/buffer.h"
#include "train/trainer.h"

#include <math.h>

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
    if (n > 0) {
        culprits.example = named;
        culprits.n = n;
    }
    name_rows(&rows, t, &culprits);
    const cudpo_status status =
        cudpo_fail(CUDPO_ENUMERIC, t->config->train_dataset,
                   "step %lld: loss %g, gradient norm %g, at rows %s; the weights are those before "
                   "this step: lower "
                   "learning_rate or max_grad_norm, or look at these rows",
                   (long long)(step + 1), loss, norm, rows.data == NULL ? "?" : rows.data);
    buffer_free(&rows);
    return status;
}

cudpo_status trainer_check_faults(const cudpo_trainer *t)
{
    uint32_t bits = 0;
    CUDPO_TRY(t->be->faults(t->be, &bits));
    bits &= ~(uint32_t)FAULT_NONFINITE; /* a gradient that is no number has been looked at */
    if (bits == 0) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDEVICE, t->be->name,
                      "an op was given%s%s%s%s out of range: a bug of cudpo, no result can be "
                      "trusted",
                      bits & FAULT_TOKEN ? " tokens" : "", bits & FAULT_LABEL ? " labels" : "",
                      bits & FAULT_INDEX ? " indices" : "",
                      bits & FAULT_SEGMENT ? " segments" : "");
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
    CUDPO_TRY(optimizer_norm(&norm, t->be,
                             tensor_present(t->master.all) ? t->master.all : t->policy.all));
    if (isfinite(norm)) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, t->config->output_dir,
                      "step %lld made weights that are no numbers: lower learning_rate; they are "
                      "not saved",
                      (long long)t->step);
}

cudpo_status trainer_check_start(const cudpo_trainer *t, const step_batch *b, double loss)
{
    if (!t->reference_is_policy || !t->rewards) return CUDPO_OK;
    const loss_parameters p = trainer_loss_parameters(t, b->unit_scale, b->token_scale);
    /* A resident reference runs the same ops on the same pack: bit for bit the same.  Cached scores may come from packs
     * of another shape, whose sums differ in the last bits: float32 rounds at 6e-5 near -1000 nats. */
    const double tolerance = t->train.cache == NULL ? 0.0 : 1e-3 * t->config->beta;
    double expected = 0.0;
    for (int64_t i = 0; i < b->n; i++) {
        const unit_result *u = &t->units[i];
        loss_unit start = {.label = u->label, .kl = 0.0};
        for (int k = 0; k < LOSS_MAX_SEQUENCES; k++) {
            start.policy[k] = start.reference[k] = u->score[k];
            start.tokens[k] = u->rows[k];
        }
        loss_result r;
        loss_unit_evaluate(&r, &start, &p);
        expected += r.column[LOSS_VALUE];
        if (fabs((double)u->column[LOSS_REWARD_CHOSEN]) <= tolerance &&
            fabs((double)u->column[LOSS_REWARD_REJECTED]) <= tolerance)
            continue;
        return cudpo_fail(CUDPO_ENUMERIC, "self-check of step 0",
                          "policy and reference are the same weights, yet row %lld has rewards %g "
                          "and %g instead of 0: "
                          "the two passes differ, so no number of this run could be trusted",
                          (long long)dataset_get(t->train.data, b->example[i]).row,
                          (double)u->column[LOSS_REWARD_CHOSEN],
                          (double)u->column[LOSS_REWARD_REJECTED]);
    }
    if (fabs(loss - expected) <= 1e-5 * fmax(1.0, fabs(expected)) + tolerance) return CUDPO_OK;
    return cudpo_fail(CUDPO_ENUMERIC, "self-check of step 0", "loss %.9g instead of %.9g", loss,
                      expected);
}
