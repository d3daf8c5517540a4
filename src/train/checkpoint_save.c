/* checkpoint_save.c - a checkpoint is built beside, read back, and renamed; only then are older ones removed.
 *
 * At every moment of this, whatever fails or is killed, the newest verified checkpoint is there: under its name, or as a
 * temporary whose manifest verifies, which checkpoint_newest() adopts. */
#include "train/checkpoint.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint_folder.h"
#include "train/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Doubles are written as the bits they are: NaN and -0 come back too. */
static cudpo_status write_state(const char *path, const checkpoint_state *s)
{
    buffer b = {0};
    cudpo_status status = buffer_printf(
        &b, "{\n  \"version\": %d,\n  \"step\": %lld,\n  \"num_tokens\": %lld,\n  \"same\": {",
        CHECKPOINT_VERSION, (long long)s->step, (long long)s->tokens);
    for (int64_t i = 0; i < s->part_count && status == CUDPO_OK; i++) {
        const checkpoint_part *p = &s->parts[i];
        status = buffer_printf(&b, "%s", i == 0 ? "\n    " : ",\n    ");
        if (status == CUDPO_OK) status = buffer_json_string(&b, p->name, strlen(p->name));
        if (status == CUDPO_OK)
            status = buffer_printf(&b, ": \"%016llx\"", (unsigned long long)p->hash);
    }
    if (status == CUDPO_OK) status = buffer_printf(&b, "\n  },\n  \"sums\": [");
    for (int64_t i = 0; i < s->sum_count && status == CUDPO_OK; i++) {
        uint64_t bits;
        memcpy(&bits, &s->sums[i], sizeof bits);
        status = buffer_printf(&b, "%s\"%016llx\"", i == 0 ? "" : ", ", (unsigned long long)bits);
    }
    if (status == CUDPO_OK) status = buffer_printf(&b, "]");
    if (status == CUDPO_OK && s->device[0] != '\0')
        status = buffer_printf(
            &b, ",\n  \"packs\": {\"device\": \"%s\", \"tokens\": %lld, \"groups\": %lld}",
            s->device, (long long)s->pack_tokens, (long long)s->pack_groups);
    if (status == CUDPO_OK && s->batch_ranks > 0)
        status = buffer_printf(&b, ",\n  \"batches\": {\"ranks\": %lld, \"units\": %lld}",
                               (long long)s->batch_ranks, (long long)s->batch_units);
    if (status == CUDPO_OK && s->shards > 0)
        status = buffer_printf(&b, ",\n  \"shards\": %lld", (long long)s->shards);
    if (status == CUDPO_OK) status = buffer_printf(&b, "\n}\n");
    if (status == CUDPO_OK) status = file_write(path, b.data, b.size);
    buffer_free(&b);
    return status;
}

static cudpo_status save_moment(const model_weights *w, checkpoint_tensors which,
                                const char *folder)
{
    char *path = path_join(folder, checkpoint_files[which]);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status = model_weights_save(w, path, DTYPE_F32);
    free(path);
    return status;
}

/* Shards first: the other ranks write theirs while rank 0 writes its own. */
static cudpo_status write_files(const char *folder, const checkpoint_state *state,
                                const checkpoint_source *tensors, const char *model,
                                manifest_entry *shards)
{
    if (state->shards > 0) CUDPO_TRY(tensors->shards(tensors->context, shards, folder));
    CUDPO_TRY(model_folder_save(tensors->weights, folder, model, tensors->type));
    if (state->shards == 0) {
        CUDPO_TRY(save_moment(tensors->first, CHECKPOINT_FIRST, folder));
        CUDPO_TRY(save_moment(tensors->second, CHECKPOINT_SECOND, folder));
    }
    char *path = path_join(folder, checkpoint_state_file);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status = write_state(path, state);
    free(path);
    CUDPO_TRY(status);
    return manifest_write(folder, state->step, shards, state->shards);
}

static cudpo_status build(const char *folder, const checkpoint_state *state,
                          const checkpoint_source *tensors, const char *model)
{
    CUDPO_TRY(file_remove_folder(folder));
    CUDPO_TRY(file_make_folder(folder));
    manifest_entry *shards = calloc((size_t)state->shards + 1, sizeof *shards);
    if (shards == NULL)
        return cudpo_fail(CUDPO_ENOMEM, folder, "%lld shards", (long long)state->shards);
    cudpo_status status = write_files(folder, state, tensors, model, shards);
    free(shards);
    CUDPO_TRY(status);
    int64_t step = 0;
    return checkpoint_verify(&step, folder, state->step, true);
}

/* Give the finished folder its name, in place of an older checkpoint of the same step. */
static cudpo_status publish(const char *output_dir, int64_t step, const char *temporary)
{
    char *path = NULL, *removed = NULL;
    struct stat s;
    cudpo_status status = checkpoint_path(&path, output_dir, step, CHECKPOINT_COMPLETE);
    if (status == CUDPO_OK)
        status = checkpoint_path(&removed, output_dir, step, CHECKPOINT_REMOVED);
    if (status != CUDPO_OK) goto out;
    if (lstat(path, &s) != 0) {
        status = errno == ENOENT ? file_rename(path, temporary) : file_fail(path, "stat", true);
        goto out;
    }
    if (!checkpoint_is_ours(path)) {
        status = cudpo_fail(CUDPO_EWRITE, path, "exists and is not a checkpoint of cudpo");
        goto out;
    }
    status = file_remove_folder(removed);
    if (status == CUDPO_OK) status = file_rename(removed, path);
    if (status == CUDPO_OK) status = file_rename(path, temporary);
    if (status == CUDPO_OK) status = file_remove_folder(removed);
out:
    free(removed);
    free(path);
    return status;
}

/* Older checkpoints are a courtesy: one that can't be removed does not make the new one a failure. */
static void prune(const char *output_dir, int64_t step, int64_t keep)
{
    int64_t *steps = NULL, count = 0;
    cudpo_status status = checkpoint_our_steps(&steps, &count, output_dir);
    for (int64_t i = 0, excess = count - keep; i < count && excess > 0 && status == CUDPO_OK; i++) {
        if (steps[i] == step) continue;
        status = checkpoint_remove(output_dir, steps[i]);
        excess--;
    }
    free(steps);
    if (status == CUDPO_OK) return;
    log_warn("an old checkpoint could not be removed: %s", cudpo_error_message());
    cudpo_error_clear();
}

cudpo_status checkpoint_save(const char *output_dir, const checkpoint_state *state,
                             const checkpoint_source *tensors, const char *model, int64_t keep)
{
    CUDPO_REQUIRE(state->step >= 0 && state->step < INT64_C(1) << 53);
    CUDPO_REQUIRE(state->tokens >= 0 && state->tokens < INT64_C(1) << 53);
    CUDPO_REQUIRE(state->part_count >= 0 && state->part_count <= CHECKPOINT_PARTS);
    CUDPO_REQUIRE(state->sum_count >= 0 && state->sum_count <= CHECKPOINT_SUMS && keep >= 0);
    CUDPO_REQUIRE(state->shards >= 0 && state->shards <= CHECKPOINT_SHARDS);
    CUDPO_TRY(file_make_folder(output_dir));
    char *temporary = NULL;
    CUDPO_TRY(checkpoint_path(&temporary, output_dir, state->step, CHECKPOINT_TEMPORARY));
    cudpo_status status = build(temporary, state, tensors, model);
    if (status == CUDPO_OK) {
        status = publish(output_dir, state->step, temporary); /* where it fails, both are kept */
    } else {
        /* It may be what fills the disk.  The first failure keeps its message. */
        const cudpo_status ignored = file_remove_folder(temporary);
        (void)ignored;
    }
    if (status == CUDPO_OK && keep > 0) prune(output_dir, state->step, keep);
    free(temporary);
    return status;
}
