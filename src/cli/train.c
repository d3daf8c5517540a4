/* train.c - `cudpo train` and `cudpo eval`: a configuration from a file and from the command line. */
#include "cudpo/train.h"
#include "cli/cli.h"
#include "cli/ranks.h"
#include "cudpo/config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_page train_page = {
    "train",
    "align a model on preferences",
    "cudpo train [CONFIG.json] [--key value ...] [--option ...]",
    "Reads a Hugging Face model folder and a preference file, trains the model with the loss that "
    "loss_type names, and writes "
    "a model folder to output_dir. CONFIG.json is an object of the keys below; --key value on the "
    "command line sets or "
    "replaces one (--key alone means true). Keys, meanings and defaults are those of TRL's "
    "DPOConfig and transformers' "
    "TrainingArguments where they exist.\n"
    "\n"
    "train_dataset and eval_dataset are .jsonl, .jsonl.gz or .json files whose rows have prompt, "
    "chosen and rejected; or chosen "
    "and rejected with the prompt inside; or, for kto, prompt, completion and label; or, for sft, "
    "prompt and completion.\n"
    "\n"
    "As one of several ranks it is started by torchrun, srun, mpirun, a PMIx launcher, Kubernetes, "
    "or by hand with the options below; `cudpo doctor`, started the same way, says what is found "
    "of that.\n"
    "\n"
    "SIGTERM, SIGINT and SIGUSR1 save a checkpoint at the end of the step and exit with status 75; "
    "SIGUSR2 saves and goes on.",
    "OUTPUT_DIR/model.safetensors, config.json, tokenizer.json ...: the trained model\n"
    "OUTPUT_DIR/checkpoint-STEP/: a model folder with the optimizer's state; complete or absent\n"
    "OUTPUT_DIR/metrics.jsonl: an object for each logging step; runs/: the same for TensorBoard\n"
    "OUTPUT_DIR/run.json: what is needed to repeat the run; serves as CONFIG.json\n"
    "OUTPUT_DIR/gemm.txt: the algorithms of matrix products that a GPU took; a run that goes on "
    "takes the same. With CUDPO_GEMM=first none are timed and no files of them read or written\n"
    "$CUDPO_CACHE, else $XDG_CACHE_HOME/cudpo, else ~/.cache/cudpo: tokenised data, reference "
    "log-probs, timed algorithms",
    "  cudpo train dpo.json\n"
    "  cudpo train dpo.json --beta 0.05 --learning_rate 5e-7 --output_dir out/beta05\n"
    "  cudpo train dpo.json --resume_from_checkpoint true\n"
    "  cudpo train --model_name_or_path model --train_dataset pairs.jsonl --output_dir out"};

static const cli_page eval_page = {"eval",
                                   "metrics of a model on a preference file",
                                   "cudpo eval [CONFIG.json] [--key value ...]",
                                   "Computes what `cudpo train` logs as eval_*: loss, rewards, "
                                   "log-probs, accuracies of model_name_or_path against "
                                   "ref_model_name_or_path on eval_dataset (or, where that is not "
                                   "given, train_dataset), and prints a JSON object. Takes the "
                                   "keys of `cudpo train`; those of the optimizer have no effect. "
                                   "Without ref_model_name_or_path the model is its own "
                                   "reference and every reward is 0.",
                                   NULL,
                                   "  cudpo eval dpo.json --model_name_or_path out "
                                   "--ref_model_name_or_path model --eval_dataset held_out.jsonl"};

static cudpo_status print_config(const cudpo_config *c)
{
    char *text = cudpo_config_print(c);
    if (text == NULL) return cudpo_fail(CUDPO_ENOMEM, CUDPO_HERE, "configuration");
    fputs(text, stdout);
    if (text[0] != '\0' && text[strlen(text) - 1] != '\n') fputc('\n', stdout);
    free(text);
    return CUDPO_OK;
}

/* How this rank ends is decided.  Launchers send SIGTERM to the others once the first has ended, and whoever died of it while it
 * tidied up would be taken for a failure. */
static void keep_status(void)
{
    static const int numbers[] = {SIGTERM, SIGUSR1, SIGUSR2};
    for (int i = 0; i < 3; i++)
        signal(numbers[i], SIG_IGN);
}

cudpo_status cli_train(int argc, char **argv)
{
    cudpo_config c;
    cudpo_ranks ranks;
    bool print = false, help;
    cli_option own[1 + RANKS_OPTIONS] = {
        {"--print_config", CLI_FLAG, "", "print all values in force and do nothing else", &print}};
    ranks_options(own + 1, &ranks);
    CUDPO_TRY(cudpo_config_create(&c));
    cudpo_status status = cli_configure(&c, own, 1 + RANKS_OPTIONS, &help, argc, argv);
    if (status == CUDPO_OK && help) {
        cli_print_page(&train_page, own, 1 + RANKS_OPTIONS, true);
    } else if (status == CUDPO_OK && print) {
        status = print_config(&c);
    } else if (status == CUDPO_OK) {
        status = cudpo_train_ranks(&c, &ranks);
        keep_status();
    }
    cudpo_config_free(&c);
    return status;
}

cudpo_status cli_eval(int argc, char **argv)
{
    cudpo_config c;
    bool print = false, help;
    const cli_option own[] = {{"--print_config", CLI_FLAG, "", "", &print}};
    char *json = NULL;
    CUDPO_TRY(cudpo_config_create(&c));
    cudpo_status status = cli_configure(&c, own, 1, &help, argc, argv);
    if (status == CUDPO_OK && help) {
        cli_print_page(&eval_page, NULL, 0, false);
    } else if (status == CUDPO_OK && print) {
        status = print_config(&c);
    } else if (status == CUDPO_OK) {
        status = cudpo_evaluate(&json, &c);
        if (status == CUDPO_OK) fputs(json, stdout);
    }
    free(json);
    cudpo_config_free(&c);
    return status;
}
