/* shares.c - the gradient's memory is free between steps, as large as the weights, and float32 where this is needed: there
 * shares meet. */
#include "train/shares.h"

static tensor run_of(tensor all, rank_share s)
{
    return tensor_matrix((char *)all.data + (size_t)s.begin * dtype_size(all.type), all.type, 1,
                         s.end - s.begin);
}

/* What of it a rank keeps: all of it, or its share alone. */
static model_weights *kept(cudpo_trainer *t, checkpoint_tensors which)
{
    return which == CHECKPOINT_WEIGHTS ? trainer_weights(t)
           : which == CHECKPOINT_FIRST ? &t->first
                                       : &t->second;
}

static bool is_shared(const model_weights *w, const cudpo_trainer *t)
{
    return t->zero && tensor_elements(w->all) < tensor_elements(t->policy.all);
}

cudpo_status shares_create(model_weights *w, backend *be, rank_share s, dtype type)
{
    void *memory = NULL;
    *w = (model_weights){.be = be};
    CUDPO_TRY(be->alloc(be, &memory, (size_t)(s.end - s.begin) * dtype_size(type)));
    w->all = tensor_vector(memory, type, s.end - s.begin);
    return CUDPO_OK;
}

cudpo_status shares_clip(cudpo_trainer *t)
{
    backend *be = t->be;
    const float most = (float)t->config->max_grad_norm;
    CUDPO_TRY(be->clip(be, t->norm, t->factor, run_of(t->gradient.all, t->share), most));
    /* The norm of the norms of all parts. */
    CUDPO_TRY(be->zero(be, t->norms));
    CUDPO_TRY(be->copy(be, tensor_rows(t->norms, t->ranks->place.rank, 1), t->norm));
    CUDPO_TRY(communicator_all_reduce(t->communicator, t->norms));
    CUDPO_TRY(communicator_join(t->communicator));
    return be->clip(be, t->norm, t->factor, t->norms, most);
}

cudpo_status shares_publish(cudpo_trainer *t)
{
    CUDPO_TRY(communicator_all_gather(t->communicator, t->policy.all));
    return communicator_join(t->communicator);
}

/* They are there, and right, before anything is done with them: a company that failed may have broken the copies off. */
cudpo_status shares_whole(const model_weights **out, cudpo_trainer *t, checkpoint_tensors which)
{
    const model_weights *w = kept(t, which);
    *out = w;
    if (!is_shared(w, t)) return CUDPO_OK;
    *out = &t->gradient;
    const tensor own = run_of(t->gradient.all, t->share);
    CUDPO_TRY(t->be->copy(t->be, own, tensor_matrix(w->all.data, w->all.type, 1, own.cols)));
    CUDPO_TRY(communicator_all_gather(t->communicator, t->gradient.all));
    CUDPO_TRY(communicator_join(t->communicator));
    CUDPO_TRY(t->be->sync(t->be));
    return ranks_status(t->ranks);
}

model_weights *shares_place(cudpo_trainer *t, checkpoint_tensors which)
{
    model_weights *w = kept(t, which);
    return is_shared(w, t) ? &t->gradient : w;
}

cudpo_status shares_keep(cudpo_trainer *t, checkpoint_tensors which)
{
    model_weights *w = kept(t, which), *place = shares_place(t, which);
    if (place == w) return CUDPO_OK;
    const tensor own = run_of(place->all, t->share);
    CUDPO_TRY(t->be->copy(t->be, tensor_matrix(w->all.data, w->all.type, 1, own.cols), own));
    if (which != CHECKPOINT_WEIGHTS) return CUDPO_OK;
    return t->be->cast(t->be, t->policy.all, place->all);
}

cudpo_status shares_take(cudpo_trainer *t, checkpoint_tensors which)
{
    CUDPO_TRY(communicator_broadcast(t->communicator, shares_place(t, which)->all));
    CUDPO_TRY(communicator_join(t->communicator));
    return shares_keep(t, which);
}
