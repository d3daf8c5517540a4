/* score.c - `cudpo score` and `cudpo tokenize`. */
#include "cudpo/score.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>

static const cli_page score_page = {
    "score",
    "implicit rewards of preference pairs",
    "cudpo score --model_name_or_path DIR --ref_model_name_or_path DIR --data FILE [--output FILE] "
    "[--beta B] [--max_length N]",
    "Writes beta * log(pi(y|x) / pi_ref(y|x)) of the chosen and the rejected completion of every "
    "pair, with the log-probs that "
    "it comes from: one JSON object a line, in input order, with row, logps/chosen, "
    "logps/rejected, ref_logps/chosen, "
    "ref_logps/rejected, rewards/chosen, rewards/rejected, rewards/margin, tokens/prompt, "
    "tokens/chosen, tokens/rejected. "
    "Log-probs are sums over the completion in nats. A pair whose prompt alone fills max_length "
    "has nulls; a file that has none but such pairs is an error.",
    NULL,
    "  cudpo score --model_name_or_path out --ref_model_name_or_path model --data pairs.jsonl "
    "--output scores.jsonl"};

static const cli_page tokenize_page = {
    "tokenize",
    "token ids of a text or of a preference file",
    "cudpo tokenize --model_name_or_path DIR (--text TEXT | --data FILE) [--output FILE] "
    "[--max_length N]",
    "Prints the ids that training would see. Of a text: one list, with the special tokens that the "
    "tokenizer adds. Of a "
    "preference file: one JSON object a line, with row, prompt_ids, chosen_ids and rejected_ids, "
    "or completion_ids and label. "
    "DIR may also be a tokenizer.json.",
    NULL,
    "  cudpo tokenize --model_name_or_path model --text \"Hello, world!\"\n"
    "  cudpo tokenize --model_name_or_path model --data pairs.jsonl --max_length 1024"};

static cudpo_status need(const char *value, const char *name)
{
    return value != NULL ? CUDPO_OK : cudpo_fail(CUDPO_EUSAGE, name, "is needed; see --help");
}

cudpo_status cli_score(int argc, char **argv)
{
    cudpo_score_options o = {.beta = 0.1, .max_length = 1024};
    const cli_option options[] = {
        {"--model_name_or_path", CLI_TEXT, "DIR", "the policy: a model folder",
         &o.model_name_or_path},
        {"--ref_model_name_or_path", CLI_TEXT, "DIR", "the reference, of the same shape",
         &o.ref_model_name_or_path},
        {"--data", CLI_TEXT, "FILE", "preference pairs: .jsonl, .jsonl.gz or .json", &o.data},
        {"--output", CLI_TEXT, "FILE (standard output)", "where the rows go; appears when complete",
         &o.output},
        {"--beta", CLI_REAL, "B (0.1)", "scale of the rewards", &o.beta},
        {"--max_length", CLI_INTEGER, "N (1024)", "tokens of prompt and completion; 0: no limit",
         &o.max_length},
        {"--device", CLI_TEXT, "auto|cpu|cuda (auto)", "where it is computed", &o.device},
    };
    const int64_t n = sizeof options / sizeof options[0];
    bool help;
    CUDPO_TRY(cli_parse(options, n, NULL, 0, &help, argc, argv));
    if (help) {
        cli_print_page(&score_page, options, n, false);
        return CUDPO_OK;
    }
    CUDPO_TRY(need(o.model_name_or_path, "--model_name_or_path"));
    CUDPO_TRY(need(o.ref_model_name_or_path, "--ref_model_name_or_path"));
    CUDPO_TRY(need(o.data, "--data"));
    if (!(o.beta > 0.0)) return cudpo_fail(CUDPO_EUSAGE, "--beta", "%g is not above 0", o.beta);
    return cudpo_score(&o);
}

cudpo_status cli_tokenize(int argc, char **argv)
{
    const char *model = NULL, *text = NULL, *data = NULL, *output = NULL;
    int64_t max_length = 0;
    bool help, plain = false;
    const cli_option options[] = {
        {"--model_name_or_path", CLI_TEXT, "DIR", "folder with tokenizer.json, or that file",
         &model},
        {"--text", CLI_TEXT, "TEXT", "a text", &text},
        {"--no_special_tokens", CLI_FLAG, "", "of a text: leave out BOS and the like", &plain},
        {"--data", CLI_TEXT, "FILE", "a preference file", &data},
        {"--output", CLI_TEXT, "FILE (standard output)", "where the rows of --data go", &output},
        {"--max_length", CLI_INTEGER, "N (0)", "of --data: cut as training does; 0: no limit",
         &max_length},
    };
    const int64_t n = sizeof options / sizeof options[0];
    CUDPO_TRY(cli_parse(options, n, NULL, 0, &help, argc, argv));
    if (help) {
        cli_print_page(&tokenize_page, options, n, false);
        return CUDPO_OK;
    }
    CUDPO_TRY(need(model, "--model_name_or_path"));
    if ((text == NULL) == (data == NULL))
        return cudpo_fail(CUDPO_EUSAGE, "tokenize", "needs --text or --data, one of them");
    if (text != NULL && output != NULL)
        return cudpo_fail(CUDPO_EUSAGE, "--output", "is of --data: a text's ids are printed");
    if (data != NULL && plain)
        return cudpo_fail(CUDPO_EUSAGE, "--no_special_tokens",
                          "is of --text: rows get the tokens that training gives them");
    if (data != NULL) return cudpo_tokenize_data(model, data, output, max_length);
    char *json = NULL;
    CUDPO_TRY(cudpo_tokenize_text(&json, model, text, !plain));
    puts(json);
    free(json);
    return CUDPO_OK;
}
