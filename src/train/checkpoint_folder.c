/* checkpoint_folder.c - finding, verifying and removing checkpoints by name. */
#include "train/checkpoint_folder.h"
#include "base/buffer.h"
#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/checkpoint_shards.h"
#include "train/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *const checkpoint_files[] = {"model.safetensors", "exp_avg.safetensors",
                                        "exp_avg_sq.safetensors"};
const char checkpoint_state_file[] = "trainer_state.json";

static const char *const prefix[] = {"checkpoint-", ".checkpoint-", ".checkpoint-"};
static const char *const suffix[] = {"", ".tmp", ".removed"};

cudpo_status checkpoint_path(char **out, const char *output_dir, int64_t step,
                             checkpoint_stage stage)
{
    char name[64];
    snprintf(name, sizeof name, "%s%lld%s", prefix[stage], (long long)step, suffix[stage]);
    *out = path_join(output_dir, name);
    return *out == NULL ? cudpo_fail(CUDPO_ENOMEM, output_dir, "path") : CUDPO_OK;
}

/* The step of a name of that stage, or -1.  Only the one spelling that we write is taken: no sign, no leading zero. */
static int64_t step_of(const char *name, checkpoint_stage stage)
{
    const size_t before = strlen(prefix[stage]), n = strlen(name), after = strlen(suffix[stage]);
    if (n <= before + after || strncmp(name, prefix[stage], before) != 0) return -1;
    if (strcmp(name + n - after, suffix[stage]) != 0) return -1;
    const char *digit = name + before, *end = name + n - after;
    if (end - digit > 18 || (*digit == '0' && end - digit > 1)) return -1;
    int64_t step = 0;
    for (; digit < end; digit++) {
        if (*digit < '0' || *digit > '9') return -1;
        step = step * 10 + (*digit - '0');
    }
    return step;
}

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

cudpo_status checkpoint_steps(int64_t **steps, int64_t *count, const char *output_dir,
                              checkpoint_stage stage)
{
    *steps = NULL;
    *count = 0;
    DIR *d = opendir(output_dir);
    if (d == NULL) return errno == ENOENT ? CUDPO_OK : file_fail(output_dir, "open folder", false);
    buffer found = {0};
    cudpo_status status = CUDPO_OK;
    while (status == CUDPO_OK) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL) {
            if (errno != 0) status = file_fail(output_dir, "read folder", false);
            break;
        }
        const int64_t step = step_of(e->d_name, stage);
        if (step >= 0) status = buffer_append(&found, &step, sizeof step);
    }
    closedir(d);
    if (status != CUDPO_OK) {
        buffer_free(&found);
        return status;
    }
    *steps = (int64_t *)(void *)found.data; /* malloc'ed, so aligned for any type */
    *count = (int64_t)(found.size / sizeof **steps);
    if (*count > 1) qsort(*steps, (size_t)*count, sizeof **steps, ascending);
    return CUDPO_OK;
}

/* What may not be looked at counts as there: whoever reads it will say so. */
static bool holds(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    struct stat s;
    const bool found = path != NULL && (stat(path, &s) == 0 ? S_ISREG(s.st_mode) : errno == EACCES);
    free(path);
    return found;
}

static bool holds_shard(const char *folder)
{
    DIR *d = opendir(folder);
    bool found = false;
    for (const struct dirent *e; !found && d != NULL && (e = readdir(d)) != NULL;)
        found = shard_is_name(e->d_name);
    if (d != NULL) closedir(d);
    return found;
}

bool checkpoint_is_ours(const char *path)
{
    return holds(path, MANIFEST_NAME) || holds(path, checkpoint_files[CHECKPOINT_FIRST]) ||
           holds_shard(path);
}

cudpo_status checkpoint_our_steps(int64_t **steps, int64_t *ours, const char *output_dir)
{
    int64_t count = 0;
    *ours = 0;
    CUDPO_TRY(checkpoint_steps(steps, &count, output_dir, CHECKPOINT_COMPLETE));
    for (int64_t i = 0; i < count; i++) {
        char *path = NULL;
        const cudpo_status status =
            checkpoint_path(&path, output_dir, (*steps)[i], CHECKPOINT_COMPLETE);
        if (status == CUDPO_OK && checkpoint_is_ours(path)) (*steps)[(*ours)++] = (*steps)[i];
        free(path);
        CUDPO_TRY(status);
    }
    return CUDPO_OK;
}

cudpo_status checkpoint_remove(const char *output_dir, int64_t step)
{
    char *path = NULL, *removed = NULL;
    cudpo_status status = checkpoint_path(&path, output_dir, step, CHECKPOINT_COMPLETE);
    if (status == CUDPO_OK)
        status = checkpoint_path(&removed, output_dir, step, CHECKPOINT_REMOVED);
    if (status == CUDPO_OK) status = file_remove_folder(removed);
    if (status == CUDPO_OK) status = file_rename(removed, path);
    if (status == CUDPO_OK) status = file_remove_folder(removed);
    free(removed);
    free(path);
    return status;
}

/* The moments are whole, or all of their shards are there. */
static cudpo_status check_moments(const char *path, int64_t shards)
{
    const int64_t files = shards > 0 ? shards : 2;
    char(*name)[SHARD_NAME] = calloc((size_t)files, sizeof *name);
    const char **needed = calloc((size_t)files + 1, sizeof *needed);
    cudpo_status status = CUDPO_OK;
    if (name == NULL || needed == NULL)
        status = cudpo_fail(CUDPO_ENOMEM, path, "%lld files", (long long)files);
    for (int64_t i = 0; i < files && status == CUDPO_OK; i++) {
        if (shards > 0) shard_name(name[i], (int)i, (int)shards);
        needed[i] = shards > 0 ? name[i] : checkpoint_files[CHECKPOINT_FIRST + i];
    }
    if (status == CUDPO_OK) status = manifest_lists(path, needed);
    free(needed);
    free(name);
    return status;
}

/* The state says in how many shards the moments are, and what it says counts once it is verified itself.  One that is whole, yet
 * of another version, is no damage: whoever reads it says so. */
cudpo_status checkpoint_verify(int64_t *found, const char *path, int64_t step, bool from_disk)
{
    const char *const needed[] = {checkpoint_files[CHECKPOINT_WEIGHTS], checkpoint_state_file,
                                  NULL};
    checkpoint_state state;
    CUDPO_TRY(manifest_verify(found, path, needed, from_disk));
    if (step >= 0 && *found != step)
        return cudpo_fail(CUDPO_EDATA, path, "holds step %lld", (long long)*found);
    const cudpo_status status = checkpoint_read_state(&state, path);
    if (status == CUDPO_OK) return check_moments(path, state.shards);
    if (status != CUDPO_EDATA) return status;
    cudpo_error_clear();
    return CUDPO_OK;
}

/* Remove every folder of a stage whose step is over `above`, and of the complete ones only ours. */
static cudpo_status remove_stage(const char *output_dir, checkpoint_stage stage, int64_t above)
{
    int64_t *steps = NULL, count = 0;
    CUDPO_TRY(checkpoint_steps(&steps, &count, output_dir, stage));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK; i++) {
        if (steps[i] <= above) continue;
        char *path = NULL;
        status = checkpoint_path(&path, output_dir, steps[i], stage);
        if (status != CUDPO_OK) break;
        if (stage != CHECKPOINT_COMPLETE) {
            status = file_remove_folder(path);
        } else if (checkpoint_is_ours(path)) {
            log_info("%s is removed: this run %s", path,
                     above < 0 ? "begins anew" : "goes on from an earlier step");
            status = checkpoint_remove(output_dir, steps[i]);
        }
        free(path);
    }
    free(steps);
    return status;
}

cudpo_status checkpoint_clean(const char *output_dir, int64_t step)
{
    CUDPO_TRY(remove_stage(output_dir, CHECKPOINT_TEMPORARY, -1));
    CUDPO_TRY(remove_stage(output_dir, CHECKPOINT_REMOVED, -1));
    return remove_stage(output_dir, CHECKPOINT_COMPLETE, step);
}
