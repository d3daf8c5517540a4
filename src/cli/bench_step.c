/* bench_step.c - `cudpo bench step`. */
#include "cudpo/bench_step.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "bench step",
    "how long a whole optimizer step takes",
    "cudpo bench step MODEL [CONFIG.json] [--key value ...] [--option value ...]",
    "Trains MODEL with random weights for some steps and prints pairs and tokens a second, "
    "the share of the device's speed that useful work makes, the time of each part of the "
    "step (data, reference forward, forward, head, loss, backward, all-reduce, optimizer) and "
    "memory by part. Nothing is written to output_dir.\n"
    "\n"
    "MODEL is Qwen2.5-0.5B, Llama-3.2-1B, Llama-3.1-8B, a config.json, or a folder that has "
    "one; without it, model_name_or_path is. CONFIG.json and keys are those of `cudpo train`; "
    "of use are device, bf16, loss_type, per_device_train_batch_size, "
    "gradient_accumulation_steps, gradient_checkpointing, max_tokens_per_pack, "
    "master_weights, gradient_dtype, ref_model_offload and precompute_ref_log_probs, with "
    "which the reference is scored before the steps and is no part of them.\n"
    "\n"
    "Steps are run until two in a row take the same time, within a tenth, for each of their "
    "tokens, or ten of them, or for half a minute; those that follow are timed. On a GPU the next "
    "step is enqueued while one computes, as in training, and times are those of the device's "
    "clock. Tokens are counted as TRL does: each completion with its prompt.\n"
    "\n"
    "Of --lengths FILE, rows that stand evenly spaced make up to eight steps, which are "
    "repeated.\n"
    "\n"
    "Useful work is what any implementation has to compute: layers once for each token of a "
    "pair whose prompt stands once, the head for tokens of completions, both ways, and "
    "forward for a reference in memory. No padding, no logits of prompts, and nothing that "
    "gradient_checkpointing computes again; for kto, the passes of its KL estimate are none "
    "either. It is given as a share of what the GPU's data sheet says, where the GPU is "
    "known, and of what a large product of matrices of the same type reaches on the device.\n"
    "\n"
    "The JSON object has benchmark (\"step\"), device, ranks, dtype; model: name, model_type, "
    "parameters, vocab_size, hidden_size, intermediate_size, num_hidden_layers, "
    "num_attention_heads, num_key_value_heads, head_dim; lengths: file, counted_by, "
    "examples_of_file, dropped, examples, prompt_mean, completion_mean, prompt_longest, "
    "completion_longest; max_tokens_per_pack, reference_forward, warm_up, steps; seconds: median, "
    "least, total, wall, host_median (of enqueueing a step), each; pairs_per_step, "
    "pairs_per_second (completions_per_step, completions_per_second for losses of single ones), "
    "tokens_per_second, tokens_per_step, pack_tokens_per_step, score_rows_per_step, "
    "useful_flop_per_step, product_flop_per_second, product_size, peak_flop_per_second, "
    "peak_source (data sheet, or product where that is not known), mfu; parts, mean seconds: data, "
    "reference forward, forward, head, loss, backward, all-reduce, optimizer, between steps; "
    "memory, bytes: weights, master_weights, reference, gradients, moments, packs, working_memory, "
    "their sum as forecast, measured; losses of the first steps, those of the warm-up included; "
    "versions; config.\n"
    "\n"
    "In profiles, a step and its parts are NVTX ranges; so they are with `cudpo train`.",
    NULL,
    "  cudpo bench step Qwen2.5-0.5B --per_device_train_batch_size 32\n"
    "  cudpo launch --nproc 8 -- bench step Llama-3.2-1B --per_device_train_batch_size 8\n"
    "  cudpo bench step Llama-3.1-8B --precompute_ref_log_probs true --json 8b.json\n"
    "  cudpo bench step my-model --lengths pairs.jsonl --device cpu\n"
    "  nsys profile cudpo bench step Llama-3.2-1B --steps 5"};

static cudpo_status measure(const cudpo_config *c, const cudpo_bench_step *what)
{
    char *table = NULL, *json = NULL;
    cudpo_status status = cudpo_bench_step_run(&table, &json, c, what);
    if (status == CUDPO_OK && table != NULL) fputs(table, stdout); /* rank 0 alone has one */
    if (status == CUDPO_OK && table != NULL && what->file != NULL)
        status = file_write(what->file, json, strlen(json));
    free(json);
    free(table);
    return status;
}

cudpo_status cli_bench_step(int argc, char **argv)
{
    cudpo_bench_step what = {.prompt = 512, .completion = 512};
    cudpo_ranks ranks = CUDPO_RANKS_AUTO;
    bool help;
    cli_option own[6 + RANKS_OPTIONS] = {
        {"--prompt", CLI_INTEGER, "N (512)", "tokens of every prompt", &what.prompt},
        {"--completion", CLI_INTEGER, "N (512)", "tokens of every completion, its end included",
         &what.completion},
        {"--lengths", CLI_TEXT, "FILE",
         "instead of those: the lengths of the rows of a preference file, within max_length",
         &what.lengths},
        {"--tokenizer", CLI_TEXT, "FOLDER",
         "the model folder whose tokenizer counts them; without it that of MODEL where it is a "
         "folder that has one, and else 4 bytes of text are a token",
         &what.tokenizer},
        {"--steps", CLI_INTEGER, "N", "steps to time; as many as take ten seconds, at least 5",
         &what.steps},
        {"--json", CLI_TEXT, "FILE", "write all results there, too, as a JSON object", &what.file},
    };
    const int64_t n = sizeof own / sizeof own[0];
    ranks_options(own + n - RANKS_OPTIONS, &ranks);
    what.ranks = &ranks;
    const int named = argc > 1 && strncmp(argv[1], "--", 2) != 0; /* MODEL stands first */
    cudpo_config c;
    CUDPO_TRY(cudpo_config_create(&c));
    cudpo_status status = cli_configure(&c, own, n, &help, argc - named, argv + named);
    what.model = named ? argv[1] : c.model_name_or_path;
    if (status == CUDPO_OK && help)
        cli_print_page(&page, own, n, false);
    else if (status == CUDPO_OK && what.model == NULL)
        status = cudpo_fail(CUDPO_EUSAGE, "bench step",
                            "needs a MODEL: Qwen2.5-0.5B, or a config.json; see --help");
    else if (status == CUDPO_OK)
        status = measure(&c, &what);
    cudpo_config_free(&c);
    return status;
}
