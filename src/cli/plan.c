/* plan.c - `cudpo plan`. */
#include "cudpo/plan.h"
#include "base/file.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page page = {
    "plan",
    "what a training run will take and cost, before it is launched",
    "cudpo plan [CONFIG.json] [--key value ...] [--gpus N] [--gpu NAME] [--nodes M] [--json FILE] "
    "[--calibration FILE]",
    "Says of a run that `cudpo train` would make of the same configuration: the memory of each "
    "GPU by part, whether that fits, and which settings would make it fit; the time of a step by "
    "part, to the end, and in GPU-hours; and for 1, 2, 4 .. 4096 GPUs, in nodes as full as --nodes "
    "makes those of the run, of 8 GPUs where it is not given, how it scales, with as many examples "
    "a step and with as many for each GPU, and what limits it. No GPU, driver or plugin is needed. "
    "Model and data must be there: lengths are those of the data, tokenised as for training and "
    "kept in the same cache; weights are not read. Nothing else is written.\n"
    "\n"
    "Times come from a roofline: each op of a step takes as long as the slower of its operations "
    "and its bytes. Rates are assumed, and each assumption is printed with its source, unless a "
    "file that `cudpo bench --calibrate` made on such a GPU replaces them. "
    "per_device_train_batch_size is of each GPU. A run that does not fit is no error.\n"
    "\n"
    "With --gpu cpu the N are ranks: those of one node share the cores and the memory of a "
    "machine like this one, so that only nodes make a step faster, and hours are those of "
    "machines. As in training, a CPU's memory limits no packs: it only decides whether the run "
    "fits.\n"
    "\n"
    "The JSON object has cudpo (the version), gpu, calibrated, parameters, examples, "
    "total_seconds, gpu_hours, precompute_seconds, evaluation_seconds, useful_mfu (of GPUs); "
    "memory, in bytes of each GPU: weights, master_weights, reference, gradients, moments, packs, "
    "working_memory, program, total, available, and pack_tokens, reference_streamed, fits; "
    "remedies: a list of settings, total, fits; step: gpus, nodes, examples, steps (0: there is "
    "no such run), step_seconds, run_seconds (of its steps), total_seconds (with the reference's "
    "log-probs and evaluations), examples_per_second, tokens_per_second, packs, pack_fill, "
    "imbalance, efficiency, memory_bytes, fits, limit (none, batch, network, cores, data, ranks or "
    "memory), and parts, in seconds: reference_forward, forward, head, recomputation, backward, "
    "update, all_reduce_exposed, all_reduce_beside; same_batch and growing_batch: lists of 13 "
    "such; rates, of a GPU or the whole machine: copy_gbps, gemm_bf16_tflops, "
    "gemm_f32_tflops, attention_forward_tflops, attention_backward_tflops, elementwise_gbps, "
    "head_gbps, adamw_gbps, launch_us, network_bus_gbps, network_nic_gbps; assumptions: a list of "
    "sentences.",
    NULL,
    "  cudpo plan dpo.json --gpus 8 --gpu h200\n"
    "  cudpo plan dpo.json --gpus 64 --precompute_ref_log_probs true --json plan.json\n"
    "  cudpo plan dpo.json --gpu cpu --calibration here.json"};

static cudpo_status print(const cudpo_config *c, const cudpo_plan_options *o, const char *file)
{
    char *text = NULL, *object = NULL;
    CUDPO_TRY(cudpo_config_check(c));
    CUDPO_TRY(cudpo_plan(&text, file != NULL ? &object : NULL, c, o));
    cudpo_status status = CUDPO_OK;
    if (object != NULL) status = file_write(file, object, strlen(object));
    if (status == CUDPO_OK) fputs(text, stdout);
    free(object);
    free(text);
    return status;
}

cudpo_status cli_plan(int argc, char **argv)
{
    cudpo_config c;
    cudpo_plan_options o = {.gpus = 1};
    const char *file = NULL;
    bool help;
    const cli_option own[] = {
        {"--gpus", CLI_INTEGER, "N (1)", "GPUs, 1 to 4096; of cpu: ranks", &o.gpus},
        {"--gpu", CLI_TEXT, "NAME (h100)",
         "h100, h200, b200, a100, a100-40gb, l40s, rtx4090; cpu: this machine", &o.gpu},
        {"--nodes", CLI_INTEGER, "M (N / 8)", "machines that the GPUs are in, alike many in each",
         &o.nodes},
        {"--json", CLI_TEXT, "FILE", "write the numbers there, too", &file},
        {"--calibration", CLI_TEXT, "FILE", "rates that were measured", &o.calibration},
    };
    const int64_t n = sizeof own / sizeof own[0];
    CUDPO_TRY(cudpo_config_create(&c));
    cudpo_status status = cli_configure(&c, own, n, &help, argc, argv);
    if (status == CUDPO_OK && help)
        cli_print_page(&page, own, n, true);
    else if (status == CUDPO_OK && o.gpus == 0)
        status = cudpo_fail(CUDPO_EUSAGE, "--gpus", "0 is not from 1 to 4096");
    else if (status == CUDPO_OK)
        status = print(&c, &o, file);
    cudpo_config_free(&c);
    return status;
}
