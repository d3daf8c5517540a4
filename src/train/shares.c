/* shares.c - a share is a run of elements: it is updated, written and read by the rank that keeps it. */
#include "train/shares.h"
#include "model/weights_file.h"

/* Elements first .. first + n - 1 of a dense block. */
static tensor part_of(tensor all, int64_t first, int64_t n)
{
    return tensor_matrix((char *)all.data + (size_t)first * dtype_size(all.type), all.type, 1, n);
}

static tensor run_of(tensor all, rank_share s)
{
    return part_of(all, s.begin, s.end - s.begin);
}

/* What of it a rank keeps: all of it, or its share alone. */
static model_weights *kept(cudpo_trainer *t, checkpoint_tensors which)
{
    return which == CHECKPOINT_WEIGHTS ? trainer_weights(t)
           : which == CHECKPOINT_FIRST ? &t->first
                                       : &t->second;
}

/* Of the weights: are those that are updated master weights, of which this rank has a share? */
static bool is_shared(const cudpo_trainer *t, checkpoint_tensors which)
{
    return t->zero && (which != CHECKPOINT_WEIGHTS || tensor_present(t->master.all));
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

/* What elements first .. first + n - 1 and this rank's share have in common.  False: nothing. */
static bool overlap(rank_share *common, const cudpo_trainer *t, int64_t first, int64_t n)
{
    const rank_share s = t->share;
    common->begin = s.begin > first ? s.begin : first;
    common->end = s.end < first + n ? s.end : first + n;
    return common->begin < common->end;
}

/* Rounded, to the policy; as they are, to the master weights of this rank. */
static cudpo_status put(void *context, const float *host, int64_t first, int64_t n)
{
    const cudpo_trainer *t = context;
    const model_weights own = {.be = t->be};
    rank_share s;
    CUDPO_TRY(weights_upload(&own, t->policy.all, first, host, n));
    if (!overlap(&s, t, first, n)) return CUDPO_OK;
    return weights_upload(&own, t->master.all, s.begin - t->share.begin, host + (s.begin - first),
                          s.end - s.begin);
}

/* Rank 0 gets n elements, from whoever keeps them: a sum to which all others add -0 has the bits of the one that is left. */
static cudpo_status collect(cudpo_trainer *t, float *host, int64_t first, int64_t n)
{
    backend *be = t->be;
    const tensor all = tensor_matrix(t->gradient.all.data, DTYPE_F32, 1, n);
    rank_share s;
    for (int64_t i = 0; i < n; i++)
        host[i] = -0.0f;
    CUDPO_TRY(be->copy_in(be, all.data, host, (size_t)n * sizeof *host));
    if (overlap(&s, t, first, n)) {
        const int64_t m = s.end - s.begin;
        CUDPO_TRY(be->copy(be, part_of(all, s.begin - first, m),
                           part_of(t->master.all, s.begin - t->share.begin, m)));
    }
    CUDPO_TRY(communicator_reduce(t->communicator, all, 0));
    CUDPO_TRY(communicator_join(t->communicator));
    CUDPO_TRY(be->sync(be));
    CUDPO_TRY(ranks_status(t->ranks)); /* a company that failed may have broken the sum off */
    return ranks_first(t->ranks) ? be->copy_out(be, host, all.data, (size_t)n * sizeof *host)
                                 : CUDPO_OK;
}

/* The gradient's memory is free between steps: as many at a time as it has room for. */
static cudpo_status get(void *context, float *host, int64_t first, int64_t n)
{
    cudpo_trainer *t = context;
    const int64_t room = (int64_t)(tensor_bytes(t->gradient.all) / sizeof *host);
    for (int64_t done = 0; done < n; done += room)
        CUDPO_TRY(collect(t, host + done, first + done, n - done < room ? n - done : room));
    return CUDPO_OK;
}

model_weights shares_weights(weights_store *store, cudpo_trainer *t)
{
    if (!is_shared(t, CHECKPOINT_WEIGHTS)) return *trainer_weights(t);
    model_weights w = t->policy;
    *store = (weights_store){.put = put, .get = get, .context = t};
    w.store = store;
    return w;
}

bool shares_master(const cudpo_trainer *t)
{
    return is_shared(t, CHECKPOINT_WEIGHTS);
}

checkpoint_shard shares_shard(cudpo_trainer *t)
{
    checkpoint_shard s = {.be = t->be,
                          .rank = t->ranks->place.rank,
                          .ranks = t->ranks->place.size,
                          .begin = t->share.begin,
                          .all = tensor_elements(t->policy.all)};
    for (int i = 0; i < CHECKPOINT_TENSORS; i++)
        if (is_shared(t, (checkpoint_tensors)i)) s.run[i] = kept(t, (checkpoint_tensors)i)->all;
    return s;
}

cudpo_status shares_restore(cudpo_trainer *t, const char *path)
{
    for (int i = 0; i < CHECKPOINT_TENSORS; i++) {
        const checkpoint_tensors which = (checkpoint_tensors)i;
        const tensor all = kept(t, which)->all;
        const bool shared = is_shared(t, which);
        if (shared || ranks_first(t->ranks))
            CUDPO_TRY(checkpoint_restore(all, shared ? t->share.begin : 0, &t->policy, which, path,
                                         t->saved.shards));
        if (shared) continue;
        CUDPO_TRY(communicator_broadcast(t->communicator, all));
        CUDPO_TRY(communicator_join(t->communicator));
    }
    if (!shares_master(t)) return trainer_refresh(t);
    const tensor master = part_of(t->master.all, 0, t->share.end - t->share.begin);
    CUDPO_TRY(t->be->cast(t->be, run_of(t->policy.all, t->share), master));
    return shares_publish(t);
}
