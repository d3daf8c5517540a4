/* load.c - the models of a run into the device's memory, and what the optimizer keeps beside them. */
#include "model/offload.h"
#include "train/shares.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

/* A reference of its own into the given weights. */
static cudpo_status read_reference(cudpo_trainer *t, model_weights *w)
{
    const char *folder = t->config->ref_model_name_or_path;
    model_config other;
    CUDPO_TRY(model_config_load(&other, folder));
    CUDPO_TRY(model_config_same(&other, &t->model, folder));
    CUDPO_TRY(model_weights_load(w, &t->model, folder));
    t->reference_fingerprint = w->fingerprint;
    return CUDPO_OK;
}

/* The reference beside the policy, which is there. */
static cudpo_status load_reference(cudpo_trainer *t)
{
    if (t->reference_is_policy) t->reference_fingerprint = t->policy_fingerprint;
    if (t->reference_is_policy && t->memory.offload)
        return model_weights_offload(&t->reference, &t->policy, &t->model);
    CUDPO_TRY(model_weights_create(&t->reference, t->be, &t->model, t->type));
    if (!t->reference_is_policy) return read_reference(t, &t->reference);
    return t->be->copy(t->be, t->reference.all, t->policy.all);
}

model_weights *trainer_weights(cudpo_trainer *t)
{
    return tensor_present(t->master.all) ? &t->master : &t->policy;
}

cudpo_status trainer_refresh(cudpo_trainer *t)
{
    if (!tensor_present(t->master.all) || t->zero) return CUDPO_OK;
    return t->be->cast(t->be, t->policy.all, t->master.all);
}

static cudpo_status load_policy(cudpo_trainer *t)
{
    weights_store store;
    model_weights w = shares_weights(&store, t);
    CUDPO_TRY(model_weights_load(&w, &t->model, t->config->model_name_or_path));
    t->policy_fingerprint = w.fingerprint;
    return CUDPO_OK;
}

static cudpo_status create_gradient(cudpo_trainer *t)
{
    const bool half = t->type == DTYPE_BF16 && strcmp(t->config->gradient_dtype, "bfloat16") == 0;
    return model_weights_create(&t->gradient, t->be, &t->model, half ? DTYPE_BF16 : DTYPE_F32);
}

static cudpo_status create_master(cudpo_trainer *t)
{
    if (!t->zero) return model_weights_create(&t->master, t->be, &t->model, DTYPE_F32);
    return shares_create(&t->master, t->be, t->share, DTYPE_F32);
}

/* Elements first .. first + n - 1 of a block whose own first is `begin`, or none of one that is not there. */
static tensor part_of(tensor all, int64_t begin, int64_t first, int64_t n)
{
    if (!tensor_present(all)) return all;
    return tensor_matrix((char *)all.data + (size_t)(first - begin) * dtype_size(all.type),
                         all.type, 1, n);
}

/* What they are a function of is their fingerprint. */
static cudpo_status make_policy(cudpo_trainer *t, const made_run *made)
{
    const uint64_t fields[] = {made->seed, model_config_fingerprint(made->model)};
    const hash128 of[] = {hash_bytes(fields, sizeof fields),
                          hash_bytes(&made->model->initializer_range, sizeof(double))};
    t->policy_fingerprint = hash_bytes(of, sizeof of);
    if (!shares_master(t)) return model_weights_repeat(trainer_weights(t), &t->model, made->seed);
    CUDPO_TRY(model_weights_repeat(&t->policy, &t->model, made->seed));
    const int64_t n = t->share.end - t->share.begin;
    return t->be->cast(t->be, part_of(t->master.all, 0, 0, n),
                       part_of(t->policy.all, 0, t->share.begin, n));
}

/* In: made  NULL: weights come from files. */
cudpo_status trainer_load_models(cudpo_trainer *t, bool train, const made_run *made)
{
    const cudpo_config *c = t->config;
    CUDPO_TRY(model_weights_create(&t->policy, t->be, &t->model, t->type));
    if (t->type != DTYPE_F32 && c->master_weights && train) CUDPO_TRY(create_master(t));
    t->reference_is_policy = c->ref_model_name_or_path == NULL;
    const bool through_policy = t->memory.offload && !t->reference_is_policy;
    if (through_policy) { /* whose memory is free yet: the whole of the reference gets none of its own */
        CUDPO_TRY(read_reference(t, &t->policy));
        CUDPO_TRY(model_weights_offload(&t->reference, &t->policy, &t->model));
    }
    CUDPO_TRY(made != NULL ? make_policy(t, made) : load_policy(t));
    CUDPO_TRY(trainer_refresh(t));
    return t->rewards && !through_policy ? load_reference(t) : CUDPO_OK;
}

/* What of elements first .. end - 1 this rank updates, treated alike. */
static void list_run(cudpo_trainer *t, int64_t first, int64_t end, bool decay)
{
    const bool master = tensor_present(t->master.all);
    const int64_t begin = t->zero ? t->share.begin : 0; /* of moments and master weights */
    if (t->zero && first < t->share.begin) first = t->share.begin;
    if (t->zero && end > t->share.end) end = t->share.end;
    const int64_t n = end - first;
    if (n <= 0) return;
    t->parameters[t->parameter_count++] =
        (optimizer_parameter){.weight = master ? part_of(t->master.all, begin, first, n)
                                               : part_of(t->policy.all, 0, first, n),
                              .copy = master ? part_of(t->policy.all, 0, first, n) : (tensor){0},
                              .gradient = part_of(t->gradient.all, 0, first, n),
                              .first_moment = part_of(t->first.all, begin, first, n),
                              .second_moment = part_of(t->second.all, begin, first, n),
                              .first = first,
                              .decay = decay};
}

/* What lies side by side and is treated alike is updated as one: a few launches a layer instead of one a tensor. */
static void list_parameters(cudpo_trainer *t)
{
    const model_weights *const w = &t->policy;
    for (int64_t i = 0, first = 0; i < w->count;) {
        const bool decay = !w->names[i].no_decay;
        int64_t n = 0;
        while (i < w->count && w->names[i].no_decay != decay)
            n += tensor_elements(w->names[i++].view);
        list_run(t, first, first + n, decay);
        first += n;
    }
}

static cudpo_status create_moments(cudpo_trainer *t)
{
    model_weights *const moments[] = {&t->first, &t->second};
    for (int i = 0; i < 2; i++) {
        CUDPO_TRY(t->zero ? shares_create(moments[i], t->be, t->share, DTYPE_F32)
                          : model_weights_create(moments[i], t->be, &t->model, DTYPE_F32));
        CUDPO_TRY(t->be->zero(t->be, moments[i]->all));
    }
    return CUDPO_OK;
}

cudpo_status trainer_create_optimizer(cudpo_trainer *t)
{
    const int64_t ranks = t->ranks->place.size;
    CUDPO_TRY(create_gradient(t));
    CUDPO_TRY(create_moments(t));
    void *few = NULL;
    CUDPO_TRY(t->be->alloc(t->be, &few, (size_t)(2 + ASKED + ranks) * sizeof(float)));
    t->norm = tensor_vector(few, DTYPE_F32, 1);
    t->factor = tensor_vector((float *)few + 1, DTYPE_F32, 1);
    t->asked = tensor_vector((float *)few + 2, DTYPE_F32, ASKED);
    t->norms = tensor_vector((float *)few + 2 + ASKED, DTYPE_F32, ranks);
    t->parameters = calloc((size_t)t->policy.count, sizeof *t->parameters);
    if (t->parameters == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "parameter list");
    list_parameters(t);
    return CUDPO_OK;
}
