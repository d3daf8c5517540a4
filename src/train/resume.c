/* resume.c - the trainer's state to a checkpoint and back. */
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

/* What must be the same for a resumed run to be the run that was interrupted. */
static cudpo_status fingerprint(const cudpo_trainer *t, hash128 *out)
{
    const cudpo_config *c = t->config;
    const hash128 data = dataset_fingerprint(t->train.data);
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add(h, &data, sizeof data);
    hash_add_string(h, c->loss_type);
    hash_add_int(h, t->policy.all.rows);
    hash_add_int(h, t->total_steps);
    hash_add_int(h, c->per_device_train_batch_size * c->gradient_accumulation_steps);
    hash_add_int(h, c->data_seed >= 0 ? c->data_seed : c->seed);
    hash_add_int(h, t->train.permutation != NULL);
    for (int64_t i = 0; i < t->policy.count; i++)
        hash_add_string(h, t->policy.names[i].name);
    const double numbers[] = {c->beta,
                              c->label_smoothing,
                              c->learning_rate,
                              c->weight_decay,
                              c->adam_beta1,
                              c->adam_beta2,
                              c->adam_epsilon,
                              c->max_grad_norm,
                              (double)t->warmup_steps,
                              (double)t->schedule};
    hash_add(h, numbers, sizeof numbers);
    *out = hash_end(h);
    return CUDPO_OK;
}

cudpo_status trainer_save(cudpo_trainer *t)
{
    checkpoint_state s = {.step = t->step, .tokens = t->tokens_seen, .sum_count = 2 * METRICS};
    memcpy(s.sums, t->sums.sum, sizeof t->sums.sum);
    memcpy(s.sums + METRICS, t->sums.count, sizeof t->sums.count);
    CUDPO_TRY(fingerprint(t, &s.fingerprint));
    return checkpoint_save(t->config->output_dir, &s, &t->policy, &t->first, &t->second,
                           t->config->model_name_or_path, t->config->save_total_limit);
}

static cudpo_status restore(cudpo_trainer *t, const char *path)
{
    checkpoint_state s;
    hash128 mine;
    CUDPO_TRY(checkpoint_read(&s, path));
    CUDPO_TRY(fingerprint(t, &mine));
    if (s.fingerprint.high != mine.high || s.fingerprint.low != mine.low ||
        s.sum_count != 2 * METRICS)
        return cudpo_fail(CUDPO_ECONFIG, path,
                          "was made with other data or other settings (data, loss, batch, "
                          "schedule, optimizer or seed), so "
                          "going on from it would not be the same run: restore them, or start anew "
                          "with model_name_or_path "
                          "set to this folder");
    if (s.step > t->total_steps)
        return cudpo_fail(CUDPO_EDATA, path, "is at step %lld of %lld", (long long)s.step,
                          (long long)t->total_steps);
    CUDPO_TRY(checkpoint_restore(&t->policy, &t->first, &t->second, path));
    t->step = s.step;
    t->tokens_seen = s.tokens;
    memcpy(t->sums.sum, s.sums, sizeof t->sums.sum);
    memcpy(t->sums.count, s.sums + METRICS, sizeof t->sums.count);
    log_info("going on from %s", path);
    return CUDPO_OK;
}

cudpo_status trainer_resume(cudpo_trainer *t)
{
    const char *asked = t->config->resume_from_checkpoint;
    if (asked == NULL) return CUDPO_OK;
    if (strcmp(asked, "true") != 0) return restore(t, asked);
    char *path = NULL;
    CUDPO_TRY(checkpoint_newest(&path, t->config->output_dir));
    if (path == NULL) {
        log_info("%s holds no checkpoint yet: starting anew", t->config->output_dir);
        return CUDPO_OK;
    }
    const cudpo_status status = restore(t, path);
    free(path);
    return status;
}
