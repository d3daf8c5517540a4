/* reference.c - scores under the frozen reference: from its weights in memory, or from the cache on disk. */
#include "base/log.h"
#include "train/cache_folder.h"
#include "train/signals.h"
#include "train/trainer.h"

#include <stdlib.h>

/* Sequences that the cache holds for each example: its own, and for KTO the mismatched completion. */
static int cached_sequences(const cudpo_trainer *t)
{
    return t->pass.sequences + (t->traits->kl ? 1 : 0);
}

cudpo_status trainer_reference(cudpo_trainer *t, const scored_data *d)
{
    if (!t->rewards) return CUDPO_OK;
    const pack *k = &t->pass.pack;
    if (d->cache == NULL) {
        CUDPO_TRY(backend_part(t->be, PART_REFERENCE));
        return pass_score_later(&t->pass, t->pass.reference, &t->reference);
    }
    for (int64_t s = 0; s < k->S; s++) {
        const int64_t g = s / t->pass.sequences, i = s % t->pass.sequences;
        t->reference_score[s] =
            reference_cache_score(d->cache, k->group_example[g] * cached_sequences(t) + i);
    }
    return pass_set_reference(&t->pass, t->reference_score);
}

/* Everything that a cached log-prob depends on. */
static cudpo_status cache_key(hash128 *key, const cudpo_trainer *t, const scored_data *d)
{
    const hash128 tokens = dataset_fingerprint(d->data);
    const uint64_t computation = model_config_fingerprint(&t->model);
    hash_state *h = NULL;
    CUDPO_TRY(hash_begin(&h));
    hash_add_string(h, t->type == DTYPE_F32 ? "cudpo reference log-probs 3 float32"
                                            : "cudpo reference log-probs 3 bfloat16");
    hash_add(h, &t->reference_fingerprint, sizeof t->reference_fingerprint);
    hash_add(h, &computation, sizeof computation);
    hash_add(h, &tokens, sizeof tokens);
    hash_add_int(h, cached_sequences(t));
    hash_add_int(h, t->traits->kl ? t->config->per_device_train_batch_size
                                  : 0); /* decides the mismatched pairs */
    *key = hash_end(h);
    return CUDPO_OK;
}

/* The mismatched completion of each example of the pack that was just scored, as packs of their own. */
static cudpo_status put_pack(const cudpo_trainer *t, reference_cache_writer *w, int64_t g)
{
    const pack *k = &t->pass.pack;
    for (int i = 0; i < t->pass.sequences; i++) {
        const int32_t begin = k->sequence_begin[g * t->pass.sequences + i];
        const int32_t end = k->sequence_begin[g * t->pass.sequences + i + 1];
        CUDPO_TRY(reference_cache_put(w, t->pass.logp + begin, end - begin));
    }
    return CUDPO_OK;
}

static cudpo_status score_mismatched(cudpo_trainer *t, reference_cache_writer *cache,
                                     const dataset *d, int64_t index)
{
    pack_clear(&t->pass.pack);
    const example e = trainer_mismatched_example(t, d, index);
    if (!pack_add(&t->pass.pack, &e, index))
        return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "example %lld", (long long)index);
    CUDPO_TRY(pass_upload(&t->pass));
    CUDPO_TRY(pass_score(&t->pass, &t->reference));
    return put_pack(t, cache, 0);
}

static cudpo_status score_all(cudpo_trainer *t, reference_cache_writer *cache, const dataset *d)
{
    const int64_t count = dataset_count(d);
    for (int64_t i = 0; i < count;) {
        int64_t next[64];
        int64_t n = 0;
        if (signals_stop_wanted()) return trainer_stopped(t);
        while (n < 64 && i + n < count) {
            next[n] = i + n;
            n++;
        }
        /* KTO's cache takes example by example, its own completion and the mismatched one in turn. */
        const int64_t taken = trainer_fill(t, d, next, t->traits->kl ? 1 : n);
        CUDPO_TRY(pass_upload(&t->pass));
        CUDPO_TRY(pass_score(&t->pass, &t->reference));
        for (int64_t g = 0; g < taken; g++)
            CUDPO_TRY(put_pack(t, cache, g));
        if (t->traits->kl) CUDPO_TRY(score_mismatched(t, cache, d, i));
        i += taken;
    }
    return CUDPO_OK;
}

cudpo_status trainer_precompute(cudpo_trainer *t, scored_data *d)
{
    const int64_t sequences = dataset_count(d->data) * cached_sequences(t);
    hash128 key;
    CUDPO_TRY(cache_key(&key, t, d));
    char *folder = NULL;
    CUDPO_TRY(cache_folder(&folder, t->config->output_dir));
    bool found = false;
    reference_cache_writer *writer = NULL;
    cudpo_status status = reference_cache_open(&d->cache, &found, folder, key, sequences);
    if (status != CUDPO_OK || found) goto out;
    log_info("computing the reference's log-probs of %lld examples",
             (long long)dataset_count(d->data));
    status = reference_cache_create(&writer, folder, key, sequences);
    if (status == CUDPO_OK) status = score_all(t, writer, d->data);
    if (status == CUDPO_OK) {
        status = reference_cache_commit(writer);
        writer = NULL;
    }
    if (status == CUDPO_OK)
        status = reference_cache_open(&d->cache, &found, folder, key, sequences);
    if (status == CUDPO_OK && !found)
        status = cudpo_fail(CUDPO_EWRITE, folder, "the cache just written is not there");
out:
    reference_cache_abandon(writer);
    free(folder);
    return status;
}
