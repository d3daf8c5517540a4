/* config_table.c - the keys.  Defaults are those of TRL 1.16 and transformers 5. */
#include "train/config_table.h"
#include "preference/loss.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define LOSS_NAME(kind, name, ...) name,
static const char *const losses[] = {LOSS_TABLE(LOSS_NAME) NULL};
#undef LOSS_NAME
/* Those of optim/schedule.h. */
static const char *const schedules[] = {
    "linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", NULL};
static const char *const truncations[] = {"keep_start", "keep_end", NULL};
static const char *const samplings[] = {"random", "sequential", NULL};
static const char *const strategies[] = {"no", "steps", "epoch", NULL};
static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
static const char *const ddp_backends[] = {"nccl", "mpi", "tcp", NULL};
static const char *const gradient_types[] = {"float32", "bfloat16", NULL};
static const char *const dtypes[] = {"float32", "bfloat16", "float16", "auto", NULL};

/* Ends of ranges; an open one is given as the last number inside. */
#define ABOVE_0 DBL_MIN
#define BELOW_HALF 0x1.fffffffffffffp-2
#define BELOW_1 0x1.fffffffffffffp-1
#define WHOLE CONFIG_WHOLE
#define ANY DBL_MAX
#define BATCH 1048576.0
#define NO_NULL NAN

#define PLACE(field) #field, offsetof(cudpo_config, field)
#define TEXT(field, standard, null, meaning)                               \
    {                                                                      \
        PLACE(field), CONFIG_TEXT, standard, 0, 0, "", null, NULL, meaning \
    }
#define CHOICE(type, field, standard, null, choices, meaning)          \
    {                                                                  \
        PLACE(field), type, standard, 0, 0, "", null, choices, meaning \
    }
#define NUMBER(type, field, standard, null, least, most, range, meaning)      \
    {                                                                         \
        PLACE(field), type, standard, least, most, range, null, NULL, meaning \
    }
#define BOOL(field, standard, meaning)                                        \
    {                                                                         \
        PLACE(field), CONFIG_BOOL, standard, 0, 0, "", NO_NULL, NULL, meaning \
    }

static const config_key table[] = {
    /* what is trained, on what, to where */
    TEXT(model_name_or_path, "null", 0, "the model to train: a Hugging Face folder (required)"),
    TEXT(ref_model_name_or_path, "null", 0,
         "the reference: a model folder; null: the model as it is before training"),
    TEXT(train_dataset, "null", 0,
         "preferences to train on: .jsonl, .jsonl.gz or .json (required)"),
    TEXT(eval_dataset, "null", 0, "preferences to evaluate on"),
    TEXT(output_dir, "\"trainer_output\"", NO_NULL, "folder of everything that is written"),
    CHOICE(CONFIG_CHOICE, device, "\"auto\"", NO_NULL, devices,
           "where it is computed; auto: on a GPU where there is one, else on the CPU"),
    {PLACE(bf16), CONFIG_MAYBE, "null", 0, 0, "", -1, NULL,
     "compute in bfloat16 with float32 log-probs, sums and master weights; null: on a GPU, as TRL"},
    BOOL(master_weights, "true",
         "of bf16: update weights in float32; false: in bfloat16 with stochastic rounding, which "
         "takes 4 bytes less a parameter"),
    CHOICE(CONFIG_CHOICE, gradient_dtype, "\"float32\"", NO_NULL, gradient_types,
           "of bf16: what gradients are added up in"),
    CHOICE(CONFIG_CHOICE, dtype, "\"float32\"", NO_NULL, dtypes,
           "type of the written weights; auto: that of the weights read"),
    /* the loss */
    CHOICE(CONFIG_LOSS, loss_type, "\"sigmoid\"", NO_NULL, losses,
           "what is minimised; a list of one is the same"),
    NUMBER(
        CONFIG_REAL, beta, "0.1", NO_NULL, ABOVE_0, ANY, "above 0",
        "how strongly the policy is held to the reference; of orpo: the weight of its odds ratio"),
    NUMBER(CONFIG_REAL, label_smoothing, "0.0", NO_NULL, 0, BELOW_HALF, "from 0 to below 0.5",
           "of sigmoid (cDPO): the share of pairs thought to be labelled the wrong way round"),
    NUMBER(CONFIG_REAL, desirable_weight, "1.0", NO_NULL, 0, ANY, "of 0 or more",
           "of kto: weight of desirable rows"),
    NUMBER(CONFIG_REAL, undesirable_weight, "1.0", NO_NULL, 0, ANY, "of 0 or more",
           "of kto: weight of undesirable rows"),
    BOOL(precompute_ref_log_probs, "false",
         "compute the reference's log-probs before training and keep them on disk: the reference "
         "takes no memory then"),
    {PLACE(ref_model_offload), CONFIG_MAYBE, "null", 0, 0, "", -1, NULL,
     "keep the reference's layers in the host's memory and copy each to the GPU while the one "
     "before it computes: of them two take memory there; null: where the reference would not fit"},
    /* the data */
    NUMBER(CONFIG_INTEGER, max_length, "1024", 0, 2, WHOLE, "of 2 or more",
           "tokens of prompt and completion together; a row whose prompt alone is as long is left "
           "out; null: no limit"),
    CHOICE(CONFIG_CHOICE, truncation_mode, "\"keep_start\"", NO_NULL, truncations,
           "which end of a row that is too long stays"),
    CHOICE(CONFIG_CHOICE, train_sampling_strategy, "null", 0, samplings,
           "order of the rows; null: sequential for kto, random otherwise"),
    BOOL(dataloader_drop_last, "false",
         "leave out the last batch of an epoch where it is not full"),
    /* the optimizer */
    NUMBER(CONFIG_REAL, learning_rate, "1e-06", NO_NULL, 0, ANY, "of 0 or more",
           "the highest learning rate"),
    CHOICE(CONFIG_CHOICE, lr_scheduler_type, "\"linear\"", NO_NULL, schedules,
           "how the learning rate goes on after the warm-up"),
    {"lr_scheduler_kwargs", offsetof(cudpo_config, min_lr), CONFIG_SCHEDULER, "null", 0, ANY, "", 0,
     NULL,
     "of cosine_with_min_lr: {\"min_lr\": R}, or {\"min_lr_rate\": R} as a share of learning_rate"},
    NUMBER(CONFIG_REAL, warmup_ratio, "0.0", NO_NULL, 0, BELOW_1, "from 0 to below 1",
           "share of all steps in which the learning rate rises to its highest"),
    NUMBER(CONFIG_REAL, warmup_steps, "0", NO_NULL, 0, WHOLE, "of 0 or more",
           "the same in steps; below 1: a share, too"),
    NUMBER(CONFIG_REAL, adam_beta1, "0.9", NO_NULL, 0, BELOW_1, "from 0 to below 1",
           "decay of AdamW's mean gradient"),
    NUMBER(CONFIG_REAL, adam_beta2, "0.999", NO_NULL, 0, BELOW_1, "from 0 to below 1",
           "decay of AdamW's mean squared gradient"),
    NUMBER(CONFIG_REAL, adam_epsilon, "1e-08", NO_NULL, 0, ANY, "of 0 or more",
           "added to AdamW's denominator"),
    NUMBER(CONFIG_REAL, weight_decay, "0.0", NO_NULL, 0, ANY, "of 0 or more",
           "decay of all weights but norms and biases"),
    NUMBER(CONFIG_REAL, max_grad_norm, "1.0", 0, 0, ANY, "of 0 or more",
           "gradients of a larger L2 norm are scaled down to it; 0 or null: never"),
    NUMBER(CONFIG_REAL, num_train_epochs, "3.0", NO_NULL, ABOVE_0, WHOLE, "above 0",
           "passes over train_dataset"),
    NUMBER(CONFIG_INTEGER, max_steps, "-1", NO_NULL, -1, WHOLE, "of 1 or more, or -1",
           "optimizer steps; -1: num_train_epochs decides"),
    NUMBER(CONFIG_INTEGER, per_device_train_batch_size, "8", NO_NULL, 1, BATCH, "from 1 to 1048576",
           "pairs of a batch; an optimizer step takes gradient_accumulation_steps of them"),
    NUMBER(CONFIG_INTEGER, per_device_eval_batch_size, "8", NO_NULL, 1, BATCH, "from 1 to 1048576",
           "pairs of a batch of an evaluation, whose metrics are means over batches"),
    NUMBER(CONFIG_INTEGER, gradient_accumulation_steps, "1", NO_NULL, 1, BATCH, "from 1 to 1048576",
           "batches of an optimizer step"),
    NUMBER(
        CONFIG_INTEGER, max_tokens_per_pack, "null", 0, 1, INT32_MAX, "from 1 to 2147483647",
        "tokens that are worked on at a time: changes memory and speed, not results; null: chosen"),
    BOOL(gradient_checkpointing, "true",
         "compute each layer a second time in the backward pass: less memory, more time"),
    /* several ranks */
    CHOICE(CONFIG_CHOICE, ddp_backend, "null", 0, ddp_backends,
           "what adds up the gradients of several ranks; null: nccl on GPUs, tcp on CPUs"),
    NUMBER(CONFIG_REAL, ddp_timeout, "1800.0", NO_NULL, ABOVE_0, WHOLE, "above 0",
           "seconds that ranks wait for one that stands still before they end"),
    NUMBER(CONFIG_REAL, ddp_bucket_cap_mb, "null", 0, ABOVE_0, WHOLE, "above 0",
           "megabytes of gradients that are added up at a time; null: 25"),
    NUMBER(CONFIG_INTEGER, zero_stage, "0", NO_NULL, 0, 1, "0 or 1",
           "1: each rank keeps its share of the moments and master weights alone"),
    /* what is reported and kept */
    NUMBER(CONFIG_INTEGER, logging_steps, "10", NO_NULL, 1, WHOLE, "of 1 or more",
           "steps from one line of metrics to the next"),
    BOOL(logging_first_step, "false", "log the first step, too"),
    CHOICE(CONFIG_CHOICE, eval_strategy, "\"no\"", NO_NULL, strategies,
           "when eval_dataset is evaluated"),
    NUMBER(CONFIG_INTEGER, eval_steps, "null", 0, 1, WHOLE, "of 1 or more",
           "steps from one evaluation to the next; null: logging_steps"),
    BOOL(eval_on_start, "false", "evaluate before the first step, too"),
    CHOICE(CONFIG_CHOICE, save_strategy, "\"steps\"", NO_NULL, strategies,
           "when checkpoints are written"),
    NUMBER(CONFIG_INTEGER, save_steps, "500", NO_NULL, 1, WHOLE, "of 1 or more",
           "steps from one checkpoint to the next"),
    NUMBER(CONFIG_INTEGER, save_total_limit, "null", 0, 0, WHOLE, "of 0 or more",
           "how many checkpoints are kept, the newest; null or 0: all"),
    CHOICE(
        CONFIG_RESUME, resume_from_checkpoint, "null", 0, NULL,
        "true: go on from the newest checkpoint in output_dir; or the folder of one: newer ones of "
        "the same run are removed"),
    NUMBER(CONFIG_INTEGER, seed, "42", NO_NULL, 0, UINT32_MAX, "from 0 to 4294967295",
           "the same seed gives the same run"),
    NUMBER(CONFIG_INTEGER, data_seed, "null", -1, 0, WHOLE, "of 0 or more",
           "seed of the order of the rows; null: seed"),
    BOOL(overwrite_output_dir, "false",
         "replace another run in output_dir: its checkpoints, metrics and model are removed; with "
         "resume_from_checkpoint, this run itself goes on"),
};

enum { KEYS = sizeof table / sizeof table[0] };
_Static_assert(sizeof table / sizeof table[0] <= CONFIG_MAX_KEYS + 0u,
               "lists of all names have this much room");

const config_key *config_keys(int64_t *n)
{
    *n = KEYS;
    return table;
}

const config_key *config_find(const char *name)
{
    for (int i = 0; i < KEYS; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

int64_t config_line(const config_key *k)
{
    return k - table;
}
