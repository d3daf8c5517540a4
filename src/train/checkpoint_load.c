/* checkpoint_load.c - nothing of a checkpoint is used before all of it is verified. */
#include "train/checkpoint.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "train/checkpoint_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_STATE_BYTES = 1 << 20 };

/* Exactly 16 hex digits, lower case, as they are written. */
static bool read_hex(uint64_t *word, const json *value)
{
    if (json_type(value) != JSON_STRING) return false;
    const char *text = json_string(value);
    if (strlen(text) != 16) return false;
    *word = 0;
    for (int i = 0; i < 16; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = strchr(digits, text[i]);
        if (at == NULL) return false;
        *word = *word << 4 | (uint64_t)(at - digits);
    }
    return true;
}

static bool parse_parts(checkpoint_state *s, const json *same)
{
    if (same == NULL || json_type(same) != JSON_OBJECT) return false;
    for (const json *v = json_first(same); v != NULL; v = json_next(v)) {
        if (s->part_count == CHECKPOINT_PARTS) return false;
        checkpoint_part *p = &s->parts[s->part_count++];
        if (strlen(json_key(v)) >= sizeof p->name || !read_hex(&p->hash, v)) return false;
        snprintf(p->name, sizeof p->name, "%s", json_key(v));
    }
    return true;
}

static bool parse_packs(checkpoint_state *s, const json *packs)
{
    if (packs == NULL) return true;
    const json *device = json_get(packs, "device"), *tokens = json_get(packs, "tokens"),
               *groups = json_get(packs, "groups");
    if (device == NULL || tokens == NULL || groups == NULL) return false;
    if (json_type(device) != JSON_STRING || strlen(json_string(device)) >= sizeof s->device)
        return false;
    snprintf(s->device, sizeof s->device, "%s", json_string(device));
    return json_integer(tokens, &s->pack_tokens) && s->pack_tokens >= 1 &&
           json_integer(groups, &s->pack_groups) && s->pack_groups >= 1;
}

static bool parse_batches(checkpoint_state *s, const json *batches)
{
    if (batches == NULL) return true;
    const json *ranks = json_get(batches, "ranks"), *units = json_get(batches, "units");
    if (ranks == NULL || units == NULL) return false;
    return json_integer(ranks, &s->batch_ranks) && s->batch_ranks >= 1 &&
           json_integer(units, &s->batch_units) && s->batch_units >= s->batch_ranks;
}

static bool parse_shards(checkpoint_state *s, const json *shards)
{
    return shards == NULL ||
           (json_integer(shards, &s->shards) && s->shards >= 1 && s->shards <= CHECKPOINT_SHARDS);
}

static bool parse_state(checkpoint_state *s, const json *root)
{
    if (json_type(root) != JSON_OBJECT) return false;
    int64_t version = 0;
    const json *v = json_get(root, "version"), *step = json_get(root, "step"),
               *tokens = json_get(root, "num_tokens"), *sums = json_get(root, "sums");
    if (v == NULL || !json_integer(v, &version) || version != CHECKPOINT_VERSION) return false;
    if (step == NULL || !json_integer(step, &s->step) || s->step < 0) return false;
    if (tokens == NULL || !json_integer(tokens, &s->tokens) || s->tokens < 0) return false;
    if (!parse_parts(s, json_get(root, "same"))) return false;
    if (!parse_packs(s, json_get(root, "packs"))) return false;
    if (!parse_batches(s, json_get(root, "batches"))) return false;
    if (!parse_shards(s, json_get(root, "shards"))) return false;
    if (sums == NULL || json_type(sums) != JSON_ARRAY) return false;
    for (const json *sum = json_first(sums); sum != NULL; sum = json_next(sum)) {
        uint64_t bits = 0;
        if (s->sum_count == CHECKPOINT_SUMS || !read_hex(&bits, sum)) return false;
        memcpy(&s->sums[s->sum_count++], &bits, sizeof bits);
    }
    return true;
}

static cudpo_status read_state(checkpoint_state *state, const char *path)
{
    json *root = NULL;
    CUDPO_TRY(json_load(&root, path, MAX_STATE_BYTES));
    *state = (checkpoint_state){0};
    cudpo_status status = CUDPO_OK;
    if (!parse_state(state, root))
        status =
            cudpo_fail(CUDPO_EDATA, path, "is not the state that this version of cudpo writes");
    json_free(root);
    return status;
}

cudpo_status checkpoint_read_state(checkpoint_state *state, const char *folder)
{
    char *file = path_join(folder, "trainer_state.json");
    if (file == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    const cudpo_status status = read_state(state, file);
    free(file);
    return status;
}

cudpo_status checkpoint_peek(checkpoint_state *state, bool *found, const char *output_dir,
                             const char *path)
{
    int64_t *steps = NULL, count = 0;
    *state = (checkpoint_state){0};
    *found = false;
    if (path != NULL) {
        *found = checkpoint_read_state(state, path) == CUDPO_OK;
    } else {
        CUDPO_TRY(checkpoint_our_steps(&steps, &count, output_dir));
        for (int64_t i = count - 1; i >= 0 && !*found; i--) {
            char *newest = NULL;
            if (checkpoint_path(&newest, output_dir, steps[i], CHECKPOINT_COMPLETE) == CUDPO_OK)
                *found = checkpoint_read_state(state, newest) == CUDPO_OK;
            free(newest);
        }
        free(steps);
    }
    if (!*found) cudpo_error_clear(); /* whoever reads all of it says what is wrong */
    return CUDPO_OK;
}

cudpo_status checkpoint_read(checkpoint_state *state, const char *path)
{
    *state = (checkpoint_state){0};
    struct stat s;
    if (stat(path, &s) != 0) return file_fail(path, "open the checkpoint", false);
    int64_t step = 0;
    CUDPO_TRY(checkpoint_verify(&step, path, -1, false));
    CUDPO_TRY(checkpoint_read_state(state, path));
    if (state->step == step) return CUDPO_OK;
    return cudpo_fail(CUDPO_EDATA, path,
                      "trainer_state.json is of step %lld; the manifest is of step %lld",
                      (long long)state->step, (long long)step);
}

/* A save that was killed between its last write and its rename left a whole checkpoint: take it. */
static cudpo_status adopt(const char *output_dir)
{
    int64_t *steps = NULL, count = 0, found = 0;
    CUDPO_TRY(checkpoint_steps(&steps, &count, output_dir, CHECKPOINT_TEMPORARY));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK; i++) {
        char *temporary = NULL, *path = NULL;
        status = checkpoint_path(&temporary, output_dir, steps[i], CHECKPOINT_TEMPORARY);
        if (status == CUDPO_OK)
            status = checkpoint_path(&path, output_dir, steps[i], CHECKPOINT_COMPLETE);
        struct stat s;
        if (status == CUDPO_OK && lstat(path, &s) != 0) {
            if (checkpoint_verify(&found, temporary, steps[i], false) == CUDPO_OK) {
                status = file_rename(path, temporary);
            } else {
                cudpo_error_clear(); /* half of one: checkpoint_clean() removes it */
            }
        }
        free(path);
        free(temporary);
    }
    free(steps);
    return status;
}

cudpo_status checkpoint_newest(char **path, const char *output_dir)
{
    *path = NULL;
    CUDPO_TRY(adopt(output_dir));
    int64_t *steps = NULL, count = 0, found = 0, damaged = 0;
    CUDPO_TRY(checkpoint_steps(&steps, &count, output_dir, CHECKPOINT_COMPLETE));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = count - 1; i >= 0 && status == CUDPO_OK && *path == NULL; i--) {
        char *candidate = NULL;
        status = checkpoint_path(&candidate, output_dir, steps[i], CHECKPOINT_COMPLETE);
        if (status != CUDPO_OK) break;
        if (!checkpoint_is_ours(candidate)) {
            log_warn("%s is not a checkpoint of cudpo and is skipped", candidate);
        } else if ((status = checkpoint_verify(&found, candidate, steps[i], false)) == CUDPO_OK) {
            *path = candidate;
            candidate = NULL;
        } else if (status == CUDPO_EDATA) { /* anything else, say no permission, is no damage */
            log_warn("%s is damaged and is skipped: %s", candidate, cudpo_error_message());
            cudpo_error_clear();
            status = CUDPO_OK;
            damaged++;
        }
        free(candidate);
    }
    free(steps);
    if (status == CUDPO_OK && *path == NULL && damaged > 0)
        status = cudpo_fail(CUDPO_EDATA, output_dir,
                            "all its %lld checkpoints are damaged: remove them to start anew",
                            (long long)damaged);
    return status;
}
