/* identity.c - what must be the same for a resumed run to be the run that was interrupted. */
#include "train/trainer.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void add_part(checkpoint_state *s, const char *name, const void *data, size_t n)
{
    assert(s->part_count < CHECKPOINT_PARTS);
    checkpoint_part *p = &s->parts[s->part_count++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->hash = hash64_bytes(data, n);
}

static void add_number(checkpoint_state *s, const char *name, double value)
{
    add_part(s, name, &value, sizeof value);
}

static void add_text(checkpoint_state *s, const char *name, const char *value)
{
    add_part(s, name, value, strlen(value));
}

/* What is computed, and the weights that the run began with; of the reference, where that is another model. */
static void add_model(checkpoint_state *s, const cudpo_trainer *t)
{
    const hash128 start = t->policy_fingerprint, reference = t->reference_fingerprint;
    const bool other = reference.high != start.high || reference.low != start.low;
    const uint64_t policy[] = {model_config_fingerprint(&t->model), start.high, start.low};
    const uint64_t second[] = {other ? reference.high : 0, other ? reference.low : 0};
    add_part(s, "model_name_or_path", policy, sizeof policy);
    add_part(s, "ref_model_name_or_path", second, sizeof second);
}

/* How rows become steps.  Other batches, or another number of ranks, with the same product are the same steps, but for what depends on single batches:
 * KTO's estimate and an incomplete batch that is dropped. */
static void add_order(checkpoint_state *s, const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const int64_t B = trainer_train_batch(t), G = c->gradient_accumulation_steps;
    const bool single = t->traits->kl || c->dataloader_drop_last;
    const int64_t batches[] = {B * G, single ? B : 0};
    const hash128 data = dataset_fingerprint(t->train.data);
    add_part(s, "train_dataset", &data, sizeof data);
    add_part(s, "per_device_train_batch_size", batches, sizeof batches);
    add_number(s, "dataloader_drop_last", c->dataloader_drop_last);
    add_number(s, "train_sampling_strategy", t->train.permutation != NULL);
    add_number(s, "seed or data_seed", (double)(c->data_seed >= 0 ? c->data_seed : c->seed));
    add_number(s, "num_train_epochs or max_steps", (double)t->total_steps);
}

void trainer_parts(checkpoint_state *s, const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    const double schedule[] = {c->min_lr, c->min_lr_rate};
    add_model(s, t);
    add_order(s, t);
    add_text(s, "loss_type", c->loss_type);
    add_number(s, "beta", c->beta);
    add_number(s, "label_smoothing", c->label_smoothing);
    add_number(s, "desirable_weight", c->desirable_weight);
    add_number(s, "undesirable_weight", c->undesirable_weight);
    add_number(s, "learning_rate", c->learning_rate);
    add_text(s, "lr_scheduler_type", c->lr_scheduler_type);
    add_part(s, "lr_scheduler_kwargs", schedule, sizeof schedule);
    add_number(s, "warmup_steps or warmup_ratio", (double)t->warmup_steps);
    add_number(s, "weight_decay", c->weight_decay);
    add_number(s, "adam_beta1", c->adam_beta1);
    add_number(s, "adam_beta2", c->adam_beta2);
    add_number(s, "adam_epsilon", c->adam_epsilon);
    add_number(s, "max_grad_norm", c->max_grad_norm);
    if (t->type == DTYPE_F32) return; /* as before there was a choice */
    add_number(s, "bf16", 1.0);
    add_number(s, "master_weights", c->master_weights);
    add_text(s, "gradient_dtype", c->gradient_dtype);
}

hash128 trainer_run(const cudpo_trainer *t)
{
    checkpoint_state s = {0};
    trainer_parts(&s, t);
    add_text(&s, "dtype", t->config->dtype); /* of the result, which checkpoints do not depend on */
    return hash_bytes(s.parts, sizeof s.parts);
}
