/* score.h - use models without training them: implicit rewards, generation, tokens. */
#ifndef CUDPO_SCORE_H
#define CUDPO_SCORE_H

#include "cudpo/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cudpo_score_options {
    const char *model_name_or_path, *ref_model_name_or_path;
    const char *data;   /* preference file */
    const char *output; /* JSONL, one row per pair in input order; "-" or NULL: standard output */
    double beta;
    int64_t max_length; /* 0: no limit */
    const char *device; /* "auto", "cpu", "cuda"; NULL: auto */
} cudpo_score_options;

/** Write the implicit rewards beta * log(pi(y|x) / pi_ref(y|x)) of every pair: `row`, `logps/chosen`, `logps/rejected`,
 *  `ref_logps/chosen`, `ref_logps/rejected`, `rewards/chosen`, `rewards/rejected`, `rewards/margin`, `tokens/prompt`,
 *  `tokens/chosen`, `tokens/rejected`.  A row that TRL drops (its prompt fills max_length) is written with nulls.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT, CUDPO_EDATA, CUDPO_ENOMEM, CUDPO_EWRITE: no output file is left. */
CUDPO_MUST_USE cudpo_status cudpo_score(const cudpo_score_options *o);

typedef struct cudpo_generate_options {
    const char *model_name_or_path;
    const char *const *prompts; /* UTF-8 */
    int64_t prompt_count;
    int64_t max_new_tokens;
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
    int64_t batch_size; /* sequences decoded together; 0: chosen */
    const char *device; /* "auto", "cpu", "cuda"; NULL: auto */
} cudpo_generate_options;

/** Continue prompts.  Ends at an eos token, max_new_tokens or the model's max_position_embeddings.
 *  Out:     texts  [prompt_count] the new text of each prompt, special tokens left out, a NUL as U+FFFD: free each and the array.
 *  A sample is a function of seed, prompt index and token index: batches do not change it. */
CUDPO_MUST_USE cudpo_status cudpo_generate(char ***texts, const cudpo_generate_options *o);

/** Ids of a text, as JSON like [1, 2, 3] in new memory. */
CUDPO_MUST_USE cudpo_status cudpo_tokenize_text(char **json, const char *model, const char *text,
                                                bool add_special);

/** Ids of every row of a preference file, as training sees them, to `output` ("-" or NULL: standard output): JSONL with
 *  `row`, `prompt_ids`, `chosen_ids`, `rejected_ids` (or `completion_ids`, `label`). */
CUDPO_MUST_USE cudpo_status cudpo_tokenize_data(const char *model, const char *data,
                                                const char *output, int64_t max_length);

#ifdef __cplusplus
}
#endif
#endif /* CUDPO_SCORE_H */
