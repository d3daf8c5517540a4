/* kl.c - KTO's estimate of the KL divergence: the policy's mean log-ratio on completions of other prompts.
 *
 * Within each device batch every prompt is paired with the completion before it.  The estimate is a constant of the
 * loss (no gradient passes through it), so it takes forward passes only, before the packs that train.  Scores and estimate
 * stay in backend memory: nothing waits. */
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

enum { ALONE = 3, SHARED = 7 }; /* vectors of an estimate */

static int64_t vectors(const cudpo_trainer *t)
{
    return t->ranks->place.size == 1 ? ALONE : SHARED;
}

size_t trainer_kl_bytes(const cudpo_trainer *t)
{
    return t->traits->kl ? (size_t)(vectors(t) * trainer_most_units(t)) * sizeof(float) : 0;
}

cudpo_status trainer_kl_create(cudpo_trainer *t)
{
    if (!t->traits->kl) return CUDPO_OK;
    kl_estimate *e = &t->estimate;
    const int64_t n = trainer_most_units(t);
    CUDPO_TRY(t->be->alloc(t->be, &e->memory, trainer_kl_bytes(t)));
    const tensor all = tensor_vector(e->memory, DTYPE_F32, vectors(t) * n);
    tensor *const own[] = {&e->policy, &e->reference, &e->kl};
    tensor *const whole[] = {&e->all_policy, &e->all_reference, &e->all_kl};
    for (int i = 0; i < ALONE; i++) {
        *own[i] = tensor_rows(all, i * n, n);
        *whole[i] = vectors(t) == ALONE ? *own[i] : tensor_rows(all, (ALONE + i) * n, n);
    }
    if (vectors(t) == ALONE) return CUDPO_OK;
    e->place = tensor_vector((float *)e->memory + (SHARED - 1) * n, DTYPE_I32, n);
    e->host_place = calloc((size_t)n, sizeof *e->host_place);
    return e->host_place != NULL
               ? CUDPO_OK
               : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "places of %lld units", (long long)n);
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
    const int64_t B = trainer_train_batch(t), count = dataset_count(d);
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

/* This rank's scores to all ranks: each to its place among them. */
static cudpo_status spread(cudpo_trainer *t, tensor all, tensor own)
{
    const int64_t n = own.rows;
    if (n == 0)
        CUDPO_TRY(t->be->zero(t->be, all));
    else
        CUDPO_TRY(t->be->scatter_rows(t->be, all, own, tensor_rows(t->estimate.place, 0, n),
                                      (tensor){0}));
    return communicator_all_reduce(t->communicator, all); /* of each place, one rank has no 0 */
}

/* The estimate of n units at their places among `all`. */
static cudpo_status estimate(cudpo_trainer *t, const int64_t *place, int64_t n, int64_t all,
                             int64_t device_batch)
{
    kl_estimate *e = &t->estimate;
    const tensor policy = tensor_rows(e->all_policy, 0, all),
                 reference = tensor_rows(e->all_reference, 0, all);
    const bool shared = tensor_present(e->place);
    if (shared && n > 0) {
        for (int64_t i = 0; i < n; i++)
            e->host_place[i] = (int32_t)place[i];
        CUDPO_TRY(
            t->be->copy_in(t->be, e->place.data, e->host_place, (size_t)n * sizeof *e->host_place));
    }
    if (shared) {
        CUDPO_TRY(spread(t, policy, tensor_rows(e->policy, 0, n)));
        CUDPO_TRY(spread(t, reference, tensor_rows(e->reference, 0, n)));
        CUDPO_TRY(communicator_join(t->communicator));
    }
    CUDPO_TRY(
        t->be->kl_estimate(t->be, tensor_rows(e->all_kl, 0, all), policy, reference, device_batch));
    if (!shared || n == 0) return CUDPO_OK;
    return t->be->gather_rows(t->be, tensor_rows(e->kl, 0, n), tensor_rows(e->all_kl, 0, all),
                              tensor_rows(e->place, 0, n));
}

cudpo_status trainer_kl(cudpo_trainer *t, float *kl, const scored_data *d, const int64_t *list,
                        const int64_t *place, int64_t n, int64_t all, int64_t device_batch)
{
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
    CUDPO_TRY(estimate(t, place, n, all, device_batch));
    if (n == 0) return CUDPO_OK;
    return t->be->copy_out_later(t->be, kl, t->estimate.kl.data, (size_t)n * sizeof *kl);
}
