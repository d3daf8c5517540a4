/* kl.c - KTO's estimate of the KL divergence: the policy's mean log-ratio on completions of other prompts.
 *
 * Within each device batch every prompt is paired with the completion before it.  The estimate is a constant of the
 * loss (no gradient passes through it), so it takes forward passes only, before the packs that train.  Scores and estimate
 * stay in backend memory: nothing waits. */
#include "train/trainer.h"

#include <string.h>

size_t trainer_kl_bytes(const cudpo_trainer *t)
{
    return t->traits->kl ? 3 * (size_t)trainer_most_units(t) * sizeof(float) : 0;
}

cudpo_status trainer_kl_create(cudpo_trainer *t)
{
    if (!t->traits->kl) return CUDPO_OK;
    const int64_t n = trainer_most_units(t);
    void *memory = NULL;
    CUDPO_TRY(t->be->alloc(t->be, &memory, trainer_kl_bytes(t)));
    const tensor all = tensor_vector(memory, DTYPE_F32, 3 * n);
    t->estimate = (kl_estimate){.policy = tensor_rows(all, 0, n),
                                .reference = tensor_rows(all, n, n),
                                .kl = tensor_rows(all, 2 * n, n)};
    return CUDPO_OK;
}

cudpo_status trainer_labels(cudpo_trainer *t, const dataset *d, int64_t unit)
{
    if (!t->traits->kl) return CUDPO_OK;
    const pack *k = &t->pass.pack;
    for (int64_t g = 0; g < k->G; g++)
        t->label[g] = dataset_get(d, k->group_example[g]).label;
    return pass_set_labels(&t->pass, t->label, tensor_rows(t->estimate.kl, unit, k->G));
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

/* Scores of the pack, which is of mismatched completions: those of units `unit` on. */
static cudpo_status score_pack(cudpo_trainer *t, int64_t unit, const scored_data *d)
{
    const pack *k = &t->pass.pack;
    const tensor policy = tensor_rows(t->estimate.policy, unit, k->G);
    const tensor reference = tensor_rows(t->estimate.reference, unit, k->G);
    CUDPO_TRY(pass_upload(&t->pass));
    if (d->cache == NULL) {
        CUDPO_TRY(backend_part(t->be, PART_REFERENCE));
        CUDPO_TRY(pass_score_later(&t->pass, reference, &t->reference));
    } else {
        for (int64_t g = 0; g < k->G; g++)
            t->reference_score[g] = reference_cache_score(d->cache, 2 * k->group_example[g] + 1);
        CUDPO_TRY(t->be->copy_in(t->be, reference.data, t->reference_score,
                                 (size_t)k->G * sizeof *t->reference_score));
    }
    CUDPO_TRY(backend_part(t->be, PART_FORWARD)); /* its head, too, has no way back */
    return pass_score_later(&t->pass, policy, &t->policy);
}

cudpo_status trainer_kl(cudpo_trainer *t, float *kl, const scored_data *d, const int64_t *list,
                        int64_t n, int64_t device_batch)
{
    const kl_estimate *e = &t->estimate;
    if (!t->traits->kl) {
        memset(kl, 0, (size_t)n * sizeof *kl);
        return CUDPO_OK;
    }
    for (int64_t done = 0; done < n;) {
        CUDPO_TRY(backend_part(t->be, PART_DATA));
        pack_clear(&t->pass.pack);
        int64_t taken = 0;
        for (; done + taken < n; taken++) {
            const example m = trainer_mismatched_example(t, d->data, list[done + taken]);
            if (!pack_add(&t->pass.pack, &m, list[done + taken])) break;
        }
        CUDPO_TRY(score_pack(t, done, d));
        done += taken;
    }
    CUDPO_TRY(t->be->kl_estimate(t->be, tensor_rows(e->kl, 0, n), tensor_rows(e->policy, 0, n),
                                 tensor_rows(e->reference, 0, n), device_batch));
    return t->be->copy_out_later(t->be, kl, e->kl.data, (size_t)n * sizeof *kl);
}
