/* reference.c - scores under the frozen reference: from its weights in memory, or from the cache on disk. */
#include "base/log.h"
#include "train/cache_folder.h"
#include "train/signals.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    hash_add_int(h, t->traits->kl ? trainer_train_batch(t) : 0); /* decides the mismatched pairs */
    *key = hash_end(h);
    return CUDPO_OK;
}

/* Where log-probs of sequences go, in order: the cache, or what is sent to the other ranks. */
typedef struct score_target {
    reference_cache_writer *cache; /* NULL: into the two buffers */
    buffer lengths, logp;          /* i64 of each sequence; f32 of each token */
} score_target;

static cudpo_status put(score_target *to, const float *logp, int64_t n)
{
    if (to->cache != NULL) return reference_cache_put(to->cache, logp, n);
    CUDPO_TRY(buffer_append(&to->lengths, &n, sizeof n));
    return buffer_append(&to->logp, logp, (size_t)n * sizeof *logp);
}

/* Group g of the pack that was just scored. */
static cudpo_status put_group(const cudpo_trainer *t, score_target *to, int64_t g)
{
    const pack *k = &t->pass.pack;
    for (int i = 0; i < t->pass.sequences; i++) {
        const int32_t begin = k->sequence_begin[g * t->pass.sequences + i];
        const int32_t end = k->sequence_begin[g * t->pass.sequences + i + 1];
        CUDPO_TRY(put(to, t->pass.logp + begin, end - begin));
    }
    return CUDPO_OK;
}

/* The mismatched completion of an example, as a pack of its own. */
static cudpo_status score_mismatched(cudpo_trainer *t, score_target *to, const dataset *d,
                                     int64_t index)
{
    pack_clear(&t->pass.pack);
    const example e = trainer_mismatched_example(t, d, index);
    if (!pack_add(&t->pass.pack, &e, index))
        return cudpo_fail(CUDPO_EINVAL, CUDPO_HERE, "example %lld", (long long)index);
    CUDPO_TRY(pass_upload(&t->pass));
    CUDPO_TRY(pass_score(&t->pass, &t->reference));
    return put_group(t, to, 0);
}

enum {
    PROGRESS_SECONDS = 10,
    BLOCK = 256 /* examples of a rank, between two exchanges */
};

static void report(int64_t done, int64_t count, time_t *last)
{
    const time_t now = time(NULL);
    if (now - *last < PROGRESS_SECONDS) return;
    *last = now;
    log_info("reference's log-probs: %lld of %lld examples", (long long)done, (long long)count);
}

/* Examples first .. last-1. */
static cudpo_status score_range(cudpo_trainer *t, score_target *to, const dataset *d, int64_t first,
                                int64_t last)
{
    time_t reported = time(NULL);
    for (int64_t i = first; i < last;) {
        int64_t next[64];
        int64_t n = 0;
        if (signals_stop_wanted()) return trainer_stopped(t);
        while (n < 64 && i + n < last) {
            next[n] = i + n;
            n++;
        }
        /* KTO's cache takes example by example, its own completion and the mismatched one in turn. */
        const int64_t taken = trainer_fill(t, d, next, t->traits->kl ? 1 : n);
        CUDPO_TRY(pass_upload(&t->pass));
        CUDPO_TRY(pass_score(&t->pass, &t->reference));
        for (int64_t g = 0; g < taken; g++)
            CUDPO_TRY(put_group(t, to, g));
        if (t->traits->kl) CUDPO_TRY(score_mismatched(t, to, d, i));
        i += taken;
        if (to->cache != NULL) report(i, last, &reported); /* else score_shares() does */
    }
    return CUDPO_OK;
}

/* What all ranks scored, rank after rank, to a cache.  In: count  lengths, of `tokens` log-probs in all. */
static cudpo_status put_all(reference_cache_writer *cache, const char *lengths, size_t count,
                            const char *logp, size_t tokens)
{
    for (size_t i = 0; i < count; i++) {
        int64_t n;
        memcpy(&n, lengths + i * sizeof n, sizeof n);
        if (n < 0 || (uint64_t)n > tokens)
            return cudpo_fail(CUDPO_EPEER, "reference's log-probs", "ranks sent lengths of others");
        CUDPO_TRY(reference_cache_put(cache, (const float *)(const void *)logp, n));
        logp += (size_t)n * sizeof(float);
        tokens -= (size_t)n;
    }
    return CUDPO_OK;
}

/* This rank's share of a block of examples; then those of all to every rank that writes a cache. */
static cudpo_status score_block(cudpo_trainer *t, reference_cache_writer *cache, const dataset *d,
                                int64_t first, int64_t last, size_t *begin)
{
    const placement *p = &t->ranks->place;
    const int64_t count = last - first;
    score_target own = {0};
    void *lengths = NULL, *logp = NULL;
    cudpo_status status = score_range(t, &own, d, first + count * p->rank / p->size,
                                      first + count * (p->rank + 1) / p->size);
    if (status == CUDPO_OK)
        status = control_collect(t->ranks->company, &logp, begin, own.logp.data, own.logp.size,
                                 "reference's log-probs");
    const size_t tokens = begin[p->size] / sizeof(float);
    if (status == CUDPO_OK)
        status = control_collect(t->ranks->company, &lengths, begin, own.lengths.data,
                                 own.lengths.size, "reference's log-probs");
    if (status == CUDPO_OK && cache != NULL)
        status = put_all(cache, lengths, begin[p->size] / sizeof(int64_t), logp, tokens);
    free(lengths);
    free(logp);
    buffer_free(&own.lengths);
    buffer_free(&own.logp);
    return status;
}

/* Block after block: no rank waits longer for another than a block's long examples take, and no more than a block is in memory. */
static cudpo_status score_shares(cudpo_trainer *t, reference_cache_writer *cache, const dataset *d)
{
    const int64_t size = t->ranks->place.size, block = BLOCK * size, count = dataset_count(d);
    time_t reported = time(NULL);
    size_t *begin = calloc((size_t)size + 1, sizeof *begin);
    if (begin == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%lld ranks", (long long)size);
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK; i += block) {
        status = score_block(t, cache, d, i, i + block < count ? i + block : count, begin);
        report(i, count, &reported);
    }
    free(begin);
    return status;
}

/* Compute the cache.  Of several ranks each host's first one writes it. */
static cudpo_status compute(cudpo_trainer *t, const dataset *d, const char *folder, hash128 key,
                            int64_t sequences)
{
    const placement *p = &t->ranks->place;
    reference_cache_writer *writer = NULL;
    if (p->local_rank == 0) CUDPO_TRY(reference_cache_create(&writer, folder, key, sequences));
    score_target alone = {.cache = writer};
    cudpo_status status =
        p->size == 1 ? score_range(t, &alone, d, 0, dataset_count(d)) : score_shares(t, writer, d);
    if (status == CUDPO_OK && writer != NULL) {
        status = reference_cache_commit(writer);
        writer = NULL;
    }
    reference_cache_abandon(writer);
    return status == CUDPO_OK ? ranks_meet(t->ranks, "reference's log-probs") : status;
}

/* Has every rank found it? */
static cudpo_status agree(bool *all, const run_ranks *r, bool found)
{
    *all = found;
    if (r->place.size == 1) return CUDPO_OK;
    bool *each = calloc((size_t)r->place.size, sizeof *each);
    if (each == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "%d ranks", (int)r->place.size);
    const cudpo_status status =
        control_exchange(r->company, each, &found, sizeof found, "search for a reference cache");
    for (int32_t i = 0; i < r->place.size && status == CUDPO_OK; i++)
        *all = *all && each[i];
    free(each);
    return status;
}

cudpo_status trainer_precompute(cudpo_trainer *t, scored_data *d)
{
    const int64_t sequences = dataset_count(d->data) * cached_sequences(t);
    hash128 key;
    CUDPO_TRY(cache_key(&key, t, d));
    char *folder = NULL;
    CUDPO_TRY(cache_folder(&folder, t->config->output_dir));
    bool found = false, all = false;
    cudpo_status status = reference_cache_open(&d->cache, &found, folder, key, sequences);
    if (status == CUDPO_OK) status = agree(&all, t->ranks, found);
    if (status != CUDPO_OK || all) goto out;
    log_info("computing the reference's log-probs of %lld examples",
             (long long)dataset_count(d->data));
    reference_cache_close(d->cache);
    d->cache = NULL;
    status = compute(t, d->data, folder, key, sequences);
    if (status == CUDPO_OK)
        status = reference_cache_open(&d->cache, &found, folder, key, sequences);
    if (status == CUDPO_OK && !found)
        status = cudpo_fail(CUDPO_EWRITE, folder, "the cache just written is not there");
out:
    free(folder);
    return status;
}
