/* kl.c - KTO's estimate of the KL divergence: the policy's mean log-ratio on completions of other prompts.
 *
 * Within each device batch every prompt is paired with the completion before it.  The estimate is a constant of the
 * loss (no gradient passes through it), so it takes forward passes only, before the packs that train. */
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

cudpo_status trainer_labels(cudpo_trainer *t, const dataset *d, const float *kl)
{
    if (!t->traits->kl) return CUDPO_OK;
    const pack *k = &t->pass.pack;
    for (int64_t g = 0; g < k->G; g++)
        t->label[g] = dataset_get(d, k->group_example[g]).label;
    return pass_set_labels(&t->pass, t->label, kl);
}

example trainer_mismatched_example(const cudpo_trainer *t, const dataset *d, int64_t index)
{
    const int64_t B = t->config->per_device_train_batch_size, count = dataset_count(d);
    const int64_t block = index / B * B, end = block + B < count ? block + B : count;
    example e = dataset_mismatch(d, index, index > block ? index - 1 : end - 1);
    e.completion[0] = e.completion[1];
    e.completion_length[0] = e.completion_length[1];
    e.prompt_skip[0] = e.prompt_skip[1];
    e.completions = 1;
    return e;
}

/* Log-ratio, policy to reference, of the mismatched completion of each group of the pack. */
static cudpo_status score_pack(cudpo_trainer *t, float *ratio, const scored_data *d)
{
    const pack *k = &t->pass.pack;
    CUDPO_TRY(pass_upload(&t->pass));
    if (d->cache == NULL) {
        CUDPO_TRY(pass_score(&t->pass, &t->reference));
        memcpy(t->reference_score, t->pass.score, (size_t)k->G * sizeof(float));
    } else {
        for (int64_t g = 0; g < k->G; g++)
            t->reference_score[g] = reference_cache_score(d->cache, 2 * k->group_example[g] + 1);
    }
    CUDPO_TRY(pass_score(&t->pass, &t->policy));
    for (int64_t g = 0; g < k->G; g++)
        ratio[g] = t->pass.score[g] - t->reference_score[g];
    return CUDPO_OK;
}

cudpo_status trainer_kl(cudpo_trainer *t, float *kl, const scored_data *d, const int64_t *list,
                        int64_t n, int64_t device_batch)
{
    if (!t->traits->kl) {
        memset(kl, 0, (size_t)n * sizeof *kl);
        return CUDPO_OK;
    }
    for (int64_t done = 0; done < n;) {
        pack_clear(&t->pass.pack);
        int64_t taken = 0;
        for (; done + taken < n; taken++) {
            const example e = trainer_mismatched_example(t, d->data, list[done + taken]);
            if (!pack_add(&t->pass.pack, &e, list[done + taken])) break;
        }
        CUDPO_TRY(score_pack(t, kl + done, d));
        done += taken;
    }
    for (int64_t begin = 0; begin < n; begin += device_batch) {
        const int64_t end = begin + device_batch < n ? begin + device_batch : n;
        double sum = 0.0;
        for (int64_t i = begin; i < end; i++)
            sum += kl[i];
        const double mean = sum / (double)(end - begin);
        for (int64_t i = begin; i < end; i++)
            kl[i] = (float)(mean > 0.0 ? mean : 0.0);
    }
    return CUDPO_OK;
}
