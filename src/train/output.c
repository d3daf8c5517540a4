/* output.c - checks of output_dir, and its lock. */
#include "train/output.h"
#include "base/file.h"
#include "base/json.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"
#include "train/device.h"
#include "train/run_record.h"
#include "train/tensorboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { MAX_RECORD_BYTES = 1 << 20 };

typedef enum entry_kind { ENTRY_NONE, ENTRY_FILE, ENTRY_FOLDER } entry_kind;

static cudpo_status entry(entry_kind *kind, const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    *kind = ENTRY_NONE;
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    *kind = file_is_folder(path) ? ENTRY_FOLDER : access(path, F_OK) == 0 ? ENTRY_FILE : ENTRY_NONE;
    free(path);
    return CUDPO_OK;
}

static cudpo_status remove_file(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const bool left = unlink(path) != 0 && errno != ENOENT;
    const cudpo_status status = left ? file_fail(path, "remove", true) : CUDPO_OK;
    free(path);
    return status;
}

static cudpo_status remove_folder(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = file_remove_folder(path);
    free(path);
    return status;
}

/* What an output folder holds of runs. */
typedef struct contents {
    bool record;         /* run.json that a run wrote */
    char run[HASH_TEXT]; /* which one it names */
    bool checkpoint;     /* one of ours */
    bool model;          /* model.safetensors */
} contents;

/* A run.json that is damaged, or of someone else, is no record. */
static cudpo_status read_record(contents *found, const char *folder)
{
    json *root = NULL;
    char *path = path_join(folder, "run.json");
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    if (file_is_regular(path) && json_load(&root, path, MAX_RECORD_BYTES) == CUDPO_OK &&
        json_type(root) == JSON_OBJECT && json_get(root, "cudpo") != NULL) {
        const json *run = json_get(root, "run");
        found->record = run != NULL && json_type(run) == JSON_STRING;
        if (found->record) snprintf(found->run, sizeof found->run, "%s", json_string(run));
    }
    cudpo_error_clear();
    json_free(root);
    free(path);
    return CUDPO_OK;
}

/* Is there a checkpoint of ours; where `path` is given: that is this folder? */
static cudpo_status find_checkpoint(bool *found, const char *output_dir, const char *path)
{
    int64_t *steps = NULL, count = 0;
    *found = false;
    CUDPO_TRY(checkpoint_our_steps(&steps, &count, output_dir));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK && !*found; i++) {
        char *checkpoint = NULL;
        status = checkpoint_path(&checkpoint, output_dir, steps[i], CHECKPOINT_COMPLETE);
        *found = status == CUDPO_OK && (path == NULL || file_is_same(checkpoint, path));
        free(checkpoint);
    }
    free(steps);
    return status;
}

static cudpo_status look(contents *found, const char *folder)
{
    entry_kind model;
    *found = (contents){0};
    CUDPO_TRY(read_record(found, folder));
    CUDPO_TRY(entry(&model, folder, "model.safetensors"));
    found->model = model != ENTRY_NONE;
    return find_checkpoint(&found->checkpoint, folder, NULL);
}

/* Training would replace what it starts from. */
static cudpo_status check_start(const cudpo_config *c, const char *key, const char *path)
{
    bool inside;
    if (path == NULL) return CUDPO_OK;
    if (file_is_same(path, c->output_dir))
        return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                          "output_dir is the folder of %s, which the run would replace: choose "
                          "another folder",
                          key);
    CUDPO_TRY(find_checkpoint(&inside, c->output_dir, path));
    if (!inside) return CUDPO_OK;
    return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                      "%s is a checkpoint in output_dir, which the run would replace: choose "
                      "another folder",
                      key);
}

/* A file that the run writes. */
static cudpo_status check_name(const char *folder, const char *name, bool owned)
{
    entry_kind kind;
    CUDPO_TRY(entry(&kind, folder, name));
    if (kind == ENTRY_FOLDER)
        return cudpo_fail(CUDPO_EWRITE, folder,
                          "%s is a folder, where the run has to write a file: remove it or choose "
                          "another output_dir",
                          name);
    if (kind == ENTRY_FILE && !owned)
        return cudpo_fail(CUDPO_ECONFIG, folder,
                          "output_dir holds %s, which no run of cudpo made and this one would "
                          "replace: choose another folder",
                          name);
    return CUDPO_OK;
}

static cudpo_status check_names(const char *folder, bool owned)
{
    entry_kind runs;
    CUDPO_TRY(check_name(folder, "run.json", owned));
    CUDPO_TRY(check_name(folder, "metrics.jsonl", owned));
    CUDPO_TRY(check_name(folder, DEVICE_CHOICES, owned));
    CUDPO_TRY(check_name(folder, "model.safetensors.index.json", owned));
    for (int i = 0; model_folder_files[i] != NULL; i++)
        CUDPO_TRY(check_name(folder, model_folder_files[i], owned));
    CUDPO_TRY(entry(&runs, folder, "runs"));
    if (runs == ENTRY_FILE)
        return cudpo_fail(CUDPO_EWRITE, folder,
                          "runs is a file, where the run has to make a folder: remove it or "
                          "choose another output_dir");
    return CUDPO_OK;
}

/* Where the file system knows no such locks, there is none. */
static cudpo_status take(output_folder *o, const char *folder)
{
    o->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->lock < 0 || access(folder, W_OK | X_OK) != 0)
        return file_fail(folder, "write to the folder", true);
    if (flock(o->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return CUDPO_OK;
    return cudpo_fail(CUDPO_EWRITE, folder,
                      "another process is training into this output_dir: wait for it, or choose "
                      "another folder");
}

static cudpo_status check(output_folder *o, const cudpo_config *c)
{
    contents found;
    CUDPO_TRY(take(o, c->output_dir));
    CUDPO_TRY(check_start(c, "model_name_or_path", c->model_name_or_path));
    CUDPO_TRY(check_start(c, "ref_model_name_or_path", c->ref_model_name_or_path));
    CUDPO_TRY(look(&found, c->output_dir));
    const bool owned = found.record || found.checkpoint;
    CUDPO_TRY(check_names(c->output_dir, owned));
    if (!owned || c->overwrite_output_dir || c->resume_from_checkpoint != NULL) return CUDPO_OK;
    return cudpo_fail(
        CUDPO_ECONFIG, c->output_dir,
        "output_dir holds a run: set resume_from_checkpoint to true to go on with it, "
        "overwrite_output_dir to true to replace it, or choose another folder");
}

cudpo_status output_open(output_folder *o, const cudpo_config *c)
{
    o->lock = -1;
    CUDPO_TRY(file_make_folder(c->output_dir));
    const cudpo_status status = check(o, c);
    if (status != CUDPO_OK) output_close(o);
    return status;
}

/* Does run.json name this run? */
static bool is_recorded(const contents *found, const cudpo_trainer *t)
{
    char mine[HASH_TEXT];
    hash_text(mine, trainer_run(t));
    return found->record && strcmp(found->run, mine) == 0;
}

static bool resumes_newest(const cudpo_config *c)
{
    return c->resume_from_checkpoint != NULL && strcmp(c->resume_from_checkpoint, "true") == 0;
}

cudpo_status output_recall(const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    contents found = {0};
    CUDPO_TRY(read_record(&found, c->output_dir));
    /* Where the record was lost, checkpoints may still be gone on from. */
    if (is_recorded(&found, t) || (!found.record && resumes_newest(c)))
        CUDPO_TRY(device_recall(t->be, c->output_dir, t->ranks->place.rank));
    if (c->resume_from_checkpoint == NULL || resumes_newest(c)) return CUDPO_OK;
    char *beside = path_join(c->resume_from_checkpoint, "..");
    if (beside == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = device_recall(t->be, beside, t->ranks->place.rank);
    free(beside);
    return status;
}

/* A run removes the model before it starts, so one that is there beside its record is its result. */
cudpo_status output_finished(bool *finished, const cudpo_trainer *t)
{
    contents found;
    CUDPO_TRY(look(&found, t->config->output_dir));
    *finished = resumes_newest(t->config) && found.model && is_recorded(&found, t);
    return CUDPO_OK;
}

/* Something else of the name of a checkpoint to come would cost all the steps before it. */
static cudpo_status check_room(const cudpo_trainer *t)
{
    const char *folder = t->config->output_dir;
    int64_t *steps = NULL, count = 0;
    CUDPO_TRY(checkpoint_steps(&steps, &count, folder, CHECKPOINT_COMPLETE));
    cudpo_status status = CUDPO_OK;
    for (int64_t i = 0; i < count && status == CUDPO_OK; i++) {
        char *path = NULL;
        if (steps[i] <= t->step || !trainer_saves_at(t, steps[i])) continue;
        status = checkpoint_path(&path, folder, steps[i], CHECKPOINT_COMPLETE);
        if (status == CUDPO_OK && !checkpoint_is_ours(path))
            status = cudpo_fail(CUDPO_EWRITE, path,
                                "stands where a checkpoint has to go and is none of cudpo: remove "
                                "it or choose another output_dir");
        free(path);
    }
    free(steps);
    return status;
}

/* The model first: a folder whose run did not come to its end must hold none that looks like its result.  What the run
 * itself chose stays also where it begins anew: its bits are the same then. */
static cudpo_status clear(const cudpo_trainer *t, bool own)
{
    const char *folder = t->config->output_dir;
    const bool goes_on = own && t->step > 0;
    CUDPO_TRY(remove_file(folder, "model.safetensors"));
    CUDPO_TRY(checkpoint_clean(folder, goes_on ? t->step : -1));
    if (!own) CUDPO_TRY(remove_file(folder, DEVICE_CHOICES));
    if (!own) CUDPO_TRY(remove_folder(folder, DEVICE_RANK_CHOICES));
    if (goes_on) return CUDPO_OK;
    CUDPO_TRY(remove_file(folder, "metrics.jsonl"));
    char *runs = path_join(folder, "runs");
    if (runs == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = event_files_remove(runs);
    free(runs);
    return status;
}

/* Where the other ranks of a GPU run keep what they chose. */
static cudpo_status make_choices(const cudpo_trainer *t)
{
    if (t->ranks->place.size == 1 || !t->be->on_device) return CUDPO_OK;
    char *path = path_join(t->config->output_dir, DEVICE_RANK_CHOICES);
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "path");
    const cudpo_status status = file_make_folder(path);
    free(path);
    return status;
}

cudpo_status output_begin(const cudpo_trainer *t)
{
    const cudpo_config *c = t->config;
    contents found;
    CUDPO_TRY(look(&found, c->output_dir));
    bool own = is_recorded(&found, t) || (t->step > 0 && resumes_newest(c));
    if (!own && t->step > 0)
        CUDPO_TRY(find_checkpoint(&own, c->output_dir, c->resume_from_checkpoint));
    if (!own && !c->overwrite_output_dir && (found.record || found.model || found.checkpoint))
        return cudpo_fail(CUDPO_ECONFIG, c->output_dir,
                          "output_dir holds another run, which would be lost: choose another "
                          "folder, or set overwrite_output_dir to true to replace it");
    CUDPO_TRY(check_room(t));
    CUDPO_TRY(clear(t, own));
    CUDPO_TRY(run_record_write(t));
    return make_choices(t);
}

void output_close(output_folder *o)
{
    if (o->lock >= 0) close(o->lock);
    o->lock = -1;
}
