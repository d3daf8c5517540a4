/* output.c - checks of output_dir, and its lock. */
#include "train/output.h"
#include "base/file.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* What an output folder holds already. */
typedef struct contents {
    bool run;        /* metrics.jsonl or run.json */
    bool checkpoint; /* one of ours */
    bool weights;    /* *.safetensors */
} contents;

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Is there a checkpoint of ours; where `path` is given: that is this folder? */
static cudpo_status find_checkpoint(bool *found, const char *output_dir, const char *path)
{
    int64_t *steps = NULL, count = 0;
    *found = false;
    CUDPO_TRY(checkpoint_steps(&steps, &count, output_dir, CHECKPOINT_COMPLETE));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK && !*found; i++) {
        char *checkpoint = NULL;
        status = checkpoint_path(&checkpoint, output_dir, steps[i], CHECKPOINT_COMPLETE);
        *found = status == CUDPO_OK && checkpoint_is_ours(checkpoint) &&
                 (path == NULL || file_is_same(checkpoint, path));
        free(checkpoint);
    }
    free(steps);
    return status;
}

static cudpo_status look(contents *found, const char *folder)
{
    *found = (contents){0};
    DIR *d = opendir(folder);
    if (d == NULL) return file_fail(folder, "open folder", true);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, "metrics.jsonl") == 0 || strcmp(e->d_name, "run.json") == 0)
            found->run = true;
        if (ends_with(e->d_name, ".safetensors")) found->weights = true;
    }
    closedir(d);
    return find_checkpoint(&found->checkpoint, folder, NULL);
}

/* Is `path` output_dir or one of its checkpoints?  Training would replace what it starts from. */
static cudpo_status check_start(const cudpo_config *c, const char *key, const char *path)
{
    if (path == NULL) return CUDPO_OK;
    const bool same = file_is_same(path, c->output_dir);
    bool inside;
    CUDPO_TRY(find_checkpoint(&inside, c->output_dir, path));
    if (!same && !inside) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                      "output_dir is %s %s, which the run would replace: choose another folder",
                      same ? "the folder of" : "where the checkpoint lies that is", key);
}

/* Files that a run writes, where something else has their names. */
static cudpo_status check_names(const char *folder)
{
    static const char *const names[] = {"metrics.jsonl", "run.json", "config.json",
                                        "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = path_join(folder, names[i]);
        if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
        const bool taken = file_is_folder(path);
        if (taken)
            cudpo_fail(CUDPO_EWRITE, path,
                       "is a folder, where the run has to write a file: "
                       "remove it or choose another output_dir");
        free(path);
        if (taken) return CUDPO_EWRITE;
    }
    return CUDPO_OK;
}

static cudpo_status check_anew(const cudpo_config *c, const contents *found)
{
    if (found->weights && !found->run && !found->checkpoint)
        return cudpo_fail(
            CUDPO_ECONFIG, c->output_dir,
            "output_dir holds a model that no run of cudpo made: choose another folder");
    if (c->overwrite_output_dir || !(found->run || found->weights || found->checkpoint))
        return CUDPO_OK;
    return cudpo_fail(
        CUDPO_ECONFIG, c->output_dir,
        "output_dir holds a run: set resume_from_checkpoint to true to go on with it, "
        "overwrite_output_dir to true to replace it, or choose another folder");
}

static cudpo_status check_resume(const cudpo_config *c, const contents *found)
{
    if (strcmp(c->resume_from_checkpoint, "true") == 0) {
        if (found->checkpoint || !found->weights) return CUDPO_OK;
        return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                          "output_dir holds a finished model and no checkpoint to go on from: "
                          "choose another folder, or set overwrite_output_dir to true and "
                          "resume_from_checkpoint to false to replace it");
    }
    if (!(found->run || found->weights || found->checkpoint)) return CUDPO_OK;
    char *parent = path_join(c->resume_from_checkpoint, "..");
    if (parent == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const bool own = !file_is_folder(parent) || file_is_same(parent, c->output_dir);
    free(parent);
    if (own) return CUDPO_OK; /* or it is not there at all, which resuming will say */
    return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                      "output_dir holds another run than that of %s, and would lose it: choose "
                      "another folder",
                      c->resume_from_checkpoint);
}

/* Where the file system knows no such locks, there is none. */
static cudpo_status take(output_folder *o, const char *folder)
{
    o->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->lock < 0) return file_fail(folder, "open folder", true);
    if (flock(o->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return CUDPO_OK;
    return cudpo_fail(CUDPO_EWRITE, folder,
                      "another process is training into this output_dir: wait for it, or choose "
                      "another folder");
}

static cudpo_status check(output_folder *o, const cudpo_config *c)
{
    contents found;
    CUDPO_TRY(check_start(c, "model_name_or_path", c->model_name_or_path));
    CUDPO_TRY(check_start(c, "ref_model_name_or_path", c->ref_model_name_or_path));
    CUDPO_TRY(take(o, c->output_dir));
    CUDPO_TRY(check_names(c->output_dir));
    CUDPO_TRY(look(&found, c->output_dir));
    return c->resume_from_checkpoint == NULL ? check_anew(c, &found) : check_resume(c, &found);
}

cudpo_status output_open(output_folder *o, const cudpo_config *c)
{
    o->lock = -1;
    CUDPO_TRY(file_make_folder(c->output_dir));
    const cudpo_status status = check(o, c);
    if (status != CUDPO_OK) output_close(o);
    return status;
}

cudpo_status output_begin(const cudpo_config *c, int64_t step)
{
    const bool anew = c->resume_from_checkpoint == NULL;
    CUDPO_TRY(checkpoint_clean(c->output_dir, anew ? -1 : step));
    if (!anew) return CUDPO_OK;
    /* So that a folder whose run did not end holds no model that looks like its result. */
    char *path = path_join(c->output_dir, "model.safetensors");
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const bool left = unlink(path) != 0 && errno != ENOENT;
    const cudpo_status status = left ? file_fail(path, "remove", true) : CUDPO_OK;
    free(path);
    return status;
}

void output_close(output_folder *o)
{
    if (o->lock >= 0) close(o->lock);
    o->lock = -1;
}
