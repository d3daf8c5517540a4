/* dataset.h - a preference file as token ids, in TRL's tokenisation, cached on disk and mapped into memory. */
#ifndef CUDPO_DATA_DATASET_H
#define CUDPO_DATA_DATASET_H

#include "base/hash.h"
#include "cudpo/status.h"
#include "data/row.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_COMPLETIONS = 2 };

/* One tokenised example: a prompt and one or two completions, already truncated.  Views into the dataset. */
typedef struct example {
    int64_t row; /* 0-based row of the file that it comes from */
    const int32_t *prompt;
    int32_t prompt_length;
    int32_t
        completions; /* 2: chosen, rejected.  1: of a labelled or supervised row.  2 also: see mismatch */
    const int32_t *completion[MAX_COMPLETIONS];
    int32_t completion_length[MAX_COMPLETIONS];
    int32_t prompt_skip
        [MAX_COMPLETIONS]; /* tokens at the prompt's start that this completion does not see:
                                           * 0 unless keep_end cut them off */
    /* First tokens of the completion that only its sibling counts to it: for this one they belong to the prompt, and are no
     * labels.  0 unless RULES_ORPO found the prompt to end at different tokens. */
    int32_t unscored[MAX_COMPLETIONS];
    bool label; /* of a labelled row: desirable */
} example;

/* Whose rules for the ids of a row (TRL 1.16). */
typedef enum dataset_rules {
    RULES_JOINED, /* DPOTrainer and KTOTrainer: ids(prompt + completion + eos text), whose longest common prefix
                   * with ids(prompt) is the prompt; the tokenizer adds its special tokens */
    RULES_ORPO, /* ORPOTrainer: no special tokens from the tokenizer, bos and eos ids added where missing; the
                   * prompt has as many ids as ids(prompt), one less where these are not a prefix */
} dataset_rules;

/* Several processes that open the same data set at the same time, with the same options. */
typedef struct dataset_company {
    int32_t rank, size;
    double period; /* s that each works at most before it tells the others how far it is */
    /* all [size][bytes] = what each gave as `mine`; every process calls it.  Fails where one of them has failed, or is lost. */
    cudpo_status (*exchange)(void *context, void *all, const void *mine, size_t bytes);
    void *context;
} dataset_company;

/* How rows become examples; part of the cache's key. */
typedef struct dataset_options {
    row_kind
        kind; /* what the loss takes; a file of the other kind is an error that names the losses for it, except
                    * that pairs serve as labelled rows: of every 1000 pairs all chosen, then all rejected, as TRL */
    bool
        chosen_only; /* supervised training: of pairs only chosen, of labelled rows only the desirable; either
                         * kind of file serves, also without labels */
    int64_t max_length; /* of prompt + completion, in tokens; 0: no limit */
    bool keep_end;      /* truncation_mode "keep_end" instead of "keep_start" */
    dataset_rules rules;
    const char *cache_dir;          /* folder for caches; NULL: none, a temporary file serves */
    const dataset_company *company; /* that a cache is made with; NULL: this process alone */
} dataset_options;

/* How long the parts of an example are, in tokens. */
typedef struct example_lengths {
    int32_t prompt;
    int32_t completion[MAX_COMPLETIONS]; /* 0 where there is none */
} example_lengths;

/* Examples of these lengths with random ids: what a benchmark trains on. */
typedef struct made_examples {
    const example_lengths *lengths; /* [count] */
    int64_t count;
    int32_t completions; /* of each; 1: labelled, desirable and undesirable in turn */
    int64_t vocabulary;  /* ids are below it */
    uint64_t seed;
} made_examples;

typedef struct dataset dataset;

/** Tokenise a file, or map the cache of an earlier run on the same bytes, tokenizer and options.
 *
 *  A completion ends with eos unless its text does.  keep_start drops rows whose prompt fills max_length and cuts
 *  completions at their end; keep_end cuts each prompt + completion at its start and drops nothing.
 *  Rows whose prompt is not a token prefix, undesirable ones left out and pairs of two equal texts are counted in a
 *  warning each; dropped ones in dataset_dropped().
 *  Memory does not grow with the text: ids go to the file as they are made.  Several processes may open the same
 *  cache at once: one tokenises, the others wait for it; those of a company share the work, and fail alike where a row is
 *  bad.  A damaged cache is made anew, with a warning.
 *  The file must not be changed while the data set is open.
 *  Returns: CUDPO_OK; CUDPO_ENOINPUT, CUDPO_EDATA ("path:line: reason"; also where no example is left, or the
 *           tokenizer has no eos token); CUDPO_EWRITE, CUDPO_EPERM, CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status dataset_open(dataset **out, const char *path, const tokenizer *t,
                                         const dataset_options *options);

/** A data set of examples that are made, in a temporary file.
 *  Returns: CUDPO_OK; CUDPO_EWRITE, CUDPO_EPERM, CUDPO_ENOMEM. */
CUDPO_MUST_USE cudpo_status dataset_make(dataset **out, const made_examples *made);

void dataset_close(dataset *d);

int64_t dataset_count(const dataset *d);
example dataset_get(const dataset *d, int64_t i); /* i in 0 .. count-1 */

/* Example i with the completion of example j as a second one, cut to fit max_length behind the prompt of i: what
 * KTO's KL estimate compares.  Both have one completion, of RULES_JOINED and keep_start. */
example dataset_mismatch(const dataset *d, int64_t i, int64_t j);

int64_t dataset_dropped(const dataset *d); /* rows left out because the prompt fills max_length */
int64_t dataset_tokens(const dataset *d);  /* of all groups: prompt + all completions */
int64_t dataset_longest_sequence(const dataset *d); /* tokens of prompt + completion */
/* Tokens of the largest group: prompt + all completions.  The same of prompt + other completion of dataset_mismatch(). */
int64_t dataset_longest(const dataset *d);
int64_t dataset_longest_mismatch(const dataset *d);
hash128 dataset_fingerprint(const dataset *d); /* of all ids in order: keys the reference cache */

#endif /* CUDPO_DATA_DATASET_H */
