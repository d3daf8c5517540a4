/* resume.c - the trainer's state to a checkpoint and back. */
#include "base/buffer.h"
#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint_folder.h"
#include "train/shares.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t units_of_step(const cudpo_trainer *t)
{
    return trainer_train_batch(t) * t->config->gradient_accumulation_steps;
}

/* This rank's shard, beside those of all others.  Out: entries [ranks]. */
static cudpo_status write_shard(void *context, manifest_entry *entries, const char *folder)
{
    cudpo_trainer *t = context;
    const checkpoint_shard shard = shares_shard(t);
    manifest_entry own;
    CUDPO_TRY(ranks_meet(t->ranks, "folder of a checkpoint"));
    if (!file_is_folder(folder))
        return cudpo_fail(CUDPO_EWRITE, folder,
                          "rank 0 has made this folder, and this rank does not see it: with "
                          "zero_stage 1 every rank writes to output_dir, which must be on a file "
                          "system that they share");
    CUDPO_TRY(shard_write(&own, &shard, folder));
    return control_exchange(t->ranks->company, entries, &own, sizeof own, "files of a checkpoint");
}

/* What rank 0 writes for all. */
static cudpo_status save(cudpo_trainer *t)
{
    const checkpoint_source tensors = {
        .weights = t->zero ? &t->policy : trainer_weights(t),
        .type = shares_master(t) ? t->type : DTYPE_F32,
        .first = &t->first,
        .second = &t->second,
        .shards = write_shard,
        .context = t,
    };
    checkpoint_state s = {.step = t->step, .tokens = t->tokens_seen, .sum_count = 2 * METRICS};
    memcpy(s.sums, t->sums.sum, sizeof t->sums.sum);
    memcpy(s.sums + METRICS, t->sums.count, sizeof t->sums.count);
    trainer_parts(&s, t);
    snprintf(s.device, sizeof s.device, "%s", t->be->name);
    s.pack_tokens = t->pass.pack.capacity_T;
    s.pack_groups = t->pass.pack.capacity_G;
    s.batch_ranks = t->batch_ranks;
    s.batch_units = units_of_step(t);
    s.shards = t->zero ? t->ranks->place.size : 0;
    return checkpoint_save(t->config->output_dir, &s, &tensors, t->config->model_name_or_path,
                           t->config->save_total_limit);
}

/* The other ranks' part in it. */
static cudpo_status hand_in(cudpo_trainer *t)
{
    char *folder = NULL;
    if (!t->zero) return CUDPO_OK;
    manifest_entry *unused = calloc((size_t)t->ranks->place.size, sizeof *unused);
    cudpo_status status = CUDPO_OK;
    if (unused == NULL) status = cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "shards");
    if (status == CUDPO_OK)
        status = checkpoint_path(&folder, t->config->output_dir, t->step, CHECKPOINT_TEMPORARY);
    if (status == CUDPO_OK) status = write_shard(t, unused, folder);
    free(folder);
    free(unused);
    return status;
}

cudpo_status trainer_save(cudpo_trainer *t)
{
    CUDPO_TRY(trainer_gather(t));
    CUDPO_TRY(trainer_check_weights(t));
    CUDPO_TRY(ranks_first(t->ranks) ? save(t) : hand_in(t));
    return ranks_meet(t->ranks, "save");
}

static const checkpoint_part *part_named(const checkpoint_state *s, const char *name)
{
    for (int64_t i = 0; i < s->part_count; i++)
        if (strcmp(s->parts[i].name, name) == 0) return &s->parts[i];
    return NULL;
}

/* Parts of the type that is computed in. */
static bool is_of_type(const char *name)
{
    return strcmp(name, "bf16") == 0 || strcmp(name, "master_weights") == 0 ||
           strcmp(name, "gradient_dtype") == 0;
}

/* Names of the parts of a that b has not, or has with another hash.  In/Out: moved  true where parts of the type are not there
 * in b, which is no reason to name them; NULL: it is. */
static cudpo_status name_others(buffer *others, bool *moved, const checkpoint_state *a,
                                const checkpoint_state *b, bool absent)
{
    for (int64_t i = 0; i < a->part_count; i++) {
        const checkpoint_part *p = &a->parts[i], *q = part_named(b, p->name);
        if (absent ? q != NULL : q != NULL && q->hash == p->hash) continue;
        if (q == NULL && moved != NULL && is_of_type(p->name))
            *moved = true;
        else
            CUDPO_TRY(buffer_printf(others, "%s%s", others->size == 0 ? "" : ", ", p->name));
    }
    return CUDPO_OK;
}

/* Nobody asked for a type: another device than that of the checkpoint has another, and goes on in it. */
static bool may_move(const checkpoint_state *saved, const cudpo_trainer *t)
{
    return t->config->bf16 < 0 && saved->device[0] != '\0' &&
           strcmp(saved->device, t->be->name) != 0;
}

/* All that differs, by name. */
static cudpo_status check_same(const checkpoint_state *saved, const cudpo_trainer *t,
                               const char *path)
{
    checkpoint_state mine = {0};
    buffer others = {0};
    bool moved = false, *const may = may_move(saved, t) ? &moved : NULL;
    trainer_parts(&mine, t);
    if (saved->sum_count != 2 * METRICS)
        return cudpo_fail(CUDPO_EDATA, path, "was made by another version of cudpo");
    cudpo_status status = name_others(&others, may, &mine, saved, false);
    if (status == CUDPO_OK) status = name_others(&others, may, saved, &mine, true);
    if (status == CUDPO_OK && others.size > 0)
        status = cudpo_fail(CUDPO_ECONFIG, path,
                            "was made with other values of: %s; going on from it would not be the "
                            "same run: restore them, or start anew with model_name_or_path set to "
                            "this folder and another output_dir",
                            others.data);
    if (status == CUDPO_OK && moved)
        log_warn("%s was made in another type, on another device; this run goes on in %s", path,
                 dtype_name(t->type));
    buffer_free(&others);
    return status;
}

/* A limit of packs as it was when the run began; `least` and as it is now are what it can be.  False where packs that take
 * `most` or less may come out otherwise. */
static bool keep_limit(int64_t *limit, int64_t then, int64_t least, int64_t most)
{
    const int64_t kept = then > *limit ? *limit : then < least ? least : then;
    *limit = kept;
    return kept == then || (kept >= most && then >= most);
}

/* Tokens of a group that is trained on, at most. */
static int64_t longest_trained(const cudpo_trainer *t)
{
    const int64_t own = dataset_longest(t->train.data);
    const int64_t mismatch = t->traits->kl ? dataset_longest_mismatch(t->train.data) : 0;
    return own > mismatch ? own : mismatch;
}

/* Are the reference's scores computed before the first step, where the cache folder has none? */
static bool scores_first(const cudpo_trainer *t)
{
    return t->rewards && t->config->precompute_ref_log_probs;
}

/* Packs as they were before: where their size follows from the memory that is free, that may be other now, and sums of other
 * packs round differently.  A limit that no step comes to decides nothing; but there is none that packs in which the
 * reference's scores are computed do not come to. */
static void keep_packs(cudpo_trainer *t, const checkpoint_state *s)
{
    const cudpo_config *c = t->config;
    pack *k = &t->pass.pack;
    if (c->max_tokens_per_pack > 0 || strcmp(s->device, t->be->name) != 0) return;
    const int64_t step = units_of_step(t);
    const int64_t groups = scores_first(t) ? INT64_MAX : step;
    const int64_t tokens = scores_first(t) ? INT64_MAX : step * longest_trained(t);
    const bool same_groups = keep_limit(&k->capacity_G, s->pack_groups, 1, groups);
    const bool same_tokens =
        keep_limit(&k->capacity_T, s->pack_tokens, t->memory.limits.largest_group, tokens);
    if (same_groups && same_tokens) return;
    log_warn(
        "packs were of %lld tokens and %lld groups at most and are of %lld and %lld now%s: the "
        "result may not be bit for bit that of a run without a break",
        (long long)s->pack_tokens, (long long)s->pack_groups, (long long)k->capacity_T,
        (long long)k->capacity_G, t->memory.reduced ? ", because less memory is free" : "");
}

/* The checkpoint at a path, which is to be one of this run. */
static cudpo_status look_at(checkpoint_state *s, const cudpo_trainer *t, const char *path)
{
    CUDPO_TRY(checkpoint_read(s, path));
    CUDPO_TRY(check_same(s, t, path));
    if (s->step <= t->total_steps) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path, "is at step %lld of %lld", (long long)s->step,
                      (long long)t->total_steps);
}

static bool goes_on_from_newest(const cudpo_config *c)
{
    return strcmp(c->resume_from_checkpoint, "true") == 0;
}

/* The checkpoint that is gone on from, to t->from, and packs as they were then. */
static cudpo_status find(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    char *path = NULL;
    if (goes_on_from_newest(c)) {
        CUDPO_TRY(checkpoint_newest(&path, c->output_dir));
        if (path == NULL) return CUDPO_OK;
    } else if ((path = strdup(c->resume_from_checkpoint)) == NULL) {
        return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    }
    const cudpo_status status = look_at(&t->saved, t, path);
    if (status != CUDPO_OK) {
        free(path);
        return status;
    }
    t->from = path;
    return CUDPO_OK;
}

cudpo_status trainer_recall_ranks(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    checkpoint_state s = {0};
    bool found = false;
    if (c->resume_from_checkpoint == NULL) return CUDPO_OK;
    if (ranks_first(t->ranks))
        CUDPO_TRY(checkpoint_peek(&s, &found, c->output_dir,
                                  goes_on_from_newest(c) ? NULL : c->resume_from_checkpoint));
    int64_t then[] = {s.batch_ranks, s.batch_units};
    CUDPO_TRY(ranks_share(t->ranks, then, sizeof then, "search for a checkpoint"));
    const int64_t own = c->per_device_train_batch_size * c->gradient_accumulation_steps;
    if (then[0] < 1 || own * t->batch_ranks == then[1] || own * then[0] != then[1]) return CUDPO_OK;
    t->batch_ranks = then[0];
    log_info("%d ranks go on with what %lld ranks began: a step has %lld rows as before",
             (int)t->ranks->place.size, (long long)then[0], (long long)then[1]);
    return CUDPO_OK;
}

/* What rank 0 found, to all; and packs as they were then. */
static cudpo_status share_found(cudpo_trainer *t)
{
    t->goes_on = t->from != NULL;
    CUDPO_TRY(ranks_share(t->ranks, &t->goes_on, sizeof t->goes_on, "search for a checkpoint"));
    if (!t->goes_on) return CUDPO_OK;
    CUDPO_TRY(ranks_share(t->ranks, &t->saved, sizeof t->saved, "state of a checkpoint"));
    keep_packs(t, &t->saved);
    return CUDPO_OK;
}

cudpo_status trainer_recall_packs(cudpo_trainer *t)
{
    if (t->config->resume_from_checkpoint == NULL || !scores_first(t)) return CUDPO_OK;
    if (ranks_first(t->ranks) && find(t) != CUDPO_OK) cudpo_error_clear();
    return share_found(t);
}

/* The checkpoint that rank 0 found, as this rank would: in new memory. */
static cudpo_status path_here(char **path, const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    if (t->from == NULL && goes_on_from_newest(c))
        return checkpoint_path(path, c->output_dir, t->saved.step, CHECKPOINT_COMPLETE);
    *path = strdup(t->from != NULL ? t->from : c->resume_from_checkpoint);
    return *path != NULL ? CUDPO_OK : cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
}

/* Rank 0 has verified the files of its folder; where every rank reads, it is to be the same one. */
static cudpo_status check_folder(const cudpo_trainer *t, const char *path)
{
    hash128 own = {0}, first;
    manifest_entry manifest = {0};
    cudpo_status status = manifest_measure(&manifest, path, MANIFEST_NAME);
    if (status == CUDPO_OK)
        own = manifest.hash;
    else if (ranks_first(t->ranks))
        return status;
    cudpo_error_clear();
    first = own;
    CUDPO_TRY(ranks_share(t->ranks, &first, sizeof first, "manifest of a checkpoint"));
    if (status == CUDPO_OK && memcmp(&first, &own, sizeof own) == 0) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_ENOINPUT, path,
        "is not, on this rank, the checkpoint that rank 0 goes on from: with "
        "zero_stage 1 every rank reads its share, from a file system that they share");
}

/* Where nothing is shared out rank 0 reads for all, and the others need not see the folder. */
static cudpo_status restore(cudpo_trainer *t)
{
    const checkpoint_state *s = &t->saved;
    char *path = NULL;
    CUDPO_TRY(path_here(&path, t));
    cudpo_status status = t->zero ? check_folder(t, path) : CUDPO_OK;
    if (status == CUDPO_OK) status = shares_restore(t, path);
    free(path);
    CUDPO_TRY(status);
    t->step = s->step;
    t->tokens_seen = s->tokens;
    memcpy(t->sums.sum, s->sums, sizeof t->sums.sum);
    memcpy(t->sums.count, s->sums + METRICS, sizeof t->sums.count);
    if (t->from != NULL) log_info("going on from %s", t->from);
    return CUDPO_OK;
}

/* Rank 0 looks for what is gone on from.  With overwrite_output_dir, a newest checkpoint that is of another run, or damaged, is
 * no reason to stop. */
static cudpo_status look_for(cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    if (!ranks_first(t->ranks) || t->from != NULL) return CUDPO_OK;
    const cudpo_status status = find(t);
    if (status == CUDPO_OK && t->from == NULL)
        log_info("%s holds no checkpoint yet: starting anew", c->output_dir);
    if (!goes_on_from_newest(c) || !c->overwrite_output_dir ||
        (status != CUDPO_EDATA && status != CUDPO_ECONFIG))
        return status;
    log_info("starting anew: %s", cudpo_error_message());
    cudpo_error_clear();
    return CUDPO_OK;
}

cudpo_status trainer_resume(cudpo_trainer *t)
{
    if (t->config->resume_from_checkpoint == NULL) return CUDPO_OK;
    CUDPO_TRY(look_for(t));
    if (!t->goes_on) CUDPO_TRY(share_found(t));
    return t->goes_on ? restore(t) : CUDPO_OK;
}
